//! `POST /files`: one file as the body, or many as a form.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use serde::Serialize;

use super::decode::{Upload, UploadError};
use super::multipart::{Multipart, MultipartError, boundary};
use super::{Operation, admit, crashed, expand, metadata, write};
use crate::answer::{self, Answer, Refusal, refuse};
use crate::body::RequestBody;
use crate::guest::Guest;
use crate::limits::{FILE_CHUNK_BYTES, PARTS};
use crate::paths::base_name;
use crate::route::{Plain, account, blocking};
use crate::users::User;

pub async fn upload(call: Plain) -> Answer {
    let (parts, mut body) = call.request.into_parts();
    match receive(call.guest, &parts, &mut body).await {
        Ok(written) => match serde_json::to_string(&written) {
            Ok(body) => answer::json(body),
            Err(failure) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
        },
        Err(refusal) => {
            body.read_off().await;
            refusal.into()
        }
    }
}

/// One element of the answer.
#[derive(Serialize)]
struct Written {
    name: String,
    path: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    metadata: HashMap<String, String>,
}

/// What all files of a request have in common.
struct Common {
    guest: Rc<Guest>,
    user: User,
    metadata: BTreeMap<String, String>,
    /// The length of the request, if it was told.
    announced: Option<u64>,
}

async fn receive(
    guest: Rc<Guest>,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<Vec<Written>, Refusal> {
    let asked = admit(&guest, parts, Operation::Write)?;
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, &text);
    let no_user = asked.username.is_none() && guest.settings.borrow().default_user.is_empty();
    if no_user {
        return Err(bad("username not provided".to_owned()));
    }
    let upload = Upload::open(&parts.headers, body)
        .await
        .map_err(|failure| match failure {
            UploadError::Stalled => stalled(&failure),
            failure => bad(format!("error decompressing request body: {failure}")),
        })?;
    let user = account(&guest, asked.username.as_deref())?;
    let metadata = metadata::read(&parts.headers)
        .map_err(|invalid| bad(format!("invalid metadata: {invalid}")))?;
    let common = Common {
        guest,
        user,
        metadata,
        announced: announced(&parts.headers),
    };

    let content_type = header(&parts.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/octet-stream") {
        let path = asked.path.filter(|path| !path.is_empty()).ok_or_else(|| {
            bad("path query parameter is required for raw body upload".to_owned())
        })?;
        return raw(&common, &path, upload)
            .await
            .map(|written| vec![written]);
    }
    if media_type.to_ascii_lowercase().starts_with("multipart/") {
        let boundary = boundary(&content_type).ok_or_else(|| {
            let text = "error parsing multipart form: no multipart boundary param in Content-Type";
            refuse(StatusCode::INTERNAL_SERVER_ERROR, text)
        })?;
        return form(&common, asked.path, Multipart::new(upload, &boundary)).await;
    }
    Err(bad(format!(
        "unsupported content type: {content_type}, expected multipart/form-data or \
         application/octet-stream"
    )))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    header(headers, CONTENT_LENGTH.as_str())?.parse().ok()
}

fn stalled(failure: &UploadError) -> Refusal {
    refuse(
        StatusCode::REQUEST_TIMEOUT,
        &format!("upload stalled: {failure}"),
    )
}

async fn raw(common: &Common, path: &str, mut upload: Upload<'_>) -> Result<Written, Refusal> {
    let path = expand(&common.guest, &common.user, path)?;
    let mut target = Target::begin(common, path).await?;
    while let Some(piece) = upload.next().await {
        let piece = piece.map_err(|failure| match failure {
            UploadError::Stalled => stalled(&failure),
            failure => {
                let text = format!("error writing file: {failure}");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, &text)
            }
        })?;
        target.take(piece).await?;
    }
    target.finish(common).await
}

