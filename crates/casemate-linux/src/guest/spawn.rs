//! Starting a user's program from the agent, as cheaply as the kernel allows.
//!
//! The child shares the agent's memory until it execs (`CLONE_VM | CLONE_VFORK`), so nothing is
//! copied, and the calling thread sleeps meanwhile. Between the two, the child makes system calls
//! on data prepared before, and nothing else: no allocation, no locks, no libc wrapper that would
//! reach the other threads (`setuid` and its like are raw calls for that reason).
//!
//! A user cannot use the moment between `setresuid` and `execve` to look into the agent's memory
//! through the child: changing ids makes the shared memory non-dumpable.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::process::Pid;

use super::signals::{all_signals, mask};

/// Enough for the calls in `child`; execve itself runs on the kernel's stack.
const STACK_BYTES: usize = 64 * 1024;
const IOPRIO_WHO_PROCESS: c_long = 1;

/// A program to start. Everything is decided; nothing is looked up.
pub struct Spawn<'a> {
    /// Paths to try in turn, as a search in `PATH` finds them.
    pub candidates: &'a [CString],
    pub args: &'a [CString],
    pub envs: &'a [CString],
    pub cwd: &'a CStr,
    /// Standard input, output, error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// New session with standard input as its controlling terminal.
    pub terminal: bool,
    pub uid: u32,
    pub gid: u32,
    pub groups: &'a [u32],
    pub nice: c_int,
    /// I/O class and level as `ioprio_set` takes them.
    pub ioprio: c_int,
    /// Text for `/proc/self/oom_score_adj`.
    pub oom_score_adj: &'a CStr,
    /// Soft and hard limit of open files.
    pub open_files: Option<(u64, u64)>,
    /// What the child writes to its standard error when no candidate can be executed.
    pub not_found: &'a [u8],
    pub not_executable: &'a [u8],
}

/// A started program.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// What the child was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Session,
    Terminal,
    Descriptors,
    Credentials,
    ChangeDirectory,
    /// Only what is the fault of arguments and variables: other failures are the program's, and
    /// told as a shell would.
    Execute,
}

const STEPS: [Step; 6] = [
    Step::Session,
    Step::Terminal,
    Step::Descriptors,
    Step::Credentials,
    Step::ChangeDirectory,
    Step::Execute,
];

/// Why the program could not even be tried.
#[derive(Debug)]
pub struct Failure {
    pub step: Step,
    pub error: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("clone")]
    Clone(#[source] io::Error),
    #[error("prepare child at {:?}", .0.step)]
    Prepare(Failure),
}

impl SpawnError {
    /// The kernel's own words.
    pub fn os_error(&self) -> &io::Error {
        match self {
            Self::Clone(error) => error,
            Self::Prepare(failure) => &failure.error,
        }
    }
}

/// Starts `plan`. A program that cannot be executed is not an error: as with a shell, the child
/// then writes the given words to its standard error and exits with 127 or 126.
pub fn spawn(plan: &Spawn<'_>) -> Result<Spawned, SpawnError> {
    // One slot in front: a script without an interpreter line is run as `/bin/sh SCRIPT ARGS…`.
    let mut argv = vec![c"/bin/sh".as_ptr()];
    argv.extend(plan.args.iter().map(|arg| arg.as_ptr()));
    if plan.args.is_empty() {
        argv.push(c"".as_ptr());
    }
    argv.push(ptr::null());
    let mut envp: Vec<*const c_char> = plan.envs.iter().map(|env| env.as_ptr()).collect();
    envp.push(ptr::null());

    let mut shared = Shared {
        plan,
        argv: argv.as_mut_ptr(),
        envp: envp.as_ptr(),
        ignored: ignored_signals(),
        step: AtomicU32::new(0),
        errno: AtomicI32::new(0),
    };
    let mut stack = Vec::<u8>::with_capacity(STACK_BYTES);
    let mut pidfd: c_int = -1;

    // No handler of ours may run in the child while it shares our memory.
    let before = mask(&all_signals()).map_err(SpawnError::Clone)?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is ours, grows down from its aligned end and outlives the child's use of
    // it, as do `shared`, `argv` and `envp`: CLONE_VFORK suspends us until the child execs or
    // exits. `child` keeps to async-signal-safe calls.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK_BYTES - 64);
        let top = top.sub(top.addr() % 16);
        let arg = (&raw mut shared).cast::<c_void>();
        libc::clone(child, top.cast(), flags, arg, &raw mut pidfd)
    };
    let cloned = if pid < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(pid)
    };
    // Restoring a mask that was valid a moment ago cannot fail.
    let _ = mask(&before);

    let pid = cloned.map_err(SpawnError::Clone)?;
    // SAFETY: CLONE_PIDFD stored a fresh descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(pid)
        .ok_or_else(|| SpawnError::Clone(io::Error::other("clone gave no pid")))?;
    match shared.errno.load(Ordering::Acquire) {
        0 => Ok(Spawned { pid, pidfd }),
        errno => {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let index = shared.step.load(Ordering::Acquire) as usize;
            let step = STEPS.get(index).copied().unwrap_or(Step::Descriptors);
            let error = io::Error::from_raw_os_error(errno);
            Err(SpawnError::Prepare(Failure { step, error }))
        }
    }
}

