//! A new base, by mmdebstrap.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::packages::{NPM_SHA512, NPM_VERSION, PACKAGES, PATHS_LEFT_OUT, SUITE};
use super::{BaseConfig, BaseError};
use crate::draft;
use crate::host::apt_sources::DEBIAN_KEYRING;
use crate::host::{apt_conf, apt_sources};
use crate::progress::Progress;

/// The end of the log that is kept, lines; what comes before is dropped.
const LOG_LINES_MAX: usize = 4000;
/// The longest line that is kept, bytes; the rest of it counts as further lines.
const LINE_BYTES_MAX: u64 = 4096;

/// Where Debian is when the host's sources do not offer the release.
const PUBLIC_SOURCES: &str = "\
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

/// mmdebstrap's own words for its stages, with their share of the time.
const STAGES: &[(&str, u8, &str)] = &[
    (
        "I: running apt-get update",
        5,
        "reading Debian's package lists",
    ),
    ("I: downloading packages", 10, "downloading packages"),
    ("I: extracting archives", 18, "unpacking Debian"),
    ("I: installing essential", 22, "installing Debian"),
    (
        "I: installing remaining",
        30,
        "installing packages (the longest part)",
    ),
    (
        "I: running --customize-hook",
        85,
        "making users, shells and npm",
    ),
    ("I: cleaning package lists", 93, "cleaning up"),
];

/// Fills the empty folder `root`.
pub(super) fn run(
    config: &BaseConfig,
    root: &Path,
    progress: &dyn Progress,
) -> Result<(), BaseError> {
    progress.step(
        1,
        "making the base template; this happens once and takes about two minutes",
    );
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("setpriv", "util-linux")] {
        if !on_path(program) {
            return Err(BaseError::MissingProgram { program, package });
        }
    }
    if !config
        .host_root
        .join(DEBIAN_KEYRING.trim_start_matches('/'))
        .exists()
    {
        return Err(BaseError::MissingProgram {
            program: "debian-archive-keyring",
            package: "debian-archive-keyring",
        });
    }
    let sources = apt_sources::debian_sources(&config.host_root, SUITE)?;
    let options = apt_conf::apt_options(&config.host_root)?;
    for note in sources.notes.iter().chain(&options.notes) {
        progress.line(note);
    }
    let sources = if sources.text.is_empty() {
        progress.line("this host's apt sources do not offer Debian 12: using deb.debian.org");
        PUBLIC_SOURCES
    } else {
        &sources.text
    };

    let mut mmdebstrap = command(root, &options.text);
    let (reader, writer) = io::pipe().map_err(start_error)?;
    let out = writer.try_clone().map_err(start_error)?;
    mmdebstrap.stdin(Stdio::piped()).stdout(out).stderr(writer);
    let mut child = Guard(mmdebstrap.spawn().map_err(start_error)?);
    // Closes our copies of the pipe's writing end, so that reading ends with the last writer.
    drop(mmdebstrap);
    let mut stdin = child.0.stdin.take().expect("asked for just above");
    // A child that is gone already is reported below, with its own words.
    let _ = io::Write::write_all(&mut stdin, sources.as_bytes());
    drop(stdin);
    let log = follow(reader, progress);
    let status = child.0.wait().map_err(start_error)?;
    if status.success() {
        return Ok(());
    }
    Err(failure(config, &log))
}

/// mmdebstrap in mount and pid namespaces of its own, so that whatever ends us ends all of it and
/// leaves no mount: the kernel kills `unshare` with us, and everything below with `unshare`.
fn command(root: &Path, apt_options: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
    ]);
    command.args(["--kill-child=KILL", "--mount-proc", "mmdebstrap"]);
    command.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    for option in apt_options.lines() {
        command.arg(format!("--aptopt={}", option.trim_end_matches(';')));
    }
    command.args([
        "--aptopt=Acquire::Languages \"none\"",
        "--dpkgopt=force-unsafe-io",
    ]);
    command.args(
        PATHS_LEFT_OUT
            .iter()
            .map(|rule| format!("--dpkgopt={rule}")),
    );
    command.arg(format!(
        "--customize-hook=NPM_VERSION={NPM_VERSION}\nNPM_SHA512={NPM_SHA512}\n{}",
        include_str!("customize.sh")
    ));
    command.arg(SUITE).arg(root).arg("-");
    // The host's language and apt settings by environment have no place in the base.
    command.env("LC_ALL", "C.UTF-8").env_remove("APT_CONFIG");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Reads to the end, shows stages, keeps the last lines.
fn follow(reader: impl Read, progress: &dyn Progress) -> VecDeque<String> {
    let mut reader = BufReader::new(reader);
    let mut log = VecDeque::new();
    loop {
        let mut line = Vec::new();
        match reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return log,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match STAGES.iter().find(|(start, ..)| line.starts_with(start)) {
            Some((_, percent, stage)) => progress.step(*percent, stage),
            None => progress.line(&line),
        }
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }
}

fn failure(config: &BaseConfig, log: &VecDeque<String>) -> BaseError {
    let path = config.logs_dir.join("base-build.log");
    let mut text = String::new();
    for line in log {
        text.push_str(line);
        text.push('\n');
    }
    // "E: " is apt's and mmdebstrap's own mark of the reason; the first one is nearest to it.
    let last = log
        .iter()
        .find(|line| line.starts_with("E: "))
        .or_else(|| log.back());
    let last = last.cloned().unwrap_or_else(|| "it said nothing".into());
    match fs::create_dir_all(&config.logs_dir)
        .and_then(|()| draft::write_file(&path, text.as_bytes()))
    {
        Ok(()) => BaseError::Bootstrap { last, log: path },
        Err(source) => BaseError::io("write", &path)(source),
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn start_error(source: io::Error) -> BaseError {
    BaseError::Start {
        program: "mmdebstrap",
        source,
    }
}

/// A child that does not outlive a panic or an early return.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
