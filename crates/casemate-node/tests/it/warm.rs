//! Sandboxes that wait for being claimed.

use super::*;
use casemate_rpc::ClaimRequest;

fn warm(life_ms: u64) -> CreateRequest {
    CreateRequest {
        warm: true,
        creator: "a server".into(),
        ..request(life_ms)
    }
}

fn claim(life_ms: u64) -> ClaimRequest {
    ClaimRequest {
        life_ms,
        on_timeout: OnTimeout::Pause(Kept::Files),
        entrance: Some(Entrance::default()),
    }
}

#[tokio::test]
async fn one_is_given_away_once_and_lives_anew() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let one = warm(HOUR);
    let made = node.create(one.clone()).await.unwrap();
    let info = node.info().await.unwrap();
    assert_eq!((info.sandboxes, info.sandboxes_warm), (0, 1));

    let given = node.claim(&one.sandbox, claim(60_000)).await.unwrap();
    assert!(given.started_at >= made.started_at && given.ends_at < made.ends_at);
    let life = given.ends_at.duration_since(given.started_at);
    assert_eq!(life.as_millis(), 60_000);
    let info = node.info().await.unwrap();
    assert_eq!((info.sandboxes, info.sandboxes_warm), (1, 0));
    assert_eq!(
        node.claim(&one.sandbox, claim(1)).await,
        Err(NodeError::Exists(one.sandbox.clone()))
    );
    let told = |event| match event {
        NodeEvent::Running(running) => {
            assert_eq!(running.creator, "a server");
            (running.warm, running.ends_at)
        }
        other => panic!("{other:?}"),
    };
    loop {
        if let event @ NodeEvent::Running(_) = next(&mut events).await {
            assert_eq!(told(event), (true, made.ends_at));
            break;
        }
    }
    assert_eq!(told(next(&mut events).await), (false, given.ends_at));

    // The next process of the node knows it, too.
    drop(node);
    let node = host.start().await;
    let running = node.running();
    assert_eq!((running.len(), running[0].warm), (1, false));
    assert_eq!(running[0].creator, "a server");
    assert_eq!(running[0].ends_at, given.ends_at);
    assert_eq!(running[0].on_timeout, OnTimeout::Pause(Kept::Files));
}

#[tokio::test]
async fn one_that_nobody_claims_ends_by_itself() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let one = warm(50);
    node.create(one.clone()).await.unwrap();
    assert_eq!(ended(&mut events, &one.sandbox).await, EndReason::Expired);
    assert_eq!(
        node.claim(&one.sandbox, claim(1)).await,
        Err(NodeError::NotFound(one.sandbox))
    );
}

#[tokio::test]
async fn they_give_way_to_whoever_is_asked_for() {
    let host = Host::new();
    let node = host.start_with(4, 16).await;
    let mut events = node.watch().await.unwrap();
    let made = [warm(HOUR), warm(HOUR), warm(HOUR)];
    for one in &made {
        node.create(one.clone()).await.unwrap();
    }
    // A quarter is left to those that somebody asks for.
    let refused = node.create(warm(HOUR)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Full { .. }), "{refused:?}");
    // One of them is somebody's now and stays.
    node.claim(&made[0].sandbox, claim(HOUR)).await.unwrap();
    node.create(request(HOUR)).await.unwrap();
    for gone in &made[1..] {
        node.create(request(HOUR)).await.unwrap();
        assert_eq!(ended(&mut events, &gone.sandbox).await, EndReason::Killed);
    }
    let full = node.create(request(HOUR)).await.unwrap_err();
    assert!(matches!(full, NodeError::Full { .. }), "{full:?}");
    let running = node.running();
    assert_eq!(running.len(), 4);
    assert!(running.iter().any(|one| one.sandbox == made[0].sandbox));
}

#[tokio::test]
async fn they_give_way_to_one_that_goes_on() {
    let host = Host::new();
    let node = host.start_with(2, 16).await;
    let sleeper = request(HOUR);
    node.create(sleeper.clone()).await.unwrap();
    node.pause(&sleeper.sandbox, Kept::Memory).await.unwrap();
    node.create(request(HOUR)).await.unwrap();
    node.create(warm(HOUR)).await.unwrap();
    let resumed = casemate_rpc::ResumeRequest {
        sandbox: sleeper,
        from: Kept::Memory,
        with_memory_only: false,
    };
    node.resume(resumed).await.unwrap();
    let info = node.info().await.unwrap();
    assert_eq!((info.sandboxes, info.sandboxes_warm), (2, 0));
}
