//! Servers to test against, and calls to them.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use envd::config::Config;
use envd::server::{Start, serve};
use serde_json::Value;

use crate::http::{Connection, PATIENCE, Reply};

pub const TOKEN: &str = "0123abcd";

pub struct Server {
    pub address: SocketAddr,
}

impl Server {
    /// Nobody set it up yet: open to all.
    pub fn open() -> Self {
        Self::start(None)
    }

    /// With a token from the platform.
    pub fn secured() -> Self {
        let config = format!(
            r#"{{"version":3,"sandbox_id":"i1","template_id":"t1","access_token":"{TOKEN}"}}"#
        );
        Self::start(Some(Config::parse(config.as_bytes()).unwrap()))
    }

    /// With a configuration that has no token.
    pub fn unsecured() -> Self {
        Self::start(Some(
            Config::parse(br#"{"version":3,"sandbox_id":"i1"}"#).unwrap(),
        ))
    }

    fn start(config: Option<Config>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, ready) = mpsc::channel();
        // It serves until the test binary ends.
        thread::spawn(move || {
            let ready = Box::new(move || sender.send(()).unwrap());
            serve(Start {
                listener,
                config,
                in_sandbox: true,
                disk: None,
                log: None,
                is_first: true,
                startup: None,
                variables: None,
                ready,
            })
            .map(|never| match never {})
        });
        ready.recv_timeout(PATIENCE).unwrap();
        Self { address }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let mut connection = self.connect();
        connection.request(method, path, headers, body);
        connection.reply()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    /// A unary call in JSON.
    pub fn call(&self, method: &str, body: &Value) -> Reply {
        self.call_with(method, &[], body)
    }

    pub fn call_with(&self, method: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.request(
            "POST",
            &path_of(method),
            &headers,
            body.to_string().as_bytes(),
        )
    }

    /// A call that fails with this code; its message.
    #[track_caller]
    pub fn call_fails(&self, method: &str, body: &Value, code: &str) -> String {
        let reply = self.call(method, body);
        assert_ne!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let error = reply.json();
        assert_eq!(error["code"], code, "{error}");
        error["message"].as_str().unwrap().to_owned()
    }
}

/// `Process/List` → `/process.Process/List`.
pub fn path_of(method: &str) -> String {
    let (service, name) = method.split_once('/').unwrap();
    format!("/{}.{service}/{name}", service.to_lowercase())
}

/// Waits until `check` gives something.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
