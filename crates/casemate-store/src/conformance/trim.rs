//! What a team that wants its room back gives up, and what nothing refers to any more.

use casemate_types::{LayerId, SnapshotId};

use super::build_cache::{a_key, a_layer, is_cached, put};
use super::builds::{a_known_team, a_request, a_snapshot_of, finished, ready, request};
use super::*;
use crate::{Build, BuildId, CacheTrim, CachedLayer, NewBuild, Sandbox, TrimMode, Trimmed, Upload};

fn a_trim(team: &Team, seconds: i64) -> CacheTrim {
    CacheTrim {
        team: team.id.clone(),
        before: at(seconds, 0),
        uploads_before: at(seconds, 0),
        spared_files: Vec::new(),
        spared_layers: Vec::new(),
        mode: TrimMode::CarryOut,
    }
}

/// Rehearsed first, which changes nothing and says the same.
async fn trim(store: &dyn Store, trim: &CacheTrim) -> Trimmed {
    let rehearsal = CacheTrim {
        mode: TrimMode::Rehearse,
        ..trim.clone()
    };
    let expected = store.cache_trim(&rehearsal).await.unwrap();
    let again = store.cache_trim(&rehearsal).await.unwrap();
    assert_eq!(again, expected);
    let trimmed = store.cache_trim(trim).await.unwrap();
    assert_eq!(trimmed, expected);
    trimmed
}

/// Ready, over a layer of its own.
async fn over(store: &dyn Store, new: &NewBuild, layer: &LayerId) -> Build {
    let template = request(store, new).await;
    let mut build = finished(new, &template);
    build.layers = vec![layer.to_string(), "base".into()];
    store
        .build_begin(&new.build, "a-server", new.at)
        .await
        .unwrap();
    assert!(store.build_finish(&build, 7, new.at).await.unwrap());
    build
}

fn state(layers: &[&LayerId], files: Option<&SnapshotId>) -> CachedLayer {
    let names = layers.iter().map(|layer| layer.to_string());
    CachedLayer {
        layers: names.chain(["base".into()]).collect(),
        ..a_layer(files)
    }
}

async fn is_there(store: &dyn Store, id: BuildId) -> bool {
    store.build_by_id(&id).await.unwrap().is_some()
}

async fn sandbox_of(store: &dyn Store, team: &Team, build: &Build) -> Sandbox {
    let sandbox = Sandbox {
        template: build.template.clone(),
        build: build.id,
        ..super::sandboxes::a_sandbox(&team.id, 50)
    };
    store.sandbox_insert(&sandbox, None).await.unwrap();
    sandbox
}

async fn kill(store: &dyn Store, sandbox: &Sandbox) {
    let killed = casemate_types::EndReason::Killed;
    let end = store.sandbox_end(&sandbox.id, sandbox.generation, killed, at(60, 0));
    end.await.unwrap();
}

