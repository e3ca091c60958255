//! One watcher: from the notes of the kernel to the events of the protocol.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fs, io};

use envd_wire::filesystem::{EntryInfo, EventType, FilesystemEvent};
use inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::tree::{Change, Note, Tree, TreeError};
use super::{entry, network};
use crate::connect::{Code, RpcError};
use crate::limits::WATCHERS;
use crate::paths::os_text;
use crate::ready::register;
use crate::route::blocking;
use crate::users::Names;

const READ_BYTES: usize = 16 * 1024;
/// Notes handled in one go.
const BATCH: usize = 1024;

/// What a client wants to be told of.
pub struct Wanted {
    pub path: String,
    pub recursive: bool,
    pub include_entry: bool,
    pub allow_network_mounts: bool,
}

/// A running watcher.
pub struct Watcher {
    inotify: AsyncFd<Inotify>,
    tree: Option<Tree>,
    include_entry: bool,
    _place: Place,
}

/// One of the watchers that may be open at once.
struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Watcher {
    /// When this returns, nothing that happens escapes.
    pub async fn open(open: &Rc<Cell<usize>>, wanted: Wanted) -> Result<Self, RpcError> {
        if open.get() >= WATCHERS {
            let text = format!("{WATCHERS} watchers are open already");
            return Err(RpcError::new(Code::ResourceExhausted, text));
        }
        open.set(open.get() + 1);
        let place = Place(Rc::clone(open));
        let include_entry = wanted.include_entry;
        let (inotify, tree) = blocking(move || {
            check(&wanted)?;
            Tree::open(PathBuf::from(&wanted.path), wanted.recursive).map_err(|error| {
                RpcError::internal(format!(
                    "error adding path {} to watcher: {error}",
                    wanted.path
                ))
            })
        })
        .await??;
        let inotify = register(inotify, Interest::READABLE).map_err(|(_, error)| {
            RpcError::internal(format!("error creating watcher: {}", os_text(&error)))
        })?;
        Ok(Self {
            inotify,
            tree: Some(tree),
            include_entry,
            _place: place,
        })
    }

    /// The next events; at least one.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped call loses events and the tree. Keep the future and poll on.
    pub async fn next(&mut self) -> Result<Vec<FilesystemEvent>, RpcError> {
        loop {
            let notes = self
                .notes()
                .await
                .map_err(|error| failed(&TreeError::Watch(error)))?;
            let mut tree = self
                .tree
                .take()
                .ok_or_else(|| RpcError::internal("watcher error: lost"))?;
            let include_entry = self.include_entry;
            let (tree, events) = blocking(move || {
                let events = tree.read(notes).map(|changes| {
                    if include_entry {
                        with_entries(tree.root(), changes)
                    } else {
                        bare(changes)
                    }
                });
                (tree, events)
            })
            .await?;
            self.tree = Some(tree);
            let events = events.map_err(|error| failed(&error))?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn notes(&mut self) -> io::Result<Vec<Note>> {
        let mut buffer = [0; READ_BYTES];
        let mut notes = Vec::new();
        while notes.is_empty() {
            let mut ready = self.inotify.readable_mut().await?;
            // What is there already is taken along, but nothing is waited for.
            while notes.len() < BATCH {
                match ready.get_inner_mut().read_events(&mut buffer) {
                    Ok(read) => notes.extend(read.map(|event| Note {
                        watch: event.wd,
                        mask: event.mask,
                        name: event.name.map(|name| name.to_string_lossy().into_owned()),
                    })),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(notes)
    }
}

fn failed(error: &TreeError) -> RpcError {
    RpcError::internal(format!("watcher error: {error}"))
}

fn check(wanted: &Wanted) -> Result<(), RpcError> {
    let path = &wanted.path;
    let found = fs::metadata(path).map_err(|error| {
        let text = os_text(&error);
        match error.kind() {
            io::ErrorKind::NotFound => {
                RpcError::not_found(format!("path {path} not found: stat {path}: {text}"))
            }
            _ => RpcError::internal(format!("error statting path {path}: {text}")),
        }
    })?;
    if !found.is_dir() {
        return Err(RpcError::invalid(format!(
            "path {path} not a directory: {path}"
        )));
    }
    if wanted.allow_network_mounts {
        return Ok(());
    }
    let network = network::is_network(Path::new(path)).map_err(|error| {
        RpcError::internal(format!(
            "error checking filesystem of {path}: {}",
            os_text(&error)
        ))
    })?;
    if network {
        let text = format!("cannot watch path on network filesystem: {path}");
        return Err(RpcError::invalid(text));
    }
    Ok(())
}

fn event(change: Change, entry: Option<EntryInfo>) -> FilesystemEvent {
    FilesystemEvent {
        name: change.name,
        r#type: change.kind.into(),
        entry: entry.into(),
    }
}

fn bare(changes: Vec<Change>) -> Vec<FilesystemEvent> {
    changes
        .into_iter()
        .map(|change| event(change, None))
        .collect()
}

/// The entry belongs to what is there now: never to what was removed or moved away.
fn with_entries(root: &Path, changes: Vec<Change>) -> Vec<FilesystemEvent> {
    let names = Names::read();
    changes
        .into_iter()
        .map(|change| {
            let path = match change.name.as_str() {
                "." => root.to_owned(),
                name => root.join(name),
            };
            let entry = match change.kind {
                EventType::EVENT_TYPE_CREATE
                | EventType::EVENT_TYPE_WRITE
                | EventType::EVENT_TYPE_CHMOD => entry::look(&path.to_string_lossy(), &names).ok(),
                EventType::EVENT_TYPE_REMOVE
                | EventType::EVENT_TYPE_RENAME
                | EventType::EVENT_TYPE_UNSPECIFIED => None,
            };
            event(change, entry)
        })
        .collect()
}
