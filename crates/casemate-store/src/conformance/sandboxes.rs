//! Sandboxes.

mod pages;

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_types::{
    EndReason, Ingress, Kept, NetworkPolicy, OnTimeout, Resources, SandboxId, SandboxState,
    TemplateId,
};

use casemate_types::sandbox::PublicState;

use super::*;
use crate::sandboxes::FIRST_GENERATION;
use crate::{AliveSandbox, BuildId, NewRun, Sandbox, SandboxFilter};

pub use pages::*;

pub(super) fn a_sandbox(team: &TeamId, started: i64) -> Sandbox {
    Sandbox {
        id: SandboxId::random(),
        team: team.clone(),
        template: TemplateId::random(),
        alias: Some("base".into()),
        build: BuildId::random(),
        node: "node-1".into(),
        envd_version: "0.6.12".into(),
        resources: Resources::BASE,
        metadata: BTreeMap::new(),
        secured: true,
        network: NetworkPolicy::default(),
        ingress: Ingress::default(),
        envs: None,
        timeout: Duration::from_secs(300),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        started_at: at(started, 0),
        state: SandboxState::Running {
            ends_at: at(started + 300, 0),
        },
        generation: FIRST_GENERATION,
        stored_files: None,
    }
}

pub(super) fn a_run(node: &str) -> NewRun<'_> {
    NewRun {
        node,
        started_at: at(40, 0),
        ends_at: at(70, 0),
        on_timeout: OnTimeout::Kill,
    }
}

async fn new_sandbox(store: &dyn Store, team: &TeamId, started: i64) -> Sandbox {
    let sandbox = a_sandbox(team, started);
    store.sandbox_insert(&sandbox, None).await.unwrap();
    sandbox
}

async fn read(store: &dyn Store, sandbox: &Sandbox) -> Sandbox {
    let found = store.sandbox_by_id(&sandbox.id).await.unwrap();
    found.expect("the sandbox is kept")
}

async fn end(store: &dyn Store, sandbox: &Sandbox, at: Timestamp) -> Result<u64, StoreError> {
    store
        .sandbox_end(&sandbox.id, sandbox.generation, EndReason::Killed, at)
        .await
}

pub async fn sandbox_comes_back_as_it_went_in(store: &dyn Store) {
    let team = new_team(store).await;
    let plain = new_sandbox(store, &team, 1).await;
    assert_eq!(read(store, &plain).await, plain);

    let mut rich = a_sandbox(&team, 2);
    rich.alias = None;
    rich.secured = false;
    rich.metadata = BTreeMap::from([
        ("user".into(), "a b".into()),
        (String::new(), String::new()),
        ("ünï \"q\" \\ 🦀".into(), "\n\t'; --\u{1}".into()),
    ]);
    rich.network = NetworkPolicy {
        allow_internet_access: Some(false),
        allow_out: Some(vec!["8.8.8.8".into()]),
        deny_out: Some(vec![]),
        dns_servers: Some(vec!["1.1.1.1".into()]),
    };
    rich.resources = Resources {
        vcpus: u32::MAX,
        memory_mib: 0,
        disk_mib: 1,
        processes_max: 2,
    };
    rich.timeout = Duration::from_micros(1_234_567);
    rich.state = SandboxState::Dead {
        ended_at: at(3, 9),
        reason: EndReason::Exited,
    };
    rich.generation = 41;
    rich.ingress = Ingress {
        allow_public_traffic: Some(false),
        mask_request_host: Some("ünï:${PORT}".into()),
        https_ports: Some(vec![0, 65_535]),
    };
    rich.envs = Some(vec![0, 255, 39, 10]);
    rich.on_timeout = OnTimeout::Pause(Kept::Files);
    rich.auto_resume = true;
    store.sandbox_insert(&rich, None).await.unwrap();
    assert_eq!(read(store, &rich).await, rich);

    for kept in [Kept::Memory, Kept::Files] {
        let mut paused = a_sandbox(&team, 4);
        paused.on_timeout = OnTimeout::Pause(kept);
        paused.state = SandboxState::Paused { at: at(9, 1), kept };
        store.sandbox_insert(&paused, None).await.unwrap();
        assert_eq!(read(store, &paused).await, paused);
    }

    let mut fine = a_sandbox(&team, 3);
    fine.started_at += Duration::from_nanos(999);
    store.sandbox_insert(&fine, None).await.unwrap();
    assert_eq!(read(store, &fine).await.started_at, at(3, 0));
    let stranger = SandboxId::random();
    assert_eq!(store.sandbox_by_id(&stranger).await.unwrap(), None);
}

