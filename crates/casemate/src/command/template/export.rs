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
use crate::signals::EndSignals;

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
    let mut target = Target::open(&path)?;
    let signals = target.part.as_ref().map(|_| EndSignals::new());
    let signals = signals.transpose()?;
    let file = target.file()?;
    let export = async {
        let archive = begin(&args.template, server, output).await?;
        copy(archive, file, output).await
    };
    let ended = async {
        // Without a part there is nothing to be removed: a signal ends us as it ends anybody.
        match signals {
            Some(mut signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    let bytes = tokio::select! {
        bytes = export => bytes?,
        // As a shell says it of what Ctrl-C ended.
        () = ended => return Ok(ExitCode::from(130)),
    };
    target.keep()?;
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

/// Where the archive is written.
struct Target {
    file: Option<File>,
    /// `None`: straight into what is there.
    part: Option<Part>,
}

/// A file beside the one that is wanted, so that what is there stays until the new one is whole. It is
/// removed unless it was kept.
struct Part {
    path: PathBuf,
    wanted: PathBuf,
    is_kept: bool,
}

impl Target {
    fn open(wanted: &Path) -> anyhow::Result<Self> {
        let failed = |path: &Path| format!("write {}", path.display());
        let wanted = match fs::metadata(wanted) {
            Ok(found) if found.is_dir() => bail!("{} is a folder: name a file", wanted.display()),
            // A link stays one.
            Ok(found) if found.is_file() => fs::canonicalize(wanted),
            // A device or a pipe must not become a file.
            Ok(_) => {
                let file = OpenOptions::new().write(true).open(wanted);
                return Ok(Self {
                    file: Some(file.with_context(|| failed(wanted))?),
                    part: None,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(wanted.to_owned()),
            Err(error) => Err(error),
        }
        .with_context(|| failed(wanted))?;
        let mut name = wanted.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.with_context(|| failed(&path))?;
        Ok(Self {
            file: Some(file),
            part: Some(Part {
                path,
                wanted,
                is_kept: false,
            }),
        })
    }

    fn file(&mut self) -> anyhow::Result<File> {
        self.file.take().context("the file is written already")
    }

    fn keep(self) -> anyhow::Result<()> {
        let Some(mut part) = self.part else {
            return Ok(());
        };
        let wanted = &part.wanted;
        fs::rename(&part.path, wanted).with_context(|| format!("write {}", wanted.display()))?;
        part.is_kept = true;
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