async fn form(
    common: &Common,
    path: Option<String>,
    mut form: Multipart<'_>,
) -> Result<Vec<Written>, Refusal> {
    let mut written: Vec<Written> = Vec::new();
    while let Some(head) = form.next_part().await.map_err(|failure| broken(&failure))? {
        if head.name.as_deref() != Some("file") {
            continue;
        }
        if written.len() >= PARTS {
            let text = format!("more than {PARTS} files in one upload request");
            return Err(refuse(StatusCode::BAD_REQUEST, &text));
        }
        let asked = match (&path, head.filename) {
            (Some(path), _) => path.clone(),
            (None, Some(filename)) if !filename.is_empty() => filename,
            (None, _) => {
                let text = "error resolving path: filename not found in Content-Disposition header";
                return Err(refuse(StatusCode::BAD_REQUEST, text));
            }
        };
        let target = expand(&common.guest, &common.user, &asked)?;
        if written.iter().any(|earlier| earlier.path == target) {
            return Err(repeated(&target, &written));
        }
        let mut target = Target::begin(common, target).await?;
        while let Some(piece) = form
            .next_piece()
            .await
            .map_err(|failure| broken(&failure))?
        {
            target.take(piece).await?;
        }
        written.push(target.finish(common).await?);
    }
    Ok(written)
}

fn broken(failure: &MultipartError) -> Refusal {
    match failure {
        MultipartError::Upload(stall @ UploadError::Stalled) => stalled(stall),
        failure => {
            let text = format!("error reading form: {failure}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, &text)
        }
    }
}

fn repeated(path: &str, written: &[Written]) -> Refusal {
    let mut text = format!(
        "you cannot upload multiple files to the same path '{path}' in one upload request, only \
         the first specified file was uploaded"
    );
    let others: Vec<&str> = written
        .iter()
        .map(|file| file.path.as_str())
        .filter(|other| *other != path)
        .collect();
    if !others.is_empty() {
        text.push_str(&format!(
            ", also the following files were uploaded: {}",
            others.join(", ")
        ));
    }
    refuse(StatusCode::BAD_REQUEST, &text)
}

/// A file that is being written.
struct Target {
    path: String,
    file: Option<File>,
    /// Copied out of the pieces, so that the HTTP layer reads the next ones into the same memory.
    /// Kept from write to write for the same reason: to map and clear new pages takes longer.
    gathered: Vec<u8>,
    announced: Option<u64>,
}

impl Target {
    async fn begin(common: &Common, path: String) -> Result<Self, Refusal> {
        let (own, user) = (path.clone(), common.user.clone());
        let file = blocking(move || write::begin(&own, &user))
            .await
            .map_err(|error| crashed(&error))??;
        let announced = common.announced;
        Ok(Self {
            path,
            file: Some(file),
            gathered: Vec::new(),
            announced,
        })
    }

    async fn take(&mut self, piece: Bytes) -> Result<(), Refusal> {
        self.gathered.extend_from_slice(&piece);
        drop(piece);
        if self.gathered.len() >= FILE_CHUNK_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let announced = self.announced;
        let (file, gathered) = blocking(move || {
            write::append(&mut file, &gathered, announced)?;
            gathered.clear();
            Ok::<_, Refusal>((file, gathered))
        })
        .await
        .map_err(|error| crashed(&error))??;
        (self.file, self.gathered) = (Some(file), gathered);
        Ok(())
    }

    async fn finish(mut self, common: &Common) -> Result<Written, Refusal> {
        if !self.gathered.is_empty() {
            self.flush().await?;
        }
        let (file, pairs) = (self.file.take(), common.metadata.clone());
        let metadata = match file {
            Some(file) => blocking(move || write::attach(&file, &pairs))
                .await
                .map_err(|error| crashed(&error))??,
            None => HashMap::new(),
        };
        Ok(Written {
            name: base_name(&self.path).to_owned(),
            path: self.path,
            r#type: "file",
            metadata,
        })
    }
}
