//! Builds that others come in the way of: templates that are deleted under them, sandboxes that are
//! still being made when a build is over.

use casemate_control::testing::FakeNode;
use casemate_rpc::NodePort;
use casemate_store::{Build, BuildId, Builds, Templates};
use casemate_types::{LayerId, SandboxId, SnapshotId, TemplateId, Timestamp};

use crate::builds::{Asked, ask, start_from, status};
use crate::world::{World, until};

const BASE_LOST: &str = "error getting base template, you may need to rebuild it first";

/// A layer that the node has.
async fn seal(world: &World, layer: &LayerId) {
    let (sandbox, snapshot) = (SandboxId::random(), SnapshotId::random());
    world.node.run_stranger(&sandbox, &world.team, false);
    world.node.snapshot(&sandbox, &snapshot).await.unwrap();
    world.node.seal(&snapshot, layer).await.unwrap();
    world.node.remove_snapshot(&snapshot).await.unwrap();
    world.node.lose(&sandbox);
}

/// A ready template with a layer of its own.
async fn sealed(world: &World, name: &str) -> (Asked, LayerId) {
    let asked = ask(world, &format!(r#"{{"name":"{name}"}}"#)).await;
    let (build, now) = (BuildId::parse(&asked.build).unwrap(), Timestamp::now());
    world
        .store
        .build_begin(&build, "a-server", now)
        .await
        .unwrap();
    let reference = casemate_types::template::TemplateRef::parse("base").unwrap();
    let base = world.store.template_resolve("", &reference).await.unwrap();
    let casemate_store::Resolution::Found { build: base, .. } = base else {
        panic!("the node brought no base");
    };
    let layer = LayerId::random();
    seal(world, &layer).await;
    let build = Build {
        id: build,
        template: TemplateId::parse(&asked.template).unwrap(),
        layers: vec![layer.to_string(), "base".into()],
        ..base
    };
    assert!(world.store.build_finish(&build, 1, now).await.unwrap());
    (asked, layer)
}

async fn child_of(world: &World, name: &str, parent: &str) -> Asked {
    let child = ask(world, &format!(r#"{{"name":"{name}"}}"#)).await;
    let body =
        format!(r#"{{"fromTemplate":"{parent}","steps":[{{"type":"RUN","args":["true"]}}]}}"#);
    assert_eq!(start_from(world, &child, &body).await.status, 202);
    child
}

async fn delete(world: &World, template: &str) {
    let path = format!("/templates/{template}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
}

async fn creates(world: &World, count: usize) {
    until("a create is on its way", || async {
        world.node.creates() == count
    })
    .await;
}

async fn failed(world: &World, asked: &Asked) -> (String, Option<String>) {
    until("the build has failed", || async {
        status(world, asked, "").await["status"] == "error"
    })
    .await;
    let told = status(world, asked, "").await;
    let text = |name: &str| told["reason"][name].as_str().map(str::to_owned);
    (text("message").unwrap(), text("step"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_whose_layers_the_node_has_lost_is_no_ground() {
    let world = World::with(|config| config.builds.at_once = 2).await;
    let (_, layer) = sealed(&world, "parent").await;
    world.node.remove_layer(&layer).await.unwrap();
    let child = child_of(&world, "child", "parent").await;
    let told = failed(&world, &child).await;
    assert_eq!(told, (BASE_LOST.into(), Some("base".into())));
    assert_eq!(world.node.creates(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_stands_on_stays_until_its_end_though_nobody_names_it() {
    let world = World::with(|config| config.builds.at_once = 2).await;
    let (parent, layer) = sealed(&world, "parent").await;
    world.node.hold_creates();
    let child = child_of(&world, "child", "parent").await;
    creates(&world, 1).await;
    // Of two that nobody needs the last is looked at behind all others.
    let strays = ["t-0", "t-zzz"].map(|name| LayerId::parse(name).unwrap());
    for stray in &strays {
        seal(&world, stray).await;
    }
    delete(&world, &parent.template).await;
    until("the look for what nobody wants is over", || async {
        let sealed = world.node.sealed();
        !strays.iter().any(|stray| sealed.contains(stray))
    })
    .await;
    assert!(world.node.sealed().contains(&layer));
    world.node.release_creates();
    // Its agent does not answer.
    failed(&world, &child).await;
    until("nothing holds the layer", || async {
        !world.node.sealed().contains(&layer)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_ends_while_its_sandbox_is_made_leaves_none() {
    for supersedes in [true, false] {
        let world = World::with(|config| config.builds.at_once = 2).await;
        world.node.hold_creates();
        let first = child_of(&world, "x", "base").await;
        creates(&world, 1).await;
        match supersedes {
            true => {
                child_of(&world, "x", "base").await;
                let told = failed(&world, &first).await;
                assert_eq!(told.0, "build was cancelled");
                creates(&world, 2).await;
            }
            false => delete(&world, &first.template).await,
        }
        world.node.release_creates();
        until("all are ended", || async {
            world.node.kills() > usize::from(supersedes) && world.node.running().is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_deleted_is_cancelled_and_its_end_is_no_error() {
    let node = FakeNode::new();
    let world = World::without_node(|config| config.builds.at_once = 1, node).await;
    world.ready().await;
    world.node.hold_creates();
    let busy = child_of(&world, "busy", "base").await;
    creates(&world, 1).await;
    let waiting = child_of(&world, "waiting", "base").await;
    delete(&world, &waiting.template).await;
    delete(&world, &busy.template).await;
    world.node.release_creates();
    // The turn of the one that waited is given back: another one gets it.
    let next = child_of(&world, "next", "base").await;
    failed(&world, &next).await;
    assert_eq!(world.node.creates(), 2, "what waited has made nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_has_its_place_until_its_sandbox_is_gone() {
    let world = World::with(|config| config.builds.at_once = 1).await;
    world.node.hold_creates();
    let busy = child_of(&world, "busy", "base").await;
    creates(&world, 1).await;
    let next = child_of(&world, "next", "base").await;
    delete(&world, &busy.template).await;
    // Long enough for whoever does not wait.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.node.creates(), 1);
    world.node.release_creates();
    failed(&world, &next).await;
    assert_eq!(world.node.creates(), 2);
}
