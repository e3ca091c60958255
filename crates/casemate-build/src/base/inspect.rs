//! Looks at a root file system before it becomes a base.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest, Sha256};

use super::{BaseError, BaseUser, PackageList};

/// The user that SDKs expect (`envd.md` 6.10).
const USER: &str = "user";
/// The largest file that is read here; Debian's package status is some hundred KiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Found {
    pub(super) user: BaseUser,
    pub(super) packages: PackageList,
    pub(super) size_bytes: u64,
}

pub(super) fn inspect(root: &Path) -> Result<Found, BaseError> {
    let unfit = |missing: String| BaseError::Unfit { missing };
    let at_root = File::open(root).map_err(BaseError::io("open", root))?;
    for program in ["bin/sh", "bin/bash"] {
        open_inside(&at_root, program).map_err(|_| unfit(format!("has no /{program}")))?;
    }
    let passwd =
        read_inside(&at_root, "etc/passwd").map_err(|_| unfit("has no /etc/passwd".into()))?;
    let user =
        find_user(&passwd).ok_or_else(|| unfit(format!("has no user '{USER}' in /etc/passwd")))?;
    let home = user.home.trim_start_matches('/');
    open_inside(&at_root, home).map_err(|_| unfit(format!("has no folder {}", user.home)))?;
    // A root file system that is not Debian's has no package list; that is allowed.
    let status = read_inside(&at_root, "var/lib/dpkg/status").unwrap_or_default();
    Ok(Found {
        user,
        packages: package_list(&status),
        size_bytes: size_of(root).map_err(BaseError::io("measure", root))?,
    })
}

/// Opens a name as a process in a sandbox would: links lead to places inside.
fn open_inside(root: &impl AsFd, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    Ok(fd.into())
}

fn read_inside(root: &impl AsFd, path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_inside(root, path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find_user(passwd: &str) -> Option<BaseUser> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields.as_slice() else {
            return None;
        };
        (*name == USER && home.starts_with('/')).then_some(())?;
        Some(BaseUser {
            name: USER.into(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).into(),
        })
    })
}

fn package_list(status: &str) -> PackageList {
    let mut packages: Vec<String> = status.split("\n\n").filter_map(installed_package).collect();
    packages.sort();
    let mut hash = Sha256::new();
    for package in &packages {
        hash.update(package.as_bytes());
        hash.update(b"\n");
    }
    PackageList {
        count: packages.len(),
        sha256: hex::encode(hash.finalize()),
    }
}

fn installed_package(paragraph: &str) -> Option<String> {
    let field = |name: &str| {
        let value = |line: &'_ str| {
            line.strip_prefix(name)?
                .strip_prefix(": ")
                .map(str::to_owned)
        };
        paragraph.lines().find_map(value)
    };
    (field("Status")? == "install ok installed").then_some(())?;
    Some(format!("{} {}", field("Package")?, field("Version")?))
}

fn size_of(dir: &Path) -> io::Result<u64> {
    let mut sum = 0_u64;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        // `blocks` would count a compressing file system's view; links are counted once each.
        sum += meta.len() / meta.nlink().max(1);
        if meta.is_dir() {
            sum += size_of(&entry.path())?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count_whatever_their_order() {
        let a = "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
                 Package: b\nStatus: deinstall ok config-files\nVersion: 2\n\n\
                 Package: c\nStatus: install ok installed\nVersion: 3\n";
        let b = "Package: c\nStatus: install ok installed\nVersion: 3\n\n\
                 Package: a\nStatus: install ok installed\nVersion: 1\n";
        assert_eq!(package_list(a), package_list(b));
        assert_eq!(package_list(a).count, 2);
        assert_ne!(package_list(a).sha256, package_list("").sha256);
    }

    #[test]
    fn a_root_without_the_user_is_refused_in_plain_words() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/usr/bin", root.path().join("bin")).unwrap();
        for shell in ["sh", "bash"] {
            fs::write(root.path().join("usr/bin").join(shell), "").unwrap();
        }
        fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\n",
        )
        .unwrap();
        let error = inspect(root.path()).err().unwrap().to_string();
        assert!(error.contains("has no user 'user'"), "{error}");
    }
}
