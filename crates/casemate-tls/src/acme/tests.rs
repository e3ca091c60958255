use std::cell::Cell;
use std::fs;

use super::*;

const NAME: &str = "a.example";

/// A certificate that ends after so many seconds, and has lived for `lived`.
fn pair(lived: i64, left: i64) -> Pair {
    let mut params = rcgen::CertificateParams::new(vec![NAME.into()]).unwrap();
    let at = |at: i64| time::OffsetDateTime::from_unix_timestamp(at).unwrap();
    (params.not_before, params.not_after) = (at(now() - lived), at(now() + left));
    let key = rcgen::KeyPair::generate().unwrap();
    Pair {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// Orders that are made within this time.
async fn orders(store: &Store, given: &Pair, within: Duration) -> (u32, Current) {
    let (count, current) = (Cell::new(0), Current::default());
    let order = async || {
        count.set(count.get() + 1);
        Ok(given.clone())
    };
    let names = [NAME.to_owned()];
    let keeping = keep_ordered(&names, store, &current, order);
    assert!(tokio::time::timeout(within, keeping).await.is_err());
    (count.get(), current)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_shown_and_not_ordered_again() {
    let dir = tempfile::tempdir().unwrap();
    // A file is where the folder should be: whoever runs this, nothing can be written below.
    let at = dir.path().join("acme");
    fs::write(&at, "").unwrap();
    let store = Store::new(at.clone());
    let given = pair(10, 90 * 86400);
    let names = [NAME.to_owned()];
    let (count, current) = (Cell::new(0), Current::default());
    let order = async || {
        count.set(count.get() + 1);
        Ok(given.clone())
    };
    let keeping = keep_ordered(&names, &store, &current, order);
    let mut keeping = std::pin::pin!(keeping);
    let day = Duration::from_secs(86400);
    assert!(tokio::time::timeout(day, &mut keeping).await.is_err());
    assert_eq!(count.get(), 1);
    assert!(current.validity().is_some());
    fs::remove_file(&at).unwrap();
    assert!(
        tokio::time::timeout(RETRY_FIRST * 2, &mut keeping)
            .await
            .is_err()
    );
    assert!(stored(&store, &names).is_some());
    assert_eq!(count.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn between_two_orders_is_time_though_each_is_due_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("acme"));
    let given = pair(86400, 3600);
    let (count, current) = orders(&store, &given, RETRY_FIRST * 3 + RETRY_FIRST / 2).await;
    assert_eq!(count, 3, "at once, and after one and two waits more");
    assert!(current.validity().is_some());
    assert!(stored(&store, &[NAME.to_owned()]).is_some());
}
