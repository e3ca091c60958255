//! `casemate down`: ends all sandboxes and the platform; with `--purge` nothing is left at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use casemate_runtime::Runtime;

use crate::admin::{Reply, Request, ask, ask_watching};
use crate::data_dir::{DataDir, admin_socket};
use crate::output::Output;
use crate::up::config_of;
use crate::up::sandboxes::{self, Purpose};

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
    let dir = end(&root, &socket, output).await?;
    // Whatever a platform that died left is found and ended here, by the code of its start.
    let purpose = match args.purge {
        true => Purpose::Purge,
        false => Purpose::End,
    };
    let opened = sandboxes::open(&config, &dir, purpose)
        .await
        .context("look for what is left")?;
    let paused = match args.purge {
        true => 0,
        false => casemate_node::keep_paused(&dir.journal(), &*opened.runtime)
            .await
            .context("keep the files of paused sandboxes")?,
    };
    if args.purge {
        // Some file systems take seconds for the thousands of a template.
        output.note(&format!("removing the files of {}", root.display()));
    }
    opened
        .runtime
        .teardown(args.purge)
        .await
        .context("end what is left")?;
    drop(opened);
    if !args.purge {
        casemate_node::forget_others(&dir.journal()).context("clear the journal")?;
    }
    if paused > 0 {
        output.note(&format!(
            "{paused} paused sandboxes keep their files; after the next `casemate up` they can be \
             resumed"
        ));
    }
    if args.purge {
        dir.purge()?;
        output.note(&format!("removed everything of {}", root.display()));
    }
    Ok(())
}

/// Ends the platform that runs, if one does, and holds its data directory. One that hands over
/// ends without an answer, and for some seconds nobody listens: its successor is asked then.
async fn end(root: &Path, socket: &Path, output: &Output) -> anyhow::Result<DataDir> {
    let mut begun = Instant::now();
    let mut ending = false;
    loop {
        let held = match DataDir::open(root) {
            Ok(dir) => return Ok(dir),
            Err(held) => held,
        };
        if begun.elapsed() > END_TIMEOUT {
            return Err(held);
        }
        if !ending {
            let asked = Instant::now();
            if ask_to_end(socket).await? {
                output.note("all sandboxes are ended; the platform is ending");
                ending = true;
            }
            // To end many sandboxes takes as long as it takes.
            begun += asked.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a platform said that it ends; not so where none listens, or it left without an answer.
async fn ask_to_end(socket: &Path) -> anyhow::Result<bool> {
    let Some(status) = ask(socket, Request::Status).await? else {
        return Ok(false);
    };
    let watched = matches!(status, Reply::Status(status) if status.answers_beside);
    let reply = match watched {
        true => ask_watching(socket, Request::Down).await?,
        false => ask(socket, Request::Down).await?,
    };
    match reply {
        None => Ok(false),
        Some(Reply::Ending) => Ok(true),
        Some(Reply::Failed(why)) => bail!("the platform could not end its sandboxes: {why}"),
        Some(Reply::Status(_) | Reply::HandedOver(_) | Reply::Space(_)) => {
            bail!("the platform answered something else")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{line, listen, read_request};
    use tokio::io::AsyncWriteExt;

    /// One that hands over ends with open requests unanswered, and its successor listens later.
    #[tokio::test]
    async fn the_successor_of_a_platform_that_left_is_asked_too() {
        let root = std::env::temp_dir().join(format!("casemate-down-{}", std::process::id()));
        let held = DataDir::open(&root).unwrap();
        let path = admin_socket(&root);
        let platforms = async {
            let mut socket = listen(&path).unwrap();
            let mut left = false;
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                match read_request(&mut stream).await.unwrap() {
                    Request::Down if left => {
                        let ending = line(&Reply::Ending).unwrap();
                        stream.write_all(&ending).await.unwrap();
                        drop(held);
                        return;
                    }
                    Request::Down => {
                        drop((stream, socket));
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        socket = listen(&path).unwrap();
                        left = true;
                    }
                    // What it says of itself does not matter here.
                    _ => {
                        let status = line(&Reply::Failed(String::new())).unwrap();
                        stream.write_all(&status).await.unwrap();
                    }
                }
            }
        };
        let output = Output::new(false);
        let (dir, ()) = tokio::join!(end(&root, &path, &output), platforms);
        dir.unwrap().purge().unwrap();
        assert!(!DataDir::exists(&root));
    }
}
