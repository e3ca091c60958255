//! `POST /files/compose`: several files become one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use http::StatusCode;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::crashed;
use crate::answer::{self, Answer, Refusal, refuse};
use crate::body::whole;
use crate::guest::Guest;
use crate::limits::{COMPOSE_SOURCES, JSON_BODY_BYTES};
use crate::paths::{base_name, clean, ensure_dirs, os_text};
use crate::route::{Plain, account, blocking};
use crate::users::User;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    source_paths: Vec<String>,
    #[serde(default)]
    destination: String,
    #[serde(default)]
    username: Option<String>,
}

#[derive(Serialize)]
struct Composed<'a> {
    path: &'a str,
    name: &'a str,
    r#type: &'static str,
}

pub async fn compose(mut call: Plain) -> Answer {
    match run(&mut call).await {
        Ok(path) => {
            let composed = Composed {
                path: &path,
                name: base_name(&path),
                r#type: "file",
            };
            answer::json(serde_json::to_string(&composed).unwrap_or_default())
        }
        Err(refusal) => refusal.into(),
    }
}

async fn run(call: &mut Plain) -> Result<String, Refusal> {
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, &text);
    let body = whole(call.request.body_mut(), JSON_BODY_BYTES)
        .await
        .map_err(|failure| bad(format!("invalid request body: {failure}")))?;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|failure| bad(format!("invalid request body: {failure}")))?;
    if asked.source_paths.is_empty() {
        return Err(bad("source_paths must not be empty".to_owned()));
    }
    if asked.source_paths.len() > COMPOSE_SOURCES {
        return Err(bad(format!("more than {COMPOSE_SOURCES} source_paths")));
    }
    if asked.destination.is_empty() {
        return Err(bad("destination is required".to_owned()));
    }
    let user = account(&call.guest, asked.username.as_deref())?;
    let resolve = |path: &str| resolve(&call.guest, &user, path);
    let destination = resolve(&asked.destination)
        .map_err(|invalid| bad(format!("error resolving destination path: {invalid}")))?;
    let mut sources = Vec::with_capacity(asked.source_paths.len());
    for path in &asked.source_paths {
        let source = resolve(path)
            .map_err(|invalid| bad(format!("error resolving source path \"{path}\": {invalid}")))?;
        if clean(&source) == clean(&destination) {
            let text = format!("source path \"{path}\" cannot be the same as destination");
            return Err(bad(text));
        }
        sources.push(source);
    }
    let joined = blocking(move || join(&sources, destination, &user)).await;
    joined.map_err(|failure| crashed(&failure))?
}

fn resolve(guest: &Guest, user: &User, path: &str) -> Result<String, crate::paths::PathError> {
    crate::paths::expand(
        path,
        user,
        guest.settings.borrow().default_workdir.as_deref(),
    )
}

fn join(sources: &[String], destination: String, user: &User) -> Result<String, Refusal> {
    for source in sources {
        match fs::metadata(source) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                let text = format!("source path is not a regular file: {source}");
                return Err(refuse(StatusCode::BAD_REQUEST, &text));
            }
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {
                let text = format!("source file not found: {source}");
                return Err(refuse(StatusCode::NOT_FOUND, &text));
            }
            Err(failure) => return Err(failed("stat source", &failure)),
        }
    }
    if let Some(parent) = Path::new(&destination).parent() {
        ensure_dirs(parent, user).map_err(|denied| {
            let text = format!("error ensuring directories: {denied}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, &text)
        })?;
    }
    let temporary = format!("{destination}.e2b-compose.{}.tmp", random()?);
    let done = fill(sources, &temporary, user).and_then(|()| fs::rename(&temporary, &destination));
    if let Err(failure) = done {
        // What is left of it is of no use; the destination is as it was.
        let _ = fs::remove_file(&temporary);
        return Err(failed("compose files", &failure));
    }
    for source in sources {
        match fs::remove_file(source) {
            // Named twice, or somebody was faster.
            Err(failure) if failure.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove source", &failure));
            }
            _ => {}
        }
    }
    Ok(destination)
}

fn fill(sources: &[String], temporary: &str, user: &User) -> io::Result<()> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(temporary)?;
    for source in sources {
        io::copy(&mut File::open(source)?, &mut out)?;
    }
    fchown(&out, Some(user.uid), Some(user.gid))
}

fn failed(what: &str, failure: &io::Error) -> Refusal {
    let errno = failure.raw_os_error();
    if [Errno::NOSPC, Errno::DQUOT]
        .iter()
        .any(|full| errno == Some(full.raw_os_error()))
    {
        return refuse(
            StatusCode::INSUFFICIENT_STORAGE,
            "not enough disk space available",
        );
    }
    let text = format!("error: {what}: {}", os_text(failure));
    refuse(StatusCode::INTERNAL_SERVER_ERROR, &text)
}

/// A random UUID (version 4).
fn random() -> Result<String, Refusal> {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| failed("draw a random name", &errno.into()))?;
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | (4 << 76);
    let number = number & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{number:032x}");
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}
