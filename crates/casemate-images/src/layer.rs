//! A layer as a plain tar.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::archive::Section;
use crate::cache::Lease;
use crate::images::Origin;
use crate::{Digest, Image, ImageError};

const BUFFER_LEN: usize = 128 * 1024;
/// Memory that a zstd stream may ask for, as a power of two: 128 MiB, the most that the usual tools
/// need and the library itself allows.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the media types of Docker (image manifest version 2, schema 2) and OCI (image specification
    /// 1.1). Layers that registries may not hold, which Windows has, are none of them.
    pub(crate) fn of_media_type(kind: &str) -> Option<Self> {
        match kind {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// By how the content begins: some tools push other layers than they say.
    fn of_content(begin: &[u8]) -> Self {
        if begin.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if begin.starts_with(&ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Reads the plain tar of a layer. Blocks on the disk and works hard, so it belongs on a thread of its
/// own. Ends with an error where the content is not what the image's config says, where it cannot be
/// unpacked, and as soon as the image's layers together are larger than they may be. The error is an
/// [`ImageError`] inside: [`ImageError::from_io`]. What was read before an error is hostile bytes.
pub struct LayerReader {
    tar: Tar,
    check: Check,
}

enum Tar {
    Plain(BufReader<Content>),
    Gzip(Box<MultiGzDecoder<BufReader<Content>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Content>>>),
}

/// A layer as it is packed.
pub(crate) enum Content {
    Cached { file: File, _lease: Lease },
    Archived(Section),
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Cached { file, .. } => file.read(buffer),
            Self::Archived(section) => section.read(buffer),
        }
    }
}

/// What a reader holds its bytes against.
struct Check {
    reference: String,
    digest: Digest,
    diff_id: Digest,
    index: usize,
    origin: Arc<Origin>,
    bytes_max: u64,
    hasher: Sha256,
    bytes: u64,
    end: Option<Result<(), ImageError>>,
}

impl LayerReader {
    pub(crate) fn new(
        image: &Image,
        index: usize,
        content: Content,
        bytes_max: u64,
    ) -> Result<Self, ImageError> {
        let reference = image.asked.clone();
        let Some(layer) = image.layers.get(index) else {
            return Err(ImageError::NoLayer { reference, index });
        };
        let check = Check {
            reference,
            digest: layer.digest,
            diff_id: layer.diff_id,
            index,
            origin: Arc::clone(&image.origin),
            bytes_max,
            hasher: Sha256::new(),
            bytes: 0,
            end: None,
        };
        let tar = Tar::new(content).map_err(|error| check.corrupt(error))?;
        Ok(Self { tar, check })
    }

    /// Reads what is left and tells how many bytes there were in all. Who unpacks a tar stops where it
    /// ends: call this then, or what follows is never checked.
    pub fn finish(mut self) -> Result<u64, ImageError> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| {
            ImageError::from_io(error).unwrap_or_else(|error| self.check.corrupt(error))
        })?;
        Ok(self.check.bytes)
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.check.end {
            Some(Ok(())) => return Ok(0),
            Some(Err(error)) => return Err(io::Error::other(error.clone())),
            None if buffer.is_empty() => return Ok(0),
            None => {}
        }
        let read = match self.tar.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            read => read,
        };
        let checked = match read {
            Ok(n) => self.check.take(&buffer[..n]).map(|()| n),
            Err(error) => Err(self.check.corrupt(error)),
        };
        checked.map_err(|error| {
            self.check.end = Some(Err(error.clone()));
            io::Error::other(error)
        })
    }
}

impl Tar {
    fn new(content: Content) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_LEN, content);
        Ok(match Compression::of_content(file.fill_buf()?) {
            Compression::None => Self::Plain(file),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(file)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tar) => tar.read(buffer),
            Self::Gzip(tar) => tar.read(buffer),
            Self::Zstd(tar) => tar.read(buffer),
        }
    }
}

impl Check {
    /// The next bytes; none are the end.
    fn take(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if bytes.is_empty() {
            let found = Digest::of_hasher(std::mem::take(&mut self.hasher));
            if found != self.diff_id {
                return Err(ImageError::WrongContent {
                    reference: self.reference.clone(),
                    digest: self.digest,
                });
            }
            self.end = Some(Ok(()));
            return Ok(());
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        let sum = self.origin.count(self.index, self.bytes);
        if sum > self.bytes_max {
            return Err(ImageError::TooLarge {
                bytes: sum,
                bytes_max: self.bytes_max,
            });
        }
        Ok(())
    }

    fn corrupt(&self, error: io::Error) -> ImageError {
        ImageError::Corrupt {
            reference: self.reference.clone(),
            digest: self.digest,
            source: Arc::new(error),
        }
    }
}
