//! What every runtime must do, as checks that each kind's tests call.
//!
//! A check takes the runtime under test and what makes a specification that works on it; it
//! panics where the contract is broken. Ports inside sandboxes are the business of each kind's own
//! tests: there is no common way to open one.

use std::collections::BTreeSet;

use casemate_types::{CompiledPolicy, SandboxId};

use crate::{AdoptError, CreateError, CreateSpec, DialError, Runtime, RuntimeError};

/// Makes specifications of new sandboxes.
pub type NewSpec<'a> = &'a (dyn Fn() -> CreateSpec + Sync);

/// Calls every check.
pub async fn all(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    an_id_is_made_once(runtime, new_spec).await;
    stopping_is_idempotent(runtime, new_spec).await;
    what_is_not_there_is_not_found(runtime).await;
    rules_can_be_replaced_while_it_runs(runtime, new_spec).await;
    a_record_names_its_sandbox_and_can_be_adopted_again(runtime, new_spec).await;
    a_sweep_keeps_what_runs(runtime, new_spec).await;
    an_asked_for_end_is_no_exit(runtime, new_spec).await;
    a_look_sees_what_runs_and_consumption_never_shrinks(runtime, new_spec).await;
}

async fn an_id_is_made_once(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let spec = new_spec();
    runtime
        .create(spec.clone())
        .await
        .expect("the first is made");
    let again = runtime.create(spec.clone()).await;
    assert!(matches!(again, Err(CreateError::Exists(id)) if id == spec.sandbox));
    runtime.stop(&spec.sandbox).await.expect("it stops");
    runtime
        .create(spec.clone())
        .await
        .expect("a stopped id is free");
    runtime.stop(&spec.sandbox).await.expect("it stops");
}

async fn stopping_is_idempotent(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let spec = new_spec();
    runtime
        .stop(&spec.sandbox)
        .await
        .expect("what was never there stops");
    runtime.create(spec.clone()).await.expect("it is made");
    runtime.stop(&spec.sandbox).await.expect("it stops");
    runtime.stop(&spec.sandbox).await.expect("it stops again");
}

async fn what_is_not_there_is_not_found(runtime: &dyn Runtime) {
    let sandbox = SandboxId::random();
    let dialled = runtime.dial(&sandbox, 80).await;
    assert!(matches!(dialled, Err(DialError::NotFound(id)) if id == sandbox));
    let ruled = runtime.set_network(&sandbox, &CompiledPolicy::open()).await;
    assert!(matches!(ruled, Err(RuntimeError::NotFound(id)) if id == sandbox));
}

async fn rules_can_be_replaced_while_it_runs(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let mut spec = new_spec();
    let closed = "0.0.0.0/0".parse().expect("a literal range parses");
    spec.network = CompiledPolicy {
        deny: vec![closed],
        ..CompiledPolicy::default()
    };
    runtime
        .create(spec.clone())
        .await
        .expect("it is made with rules");
    let open = CompiledPolicy::open();
    runtime
        .set_network(&spec.sandbox, &open)
        .await
        .expect("rules are replaced");
    runtime
        .set_network(&spec.sandbox, &open)
        .await
        .expect("also by the same ones");
    runtime.stop(&spec.sandbox).await.expect("it stops");
}

async fn a_record_names_its_sandbox_and_can_be_adopted_again(
    runtime: &dyn Runtime,
    new_spec: NewSpec<'_>,
) {
    let spec = new_spec();
    let record = runtime.create(spec.clone()).await.expect("it is made");
    assert_eq!(record.sandbox, spec.sandbox);
    assert_eq!(record.kind, runtime.capabilities().kind);
    let text = serde_json::to_string(&record).expect("a record is text");
    let record = serde_json::from_str(&text).expect("and can be read again");
    runtime
        .adopt(&record)
        .await
        .expect("what runs here stays here");
    runtime.stop(&spec.sandbox).await.expect("it stops");
    let gone = runtime.adopt(&record).await;
    assert!(matches!(gone, Err(AdoptError::Gone { sandbox, .. }) if sandbox == spec.sandbox));
}

async fn a_sweep_keeps_what_runs(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let spec = new_spec();
    runtime.create(spec.clone()).await.expect("it is made");
    let keep = BTreeSet::from([spec.sandbox.clone()]);
    runtime.sweep(&keep).await.expect("sweeps");
    runtime.sweep(&keep).await.expect("sweeps again");
    let again = runtime.create(spec.clone()).await;
    assert!(
        matches!(again, Err(CreateError::Exists(_))),
        "it is still there"
    );
    runtime.stop(&spec.sandbox).await.expect("it stops");
}

async fn an_asked_for_end_is_no_exit(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let mut exits = runtime.exits();
    let spec = new_spec();
    runtime.create(spec.clone()).await.expect("it is made");
    runtime.stop(&spec.sandbox).await.expect("it stops");
    assert!(exits.try_recv().is_err());
}

async fn a_look_sees_what_runs_and_consumption_never_shrinks(
    runtime: &dyn Runtime,
    new_spec: NewSpec<'_>,
) {
    let spec = new_spec();
    let look = async || {
        let seen = runtime.look().await.expect("it is looked at");
        let mut of_it = seen.into_iter().filter(|one| one.sandbox == spec.sandbox);
        let found = of_it.next();
        assert_eq!(of_it.next(), None, "each is seen once");
        found.map(|one| one.consumption)
    };
    assert_eq!(look().await, None);
    runtime.create(spec.clone()).await.expect("it is made");
    let first = look().await.expect("what runs is seen");
    let second = look().await.expect("it still runs");
    assert!(first.cpu_time <= second.cpu_time);
    runtime.stop(&spec.sandbox).await.expect("it stops");
    assert_eq!(look().await, None);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use casemate_types::{Resources, TemplateId};

    use super::*;
    use crate::AgentConfig;
    use crate::fake::FakeRuntime;

    fn spec() -> CreateSpec {
        let sandbox = SandboxId::random();
        CreateSpec {
            agent: AgentConfig {
                version: AgentConfig::VERSION,
                sandbox_id: sandbox.clone(),
                template_id: TemplateId::random(),
                access_token: None,
                envs: Default::default(),
                default_user: "user".into(),
                default_workdir: None,
                hostname: "box".into(),
            },
            sandbox,
            lowers: vec![PathBuf::from("/")],
            resources: Resources::BASE,
            network: CompiledPolicy::open(),
            hostname: "box".into(),
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        all(&FakeRuntime::default(), &spec).await;
    }
}
