//! What PostgreSQL is chosen for: several servers at once, and its own failures.

mod copy;
mod races;

use casemate_store::testing::TempPostgres;
use casemate_store::{ConnectError, LimitOverrides, Standing, Store, StoreError, Team, Teams, sql};
use casemate_types::{TeamId, Timestamp};

use crate::fixture_rows;

pub(crate) async fn new_team(store: &dyn Store) -> Team {
    let id = casemate_store::BuildId::random().to_string();
    let team = Team {
        id: TeamId::parse(&id).unwrap(),
        slug: format!("team-{id}"),
        name: "A team".into(),
        standing: Standing::Good,
        limits: LimitOverrides::default(),
        created_at: Timestamp::from_second(1_800_000_000).unwrap(),
    };
    store.team_insert(&team).await.unwrap();
    team
}

#[tokio::test]
async fn a_database_without_a_schema_is_refused_until_it_is_migrated() {
    let Some(server) = casemate_sql::testing::Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    let refused = sql::SqlStore::connect(&options, sql::Schema::Check).await;
    let refused = refused.err().unwrap();
    assert!(matches!(refused, ConnectError::Schema(_)), "{refused:?}");
    let (a, b) = tokio::join!(
        sql::SqlStore::connect(&options, sql::Schema::Migrate),
        sql::SqlStore::connect(&options, sql::Schema::Migrate)
    );
    a.unwrap().ping().await.unwrap();
    b.unwrap().ping().await.unwrap();
    let store = sql::SqlStore::connect(&options, sql::Schema::Check).await;
    store.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_is_no_failure_of_the_database() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let mut team = fixture_rows::team();
    team.name = "a\0b".into();
    let refused = store.team_insert(&team).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    assert!(!refused.is_retryable());
    assert_eq!(store.team_by_id(&team.id).await.unwrap(), None);
}
