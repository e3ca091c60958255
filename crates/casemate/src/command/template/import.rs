//! `casemate template import`

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use casemate_build::Progress;
use casemate_client::Api;
use casemate_client::api::{ImageArchive, NewTemplateBuild, StartTemplateBuild};
use casemate_dockerfile::READY_COMMAND;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::follow::{self, Ended};
use super::line::clean;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// An OCI archive, as `casemate template export`, `skopeo copy … oci-archive:FILE`, `podman save
    /// --format oci-archive` and `docker save` write them.
    archive: PathBuf,
    /// What it is called: `NAME` or `NAME:TAG`. A name that is there gets a new build.
    name: String,
    /// One more tag; may be given several times. Without any it is `default`.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Which image of the archive, if it holds several: its tag or whole name there.
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Processors of its sandboxes [default: the server's, 2].
    #[arg(long, value_name = "N")]
    cpu: Option<i32>,
    /// Memory of its sandboxes [default: the server's, 1024].
    #[arg(long, value_name = "MIB")]
    memory: Option<i32>,
    /// What runs in each sandbox [default: what did in an exported template].
    #[arg(long, value_name = "CMD")]
    start: Option<String>,
    /// The command that succeeds when a sandbox can be used [default: an exported template's; `sleep
    /// 20` with --start].
    #[arg(long, value_name = "CMD")]
    ready: Option<String>,
    /// Take nothing from the cache.
    #[arg(long)]
    no_cache: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    // Before anything is asked of the server: what fails here leaves no trace there.
    let hashed = hash(args.archive.clone(), output).await?;
    let new = NewTemplateBuild {
        name: Some(args.name.clone()),
        tags: (!args.tags.is_empty()).then(|| args.tags.clone()),
        cpu_count: args.cpu,
        memory_mb: args.memory,
        ..NewTemplateBuild::default()
    };
    let requested = server.api.template_build_request(&new).await?;
    let (template, build) = (&requested.template_id, &requested.build_id);
    output.note(&clean(&format!("template {template}, build {build}")));
    let files_hash = hashed.hash.clone();
    upload(&server.api, template, hashed, output).await?;
    let usual = || args.start.is_some().then(|| READY_COMMAND.to_owned());
    let body = StartTemplateBuild {
        from_archive: Some(ImageArchive {
            files_hash,
            reference: args.reference.clone(),
        }),
        force: Some(args.no_cache),
        ready_cmd: args.ready.clone().or_else(usual),
        start_cmd: args.start.clone(),
        ..StartTemplateBuild::default()
    };
    server
        .api
        .template_build_start(template, build, &body)
        .await?;
    let value = |status: &str, reason: Option<&str>| {
        json!({
            "templateID": template,
            "buildID": build,
            "names": requested.names,
            "tags": requested.tags,
            "status": status,
            "reason": reason,
        })
    };
    match follow::follow(&server.api, template, build, output).await? {
        Ended::Ready => {
            let names = requested.names.join(" ");
            output.value(&value("ready", None), || {
                clean(&format!("imported {names}"))
            });
            Ok(ExitCode::SUCCESS)
        }
        Ended::Failed { message, .. } => {
            if output.is_json() {
                output.value(&value("error", Some(&message)), String::new);
            }
            anyhow::bail!("{}: {}", args.archive.display(), clean(&message));
        }
        Ended::LeftAlone => {
            output.note(&clean(&format!(
                "the build goes on: `casemate template logs {build}` shows how"
            )));
            // As a shell says it of what Ctrl-C ended.
            Ok(ExitCode::from(130))
        }
    }
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
