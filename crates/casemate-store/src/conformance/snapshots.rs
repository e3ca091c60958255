//! Snapshots: names, tags, files that are wanted.

use casemate_types::sandbox::PublicState;
use casemate_types::template::TemplateRef;
use casemate_types::{Distribution, Kept, Resources, SandboxId, SnapshotId, TemplateId};

use super::sandboxes::a_sandbox;
use super::*;
use crate::{
    Build, BuildId, NewSnapshot, Resolution, Sandbox, Snapshot, SnapshotCursor, SnapshotFilter,
    TemplateDeleted, TemplateSource,
};

pub(super) fn a_snapshot(team: &Team, alias: Option<&str>, tag: &str, created: i64) -> NewSnapshot {
    NewSnapshot {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: alias.map(Into::into),
        tag: tag.into(),
        build: Build {
            id: BuildId::random(),
            template: TemplateId::random(),
            layers: vec!["base".into()],
            resources: Resources::BASE,
            default_user: "user".into(),
            default_workdir: None,
            envd_version: "0.6.12".into(),
            files: Some(SnapshotId::random()),
            envs: Default::default(),
            startup: None,
            distribution: Distribution::Other,
            created_at: at(created, 0),
        },
        node: "node-1".into(),
        sandbox: SandboxId::random(),
    }
}

async fn a_team(store: &dyn Store) -> Team {
    let id = new_team(store).await;
    store.team_by_id(&id).await.unwrap().expect("it is kept")
}

fn all_of(team: &Team) -> SnapshotFilter {
    SnapshotFilter {
        team: team.id.clone(),
        sandbox: None,
        name: None,
        tag: None,
    }
}

async fn files_of(store: &dyn Store, filter: &SnapshotFilter) -> Vec<SnapshotId> {
    let page = store.snapshot_page(filter, None, 100).await.unwrap();
    page.into_iter().map(|one| one.files).collect()
}

pub(super) fn files(snapshot: &NewSnapshot) -> SnapshotId {
    snapshot.build.files.clone().expect("it has files")
}

async fn resolved(store: &dyn Store, team: &Team, text: &str) -> Option<Build> {
    let reference = TemplateRef::parse(text).unwrap();
    match store
        .template_resolve(&team.slug, &reference)
        .await
        .unwrap()
    {
        Resolution::Found {
            template, build, ..
        } => {
            assert_eq!(template.owner.as_ref(), Some(&team.id));
            assert_eq!(template.source, TemplateSource::Snapshot);
            assert!(!template.public);
            Some(build)
        }
        Resolution::Unknown | Resolution::NoBuild { .. } => None,
    }
}

pub async fn a_snapshot_is_found_by_its_name_tag_and_id(store: &dyn Store) {
    let team = a_team(store).await;
    let named = a_snapshot(&team, Some("mine"), "v1", 10);
    let placed = store.snapshot_insert(&named).await.unwrap();
    assert_eq!(
        (&placed.template, &placed.replaced),
        (&named.build.template, &None)
    );
    for name in [
        "mine",
        &format!("{}/mine", team.slug),
        placed.template.as_str(),
    ] {
        let found = resolved(store, &team, &format!("{name}:v1")).await;
        assert_eq!(found.as_ref(), Some(&named.build), "{name}");
        assert_eq!(resolved(store, &team, name).await, None, "no default tag");
    }
    // The same name again: another build of the same template, under another tag.
    let second = a_snapshot(&team, Some("mine"), "default", 11);
    let placed = store.snapshot_insert(&second).await.unwrap();
    assert_eq!(
        (&placed.template, &placed.replaced),
        (&named.build.template, &None)
    );
    let found = resolved(store, &team, "mine").await.unwrap();
    assert_eq!(
        (found.id, found.files),
        (second.build.id, second.build.files.clone())
    );
    assert_eq!(
        resolved(store, &team, "mine:v1").await,
        Some(named.build.clone())
    );

    let nameless = a_snapshot(&team, None, "default", 12);
    let placed = store.snapshot_insert(&nameless).await.unwrap();
    let page = store
        .snapshot_page(&all_of(&team), None, 100)
        .await
        .unwrap();
    assert_eq!(page.len(), 3);
    let expected = Snapshot {
        template: placed.template,
        alias: None,
        tag: "default".into(),
        build: nameless.build.id,
        files: files(&nameless),
        node: "node-1".into(),
        sandbox: nameless.sandbox.clone(),
        created_at: at(12, 0),
    };
    assert_eq!(page[0], expected);
    assert_eq!(page[1].alias.as_deref(), Some("mine"));
    let other = a_team(store).await;
    assert_eq!(resolved(store, &other, "mine:v1").await, None);
    assert_eq!(files_of(store, &all_of(&other)).await, []);
    let kept = store.build_by_id(&named.build.id).await.unwrap();
    assert_eq!(kept, Some(named.build));
}

