//! Layers: over which a sandbox is made, and which of them may go.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use casemate_rpc::{NodeError, NodePort, ResumeRequest};
use casemate_types::{BuildContext, LayerId, Portable, SnapshotId, Startup};

use super::*;

/// A layer that was made of a snapshot. The fake makes no folders.
fn sealed(host: &Host, name: &str) -> LayerId {
    std::fs::create_dir_all(host.layer(name)).unwrap();
    LayerId::parse(name).unwrap()
}

fn over(layers: &[&str], distribution: Option<Distribution>) -> CreateRequest {
    CreateRequest {
        layers: layers.iter().map(|name| (*name).to_owned()).collect(),
        distribution,
        ..request(HOUR)
    }
}

#[tokio::test]
async fn the_operators_layer_lies_right_above_the_lowest() {
    let host = Host::new();
    let node = host.start().await;
    sealed(&host, "t-one");
    sealed(&host, "t-two");
    let suite = |name: &str| Some(Distribution::Debian(name.into()));
    let check = async |layers: &[&str], distribution, expected: &[&str]| {
        let request = over(layers, distribution);
        node.create(request.clone()).await.unwrap();
        let expected: Vec<_> = expected.iter().map(|name| host.layer(name)).collect();
        assert_eq!(host.runtime.lowers(&request.sandbox), expected);
    };
    check(&["base"], suite("bookworm"), &["s-bookworm", "base"]).await;
    let all = ["t-two", "t-one", "base"];
    let over_base = ["t-two", "t-one", "s-bookworm", "base"];
    check(&all, suite("bookworm"), &over_base).await;
    let other = ["t-one", "s-other", "base"];
    check(&["t-one", "base"], Some(Distribution::Other), &other).await;
    // A suite that is not known has no sources of packages laid over it.
    check(&["t-one", "base"], suite("buster"), &other).await;
    check(&["t-one", "base"], None, &["t-one", "base"]).await;
    // What images are unpacked in begins with nothing, of the operator neither.
    check(&[], None, &["e-1"]).await;
    check(&[], suite("bookworm"), &["e-1"]).await;
}

#[tokio::test]
async fn a_layer_below_a_sandbox_stays_until_the_last_of_them_is_gone() {
    let host = Host::new();
    let node = host.start().await;
    let (one, two) = (sealed(&host, "t-one"), sealed(&host, "t-two"));
    let in_use = |layer: &LayerId| Err(NodeError::InUse(layer.clone()));
    let (runs, rests) = (
        over(&["t-one", "base"], Some(bookworm())),
        over(&["t-one", "base"], Some(bookworm())),
    );
    for request in [&runs, &rests] {
        node.create(request.clone()).await.unwrap();
    }
    assert_eq!(node.remove_layer(&one).await, in_use(&one));
    assert_eq!(node.remove_layer(&two).await, Ok(()));
    node.pause(&rests.sandbox, Kept::Files).await.unwrap();
    node.kill(&runs.sandbox, EndReason::Killed).await.unwrap();
    assert_eq!(node.remove_layer(&one).await, in_use(&one));
    // Also for a node that knows it from its journal alone.
    drop(node);
    let node = host.start().await;
    assert_eq!(node.remove_layer(&one).await, in_use(&one));
    let resume = ResumeRequest {
        sandbox: rests.clone(),
        from: Kept::Files,
        with_memory_only: false,
    };
    node.resume(resume).await.unwrap();
    assert_eq!(node.remove_layer(&one).await, in_use(&one));
    node.kill(&rests.sandbox, EndReason::Killed).await.unwrap();
    assert_eq!(node.remove_layer(&one).await, Ok(()));
    // One that could not be made holds nothing.
    host.runtime.fail_next_create();
    let failed = node.create(over(&["t-one"], None)).await;
    assert!(failed.is_err());
    assert_eq!(node.remove_layer(&one).await, Ok(()));
}

