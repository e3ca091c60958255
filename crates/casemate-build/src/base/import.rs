//! A base from an archive: our own export, or any tar of a root file system.

use std::fs::File;
use std::path::Path;

use casemate_types::{TemplateId, Timestamp};
use uuid::Uuid;

use super::{BaseConfig, BaseError, BaseManifest, BaseSource, keep, open_draft};
use crate::archive;
use crate::progress::Progress;

pub(super) fn ensure(
    config: &BaseConfig,
    file: &Path,
    kept: Option<BaseManifest>,
    progress: &dyn Progress,
) -> Result<BaseManifest, BaseError> {
    let source = source_of(file)?;
    let header = header_of(file)?;
    if let Some(kept) = &kept {
        let same = match &header {
            Some(header) => header.build_id == kept.build_id,
            None => source == kept.source,
        };
        if same {
            return Ok(kept.clone());
        }
    }
    progress.step(5, "importing the base");
    let build_id = header
        .as_ref()
        .map_or_else(Uuid::new_v4, |header| header.build_id);
    let draft = open_draft(config, build_id)?;
    let input = File::open(file).map_err(BaseError::io("open", file))?;
    let unpacked = archive::unpack(input, draft.path()).map_err(archive_error(file))?;
    if unpacked.skipped > 0 {
        progress.line(&format!("{} device nodes were left out", unpacked.skipped));
    }
    keep(
        config,
        draft,
        source,
        identity(kept, header),
        build_id,
        progress,
    )
}

/// The template keeps its id over imports: sandboxes and clients know it.
fn identity(
    kept: Option<BaseManifest>,
    header: Option<BaseManifest>,
) -> Option<(TemplateId, Timestamp)> {
    let created_at = header
        .as_ref()
        .map_or_else(Timestamp::now, |header| header.created_at);
    let template = kept.or(header)?.template_id;
    Some((template, created_at))
}

fn source_of(file: &Path) -> Result<BaseSource, BaseError> {
    let meta = std::fs::metadata(file).map_err(BaseError::io("open", file))?;
    let modified = meta.modified().ok();
    Ok(BaseSource::Archive {
        bytes: meta.len(),
        modified: modified.and_then(|time| Timestamp::try_from(time).ok()),
    })
}

fn header_of(file: &Path) -> Result<Option<BaseManifest>, BaseError> {
    let input = File::open(file).map_err(BaseError::io("open", file))?;
    let header = archive::peek_header(input).map_err(archive_error(file))?;
    let parse = |text: Vec<u8>| {
        BaseManifest::parse(&text).map_err(|reason| BaseError::Manifest {
            path: file.into(),
            reason,
        })
    };
    header.map(parse).transpose()
}

fn archive_error(file: &Path) -> impl FnOnce(archive::ArchiveError) -> BaseError {
    let path = file.to_owned();
    |source| BaseError::Archive { path, source }
}
