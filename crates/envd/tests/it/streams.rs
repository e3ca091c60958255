//! Streams of the Connect protocol, message by message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::Connection;
use crate::server::{Server, path_of};

pub struct Stream {
    pub connection: Connection,
    buffer: Vec<u8>,
}

/// One message with its flags.
pub type Message = (u8, Value);

pub fn envelope(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat()
}

impl Stream {
    pub fn open(server: &Server, method: &str, headers: &[(&str, &str)], body: &Value) -> Self {
        let mut connection = server.connect();
        let headers = [&[("content-type", "application/connect+json")], headers].concat();
        connection.request("POST", &path_of(method), &headers, &envelope(body));
        Self::answered(connection)
    }

    /// Reads the head, which is the same for all streams.
    pub fn answered(mut connection: Connection) -> Self {
        let head = connection.head();
        assert_eq!(head.status, 200);
        assert_eq!(
            head.header("content-type"),
            Some("application/connect+json")
        );
        let mut buffer = Vec::new();
        // Short answers have a length.
        if let Some(length) = head.header("content-length") {
            let length: usize = length.parse().unwrap();
            buffer = connection.bytes(length);
        }
        Self { connection, buffer }
    }

    pub fn next(&mut self) -> Message {
        loop {
            if let Some((flags, length)) = self.head()
                && self.buffer.len() >= 5 + length
            {
                let payload: Vec<u8> = self.buffer.drain(..5 + length).skip(5).collect();
                return (flags, serde_json::from_slice(&payload).unwrap());
            }
            let chunk = self
                .connection
                .chunk()
                .expect("ended without an end-of-stream message");
            self.buffer.extend_from_slice(&chunk);
        }
    }

    fn head(&self) -> Option<(u8, usize)> {
        let [flags, length @ ..] = *self.buffer.first_chunk::<5>()?;
        Some((flags, u32::from_be_bytes(length) as usize))
    }

    /// All messages up to the last one.
    pub fn rest(&mut self) -> (Vec<Value>, Value) {
        let mut messages = Vec::new();
        loop {
            match self.next() {
                (2, end) => return (messages, end),
                (0, message) => messages.push(message),
                (flags, _) => panic!("flags {flags}"),
            }
        }
    }

    /// The pid in the start event that comes first.
    #[track_caller]
    pub fn pid(&mut self) -> u64 {
        let (flags, message) = self.next();
        assert_eq!(flags, 0, "{message}");
        message["event"]["start"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{message}"))
    }

    /// Everything after the start event.
    #[track_caller]
    pub fn finish(&mut self) -> Finished {
        let (events, end_of_stream) = self.rest();
        let mut finished = Finished {
            end_of_stream,
            ..Finished::default()
        };
        for event in events {
            let event = &event["event"];
            assert!(finished.end.is_null(), "after the end: {event}");
            for (name, bytes) in [
                ("stdout", &mut finished.stdout),
                ("stderr", &mut finished.stderr),
                ("pty", &mut finished.pty),
            ] {
                if let Some(text) = event["data"][name].as_str() {
                    let chunk = STANDARD.decode(text).unwrap();
                    finished.longest = finished.longest.max(chunk.len());
                    bytes.extend_from_slice(&chunk);
                }
            }
            if event.get("keepalive").is_some() {
                finished.keepalives += 1;
            }
            finished.end = event.get("end").cloned().unwrap_or_default();
        }
        finished
    }
}

/// What a process did.
#[derive(Debug, Default)]
pub struct Finished {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    pub longest: usize,
    pub keepalives: usize,
    pub end: Value,
    pub end_of_stream: Value,
}

impl Finished {
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The exit code of a clean stream.
    #[track_caller]
    pub fn code(&self) -> i64 {
        assert_eq!(self.end_of_stream, json!({}), "{self:?}");
        assert!(self.end.is_object(), "no end: {self:?}");
        self.end
            .get("exitCode")
            .map_or(0, |code| code.as_i64().unwrap())
    }
}

/// Starts `/bin/sh -c script`, with more fields for the process or the request.
pub fn start(server: &Server, script: &str, more: &Value) -> Stream {
    start_with(server, &[], script, more)
}

pub fn start_with(server: &Server, headers: &[(&str, &str)], script: &str, more: &Value) -> Stream {
    let mut body = json!({"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": false});
    for (name, value) in more.as_object().unwrap() {
        match name.as_str() {
            "cwd" | "envs" | "cmd" | "args" => body["process"][name] = value.clone(),
            _ => body[name] = value.clone(),
        }
    }
    Stream::open(server, "Process/Start", headers, &body)
}

/// Runs a script to its end.
#[track_caller]
pub fn run(server: &Server, script: &str, more: &Value) -> Finished {
    let mut stream = start(server, script, more);
    stream.pid();
    stream.finish()
}

/// A start that is refused: code and message.
#[track_caller]
pub fn refused(mut stream: Stream) -> (String, String) {
    let (flags, end) = stream.next();
    assert_eq!(flags, 2, "{end}");
    let text = |name: &str| end["error"][name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}
