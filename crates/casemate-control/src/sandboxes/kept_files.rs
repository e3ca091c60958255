//! Files that nodes keep and nothing wants any more, on their way out.

use std::sync::Arc;

use casemate_rpc::NodePort;
use casemate_types::{SnapshotId, chain};

use crate::Control;
use crate::tasks::TaskKind;

impl Control {
    /// Removes files that nothing wants, at whichever node they are. What cannot be removed now is found
    /// by the next comparison; so is what another server's build may go on with.
    pub(crate) fn drop_files(&self, all: Vec<SnapshotId>) {
        if self.shared().is_none() {
            for node in self.nodes.connected() {
                self.drop_files_at(&node.name, all.clone());
            }
            return;
        }
        let all = self.free(all);
        if all.is_empty() {
            return;
        }
        let (store, owner) = (Arc::clone(&self.store), self.owner.clone());
        let nodes = self.nodes.connected();
        self.tasks.spawn(TaskKind::Cleanup, async move {
            // What cannot be known is taken for yes.
            if store.build_has_others(&owner).await.unwrap_or(true) {
                return;
            }
            for node in nodes {
                remove_files(&*node.port, &all).await;
            }
        });
    }

    /// The same where their node is known, and nobody else can rest on them.
    pub(crate) fn drop_files_at(&self, node: &str, all: Vec<SnapshotId>) {
        let all = self.free(all);
        let Ok(node) = self.nodes.port(node) else {
            return;
        };
        if all.is_empty() {
            return;
        }
        self.tasks.spawn(TaskKind::Cleanup, async move {
            remove_files(&*node, &all).await;
        });
    }

    /// Those that no build here goes on with; one that does is over by the next comparison.
    fn free(&self, mut all: Vec<SnapshotId>) -> Vec<SnapshotId> {
        all.retain(|files| !self.builder.held().has_files(files));
        all
    }
}

async fn remove_files(node: &dyn NodePort, all: &[SnapshotId]) {
    for files in all {
        if let Err(error) = node.remove_snapshot(files).await {
            tracing::warn!(
                snapshot.id = %files, error = chain(&error),
                "could not remove the files of a snapshot yet"
            );
        }
    }
}
