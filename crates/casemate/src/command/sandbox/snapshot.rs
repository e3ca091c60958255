//! `casemate sandbox snapshot`: the files of sandboxes, kept beyond them.

use std::process::ExitCode;

use anyhow::bail;
use casemate_client::api::SnapshotInfo;
use serde_json::json;

use crate::command::server::Server;
use crate::command::table::table;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Keep the files of a running sandbox and say the snapshot's id, which `sandbox create
    /// --template` takes.
    Create {
        /// The sandbox's id.
        id: String,
        /// What it is called, `alias` or `alias:tag`; a new one under a tag takes the old one's
        /// place [default: an id alone].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List snapshots, newest first.
    List {
        /// Only those of this sandbox; it may have ended.
        #[arg(long, value_name = "ID")]
        sandbox: Option<String>,
    },
    /// Delete a snapshot with all its tags; one that sandboxes were made from stays while they are
    /// there.
    Delete {
        /// Its id or its name.
        snapshot: String,
    },
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Create { id, name } => {
            let taken = server.api.snapshot_take(&id, name.as_deref()).await?;
            output.value(&taken, || taken.snapshot_id.clone());
        }
        Verb::List { sandbox } => {
            let snapshots = server.api.snapshot_list(sandbox.as_deref()).await?;
            output.value(&snapshots, || {
                let rows: Vec<_> = snapshots.iter().map(row).collect();
                table(["ID", "NAMES"], &rows)
            });
        }
        Verb::Delete { snapshot } => {
            if !server.api.snapshot_delete(&snapshot).await? {
                bail!(
                    "there is no snapshot {snapshot}: `casemate sandbox snapshot list` shows them"
                );
            }
            output.value(&json!({"snapshotID": snapshot, "deleted": true}), || {
                format!("deleted {snapshot}")
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(snapshot: &SnapshotInfo) -> [String; 2] {
    [snapshot.snapshot_id.clone(), snapshot.names.join(" ")]
}
