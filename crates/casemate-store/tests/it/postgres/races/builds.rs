//! Builds, tags and templates.

use casemate_sql::postgres::{Commits, lazy};
use casemate_store::testing::{a_request, build_ready};
use casemate_store::{
    Build, BuildBegun, BuildRequested, Builds, NewBuild, NewSnapshot, Snapshots, StoreError, Team,
    TemplateDeleted,
};
use casemate_types::{BuildFailure, SandboxId, SnapshotId, TemplateId};

use super::{RACERS, Servers, at};
use crate::fixture_rows;

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
                    let begun = store.build_begin(&build, "a-server", at(1)).await?;
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
        let shared = tag_beside(&servers, &template, &other).await;
        assert!(shared);
        let (a, b) = tokio::join!(
            servers.stores[0].build_begin(&one.build, "a-server", at(2)),
            servers.stores[1].build_begin(&other.build, "a-server", at(2))
        );
        let rivals = [a.unwrap(), b.unwrap()].map(|begun| match begun {
            BuildBegun::Began { rivals } => rivals.len(),
            refused => panic!("{refused:?}"),
        });
        assert_eq!(rivals.iter().sum::<usize>(), 1, "{rivals:?}");
    }
}

/// Gives `x` to a build that waits, as no port does: requests would supersede the other.
async fn tag_beside(servers: &Servers, template: &TemplateId, build: &NewBuild) -> bool {
    let pool = lazy(servers.stores[0].options(), Commits::Synced);
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
        let won = |is_build: bool| ends.contains(&(is_build, true));
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
        build: Build {
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

fn failure() -> BuildFailure {
    BuildFailure {
        message: "cancelled".into(),
        step: None,
    }
}
