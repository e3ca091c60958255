//! What servers tell each other of changes that make remembered answers wrong ([`crate::recall`]).
//! What is not told, as while the catalog is away, is found out when the answers grow old.

use std::sync::Arc;

use casemate_catalog::Notice;
use casemate_store::KeyHash;
use casemate_types::chain;

use crate::Control;

const TOPIC: &str = "recall";
/// Where a reference leads, of any template: for servers of older versions, which remember that.
const BUILDS: &[u8] = b"builds";
/// Whose a key is, of any key.
const KEYS: &[u8] = b"keys";

/// For ever.
pub(crate) async fn listen(control: Arc<Control>) {
    let Some(events) = control.shared().and_then(|shared| shared.events.clone()) else {
        return;
    };
    let mut news = match events.subscribe(&[TOPIC]).await {
        Ok(news) => news,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "cannot hear of other servers' changes"
            );
            return;
        }
    };
    loop {
        match news.next().await {
            Notice::Event { payload, .. } if payload == BUILDS => {
                control.builds_by_reference.clear();
            }
            Notice::Event { payload, .. } if payload == KEYS => control.teams_by_key.clear(),
            // What a newer version says may be about either.
            Notice::Event { .. } | Notice::Gap => {
                control.builds_by_reference.clear();
                control.teams_by_key.clear();
            }
        }
    }
}

impl Control {
    /// References lead elsewhere from now on.
    pub(crate) async fn forget_builds(&self) {
        self.builds_by_reference.clear();
        self.tell(BUILDS).await;
    }

    /// A key is nobody's any more.
    pub(crate) async fn forget_key(&self, key: &KeyHash) {
        self.teams_by_key.remove(key);
        self.tell(KEYS).await;
    }

    async fn tell(&self, word: &'static [u8]) {
        let Some(events) = self.shared().and_then(|shared| shared.events.clone()) else {
            return;
        };
        // As long as a call of the catalog lasts at most.
        if let Err(error) = events.publish(TOPIC, word).await {
            tracing::debug!(
                error = chain(&error),
                "other servers find a change out later"
            );
        }
    }
}
