//! Creates that find a sandbox which is started already.

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{ClaimRequest, CreateRequest};
use casemate_store::Build;
use casemate_types::{CompiledPolicy, NetworkPolicy, OnTimeout, SandboxId, TeamId};

use super::{CreateError, Created, Plan, millis};
use crate::Control;
use crate::auth::TeamCaller;
use crate::sandboxes::place::PlacementError;
use crate::warm::Key;

impl Control {
    /// `None`: none is there, and nothing is left of any that was.
    pub(super) async fn create_from_warm(
        &self,
        caller: &TeamCaller,
        plan: &Plan,
    ) -> Result<Option<Created>, CreateError> {
        if plan.build.started_with().is_none() {
            return Ok(None);
        }
        let team = &caller.team.id;
        let key = Key::new(team, &plan.build, &plan.compiled);
        let Some(taken) = self.warm.take(&key) else {
            return Ok(None);
        };
        let plan = Plan {
            sandbox: taken.sandbox().clone(),
            ..plan.clone()
        };
        let max = caller.limits.sandboxes_max;
        let place = self.take_place(team, &plan.sandbox, max).await?;
        let node = self.nodes.get(taken.node()).map_err(PlacementError::from)?;
        let _starting = self.starting.enter(&plan.sandbox, &node);
        let claim = ClaimRequest {
            life_ms: millis(plan.life),
            on_timeout: plan.on_timeout,
            entrance: Some(self.keys.entrance(&plan.sandbox, &plan.ingress)),
        };
        let Some(reply) = self.claim(taken, claim, &plan.envs).await else {
            return Ok(None);
        };
        failpoint::hit(Point::CreatePlaced);
        self.created(caller, plan, place, &node, &reply).await
    }

    /// Whoever was given one may want more.
    pub(super) fn note_use(&self, team: &TeamId, build: &Build, network: &CompiledPolicy) {
        if build.started_with().is_some() {
            let key = Key::new(team, build, network);
            self.warm_used(&key, warm_request(team, build, network));
        }
    }

    /// A template is used for the first time soon after it was built: as if a sandbox that asks for
    /// nothing had been made of it.
    pub(crate) fn warm_up(self: &Arc<Self>, team: &TeamId, build: &Build) {
        // Nothing in it can be wrong.
        if let Ok(network) = NetworkPolicy::default().compile() {
            // Its name leads here from now on.
            self.drop_warm_before(&build.template, &Key::new(team, build, &network));
            self.note_use(team, build, &network);
        }
    }
}

/// What makes one for whoever asks next; its name, token and life come with it.
fn warm_request(team: &TeamId, build: &Build, network: &CompiledPolicy) -> CreateRequest {
    CreateRequest {
        sandbox: SandboxId::random(),
        team: team.clone(),
        template: build.template.clone(),
        layers: build.layers.clone(),
        distribution: Some(build.distribution.clone()),
        resources: build.resources,
        network: network.clone(),
        envs: BTreeMap::new(),
        access_token: None,
        default_user: build.default_user.clone(),
        default_workdir: build.default_workdir.clone(),
        life_ms: 0,
        on_timeout: OnTimeout::Kill,
        files: build.files.clone(),
        startup: build.started_with().cloned(),
        warm: true,
        creator: String::new(),
        entrance: None,
    }
}
