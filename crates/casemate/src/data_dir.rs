//! The data directory: one lock, one instance id, and who may read what.
//!
//! ```text
//! DIR              0711 root      lock, instance
//! DIR/credentials.env 0600 root   what the stock SDK needs
//! DIR/ca.pem       0644 root      what clients trust, with our own authority
//! DIR/ca-bundle.pem 0644 root     the same, and what this system trusts
//! DIR/secrets      0700 root      api_key_secret, admin_token, tls_authority.json
//! DIR/node         0700 root      journal, templates, pool image, admin socket
//! DIR/control      0700 casemate  store, ACME's account and certificate
//! DIR/member       0700 casemate  of a cluster's node or edge: certificate, key, where the API is
//! ```

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use casemate_types::InstanceId;

/// File systems that cannot carry a pool or lose it (decision 7): `statfs` magic and name.
const REFUSED: &[(u32, &str)] = &[
    (
        0x794c_7630,
        "overlayfs (inside a container): use a volume of the host",
    ),
    (0x0000_6969, "NFS: use a local disk"),
    (0x0102_1994, "tmpfs: use a disk"),
];

/// A data directory that this process alone uses while the value lives.
pub struct DataDir {
    root: PathBuf,
    instance: InstanceId,
    lock: File,
}

impl DataDir {
    /// Opens the directory and takes its lock; makes both, and the instance id, on first use.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        make_dir(root, 0o711)?;
        refuse_file_system(root)?;
        let lock = lock(root)?;
        Self::opened(root, lock)
    }

    /// Opens the directory under a lock that its former user handed over.
    pub fn take_over(root: &Path, lock: File) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let ours = fs::metadata(lock_path(root)).context("look at the lock")?;
        let given = lock.metadata().context("look at the lock that was given")?;
        if (ours.dev(), ours.ino()) != (given.dev(), given.ino()) {
            bail!(
                "the lock that was handed over is not that of {}",
                root.display()
            );
        }
        Self::opened(root, lock)
    }

    fn opened(root: &Path, lock: File) -> anyhow::Result<Self> {
        let instance = instance(root)?;
        for dir in ["node", "secrets"] {
            make_dir(&root.join(dir), 0o700)?;
        }
        make_dir(&root.join("control"), 0o700)?;
        Ok(Self {
            root: root.into(),
            instance,
            lock,
        })
    }

    /// Whether there is one at all; `down` and `status` make none.
    pub fn exists(root: &Path) -> bool {
        root.join("instance").is_file()
    }

    /// For a successor: whoever holds a copy holds the lock.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    pub fn journal(&self) -> PathBuf {
        self.node().join("journal")
    }

    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// What this machine is as a member of a cluster; made by whoever joins.
    pub fn member(&self) -> PathBuf {
        self.root.join("member")
    }

    /// What ACME keeps; the folder of whoever speaks with its authority.
    pub fn acme(root: &Path) -> PathBuf {
        root.join("control/acme")
    }

    /// The authority of our own, with its key.
    pub fn tls_authority(&self) -> PathBuf {
        tls_authority(&self.root)
    }

    /// Its certificate, for everybody.
    pub fn authority_certificate(&self) -> PathBuf {
        authority_certificate(&self.root)
    }

    /// The same together with what this system trusts.
    pub fn trust_bundle(&self) -> PathBuf {
        trust_bundle(&self.root)
    }

    /// A secret of the installation, made from the system's randomness on first use.
    pub fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.root.join("secrets").join(name);
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().into()),
            Ok(_) => bail!(
                "{} is empty: remove it to have a new one made",
                path.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
        let text = random_hex(32);
        write_private(&path, text.as_bytes())?;
        Ok(text)
    }

    /// Removes everything that we keep in it; the directory itself goes when nothing else is there.
    pub fn purge(self) -> anyhow::Result<()> {
        for dir in ["node", "control", "secrets", "member"] {
            remove(&self.root.join(dir), |path| fs::remove_dir_all(path))?;
        }
        for file in [
            "credentials.env",
            "ca.pem",
            "ca-bundle.pem",
            "instance",
            "lock",
        ] {
            remove(&self.root.join(file), |path| fs::remove_file(path))?;
        }
        // Something of the operator's may lie there: then it stays.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }
}

/// How long control has to write down the ends of a `down`.
pub const SETTLE: std::time::Duration = std::time::Duration::from_millis(300);

pub fn tls_authority(root: &Path) -> PathBuf {
    root.join("secrets/tls_authority.json")
}

pub fn authority_certificate(root: &Path) -> PathBuf {
    root.join("ca.pem")
}

pub fn trust_bundle(root: &Path) -> PathBuf {
    root.join("ca-bundle.pem")
}

/// Where the node of a data directory listens for `status` and `down`: root's alone.
pub fn admin_socket(root: &Path) -> PathBuf {
    root.join("node/admin.sock")
}

/// `len` random bytes as lower-case hex.
pub fn random_hex(len: usize) -> String {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("the kernel's random source answers once booted");
    hex::encode(bytes)
}

/// Writes a file that only root reads: whole, synced, then in place.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write(path, bytes, 0o600)
}

/// The same for a file that everybody may read.
pub fn write_public(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write(path, bytes, 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    // On a full disk a start must not fail for want of what is there.
    if has_mode(path, mode) && fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let half = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        remove_if_there(&half)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&half)?;
        file.write_all(bytes)?;
        // Whatever our umask takes away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&half, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn has_mode(path: &Path, mode: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o777 == mode)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> anyhow::Result<()> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a folder, or gives the one that is there this mode.
pub fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("create {}", path.display()))
}

fn refuse_file_system(path: &Path) -> anyhow::Result<()> {
    let stat = rustix::fs::statfs(path).with_context(|| format!("look at {}", path.display()))?;
    let magic = u32::try_from(stat.f_type).unwrap_or(0);
    match REFUSED.iter().find(|(refused, _)| *refused == magic) {
        Some((_, name)) => bail!(
            "the data directory {} is on {name}. Name another one with --data-dir",
            path.display()
        ),
        None => Ok(()),
    }
}

/// Held by whoever uses the directory, who may have written into it what it is.
pub fn lock_path(root: &Path) -> PathBuf {
    root.join("lock")
}

fn lock(root: &Path) -> anyhow::Result<File> {
    let path = lock_path(root);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            // What its former holder was.
            let emptied = file.set_len(0);
            emptied.with_context(|| format!("empty {}", path.display()))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another casemate uses {0} (`casemate status --data-dir {0}` shows it)",
                root.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

fn instance(root: &Path) -> anyhow::Result<InstanceId> {
    let path = root.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) => {
            InstanceId::parse(text.trim()).with_context(|| format!("read {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let instance = InstanceId::random();
            write_private(&path, instance.as_str().as_bytes())?;
            Ok(instance)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_open_to_others_is_closed() {
        let name = format!("casemate-closed-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make_dir(&path, 0o700).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        fs::remove_dir(&path).unwrap();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
