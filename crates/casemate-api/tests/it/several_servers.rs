//! Two API servers over one store, one catalog and the same nodes: exactly one outcome.

mod at_random;
mod cluster;
mod deaths;
mod doubt;
mod drain;
mod elsewhere;
mod lost;
mod names;
mod removed;
mod store_full;
mod waking;

use std::time::Duration;

use casemate_store::testing::TempPostgres;
use casemate_store::{LeaseTaken, Leases, Servers};
use casemate_types::{SandboxId, SandboxState};

use crate::world::{World, until};
use cluster::{Cluster, id_of};

/// Rounds of each race: which of two comes first is luck.
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_kill_at_once_end_in_death() {
    let cluster = Cluster::new().await;
    for _ in 0..ROUNDS {
        let sandbox = cluster.create(0).await;
        let path = format!("/sandboxes/{sandbox}");
        let pause = cluster.api(0, "POST", &format!("{path}/pause")).send();
        let kill = cluster.api(1, "DELETE", &path).send();
        let (pause, kill) = tokio::join!(pause, kill);
        assert_eq!(kill.status, 204, "{}", kill.text);
        assert!(
            [204, 404].contains(&pause.status.as_u16()),
            "{}",
            pause.text
        );
        cluster.is_dead_everywhere(&sandbox).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pauses_at_once_are_one() {
    let cluster = Cluster::new().await;
    for _ in 0..ROUNDS {
        let sandbox = cluster.create(0).await;
        let path = format!("/sandboxes/{sandbox}/pause");
        let pauses = tokio::join!(
            cluster.api(0, "POST", &path).send(),
            cluster.api(1, "POST", &path).send()
        );
        for pause in [pauses.0, pauses.1] {
            assert!(
                [204, 409].contains(&pause.status.as_u16()),
                "{}",
                pause.text
            );
        }
        let path = format!("/sandboxes/{sandbox}/connect");
        let connects = tokio::join!(
            cluster
                .api(0, "POST", &path)
                .json(r#"{"timeout":60}"#)
                .send(),
            cluster
                .api(1, "POST", &path)
                .json(r#"{"timeout":90}"#)
                .send()
        );
        for connect in [connects.0, connects.1] {
            assert!(
                [200, 201].contains(&connect.status.as_u16()),
                "{}",
                connect.text
            );
        }
        let row = cluster
            .store
            .sandbox_by_id(&sandbox)
            .await
            .unwrap()
            .unwrap();
        let SandboxState::Running { ends_at } = row.state else {
            panic!("{row:?}");
        };
        assert_eq!(cluster.node.kept(&sandbox), None);
        let told = cluster.node.ends_at(&sandbox).unwrap();
        assert_eq!(told.as_microsecond(), ends_at.as_microsecond());
        let kill = cluster.api(1, "DELETE", &format!("/sandboxes/{sandbox}"));
        assert_eq!(kill.send().await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_holds_against_a_resume_at_once() {
    let cluster = Cluster::new().await;
    for _ in 0..ROUNDS {
        let sandbox = cluster.create(0).await;
        let path = format!("/sandboxes/{sandbox}");
        let paused = cluster
            .api(1, "POST", &format!("{path}/pause"))
            .send()
            .await;
        assert_eq!(paused.status, 204, "{}", paused.text);
        let resume = cluster.api(0, "POST", &format!("{path}/resume"));
        let resume = resume.json(r#"{"timeout":60}"#).send();
        let kill = cluster.api(1, "DELETE", &path).send();
        let (resume, kill) = tokio::join!(resume, kill);
        assert_eq!(kill.status, 204, "{}", kill.text);
        assert!(
            [201, 404].contains(&resume.status.as_u16()),
            "{}",
            resume.text
        );
        cluster.is_dead_everywhere(&sandbox).await;
    }
}

async fn check_last_places(cluster: Cluster) {
    for _ in 0..5 {
        let creates = (0..8).map(|number| cluster.try_create(number % 2));
        let creates: Vec<_> = creates.map(tokio::spawn).collect();
        let mut made = Vec::new();
        for create in creates {
            let answer = create.await.unwrap();
            match answer.status.as_u16() {
                201 => made.push(id_of(&answer)),
                _ => drop(answer.error(429)),
            }
        }
        assert_eq!(made.len(), 3, "as many as the team may have");
        made.sort();
        until("those that lost are gone", || async {
            cluster.node.running() == made
        })
        .await;
        // Nobody need have heard of it to know.
        for sandbox in &made {
            let kill = cluster.api(1, "DELETE", &format!("/sandboxes/{sandbox}"));
            assert_eq!(kill.send().await.status, 204);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_last_places_are_given_once() {
    check_last_places(Cluster::with(|config| config.limits.sandboxes_max = 3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_last_places_are_given_once_over_postgres() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let beside = store.beside().await;
    let stores = [store.share() as _, beside.share() as _];
    let cluster = Cluster::over(stores, |config| config.limits.sandboxes_max = 3).await;
    check_last_places(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_takes_no_place_that_is_not_there() {
    let cluster = Cluster::with(|config| config.limits.sandboxes_max = 1).await;
    for _ in 0..ROUNDS {
        let paused = cluster.create(0).await;
        let path = format!("/sandboxes/{paused}");
        let pause = cluster
            .api(0, "POST", &format!("{path}/pause"))
            .send()
            .await;
        assert_eq!(pause.status, 204, "{}", pause.text);
        let resume = cluster.api(0, "POST", &format!("{path}/resume"));
        let resume = resume.json(r#"{"timeout":60}"#).send();
        let (resume, create) = tokio::join!(resume, cluster.try_create(1));
        let both = [resume.status.as_u16(), create.status.as_u16()];
        assert!(
            [[201, 429], [429, 201]].contains(&both),
            "{} {}",
            resume.text,
            create.text
        );
        until("one runs", || async {
            let running = cluster.node.running();
            let awake = running.iter().filter(|id| cluster.node.kept(id).is_none());
            awake.count() == 1
        })
        .await;
        for sandbox in cluster.node.running() {
            let kill = cluster.api(1, "DELETE", &format!("/sandboxes/{sandbox}"));
            assert_eq!(kill.send().await.status, 204);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_at_both_makes_one_sandbox() {
    let cluster = Cluster::new().await;
    for round in 0..ROUNDS {
        let key = format!("key-{round}");
        let create = |server| {
            let call = cluster.api(server, "POST", "/v2/sandboxes");
            let call = call.header("idempotency-key", &key);
            call.json(r#"{"templateID":"base"}"#).send()
        };
        let (first, second) = tokio::join!(create(0), create(1));
        let made: Vec<SandboxId> = [&first, &second]
            .into_iter()
            .filter(|answer| answer.status == 201)
            .map(id_of)
            .collect();
        assert!(!made.is_empty(), "{} {}", first.text, second.text);
        assert!(made.iter().all(|id| *id == made[0]));
        for answer in [first, second] {
            if answer.status != 201 {
                answer.error_code(409, "idempotency_in_progress");
            }
        }
        assert_eq!(cluster.node.running().len(), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_opens_nothing_at_the_other_server() {
    let cluster = Cluster::new().await;
    let path = format!("/admin/teams/{}/api-keys", cluster.team);
    let made = cluster.admin(0, "POST", &path).json(r#"{"name":"k"}"#);
    let made = made.send().await.json();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let listed = || {
        let call = cluster.call(1, "GET", "/v2/sandboxes");
        call.header("x-api-key", key).send()
    };
    assert_eq!(listed().await.status, 200);
    let deleted = cluster.admin(0, "DELETE", &format!("{path}/{id}")).send();
    assert_eq!(deleted.await.status, 204);
    until("the other one has heard of it", || async {
        listed().await.status == 401
    })
    .await;
}

/// What is under way at one server keeps the other one from it, as within one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_at_one_server_is_known_at_the_other() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.create(0).await;
    cluster.node.hold_pauses();
    let path = format!("/sandboxes/{sandbox}/pause");
    let first = tokio::spawn(cluster.api(0, "POST", &path).send());
    let snapshot = async || {
        let call = cluster.api(1, "POST", &format!("/sandboxes/{sandbox}/snapshots"));
        call.json("{}").send().await
    };
    until("the other one knows", || async {
        let refused = snapshot().await;
        refused.status == 409 && refused.error(409).contains("'pausing' state")
    })
    .await;
    let second = tokio::spawn(cluster.api(1, "POST", &path).send());
    cluster.node.release_pauses();
    assert_eq!(first.await.unwrap().status, 204);
    // It joined the first, or came when that was over.
    let second = second.await.unwrap();
    assert!(
        [204, 409].contains(&second.status.as_u16()),
        "{}",
        second.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_alone_says_nothing_of_itself() {
    let world = World::new().await;
    world.create("").await;
    let listed = world.store.server_list(Duration::from_secs(3600)).await;
    assert_eq!(listed.unwrap(), []);
    let taken = world
        .store
        .lease_take("janitor", "a test", Duration::from_secs(1));
    assert_eq!(taken.await.unwrap(), LeaseTaken::Held { generation: 1 });
}
