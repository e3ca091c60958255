//! The body of an upload: within an idle limit, unpacked if it was packed.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::time::timeout;

use crate::body::{RequestBody, next_piece};
use crate::limits::UPLOAD_IDLE;

/// Packed bytes unpacked at once: at most a thousand times as many come out.
const STEP_BYTES: usize = 1024;
/// Identification and method of a gzip stream.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("no data for {} seconds", UPLOAD_IDLE.as_secs())]
    Stalled,
    #[error("{0}")]
    Broken(#[source] hyper::Error),
    #[error("gzip: {0}")]
    Gzip(#[source] io::Error),
    #[error("unsupported encoding: {0}, supported: [gzip]")]
    Encoding(String),
}

/// What an upload carries, piece by piece.
pub struct Upload<'a> {
    body: &'a mut RequestBody,
    unpacker: Option<MultiGzDecoder<Vec<u8>>>,
    /// Received, not yet unpacked.
    packed: Bytes,
}

impl<'a> Upload<'a> {
    /// Looks at the encoding, and at the head of a packed body.
    pub async fn open(headers: &HeaderMap, body: &'a mut RequestBody) -> Result<Self, UploadError> {
        let encoding = headers
            .get(CONTENT_ENCODING)
            .map_or(&b""[..], |value| value.as_bytes());
        let mut upload = Self {
            body,
            unpacker: None,
            packed: Bytes::new(),
        };
        if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
            return Ok(upload);
        }
        if !encoding.eq_ignore_ascii_case(b"gzip") {
            return Err(UploadError::Encoding(
                String::from_utf8_lossy(encoding).into_owned(),
            ));
        }
        let mut head = Vec::new();
        while head.len() < MAGIC.len() {
            let piece = upload
                .receive()
                .await
                .unwrap_or(Err(UploadError::Gzip(io::ErrorKind::UnexpectedEof.into())))?;
            head.extend_from_slice(&piece);
        }
        if !head.starts_with(&MAGIC) {
            let error = io::Error::new(io::ErrorKind::InvalidData, "invalid header");
            return Err(UploadError::Gzip(error));
        }
        upload.packed = head.into();
        upload.unpacker = Some(MultiGzDecoder::new(Vec::new()));
        Ok(upload)
    }

    /// The next piece; never an empty one.
    pub async fn next(&mut self) -> Option<Result<Bytes, UploadError>> {
        loop {
            if self.unpacker.is_none() {
                return self.receive().await;
            }
            if self.packed.is_empty() {
                match self.receive().await {
                    Some(Ok(piece)) => self.packed = piece,
                    Some(Err(error)) => return Some(Err(error)),
                    None => return self.rest(),
                }
            }
            match self.unpack() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some(Ok(piece)),
                Err(error) => return Some(Err(UploadError::Gzip(error))),
            }
        }
    }

    fn unpack(&mut self) -> io::Result<Bytes> {
        let step = self.packed.split_to(self.packed.len().min(STEP_BYTES));
        let Some(unpacker) = &mut self.unpacker else {
            return Ok(step);
        };
        unpacker.write_all(&step)?;
        Ok(std::mem::take(unpacker.get_mut()).into())
    }

    /// What is still in the unpacker; it is then gone, and so is the body.
    fn rest(&mut self) -> Option<Result<Bytes, UploadError>> {
        match self.unpacker.take()?.finish() {
            Ok(rest) if rest.is_empty() => None,
            Ok(rest) => Some(Ok(rest.into())),
            Err(error) => Some(Err(UploadError::Gzip(error))),
        }
    }

    async fn receive(&mut self) -> Option<Result<Bytes, UploadError>> {
        match timeout(UPLOAD_IDLE, next_piece(self.body)).await {
            Ok(piece) => Some(piece?.map_err(UploadError::Broken)),
            Err(_) => Some(Err(UploadError::Stalled)),
        }
    }
}
