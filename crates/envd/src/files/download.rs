//! `GET /files`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::SystemTime;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::request::Parts;
use http::{Response, StatusCode};
use rustix::fs::OFlags;

use super::encoding::{Accepted, Encoding};
use super::range::{Part, Ranges};
use super::{
    Operation, admit, content_type, crashed, disposition, expand, is_channel, range, send,
};
use crate::answer::{Answer, Refusal, empty, refuse};
use crate::body::Body;
use crate::guest::Guest;
use crate::paths::{base_name, os_text};
use crate::route::{Plain, account, blocking};

const CONDITIONAL: [HeaderName; 4] = [RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE];

pub async fn download(call: Plain) -> Answer {
    let (parts, _) = call.request.into_parts();
    match prepare(&call.guest, &parts).await {
        Ok((opened, Encoding::Gzip)) => gzip(opened),
        Ok((opened, Encoding::Identity)) => identity(opened, &parts.headers),
        Err(refusal) => refusal.into(),
    }
}

/// A file that can be sent.
struct Opened {
    name: String,
    file: File,
    size: u64,
    modified: Option<SystemTime>,
    /// Its first bytes, where the name does not tell the type.
    head: Vec<u8>,
}

async fn prepare(guest: &Guest, parts: &Parts) -> Result<(Opened, Encoding), Refusal> {
    let asked = admit(guest, parts, Operation::Read)?;
    let user = account(guest, asked.username.as_deref())?;
    let path = expand(guest, &user, asked.path.as_deref().unwrap_or_default())?;
    let checked = path.clone();
    blocking(move || check(&checked))
        .await
        .map_err(|error| crashed(&error))??;

    let headers = &parts.headers;
    let encoding = choose(headers)?;
    let opened = blocking(move || open(&path))
        .await
        .map_err(|error| crashed(&error))??;
    Ok((opened, encoding))
}

fn choose(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let header = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let accepted = Accepted::read(header);
    let encoding = accepted.choose().ok_or_else(|| {
        let text = "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]";
        refuse(StatusCode::NOT_ACCEPTABLE, text)
    })?;
    if !CONDITIONAL.iter().any(|name| headers.contains_key(name)) {
        return Ok(encoding);
    }
    if accepted.identity_refused {
        let text = "identity encoding not acceptable for Range or conditional request";
        return Err(refuse(StatusCode::NOT_ACCEPTABLE, text));
    }
    Ok(Encoding::Identity)
}

fn check(path: &str) -> Result<(), Refusal> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(refuse(
            StatusCode::BAD_REQUEST,
            &format!("path '{path}' is a directory"),
        )),
        Ok(found) if is_channel(&found) => Err(refuse(
            StatusCode::BAD_REQUEST,
            &format!("path '{path}' is not a regular file"),
        )),
        Ok(_) => Ok(()),
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => Err(refuse(
            StatusCode::NOT_FOUND,
            &format!("path '{path}' does not exist"),
        )),
        Err(failure) => {
            let text = os_text(&failure);
            let text = format!("error checking if path exists '{path}': stat {path}: {text}");
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, &text))
        }
    }
}

fn open(path: &str) -> Result<Opened, Refusal> {
    let name = base_name(path).to_owned();
    open_file(path, name).map_err(|failure| {
        let text = format!(
            "error opening file '{path}': open {path}: {}",
            os_text(&failure)
        );
        refuse(StatusCode::INTERNAL_SERVER_ERROR, &text)
    })
}

fn open_file(path: &str, name: String) -> io::Result<Opened> {
    // A pipe that took its place since the check must not hold the thread.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let found = file.metadata()?;
    let mut head = Vec::new();
    if content_type::by_name(&name).is_none() {
        head.resize(content_type::SNIFF_BYTES, 0);
        let length = file.read_at(&mut head, 0).unwrap_or_default();
        head.truncate(length);
    }
    // Files of /proc and /sys say 0 and have content: only reading tells how much.
    let size = if found.len() == 0 && found.is_file() {
        virtual_size(&file)?
    } else {
        found.len()
    };
    Ok(Opened {
        name,
        size,
        modified: found.modified().ok(),
        head,
        file,
    })
}

fn virtual_size(file: &File) -> io::Result<u64> {
    let mut buffer = [0; 4096];
    let mut size = 0;
    loop {
        match file.read_at(&mut buffer, size)? {
            0 => return Ok(size),
            count => size += count as u64,
        }
        if size > VIRTUAL_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
    }
}