pub async fn sandbox_id_is_never_reused(store: &dyn Store) {
    let team = new_team(store).await;
    let sandbox = new_sandbox(store, &team, 1).await;
    let twin = Sandbox {
        node: "node-2".into(),
        ..sandbox.clone()
    };
    check_exists(store.sandbox_insert(&twin, None).await);
    assert_eq!(read(store, &sandbox).await, sandbox);
    end(store, &sandbox, at(5, 0)).await.unwrap();
    check_exists(store.sandbox_insert(&twin, None).await);
}

pub async fn sandbox_of_no_team_is_dangling(store: &dyn Store) {
    let nothing = TeamId::parse(&random_uuid()).unwrap();
    let sandbox = a_sandbox(&nothing, 1);
    check_dangling(store.sandbox_insert(&sandbox, None).await);
    assert_eq!(store.sandbox_by_id(&sandbox.id).await.unwrap(), None);
}

pub async fn sandbox_changes_by_compare_and_set(store: &dyn Store) {
    let team = new_team(store).await;
    let mut sandbox = new_sandbox(store, &team, 1).await;
    let neighbour = new_sandbox(store, &team, 1).await;
    let first = sandbox.generation;

    let second = store.sandbox_set_deadline(&sandbox.id, first, at(50, 1));
    let second = second.await.unwrap();
    assert_eq!(second, first + 1);
    let policy = NetworkPolicy {
        deny_out: Some(vec!["0.0.0.0/0".into()]),
        ..NetworkPolicy::default()
    };
    let third = store.sandbox_set_network(&sandbox.id, second, &policy);
    let third = third.await.unwrap();
    for stale in [first, second, third + 1, u64::MAX] {
        let id = &sandbox.id;
        check_conflict(store.sandbox_set_deadline(id, stale, at(99, 0)).await);
        let open = NetworkPolicy::default();
        check_conflict(store.sandbox_set_network(id, stale, &open).await);
        let end = store.sandbox_end(id, stale, EndReason::Lost, at(9, 0));
        check_conflict(end.await);
    }
    sandbox.state = SandboxState::Running { ends_at: at(50, 1) };
    sandbox.network = policy;
    sandbox.generation = third;
    assert_eq!(read(store, &sandbox).await, sandbox);
    assert_eq!(read(store, &neighbour).await, neighbour);

    let stranger = a_sandbox(&team, 1);
    check_conflict(end(store, &stranger, at(9, 0)).await);
}

pub async fn a_paused_sandbox_has_no_deadline_until_it_is_resumed(store: &dyn Store) {
    let team = new_team(store).await;
    let mut sandbox = new_sandbox(store, &team, 1).await;
    let id = sandbox.id.clone();
    let resume = async |generation| {
        let run = NewRun {
            on_timeout: OnTimeout::Pause(Kept::Memory),
            ..a_run("node-2")
        };
        store.sandbox_resume(&id, generation, &run, None).await
    };
    check_conflict(resume(sandbox.generation).await);
    let kept = Kept::Memory;
    let paused = store.sandbox_pause(&id, sandbox.generation, at(20, 3), kept);
    let generation = paused.await.unwrap();
    check_conflict(
        store
            .sandbox_pause(&id, sandbox.generation, at(21, 0), kept)
            .await,
    );
    check_conflict(store.sandbox_set_deadline(&id, generation, at(99, 0)).await);
    let open = NetworkPolicy::default();
    check_conflict(store.sandbox_set_network(&id, generation, &open).await);
    let kept = Kept::Files;
    let less = store.sandbox_pause(&id, generation, at(20, 3), kept).await;
    sandbox.generation = less.unwrap();
    sandbox.state = SandboxState::Paused {
        at: at(20, 3),
        kept,
    };
    assert_eq!(read(store, &sandbox).await, sandbox);
    check_conflict(resume(generation).await);
    sandbox.generation = resume(sandbox.generation).await.unwrap();
    sandbox.on_timeout = OnTimeout::Pause(Kept::Memory);
    sandbox.node = "node-2".into();
    sandbox.started_at = at(40, 0);
    sandbox.state = SandboxState::Running { ends_at: at(70, 0) };
    assert_eq!(read(store, &sandbox).await, sandbox);
    check_conflict(resume(sandbox.generation).await);
}

