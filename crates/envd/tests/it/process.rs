use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::PATIENCE;
use crate::server::{Server, eventually};
use crate::streams::{Stream, envelope, refused, run, start, start_with};

fn pids(server: &Server) -> Vec<u64> {
    let list = server.call("Process/List", &json!({})).expect(200).json();
    let processes = list["processes"].as_array().cloned().unwrap_or_default();
    processes
        .iter()
        .map(|process| process["pid"].as_u64().unwrap())
        .collect()
}

fn connect(server: &Server, selector: &Value) -> Stream {
    Stream::open(
        server,
        "Process/Connect",
        &[],
        &json!({"process": selector}),
    )
}

fn kill(server: &Server, pid: u64) {
    let body = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    server.call("Process/SendSignal", &body).expect(200);
}

fn send(server: &Server, pid: u64, input: &Value) -> crate::http::Reply {
    server.call(
        "Process/SendInput",
        &json!({"process": {"pid": pid}, "input": input}),
    )
}

fn is_alive(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn ends_in_the_words_of_upstream() {
    let server = Server::open();
    for (script, end) in [
        ("true", json!({"exited": true, "status": "exit status 0"})),
        (
            "exit 3",
            json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"}),
        ),
        (
            "kill -9 $$",
            json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}),
        ),
        (
            "kill -15 $$",
            json!({"exitCode": -1, "status": "signal: terminated", "error": "signal: terminated"}),
        ),
    ] {
        let finished = run(&server, script, &json!({}));
        assert_eq!(finished.end, end, "{script}");
        assert_eq!(finished.end_of_stream, json!({}));
    }
}

#[test]
fn commands_that_cannot_be_run_are_no_rpc_errors() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "echo \"no interpreter line: $1\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for (command, code) in [
        ("no-such-command", 127),
        (plain.to_str().unwrap(), 126),
        ("", 127),
    ] {
        let finished = run(&server, "", &json!({"cmd": command, "args": []}));
        assert_eq!(finished.code(), code, "{command}");
        assert!(!finished.stderr.is_empty());
    }
    let finished = run(
        &server,
        "",
        &json!({"cmd": script.to_str().unwrap(), "args": ["x"]}),
    );
    assert_eq!(
        (finished.code(), finished.out()),
        (0, "no interpreter line: x\n")
    );
}

#[test]
fn the_command_is_found_in_the_path_of_the_new_process() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("my-tool");
    fs::write(&tool, "#!/bin/sh\necho mine\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let more =
        json!({"cmd": "my-tool", "args": [], "envs": {"PATH": dir.path().to_str().unwrap()}});
    assert_eq!(run(&server, "", &more).out(), "mine\n");
}

#[test]
fn environment_and_ranks() {
    let server = Server::unsecured();
    let finished = run(&server, "env", &json!({"envs": {"A": "1", "HOME": "/h"}}));
    let mut names: Vec<&str> = finished.out().lines().collect();
    names.retain(|line| !line.starts_with("PATH=") && !line.starts_with("PWD="));
    names.retain(|line| !line.starts_with("_=") && !line.starts_with("SHLVL="));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "A=1",
            "E2B_SANDBOX=true",
            "E2B_SANDBOX_ID=i1",
            "E2B_TEMPLATE_ID=",
            "HOME=/h",
            "LOGNAME=root",
            "USER=root"
        ]
    );
    let script = "cat /proc/self/oom_score_adj; nice; ls /proc/self/fd | wc -l; \
                  grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let finished = run(&server, script, &json!({}));
    let lines: Vec<&str> = finished.out().lines().collect();
    assert_eq!(
        lines[..3],
        ["100", "0", "4"],
        "score, rank, descriptors with that of ls itself"
    );
    assert!(
        lines[3..]
            .iter()
            .all(|line| line.ends_with("0000000000000000")),
        "{lines:?}"
    );
}

