//! `casemate template import`

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use casemate_build::Progress;
use casemate_client::Api;
use casemate_client::api::{ImageArchive, StartTemplateBuild};
use sha2::{Digest, Sha256};

use super::line::clean;
use super::new::{Failed, New};
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// An OCI archive, as `casemate template export`, `skopeo copy … oci-archive:FILE`, `podman save
    /// --format oci-archive` and `docker save` write them.
    archive: PathBuf,
    #[command(flatten)]
    new: New,
    /// Which image of the archive, if it holds several: its tag or whole name there.
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    // Before anything is asked of the server: what fails here leaves no trace there.
    let hashed = hash(args.archive.clone(), output).await?;
    let requested = args.new.request(server, output).await?;
    let (template, build) = (&requested.template_id, &requested.build_id);
    let files_hash = hashed.hash.clone();
    upload(&server.api, template, hashed, output).await?;
    let body = StartTemplateBuild {
        from_archive: Some(ImageArchive {
            files_hash,
            reference: args.reference.clone(),
        }),
        ..args.new.recipe(None, None)
    };
    server
        .api
        .template_build_start(template, build, &body)
        .await?;
    let ended = args.new.follow(&requested, "imported", server, output);
    ended.await?.or_else(|Failed { message, .. }| {
        anyhow::bail!("{}: {}", args.archive.display(), clean(&message))
    })
}

/// An archive, and its SHA-256 in hexadecimal.
struct Hashed {
    file: File,
    bytes: u64,
    hash: String,
}

async fn hash(path: PathBuf, output: &Output) -> anyhow::Result<Hashed> {
    let line = Arc::new(output.progress("reading"));
    let shown = line.clone();
    let hashed = tokio::task::spawn_blocking(move || read(&path, &*shown)).await?;
    line.finish();
    hashed
}

fn read(path: &Path, progress: &dyn Progress) -> anyhow::Result<Hashed> {
    let failed = || format!("read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let found = file.metadata().with_context(failed)?;
    ensure!(found.is_file(), "{} is not a file", path.display());
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    let (mut bytes, mut tenth) = (0_u64, 0);
    loop {
        let count = file.read(&mut piece).with_context(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        bytes += count as u64;
        let percent = percent_of(bytes, found.len());
        if percent / 10 > tenth {
            tenth = percent / 10;
            progress.step(percent, &path.display().to_string());
        }
    }
    file.rewind().with_context(failed)?;
    let hash = hex::encode(hash.finalize());
    Ok(Hashed { file, bytes, hash })
}

fn percent_of(part: u64, whole: u64) -> u8 {
    let percent = part.min(whole).saturating_mul(100) / whole.max(1);
    u8::try_from(percent).unwrap_or(100)
}

/// Unless the server has it.
async fn upload(
    api: &Api,
    template_id: &str,
    archive: Hashed,
    output: &Output,
) -> anyhow::Result<()> {
    let link = api.template_files_link(template_id, &archive.hash).await?;
    if link.present || link.url.is_none() {
        return Ok(());
    }
    let bytes = archive.bytes;
    let line = Arc::new(output.progress("uploading"));
    let (shown, mut tenth) = (line.clone(), None);
    let progress = Box::new(move |sent: u64| {
        let percent = percent_of(sent, bytes);
        // Where each is a line of its own, a few are enough.
        if tenth != Some(percent / 10) {
            tenth = Some(percent / 10);
            shown.step(percent, "the archive");
        }
    });
    let sent = api
        .template_files_upload(&link, archive.file, bytes, progress)
        .await;
    line.finish();
    sent.context("upload the archive")
}
