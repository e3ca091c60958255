//! Where sandboxes are found, and what it costs.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_catalog::{Catalog, Route};
use casemate_edge::{DialFailure, Dialer, Knock, LookupFailure, RouteTarget, Routes, WakeFailure};
use casemate_rpc::control::ControlError;
use casemate_types::{Ingress, SandboxId, Timestamp, TokenHash};
use tokio::net::TcpListener;

use crate::support::{Has, LONG, World, with_catalog, world};

/// What a look-up comes to.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Runs,
    Asleep,
    Gone,
    Busy,
    Failed,
}

async fn look(world: &World, sandbox: &SandboxId) -> Seen {
    match world.finder.lookup(sandbox).await {
        Ok(Some(RouteTarget::Running { .. })) => Seen::Runs,
        Ok(Some(RouteTarget::Asleep)) => Seen::Asleep,
        Ok(Some(RouteTarget::Transitioning)) => panic!("nobody says that"),
        Ok(None) => Seen::Gone,
        Err(LookupFailure::Busy) => Seen::Busy,
        Err(LookupFailure::Failed(_)) => Seen::Failed,
    }
}

fn knock() -> Knock {
    Knock {
        for_agent: true,
        access_token: None,
        traffic_token: None,
    }
}

/// Something that takes connections.
async fn service(world: &World) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    for node in [&world.a, &world.b] {
        *node.service.lock().unwrap() = Some(at);
    }
    listener
}

