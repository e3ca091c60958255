//! Whether the bucket is to be had. One that is not is no reason not to start: it may be away for a
//! while. It is looked at all the same, because the first who needs it may come much later.

use std::time::Duration;

use casemate_artifacts::Artifacts;
use casemate_types::chain;
use tracing::{info, warn};

/// Between two looks at one that was not to be had.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Says why it cannot be used, again only where that changes, until it can. Where there is none it is
/// done at once.
pub async fn told(bucket: Option<Artifacts>, name: String) {
    let Some(bucket) = bucket else { return };
    let mut said = None;
    loop {
        match look(&bucket).await {
            Ok(()) => {
                if said.is_some() {
                    info!(bucket = name, "the bucket {name} can be used now");
                }
                return;
            }
            Err(why) if said.as_ref() == Some(&why) => {}
            Err(why) => {
                warn!(
                    bucket = name,
                    why, "the bucket {name} cannot be used, which is tried again: {why}"
                );
                said = Some(why);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why it cannot be used.
pub async fn look(bucket: &Artifacts) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, bucket.look()).await {
        Ok(looked) => looked.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