pub async fn a_tag_that_moves_gives_up_files_that_nothing_names(store: &dyn Store) {
    let team = a_team(store).await;
    let [first, second] = [20, 21].map(|at| a_snapshot(&team, Some("moves"), "default", at));
    store.snapshot_insert(&first).await.unwrap();
    let placed = store.snapshot_insert(&second).await.unwrap();
    assert_eq!(placed.replaced, first.build.files);
    let both = [files(&first), files(&second), SnapshotId::random()];
    let wanted = store.snapshot_wanted(&both).await.unwrap();
    assert_eq!(wanted, [files(&second)]);
    // What was made from it still finds its layers.
    let build = store.build_by_id(&first.build.id).await.unwrap().unwrap();
    assert_eq!((build.files, build.layers), (None, first.build.layers));
    assert_eq!(files_of(store, &all_of(&team)).await, [files(&second)]);
}

pub async fn snapshots_are_paged_and_filtered(store: &dyn Store) {
    let team = a_team(store).await;
    let mut all = Vec::new();
    for (alias, tag, created) in [
        (Some("a"), "default", 30),
        (Some("a"), "v2", 31),
        (Some("b"), "default", 32),
        (None, "default", 32),
    ] {
        let snapshot = a_snapshot(&team, alias, tag, created);
        store.snapshot_insert(&snapshot).await.unwrap();
        all.push(snapshot);
    }
    let everything = files_of(store, &all_of(&team)).await;
    assert_eq!(everything.len(), 4);
    let mut after = None;
    for expected in &everything {
        let page = store.snapshot_page(&all_of(&team), after.as_ref(), 1).await;
        let page = page.unwrap();
        assert_eq!(page[0].files, *expected);
        after = Some(SnapshotCursor {
            created_at: page[0].created_at,
            build: page[0].build,
            tag: page[0].tag.clone(),
        });
    }
    let last = store.snapshot_page(&all_of(&team), after.as_ref(), 1).await;
    assert_eq!(last.unwrap(), []);
    let named = |name: &str, tag: Option<&str>| SnapshotFilter {
        name: Some(name.into()),
        tag: tag.map(Into::into),
        ..all_of(&team)
    };
    let [a, a2] = [files(&all[0]), files(&all[1])];
    assert_eq!(files_of(store, &named("a", None)).await, [a2, a.clone()]);
    assert_eq!(files_of(store, &named("a", Some("default"))).await, [a]);
    assert_eq!(files_of(store, &named("c", None)).await, []);
    let of_sandbox = SnapshotFilter {
        sandbox: Some(all[2].sandbox.clone()),
        ..all_of(&team)
    };
    assert_eq!(files_of(store, &of_sandbox).await, [files(&all[2])]);
    let by_id = named(all[3].build.template.as_str(), None);
    assert_eq!(files_of(store, &by_id).await, [files(&all[3])]);
}

