//! Every schema that was ever released opens, and its rows are all there (decision 9).

use std::path::{Path, PathBuf};

use casemate_store::{
    Begun, Idempotency, Keys, Resolution, Sandboxes, Settings, SqliteStore, Teams, TemplateSource,
    Templates, Users,
};
use casemate_types::template::TemplateRef;

use crate::fixture_rows;

fn fixtures() -> Vec<PathBuf> {
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
        if !fixture.to_string_lossy().contains("/data-v1/") {
            check_rows_since_2(&store).await;
        }
        store.close().await;
    }
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
    for sandbox in [fixture_rows::running(), fixture_rows::dead()] {
        let found = store.sandbox_by_id(&sandbox.id).await.unwrap();
        assert_eq!(found, Some(sandbox));
    }
    let key = fixture_rows::IDEMPOTENCY_KEY;
    let now = fixture_rows::reported_at();
    let begun = store
        .idempotency_begin(&team.id, key, &[1; 32], "another", now)
        .await
        .unwrap();
    let answer = fixture_rows::ANSWER.into();
    assert_eq!(begun, Begun::Done { answer });
    let (name, value) = fixture_rows::SETTING;
    let found = store.setting_by_name(name).await.unwrap();
    assert_eq!(found.as_deref(), Some(value));
}
