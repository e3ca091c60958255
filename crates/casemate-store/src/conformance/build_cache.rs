//! What builds left: who finds it, what is dropped, what is still wanted.

use std::collections::BTreeMap;

use casemate_types::{BuildContext, Distribution, LayerId, SandboxId, SnapshotId};

use super::builds::{a_known_team, a_request, a_snapshot_of, finished, ready, request};
use super::*;
use crate::build_cache::{CONTEXTS_BYTES_MAX, NOTE_KEPT_FOR, USED_STEP};
use crate::{BuiltBytes, CacheKey, CachedLayer, Dropped, TemplateDeleted, Upload};

pub(super) fn a_key() -> CacheKey {
    let half = random_uuid().replace('-', "");
    CacheKey::parse(&format!("{half}{half}")).expect("64 digits")
}

pub(super) fn a_layer(files: Option<&SnapshotId>) -> CachedLayer {
    CachedLayer {
        layers: vec![LayerId::random().to_string(), "base".into()],
        files: files.cloned(),
        context: BuildContext {
            user: "user".into(),
            workdir: Some("/app".into()),
            envs: BTreeMap::from([("A \"b\"".into(), "c\nd".into())]),
        },
        distribution: Distribution::Debian("trixie".into()),
        size_mib: 7,
    }
}

fn dropped(rows: u64, files: &[&SnapshotId]) -> Dropped {
    Dropped {
        rows,
        files: files.iter().map(|files| (*files).clone()).collect(),
    }
}

pub(super) async fn put(
    store: &dyn Store,
    team: &Team,
    layer: &CachedLayer,
    seconds: i64,
) -> CacheKey {
    let key = a_key();
    let put = store.layer_put(&team.id, &key, layer, at(seconds, 0)).await;
    assert_eq!(put.unwrap(), Dropped::default());
    key
}

pub(super) async fn is_cached(
    store: &dyn Store,
    team: &Team,
    key: &CacheKey,
    seconds: i64,
) -> bool {
    let found = store.layer_find(&team.id, key, at(seconds, 0)).await;
    found.unwrap().is_some()
}

pub async fn a_cached_layer_is_its_teams_alone(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let files = SnapshotId::random();
    let layer = a_layer(Some(&files));
    let key = put(store, &team, &layer, 10).await;
    let found = store.layer_find(&team.id, &key, at(11, 0)).await.unwrap();
    assert_eq!(found.as_ref(), Some(&layer));
    assert!(!is_cached(store, &other, &key, 11).await);
    assert!(!is_cached(store, &team, &a_key(), 11).await);
    // The same key again takes the place of the first, whose files nothing needs then.
    let second = a_layer(None);
    let put = store.layer_put(&team.id, &key, &second, at(12, 0)).await;
    assert_eq!(put.unwrap(), dropped(1, &[&files]));
    let found = store.layer_find(&team.id, &key, at(13, 0)).await.unwrap();
    assert_eq!(found, Some(second));
    let stranger = TeamId::parse(&random_uuid()).unwrap();
    let put = store.layer_put(&stranger, &key, &layer, at(14, 0)).await;
    check_dangling(put);
}

pub async fn a_lost_layer_is_forgotten_unless_it_was_made_again(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    for files in [Some(SnapshotId::random()), None] {
        let lost = a_layer(files.as_ref());
        let key = put(store, &team, &lost, 10).await;
        let theirs = store.layer_put(&other.id, &key, &lost, at(10, 0)).await;
        assert_eq!(theirs.unwrap(), Dropped::default());
        let mut again = lost.clone();
        again.files = Some(SnapshotId::random());
        for another in [again, a_layer(files.as_ref())] {
            let kept = store.layer_forget(&team.id, &key, &another).await;
            assert_eq!(kept.unwrap(), Dropped::default());
        }
        let gone = store.layer_forget(&team.id, &key, &lost).await;
        assert_eq!(gone.unwrap(), dropped(1, &[]), "the other team's names it");
        assert!(!is_cached(store, &team, &key, 11).await);
        assert!(is_cached(store, &other, &key, 11).await);
        let gone = store.layer_forget(&team.id, &key, &lost).await;
        assert_eq!(gone.unwrap(), Dropped::default());
        let gone = store.layer_forget(&other.id, &key, &lost).await;
        let expected: Vec<&SnapshotId> = files.iter().collect();
        assert_eq!(gone.unwrap(), dropped(1, &expected));
    }
}

