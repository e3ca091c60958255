//! The form that `docker save` wrote before Docker 25: a list of images, each with a config and layers
//! by names of files, and without digests of what is packed.

use serde::Deserialize;

use super::layout::is_named;
use super::{FindError, Found, Located, NotAnArchive, Parts, Span};
use crate::registry::{check_layers, read_config};
use crate::{Compression, Digest, Layer, Platform};

const MANIFEST: &str = "manifest.json";
/// Images that are looked at.
const ENTRIES_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn find(
    parts: &Parts<'_>,
    platform: &Platform,
    wanted: Option<&str>,
) -> Result<Found, FindError> {
    let manifest = parts.names.get(MANIFEST).ok_or(NotAnArchive::NoIndex)?;
    let entries: Vec<Entry> = serde_json::from_slice(&parts.document(manifest)?)
        .map_err(|_| NotAnArchive::Unreadable(MANIFEST))?;
    let entries: Vec<_> = entries.into_iter().take(ENTRIES_MAX).collect();
    let entry = choose(&entries, wanted)?;
    check_layers(entry.layers.len())?;
    let config = parts.document(file(parts, &entry.config)?)?;
    // Nothing else stands for the whole image; it names the content of all layers.
    let digest = Digest::of(&config);
    let config = read_config(&config, entry.layers.len(), platform)?;
    let mut layers = Vec::with_capacity(entry.layers.len());
    let mut located = Vec::with_capacity(entry.layers.len());
    for (name, diff_id) in entry.layers.iter().zip(&config.diff_ids) {
        let span = file(parts, name)?;
        layers.push(Layer {
            digest: *diff_id,
            compressed_bytes: span.bytes,
            diff_id: *diff_id,
            compression: Compression::None,
        });
        located.push(Located { span, digest: None });
    }
    let mut tags = entry.repo_tags.iter().flatten();
    Ok(Found {
        name: tags.next().cloned(),
        digest,
        config,
        layers,
        located,
    })
}

fn choose<'a>(entries: &'a [Entry], wanted: Option<&str>) -> Result<&'a Entry, FindError> {
    let names = || {
        let tags = entries
            .iter()
            .flat_map(|entry| entry.repo_tags.iter().flatten());
        tags.cloned().collect::<Vec<_>>()
    };
    let Some(wanted) = wanted else {
        return match entries {
            [] => Err(NotAnArchive::Empty.into()),
            [only] => Ok(only),
            _ => Err(NotAnArchive::Several(names()).into()),
        };
    };
    let is_it = |entry: &&Entry| {
        let mut tags = entry.repo_tags.iter().flatten();
        tags.any(|name| is_named(name, wanted))
    };
    let missing = || NotAnArchive::NoImage {
        wanted: wanted.to_owned(),
        found: names(),
    };
    let found: Vec<_> = entries.iter().filter(is_it).collect();
    match found.as_slice() {
        [] => Err(missing().into()),
        [only] => Ok(only),
        // A tag alone may be that of several.
        _ => Err(NotAnArchive::Several(names()).into()),
    }
}

fn file(parts: &Parts<'_>, name: &str) -> Result<Span, FindError> {
    let missing = || NotAnArchive::NoFile(name.chars().take(super::SHOWN_CHARS_MAX).collect());
    Ok(parts.names.get(name).ok_or_else(missing)?)
}
