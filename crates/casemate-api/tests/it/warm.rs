//! Templates with a start command: their sandboxes wait for being asked for.

use std::sync::Arc;

use casemate_control::testing::FakeNode;
use casemate_control::{ControlConfig, WarmPoolConfig};
use casemate_store::{Build, BuildId, Builds};
use casemate_types::{BuildContext, Distribution, SandboxId, Startup, Timestamp};

use crate::builds::{Asked, ask, start};
use crate::several_nodes::{all_connected, full};
use crate::world::{Answer, World, until};

async fn world(change: impl FnOnce(&mut ControlConfig)) -> World {
    let node = FakeNode::new();
    node.serve_agents();
    let world = World::without_node(change, node).await;
    world.ready().await;
    world
}

/// A template that starts something, named `web`; nothing is warm yet.
async fn template(world: &World) -> Asked {
    let asked = ask(world, r#"{"name":"web"}"#).await;
    assert_eq!(start(world, &asked).await.status, 202);
    let record = world
        .store
        .build_record(&BuildId::parse(&asked.build).unwrap())
        .await
        .unwrap()
        .unwrap();
    let now = Timestamp::now();
    let build = Build {
        id: record.id,
        template: record.template,
        layers: vec!["b-base".into()],
        resources: record.resources,
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
    assert!(world.store.build_finish(&build, 100, now).await.unwrap());
    asked
}

async fn try_create(world: &World, more: &str) -> Answer {
    let body = format!(r#"{{"templateID":"web"{more}}}"#);
    world.api("POST", "/v2/sandboxes").json(&body).send().await
}

async fn create(world: &World, more: &str) -> SandboxId {
    let answer = try_create(world, more).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    SandboxId::parse(answer.json()["sandboxID"].as_str().unwrap()).unwrap()
}

async fn warm(world: &World, count: usize) -> Vec<SandboxId> {
    until("as many are warm", || async {
        world.control.warm_total() == count && world.node.warm().len() == count
    })
    .await;
    world.node.warm()
}

#[tokio::test]
async fn who_comes_second_gets_one_that_is_started() {
    let world = world(|_| {}).await;
    template(&world).await;
    let cold = create(&world, r#","envVars":{"A":"cold"}"#).await;
    assert_eq!(world.node.startup_of(&cold).unwrap().ready, "true");
    let waiting = warm(&world, 1).await;
    // Nobody sees it: no row, no route, no place of the team.
    assert_eq!(world.listed().await, [cold.to_string()]);
    assert_eq!(world.status_of(&waiting[0]).await, 404);
    assert!(world.node.inits().is_empty());

    let creates = world.node.creates();
    let body = r#","envVars":{"A":"b"},"metadata":{"m":"1"},"timeout":77,"autoPause":true"#;
    let second = create(&world, body).await;
    assert_eq!(second, waiting[0]);
    assert_eq!(world.listed().await.len(), 2);
    let path = format!("/sandboxes/{second}");
    let shown = world.api("GET", &path).send().await.json();
    assert_eq!(shown["metadata"]["m"], "1");
    let time = |name: &str| shown[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let life = time("endAt").duration_since(time("startedAt"));
    assert_eq!(life.as_secs(), 77);
    let ends_at = world.node.ends_at(&second).unwrap();
    assert_eq!(ends_at.as_second(), time("endAt").as_second());
    // Its variables came by its agent, and nobody else's.
    let inits = world.node.inits();
    assert_eq!(inits.len(), 1);
    assert_eq!(inits[0]["envVars"]["A"], "b");
    let token = world.node.access_token(&second).unwrap();
    assert_eq!(inits[0]["accessToken"], token);
    // Two were asked for lately, so two wait from now on.
    warm(&world, 2).await;
    assert_eq!(world.node.creates(), creates + 2);
    let kill = world.api("DELETE", &path).send().await;
    assert_eq!(kill.status, 204);
    assert_eq!(warm(&world, 2).await.len(), 2);
}

#[tokio::test]
async fn another_network_needs_another_pool() {
    let world = world(|_| {}).await;
    template(&world).await;
    create(&world, "").await;
    let waiting = warm(&world, 1).await;
    let closed = r#","allow_internet_access":false"#;
    let other = create(&world, closed).await;
    assert!(!waiting.contains(&other));
    let all = warm(&world, 2).await;
    let fresh = all.iter().find(|one| !waiting.contains(one)).unwrap();
    let policy = world.node.policy(fresh).unwrap();
    assert_eq!(Some(policy), world.node.policy(&other));
    assert_eq!(create(&world, closed).await, *fresh);
    assert_eq!(create(&world, "").await, waiting[0]);
}

#[tokio::test]
async fn with_its_template_they_go() {
    let world = world(|_| {}).await;
    let asked = template(&world).await;
    let first = create(&world, "").await;
    warm(&world, 1).await;
    let path = format!("/sandboxes/{first}");
    world.api("DELETE", &path).send().await;
    let path = format!("/templates/{}", asked.template);
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    until("none is left", || async { world.node.running().is_empty() }).await;
    assert_eq!(world.control.warm_total(), 0);
    let gone = try_create(&world, "").await;
    gone.error(404);
}

#[tokio::test]
async fn one_that_ended_meanwhile_is_made_up_for() {
    let world = world(|_| {}).await;
    template(&world).await;
    create(&world, "").await;
    let waiting = warm(&world, 1).await;
    // Control does not know yet.
    world.node.lose(&waiting[0]);
    let made = create(&world, "").await;
    assert_ne!(made, waiting[0]);
    assert!(world.node.running().contains(&made));
    // It is told.
    let waiting = warm(&world, 2).await;
    world.node.exit(&waiting[0]);
    until("it is not counted on", || async {
        world.control.warm_total() == 1
    })
    .await;
    assert!(!waiting[..1].contains(&create(&world, "").await));
    let events = world.api("GET", "/events/sandboxes").send().await;
    assert!(
        !events.text.contains(waiting[0].as_str()),
        "{}",
        events.text
    );
}

#[tokio::test]
async fn a_start_that_fails_is_the_clients_to_hear_of() {
    let world = world(|_| {}).await;
    template(&world).await;
    create(&world, "").await;
    let waiting = warm(&world, 1).await;
    world.node.fail_starts(Some("no such file"));
    // What was started for the one that waits has ended, and another one fails.
    until("it is noticed", || async {
        world.control.warm_total() == 0
    })
    .await;
    let failed = try_create(&world, "").await;
    assert!(failed.error(500).contains("no such file"));
    until("nothing is left of those", || async {
        world.node.running().len() == 1
    })
    .await;
    assert!(!world.node.running().contains(&waiting[0]));
    assert_eq!(world.control.warm_total(), 0);
    world.node.fail_starts(None);
    create(&world, "").await;
}

#[tokio::test]
async fn one_whose_agent_is_gone_does_not_wait_for_anybody() {
    let world = world(|_| {}).await;
    template(&world).await;
    create(&world, "").await;
    let waiting = warm(&world, 1).await;
    world.node.lose_agents();
    until("it is ended", || async {
        world.control.warm_total() == 0 && !world.node.running().contains(&waiting[0])
    })
    .await;
    assert_eq!(world.listed().await.len(), 1);
}

#[tokio::test]
async fn one_that_does_not_take_its_variables_is_not_given_away() {
    let world = world(|_| {}).await;
    template(&world).await;
    create(&world, "").await;
    let waiting = warm(&world, 1).await;
    world.node.refuse_inits();
    let made = create(&world, r#","envVars":{"A":"b"}"#).await;
    assert_ne!(made, waiting[0]);
    assert_eq!(world.node.envs(&made).unwrap()["A"], "b");
    until("the other one is gone", || async {
        !world.node.running().contains(&waiting[0])
    })
    .await;
    assert_eq!(world.listed().await.len(), 2);
}

#[tokio::test]
async fn a_team_that_has_all_it_may_takes_none() {
    let world = world(|config| config.limits.sandboxes_max = 1).await;
    template(&world).await;
    let first = create(&world, "").await;
    let waiting = warm(&world, 1).await;
    let refused = try_create(&world, "").await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    let path = format!("/sandboxes/{first}");
    world.api("DELETE", &path).send().await;
    let next = create(&world, "").await;
    assert!(world.node.running().contains(&next));
    assert!(next == waiting[0] || world.node.warm().contains(&waiting[0]));
}

#[tokio::test]
async fn they_end_with_their_process_and_with_the_next_one_at_the_latest() {
    let mut world = world(|_| {}).await;
    template(&world).await;
    let kept = create(&world, "").await;
    warm(&world, 1).await;
    // What a process left that was killed.
    let forgotten = SandboxId::random();
    world.node.run_forgotten_warm(&forgotten, &world.team);
    until("nobody knows it", || async {
        !world.node.running().contains(&forgotten)
    })
    .await;
    world.restart().await;
    assert_eq!(world.node.running(), std::slice::from_ref(&kept));
    assert_eq!(world.listed().await, [kept.to_string()]);
}

#[tokio::test]
async fn none_are_made_where_the_pool_is_off() {
    let world = world(|config| {
        config.warm_pool = WarmPoolConfig {
            size: 0,
            ..config.warm_pool
        };
    })
    .await;
    template(&world).await;
    create(&world, "").await;
    create(&world, "").await;
    // As long as it takes to make one where it is on.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!((world.node.creates(), world.node.running().len()), (2, 2));
}

/// A pool that tried one node alone would wait for seconds after each that has no room.
#[tokio::test]
async fn they_are_made_at_the_node_that_has_room() {
    let world = world(|_| {}).await;
    let others = [world.node.beside("second"), world.node.beside("third")];
    for node in &others {
        node.start_clock();
        let port = Arc::new(node.clone());
        world.control.add_node(&node.name(), port);
    }
    all_connected(&world, 3).await;
    for node in &others {
        node.fail_creates(full());
    }
    template(&world).await;
    for _ in 0..3 {
        create(&world, "").await;
    }
    warm(&world, 3).await;
}
