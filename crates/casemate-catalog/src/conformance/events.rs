//! Events, and health.

use tokio::time::timeout;

use super::{PATIENCE, name};
use crate::events::{BACKLOG_MAX, PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX, TOPICS_MAX};
use crate::{CatalogError, Events, Health, Notice, Subscription};

async fn next(subscription: &mut Subscription) -> Notice {
    let next = timeout(PATIENCE, subscription.next()).await;
    next.expect("a notice comes")
}

/// Subscribed, and events arrive.
async fn listening(catalog: &dyn Events, topics: &[&str]) -> Subscription {
    let mut subscription = catalog.subscribe(topics).await.unwrap();
    assert_eq!(next(&mut subscription).await, Notice::Gap);
    subscription
}

pub async fn events_reach_those_that_listen(catalog: &dyn Events) {
    let (one, other, third) = (name(), name(), name());
    let mut both = listening(catalog, &[&one, &other]).await;
    let mut only_one = listening(catalog, &[&one]).await;
    let largest = vec![0xff; PAYLOAD_BYTES_MAX];
    catalog.publish(&other, b"").await.unwrap();
    catalog.publish(&third, b"nobody").await.unwrap();
    catalog.publish(&one, &largest).await.unwrap();
    let of = |topic: &str, payload: &[u8]| Notice::Event {
        topic: topic.to_owned(),
        payload: payload.to_owned(),
    };
    assert_eq!(next(&mut both).await, of(&other, b""));
    assert_eq!(next(&mut both).await, of(&one, &largest));
    assert_eq!(next(&mut only_one).await, of(&one, &largest));
    // One that does not listen any more takes nothing from one that does.
    drop(only_one);
    catalog.publish(&one, b"last").await.unwrap();
    assert_eq!(next(&mut both).await, of(&one, b"last"));
    drop(both);
    let mut again = listening(catalog, &[&one]).await;
    catalog.publish(&one, b"again").await.unwrap();
    assert_eq!(next(&mut again).await, of(&one, b"again"));
}

pub async fn who_is_behind_is_told_of_a_gap(catalog: &dyn Events) {
    let topic = name();
    let mut slow = listening(catalog, &[&topic]).await;
    let mut quick = listening(catalog, &[&topic]).await;
    for number in 0..=BACKLOG_MAX {
        let number = number.to_string().into_bytes();
        catalog.publish(&topic, &number).await.unwrap();
        let Notice::Event { payload, .. } = next(&mut quick).await else {
            panic!("whoever keeps up misses nothing");
        };
        assert_eq!(payload, number);
    }
    assert_eq!(next(&mut slow).await, Notice::Gap);
    let Notice::Event { payload, .. } = next(&mut slow).await else {
        panic!("what comes after a gap is there");
    };
    assert_eq!(payload, BACKLOG_MAX.to_string().into_bytes());
}

pub async fn an_event_past_its_limits_is_refused(catalog: &dyn Events) {
    let long = "t".repeat(TOPIC_BYTES_MAX + 1);
    let large = vec![0; PAYLOAD_BYTES_MAX + 1];
    for (topic, payload) in [("", &b""[..]), (&*long, b""), ("t", &*large)] {
        let published = catalog.publish(topic, payload).await;
        assert!(
            matches!(published, Err(CatalogError::Limit { .. })),
            "{published:?}"
        );
    }
    let many = vec!["t"; TOPICS_MAX + 1];
    for topics in [&many[..], &[""], &[&*long]] {
        let subscribed = catalog.subscribe(topics).await.map(drop);
        assert!(
            matches!(subscribed, Err(CatalogError::Limit { .. })),
            "{subscribed:?}"
        );
    }
}

pub async fn a_catalog_that_is_there_answers(catalog: &dyn Health) {
    catalog.ping().await.unwrap();
    let epoch = catalog.epoch().await.unwrap();
    assert!(!epoch.is_empty());
    assert_eq!(catalog.epoch().await.unwrap(), epoch);
}
