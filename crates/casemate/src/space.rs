//! What takes space in the data directory, as `casemate df` says it.
//!
//! Measured when somebody asks, by the node: the pool and its layers are root's. Files count as
//! they lie on the disk, so that a sparse one is as large as what was written to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use casemate_namespaces::PoolSpace;
use casemate_rpc::NodeTemplate;
use casemate_types::SnapshotId;
use serde::{Deserialize, Serialize};

/// Sandboxes that are named, those that hold most.
pub const SANDBOXES_MAX: usize = 100;
/// Snapshots that are named, those that hold most.
const SNAPSHOTS_MAX: usize = 100;
/// Layers of templates that are named, the largest.
const LAYERS_MAX: usize = 100;
/// The kernel's unit of a file's blocks.
const BLOCK_BYTES: u64 = 512;

/// All figures are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    pub data_dir: PathBuf,
    /// The file system in which the data directory lies.
    pub disk: Volume,
    /// The file system of writable layers; the data directory's own where there is no pool.
    pub pool: Pool,
    pub sandboxes: Sandboxes,
    pub snapshots: Snapshots,
    /// What steps of builds wrote, kept for the next build.
    pub build_steps: Snapshots,
    /// Layers of templates.
    pub layers: Layers,
    /// The store: teams, keys, sandboxes, templates.
    pub store: u64,
    /// The history: samples, events and logs.
    pub history: u64,
    /// Agents, journal and all else that is ours.
    pub other: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub size: u64,
    pub used: u64,
    pub free: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// What it is now: it grows with its use.
    pub size: u64,
    pub used: u64,
    pub free: u64,
    /// What its image takes of the disk; `None` without one.
    pub image: Option<u64>,
    /// Layers of ended sandboxes that are not deleted yet.
    pub waiting_layers: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandboxes {
    pub running: usize,
    /// `None` where nothing counts it (the disk limit is advisory).
    pub used: Option<u64>,
    /// The largest, at most [`SANDBOXES_MAX`].
    pub largest: Vec<Named>,
}

/// Files of sandboxes that are kept beyond them, in the pool too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    pub count: usize,
    /// Counted for each that shares it; `None` where nothing counts it.
    pub used: Option<u64>,
    /// The largest, at most [`SNAPSHOTS_MAX`].
    pub largest: Vec<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    pub count: usize,
    pub used: u64,
    pub largest: Vec<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// A sandbox's or a snapshot's id, or a layer's name.
    pub name: String,
    /// What uses it: a template by its alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    pub used: u64,
    /// What it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Blocks: layers of templates are walked.
pub fn measure(
    data_dir: &Path,
    pool: PoolSpace,
    templates: &[NodeTemplate],
) -> anyhow::Result<Space> {
    let disk = volume(data_dir)?;
    let (node, control) = (data_dir.join("node"), data_dir.join("control"));
    let pool_volume = volume(&pool.root)?;
    let running = pool.sandboxes.len();
    let mut counted: Vec<_> = pool
        .sandboxes
        .into_iter()
        .filter_map(|one| {
            Some(Named {
                name: one.sandbox.to_string(),
                template: None,
                used: one.used_bytes?,
                limit: one.limit_bytes,
            })
        })
        .collect();
    let used = pool.is_counted.then(|| sum(&counted));
    largest(&mut counted, SANDBOXES_MAX);
    let (steps, kept) = pool.kept.into_iter().partition(|(id, _)| id.is_of_build());
    let snapshots = snapshots_of(kept, pool.is_counted);
    let build_steps = snapshots_of(steps, pool.is_counted);
    let layers = layers(&node.join("layers"), templates)?;
    let image = existing(fs::metadata(node.join("pool.img")))?.map(|file| on_disk(&file));
    let (store, history) = (
        database(&control, "store.sqlite")?,
        database(&control, "history.sqlite")?,
    );
    let named = layers.used + image.unwrap_or(0) + store + history;
    // Without an image writable layers lie there, too, and would have to be walked.
    let skipped = node.join("writable");
    let all = walk(data_dir, &[&node.join("layers"), &skipped])? + layers.used;
    Ok(Space {
        data_dir: data_dir.into(),
        disk,
        pool: Pool {
            size: pool_volume.size,
            used: pool_volume.used,
            free: pool_volume.free,
            image,
            waiting_layers: pool.waiting,
        },
        sandboxes: Sandboxes {
            running,
            used,
            largest: counted,
        },
        snapshots,
        build_steps,
        layers,
        store,
        history,
        other: all.saturating_sub(named),
    })
}

