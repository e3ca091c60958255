//! Builds on their way: requests, states, tags that wait for them.

mod pages;
mod tags;

use std::time::Duration;

use casemate_types::template::TemplateRef;
use casemate_types::{
    BuildContext, BuildFailure, BuildStatus, Distribution, Resources, SnapshotId, Startup,
    TemplateId,
};

use super::*;
use crate::{
    Build, BuildBegun, BuildId, BuildRecord, BuildRequested, NewBuild, NewSnapshot, Resolution,
    ServerBeat,
};

pub use pages::*;
pub use tags::*;

pub(super) fn a_request(team: &Team, alias: &str, tags: &[&str], seconds: i64) -> NewBuild {
    NewBuild {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: alias.into(),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        build: BuildId::random(),
        template: TemplateId::random(),
        resources: Resources {
            vcpus: 4,
            ..Resources::BASE
        },
        at: at(seconds, 5),
        builds_max: 20,
        counted_from: at(seconds - 1000, 0),
        waiting_counted_from: at(seconds - 1000, 0),
        superseded: a_failure("superseded", None),
    }
}

pub(super) fn a_failure(message: &str, step: Option<&str>) -> BuildFailure {
    BuildFailure {
        message: message.into(),
        step: step.map(Into::into),
    }
}

/// Written; its template.
pub(super) async fn request(store: &dyn Store, new: &NewBuild) -> TemplateId {
    match store.build_request(new).await.unwrap() {
        BuildRequested::Done { template, .. } => template,
        other => panic!("{other:?}"),
    }
}

/// What a build of this request comes to.
pub(super) fn finished(new: &NewBuild, template: &TemplateId) -> Build {
    Build {
        id: new.build,
        template: template.clone(),
        layers: vec!["t-top".into(), "base".into()],
        resources: new.resources,
        default_user: "root".into(),
        default_workdir: Some("/srv".into()),
        envd_version: "0.6.13".into(),
        files: None,
        envs: std::collections::BTreeMap::from([("LANG".into(), "C.UTF-8".into())]),
        startup: Some(Startup {
            start: Some("serve \"it\"".into()),
            ready: "true".into(),
            context: BuildContext {
                user: "root".into(),
                workdir: None,
                envs: [("A".into(), "b c".into())].into(),
            },
        }),
        distribution: Distribution::Debian("trixie".into()),
        created_at: new.at,
    }
}

/// Asked for, begun and ready; what it came to.
pub(super) async fn ready(store: &dyn Store, new: &NewBuild) -> Build {
    let template = request(store, new).await;
    let build = finished(new, &template);
    store
        .build_begin(&new.build, "a-server", new.at)
        .await
        .unwrap();
    assert!(store.build_finish(&build, 700, new.at).await.unwrap());
    build
}

pub(super) async fn a_known_team(store: &dyn Store) -> Team {
    let id = new_team(store).await;
    store.team_by_id(&id).await.unwrap().expect("it is kept")
}

async fn record(store: &dyn Store, id: BuildId) -> BuildRecord {
    store.build_record(&id).await.unwrap().expect("it is kept")
}

async fn check_status(store: &dyn Store, id: BuildId, expected: BuildStatus) {
    assert_eq!(record(store, id).await.status, expected);
}

/// The build to which a reference leads; the template must be there.
async fn resolved(store: &dyn Store, team: &Team, text: &str) -> Option<Build> {
    let reference = TemplateRef::parse(text).unwrap();
    let found = store.template_resolve(&team.slug, &reference).await;
    match found.unwrap() {
        Resolution::Found { build, .. } => Some(build),
        Resolution::NoBuild { .. } => None,
        Resolution::Unknown => panic!("{text} is unknown"),
    }
}

