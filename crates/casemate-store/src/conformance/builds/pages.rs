//! What pages of templates and builds say.

use super::*;
use crate::{CreatedCursor, NodeReport, TemplateOrder, TemplateSummary};

async fn summary(store: &dyn Store, id: &TemplateId) -> TemplateSummary {
    store
        .template_summary(id)
        .await
        .unwrap()
        .expect("it is kept")
}

async fn walk(
    store: &dyn Store,
    team: &Team,
    order: TemplateOrder,
    rows_max: u32,
) -> Vec<TemplateSummary> {
    let mut all: Vec<TemplateSummary> = Vec::new();
    loop {
        let after = all.last().map(|last| CreatedCursor {
            created_at: last.template.created_at,
            id: last.template.id.to_string(),
        });
        let page = store.template_page(&team.id, order, after.as_ref(), rows_max);
        let page = page.await.unwrap();
        assert!(page.len() <= rows_max as usize);
        assert!(all.len() < 1000, "the pages go round in circles");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub async fn a_summary_tells_the_build_of_the_default_tag(store: &dyn Store) {
    let team = a_known_team(store).await;
    let first = a_request(&team, "mine", &["default"], 10);
    let id = request(store, &first).await;
    let asked = summary(store, &id).await;
    let expected = TemplateSummary {
        template: store.template_by_id(&id).await.unwrap().unwrap(),
        names: vec![(Some(team.slug.clone()), "mine".into())],
        updated_at: at(10, 5),
        spawn_count: 0,
        last_spawned_at: None,
        build_count: 1,
        ready: None,
        status: BuildStatus::Waiting,
    };
    assert_eq!(asked, expected);
    let build = finished(&first, &id);
    store
        .build_begin(&first.build, "a-server", at(11, 0))
        .await
        .unwrap();
    assert_eq!(summary(store, &id).await.status, BuildStatus::Building);
    store.build_finish(&build, 700, at(12, 0)).await.unwrap();
    let done = summary(store, &id).await;
    assert_eq!(done.status, BuildStatus::Ready);
    assert_eq!(done.ready, Some(record(store, first.build).await));
    // A later one that fails, and one of another tag.
    let second = a_request(&team, "mine", &["default"], 20);
    request(store, &second).await;
    let failure = a_failure("x", None);
    let failed = store.build_fail(&second.build, &failure, at(21, 0)).await;
    assert!(failed.unwrap());
    ready(store, &a_request(&team, "mine", &["v2"], 22)).await;
    let failed = summary(store, &id).await;
    assert_eq!(failed.status, BuildStatus::Failed);
    assert_eq!(failed.ready, done.ready);
    assert_eq!((failed.build_count, failed.updated_at), (3, at(22, 5)));
    let only = ready(store, &a_request(&team, "tagged", &["v1"], 30)).await;
    let tagged = summary(store, &only.template).await;
    assert_eq!((tagged.status, tagged.ready), (BuildStatus::Waiting, None));
    let nobody = TemplateId::random();
    assert_eq!(store.template_summary(&nobody).await.unwrap(), None);
}

pub async fn sandboxes_of_a_template_are_counted(store: &dyn Store) {
    let team = a_known_team(store).await;
    let build = ready(store, &a_request(&team, "mine", &["default"], 10)).await;
    let id = build.template;
    let nobody = TemplateId::random();
    let before = summary(store, &id).await;
    let spawned = [(id.clone(), 3, at(50, 0)), (nobody, 1, at(50, 0))];
    store.template_spawned(&spawned).await.unwrap();
    let late = [(id.clone(), 4, at(40, 0)), (id.clone(), 1, at(41, 0))];
    store.template_spawned(&late).await.unwrap();
    store.template_spawned(&[]).await.unwrap();
    let after = summary(store, &id).await;
    let expected = TemplateSummary {
        spawn_count: 8,
        last_spawned_at: Some(at(50, 0)),
        ..before
    };
    assert_eq!(after, expected);
}

pub async fn a_template_is_published_and_taken_back(store: &dyn Store) {
    let team = a_known_team(store).await;
    let id = request(store, &a_request(&team, "mine", &["default"], 10)).await;
    for (public, seconds) in [(true, 20), (true, 21), (false, 22)] {
        let set = store.template_set_public(&id, public, at(seconds, 0));
        assert!(set.await.unwrap());
        let kept = summary(store, &id).await;
        assert_eq!(kept.template.public, public);
        assert_eq!(kept.updated_at, at(seconds, 0));
    }
    let nobody = TemplateId::random();
    let set = store.template_set_public(&nobody, true, at(30, 0)).await;
    assert!(!set.unwrap());
    let snapshot = a_snapshot_of(&team, "kept", 30);
    store.snapshot_insert(&snapshot).await.unwrap();
    let id = &snapshot.build.template;
    let set = store.template_set_public(id, true, at(31, 0)).await;
    assert!(!set.unwrap(), "a snapshot is nobody else's");
    let kept = summary(store, id).await;
    assert_eq!((kept.template.public, kept.build_count), (false, 1));
    assert_eq!(kept.status, BuildStatus::Ready);
}

pub(crate) fn a_snapshot_of(team: &Team, alias: &str, seconds: i64) -> NewSnapshot {
    let new = a_request(team, alias, &["default"], seconds);
    NewSnapshot {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: Some(alias.into()),
        tag: "default".into(),
        build: Build {
            files: Some(SnapshotId::random()),
            ..finished(&new, &new.template)
        },
        node: "node-1".into(),
        sandbox: casemate_types::SandboxId::random(),
    }
}

pub async fn templates_are_paged_in_both_orders(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    request(store, &a_request(&other, "x", &["default"], 1)).await;
    let snapshot = a_snapshot_of(&team, "kept", 2);
    store.snapshot_insert(&snapshot).await.unwrap();
    let mut expected = Vec::new();
    for (n, seconds) in [3, 1, 2, 2, 2, 1, 4].into_iter().enumerate() {
        let new = a_request(&team, &format!("t{n}"), &["default"], seconds);
        let build = ready(store, &new).await;
        expected.push((at(seconds, 5), build.template, build.id, format!("t{n}")));
    }
    expected.sort();
    for rows_max in [1, 2, 3, 7, 100] {
        let oldest = walk(store, &team, TemplateOrder::OldestFirst, rows_max).await;
        assert_eq!(oldest.len(), expected.len());
        for (found, (created_at, id, build, alias)) in oldest.iter().zip(&expected) {
            assert_eq!(&found.template.id, id);
            assert_eq!(&found.template.created_at, created_at);
            assert_eq!(found.ready.as_ref().map(|ready| &ready.id), Some(build));
            assert_eq!(found.names, [(Some(team.slug.clone()), alias.clone())]);
        }
        let mut newest = walk(store, &team, TemplateOrder::NewestFirst, rows_max).await;
        newest.reverse();
        assert_eq!(newest, oldest, "pages of {rows_max}");
    }
    let gone = &expected[3].1;
    store.template_delete(gone).await.unwrap();
    let left = walk(store, &team, TemplateOrder::OldestFirst, 2).await;
    assert_eq!(left.len(), expected.len() - 1);
    assert!(left.iter().all(|one| one.template.id != *gone));
}

pub async fn builds_of_a_template_are_paged_newest_first(store: &dyn Store) {
    let team = a_known_team(store).await;
    request(store, &a_request(&team, "other", &["default"], 2)).await;
    let mut expected = Vec::new();
    let mut template = TemplateId::random();
    for (n, seconds) in [3, 1, 2, 2, 2, 4].into_iter().enumerate() {
        let new = a_request(&team, "mine", &[&format!("v{n}")], seconds);
        template = request(store, &new).await;
        expected.push((at(seconds, 5), new.build.to_string()));
    }
    expected.sort();
    expected.reverse();
    for rows_max in [1, 2, 5, 100] {
        let mut all: Vec<BuildRecord> = Vec::new();
        loop {
            let after = all.last().map(|last| CreatedCursor {
                created_at: last.created_at,
                id: last.id.to_string(),
            });
            let page = store.build_page(&template, after.as_ref(), rows_max).await;
            let page = page.unwrap();
            assert!(page.len() <= rows_max as usize && all.len() < 1000);
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        let found: Vec<_> = all
            .iter()
            .map(|one| (one.created_at, one.id.to_string()))
            .collect();
        assert_eq!(found, expected, "pages of {rows_max}");
    }
    let nobody = TemplateId::random();
    assert_eq!(store.build_page(&nobody, None, 9).await.unwrap(), []);
}

/// A node that reports again changes what it knows, and nothing of what is counted here.
pub async fn a_report_leaves_what_is_counted(store: &dyn Store) {
    let id = TemplateId::random();
    let mut build = Build {
        id: BuildId::random(),
        template: id.clone(),
        layers: vec!["base".into()],
        resources: Resources::BASE,
        default_user: "user".into(),
        default_workdir: None,
        envd_version: "0.6.12".into(),
        files: None,
        envs: Default::default(),
        startup: None,
        distribution: Distribution::Debian("bookworm".into()),
        created_at: at(1, 0),
    };
    let alias = format!("alias-{}", KeyId::random());
    let report = async |build: &Build, seconds| {
        let report = NodeReport {
            build: build.clone(),
            alias: alias.clone(),
        };
        store
            .template_report(&report, at(seconds, 0))
            .await
            .unwrap()
    };
    assert!(report(&build, 10).await);
    let spawned = [(id.clone(), 5, at(20, 0))];
    store.template_spawned(&spawned).await.unwrap();
    assert!(!report(&build, 30).await);
    build.distribution = Distribution::Debian("trixie".into());
    build.envd_version = "0.6.13".into();
    assert!(report(&build, 40).await);
    assert_eq!(
        store.build_by_id(&build.id).await.unwrap(),
        Some(build.clone())
    );
    let kept = summary(store, &id).await;
    assert_eq!((kept.spawn_count, kept.build_count), (5, 1));
    assert_eq!(kept.last_spawned_at, Some(at(20, 0)));
    assert_eq!(kept.names, [(None, alias.clone())]);
    let ready = kept.ready.unwrap();
    assert_eq!(ready.status, BuildStatus::Ready);
    assert_eq!(ready.envd_version.as_deref(), Some("0.6.13"));
    assert_eq!((ready.created_at, ready.updated_at), (at(1, 0), at(40, 0)));
    build.id = BuildId::random();
    build.created_at = at(2, 0);
    assert!(report(&build, 50).await);
    let kept = summary(store, &id).await;
    assert_eq!((kept.build_count, kept.updated_at), (2, at(50, 0)));
}
