//! An image out of a client's archive as the ground of a build.

use casemate_images::Image;
use casemate_store::{CacheKey, CachedLayer};
use casemate_types::BuildContext;

use super::label::{self, Kept};
use super::log::Phase;
use super::work::{State, Work};
use super::{BuildError, UploadError, key, shell};

impl Work<'_> {
    /// Like an image of a registry, which its digest stands for. One that was a template once begins
    /// as that ended.
    pub(super) async fn of_archive(
        &mut self,
        files: &CacheKey,
        reference: Option<&str>,
        text: String,
        phase: &Phase,
    ) -> Result<State, BuildError> {
        let image = self.image_in(files, reference, phase).await?;
        let kept = label::read(&image.process);
        let kept = kept.map_err(|why| BuildError::recipe(phase.step(), why))?;
        let key = key::of_archive(&image.digest.to_string());
        let (_turn, found) = self.wanted(&key, phase).await?;
        phase.begin(found.is_some(), text, key.as_str());
        self.kept = kept;
        if let Some(is) = found {
            return Ok(State { key, is });
        }
        let is = self.of_found(&image, phase).await?;
        let is = match self.kept.clone() {
            Some(kept) => self.as_it_was(is, kept, phase).await?,
            None => is,
        };
        self.put(&key, &is).await?;
        Ok(State { key, is })
    }

    async fn image_in(
        &self,
        files: &CacheKey,
        reference: Option<&str>,
        phase: &Phase,
    ) -> Result<Image, BuildError> {
        let failed = |message: String| BuildError::recipe(phase.step(), message);
        let opened = self.uploads.file(&self.job.team, files).await;
        let file = opened.map_err(|error| match error {
            UploadError::Missing => failed(format!(
                "failed to open the archive: {} was not uploaded",
                files.as_str()
            )),
            UploadError::Broken(why) => BuildError::Internal(why),
        })?;
        let image = self.builder.images.open_archive(file, reference).await;
        image.map_err(|error| super::ground::image_error(phase, error))
    }

    /// Its user and folder, if its files have them.
    async fn as_it_was(
        &mut self,
        is: CachedLayer,
        kept: Kept,
        phase: &Phase,
    ) -> Result<CachedLayer, BuildError> {
        let sandbox = self.sandbox_of(&is).await?;
        let root = BuildContext {
            user: "root".into(),
            workdir: Some("/".into()),
            envs: Default::default(),
        };
        let startup = kept.startup.iter().map(|startup| &startup.context);
        for context in [&kept.context].into_iter().chain(startup) {
            let workdir = context.workdir.as_deref().unwrap_or("/");
            let script = format!(
                "id -u -- {} >/dev/null && cd -- {}",
                shell::word(&context.user),
                shell::word(workdir)
            );
            let found = sandbox.value(&script, &root, phase).await?;
            if found.is_err() {
                let message = format!(
                    "the image names the user '{}' and the folder '{workdir}', and has not got both",
                    context.user
                );
                return Err(BuildError::recipe(phase.step(), message));
            }
        }
        Ok(CachedLayer {
            context: kept.context,
            ..is
        })
    }
}
