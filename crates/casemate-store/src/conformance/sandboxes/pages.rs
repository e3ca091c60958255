//! Pages: order, cursors, filters.

use std::slice::from_ref;

use casemate_types::sandbox::PublicState;

use super::*;
use crate::{Cursor, Order, Page};

const ORDERS: [Order; 2] = [Order::NewestFirst, Order::OldestFirst];

fn cursor(sandbox: &Sandbox) -> Cursor {
    Cursor {
        started_at: sandbox.started_at,
        id: sandbox.id.clone(),
    }
}

/// All pages of `rows_max` rows, one after the other.
async fn walk(
    store: &dyn Store,
    filter: &SandboxFilter,
    order: Order,
    rows_max: u32,
) -> Vec<Sandbox> {
    let mut all: Vec<Sandbox> = Vec::new();
    loop {
        let page = Page {
            order,
            after: all.last().map(cursor),
            rows_max,
        };
        let rows = store.sandbox_page(filter, &page).await.unwrap();
        assert!(rows.len() <= rows_max as usize);
        assert!(all.len() < 1000, "the pages go round in circles");
        if rows.is_empty() {
            return all;
        }
        all.extend(rows);
    }
}

async fn ids(store: &dyn Store, filter: &SandboxFilter) -> Vec<SandboxId> {
    let found = walk(store, filter, Order::NewestFirst, 100).await;
    let count = store.sandbox_count(filter).await.unwrap();
    assert_eq!(count, found.len() as u64, "count and page agree");
    found.into_iter().map(|sandbox| sandbox.id).collect()
}

pub async fn pages_are_ordered_and_complete(store: &dyn Store) {
    let (team, other) = (new_team(store).await, new_team(store).await);
    new_sandbox(store, &other, 1).await;
    let mut expected = Vec::new();
    // Many share a time: then the id decides.
    for started in [3, 1, 2, 2, 2, 1, 4, 2] {
        expected.push(new_sandbox(store, &team, started).await);
    }
    expected.sort_by(|a, b| {
        b.started_at
            .cmp(&a.started_at)
            .then_with(|| a.id.cmp(&b.id))
    });
    let filter = SandboxFilter::running(team);
    for rows_max in [1, 2, 3, 8, 100] {
        let newest = walk(store, &filter, Order::NewestFirst, rows_max).await;
        assert_eq!(newest, expected, "pages of {rows_max}");
        let mut oldest = walk(store, &filter, Order::OldestFirst, rows_max).await;
        oldest.reverse();
        assert_eq!(oldest, expected, "pages of {rows_max}, backward");
    }
}

pub async fn page_goes_on_after_a_row_that_is_gone(store: &dyn Store) {
    let team = new_team(store).await;
    let filter = SandboxFilter::running(team.clone());
    let mut made = Vec::new();
    for started in 1..=5 {
        made.push(new_sandbox(store, &team, started).await);
    }
    end(store, &made[2], at(9, 0)).await.unwrap();
    for (order, expected) in ORDERS.into_iter().zip([[1, 0], [3, 4]]) {
        let page = Page {
            order,
            after: Some(cursor(&made[2])),
            rows_max: 100,
        };
        let rows = store.sandbox_page(&filter, &page).await.unwrap();
        let expected = expected.map(|index: usize| made[index].clone());
        assert_eq!(rows, expected, "{order:?}");
    }
}

pub async fn page_filters_all_hold(store: &dyn Store) {
    let team = new_team(store).await;
    let early = new_sandbox(store, &team, 1).await;
    let late = new_sandbox(store, &team, 5).await;
    let dead = new_sandbox(store, &team, 6).await;
    end(store, &dead, at(9, 0)).await.unwrap();
    let running = SandboxFilter::running(team);
    let both = [late.id.clone(), early.id.clone()];
    assert_eq!(ids(store, &running).await, both);

    let with = |change: &dyn Fn(&mut SandboxFilter)| {
        let mut filter = running.clone();
        change(&mut filter);
        filter
    };
    let none = with(&|f| f.states.clear());
    assert!(ids(store, &none).await.is_empty());
    let twice = with(&|f| f.states.push(PublicState::Running));
    assert_eq!(ids(store, &twice).await, both);

    let since = with(&|f| f.started_after = Some(at(5, 0)));
    assert_eq!(ids(store, &since).await, from_ref(&late.id));
    let since = with(&|f| f.started_after = Some(at(5, 1)));
    assert!(ids(store, &since).await.is_empty());

    let template = with(&|f| f.template = Some(early.template.clone()));
    assert_eq!(ids(store, &template).await, from_ref(&early.id));
    let template = with(&|f| {
        f.template = Some(early.template.clone());
        f.started_after = Some(at(5, 0));
    });
    assert!(ids(store, &template).await.is_empty());
}

pub async fn metadata_matches_exactly(store: &dyn Store) {
    let team = new_team(store).await;
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
        pairs.iter().map(own).collect()
    };
    let strange = [("ke\"y.$[0]", "va'l%_ue"), ("", "empty"), ("n", "1")];
    let mut marked = a_sandbox(&team, 1);
    marked.metadata = pairs(&[("user", "a b"), ("app", "x"), ("ünï", "🦀")]);
    marked.metadata.extend(pairs(&strange));
    store.sandbox_insert(&marked, None).await.unwrap();
    let mut other = a_sandbox(&team, 2);
    other.metadata = pairs(&[("user", "a b"), ("app", "y")]);
    store.sandbox_insert(&other, None).await.unwrap();
    new_sandbox(store, &team, 3).await;

    let found = async |wanted: &[(&str, &str)]| {
        let mut filter = SandboxFilter::running(team.clone());
        filter.metadata = pairs(wanted);
        ids(store, &filter).await
    };
    assert_eq!(found(&[]).await.len(), 3);
    let both = [other.id.clone(), marked.id.clone()];
    assert_eq!(found(&[("user", "a b")]).await, both);
    let one = [marked.id.clone()];
    assert_eq!(found(&[("user", "a b"), ("app", "x")]).await, one);
    assert_eq!(found(&[("ünï", "🦀")]).await, one);
    assert_eq!(found(&strange).await, one);
    for wanted in [
        [("user", "a b"), ("app", "z")],
        [("user", "a b"), ("missing", "x")],
        [("User", "a b"), ("app", "x")],
        [("user", "A B"), ("app", "x")],
        [("user", "a b "), ("app", "x")],
        [("user", "a b"), ("n", "01")],
        [("user", "a b"), ("n", "1.0")],
        [("user", "a b"), ("", "")],
    ] {
        assert!(found(&wanted).await.is_empty(), "{wanted:?}");
    }
}

/// Clients choose it: nothing in one sandbox's may keep a team from its list.
pub async fn metadata_may_hold_any_text(store: &dyn Store) {
    let team = new_team(store).await;
    let mut odd = a_sandbox(&team, 1);
    let pairs = [
        ("nul", "a\0b"),
        ("\0", ""),
        ("\u{ffff}", "\u{1}\u{7f}\u{2028}"),
    ];
    let own = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    odd.metadata = own.into();
    store.sandbox_insert(&odd, None).await.unwrap();
    let mut filter = SandboxFilter::running(team.clone());
    assert_eq!(ids(store, &filter).await, from_ref(&odd.id));
    assert_eq!(read(store, &odd).await.metadata, odd.metadata);
    filter.metadata = [("\u{ffff}".into(), odd.metadata["\u{ffff}"].clone())].into();
    assert_eq!(ids(store, &filter).await, from_ref(&odd.id));
    filter.metadata = [("user".into(), "a".into())].into();
    assert!(ids(store, &filter).await.is_empty());
}
