//! What a recipe stands on: an image, of a registry or in an archive, unpacked and provisioned; or
//! another template.

use std::sync::Arc;
use std::time::Duration;

use casemate_images::{Image, ImageError};
use casemate_store::{Build, CacheKey, CachedLayer};
use casemate_types::limits::{ENV_BYTES_MAX, ENV_ONE_BYTES_MAX};
use casemate_types::{BuildContext, Distribution, Resources, chain};
use envd_client::process::Command;
use envd_client::{Answer, EnvdError, HttpError};
use http::StatusCode;
use serde::Deserialize;

use super::error::DISK_FULL;
use super::log::{Level, Phase};
use super::sandbox::{BuildSandbox, COMMAND_LIMIT, Ran};
use super::steps::bytes_of;
use super::work::Work;
use super::{BuildError, key};
use crate::recipe::RegistryLogin;

/// Run in every image; a part of the key of what comes of it.
pub(super) const PROVISION: &str = include_str!("provision.sh");
/// Reason's word for what happens before the first step.
pub(super) const STEP: &str = "base";
/// Of provisioning (`templates.md` 4.9).
const PROVISION_LIMIT: Duration = Duration::from_secs(300);
/// Lines of provisioning that a failure shows.
const TAIL_LINES: usize = 30;
/// What is read of `/etc/os-release`.
const OS_RELEASE_BYTES_MAX: usize = 64 * 1024;
/// Unpacking wants little memory, and the page cache helps.
const UNPACK_MEMORY_MIB: u32 = 1024;

/// On what the first step stands.
#[derive(Debug, Clone)]
pub enum Ground {
    Image {
        /// As the recipe says it.
        reference: String,
        login: Option<RegistryLogin>,
    },
    /// An image in a file that the team uploaded.
    Archive {
        /// The client's name of it.
        files: CacheKey,
        /// Which of several images in it.
        reference: Option<String>,
    },
    Template {
        /// As the recipe says it.
        name: String,
        /// It said so of an image, and that is at hand as this template.
        is_image: bool,
        /// What it stands for; ready, and the team may use it.
        build: Box<Build>,
        /// All its files, MiB; 0 where nobody looked.
        files_mib: u32,
    },
}

impl Ground {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Image { reference, .. } => format!("FROM {reference}"),
            Self::Archive {
                reference: Some(reference),
                ..
            } => format!("FROM ARCHIVE {reference}"),
            Self::Archive { .. } => "FROM ARCHIVE".into(),
            Self::Template {
                name,
                is_image: true,
                ..
            } => format!("FROM {name}"),
            Self::Template { name, .. } => format!("FROM TEMPLATE {name}"),
        }
    }
}

/// What a template's children begin with.
pub(super) fn of_template(build: &Build, is_image: bool, files_mib: u32) -> CachedLayer {
    let context = BuildContext {
        user: build.default_user.clone(),
        workdir: build.default_workdir.clone(),
        envs: build.envs.clone(),
    };
    CachedLayer {
        layers: build.layers.clone(),
        files: build.files.clone(),
        context: match is_image {
            false => context,
            // Of an image neither user nor folder count.
            true => BuildContext {
                user: "root".into(),
                workdir: None,
                ..context
            },
        },
        distribution: build.distribution.clone(),
        size_mib: files_mib,
    }
}

