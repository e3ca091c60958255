//! `casemate df`: what takes space in the data directory of a platform that runs.

use std::path::PathBuf;

use anyhow::bail;

use super::table::{mib, table};
use crate::admin::{Reply, Request, ask, must_answer};
use crate::data_dir::{DataDir, admin_socket};
use crate::output::Output;
use crate::space::{Named, SANDBOXES_MAX, Space};
use crate::up::config_of;

#[derive(clap::Args)]
pub struct Args {
    /// The platform's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The settings that `up` was given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name so many sandboxes, snapshots and layers, the largest.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u16).range(..=SANDBOXES_MAX as i64))]
    limit: u16,
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = config_of(args.data_dir, args.config)?;
    let dir = config.data_dir;
    if !DataDir::exists(&dir) {
        bail!(
            "there is no platform in {}: `casemate up` makes one",
            dir.display()
        );
    }
    // Measuring may take long; whether anybody does it is known at once.
    must_answer(&admin_socket(&dir)).await?;
    let mut space = match ask(&admin_socket(&dir), Request::Space).await? {
        Some(Reply::Space(space)) => space,
        Some(Reply::Failed(why)) => bail!("{why}"),
        Some(Reply::Status(_) | Reply::HandedOver(_)) => {
            bail!("the platform answered something else")
        }
        Some(Reply::Ending) => bail!("the platform is ending"),
        None => bail!(
            "casemate does not run in {0}: `du -sh {0}` says what its files take",
            dir.display()
        ),
    };
    let limit = usize::from(args.limit);
    space.sandboxes.largest.truncate(limit);
    space.snapshots.largest.truncate(limit);
    space.build_steps.largest.truncate(limit);
    space.layers.largest.truncate(limit);
    output.value(&space, || words(&space));
    Ok(())
}

fn words(space: &Space) -> String {
    let (disk, pool) = (&space.disk, &space.pool);
    let of = |used, size| [mib(used), mib(size)];
    let own = |used| [mib(used), "-".to_owned()];
    let row = |what: &str, [used, size]: [String; 2], free: Option<u64>| {
        [what.to_owned(), used, size, free.map_or("-".into(), mib)]
    };
    let mut rows = vec![
        row("disk", of(disk.used, disk.size), Some(disk.free)),
        row("pool", of(pool.used, pool.size), Some(pool.free)),
    ];
    if let Some(image) = pool.image {
        rows.push(row("· its image on the disk", own(image), None));
    }
    let sandboxes = format!("· {} sandboxes", space.sandboxes.running);
    let unknown = ["-".to_owned(), "-".to_owned()];
    rows.push(row(
        &sandboxes,
        space.sandboxes.used.map_or(unknown.clone(), own),
        None,
    ));
    for one in &space.sandboxes.largest {
        rows.push(row(&format!("  · {}", one.name), named(one), None));
    }
    if space.snapshots.count > 0 {
        let what = format!("· {} snapshots", space.snapshots.count);
        let used = space.snapshots.used.map_or(unknown.clone(), own);
        rows.push(row(&what, used, None));
    }
    for one in &space.snapshots.largest {
        rows.push(row(&format!("  · {}", one.name), named(one), None));
    }
    if space.build_steps.count > 0 {
        let what = format!("· {} results of build steps", space.build_steps.count);
        let used = space.build_steps.used.map_or(unknown.clone(), own);
        rows.push(row(&what, used, None));
    }
    rows.push(row(
        &format!("{} layers of templates", space.layers.count),
        own(space.layers.used),
        None,
    ));
    for one in &space.layers.largest {
        let what = match &one.template {
            Some(template) => format!("· {} ({template})", one.name),
            None => format!("· {}", one.name),
        };
        rows.push(row(&what, named(one), None));
    }
    rows.push(row("store", own(space.store), None));
    rows.push(row("history with logs", own(space.history), None));
    rows.push(row("other files", own(space.other), None));
    let mut text = format!("{}\n", space.data_dir.display());
    text += &table(["WHAT", "USED", "OF", "FREE"], &rows);
    if pool.waiting_layers > 0 {
        text += &format!(
            "\n{} layers of ended sandboxes are not deleted yet",
            pool.waiting_layers
        );
    }
    text
}

fn named(one: &Named) -> [String; 2] {
    [mib(one.used), one.limit.map_or("-".into(), mib)]
}