fn snapshots_of(kept: BTreeMap<SnapshotId, Option<u64>>, is_counted: bool) -> Snapshots {
    let count = kept.len();
    let named = |(id, bytes): (SnapshotId, Option<u64>)| {
        Some(Named {
            name: id.to_string(),
            template: None,
            used: bytes?,
            limit: None,
        })
    };
    let mut rows: Vec<_> = kept.into_iter().filter_map(named).collect();
    let used = is_counted.then(|| sum(&rows));
    largest(&mut rows, SNAPSHOTS_MAX);
    Snapshots {
        count,
        used,
        largest: rows,
    }
}

fn volume(path: &Path) -> anyhow::Result<Volume> {
    let told = rustix::fs::statvfs(path)
        .with_context(|| format!("look at the file system of {}", path.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Ok(Volume {
        size: bytes(told.f_blocks),
        used: bytes(told.f_blocks.saturating_sub(told.f_bfree)),
        free: bytes(told.f_bavail),
    })
}

fn layers(folder: &Path, templates: &[NodeTemplate]) -> anyhow::Result<Layers> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut users = templates.iter().filter(|one| one.layers.contains(&name));
        found.push(Named {
            template: users.next().map(|template| template.alias.clone()),
            used: walk(&entry.path(), &[])?,
            limit: None,
            name,
        });
    }
    let (count, used) = (found.len(), sum(&found));
    largest(&mut found, LAYERS_MAX);
    Ok(Layers {
        count,
        used,
        largest: found,
    })
}

fn sum(rows: &[Named]) -> u64 {
    rows.iter().map(|row| row.used).sum()
}

fn largest(rows: &mut Vec<Named>, count_max: usize) {
    rows.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(count_max);
}

/// A database with what belongs to it (`-wal`, `-shm`).
fn database(folder: &Path, name: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for end in ["", "-wal", "-shm"] {
        let file = fs::metadata(folder.join(format!("{name}{end}")));
        bytes += existing(file)?.map_or(0, |file| on_disk(&file));
    }
    Ok(bytes)
}

/// What a folder holds with all below it, on its own file system. A file that goes meanwhile
/// counts nothing, one with two names twice.
fn walk(folder: &Path, without: &[&Path]) -> io::Result<u64> {
    let Some(own) = existing(fs::symlink_metadata(folder))? else {
        return Ok(0);
    };
    let (mut bytes, mut left) = (on_disk(&own), vec![folder.to_owned()]);
    while let Some(folder) = left.pop() {
        let Some(entries) = existing(fs::read_dir(&folder))? else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let Some(file) = existing(entry.metadata())? else {
                continue;
            };
            let path = entry.path();
            if file.dev() != own.dev() || without.contains(&path.as_path()) {
                continue;
            }
            bytes += on_disk(&file);
            if file.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(bytes)
}

fn on_disk(file: &fs::Metadata) -> u64 {
    file.blocks().saturating_mul(BLOCK_BYTES)
}

fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_walk_counts_what_lies_on_the_disk_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        let empty = walk(dir.path(), &[]).unwrap();
        let mut file = fs::File::create(path("a/b/file")).unwrap();
        file.write_all(&vec![1; 300_000]).unwrap();
        file.sync_all().unwrap();
        // As large as it may be, and nearly nothing on the disk.
        fs::File::create(path("a/sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        std::os::unix::fs::symlink("/usr", path("a/elsewhere")).unwrap();
        let all = walk(dir.path(), &[]).unwrap();
        assert!((300_000..400_000).contains(&(all - empty)), "{all} {empty}");
        let without = walk(dir.path(), &[&path("a/b")]).unwrap();
        assert!(without < empty + 8192, "{without} {empty}");
        assert_eq!(walk(&path("not there"), &[]).unwrap(), 0);
    }

    #[test]
    fn the_largest_are_named_and_all_are_counted() {
        let named = |name: &str, used| Named {
            name: name.into(),
            template: None,
            used,
            limit: None,
        };
        let mut rows = vec![named("b", 5), named("a", 5), named("c", 1), named("d", 9)];
        largest(&mut rows, 3);
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["d", "a", "b"]);
    }
}
