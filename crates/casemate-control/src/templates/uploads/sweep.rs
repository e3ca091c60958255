//! Removes uploads that no build used for long, and files that no row wants.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use casemate_store::{CacheKey, StoreError};
use casemate_types::{TeamId, Timestamp, steady};

use super::receive::{TEMPORARY, blocking, remove};
use crate::Control;

/// Files that the store is asked about at once.
const BATCH: usize = 500;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error("ask the store about uploads")]
    Store(#[from] StoreError),
    #[error("look through the folder of uploads")]
    Folder(#[from] io::Error),
}

impl Control {
    /// Idempotent.
    pub(crate) async fn sweep_uploads(&self) -> Result<(), SweepError> {
        let config = &self.config.uploads;
        let before = steady::now().checked_sub(config.kept_for);
        let before = before.unwrap_or(Timestamp::MIN);
        let rows = self.store.upload_expire(before).await?;
        let root = config.dir.clone();
        let mut files = 0;
        for team in blocking(move || teams(&root)).await? {
            files += self.sweep_uploads_of(&team).await?;
        }
        if rows > 0 || files > 0 {
            tracing::info!(rows, files, "removed uploads that nobody wants");
        }
        Ok(())
    }

    /// Removes files of a team that no row wants; how many. Idempotent.
    pub(crate) async fn sweep_uploads_of(&self, team: &TeamId) -> Result<usize, SweepError> {
        let dir = self.config.uploads.dir.join(team.as_str());
        let left = dir.clone();
        blocking(move || remove_parts(&left)).await?;
        let whole = dir.clone();
        let whole = blocking(move || names(&whole)).await?;
        let whole: Vec<String> = whole
            .into_iter()
            .filter(|name| CacheKey::parse(name).is_some())
            .collect();
        let mut files = 0;
        for some in whole.chunks(BATCH) {
            files += self.remove_batch(team, &dir, some).await?;
        }
        Ok(files)
    }

    async fn remove_batch(
        &self,
        team: &TeamId,
        dir: &Path,
        names: &[String],
    ) -> Result<usize, SweepError> {
        // A file whose row is being written is not looked at in between.
        let _settling = self.uploads.settling.lock().await;
        let wanted = self.store.upload_wanted(team, names).await?;
        let unwanted = names.iter().filter(|name| !wanted.contains(name));
        let unwanted: Vec<PathBuf> = unwanted.map(|name| dir.join(name)).collect();
        Ok(blocking(move || {
            unwanted.iter().try_for_each(|path| remove(path))?;
            Ok(unwanted.len())
        })
        .await?)
    }
}

fn teams(root: &Path) -> io::Result<Vec<TeamId>> {
    let named = names(root)?.into_iter();
    Ok(named.filter_map(|name| TeamId::parse(&name).ok()).collect())
}

/// Nothing is in a folder that nobody made yet.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// Those of a process that is gone: who writes one has it locked, also the process before us whose
/// last requests are not over.
fn remove_parts(dir: &Path) -> io::Result<()> {
    for name in names(dir)? {
        if !name.starts_with(TEMPORARY) {
            continue;
        }
        let path = dir.join(name);
        match File::open(&path) {
            Ok(file) => match file.try_lock() {
                Ok(()) => remove(&path)?,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::receive::Temporary;
    use super::*;

    #[test]
    fn a_sweep_takes_nothing_that_has_just_begun() {
        let dir = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sweep = || {
                while !is_over.load(Ordering::Relaxed) {
                    remove_parts(dir.path()).unwrap();
                }
            };
            scope.spawn(sweep);
            let mut lost = 0;
            for _ in 0..5000 {
                match Temporary::create(dir.path()) {
                    Ok(_begun) => lost += usize::from(names(dir.path()).unwrap().is_empty()),
                    Err(_) => lost += 1,
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
