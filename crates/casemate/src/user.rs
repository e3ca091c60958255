//! The system users under whom everything runs that reads others' bytes (decision 2): one for
//! control, one for egress, so that neither can touch what is the other's.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, open};

/// Whose the store is.
pub const CONTROL: &str = "casemate";
/// Owns nothing.
pub const EGRESS: &str = "casemate-egress";

/// Ids of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemUser {
    pub uid: u32,
    pub gid: u32,
}

/// Finds a user, or makes it.
pub fn ensure(name: &str) -> anyhow::Result<SystemUser> {
    if let Some(user) = find(name)? {
        return Ok(user);
    }
    let made = Command::new("useradd")
        .args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
        ])
        .args(["--shell", "/usr/sbin/nologin", name])
        .output()
        .context("run useradd (Debian package passwd)")?;
    // Another instance may have been quicker.
    match find(name)? {
        Some(user) => Ok(user),
        None => bail!(
            "useradd {name}: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ),
    }
}

/// Fails when the user cannot get to the folder: a folder above it may be closed to others, as home
/// directories often are.
pub fn must_reach(dir: &Path, name: &str, user: SystemUser) -> anyhow::Result<()> {
    // The folder is entered after the user has become whom we ask for.
    let tried = Command::new("/bin/true")
        .uid(user.uid)
        .gid(user.gid)
        .current_dir(dir)
        .status();
    match tried {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let closed = closed_above(dir);
            let dir = dir.display();
            match closed {
                Some(closed) => bail!(
                    "the user {name}, as whom the control process runs, cannot reach {dir}: {closed} \
                     is closed to others. Let them through (chmod o+x {closed}) or name another \
                     data directory with --data-dir, such as /var/lib/casemate",
                    closed = closed.display()
                ),
                None => {
                    bail!("the user {name}, as whom the control process runs, cannot reach {dir}")
                }
            }
        }
        Err(error) => Err(error).context("run /bin/true"),
        Ok(_) => Ok(()),
    }
}

/// The first folder on the way that others may not pass.
pub fn closed_above(path: &Path) -> Option<&Path> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let is_closed = |dir: &&Path| {
        let mode = std::fs::metadata(dir).map(|found| found.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o001 == 0)
    };
    above.into_iter().rev().find(is_closed)
}

/// Gives the folder of control, and all in it, to the user.
///
/// The user may have put anything there: a file that has another name elsewhere is somebody
/// else's, and giving it away would give that away.
pub fn own(dir: &Path, user: SystemUser) -> anyhow::Result<()> {
    own_one(dir, user)?;
    for item in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        own_one(&item?.path(), user)?;
    }
    Ok(())
}

fn own_one(path: &Path, user: SystemUser) -> anyhow::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        open(path, flags, Mode::empty()).with_context(|| format!("look at {}", path.display()))?;
    let found = fstat(&file).with_context(|| format!("look at {}", path.display()))?;
    let is_folder = FileType::from_raw_mode(found.st_mode).is_dir();
    if !is_folder && found.st_nlink > 1 {
        bail!(
            "{} is a hard link to another file: remove it",
            path.display()
        );
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .with_context(|| format!("change the owner of {}", path.display()))
}

fn find(name: &str) -> anyhow::Result<Option<SystemUser>> {
    let text = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    Ok(text.lines().find_map(|line| parse(line, name)))
}

fn parse(line: &str, wanted: &str) -> Option<SystemUser> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let user = SystemUser {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    };
    (name == wanted && user.uid != 0).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_link_to_somebody_elses_file_is_not_given_away() {
        use std::os::unix::fs::MetadataExt;
        let dir = std::env::temp_dir().join(format!("casemate-own-{}", std::process::id()));
        let folder = dir.join("control");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(dir.join("secret"), "x").unwrap();
        // Our own ids: the test needs no root.
        let found = std::fs::metadata(&folder).unwrap();
        let user = SystemUser {
            uid: found.uid(),
            gid: found.gid(),
        };
        std::fs::write(folder.join("store"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
        own(&folder, user).unwrap();
        std::fs::hard_link(dir.join("secret"), folder.join("store-wal")).unwrap();
        let refused = own(&folder, user).unwrap_err().to_string();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(refused.contains("hard link"), "{refused}");
    }

    #[test]
    fn only_a_user_of_that_name_that_is_not_root_counts() {
        let found = Some(SystemUser { uid: 997, gid: 996 });
        assert_eq!(
            parse(
                "casemate:x:997:996::/nonexistent:/usr/sbin/nologin",
                CONTROL
            ),
            found
        );
        assert_eq!(parse("casemate:x:0:0::/root:/bin/sh", CONTROL), None);
        assert_eq!(parse("casemate2:x:997:996::/:/bin/sh", CONTROL), None);
        assert_eq!(parse("casemate:x", CONTROL), None);
    }
}