impl Work<'_> {
    /// An image's files, provisioned.
    pub(super) async fn of_image(
        &mut self,
        reference: &str,
        login: Option<&RegistryLogin>,
        phase: &Phase,
    ) -> Result<CachedLayer, BuildError> {
        let credentials = super::login::credentials(login);
        let scope = self.job.team.to_string();
        let images = Arc::clone(&self.builder.images);
        let image = images.resolve(reference, &credentials, &scope).await;
        let image = image.map_err(|error| image_error(phase, error))?;
        self.of_found(&image, phase).await
    }

    /// The same of one that was found.
    pub(super) async fn of_found(
        &mut self,
        image: &Image,
        phase: &Phase,
    ) -> Result<CachedLayer, BuildError> {
        if !is_usable(&context_of(image)) {
            let message = format!(
                "image '{}' cannot be used: its variables are longer than {ENV_BYTES_MAX} bytes, or \
                 one is longer than {ENV_ONE_BYTES_MAX}",
                image.asked
            );
            return Err(BuildError::recipe(phase.step(), message));
        }
        let size = shown(image.compressed_bytes);
        phase.say(Level::Info, format_args!("Base Docker image size: {size}"));
        let unpacked = self.unpacked(image, phase).await?;
        let provisioned = self.provisioned(unpacked, phase).await?;
        Ok(provisioned)
    }

    /// The image's files as a layer; unpacked when the team has it not yet.
    async fn unpacked(&mut self, image: &Image, phase: &Phase) -> Result<CachedLayer, BuildError> {
        let key = key::of_unpacked(&image.digest.to_string());
        let _turn = self.turn(&key, phase).await;
        if let Some(found) = self.find(&key, phase).await? {
            // What the reference means today.
            let context = context_of(image);
            return Ok(CachedLayer { context, ..found });
        }
        let say = |text: &str| phase.say(Level::Info, text);
        say("Creating file system and pulling Docker image");
        let resources = Resources {
            memory_mib: self.job.resources.memory_mib.max(UNPACK_MEMORY_MIB),
            disk_mib: self.builder.limits.image_mib_max,
            ..self.job.resources
        };
        let sandbox = self.begin(self.maker().plan_empty(resources)?).await?;
        for number in 0..image.layers.len() {
            let unpacked = self.unpack(&sandbox, image, number, phase).await;
            sandbox.explained(unpacked, STEP).await?;
        }
        say("Layers extracted");
        let distribution = distribution_of(&sandbox).await?;
        let (layer, bytes) = self.seal(&sandbox).await?;
        self.end(&sandbox).await;
        let unpacked = CachedLayer {
            layers: vec![layer.to_string()],
            files: None,
            context: context_of(image),
            distribution,
            size_mib: super::finalize::mib(bytes),
        };
        self.fits(&unpacked, STEP).await?;
        self.put(&key, &unpacked).await?;
        Ok(unpacked)
    }

    async fn unpack(
        &self,
        sandbox: &BuildSandbox,
        image: &Image,
        number: usize,
        phase: &Phase,
    ) -> Result<(), BuildError> {
        let layer = &image.layers[number];
        let (digest, size) = (&layer.digest, shown(layer.compressed_bytes));
        phase.say(
            Level::Info,
            format_args!("Uncompressing layer {digest} {size}"),
        );
        let reader = self.builder.images.layer(image, number, |_| {}).await;
        let reader = reader.map_err(|error| image_error(phase, error))?;
        let (body, verdict) = super::body::of_layer(reader);
        let envd = sandbox.envd();
        let answer = envd.post_stream("/build/layer", body, COMMAND_LIMIT).await;
        if let Ok(answer) = &answer
            && !answer.status.is_success()
        {
            let message = super::refusal(answer);
            let message = match answer.status {
                StatusCode::INSUFFICIENT_STORAGE => format!(
                    "the uncompressed Docker image size exceeds the maximum filesystem size \
                     ({} MB). Please reduce your Docker image size and build again",
                    self.builder.limits.image_mib_max
                ),
                _ => format!("failed to unpack layer {digest} of the image: {message}"),
            };
            return Err(BuildError::recipe(phase.step(), message));
        }
        // What was wrong with the content says more than that it ended.
        if let Ok(verdict) = verdict.await {
            verdict.map_err(|error| image_error(phase, error))?;
            let skipped = skipped(&answer?);
            if skipped > 0 {
                phase.say(
                    Level::Debug,
                    format_args!("Left out {skipped} entries of it: devices, or on other mounts"),
                );
            }
            return Ok(());
        }
        answer?;
        Err(BuildError::Internal(
            "a layer was not read to its end".into(),
        ))
    }

    async fn provisioned(
        &mut self,
        unpacked: CachedLayer,
        phase: &Phase,
    ) -> Result<CachedLayer, BuildError> {
        phase.say(Level::Info, "Provisioning sandbox template");
        let sandbox = self.begin(self.maker().plan(&unpacked)?).await?;
        let command = Command {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), PROVISION.into()],
            working_dir: Some("/".into()),
            limit: Some(PROVISION_LIMIT),
            ..Command::default()
        };
        let output = phase.clone().with_output(Level::Debug);
        let ran = sandbox.run_command("root", command, &output, None).await;
        let ran = ran.map_err(|error| match super::refused(&error) {
            // Without a shell there is nothing that could be provisioned.
            Some(why) => BuildError::recipe(
                STEP,
                format!("error waiting for provisioning sandbox: {why}"),
            ),
            None => error,
        })?;
        if !ran.is_ok() {
            let failed = Err(BuildError::recipe(
                STEP,
                format!(
                    "error waiting for provisioning sandbox: {}; provisioning output tail:\n{}",
                    provisioning_status(&ran),
                    ran.tail.lines(TAIL_LINES)
                ),
            ));
            return sandbox.explained(failed, STEP).await;
        }
        phase.say(Level::Info, "Provisioning was successful, cleaning up");
        let files = self.keep(&sandbox, None).await?;
        // The first step goes on in it.
        self.sandbox = Some(sandbox);
        phase.say(Level::Info, "Sandbox template provisioned");
        Ok(CachedLayer {
            files: Some(files),
            ..unpacked
        })
    }
}

