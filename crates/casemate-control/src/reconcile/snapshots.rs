//! Files that a node keeps and no snapshot wants: of one that a crash cut off, or whose deletion could
//! not be told.

use std::sync::Arc;

use casemate_rpc::SNAPSHOTS_PAGE;
use casemate_types::{SnapshotId, chain};

use super::ReconcileError;
use crate::Control;
use crate::nodes::Node;

/// The node measures what it lists: it takes a while.
pub(super) async fn drop_unwanted_or_warn(control: &Arc<Control>, node: &Node) {
    if let Err(error) = drop_unwanted(control, node).await {
        tracing::warn!(
            error = chain(&error),
            "could not look for files of snapshots that nobody wants; trying again later"
        );
    }
}

/// Looked for after each watch began and now and then: the first after a start finds what a crash
/// left, because what is taken meanwhile is known here.
async fn drop_unwanted(control: &Arc<Control>, node: &Node) -> Result<(), ReconcileError> {
    let mut after: Option<SnapshotId> = None;
    let mut look = control.aging.look("files", &node.name);
    loop {
        let page = node.port.snapshots(after.as_ref()).await?;
        let kept: Vec<SnapshotId> = page.into_iter().map(|one| one.snapshot).collect();
        // Before the rows are read: what gets one meanwhile is in one of the two.
        let unrecorded: Vec<SnapshotId> = kept
            .iter()
            .filter(|files| {
                !control.unrecorded.contains(files) && !control.builder.held().has_files(files)
            })
            .cloned()
            .collect();
        let wanted = control.store.snapshot_wanted(&unrecorded).await?;
        // A build may have found them before their row went.
        let mut unwanted: Vec<SnapshotId> = Vec::new();
        for files in unrecorded.iter().filter(|files| !wanted.contains(files)) {
            if !control.builder.held().has_files(files)
                && control.may_sweep(&mut look, files.as_str()).await?
            {
                unwanted.push(files.clone());
            }
        }
        if !unwanted.is_empty() {
            let snapshots = unwanted.len();
            tracing::info!(
                snapshots,
                "files of {snapshots} snapshots are nobody's; removing them"
            );
            control.drop_files_at(&node.name, unwanted);
        }
        match kept.last() {
            Some(last) if kept.len() == SNAPSHOTS_PAGE => after = Some(last.clone()),
            Some(_) | None => {
                look.done();
                return Ok(());
            }
        }
    }
}
