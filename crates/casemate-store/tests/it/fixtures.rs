//! Every schema that was ever released opens, and its rows are all there (decision 9).

use std::path::{Path, PathBuf};

use casemate_store::{
    Begun, BuildCache, Builds, Idempotency, KeyClaim, Keys, Resolution, Sandboxes, Settings,
    SqliteStore, Teams, TemplateSource, Templates, Users,
};
use casemate_types::BuildStatus;
use casemate_types::template::TemplateRef;

use crate::fixture_rows;

/// The stores of all released schemas, the oldest first.
pub fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let folders = std::fs::read_dir(root).unwrap();
    let mut found: Vec<PathBuf> = folders
        .map(|folder| folder.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("data-v")
        })
        .map(|path| path.join("store.sqlite"))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn every_released_schema_opens_with_its_rows() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("store.sqlite");
        std::fs::copy(&fixture, &copy).unwrap();
        let store = SqliteStore::open(&copy).await.unwrap();
        check_rows(&store).await;
        let path = fixture.to_string_lossy();
        let is_of = |version: &str| path.contains(&format!("/data-v{version}/"));
        if !is_of("1") {
            check_rows_since_2(&store).await;
        }
        if !is_of("1") && !is_of("2") {
            check_rows_since_3(&store).await;
            check_bytes(&store, !is_of("3")).await;
        }
        store.close().await;
    }
}

/// What the newest of them holds.
pub async fn check_all(store: &SqliteStore) {
    check_rows(store).await;
    check_rows_since_2(store).await;
    check_rows_since_3(store).await;
    check_bytes(store, true).await;
}

async fn check_rows_since_2(store: &SqliteStore) {
    let paused = fixture_rows::paused();
    let found = store.sandbox_by_id(&paused.id).await.unwrap();
    assert_eq!(found, Some(paused));
    let (team, snapshot) = (fixture_rows::team(), fixture_rows::snapshot());
    let kept = TemplateRef::parse("kept:v1").unwrap();
    match store.template_resolve(&team.slug, &kept).await.unwrap() {
        Resolution::Found {
            template, build, ..
        } => {
            assert_eq!(template.source, TemplateSource::Snapshot);
            assert_eq!(build, snapshot.build);
        }
        other => panic!("{other:?}"),
    }
}

async fn check_rows_since_3(store: &SqliteStore) {
    let (team, built) = (fixture_rows::team(), fixture_rows::built());
    let name = TemplateRef::parse("built").unwrap();
    match store.template_resolve(&team.slug, &name).await.unwrap() {
        Resolution::Found { build, .. } => assert_eq!(build, built),
        other => panic!("{other:?}"),
    }
    let found = store.template_summary(&built.template).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.status, found.build_count), (BuildStatus::Failed, 2));
    assert_eq!(found.ready.and_then(|ready| ready.disk_size_mib), Some(700));
    let [_, failed] = fixture_rows::requests();
    let record = store.build_record(&failed.build).await.unwrap().unwrap();
    assert_eq!(record.failure, Some(fixture_rows::failure()));
    let (key, at) = (fixture_rows::cache_key(), fixture_rows::at(24));
    let layer = store.layer_find(&team.id, &key, at).await.unwrap();
    assert_eq!(layer, Some(fixture_rows::cached_layer()));
    let upload = store.upload_find(&team.id, &key, at).await.unwrap();
    assert_eq!(upload, Some(fixture_rows::upload()));
}

/// Of what was built before it was noted nothing is known, and it counts as nothing.
async fn check_bytes(store: &SqliteStore, is_noted: bool) {
    let (team, built) = (fixture_rows::team(), fixture_rows::built_bytes());
    let holds = store.built_holds(&built.name).await.unwrap();
    assert_eq!(holds, is_noted.then_some(built.holds));
    let layers = fixture_rows::cached_layer().layers;
    let needed = store.built_needed(&team.id, &layers).await.unwrap();
    assert_eq!(needed, if is_noted { built.bytes } else { 0 });
}

/// Builds from before there were states of them are ready, and of Debian bookworm.
async fn check_template(store: &SqliteStore) {
    let report = fixture_rows::report().build;
    let found = store.template_summary(&report.template).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.status, found.build_count), (BuildStatus::Ready, 1));
    assert_eq!(found.updated_at, fixture_rows::reported_at());
    let ready = found.ready.unwrap();
    assert_eq!(ready.id, report.id);
    assert_eq!(ready.disk_size_mib, None);
    assert!(ready.finished_at.is_some());
}

async fn check_rows(store: &SqliteStore) {
    let team = fixture_rows::team();
    assert_eq!(
        store.team_list().await.unwrap(),
        std::slice::from_ref(&team)
    );
    let user = fixture_rows::user();
    assert_eq!(
        store.user_by_id(&user.id).await.unwrap(),
        Some(user.clone())
    );
    let memberships = store.memberships(&user.id).await.unwrap();
    assert_eq!(memberships.len(), 1);
    assert!(memberships[0].is_default);
    let key = fixture_rows::key();
    let found = store.key_by_hash(&key.hash).await.unwrap();
    assert_eq!(found, Some((key, team.clone())));
    let token = fixture_rows::token();
    let found = store.token_by_hash(&token.hash).await.unwrap();
    assert_eq!(found, Some(token));

    let report = fixture_rows::report();
    let base = TemplateRef::parse(&report.alias).unwrap();
    match store.template_resolve(&team.slug, &base).await.unwrap() {
        Resolution::Found {
            template, build, ..
        } => {
            assert_eq!(build, report.build);
            assert_eq!(template.created_at, fixture_rows::reported_at());
        }
        other => panic!("{other:?}"),
    }
    check_template(store).await;
    for sandbox in [fixture_rows::running(), fixture_rows::dead()] {
        let found = store.sandbox_by_id(&sandbox.id).await.unwrap();
        assert_eq!(found, Some(sandbox));
    }
    let claim = KeyClaim {
        team: team.id.clone(),
        key: fixture_rows::IDEMPOTENCY_KEY.into(),
        owner: "another".into(),
        at: fixture_rows::reported_at(),
    };
    let begun = store.idempotency_begin(&claim, &[1; 32]).await.unwrap();
    let answer = fixture_rows::ANSWER.into();
    assert_eq!(begun, Begun::Done { answer });
    let (name, value) = fixture_rows::SETTING;
    let found = store.setting_by_name(name).await.unwrap();
    assert_eq!(found.as_deref(), Some(value));
}
