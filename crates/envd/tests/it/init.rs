//! The init, as process 1 of a pid namespace, with its three descriptors.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::PATIENCE;
use crate::server::{Server, TOKEN, eventually};
use crate::streams::{Finished, Stream};

/// A namespace of processes and mounts around the init. What the init writes goes to copies.
const AROUND: &str = "mount -t tmpfs none /run && cp /etc/hosts /run/hosts && \
                      mount --bind /run/hosts /etc/hosts && exec \"$0\" init";

pub struct Sandbox {
    pub server: Server,
    child: Child,
    ready: File,
    _dir: TempDir,
}

impl Sandbox {
    fn start(config: &str) -> Self {
        Self::start_around(AROUND, config)
    }

    /// `around` has the program as `$0`.
    fn start_around(around: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, theirs) = std::io::pipe().unwrap();
        // The shell moves what it was given to the numbers of the contract.
        let script = "exec 4<&0 5>&1 3<\"$1\" 0</dev/null 1>&2; \
                      exec unshare --fork --pid --mount --mount-proc --kill-child \
                      sh -c \"$2\" \"$3\"";
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&path)
            .args([around, env!("CARGO_BIN_EXE_envd")])
            .stdin(OwnedFd::from(listener))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = File::from(OwnedFd::from(ready));
        Self {
            server: Server { address },
            child,
            ready,
            _dir: dir,
        }
    }

    fn secured() -> Self {
        Self::ready(AROUND, json!({}))
    }

    /// Waits until it serves. `more` is added to its configuration.
    pub fn ready(around: &str, more: Value) -> Self {
        let mut config = json!({
            "version": 3, "sandbox_id": "i1", "template_id": "t1", "access_token": TOKEN,
            "envs": {"FOO": "bar"}, "default_user": "root", "default_workdir": "/usr",
            "hostname": "my-sandbox", "from_the_future": true
        });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        let mut sandbox = Self::start_around(around, &config.to_string());
        let mut byte = [0];
        sandbox.ready.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"1");
        sandbox
    }

    /// Runs a script inside.
    pub fn run(&self, script: &str) -> Finished {
        let body = json!({"process": {"cmd": "/bin/sh", "args": ["-c", script]}});
        let token = [("x-access-token", TOKEN)];
        let mut stream = Stream::open(&self.server, "Process/Start", &token, &body);
        stream.pid();
        stream.finish()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // With it goes the namespace, and all that is in it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_sandbox_from_its_configuration() {
    let sandbox = Sandbox::secured();
    // Closed from the first request on.
    sandbox.server.get("/envs").expect(401);
    sandbox.server.get("/health").expect(204);
    let script = "pwd; echo $FOO $E2B_SANDBOX_ID; cat /run/e2b/.E2B_SANDBOX_ID /proc/1/comm; \
                  cat /proc/$PPID/comm; grep my-sandbox /etc/hosts; ls /proc/self/fd | wc -l";
    let finished = sandbox.run(script);
    assert_eq!(
        finished.out(),
        "/usr\nbar i1\ni1init\nenvd\n127.0.1.1 my-sandbox\n4\n",
        "{finished:?}"
    );
}

#[test]
fn the_template_starts_with_the_operators_variables_and_clients_get_theirs_too() {
    let started = "env > /run/started; sleep 60";
    let sandbox = Sandbox::ready(
        AROUND,
        json!({
            "site_envs": {"PROXY": "site", "FOO": "site"},
            "startup": {
                "start": started, "ready": "grep -q . /run/started",
                "context": {"user": "root", "workdir": "/", "envs": {"OWN": "1"}},
            },
        }),
    );
    let token = [("x-access-token", TOKEN)];
    let up = "/startup?wait_ms=20000";
    let report = sandbox.server.request("GET", up, &token, b"");
    assert_eq!(report.expect(200).json()["state"], "ready");
    let seen = |name: &str| format!("grep -E '^{name}=' /run/started; echo ${name}");
    assert_eq!(sandbox.run(&seen("PROXY")).out(), "PROXY=site\nsite\n");
    assert_eq!(sandbox.run(&seen("FOO")).out(), "FOO=site\nbar\n");
    assert_eq!(sandbox.run(&seen("OWN")).out(), "OWN=1\n\n");
    // What comes later replaces the client's alone.
    let body = json!({"accessToken": TOKEN, "envVars": {"NEW": "n"}}).to_string();
    let asked = sandbox
        .server
        .request("POST", "/init", &token, body.as_bytes());
    asked.expect(204);
    let told = sandbox.run("echo $PROXY $FOO $NEW");
    assert_eq!(told.out(), "site site n\n");
    // Also with the server after this one.
    kill_server(&sandbox);
    assert_eq!(sandbox.run("echo $PROXY $FOO $NEW").out(), "site site n\n");
}