#[test]
fn a_process_stays_in_the_session_and_a_terminal_gets_its_own() {
    let server = Server::open();
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let session = |stat: &str| {
        stat.rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(3)
            .unwrap()
            .to_owned()
    };
    let finished = run(&server, "cat /proc/$$/stat", &json!({}));
    assert_eq!(session(finished.out()), session(&own));
    let mut stream = start(
        &server,
        "ps -o sid= -p $$; tty",
        &json!({"pty": {"size": {"cols": 9, "rows": 9}}}),
    );
    let pid = stream.pid();
    let finished = stream.finish();
    let text = String::from_utf8(finished.pty.clone()).unwrap();
    assert!(text.trim_start().starts_with(&pid.to_string()), "{text}");
    assert!(text.contains("/dev/pts/"), "{text}");
}

#[test]
fn working_directories() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let at = |name: &str| path.join(name).to_str().unwrap().to_owned();
    assert_eq!(
        run(&server, "pwd", &json!({"cwd": at("")}))
            .out()
            .trim_end(),
        at("").trim_end_matches('/')
    );

    let (code, message) = refused(start(&server, "pwd", &json!({"cwd": at("gone")})));
    let gone = at("gone");
    assert_eq!(
        (code.as_str(), message),
        ("invalid_argument", format!("cwd '{gone}' does not exist"))
    );
    fs::write(at("file"), "").unwrap();
    let (code, message) = refused(start(&server, "pwd", &json!({"cwd": at("file")})));
    assert_eq!(code, "invalid_argument");
    assert_eq!(
        message,
        "error starting process '/bin/sh -c pwd': not a directory"
    );
    let (code, _) = refused(start(&server, "pwd", &json!({"cwd": "~other/x"})));
    assert_eq!(code, "invalid_argument");

    // Who may not enter a directory does not start in it.
    fs::create_dir(at("private")).unwrap();
    fs::set_permissions(at("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let basic = format!("Basic {}", STANDARD.encode("daemon:"));
    let headers = [("authorization", basic.as_str())];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, message) = refused(start_with(
        &server,
        &headers,
        "pwd",
        &json!({"cwd": at("private")}),
    ));
    assert_eq!(code, "invalid_argument");
    assert!(message.ends_with("permission denied"), "{message}");
}

#[test]
fn input_of_all_kinds() {
    let server = Server::open();
    assert_eq!(run(&server, "read line", &json!({})).code(), 1);

    // Absent means open.
    let mut stream = start(&server, "cat", &json!({"stdin": null}));
    let pid = stream.pid();
    send(&server, pid, &json!({"stdin": STANDARD.encode("one ")})).expect(200);
    send(&server, pid, &json!({"stdin": STANDARD.encode("two")})).expect(200);
    let wrong = send(&server, pid, &json!({"pty": "eA=="}))
        .expect(500)
        .json();
    assert!(
        wrong["message"]
            .as_str()
            .unwrap()
            .starts_with("error writing to tty: tty not assigned")
    );
    send(&server, pid, &json!({})).expect(501);
    let close = json!({"process": {"pid": pid}});
    server.call("Process/CloseStdin", &close).expect(200);
    let finished = stream.finish();
    assert_eq!((finished.code(), finished.out()), (0, "one two"));

    let mut stream = start(&server, "sleep 100", &json!({}));
    let pid = stream.pid();
    let closed = send(&server, pid, &json!({"stdin": "eA=="}))
        .expect(500)
        .json();
    assert_eq!(
        closed["message"],
        "error writing to stdin: stdin not enabled or closed"
    );
    server
        .call("Process/CloseStdin", &json!({"process": {"pid": pid}}))
        .expect(200);
    kill(&server, pid);
    stream.finish();
}

#[test]
fn more_input_than_a_pipe_holds_waits_for_the_reader() {
    let server = Server::open();
    let mut stream = start(&server, "sleep 0.3; wc -c", &json!({"stdin": true}));
    let pid = stream.pid();
    send(
        &server,
        pid,
        &json!({"stdin": STANDARD.encode(vec![b'x'; 500_000])}),
    )
    .expect(200);
    server
        .call("Process/CloseStdin", &json!({"process": {"pid": pid}}))
        .expect(200);
    assert_eq!(stream.finish().out().trim(), "500000");
}

