//! What an exported template says of itself in its image: user, folder and variables where every tool
//! looks for them, the commands that start it in a label of ours.
//!
//! An image without the label is anybody's, and read as `fromImage` reads one. One with it is hostile
//! all the same: what it says is checked here, and in a sandbox of its files (`archive.rs`).

use std::collections::BTreeMap;

use casemate_images::ProcessConfig;
use casemate_store::Build;
use casemate_types::limits::ENV_BYTES_MAX;
use casemate_types::{BuildContext, Startup};
use serde::{Deserialize, Serialize};

use super::steps::{PATH_BYTES_MAX, bytes_of, is_user};
use super::value::VALUE_BYTES_MAX;

/// Its name; the value is JSON.
const LABEL: &str = "casemate.template";
/// Of the value. Readers of this one refuse others; fields that it does not know it leaves out.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Label {
    version: u32,
    startup: Option<Commands>,
}

/// Variables are those of the image.
#[derive(Serialize, Deserialize)]
struct Commands {
    start: Option<String>,
    ready: String,
    user: String,
    workdir: Option<String>,
}

/// What was a template before it was an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) context: BuildContext,
    pub(super) startup: Option<Startup>,
}

/// A template as an image's config has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub process: ProcessConfig,
    /// As engines run it; empty: none.
    pub command: Vec<String>,
}

/// What an image of a template says.
pub fn exported(build: &Build) -> Exported {
    let startup = build.startup.as_ref();
    let label = Label {
        version: VERSION,
        startup: startup.map(|startup| Commands {
            start: startup.start.clone(),
            ready: startup.ready.clone(),
            user: startup.context.user.clone(),
            workdir: startup.context.workdir.clone(),
        }),
    };
    let label = serde_json::to_string(&label).expect("texts and numbers are JSON");
    let start = startup.and_then(|startup| startup.start.as_ref());
    let command = start.map(|start| ["/bin/bash", "-l", "-c", start].map(str::to_owned).into());
    let envs = build.envs.iter();
    Exported {
        process: ProcessConfig {
            env: envs
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            user: build.default_user.clone(),
            workdir: build.default_workdir.clone().unwrap_or_default(),
            labels: BTreeMap::from([(LABEL.to_owned(), label)]),
        },
        command: command.unwrap_or_default(),
    }
}

/// What an image says of the template that it was; `None`: it says nothing. The error is for whoever
/// imports it.
pub(super) fn read(process: &ProcessConfig) -> Result<Option<Kept>, String> {
    let Some(label) = process.labels.get(LABEL) else {
        return Ok(None);
    };
    let unreadable = || format!("the image's label {LABEL} cannot be read");
    // The version first: of a later one anything may be different.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(label).map_err(|_| unreadable())?;
    if version != VERSION {
        return Err(format!(
            "the image's label {LABEL} is of version {version}, and only {VERSION} can be used"
        ));
    }
    let label: Label = serde_json::from_str(label).map_err(|_| unreadable())?;
    let envs = process.env.iter().map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    });
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let context = BuildContext {
        user: process.user.clone(),
        workdir: given(&process.workdir),
        envs: envs.collect(),
    };
    let startup = label.startup.map(|commands| Startup {
        start: commands.start,
        ready: commands.ready,
        context: BuildContext {
            user: commands.user,
            workdir: commands.workdir,
            envs: context.envs.clone(),
        },
    });
    let kept = Kept { context, startup };
    match is_usable(&kept) {
        true => Ok(Some(kept)),
        false => Err("what the image says of its processes cannot be used".into()),
    }
}

fn is_usable(kept: &Kept) -> bool {
    let is_command = |text: &str| text.len() < VALUE_BYTES_MAX && !text.contains('\0');
    let is_workdir = |path: &String| {
        path.starts_with('/') && path.len() <= PATH_BYTES_MAX && !path.contains(['\n', '\0'])
    };
    let is_placed = |context: &BuildContext| {
        is_user(&context.user) && context.workdir.as_ref().is_none_or(is_workdir)
    };
    let is_variable = |(name, value): (&String, &String)| {
        let bytes = name.len() + value.len();
        !name.is_empty()
            && bytes <= VALUE_BYTES_MAX - 2
            && !name.contains('\0')
            && !value.contains('\0')
    };
    let starts = |startup: &Startup| {
        is_placed(&startup.context)
            && startup.start.as_deref().is_none_or(is_command)
            && is_command(&startup.ready)
    };
    let context = &kept.context;
    is_placed(context)
        && context.envs.iter().all(is_variable)
        && bytes_of(context) <= ENV_BYTES_MAX
        && kept.startup.as_ref().is_none_or(starts)
}

#[cfg(test)]
mod tests {
    use casemate_store::BuildId;
    use casemate_types::{Distribution, Resources, TemplateId, Timestamp};

    use super::*;

    fn build() -> Build {
        let context = BuildContext {
            user: "root".into(),
            workdir: None,
            envs: [("A", "b=c "), ("EMPTY", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        Build {
            id: BuildId::random(),
            template: TemplateId::random(),
            layers: Vec::new(),
            resources: Resources::BASE,
            default_user: "me".into(),
            default_workdir: Some("/srv".into()),
            envs: context.envs.clone(),
            envd_version: String::new(),
            files: None,
            startup: Some(Startup {
                start: Some("run \"it\"".into()),
                ready: "true".into(),
                context,
            }),
            distribution: Distribution::Other,
            created_at: Timestamp::now(),
        }
    }

    #[test]
    fn what_a_template_is_comes_back() {
        let mut build = build();
        for _ in 0..3 {
            let said = exported(&build);
            let kept = read(&said.process).unwrap().unwrap();
            assert_eq!(kept.startup, build.startup);
            assert_eq!(kept.context.envs, build.envs);
            assert_eq!(kept.context.user, build.default_user);
            assert_eq!(kept.context.workdir, build.default_workdir);
            let start = build.startup.as_ref().and_then(|all| all.start.clone());
            assert_eq!(said.command.last(), start.as_ref());
            match &mut build.startup {
                Some(startup) if startup.start.is_some() => startup.start = None,
                startup => (*startup, build.default_workdir) = (None, None),
            }
        }
        assert_eq!(read(&ProcessConfig::default()), Ok(None));
    }

    #[test]
    fn what_nobody_could_use_is_refused() {
        let check = |change: &dyn Fn(&mut ProcessConfig)| {
            let mut process = exported(&build()).process;
            change(&mut process);
            assert!(read(&process).is_err(), "{process:?}");
        };
        check(&|process| process.user = String::new());
        check(&|process| process.user = "a b".into());
        check(&|process| process.workdir = "srv".into());
        check(&|process| process.workdir = "/a\nb".into());
        check(&|process| process.env.push("=x".into()));
        check(&|process| process.env.push("A=\0".into()));
        check(&|process| {
            process
                .env
                .push(format!("A={}", "x".repeat(VALUE_BYTES_MAX)))
        });
        for label in [
            "",
            "[]",
            r#"{"version":2}"#,
            r#"{"version":1,"startup":{"ready":"x"}}"#,
            r#"{"version":1,"startup":{"ready":"x","user":"../x"}}"#,
            r#"{"version":1,"startup":{"ready":"\u0000","user":"x"}}"#,
        ] {
            check(&|process| {
                process.labels.insert(LABEL.into(), label.into());
            });
        }
    }
}
