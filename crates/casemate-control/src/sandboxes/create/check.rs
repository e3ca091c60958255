//! Whether a create may be tried, in the order of `api.md` 3.2.1.

use std::collections::BTreeMap;

use casemate_store::Build;
use casemate_types::limits::{ENV_BYTES_MAX, ENV_ONE_BYTES_MAX, METADATA_BYTES_MAX};
use casemate_types::{CompiledPolicy, Ingress, NetworkPolicy};

use super::CreateSandbox;
use crate::auth::TeamCaller;
use crate::sandboxes::ingress;
use crate::sandboxes::network::NetworkError;

/// The first agent that asks its clients for a token.
const SECURE_SINCE: (u32, u32, u32) = (0, 2, 0);

/// Why a create is not tried. The texts are E2B's where E2B has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateRefused {
    #[error("Timeout must be greater than 0")]
    TimeoutZero,
    #[error("Timeout cannot be greater than {hours} hours")]
    TimeoutTooLong { hours: u32 },
    #[error("autoPauseMemory=false only applies when autoPause is true.")]
    AutoPauseMemoryAlone,
    #[error(
        "autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume: \
         traffic cannot wake a sandbox that has to boot."
    )]
    AutoPauseMemoryWithAutoResume,
    #[error(
        "You need to re-build template to allow using secured access. Its build names no envd \
         version."
    )]
    EnvdUnknown,
    #[error(
        "Template is not compatible with secured access. Its envd version is {0}, at least 0.2.0 \
         is needed."
    )]
    EnvdTooOld(String),
    #[error("The template asks for {asked} {what}, your team may use at most {max}")]
    TooBig {
        what: &'static str,
        asked: u32,
        max: u32,
    },
    #[error("metadata has {bytes} bytes, at most {METADATA_BYTES_MAX} are allowed")]
    MetadataTooLarge { bytes: usize },
    #[error("metadata has a NUL character in '{0}'; text without it is allowed")]
    MetadataNul(String),
    #[error("envVars have {bytes} bytes, at most {ENV_BYTES_MAX} are allowed")]
    EnvsTooLarge { bytes: usize },
    #[error(
        "the variable '{name}' of envVars has {bytes} bytes with its name, at most \
         {ENV_ONE_BYTES_MAX} are allowed"
    )]
    EnvTooLarge { name: String, bytes: usize },
    #[error(
        "envVars has a name or value that no process can have: '{0}' (a name needs a character and \
         has no '=', and neither it nor its value has a NUL)"
    )]
    EnvImpossible(String),
    #[error("Sandbox IAM workload tokens are not available for your team.")]
    Iam,
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("Volume mounts are not enabled.")]
    VolumeMounts,
}

pub(super) fn check(
    caller: &TeamCaller,
    ask: &CreateSandbox,
    build: &Build,
) -> Result<(NetworkPolicy, CompiledPolicy, Ingress), CreateRefused> {
    check_timeout(caller, ask.timeout_seconds)?;
    check_pause(ask)?;
    check_envd(&build.envd_version)?;
    check_size(caller, build)?;
    check_texts(ask)?;
    if ask.iam_tokens > 0 {
        return Err(CreateRefused::Iam);
    }
    let (policy, compiled) = ask.network.check(NetworkError::EgressProxyAtCreate)?;
    let ingress = ingress::check(&ask.network).map_err(NetworkError::from)?;
    if ask.volume_mounts > 0 {
        return Err(CreateRefused::VolumeMounts);
    }
    Ok((policy, compiled, ingress))
}

fn check_timeout(caller: &TeamCaller, seconds: u32) -> Result<(), CreateRefused> {
    let hours = caller.limits.life_hours_max;
    if seconds == 0 {
        return Err(CreateRefused::TimeoutZero);
    }
    if u64::from(seconds) > caller.limits.life_max().as_secs() {
        return Err(CreateRefused::TimeoutTooLong { hours });
    }
    Ok(())
}

fn check_pause(ask: &CreateSandbox) -> Result<(), CreateRefused> {
    if !ask.auto_pause_memory && !ask.auto_pause {
        return Err(CreateRefused::AutoPauseMemoryAlone);
    }
    if !ask.auto_pause_memory && ask.auto_resume {
        return Err(CreateRefused::AutoPauseMemoryWithAutoResume);
    }
    Ok(())
}

fn check_envd(version: &str) -> Result<(), CreateRefused> {
    if version.is_empty() {
        return Err(CreateRefused::EnvdUnknown);
    }
    match plain_version(version) {
        Some(version) if version >= SECURE_SINCE => Ok(()),
        _ => Err(CreateRefused::EnvdTooOld(version.into())),
    }
}

/// `MAJOR.MINOR.PATCH`, and nothing else.
fn plain_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

fn check_size(caller: &TeamCaller, build: &Build) -> Result<(), CreateRefused> {
    let (limits, wanted) = (&caller.limits, &build.resources);
    let sizes = [
        ("vCPUs", wanted.vcpus, limits.vcpus_max),
        ("MB of memory", wanted.memory_mib, limits.memory_mib_max),
    ];
    match sizes.into_iter().find(|(_, asked, max)| asked > max) {
        Some((what, asked, max)) => Err(CreateRefused::TooBig { what, asked, max }),
        None => Ok(()),
    }
}

fn check_texts(ask: &CreateSandbox) -> Result<(), CreateRefused> {
    let bytes = bytes(&ask.metadata);
    if bytes > METADATA_BYTES_MAX {
        return Err(CreateRefused::MetadataTooLarge { bytes });
    }
    // No database keeps it in a text, and no header could carry it.
    let has_nul = |(key, value): &(&String, &String)| key.contains('\0') || value.contains('\0');
    if let Some((key, _)) = ask.metadata.iter().find(has_nul) {
        return Err(CreateRefused::MetadataNul(key.escape_debug().to_string()));
    }
    let bytes = self::bytes(&ask.envs);
    if bytes > ENV_BYTES_MAX {
        return Err(CreateRefused::EnvsTooLarge { bytes });
    }
    let impossible = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = ask.envs.iter().find(impossible) {
        return Err(CreateRefused::EnvImpossible(shown(name)));
    }
    for (name, value) in &ask.envs {
        let bytes = name.len() + value.len();
        if bytes > ENV_ONE_BYTES_MAX {
            let name = shown(name);
            return Err(CreateRefused::EnvTooLarge { name, bytes });
        }
    }
    Ok(())
}

/// A name in a message: not the whole of a long one.
fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    name.escape_debug().take(CHARS_MAX).collect()
}

fn bytes(texts: &BTreeMap<String, String>) -> usize {
    texts
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

#[cfg(test)]
mod tests;
