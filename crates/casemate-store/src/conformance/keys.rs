//! API keys and access tokens.

use super::*;
use crate::keys::LAST_USED_LAG_SECONDS;
use crate::{AccessToken, ApiKey, KeyHash, KeyMask};

fn a_key(team: &TeamId, created: i64) -> ApiKey {
    let id = KeyId::random();
    ApiKey {
        id,
        team: team.clone(),
        name: "my key".into(),
        hash: KeyHash::of(id.to_string().as_bytes()),
        mask: KeyMask::of("e2b_", "0123456789abcdef0123456789abcdef01234567"),
        created_at: at(created, 1),
        created_by: None,
        last_used: None,
    }
}

async fn new_key(store: &dyn Store, team: &TeamId) -> ApiKey {
    let key = a_key(team, 0);
    store.key_insert(&key).await.unwrap();
    key
}

pub async fn key_is_found_by_hash_with_its_team(store: &dyn Store) {
    let team = new_team(store).await;
    let mut key = a_key(&team, 5);
    key.created_by = Some(new_user(store).await);
    store.key_insert(&key).await.unwrap();
    new_key(store, &team).await;
    let (found, owner) = store.key_by_hash(&key.hash).await.unwrap().unwrap();
    assert_eq!(found, key);
    assert_eq!(Some(owner), store.team_by_id(&team).await.unwrap());
    let other = KeyHash::of(b"nothing");
    assert!(store.key_by_hash(&other).await.unwrap().is_none());
}

pub async fn key_hash_and_id_are_unique(store: &dyn Store) {
    let team = new_team(store).await;
    let key = new_key(store, &team).await;
    let same_hash = ApiKey {
        id: KeyId::random(),
        ..key.clone()
    };
    check_exists(store.key_insert(&same_hash).await);
    let same_id = ApiKey {
        hash: KeyHash::of(random_uuid().as_bytes()),
        ..key.clone()
    };
    check_exists(store.key_insert(&same_id).await);
    check_dangling(
        store
            .key_insert(&a_key(&TeamId::parse(&random_uuid()).unwrap(), 0))
            .await,
    );
    assert_eq!(store.key_list(&team).await.unwrap(), [key]);
}

pub async fn key_belongs_to_its_team_only(store: &dyn Store) {
    let (team, other) = (new_team(store).await, new_team(store).await);
    let (young, mut old) = (a_key(&team, 9), a_key(&team, 3));
    store.key_insert(&young).await.unwrap();
    store.key_insert(&old).await.unwrap();
    assert_eq!(
        store.key_list(&team).await.unwrap(),
        [old.clone(), young.clone()]
    );
    assert!(store.key_list(&other).await.unwrap().is_empty());

    assert!(!store.key_rename(&other, &old.id, "taken").await.unwrap());
    assert!(store.key_rename(&team, &old.id, "renamed").await.unwrap());
    old.name = "renamed".into();
    assert_eq!(store.key_list(&team).await.unwrap()[0], old);

    assert_eq!(store.key_delete(&other, &old.id).await.unwrap(), None);
    assert_eq!(
        store.key_delete(&team, &old.id).await.unwrap(),
        Some(old.clone())
    );
    assert!(store.key_by_hash(&old.hash).await.unwrap().is_none());
    assert_eq!(store.key_delete(&team, &old.id).await.unwrap(), None);
    assert!(!store.key_rename(&team, &old.id, "gone").await.unwrap());
    assert_eq!(store.key_list(&team).await.unwrap(), [young]);
}

pub async fn key_touch_is_coalesced_and_goes_forward(store: &dyn Store) {
    let team = new_team(store).await;
    let key = new_key(store, &team).await;
    let touch = async |seconds| {
        store.key_touch(&key.id, at(seconds, 0)).await.unwrap();
        store.key_by_hash(&key.hash).await.unwrap().unwrap().0
    };
    assert_eq!(touch(1000).await.last_used, Some(at(1000, 0)));
    let within = 1000 + LAST_USED_LAG_SECONDS - 1;
    assert_eq!(touch(within).await.last_used, Some(at(1000, 0)));
    let beyond = 1000 + LAST_USED_LAG_SECONDS;
    assert_eq!(touch(beyond).await.last_used, Some(at(beyond, 0)));
    assert_eq!(touch(5).await.last_used, Some(at(beyond, 0)));
    store.key_touch(&KeyId::random(), at(0, 0)).await.unwrap();
}

pub async fn token_is_found_by_hash(store: &dyn Store) {
    let (user, other) = (new_user(store).await, new_user(store).await);
    let token = AccessToken {
        id: KeyId::random(),
        user: user.clone(),
        name: "cli".into(),
        hash: KeyHash::of(random_uuid().as_bytes()),
        mask: KeyMask::of("sk_e2b_", "00112233445566778899"),
        created_at: at(4, 4),
    };
    store.token_insert(&token).await.unwrap();
    check_exists(store.token_insert(&token).await);
    let mut stray = token.clone();
    stray.id = KeyId::random();
    check_exists(store.token_insert(&stray).await);
    stray.hash = KeyHash::of(random_uuid().as_bytes());
    stray.user = UserId::parse(&random_uuid()).unwrap();
    check_dangling(store.token_insert(&stray).await);

    let found = store.token_by_hash(&token.hash).await.unwrap();
    assert_eq!(found.as_ref(), Some(&token));
    assert_eq!(store.token_delete(&other, &token.id).await.unwrap(), None);
    assert_eq!(store.token_delete(&user, &token.id).await.unwrap(), found);
    assert_eq!(store.token_by_hash(&token.hash).await.unwrap(), None);
}