/// Endless files look empty, too.
const VIRTUAL_BYTES: u64 = 64 * 1024 * 1024;

fn answer(body: Body, opened_name: &str, kind: &str) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    insert(
        headers,
        CONTENT_DISPOSITION,
        &disposition::inline(opened_name),
    );
    insert(headers, CONTENT_TYPE, kind);
    answer
}

/// All our values are printable ASCII; another one would be left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn gzip(opened: Opened) -> Answer {
    let kind = content_type::by_name(&opened.name).unwrap_or(content_type::unknown());
    let mut answer = answer(send::gzip(opened.file), &opened.name, kind);
    answer
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

fn identity(opened: Opened, asked: &HeaderMap) -> Answer {
    let Opened {
        name,
        file,
        size,
        modified,
        head,
    } = opened;
    if not_modified(asked, modified) {
        let mut answer = empty(StatusCode::NOT_MODIFIED);
        mark(answer.headers_mut(), modified);
        return answer;
    }
    let kind = content_type::by_name(&name).unwrap_or_else(|| content_type::by_content(&head));
    let text = |name| {
        asked
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let wanted = text(RANGE).filter(|_| range_holds(text(IF_RANGE), modified));
    let mut answer = match range::read(wanted, size) {
        Ranges::Whole => {
            let body = send::part(
                file,
                Part {
                    start: 0,
                    length: size,
                },
            );
            sized(answer(body, &name, kind), size)
        }
        Ranges::NotSatisfiable => {
            let code = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut answer = crate::answer::text(code, "invalid range: failed to overlap");
            insert(
                answer.headers_mut(),
                CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return answer;
        }
        Ranges::Parts(parts) => partial(file, size, &name, kind, parts),
    };
    mark(answer.headers_mut(), modified);
    answer
}

fn partial(file: File, size: u64, name: &str, kind: &str, parts: Vec<Part>) -> Answer {
    let mut answer = match parts.as_slice() {
        [one] => {
            let (one, range) = (*one, one.content_range(size));
            let mut answer = sized(answer(send::part(file, one), name, kind), one.length);
            insert(answer.headers_mut(), CONTENT_RANGE, &range);
            answer
        }
        _ => {
            let boundary = "envd-e3b0c44298fc1c149afbf4c8996fb924";
            let parts: Vec<(String, Part)> = parts
                .into_iter()
                .map(|part| {
                    let range = part.content_range(size);
                    let head = format!(
                        "\r\n--{boundary}\r\nContent-Range: {range}\r\nContent-Type: {kind}\r\n\r\n"
                    );
                    (head, part)
                })
                .collect();
            let tail = format!("\r\n--{boundary}--\r\n");
            let length = parts
                .iter()
                .map(|(head, part)| head.len() as u64 + part.length);
            let length = length.sum::<u64>() + tail.len() as u64;
            let kind = format!("multipart/byteranges; boundary={boundary}");
            sized(answer(send::parts(file, parts, tail), name, &kind), length)
        }
    };
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    answer
}

fn sized(mut answer: Answer, length: u64) -> Answer {
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    if length == 0 {
        *answer.body_mut() = Body::Empty;
    }
    answer
}

fn mark(headers: &mut HeaderMap, modified: Option<SystemTime>) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(modified) = modified {
        insert(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
}

/// `If-None-Match` wins over the date, and without ETags only `*` matches.
fn not_modified(asked: &HeaderMap, modified: Option<SystemTime>) -> bool {
    if let Some(tags) = asked.get(IF_NONE_MATCH) {
        return tags.as_bytes() == b"*";
    }
    let since = asked
        .get(IF_MODIFIED_SINCE)
        .and_then(|value| value.to_str().ok());
    let since = since.and_then(|text| httpdate::parse_http_date(text).ok());
    matches!((since, modified), (Some(since), Some(modified)) if seconds(modified) <= seconds(since))
}

/// A range of another version of the file is not sent.
fn range_holds(condition: Option<&str>, modified: Option<SystemTime>) -> bool {
    let Some(condition) = condition else {
        return true;
    };
    let date = httpdate::parse_http_date(condition).ok();
    matches!((date, modified), (Some(date), Some(modified)) if seconds(modified) == seconds(date))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