pub async fn a_paused_sandbox_dies_for_good(store: &dyn Store) {
    let team = new_team(store).await;
    let mut sandbox = a_sandbox(&team, 1);
    sandbox.envs = Some(vec![1]);
    store.sandbox_insert(&sandbox, None).await.unwrap();
    let id = &sandbox.id;
    let paused = store.sandbox_pause(id, sandbox.generation, at(20, 0), Kept::Memory);
    sandbox.generation = paused.await.unwrap();
    sandbox.generation = end(store, &sandbox, at(30, 0)).await.unwrap();
    let pause = store.sandbox_pause(id, sandbox.generation, at(31, 0), Kept::Files);
    check_conflict(pause.await);
    let run = a_run("node-1");
    let resume = store.sandbox_resume(id, sandbox.generation, &run, None);
    check_conflict(resume.await);
    // Nobody starts it again: what it was started with goes.
    sandbox.envs = None;
    sandbox.state = SandboxState::Dead {
        ended_at: at(30, 0),
        reason: EndReason::Killed,
    };
    assert_eq!(read(store, &sandbox).await, sandbox);
}

pub async fn a_teams_last_place_is_given_once(store: &dyn Store) {
    let (team, other) = (new_team(store).await, new_team(store).await);
    let max = Some(2);
    let put = async |team: &TeamId, max| {
        let sandbox = a_sandbox(team, 1);
        let put = store.sandbox_insert(&sandbox, max).await;
        put.map(|()| sandbox)
    };
    let is_full =
        |put: &Result<Sandbox, StoreError>| matches!(put, Err(StoreError::TeamFull { max: 2 }));
    let first = put(&team, max).await.unwrap();
    let second = put(&team, max).await.unwrap();
    let refused = put(&team, max).await;
    assert!(is_full(&refused), "{refused:?}");
    put(&other, max).await.unwrap();
    let over = put(&team, None).await.unwrap();
    end(store, &over, at(9, 0)).await.unwrap();
    let paused = store.sandbox_pause(&first.id, first.generation, at(20, 0), Kept::Memory);
    let generation = paused.await.unwrap();
    let resume = async |generation, max| {
        let run = a_run("node-1");
        store.sandbox_resume(&first.id, generation, &run, max).await
    };
    let third = put(&team, max).await.unwrap();
    let refused = resume(generation, max).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::TeamFull { max: 2 }),
        "{refused:?}"
    );
    check_conflict(resume(generation + 1, max).await);
    end(store, &second, at(30, 0)).await.unwrap();
    resume(generation, max).await.unwrap();
    let refused = put(&team, max).await;
    assert!(is_full(&refused), "{refused:?}");
    end(store, &third, at(30, 0)).await.unwrap();
    put(&team, max).await.unwrap();
}

pub async fn sandbox_race_has_one_winner(store: &dyn Store) {
    let team = new_team(store).await;
    for _ in 0..20 {
        let sandbox = new_sandbox(store, &team, 1).await;
        let (id, generation) = (&sandbox.id, sandbox.generation);
        let (moved, ended) = tokio::join!(
            store.sandbox_set_deadline(id, generation, at(60, 0)),
            end(store, &sandbox, at(9, 0))
        );
        assert!(moved.is_ok() != ended.is_ok(), "{moved:?} {ended:?}");
        let found = read(store, &sandbox).await;
        assert_eq!(found.generation, generation + 1);
        let is_dead = matches!(found.state, SandboxState::Dead { .. });
        assert_eq!(is_dead, ended.is_ok());
    }
}

pub async fn dead_sandbox_stays_dead(store: &dyn Store) {
    let team = new_team(store).await;
    let reasons = [
        EndReason::Killed,
        EndReason::Expired,
        EndReason::Exited,
        EndReason::Lost,
        EndReason::Orphaned,
        EndReason::Retention,
    ];
    for reason in reasons {
        let sandbox = new_sandbox(store, &team, 1).await;
        let generation = store
            .sandbox_end(&sandbox.id, sandbox.generation, reason, at(9, 4))
            .await
            .unwrap();
        let dead = Sandbox {
            state: SandboxState::Dead {
                ended_at: at(9, 4),
                reason,
            },
            generation,
            ..sandbox
        };
        assert_eq!(read(store, &dead).await, dead);
        check_conflict(end(store, &dead, at(10, 0)).await);
        let deadline = store.sandbox_set_deadline(&dead.id, generation, at(99, 0));
        check_conflict(deadline.await);
        let open = NetworkPolicy::default();
        let network = store.sandbox_set_network(&dead.id, generation, &open);
        check_conflict(network.await);
        assert_eq!(read(store, &dead).await, dead);
    }
}

