//! What one entry of an archive says: names, owner, mode, times, attributes. All checked.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use base64::Engine;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};
use tar::{Entry, EntryType};

use super::{ArchiveError, OWNER_MAX};

/// What an entry says about its file beside the content.
pub(super) struct Facts {
    pub(super) owner: Uid,
    pub(super) group: Gid,
    pub(super) mode: Mode,
    pub(super) times: Timestamps,
}

/// The names of a path. A leading `/` means the root of the archive.
pub(super) fn parts_of(path: &[u8], shown: &str) -> Result<Vec<OsString>, ArchiveError> {
    let refused = |reason| ArchiveError::Path {
        path: shown.into(),
        reason,
    };
    if path.len() > 4095 || path.contains(&0) {
        return Err(refused("is too long or holds a zero byte"));
    }
    let names = path
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    names
        .map(|part| match part {
            b".." => Err(refused("leads upwards")),
            _ => Ok(OsString::from_vec(part.to_vec())),
        })
        .collect()
}

pub(super) fn link_of<R: Read>(entry: &Entry<'_, R>, shown: &str) -> Result<Vec<u8>, ArchiveError> {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        let reason = "is a link to an impossible name";
        return Err(ArchiveError::Path {
            path: shown.into(),
            reason,
        });
    }
    Ok(target)
}

pub(super) fn facts_of<R: Read>(entry: &Entry<'_, R>, shown: &str) -> Result<Facts, ArchiveError> {
    let header = entry.header();
    let id = |id: io::Result<u64>| {
        let id = id.map_err(ArchiveError::Read)?;
        match u32::try_from(id) {
            Ok(small) if id <= OWNER_MAX => Ok(small),
            _ => Err(ArchiveError::Owner {
                path: shown.into(),
                id,
            }),
        }
    };
    let mode = header.mode().map_err(ArchiveError::Read)? & 0o7777;
    let seconds = header.mtime().map_err(ArchiveError::Read)?;
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    Ok(Facts {
        owner: Uid::from_raw(id(header.uid())?),
        group: Gid::from_raw(id(header.gid())?),
        mode: Mode::from_raw_mode(mode),
        times: Timestamps {
            last_access: time,
            last_modification: time,
        },
    })
}

/// The extended attributes that a sandbox may have, in both spellings: raw (GNU tar, Docker) and
/// base64 (libarchive, ours; the raw one cannot carry every byte through this reader).
pub(super) fn attributes_of<R: Read>(
    entry: &mut Entry<'_, R>,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        let value = extension.value_bytes();
        let (name, value) = if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            (name, value.to_vec())
        } else if let Some(name) = key.strip_prefix("LIBARCHIVE.xattr.") {
            let engine = base64::engine::general_purpose::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::GeneralPurposeConfig::new()
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
            );
            let value = engine.decode(value).map_err(io::Error::other)?;
            (name, value)
        } else {
            continue;
        };
        if name == "security.capability" || name.starts_with("user.") {
            found.push((name.to_owned(), value));
        }
    }
    Ok(found)
}

pub(super) fn kind_error(kind: EntryType, path: String) -> ArchiveError {
    ArchiveError::Kind {
        path,
        kind: format!("{kind:?}"),
    }
}
