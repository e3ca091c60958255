//! Asking for a build: what it is called, what it gets, and whether the team may have one more.

use std::time::Duration;

use casemate_store::{BuildId, BuildRequested, NewBuild, StoreError};
use casemate_types::limits::TEMPLATE_TAGS_MAX;
use casemate_types::template::{DEFAULT_TAG, TemplateRef, TemplateRefError, parse_new_tag};
use casemate_types::{BuildFailure, Resources, TemplateId, Timestamp};

use crate::Control;
use crate::auth::TeamCaller;
use crate::config::Limits;

/// Processors of any template at most, whatever a team's limit.
const VCPUS_MAX: u32 = 32;
const MEMORY_MIB_MIN: u32 = 128;
/// Builds that were asked for before are forgotten by the limit of builds.
const COUNTED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The same where it was not started: its client may be gone, and then nobody starts it.
const WAITING_MINUTES: u64 = 5;
const WAITING_FOR: Duration = Duration::from_secs(WAITING_MINUTES * 60);

/// A build as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestBuild {
    /// `[namespace/]alias[:tag]`.
    pub name: Option<String>,
    pub tags: Vec<String>,
    pub vcpus: Option<i32>,
    pub memory_mib: Option<i32>,
    pub free_disk_mib: Option<i32>,
}

/// A build that waits for its recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedBuild {
    pub template: TemplateId,
    pub build: BuildId,
    pub public: bool,
    /// Without namespace.
    pub alias: String,
    /// `namespace/alias`.
    pub name: String,
    pub tags: Vec<String>,
}

/// Why there is no build. The texts are E2B's where E2B has one.
#[derive(Debug, thiserror::Error)]
pub enum RequestBuildError {
    #[error("Name is required")]
    NoName,
    #[error("Invalid name: {0}")]
    Name(#[source] TemplateRefError),
    #[error("namespace '{namespace}' must match your team '{team}'")]
    Namespace { namespace: String, team: String },
    #[error("Invalid tag: {0}")]
    Tag(#[source] TemplateRefError),
    #[error("Invalid tag: {0} tags are too many, at most {TEMPLATE_TAGS_MAX} are allowed")]
    Tags(usize),
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    #[error("Alias '{0}' is already used")]
    AliasTaken(String),
    #[error(
        "you have reached the maximum number of concurrent template builds ({0}). Please wait for \
         existing builds to complete or contact support if you need more concurrent builds. \
         One that was asked for and not started counts for {waiting} minutes.", waiting = WAITING_MINUTES
    )]
    TooMany(u32),
    #[error("record a build")]
    Store(#[from] StoreError),
}

/// What a template cannot get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    #[error("CPU count must be at least 1")]
    VcpusMin,
    #[error("CPU count must be at most {VCPUS_MAX}")]
    VcpusMax,
    #[error("CPU count must be 1 or an even number")]
    VcpusOdd,
    #[error(
        "CPU count can't be higher than {0} (if you need to increase this limit, please contact \
         support)"
    )]
    VcpusTeam(u32),
    #[error("Memory must be at least {MEMORY_MIB_MIN} MiB")]
    MemoryMin,
    #[error("Memory must be divisible by 2")]
    MemoryOdd,
    #[error(
        "Memory can't be higher than {0} MiB (if you need to increase this limit, please contact \
         support)"
    )]
    MemoryTeam(u32),
    #[error("Free disk must be at least 0 MiB")]
    DiskMin,
    #[error(
        "Free disk can't be higher than {0} MiB (if you need to increase this limit, please \
         contact support)"
    )]
    DiskTeam(u32),
}

impl Control {
    /// Writes down a build of the caller's team that waits for its recipe.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn request_build(
        &self,
        caller: &TeamCaller,
        ask: &RequestBuild,
    ) -> Result<RequestedBuild, RequestBuildError> {
        let name = ask.name.as_deref().ok_or(RequestBuildError::NoName)?;
        let name = TemplateRef::parse_new(name).map_err(RequestBuildError::Name)?;
        let slug = &caller.team.slug;
        if let Some(namespace) = &name.namespace
            && namespace != slug
        {
            return Err(RequestBuildError::Namespace {
                namespace: namespace.clone(),
                team: slug.clone(),
            });
        }
        let tags = tags(&name, &ask.tags)?;
        let (limits, defaults) = (&caller.limits, self.config.template_resources);
        let now = Timestamp::now();
        let new = NewBuild {
            team: caller.team.id.clone(),
            namespace: slug.clone(),
            alias: name.name.clone(),
            tags: tags.clone(),
            build: BuildId::random(),
            template: TemplateId::random(),
            resources: resources(ask, limits, defaults)?,
            at: now,
            builds_max: limits.builds_max,
            counted_from: now.checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN),
            waiting_counted_from: now.checked_sub(WAITING_FOR).unwrap_or(Timestamp::MIN),
            superseded: BuildFailure {
                message: "The build was canceled because it was superseded by a newer one.".into(),
                step: None,
            },
        };
        match self.store.build_request(&new).await? {
            BuildRequested::Done { template, public } => {
                // The name may have led to the platform's template of that name until now.
                self.forget_builds().await;
                tracing::info!(
                    template.id = %template, build.id = %new.build, team.id = %new.team,
                    "build {} of template {template} was asked for", new.build
                );
                Ok(RequestedBuild {
                    template,
                    build: new.build,
                    public,
                    name: format!("{slug}/{}", name.name),
                    alias: name.name,
                    tags,
                })
            }
            BuildRequested::TooMany => Err(RequestBuildError::TooMany(limits.builds_max)),
            BuildRequested::AliasTaken => Err(RequestBuildError::AliasTaken(name.name)),
        }
    }
}

