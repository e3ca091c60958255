//! What every runtime must do, as checks that each kind's tests call.
//!
//! A check takes the runtime under test and what makes a specification that works on it; it
//! panics where the contract is broken. Ports inside sandboxes are the business of each kind's own
//! tests: there is no common way to open one.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use casemate_types::{CompiledPolicy, LayerId, Portable, SandboxId, SnapshotId};

use crate::{
    AdoptError, CarryError, CreateError, CreateSpec, DialError, Runtime, RuntimeError,
    SnapshotError, Snapshots,
};

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
    a_frozen_one_is_thawed_adopted_and_stopped(runtime, new_spec).await;
}

/// Calls every check of [`Snapshots`]. What is inside files is the business of each kind's own
/// tests.
pub async fn all_of_snapshots<R: Runtime + Snapshots>(runtime: &R, new_spec: NewSpec<'_>) {
    a_snapshot_is_named_once_and_outlives_its_sandbox(runtime, new_spec).await;
    a_suspended_one_is_gone_and_begins_again_with_its_files(runtime, new_spec).await;
    a_frozen_one_stays_frozen_in_a_snapshot(runtime, new_spec).await;
    what_nobody_runs_cannot_be_kept(runtime).await;
    a_sweep_keeps_snapshots(runtime, new_spec).await;
    a_sealed_layer_is_its_own_and_stays_until_it_is_removed(runtime, new_spec).await;
    what_leaves_comes_back_the_same(runtime, new_spec).await;
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

async fn a_frozen_one_is_thawed_adopted_and_stopped(runtime: &dyn Runtime, new_spec: NewSpec<'_>) {
    let spec = new_spec();
    let record = runtime.create(spec.clone()).await.expect("it is made");
    let id = &spec.sandbox;
    runtime.freeze(id).await.expect("it freezes");
    runtime.freeze(id).await.expect("freezing is idempotent");
    let seen = runtime.look().await.expect("it is looked at");
    assert!(seen.iter().any(|one| one.sandbox == *id), "it is there");
    runtime.adopt(&record).await.expect("it can be taken over");
    runtime.thaw(id).await.expect("it thaws");
    runtime.thaw(id).await.expect("thawing is idempotent");
    runtime.freeze(id).await.expect("it freezes again");
    runtime.stop(id).await.expect("a frozen one stops");
    let gone = runtime.freeze(id).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound(gone)) if gone == *id));
    let gone = runtime.thaw(id).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound(gone)) if gone == *id));
    runtime.create(spec.clone()).await.expect("its id is free");
    runtime.stop(id).await.expect("it stops");
}

/// Whether a snapshot is kept.
async fn is_kept(runtime: &impl Snapshots, snapshot: &SnapshotId) -> bool {
    let kept = runtime.list().await.expect("snapshots are listed");
    let has = runtime.has(snapshot).await.expect("it is looked for");
    assert_eq!(has, kept.contains_key(snapshot), "both say the same");
    has
}

async fn begins_with(runtime: &dyn Runtime, mut spec: CreateSpec, snapshot: &SnapshotId) {
    spec.files = Some(snapshot.clone());
    runtime.create(spec.clone()).await.expect("it begins");
    runtime.stop(&spec.sandbox).await.expect("it stops");
}

async fn a_snapshot_is_named_once_and_outlives_its_sandbox<R: Runtime + Snapshots>(
    runtime: &R,
    new_spec: NewSpec<'_>,
) {
    let (spec, snapshot) = (new_spec(), SnapshotId::random());
    runtime.create(spec.clone()).await.expect("it is made");
    let id = &spec.sandbox;
    runtime.take(id, &snapshot).await.expect("it is kept");
    let again = runtime.take(id, &snapshot).await;
    assert!(matches!(again, Err(SnapshotError::Exists(id)) if id == snapshot));
    runtime.stop(id).await.expect("it stops");
    assert!(is_kept(runtime, &snapshot).await);
    begins_with(runtime, new_spec(), &snapshot).await;
    begins_with(runtime, new_spec(), &snapshot).await;
    runtime.remove(&snapshot).await.expect("it is removed");
    runtime
        .remove(&snapshot)
        .await
        .expect("removing is idempotent");
    assert!(!is_kept(runtime, &snapshot).await);
    let mut spec = new_spec();
    spec.files = Some(snapshot);
    let refused = runtime.create(spec).await;
    assert!(matches!(refused, Err(CreateError::Unsupported { .. })));
}

