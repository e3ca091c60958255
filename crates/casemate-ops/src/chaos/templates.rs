//! Templates that the load builds: what was told to be ready can be begun with, and holds what its
//! step wrote, whoever died since.
//!
//! There are few recipes, built once before anything is measured: what the cache keeps of them stays,
//! and what a forced build makes anew takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_client::ApiError;
use casemate_client::api::{
    NewSandbox, NewTemplateBuild, RequestedTemplateBuild, StartTemplateBuild, TemplateBuildInfo,
    TemplateStep,
};
use casemate_types::chain;

use super::asking::{ANSWER, Changed, Means, PATIENCE, RETRY, is_nobody_there};
use super::error::ChaosError;
use super::ledger::add;
use super::life::{End, Life, PAUSE_MS, shell};
use super::lot;
use super::memory::Memory;
use super::world::{LONG, Standing, World, lock};

/// Different ones that are built.
const RECIPES: usize = 3;
/// Templates that are there at the same time; then one is deleted before another is built.
const KEPT_MAX: usize = 4;
/// A build of one step, while its platform is killed again and again: then it is interrupted.
const BUILD: Duration = Duration::from_secs(120);
const OUTPUT_BYTES_MAX: usize = 4096;
/// How a build begins to say that its process ended.
const INTERRUPTED: &str = "the build was interrupted";
/// What it says where the node, or a sandbox's agent, went away under it.
const INTERNAL: &str = "An internal error occurred.";

/// Whether a death can be what ends a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killings {
    Go,
    /// Nobody is killed now.
    Over,
}

/// What is known of all that were told to be ready: the recipe of each, by its id.
pub(super) type Templates = HashMap<String, usize>;

/// Builds, begins with what was built, and deletes, until the run is over.
pub(super) async fn templates(world: Arc<World>) {
    while !world.is_over() {
        let there = lock(&world.templates).len();
        match lot::index(3) {
            0 if there > 0 => world.begin_with_some_template().await,
            _ if there >= KEPT_MAX => world.delete_some_template().await,
            _ => world.build_some_template().await,
        }
        tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
    }
}

impl World {
    /// Builds every recipe once and deletes it again, while nobody is killed: then a build has no
    /// reason to fail.
    pub(super) async fn calm_templates(&self) {
        for recipe in 0..RECIPES {
            if let Some(id) = self.build_template(recipe, Killings::Over).await {
                self.begin_with_template(&id, recipe).await;
            }
        }
        while self.delete_one_template().await {}
    }

    async fn build_some_template(&self) {
        let recipe = lot::index(RECIPES);
        if let Some(id) = self.build_template(recipe, Killings::Go).await {
            self.begin_with_template(&id, recipe).await;
        }
    }

    /// The template's id, where its build was told to be ready.
    async fn build_template(&self, recipe: usize, killings: Killings) -> Option<String> {
        let new = NewTemplateBuild {
            name: Some(format!("chaos-{}", lot::word())),
            ..NewTemplateBuild::default()
        };
        // One whose answer was lost waits for its recipe for ever, and goes at the end.
        let asked = self.server.api.template_build_request(&new).await;
        let asked = self.answered("ask for a build", asked)?;
        let RequestedTemplateBuild {
            template_id,
            build_id,
            ..
        } = asked;
        let start = recipe_of(recipe);
        let started = self
            .server
            .api
            .template_build_start(&template_id, &build_id, &start);
        // It may have begun all the same: its status says so.
        self.answered("start a build", started.await);
        let told = self.built(&template_id, &build_id).await?;
        match told.status.as_str() {
            "ready" => {
                add(&self.ledger.built);
                lock(&self.templates).insert(template_id.clone(), recipe);
                return Some(template_id);
            }
            // Its start was not heard.
            "waiting" if killings == Killings::Go => {}
            _ => {
                add(&self.ledger.builds_failed);
                let reason = told.reason.map(|reason| reason.message).unwrap_or_default();
                let of_death = [INTERRUPTED, INTERNAL];
                let is_of_death = of_death.iter().any(|words| reason.starts_with(words));
                if killings == Killings::Over || !is_of_death {
                    let status = told.status;
                    let sentence = format!("build {build_id} of {template_id}: {status}: {reason}");
                    self.ledger.wrong(sentence);
                }
            }
        }
        self.delete_template(&template_id).await;
        None
    }

