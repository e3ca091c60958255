//! From the bucket to a node that lacks what it is asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_rpc::carrier::FetchRequest;
use casemate_store::Build;
use casemate_types::{Portable, SnapshotId, chain};

use super::{CarryError, portable};
use crate::Control;
use crate::nodes::Node;

/// How long a create waits for what its node fetches. It goes on after that, so that the next one finds
/// it there.
const PATIENCE: Duration = Duration::from_secs(45);

impl Control {
    /// [`Self::bring`] for what has no other place to go: what the bucket has not yet, as a snapshot of a
    /// moment ago, is stored first.
    pub(crate) async fn bring_in_any_case(
        &self,
        node: &Arc<Node>,
        build: &Build,
        hold: &str,
    ) -> Result<bool, CarryError> {
        match self.bring(node, build, hold).await {
            Err(CarryError::Nowhere(_)) => {
                self.store_all_of(node, build).await?;
                self.bring(node, build, hold).await
            }
            brought => brought,
        }
    }

    async fn store_all_of(&self, but: &Node, build: &Build) -> Result<(), CarryError> {
        let Some(holder) = self.holder(build, |node| node.name != but.name).await else {
            return Ok(());
        };
        self.store_layers(&holder, build).await
    }

    /// Has a node fetch what it lacks of a build: whether it has all of it now. There it stays until a
    /// sandbox of the name `hold` is made, or for some minutes.
    pub(crate) async fn bring(
        &self,
        node: &Arc<Node>,
        build: &Build,
        hold: &str,
    ) -> Result<bool, CarryError> {
        let (layers, files) = (&build.layers, build.files.as_ref());
        self.bring_named(node, layers, files, hold).await
    }

    pub(crate) async fn bring_named(
        &self,
        node: &Arc<Node>,
        layers: &[String],
        files: Option<&SnapshotId>,
        hold: &str,
    ) -> Result<bool, CarryError> {
        let Some(carrier) = &node.carrier else {
            return Ok(false);
        };
        let missing = node.port.missing(layers, files, Some(hold)).await?;
        if missing.is_empty() {
            // Somebody else had it fetched meanwhile.
            return Ok(true);
        }
        let named = missing.iter().map(|name| {
            let own = || CarryError::Nowhere(format!("layer {name:?}"));
            portable(name).ok_or_else(own)
        });
        let whats: Vec<Portable> = named.collect::<Result<_, _>>()?;
        let found = self.store.artifact_find(&whats).await?;
        if let Some(what) = whats
            .iter()
            .find(|what| found.iter().all(|row| row.what != **what))
        {
            return Err(CarryError::Nowhere(what.to_string()));
        }
        let (carrier, node) = (Arc::clone(carrier), Arc::clone(node));
        let failures = Arc::clone(&self.bucket_failures);
        let fetching = self.tasks.detached(async move {
            for row in found {
                let request = FetchRequest {
                    what: row.what.clone(),
                    scope: row.team.to_string(),
                    artifact: row.artifact,
                };
                let begun = std::time::Instant::now();
                let fetched = carrier.fetch(request).await;
                let (what, name) = (&row.what, &node.name);
                let bytes = fetched.inspect_err(|error| {
                    failures.fetch_add(1, Ordering::Relaxed);
                    let error = chain(error);
                    tracing::warn!(node = name, error, "node {name} could not fetch {what}");
                })?;
                let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(node = name, bytes, took_ms, "node {name} fetched {what}");
                node.has(what);
            }
            Ok(true)
        });
        match tokio::time::timeout(PATIENCE, fetching).await {
            Ok(Ok(fetched)) => fetched,
            // Its task ended with the process.
            Ok(Err(_)) | Err(_) => Err(CarryError::TooSlow),
        }
    }
}