#[test]
fn orphans_are_reaped() {
    let sandbox = Sandbox::secured();
    sandbox.run("(sleep 0.1 &) & (sleep 0.1 >/dev/null 2>&1 &)");
    eventually("all are gone", || {
        let finished = sandbox.run("ls -d /proc/[0-9]* | wc -l");
        // Init, server, shell, ls and wc.
        (finished.out().trim() == "5").then_some(())
    });
}

#[test]
fn a_dead_server_comes_back_as_closed_as_it_was() {
    let sandbox = Sandbox::secured();
    for round in 0..3 {
        kill_server(&sandbox);
        assert_eq!(sandbox.run("echo $FOO").out(), "bar\n", "round {round}");
    }
}

/// Ends the server from inside, and waits until the next one is there. The socket stays open
/// meanwhile: connections wait instead of being refused.
fn kill_server(sandbox: &Sandbox) {
    let body = json!({"process": {"cmd": "/bin/sh", "args": ["-c", "kill -9 $PPID"]}});
    let headers = [
        ("content-type", "application/connect+json"),
        ("x-access-token", TOKEN),
    ];
    let mut connection = sandbox.server.connect();
    let message = crate::streams::envelope(&body);
    connection.request("POST", "/process.Process/Start", &headers, &message);
    connection.until_closed();
    eventually("a new server", || {
        let mut connection = sandbox.server.connect();
        connection.request("GET", "/envs", &[], b"");
        connection.try_reply().filter(|reply| reply.status == 401)
    });
}

fn startup(sandbox: &Sandbox, query: &str) -> Value {
    let token = [("x-access-token", TOKEN)];
    let path = format!("/startup{query}");
    let reply = sandbox.server.request("GET", &path, &token, b"");
    reply.expect(200).json()
}

fn with_startup(start: &str, ready: &str) -> Sandbox {
    // The machine's own profile may take its time, and does not like to be killed.
    let envs = json!({"A": "1", "HOME": "/nonexistent"});
    let context = json!({"user": "root", "workdir": "/", "envs": envs});
    let startup = json!({"start": start, "ready": ready, "context": context});
    Sandbox::ready(AROUND, json!({ "startup": startup }))
}

#[test]
fn what_a_template_starts_is_an_ordinary_process() {
    let sandbox = with_startup(
        "echo $A > /run/told; exec sleep 60",
        "test -e /run/told && test -e /run/go",
    );
    sandbox.server.get("/startup").expect(401);
    assert_eq!(
        startup(&sandbox, ""),
        json!({"state": "starting", "message": "", "output": ""})
    );
    assert_eq!(startup(&sandbox, "?wait_ms=20")["state"], "starting");
    sandbox.run("touch /run/go");
    let begun = Instant::now();
    assert_eq!(startup(&sandbox, "?wait_ms=60000")["state"], "ready");
    assert!(begun.elapsed() < PATIENCE / 2);
    let token = [("x-access-token", TOKEN)];
    let list = sandbox.server.call_with("Process/List", &token, &json!({}));
    let list = list.expect(200).json();
    let config = &list["processes"][0]["config"];
    assert_eq!(config["cmd"], "/bin/bash", "{list}");
    assert_eq!(
        config["args"],
        json!(["-l", "-c", "echo $A > /run/told; exec sleep 60"])
    );
    assert_eq!(sandbox.run("cat /run/told").out(), "1\n");
    for wrong in ["wait_ms=soon", "while=failed"] {
        let path = format!("/startup?{wrong}");
        let told = sandbox.server.request("GET", &path, &token, b"");
        told.expect(400);
    }
    sandbox
        .server
        .request("POST", "/startup", &token, b"")
        .expect(405);
    // The next server knows, and starts nothing again.
    sandbox.run("rm /run/told");
    kill_server(&sandbox);
    assert_eq!(startup(&sandbox, "?wait_ms=1000")["state"], "ready");
    assert_eq!(sandbox.run("ls /run/told").code(), 2);
}

