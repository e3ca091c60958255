//! COPY: an uploaded archive on its way into the sandbox; the agent unpacks it and puts it in place.

use casemate_store::CacheKey;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Bench, Copy, Left, PATH_BYTES_MAX};
use crate::builder::sandbox::COMMAND_LIMIT;
use crate::builder::{BuildError, UploadError, refusal, shell};

/// What stays as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

impl Bench<'_> {
    pub(super) async fn copy(&self, copy: &Copy) -> Result<Left, BuildError> {
        let key = CacheKey::parse(&copy.files);
        let key = key.ok_or_else(|| self.failed("COPY requires files hash to be set"))?;
        let target = self.path(&copy.target).await?;
        let (owner, group) = match copy.owner.as_deref().map(|owner| owner.split_once(':')) {
            None => (self.context.user.as_str(), ""),
            Some(None) => (copy.owner.as_deref().unwrap_or_default(), ""),
            Some(Some((owner, group))) => (owner, group),
        };
        let upload = self.uploads.open(self.team, &key).await;
        let upload = upload.map_err(|error| match error {
            UploadError::Missing => self.failed(format!(
                "failed to open files object from storage: there are no files {}",
                copy.files
            )),
            UploadError::Broken(why) => BuildError::Internal(why),
        })?;
        let mut query = String::from("/build/copy");
        let mut separator = '?';
        for (name, value) in [
            ("source", copy.source.as_str()),
            ("target", &target),
            ("owner", owner),
            ("group", group),
            ("mode", copy.mode.as_deref().unwrap_or_default()),
            (
                "workdir",
                self.context.workdir.as_deref().unwrap_or_default(),
            ),
        ] {
            if !value.is_empty() {
                let value = utf8_percent_encode(value, QUERY);
                query.push_str(&format!("{separator}{name}={value}"));
                separator = '&';
            }
        }
        let envd = self.sandbox.envd();
        let answer = envd.post_stream(&query, upload, COMMAND_LIMIT).await?;
        if answer.status.is_success() {
            return Ok(Left::Files(self.context.clone()));
        }
        let said = refusal(&answer);
        Err(self.failed(format!("failed to copy files: {said}")))
    }

    /// A path of the recipe with the variables put in, and below the user's home where there is no
    /// working folder to be below.
    async fn path(&self, path: &str) -> Result<String, BuildError> {
        let is_at_home = self.context.workdir.is_none() && !path.starts_with('/');
        if !shell::has_variables(path) && !is_at_home {
            return Ok(path.to_owned());
        }
        let script = format!(
            "target={}\nhome=$(getent passwd {} | cut -d: -f6)\n\
             case $target in /*) ;; *) [ {is_at_home} = false ] || target=$home/$target ;; esac\n\
             printf %s \"$target\"",
            shell::expanded(path),
            shell::word(&self.context.user),
        );
        let failing = "failed to copy files";
        let path = self.value(&script, self.context, failing).await?;
        match path.len() > PATH_BYTES_MAX || path.contains('\0') {
            false => Ok(path),
            true => Err(self.failed(format!("{failing}: the path is none"))),
        }
    }
}
