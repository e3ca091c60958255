//! What a row names and no node has any more: somebody deleted it, a disk was replaced. It is noticed
//! before anything stands on it, so that a step is made again, and a build on a template that lost
//! its files says so.

use casemate_rpc::NodeError;
use casemate_store::{CacheKey, CachedLayer};
use casemate_types::SnapshotId;

use super::BuildError;
use super::ground::{self, Ground};
use super::log::{Level, Phase};
use super::work::Work;

/// The text is E2B's (`templates.md` 4.3).
const BASE_LOST: &str = "error getting base template, you may need to rebuild it first";

impl Work<'_> {
    /// What the cache found, unless the node has lost it: then its row goes, and it is to be made
    /// again.
    pub(super) async fn unless_lost(
        &self,
        key: &CacheKey,
        found: CachedLayer,
        phase: &Phase,
    ) -> Result<Option<CachedLayer>, BuildError> {
        let (layers, files) = (&found.layers, found.files.as_ref());
        let mut missing = self.missing(layers, files).await?;
        if !missing.is_empty() {
            // The node may have evicted it.
            let hold = self.job.build.to_string();
            self.uploads.bring(layers, files, &hold).await;
            missing = self.missing(layers, files).await?;
        }
        if missing.is_empty() {
            return Ok(Some(found));
        }
        let missing = missing.join(", ");
        tracing::warn!(
            build.id = %self.job.build,
            "what is cached of a step is not on the node any more: {missing}; making it again"
        );
        let text = format!("What was kept of this step is lost ({missing}): making it again");
        phase.say(Level::Warn, text);
        let (cache, team) = (&self.builder.cache, &self.job.team);
        // Files that no other row names, and that are there after all, go with the next look for such.
        cache.layer_forget(team, key, &found).await?;
        Ok(None)
    }

    /// A template that has lost its files, or was deleted since it was looked up, is no ground.
    pub(super) async fn refuse_lost_ground(&self, ground: &CachedLayer) -> Result<(), BuildError> {
        let missing = self.missing(&ground.layers, ground.files.as_ref()).await?;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(base_lost(&missing)),
        }
    }

    /// Why a sandbox could not begin: of a template that was deleted in just this moment, or of
    /// what the platform should have.
    pub(super) async fn why_none_began(
        &self,
        error: BuildError,
        layers: &[String],
        files: Option<&SnapshotId>,
    ) -> BuildError {
        let (BuildError::Node(NodeError::Unsupported { .. }), Ground::Template { build, .. }) =
            (&error, &self.job.ground)
        else {
            return error;
        };
        let of_ground = |name: &String| {
            build.layers.contains(name)
                || build
                    .files
                    .as_ref()
                    .is_some_and(|files| files.as_str() == name)
        };
        match self.missing(layers, files).await {
            Ok(missing) if missing.iter().any(of_ground) => base_lost(&missing),
            Ok(_) | Err(_) => error,
        }
    }

    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
    ) -> Result<Vec<String>, BuildError> {
        let hold = self.job.build.to_string();
        // None of it goes until a sandbox lies over it.
        Ok(self.node.missing(layers, files, Some(&hold)).await?)
    }
}

fn base_lost(missing: &[String]) -> BuildError {
    let missing = missing.join(", ");
    tracing::info!("the template below a build is not on the node any more: {missing}");
    BuildError::recipe(ground::STEP, BASE_LOST)
}
