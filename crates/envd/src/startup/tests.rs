use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::*;

/// More than any of these takes, unless it shall not be over.
const LONG: Duration = Duration::from_secs(20);

fn commands(start: Option<&str>, ready: &str) -> config::Startup {
    config::Startup {
        start: start.map(str::to_owned),
        ready: ready.to_owned(),
        context: config::Context {
            user: "root".to_owned(),
            workdir: Some("/usr".to_owned()),
            // The machine's own profile may take its time, and does not like to be killed.
            envs: BTreeMap::from(
                [("A", "b c"), ("HOME", "/nonexistent")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ),
        },
    }
}

fn guest() -> Rc<Guest> {
    Guest::new(None, true, None, None)
}

fn in_server<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test())
}

/// What comes of it, with the server it ran in.
fn outcome(wanted: config::Startup, patience: Duration) -> State {
    in_server(async || {
        let guest = guest();
        begin(&guest, wanted, true, None, patience);
        guest.startup.after(&State::Starting, LONG).await
    })
}

#[track_caller]
fn failed(state: State) -> (String, String) {
    match state {
        State::Failed { message, output } => (message, output),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ready_when_its_command_says_so_and_the_start_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag").display().to_string();
    in_server(async || {
        let guest = guest();
        let start =
            format!("echo \"$A $PWD\" > {flag}.told; sleep 0.2; touch {flag}; exec sleep 60");
        let record = Record::new("startup").unwrap();
        let kept = record.try_clone().unwrap();
        let wanted = commands(Some(&start), &format!("test -e {flag}"));
        begin(&guest, wanted.clone(), true, Some(record), LONG);
        assert_eq!(
            guest.startup.after(&State::Starting, LONG).await,
            State::Ready
        );
        let told = std::fs::read_to_string(format!("{flag}.told")).unwrap();
        assert_eq!(told, "b c /usr\n");
        // The ready command was never listed, the start is.
        let all = guest.processes.all();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].config.cmd.as_str(), &all[0].config.args[..2]),
            ("/bin/bash", &["-l".to_owned(), "-c".to_owned()][..])
        );
        assert_eq!(all[0].config.args[2], start);
        assert_eq!(all[0].config.cwd.as_deref(), Some("/usr"));
        assert!(!all[0].has_readers());
        let pid = all[0].pid;
        all[0].signal(rustix::process::Signal::KILL).unwrap();
        // A server that comes after this one knows, whatever became of the process since.
        let later = self::guest();
        begin(&later, wanted, false, Some(kept), LONG);
        assert_eq!(
            later.startup.after(&State::Starting, Duration::ZERO).await,
            State::Ready
        );
        assert!(later.processes.by_pid(pid).is_none());
    });
}

#[test]
fn a_start_that_ended_well_is_waited_for_no_less() {
    assert_eq!(
        outcome(commands(Some("true"), "sleep 0.1"), LONG),
        State::Ready
    );
    assert_eq!(outcome(commands(None, "true"), LONG), State::Ready);
    // What it leaves in the background writes freely.
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("written").display().to_string();
    let start = format!("(head -c 5000000 /dev/zero; touch {flag}; exec sleep 15) & true");
    let ready = format!("test -e {flag}");
    assert_eq!(outcome(commands(Some(&start), &ready), LONG), State::Ready);
    // What the ready command leaves behind holds nothing up.
    let begun = Instant::now();
    assert_eq!(
        outcome(commands(None, "sleep 15 & true"), LONG),
        State::Ready
    );
    assert!(begun.elapsed() < LONG / 2);
}

