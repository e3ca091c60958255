//! `casemate down`: ends all sandboxes and the platform; with `--purge` nothing is left at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use casemate_runtime::Runtime;

use crate::admin::{Reply, Request, ask, ask_watching};
use crate::data_dir::{DataDir, admin_socket};
use crate::output::Output;
use crate::up::{config_of, sandboxes};

#[derive(clap::Args)]
pub struct Args {
    /// The platform's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The settings that `up` was given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Remove everything: keys, store, base template, pool image, and every trace on this host.
    #[arg(long)]
    purge: bool,
}

/// How long a platform that was asked to end may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = config_of(args.data_dir, args.config)?;
    let root = config.data_dir.clone();
    if !DataDir::exists(&root) {
        output.note(&format!("there is no platform in {}", root.display()));
        return Ok(());
    }
    let socket = admin_socket(&root);
    match ask_to_end(&socket).await? {
        None => {}
        Some(Reply::Ending) => output.note("all sandboxes are ended; the platform is ending"),
        Some(Reply::Failed(why)) => bail!("the platform could not end its sandboxes: {why}"),
        Some(Reply::Status(_) | Reply::HandedOver(_) | Reply::Space(_)) => {
            bail!("the platform answered something else")
        }
    }
    let dir = wait_for_lock(&root).await?;
    // Whatever a platform that died left is found and ended here, by the code of its start.
    let opened = sandboxes::open(&config, &dir, None)
        .await
        .context("look for what is left")?;
    opened
        .runtime
        .teardown(args.purge)
        .await
        .context("end what is left")?;
    drop(opened);
    for entry in std::fs::read_dir(dir.journal())
        .into_iter()
        .flatten()
        .flatten()
    {
        std::fs::remove_file(entry.path()).context("clear the journal")?;
    }
    if args.purge {
        // Some file systems take seconds for a large one.
        output.note(&format!("removing the files of {}", root.display()));
        dir.purge()?;
        output.note(&format!("removed everything of {}", root.display()));
    }
    Ok(())
}

/// `None` when no platform runs, or it ended without an answer. One that handed over did so too:
/// its successor is asked then.
async fn ask_to_end(socket: &Path) -> anyhow::Result<Option<Reply>> {
    while let Some(status) = ask(socket, Request::Status).await? {
        let watched = matches!(status, Reply::Status(status) if status.answers_beside);
        let reply = match watched {
            true => ask_watching(socket, Request::Down).await?,
            false => ask(socket, Request::Down).await?,
        };
        if reply.is_some() {
            return Ok(reply);
        }
    }
    Ok(None)
}

async fn wait_for_lock(root: &std::path::Path) -> anyhow::Result<DataDir> {
    let begun = Instant::now();
    loop {
        match DataDir::open(root) {
            Ok(dir) => return Ok(dir),
            Err(error) if begun.elapsed() > END_TIMEOUT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{line, listen, read_request};
    use tokio::io::AsyncWriteExt;

    /// One that hands over ends with open requests unanswered; its successor listens there.
    #[tokio::test]
    async fn the_successor_of_a_platform_that_left_is_asked_too() {
        let path = std::env::temp_dir().join(format!("casemate-down-{}", std::process::id()));
        let socket = listen(&path).unwrap();
        let platforms = async {
            let mut asked_to_end = 0;
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                let reply = match read_request(&mut stream).await.unwrap() {
                    Request::Down if asked_to_end == 0 => {
                        asked_to_end += 1;
                        continue;
                    }
                    Request::Down => Reply::Ending,
                    // What it says of itself does not matter here.
                    _ => Reply::Failed(String::new()),
                };
                stream.write_all(&line(&reply).unwrap()).await.unwrap();
            }
        };
        let reply = tokio::select! {
            reply = ask_to_end(&path) => reply.unwrap(),
            () = platforms => None,
        };
        assert!(matches!(reply, Some(Reply::Ending)), "{reply:?}");
        drop(socket);
        assert!(ask_to_end(&path).await.unwrap().is_none());
        std::fs::remove_file(path).unwrap();
    }
}
