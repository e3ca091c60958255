//! Templates and their builds.

use std::fs::File;
use std::time::Duration;

use bytes::Bytes;
use casemate_wire::{
    AssignTags, AssignedTags, CollectBuilds, CollectedBuilds, DeleteTags, NewTemplateBuild,
    RequestedTemplateBuild, StartTemplateBuild, Template, TemplateAlias, TemplateBuildInfo,
    TemplateFilesUpload, TemplateTag, TemplateUpdate, TemplateWithBuilds, UpdatedTemplate,
};
use envd_client::Download;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use percent_encoding::utf8_percent_encode;

use super::sandboxes::PAGES_MAX;
use super::{ANSWER_BYTES_MAX, Api, PIECE, ended, next_token, read};
use crate::error::ApiError;
use crate::{HttpError, UploadProgress};

/// How long an upload may take in all, as with the SDKs.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long the server may take to pack a template.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3600);

/// An archive on its way here.
#[derive(Debug)]
pub struct TemplateDownload(Download);

impl TemplateDownload {
    /// Of the whole archive, as the server says.
    pub fn bytes(&self) -> Option<u64> {
        let length = self.0.headers.get(CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }

    /// The next piece; `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        Ok(self.0.chunk().await?)
    }
}

impl Api {
    /// Asks for a build. It waits until it is started.
    pub async fn template_build_request(
        &self,
        new: &NewTemplateBuild,
    ) -> Result<RequestedTemplateBuild, ApiError> {
        let answer = self.server.post("/v3/templates", new).await?;
        read("template build request", &answer)
    }

    /// Whether the server has these files, and where to put them. The template by its id alone.
    pub async fn template_files_link(
        &self,
        template_id: &str,
        files_hash: &str,
    ) -> Result<TemplateFilesUpload, ApiError> {
        let files = format!("/files/{}", utf8_percent_encode(files_hash, PIECE));
        let answer = self.server.get(&path(template_id, &files)).await?;
        read("template files link", &answer)
    }

