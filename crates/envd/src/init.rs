//! Process 1 of a sandbox: reaps, passes on the end, and keeps the server running.
//!
//! ```text
//!   init (pid 1, one thread, no event loop)
//!     └─ fork ─► envd (the server; event loop made here), forked again when it dies
//! ```
//! It gets its configuration on descriptor 3, a listening socket on 4, and on 5 a pipe into which
//! the server writes one byte when it answers requests. Configuration and socket stay in memory, so
//! that a server that was started again is as closed to strangers as the first one. A file with the
//! figures of the disk may be on 6, and on 7 a pipe for lines of the log. None of these reaches
//! programs.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use casemate_linux::guest::{
    Caught, Fork, ForkError, SignalMask, block_for_init, close_on_exec_from, fork_single_threaded,
    keep_heap_small, kill_everyone, take_inherited, wait_signal,
};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, umask, wait};
use rustix::thread::set_name;

use crate::config::{Config, ConfigError};
use crate::control::hosts;
use crate::descriptors;
use crate::record::Record;
use crate::server::{ServeError, Start, serve};

const CONFIG_FD: i32 = 3;
const LISTENER_FD: i32 = 4;
const READY_FD: i32 = 5;
/// A file with the figures of the disk, which the platform keeps up; not every platform has one.
const DISK_FD: i32 = 6;
/// A pipe that does not wait, from which the platform reads the log; not every platform does.
const LOG_FD: i32 = 7;

