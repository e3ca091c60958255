//! `casemate template export`

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use casemate_build::Progress;
use casemate_client::api::TemplateDownload;
use serde_json::json;

use super::line::clean;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// `NAME`, `NAME:TAG` or an id; also of others' public templates.
    template: String,
    /// Where the archive is written [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let Some(path) = args.output else {
        ensure!(
            !io::stdout().is_terminal(),
            "an archive is not for a terminal: name a file with -o, or redirect the output"
        );
        ensure!(!output.is_json(), "--json goes with -o alone");
        let archive = begin(&args.template, server, output).await?;
        copy(archive, io::stdout(), output).await?;
        return Ok(ExitCode::SUCCESS);
    };
    // What is there stays until the new one is whole.
    let mut part = Part::create(&path)?;
    let file = part.file()?;
    let export = async {
        let archive = begin(&args.template, server, output).await?;
        copy(archive, file, output).await
    };
    let bytes = tokio::select! {
        bytes = export => bytes?,
        // As a shell says it of what Ctrl-C ended.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
    };
    part.keep(&path)?;
    let value = json!({"template": args.template, "file": path, "bytes": bytes});
    output.value(&value, || {
        clean(&format!("exported {} to {}", args.template, path.display()))
    });
    Ok(ExitCode::SUCCESS)
}

async fn begin(
    template: &str,
    server: &Server,
    output: &Output,
) -> anyhow::Result<TemplateDownload> {
    output.note(&clean(&format!("the server packs {template}")));
    let archive = server.api.template_export(template).await?;
    archive.with_context(|| {
        format!("there is no template {template}: `casemate template list` shows them")
    })
}

/// The whole archive, or an error.
async fn copy(
    mut archive: TemplateDownload,
    mut into: impl Write + Send + 'static,
    output: &Output,
) -> anyhow::Result<u64> {
    let line = Arc::new(output.progress("exporting"));
    let (mut written, mut tenth) = (0_u64, None);
    while let Some(piece) = archive.chunk().await? {
        let bytes = piece.len() as u64;
        let write = move || into.write_all(&piece).map(|()| into);
        into = tokio::task::spawn_blocking(write)
            .await?
            .context("write the archive")?;
        written += bytes;
        let whole = archive.bytes().unwrap_or(u64::MAX).max(1);
        let percent = u8::try_from(written.saturating_mul(100) / whole).unwrap_or(100);
        if tenth != Some(percent / 10) {
            tenth = Some(percent / 10);
            line.step(percent, "the archive");
        }
    }
    line.finish();
    if let Some(expected) = archive.bytes()
        && expected != written
    {
        bail!("the archive ended early: {written} of {expected} bytes came");
    }
    into.flush().context("write the archive")?;
    Ok(written)
}

/// A file beside the one that is wanted; it is removed unless it was kept.
struct Part {
    path: PathBuf,
    file: Option<File>,
    is_kept: bool,
}

impl Part {
    fn create(wanted: &Path) -> anyhow::Result<Self> {
        let mut name = wanted.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("write {}", path.display()))?;
        Ok(Self {
            path,
            file: Some(file),
            is_kept: false,
        })
    }

    fn file(&mut self) -> anyhow::Result<File> {
        self.file.take().context("the file is written already")
    }

    fn keep(mut self, wanted: &Path) -> anyhow::Result<()> {
        fs::rename(&self.path, wanted).with_context(|| format!("write {}", wanted.display()))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing is to be told of a part that nobody wants.
            let _ = fs::remove_file(&self.path);
        }
    }
}
