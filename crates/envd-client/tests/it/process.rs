//! Process calls, in JSON, whose bytes can be read here as they are on the wire.

use bytes::Bytes;
use envd_client::process::{Command, Event, Input, Mode, Process, TerminalSize};
use envd_client::{Codec, EnvdError, RpcCode};

use crate::agent::{agent, envelope};
use crate::server::{Answer, Server};

const START: &str = "POST /process.Process/Start";
const STREAM_INPUT: &str = "POST /process.Process/StreamInput";

fn started() -> Vec<u8> {
    envelope(0, br#"{"event":{"start":{"pid":7}}}"#)
}

fn said_hi() -> Vec<u8> {
    envelope(0, br#"{"event":{"data":{"stdout":"aGk="}}}"#)
}

fn keepalive() -> Vec<u8> {
    envelope(0, br#"{"event":{"keepalive":{}}}"#)
}

fn ended() -> Vec<u8> {
    envelope(
        0,
        br#"{"event":{"end":{"exitCode":3,"exited":true,"status":"exit status 3"}}}"#,
    )
}

fn command() -> Command {
    Command {
        program: "/bin/true".to_owned(),
        ..Command::default()
    }
}

#[tokio::test]
async fn a_command_is_followed_to_its_end_whatever_the_pieces() {
    let wire = [
        started(),
        keepalive(),
        said_hi(),
        ended(),
        envelope(2, b"{}"),
    ]
    .concat();
    for piece in [1, 3, 7, wire.len()] {
        let pieces = wire.chunks(piece).map(<[u8]>::to_vec);
        let server = Server::start(vec![(START, Answer::ok(pieces))]).await;
        let envd = agent(&server).with_codec(Codec::Json).as_user("root");
        let finished = envd
            .process_start(command())
            .await
            .unwrap()
            .collect(1 << 20)
            .await
            .unwrap();
        assert_eq!(
            (finished.end.exit_code, &finished.stdout[..]),
            (3, &b"hi"[..])
        );
        let seen = &server.seen()[0];
        assert_eq!(seen.headers["e2b-sandbox-id"], "sandbox1");
        assert_eq!(seen.headers["e2b-sandbox-port"], "49983");
        assert_eq!(seen.headers["x-access-token"], "token1");
        assert_eq!(seen.headers["authorization"], "Basic cm9vdDo=");
        assert_eq!(seen.headers["content-type"], "application/connect+json");
        assert!(seen.headers.get("connect-timeout-ms").is_none());
        assert_eq!(
            seen.body,
            envelope(0, br#"{"process":{"cmd":"/bin/true"},"stdin":false}"#)
        );
    }
}

#[tokio::test]
async fn a_terminal_and_a_limit_are_asked_for() {
    let server = Server::start(vec![(START, Answer::ok([started()]))]).await;
    let size = TerminalSize {
        columns: 80,
        rows: 24,
    };
    let limit = Some(std::time::Duration::from_millis(1500));
    let command = Command {
        mode: Mode::Terminal(size),
        limit,
        ..command()
    };
    let envd = agent(&server).with_codec(Codec::Json);
    assert_eq!(
        envd.process_start(command)
            .await
            .unwrap()
            .pid()
            .await
            .unwrap(),
        7
    );
    let seen = &server.seen()[0];
    assert_eq!(seen.headers["connect-timeout-ms"], "1500");
    let expected = br#"{"process":{"cmd":"/bin/true"},"pty":{"size":{"cols":80,"rows":24}}}"#;
    assert_eq!(seen.body, envelope(0, expected));
}

#[tokio::test]
async fn a_finished_stream_leaves_its_connection_for_the_next_call() {
    let whole = Answer::ok([started(), ended(), envelope(2, b"{}")]);
    let server = Server::start(vec![(START, whole.clone()), (START, whole)]).await;
    let envd = agent(&server).with_codec(Codec::Json);
    for _ in 0..2 {
        envd.process_start(command())
            .await
            .unwrap()
            .collect(0)
            .await
            .unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[track_caller]
fn check_refused(error: &EnvdError, code: RpcCode) {
    match error {
        EnvdError::Refused { code: got, .. } => assert_eq!(*got, code),
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_comes_in_the_last_message_of_a_stream_or_as_a_status() {
    let failed = br#"{"error":{"code":"invalid_argument","message":"cwd '/x' does not exist"}}"#;
    let unauthorized = Answer::status(401, r#"{"code":401,"message":"unauthorized access"}"#);
    let gone = r#"{"sandboxId":"sandbox1","message":"The sandbox was not found","code":502}"#;
    let server = Server::start(vec![
        (START, Answer::ok([envelope(2, failed)])),
        (START, unauthorized),
        (START, Answer::status(502, gone)),
    ])
    .await;
    let envd = agent(&server).with_codec(Codec::Json);
    let error = envd
        .process_start(command())
        .await
        .unwrap()
        .next()
        .await
        .unwrap_err();
    check_refused(&error, RpcCode::InvalidArgument);
    let error = envd.process_start(command()).await.unwrap_err();
    check_refused(&error, RpcCode::Unauthenticated);
    let error = envd.process_start(command()).await.unwrap_err();
    assert!(matches!(error, EnvdError::NotRunning { .. }));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_never_taken_for_success() {
    let broken = [
        Answer::ok([started()]),
        Answer {
            cut: true,
            ..Answer::ok([started()])
        },
        Answer::ok([started(), envelope(2, b"{}")]),
        Answer::ok([started(), envelope(1, b"x")]),
        Answer::ok([started(), b"\0\xff\xff\xff\xff".to_vec()]),
        Answer::ok([started(), envelope(0, b"not json")]),
    ];
    let count = broken.len();
    let answers = broken.into_iter().map(|answer| (START, answer)).collect();
    let server = Server::start(answers).await;
    for case in 0..count {
        let mut events = agent(&server)
            .with_codec(Codec::Json)
            .process_start(command())
            .await
            .unwrap();
        assert_eq!(
            events.next().await.unwrap(),
            Some(Event::Started { pid: 7 }),
            "case {case}"
        );
        assert!(events.next().await.is_err(), "case {case}");
    }
}

#[tokio::test]
async fn collected_output_has_a_limit() {
    let answer = Answer::ok([started(), said_hi(), said_hi(), ended(), envelope(2, b"{}")]);
    let server = Server::start(vec![(START, answer)]).await;
    let events = agent(&server)
        .with_codec(Codec::Json)
        .process_start(command())
        .await
        .unwrap();
    assert_eq!(events.collect(3).await.unwrap().stdout, b"hih");
}

#[tokio::test]
async fn input_is_streamed_in_order() {
    let answer = Answer::ok([envelope(0, b"{}"), envelope(2, b"{}")]);
    let server = Server::start(vec![(STREAM_INPUT, answer)]).await;
    let envd = agent(&server).with_codec(Codec::Json);
    let (input, call) = envd.process_stream_input(Process::Pid(7)).await.unwrap();
    let feed = async {
        for byte in [&b"a"[..], b"b"] {
            assert!(
                input
                    .send(Input::Stdin(Bytes::from_static(byte)))
                    .await
                    .unwrap()
            );
        }
        drop(input);
    };
    let (called, ()) = tokio::join!(call, feed);
    called.unwrap();
    let expected = [
        envelope(0, br#"{"start":{"process":{"pid":7}}}"#),
        envelope(0, br#"{"data":{"input":{"stdin":"YQ=="}}}"#),
        envelope(0, br#"{"data":{"input":{"stdin":"Yg=="}}}"#),
    ];
    assert_eq!(server.seen()[0].body, expected.concat());
}

#[tokio::test]
async fn input_for_no_process_is_refused_while_more_is_sent() {
    let failed = br#"{"error":{"code":"not_found","message":"process with pid 7 not found"}}"#;
    let answer = Answer {
        early: true,
        ..Answer::ok([envelope(2, failed)])
    };
    let server = Server::start(vec![(STREAM_INPUT, answer)]).await;
    let envd = agent(&server).with_codec(Codec::Json);
    let (input, call) = envd.process_stream_input(Process::Pid(7)).await.unwrap();
    let error = call.await.unwrap_err();
    assert!(error.is_not_found());
    // The writer learns that nobody reads any more, instead of waiting for ever.
    let more = async {
        while input
            .send(Input::Stdin(Bytes::from_static(&[0; 4096])))
            .await
            .unwrap()
        {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), more)
        .await
        .unwrap();
}