#[tokio::test]
async fn no_create_begins_with_a_layer_that_is_being_removed() {
    let host = Host::new();
    let node = host.start().await;
    let layer = sealed(&host, "t-one");
    let held = host.runtime.hold_removals().await;
    let remover = node.clone();
    let removed = layer.clone();
    let removal = tokio::spawn(async move { remover.remove_layer(&removed).await });
    host.runtime.removal_waits().await;
    let refused = node.create(over(&["t-one"], None)).await;
    assert!(
        matches!(&refused, Err(NodeError::Unsupported { why }) if why.contains("t-one")),
        "{refused:?}"
    );
    // Neither does one that rested meanwhile over another.
    let rests = over(&["base"], Some(bookworm()));
    node.create(rests.clone()).await.unwrap();
    node.pause(&rests.sandbox, Kept::Files).await.unwrap();
    let mut resume = ResumeRequest {
        sandbox: rests.clone(),
        from: Kept::Files,
        with_memory_only: false,
    };
    resume.sandbox.layers.insert(0, "t-one".into());
    let mut over_nothing = resume.clone();
    over_nothing.sandbox.layers.clear();
    let refused = node.resume(over_nothing).await;
    assert!(
        matches!(refused, Err(NodeError::Unsupported { .. })),
        "{refused:?}"
    );
    let refused = node.resume(resume).await;
    assert!(
        matches!(refused, Err(NodeError::Unsupported { .. })),
        "{refused:?}"
    );
    drop(held);
    assert_eq!(removal.await.unwrap(), Ok(()));
    // The fake left its folder, so that its name alone is what was refused.
    node.create(over(&["t-one"], None)).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_of_a_beginning_is_named() {
    let host = Host::new();
    let node = host.start().await;
    let one = sealed(&host, "t-one");
    let request = request(HOUR);
    node.create(request.clone()).await.unwrap();
    let (kept, lost) = (SnapshotId::random(), SnapshotId::random());
    node.snapshot(&request.sandbox, &kept).await.unwrap();
    let check = async |layers: &[&str], files: &SnapshotId, expected: &[&str]| {
        let layers: Vec<_> = layers.iter().map(|&name| name.to_owned()).collect();
        let missing = node.missing(&layers, Some(files), None).await.unwrap();
        assert_eq!(missing, expected);
    };
    check(&["t-one", "base"], &kept, &[]).await;
    check(&["t-one", "base"], &lost, &[lost.as_str()]).await;
    let gone = ["t-two", "../layers/base", lost.as_str()];
    check(&["t-two", "base", "../layers/base"], &lost, &gone).await;
    assert_eq!(node.missing(&[], None, None).await, Ok(vec![]));
    // What is being removed is gone for whoever asks.
    let held = host.runtime.hold_removals().await;
    let (remover, layer) = (node.clone(), one.clone());
    let removal = tokio::spawn(async move { remover.remove_layer(&layer).await });
    host.runtime.removal_waits().await;
    check(&["t-one", "base"], &kept, &["t-one"]).await;
    drop(held);
    removal.await.unwrap().unwrap();
    std::fs::remove_dir_all(host.layer("t-one")).unwrap();
    check(&["t-one", "base"], &kept, &["t-one"]).await;
}

#[tokio::test]
async fn snapshots_are_sealed_listed_and_removed() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(HOUR);
    node.create(request.clone()).await.unwrap();
    host.runtime.write(&request.sandbox, "written");
    let (snapshot, layer) = (SnapshotId::random(), LayerId::random());
    let missing = node.seal(&snapshot, &layer).await;
    assert_eq!(missing, Err(NodeError::NoSnapshot(snapshot.clone())));
    node.snapshot(&request.sandbox, &snapshot).await.unwrap();
    host.runtime.has_no_room(true);
    let full = node.seal(&snapshot, &layer).await;
    assert!(matches!(full, Err(NodeError::DiskFull { .. })), "{full:?}");
    host.runtime.has_no_room(false);
    assert_eq!(node.seal(&snapshot, &layer).await.unwrap().bytes, 7);
    assert_eq!(node.layers(None).await, Ok(vec![layer.clone()]));
    assert_eq!(node.layers(Some(&layer)).await, Ok(vec![]));
    assert_eq!(node.remove_layer(&layer).await, Ok(()));
    assert_eq!(node.remove_layer(&layer).await, Ok(()));
    assert_eq!(node.layers(None).await, Ok(vec![]));
}