/// One by one, each thing that keeps a build.
pub async fn builds_that_nothing_refers_to_are_forgotten(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let build = async |alias: &str, tags: &[&str], seconds| {
        ready(store, &a_request(&team, alias, tags, seconds)).await
    };
    let plain = build("mine", &["default"], -9000).await;
    let tagged = build("mine", &["kept"], -9000).await;
    let used = build("mine", &["default"], -8990).await;
    let late = build("mine", &["late"], -8980).await;
    let blocked = build("mine", &["blocked"], -8970).await;
    let template = &plain.template;
    let tag = async |tag: &str, build: &Build, seconds| {
        let tags = [tag.to_string()];
        let assigned = store.tags_assign(template, &build.id, &tags, at(seconds, 0));
        assigned.await.unwrap();
    };
    let newest = build("mine", &["default", "blocked"], -8000).await;
    // It lost its tag only now.
    tag("late", &newest, 0).await;
    // What comes after it on its tag is not ready, and does not lead anywhere.
    tag("blocked", &blocked, -7990).await;
    let waiting = a_request(&team, "mine", &["blocked"], -7980);
    request(store, &waiting).await;
    let sandbox = sandbox_of(store, &other, &used).await;
    // Of templates of its own: a single build, one whose tag was taken, one of the platform's.
    let alone = build("alone", &["default"], -9000).await;
    let removed = build("more", &["x"], -9000).await;
    build("more", &["default"], -8999).await;
    let tags = ["x".to_string()];
    store.tags_remove(&removed.template, &tags).await.unwrap();
    let snapshot = a_snapshot_of(&team, "snap", -9000);
    store.snapshot_insert(&snapshot).await.unwrap();
    let next = a_snapshot_of(&team, "snap", -8000);
    store.snapshot_insert(&next).await.unwrap();

    let forget = async |seconds| store.build_forget_unused(at(seconds, 0)).await.unwrap();
    assert!(forget(-7000).await >= 2);
    for (build, expected) in [
        (&plain, false),
        (&removed, false),
        (&tagged, true),
        (&used, true),
        (&late, true),
        (&blocked, true),
        (&newest, true),
        (&alone, true),
    ] {
        assert_eq!(is_there(store, build.id).await, expected, "{build:?}");
    }
    assert!(is_there(store, snapshot.build.id).await, "not a template's");
    let text = format!("mine:{}", plain.id);
    let reference = casemate_types::template::TemplateRef::parse(&text).unwrap();
    let found = store.template_resolve(&team.slug, &reference).await;
    assert!(matches!(found, Ok(crate::Resolution::NoBuild { .. })));
    let tags = store.tags_list(template).await.unwrap();
    let names: Vec<_> = tags.iter().map(|one| &*one.tag).collect();
    assert_eq!(names, ["blocked", "default", "kept", "late"]);
    // Its sandbox ends, the tag is left for longer, what came after becomes ready.
    kill(store, &sandbox).await;
    let ready = finished(&waiting, template);
    store
        .build_begin(&waiting.build, "a-server", at(1, 0))
        .await
        .unwrap();
    assert!(store.build_finish(&ready, 7, at(1, 0)).await.unwrap());
    forget(-7000).await;
    assert!(!is_there(store, used.id).await);
    assert!(!is_there(store, blocked.id).await);
    assert!(is_there(store, late.id).await);
    forget(1).await;
    assert!(!is_there(store, late.id).await);
    assert!(is_there(store, tagged.id).await && is_there(store, newest.id).await);
}

pub async fn a_trim_takes_what_costs_room_and_nothing_that_is_needed(store: &dyn Store) {
    let team = a_known_team(store).await;
    let [image, top, lone] = [(); 3].map(|()| LayerId::random());
    let new = a_request(&team, "mine", &["default"], 10);
    let template = request(store, &new).await;
    let mut build = finished(&new, &template);
    build.layers = vec![top.to_string(), image.to_string(), "base".into()];
    store
        .build_begin(&new.build, "a-server", at(11, 0))
        .await
        .unwrap();
    store.build_finish(&build, 7, at(12, 0)).await.unwrap();
    let [files, others] = [SnapshotId::random(), SnapshotId::random()];
    let ground = put(store, &team, &state(&[&image], None), 10).await;
    let last = put(store, &team, &state(&[&top, &image], None), 10).await;
    let step = put(store, &team, &state(&[&image], Some(&files)), 10).await;
    let unused = put(store, &team, &state(&[&lone], None), 10).await;
    let young = put(store, &team, &state(&[&image], Some(&others)), 30).await;
    let snapshot = a_snapshot_of(&team, "kept", 10);
    store.snapshot_insert(&snapshot).await.unwrap();
    let shared = snapshot.build.files.as_ref();
    let on_snapshot = put(store, &team, &state(&[&image], shared), 10).await;
    let nothing = trim(store, &a_trim(&team, 10)).await;
    assert_eq!(nothing, Trimmed::default());
    let trimmed = trim(store, &a_trim(&team, 20)).await;
    let expected = Trimmed {
        steps: 2,
        files: vec![files],
        layers: vec![lone],
        ..Trimmed::default()
    };
    assert_eq!(trimmed, expected);
    for (key, expected) in [
        (&ground, true),
        (&last, true),
        (&step, false),
        (&unused, false),
        (&young, true),
        (&on_snapshot, true),
    ] {
        assert_eq!(is_cached(store, &team, key, 30).await, expected);
    }
    assert_eq!(store.build_by_id(&build.id).await.unwrap(), Some(build));
    // Without the template nothing keeps them.
    store.template_delete(&template).await.unwrap();
    let trimmed = trim(store, &a_trim(&team, 40)).await;
    assert_eq!((trimmed.steps, trimmed.files), (4, vec![others]));
    let mut both = vec![image, top];
    both.sort();
    assert_eq!(trimmed.layers, both);
}

