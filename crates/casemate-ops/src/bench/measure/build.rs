//! A template's build as a client sees it: asked for, started, followed to its end.

use std::time::{Duration, Instant};

use casemate_client::api::{
    BuildLogEntry, NewTemplateBuild, RequestedTemplateBuild, StartTemplateBuild, TemplateStep,
};

use super::Bench;
use crate::bench::error::BenchError;

/// How often its status is asked for: what is measured takes some tens of milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A build that has not ended by then is given up.
const BUILD_MAX: Duration = Duration::from_secs(600);

/// A build that became ready.
pub(super) struct Built {
    pub(super) template_id: String,
    pub(super) took: Duration,
    /// Steps that were taken from the cache.
    pub(super) cached: usize,
    /// Steps that were run.
    pub(super) run: usize,
}

impl Built {
    /// An error unless so many steps were run, and all others taken from the cache.
    pub(super) fn has_run(&self, run: usize, steps: usize) -> Result<(), BenchError> {
        match (self.run, self.cached) == (run, steps - run) {
            true => Ok(()),
            false => Err(BenchError::Steps {
                run: self.run,
                cached: self.cached,
                expected: run,
                steps,
            }),
        }
    }
}

/// A step that runs a command as `root`.
pub(super) fn run_step(command: impl Into<String>) -> TemplateStep {
    TemplateStep {
        kind: "RUN".to_owned(),
        args: Some(vec![command.into(), "root".to_owned()]),
        files_hash: None,
        force: None,
    }
}

/// A name that no template has: `casemate-bench-` and more. It stands for this run in commands, too,
/// so that none is in the cache yet.
pub(super) fn new_name(what: &str) -> String {
    let mut number = [0; 8];
    getrandom::fill(&mut number).expect("the kernel's random source answers once booted");
    let number = u64::from_le_bytes(number);
    format!("casemate-bench-{what}-{number:016x}")
}

impl Bench<'_> {
    /// Builds a template on another one, and takes the time from the request until it is ready.
    pub(super) async fn build(
        &self,
        name: &str,
        from: &str,
        steps: &[TemplateStep],
    ) -> Result<Built, BenchError> {
        let recipe = StartTemplateBuild {
            from_template: Some(from.to_owned()),
            steps: Some(steps.to_vec()),
            ..StartTemplateBuild::default()
        };
        self.build_of(name, &recipe).await
    }

    /// Builds one on the template that is measured, which starts something.
    pub(super) async fn build_started(
        &self,
        name: &str,
        start: &str,
        ready: &str,
    ) -> Result<Built, BenchError> {
        let recipe = StartTemplateBuild {
            from_template: Some(self.options.template.clone()),
            start_cmd: Some(start.to_owned()),
            ready_cmd: Some(ready.to_owned()),
            ..StartTemplateBuild::default()
        };
        self.build_of(name, &recipe).await
    }

    async fn build_of(&self, name: &str, recipe: &StartTemplateBuild) -> Result<Built, BenchError> {
        let refused = |action| move |source| BenchError::Api { action, source };
        let begun = Instant::now();
        let new = NewTemplateBuild {
            name: Some(name.to_owned()),
            ..NewTemplateBuild::default()
        };
        let requested = self.api.template_build_request(&new).await;
        let requested = requested.map_err(refused("ask for a build"))?;
        let (template, build) = (&requested.template_id, &requested.build_id);
        let started = self.api.template_build_start(template, build, recipe);
        started.await.map_err(refused("start a build"))?;
        self.follow(requested, begun).await
    }

    async fn follow(
        &self,
        requested: RequestedTemplateBuild,
        begun: Instant,
    ) -> Result<Built, BenchError> {
        let (template, build) = (&requested.template_id, &requested.build_id);
        let (mut cached, mut run, mut offset) = (0, 0, 0);
        let mut took = None;
        loop {
            let info = self
                .api
                .template_build_status(template, build, offset, "info");
            let info = info.await.map_err(|source| BenchError::Api {
                action: "tell of a build",
                source,
            })?;
            match &*info.status {
                "waiting" | "building" if begun.elapsed() < BUILD_MAX => {}
                "waiting" | "building" => return Err(failed("it did not end")),
                // What is left of its log is not waited for by anybody.
                "ready" => took = took.or(Some(begun.elapsed())),
                _ => {
                    let reason = info.reason.map(|reason| reason.message);
                    return Err(failed(reason.as_deref().unwrap_or("it says not why")));
                }
            }
            offset += info.log_entries.len() as u64;
            for entry in &info.log_entries {
                match Line::of(entry) {
                    Line::Cached => cached += 1,
                    Line::Run => run += 1,
                    Line::Other => {}
                }
            }
            match took {
                Some(took) if info.log_entries.is_empty() => {
                    return Ok(Built {
                        template_id: requested.template_id,
                        took,
                        cached,
                        run,
                    });
                }
                Some(_) => {}
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Deletes a template; one that is not there is fine.
    pub(super) async fn delete_template(&self, template_id: &str) -> Result<(), BenchError> {
        let deleted = self.api.template_delete(template_id).await;
        deleted.map(drop).map_err(|source| BenchError::Api {
            action: "delete a template",
            source,
        })
    }
}

fn failed(why: &str) -> BenchError {
    BenchError::Build {
        why: why.to_owned(),
    }
}

/// What a line of a build's log says of a step of [`run_step`].
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Cached,
    Run,
    Other,
}

impl Line {
    /// `[builder 2/3] RUN …` names a step, `[builder 2/3] [stdout]: …` is what it wrote.
    fn of(entry: &BuildLogEntry) -> Self {
        let (line, is_cached) = match entry.message.strip_prefix("CACHED ") {
            Some(rest) => (rest, true),
            None => (&*entry.message, false),
        };
        let rest = line.strip_prefix("[builder ");
        let text = rest.and_then(|rest| rest.split_once("] "));
        match text {
            Some((_, text)) if text.starts_with("RUN ") => match is_cached {
                true => Self::Cached,
                false => Self::Run,
            },
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_types::Timestamp;

    use super::*;

    #[test]
    fn steps_are_told_from_what_they_write() {
        for (message, expected) in [
            ("[builder 1/2] RUN true root [ab]", Line::Run),
            ("CACHED [builder 1/2] RUN true root [ab]", Line::Cached),
            ("[builder 1/2] [stdout]: RUN x", Line::Other),
            ("CACHED [base] FROM TEMPLATE base [ab]", Line::Other),
            ("Build finished, took 0.1s", Line::Other),
        ] {
            let entry = BuildLogEntry {
                timestamp: Timestamp::now(),
                message: message.to_owned(),
                level: "info".to_owned(),
                step: None,
            };
            assert_eq!(Line::of(&entry), expected, "{message}");
        }
    }
}