/// What parent and child have in common until the exec.
struct Shared<'a> {
    plan: &'a Spawn<'a>,
    argv: *mut *const c_char,
    envp: *const *const c_char,
    /// See [`ignored_signals`].
    ignored: u64,
    step: AtomicU32,
    errno: AtomicI32,
}

extern "C" fn child(arg: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its `Shared`, which lives until this child has exec'd or ended.
    let shared = unsafe { &*arg.cast::<Shared<'_>>() };
    match prepare(shared) {
        Ok(()) => execute(shared),
        Err(errno) => {
            shared.errno.store(errno, Ordering::Release);
            exit(127)
        }
    }
}

/// Everything up to the exec, in an order that leaves each step the rights it needs.
fn prepare(shared: &Shared<'_>) -> Result<(), c_int> {
    let plan = shared.plan;
    let at = |step: Step| shared.step.store(step as u32, Ordering::Release);

    reset_signals(shared.ignored);
    if plan.terminal {
        at(Step::Session);
        call(libc::SYS_setsid, [0; 4])?;
    }
    at(Step::Descriptors);
    install_stdio(plan)?;
    if plan.terminal {
        at(Step::Terminal);
        call(libc::SYS_ioctl, [0, libc::TIOCSCTTY as c_long, 0, 0])?;
    }
    // Rank among others: refused inside some sandboxes, and no reason to run nothing.
    set_ranks(plan);
    at(Step::Credentials);
    let groups = plan.groups.as_ptr().addr() as c_long;
    call(
        libc::SYS_setgroups,
        [plan.groups.len() as c_long, groups, 0, 0],
    )?;
    let (uid, gid) = (c_long::from(plan.uid), c_long::from(plan.gid));
    call(libc::SYS_setresgid, [gid, gid, gid, 0])?;
    call(libc::SYS_setresuid, [uid, uid, uid, 0])?;
    // After the change of user: whoever may not enter a directory does not start in it.
    at(Step::ChangeDirectory);
    call(
        libc::SYS_chdir,
        [plan.cwd.as_ptr().addr() as c_long, 0, 0, 0],
    )?;
    unblock_signals();
    Ok(())
}

/// The signals that this process ignores, a bit each. Exec resets handlers and keeps what is
/// ignored (the Rust runtime ignores SIGPIPE). Asked once: nothing here changes it later, and the
/// question is 64 calls.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let ignored = |signal: &c_long| {
            // The kernel's `sigaction`; the C library would not tell of the two that it keeps.
            let mut action = [0_u64; 4];
            let place = (&raw mut action).addr() as c_long;
            let asked = call(libc::SYS_rt_sigaction, [*signal, 0, place, 8]);
            asked.is_ok() && action[0] == libc::SIG_IGN as u64
        };
        (1..=64)
            .filter(ignored)
            .fold(0, |all, signal| all | 1 << (signal - 1))
    })
}

fn reset_signals(mut ignored: u64) {
    // Default handler, no flags, no restorer, empty mask.
    let default = [0_u64; 4];
    while ignored != 0 {
        let signal = c_long::from(ignored.trailing_zeros()) + 1;
        let action = (&raw const default).addr() as c_long;
        let _ = call(libc::SYS_rt_sigaction, [signal, action, 0, 8]);
        ignored &= ignored - 1;
    }
}

