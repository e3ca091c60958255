//! `casemate cluster drain`: a machine is to be taken away, and nothing with it.

use std::time::Duration;

use anyhow::bail;
use casemate_client::Admin;
use casemate_client::api::{ClusterNode, DrainedNode, NodeLeft};
use serde_json::json;
use tokio::time::Instant;

use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    node: String,
    /// Pause what runs there with its files alone, so that it goes on at another node when it is
    /// connected to. Its processes end.
    #[arg(long)]
    pause: bool,
    /// Wait until nothing is left; with a time, such as 10m, for so long at most. What ends the command
    /// ends no drain.
    #[arg(
        long, value_name = "TIME", num_args = 0..=1, require_equals = true,
        value_parser = super::seconds
    )]
    wait: Option<Option<u64>>,
}

/// How often it is looked for what is left.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// That nothing is left must be so for as long: servers hear of a drain within two seconds, and what
/// they made until then shows when it is made.
const SETTLED_AFTER: Duration = Duration::from_secs(6);

pub async fn run(admin: &Admin, args: Args, output: &Output) -> anyhow::Result<()> {
    let node = &args.node;
    let drained = drain(admin, node, args.pause).await?;
    for note in notes(node, &drained) {
        output.note(&note);
    }
    let Some(at_most) = args.wait else {
        let value = json!({"name": node, "is": "draining", "left": drained.left});
        output.value(&value, || {
            format!("{node} is draining: {}", words(&drained.left))
        });
        if !drained.not_paused.is_empty() {
            bail!("{} could not be paused", drained.not_paused.len());
        }
        return Ok(());
    };
    let until = at_most.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    until_empty(admin, &args, until, output).await?;
    let value = json!({"name": node, "is": "drained"});
    output.value(&value, || {
        format!("{node} is drained: `casemate cluster remove {node}` loses nothing")
    });
    Ok(())
}

async fn until_empty(
    admin: &Admin,
    args: &Args,
    until: Option<Instant>,
    output: &Output,
) -> anyhow::Result<()> {
    let node = &args.node;
    let (mut said, mut empty_since) = (None, None);
    loop {
        let found = admin.cluster_nodes().await?;
        let Some(found) = found.into_iter().find(|one| one.node_id == *node) else {
            bail!("{node} was removed meanwhile");
        };
        if found.lost_at.is_some() {
            bail!("{node} was lost meanwhile: what is stored of it goes on elsewhere");
        }
        let Some(left) = found.left.clone() else {
            bail!("{node} is drained no more: it is {}", found.standing);
        };
        if said.as_ref() != Some(&left) {
            output.note(&format!("left at {node}: {}", words(&left)));
            said = Some(left.clone());
        }
        if is_empty(&found, &left) {
            let since = *empty_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= SETTLED_AFTER {
                return Ok(());
            }
        } else {
            empty_since = None;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            bail!(
                "{node} is not empty yet: {}. It is drained on",
                words(&left)
            );
        }
        if args.pause && left.running > 0 {
            // What was made meanwhile, and what could not be paused before.
            drain(admin, node, true).await?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn drain(admin: &Admin, node: &str, pause: bool) -> anyhow::Result<DrainedNode> {
    match admin.node_drain(node, pause).await? {
        Some(drained) => Ok(drained),
        None => bail!("the cluster has no {node}: `casemate cluster nodes` shows its nodes"),
    }
}

/// By its rows, and by its own word: a sandbox that is being made has no row yet.
fn is_empty(node: &ClusterNode, left: &NodeLeft) -> bool {
    let nothing_runs = !node.connected || node.sandboxes == Some(0);
    left.running == 0 && left.unstored == 0 && left.artifacts == 0 && nothing_runs
}

fn words(left: &NodeLeft) -> String {
    let NodeLeft {
        running,
        paused,
        unstored,
        artifacts,
        why,
    } = left;
    let mut text = format!("{running} running, {paused} paused of which {unstored} are not stored");
    if *artifacts > 0 {
        text += &format!(", {artifacts} layers and snapshots that are not stored");
    }
    if let Some(why) = why {
        text += &format!(" ({why})");
    }
    text
}

fn notes(node: &str, drained: &DrainedNode) -> Vec<String> {
    let mut notes = Vec::new();
    if !drained.has_bucket {
        notes.push(format!(
            "there is no bucket: what is paused on {node}, and templates and snapshots that are there \
             alone, cannot leave it"
        ));
    }
    if drained.others == 0 {
        notes.push("no other node takes sandboxes now".to_owned());
    }
    for one in &drained.not_paused {
        notes.push(format!("{} runs on: {}", one.sandbox_id, one.message));
    }
    notes
}
