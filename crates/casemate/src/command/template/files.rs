//! The files of a build: what they hash to, and those that the server has not got.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use casemate_build::Progress;
use casemate_client::Api;
use casemate_context::{Archive, Context, ContextError};
use casemate_dockerfile::{Action, Recipe};

use super::line::clean;
use crate::output::Output;

/// What the `COPY` steps of a recipe copy, in their order.
pub struct Copies {
    context: Arc<Context>,
    copies: Vec<Copy>,
}

#[derive(Clone)]
struct Copy {
    source: String,
    destination: String,
    hash: String,
}

impl Copies {
    pub fn hashes(&self) -> impl Iterator<Item = String> {
        self.copies.iter().map(|copy| copy.hash.clone())
    }
}

/// Reads all files once.
pub async fn hash(folder: &Path, recipe: &Recipe, file: &Path) -> anyhow::Result<Copies> {
    let wanted: Vec<_> = recipe
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Copy {
                source,
                destination,
                ..
            } => Some((step.line, source.clone(), destination.clone())),
            _ => None,
        })
        .collect();
    let (folder, file) = (folder.to_owned(), file.to_owned());
    let read = move || {
        let context = Context::open(&folder)?;
        let mut copies = Vec::with_capacity(wanted.len());
        for (line, source, destination) in wanted {
            let hash = context
                .select(&source, &destination)
                .and_then(|selection| selection.hash())
                .with_context(|| format!("{}:{line}", file.display()))?;
            copies.push(Copy {
                source,
                destination,
                hash,
            });
        }
        anyhow::Ok(Copies {
            context: Arc::new(context),
            copies,
        })
    };
    tokio::task::spawn_blocking(read).await?
}

/// Packs and sends what the server has not got, one after the other.
pub async fn upload(
    api: &Api,
    template_id: &str,
    copies: &Copies,
    output: &Output,
) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for copy in &copies.copies {
        if !seen.insert(&copy.hash) {
            continue;
        }
        let link = api.template_files_link(template_id, &copy.hash).await?;
        if link.present || link.url.is_none() {
            continue;
        }
        let archive = pack(copies.context.clone(), copy.clone()).await?;
        for path in &archive.left_out {
            output.note(&format!(
                "{} is neither file, folder nor link: it is not uploaded",
                clean(path)
            ));
        }
        let bytes = archive.bytes;
        let line = Arc::new(output.progress("uploading"));
        let (shown, source) = (line.clone(), clean(&copy.source));
        let mut tenth = None;
        let progress = Box::new(move |sent: u64| {
            let percent = u8::try_from(sent.min(bytes) * 100 / bytes.max(1)).unwrap_or(100);
            // Where each is a line of its own, a few are enough.
            if tenth != Some(percent / 10) {
                tenth = Some(percent / 10);
                shown.step(percent, &source);
            }
        });
        let sent = api
            .template_files_upload(&link, archive.file, bytes, progress)
            .await;
        line.finish();
        sent.with_context(|| format!("upload '{}'", copy.source))?;
    }
    Ok(())
}

async fn pack(context: Arc<Context>, copy: Copy) -> anyhow::Result<Archive> {
    let pack = move || -> Result<Archive, ContextError> {
        let selection = context.select(&copy.source, &copy.destination)?;
        selection.archive(&copy.hash)
    };
    Ok(tokio::task::spawn_blocking(pack).await??)
}
