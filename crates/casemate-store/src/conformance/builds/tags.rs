//! Tags: to which build each leads, and when.

use super::*;
use crate::{TagAssignment, TagEvent};

pub async fn a_failed_build_leaves_the_tag_where_it_was(store: &dyn Store) {
    let team = a_known_team(store).await;
    let first = ready(store, &a_request(&team, "mine", &["default"], 10)).await;
    let second = a_request(&team, "mine", &["default"], 20);
    let third = a_request(&team, "mine", &["v2"], 21);
    for new in [&second, &third] {
        let template = request(store, new).await;
        assert_eq!(template, first.template, "the name keeps its template");
        store
            .build_begin(&new.build, "a-server", at(22, 0))
            .await
            .unwrap();
    }
    let failure = a_failure("exit status 1: 'x'", Some("2"));
    let failed = store.build_fail(&second.build, &failure, at(23, 0)).await;
    assert!(failed.unwrap());
    let record = record(store, second.build).await;
    assert_eq!(record.status, BuildStatus::Failed);
    assert_eq!(record.failure, Some(failure.clone()));
    assert_eq!(record.finished_at, Some(at(23, 0)));
    assert_eq!(resolved(store, &team, "mine").await, Some(first.clone()));
    let by_id = format!("mine:{}", second.build);
    assert_eq!(resolved(store, &team, &by_id).await, None);
    let late = finished(&second, &first.template);
    assert!(!store.build_finish(&late, 1, at(24, 0)).await.unwrap());
    let again = store.build_fail(&second.build, &failure, at(25, 0)).await;
    assert!(!again.unwrap());
    // Of two that are ready, the one that was asked for later has the tag.
    let (older, newer) = (
        a_request(&team, "mine", &["race"], 30),
        a_request(&team, "mine", &["race"], 30),
    );
    request(store, &older).await;
    store
        .build_begin(&older.build, "a-server", at(31, 0))
        .await
        .unwrap();
    request(store, &newer).await;
    store
        .build_begin(&newer.build, "a-server", at(31, 0))
        .await
        .unwrap();
    for new in [&newer, &older] {
        let build = finished(new, &first.template);
        assert!(store.build_finish(&build, 1, at(32, 0)).await.unwrap());
        let found = resolved(store, &team, "mine:race").await.unwrap();
        assert_eq!(found.id, newer.build);
    }
    // A build's id means nothing in another template.
    let other = ready(store, &a_request(&team, "other", &["default"], 40)).await;
    let foreign = format!("other:{}", first.id);
    assert_eq!(resolved(store, &team, &foreign).await, None);
    assert_eq!(resolved(store, &team, "other").await, Some(other));
}

pub async fn tags_are_given_moved_and_taken(store: &dyn Store) {
    let team = a_known_team(store).await;
    let first = ready(store, &a_request(&team, "mine", &["default"], 10)).await;
    let second = ready(store, &a_request(&team, "mine", &["default", "v2"], 20)).await;
    let template = &first.template;
    let waiting = a_request(&team, "mine", &["next"], 30);
    request(store, &waiting).await;
    let tags = ["stable".to_string(), "v2".to_string()];
    let assigned = store.tags_assign(template, &first.id, &tags, at(40, 1));
    assigned.await.unwrap();
    for (text, build) in [
        ("mine", &second),
        ("mine:stable", &first),
        ("mine:v2", &first),
    ] {
        let found = resolved(store, &team, text).await;
        assert_eq!(found.as_ref(), Some(build), "{text}");
    }
    let tag = |tag: &str, build, assigned_at| TagAssignment {
        tag: tag.into(),
        build,
        assigned_at,
    };
    let list = [
        tag("default", second.id, at(20, 5)),
        tag("next", waiting.build, at(30, 5)),
        tag("stable", first.id, at(40, 1)),
        tag("v2", first.id, at(40, 1)),
    ];
    assert_eq!(store.tags_list(template).await.unwrap(), list);
    // Again: nothing moves. An older time still comes after what is there.
    let again = store.tags_assign(template, &first.id, &tags, at(50, 0));
    again.await.unwrap();
    assert_eq!(store.tags_list(template).await.unwrap(), list);
    let back = store.tags_assign(template, &second.id, &tags[1..], at(1, 0));
    back.await.unwrap();
    assert_eq!(
        resolved(store, &team, "mine:v2").await,
        Some(second.clone())
    );
    // Only to a build of the template that is ready.
    let foreign = ready(store, &a_request(&team, "other", &["default"], 10)).await;
    for build in [waiting.build, foreign.id, BuildId::random()] {
        check_dangling(store.tags_assign(template, &build, &tags, at(60, 0)).await);
    }
    let taken = ["v2".to_string(), "missing".to_string()];
    store.tags_remove(template, &taken).await.unwrap();
    assert_eq!(resolved(store, &team, "mine:v2").await, None);
    let names: Vec<_> = store.tags_list(template).await.unwrap();
    let names: Vec<_> = names.iter().map(|one| &*one.tag).collect();
    assert_eq!(names, ["default", "next", "stable"]);
    let by_id = format!("mine:{}", first.id);
    assert_eq!(resolved(store, &team, &by_id).await, Some(first));
    assert!(resolved(store, &team, "other").await.is_some());
}

pub async fn the_history_of_tags_tells_of_ready_builds(store: &dyn Store) {
    let team = a_known_team(store).await;
    let first = ready(store, &a_request(&team, "mine", &["default", "v1"], 10)).await;
    let second = ready(store, &a_request(&team, "mine", &["default"], 20)).await;
    let template = &first.template;
    let waiting = a_request(&team, "mine", &["default", "next"], 30);
    request(store, &waiting).await;
    let back = ["default".to_string()];
    let assigned = store.tags_assign(template, &first.id, &back, at(40, 0));
    assigned.await.unwrap();
    let latest = store.tags_latest(template).await.unwrap();
    let expected = [("default", at(40, 0)), ("v1", at(10, 5))];
    assert_eq!(latest, expected.map(|(tag, at)| (tag.to_string(), at)));
    let event = |tag: &str, build: &Build, assigned_at| TagEvent {
        tag: tag.into(),
        build: build.id,
        assigned_at,
        build_created_at: build.created_at,
        build_finished_at: Some(build.created_at),
    };
    let all = [
        event("default", &first, at(40, 0)),
        event("default", &second, at(20, 5)),
        event("default", &first, at(10, 5)),
        event("v1", &first, at(10, 5)),
    ];
    let tags = ["default", "next", "none", "v1"].map(String::from);
    let history = async |tags: &[String], before, rows_max| {
        let history = store.tags_history(template, tags, before, rows_max);
        history.await.unwrap()
    };
    assert_eq!(history(&tags, None, 9).await, all);
    let one_each = [all[0].clone(), all[3].clone()];
    assert_eq!(history(&tags, None, 1).await, one_each);
    assert_eq!(history(&back, Some(at(40, 0)), 1).await, all[1..2]);
    assert_eq!(history(&back, Some(at(10, 5)), 1).await, []);
    assert_eq!(history(&[], None, 9).await, []);
    let other = ready(store, &a_request(&team, "other", &["default"], 10)).await;
    let foreign = store.tags_history(&other.template, &tags, None, 9).await;
    assert_eq!(foreign.unwrap().len(), 1);
}
