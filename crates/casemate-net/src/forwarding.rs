//! The host's forwarding switch: on while an instance is there, and back to what it was when the
//! last one is purged.
//!
//! Each instance keeps the state from before the *first* of them in its own state directory, so
//! the order in which they are purged does not matter. The directories of all instances of a host
//! have one parent, and a lock on it keeps two of them from deciding at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::{NetError, sysctl};

const FORWARD: &str = "ipv4/ip_forward";
/// The kernel changes this one itself with every change of the switch.
const REDIRECTS: &str = "ipv4/conf/all/accept_redirects";
const RECORD: &str = "ip_forward";

/// Switches forwarding on, after noting how it was.
pub(crate) fn enable(state_dir: &Path) -> Result<(), NetError> {
    fs::create_dir_all(state_dir).map_err(at(state_dir))?;
    let _lock = lock(state_dir)?;
    let record = state_dir.join(RECORD);
    if read(&record)?.is_none() {
        let former = match former(&others(state_dir)?)? {
            Some(former) => former,
            None => format!("{} {}\n", sysctl::get(FORWARD)?, sysctl::get(REDIRECTS)?),
        };
        write(&record, &former).map_err(at(&record))?;
    }
    // Writing the value that is there already would reset other settings of the host.
    if sysctl::get(FORWARD)? != "1" {
        sysctl::set(FORWARD, "1")?;
    }
    Ok(())
}

/// Forgets this instance and, when it was the last, switches back.
pub(crate) fn release(state_dir: &Path) -> Result<(), NetError> {
    if !state_dir.exists() {
        return Ok(());
    }
    let _lock = lock(state_dir)?;
    let record = state_dir.join(RECORD);
    if !record.exists() {
        return Ok(());
    }
    if others(state_dir)?.is_empty() {
        // Where nobody knows how it was it stays: others of the host may need it.
        let former = read(&record)?.unwrap_or_default();
        let mut values = former.split_whitespace();
        if values.next() == Some("0") {
            sysctl::set(FORWARD, "0")?;
            if let Some(redirects @ ("0" | "1")) = values.next() {
                sysctl::set(REDIRECTS, redirects)?;
            }
        }
    }
    fs::remove_file(&record).map_err(at(&record))
}

/// What a record says. One without content is none: its writer was killed, before it switched
/// anything on.
fn read(record: &Path) -> Result<Option<String>, NetError> {
    match fs::read_to_string(record) {
        Ok(said) if said.trim().is_empty() => Ok(None),
        Ok(said) => Ok(Some(said)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(at(record)(source)),
    }
}

/// What the first record says that says anything.
fn former(records: &[PathBuf]) -> Result<Option<String>, NetError> {
    for record in records {
        if let Some(said) = read(record)? {
            return Ok(Some(said));
        }
    }
    Ok(None)
}

/// The whole of a record or nothing, whenever we are killed.
fn write(record: &Path, said: &str) -> io::Result<()> {
    let half = record.with_extension("tmp");
    fs::write(&half, said)?;
    fs::rename(half, record)
}

/// The records of the other instances.
fn others(state_dir: &Path) -> Result<Vec<PathBuf>, NetError> {
    let Some(parent) = state_dir.parent() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(at(parent))? {
        let entry = entry.map_err(at(parent))?;
        let record = entry.path().join(RECORD);
        if Some(entry.file_name().as_os_str()) != state_dir.file_name() && record.is_file() {
            found.push(record);
        }
    }
    Ok(found)
}

fn lock(state_dir: &Path) -> Result<File, NetError> {
    let path = state_dir.parent().unwrap_or(state_dir);
    let parent = File::open(path).map_err(at(path))?;
    flock(&parent, FlockOperation::LockExclusive).map_err(|error| at(path)(error.into()))?;
    Ok(parent)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> NetError {
    let path = path.to_owned();
    move |source| NetError::State { path, source }
}
