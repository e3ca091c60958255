//! What edges are told of sandboxes.

use casemate_rpc::{Located, ResumeRequest};
use casemate_types::{Ingress, TokenHash};

use super::*;

const LONG: u64 = 600_000;

fn private(byte: u8) -> Option<Entrance> {
    Some(Entrance {
        ingress: Ingress {
            allow_public_traffic: Some(false),
            https_ports: Some(vec![443]),
            ..Ingress::default()
        },
        traffic_token: Some(TokenHash([byte; 32])),
    })
}

fn with(entrance: Option<Entrance>) -> CreateRequest {
    CreateRequest {
        entrance,
        ..request(LONG)
    }
}

async fn located(node: &Node, id: &SandboxId) -> Option<Located> {
    node.locate(id).await.unwrap()
}

#[tokio::test]
async fn how_traffic_comes_in_is_known_through_pauses_and_restarts() {
    let host = Host::new();
    let node = host.start().await;
    let request = with(private(1));
    let id = &request.sandbox;
    assert_eq!(located(&node, id).await, None);
    let made = node.create(request.clone()).await.unwrap();
    let seen = located(&node, id).await.unwrap();
    let expected = Located {
        asleep: false,
        started_at: made.started_at,
        entrance: private(1),
    };
    assert_eq!(seen, expected);
    drop(node);
    let node = host.start().await;
    assert_eq!(located(&node, id).await, Some(expected));
    for kept in [Kept::Memory, Kept::Files] {
        node.pause(id, kept).await.unwrap();
        let paused = located(&node, id).await.unwrap();
        assert!(paused.asleep && paused.entrance == private(1), "{kept:?}");
        // Who resumes it need not say it again, as a control process that does not know of it.
        let resume = ResumeRequest {
            sandbox: CreateRequest {
                entrance: None,
                ..request.clone()
            },
            from: kept,
            with_memory_only: false,
        };
        let resumed = node.resume(resume).await.unwrap();
        let seen = located(&node, id).await.unwrap();
        assert_eq!(seen.started_at, resumed.started_at);
        assert!(!seen.asleep && seen.entrance == private(1), "{kept:?}");
    }
    node.kill(id, EndReason::Killed).await.unwrap();
    assert_eq!(located(&node, id).await, None);
}

#[tokio::test]
async fn a_warm_one_is_nobodys_until_it_is_given_away_with_its_entrance() {
    let host = Host::new();
    let node = host.start().await;
    let mut warm = with(None);
    warm.warm = true;
    node.create(warm.clone()).await.unwrap();
    assert_eq!(located(&node, &warm.sandbox).await, None);
    let claim = casemate_rpc::ClaimRequest {
        life_ms: LONG,
        on_timeout: OnTimeout::Kill,
        entrance: private(2),
    };
    node.claim(&warm.sandbox, claim).await.unwrap();
    let seen = located(&node, &warm.sandbox).await.unwrap();
    assert_eq!(seen.entrance, private(2));
}

/// Nothing is made up of a sandbox whose maker did not say it: it might be private.
#[tokio::test]
async fn what_nobody_said_is_not_known() {
    let host = Host::new();
    let node = host.start().await;
    let request = with(None);
    node.create(request.clone()).await.unwrap();
    let path = host.journal().join(format!("{}.json", request.sandbox));
    let mut entry: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    entry.as_object_mut().unwrap().remove("entrance");
    drop(node);
    // As an earlier version wrote it.
    std::fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
    let node = host.start().await;
    let seen = located(&node, &request.sandbox).await.unwrap();
    assert_eq!(seen.entrance, None);
}