#[test]
fn closing_the_input_frees_a_writer_that_waits() {
    let server = Server::open();
    let mut stream = start(&server, "sleep 100", &json!({"stdin": true}));
    let pid = stream.pid();
    let address = server.address;
    let writer = std::thread::spawn(move || {
        let server = Server { address };
        send(
            &server,
            pid,
            &json!({"stdin": STANDARD.encode(vec![b'x'; 500_000])}),
        )
        .status
    });
    std::thread::sleep(Duration::from_millis(50));
    server
        .call("Process/CloseStdin", &json!({"process": {"pid": pid}}))
        .expect(200);
    assert_eq!(writer.join().unwrap(), 500);
    kill(&server, pid);
    stream.finish();
}

#[test]
fn input_as_a_stream_arrives_as_it_is_sent() {
    let server = Server::open();
    let mut process = start(
        &server,
        "while read line; do echo \"got $line\"; done",
        &json!({"stdin": true}),
    );
    let pid = process.pid();
    let mut input = server.connect();
    input.send(
        b"POST /process.Process/StreamInput HTTP/1.1\r\nhost: x\r\n\
          content-type: application/connect+json\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    let mut say = |message: &Value| {
        let message = envelope(message);
        input.send(format!("{:x}\r\n", message.len()).as_bytes());
        input.send(&message);
        input.send(b"\r\n");
    };
    say(&json!({"start": {"process": {"pid": pid}}}));
    say(&json!({"keepalive": {}}));
    for word in ["a", "b"] {
        say(&json!({"data": {"input": {"stdin": STANDARD.encode(format!("{word}\n"))}}}));
        let (_, event) = process.next();
        let expected = STANDARD.encode(format!("got {word}\n"));
        assert_eq!(event["event"]["data"]["stdout"], json!(expected));
    }
    input.send(b"0\r\n\r\n");
    let (messages, end) = Stream::answered(input).rest();
    assert_eq!((messages, end), (vec![json!({})], json!({})));
    kill(&server, pid);
    process.finish();
}