pub async fn a_build_goes_from_waiting_to_ready(store: &dyn Store) {
    let team = a_known_team(store).await;
    let new = a_request(&team, "mine", &["default", "v1"], 10);
    let asked = store.build_request(&new).await.unwrap();
    let template = new.template.clone();
    let done = BuildRequested::Done {
        template: template.clone(),
        public: false,
    };
    assert_eq!(asked, done);
    let waiting = BuildRecord {
        id: new.build,
        template: template.clone(),
        status: BuildStatus::Waiting,
        failure: None,
        resources: new.resources,
        disk_size_mib: None,
        envd_version: None,
        created_at: at(10, 5),
        updated_at: at(10, 5),
        finished_at: None,
    };
    assert_eq!(record(store, new.build).await, waiting);
    let kept = store.template_by_id(&template).await.unwrap().unwrap();
    assert_eq!((kept.owner, kept.public), (Some(team.id.clone()), false));
    assert_eq!(kept.alias.as_deref(), Some("mine"));
    // It does not count before it is ready.
    let build = finished(&new, &template);
    for begun in [false, true] {
        assert_eq!(resolved(store, &team, "mine").await, None, "{begun}");
        assert_eq!(store.build_by_id(&new.build).await.unwrap(), None);
        if !begun {
            let early = store.build_finish(&build, 1, at(11, 0)).await.unwrap();
            assert!(!early, "it was not begun");
            let began = store
                .build_begin(&new.build, "a-server", at(12, 0))
                .await
                .unwrap();
            assert_eq!(began, BuildBegun::Began { rivals: vec![] });
        }
    }
    let again = store
        .build_begin(&new.build, "a-server", at(13, 0))
        .await
        .unwrap();
    assert_eq!(again, BuildBegun::NotWaiting);
    let building = BuildRecord {
        status: BuildStatus::Building,
        updated_at: at(12, 0),
        ..waiting
    };
    assert_eq!(record(store, new.build).await, building);
    let mut lies = build.clone();
    lies.resources.vcpus = 32;
    lies.created_at = at(99, 0);
    assert!(store.build_finish(&lies, 700, at(14, 0)).await.unwrap());
    let id = new.build;
    for text in ["mine", "mine:v1", &format!("mine:{id}"), template.as_str()] {
        let found = resolved(store, &team, text).await;
        assert_eq!(found.as_ref(), Some(&build), "{text}");
    }
    assert_eq!(resolved(store, &team, "mine:v2").await, None);
    assert_eq!(store.build_by_id(&id).await.unwrap(), Some(build.clone()));
    let ready = BuildRecord {
        status: BuildStatus::Ready,
        disk_size_mib: Some(700),
        envd_version: Some("0.6.13".into()),
        updated_at: at(14, 0),
        finished_at: Some(at(14, 0)),
        ..building
    };
    assert_eq!(record(store, id).await, ready);
    // Whoever did not hear the answer asks again.
    assert!(store.build_finish(&build, 700, at(14, 0)).await.unwrap());
    assert_eq!(record(store, id).await, ready);
    // It is final.
    let failure = a_failure("late", None);
    assert!(!store.build_fail(&id, &failure, at(15, 0)).await.unwrap());
    assert!(!store.build_finish(&build, 1, at(15, 0)).await.unwrap());
    assert_eq!(record(store, id).await, ready);
    let nobody = BuildId::random();
    assert_eq!(store.build_record(&nobody).await.unwrap(), None);
    let begun = store
        .build_begin(&nobody, "a-server", at(15, 0))
        .await
        .unwrap();
    assert_eq!(begun, BuildBegun::Unknown);
    let known = store.build_known(&[nobody, id]).await.unwrap();
    assert_eq!(known, [id]);
}

pub async fn a_new_request_supersedes_those_that_wait_for_its_tags(store: &dyn Store) {
    let team = a_known_team(store).await;
    let [same, other, building] = [
        a_request(&team, "mine", &["default", "v1"], 10),
        a_request(&team, "mine", &["v2"], 11),
        a_request(&team, "mine", &["v3"], 12),
    ];
    for new in [&same, &other, &building] {
        request(store, new).await;
    }
    let elsewhere = a_request(&team, "elsewhere", &["v1"], 12);
    request(store, &elsewhere).await;
    store
        .build_begin(&building.build, "a-server", at(13, 0))
        .await
        .unwrap();
    let new = a_request(&team, "mine", &["v1", "v3"], 14);
    request(store, &new).await;
    let gone = record(store, same.build).await;
    assert_eq!(gone.status, BuildStatus::Failed);
    assert_eq!(gone.failure, Some(a_failure("superseded", None)));
    assert_eq!(gone.finished_at, Some(at(14, 5)));
    check_status(store, other.build, BuildStatus::Waiting).await;
    check_status(store, elsewhere.build, BuildStatus::Waiting).await;
    check_status(store, building.build, BuildStatus::Building).await;
    let begun = store
        .build_begin(&same.build, "a-server", at(15, 0))
        .await
        .unwrap();
    assert_eq!(begun, BuildBegun::NotWaiting);
    // It says which ones it takes the place of, and leaves them as they are.
    store
        .build_begin(&other.build, "a-server", at(15, 0))
        .await
        .unwrap();
    let begun = store
        .build_begin(&new.build, "a-server", at(16, 0))
        .await
        .unwrap();
    let rivals = vec![building.build];
    assert_eq!(begun, BuildBegun::Began { rivals });
    check_status(store, building.build, BuildStatus::Building).await;
}