async fn a_suspended_one_is_gone_and_begins_again_with_its_files<R: Runtime + Snapshots>(
    runtime: &R,
    new_spec: NewSpec<'_>,
) {
    let mut exits = runtime.exits();
    for frozen in [false, true] {
        let (spec, snapshot) = (new_spec(), SnapshotId::random());
        let record = runtime.create(spec.clone()).await.expect("it is made");
        let id = &spec.sandbox;
        if frozen {
            runtime.freeze(id).await.expect("it freezes");
        }
        runtime.suspend(id, &snapshot).await.expect("it is kept");
        assert!(exits.try_recv().is_err(), "an asked-for end is no exit");
        let gone = runtime.adopt(&record).await;
        assert!(matches!(gone, Err(AdoptError::Gone { .. })));
        let found = runtime.salvage(&record, &snapshot).await.expect("it looks");
        assert!(found, "what was kept is found again");
        // Under its own id again.
        begins_with(runtime, spec.clone(), &snapshot).await;
        runtime.remove(&snapshot).await.expect("it is removed");
    }
}

async fn a_frozen_one_stays_frozen_in_a_snapshot<R: Runtime + Snapshots>(
    runtime: &R,
    new_spec: NewSpec<'_>,
) {
    let (spec, snapshot) = (new_spec(), SnapshotId::random());
    runtime.create(spec.clone()).await.expect("it is made");
    let id = &spec.sandbox;
    runtime.freeze(id).await.expect("it freezes");
    runtime.take(id, &snapshot).await.expect("it is kept");
    runtime.thaw(id).await.expect("it thaws");
    runtime.stop(id).await.expect("it stops");
    runtime.remove(&snapshot).await.expect("it is removed");
}

async fn what_nobody_runs_cannot_be_kept<R: Runtime + Snapshots>(runtime: &R) {
    let (sandbox, snapshot) = (SandboxId::random(), SnapshotId::random());
    let taken = runtime.take(&sandbox, &snapshot).await;
    assert!(matches!(taken, Err(SnapshotError::NotFound(id)) if id == sandbox));
    let suspended = runtime.suspend(&sandbox, &snapshot).await;
    assert!(matches!(suspended, Err(SnapshotError::NotFound(id)) if id == sandbox));
    assert!(!is_kept(runtime, &snapshot).await);
}

async fn a_sweep_keeps_snapshots<R: Runtime + Snapshots>(runtime: &R, new_spec: NewSpec<'_>) {
    let (spec, snapshot) = (new_spec(), SnapshotId::random());
    runtime.create(spec.clone()).await.expect("it is made");
    runtime
        .suspend(&spec.sandbox, &snapshot)
        .await
        .expect("it is kept");
    runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    assert!(is_kept(runtime, &snapshot).await);
    begins_with(runtime, new_spec(), &snapshot).await;
    runtime.remove(&snapshot).await.expect("it is removed");
}

async fn a_sealed_layer_is_its_own_and_stays_until_it_is_removed<R: Runtime + Snapshots>(
    runtime: &R,
    new_spec: NewSpec<'_>,
) {
    let (spec, snapshot, layer) = (new_spec(), SnapshotId::random(), LayerId::random());
    let missing = runtime.seal(&snapshot, &layer).await;
    assert!(matches!(missing, Err(SnapshotError::NoSnapshot(id)) if id == snapshot));
    let all = async || runtime.layers().await.expect("layers are listed");
    assert!(!all().await.contains(&layer), "nothing is left of it");
    runtime.create(spec.clone()).await.expect("it is made");
    let kept = runtime.suspend(&spec.sandbox, &snapshot).await;
    kept.expect("it is kept");
    let what = Portable::Layer(layer.clone());
    let measured = async || runtime.measure(&what).await.expect("it is measured");
    assert_eq!(measured().await, None);
    let bytes = runtime.seal(&snapshot, &layer).await.expect("it is sealed");
    runtime
        .note_use(&[what.clone(), Portable::Layer(LayerId::random())])
        .await;
    let found = measured().await.expect("it is there");
    assert_eq!(found.bytes, bytes);
    let unused_for = measured().await.expect("it is there").unused_for;
    assert!(unused_for >= found.unused_for, "looking is no use");
    assert!(unused_for < Duration::from_secs(600), "{unused_for:?}");
    let again = runtime.seal(&snapshot, &layer).await;
    assert_eq!(again.expect("sealing is idempotent"), bytes);
    assert!(is_kept(runtime, &snapshot).await, "the snapshot stays");
    runtime.remove(&snapshot).await.expect("it is removed");
    let again = runtime.seal(&snapshot, &layer).await;
    assert_eq!(again.expect("the layer is its own"), bytes);
    runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    assert!(all().await.contains(&layer), "no sweep takes it");
    for _ in 0..2 {
        let removed = runtime.remove_layer(&layer).await;
        removed.expect("removing is idempotent");
        assert!(!all().await.contains(&layer));
    }
}