pub async fn a_trim_spares_what_builds_rest_on_and_other_teams(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let [found, made, theirs] = [(); 3].map(|()| LayerId::random());
    let [files, next] = [SnapshotId::random(), SnapshotId::random()];
    let rested = put(store, &team, &state(&[&found], None), 10).await;
    let step = put(store, &team, &state(&[&found], Some(&files)), 10).await;
    let free = put(store, &team, &state(&[&found], Some(&next)), 10).await;
    put(store, &team, &state(&[&theirs, &made], None), 10).await;
    let foreign = put(store, &other, &state(&[&theirs], None), 10).await;
    let spared = CacheTrim {
        spared_files: vec![files.clone()],
        spared_layers: vec![found.clone()],
        ..a_trim(&team, 20)
    };
    let expected = Trimmed {
        steps: 2,
        files: vec![next],
        layers: vec![made],
        ..Trimmed::default()
    };
    assert_eq!(trim(store, &spared).await, expected);
    assert!(is_cached(store, &team, &rested, 20).await);
    assert!(is_cached(store, &team, &step, 20).await);
    assert!(!is_cached(store, &team, &free, 20).await);
    assert!(is_cached(store, &other, &foreign, 20).await);
    // Once the build has ended.
    let trimmed = trim(store, &a_trim(&team, 30)).await;
    let rest = (trimmed.steps, trimmed.files, trimmed.layers);
    assert_eq!(rest, (2, vec![files], vec![found]));
}

pub async fn a_trim_takes_old_builds_with_what_they_kept(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let [old, new] = [(); 2].map(|()| LayerId::random());
    let first = over(store, &a_request(&team, "mine", &["default"], 10), &old).await;
    let second = over(store, &a_request(&team, "mine", &["default"], 11), &new).await;
    let theirs = over(store, &a_request(&other, "mine", &["default"], 10), &old).await;
    let last = put(store, &team, &state(&[&old], None), 10).await;
    let sandbox = sandbox_of(store, &other, &first).await;
    let nothing = trim(store, &a_trim(&team, 20)).await;
    assert_eq!(nothing, Trimmed::default());
    kill(store, &sandbox).await;
    let trimmed = trim(store, &a_trim(&team, 20)).await;
    let expected = Trimmed {
        builds: 1,
        ..Trimmed::default()
    };
    assert_eq!(trimmed, expected, "another team's build has the layer");
    assert!(!is_there(store, first.id).await);
    assert!(is_there(store, second.id).await && is_there(store, theirs.id).await);
    assert!(is_cached(store, &team, &last, 20).await);
    store.template_delete(&theirs.template).await.unwrap();
    let trimmed = trim(store, &a_trim(&team, 30)).await;
    assert_eq!((trimmed.steps, trimmed.layers), (1, vec![old]));
    let asked = std::slice::from_ref(&new);
    assert_eq!(store.layer_wanted(asked).await.unwrap(), asked);
}

pub async fn a_trim_counts_contents_of_uploads_once(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let content = |bytes| Upload {
        sha256: a_key().as_str().into(),
        bytes,
        artifact: None,
    };
    let (twice, kept, theirs) = (content(100), content(7), content(3));
    let [a, b, c, d] = [(); 4].map(|()| a_key());
    for (team, key, upload, seconds) in [
        (&team, &a, &twice, 10),
        (&team, &b, &twice, 10),
        (&team, &c, &kept, 10),
        (&team, &d, &kept, 30),
        (&other, &a, &theirs, 10),
    ] {
        let put = store.upload_put(&team.id, key, upload, at(seconds, 0));
        put.await.unwrap();
    }
    let only_layers = CacheTrim {
        uploads_before: at(0, 0),
        ..a_trim(&team, 20)
    };
    assert_eq!(trim(store, &only_layers).await, Trimmed::default());
    let trimmed = trim(store, &a_trim(&team, 20)).await;
    assert_eq!((trimmed.uploads, trimmed.upload_bytes), (3, 100));
    assert_eq!(store.upload_bytes(&team.id).await.unwrap(), 7);
    assert_eq!(store.upload_bytes(&other.id).await.unwrap(), 3);
    let stranger = CacheTrim {
        team: TeamId::parse(&random_uuid()).unwrap(),
        ..a_trim(&team, 20)
    };
    assert_eq!(trim(store, &stranger).await, Trimmed::default());
}