/// Of the name first; each once.
fn tags(name: &TemplateRef, more: &[String]) -> Result<Vec<String>, RequestBuildError> {
    if more.len() > TEMPLATE_TAGS_MAX {
        return Err(RequestBuildError::Tags(more.len()));
    }
    let mut tags = Vec::new();
    if name.tag != DEFAULT_TAG {
        tags.push(name.tag.clone());
    }
    for tag in more {
        let tag = parse_new_tag(tag).map_err(RequestBuildError::Tag)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.is_empty() {
        tags.push(DEFAULT_TAG.to_owned());
    }
    Ok(tags)
}

fn resources(
    ask: &RequestBuild,
    limits: &Limits,
    defaults: Resources,
) -> Result<Resources, ResourcesError> {
    // What is negative is below every minimum.
    let asked = |number: Option<i32>, default| match number {
        Some(number) => u32::try_from(number).ok(),
        None => Some(default),
    };
    let vcpus = asked(ask.vcpus, defaults.vcpus);
    let vcpus = vcpus.filter(|n| *n >= 1).ok_or(ResourcesError::VcpusMin)?;
    if vcpus > VCPUS_MAX {
        return Err(ResourcesError::VcpusMax);
    }
    if vcpus != 1 && !vcpus.is_multiple_of(2) {
        return Err(ResourcesError::VcpusOdd);
    }
    if vcpus > limits.vcpus_max {
        return Err(ResourcesError::VcpusTeam(limits.vcpus_max));
    }
    let memory = asked(ask.memory_mib, defaults.memory_mib);
    let memory_mib = memory
        .filter(|n| *n >= MEMORY_MIB_MIN)
        .ok_or(ResourcesError::MemoryMin)?;
    if !memory_mib.is_multiple_of(2) {
        return Err(ResourcesError::MemoryOdd);
    }
    if memory_mib > limits.memory_mib_max {
        return Err(ResourcesError::MemoryTeam(limits.memory_mib_max));
    }
    // Every sandbox may write as much as the most that can be asked for: nothing has to grow.
    match asked(ask.free_disk_mib, 0) {
        None => Err(ResourcesError::DiskMin),
        Some(free) if free > defaults.disk_mib => Err(ResourcesError::DiskTeam(defaults.disk_mib)),
        Some(_) => Ok(Resources {
            vcpus,
            memory_mib,
            ..defaults
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_checked_in_their_order() {
        let defaults = Resources {
            memory_mib: 1024,
            ..Resources::BASE
        };
        let check = |vcpus, memory_mib, free_disk_mib, expected: Result<(u32, u32), _>| {
            let ask = RequestBuild {
                vcpus,
                memory_mib,
                free_disk_mib,
                ..RequestBuild::default()
            };
            let found = resources(&ask, &Limits::default(), defaults);
            let found = found.map(|found| {
                assert_eq!(found.disk_mib, defaults.disk_mib);
                (found.vcpus, found.memory_mib)
            });
            assert_eq!(found, expected, "{ask:?}");
        };
        check(None, None, None, Ok((2, 1024)));
        check(Some(1), Some(128), Some(0), Ok((1, 128)));
        check(Some(8), Some(8192), Some(10 * 1024), Ok((8, 8192)));
        check(Some(0), Some(1), None, Err(ResourcesError::VcpusMin));
        check(Some(-2), None, None, Err(ResourcesError::VcpusMin));
        check(Some(3), Some(1), None, Err(ResourcesError::VcpusOdd));
        check(Some(33), None, None, Err(ResourcesError::VcpusMax));
        check(Some(34), None, None, Err(ResourcesError::VcpusMax));
        check(Some(10), None, None, Err(ResourcesError::VcpusTeam(8)));
        check(None, Some(64), None, Err(ResourcesError::MemoryMin));
        check(None, Some(-1024), None, Err(ResourcesError::MemoryMin));
        check(None, Some(1025), None, Err(ResourcesError::MemoryOdd));
        check(
            None,
            Some(8194),
            Some(-1),
            Err(ResourcesError::MemoryTeam(8192)),
        );
        check(None, None, Some(-1), Err(ResourcesError::DiskMin));
        check(
            None,
            None,
            Some(10 * 1024 + 1),
            Err(ResourcesError::DiskTeam(10 * 1024)),
        );
    }

    #[test]
    fn the_default_tag_is_given_when_no_other_is() {
        let check = |name: &str, more: &[&str], expected: &[&str]| {
            let name = TemplateRef::parse_new(name).unwrap();
            let more: Vec<String> = more.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(tags(&name, &more).unwrap(), expected, "{name:?} {more:?}");
        };
        check("x", &[], &["default"]);
        check("x:default", &[], &["default"]);
        check("x:v1", &[], &["v1"]);
        check("x:v1", &["V1", " a ", "a"], &["v1", "a"]);
        check("x:default", &["a"], &["a"]);
        check("x", &["default", "a"], &["default", "a"]);
    }
}
