//! What runs, on disk: one small file for each sandbox, replaced by rename when it changes.
//!
//! Not synced, because no sandbox survives a power loss and the entry names the boot in which it was
//! written (decision 4); but for pauses, whose files do. The format is versioned (decision 9); `tests/fixtures/data-v*` keeps one
//! of each version.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use casemate_runtime::RuntimeRecord;
use casemate_types::{
    CompiledPolicy, Entrance, Kept, OnTimeout, PauseReason, Resources, SandboxId, SnapshotId,
    TeamId, TemplateId, Timestamp,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Of [`Entry`]. Version 1 knew no pauses: it would end what rests.
pub const VERSION: u32 = 2;

/// One sandbox. Earlier versions wrote one without a record before they made it: it never served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub version: u32,
    /// `/proc/sys/kernel/random/boot_id`: in another boot none of its processes lives.
    pub boot: String,
    pub sandbox: SandboxId,
    pub team: TeamId,
    pub template: TemplateId,
    /// Names of those that it lies over, topmost first, but for the operator's. Earlier versions had
    /// none that can be removed, and did not write them down.
    #[serde(default)]
    pub layers: Vec<String>,
    pub resources: Resources,
    /// Its egress rules: part of them lives in processes of ours and is set anew when they start.
    pub network: CompiledPolicy,
    /// Both in steady time ([`casemate_types::steady`]).
    pub started_at: Timestamp,
    pub ends_at: Timestamp,
    pub record: Option<RuntimeRecord>,
    /// Control said that it has a row. Earlier versions did not ask.
    #[serde(default = "yes")]
    pub recorded: bool,
    /// Processes that the kernel ended for want of memory and that were told of. Earlier versions
    /// did not keep it: what is counted when it is taken over was theirs to tell.
    #[serde(default)]
    pub memory_kills: Option<u64>,
    #[serde(default)]
    pub on_timeout: OnTimeout,
    #[serde(default)]
    pub pause: Option<Pause>,
    /// It waits for being claimed.
    #[serde(default)]
    pub warm: bool,
    /// The API server that asked for it. Earlier versions did not say it.
    #[serde(default)]
    pub creator: String,
    /// How traffic comes in, as edges ask for it. Earlier versions were not told.
    #[serde(default)]
    pub entrance: Option<Entrance>,
}

/// A sandbox that rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// In steady time.
    pub at: Timestamp,
    /// With [`Kept::Memory`] its processes stand still.
    pub kept: Kept,
    /// What is to be kept of it: fewer than [`Self::kept`] while its processes are being given up.
    pub wanted: Kept,
    pub reason: PauseReason,
    /// Under which name its files are kept, or will be if its processes are lost.
    pub files: SnapshotId,
}

/// Of memory: what is within one is written as a whole.
const PAGE_BYTES: usize = 4096;
/// Extension of an entry that does not count yet.
const HALF: &str = "tmp";
/// Of one that counts.
const WHOLE: &str = "json";
/// Of one that could not be read.
const ASIDE: &str = "bad";

fn yes() -> bool {
    true
}

