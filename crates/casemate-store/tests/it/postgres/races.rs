//! Two servers on one database do the same at once: exactly one outcome.

use std::future::Future;
use std::sync::Arc;

use casemate_store::sql::SqlStore;
use casemate_store::testing::{TempPostgres, a_request, build_ready};
use casemate_store::{
    Begun, BuildBegun, BuildCache, BuildRequested, Builds, BuiltBytes, CacheKey, CachedLayer,
    Idempotency, JoinRole, JoinTokens, LeaseTaken, Leases, NewBuild, NewJoinToken, NewSnapshot,
    NodeReport, Sandboxes, Settings, Snapshots, StoreError, Team, TemplateDeleted, Templates,
    Users,
};
use casemate_types::{BuildFailure, EndReason, SandboxId, SnapshotId, TemplateId, Timestamp};
use std::time::Duration;

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

fn failure() -> BuildFailure {
    BuildFailure {
        message: "cancelled".into(),
        step: None,
    }
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
                let owner = format!("server-{number}");
                store
                    .idempotency_begin(&team, &key, &[1; 32], &owner, at(0))
                    .await
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
    let used =
        servers.race(|store, _| async move { store.join_token_use("token", &[1; 32]).await });
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
    servers.first().sandbox_insert(&sandbox).await.unwrap();
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
                    let kept = casemate_types::Kept::Files;
                    store.sandbox_pause(&id, generation, at(9), kept).await
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_one_name_make_one_template() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let team = servers.team.clone();
    let asked = servers.race(|store, _| {
        let new = a_request(&team, "mine", &["default"], at(0));
        async move { store.build_request(&new).await }
    });
    let mut templates: Vec<TemplateId> = Vec::new();
    for asked in asked.await {
        match asked.unwrap() {
            BuildRequested::Done { template, .. } => templates.push(template),
            refused => panic!("{refused:?}"),
        }
    }
    assert!(
        templates.iter().all(|one| *one == templates[0]),
        "{templates:?}"
    );
    let summary = servers
        .first()
        .template_summary(&templates[0])
        .await
        .unwrap();
    assert_eq!(summary.unwrap().build_count as usize, RACERS);
    // Each superseded those before it: one waits.
    let open = servers.first().build_list_open(&team.id).await.unwrap();
    assert_eq!(open.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_of_a_team_are_bounded_at_all_servers_together() {
    const BUILDS_MAX: u32 = 5;
    let Some(servers) = Servers::open().await else {
        return;
    };
    let team = servers.team.clone();
    let asked = servers.race(|store, number| {
        let new = NewBuild {
            builds_max: BUILDS_MAX,
            ..a_request(&team, &format!("template-{number}"), &["default"], at(0))
        };
        async move { store.build_request(&new).await }
    });
    let asked: Vec<_> = asked.await.into_iter().map(Result::unwrap).collect();
    let is_done = |one: &&BuildRequested| matches!(one, BuildRequested::Done { .. });
    assert_eq!(
        asked.iter().filter(is_done).count(),
        BUILDS_MAX as usize,
        "{asked:?}"
    );
    let open = servers.first().build_list_open(&team.id).await.unwrap();
    assert_eq!(open.len(), BUILDS_MAX as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_begins_once_or_is_cancelled() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    for round in 0..4 {
        let new = a_request(&servers.team, &format!("t-{round}"), &["default"], at(0));
        servers.first().build_request(&new).await.unwrap();
        let build = new.build;
        let ends = servers.race(|store, number| async move {
            match number % 4 {
                3 => store
                    .build_fail(&build, &failure(), at(1))
                    .await
                    .map(|done| (false, done)),
                _ => {
                    let begun = store.build_begin(&build, at(1)).await?;
                    Ok((true, matches!(begun, BuildBegun::Began { .. })))
                }
            }
        });
        let ends: Vec<(bool, bool)> = ends.await.into_iter().map(Result::unwrap).collect();
        let begun = ends.iter().filter(|end| **end == (true, true)).count();
        let failed = ends.iter().filter(|end| **end == (false, true)).count();
        assert_eq!(failed, 1, "{ends:?}");
        assert!(begun <= 1, "{ends:?}");
    }
}

/// One builds; of two that build for the same tag each later one hears of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rivals_are_seen_by_one_of_them() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    for round in 0..5 {
        let alias = format!("t-{round}");
        let one = a_request(&servers.team, &alias, &["x"], at(0));
        servers.first().build_request(&one).await.unwrap();
        let other = a_request(&servers.team, &alias, &["y"], at(1));
        let BuildRequested::Done { template, .. } =
            servers.first().build_request(&other).await.unwrap()
        else {
            panic!("refused");
        };
        // Both lead to `x`, and both still wait.
        let shared = sqlx_tag(&servers, &template, &other).await;
        assert!(shared);
        let (a, b) = tokio::join!(
            servers.stores[0].build_begin(&one.build, at(2)),
            servers.stores[1].build_begin(&other.build, at(2))
        );
        let rivals = [a.unwrap(), b.unwrap()].map(|begun| match begun {
            BuildBegun::Began { rivals } => rivals.len(),
            refused => panic!("{refused:?}"),
        });
        assert_eq!(rivals.iter().sum::<usize>(), 1, "{rivals:?}");
    }
}

/// Gives `x` to a build that waits, as no port does: requests would supersede the other.
async fn sqlx_tag(servers: &Servers, template: &TemplateId, build: &NewBuild) -> bool {
    let pool = casemate_sql::postgres::lazy(
        servers.stores[0].options(),
        casemate_sql::postgres::Commits::Synced,
    );
    let done = casemate_sql::query(
        "INSERT INTO template_tags (template_id, tag, assigned_at, build_id) \
         VALUES ($1, 'x', $2, $3)",
    )
    .bind(template.as_str())
    .bind(at(1).as_microsecond())
    .bind(build.build.to_string())
    .execute(&pool)
    .await;
    done.unwrap() == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_that_are_assigned_at_once_are_all_kept() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let build = build_ready(servers.first(), &servers.team, "mine", &["default"], at(0)).await;
    let other = build_ready(servers.first(), &servers.team, "mine", &["default"], at(1)).await;
    let assigned = servers.race(|store, number| {
        let build = if number % 4 < 2 {
            build.clone()
        } else {
            other.clone()
        };
        async move {
            let tags = ["v1".to_owned(), "v2".to_owned()];
            store
                .tags_assign(&build.template, &build.id, &tags, at(5))
                .await
        }
    });
    for assigned in assigned.await {
        assigned.unwrap();
    }
    let tags = servers.first().tags_list(&build.template).await.unwrap();
    let names: Vec<&str> = tags.iter().map(|one| &*one.tag).collect();
    assert_eq!(names, ["default", "v1", "v2"]);
    let wanted = ["v1".to_owned()];
    let history = servers
        .first()
        .tags_history(&build.template, &wanted, None, 100)
        .await
        .unwrap();
    for pair in history.windows(2) {
        assert!(pair[0].assigned_at > pair[1].assigned_at);
        assert_ne!(
            pair[0].build, pair[1].build,
            "an assignment that changed nothing"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_becomes_a_template_or_a_snapshot() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    for round in 0..3 {
        let (team, alias) = (servers.team.clone(), format!("name-{round}"));
        let ends = servers.race(|store, number| {
            let new = a_request(&team, &alias, &["default"], at(0));
            let snapshot = a_snapshot(&team, &alias, &new);
            async move {
                if number % 4 < 2 {
                    let asked = store.build_request(&new).await?;
                    return Ok((true, matches!(asked, BuildRequested::Done { .. })));
                }
                match store.snapshot_insert(&snapshot).await {
                    Ok(_) => Ok((false, true)),
                    Err(StoreError::Exists { .. }) => Ok((false, false)),
                    Err(error) => Err(error),
                }
            }
        });
        let ends: Vec<(bool, bool)> = ends.await.into_iter().map(Result::unwrap).collect();
        let won = |is_build: bool| ends.iter().any(|end| *end == (is_build, true));
        assert!(won(true) != won(false), "{ends:?}");
        for (is_build, is_done) in &ends {
            assert_eq!(*is_done, won(*is_build), "{ends:?}");
        }
    }
}

fn a_snapshot(team: &Team, alias: &str, new: &NewBuild) -> NewSnapshot {
    let like = fixture_rows::snapshot();
    NewSnapshot {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: Some(alias.into()),
        tag: "default".into(),
        build: casemate_store::Build {
            id: new.build,
            template: new.template.clone(),
            files: Some(SnapshotId::random()),
            ..like.build
        },
        node: "node".into(),
        sandbox: SandboxId::random(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_deleted_once_while_others_build_it() {
    let Some(servers) = Servers::open().await else {
        return;
    };
    let build = build_ready(servers.first(), &servers.team, "mine", &["default"], at(0)).await;
    let team = servers.team.clone();
    let ends = servers.race(|store, number| {
        let (template, new) = (
            build.template.clone(),
            a_request(&team, "mine", &["v"], at(1)),
        );
        async move {
            if number % 2 == 0 {
                let deleted = store.template_delete(&template).await?;
                return Ok(matches!(deleted, TemplateDeleted::Done(_)));
            }
            store.build_request(&new).await.map(|_| false)
        }
    });
    let ends: Vec<bool> = ends.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(ends.iter().filter(|done| **done).count(), 1);
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