    /// Puts an archive of so many bytes where a link leads, within an hour. The link says itself that
    /// we may: the team's key does not go along.
    pub async fn template_files_upload(
        &self,
        link: &TemplateFilesUpload,
        archive: File,
        bytes: u64,
        progress: UploadProgress,
    ) -> Result<(), ApiError> {
        let url = link.url.as_deref().unwrap_or_default();
        let target: Uri = url.parse().map_err(|_| HttpError::BaseUrl {
            // What follows the host is a secret.
            url: url.split(['?', '#']).next().unwrap_or_default().to_owned(),
            reason: "the server's link for an upload is not a URL",
        })?;
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(target)
            .body(())
            .map_err(|source| HttpError::Path {
                path: "of an upload".to_owned(),
                source,
            })?;
        for (name, value) in link.headers.iter().flatten() {
            let (Ok(name), Ok(value)) = (
                HeaderName::try_from(name),
                HeaderValue::try_from(value.as_str()),
            ) else {
                return Err(HttpError::Header {
                    name: "that the server wants with an upload",
                }
                .into());
            };
            request.headers_mut().insert(name, value);
        }
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        let transport = &self.server.transport;
        let answer = transport
            .upload(request, archive, progress, ANSWER_BYTES_MAX, UPLOAD_TIMEOUT)
            .await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(ApiError::refused(&answer)),
        }
    }

    /// An OCI archive of a template, once the server has packed it, within an hour. `None`: there is no
    /// such template, or it is not for this team.
    pub async fn template_export(
        &self,
        template: &str,
    ) -> Result<Option<TemplateDownload>, ApiError> {
        let target = path(template, "/archive");
        let request = self.server.request(Method::GET, &target, Bytes::new())?;
        let transport = &self.server.transport;
        let begun = transport.download(request, ANSWER_BYTES_MAX, EXPORT_TIMEOUT);
        match begun.await? {
            Ok(download) => Ok(Some(TemplateDownload(download))),
            Err(answer) => match ApiError::refused(&answer) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Starts a build that waits.
    pub async fn template_build_start(
        &self,
        template_id: &str,
        build_id: &str,
        recipe: &StartTemplateBuild,
    ) -> Result<(), ApiError> {
        let template = utf8_percent_encode(template_id, PIECE);
        let build = utf8_percent_encode(build_id, PIECE);
        let path = format!("/v2/templates/{template}/builds/{build}");
        self.server.post(&path, recipe).await?;
        Ok(())
    }

    /// How a build is doing, and up to 100 entries of its log of at least this level, from this one
    /// on. Entries of lower levels do not count for the offset.
    pub async fn template_build_status(
        &self,
        template_id: &str,
        build_id: &str,
        logs_offset: u64,
        level: &str,
    ) -> Result<TemplateBuildInfo, ApiError> {
        let build = utf8_percent_encode(build_id, PIECE);
        let rest = format!("/builds/{build}/status?logsOffset={logs_offset}&level={level}");
        let answer = self.server.get(&path(template_id, &rest)).await?;
        read("template build status", &answer)
    }

    /// The team's templates, the newest first.
    pub async fn template_list(&self) -> Result<Vec<Template>, ApiError> {
        let mut templates = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let path = match &next {
                None => "/v2/templates".to_owned(),
                Some(token) => {
                    format!(
                        "/v2/templates?nextToken={}",
                        utf8_percent_encode(token, PIECE)
                    )
                }
            };
            let answer = self.server.get(&path).await?;
            next = next_token(&answer);
            templates.extend(read::<Vec<Template>>("template list", &answer)?);
            if next.is_none() {
                return Ok(templates);
            }
        }
        Err(ApiError::TooManyPages {
            operation: "templates",
            pages_max: PAGES_MAX,
        })
    }

    /// A template and its builds, the newest first, at most so many (1 to 100).
    pub async fn template_by_id(
        &self,
        template_id: &str,
        builds_max: u32,
    ) -> Result<TemplateWithBuilds, ApiError> {
        let rest = format!("?limit={builds_max}");
        let answer = self.server.get(&path(template_id, &rest)).await?;
        read("template get", &answer)
    }

    /// What a name without a tag stands for; `None`: nothing of this team's.
    pub async fn template_by_name(&self, name: &str) -> Result<Option<TemplateAlias>, ApiError> {
        let name = utf8_percent_encode(name, PIECE);
        match self.server.get(&format!("/templates/aliases/{name}")).await {
            Ok(answer) => read("template alias", &answer).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tags of a template, each with the build that got it last.
    pub async fn template_tags(&self, template_id: &str) -> Result<Vec<TemplateTag>, ApiError> {
        let answer = self.server.get(&path(template_id, "/tags")).await?;
        read("template tags", &answer)
    }

    /// Lets other teams use a template, or not; its full names.
    pub async fn template_publish(
        &self,
        template: &str,
        public: bool,
    ) -> Result<Vec<String>, ApiError> {
        let update = TemplateUpdate {
            public: Some(public),
        };
        let path = format!("/v2/templates/{}", utf8_percent_encode(template, PIECE));
        let answer = self.server.patch(&path, &update);
        let updated: UpdatedTemplate = read("template publish", &answer.await?)?;
        Ok(updated.names)
    }

    /// Gives the ready build to which `NAME`, `NAME:TAG` or `NAME:BUILD` leads more tags; those that
    /// another has move to it.
    pub async fn template_tags_assign(
        &self,
        target: &str,
        tags: &[String],
    ) -> Result<AssignedTags, ApiError> {
        let body = AssignTags {
            target: target.to_owned(),
            tags: Some(tags.to_vec()),
        };
        let answer = self.server.post("/templates/tags", &body).await?;
        read("template tags assign", &answer)
    }

    /// Takes tags of a template away; those that it has not are no error.
    pub async fn template_tags_remove(&self, name: &str, tags: &[String]) -> Result<(), ApiError> {
        let body = DeleteTags {
            name: name.to_owned(),
            tags: Some(tags.to_vec()),
        };
        self.server.delete_with("/templates/tags", &body).await?;
        Ok(())
    }

    /// Removes what the team's builds left and nothing needs, or says what would go.
    pub async fn builds_collect(&self, ask: &CollectBuilds) -> Result<CollectedBuilds, ApiError> {
        let answer = self.server.post("/builds/gc", ask).await?;
        read("builds collect", &answer)
    }

    /// Deletes a template with all its builds. False: there was none. One that sandboxes run from
    /// is refused.
    pub async fn template_delete(&self, template: &str) -> Result<bool, ApiError> {
        ended(self.server.delete(&path(template, "")).await)
    }
}

fn path(template: &str, rest: &str) -> String {
    format!("/templates/{}{rest}", utf8_percent_encode(template, PIECE))
}