pub async fn cached_layers_expire_by_their_last_use(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let [kept, old] = [SnapshotId::random(), SnapshotId::random()];
    let used = put(store, &team, &a_layer(Some(&kept)), -5000).await;
    let unused = put(store, &team, &a_layer(Some(&old)), -5000).await;
    // The same files under another key are still needed when one of the two goes.
    let twin = put(store, &other, &a_layer(Some(&kept)), -5000).await;
    assert!(is_cached(store, &team, &used, -4000).await);
    let gone = store.layer_expire(at(-4500, 0), 1000).await.unwrap();
    assert!(gone.rows >= 2 && gone.files.contains(&old));
    assert!(!gone.files.contains(&kept));
    for (team, key, expected) in [
        (&team, &used, true),
        (&team, &unused, false),
        (&other, &twin, false),
    ] {
        assert_eq!(is_cached(store, team, key, -4000).await, expected);
    }
    // A use within the step is not noted.
    let step = i64::try_from(USED_STEP.as_secs()).unwrap();
    assert!(is_cached(store, &team, &used, -4000 + step - 1).await);
    let gone = store.layer_expire(at(-3999, 0), 1000).await.unwrap();
    assert!(gone.files.contains(&kept));
    assert!(!is_cached(store, &team, &used, -3999).await);
}

pub async fn cached_layers_beyond_their_number_go_least_used_first(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let mut keys = Vec::new();
    for seconds in [4000, 1000, 3000, 2000] {
        keys.push(put(store, &team, &a_layer(None), seconds).await);
    }
    let theirs = put(store, &other, &a_layer(None), 1).await;
    assert!(is_cached(store, &team, &keys[1], 5000).await);
    store.layer_expire(at(0, 0), 2).await.unwrap();
    for (key, expected) in keys.iter().zip([true, true, false, false]) {
        assert_eq!(is_cached(store, &team, key, 5000).await, expected);
    }
    assert!(is_cached(store, &other, &theirs, 1).await);
}

async fn note(store: &dyn Store, team: &Team, name: &str, bytes: u64) {
    let built = BuiltBytes {
        name: name.into(),
        bytes,
        holds: bytes + 1,
    };
    let noted = store.built_note(&team.id, &built, at(NOTED, 0)).await;
    noted.unwrap();
}

/// Before all that other cases have, so that none of it expires with them.
const NOTED: i64 = -10_000 - NOTE_SECONDS;
const NOTE_SECONDS: i64 = 24 * 3600;

