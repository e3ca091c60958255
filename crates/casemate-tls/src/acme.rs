//! Certificates from an authority that speaks ACME (RFC 8555): asked for, kept, renewed ahead.
//!
//! With HTTP-01 the authority looks at a path on port 80 of each name: no wildcard can be had so.
//! With DNS-01 it looks at a record, which a command of the operator's makes.

mod challenges;
mod dns_hook;
mod order;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_types::{Timestamp, chain};
use tracing::{error, info, warn};

pub use challenges::Challenges;
pub use dns_hook::{DnsHook, HookError};
pub use order::AcmeError;
pub use store::certificate_path;

use crate::current::Current;
use crate::pair::{Checked, Pair};
use store::Store;

/// Waits after failures, doubled from the first to the last: an authority counts failures, and
/// refuses for an hour who has five.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_LAST: Duration = Duration::from_secs(6 * 3600);
/// Longest sleep until it is looked again whether a renewal is due: the wall clock may step.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What is asked for, and of whom.
#[derive(Debug, Clone)]
pub struct AcmeConfig {
    /// URL of the authority's directory; https.
    pub directory: String,
    /// PEM file of the authority that signed the directory's own certificate, where the system
    /// does not know it.
    pub root: Option<PathBuf>,
    /// E-mail addresses that the authority may write to.
    pub contact: Vec<String>,
    /// Names on the certificate; those that begin with `*.` need DNS-01.
    pub names: Vec<String>,
    pub challenge: Challenge,
    /// A folder of ours: the account's key and the certificate with its key.
    pub dir: PathBuf,
}

/// How the authority is shown that the names are ours.
#[derive(Debug, Clone)]
pub enum Challenge {
    Http01,
    Dns01(DnsHook),
}

/// Keeps `current` a certificate of these names for as long as it is polled: what is stored is
/// shown at once, another one is asked for when there is none or a third of its life is left.
/// Failures are logged, and what is shown stays.
pub async fn keep(config: AcmeConfig, current: Arc<Current>, challenges: Challenges) {
    let store = Store::new(config.dir.clone());
    let order = async || order::run(&config, &store, &challenges).await;
    let shown = stored(&store, &config.names);
    if let Some(checked) = &shown {
        current.show(checked.clone());
    }
    // Before an order, which may make the same ones.
    order::remove_left(&config, &store).await;
    keep_ordered(&config.names, &store, &current, shown, order).await;
}

async fn keep_ordered(
    names: &[String],
    store: &Store,
    current: &Current,
    mut shown: Option<Checked>,
    order: impl AsyncFn() -> Result<Pair, AcmeError>,
) {
    let (mut wait, mut unwritten) = (RETRY_FIRST, None);
    loop {
        keep_unwritten(store, &mut unwritten);
        if let Some(left) = shown.as_ref().and_then(until_due) {
            let look = if unwritten.is_some() {
                RETRY_FIRST
            } else {
                LOOK_EVERY
            };
            tokio::time::sleep(left.min(look)).await;
            wait = RETRY_FIRST;
            continue;
        }
        match checked(order().await) {
            Ok((pair, checked)) => {
                let end = checked.validity.not_after;
                let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
                info!(%end, "got a certificate for {}, until {end}", names.join(", "));
                // Before it is kept: an authority counts those that it gave, and a full disk is no
                // reason to ask for another.
                current.show(checked.clone());
                unwritten = Some(pair);
                if until_due(shown.insert(checked)).is_some() {
                    continue;
                }
                keep_unwritten(store, &mut unwritten);
                warn!(
                    retry_seconds = wait.as_secs(),
                    "the new certificate is to be renewed already: is the clock right?"
                );
            }
            Err(failed) => error!(
                error = %chain(&failed),
                retry_seconds = wait.as_secs(),
                "no certificate could be had; trying again later"
            ),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

fn checked(ordered: Result<Pair, AcmeError>) -> Result<(Pair, Checked), AcmeError> {
    let pair = ordered?;
    let checked = pair.check(now()).map_err(AcmeError::Pair)?;
    Ok((pair, checked))
}

/// Writes what is shown and not kept yet; what cannot be written stays for the next time.
fn keep_unwritten(store: &Store, unwritten: &mut Option<Pair>) {
    let Some(pair) = unwritten else { return };
    match store.keep_pair(pair) {
        Ok(()) => *unwritten = None,
        Err(failed) => error!(
            error = %chain(&failed),
            "the new certificate is shown and could not be kept; trying again"
        ),
    }
}

/// What is kept, if it can be shown and has all names.
fn stored(store: &Store, names: &[String]) -> Option<Checked> {
    let pair: Pair = store.pair()?;
    let checked = pair.check(now()).ok()?;
    // Whoever covers one label below covers what the wildcard means.
    let covered = |name: &String| checked.covers(&name.replacen('*', "any", 1));
    names.iter().all(covered).then_some(checked)
}

/// `None`: a renewal is due.
fn until_due(checked: &Checked) -> Option<Duration> {
    let left = checked.validity.renew_at() - now();
    u64::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_secs)
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
