//! `POST /init`: token, variables, defaults, clock, certificates. Repeated by platforms without
//! end, after each resume too: the same call again changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;

use super::ca::{self, CaError};
use super::hosts;
use super::time::{is_off, parse_rfc3339};
use crate::VERSION;
use crate::answer::{Answer, done, empty, text};
use crate::body::whole;
use crate::guest::Guest;
use crate::limits::JSON_BODY_BYTES;
use crate::route::{Plain, blocking};

/// As sent. The token is borrowed: one with escapes in it cannot be, and is refused with that.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    #[serde(default)]
    env_vars: Option<BTreeMap<String, String>>,
    #[serde(default, borrow)]
    access_token: Option<&'a str>,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    default_user: Option<String>,
    #[serde(default)]
    default_workdir: Option<String>,
    #[serde(default, rename = "hyperloopIP")]
    hyperloop_ip: Option<IpAddr>,
    #[serde(default)]
    ca_bundle: Option<String>,
    #[serde(default)]
    volume_mounts: Option<Vec<VolumeMount>>,
}

#[derive(Deserialize)]
struct VolumeMount {
    #[serde(rename = "nfs_target")]
    _nfs_target: String,
    #[serde(rename = "path")]
    _path: String,
}

pub async fn init(call: Plain) -> Answer {
    let mut answer = run(call).await.unwrap_or_else(|refused| refused);
    let version = HeaderValue::from_static(VERSION);
    answer
        .headers_mut()
        .insert(HeaderName::from_static("x-envd-version"), version);
    answer
}

async fn run(mut call: Plain) -> Result<Answer, Answer> {
    let unreadable = || empty(StatusCode::BAD_REQUEST);
    let body = whole(call.request.body_mut(), JSON_BODY_BYTES)
        .await
        .map_err(|_| unreadable())?;
    let body = if body.trim_ascii().is_empty() {
        &b"{}"[..]
    } else {
        &body
    };
    // serde would take an array for an object, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(unreadable());
    }
    let asked: Asked<'_> = serde_json::from_slice(body).map_err(|_| unreadable())?;
    if asked.access_token == Some("") {
        return Err(unreadable());
    }
    let at = match &asked.timestamp {
        Some(text) => Some(parse_rfc3339(text).ok_or_else(unreadable)?),
        None => None,
    };

    let guest = &call.guest;
    let _turn = guest.init_turn.lock().await;
    let own = guest.settings.borrow().access_token.clone();
    guest
        .authority
        .check(own.as_deref(), asked.access_token)
        .map_err(|refused| text(StatusCode::UNAUTHORIZED, &refused.to_string()))?;
    let applied = if is_new(guest, at) {
        apply(guest, asked, at).await
    } else {
        Ok(())
    };
    guest.initialised.set(true);
    guest.log.initialised();
    applied.map(|()| done())
}

/// A late repetition of an earlier call must not undo a later one.
fn is_new(guest: &Guest, at: Option<i128>) -> bool {
    let mut settings = guest.settings.borrow_mut();
    let Some(at) = at else { return true };
    if settings.newest_init.is_some_and(|newest| at < newest) {
        return false;
    }
    settings.newest_init = Some(at);
    true
}

async fn apply(guest: &Rc<Guest>, asked: Asked<'_>, at: Option<i128>) -> Result<(), Answer> {
    if let Some(at) = at {
        set_clock(at);
    }
    {
        let mut settings = guest.settings.borrow_mut();
        if let Some(variables) = asked.env_vars {
            settings.replace_user_variables(variables);
        }
        settings.access_token = asked.access_token.map(str::to_owned);
        settings.change_defaults(
            asked.default_user.as_deref(),
            asked.default_workdir.as_deref(),
        );
    }
    if let Some(address) = asked.hyperloop_ip {
        tokio::task::spawn_local(introduce(Rc::clone(guest), address));
    }
    if let Some(bundle) = asked.ca_bundle {
        ca::install(guest, bundle)
            .await
            .map_err(|failure| match failure {
                CaError::Busy => text(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
                failure => bad(&format!("failed to install CA bundle: {failure}")),
            })?;
    }
    if asked.volume_mounts.is_some_and(|mounts| !mounts.is_empty()) {
        return Err(bad(
            "failed to setup NFS volumes: volumes are not available yet",
        ));
    }
    Ok(())
}

fn bad(words: &str) -> Answer {
    text(StatusCode::BAD_REQUEST, words)
}

/// Best effort: in a user namespace the clock is the host's, and right.
fn set_clock(right: i128) {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
    if !is_off(now, right) {
        return;
    }
    let seconds = i64::try_from(right.div_euclid(1_000_000_000));
    let nanos = i64::try_from(right.rem_euclid(1_000_000_000));
    if let (Ok(tv_sec), Ok(tv_nsec)) = (seconds, nanos) {
        let _ = clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec });
    }
}

/// Tells programs where the platform's event server is. Nobody waits for it; without the entry
/// only the name does not resolve.
async fn introduce(guest: Rc<Guest>, address: IpAddr) {
    let text = address.to_string();
    let written = blocking(move || hosts::set(hosts::HOSTS, &text, hosts::EVENTS_NAME)).await;
    drop(written);
    let url = match address {
        IpAddr::V4(address) => format!("http://{address}"),
        IpAddr::V6(address) => format!("http://[{address}]"),
    };
    guest
        .settings
        .borrow_mut()
        .set_internal("E2B_EVENTS_ADDRESS", &url);
}
