//! Writing one uploaded file. Not atomic: a failed upload leaves what arrived.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use http::StatusCode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::is_channel;
use crate::answer::{Refusal, refuse};
use crate::filesystem::metadata;
use crate::paths::{ensure_dirs, os_text};
use crate::users::User;

/// Makes what is missing above `path`, opens it empty and gives it to `user`.
pub fn begin(path: &str, user: &User) -> Result<File, Refusal> {
    if let Some(parent) = Path::new(path).parent() {
        ensure_dirs(parent, user).map_err(|denied| {
            let no_room = denied
                .making()
                .and_then(|e| no_room(e, &denied.to_string()));
            no_room.unwrap_or_else(|| internal(&format!("error ensuring directories: {denied}")))
        })?;
    }
    let wrong = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Some("path is a directory"),
        Ok(found) if is_channel(&found) => Some("path is not a regular file"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let text = format!("{wrong}: {path}");
        return Err(refuse(StatusCode::BAD_REQUEST, &text));
    }
    let file = open(path).map_err(|failure| {
        let text = format!("open {path}: {}", os_text(&failure));
        let no_room = no_room(&failure, &text);
        no_room.unwrap_or_else(|| internal(&format!("error opening file: {text}")))
    })?;
    give(&file, user).map_err(|failure| {
        let text = os_text(&failure);
        internal(&format!(
            "error changing file ownership: chown {path}: {text}"
        ))
    })?;
    Ok(file)
}

fn open(path: &str) -> io::Result<File> {
    // A pipe that took its place since the check must not hold the thread.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .custom_flags(flags)
        .open(path)
}

/// Asked for only where it changes something: virtual file systems refuse even that.
fn give(file: &File, user: &User) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) == (user.uid, user.gid) {
        return Ok(());
    }
    fchown(file, Some(user.uid), Some(user.gid))
}

/// Appends bytes. `announced` is the length of the whole request, for the words of a full disk.
pub fn append(file: &mut File, bytes: &[u8], announced: Option<u64>) -> Result<(), Refusal> {
    file.write_all(bytes).map_err(|failure| {
        if is(&failure, Errno::NOSPC) || is(&failure, Errno::DQUOT) {
            return full(announced);
        }
        internal(&format!("error writing file: {}", os_text(&failure)))
    })
}

/// Attaches the metadata to what was written, wherever it is by now: others may have moved or
/// removed it, and put another file in its place. Gives what is then on disk.
pub fn attach(
    file: &File,
    pairs: &BTreeMap<String, String>,
) -> Result<HashMap<String, String>, Refusal> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let borrowed = pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    metadata::replace(&path, borrowed).map_err(|errno| {
        let text = os_text(&errno.into());
        match errno {
            Errno::NOSPC | Errno::DQUOT => refuse(
                StatusCode::INSUFFICIENT_STORAGE,
                &format!("not enough space for file metadata: {text}"),
            ),
            _ => internal(&format!("error writing file metadata: {text}")),
        }
    })?;
    Ok(metadata::read(&path))
}

fn is(failure: &io::Error, errno: Errno) -> bool {
    failure.raw_os_error() == Some(errno.raw_os_error())
}

fn internal(text: &str) -> Refusal {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// The refusal where the file system has no room for one more name: none is left to give, or the
/// sandbox has used up its share.
fn no_room(failure: &io::Error, text: &str) -> Option<Refusal> {
    if is(failure, Errno::DQUOT) {
        return Some(full(None));
    }
    is(failure, Errno::NOSPC).then(|| no_inodes(text))
}

fn no_inodes(text: &str) -> Refusal {
    refuse(
        StatusCode::INSUFFICIENT_STORAGE,
        &format!("not enough inodes available: {text}"),
    )
}

fn full(announced: Option<u64>) -> Refusal {
    let text = match announced {
        Some(bytes) => {
            format!("attempted to write {bytes} bytes: not enough disk space available")
        }
        None => "not enough disk space available".to_owned(),
    };
    refuse(StatusCode::INSUFFICIENT_STORAGE, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_goes_to_the_file_that_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        let pairs = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert!(attach(&file, &pairs).is_ok());
        assert!(metadata::read(&path).is_empty());
        fs::remove_file(&path).unwrap();
        assert!(attach(&file, &pairs).is_ok());
    }
}
