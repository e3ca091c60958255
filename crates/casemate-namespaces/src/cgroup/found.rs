//! What the host's top group handed down before any of us came, so that the last of us to go can
//! put it back. Version 2 only: version 1 has nothing of the kind.
//!
//! A file in the folder that all instances share names what we turned on; it goes with the boot, as
//! controllers do. Whoever changes it or the top group holds a lock on that folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::discover::Hierarchy;
use super::{INSTANCE_GROUP, WANTED, sandbox};

const HANDED_DOWN: &str = "cgroup.subtree_control";

/// What we turned on, locked.
pub(super) struct Found {
    note: PathBuf,
    _lock: File,
}

impl Found {
    /// `folder` is shared by all instances of this host.
    pub(super) fn lock(folder: &Path) -> io::Result<Self> {
        let lock = File::open(folder)?;
        lock.lock()?;
        Ok(Self {
            note: folder.join("controllers"),
            _lock: lock,
        })
    }

    /// Notes which of the controllers that we are about to hand down nobody has so far.
    pub(super) fn note(&self, tree: &Hierarchy) -> io::Result<()> {
        let before = fs::read_to_string(tree.mount.join(HANDED_DOWN))?;
        let before: Vec<_> = before.split_whitespace().collect();
        let mut noted = self.noted();
        for controller in WANTED.iter().filter(|controller| tree.has(controller)) {
            if !before.contains(controller) && !noted.iter().any(|other| other == controller) {
                noted.push((*controller).to_owned());
            }
        }
        if noted.is_empty() {
            return Ok(());
        }
        // Renamed into its place: half of a note would leave on what it does not name.
        let half = self.note.with_extension("tmp");
        fs::write(&half, noted.join(" "))?;
        fs::rename(half, &self.note)
    }

    /// Turns off again what we turned on, unless somebody has come to need it; for the last
    /// instance, whose group `name` is gone.
    pub(super) fn put_back(&self, tree: &Hierarchy, name: &str) -> io::Result<()> {
        let noted = self.noted();
        let others = folders(&tree.mount)?;
        if noted.is_empty() || others.iter().any(|other| is_instance(other)) {
            return Ok(());
        }
        let top = openat(
            CWD,
            &tree.mount,
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // What a group looks like in which nobody set anything.
        match mkdirat(&top, name, Mode::from_raw_mode(0o755)) {
            // Whoever did this before was killed in the middle.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let fresh = tree.mount.join(name);
        for controller in noted {
            if !others.iter().any(|other| uses(other, &fresh, &controller)) {
                // Busy where groups further down have it: theirs, then.
                let _ = sandbox::write_at(&top, HANDED_DOWN, &format!("-{controller}"));
            }
        }
        unlinkat(&top, name, AtFlags::REMOVEDIR)?;
        // Last: until here it can all be done again.
        fs::remove_file(&self.note)
    }

    fn noted(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.note).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(of)?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

fn is_instance(group: &Path) -> bool {
    let name = group.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(INSTANCE_GROUP)
}

/// Whether anything of a controller was set in a group. The kernel would turn it off all the same
/// and forget the limit. What cannot be told counts as set.
fn uses(group: &Path, fresh: &Path, controller: &str) -> bool {
    let Ok(entries) = fs::read_dir(fresh) else {
        return true;
    };
    let prefix = format!("{controller}.");
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Records and figures that can be written to and set nothing.
        let sets =
            name.starts_with(&prefix) && !name.ends_with(".pressure") && !name.ends_with(".peak");
        let is_setting = |mode: u32| mode & 0o600 == 0o600;
        if !sets
            || !entry
                .metadata()
                .is_ok_and(|is| is_setting(is.permissions().mode()))
        {
            continue;
        }
        match (fs::read(group.join(&name)), fs::read(entry.path())) {
            (Ok(set), Ok(usual)) if set == usual => {}
            // Some settings exist in some groups only.
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups as plain folders; each file is (name, mode, content).
    fn group(at: &Path, name: &str, files: &[(&str, u32, &str)]) -> PathBuf {
        let group = at.join(name);
        fs::create_dir_all(&group).unwrap();
        for (file, mode, content) in files {
            fs::write(group.join(file), content).unwrap();
            let mode = fs::Permissions::from_mode(*mode);
            fs::set_permissions(group.join(file), mode).unwrap();
        }
        group
    }

    #[test]
    fn a_note_is_whole_and_taken_up_where_a_killed_writer_left_it() {
        let at = std::env::temp_dir().join(format!("casemate-note-{}", std::process::id()));
        let top = group(&at, "top", &[(HANDED_DOWN, 0o644, "pids\n")]);
        fs::write(at.join("controllers.tmp"), "mem").unwrap();
        let tree = Hierarchy {
            mount: top,
            unified: true,
            controllers: vec!["memory".into(), "pids".into()],
        };
        let found = Found::lock(&at).unwrap();
        found.note(&tree).unwrap();
        assert_eq!(found.noted(), ["memory"]);
        assert!(!at.join("controllers.tmp").exists());
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn only_what_somebody_set_counts_as_use() {
        let at = std::env::temp_dir().join(format!("casemate-found-{}", std::process::id()));
        let usual: &[_] = &[
            ("memory.max", 0o644, "max\n"),
            ("memory.current", 0o444, "0\n"),
            ("memory.peak", 0o644, "0\n"),
            ("memory.reclaim", 0o200, ""),
            ("pids.max", 0o644, "max\n"),
        ];
        let fresh = group(&at, "fresh", usual);
        let idle = group(&at, "idle", usual);
        let figures = [
            ("memory.current", 0o444, "4096\n"),
            ("memory.peak", 0o644, "8192\n"),
        ];
        group(&at, "idle", &figures);
        assert!(!uses(&idle, &fresh, "memory"));
        let limited = group(&at, "limited", usual);
        group(&at, "limited", &[("memory.max", 0o644, "1048576\n")]);
        assert!(uses(&limited, &fresh, "memory"));
        assert!(!uses(&limited, &fresh, "pids"));
        assert!(uses(&idle, &at.join("none"), "memory"));
        fs::remove_dir_all(at).unwrap();
    }
}