pub async fn bytes_beyond_a_teams_bound_go_least_used_first(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let files: [SnapshotId; 3] = std::array::from_fn(|_| SnapshotId::random_of_build());
    let [old, middle, new] = &files;
    let mut keys = Vec::new();
    for (one, seconds) in [(middle, 2000), (old, 1000), (new, 3000)] {
        note(store, &team, one.as_str(), 5 << 32).await;
        keys.push(put(store, &team, &a_layer(Some(one)), seconds).await);
    }
    // Another name for the files of the oldest, used later.
    let twin = put(store, &team, &a_layer(Some(old)), 2500).await;
    // What a template needs is counted, and no row of it helps.
    let layer = LayerId::random();
    note(store, &team, layer.as_str(), 4 << 32).await;
    let mut end = a_layer(None);
    end.layers = vec![layer.to_string(), "base".into()];
    let end = put(store, &team, &end, 1).await;
    let new_build = a_request(&team, "mine", &["default"], 10);
    let template = request(store, &new_build).await;
    let mut build = finished(&new_build, &template);
    build.layers = vec![layer.to_string(), "base".into()];
    let needed = async |layers: &[String]| {
        let needed = store.built_needed(&team.id, layers).await;
        needed.unwrap()
    };
    assert_eq!(needed(&[]).await, 0, "it is not ready");
    assert_eq!(needed(&build.layers).await, 4 << 32);
    store
        .build_begin(&new_build.build, "a-server", at(11, 0))
        .await
        .unwrap();
    store.build_finish(&build, 1, at(12, 0)).await.unwrap();
    assert_eq!(needed(&[]).await, 4 << 32);
    assert_eq!(needed(&[layer.to_string(), "none".into()]).await, 4 << 32);

    let holds = store.built_holds(old.as_str()).await.unwrap();
    assert_eq!(holds, Some((5 << 32) + 1));
    assert_eq!(store.built_holds("none").await.unwrap(), None);
    let trim = async |team: &Team, bytes_max| {
        let trimmed = store.built_trim(&team.id, bytes_max).await;
        trimmed.unwrap()
    };
    assert_eq!(trim(&team, 19 << 32).await, Dropped::default());
    assert_eq!(trim(&other, 0).await, Dropped::default());
    // The oldest alone gives nothing back, because its twin names the same files.
    assert_eq!(trim(&team, 15 << 32).await, dropped(2, &[middle]));
    for (key, is_there) in keys.iter().zip([false, false, true]) {
        assert_eq!(is_cached(store, &team, key, 3000).await, is_there);
    }
    assert!(is_cached(store, &team, &twin, 2500).await);
    let mut gone = trim(&team, 0).await;
    gone.files.sort();
    let mut both = vec![old, new];
    both.sort();
    assert_eq!(gone, dropped(2, &both));
    assert!(
        is_cached(store, &team, &end, 2).await,
        "it gives nothing back"
    );
    // A note whose row may still come stays for a while.
    let expire = async |seconds| {
        let expired = store.layer_expire(at(seconds, 0), 1000).await;
        expired.unwrap()
    };
    assert_eq!(NOTE_KEPT_FOR.as_secs(), NOTE_SECONDS.unsigned_abs());
    expire(NOTED + NOTE_SECONDS).await;
    assert!(store.built_holds(old.as_str()).await.unwrap().is_some());
    expire(NOTED + NOTE_SECONDS + 1).await;
    assert_eq!(store.built_holds(old.as_str()).await.unwrap(), None);
    let holds = store.built_holds(layer.as_str()).await.unwrap();
    assert_eq!(holds, Some((4 << 32) + 1));
    let stranger = TeamId::parse(&random_uuid()).unwrap();
    let built = BuiltBytes {
        name: LayerId::random().to_string(),
        bytes: 1,
        holds: 1,
    };
    check_dangling(store.built_note(&stranger, &built, at(0, 0)).await);
}

pub async fn contexts_beyond_a_teams_bound_go_least_used_first(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let files = SnapshotId::random_of_build();
    let mut large = a_layer(Some(&files));
    let quarter = usize::try_from(CONTEXTS_BYTES_MAX / 4).unwrap();
    // One byte of a character counts like another.
    let value = "ä".repeat(quarter / 2 - 1000);
    large.context.envs.insert("LARGE".into(), value);
    let mut keys = Vec::new();
    for seconds in [3000, 1000, 4000, 2000] {
        keys.push(put(store, &team, &large, seconds).await);
        large.files = None;
    }
    let theirs = put(store, &other, &large, 1).await;
    let trim = async || store.built_trim(&team.id, u64::MAX).await.unwrap();
    assert_eq!(trim().await, Dropped::default());
    // The first is used once more, and another one comes.
    assert!(is_cached(store, &team, &keys[1], 5000).await);
    keys.push(put(store, &team, &large, 6000).await);
    assert_eq!(trim().await, dropped(1, &[]));
    keys.push(put(store, &team, &large, 6001).await);
    assert_eq!(trim().await, dropped(1, &[&files]));
    for (key, expected) in keys.iter().zip([false, true, true, false, true, true]) {
        assert_eq!(is_cached(store, &team, key, 6001).await, expected);
    }
    assert!(is_cached(store, &other, &theirs, 1).await);
}

