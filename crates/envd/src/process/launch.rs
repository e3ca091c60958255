//! Making a process: from the request to a registered, supervised child.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::rc::Rc;
use std::time::Duration;

use casemate_linux::guest::{Spawn, SpawnError, Spawned, spawn};
use envd_wire::process::{PTY, ProcessConfig, StartRequest};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::environment::{self, Whose};
use super::live::{Chunk, Input, Process, Source};
use super::output::Output;
use super::supervise::supervise;
use crate::connect::{Code, RpcError};
use crate::descriptors::limit_of_programs;
use crate::guest::Guest;
use crate::limits::PROCESSES;
use crate::log::Log;
use crate::paths::{expand, os_text};
use crate::ready::register;
use crate::users::User;

/// Best effort (class 2), level 4.
const IOPRIO: i32 = (2 << 13) | 4;

/// Starts what `request` asks for. The queue has all output, from the first byte.
pub fn launch(
    guest: &Guest,
    user: &User,
    whose: Whose,
    request: StartRequest,
    limit: Option<Duration>,
) -> Result<(Rc<Process>, mpsc::Receiver<Chunk>), RpcError> {
    let StartRequest {
        mut process,
        pty,
        tag,
        stdin,
    } = request;
    let config = process.take().unwrap_or_default();
    let asked = Asked {
        whose,
        config: &config,
        pty: pty.as_option(),
        tag,
        stdin: stdin.unwrap_or(true),
    };
    let launched = start(guest, user, asked, limit, &guest.log);
    match &launched {
        // Its supervisor runs after this, so it cannot have ended yet.
        Ok((process, _)) => guest.processes.insert(Rc::clone(process)),
        Err(error) => guest
            .log
            .process_refused(&user.name, &config, &error.message),
    }
    launched
}

/// The same for a command of the template, of which neither the list of processes nor the log tells.
pub fn launch_unlisted(
    guest: &Guest,
    user: &User,
    request: StartRequest,
) -> Result<(Rc<Process>, mpsc::Receiver<Chunk>), RpcError> {
    let config = request.process.into_option().unwrap_or_default();
    let asked = Asked {
        whose: Whose::Template,
        config: &config,
        pty: None,
        tag: None,
        stdin: request.stdin.unwrap_or(true),
    };
    start(guest, user, asked, None, &Rc::new(Log::default()))
}

/// A request, taken apart.
struct Asked<'a> {
    whose: Whose,
    config: &'a ProcessConfig,
    pty: Option<&'a PTY>,
    tag: Option<String>,
    stdin: bool,
}

fn start(
    guest: &Guest,
    user: &User,
    asked: Asked<'_>,
    limit: Option<Duration>,
    log: &Rc<Log>,
) -> Result<(Rc<Process>, mpsc::Receiver<Chunk>), RpcError> {
    if guest.processes.is_full() {
        let text = format!("{PROCESSES} processes run already");
        return Err(RpcError::new(Code::ResourceExhausted, text));
    }
    let Asked {
        whose,
        config,
        pty,
        tag,
        stdin,
    } = asked;
    let plan = Plan::of(guest, user, whose, config)?;
    let failed = |error: &io::Error| plan.failure(pty, error);

    let channels = match pty {
        Some(pty) => terminal(window(pty), user),
        None => pipes(stdin, user),
    };
    let Channels {
        child,
        input,
        outputs,
    } = channels.map_err(|error| failed(&error))?;
    let spawned = plan
        .spawn(user, &child, pty.is_some())
        .map_err(|error| failed(error.os_error()))?;
    drop(child);

    let Spawned { pid, pidfd } = spawned;
    let pid = u32::try_from(pid.as_raw_pid()).unwrap_or_default();
    let pidfd = register(pidfd, Interest::READABLE).map_err(|(pidfd, error)| {
        abandon(&pidfd);
        failed(&error)
    })?;
    let (log, config) = (Rc::clone(log), config.clone());
    log.process_start(pid, &user.name, tag.as_deref(), &config, limit);
    let process = Rc::new(Process::new(pid, tag, config, pidfd, input));
    // Nothing was read yet: the supervisor runs after this.
    let queue = process
        .subscribe()
        .ok_or_else(|| RpcError::internal("a new process has readers already"))?;
    let table = Rc::clone(&guest.processes);
    tokio::task::spawn_local(supervise(table, log, Rc::clone(&process), outputs, limit));
    Ok((process, queue))
}

