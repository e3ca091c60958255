//! The cheapest sandbox: a process in namespaces of its own, on an overlay over the host's root.
//!
//! What the platform pools (network namespaces, cgroups) is left out of the floor, as it is off the
//! platform's path as well; so are limits, filters and an agent. The upper layers are in memory.
//! Where the figure is a throughput, nothing can be made ahead: that floor has an agent, and a
//! network namespace for each, though without links, and still no cgroups and no filter.
//!
//! The clock stops when the program's output ends, which the kernel does before it takes the
//! namespaces down: that takes many milliseconds, and nobody who waits for a result waits for it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork, unshare};
use casemate_linux::exec::{arrange_fds, dup_above, exec_fd, reset_signals};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, pivot_root, waitid};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

/// Where our memory file system is: a folder that every Linux has, hidden only from ourselves.
const GROUND: &str = "/mnt";

/// A range of ids that is nobody's.
const ID_MAP: &str = "0 1879048192 65536\n";

const NAMESPACES: Namespaces = Namespaces::USER
    .and(Namespaces::PID)
    .and(Namespaces::MOUNT)
    .and(Namespaces::UTS)
    .and(Namespaces::IPC)
    .and(Namespaces::CGROUP);

/// What is made once, before anything is measured.
pub(super) struct Ground {
    null: OwnedFd,
    made: u64,
}

