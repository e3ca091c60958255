//! Teams, users, memberships.

use super::*;

pub async fn team_is_found_by_id_and_slug(store: &dyn Store) {
    let standings = [
        Standing::Good,
        Standing::Blocked { reason: None },
        Standing::Blocked {
            reason: Some("unpaid".into()),
        },
        Standing::Banned,
    ];
    for standing in standings {
        let mut team = a_team(0);
        team.standing = standing;
        team.limits.sandboxes_max = Some(3);
        team.limits.memory_mib_max = Some(u32::MAX);
        store.team_insert(&team).await.unwrap();
        let found = store.team_by_id(&team.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&team));
        assert_eq!(store.team_by_slug(&team.slug).await.unwrap(), found);

        let mut twin = a_team(0);
        twin.slug = team.slug.clone();
        check_exists(store.team_insert(&twin).await);
        assert_eq!(store.team_by_id(&twin.id).await.unwrap(), None);
        twin.slug.push('x');
        twin.id = team.id.clone();
        check_exists(store.team_insert(&twin).await);
    }
    assert_eq!(store.team_by_slug("nobody").await.unwrap(), None);
}

pub async fn team_update_keeps_id_slug_and_creation(store: &dyn Store) {
    let team = a_team(0);
    assert!(!store.team_update(&team).await.unwrap());
    store.team_insert(&team).await.unwrap();
    let mut changed = Team {
        slug: "another".into(),
        name: "New name".into(),
        standing: Standing::Blocked {
            reason: Some("abuse".into()),
        },
        created_at: at(99, 0),
        ..team.clone()
    };
    changed.limits.life_hours_max = Some(1);
    assert!(store.team_update(&changed).await.unwrap());
    changed.slug = team.slug.clone();
    changed.created_at = team.created_at;
    assert_eq!(store.team_by_id(&team.id).await.unwrap(), Some(changed));
}

pub async fn team_list_is_oldest_first(store: &dyn Store) {
    let (young, old) = (a_team(20), a_team(10));
    store.team_insert(&young).await.unwrap();
    store.team_insert(&old).await.unwrap();
    let all = store.team_list().await.unwrap();
    let place = |team: &Team| all.iter().position(|t| t == team).unwrap();
    assert!(place(&old) < place(&young));
}

pub async fn user_has_one_default_team(store: &dyn Store) {
    let user = new_user(store).await;
    let found = store.user_by_id(&user).await.unwrap().unwrap();
    assert_eq!(found.created_at, at(0, 0));
    check_exists(store.user_insert(&found).await);
    let (first, second) = (new_team(store).await, new_team(store).await);
    let shown = async || {
        let all = store.memberships(&user).await.unwrap();
        all.into_iter()
            .map(|m| (m.team.id, m.is_default))
            .collect::<Vec<_>>()
    };
    assert!(shown().await.is_empty());
    store
        .member_put(&user, &first, true, at(1, 0))
        .await
        .unwrap();
    store
        .member_put(&user, &second, false, at(2, 0))
        .await
        .unwrap();
    let expected = [(first.clone(), true), (second.clone(), false)];
    assert_eq!(shown().await, expected);
    for _ in 0..2 {
        store
            .member_put(&user, &second, true, at(3, 0))
            .await
            .unwrap();
        let expected = [(second.clone(), true), (first.clone(), false)];
        assert_eq!(shown().await, expected);
    }
    assert!(
        store
            .memberships(&new_user(store).await)
            .await
            .unwrap()
            .is_empty()
    );
}

pub async fn member_of_nothing_is_dangling(store: &dyn Store) {
    let (user, team) = (new_user(store).await, new_team(store).await);
    let nobody = UserId::parse(&random_uuid()).unwrap();
    let nothing = TeamId::parse(&random_uuid()).unwrap();
    store
        .member_put(&user, &team, true, at(0, 0))
        .await
        .unwrap();
    check_dangling(store.member_put(&nobody, &team, true, at(0, 0)).await);
    check_dangling(store.member_put(&user, &nothing, true, at(0, 0)).await);
    // The failed call took nothing from the user.
    let kept = store.memberships(&user).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].is_default);
}
