//! What the log says of a node that cannot be followed: it once, then now and then for how long.

use std::time::Duration;

use casemate_types::chain;
use tokio::time::Instant;

use super::ReconcileError;

const SAID_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Absence(Option<Away>);

struct Away {
    since: Instant,
    said: Instant,
}

impl Absence {
    /// `begins`: it was followed until now.
    pub(super) fn tell(&mut self, node: &str, error: &ReconcileError, begins: bool) {
        let now = Instant::now();
        match &mut self.0 {
            Some(away) if !begins => {
                if away.said.elapsed() < SAID_EVERY {
                    return;
                }
                away.said = now;
                let away_s = away.since.elapsed().as_secs();
                tracing::warn!(
                    node,
                    away_s,
                    error = chain(error),
                    "node {node} has been away for {away_s} s"
                );
            }
            away => {
                *away = Some(Away {
                    since: now,
                    said: now,
                });
                tracing::warn!(
                    node,
                    error = chain(error),
                    "node {node} cannot be followed; trying again"
                );
            }
        }
    }
}