pub async fn files_are_wanted_as_long_as_somebody_names_them(store: &dyn Store) {
    let team = a_known_team(store).await;
    let cached = SnapshotId::random();
    let snapshot = a_snapshot_of(&team, "parent", 10);
    let shared = snapshot.build.files.clone().unwrap();
    store.snapshot_insert(&snapshot).await.unwrap();
    put(store, &team, &a_layer(Some(&cached)), 10).await;
    let key = put(store, &team, &a_layer(Some(&shared)), 10).await;
    let asked = [cached.clone(), shared.clone(), SnapshotId::random()];
    let wanted = async || {
        let mut wanted = store.snapshot_wanted(&asked).await.unwrap();
        wanted.sort();
        wanted
    };
    let mut both = vec![cached.clone(), shared.clone()];
    both.sort();
    assert_eq!(wanted().await, both);
    // The snapshot goes, what was built on it stays.
    let gone = store.template_delete(&snapshot.build.template).await;
    assert_eq!(gone.unwrap(), TemplateDeleted::Done(vec![]));
    assert_eq!(wanted().await, both);
    let plain = a_layer(None);
    let put = store.layer_put(&team.id, &key, &plain, at(11, 0));
    assert_eq!(put.await.unwrap(), dropped(1, &[&shared]));
    assert_eq!(wanted().await, [cached]);
    // The other way round, and when a tag moves or a snapshot is too old.
    let again = a_snapshot_of(&team, "parent", 20);
    let files = again.build.files.clone().unwrap();
    store.snapshot_insert(&again).await.unwrap();
    let key = self::put(store, &team, &a_layer(Some(&files)), 20).await;
    let same = a_layer(Some(&files));
    let put = store.layer_put(&team.id, &key, &same, at(21, 0));
    assert_eq!(put.await.unwrap(), dropped(1, &[]));
    let next = a_snapshot_of(&team, "parent", 22);
    let placed = store.snapshot_insert(&next).await.unwrap();
    assert_eq!(placed.replaced, None, "a cached layer names them");
    let next = next.build.files.unwrap();
    self::put(store, &team, &a_layer(Some(&next)), 22).await;
    let expired = store.snapshot_expire(&team.id, at(100, 0)).await;
    assert_eq!(expired.unwrap(), []);
}

pub async fn layers_are_wanted_by_builds_and_by_the_cache(store: &dyn Store) {
    let team = a_known_team(store).await;
    let layers: [LayerId; 4] = std::array::from_fn(|_| LayerId::random());
    let [built, cached, waiting, nobodys] = &layers;
    let with = |layer: &LayerId| vec![layer.to_string(), "base".into()];
    let new = a_request(&team, "mine", &["default"], 10);
    let template = request(store, &new).await;
    let mut build = finished(&new, &template);
    build.layers = with(built);
    store
        .build_begin(&new.build, "a-server", at(11, 0))
        .await
        .unwrap();
    let wanted = store.layer_wanted(&layers).await.unwrap();
    assert_eq!(wanted, [], "nothing is made from it yet");
    store.build_finish(&build, 1, at(12, 0)).await.unwrap();
    let mut layer = a_layer(None);
    layer.layers = with(cached);
    put(store, &team, &layer, 10).await;
    let failed = a_request(&team, "fails", &["default"], 13);
    request(store, &failed).await;
    let mut wanted = store.layer_wanted(&layers).await.unwrap();
    wanted.sort();
    let mut expected = vec![built.clone(), cached.clone()];
    expected.sort();
    assert_eq!(wanted, expected);
    assert!(!wanted.contains(waiting) && !wanted.contains(nobodys));
    store.template_delete(&template).await.unwrap();
    let wanted = store.layer_wanted(&layers).await.unwrap();
    assert_eq!(wanted, std::slice::from_ref(cached));
}