    /// How a build ended, or that it was never begun.
    async fn built(&self, template: &str, build: &str) -> Option<TemplateBuildInfo> {
        let begun = Instant::now();
        let mut waited = None;
        loop {
            let asked = self
                .server
                .api
                .template_build_status(template, build, 0, "error");
            match asked.await {
                Ok(told) => match told.status.as_str() {
                    "ready" | "error" => return Some(told),
                    // A start that is under way changes that at once.
                    "waiting" if waited.get_or_insert_with(Instant::now).elapsed() > ANSWER => {
                        return Some(told);
                    }
                    _ => {}
                },
                Err(error) if is_nobody_there(&error) => add(&self.ledger.retries),
                Err(error) => {
                    let said = chain(&error);
                    let sentence = format!("build {build} could not be asked for: {said}");
                    self.ledger.wrong(sentence);
                    return None;
                }
            }
            if begun.elapsed() > BUILD {
                self.ledger.wrong(format!("build {build} has no end"));
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn begin_with_some_template(&self) {
        let chosen = {
            let known = lock(&self.templates);
            let at = lot::index(known.len());
            let found = known.iter().nth(at);
            found.map(|(id, recipe)| (id.clone(), *recipe))
        };
        if let Some((id, recipe)) = chosen {
            self.begin_with_template(&id, recipe).await;
        }
    }

    /// A sandbox of it has what its recipe wrote.
    async fn begin_with_template(&self, id: &str, recipe: usize) {
        let new = NewSandbox {
            template: id.to_owned(),
            timeout: Some(LONG),
            ..NewSandbox::default()
        };
        let begun = Instant::now();
        let made = loop {
            match tokio::time::timeout(ANSWER, self.server.api.sandbox_create(&new)).await {
                Ok(Ok(made)) => break made,
                Ok(Err(error)) if is_nobody_there(&error) && begun.elapsed() < PATIENCE => {
                    add(&self.ledger.unanswered);
                    tokio::time::sleep(RETRY).await;
                }
                failed => {
                    let said = failed.map(|other| other.map(drop).map_err(|e| chain(&e)));
                    let sentence = format!("{id} was told to be ready, and nothing begins with it");
                    return self.ledger.lost(format!("{sentence}: {said:?}"));
                }
            }
        };
        add(&self.ledger.created);
        add(&self.ledger.from_templates);
        self.stand(&made.sandbox_id, Standing::Runs(None));
        let Some(life) = Life::new(self, &made, End::Asked, Memory::default(), None) else {
            return;
        };
        let read = life.ask("read what was built", || async {
            let script = "cat /home/user/built".to_owned();
            let read = life.envd.process_start(shell(script)).await?;
            let read = read.collect(OUTPUT_BYTES_MAX).await?;
            Ok(String::from_utf8_lossy(&read.stdout).into_owned())
        });
        if let Some(said) = read.await
            && said.trim() != written(recipe)
        {
            let sentence = format!("{id} holds {said:?} and not what its recipe writes");
            self.ledger.wrong(sentence);
        }
        life.kill().await;
    }

    async fn delete_some_template(&self) {
        self.delete_one_template().await;
    }

    /// Whether there was one.
    async fn delete_one_template(&self) -> bool {
        let chosen = {
            let mut known = lock(&self.templates);
            let at = lot::index(known.len());
            let id = known.keys().nth(at).cloned();
            id.and_then(|id| known.remove_entry(&id))
        };
        match chosen {
            Some((id, _)) => {
                self.delete_template(&id).await;
                true
            }
            None => false,
        }
    }

    /// It is in no list of ours.
    async fn delete_template(&self, id: &str) {
        // A create whose answer was lost may use it still: it goes at the end.
        let in_use = |error: &ApiError| match error {
            ApiError::Refused { message, .. } if message.contains("sandboxes using it") => {
                Means::Made
            }
            _ => Means::Wrong,
        };
        let delete = || async {
            match self.server.api.template_delete(id).await {
                Err(error) if in_use(&error) == Means::Made => Ok(true),
                other => other,
            }
        };
        if let Changed::Now(false) = self.change((id, "delete it"), delete, in_use).await {
            self.ledger
                .lost(format!("{id} was not there to be deleted"));
        }
    }

    /// After the load, when no sandbox is left: begins with every template that is known, and deletes
    /// all, also those of calls that had no answer. Then everything builds as if nothing had been.
    pub(super) async fn last_templates(&self) -> Result<(), ChaosError> {
        let known: Vec<_> = lock(&self.templates).drain().collect();
        for (id, recipe) in &known {
            self.begin_with_template(id, *recipe).await;
        }
        let api = &self.server.api;
        let listed = api.template_list().await.map_err(ChaosError::LastLook)?;
        for (id, _) in known {
            if !listed.iter().any(|one| one.template_id == id) {
                self.ledger.lost(format!("{id} is there and not listed"));
            }
        }
        for left in listed {
            let deleted = api.template_delete(&left.template_id).await;
            deleted.map_err(ChaosError::LastLook)?;
        }
        self.calm_templates().await;
        Ok(())
    }

    /// What a call answered; `None`: nobody was there, or the answer was wrong, which is noted.
    fn answered<T>(&self, what: &str, asked: Result<T, ApiError>) -> Option<T> {
        match asked {
            Ok(answer) => Some(answer),
            Err(error) if is_nobody_there(&error) => {
                add(&self.ledger.retries);
                None
            }
            Err(error) => {
                let said = chain(&error);
                self.ledger.wrong(format!("could not {what}: {said}"));
                None
            }
        }
    }
}

/// Its step is forced: with what is cached alone nothing would be made.
fn recipe_of(recipe: usize) -> StartTemplateBuild {
    let script = format!("echo {} > /home/user/built", written(recipe));
    let step = TemplateStep {
        kind: "RUN".into(),
        args: Some(vec![script]),
        files_hash: None,
        force: Some(true),
    };
    StartTemplateBuild {
        from_template: Some("base".into()),
        steps: Some(vec![step]),
        ..StartTemplateBuild::default()
    }
}

fn written(recipe: usize) -> String {
    format!("recipe-{recipe}")
}