/// A server that lived longer than this had no trouble starting.
const STEADY: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What programs get to end in, once told.
const GRACE: Duration = Duration::from_secs(2);
/// Facts about the sandbox, as files.
const FACTS: &str = "/run/e2b";

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("inherited descriptor {number}")]
    Descriptor { number: i32, source: io::Error },
    #[error("configuration on descriptor {CONFIG_FD}")]
    Config(#[source] ConfigError),
    #[error("block signals")]
    Signals(#[source] io::Error),
    #[error("fork the server")]
    Fork(#[source] ForkError),
    #[error("serve")]
    Serve(#[source] ServeError),
}

/// Runs until the sandbox is told to end.
pub fn run() -> Result<(), InitError> {
    let inherited =
        |number| take_inherited(number).map_err(|source| InitError::Descriptor { number, source });
    let config = File::from(inherited(CONFIG_FD)?);
    let listener = TcpListener::from(inherited(LISTENER_FD)?);
    let ready = inherited(READY_FD)?;
    let disk = inherited(DISK_FD).ok();
    let log = inherited(LOG_FD).ok();
    close_on_exec_from(CONFIG_FD).map_err(|source| InitError::Descriptor {
        number: CONFIG_FD,
        source,
    })?;
    let config = Config::read(config).map_err(InitError::Config)?;
    // Without it a server that is started again says that the start failed.
    let record = |name| config.startup.as_ref().and_then(|_| Record::new(name).ok());
    let startup = record("startup");
    // Sandboxes without a start command have theirs from the configuration.
    let variables = record("variables");

    prepare("init");
    let mask = block_for_init().map_err(InitError::Signals)?;
    Init {
        config,
        listener,
        ready,
        disk,
        log,
        startup,
        variables,
        mask,
    }
    .keep()
}

/// What both processes and the server alone start with.
pub fn prepare(name: &str) {
    keep_heap_small();
    umask(Mode::from_raw_mode(0o022));
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = set_name(&name);
    }
}

/// What a server is made from, again and again.
struct Init {
    config: Config,
    listener: TcpListener,
    ready: OwnedFd,
    disk: Option<OwnedFd>,
    log: Option<OwnedFd>,
    /// How the start of the template went.
    startup: Option<Record>,
    /// What the platform set when it gave the sandbox away.
    variables: Option<Record>,
    /// Signals as they were before the init took them all: for the server.
    mask: SignalMask,
}

/// The server as the init sees it.
enum Server {
    Running {
        pid: Pid,
        since: Instant,
    },
    /// To be started again.
    Down {
        at: Instant,
    },
}

impl Init {
    fn keep(self) -> Result<(), InitError> {
        let mut pause = FIRST_PAUSE;
        let mut server = self.start(true)?;
        // While the server gets up: nobody waits for these.
        self.write_down();
        loop {
            let patience = match server {
                Server::Running { .. } => None,
                Server::Down { at } => Some(at.saturating_duration_since(Instant::now())),
            };
            match wait_signal(patience).map_err(InitError::Signals)? {
                Some(Caught::Terminate) => return stop(),
                Some(Caught::Child) => drop(reap(|pid| {
                    if let Server::Running { pid: own, since } = server
                        && own == pid
                    {
                        let mut at = Instant::now();
                        if since.elapsed() > STEADY {
                            pause = FIRST_PAUSE;
                        } else {
                            at += pause;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                        server = Server::Down { at };
                    }
                })),
                Some(Caught::Other(_)) => {}
                None => {
                    if let Server::Down { .. } = server {
                        server = self.start(false)?;
                    }
                }
            }
        }
    }

    /// What programs find in files about the sandbox.
    fn write_down(&self) {
        let Config { hostname, .. } = &self.config;
        if let Some(hostname) = hostname.as_deref().filter(|name| !name.is_empty()) {
            // Without it `sudo` is slow, and nothing worse.
            let _ = hosts::set_own(hosts::HOSTS, hostname);
        }
        write_facts(&self.config, true);
    }

    fn start(&self, is_first: bool) -> Result<Server, InitError> {
        match fork_single_threaded().map_err(InitError::Fork)? {
            Fork::Parent { child } => Ok(Server::Running {
                pid: child,
                since: Instant::now(),
            }),
            Fork::Child => Err(self.be_server(is_first)),
        }
    }

    /// The child's life; it returns only if it cannot serve.
    fn be_server(&self, is_first: bool) -> InitError {
        prepare("envd");
        if let Err(error) = self.mask.restore() {
            return InitError::Signals(error);
        }
        descriptors::raise_limit();
        let ready = self.ready.try_clone();
        let listener = match self.listener.try_clone() {
            Ok(listener) => listener,
            Err(source) => {
                return InitError::Descriptor {
                    number: LISTENER_FD,
                    source,
                };
            }
        };
        let start = Start {
            listener,
            config: Some(self.config.clone()),
            in_sandbox: true,
            // Without it figures of the whole disk are told.
            disk: self.disk.as_ref().and_then(|disk| disk.try_clone().ok()),
            log: self.log.as_ref().and_then(|log| log.try_clone().ok()),
            is_first,
            startup: same(&self.startup),
            variables: same(&self.variables),
            ready: Box::new(move || {
                // A platform that has gone does not matter to the sandbox.
                let _ = ready.and_then(|pipe| File::from(pipe).write_all(b"1"));
            }),
        };
        match serve(start) {
            Ok(never) => match never {},
            Err(error) => InitError::Serve(error),
        }
    }
}

fn same(record: &Option<Record>) -> Option<Record> {
    record.as_ref().and_then(|record| record.try_clone().ok())
}

/// Takes the status of all children that ended, ours and orphans. Says whether any are left.
fn reap(mut ended: impl FnMut(Pid)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => ended(pid),
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Asks everybody to end and gives them a moment; the kernel ends who is left, when we have gone.
fn stop() -> Result<(), InitError> {
    // Nobody there is fine.
    let _ = kill_everyone(false);
    let until = Instant::now() + GRACE;
    while reap(|_| {}) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        wait_signal(Some(left)).map_err(InitError::Signals)?;
    }
    Ok(())
}

/// Files by which programs know where they are. Best effort, as every image has its own `/run`.
pub fn write_facts(config: &Config, in_sandbox: bool) {
    let _ = fs::create_dir_all(FACTS);
    let facts = [
        (
            ".E2B_SANDBOX",
            if in_sandbox { "true" } else { "false" },
            0o444,
        ),
        (".E2B_SANDBOX_ID", config.sandbox_id.as_str(), 0o666),
        (".E2B_TEMPLATE_ID", config.template_id.as_str(), 0o666),
    ];
    for (name, text, mode) in facts {
        let path = format!("{FACTS}/{name}");
        if fs::write(&path, text).is_ok() {
            let _ = fs::set_permissions(&path, Permissions::from_mode(mode));
        }
    }
}
