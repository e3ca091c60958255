//! The agent of one sandbox as it is asked in these tests, and its messages.

use std::time::Duration;

use envd_client::{Envd, Transport};
use tokio::time::Instant;

use crate::server::Server;

pub fn agent(server: &Server) -> Envd {
    let base = server.url.parse().unwrap();
    Envd::new(Transport::new(), base, "sandbox1", Some("token1")).unwrap()
}

/// A message in its envelope, written here by hand and not by the client's own code.
pub fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Waits for what another task is about to do.
pub async fn until(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