pub async fn builds_at_once_are_bounded_for_each_team(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let limited = |alias: &str, tag: &str, seconds| NewBuild {
        builds_max: 2,
        ..a_request(&team, alias, &[tag], seconds)
    };
    let first = limited("a", "default", 10);
    let second = limited("b", "default", 11);
    request(store, &first).await;
    request(store, &second).await;
    store
        .build_begin(&second.build, "a-server", at(11, 9))
        .await
        .unwrap();
    request(store, &a_request(&other, "a", &["default"], 11)).await;
    let third = limited("c", "default", 12);
    let refused = store.build_request(&third).await.unwrap();
    assert_eq!(refused, BuildRequested::TooMany);
    let left = store.template_by_id(&third.template).await.unwrap();
    assert_eq!(left, None, "nothing was written");
    // Another tag of the same template counts, the same tag does not.
    let refused = store.build_request(&limited("a", "v2", 13)).await.unwrap();
    assert_eq!(refused, BuildRequested::TooMany);
    let again = limited("a", "default", 14);
    request(store, &again).await;
    let open = store.build_list_open(&team.id).await.unwrap();
    assert_eq!(open, [second.build, again.build]);
    // What was asked for long ago does not count, nor what ended.
    let later = NewBuild {
        counted_from: at(12, 0),
        ..limited("c", "default", 15)
    };
    request(store, &later).await;
    let refused = store.build_request(&limited("d", "default", 16)).await;
    assert_eq!(refused.unwrap(), BuildRequested::TooMany);
    // One that nobody began counts for a shorter time, and one that was begun does not.
    store
        .build_begin(&later.build, "a-server", at(15, 2))
        .await
        .unwrap();
    let asked = |alias: &str, seconds, waiting_counted_from| NewBuild {
        counted_from: at(12, 0),
        waiting_counted_from,
        ..limited(alias, "default", seconds)
    };
    let (one, two) = (asked("e", 16, at(15, 0)), asked("f", 17, at(17, 0)));
    request(store, &one).await;
    request(store, &two).await;
    let refused = store.build_request(&asked("g", 18, at(15, 0))).await;
    assert_eq!(refused.unwrap(), BuildRequested::TooMany);
    for build in [again.build, later.build, one.build, two.build] {
        let failure = a_failure("x", None);
        store.build_fail(&build, &failure, at(18, 0)).await.unwrap();
    }
    request(store, &limited("d", "default", 18)).await;
}

pub async fn a_name_belongs_to_one_template_of_its_team(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let mine = a_request(&team, "same", &["default"], 10);
    let template = request(store, &mine).await;
    let theirs = request(store, &a_request(&other, "same", &["default"], 11)).await;
    assert_ne!(template, theirs);
    store
        .template_set_public(&template, true, at(12, 0))
        .await
        .unwrap();
    let second = a_request(&team, "same", &["v2"], 13);
    let public = BuildRequested::Done {
        template: template.clone(),
        public: true,
    };
    assert_eq!(store.build_request(&second).await.unwrap(), public);
    // Neither a template's id nor a snapshot's name, nor a name that leads to somebody else's.
    let build = ready(store, &a_request(&team, "base-of-it", &["default"], 14)).await;
    let snapshot = NewSnapshot {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: Some("kept".into()),
        tag: "default".into(),
        build: Build {
            id: BuildId::random(),
            template: TemplateId::random(),
            files: Some(SnapshotId::random()),
            ..build
        },
        node: "node-1".into(),
        sandbox: casemate_types::SandboxId::random(),
    };
    store.snapshot_insert(&snapshot).await.unwrap();
    let kept = resolved(store, &team, "kept").await;
    assert_eq!(kept.as_ref(), Some(&snapshot.build), "it starts the same");
    let foreign = NewBuild {
        namespace: other.slug.clone(),
        ..a_request(&team, "same", &["default"], 15)
    };
    for refused in [
        a_request(&team, "kept", &["default"], 15),
        a_request(&other, template.as_str(), &["default"], 15),
        foreign,
    ] {
        let answer = store.build_request(&refused).await.unwrap();
        assert_eq!(answer, BuildRequested::AliasTaken, "{}", refused.alias);
        assert_eq!(store.build_record(&refused.build).await.unwrap(), None);
    }
    let mut taken = a_request(&team, "another", &["default"], 16);
    taken.build = mine.build;
    check_exists(store.build_request(&taken).await);
    let mut stranger = a_request(&team, "another", &["default"], 16);
    stranger.team = TeamId::parse(&random_uuid()).unwrap();
    check_dangling(store.build_request(&stranger).await);
    let reference = TemplateRef::parse("another").unwrap();
    let found = store.template_resolve(&team.slug, &reference).await;
    assert_eq!(found.unwrap(), Resolution::Unknown);
}

