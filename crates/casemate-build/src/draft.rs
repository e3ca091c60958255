//! A layer folder that exists either whole or not at all.
//!
//! Drafted as `<name>.tmp-<random>` beside its final place, flushed, then renamed. A draft that is
//! dropped is removed; one that a crash left is removed by [`sweep`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const MARK: &str = ".tmp-";

/// A layer in the making.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Draft {
    /// Opens an empty draft of the layer `name`, mode 0755.
    pub fn open(layers_dir: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(layers_dir)?;
        let random = uuid::Uuid::new_v4().simple().to_string();
        let path = layers_dir.join(format!("{name}{MARK}{}", &random[..8]));
        fs::create_dir(&path)?;
        let draft = Self {
            path,
            target: layers_dir.join(name),
            kept: false,
        };
        // Not from the umask: this folder becomes `/` of sandboxes.
        fs::set_permissions(
            &draft.path,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        Ok(draft)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes the file system and moves the draft to its final name. A layer that is there
    /// already wins: names say what is inside, so both are the same.
    pub fn keep(mut self) -> io::Result<PathBuf> {
        rustix::fs::syncfs(File::open(&self.path)?)?;
        if self.target.is_dir() {
            return Ok(self.target.clone());
        }
        fs::rename(&self.path, &self.target)?;
        self.kept = true;
        sync_parent(&self.target)?;
        Ok(self.target.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed by the next sweep.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes a small file so that a crash leaves the old one or the new one, never half of it.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(parent)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Removes half-made layers, and layers whose name starts with `prefix` that are not `in_use`.
/// Returns what was removed. Idempotent; call it while nothing is being made.
pub fn sweep(
    layers_dir: &Path,
    prefix: &str,
    in_use: &BTreeSet<String>,
) -> io::Result<Vec<String>> {
    sweep_where(layers_dir, |name| {
        is_draft(name, prefix) || name.starts_with(prefix) && !in_use.contains(name)
    })
}

/// Removes half-made layers whose name starts with `prefix`, and nothing else.
pub fn sweep_drafts(layers_dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    sweep_where(layers_dir, |name| is_draft(name, prefix))
}

fn sweep_where(layers_dir: &Path, doomed: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(layers_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if doomed(&name) && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
            removed.push(name);
        }
    }
    Ok(removed)
}

fn is_draft(name: &str, prefix: &str) -> bool {
    name.starts_with(prefix) && name.contains(MARK)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_draft_leaves_nothing_and_a_kept_one_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::open(dir.path(), "b-1").unwrap();
        fs::write(draft.path().join("x"), "x").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let draft = Draft::open(dir.path(), "b-1").unwrap();
        fs::write(draft.path().join("x"), "y").unwrap();
        let kept = draft.keep().unwrap();
        assert_eq!(fs::read_to_string(kept.join("x")).unwrap(), "y");
    }

    #[test]
    fn sweep_takes_drafts_and_unused_layers_of_its_prefix_only() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["s-old", "s-used", "s-x.tmp-12345678", "b-1", "b-1.tmp-1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let in_use = BTreeSet::from(["s-used".to_owned()]);
        let mut removed = sweep(dir.path(), "s-", &in_use).unwrap();
        removed.sort();
        assert_eq!(removed, ["s-old", "s-x.tmp-12345678"]);
        assert!(dir.path().join("b-1.tmp-1").exists());
        assert!(
            sweep(&dir.path().join("absent"), "s-", &in_use)
                .unwrap()
                .is_empty()
        );
    }
}