/// A template that is deleted is hidden, but sandboxes of other teams keep what they run from.
pub async fn what_other_teams_run_from_outlives_a_deletion(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let unused = ready(store, &a_request(&team, "mine", &["old"], 10)).await;
    let new = a_request(&team, "mine", &["default"], 11);
    let template = request(store, &new).await;
    let layer = LayerId::random();
    let mut used = finished(&new, &template);
    used.layers = vec![layer.to_string(), "base".into()];
    store
        .build_begin(&used.id, "a-server", at(12, 0))
        .await
        .unwrap();
    store.build_finish(&used, 1, at(13, 0)).await.unwrap();
    let waiting = a_request(&team, "mine", &["next"], 14);
    request(store, &waiting).await;
    let sandbox = crate::Sandbox {
        template: template.clone(),
        build: used.id,
        ..super::sandboxes::a_sandbox(&other.id, 15)
    };
    store.sandbox_insert(&sandbox, None).await.unwrap();
    let own = crate::Sandbox {
        id: SandboxId::random(),
        team: team.id.clone(),
        ..sandbox.clone()
    };
    store.sandbox_insert(&own, None).await.unwrap();
    let refused = store.template_delete(&template).await.unwrap();
    let running = casemate_types::sandbox::PublicState::Running;
    assert_eq!(refused, TemplateDeleted::InUse(running));
    let killed = casemate_types::EndReason::Killed;
    let end = store.sandbox_end(&own.id, own.generation, killed, at(20, 0));
    end.await.unwrap();
    let deleted = store.template_delete(&template).await.unwrap();
    assert_eq!(deleted, TemplateDeleted::Done(vec![]));
    let again = store.template_delete(&template).await.unwrap();
    assert_eq!(again, TemplateDeleted::Unknown);

    assert_eq!(store.template_by_id(&template).await.unwrap(), None);
    assert_eq!(store.template_summary(&template).await.unwrap(), None);
    for text in ["mine", template.as_str()] {
        let reference = casemate_types::template::TemplateRef::parse(text).unwrap();
        let found = store.template_resolve(&team.slug, &reference).await;
        assert_eq!(found.unwrap(), crate::Resolution::Unknown, "{text}");
    }
    for build in [used.id, waiting.build, unused.id] {
        assert_eq!(store.build_record(&build).await.unwrap(), None);
    }
    let set = store.template_set_public(&template, true, at(21, 0)).await;
    assert!(!set.unwrap());
    let tags = ["x".to_string()];
    check_dangling(
        store
            .tags_assign(&template, &used.id, &tags, at(21, 0))
            .await,
    );
    assert_eq!(store.build_list_open(&team.id).await.unwrap(), []);
    // What it runs from is there; the rest is not.
    let kept = store.build_by_id(&used.id).await.unwrap();
    assert_eq!(kept.as_ref(), Some(&used));
    assert_eq!(store.build_by_id(&unused.id).await.unwrap(), None);
    assert_eq!(store.template_purge().await.unwrap(), []);
    let asked = std::slice::from_ref(&layer);
    assert_eq!(store.layer_wanted(asked).await.unwrap(), asked);
    // The name is free, the id is not yet.
    let hides = a_request(&team, template.as_str(), &["default"], 22);
    let refused = store.build_request(&hides).await.unwrap();
    assert_eq!(refused, crate::BuildRequested::AliasTaken);
    let again = request(store, &a_request(&team, "mine", &["default"], 23)).await;
    assert_ne!(again, template);
    let end = store.sandbox_end(&sandbox.id, sandbox.generation, killed, at(30, 0));
    end.await.unwrap();
    assert_eq!(store.template_purge().await.unwrap(), []);
    assert_eq!(store.build_by_id(&used.id).await.unwrap(), None);
    assert_eq!(store.build_known(&[used.id]).await.unwrap(), []);
    assert_eq!(store.layer_wanted(asked).await.unwrap(), []);
}

/// Tags can be taken from a snapshot too; what no tag leads to is found by its build's id until it is
/// too old.
pub async fn a_snapshot_without_a_tag_expires_like_others(store: &dyn Store) {
    let team = a_known_team(store).await;
    let snapshot = a_snapshot_of(&team, "kept", 10);
    let template = store.snapshot_insert(&snapshot).await.unwrap().template;
    let replaced = a_snapshot_of(&team, "kept", 11);
    store.snapshot_insert(&replaced).await.unwrap();
    let tags = ["default".to_string()];
    store.tags_remove(&template, &tags).await.unwrap();
    let find = async |id| {
        let text = format!("kept:{id}");
        let reference = casemate_types::template::TemplateRef::parse(&text).unwrap();
        let found = store.template_resolve(&team.slug, &reference).await;
        match found.unwrap() {
            crate::Resolution::Found { build, .. } => build.files,
            _ => None,
        }
    };
    assert_eq!(find(replaced.build.id).await, replaced.build.files);
    let first = snapshot.build.id;
    assert_eq!(find(first).await, None, "its files went with its tag");
    let expired = store.snapshot_expire(&team.id, at(5, 0)).await;
    assert_eq!(expired.unwrap(), []);
    let expired = store.snapshot_expire(&team.id, at(50, 0)).await;
    assert_eq!(expired.unwrap(), Vec::from_iter(replaced.build.files));
    assert_eq!(store.template_by_id(&template).await.unwrap(), None);
}