pub async fn what_sandboxes_use_is_not_deleted(store: &dyn Store) {
    let team = a_team(store).await;
    let [first, second] = ["default", "v2"].map(|tag| a_snapshot(&team, Some("used"), tag, 40));
    let placed = store.snapshot_insert(&first).await.unwrap();
    store.snapshot_insert(&second).await.unwrap();
    let sandbox = Sandbox {
        template: placed.template.clone(),
        ..a_sandbox(&team.id, 41)
    };
    store.sandbox_insert(&sandbox, None).await.unwrap();
    let id = &placed.template;
    let refused = store.template_delete(id).await.unwrap();
    assert_eq!(refused, TemplateDeleted::InUse(PublicState::Running));
    let paused = store.sandbox_pause(&sandbox.id, sandbox.generation, at(42, 0), Kept::Memory);
    let generation = paused.await.unwrap();
    let refused = store.template_delete(id).await.unwrap();
    assert_eq!(refused, TemplateDeleted::InUse(PublicState::Paused));
    assert_eq!(files_of(store, &all_of(&team)).await.len(), 2);
    let killed = casemate_types::EndReason::Killed;
    let ended = store.sandbox_end(&sandbox.id, generation, killed, at(43, 0));
    ended.await.unwrap();
    let TemplateDeleted::Done(mut gone) = store.template_delete(id).await.unwrap() else {
        panic!("nothing uses it");
    };
    let mut expected = vec![files(&first), files(&second)];
    gone.sort();
    expected.sort();
    assert_eq!(gone, expected);
    assert_eq!(store.template_by_id(id).await.unwrap(), None);
    assert_eq!(resolved(store, &team, "used").await, None);
    let again = store.template_delete(id).await.unwrap();
    assert_eq!(again, TemplateDeleted::Unknown);
    // The name is free.
    let third = a_snapshot(&team, Some("used"), "default", 44);
    store.snapshot_insert(&third).await.unwrap();
}

pub async fn a_snapshot_is_written_once_and_for_a_team(store: &dyn Store) {
    let team = a_team(store).await;
    let nothing = a_snapshot(&team, None, "default", 50);
    let mut stranger = nothing.clone();
    stranger.team = TeamId::parse(&random_uuid()).unwrap();
    check_dangling(store.snapshot_insert(&stranger).await);
    assert_eq!(
        store.snapshot_wanted(&[files(&stranger)]).await.unwrap(),
        []
    );
    store.snapshot_insert(&nothing).await.unwrap();
    check_exists(store.snapshot_insert(&nothing).await);
    // A name that is a template's id would hide that template.
    let id = nothing.build.template.as_str();
    let hiding = a_snapshot(&team, Some(id), "default", 51);
    check_exists(store.snapshot_insert(&hiding).await);
    assert_eq!(store.snapshot_wanted(&[files(&hiding)]).await.unwrap(), []);
}

pub async fn old_snapshots_go_but_for_those_in_use(store: &dyn Store) {
    let (team, other) = (a_team(store).await, a_team(store).await);
    let of = |team: &Team, alias, tag, created| a_snapshot(team, alias, tag, created);
    let old = of(&team, Some("old"), "default", 60);
    let mixed = [
        of(&team, Some("mixed"), "a", 60),
        of(&team, Some("mixed"), "b", 70),
    ];
    let used = of(&team, Some("used"), "default", 60);
    let theirs = of(&other, Some("old"), "default", 60);
    for snapshot in [&old, &mixed[0], &mixed[1], &theirs] {
        store.snapshot_insert(snapshot).await.unwrap();
    }
    let placed = store.snapshot_insert(&used).await.unwrap();
    let sandbox = Sandbox {
        template: placed.template,
        ..a_sandbox(&team.id, 61)
    };
    store.sandbox_insert(&sandbox, None).await.unwrap();
    let mut gone = store.snapshot_expire(&team.id, at(65, 0)).await.unwrap();
    let mut expected = vec![files(&old), files(&mixed[0])];
    gone.sort();
    expected.sort();
    assert_eq!(gone, expected);
    assert_eq!(resolved(store, &team, "old").await, None);
    let template = store.template_by_id(&old.build.template).await.unwrap();
    assert_eq!(template, None);
    assert_eq!(resolved(store, &team, "mixed:a").await, None);
    assert!(resolved(store, &team, "mixed:b").await.is_some());
    assert!(resolved(store, &team, "used").await.is_some());
    assert!(resolved(store, &other, "old").await.is_some());
    let again = store.snapshot_expire(&team.id, at(65, 0)).await.unwrap();
    assert_eq!(again, []);
}