#[test]
fn a_stream_of_input_fails_at_once_and_not_at_its_end() {
    let server = Server::open();
    for (message, code) in [
        (
            json!({"start": {"process": {"pid": 4_000_000}}}),
            "not_found",
        ),
        (
            json!({"data": {"input": {"stdin": "eA=="}}}),
            "failed_precondition",
        ),
        (json!({}), "unimplemented"),
    ] {
        let mut input = server.connect();
        input.send(
            b"POST /process.Process/StreamInput HTTP/1.1\r\nhost: x\r\n\
              content-type: application/connect+json\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        let message = envelope(&message);
        input.send(format!("{:x}\r\n", message.len()).as_bytes());
        input.send(&message);
        input.send(b"\r\n");
        assert_eq!(refused(Stream::answered(input)).0, code);
    }
}

#[test]
fn listing_and_killing() {
    let server = Server::open();
    let mut stream = start(&server, "sleep 100", &json!({"tag": "nap"}));
    let pid = stream.pid();
    let list = server.call("Process/List", &json!({})).expect(200).json();
    assert_eq!(
        list["processes"],
        json!([{"config": {"cmd": "/bin/sh", "args": ["-c", "sleep 100"]}, "pid": pid, "tag": "nap"}])
    );
    let invalid = json!({"process": {"tag": "nap"}, "signal": 0});
    let message = server.call_fails("Process/SendSignal", &invalid, "unimplemented");
    assert_eq!(message, "invalid signal: SIGNAL_UNSPECIFIED");
    kill(&server, pid);
    let finished = stream.finish();
    assert_eq!(finished.end["status"], "signal: killed");
    // Out of the list before the end was told.
    assert!(pids(&server).is_empty());
    let again = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    let message = server.call_fails("Process/SendSignal", &again, "not_found");
    assert_eq!(message, format!("process with pid {pid} not found"));
    let tag = json!({"process": {"tag": "nap"}, "signal": 9});
    let message = server.call_fails("Process/SendSignal", &tag, "not_found");
    assert_eq!(message, "process with tag nap not found");
    server.call_fails("Process/SendSignal", &json!({"signal": 9}), "unimplemented");
}

#[test]
fn killing_does_not_wait_for_children_that_hold_the_pipes() {
    let server = Server::open();
    let mut stream = start(&server, "sleep 60 & echo $!; wait", &json!({}));
    let pid = stream.pid();
    let (_, first) = stream.next();
    let text = STANDARD
        .decode(first["event"]["data"]["stdout"].as_str().unwrap())
        .unwrap();
    let child: u64 = String::from_utf8(text).unwrap().trim().parse().unwrap();
    let begun = Instant::now();
    kill(&server, pid);
    assert_eq!(stream.finish().end["status"], "signal: killed");
    assert!(begun.elapsed() < PATIENCE / 2);
    // To the one process, not to its group.
    assert!(is_alive(child));
    std::process::Command::new("kill")
        .args(["-9", &child.to_string()])
        .status()
        .unwrap();
}

#[test]
fn the_end_waits_for_children_that_hold_the_pipes() {
    let server = Server::open();
    let finished = run(&server, "(sleep 0.4; echo late) & echo early", &json!({}));
    assert_eq!(finished.out(), "early\nlate\n");
}

#[test]
fn what_was_written_before_a_kill_arrives() {
    let server = Server::open();
    let script = "head -c 60000 /dev/zero; kill -9 $$";
    assert_eq!(run(&server, script, &json!({})).stdout.len(), 60_000);
}

#[test]
fn time_limits_kill() {
    let server = Server::open();
    let begun = Instant::now();
    let limit = [("connect-timeout-ms", "300")];
    let mut stream = start_with(&server, &limit, "sleep 60", &json!({}));
    let pid = stream.pid();
    let mut other = connect(&server, &json!({"pid": pid}));
    other.pid();
    let (events, end) = stream.rest();
    assert!(
        events
            .iter()
            .all(|event| event["event"].get("end").is_none()),
        "{events:?}"
    );
    assert_eq!(
        end,
        json!({"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}})
    );
    assert_eq!(other.finish().end["status"], "signal: killed");
    assert!(begun.elapsed() >= Duration::from_millis(290));
    assert!(!is_alive(pid));

    // Also when nobody listens any more.
    let mut stream = start_with(&server, &limit, "sleep 60", &json!({}));
    let pid = stream.pid();
    drop(stream);
    assert!(is_alive(pid));
    eventually("killed at its limit", || (!is_alive(pid)).then_some(()));
}

#[test]
fn hanging_up_ends_the_stream_and_not_the_process() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let script = format!("yes | head -c 3000000; touch {}; sleep 60", flag.display());
    let mut stream = start(&server, &script, &json!({}));
    let pid = stream.pid();
    drop(stream);
    // Its output goes nowhere and holds nothing up.
    eventually("the process went on", || flag.exists().then_some(()));
    let mut late = connect(&server, &json!({"pid": pid}));
    assert_eq!(late.pid(), pid);
    kill(&server, pid);
    assert!(late.finish().stdout.is_empty());
}

#[test]
fn a_slow_reader_holds_the_process_and_leaving_frees_it() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let script = format!("head -c 30000000 /dev/zero; touch {}", flag.display());
    let mut slow = start(&server, &script, &json!({}));
    let pid = slow.pid();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!flag.exists(), "30 MB fit nowhere");
    // Others are answered meanwhile.
    assert_eq!(pids(&server), [pid]);
    drop(slow);
    eventually("the process went on", || flag.exists().then_some(()));
}

#[test]
fn many_readers_get_all_output_in_order() {
    let server = Server::open();
    let mut first = start(&server, "read go; seq 1 20000", &json!({"stdin": true}));
    let pid = first.pid();
    let mut others: Vec<Stream> = (0..3)
        .map(|_| connect(&server, &json!({"pid": pid})))
        .collect();
    for other in &mut others {
        assert_eq!(other.pid(), pid);
    }
    drop(others.pop());
    send(&server, pid, &json!({"stdin": STANDARD.encode("go\n")})).expect(200);
    // Read one after the other: while one is read, the next one's queue is what holds it up.
    let readers: Vec<_> = others
        .into_iter()
        .chain([first])
        .map(|mut reader| std::thread::spawn(move || reader.finish()))
        .collect();
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    for reader in readers {
        let finished = reader.join().unwrap();
        assert_eq!(finished.code(), 0);
        assert!(
            finished.out() == expected,
            "{} bytes",
            finished.stdout.len()
        );
    }
}

