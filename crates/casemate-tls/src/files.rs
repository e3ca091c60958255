//! A pair that somebody else keeps in two files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_types::chain;
use tracing::{error, info};

use crate::pair::{Checked, Pair, PairError};

/// How often the files are looked at. They are often links to links (certbot, Kubernetes), of which
/// any may be changed, so nothing less than looking sees all changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Of one file; more is no certificate.
const BYTES_MAX: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has more than {BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} and {} cannot be used", chain.display(), key.display())]
    Pair {
        chain: PathBuf,
        key: PathBuf,
        #[source]
        source: PairError,
    },
}

/// Two files that are followed.
#[derive(Debug)]
pub struct Files {
    chain: PathBuf,
    key: PathBuf,
    /// As both were when they were last read; the pair was good or not.
    seen: Option<[Mark; 2]>,
}

/// By what a file is known to have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Files {
    pub fn new(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            chain,
            key,
            seen: None,
        }
    }

    /// Reads both. Whether they hold now is not asked: who starts shows what there is.
    pub fn read(&mut self) -> Result<(Pair, Checked), FilesError> {
        // The marks first: what changes while we read is read again.
        self.seen = self.marks().ok();
        let pair = Pair {
            chain: read(&self.chain)?,
            key: read(&self.key)?,
        };
        let checked = pair.read().map_err(|source| self.useless(source))?;
        Ok((pair, checked))
    }

    fn useless(&self, source: PairError) -> FilesError {
        FilesError::Pair {
            chain: self.chain.clone(),
            key: self.key.clone(),
            source,
        }
    }

    /// Waits until the files hold another pair that is good, and gives it. One that is not is told
    /// to the log once; who replaces two files is in between for a moment.
    ///
    /// # Cancel safety
    /// A change that is being read when this is dropped is not told again.
    pub async fn changed(&mut self, now: impl Fn() -> i64) -> (Pair, Checked) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Files that are away for a moment are looked at when they are back.
            let marks = self.marks().ok();
            if marks.is_none() || marks == self.seen {
                continue;
            }
            let read = self.read().and_then(|(pair, checked)| {
                let holds = checked.holds(now());
                holds.map_err(|source| self.useless(source))?;
                Ok((pair, checked))
            });
            match read {
                Ok(read) => {
                    info!("took the new certificate in {}", self.chain.display());
                    return read;
                }
                Err(failed) => error!(
                    error = %chain(&failed),
                    "the new certificate is not used; the one from before stays"
                ),
            }
        }
    }

    fn marks(&self) -> io::Result<[Mark; 2]> {
        Ok([mark(&self.chain)?, mark(&self.key)?])
    }
}

fn mark(path: &Path) -> io::Result<Mark> {
    let file = fs::metadata(path)?;
    Ok(Mark {
        inode: (file.dev(), file.ino()),
        bytes: file.len(),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

fn read(path: &Path) -> Result<String, FilesError> {
    let failed = |source| FilesError::Read {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > BYTES_MAX {
        return Err(FilesError::TooLarge { path: path.into() });
    }
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Names};

    const NOW: i64 = 1_795_000_000;

    fn write(dir: &Path, pair: &Pair) {
        fs::write(dir.join("chain.pem"), &pair.chain).unwrap();
        fs::write(dir.join("key.pem"), &pair.key).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_pair_is_passed_over_until_a_good_one_comes() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(["box.example".to_owned()], Vec::new());
        let authority = Authority::make("Casemate test", names.clone(), NOW).unwrap();
        let [first, second, third] = [(); 3].map(|()| authority.issue(&names, NOW).unwrap());
        write(dir.path(), &first);
        let mut files = Files::new(dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let (read, checked) = files.read().unwrap();
        assert!(read == first && checked.covers("box.example"));

        let changed = async |files: &mut Files, now: i64| {
            let wait = files.changed(|| now);
            tokio::time::timeout(LOOK_EVERY * 3, wait).await.ok()
        };
        assert!(changed(&mut files, NOW).await.is_none());
        // The key of another, no PEM, too old, and nothing at all.
        fs::write(dir.path().join("chain.pem"), &second.chain).unwrap();
        assert!(changed(&mut files, NOW).await.is_none());
        fs::write(dir.path().join("key.pem"), "a key").unwrap();
        assert!(changed(&mut files, NOW).await.is_none());
        write(dir.path(), &second);
        assert!(changed(&mut files, NOW + 91 * 24 * 3600).await.is_none());
        fs::remove_file(dir.path().join("key.pem")).unwrap();
        assert!(changed(&mut files, NOW).await.is_none());
        write(dir.path(), &third);
        let (read, _) = changed(&mut files, NOW).await.unwrap();
        assert!(read == third);
    }

    #[test]
    fn why_files_are_refused_is_said_with_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let said = |files: &mut Files| chain(&files.read().unwrap_err()).to_string();
        assert!(said(&mut files).contains("chain.pem: No such file"));
        fs::write(dir.path().join("chain.pem"), "nothing").unwrap();
        fs::write(dir.path().join("key.pem"), "nothing").unwrap();
        assert!(
            said(&mut files).contains("no certificate"),
            "{}",
            said(&mut files)
        );
    }
}
