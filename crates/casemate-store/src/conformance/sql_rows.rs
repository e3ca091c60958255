//! What holds for every row.

use super::*;

/// Quotes, wildcards and control characters go in and come out as they are.
pub async fn texts_are_data_not_sql(store: &dyn Store) {
    for text in [
        "'; DROP TABLE teams; --",
        "\"quoted\"",
        "100%_\\",
        "línea\u{1}\n\t",
        "$1 ?1 :name @x",
        "",
    ] {
        let mut team = a_team(0);
        team.name = text.into();
        team.slug.push_str(text);
        store.team_insert(&team).await.unwrap();
        let found = store.team_by_slug(&team.slug).await.unwrap();
        assert_eq!(found, Some(team));
    }
}