#[test]
fn a_start_command_that_ends_badly_after_all_is_told_of_at_once() {
    let sandbox = with_startup("echo $$ > /run/own; exec sleep 60", "test -s /run/own");
    assert_eq!(startup(&sandbox, "?wait_ms=60000")["state"], "ready");
    assert_eq!(
        startup(&sandbox, "?wait_ms=20&while=ready")["state"],
        "ready"
    );
    let (ending, watched) = (Instant::now(), "?wait_ms=60000&while=ready");
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| startup(&sandbox, watched));
        sandbox.run("kill -9 $(cat /run/own)");
        told.join().unwrap()
    });
    assert!(ending.elapsed() < PATIENCE / 2);
    assert_eq!(told["state"], "failed", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("signal: killed"), "{told}");
    // The next server knows it too.
    kill_server(&sandbox);
    assert_eq!(startup(&sandbox, "?wait_ms=1000")["state"], "failed");
    // One that did what it had to and left is no failure.
    let sandbox = with_startup("touch /run/done; sleep 0.3", "test -e /run/done");
    assert_eq!(startup(&sandbox, "?wait_ms=60000")["state"], "ready");
    assert_eq!(
        startup(&sandbox, "?wait_ms=1000&while=ready")["state"],
        "ready"
    );
}

#[test]
fn a_server_that_died_while_a_template_started_says_so() {
    let sandbox = with_startup("sleep 60", "false");
    assert_eq!(startup(&sandbox, "")["state"], "starting");
    kill_server(&sandbox);
    let told = startup(&sandbox, "?wait_ms=1000");
    assert_eq!(told["state"], "failed", "{told}");
    assert!(told["message"].as_str().unwrap().contains("started again"));
}

#[test]
fn a_start_that_failed_tells_why() {
    let sandbox = with_startup("echo no such thing >&2; exit 7", "false");
    let told = startup(&sandbox, "?wait_ms=20000");
    assert_eq!(told["state"], "failed", "{told}");
    assert_eq!(
        told["message"],
        "start command failed: error running start command: exit status 7"
    );
    assert_eq!(told["output"], "no such thing\n");
    assert_eq!(startup(&Sandbox::secured(), "")["state"], "none");
}

#[test]
fn told_to_end_it_ends_everybody() {
    let mut sandbox = Sandbox::secured();
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let script = format!(
        "(trap 'touch {}; exit' TERM; while :; do sleep 0.05; done) >/dev/null 2>&1 & echo $!",
        flag.display()
    );
    sandbox.run(&script);
    let begun = Instant::now();
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sandbox.run("kill -TERM 1")));
    let status = sandbox.child.wait().unwrap();
    assert!(begun.elapsed() < PATIENCE / 2);
    assert_eq!(status.code(), Some(0));
    assert!(flag.exists());
}

#[test]
fn who_does_not_end_is_not_waited_for_long() {
    let mut sandbox = Sandbox::secured();
    sandbox.run("(trap '' TERM; sleep 60) >/dev/null 2>&1 &");
    let begun = Instant::now();
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sandbox.run("kill -TERM 1")));
    assert_eq!(sandbox.child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < PATIENCE);
}

#[test]
fn a_configuration_of_another_version_is_refused() {
    let mut sandbox = Sandbox::start(r#"{"version":99}"#);
    assert_eq!(sandbox.child.wait().unwrap().code(), Some(1));
    let mut rest = Vec::new();
    sandbox.ready.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn the_server_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_envd"))
        .args(["serve", "--port", "0", "-isnotfc"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = Vec::new();
    let mut stderr = child.stderr.take().unwrap();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        line.extend_from_slice(&byte);
    }
    let line = String::from_utf8(line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let server = Server {
        address: ([127, 0, 0, 1], port).into(),
    };
    assert_eq!(
        server.get("/envs").expect(200).json(),
        json!({"E2B_SANDBOX": "false"})
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let mut file = File::create(dir.path().join("bad")).unwrap();
    file.write_all(b"{").unwrap();
    let bad = Command::new(env!("CARGO_BIN_EXE_envd"))
        .args(["serve", "-port", "0", "-config"])
        .arg(dir.path().join("bad"))
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("configuration is not as expected"));
}
