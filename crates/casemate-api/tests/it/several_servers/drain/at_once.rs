//! What happens at the same time as a drain: somebody wakes what rests, two do, the node dies, the node
//! is removed.

use casemate_control::sandboxes::wake::{Knock, WakeError};
use casemate_store::testing::a_request;
use casemate_store::{Build, BuildRequested};
use casemate_types::{BuildContext, Distribution, SandboxState, Startup, Timestamp};

use super::super::cluster::id_of;
use super::*;

impl Drained {
    async fn connect(&self, server: usize, id: &SandboxId) -> Answer {
        let path = format!("/sandboxes/{id}/connect");
        let call = self.cluster.api(server, "POST", &path);
        call.json(r#"{"timeout":600}"#).send().await
    }

    async fn row(&self, id: &SandboxId) -> casemate_store::Sandbox {
        self.cluster.store.sandbox_by_id(id).await.unwrap().unwrap()
    }

    /// One at the node that is to leave, which traffic wakes, paused with its memory.
    async fn sleeps(&self) -> SandboxId {
        let body = r#"{"templateID":"base","timeout":300,"autoResume":{"enabled":true}}"#;
        for _ in 0..200 {
            let call = self.cluster.api(0, "POST", "/v2/sandboxes").json(body);
            let id = id_of(&call.send().await);
            if self.leaves.running().contains(&id) {
                self.pause(&id, WITH_MEMORY).await;
                return id;
            }
        }
        panic!("the node gets none");
    }

    async fn runs_at_the_other(&self, id: &SandboxId) {
        let row = self.row(id).await;
        assert_eq!(row.node, self.stays.name());
        assert!(matches!(row.state, SandboxState::Running { .. }), "{row:?}");
        assert!(self.stays.running().contains(id));
        assert_eq!(self.stays.kept(id), None);
        assert!(self.stays.began_with(id).is_some(), "from its files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_at_the_moment_of_removal_goes_on_elsewhere() {
    let world = Drained::new().await;
    let memory = world.paused(WITH_MEMORY).await;
    world.drain(false).await;
    world.left(0, 1).await;
    world.leaves.hold_resumes();
    let connecting = async { world.connect(0, &memory).await };
    let removing = async {
        until("its node is asked", || async { world.leaves.resumes() > 0 }).await;
        let removed = world.remove().await;
        world.leaves.release_resumes();
        removed
    };
    let (connected, removed) = tokio::join!(connecting, removing);
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert_eq!(removed.json(), json!({"running": 0, "paused": 0}));
    assert_eq!(connected.status, 201, "{}", connected.text);
    world.runs_at_the_other(&memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_at_the_moment_of_removal_wakes_nothing_and_loses_nothing() {
    let world = Drained::new().await;
    let asleep = world.sleeps().await;
    world.drain(false).await;
    world.left(0, 1).await;
    world.leaves.hold_resumes();
    let control = Arc::clone(&world.cluster.controls[0]);
    let waking = async { control.wake(&asleep, Knock::default()).await };
    let removing = async {
        until("its node is asked", || async { world.leaves.resumes() > 0 }).await;
        let removed = world.remove().await;
        world.leaves.release_resumes();
        removed
    };
    let (woken, removed) = tokio::join!(waking, removing);
    assert_eq!(removed.status, 200, "{}", removed.text);
    // Its processes are gone with the node, and traffic alone moves nothing.
    assert!(matches!(woken, Err(WakeError::NotFound)), "{woken:?}");
    let connected = world.connect(1, &asleep).await;
    assert_eq!(connected.status, 201, "{}", connected.text);
    world.runs_at_the_other(&asleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_on_before_the_removal_is_in_its_way() {
    let world = Drained::new().await;
    let asleep = world.sleeps().await;
    world.drain(false).await;
    world.left(0, 1).await;
    let control = Arc::clone(&world.cluster.controls[1]);
    control.wake(&asleep, Knock::default()).await.unwrap();
    assert_eq!(world.row(&asleep).await.node, world.leaves.name());
    world.remove().await.error_code(409, "node_in_use");

    // A drain pauses it with its files: traffic does not wake that, a connect does, elsewhere.
    let drained = world.drain(true).await;
    assert_eq!(drained["notPaused"], json!([]));
    for control in &world.cluster.controls {
        let woken = control.wake(&asleep, Knock::default()).await;
        assert!(matches!(woken, Err(WakeError::NotFound)), "{woken:?}");
    }
    world.goes_on(&asleep, &world.stays).await;
    world.left(0, 0).await;
    assert_eq!(world.remove().await.status, 200);
    world.runs_at_the_other(&asleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_let_one_go_on_one_does() {
    const ROUNDS: u64 = 6;
    let world = Drained::new().await;
    let mut paused = Vec::new();
    for round in 0..ROUNDS {
        let how = [FILES_ONLY, WITH_MEMORY][usize::from(round % 3 == 2)];
        paused.push((how, world.paused(how).await));
    }
    world.drain(false).await;
    world.left(0, ROUNDS).await;
    for (how, id) in paused {
        let both = tokio::join!(world.connect(0, &id), world.connect(1, &id));
        for one in [both.0, both.1] {
            assert!([200, 201].contains(&one.status.as_u16()), "{}", one.text);
        }
        let home = match how {
            FILES_ONLY => &world.stays,
            _ => &world.leaves,
        };
        let row = world.row(&id).await;
        assert_eq!((row.node, row.stored_files), (home.name(), None));
        until("it is there alone", || async {
            let here = |one: &FakeNode| one.running().contains(&id);
            here(&world.stays) != here(&world.leaves) && here(home)
        })
        .await;
        assert_eq!(home.kept(&id), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_it_is_drained_is_lost_with_what_was_not_stored() {
    let world = Drained::new().await;
    let files = world.paused(FILES_ONLY).await;
    let running = [world.made().await, world.made().await];
    world.drain(false).await;
    world.left(2, 1).await;
    world.leaves.hold_pauses();
    let draining = async { world.change("drain", r#"{"pause":true}"#).await };
    let dying = async {
        until("it is asked for pauses", || async {
            world.leaves.pauses() >= running.len()
        })
        .await;
        world.leaves.disconnect();
        world.leaves.release_pauses();
    };
    let (drained, ()) = tokio::join!(draining, dying);
    assert_eq!(drained.status, 200, "{}", drained.text);
    let drained = drained.json();
    let named = drained["notPaused"].as_array().unwrap();
    assert_eq!(named.len(), running.len(), "{drained}");
    assert_eq!(drained["left"]["running"], 2);
    // What is stored waits for nothing but that somebody gives the node up.
    let name = world.leaves.name();
    until("the other server has noticed", || async {
        let listed = world.cluster.admin(1, "GET", "/admin/cluster/nodes");
        let listed = listed.send().await.json();
        let mut listed = listed.as_array().unwrap().iter();
        listed.any(|node| node["nodeID"] == name && node["connected"] == false)
    })
    .await;
    let refused = world.connect(1, &files).await;
    refused.error_code(503, "sandbox_node_unreachable");
    let node = world.cluster.store.node_by_id(&name).await.unwrap();
    let generation = node.unwrap().generation;
    let fenced = world.cluster.store.node_fence(&name, generation).await;
    fenced.unwrap();
    let refused = world.change("drain", r#"{"pause":true}"#).await;
    refused.error_code(409, "node_lost");
    until("both servers have heard of it", || async {
        let mut gone = 0;
        for server in 0..2 {
            let path = format!("/sandboxes/{}", running[0]);
            let shown = world.cluster.api(server, "GET", &path).send().await;
            gone += usize::from(shown.status == 404);
        }
        gone == 2
    })
    .await;
    let connected = world.connect(1, &files).await;
    assert_eq!(connected.status, 201, "{}", connected.text);
    world.runs_at_the_other(&files).await;

    // It was only cut off: what ran is there again, and the drain goes on where it was.
    world.leaves.reconnect();
    until("it is back", || async {
        world.listed().await["lostAt"] == Value::Null
    })
    .await;
    for server in 0..2 {
        world.heard(server, "draining").await;
    }
    until("its copy is ended", || async {
        !world.leaves.running().contains(&files)
    })
    .await;
    let drained = world.drain(true).await;
    assert_eq!(drained["notPaused"], json!([]), "{drained}");
    world.left(0, 2).await;
    for id in &running {
        world.goes_on(id, &world.stays).await;
    }
    assert_eq!(world.remove().await.status, 200);
}

/// Sandboxes that are started ahead end there, also those of the server that was not asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_there_to_be_asked_for_ends() {
    let world = Drained::new().await;
    template(&world).await;
    let call = |server| {
        let call = world.cluster.api(server, "POST", "/v2/sandboxes");
        call.json(r#"{"templateID":"web","timeout":300}"#).send()
    };
    until("some wait at the node that is to leave", || async {
        for server in 0..2 {
            let made = call(server).await;
            assert_eq!(made.status, 201, "{}", made.text);
            let kill = world.sandbox("DELETE", &id_of(&made), "", "").await;
            assert_eq!(kill.status, 204, "{}", kill.text);
        }
        !world.leaves.warm().is_empty()
    })
    .await;
    world.drain(false).await;
    until("none waits there", || async {
        world.leaves.warm().is_empty() && !world.stays.warm().is_empty()
    })
    .await;
    let before = world.leaves.creates();
    for server in [0, 1].repeat(4) {
        let made = call(server).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert!(world.stays.running().contains(&id_of(&made)));
    }
    assert_eq!(world.leaves.creates(), before);
    world.left(0, 0).await;
    assert_eq!(world.remove().await.status, 200);
}

/// One that starts something, named `web`.
async fn template(world: &Drained) {
    let store = &world.cluster.store;
    let team = store.team_by_id(&world.cluster.team).await.unwrap();
    let now = Timestamp::now();
    let new = a_request(&team.unwrap(), "web", &["default"], now);
    let asked = store.build_request(&new).await.unwrap();
    let BuildRequested::Done { template, .. } = asked else {
        panic!("{asked:?}");
    };
    let build = Build {
        id: new.build,
        template,
        layers: vec!["b-base".into()],
        resources: new.resources,
        default_user: "user".into(),
        default_workdir: None,
        envs: Default::default(),
        envd_version: "0.6.13".into(),
        files: None,
        startup: Some(Startup {
            start: Some("serve".into()),
            ready: "true".into(),
            context: BuildContext {
                user: "user".into(),
                workdir: None,
                envs: Default::default(),
            },
        }),
        distribution: Distribution::Other,
        created_at: now,
    };
    store.build_begin(&build.id, "a-server", now).await.unwrap();
    assert!(store.build_finish(&build, 100, now).await.unwrap());
}