pub async fn builds_that_nobody_builds_fail_together(store: &dyn Store) {
    let team = a_known_team(store).await;
    let [old, young, building] = ["a", "b", "c"].map(|alias| {
        let seconds = if alias == "b" { 50 } else { 10 };
        a_request(&team, alias, &["default"], seconds)
    });
    for new in [&old, &young, &building] {
        request(store, new).await;
    }
    store
        .build_begin(&building.build, "a-server", at(11, 0))
        .await
        .unwrap();
    let long = a_failure("waiting for too long", None);
    let failed = store.build_fail_waiting(at(20, 0), &long, at(60, 0)).await;
    let failed = failed.unwrap();
    assert!(failed.contains(&old.build));
    assert!(!failed.contains(&young.build) && !failed.contains(&building.build));
    assert_eq!(record(store, old.build).await.failure, Some(long.clone()));
    let gone = a_failure("the process ended", None);
    let fail = async |caller: &str| {
        let long = Duration::from_secs(600);
        let failed = store.build_fail_building(caller, long, &gone, at(61, 0));
        failed.await.unwrap()
    };
    assert!(!store.build_has_others("a-server").await.unwrap());
    assert!(store.build_has_others("another").await.unwrap());
    assert_eq!(fail("a-server").await, []);
    let beat = ServerBeat {
        id: "a-server".into(),
        address: None,
        version: "1".into(),
    };
    store.server_beat(&beat).await.unwrap();
    assert_eq!(fail("another").await, []);
    store.server_leave("a-server").await.unwrap();
    let failed = fail("another").await;
    assert!(failed.contains(&building.build) && !failed.contains(&young.build));
    assert_eq!(record(store, building.build).await.failure, Some(gone));
    check_status(store, young.build, BuildStatus::Waiting).await;
    let again = store.build_fail_waiting(at(20, 0), &long, at(62, 0)).await;
    assert!(!again.unwrap().contains(&old.build));
}

pub async fn failed_builds_are_forgotten_and_ready_ones_kept(store: &dyn Store) {
    let team = a_known_team(store).await;
    let kept = ready(store, &a_request(&team, "mine", &["default"], -9000)).await;
    let [old, young] = [-9000, -8000].map(|at| a_request(&team, "mine", &["default"], at));
    for new in [&old, &young] {
        request(store, new).await;
        let failure = a_failure("x", None);
        let failed = store.build_fail(&new.build, &failure, new.at).await;
        assert!(failed.unwrap());
    }
    assert!(store.build_forget_failed(at(-8500, 0)).await.unwrap() >= 1);
    assert_eq!(store.build_record(&old.build).await.unwrap(), None);
    check_status(store, young.build, BuildStatus::Failed).await;
    assert_eq!(resolved(store, &team, "mine").await, Some(kept.clone()));
    let tags = store.tags_list(&kept.template).await.unwrap();
    assert_eq!(tags[0].build, young.build);
    let again = store.build_forget_failed(at(-7000, 0)).await.unwrap();
    assert!(again >= 1);
    let tags = store.tags_list(&kept.template).await.unwrap();
    assert_eq!((tags.len(), tags[0].build), (1, kept.id));
}