pub async fn uploads_are_found_counted_and_expired(store: &dyn Store) {
    let (team, other) = (a_known_team(store).await, a_known_team(store).await);
    let content = |bytes| Upload {
        sha256: a_key().as_str().into(),
        bytes,
        artifact: None,
    };
    let (small, large, theirs) = (content(10), content(5 << 32), content(3));
    let [a, b, c] = [a_key(), a_key(), a_key()];
    let put = async |team: &Team, key, upload, seconds| {
        let put = store.upload_put(&team.id, key, upload, at(seconds, 0));
        put.await.unwrap();
    };
    put(&team, &a, &small, -7000).await;
    put(&team, &b, &small, -7000).await;
    put(&team, &c, &large, -7000).await;
    put(&other, &a, &theirs, -7000).await;
    assert_eq!(store.upload_bytes(&team.id).await.unwrap(), 10 + (5 << 32));
    let find = async |team: &Team, key, seconds| {
        let found = store.upload_find(&team.id, key, at(seconds, 0)).await;
        found.unwrap()
    };
    assert_eq!(find(&team, &c, -7000).await, Some(large.clone()));
    assert_eq!(find(&other, &c, -7000).await, None);
    // The last one of a key holds.
    put(&team, &b, &large, -6990).await;
    assert_eq!(find(&team, &b, -6990).await, Some(large.clone()));
    let asked = [small.sha256.clone(), large.sha256.clone(), "x".into()];
    let mut wanted = store.upload_wanted(&team.id, &asked).await.unwrap();
    wanted.sort();
    let mut both = asked[..2].to_vec();
    both.sort();
    assert_eq!(wanted, both);
    let theirs = store.upload_wanted(&other.id, &asked).await.unwrap();
    assert_eq!(theirs, [""; 0]);
    assert!(find(&team, &a, -6000).await.is_some());
    assert!(store.upload_expire(at(-6500, 0)).await.unwrap() >= 3);
    assert_eq!(find(&team, &a, -6000).await, Some(small));
    assert_eq!(find(&team, &b, -6000).await, None);
    assert_eq!(store.upload_bytes(&team.id).await.unwrap(), 10);
    assert_eq!(store.upload_bytes(&other.id).await.unwrap(), 0);
    let stranger = TeamId::parse(&random_uuid()).unwrap();
    check_dangling(store.upload_put(&stranger, &a, &large, at(0, 0)).await);
}

pub async fn uploads_of_a_team_are_bounded(store: &dyn Store) {
    let team = new_team(store).await;
    let key = |digit: &str| CacheKey::parse(&digit.repeat(64)).unwrap();
    let upload = |name: &str, bytes: u64| Upload {
        sha256: name.into(),
        bytes,
        artifact: None,
    };
    let put = async |digit: &str, upload: Upload| {
        let key = key(digit);
        let put = store.upload_put_within(&team, &key, &upload, at(0, 0), 100);
        put.await.unwrap()
    };
    assert!(put("a", upload("first", 60)).await);
    assert!(!put("b", upload("second", 41)).await);
    assert_eq!(store.upload_bytes(&team).await.unwrap(), 60);
    assert_eq!(
        store.upload_find(&team, &key("b"), at(0, 0)).await.unwrap(),
        None
    );
    assert!(put("b", upload("first", 60)).await, "it takes nothing more");
    assert!(put("c", upload("third", 40)).await);
    // The content that a key leaves gives its room.
    assert!(!put("c", upload("fourth", 41)).await);
    assert!(put("c", upload("fifth", 39)).await);
    assert_eq!(store.upload_bytes(&team).await.unwrap(), 99);
}