/// Entries of a layer that the agent left out, as it says.
fn skipped(answer: &Answer) -> u64 {
    #[derive(Deserialize)]
    struct Done {
        skipped: u64,
    }
    let done = serde_json::from_slice::<Done>(&answer.body);
    done.map_or(0, |done| done.skipped)
}

/// The words for an exit are E2B's.
fn provisioning_status(ran: &Ran) -> String {
    match ran.end.exited {
        true => ran.with_memory(format!("exit status: {}", ran.end.exit_code)),
        false => ran.status(),
    }
}

/// What an image says of commands: only its variables count.
fn context_of(image: &Image) -> BuildContext {
    BuildContext {
        user: "root".into(),
        workdir: None,
        envs: image.env.iter().cloned().collect(),
    }
}

/// Whether processes can have its variables, and rows of every state.
fn is_usable(context: &BuildContext) -> bool {
    let one = |(name, value): (&String, &String)| name.len() + value.len() <= ENV_ONE_BYTES_MAX;
    context.envs.iter().all(one) && bytes_of(context) <= ENV_BYTES_MAX
}

/// What of the operator's settings fits. The file is the image's: anything may be in it.
async fn distribution_of(sandbox: &BuildSandbox) -> Result<Distribution, BuildError> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        let envd = sandbox.envd().clone().as_user("root");
        let content = match envd.file_read(path, OS_RELEASE_BYTES_MAX).await {
            Ok(content) => content,
            // What cannot be asked is not known, and would be kept as if it were.
            Err(EnvdError::Http(error @ (HttpError::Send { .. } | HttpError::Read { .. }))) => {
                return Err(error.into());
            }
            Err(_) => continue,
        };
        return Ok(distribution_in(&String::from_utf8_lossy(&content)));
    }
    Ok(Distribution::Other)
}

fn distribution_in(os_release: &str) -> Distribution {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some(id), Some(suite)) if id == "debian" => {
            Distribution::debian(&suite).unwrap_or(Distribution::Other)
        }
        _ => Distribution::Other,
    }
}

pub(super) fn image_error(phase: &Phase, error: ImageError) -> BuildError {
    match &error {
        ImageError::DiskFull => BuildError::Refused(DISK_FULL.into()),
        ImageError::Disk { .. } => BuildError::Internal(chain(&error)),
        ImageError::Unreachable { .. } => {
            // The tenant is not told why: they could map our network with it.
            tracing::info!(error = chain(&error), "a registry was not reached");
            BuildError::recipe(phase.step(), error.to_string())
        }
        _ => {
            tracing::debug!(error = chain(&error), "an image was not had");
            BuildError::recipe(phase.step(), error.to_string())
        }
    }
}

/// A size for people.
fn shown(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let bytes = bytes as f64;
    match bytes {
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_read_from_what_an_image_says() {
        let debian = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=trixie\n";
        assert_eq!(
            distribution_in(debian),
            Distribution::Debian("trixie".into())
        );
        for other in [
            "",
            "ID=ubuntu\nVERSION_CODENAME=jammy\n",
            "ID=debian\n",
            "ID=debian\nVERSION_CODENAME=../../etc\n",
            "ID=\"alpine\"\n",
        ] {
            assert_eq!(distribution_in(other), Distribution::Other, "{other}");
        }
    }
}