#[test]
fn a_start_that_ends_badly_has_failed() {
    let (message, output) = failed(outcome(
        commands(Some("echo out; echo err >&2; exit 3"), "false"),
        LONG,
    ));
    let prefix = "start command failed: error running start command: ";
    assert_eq!(message, format!("{prefix}exit status 3"));
    assert!(
        output.contains("out\n") && output.contains("err\n"),
        "{output}"
    );
    // Though others hold its output.
    let begun = Instant::now();
    let (message, output) = failed(outcome(
        commands(Some("echo bye; sleep 15 & exit 4"), "false"),
        LONG,
    ));
    assert_eq!(
        (message, output),
        (format!("{prefix}exit status 4"), "bye\n".into())
    );
    assert!(begun.elapsed() < LONG / 2);
    let (message, _) = failed(outcome(commands(Some("kill -9 $$"), "false"), LONG));
    assert_eq!(message, format!("{prefix}signal: killed"));
    let (_, output) = failed(outcome(
        commands(
            Some("head -c 100000 /dev/zero | tr '\\0' x; exit 1"),
            "false",
        ),
        LONG,
    ));
    assert_eq!(output, "x".repeat(4096));
}

#[test]
fn what_cannot_be_started_has_failed() {
    let mut nobody = commands(Some("true"), "true");
    nobody.context.user = "no-such-user".to_owned();
    assert_eq!(
        failed(outcome(nobody, LONG)).0,
        "user 'no-such-user' does not exist"
    );
    let mut nowhere = commands(None, "true");
    nowhere.context.workdir = Some("/no/such".to_owned());
    assert_eq!(
        failed(outcome(nowhere, LONG)).0,
        "cwd '/no/such' does not exist"
    );
    let mut odd = commands(Some("true"), "true");
    odd.context.envs = BTreeMap::from([("A=B".to_owned(), String::new())]);
    let (message, _) = failed(outcome(odd, LONG));
    assert!(
        message.starts_with("start command failed: error running start command: "),
        "{message}"
    );
}

#[test]
fn time_that_is_over_ends_the_last_try() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let ready = format!(
        "echo trying; echo $$ > {}; while :; do sleep 0.1; done",
        file.display()
    );
    let (message, output) = failed(outcome(
        commands(Some("echo started; sleep 60"), &ready),
        Duration::from_millis(600),
    ));
    assert_eq!(
        message,
        "ready command failed: ready command timed out after 0m0s"
    );
    assert_eq!(output, "trying\n");
    let pid = std::fs::read_to_string(file).unwrap();
    let alive = || {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let until = Instant::now() + LONG;
    while alive() {
        assert!(Instant::now() < until, "the last try goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (message, output) = failed(outcome(
        commands(Some("echo started; sleep 60"), "false"),
        Duration::from_millis(600),
    ));
    assert!(message.contains("timed out"), "{message}");
    assert_eq!(output, "started\n");
}

#[test]
fn tries_come_at_once_and_then_ever_more_rarely() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tries").display().to_string();
    let ready = format!("date +%s%N >> {file}; test $(wc -l < {file}) -ge 5");
    assert_eq!(outcome(commands(None, &ready), LONG), State::Ready);
    let times = std::fs::read_to_string(file).unwrap();
    let times: Vec<u64> = times.lines().map(|line| line.parse().unwrap()).collect();
    let gaps: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 1_000_000)
        .collect();
    for (gap, least) in gaps.iter().zip([20, 40, 80, 160]) {
        assert!(*gap >= least, "{gaps:?}");
    }
}

#[test]
fn path_of_the_context_keeps_the_usual_folders() {
    let mut wanted = commands(Some("true"), "true");
    wanted.context.envs = BTreeMap::from([("PATH".to_owned(), "/mine".to_owned())]);
    wanted.context.workdir = None;
    let context = Context::find(&wanted.context).unwrap();
    let request = context.request("x");
    let config = request.process.into_option().unwrap();
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config.envs["PATH"], format!("/mine:{usual}"));
    assert_eq!(config.cwd, Some(context.user.home.clone()));
    assert_eq!(request.stdin, Some(false));
}

#[test]
fn a_server_started_again_tells_the_truth() {
    in_server(async || {
        let wanted = commands(Some("sleep 60"), "true");
        for record in [None, Some(Record::new("startup").unwrap())] {
            let guest = guest();
            begin(&guest, wanted.clone(), false, record, LONG);
            let (message, _) = failed(guest.startup.after(&State::Starting, LONG).await);
            assert!(message.contains("started again before"), "{message}");
            assert!(guest.processes.all().is_empty());
        }
    });
}
