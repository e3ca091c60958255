//! The system user `casemate`, under whom everything runs that reads clients' bytes (decision 2).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

pub const NAME: &str = "casemate";

/// Ids of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemUser {
    pub uid: u32,
    pub gid: u32,
}

/// Finds the user, or makes it.
pub fn ensure() -> anyhow::Result<SystemUser> {
    if let Some(user) = find()? {
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
        .args(["--shell", "/usr/sbin/nologin", NAME])
        .output()
        .context("run useradd (Debian package passwd)")?;
    // Another instance may have been quicker.
    match find()? {
        Some(user) => Ok(user),
        None => bail!(
            "useradd {NAME}: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ),
    }
}

/// Gives the folder of control, and all in it, to the user.
pub fn own(dir: &Path, user: SystemUser) -> anyhow::Result<()> {
    let own = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("change the owner of {}", path.display()))
    };
    own(dir)?;
    for item in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        own(&item?.path())?;
    }
    Ok(())
}

fn find() -> anyhow::Result<Option<SystemUser>> {
    let text = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    Ok(text.lines().find_map(parse))
}

fn parse(line: &str) -> Option<SystemUser> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let user = SystemUser {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    };
    (name == NAME && user.uid != 0).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_of_that_name_that_is_not_root_counts() {
        let found = Some(SystemUser { uid: 997, gid: 996 });
        assert_eq!(
            parse("casemate:x:997:996::/nonexistent:/usr/sbin/nologin"),
            found
        );
        assert_eq!(parse("casemate:x:0:0::/root:/bin/sh"), None);
        assert_eq!(parse("casemate2:x:997:996::/:/bin/sh"), None);
        assert_eq!(parse("casemate:x"), None);
    }
}
