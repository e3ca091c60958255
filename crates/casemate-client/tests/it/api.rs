//! The REST API.

use casemate_client::api::{ForkResult, Kept, NewSandbox, SandboxFilter};
use casemate_client::{Admin, Api, ApiError, Transport};

use crate::server::{Answer, Server};

const LISTED: &str = r#"{"templateID":"t","sandboxID":"ID","clientID":"c","startedAt":"2026-01-01T00:00:00Z","endAt":"2026-01-01T00:05:00Z","cpuCount":2,"memoryMB":512,"diskSizeMB":10240,"state":"running","envdVersion":"0.6.12"}"#;

fn page(ids: &[&str]) -> Answer {
    let rows: Vec<_> = ids
        .iter()
        .map(|id| LISTED.replace("ID\",\"cl", &format!("{id}\",\"cl")))
        .collect();
    Answer::ok([format!("[{}]", rows.join(",")).into_bytes()])
}

fn api(server: &Server) -> Api {
    Api::new(Transport::new(), server.url.parse().unwrap(), "e2b_00").unwrap()
}

#[tokio::test]
async fn all_pages_of_a_list_are_followed() {
    let first = Answer {
        headers: vec![("X-Next-Token", "a=")],
        ..page(&["s1", "s2"])
    };
    let server = Server::start(vec![
        ("GET /v2/sandboxes", first),
        ("GET /v2/sandboxes?nextToken=a%3D", page(&["s3"])),
    ])
    .await;
    let listed = api(&server)
        .sandbox_list(&SandboxFilter::default())
        .await
        .unwrap();
    let ids: Vec<_> = listed
        .iter()
        .map(|sandbox| &sandbox.sandbox_id[..])
        .collect();
    assert_eq!(ids, ["s1", "s2", "s3"]);
    assert_eq!(server.seen()[1].headers["x-api-key"], "e2b_00");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_create_is_sent_once_and_its_refusal_says_why() {
    let full = r#"{"code":503,"message":"Failed to place sandbox","error_code":"sandbox_capacity_unavailable"}"#;
    let refused = Answer {
        headers: vec![("Should-Retry", "false")],
        ..Answer::status(503, full)
    };
    let server = Server::start(vec![("POST /v2/sandboxes", refused)]).await;
    let new = NewSandbox {
        template: "base".to_owned(),
        ..NewSandbox::default()
    };
    let error = api(&server).sandbox_create(&new).await.err().unwrap();
    assert!(!error.is_retryable());
    match error {
        ApiError::Refused { error_code, .. } => {
            assert_eq!(error_code.as_deref(), Some("sandbox_capacity_unavailable"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.seen().len(), 1);
    assert_eq!(server.seen()[0].body, r#"{"templateID":"base"}"#);
}

#[tokio::test]
async fn killing_what_is_gone_is_no_error_but_other_refusals_are() {
    let server = Server::start(vec![
        (
            "DELETE /sandboxes/a",
            Answer {
                status: 204,
                ..Answer::default()
            },
        ),
        (
            "DELETE /sandboxes/b",
            Answer::status(404, r#"{"code":404,"message":"no"}"#),
        ),
        (
            "DELETE /sandboxes/c",
            Answer::status(409, r#"{"code":409,"message":"busy"}"#),
        ),
    ])
    .await;
    let api = api(&server);
    assert!(api.sandbox_kill("a").await.unwrap());
    assert!(!api.sandbox_kill("b").await.unwrap());
    assert!(api.sandbox_kill("c").await.is_err());
}

const MADE: &str = r#"{"templateID":"t","sandboxID":"s","clientID":"c","envdVersion":"0.6.12"}"#;

#[tokio::test]
async fn a_pause_and_a_connect_name_only_what_is_not_usual() {
    let gone = Answer {
        status: 204,
        ..Answer::default()
    };
    let server = Server::start(vec![
        ("POST /sandboxes/s/pause", gone.clone()),
        ("POST /sandboxes/s/pause", gone),
        ("POST /v2/sandboxes/s/connect", Answer::status(201, MADE)),
        ("POST /v2/sandboxes/s/connect", Answer::status(200, MADE)),
    ])
    .await;
    let api = api(&server);
    api.sandbox_pause("s", Kept::Memory).await.unwrap();
    api.sandbox_pause("s", Kept::Files).await.unwrap();
    let woken = api.sandbox_connect("s", None, Kept::Files).await;
    assert!(woken.is_ok_and(|found| found.resumed));
    let running = api.sandbox_connect("s", None, Kept::Memory).await;
    assert!(running.is_ok_and(|found| !found.resumed));
    let bodies = server.seen().into_iter().map(|seen| seen.body);
    let bodies: Vec<_> = bodies.collect();
    assert_eq!(
        bodies,
        ["{}", r#"{"memory":false}"#, r#"{"memory":false}"#, "{}"]
    );
}

#[tokio::test]
async fn a_snapshots_id_stays_one_piece_of_the_path_and_its_list_is_followed() {
    let info = |id: &str| format!(r#"{{"snapshotID":"{id}","names":[]}}"#);
    let page = |id: &str| Answer::ok([format!("[{}]", info(id)).into_bytes()]);
    let first = Answer {
        headers: vec![("X-Next-Token", "a=")],
        ..page("t/b:v1")
    };
    let taken = Answer::status(201, &info("t/b:v1"));
    let gone = Answer {
        status: 204,
        ..Answer::default()
    };
    let server = Server::start(vec![
        ("POST /sandboxes/s/snapshots", taken),
        ("GET /snapshots?sandboxID=s", first),
        (
            "GET /snapshots?sandboxID=s&nextToken=a%3D",
            page("c:default"),
        ),
        ("DELETE /templates/t%2Fb%3Av1", gone),
    ])
    .await;
    let api = api(&server);
    let taken = api.snapshot_take("s", Some("b:v1")).await.unwrap();
    assert_eq!(server.seen()[0].body, r#"{"name":"b:v1"}"#);
    let listed = api.snapshot_list(Some("s")).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|one| &one.snapshot_id[..]).collect();
    assert_eq!(ids, ["t/b:v1", "c:default"]);
    assert!(api.snapshot_delete(&taken.snapshot_id).await.unwrap());
}

#[tokio::test]
async fn of_forks_some_may_be_refused() {
    let some = format!(r#"[{{"sandbox":{MADE}}},{{"error":{{"code":429,"message":"full"}}}}]"#);
    let server = Server::start(vec![("POST /sandboxes/s/fork", Answer::status(201, &some))]).await;
    let forks = api(&server).sandbox_fork("s", 2, None).await.unwrap();
    assert!(matches!(&forks[0], ForkResult::Sandbox(made) if made.sandbox_id == "s"));
    assert!(matches!(&forks[1], ForkResult::Error(error) if error.code == 429));
    assert_eq!(server.seen()[0].body, r#"{"count":2}"#);
}

#[tokio::test]
async fn keys_are_managed_with_the_administrators_token() {
    let mask = r#""mask":{"prefix":"e2b_","valueLength":40,"maskedValuePrefix":"aa","maskedValueSuffix":"bbbb"},"createdAt":"2026-01-01T00:00:00Z","createdBy":null,"lastUsed":null"#;
    let created = format!(r#"{{"id":"k1","name":"ci","key":"e2b_aa",{mask}}}"#);
    let server = Server::start(vec![
        (
            "POST /admin/teams/t1/api-keys",
            Answer::ok([created.into_bytes()]),
        ),
        (
            "DELETE /admin/teams/t1/api-keys/k1",
            Answer {
                status: 204,
                ..Answer::default()
            },
        ),
    ])
    .await;
    let admin = Admin::new(Transport::new(), server.url.parse().unwrap(), "root", "t1").unwrap();
    assert_eq!(admin.key_create("ci").await.unwrap().key, "e2b_aa");
    assert!(admin.key_revoke("k1").await.unwrap());
    for seen in server.seen() {
        assert_eq!(seen.headers["x-admin-token"], "root", "{}", seen.line);
        assert_eq!(seen.headers["x-team-id"], "t1", "{}", seen.line);
    }
}

#[tokio::test]
async fn nobody_there_is_said_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let api = Api::new(Transport::new(), base.parse().unwrap(), "e2b_00").unwrap();
    match api.sandbox_by_id("a").await {
        Err(ApiError::Http(error)) => assert!(error.is_connect()),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("an answer from nobody"),
    }
}
