//! What builds of a team take at the nodes: noted as it is made, and bounded.
//!
//! States of one build share what they have in common: each copy begins as the one before. So a state
//! is counted with what it holds more than that one, and the longest kept of them, which is the
//! earliest because every use of a later one is a use of it, with all. That is exact where steps add;
//! what a step deletes or writes anew is counted once too often or once too seldom until the state
//! before it goes. Nothing cheaper tells how much two copies share.

use casemate_rpc::SnapshotReply;
use casemate_store::{BuiltBytes, CachedLayer};
use casemate_types::{LayerId, SnapshotId, Timestamp};

use super::BuildError;
use super::work::Work;

impl Work<'_> {
    /// Of files that were kept of a sandbox that was as `before` says; before a row names them.
    pub(super) async fn note_files(
        &self,
        files: &SnapshotId,
        before: Option<&SnapshotId>,
        kept: SnapshotReply,
    ) -> Result<(), BuildError> {
        let cache = &self.builder.cache;
        let shared = match before {
            Some(before) if kept.is_shared => cache.built_holds(before.as_str()).await?,
            Some(_) | None => None,
        };
        self.note(BuiltBytes {
            name: files.to_string(),
            bytes: kept.bytes.saturating_sub(shared.unwrap_or(0)),
            holds: kept.bytes,
        })
        .await
    }

    /// Of a read-only layer, which shares nothing.
    pub(super) async fn note_layer(&self, layer: &LayerId, bytes: u64) -> Result<(), BuildError> {
        self.note(BuiltBytes {
            name: layer.to_string(),
            bytes,
            holds: bytes,
        })
        .await
    }

    async fn note(&self, built: BuiltBytes) -> Result<(), BuildError> {
        let (cache, team) = (&self.builder.cache, &self.job.team);
        cache.built_note(team, &built, Timestamp::now()).await?;
        Ok(())
    }

    /// An error where the team's templates, with one of these layers, need more than it may have. Of
    /// what is only cached nothing counts: that goes.
    pub(super) async fn fits(&self, is: &CachedLayer, step: &str) -> Result<(), BuildError> {
        let (cache, team) = (&self.builder.cache, &self.job.team);
        let needed = cache.built_needed(team, &is.layers).await?;
        match too_much(needed, self.builder.limits.team_bytes_max) {
            None => Ok(()),
            Some(why) => Err(BuildError::recipe(step, why)),
        }
    }
}

fn too_much(needed: u64, most: u64) -> Option<String> {
    if needed <= most {
        return None;
    }
    let (needed, most) = (needed.div_ceil(1 << 20), most >> 20);
    Some(format!(
        "with this one the templates of your team would take {needed} MiB, and at most {most} MiB are \
         kept for a team: delete templates that are not needed any more, or make this one smaller"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_both_numbers() {
        assert_eq!(too_much(5 << 20, 5 << 20), None);
        let why = too_much((5 << 20) + 1, 5 << 20).unwrap();
        assert!(why.contains("6 MiB, and at most 5 MiB"), "{why}");
        assert!(why.contains("delete templates"), "{why}");
    }
}