#[tokio::test]
async fn what_a_template_runs_is_run_when_its_sandbox_starts_and_not_when_it_goes_on() {
    let host = Host::new();
    let node = host.start().await;
    let startup = |ready: &str| Startup {
        start: None,
        ready: ready.into(),
        context: BuildContext {
            user: "user".into(),
            workdir: None,
            envs: Default::default(),
        },
    };
    let mut request = request(HOUR);
    request.startup = Some(startup("first"));
    node.create(request.clone()).await.unwrap();
    let told = || host.runtime.startup(&request.sandbox);
    assert_eq!(told(), Some(startup("first")));
    for (kept, expected) in [(Kept::Memory, "first"), (Kept::Files, "second")] {
        node.pause(&request.sandbox, kept).await.unwrap();
        let mut resume = ResumeRequest {
            sandbox: request.clone(),
            from: kept,
            with_memory_only: false,
        };
        resume.sandbox.startup = Some(startup("second"));
        node.resume(resume).await.unwrap();
        assert_eq!(told(), Some(startup(expected)));
    }
}

#[tokio::test]
async fn what_leaves_a_node_comes_to_another_and_stays_while_it_is_packed() {
    let (host, other) = (Host::new(), Host::new());
    let (node, elsewhere) = (host.start().await, other.start().await);
    let request = request(HOUR);
    node.create(request.clone()).await.unwrap();
    // More than a socket holds.
    host.runtime
        .write(&request.sandbox, &"written".repeat(1 << 20));
    let (snapshot, layer) = (SnapshotId::random(), LayerId::random());
    node.snapshot(&request.sandbox, &snapshot).await.unwrap();
    node.seal(&snapshot, &layer).await.unwrap();
    let what = Portable::Layer(layer.clone());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let not_here = NodeError::NotHere(what.clone());
    let refused = elsewhere.pack(&what, theirs.try_clone().unwrap()).await;
    assert_eq!(refused, Err(not_here));
    let (packer, packed) = (node.clone(), what.clone());
    let packing = tokio::spawn(async move { packer.pack(&packed, theirs).await });
    let begun = tokio::task::spawn_blocking(move || {
        let mut first = [0];
        ours.read_exact(&mut first).unwrap();
        (first, ours)
    });
    let (first, mut ours) = begun.await.unwrap();
    let removed = node.remove_layer(&layer).await;
    assert_eq!(removed, Err(NodeError::InUse(layer.clone())));
    let (mut sender, theirs) = UnixStream::pair().unwrap();
    let passing = tokio::task::spawn_blocking(move || {
        sender.write_all(&first).unwrap();
        std::io::copy(&mut ours, &mut sender).unwrap();
    });
    let bytes = elsewhere.unpack(&what, 0, theirs).await.unwrap();
    assert_eq!(bytes, 7 << 20);
    passing.await.unwrap();
    packing.await.unwrap().unwrap();
    assert_eq!(elsewhere.layers(None).await, Ok(vec![layer.clone()]));
    assert_eq!(node.remove_layer(&layer).await, Ok(()));
    let (_, theirs) = UnixStream::pair().unwrap();
    let kept = Portable::Snapshot(SnapshotId::random());
    let broken = elsewhere.unpack(&kept, 0, theirs).await;
    assert!(
        matches!(broken, Err(NodeError::CarryFailed { .. })),
        "{broken:?}"
    );
}
