use std::fmt::Debug;

use super::*;
use crate::filesystem::{
    CreateWatcherRequest, EntryInfo, EventType, FileType, FilesystemEvent, WatchDirResponse,
    watch_dir_response,
};
use crate::process::process_event::data_event::Output;
use crate::process::process_event::{DataEvent, EndEvent, Event, KeepAlive, StartEvent};
use crate::process::process_input::Input;
use crate::process::process_selector::Selector;
use crate::process::{
    ProcessConfig, ProcessEvent, ProcessInput, ProcessSelector, SendInputRequest,
    SendSignalRequest, Signal, StartRequest, StartResponse, StreamInputRequest, UpdateRequest,
    stream_input_request,
};

#[track_caller]
fn check_reads<M: WireMessage + PartialEq + Debug>(json: &str, expected: &M) {
    assert_eq!(&Codec::Json.decode::<M>(json.as_bytes()).unwrap(), expected);
}

/// Both codecs, both directions.
#[track_caller]
fn check<M: WireMessage + PartialEq + Debug>(json: &str, message: &M) {
    let mut written = Vec::new();
    Codec::Json.encode(message, &mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), json);
    check_reads(json, message);
    let mut binary = Vec::new();
    Codec::Binary.encode(message, &mut binary).unwrap();
    assert_eq!(&Codec::Binary.decode::<M>(&binary).unwrap(), message);
}

fn by_pid(pid: u32) -> ProcessSelector {
    ProcessSelector {
        selector: Some(Selector::Pid(pid)),
    }
}

fn event(event: Event) -> StartResponse {
    StartResponse {
        event: MessageField::some(ProcessEvent { event: Some(event) }),
    }
}

#[test]
fn start_request_of_the_sdk() {
    let message = StartRequest {
        process: MessageField::some(ProcessConfig {
            cmd: "/bin/bash".to_owned(),
            args: ["-l", "-c", "echo hi"].map(str::to_owned).to_vec(),
            envs: [("A".to_owned(), "1".to_owned())].into_iter().collect(),
            cwd: Some("/tmp".to_owned()),
        }),
        stdin: Some(false),
        ..Default::default()
    };
    check(
        r#"{"process":{"cmd":"/bin/bash","args":["-l","-c","echo hi"],"envs":{"A":"1"},"cwd":"/tmp"},"stdin":false}"#,
        &message,
    );
}

