//! Two servers on one database do the same at once: exactly one outcome.

mod builds;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use casemate_store::sql::SqlStore;
use casemate_store::testing::TempPostgres;
use casemate_store::{
    Begun, BuildCache, BuiltBytes, CacheKey, CachedLayer, Idempotency, JoinRole, JoinTokens,
    KeyClaim, LeaseTaken, Leases, NewJoinToken, NewRun, NodeReport, Sandboxes, Settings,
    StoreError, Team, Templates, Upload, Users,
};
use casemate_types::{EndReason, Kept, SandboxId, Timestamp};

use super::new_team;
use crate::fixture_rows;

/// Tasks of a race, half of them at each server.
const RACERS: usize = 16;

struct Servers {
    stores: [TempPostgres; 2],
    team: Team,
}

impl Servers {
    async fn open() -> Option<Self> {
        let first = TempPostgres::open().await?;
        let second = first.beside().await;
        let team = new_team(&*first).await;
        Some(Self {
            stores: [first, second],
            team,
        })
    }

    fn first(&self) -> &SqlStore {
        &self.stores[0]
    }

    /// What became of each.
    async fn race<T: Send + 'static, F>(
        &self,
        racer: impl Fn(Arc<SqlStore>, usize) -> F,
    ) -> Vec<Result<T, StoreError>>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let racers = (0..RACERS).map(|number| {
            let store = self.stores[number % 2].share();
            tokio::spawn(racer(store, number))
        });
        let racers: Vec<_> = racers.collect();
        let mut ends = Vec::new();
        for racer in racers {
            ends.push(racer.await.unwrap());
        }
        ends
    }
}

