//! Commands that are killed when nobody wants them any more.

use std::time::Duration;

use envd_client::process::{Command, Event, Run};
use envd_client::{Codec, EnvdError};

use crate::agent::{agent, envelope, until};
use crate::server::{Answer, Server};

const START: &str = "POST /process.Process/Start";
const SIGNAL: &str = "POST /process.Process/SendSignal";
const KILL: &str = r#"{"process":{"pid":7},"signal":"SIGNAL_SIGKILL"}"#;

fn started() -> Vec<u8> {
    envelope(0, br#"{"event":{"start":{"pid":7}}}"#)
}

fn said(stream: &str) -> Vec<u8> {
    let text = format!(r#"{{"event":{{"data":{{"{stream}":"aGk="}}}}}}"#);
    envelope(0, text.as_bytes())
}

fn ended() -> Vec<u8> {
    envelope(
        0,
        br#"{"event":{"end":{"exitCode":3,"exited":true,"status":"exit status 3"}}}"#,
    )
}

/// A command that has started and says no more.
fn silent() -> Answer {
    Answer {
        hangs: true,
        ..Answer::ok([started()])
    }
}

fn done() -> Answer {
    Answer::ok([b"{}".to_vec()])
}

async fn run(server: &Server, limit: Option<Duration>) -> Result<Run, EnvdError> {
    let command = Command {
        env: vec![("A".to_owned(), "b c".to_owned())],
        working_dir: Some("/home/user".to_owned()),
        limit,
        ..Command::of_login_shell("make all")
    };
    let envd = agent(server).with_codec(Codec::Json).as_user("user");
    envd.process_run(command).await
}

fn kills(server: &Server) -> usize {
    let seen = server.seen();
    let kills = seen.iter().filter(|seen| seen.line == SIGNAL);
    kills.inspect(|seen| assert_eq!(seen.body, KILL)).count()
}

#[tokio::test]
async fn a_login_shell_is_run_as_somebody_and_followed_to_its_end() {
    let wire = [started(), said("stdout"), said("stderr"), ended()];
    let answer = Answer::ok(wire.into_iter().chain([envelope(2, b"{}")]));
    let server = Server::start(vec![(START, answer)]).await;
    let mut run = run(&server, Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(run.pid(), 7);
    let hi = bytes::Bytes::from_static(b"hi");
    assert_eq!(run.next().await.unwrap(), Some(Event::Stdout(hi.clone())));
    assert_eq!(run.next().await.unwrap(), Some(Event::Stderr(hi)));
    match run.next().await.unwrap() {
        Some(Event::Ended(end)) => assert_eq!((end.exit_code, end.exited), (3, true)),
        other => panic!("{other:?}"),
    }
    assert_eq!(run.next().await.unwrap(), None);
    drop(run);
    let seen = server.seen();
    assert_eq!(seen[0].headers["authorization"], "Basic dXNlcjo=");
    // The agent's own limit stands behind ours.
    assert_eq!(seen[0].headers["connect-timeout-ms"], "70000");
    let asked = r#"{"process":{"cmd":"/bin/bash","args":["-l","-c","make all"],"envs":{"A":"b c"},"cwd":"/home/user"},"stdin":false}"#;
    assert_eq!(seen[0].body, envelope(0, asked.as_bytes()));
    // What has ended is not killed: its number may be another's.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(kills(&server), 0);
}

#[tokio::test]
async fn a_command_is_killed_when_its_run_is_dropped() {
    let server = Server::start(vec![(START, silent()), (SIGNAL, done())]).await;
    drop(run(&server, None).await.unwrap());
    until("the kill", || kills(&server) == 1).await;
    let start = &server.seen()[0];
    assert!(start.headers.get("connect-timeout-ms").is_none());
}

#[tokio::test]
async fn a_command_is_killed_at_its_limit_and_the_caller_is_told_so() {
    let server = Server::start(vec![(START, silent()), (SIGNAL, done())]).await;
    let limit = Duration::from_millis(100);
    let mut run = run(&server, Some(limit)).await.unwrap();
    let error = run.next().await.unwrap_err();
    assert!(matches!(error, EnvdError::CommandTimeout { after } if after == limit));
    drop(run);
    until("the kill", || kills(&server) == 1).await;
}

#[tokio::test]
async fn a_command_that_never_stops_talking_ends_at_its_limit_too() {
    let talk = std::iter::once(started()).chain(std::iter::repeat_n(said("stdout"), 200_000));
    let server = Server::start(vec![(START, Answer::ok(talk)), (SIGNAL, done())]).await;
    let mut run = run(&server, Some(Duration::from_millis(50))).await.unwrap();
    let error = loop {
        match run.next().await {
            Ok(Some(Event::Stdout(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EnvdError::CommandTimeout { .. }), "{error}");
}

#[tokio::test]
async fn a_kill_is_one_call_and_killing_what_has_ended_is_no_error() {
    let gone = r#"{"code":"not_found","message":"process with pid 7 not found"}"#;
    let server = Server::start(vec![
        (START, silent()),
        (SIGNAL, done()),
        (SIGNAL, Answer::status(404, gone)),
        (
            SIGNAL,
            Answer::status(500, r#"{"code":"internal","message":"m"}"#),
        ),
    ])
    .await;
    let run = run(&server, None).await.unwrap();
    run.kill().await.unwrap();
    run.kill().await.unwrap();
    assert!(run.kill().await.is_err());
}

#[tokio::test]
async fn a_broken_stream_kills_what_may_still_run() {
    let broken = Answer {
        cut: true,
        ..Answer::ok([started()])
    };
    let server = Server::start(vec![(START, broken), (SIGNAL, done())]).await;
    let mut run = run(&server, None).await.unwrap();
    assert!(run.next().await.is_err());
    until("the kill", || kills(&server) == 1).await;
    drop(run);
    assert_eq!(kills(&server), 1);
}

#[tokio::test]
async fn a_command_that_is_refused_was_none() {
    let failed = br#"{"error":{"code":"invalid_argument","message":"cwd '/x' does not exist"}}"#;
    let server = Server::start(vec![(START, Answer::ok([envelope(2, failed)]))]).await;
    let error = run(&server, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cwd '/x' does not exist (invalid_argument)"
    );
    assert_eq!(kills(&server), 0);
}
