//! Images in files: OCI archives (a tar of an OCI image layout, OCI image specification 1.1, "Image
//! Layout"), and what `docker save` wrote before it wrote those.
//!
//! A file that a client sent is as hostile as a registry. It stays packed: its headers are read once
//! and say where each part begins, and no name in it becomes a path of ours. What is read into memory
//! has a limit, and no part is used before it has the digest by which it was named.

mod compose;
mod docker;
mod layout;
mod scan;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use compose::{NewImage, PackedLayer};
use scan::{Names, Span};

use crate::images::{Origin, Place};
use crate::layer::Content;
use crate::registry::{Config, NotAnImage};
use crate::{Digest, Image, ImageError, Images, Layer, LayerReader};

/// Largest document of an archive in bytes, as of registries.
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
const PIECE_BYTES: usize = 256 * 1024;
/// What stands for a reference where nobody named one.
const UNNAMED: &str = "of the archive";

/// Why a file is of no use. It is well if a user reads it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnArchive {
    #[error("it is no tar archive")]
    NotATar,
    #[error("it is compressed as a whole: unpack it first, to a plain tar")]
    Compressed,
    #[error("it ends early")]
    CutOff,
    #[error("it has an entry named '{0}', which leads out of it")]
    Name(String),
    #[error("it has more than {} entries", scan::HEADERS_MAX)]
    Entries,
    #[error("it has neither an index.json nor a manifest.json: it is no archive of images")]
    NoIndex,
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    #[error("its layout is of version {0}, and only 1 can be used")]
    Version(String),
    #[error("a document in it has more than {DOCUMENT_BYTES_MAX} bytes")]
    Document,
    #[error("it holds no image")]
    Empty,
    #[error("it holds no image named '{wanted}'{}", shown(.found, ": it holds "))]
    NoImage { wanted: String, found: Vec<String> },
    #[error("it holds several images: name one of them{}", shown(.0, ", which are "))]
    Several(Vec<String>),
    #[error("it has no blob {0}")]
    NoBlob(Digest),
    #[error("it has no '{0}', which its manifest names")]
    NoFile(String),
    #[error("its blob {0} is not what the digest says")]
    WrongDigest(Digest),
    #[error("its blob {digest} has {found} bytes, and is said to have {said}")]
    WrongSize {
        digest: Digest,
        found: u64,
        said: u64,
    },
}

/// Names in an error, and characters of each.
const SHOWN_MAX: usize = 16;
const SHOWN_CHARS_MAX: usize = 128;

fn shown(names: &[String], before: &str) -> String {
    let names = names.iter().take(SHOWN_MAX);
    let names: Vec<_> = names
        .map(|name| name.chars().take(SHOWN_CHARS_MAX).collect::<String>())
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("{before}{}", names.join(", ")),
    }
}

/// Where a layer is.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    span: Span,
    /// `None`: only that of its content is known, which is checked where it is read.
    digest: Option<Digest>,
}

/// An image's layers in their file.
#[derive(Debug)]
pub(crate) struct Archived {
    file: Arc<File>,
    layers: Vec<Located>,
}

/// What an archive says of one image.
struct Found {
    /// Its name there.
    name: Option<String>,
    digest: Digest,
    config: Config,
    layers: Vec<Layer>,
    located: Vec<Located>,
}

/// A part of a file.
pub(crate) struct Section {
    file: Arc<File>,
    span: Span,
}

impl Images {
    /// Finds an image in a file: the one of this name, or the only one that there is for the platform.
    /// Reads no layer. `wanted` is a tag, as archives have it, or a reference.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing.
    pub async fn open_archive(
        &self,
        file: File,
        wanted: Option<&str>,
    ) -> Result<Image, ImageError> {
        let (images, wanted) = (self.clone(), wanted.map(str::to_owned));
        let find = move || Ok(images.find_in_archive(file, wanted.as_deref()));
        self.blocking(find).await?
    }

