//! The inotify watches of one directory or one tree, and what their notes mean.
//!
//! Notes of the kernel carry a watch and a name; the tree turns them into paths below the watched
//! directory, follows directories as they come and go, and never follows links.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use envd_wire::filesystem::EventType;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};

use crate::limits::WATCHES_PER_WATCHER;

/// One note, taken off the kernel's queue.
pub struct Note {
    pub watch: WatchDescriptor,
    pub mask: EventMask,
    pub name: Option<String>,
}

/// What happened, to a path relative to the watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub kind: EventType,
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("queue or buffer overflow")]
    Overflow,
    #[error("more than {WATCHES_PER_WATCHER} directories to watch")]
    TooMany,
    #[error("watch: {0}")]
    Watch(#[source] io::Error),
}

pub struct Tree {
    root: PathBuf,
    recursive: bool,
    watches: Watches,
    /// Paths below the root; the root itself is empty.
    dirs: HashMap<WatchDescriptor, String>,
    /// Found by looking into new directories, where their own notes may still be on the way.
    told: HashSet<String>,
}

/// The order in which one note with several meanings is told.
const MEANINGS: [(EventMask, EventType); 7] = [
    (EventMask::CREATE, EventType::EVENT_TYPE_CREATE),
    (EventMask::MOVED_TO, EventType::EVENT_TYPE_CREATE),
    (EventMask::MOVED_FROM, EventType::EVENT_TYPE_RENAME),
    (EventMask::ATTRIB, EventType::EVENT_TYPE_CHMOD),
    (EventMask::MODIFY, EventType::EVENT_TYPE_WRITE),
    (EventMask::DELETE, EventType::EVENT_TYPE_REMOVE),
    (EventMask::DELETE_SELF, EventType::EVENT_TYPE_REMOVE),
];

impl Tree {
    /// Watches `root` from now on.
    pub fn open(root: PathBuf, recursive: bool) -> Result<(Inotify, Self), TreeError> {
        let inotify = Inotify::init().map_err(TreeError::Watch)?;
        let watches = inotify.watches();
        let (dirs, told) = (HashMap::new(), HashSet::new());
        let mut tree = Self {
            root,
            recursive,
            watches,
            dirs,
            told,
        };
        let root = tree.root.clone();
        let watch = tree.watches.add(root, events()).map_err(TreeError::Watch)?;
        tree.dirs.insert(watch, String::new());
        if recursive {
            tree.descend("", &mut None)?;
        }
        Ok((inotify, tree))
    }

    /// Says what `notes` mean, and follows what they change in the tree.
    pub fn read(&mut self, notes: Vec<Note>) -> Result<Vec<Change>, TreeError> {
        let mut changes = Vec::new();
        for note in notes {
            self.read_one(&note, &mut changes)?;
        }
        Ok(changes)
    }

    fn read_one(&mut self, note: &Note, changes: &mut Vec<Change>) -> Result<(), TreeError> {
        if note.mask.contains(EventMask::Q_OVERFLOW) {
            return Err(TreeError::Overflow);
        }
        if note.mask.contains(EventMask::IGNORED) {
            self.dirs.remove(&note.watch);
            return Ok(());
        }
        // A note of a watch that was given up meanwhile.
        let Some(dir) = self.dirs.get(&note.watch) else {
            return Ok(());
        };
        let path = match &note.name {
            Some(name) => join(dir, name),
            // Of a directory itself: its parent's watch tells the same, if it has one.
            None if dir.is_empty() => ".".to_owned(),
            None => return Ok(()),
        };
        if note
            .mask
            .intersects(EventMask::DELETE | EventMask::MOVED_FROM)
        {
            self.told.remove(&path);
        }
        let known = note
            .mask
            .intersects(EventMask::CREATE | EventMask::MOVED_TO)
            && self.told.remove(&path);
        if !known {
            changes.extend(kinds(note.mask).map(|kind| Change {
                name: path.clone(),
                kind,
            }));
        }
        let is_dir = note.mask.contains(EventMask::ISDIR) && note.name.is_some();
        if self.recursive && is_dir && !known {
            self.follow(note.mask, &path, changes)?;
        }
        Ok(())
    }

    /// A directory came or went.
    fn follow(
        &mut self,
        mask: EventMask,
        path: &str,
        changes: &mut Vec<Change>,
    ) -> Result<(), TreeError> {
        if mask.contains(EventMask::MOVED_FROM) {
            self.forget(path);
        } else if mask.contains(EventMask::MOVED_TO) {
            self.watch(path)?;
            self.descend(path, &mut None)?;
        } else if mask.contains(EventMask::CREATE) {
            // It may have been filled before we watch it.
            self.watch(path)?;
            self.descend(path, &mut Some(changes))?;
        }
        Ok(())
    }

    /// Watches all directories below `path`; with `changes`, tells everything found as created.
    fn descend(
        &mut self,
        path: &str,
        changes: &mut Option<&mut Vec<Change>>,
    ) -> Result<(), TreeError> {
        let mut open = vec![path.to_owned()];
        while let Some(dir) = open.pop() {
            // What cannot be read has gone, or is of no use to us.
            let Ok(entries) = fs::read_dir(self.root.join(&dir)) else {
                continue;
            };
            for entry in entries.flatten() {
                let child = join(&dir, &entry.file_name().to_string_lossy());
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if let Some(changes) = changes {
                    let kind = EventType::EVENT_TYPE_CREATE;
                    changes.push(Change {
                        name: child.clone(),
                        kind,
                    });
                    self.told.insert(child.clone());
                }
                if is_dir {
                    self.watch(&child)?;
                    open.push(child);
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, path: &str) -> Result<(), TreeError> {
        if self.dirs.len() >= WATCHES_PER_WATCHER {
            return Err(TreeError::TooMany);
        }
        let mask = events() | WatchMask::DONT_FOLLOW | WatchMask::ONLYDIR;
        match self.watches.add(self.root.join(path), mask) {
            Ok(watch) => {
                self.dirs.insert(watch, path.to_owned());
                Ok(())
            }
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(TreeError::Watch(error)),
        }
    }

    /// Gives up a directory that was moved away, with all below it.
    fn forget(&mut self, path: &str) {
        let below = format!("{path}/");
        let gone: Vec<WatchDescriptor> = self
            .dirs
            .iter()
            .filter(|(_, dir)| *dir == path || dir.starts_with(&below))
            .map(|(watch, _)| watch.clone())
            .collect();
        for watch in gone {
            self.dirs.remove(&watch);
            // The kernel may have given it up itself.
            let _ = self.watches.remove(watch);
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn events() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::ATTRIB
        | WatchMask::MODIFY
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
}

fn kinds(mask: EventMask) -> impl Iterator<Item = EventType> {
    let moved = mask
        .contains(EventMask::MOVE_SELF)
        .then_some(EventType::EVENT_TYPE_RENAME);
    moved.into_iter().chain(
        MEANINGS
            .into_iter()
            .filter(move |(bit, _)| mask.contains(*bit))
            .map(|(_, kind)| kind),
    )
}

fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}