/// The last step: until here a signal could only have waited.
fn unblock_signals() {
    let mut none = all_signals();
    // SAFETY: the set is ours and lives through both calls.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

fn install_stdio(plan: &Spawn<'_>) -> Result<(), c_int> {
    for (target, source) in plan.stdio.iter().enumerate() {
        // All sources are above 2 (the caller's own 0 to 2 are open), so none is overwritten.
        let (source, target) = (c_long::from(source.as_raw_fd()), target as c_long);
        call(libc::SYS_dup3, [source, target, 0, 0])?;
    }
    let flag = c_long::from(libc::CLOSE_RANGE_CLOEXEC);
    call(libc::SYS_close_range, [3, c_long::from(u32::MAX), flag, 0])?;
    Ok(())
}

fn set_ranks(plan: &Spawn<'_>) {
    let path = c"/proc/self/oom_score_adj".as_ptr().addr() as c_long;
    let flags = c_long::from(libc::O_WRONLY | libc::O_CLOEXEC);
    if let Ok(file) = call(
        libc::SYS_openat,
        [c_long::from(libc::AT_FDCWD), path, flags, 0],
    ) {
        let text = plan.oom_score_adj.to_bytes();
        let _ = call(
            libc::SYS_write,
            [
                file,
                text.as_ptr().addr() as c_long,
                text.len() as c_long,
                0,
            ],
        );
        let _ = call(libc::SYS_close, [file, 0, 0, 0]);
    }
    let _ = call(
        libc::SYS_ioprio_set,
        [IOPRIO_WHO_PROCESS, 0, c_long::from(plan.ioprio), 0],
    );
    let _ = call(libc::SYS_setpriority, [0, 0, c_long::from(plan.nice), 0]);
    if let Some((current, maximum)) = plan.open_files {
        let limit = libc::rlimit {
            rlim_cur: current,
            rlim_max: maximum,
        };
        let limit = (&raw const limit).addr() as c_long;
        let _ = call(
            libc::SYS_prlimit64,
            [0, c_long::from(libc::RLIMIT_NOFILE), limit, 0],
        );
    }
}

fn execute(shared: &Shared<'_>) -> c_int {
    let mut denied = false;
    for candidate in shared.plan.candidates {
        // SAFETY: slot 1 exists (`spawn` makes at least three) and only this child writes it.
        let argv = unsafe { shared.argv.add(1) };
        let mut errno = exec(candidate.as_ptr(), argv.cast_const(), shared.envp);
        if errno == libc::ENOEXEC {
            // SAFETY: as above; afterwards the list reads `/bin/sh`, the script, its arguments.
            unsafe { argv.write(candidate.as_ptr()) };
            errno = exec(c"/bin/sh".as_ptr(), shared.argv.cast_const(), shared.envp);
            if errno != libc::E2BIG {
                denied = true;
                break;
            }
        }
        match errno {
            // The kernel's word on what it was given, not on the program.
            libc::E2BIG => {
                shared.step.store(Step::Execute as u32, Ordering::Release);
                shared.errno.store(errno, Ordering::Release);
                exit(127)
            }
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
            _ => {
                denied = true;
                break;
            }
        }
    }
    let plan = shared.plan;
    let words = if denied {
        plan.not_executable
    } else {
        plan.not_found
    };
    let _ = call(
        libc::SYS_write,
        [2, words.as_ptr().addr() as c_long, words.len() as c_long, 0],
    );
    exit(if denied { 126 } else { 127 })
}

/// Returns only on failure.
fn exec(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    let arguments = [path.addr(), argv.addr(), envp.addr(), 0].map(|word| word as c_long);
    call(libc::SYS_execve, arguments)
        .err()
        .unwrap_or(libc::EINVAL)
}

fn exit(code: c_long) -> ! {
    loop {
        let _ = call(libc::SYS_exit_group, [code, 0, 0, 0]);
    }
}

/// A raw system call: this thread only, no libc bookkeeping. The error number on failure.
fn call(number: c_long, arguments: [c_long; 4]) -> Result<c_long, c_int> {
    let [a, b, c, d] = arguments;
    // SAFETY: only `child` and its helpers call this, with pointers into `Shared`, into literals or
    // into locals that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: errno's address is always valid. The child uses the sleeping parent's.
    Err(unsafe { *libc::__errno_location() })
}