fn at(seconds: i64) -> Timestamp {
    fixture_rows::at(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_a_setting_and_a_lease_have_one_owner() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    for round in 0..5 {
        let (key, team) = (format!("key-{round}"), servers.team.id.clone());
        let begun = servers.race(|store, number| {
            let (key, team) = (key.clone(), team.clone());
            async move {
                let claim = KeyClaim {
                    team,
                    key,
                    owner: format!("server-{number}"),
                    at: at(0),
                };
                store.idempotency_begin(&claim, &[1; 32]).await
            }
        });
        let begun: Vec<Begun> = begun.await.into_iter().map(Result::unwrap).collect();
        let new = begun.iter().filter(|one| **one == Begun::New).count();
        assert_eq!(new, 1, "{begun:?}");
        assert!(
            begun
                .iter()
                .all(|one| matches!(one, Begun::New | Begun::InProgress))
        );

        let claimed = servers.race(|store, number| {
            let name = key.clone();
            async move { store.setting_claim(&name, &number.to_string()).await }
        });
        let claimed: Vec<String> = claimed.await.into_iter().map(Result::unwrap).collect();
        assert!(
            claimed.iter().all(|value| *value == claimed[0]),
            "{claimed:?}"
        );

        let taken = servers.race(|store, number| {
            let (name, holder) = (key.clone(), format!("server-{number}"));
            async move {
                store
                    .lease_take(&name, &holder, Duration::from_secs(60))
                    .await
            }
        });
        let taken: Vec<LeaseTaken> = taken.await.into_iter().map(Result::unwrap).collect();
        let is_held = |one: &&LeaseTaken| matches!(one, LeaseTaken::Held { .. });
        assert_eq!(taken.iter().filter(is_held).count(), 1, "{taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_not_used_more_often_than_it_may_be() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let token = NewJoinToken {
        id: "token".into(),
        hash: [1; 32],
        role: JoinRole::Node,
        lasts: Duration::from_secs(60),
        uses_left: Some(3),
    };
    servers.first().join_token_put(&token).await.unwrap();
    let used = servers.race(|store, _| async move {
        store
            .join_token_use("token", &[1; 32], JoinRole::Node)
            .await
    });
    let used = used.await.into_iter().filter_map(Result::unwrap).count();
    assert_eq!(used, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_changes_once_in_each_generation() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let mut sandbox = fixture_rows::running();
    sandbox.team = servers.team.id.clone();
    servers
        .first()
        .sandbox_insert(&sandbox, None)
        .await
        .unwrap();
    let (id, generation) = (sandbox.id.clone(), sandbox.generation);
    let ends = servers.race(|store, number| {
        let id = id.clone();
        async move {
            match number % 3 {
                0 => store.sandbox_set_deadline(&id, generation, at(60)).await,
                1 => {
                    store
                        .sandbox_end(&id, generation, EndReason::Killed, at(9))
                        .await
                }
                _ => {
                    store
                        .sandbox_pause(&id, generation, at(9), Kept::Files)
                        .await
                }
            }
        }
    });
    let mut won = 0;
    for end in ends.await {
        match end {
            Ok(next) => {
                assert_eq!(next, generation + 1);
                won += 1;
            }
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(won, 1);
}

/// Far from it all go side by side, near it one after the other; both ways are gone here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_teams_last_places_are_given_once_each() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    for round in 0..6_u32 {
        let team = new_team(servers.first()).await.id;
        // As many as there may be, before the race.
        let (max, filled) = match round % 3 {
            0 => (5, 0),
            1 => (20, 12),
            _ => (100_000, 0),
        };
        let row = || {
            let mut sandbox = fixture_rows::running();
            sandbox.id = SandboxId::random();
            sandbox.team = team.clone();
            sandbox
        };
        for _ in 0..filled {
            let filling = row();
            let filling = servers.first().sandbox_insert(&filling, Some(max));
            filling.await.unwrap();
        }
        let rows: Vec<_> = (0..RACERS).map(|_| row()).collect();
        let made = servers.race(|store, number| {
            let row = rows[number].clone();
            async move { store.sandbox_insert(&row, Some(max)).await }
        });
        let (made, refused): (Vec<_>, Vec<_>) =
            made.await.into_iter().partition(|made| made.is_ok());
        let places = RACERS.min((max - filled) as usize);
        assert_eq!(made.len(), places, "round {round}: {refused:?}");
        for refused in refused {
            let refused = refused.unwrap_err();
            assert!(
                matches!(refused, StoreError::TeamFull { .. }),
                "{refused:?}"
            );
        }
    }
}

/// A place that a resume takes is not there for a create.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumes_and_creates_share_the_places() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let team = servers.team.id.clone();
    let mut rows = Vec::new();
    for _ in 0..RACERS {
        let mut sandbox = fixture_rows::running();
        sandbox.id = SandboxId::random();
        sandbox.team = team.clone();
        rows.push(sandbox);
    }
    for row in rows.iter().step_by(3) {
        servers.first().sandbox_insert(row, None).await.unwrap();
        let paused = servers.first();
        let paused = paused.sandbox_pause(&row.id, row.generation, at(9), Kept::Files);
        paused.await.unwrap();
    }
    let ends = servers.race(|store, number| {
        let row = rows[number].clone();
        async move {
            if number % 3 != 0 {
                return store.sandbox_insert(&row, Some(7)).await;
            }
            let run = NewRun {
                node: &row.node,
                started_at: at(10),
                ends_at: at(99),
                on_timeout: casemate_types::OnTimeout::Kill,
            };
            let generation = row.generation + 1;
            let resumed = store.sandbox_resume(&row.id, generation, &run, Some(7));
            resumed.await.map(drop)
        }
    });
    let done = ends.await.into_iter().filter(|end| match end {
        Ok(()) => true,
        Err(StoreError::TeamFull { .. }) => false,
        Err(other) => panic!("{other:?}"),
    });
    assert_eq!(done.count(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_nodes_and_default_teams_agree() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let report = NodeReport {
        alias: "base".into(),
        ..fixture_rows::report()
    };
    let reported = servers.race(|store, _| {
        let report = report.clone();
        async move { store.template_report(&report, at(1)).await }
    });
    let changed = reported
        .await
        .into_iter()
        .filter(|one| matches!(one, Ok(true)))
        .count();
    assert_eq!(changed, 1);

    let user = fixture_rows::user();
    servers.first().user_insert(&user).await.unwrap();
    let mut teams = Vec::new();
    for _ in 0..RACERS {
        teams.push(new_team(servers.first()).await.id);
    }
    let put = servers.race(|store, number| {
        let (user, team) = (user.id.clone(), teams[number].clone());
        async move { store.member_put(&user, &team, true, at(1)).await }
    });
    for put in put.await {
        put.unwrap();
    }
    let memberships = servers.first().memberships(&user.id).await.unwrap();
    assert_eq!(memberships.len(), RACERS);
    assert_eq!(memberships.iter().filter(|one| one.is_default).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_filled_and_trimmed_at_once() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let team = servers.team.id.clone();
    let ends = servers.race(|store, number| {
        let team = team.clone();
        async move {
            for step in 0..5 {
                let key = CacheKey::parse(&format!("{:064x}", number / 2 + step)).unwrap();
                let layer = CachedLayer {
                    layers: vec![format!("layer-{number}-{step}")],
                    files: None,
                    ..fixture_rows::cached_layer()
                };
                let built = BuiltBytes {
                    name: layer.layers[0].clone(),
                    bytes: 10,
                    holds: 10,
                };
                store.built_note(&team, &built, at(1)).await?;
                store.layer_put(&team, &key, &layer, at(1)).await?;
                store.built_trim(&team, 50).await?;
            }
            Ok(())
        }
    });
    for end in ends.await {
        end.unwrap();
    }
    servers.first().built_trim(&team, 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_a_team_are_bounded_at_all_servers_together() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let team = servers.team.id.clone();
    let put = servers.race(|store, number| {
        let (team, key) = (
            team.clone(),
            CacheKey::parse(&format!("{number:064x}")).unwrap(),
        );
        let upload = Upload {
            sha256: format!("content-{number}"),
            bytes: 30,
            artifact: None,
        };
        async move {
            store
                .upload_put_within(&team, &key, &upload, at(0), 100)
                .await
        }
    });
    let put = put.await.into_iter().map(Result::unwrap);
    assert_eq!(put.filter(|put| *put).count(), 3);
    assert_eq!(servers.first().upload_bytes(&team).await.unwrap(), 90);
}
