//! A process tree like that of an idle sandbox, held still and let go on by its control group.
//!
//! Made and removed around every sample: what a killed bench leaves is found under the same name by
//! the next one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

/// Below the root of version 2.
const NAME: &str = "casemate-bench";
/// First process, agent and a program.
const PROCESSES: usize = 3;
const TREE: &str = "sleep 3600 & sleep 3600 & wait";
/// The kernel tells of a change, but not twice in 10 ms.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it takes until all stand still, and until they were let go on.
pub(super) fn freeze_and_thaw() -> io::Result<(Duration, Duration)> {
    let tree = Tree::start()?;
    let state = File::open(tree.folder.join("cgroup.events"))?;
    let begun = Instant::now();
    fs::write(tree.folder.join("cgroup.freeze"), "1")?;
    while !is_frozen(&state)? {
        if begun.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut polled = [PollFd::new(&state, PollFlags::PRI)];
        retry_on_intr(|| poll(&mut polled, Some(&LOOK)))?;
    }
    let froze = begun.elapsed();
    let begun = Instant::now();
    fs::write(tree.folder.join("cgroup.freeze"), "0")?;
    Ok((froze, begun.elapsed()))
}

fn is_frozen(state: &File) -> io::Result<bool> {
    let mut buffer = [0; 256];
    let length = state.read_at(&mut buffer, 0)?;
    let text = std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)?;
    Ok(text.lines().any(|line| line == "frozen 1"))
}

struct Tree {
    folder: PathBuf,
    shell: Child,
}

impl Tree {
    fn start() -> io::Result<Self> {
        let folder = root()?.join(NAME);
        sweep(&folder)?;
        fs::create_dir(&folder)?;
        let procs = folder.join("cgroup.procs");
        let script = format!("echo $$ >{} || exit; {TREE}", procs.display());
        let shell = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let tree = Self { folder, shell };
        let begun = Instant::now();
        while fs::read_to_string(&procs)?.lines().count() < PROCESSES {
            if begun.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        // The last one still executes its program.
        thread::sleep(Duration::from_millis(2));
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
        // One that never came into its group.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let _ = sweep(&self.folder);
    }
}

/// Where version 2 is mounted.
fn root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let unified = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    unified.ok_or_else(|| io::Error::other("control groups of version 2 are not mounted"))
}

/// Ends what is in the group and removes it. Where there is none, there is nothing to do.
fn sweep(folder: &Path) -> io::Result<()> {
    let begun = Instant::now();
    while folder.exists() {
        fs::write(folder.join("cgroup.kill"), "1")?;
        match fs::remove_dir(folder) {
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            // Its processes are on their way out.
            Ok(()) | Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(())
}