pub async fn counts_are_of_running_ones(store: &dyn Store) {
    let (team, idle) = (new_team(store).await, new_team(store).await);
    let running = SandboxFilter::running(team.clone());
    assert_eq!(store.sandbox_count(&running).await.unwrap(), 0);
    let first = new_sandbox(store, &team, 1).await;
    new_sandbox(store, &team, 2).await;
    assert_eq!(store.sandbox_count(&running).await.unwrap(), 2);
    let third = new_sandbox(store, &team, 3).await;
    let pause = store.sandbox_pause(&third.id, third.generation, at(4, 0), Kept::Memory);
    pause.await.unwrap();
    let paused = SandboxFilter {
        states: vec![PublicState::Paused],
        ..running.clone()
    };
    assert_eq!(store.sandbox_count(&paused).await.unwrap(), 1);
    end(store, &first, at(5, 0)).await.unwrap();
    assert_eq!(store.sandbox_count(&running).await.unwrap(), 1);
    let nothing = SandboxFilter::running(idle.clone());
    assert_eq!(store.sandbox_count(&nothing).await.unwrap(), 0);
    let counts = store.sandbox_count_by_team().await.unwrap();
    let of = |team: &TeamId| counts.iter().find(|c| c.0 == *team).map(|c| c.1);
    assert_eq!((of(&team), of(&idle)), (Some(1), None));
}

pub async fn alive_ones_are_listed(store: &dyn Store) {
    let team = new_team(store).await;
    let young = new_sandbox(store, &team, 20).await;
    let old = new_sandbox(store, &team, 10).await;
    let dead = new_sandbox(store, &team, 5).await;
    end(store, &dead, at(30, 0)).await.unwrap();
    let moved = store.sandbox_set_deadline(&old.id, old.generation, at(77, 0));
    let generation = moved.await.unwrap();
    let paused = new_sandbox(store, &team, 30).await;
    let kept = Kept::Files;
    let pause = store.sandbox_pause(&paused.id, paused.generation, at(40, 0), kept);
    let paused_generation = pause.await.unwrap();
    let mut elsewhere = a_sandbox(&team, 40);
    elsewhere.node = format!("node-of-{team}");
    store.sandbox_insert(&elsewhere, None).await.unwrap();
    let there = store
        .sandbox_list_alive(Some(&elsewhere.node))
        .await
        .unwrap();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].id, elsewhere.id);
    let mut alive = store.sandbox_list_alive(None).await.unwrap();
    alive.retain(|sandbox| sandbox.team == team);
    assert_eq!(alive.pop(), there.into_iter().next());
    let expected = |sandbox: &Sandbox, state, generation| AliveSandbox {
        id: sandbox.id.clone(),
        team: team.clone(),
        node: sandbox.node.clone(),
        started_at: sandbox.started_at,
        state,
        on_timeout: OnTimeout::Kill,
        ingress: Ingress::default(),
        generation,
        is_stored: false,
    };
    let running = |ends_at| SandboxState::Running { ends_at };
    let at_rest = SandboxState::Paused {
        at: at(40, 0),
        kept,
    };
    let expected = [
        expected(&old, running(at(77, 0)), generation),
        expected(&young, running(at(320, 0)), young.generation),
        expected(&paused, at_rest, paused_generation),
    ];
    assert_eq!(alive, expected);
}

pub async fn forgetting_takes_the_long_dead(store: &dyn Store) {
    let team = new_team(store).await;
    let [alive, long_dead, just_dead] = [
        new_sandbox(store, &team, -900).await,
        new_sandbox(store, &team, -900).await,
        new_sandbox(store, &team, -900).await,
    ];
    end(store, &long_dead, at(-800, 0)).await.unwrap();
    end(store, &just_dead, at(-700, 0)).await.unwrap();
    assert!(store.sandbox_forget(at(-700, 0)).await.unwrap() >= 1);
    let gone = store.sandbox_by_id(&long_dead.id).await.unwrap();
    assert_eq!(gone, None);
    read(store, &just_dead).await;
    read(store, &alive).await;
}

pub async fn the_long_paused_are_listed(store: &dyn Store) {
    let (team, other) = (new_team(store).await, new_team(store).await);
    let mut paused = Vec::new();
    for (team, at_rest) in [(&team, 20), (&team, 10), (&team, 30), (&other, 10)] {
        let sandbox = new_sandbox(store, team, 1).await;
        let pause =
            store.sandbox_pause(&sandbox.id, sandbox.generation, at(at_rest, 0), Kept::Files);
        pause.await.unwrap();
        paused.push(sandbox.id);
    }
    new_sandbox(store, &team, 1).await;
    let listed = store.sandbox_list_paused(&team, at(30, 0)).await.unwrap();
    let ids: Vec<_> = listed.into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(ids, [paused[1].clone(), paused[0].clone()]);
}
