//! Settings.

use super::*;
use crate::settings::SETTING_BYTES_MAX;

pub async fn setting_is_replaced(store: &dyn Store) {
    let name = random_uuid();
    assert_eq!(store.setting_by_name(&name).await.unwrap(), None);
    for value in ["one", "", "zwei\n\"2\""] {
        store.setting_put(&name, value).await.unwrap();
        let found = store.setting_by_name(&name).await.unwrap();
        assert_eq!(found.as_deref(), Some(value));
    }
}

pub async fn setting_claim_keeps_the_first(store: &dyn Store) {
    let name = random_uuid();
    let (a, b) = tokio::join!(
        store.setting_claim(&name, "a"),
        store.setting_claim(&name, "b")
    );
    let kept = a.unwrap();
    assert_eq!(kept, b.unwrap());
    assert_eq!(store.setting_claim(&name, "c").await.unwrap(), kept);
    let found = store.setting_by_name(&name).await.unwrap();
    assert_eq!(found, Some(kept));
}

pub async fn setting_size_is_bounded(store: &dyn Store) {
    let name = random_uuid();
    let fits = "x".repeat(SETTING_BYTES_MAX);
    store.setting_put(&name, &fits).await.unwrap();
    let beyond = fits.clone() + "x";
    check_too_large(store.setting_put(&name, &beyond).await);
    check_too_large(store.setting_claim(&name, &beyond).await);
    let found = store.setting_by_name(&name).await.unwrap();
    assert_eq!(found, Some(fits));
}
