//! Folder → archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use tar::{Builder, EntryType, Header};

use super::{ArchiveError, Compression, HEADER_NAME};

/// Fast enough for 430 MB in a few seconds; a higher level gains little on programs.
const ZSTD_LEVEL: i32 = 3;

/// Writes the folder `root` as an archive to `file`, after our header. Names are sorted, so that
/// the same folder gives the same bytes. Sockets, device nodes and fifos are left out.
pub fn pack(
    root: &Path,
    header: &[u8],
    file: File,
    compression: Compression,
) -> Result<(), ArchiveError> {
    let file = BufWriter::with_capacity(1 << 17, file);
    let file = match compression {
        Compression::None => write_tar(root, header, file)?,
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let encoder = write_tar(root, header, flate2::write::GzEncoder::new(file, level))?;
            encoder.finish().map_err(ArchiveError::Write)?
        }
        Compression::Zstd => {
            let encoder = zstd_encoder(file).map_err(ArchiveError::Write)?;
            let encoder = write_tar(root, header, encoder)?;
            encoder.finish().map_err(ArchiveError::Write)?
        }
    };
    let file = file
        .into_inner()
        .map_err(|e| ArchiveError::Write(e.into_error()))?;
    file.sync_all().map_err(ArchiveError::Write)
}

fn zstd_encoder<W: Write>(out: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.multithread(2)?;
    Ok(encoder)
}

fn write_tar<W: Write>(root: &Path, header: &[u8], out: W) -> Result<W, ArchiveError> {
    let mut builder = Builder::new(out);
    builder.mode(tar::HeaderMode::Complete);
    let mut entry = Header::new_gnu();
    entry.set_mode(0o644);
    entry.set_size(header.len() as u64);
    builder
        .append_data(&mut entry, HEADER_NAME, header)
        .map_err(ArchiveError::Write)?;
    let mut writer = Writer {
        root,
        builder,
        links: HashMap::new(),
    };
    writer.folder(Path::new(""))?;
    writer.builder.into_inner().map_err(ArchiveError::Write)
}

struct Writer<'a, W: Write> {
    root: &'a Path,
    builder: Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    fn folder(&mut self, relative: &Path) -> Result<(), ArchiveError> {
        let path = self.root.join(relative);
        let meta = fs::symlink_metadata(&path).map_err(source_error(&path))?;
        let mut header = header_for(&meta, EntryType::Directory);
        let name = if relative.as_os_str().is_empty() {
            Path::new("./")
        } else {
            relative
        };
        self.builder
            .append_data(&mut header, name, io::empty())
            .map_err(ArchiveError::Write)?;
        let mut names = fs::read_dir(&path)
            .and_then(|entries| {
                entries
                    .map(|e| Ok(e?.file_name()))
                    .collect::<io::Result<Vec<_>>>()
            })
            .map_err(source_error(&path))?;
        names.sort();
        for name in names {
            self.entry(&relative.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, relative: &Path) -> Result<(), ArchiveError> {
        let path = self.root.join(relative);
        let meta = fs::symlink_metadata(&path).map_err(source_error(&path))?;
        let kind = meta.file_type();
        if kind.is_dir() {
            return self.folder(relative);
        }
        if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            return Ok(());
        }
        if meta.nlink() > 1 {
            let first = self
                .links
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| relative.into());
            if *first != relative {
                let mut header = header_for(&meta, EntryType::Link);
                let first = first.clone();
                return self
                    .builder
                    .append_link(&mut header, relative, first)
                    .map_err(ArchiveError::Write);
            }
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(source_error(&path))?;
            let mut header = header_for(&meta, EntryType::Symlink);
            return self
                .builder
                .append_link(&mut header, relative, target)
                .map_err(ArchiveError::Write);
        }
        self.file(relative, &path, &meta)
    }

    fn file(&mut self, relative: &Path, path: &Path, meta: &Metadata) -> Result<(), ArchiveError> {
        let attributes = attributes_of(path).map_err(source_error(path))?;
        let attributes = attributes
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_bytes()));
        self.builder
            .append_pax_extensions(attributes)
            .map_err(ArchiveError::Write)?;
        let content = File::open(path).map_err(source_error(path))?;
        let mut header = header_for(meta, EntryType::Regular);
        header.set_size(meta.len());
        // The length stands in the header already: a file that grows meanwhile must not shift
        // what follows it.
        let content = io::Read::take(content, meta.len());
        self.builder
            .append_data(&mut header, relative, content)
            .map_err(ArchiveError::Write)
    }
}

fn header_for(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// The attributes that unpacking takes, as libarchive writes them.
fn attributes_of(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name.as_bytes()), &mut value)?;
        let value = base64::engine::general_purpose::STANDARD.encode(&value[..length]);
        found.push((format!("LIBARCHIVE.xattr.{name}"), value));
    }
    found.sort();
    Ok(found)
}

fn source_error(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    |source| ArchiveError::Source { path, source }
}
