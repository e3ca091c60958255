//! `GET /startup`: how the start of the template goes. Ours, not E2B's.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use super::State;
use crate::answer::{self, Answer, not_stored};
use crate::limits::STARTUP_WAIT;
use crate::query::value;
use crate::route::Plain;

#[derive(Serialize)]
struct Told {
    state: &'static str,
    message: String,
    output: String,
}

pub async fn startup(call: Plain) -> Answer {
    let query = call.request.uri().query();
    let known = match value(query, "while").as_deref() {
        None | Some("starting") => State::Starting,
        Some("ready") => State::Ready,
        Some(_) => {
            let words = "while must be starting or ready";
            return answer::error(StatusCode::BAD_REQUEST, words);
        }
    };
    let wait = match value(query, "wait_ms").map(|text| text.parse()) {
        None => Duration::ZERO,
        Some(Ok(millis)) => Duration::from_millis(millis).min(STARTUP_WAIT),
        Some(Err(_)) => {
            let words = "wait_ms must be a number of milliseconds";
            return answer::error(StatusCode::BAD_REQUEST, words);
        }
    };
    let (state, message, output) = match call.guest.startup.after(&known, wait).await {
        State::None => ("none", String::new(), String::new()),
        State::Starting => ("starting", String::new(), String::new()),
        State::Ready => ("ready", String::new(), String::new()),
        State::Failed { message, output } => ("failed", message, output),
    };
    let told = Told {
        state,
        message,
        output,
    };
    not_stored(answer::json(
        serde_json::to_string(&told).unwrap_or_default(),
    ))
}