    fn find_in_archive(&self, file: File, wanted: Option<&str>) -> Result<Image, ImageError> {
        let config = &self.shared.config;
        let asked = wanted.unwrap_or(UNNAMED);
        let names = Names::read(&file)?;
        let reader = Parts { file: &file, names };
        let found = match reader.names.get(layout::INDEX) {
            Some(_) => layout::find(&reader, &config.platform, wanted),
            None => docker::find(&reader, &config.platform, wanted),
        }
        .map_err(|error| error.about(asked))?;
        let sizes = found.layers.iter().map(|layer| layer.compressed_bytes);
        let bytes = sizes.fold(0, u64::saturating_add);
        let bytes_max = config.image_bytes_max;
        if bytes > bytes_max {
            return Err(ImageError::TooLarge { bytes, bytes_max });
        }
        let asked = found.name.unwrap_or_else(|| asked.to_owned());
        let archived = Archived {
            file: Arc::new(file),
            layers: found.located,
        };
        let place = Place::Archive(Arc::new(archived));
        Ok(Image {
            answered: asked.clone(),
            asked,
            digest: found.digest,
            env: found.config.env,
            process: found.config.process,
            compressed_bytes: bytes,
            origin: Arc::new(Origin::new(place, found.layers.len())),
            layers: found.layers,
        })
    }

    /// A layer of an archive, once the whole of it has been held against its digest.
    pub(crate) async fn layer_of_archive(
        &self,
        image: &Image,
        n: usize,
        archived: &Arc<Archived>,
    ) -> Result<LayerReader, ImageError> {
        let (image, archived) = (image.clone(), Arc::clone(archived));
        let bytes_max = self.shared.config.image_bytes_max;
        let open = move || {
            let Some(located) = archived.layers.get(n) else {
                return Ok(Err(ImageError::NoLayer {
                    reference: image.asked.clone(),
                    index: n,
                }));
            };
            let section = || Section {
                file: Arc::clone(&archived.file),
                span: located.span,
            };
            if let Some(digest) = located.digest
                && digest_of(section())? != digest
            {
                return Ok(Err(NotAnArchive::WrongDigest(digest).into()));
            }
            let content = Content::Archived(section());
            Ok(LayerReader::new(&image, n, content, bytes_max))
        };
        self.blocking(open).await?
    }
}

fn digest_of(mut section: Section) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match section.read(&mut piece)? {
            0 => return Ok(Digest::of_hasher(hasher)),
            count => hasher.update(&piece[..count]),
        }
    }
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.span.bytes).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut into[..most], self.span.at)?;
        if count == 0 {
            // It was there when the headers were read.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.span.at += count as u64;
        self.span.bytes -= count as u64;
        Ok(count)
    }
}

/// Documents of an archive.
struct Parts<'a> {
    file: &'a File,
    names: Names,
}

impl Parts<'_> {
    fn document(&self, span: Span) -> Result<Vec<u8>, FindError> {
        if span.bytes > DOCUMENT_BYTES_MAX {
            return Err(NotAnArchive::Document.into());
        }
        // Below the limit.
        let mut content = vec![0; usize::try_from(span.bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut content, span.at)?;
        Ok(content)
    }

    fn blob(&self, digest: Digest) -> Result<Span, FindError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let found = self.names.get(&name);
        Ok(found.ok_or(NotAnArchive::NoBlob(digest))?)
    }

    /// A blob that is a document.
    fn named(&self, digest: Digest) -> Result<Vec<u8>, FindError> {
        let content = self.document(self.blob(digest)?)?;
        match Digest::of(&content) == digest {
            true => Ok(content),
            false => Err(NotAnArchive::WrongDigest(digest).into()),
        }
    }
}

/// Why an image was not found in an archive.
enum FindError {
    Archive(NotAnArchive),
    Image(NotAnImage),
    Disk(io::Error),
}

impl FindError {
    fn about(self, asked: &str) -> ImageError {
        match self {
            Self::Archive(why) => why.into(),
            Self::Image(why) => ImageError::unusable(asked, why),
            Self::Disk(error) => ImageError::disk("an archive".as_ref(), error),
        }
    }
}

impl From<NotAnArchive> for FindError {
    fn from(why: NotAnArchive) -> Self {
        Self::Archive(why)
    }
}

impl From<NotAnImage> for FindError {
    fn from(why: NotAnImage) -> Self {
        Self::Image(why)
    }
}

impl From<io::Error> for FindError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}