#[test]
fn output_arrives_whole_in_chunks_of_a_pipe() {
    let server = Server::open();
    let finished = run(&server, "head -c 1048576 /dev/zero", &json!({}));
    assert_eq!(finished.stdout.len(), 1 << 20);
    assert!(finished.longest <= 32 * 1024);
}

#[test]
fn a_flood_of_output_is_paced_and_loses_nothing() {
    let server = Server::open();
    let begun = Instant::now();
    let flood = std::thread::scope(|scope| {
        let flood = scope.spawn(|| run(&server, "head -c 67108864 /dev/zero", &json!({})));
        // Both wait for the same: the rate is that of all processes together.
        let other = scope.spawn(|| run(&server, "head -c 33554432 /dev/zero", &json!({})));
        assert_eq!(other.join().unwrap().stdout.len(), 32 << 20);
        flood.join().unwrap()
    });
    assert_eq!(flood.stdout.len(), 64 << 20);
    // 96 MiB, of which 16 are free, at 32 a second; what was read ahead is not waited for.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(2400), "{took:?}");
}

#[test]
fn the_end_can_be_asked_for_later() {
    let server = Server::open();
    let mut stream = start(&server, "exit 5", &json!({"tag": "five"}));
    let pid = stream.pid();
    stream.finish();
    for selector in [json!({"pid": pid}), json!({"tag": "five"})] {
        let mut late = connect(&server, &selector);
        assert_eq!(late.pid(), pid);
        let finished = late.finish();
        assert_eq!(finished.code(), 5);
        assert!(finished.stdout.is_empty());
    }
    // A new process takes the tag.
    let mut next = start(&server, "sleep 60", &json!({"tag": "five"}));
    let newer = next.pid();
    let mut found = connect(&server, &json!({"tag": "five"}));
    assert_eq!(found.pid(), newer);
    assert_eq!(
        refused(connect(&server, &json!({"pid": pid}))).0,
        "not_found"
    );
    kill(&server, newer);
    next.finish();
    assert_eq!(
        refused(connect(&server, &json!({"pid": 4_000_000}))).0,
        "not_found"
    );
    assert_eq!(refused(connect(&server, &json!({}))).0, "unimplemented");
}

#[test]
fn connecting_as_the_process_ends_never_hangs() {
    let server = Server::open();
    for _ in 0..50 {
        let mut stream = start(&server, "true", &json!({}));
        let pid = stream.pid();
        let mut other = connect(&server, &json!({"pid": pid}));
        other.pid();
        assert_eq!(other.finish().code(), 0);
        stream.finish();
    }
}

#[test]
fn silence_is_broken_by_keepalives() {
    let server = Server::open();
    for (interval, expected) in [("1", 1), ("0", 0), ("-5", 0), ("x", 0)] {
        let headers = [("keepalive-ping-interval", interval)];
        let mut stream = start_with(&server, &headers, "sleep 1.5", &json!({}));
        stream.pid();
        assert_eq!(stream.finish().keepalives, expected, "{interval}");
    }
}

