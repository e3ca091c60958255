//! `casemate status`: what of a platform runs in a data directory, and what it holds.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use crate::admin::{Reply, Request, Status, ask};
use crate::config::Role;
use crate::data_dir::{DataDir, admin_socket};
use crate::holder::{self, Holder};
use crate::output::Output;
use crate::up::doors::Door;
use crate::up::{config_for_all, must_be_root};

#[derive(clap::Args)]
pub struct Args {
    /// The platform's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The settings that `up` was given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What service managers mean by it: the program is not running.
const NOT_RUNNING: u8 = 3;

pub async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let dir = config_for_all(args.data_dir, args.config)?.data_dir;
    if !DataDir::exists(&dir) {
        // It may only be hidden from others.
        must_be_root()?;
        bail!(
            "there is no platform in {}: `casemate up` makes one",
            dir.display()
        );
    }
    // An API server and an edge need no root, nor does who asks for them.
    if let Some(holder) = Holder::of(&dir)? {
        let mut value = serde_json::to_value(&holder)?;
        value["running"] = json!(true);
        output.value(&value, || holder.words());
        return Ok(ExitCode::SUCCESS);
    }
    if !holder::is_ours(&dir) {
        must_be_root()?;
    }
    let status = match ask(&admin_socket(&dir), Request::Status).await? {
        Some(Reply::Status(status)) => status,
        Some(Reply::Failed(why)) => bail!("{why}"),
        Some(Reply::Space(_)) => bail!("the platform answered something else"),
        Some(Reply::Ending | Reply::HandedOver(_)) => bail!("the platform is ending"),
        None => {
            let journalled = journalled(&dir);
            output.value(
                &json!({"running": false, "journalled_sandboxes": journalled}),
                || {
                    format!(
                        "casemate does not run in {}; sandboxes that run without it: at most {journalled}",
                        dir.display()
                    )
                },
            );
            return Ok(ExitCode::from(NOT_RUNNING));
        }
    };
    let mut value = serde_json::to_value(&status)?;
    if let (Role::Node, Some(value)) = (status.role, value.as_object_mut()) {
        // Clients know none of it.
        value.remove("domain");
    }
    value["running"] = json!(true);
    value["ready"] = json!(status.ready && status.answers);
    output.value(&value, || {
        let node = &status.node;
        let ready = match (status.ready, status.answers, status.role) {
            (false, _, _) => "not ready yet",
            (true, false, Role::Node) => "but its gate does not answer",
            (true, false, _) => "but API and edge do not answer",
            (true, true, _) => "ready",
        };
        format!(
            "{}, {ready}\n\
             sandboxes {} of {}, waiting {}, prepared slots {} and layers {}\n\
             memory {} MiB free of {} MiB, {} MiB promised\n\
             disk {} MiB free{}, sandboxes can write {} MiB\n\
             instance {}, processes: node {}{}",
            what_runs(&status),
            node.sandboxes,
            node.sandboxes_max,
            node.queue_length,
            node.slots_ready,
            node.layers_ready,
            node.memory_available_bytes >> 20,
            node.memory_total_bytes >> 20,
            node.memory_promised_bytes >> 20,
            node.disk_free_bytes >> 20,
            below_reserve(node),
            node.layers_left_bytes >> 20,
            status.instance,
            status.pid,
            children(&status.processes),
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn what_runs(status: &Status) -> String {
    match (status.role, status.doors.get(&Door::Cluster)) {
        (Role::Node, Some(gate)) => {
            format!("casemate node runs: gate {gate}, health {}", status.url)
        }
        _ => format!("casemate runs at {} (domain {})", status.url, status.domain),
    }
}

fn below_reserve(node: &casemate_rpc::NodeInfo) -> String {
    if node.disk_free_bytes >= node.disk_reserve_bytes {
        return String::new();
    }
    let reserve = node.disk_reserve_bytes >> 20;
    format!(" (creates are refused below {reserve})")
}

fn children(processes: &std::collections::BTreeMap<String, u32>) -> String {
    processes
        .iter()
        .map(|(role, pid)| format!(", {role} {pid}"))
        .collect()
}

fn journalled(dir: &std::path::Path) -> usize {
    let Ok(listed) = std::fs::read_dir(dir.join("node/journal")) else {
        return 0;
    };
    let json = |path: PathBuf| path.extension().is_some_and(|e| e == "json");
    listed.flatten().filter(|item| json(item.path())).count()
}
