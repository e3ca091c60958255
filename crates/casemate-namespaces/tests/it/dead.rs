//! Whose a test's instance is, and the end of those whose run was killed: their sandboxes, mounts,
//! groups and addresses would stay for good.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_namespaces::NamespacesRuntime;
use casemate_namespaces::pool::{Pool, PoolConfig};
use casemate_runtime::Runtime;
use casemate_types::{InstanceId, chain};
use rustix::process::{Pid, Signal, kill_process};

use crate::adoption::service_group;
use crate::world;

const PREFIX: &str = "casemate-it-";
const OWNER: &str = "owner";
/// How long what a dead run started may take to follow it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder of a new instance, marked as this run's.
pub fn folder(instance: &InstanceId) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("{PREFIX}{instance}"));
    std::fs::create_dir_all(&folder).expect("a folder is made");
    let me = std::process::id();
    let owner = format!("{me} {}", started(me).expect("we run"));
    std::fs::write(folder.join(OWNER), owner).expect("it is marked");
    folder
}

/// Ends the instances whose run is dead. Of others nothing is touched, nor of what is not marked.
pub async fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir())
        .expect("it is readable")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = entry.path();
        if let Some(pid) = rest.strip_prefix("init-") {
            if pid.parse().is_ok_and(|pid| started(pid).is_none()) {
                let _ = std::fs::remove_file(path);
            }
        } else if let (Ok(instance), true) = (InstanceId::parse(rest), is_orphan(&path)) {
            println!("  ending what a killed run left in {}", path.display());
            if let Err(cause) = end(&path, &instance).await {
                println!("  it stays: {cause}");
            }
        }
    }
}

async fn end(folder: &Path, instance: &InstanceId) -> Result<(), String> {
    for pid in holders(folder) {
        // Gone meanwhile is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
    let freezer = PathBuf::from(format!("/sys/fs/cgroup/freezer/test-{instance}"));
    if freezer.exists() {
        let thawed = std::fs::write(freezer.join("freezer.state"), "THAWED");
        thawed.map_err(|error| error.to_string())?;
    }
    let mount = folder.join("pool");
    if mount.exists() {
        // A test of the pool alone.
        let config = PoolConfig {
            folder: folder.join("node"),
            mount,
            bytes_max: None,
            disk_reserve: 0,
            is_given_up: true,
        };
        let pool = Pool::open(config).map_err(|error| chain(&error).to_string())?;
        pool.close(true).map_err(|error| error.to_string())?;
    } else {
        // Its launchers hold what it held until they notice.
        let deadline = Instant::now() + PATIENCE;
        let runtime = loop {
            let mut config = world::config(folder.to_owned(), instance.clone());
            config.gives_pool_up = true;
            match NamespacesRuntime::open(config).await {
                Ok(runtime) => break runtime,
                Err(error) if Instant::now() > deadline => return Err(chain(&error).to_string()),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let ended = runtime.teardown(true).await;
        ended.map_err(|error| chain(&error).to_string())?;
    }
    for group in [service_group(instance), Some(freezer)]
        .into_iter()
        .flatten()
    {
        // It is not there after most tests.
        let _ = std::fs::remove_dir(group);
    }
    std::fs::remove_dir_all(folder).map_err(|error| error.to_string())
}

fn is_orphan(folder: &Path) -> bool {
    let owner = std::fs::read_to_string(folder.join(OWNER)).unwrap_or_default();
    let Some((pid, since)) = owner.split_once(' ') else {
        return false;
    };
    // Another process may have its number by now.
    pid.parse()
        .is_ok_and(|pid| started(pid).as_deref() != Some(since))
}

/// When a process started, in the kernel's ticks; `None` when there is none, or only what is left
/// of one until its parent notices.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let alive = !rest.starts_with('Z');
    let since = rest.split(' ').nth(19)?;
    alive.then(|| since.to_owned())
}

/// The processes that a test of adoption meant to kill.
fn holders(folder: &Path) -> Vec<Pid> {
    let arguments = format!("\0internal\0hold\0{}\0", folder.display());
    let holds = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&arguments)
    };
    let all = std::fs::read_dir("/proc")
        .expect("processes are listed")
        .flatten();
    let numbers = all.flat_map(|entry| entry.file_name().to_string_lossy().parse());
    numbers.filter(holds).flat_map(Pid::from_raw).collect()
}
