//! An OCI image layout: from its index to an image.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{FindError, Found, Located, NotAnArchive, Parts};
use crate::registry::{Manifest, NotAnImage, Packed, read_config, read_manifest};
use crate::resolve::INDEX_DEPTH_MAX;
use crate::{Digest, Layer, Platform, Reference};

pub(super) const INDEX: &str = "index.json";
const VERSION: &str = "oci-layout";
/// Entries of the index that are looked at.
const ENTRIES_MAX: usize = 1024;

/// The name of an image in a layout: often a tag alone.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Its whole reference, where Docker or containerd wrote it.
const WHOLE_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    size: u64,
    platform: Option<ForPlatform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ForPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Entry {
    fn names(&self) -> impl Iterator<Item = &String> {
        let annotations = self.annotations.iter();
        annotations.flat_map(|all| {
            [REF_NAME, WHOLE_NAME]
                .map(|name| all.get(name))
                .into_iter()
                .flatten()
        })
    }

    /// One that does not say what it is for may be for any; what describes other images is for none.
    fn is_for(&self, platform: &Platform) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|of| of.os == platform.os && of.architecture == platform.architecture)
    }
}

/// Whether a name in an archive is the one that somebody means: the name, or its tag alone.
pub(super) fn is_named(name: &str, wanted: &str) -> bool {
    let read = |text: &str| Reference::parse(text).ok();
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    name == wanted
        || tag.is_some_and(|tag| !tag.contains('/') && tag == wanted)
        || (name.contains([':', '/']) && read(name).is_some() && read(name) == read(wanted))
}

pub(super) fn find(
    parts: &Parts<'_>,
    platform: &Platform,
    wanted: Option<&str>,
) -> Result<Found, FindError> {
    check_version(parts)?;
    let index = parts.names.get(INDEX).ok_or(NotAnArchive::NoIndex)?;
    let index: Index = serde_json::from_slice(&parts.document(index)?)
        .map_err(|_| NotAnArchive::Unreadable(INDEX))?;
    let entries: Vec<_> = index.manifests.into_iter().take(ENTRIES_MAX).collect();
    let entry = choose(&entries, platform, wanted)?;
    let digest = Digest::parse(&entry.digest).ok_or(NotAnImage::DigestKind)?;
    check_size(parts, digest, entry.size)?;
    let mut digest = digest;
    for _ in 0..=INDEX_DEPTH_MAX {
        match read_manifest(&parts.named(digest)?)? {
            Manifest::Index(index) => {
                let chosen = index.choose(platform);
                digest = chosen.ok_or_else(|| index.wrong_platform(platform))?;
            }
            Manifest::Image { config, layers } => {
                let config = read_config(&parts.named(config)?, layers.len(), platform)?;
                let located = layers.iter().map(|layer| locate(parts, layer));
                let located = located.collect::<Result<_, _>>()?;
                let pairs = layers.into_iter().zip(&config.diff_ids);
                return Ok(Found {
                    name: entry.names().next().cloned(),
                    digest,
                    layers: pairs.map(|(packed, id)| Layer::of(packed, *id)).collect(),
                    located,
                    config,
                });
            }
        }
    }
    Err(NotAnImage::Nested.into())
}

fn check_version(parts: &Parts<'_>) -> Result<(), FindError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let Some(layout) = parts.names.get(VERSION) else {
        return Ok(());
    };
    let layout: Layout = serde_json::from_slice(&parts.document(layout)?)
        .map_err(|_| NotAnArchive::Unreadable(VERSION))?;
    let version = layout.image_layout_version;
    match version.starts_with("1.") {
        true => Ok(()),
        false => Err(NotAnArchive::Version(version.chars().take(20).collect()).into()),
    }
}

fn choose<'a>(
    entries: &'a [Entry],
    platform: &Platform,
    wanted: Option<&str>,
) -> Result<&'a Entry, FindError> {
    let named = |entry: &&Entry| {
        wanted.is_none_or(|wanted| entry.names().any(|name| is_named(name, wanted)))
    };
    let named: Vec<_> = entries.iter().filter(named).collect();
    if named.is_empty() {
        return Err(match wanted {
            Some(wanted) => NotAnArchive::NoImage {
                wanted: wanted.to_owned(),
                found: names(entries),
            },
            None => NotAnArchive::Empty,
        }
        .into());
    }
    if let [only] = named.as_slice() {
        return Ok(only);
    }
    let fitting: Vec<_> = named
        .iter()
        .filter(|entry| entry.is_for(platform))
        .collect();
    match fitting.as_slice() {
        [] => Err(NotAnImage::Platform {
            found: platforms(entries),
            expected: platform.architecture.clone(),
        }
        .into()),
        // One image may have several names.
        [first, others @ ..] if others.iter().all(|other| other.digest == first.digest) => {
            Ok(first)
        }
        _ => Err(NotAnArchive::Several(names(entries)).into()),
    }
}

fn names(entries: &[Entry]) -> Vec<String> {
    let names = entries.iter().filter_map(|entry| entry.names().next());
    names.cloned().collect()
}

fn platforms(entries: &[Entry]) -> String {
    let of = entries.iter().filter_map(|entry| entry.platform.as_ref());
    let names = of.map(|of| format!("{}/{}", of.os, of.architecture));
    let names: Vec<String> = names.take(super::SHOWN_MAX).collect();
    names
        .join(", ")
        .chars()
        .take(super::SHOWN_CHARS_MAX)
        .collect()
}

fn locate(parts: &Parts<'_>, layer: &Packed) -> Result<Located, FindError> {
    check_size(parts, layer.digest, layer.bytes)?;
    Ok(Located {
        span: parts.blob(layer.digest)?,
        digest: Some(layer.digest),
    })
}

fn check_size(parts: &Parts<'_>, digest: Digest, said: u64) -> Result<(), FindError> {
    let found = parts.blob(digest)?.bytes;
    match found == said {
        true => Ok(()),
        false => Err(NotAnArchive::WrongSize {
            digest,
            found,
            said,
        }
        .into()),
    }
}
