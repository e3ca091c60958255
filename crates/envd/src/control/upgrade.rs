//! `POST /upgrade`: replacing the agent under a running sandbox. The platform does that from
//! outside by its own means; here it is refused, in clear words.

use http::StatusCode;

use crate::answer::{Answer, text};
use crate::route::Plain;

const TARGET: &[u8] = b"/usr/bin/envd.next";

pub fn upgrade(call: &Plain) -> Answer {
    if !call.guest.initialised.get() {
        return text(StatusCode::CONFLICT, "envd not initialized");
    }
    let target = call.request.headers().get("x-envd-upgrade-bin");
    if target.is_some_and(|target| target.as_bytes() != TARGET) {
        return text(StatusCode::BAD_REQUEST, "unsupported upgrade target");
    }
    text(
        StatusCode::NOT_IMPLEMENTED,
        "live upgrade is not available in this agent",
    )
}
