//! Stopping the workload or the file system around a pause.
//!
//! This agent manages no cgroups: the platform freezes a sandbox from outside, agent and all. So
//! nothing is frozen here, and the answers say that nothing could be observed.

use std::fs::File;
use std::io;

use casemate_linux::guest::{filesystem_freeze as freeze_fd, filesystem_thaw as thaw_fd};
use http::StatusCode;
use rustix::io::Errno;
use serde::Serialize;

use crate::answer::{Answer, done, error, json, not_stored};
use crate::paths::os_text;
use crate::query::value;
use crate::route::{Plain, blocking};

/// The groups of user processes and of terminals, which a platform with cgroups would freeze.
const GROUPS: u32 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frozen {
    mode: &'static str,
    visited: u32,
    allowlisted: u32,
    pre_frozen: u32,
    requested: u32,
    frozen: u32,
    not_frozen: u32,
    failed: u32,
    unobservable: u32,
    truncated: bool,
    sweep_ms: i64,
    wait_ms: i64,
}

pub fn freeze(call: &Plain) -> Answer {
    let query = call.request.uri().query();
    let wait = value(query, "maxWaitMs").and_then(|text| text.parse::<i64>().ok());
    if wait.is_none_or(|wait| wait <= 0) {
        return done();
    }
    let mode = match value(query, "mode").as_deref() {
        Some("hierarchy") => "hierarchy",
        _ => "legacy",
    };
    let frozen = Frozen {
        mode,
        visited: 0,
        allowlisted: 0,
        pre_frozen: 0,
        requested: 0,
        frozen: 0,
        not_frozen: 0,
        failed: 0,
        unobservable: GROUPS,
        truncated: false,
        sweep_ms: 0,
        wait_ms: 0,
    };
    not_stored(json(serde_json::to_string(&frozen).unwrap_or_default()))
}

pub fn unfreeze() -> Answer {
    done()
}

pub async fn filesystem_freeze(call: Plain) -> Answer {
    let _turn = call.guest.freeze_turn.lock().await;
    change("FIFREEZE", Errno::BUSY, freeze_fd).await
}

/// Runs on even if the caller goes away: nobody else would thaw.
pub async fn filesystem_thaw(call: Plain) -> Answer {
    let guest = call.guest;
    let task = tokio::task::spawn_local(async move {
        let _turn = guest.freeze_turn.lock().await;
        change("FITHAW", Errno::INVAL, thaw_fd).await
    });
    task.await.unwrap_or_else(|failure| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("FITHAW /: {failure}"),
        )
    })
}

/// `already` is what the kernel says when there is nothing to do.
async fn change(name: &'static str, already: Errno, call: fn(File) -> io::Result<()>) -> Answer {
    let changed = blocking(move || File::open("/").and_then(call)).await;
    let changed = changed.unwrap_or_else(|failure| Err(io::Error::other(failure.message)));
    match changed {
        Ok(()) => done(),
        Err(failure) if failure.raw_os_error() == Some(already.raw_os_error()) => done(),
        Err(failure) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("{name} /: {}", os_text(&failure)),
        ),
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Collapsed {
    regions: u32,
    chunks: u32,
    collapsed: u32,
    already_huge: u32,
    skipped: u32,
    elapsed_ms: u32,
}

/// The agent has less memory than one huge page: there is nothing to collapse.
pub fn collapse() -> Answer {
    json(serde_json::to_string(&Collapsed::default()).unwrap_or_default())
}
