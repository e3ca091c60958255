//! The next certificate, when half of the time of this one is over.

use std::time::Duration;

use casemate_cluster::MemberKey;
use casemate_rpc::control::{ControlError, RenewRequest};
use casemate_types::chain;
use casemate_types::pauses::drawn;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Membership, origin_by};

/// Waits between attempts while no API server answers, doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// After the word that this machine is no member any more: it may become one again.
const REFUSED_WAIT: Duration = Duration::from_secs(600);
/// One attempt.
const RENEW_MAX: Duration = Duration::from_secs(15);
/// A certificate is renewed no more often, whatever a server says of its time.
const LASTS_MIN: Duration = Duration::from_secs(60);

impl Membership {
    /// One new certificate, kept and shown from now on. The origin of the cluster's steady time by
    /// the answer, late by the answer's way; and for how long the certificate holds.
    pub async fn renew(&self) -> Result<(i64, Duration), ControlError> {
        let unavailable =
            |error: &dyn std::error::Error| ControlError::Unavailable { why: chain(error) };
        let key = MemberKey::make().map_err(|error| unavailable(&error))?;
        let asking = async {
            let client = self.servers.client().await;
            let client = client.map_err(|error| unavailable(&error))?;
            let request = RenewRequest {
                public_key: key.public(),
                node: self.wanted.place.clone(),
            };
            client.renew(request).await
        };
        let admitted = timeout(RENEW_MAX, asking).await;
        let admitted = admitted.map_err(|_| ControlError::Unreachable)??;
        let origin = origin_by(&admitted);
        let identity = key.admitted(self.wanted.member.clone(), &admitted);
        self.peers
            .renew(&identity)
            .map_err(|error| unavailable(&error))?;
        // A certificate that cannot be kept, as on a full disk, is used all the same.
        if let Err(error) = identity.write(&super::kept::identity_path(&self.wanted.dir)) {
            error!(error = chain(&error), "the new certificate is not kept");
        }
        let lasts = Duration::from_secs(admitted.lasts_seconds).max(LASTS_MIN);
        Ok((origin, lasts))
    }

    /// Renews at once and then for as long as it is polled.
    pub async fn keep_renewed(&self) {
        let mut wait = RETRY_FIRST;
        loop {
            match self.renew().await {
                Ok((_, lasts)) => {
                    info!(
                        hours = lasts.as_secs() / 3600,
                        "this machine's certificate is renewed"
                    );
                    wait = RETRY_FIRST;
                    tokio::time::sleep(lasts / 2).await;
                }
                Err(refused @ ControlError::NotAdmitted { .. }) => {
                    error!(error = %refused, "this machine's certificate is not renewed");
                    tokio::time::sleep(REFUSED_WAIT).await;
                }
                Err(failed) => {
                    warn!(error = %failed, "this machine's certificate is not renewed yet");
                    tokio::time::sleep(drawn(wait)).await;
                    wait = (wait * 2).min(RETRY_LAST);
                }
            }
        }
    }
}