impl Ground {
    /// A mount namespace of our own with a memory file system for the upper layers.
    pub(super) fn prepare() -> io::Result<Self> {
        unshare(Namespaces::MOUNT)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        mount("tmpfs", GROUND, "tmpfs", MountFlags::empty(), None)?;
        fs::create_dir(format!("{GROUND}/root"))?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { null, made: 0 })
    }

    /// Runs a program in `count` new sandboxes at once and says how long it took until the last one
    /// had done its work. That they did is seen, and what they leave removed, after the clock was
    /// read.
    pub(super) fn run(
        &mut self,
        proof: &SingleThreaded,
        count: u16,
        program: &[CString],
    ) -> io::Result<Duration> {
        let begun = Instant::now();
        let mut running = Vec::with_capacity(count.into());
        let mut failed = None;
        for _ in 0..count {
            match self.start(proof, &Inside::Program(program)) {
                Ok(started) => running.push(started),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for started in &running {
            if let Err(error) = started.read_to_end() {
                failed = failed.or(Some(error));
            }
        }
        let took = begun.elapsed();
        // Whatever was started is waited for, or it would be somebody's zombie.
        for started in running {
            if let Err(error) = started.finish() {
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(took), Err)
    }

    /// Starts `count` sandboxes with the agent as their first process, waits until all serve, runs
    /// `then` as often, and ends them. The clock stops when they are gone.
    pub(super) fn run_agents(
        &mut self,
        proof: &SingleThreaded,
        count: u16,
        agent: &Path,
        then: impl Fn() -> io::Result<Duration>,
    ) -> io::Result<Duration> {
        let agent = open(agent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let agent = dup_above(agent.as_fd(), ABOVE_PLACES)?;
        let begun = Instant::now();
        let mut running = Vec::with_capacity(count.into());
        let mut failed = None;
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            match self.start(proof, &Inside::Agent(&agent, &listener)) {
                Ok(started) => running.push(started),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for started in &running {
            let ran = started.read_ready().and_then(|()| then());
            failed = failed.or(ran.err());
        }
        for started in &running {
            let _ = pidfd_send_signal(&started.pidfd, Signal::KILL);
        }
        for started in running {
            failed = failed.or(started.wait_and_remove().err());
        }
        failed.map_or(Ok(begun.elapsed()), Err)
    }

    fn start(&mut self, proof: &SingleThreaded, inside: &Inside<'_>) -> io::Result<Started> {
        self.made += 1;
        let layer = PathBuf::from(format!("{GROUND}/{}", self.made));
        let (upper, work) = (layer.join("u"), layer.join("w"));
        fs::create_dir(&layer)?;
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(overlay.as_fd(), "lowerdir", "/")?;
        fsconfig_set_string(overlay.as_fd(), "upperdir", &*upper.to_string_lossy())?;
        fsconfig_set_string(overlay.as_fd(), "workdir", &*work.to_string_lossy())?;
        fsconfig_create(overlay.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        let root = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let (mapped, map) = pipe_with(PipeFlags::CLOEXEC)?;
        let (output, its_output) = pipe_with(PipeFlags::CLOEXEC)?;
        match fork(
            proof,
            &Fork {
                namespaces: inside.namespaces(),
                cgroup: None,
                sibling: false,
            },
        )? {
            Forked::Child => {
                drop(map);
                // The parent learns of a failure by the exit code; there is nobody else to tell.
                let streams = (&self.null, &its_output);
                let _ = become_program(&mapped, &root, streams, inside);
                exit_now(127)
            }
            Forked::Parent { child, pidfd } => {
                let started = Started {
                    pidfd,
                    output,
                    layer,
                };
                match let_go(child, &map) {
                    Ok(()) => Ok(started),
                    Err(error) => {
                        // The child reads the end of the pipe, fails, and is gone.
                        drop(map);
                        let _ = started.finish();
                        Err(error)
                    }
                }
            }
        }
    }
}

/// What runs in a sandbox.
enum Inside<'a> {
    Program(&'a [CString]),
    /// The agent's binary, and the socket on which it serves.
    Agent(&'a OwnedFd, &'a TcpListener),
}

impl Inside<'_> {
    fn namespaces(&self) -> Namespaces {
        match self {
            Self::Program(_) => NAMESPACES,
            Self::Agent(..) => NAMESPACES.and(Namespaces::NETWORK),
        }
    }
}

/// A sandbox on its way.
struct Started {
    pidfd: OwnedFd,
    /// The reading end of what the program writes. The program alone has the other one.
    output: OwnedFd,
    layer: PathBuf,
}

impl Started {
    fn read_to_end(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.output, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the agent's word that it serves.
    fn read_ready(&self) -> io::Result<()> {
        loop {
            match rustix::io::read(&self.output, &mut [0; 1]) {
                Ok(1..) => return Ok(()),
                Ok(0) => return Err(io::Error::other("the agent ended before it served")),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the end and removes the layer, also of a program that failed.
    fn finish(self) -> io::Result<()> {
        match self.wait_and_remove()? {
            Some(0) => Ok(()),
            code => Err(io::Error::other(format!(
                "the program in the namespaces ended: {code:?}"
            ))),
        }
    }

    /// Its exit code; none of one that was killed.
    fn wait_and_remove(self) -> io::Result<Option<i32>> {
        let status = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        fs::remove_dir_all(&self.layer)?;
        Ok(status.and_then(|status| status.exit_status()))
    }
}

/// Gives the child its ids and lets it go on.
fn let_go(child: Pid, map: &OwnedFd) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", child.as_raw_nonzero()), ID_MAP)?;
    }
    rustix::io::write(map, b"!")?;
    Ok(())
}

/// In the child: waits for the ids, takes the overlay as root, becomes the program.
fn become_program(
    mapped: &OwnedFd,
    root: &OwnedFd,
    (null, output): (&OwnedFd, &OwnedFd),
    inside: &Inside<'_>,
) -> io::Result<()> {
    if rustix::io::read(mapped, &mut [0; 1])? != 1 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    let place = format!("{GROUND}/root");
    move_mount(
        root,
        "",
        CWD,
        &*place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    rustix::process::chdir(&*place)?;
    if let Inside::Agent(..) = inside {
        let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "proc", "proc", safe, None)?;
    }
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let program = match inside {
        Inside::Program(program) => *program,
        Inside::Agent(agent, listener) => return Err(become_agent(agent, listener, null, output)),
    };
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(null)?;
    reset_signals();
    let words: Vec<&CStr> = program.iter().map(CString::as_c_str).collect();
    let file = open(words[0], OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Err(exec_fd(
        file.as_fd(),
        &words,
        &[c"PATH=/usr/local/bin:/usr/bin:/bin", c"HOME=/root"],
    ))
}

/// A number that no place of a descriptor has.
const ABOVE_PLACES: i32 = 16;

/// Configuration on 3, listener on 4, on 5 where it says that it serves (`envd/src/init.rs`).
fn become_agent(
    agent: &OwnedFd,
    listener: &TcpListener,
    null: &OwnedFd,
    output: &OwnedFd,
) -> io::Error {
    let give = || -> io::Result<()> {
        let (config, written) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::write(&written, br#"{"version":2}"#)?;
        drop(written);
        let [null, config, listener, output] = [
            null.as_fd(),
            config.as_fd(),
            listener.as_fd(),
            output.as_fd(),
        ]
        .map(|fd| dup_above(fd, ABOVE_PLACES));
        let (null, config, listener, output) = (null?, config?, listener?, output?);
        let places = [
            (null.as_fd(), 0),
            (null.as_fd(), 1),
            (null.as_fd(), 2),
            (config.as_fd(), 3),
            (listener.as_fd(), 4),
            (output.as_fd(), 5),
        ];
        arrange_fds(&places, agent.as_fd())?;
        // They are closed by now.
        std::mem::forget((null, config, listener, output));
        reset_signals();
        Ok(())
    };
    match give() {
        Ok(()) => exec_fd(agent.as_fd(), &[c"envd", c"init"], &[]),
        Err(error) => error,
    }
}