#[test]
fn terminals() {
    let server = Server::open();
    let pty = json!({"pty": {"size": {"cols": 80, "rows": 25}}});
    let mut stream = start(&server, "stty size; read x; stty size; exit 4", &pty);
    let pid = stream.pid();
    let (_, first) = stream.next();
    let text = STANDARD
        .decode(first["event"]["data"]["pty"].as_str().unwrap())
        .unwrap();
    assert_eq!(text, b"25 80\r\n");
    let update = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 100, "rows": 30}}});
    server.call("Process/Update", &update).expect(200);
    server
        .call("Process/Update", &json!({"process": {"pid": pid}}))
        .expect(200);
    let closing = json!({"process": {"pid": pid}});
    let message = server.call_fails("Process/CloseStdin", &closing, "unknown");
    assert!(
        message.contains("cannot close stdin for PTY process"),
        "{message}"
    );
    let wrong = send(&server, pid, &json!({"stdin": "eA=="}))
        .expect(500)
        .json();
    assert!(
        wrong["message"]
            .as_str()
            .unwrap()
            .contains("tty assigned to process"),
        "{wrong}"
    );
    send(&server, pid, &json!({"pty": STANDARD.encode("go\r")})).expect(200);
    let finished = stream.finish();
    assert_eq!(finished.code(), 4);
    let text = String::from_utf8_lossy(&finished.pty).into_owned();
    assert!(text.ends_with("30 100\r\n"), "{text:?}");

    let mut plain = start(&server, "sleep 60", &json!({}));
    let pid = plain.pid();
    let update = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 1, "rows": 1}}});
    let message = server.call_fails("Process/Update", &update, "internal");
    assert_eq!(message, "error resizing tty: tty not assigned to process");
    kill(&server, pid);
    plain.finish();
}

#[test]
fn hostile_requests() {
    let server = Server::open();
    for more in [
        json!({"args": ["a\0b"]}),
        json!({"cwd": "/a\0b"}),
        json!({"envs": {"A=B": "1"}}),
        json!({"envs": {"A": "\0"}}),
        json!({"envs": {"": ""}}),
    ] {
        assert_eq!(
            refused(start(&server, "true", &more)).0,
            "invalid_argument",
            "{more}"
        );
    }
    // The kernel takes 128 KiB with the NUL.
    let long = |bytes: usize| json!({"cmd": "/bin/echo", "args": ["x".repeat(bytes)]});
    assert_eq!(run(&server, "", &long((128 << 10) - 1)).code(), 0);
    // Each is short enough; together they are more than a quarter of the stack's limit.
    let many = json!({"cmd": "/bin/echo", "args": vec!["x".repeat(100 << 10); 100]});
    let terminal = json!({"pty": {"size": {"cols": 80, "rows": 24}}});
    for more in [
        long(128 << 10),
        json!({"envs": {"A": "x".repeat(128 << 10)}}),
        many.clone(),
        json!({"cmd": "/bin/echo", "args": many["args"], "pty": terminal["pty"]}),
    ] {
        let (code, message) = refused(start(&server, "true", &more));
        assert_eq!(code, "invalid_argument");
        assert!(message.starts_with("error starting p"), "{message}");
        assert!(message.ends_with("argument list too long"), "{message}");
        assert!(message.len() < 200);
    }
    let huge = json!({"pty": {"size": {"cols": 4_294_967_295_u32, "rows": 0}}});
    let mut stream = start(&server, "stty size", &huge);
    stream.pid();
    assert_eq!(stream.finish().pty, b"0 65535\r\n");
}

#[test]
fn files_that_a_process_makes_belong_to_its_user() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(1), Some(1)).unwrap();
    let basic = format!("Basic {}", STANDARD.encode("daemon:"));
    let more = json!({"cwd": dir.path().to_str().unwrap()});
    let script = "touch f; stat -c %U:%G:%a f; id -G";
    let mut stream = start_with(&server, &[("authorization", &basic)], script, &more);
    stream.pid();
    let finished = stream.finish();
    assert!(
        finished.out().starts_with("daemon:daemon:644\n1\n"),
        "{finished:?}"
    );
}

#[test]
fn pipes_can_be_opened_by_name() {
    let server = Server::open();
    let basic = format!("Basic {}", STANDARD.encode("daemon:"));
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; \
                  stat -Lc %u /proc/self/fd/0 /proc/self/fd/1; cat /dev/stdin";
    let more = json!({"stdin": true});
    let mut stream = start_with(&server, &[("authorization", &basic)], script, &more);
    let pid = stream.pid();
    send(&server, pid, &json!({"stdin": STANDARD.encode("in")})).expect(200);
    server
        .call("Process/CloseStdin", &json!({"process": {"pid": pid}}))
        .expect(200);
    let finished = stream.finish();
    assert_eq!((finished.code(), &*finished.stderr), (0, &b"err\n"[..]));
    assert_eq!(finished.out(), "out\n1\n1\nin");
}
