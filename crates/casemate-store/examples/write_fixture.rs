//! Writes `tests/fixtures/data-vN/store.sqlite` for a schema that is to be released (decision 9):
//! `cargo run -p casemate-store --example write_fixture -- PATH`. Never for one that was.

#[path = "../tests/it/fixture_rows.rs"]
mod fixture_rows;

use std::path::PathBuf;

use casemate_store::{
    BuildCache, Builds, Idempotency, KeyClaim, Keys, Sandboxes, Settings, Snapshots, SqliteStore,
    Teams, Templates, Users,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("usage: write_fixture PATH")?);
    if path.exists() {
        return Err("there is one already: a released fixture is never written again".into());
    }
    // The file goes into the repository: small pages make it a few KiB.
    let mut small = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .page_size(512)
        .connect()
        .await?;
    sqlx::query("VACUUM").execute(&mut small).await?;
    small.close().await?;

    let store = SqliteStore::open(&path).await?;
    let (team, user) = (fixture_rows::team(), fixture_rows::user());
    store.team_insert(&team).await?;
    store.user_insert(&user).await?;
    let joined_at = fixture_rows::at(2);
    store
        .member_put(&user.id, &team.id, true, joined_at)
        .await?;
    store.key_insert(&fixture_rows::key()).await?;
    store.token_insert(&fixture_rows::token()).await?;
    let reported_at = fixture_rows::reported_at();
    store
        .template_report(&fixture_rows::report(), reported_at)
        .await?;
    store.sandbox_insert(&fixture_rows::running(), None).await?;
    store.sandbox_insert(&fixture_rows::dead(), None).await?;
    store.sandbox_insert(&fixture_rows::paused(), None).await?;
    store.snapshot_insert(&fixture_rows::snapshot()).await?;
    let [ready, failed] = fixture_rows::requests();
    store.build_request(&ready).await?;
    store
        .build_begin(&ready.build, "a-server", fixture_rows::at(21))
        .await?;
    let (built, at) = (fixture_rows::built(), fixture_rows::at(22));
    store.build_finish(&built, 700, at).await?;
    store.build_request(&failed).await?;
    let (failure, at) = (fixture_rows::failure(), fixture_rows::at(31));
    store.build_fail(&failed.build, &failure, at).await?;
    let (key, at) = (fixture_rows::cache_key(), fixture_rows::at(23));
    let layer = fixture_rows::cached_layer();
    store.layer_put(&team.id, &key, &layer, at).await?;
    let built = fixture_rows::built_bytes();
    store.built_note(&team.id, &built, at).await?;
    let upload = fixture_rows::upload();
    store.upload_put(&team.id, &key, &upload, at).await?;
    let claim = KeyClaim {
        team: team.id.clone(),
        key: fixture_rows::IDEMPOTENCY_KEY.into(),
        owner: "fixture".into(),
        at: fixture_rows::reported_at(),
    };
    store.idempotency_begin(&claim, &[1; 32]).await?;
    store
        .idempotency_finish(&claim, fixture_rows::ANSWER)
        .await?;
    let (name, value) = fixture_rows::SETTING;
    store.setting_put(name, value).await?;
    store.close().await;
    Ok(())
}
