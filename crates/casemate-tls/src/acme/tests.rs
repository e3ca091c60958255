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
    let keeping = keep_ordered(&names, &store, &current, None, order);
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
    let names = [NAME.to_owned()];
    let (count, current) = (Cell::new(0), Current::default());
    let order = async || {
        count.set(count.get() + 1);
        Ok(given.clone())
    };
    let keeping = keep_ordered(&names, &store, &current, None, order);
    let three_waits = RETRY_FIRST * 3 + RETRY_FIRST / 2;
    assert!(tokio::time::timeout(three_waits, keeping).await.is_err());
    assert_eq!(count.get(), 3, "at once, and after one and two waits more");
    assert!(current.validity().is_some());
    assert!(stored(&store, &names).is_some());
}

#[tokio::test]
async fn records_of_a_process_that_ended_are_removed_by_the_next() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (command, seen) = (dir.path().join("hook"), dir.path().join("seen"));
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", seen.display());
    fs::write(&command, script).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    let hook = DnsHook {
        command,
        wait: Duration::ZERO,
    };
    let config = AcmeConfig {
        directory: "https://127.0.0.1:1/".into(),
        root: None,
        contact: Vec::new(),
        names: vec![NAME.into()],
        challenge: Challenge::Dns01(hook),
        dir: dir.path().join("acme"),
    };
    let store = Store::new(config.dir.clone());
    for value in ["one", "two"] {
        let (name, value) = (format!("_acme-challenge.{NAME}"), value.to_owned());
        store.note_record(&store::Record { name, value }).unwrap();
    }
    let keeping = keep(config, Arc::default(), Challenges::default());
    let removed = async {
        while !store.records().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        done = tokio::time::timeout(Duration::from_secs(20), removed) => done.unwrap(),
    }
    let told = fs::read_to_string(seen).unwrap();
    let cleanup = |value| format!("cleanup _acme-challenge.{NAME} {value}\n");
    assert_eq!(told, cleanup("one") + &cleanup("two"));
}