#[tokio::test(start_paused = true)]
async fn what_the_catalog_says_is_asked_for_once_in_some_seconds_and_no_node_is() {
    let (world, id) = (world(), SandboxId::random());
    world.route(&id, "a", false, 1).await;
    for _ in 0..10 {
        assert_eq!(look(&world, &id).await, Seen::Runs);
    }
    assert_eq!(world.catalog.asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    assert_eq!(world.catalog.asked.load(Ordering::SeqCst), 2);
    assert_eq!(world.asked(), (0, 0));
    let figures = world.finder.figures();
    assert_eq!((figures.catalog, figures.remembered), (2, 9));
}

#[tokio::test]
async fn what_the_catalog_does_not_know_or_cannot_say_the_nodes_do() {
    for is_away in [false, true] {
        let world = world();
        world.catalog.is_away.store(is_away, Ordering::SeqCst);
        let (runs, rests, nowhere) = (
            SandboxId::random(),
            SandboxId::random(),
            SandboxId::random(),
        );
        world.a.put(&runs, Has::running());
        world.b.put(&rests, Has::asleep());
        assert_eq!(look(&world, &runs).await, Seen::Runs);
        assert_eq!(look(&world, &rests).await, Seen::Asleep);
        assert_eq!(look(&world, &nowhere).await, Seen::Gone);
        assert_eq!(world.asked().0, 6, "each asked both");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_catalog_the_node_that_had_it_last_is_asked_alone() {
    let (world, id) = (with_catalog(false), SandboxId::random());
    world.a.put(&id, Has::running());
    assert_eq!(look(&world, &id).await, Seen::Runs);
    assert_eq!(world.asked().0, 2);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    assert_eq!(world.asked().0, 3);
    // It went elsewhere.
    world.a.lose(&id);
    world.b.put(&id, Has::running());
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    assert_eq!(world.asked().0, 6);
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_the_younger_run_counts_and_one_that_hangs_holds_nobody_up() {
    let (world, id) = (with_catalog(false), SandboxId::random());
    let older = Has::asleep();
    let younger = Has {
        started_at: Timestamp::UNIX_EPOCH + Duration::from_secs(1),
        ..Has::running()
    };
    world.a.put(&id, older);
    world.b.put(&id, younger);
    assert_eq!(look(&world, &id).await, Seen::Runs);
    let hanging = SandboxId::random();
    world.b.put(&hanging, Has::running());
    world.a.hangs.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    assert_eq!(look(&world, &hanging).await, Seen::Runs);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_node_that_is_away_leaves_unsure_what_only_it_could_have() {
    let (with, without, id) = (world(), with_catalog(false), SandboxId::random());
    for world in [&with, &without] {
        world.a.is_away.store(true, Ordering::SeqCst);
    }
    assert_eq!(look(&without, &id).await, Seen::Failed);
    // A catalog that answers and knows nothing of it settles it.
    assert_eq!(look(&with, &id).await, Seen::Gone);
    without.b.put(&id, Has::running());
    assert_eq!(look(&without, &id).await, Seen::Runs);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_forgot_all_ends_nothing_at_a_node_that_is_away() {
    let (world, id) = (world(), SandboxId::random());
    world.a.put(&id, Has::running());
    world.route(&id, "a", false, 1).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    let removed = world.catalog.route_remove(&id, "a", 2).await;
    assert!(removed.unwrap());
    world.a.is_away.store(true, Ordering::SeqCst);
    // Past what is remembered.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for _ in 0..2 {
        assert_eq!(look(&world, &id).await, Seen::Failed);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.a.is_away.store(false, Ordering::SeqCst);
    assert_eq!(look(&world, &id).await, Seen::Runs);
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_for_one_make_one_search_and_its_no_holds_for_a_second() {
    let (world, id) = (Arc::new(with_catalog(false)), SandboxId::random());
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (world, id) = (Arc::clone(&world), id.clone());
        all.spawn(async move { look(&world, &id).await });
    }
    while let Some(seen) = all.join_next().await {
        assert_eq!(seen.unwrap(), Seen::Gone);
    }
    assert_eq!(world.asked().0, 2);
    world.a.put(&id, Has::running());
    assert_eq!(look(&world, &id).await, Seen::Gone);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_unknown_ids_is_bounded_and_what_is_known_is_served_in_it() {
    let (world, known) = (world(), SandboxId::random());
    world.route(&known, "a", false, 1).await;
    let mut busy = 0;
    for _ in 0..2000 {
        match look(&world, &SandboxId::random()).await {
            Seen::Gone => {}
            Seen::Busy => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    let figures = world.finder.figures();
    assert_eq!((figures.searches, figures.searches_refused), (200, 1800));
    assert_eq!((world.asked().0, busy), (400, 1800));
    assert_eq!(look(&world, &known).await, Seen::Runs);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(look(&world, &SandboxId::random()).await, Seen::Gone);
}

#[tokio::test]
async fn a_sandbox_that_moved_is_dialled_where_it_is() {
    let (world, id) = (world(), SandboxId::random());
    let _service = service(&world).await;
    world.route(&id, "a", false, 1).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    // The catalog is behind.
    world.b.put(&id, Has::running());
    assert!(world.finder.dial(&id, 80).await.is_ok());
    assert_eq!(world.asked().1, 2);
    assert!(world.finder.dial(&id, 80).await.is_ok());
    assert_eq!(world.asked().1, 3, "it is known now");
}

#[tokio::test]
async fn one_that_ended_or_was_paused_is_not_believed_to_run_whatever_the_catalog_says() {
    let (world, ended, paused) = (world(), SandboxId::random(), SandboxId::random());
    for id in [&ended, &paused] {
        world.route(id, "a", false, 1).await;
        assert_eq!(look(&world, id).await, Seen::Runs);
    }
    let dialled = world.finder.dial(&ended, 80).await;
    assert!(matches!(dialled, Err(DialFailure::NotFound)));
    assert_eq!(look(&world, &ended).await, Seen::Gone);
    world.a.put(&paused, Has::asleep());
    let dialled = world.finder.dial(&paused, 80).await;
    assert!(matches!(dialled, Err(DialFailure::Paused)));
    assert_eq!(look(&world, &paused).await, Seen::Asleep);
}

#[tokio::test]
async fn one_whose_connection_broke_is_looked_after() {
    let (world, id) = (world(), SandboxId::random());
    world.route(&id, "a", false, 1).await;
    world.a.put(&id, Has::running());
    assert_eq!(look(&world, &id).await, Seen::Runs);
    world.finder.broke(&id).await;
    assert_eq!(look(&world, &id).await, Seen::Runs);
    world.a.put(&id, Has::asleep());
    world.finder.broke(&id).await;
    assert_eq!(look(&world, &id).await, Seen::Asleep);
    world.a.lose(&id);
    world.finder.broke(&id).await;
    assert_eq!(look(&world, &id).await, Seen::Gone);
    // Of one that nobody knows nothing is asked.
    let before = world.asked();
    world.finder.broke(&SandboxId::random()).await;
    assert_eq!(world.asked(), before);
}

#[tokio::test]
async fn one_that_was_woken_runs_also_where_the_catalog_has_not_heard_of_it() {
    let (world, id) = (world(), SandboxId::random());
    world.route(&id, "a", true, 1).await;
    world.a.put(&id, Has::asleep());
    assert_eq!(look(&world, &id).await, Seen::Asleep);
    // It goes on elsewhere, because there was no room.
    let (a, b) = (Arc::clone(&world.a), Arc::clone(&world.b));
    *world.servers.on_wake.lock().unwrap() = Some(Box::new(move |id| {
        a.lose(id);
        b.put(id, Has::running());
    }));
    world.finder.wake(&id, knock()).await.unwrap();
    assert_eq!(look(&world, &id).await, Seen::Runs);
    let _service = service(&world).await;
    assert!(world.finder.dial(&id, 80).await.is_ok());
    assert_eq!(world.b.dialled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn why_it_was_not_woken_keeps_its_kind() {
    let (world, id) = (world(), SandboxId::random());
    let wake = async |refusal| {
        *world.servers.refusal.lock().unwrap() = Some(refusal);
        world.finder.wake(&id, knock()).await.unwrap_err()
    };
    use ControlError as E;
    assert!(matches!(wake(E::NotWoken).await, WakeFailure::NotFound));
    assert!(matches!(wake(E::WakeDenied).await, WakeFailure::Denied));
    let text = || "too many".to_owned();
    let limit = wake(E::TeamLimit { text: text() }).await;
    assert!(matches!(limit, WakeFailure::TeamLimit(told) if told == text()));
    let transition = wake(E::Transitioning).await;
    assert!(matches!(transition, WakeFailure::Transitioning));
    for other in [E::Unreachable, E::Unavailable { why: text() }] {
        assert!(matches!(wake(other).await, WakeFailure::Failed(_)));
    }
}

#[tokio::test]
async fn a_private_sandbox_is_not_let_in_to_on_the_word_of_who_does_not_know_its_token() {
    let (world, id) = (world(), SandboxId::random());
    let private = Ingress {
        allow_public_traffic: Some(false),
        ..Ingress::default()
    };
    let route = |traffic_token| Route {
        node: "a".into(),
        asleep: false,
        ingress: private.clone(),
        generation: 1,
        traffic_token,
    };
    world.catalog.route_put(&id, route(None)).await.unwrap();
    // Its node was never told, as one made by an earlier version.
    let untold = Has {
        entrance: None,
        ..Has::running()
    };
    world.a.put(&id, untold);
    assert_eq!(look(&world, &id).await, Seen::Failed);
    let said = route(Some(TokenHash([7; 32])));
    world.catalog.route_put(&id, said).await.unwrap();
    let target = world.finder.lookup(&id).await.unwrap();
    let Some(RouteTarget::Running { traffic_token, .. }) = target else {
        panic!("{target:?}");
    };
    assert!(traffic_token.is_some());
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_no_word_about_the_sandbox() {
    let (world, id) = (world(), SandboxId::random());
    world.route(&id, "a", false, 1).await;
    world.a.is_away.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let dialled = world.finder.dial(&id, 80).await;
        assert!(matches!(dialled, Err(DialFailure::Node(_))));
        assert_eq!(look(&world, &id).await, Seen::Runs);
    }
    // As soon as the catalog says that it moved, it is found.
    world.route(&id, "b", false, 2).await;
    let dialled = world.finder.dial(&id, 80).await;
    assert!(matches!(dialled, Err(DialFailure::Node(_))), "as known");
    world.b.put(&id, Has::running());
    let _service = service(&world).await;
    let dialled = tokio::time::timeout(LONG, world.finder.dial(&id, 80)).await;
    assert!(dialled.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_that_it_has_all_sandboxes_gets_no_traffic_of_others() {
    let (world, id) = (with_catalog(false), SandboxId::random());
    let _listener = service(&world).await;
    world.a.put(&id, Has::running());
    world.b.put(
        &id,
        Has {
            started_at: Timestamp::now(),
            ..Has::running()
        },
    );
    let homes = [(id.clone(), "a".to_owned())].into_iter().collect();
    *world.servers.homes.lock().unwrap() = Some(homes);
    assert_eq!(look(&world, &id).await, Seen::Runs);
    world.finder.dial(&id, 49983).await.unwrap();
    let dialled = |node: &crate::support::FakeNode| node.dialled.load(Ordering::SeqCst);
    assert_eq!((dialled(&world.a), dialled(&world.b)), (1, 0));
    // Its row names a node that knows nothing of it: then nobody is believed.
    let moving = SandboxId::random();
    world.b.put(&moving, Has::running());
    let home = |node: &str| {
        let mut homes = world.servers.homes.lock().unwrap();
        let homes = homes.as_mut().unwrap();
        homes.insert(moving.clone(), node.to_owned());
    };
    home("a");
    assert_eq!(look(&world, &moving).await, Seen::Failed);
    home("b");
    assert_eq!(look(&world, &moving).await, Seen::Runs);
    // One that has ended, or never was.
    let nobodys = SandboxId::random();
    world.b.put(&nobodys, Has::running());
    assert_eq!(look(&world, &nobodys).await, Seen::Gone);
    // While no API server answers the nodes' word is all that there is.
    *world.servers.homes.lock().unwrap() = None;
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(look(&world, &nobodys).await, Seen::Runs);
}
