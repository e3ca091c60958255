//! The end of a process in the words that clients know.

use envd_wire::process::process_event::EndEvent;
use rustix::process::WaitIdStatus;

/// What a reaped child tells.
pub fn of_status(status: &WaitIdStatus) -> EndEvent {
    if let Some(code) = status.exit_status() {
        return exited(code);
    }
    match status.terminating_signal() {
        Some(signal) => killed(signal, status.dumped()),
        None => failed("wait: neither exited nor killed"),
    }
}

/// A process whose status cannot be had.
pub fn failed(text: &str) -> EndEvent {
    EndEvent {
        exit_code: -1,
        exited: false,
        status: text.to_owned(),
        error: Some(text.to_owned()),
    }
}

fn exited(code: i32) -> EndEvent {
    let status = format!("exit status {code}");
    EndEvent {
        exit_code: code,
        exited: true,
        error: (code != 0).then(|| status.clone()),
        status,
    }
}

fn killed(signal: i32, dumped: bool) -> EndEvent {
    let core = if dumped { " (core dumped)" } else { "" };
    let name = match signal_name(signal) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    };
    failed(&format!("signal: {name}{core}"))
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(end: EndEvent, code: i32, exited: bool, status: &str, error: Option<&str>) {
        assert_eq!(
            (
                end.exit_code,
                end.exited,
                end.status.as_str(),
                end.error.as_deref()
            ),
            (code, exited, status, error)
        );
    }

    #[test]
    fn words() {
        check(exited(0), 0, true, "exit status 0", None);
        check(exited(3), 3, true, "exit status 3", Some("exit status 3"));
        check(
            killed(9, false),
            -1,
            false,
            "signal: killed",
            Some("signal: killed"),
        );
        let dumped = "signal: segmentation fault (core dumped)";
        check(killed(11, true), -1, false, dumped, Some(dumped));
        check(
            killed(34, false),
            -1,
            false,
            "signal: signal 34",
            Some("signal: signal 34"),
        );
    }
}