/// What `pack` writes, once it has said that this is all.
async fn packed(runtime: &impl Snapshots, what: &Portable) -> Vec<u8> {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&ours).read_to_end(&mut bytes).map(|_| bytes)
    });
    runtime.pack(what, theirs).await.expect("it is packed");
    let read = reading.await.expect("reading does not panic");
    read.expect("the stream is read")
}

async fn unpacked(
    runtime: &impl Snapshots,
    what: &Portable,
    stream: &[u8],
) -> Result<u64, CarryError> {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let stream = stream.to_vec();
    // It may be left unread.
    let writing = tokio::task::spawn_blocking(move || drop((&ours).write_all(&stream)));
    let unpacked = runtime.unpack(what, theirs).await;
    writing.await.expect("writing does not panic");
    unpacked
}

async fn what_leaves_comes_back_the_same<R: Runtime + Snapshots>(
    runtime: &R,
    new_spec: NewSpec<'_>,
) {
    let (spec, snapshot) = (new_spec(), SnapshotId::random());
    let there = Portable::Snapshot(snapshot.clone());
    let (_ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let nothing = runtime.pack(&there, theirs).await;
    assert!(matches!(nothing, Err(CarryError::NotHere(what)) if what == there));
    runtime.create(spec.clone()).await.expect("it is made");
    let kept = runtime.suspend(&spec.sandbox, &snapshot).await;
    kept.expect("it is kept");
    let stream = packed(runtime, &there).await;
    assert_eq!(
        packed(runtime, &there).await,
        stream,
        "the same bytes again"
    );
    for broken in [&b"no tree"[..], &stream[..stream.len() / 2]] {
        let other = SnapshotId::random();
        let refused = unpacked(runtime, &Portable::Snapshot(other.clone()), broken).await;
        assert!(
            matches!(refused, Err(CarryError::Stream { .. })),
            "{refused:?}"
        );
        assert!(!is_kept(runtime, &other).await, "nothing is left");
    }
    let (copy, layer) = (SnapshotId::random(), LayerId::random());
    let (kept, sealed) = (
        Portable::Snapshot(copy.clone()),
        Portable::Layer(layer.clone()),
    );
    for what in [&kept, &sealed] {
        let bytes = unpacked(runtime, what, &stream).await.expect("it comes");
        let again = unpacked(runtime, what, b"no tree").await;
        assert_eq!(again.expect("it is here"), bytes, "nothing is read");
        assert_eq!(packed(runtime, what).await, stream, "as it left");
    }
    assert!(is_kept(runtime, &copy).await);
    assert!(
        runtime
            .layers()
            .await
            .expect("they are listed")
            .contains(&layer)
    );
    runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    begins_with(runtime, new_spec(), &copy).await;
    runtime.remove_layer(&layer).await.expect("it is removed");
    for snapshot in [snapshot, copy] {
        runtime.remove(&snapshot).await.expect("it is removed");
    }
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
                site_envs: Default::default(),
                envs: Default::default(),
                default_user: "user".into(),
                default_workdir: None,
                hostname: "box".into(),
                startup: None,
            },
            sandbox,
            lowers: vec![PathBuf::from("/")],
            files: None,
            resources: Resources::BASE,
            network: CompiledPolicy::open(),
            hostname: "box".into(),
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        all(&FakeRuntime::default(), &spec).await;
        all_of_snapshots(&FakeRuntime::default(), &spec).await;
    }
}
