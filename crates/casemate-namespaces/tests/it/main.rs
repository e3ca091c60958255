//! Sandboxes for real: needs root, btrfs-progs, nftables and busybox-static, and says so when it
//! skips (`CASEMATE_TEST_ROOT=1` runs it).
//!
//! A harness of its own, because this program is also what its runtimes start as launchers, and
//! what is killed in the tests of adoption.

mod host;
mod world;

mod adoption;
mod boundary;
mod creation;
mod limits;
mod speed;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), || Box::pin($module::$name()))),*]
    };
}

const TESTS: &[Test] = tests![
    creation::a_sandbox_runs_commands_in_its_own_root,
    speed::creation_in_a_row_and_at_once,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["internal", "launcher"] => {
            return ExitCode::from(u8::try_from(casemate_namespaces::launcher::run()).unwrap_or(1));
        }
        ["internal", "hold", folder, instance] => {
            run(adoption::hold(folder, instance));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if args.iter().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("CASEMATE_TEST_ROOT").is_none_or(|value| value != "1") {
        println!("skipped: set CASEMATE_TEST_ROOT=1 to run these tests as root");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        // On a thread of its own: a failed assertion ends the test and not the run.
        let outcome = std::thread::spawn(move || run(test())).join();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({} ms)",
            begun.elapsed().as_millis()
        );
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

fn run(future: impl Future<Output = ()>) {
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future);
}