/// Ends a child that cannot be looked after.
fn abandon(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// The window of a request; more than 16 bits are cut off, as the kernel has no more.
pub fn window(pty: &PTY) -> Winsize {
    let cut = |cells: u32| u16::try_from(cells & 0xffff).unwrap_or_default();
    let (columns, rows) = pty
        .size
        .as_option()
        .map_or((0, 0), |size| (size.cols, size.rows));
    Winsize {
        ws_col: cut(columns),
        ws_row: cut(rows),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Everything that is known before the kernel is asked.
struct Plan {
    /// As the user knows it: alone, and with its arguments.
    command: String,
    command_line: String,
    cwd: String,
    cwd_c: CString,
    args: Vec<CString>,
    envs: Vec<CString>,
    candidates: Vec<CString>,
    not_found: Vec<u8>,
    not_executable: Vec<u8>,
}

impl Plan {
    fn of(
        guest: &Guest,
        user: &User,
        whose: Whose,
        config: &ProcessConfig,
    ) -> Result<Self, RpcError> {
        let settings = guest.settings.borrow();
        let asked = config.cwd.as_deref().unwrap_or_default();
        let cwd = expand(asked, user, settings.default_workdir.as_deref())
            .map_err(|error| RpcError::invalid(error.to_string()))?;
        if std::fs::metadata(&cwd).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(RpcError::invalid(format!("cwd '{cwd}' does not exist")));
        }
        let own_path = std::env::var("PATH").ok().filter(|path| !path.is_empty());
        let variables = environment::variables(own_path, user, &settings, whose, &config.envs);
        let envs = environment::block(&variables).map_err(|name| {
            RpcError::invalid(format!(
                "invalid environment variable '{}'",
                name.escape_default()
            ))
        })?;
        let path = variables.get("PATH").map_or("", String::as_str);
        let words = std::iter::once(&config.cmd).chain(&config.args);
        let args = words
            .clone()
            .map(|word| CString::new(word.as_str()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| RpcError::invalid("command or argument contains a NUL byte"))?;
        Ok(Self {
            command: config.cmd.clone(),
            command_line: words.map(String::as_str).collect::<Vec<_>>().join(" "),
            candidates: environment::candidates(&config.cmd, path),
            not_found: format!("{}: No such file or directory\n", config.cmd).into(),
            not_executable: format!("{}: cannot execute: Permission denied\n", config.cmd).into(),
            cwd_c: CString::new(cwd.clone())
                .map_err(|_| RpcError::invalid("path contains a NUL byte"))?,
            cwd,
            args,
            envs,
        })
    }

    fn spawn(&self, user: &User, child: &Ends, terminal: bool) -> Result<Spawned, SpawnError> {
        let groups = user.groups();
        spawn(&Spawn {
            candidates: &self.candidates,
            args: &self.args,
            envs: &self.envs,
            cwd: &self.cwd_c,
            stdio: child.stdio(),
            terminal,
            uid: user.uid,
            gid: user.gid,
            groups: &groups,
            nice: 0,
            ioprio: IOPRIO,
            oom_score_adj: c"100",
            open_files: limit_of_programs(),
            not_found: &self.not_found,
            not_executable: &self.not_executable,
        })
    }

    fn failure(&self, pty: Option<&PTY>, error: &io::Error) -> RpcError {
        // Arguments that the kernel finds too long are too long for a message, too.
        let is_too_long = error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error());
        let command = if is_too_long {
            &self.command
        } else {
            &self.command_line
        };
        let error = os_text(error);
        RpcError::invalid(match pty {
            None => format!("error starting process '{command}': {error}"),
            Some(pty) => {
                let Winsize { ws_col, ws_row, .. } = window(pty);
                let cwd = &self.cwd;
                format!(
                    "error starting pty with command '{command}' in dir '{cwd}' with '{ws_col}' \
                     cols and '{ws_row}' rows: {error}"
                )
            }
        })
    }
}

/// The child's ends.
enum Ends {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
}

impl Ends {
    fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        match self {
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Self::Terminal(slave) => [slave.as_fd(); 3],
        }
    }
}

/// Both sides of what connects us with a child.
struct Channels {
    child: Ends,
    input: Input,
    outputs: Vec<Output>,
}

fn pipes(with_stdin: bool, user: &User) -> io::Result<Channels> {
    let (stdout_ours, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_ours, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    own(&stdout, user);
    own(&stderr, user);
    let (stdin, input) = if with_stdin {
        let (stdin, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        own(&stdin, user);
        (
            stdin,
            Input::Pipe(Rc::new(watched(ours, Interest::WRITABLE)?)),
        )
    } else {
        (File::open("/dev/null")?.into(), Input::Closed)
    };
    let outputs = vec![
        Output {
            source: Source::Stdout,
            file: Rc::new(watched(stdout_ours, Interest::READABLE)?),
        },
        Output {
            source: Source::Stderr,
            file: Rc::new(watched(stderr_ours, Interest::READABLE)?),
        },
    ];
    Ok(Channels {
        child: Ends::Pipes {
            stdin,
            stdout,
            stderr,
        },
        input,
        outputs,
    })
}

/// So that programs can open /dev/stdout and the like by name. Refused on some mounts; the
/// inherited descriptors work anyway.
fn own(end: &OwnedFd, user: &User) {
    let _ = fchown(end, Some(user.uid), None);
}

fn terminal(size: Winsize, user: &User) -> io::Result<Channels> {
    let master = open_master()?;
    unlockpt(&master)?;
    tcsetwinsize(&master, size)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = match ioctl_tiocgptpeer(&master, flags) {
        Ok(slave) => slave,
        // Kernels before 4.13 and some gVisor releases have no such call.
        Err(Errno::NOTTY | Errno::INVAL) => open_slave(&master)?,
        Err(error) => return Err(error.into()),
    };
    own(&slave, user);
    let master = Rc::new(watched(master, Interest::READABLE | Interest::WRITABLE)?);
    Ok(Channels {
        child: Ends::Terminal(slave),
        input: Input::Terminal(Rc::clone(&master)),
        outputs: vec![Output {
            source: Source::Terminal,
            file: master,
        }],
    })
}

/// As rustix's `openpt`, which would say `EAGAIN`, the word of the process limit, where the kernel
/// has no terminal left.
fn open_master() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open("/dev/ptmx", flags, Mode::empty()) {
        Err(Errno::NOSPC) => Err(none_left()),
        opened => Ok(opened?),
    }
}

/// What somebody can act on: the kernel's word alone sounds like a full disk.
fn none_left() -> io::Error {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut text = "no space left on device: no terminal is left".to_owned();
    if let Some(most) = most_terminals(&mounts) {
        text.push_str(&format!(", there are {most} at most"));
    }
    io::Error::new(io::ErrorKind::StorageFull, text)
}

/// The limit of this system alone, if it has one.
fn most_terminals(mounts: &str) -> Option<u32> {
    let line = mounts
        .lines()
        .find(|line| line.contains(" /dev/pts devpts "))?;
    let mut options = line.split([' ', ',']);
    options.find_map(|option| option.strip_prefix("max=")?.parse().ok())
}

fn open_slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = rustix::pty::ptsname(master, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    let flags = i32::try_from(OFlags::NOCTTY.bits()).map_err(io::Error::other)?;
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(name)?
        .into())
}

/// Our end: never blocks, and the event loop says when something can be done.
fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    register(fd, interest).map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_terminals_is_that_of_the_mount() {
        let of = |options| {
            most_terminals(&format!(
                "/dev/sda / ext4 rw,max=3 0 0\ndevpts /dev/pts devpts {options} 0 0\n"
            ))
        };
        assert_eq!(of("rw,gid=5,mode=620,ptmxmode=666,max=64"), Some(64));
        assert_eq!(of("rw,max=64,gid=5"), Some(64));
        assert_eq!(of("rw,gid=5,mode=620"), None);
        assert_eq!(most_terminals(""), None);
    }
}
