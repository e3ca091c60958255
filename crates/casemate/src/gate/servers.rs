//! Whether any API server speaks with this node: without one nobody makes sandboxes here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_rpc::control::ControlError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::member::Membership;

/// API servers that start again come back sooner.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// After the first of them the others come, and all look at what is here before they make sandboxes.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// Those that speak with it.
pub(super) struct ApiServers {
    heard: Mutex<Heard>,
    came: Notify,
}

struct Heard {
    speaking: usize,
    /// None speaks since then.
    silent_since: Instant,
    /// Since when some did, but for silences that are borne.
    spoken_since: Option<Instant>,
    /// They say that this is no member any more.
    is_removed: bool,
}

/// One of them, until it is dropped.
pub(super) struct Speaking(Arc<ApiServers>);

impl ApiServers {
    pub(super) fn new() -> Self {
        Self {
            heard: Mutex::new(Heard {
                speaking: 0,
                silent_since: Instant::now(),
                spoken_since: None,
                is_removed: false,
            }),
            came: Notify::new(),
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> Speaking {
        let mut heard = self.heard();
        if heard.is_silent() {
            heard.spoken_since = None;
        }
        heard.spoken_since.get_or_insert_with(Instant::now);
        heard.speaking += 1;
        heard.is_removed = false;
        drop(heard);
        self.came.notify_waiters();
        Speaking(Arc::clone(self))
    }

    /// What the node lacks without them.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let heard = self.heard();
        match heard.spoken_since {
            _ if heard.is_removed => Some("it does not belong to the cluster any more"),
            None => Some("no API server speaks with it yet"),
            Some(_) if heard.is_silent() => Some("no API server speaks with it any more"),
            Some(since) if since.elapsed() < KNOWN_AFTER => Some("API servers find it just now"),
            Some(_) => None,
        }
    }

    /// Says when none speaks with it for long, and asks whether it is still a member. For ever.
    pub(super) async fn watch(&self, membership: &Membership) {
        loop {
            let came = self.came.notified();
            let silent_from = {
                let heard = self.heard();
                (heard.speaking == 0).then(|| heard.silent_since + SILENT_MAX)
            };
            let Some(silent_from) = silent_from else {
                tokio::time::sleep(SILENT_MAX).await;
                continue;
            };
            if tokio::time::timeout_at(silent_from, came).await.is_ok() {
                continue;
            }
            let came = self.came.notified();
            if !self.heard().is_silent() {
                continue;
            }
            warn!(
                seconds = SILENT_MAX.as_secs(),
                "no API server speaks with this node: it makes no sandboxes"
            );
            if let Err(refused @ ControlError::NotAdmitted { .. }) = membership.renew().await {
                self.heard().is_removed = true;
                error!(error = %refused, "this node is no member any more");
            }
            came.await;
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn is_silent(&self) -> bool {
        self.speaking == 0 && self.silent_since.elapsed() >= SILENT_MAX
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        let mut heard = self.0.heard();
        heard.speaking -= 1;
        heard.silent_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_lacks_api_servers_before_the_first_and_some_time_after_the_last() {
        let servers = Arc::new(ApiServers::new());
        assert_eq!(servers.missing(), Some("no API server speaks with it yet"));
        let (one, other) = (servers.begin(), servers.begin());
        assert_eq!(servers.missing(), Some("API servers find it just now"));
        tokio::time::advance(KNOWN_AFTER).await;
        assert_eq!(servers.missing(), None);
        drop(one);
        tokio::time::advance(SILENT_MAX * 2).await;
        assert_eq!(servers.missing(), None);
        drop(other);
        tokio::time::advance(SILENT_MAX / 2).await;
        assert_eq!(servers.missing(), None, "it may start again");
        tokio::time::advance(SILENT_MAX / 2).await;
        assert_eq!(
            servers.missing(),
            Some("no API server speaks with it any more")
        );
        let back = servers.begin();
        assert_eq!(servers.missing(), Some("API servers find it just now"));
        tokio::time::advance(KNOWN_AFTER).await;
        drop(back);
        let _at_once = servers.begin();
        assert_eq!(servers.missing(), None);
    }
}
