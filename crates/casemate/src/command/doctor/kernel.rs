//! What the kernel can do.

use std::fs;
use std::path::Path;

use casemate_namespaces::cgroup::missing_controllers;

use super::Finding;

/// Idmapped mounts below overlayfs work from here on (decision 7).
const OLDEST: (u32, u32) = (5, 19);

pub(super) fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        Finding::good("rights", "root")
    } else {
        Finding::fatal("rights", "not root", "Run it as root: sudo casemate up")
    }
}

pub(super) fn version() -> Finding {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mend = "Install a newer kernel (Debian 12 has 6.1)";
    match parse(&release) {
        Some(version) if version >= OLDEST => Finding::good("kernel", release),
        Some(_) => Finding::fatal("kernel", format!("{release} is older than 5.19"), mend),
        None => Finding::fatal("kernel", format!("{release} is not understood"), mend),
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn architecture() -> Finding {
    let machine = rustix::system::uname()
        .machine()
        .to_string_lossy()
        .into_owned();
    if machine == "x86_64" {
        Finding::good("architecture", machine)
    } else {
        Finding::fatal("architecture", machine, "This version runs on x86_64 only")
    }
}

pub(super) fn user_namespaces() -> Finding {
    const SWITCH: &str = "/proc/sys/user/max_user_namespaces";
    let allowed = fs::read_to_string(SWITCH)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    match allowed {
        Some(count) if count >= 4096 => Finding::good("user namespaces", format!("up to {count}")),
        Some(count) => Finding::fatal(
            "user namespaces",
            format!("only {count} are allowed"),
            "Run: sysctl -w user.max_user_namespaces=100000",
        ),
        None => Finding::fatal(
            "user namespaces",
            "the kernel has none",
            "Use a kernel with CONFIG_USER_NS",
        ),
    }
}

pub(super) fn file_systems() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| {
        known
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name))
            || module_is_there(name)
    };
    if !has("overlay") {
        let mend = "Use a kernel with overlayfs (modprobe overlay)";
        return Finding::fatal("file systems", "no overlayfs", mend);
    }
    if !has("btrfs") {
        return Finding::warning(
            "file systems",
            "no btrfs: what a sandbox writes is not limited in sum",
            "Use a kernel with btrfs (modprobe btrfs); a data directory that has sandboxes keeps its way",
        );
    }
    Finding::good("file systems", "overlayfs and btrfs")
}

fn module_is_there(name: &str) -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let index = Path::new("/lib/modules").join(release).join("modules.dep");
    let wanted = format!("/{name}.ko");
    fs::read_to_string(index).is_ok_and(|text| text.contains(&wanted))
}

pub(super) fn cgroups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has = |kind: &str| {
        mounts
            .lines()
            .any(|line| line.contains(&format!(" - {kind} ")))
    };
    let layout = match (has("cgroup2"), has("cgroup")) {
        (true, false) => "version 2",
        (true, true) => "hybrid (versions 1 and 2)",
        (false, true) => "version 1",
        (false, false) => {
            return Finding::fatal(
                "cgroups",
                "none are mounted",
                "Run: mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
    };
    match missing_controllers() {
        Ok(missing) if missing.is_empty() => Finding::good("cgroups", layout),
        Ok(missing) => Finding::fatal(
            "cgroups",
            format!("{layout}, without {}", missing.join(", ")),
            "Start the kernel without cgroup_disable=, with cgroup_enable=memory where memory is \
             off by default; or mount the hierarchies of version 1 that have them",
        ),
        Err(error) => Finding::fatal(
            "cgroups",
            format!("{layout}, which cannot be read: {error}"),
            "Run: casemate doctor as root",
        ),
    }
}

/// Tried on the file system that will carry the layers.
pub(super) fn idmapped_mounts(data_dir: &Path) -> Finding {
    let dir = data_dir
        .ancestors()
        .find(|dir| dir.is_dir())
        .unwrap_or(Path::new("/"));
    match try_idmapped_mount(dir) {
        Ok(()) => Finding::good("idmapped mounts", format!("they work on {}", dir.display())),
        Err(error) => Finding::fatal(
            "idmapped mounts",
            format!("they do not work on {}: {error}", dir.display()),
            "Put the data directory on ext4, xfs or btrfs",
        ),
    }
}

/// In a process of its own: making a user namespace takes one with a single thread.
fn try_idmapped_mount(dir: &Path) -> std::io::Result<()> {
    let tried = std::process::Command::new("/proc/self/exe")
        .args(["internal", "probe-idmapped-mount"])
        .arg(dir)
        .output()?;
    if tried.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    Err(std::io::Error::other(words))
}

/// Of no use yet; said so that nobody wonders.
pub(super) fn kvm() -> Finding {
    if Path::new("/dev/kvm").exists() {
        Finding::good(
            "KVM",
            "there, and not needed: this version isolates by namespaces",
        )
    } else {
        Finding::good(
            "KVM",
            "not there, and not needed: this version isolates by namespaces",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(parse("5.19.0"), Some((5, 19)));
        assert!(parse("5.4.0-generic").unwrap() < OLDEST);
        assert!(parse("10.0").unwrap() > OLDEST);
        assert_eq!(parse("custom"), None);
    }
}