#[test]
fn small_requests_of_the_sdk() {
    check(
        r#"{"process":{"pid":7},"input":{"stdin":"eA=="}}"#,
        &SendInputRequest {
            process: MessageField::some(by_pid(7)),
            input: MessageField::some(ProcessInput {
                input: Some(Input::Stdin(b"x".as_slice().into())),
            }),
        },
    );
    check(
        r#"{"process":{"pid":7},"signal":"SIGNAL_SIGKILL"}"#,
        &SendSignalRequest {
            process: MessageField::some(by_pid(7)),
            signal: Signal::SIGNAL_SIGKILL.into(),
        },
    );
    let update = UpdateRequest {
        process: MessageField::some(by_pid(7)),
        pty: MessageField::some(crate::process::PTY {
            size: MessageField::some(crate::process::pty::Size { cols: 4, rows: 3 }),
        }),
    };
    check(
        r#"{"process":{"pid":7},"pty":{"size":{"cols":4,"rows":3}}}"#,
        &update,
    );
    let watch = CreateWatcherRequest {
        path: "/d".to_owned(),
        recursive: true,
        ..Default::default()
    };
    check(r#"{"path":"/d","recursive":true}"#, &watch);
}

#[test]
fn process_events_as_on_the_wire() {
    check(
        r#"{"event":{"start":{"pid":7}}}"#,
        &event(Event::Start(Box::new(StartEvent { pid: 7 }))),
    );
    let data = DataEvent {
        output: Some(Output::Stdout(b"hi\n".as_slice().into())),
    };
    check(
        r#"{"event":{"data":{"stdout":"aGkK"}}}"#,
        &event(Event::Data(Box::new(data))),
    );
    let end = EndEvent {
        exited: true,
        status: "exit status 0".to_owned(),
        ..Default::default()
    };
    check(
        r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#,
        &event(Event::End(Box::new(end))),
    );
    let killed = EndEvent {
        exit_code: -1,
        status: "signal: killed".to_owned(),
        error: Some("signal: killed".to_owned()),
        ..Default::default()
    };
    check(
        r#"{"event":{"end":{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}}}"#,
        &event(Event::End(Box::new(killed))),
    );
    check(
        r#"{"event":{"keepalive":{}}}"#,
        &event(Event::Keepalive(Box::<KeepAlive>::default())),
    );
}

#[test]
fn stream_input_data_is_field_two() {
    let data = stream_input_request::DataEvent {
        input: MessageField::some(ProcessInput {
            input: Some(Input::Pty(b"x".as_slice().into())),
        }),
    };
    let message = StreamInputRequest {
        event: Some(stream_input_request::Event::Data(Box::new(data))),
    };
    let mut binary = Vec::new();
    Codec::Binary.encode(&message, &mut binary).unwrap();
    assert_eq!(binary, [0x12, 5, 0x12, 3, 0x12, 1, b'x']);
    check(r#"{"data":{"input":{"pty":"eA=="}}}"#, &message);
}

#[test]
fn entries_write_wide_numbers_as_text_and_times_in_utc() {
    let entry = EntryInfo {
        name: "a".to_owned(),
        r#type: FileType::FILE_TYPE_FILE.into(),
        size: 13,
        modified_time: MessageField::some(Timestamp {
            seconds: 1,
            nanos: 500_000_000,
            ..Default::default()
        }),
        is_symlink: true,
        ..Default::default()
    };
    check(
        r#"{"name":"a","type":"FILE_TYPE_FILE","size":"13","modifiedTime":"1970-01-01T00:00:01.500Z","isSymlink":true}"#,
        &entry,
    );
    check_reads(
        r#"{"name":"a","type":1,"size":13,"modified_time":"1970-01-01T00:00:01.5Z","is_symlink":true,"owner":null,"new":[1]}"#,
        &entry,
    );
}

#[test]
fn watch_events_as_on_the_wire() {
    let event = FilesystemEvent {
        name: "a/b".to_owned(),
        r#type: EventType::EVENT_TYPE_CREATE.into(),
        ..Default::default()
    };
    check(
        r#"{"filesystem":{"name":"a/b","type":"EVENT_TYPE_CREATE"}}"#,
        &WatchDirResponse {
            event: Some(watch_dir_response::Event::Filesystem(Box::new(event))),
        },
    );
    let start = watch_dir_response::Event::Start(Default::default());
    check(r#"{"start":{}}"#, &WatchDirResponse { event: Some(start) });
}

#[test]
fn lenient_input() {
    for text in ["eA", "eA=="] {
        let json = format!(r#"{{"input":{{"stdin":"{text}"}},"more":{{}}}}"#);
        let read: SendInputRequest = Codec::Json.decode(json.as_bytes()).unwrap();
        assert_eq!(
            read.input.input,
            Some(Input::Stdin(b"x".as_slice().into())),
            "{text}"
        );
    }
    check_reads("", &StartRequest::default());
    check_reads("{}", &StartRequest::default());
    check_reads(
        r#"{"signal":9}"#,
        &SendSignalRequest {
            signal: Signal::SIGNAL_SIGKILL.into(),
            ..Default::default()
        },
    );
}

#[test]
fn nonsense_is_an_error() {
    for json in ["[]", "{", r#"{"process":7}"#, r#"{"signal":"SIGNAL_NOPE"}"#] {
        assert!(
            Codec::Json
                .decode::<SendSignalRequest>(json.as_bytes())
                .is_err(),
            "{json}"
        );
    }
    assert!(Codec::Binary.decode::<StartRequest>(&[0x0a, 0x7f]).is_err());
}