/// The folder of entries.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {what} journal file {path}", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl JournalError {
    fn is_for_want_of_room(&self) -> bool {
        let Self::Io { source, .. } = self;
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

impl Journal {
    /// Opens the folder, making it if missing, and removes what a crash left half written.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let journal = Self { dir: dir.into() };
        for path in journal.files(HALF)? {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(journal)
    }

    /// Writes the entry of a sandbox that does not serve yet. It counts once [`Journal::keep`] was
    /// called; a crash before that leaves a sandbox that nobody was told of, which is not taken
    /// over. Apart, because writing takes longer than the renaming and can be done beside the
    /// sandbox's start.
    pub fn note(&self, entry: &Entry) -> Result<(), JournalError> {
        let path = self.path(&entry.sandbox, HALF);
        let bytes = serde_json::to_vec(entry).map_err(io::Error::from);
        bytes
            .and_then(|bytes| fs::write(&path, bytes))
            .map_err(io_error("write", &path))
    }

    /// Makes an entry count that was noted.
    pub fn keep(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        let path = self.path(sandbox, WHOLE);
        fs::rename(self.path(sandbox, HALF), &path).map_err(io_error("write", &path))
    }

    /// Removes an entry that was noted and does not count; none is no error.
    pub fn forget(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        remove(&self.path(sandbox, HALF))
    }

    /// Replaces the entry of a sandbox. On a full disk it is written over: a deadline must move
    /// then, too.
    pub fn replace(&self, entry: &Entry) -> Result<(), JournalError> {
        let replaced = self.note(entry).and_then(|()| self.keep(&entry.sandbox));
        let Err(failed) = replaced else {
            return Ok(());
        };
        // What could be written of it; the error above says more than one here.
        let _ = self.forget(&entry.sandbox);
        if failed.is_for_want_of_room() {
            return self.write_over(entry);
        }
        Err(failed)
    }

    /// The same, and it survives a power loss. One sync does: on the file systems that a data
    /// directory may lie on (ext4, XFS, btrfs) syncing a file makes its newest name last as well,
    /// and what is left of a lost name is the entry that was there before.
    ///
    /// A sync waits for the disk, for seconds where it is busy: nobody else is held up by it.
    ///
    /// # Cancel safety
    /// It is carried out all the same, and may then overtake what is written next.
    pub async fn replace_for_good(&self, entry: &Entry) -> Result<(), JournalError> {
        self.beside(entry, Self::replace_and_sync).await
    }

    /// The same for an entry of which an earlier one was promised to last: at no moment is neither of
    /// the two whole on the disk.
    ///
    /// # Cancel safety
    /// As of [`Journal::replace_for_good`].
    pub async fn replace_kept(&self, entry: &Entry) -> Result<(), JournalError> {
        self.beside(entry, Self::sync_and_replace).await
    }

    async fn beside(
        &self,
        entry: &Entry,
        write: fn(&Self, &Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let (journal, entry) = (self.clone(), entry.clone());
        let path = self.path(&entry.sandbox, WHOLE);
        let written = tokio::task::spawn_blocking(move || write(&journal, &entry)).await;
        written.unwrap_or_else(|lost| Err(io_error("write", &path)(io::Error::other(lost))))
    }

    fn replace_and_sync(&self, entry: &Entry) -> Result<(), JournalError> {
        self.replace(entry)?;
        sync(&self.path(&entry.sandbox, WHOLE))
    }

    fn sync_and_replace(&self, entry: &Entry) -> Result<(), JournalError> {
        let noted = self.note(entry);
        let synced = noted.and_then(|()| sync(&self.path(&entry.sandbox, HALF)));
        match synced.and_then(|()| self.keep(&entry.sandbox)) {
            Ok(()) => sync(&self.path(&entry.sandbox, WHOLE)),
            // On a full disk it is written over.
            Err(_) => self.replace_and_sync(entry),
        }
    }

    /// Whether an entry was set aside that could not be read, now or by an earlier start: what it
    /// named is not known.
    pub fn has_unreadable(&self) -> Result<bool, JournalError> {
        Ok(!self.files(ASIDE)?.is_empty())
    }

    /// Into the blocks that the entry has. One call writes it, and no signal cuts that short within
    /// a page; what is longer than a page has no such promise, and a torn entry would lose the
    /// sandbox, so it is refused.
    fn write_over(&self, entry: &Entry) -> Result<(), JournalError> {
        let path = self.path(&entry.sandbox, WHOLE);
        let write = || {
            let mut bytes = serde_json::to_vec(entry)?;
            let file = fs::File::options().write(true).open(&path)?;
            // Blanks after it are no part of it, and need no second call that cuts the file.
            let before = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            if bytes.len().max(before) > PAGE_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.resize(bytes.len().max(before), b' ');
            file.write_all_at(&bytes, 0)
        };
        write().map_err(io_error("write over", &path))
    }

    /// Removes the entry; one that is not there is no error.
    pub fn remove(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        [HALF, WHOLE]
            .into_iter()
            .map(|extension| remove(&self.path(sandbox, extension)))
            .fold(Ok(()), Result::and)
    }

    /// All entries. One that cannot be read is set aside as `<id>.bad` with a warning: its
    /// sandbox is then nobody's, and the sweep ends it.
    pub fn load(&self) -> Result<Vec<Entry>, JournalError> {
        let mut entries = Vec::new();
        for path in self.files(WHOLE)? {
            match read(&path) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let aside = path.with_extension(ASIDE);
                    warn!(path = %path.display(), %error, "set an unreadable journal entry aside");
                    fs::rename(&path, &aside).map_err(io_error("set aside", &path))?;
                }
            }
        }
        Ok(entries)
    }

    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, JournalError> {
        let listed = fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))?;
        let mut paths = Vec::new();
        for item in listed {
            let path = item.map_err(io_error("list", &self.dir))?.path();
            if path.extension().is_some_and(|e| e == extension) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn path(&self, sandbox: &SandboxId, extension: &str) -> PathBuf {
        // An id is `[a-z0-9]`, so it is a file name.
        self.dir.join(format!("{sandbox}.{extension}"))
    }
}

fn sync(path: &Path) -> Result<(), JournalError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(io_error("sync", path))
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error("remove", path)),
    }
}

fn read(path: &Path) -> io::Result<Entry> {
    let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
    if !(1..=VERSION).contains(&entry.version) {
        return Err(io::Error::other(format!(
            "version {} is not known",
            entry.version
        )));
    }
    // What it lacks has been filled in.
    Ok(Entry {
        version: VERSION,
        ..entry
    })
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { what, path, source }
}

/// The id of this boot of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_over_in_its_place_and_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let entry = |ends_at, recorded| Entry {
            version: VERSION,
            boot: "a boot".into(),
            sandbox: SandboxId::random(),
            team: "f902e559-8344-424f-abda-41e58dedaca5".parse().unwrap(),
            template: TemplateId::random(),
            layers: vec!["base".into()],
            resources: Resources::BASE,
            network: CompiledPolicy::open(),
            started_at: at(1_800_000_000),
            ends_at,
            record: None,
            recorded,
            memory_kills: Some(0),
            on_timeout: OnTimeout::Kill,
            pause: None,
            warm: false,
            creator: String::new(),
            entrance: None,
        };
        let long = entry("2027-01-15T08:00:00.123456789Z".parse().unwrap(), false);
        let short = Entry {
            ends_at: at(1_800_000_000),
            recorded: true,
            ..long.clone()
        };
        journal.replace(&long).unwrap();
        for next in [&short, &long, &short] {
            journal.write_over(next).unwrap();
            assert_eq!(journal.load().unwrap(), std::slice::from_ref(next));
        }
        let unknown = entry(at(1_800_000_000), true);
        assert!(journal.write_over(&unknown).is_err());
    }
}
