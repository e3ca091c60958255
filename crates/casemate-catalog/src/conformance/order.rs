//! Routes: words of several servers, in any order.

use casemate_types::SandboxId;
use tokio::task::yield_now;

use super::node;
use super::routes::{node_of, to};
use crate::{Catalog, Route};

fn at(node: &str, generation: u64) -> Route {
    Route {
        generation,
        ..to(node)
    }
}

pub async fn older_words_change_nothing(catalog: &dyn Catalog) {
    let (now, before) = (node(), node());
    let id = SandboxId::random();
    // Beyond what a floating-point number tells apart.
    let newest = u64::MAX - 1;
    assert!(catalog.route_put(&id, at(&now, newest)).await.unwrap());
    assert!(
        !catalog
            .route_put(&id, at(&before, newest - 1))
            .await
            .unwrap()
    );
    assert!(!catalog.route_remove(&id, &now, newest - 1).await.unwrap());
    assert_eq!(
        catalog.route_by_id(&id).await.unwrap(),
        Some(at(&now, newest))
    );
    // As new: the last one counts.
    assert!(catalog.route_put(&id, at(&before, newest)).await.unwrap());
    assert_eq!(node_of(catalog, &id).await.as_ref(), Some(&before));
    // A newer removal counts wherever the route leads.
    assert!(catalog.route_remove(&id, &now, newest + 1).await.unwrap());
    assert_eq!(node_of(catalog, &id).await, None);
}

pub async fn a_removal_is_remembered(catalog: &dyn Catalog) {
    let node = node();
    for was_there in [true, false] {
        let id = SandboxId::random();
        if was_there {
            assert!(catalog.route_put(&id, at(&node, 9)).await.unwrap());
        }
        assert_eq!(
            catalog.route_remove(&id, &node, 10).await.unwrap(),
            was_there
        );
        assert!(!catalog.route_put(&id, at(&node, 9)).await.unwrap());
        assert_eq!(node_of(catalog, &id).await, None);
        // An older removal makes it no older.
        assert!(!catalog.route_remove(&id, &node, 3).await.unwrap());
        assert!(!catalog.route_put(&id, at(&node, 9)).await.unwrap());
        assert!(catalog.route_put(&id, at(&node, 10)).await.unwrap());
        assert_eq!(node_of(catalog, &id).await.as_ref(), Some(&node));
    }
}

pub async fn replacing_respects_what_is_newer(catalog: &dyn Catalog) {
    let (rebuilt, other) = (node(), node());
    let [moved, removed, gone] = [(); 3].map(|()| SandboxId::random());
    catalog.route_put(&moved, at(&other, 5)).await.unwrap();
    catalog.route_remove(&removed, &rebuilt, 5).await.unwrap();
    catalog.route_put(&gone, at(&rebuilt, 5)).await.unwrap();
    let late = [moved.clone(), removed.clone()].map(|id| (id, at(&rebuilt, 4)));
    catalog.routes_replace(&rebuilt, &late, &[]).await.unwrap();
    assert_eq!(node_of(catalog, &moved).await.as_ref(), Some(&other));
    assert_eq!(node_of(catalog, &removed).await, None);
    assert_eq!(node_of(catalog, &gone).await, None);
    // Of what went its own generation is remembered.
    assert!(!catalog.route_put(&gone, at(&rebuilt, 4)).await.unwrap());
    assert!(catalog.route_put(&gone, at(&rebuilt, 5)).await.unwrap());
}

/// A sequence that looks random and is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Several clients say the history of each sandbox, all of them all of it, in orders of their own.
pub async fn any_order_of_words_ends_with_the_newest(catalog: &dyn Catalog) {
    const CLIENTS: usize = 4;
    const WORDS: usize = 12;
    let mut dice = Dice(7);
    for _ in 0..40 {
        let id = SandboxId::random();
        let nodes = [node(), node(), node()];
        // One word for each generation; `None` is a removal.
        let history: Vec<Option<Route>> = (0..WORDS)
            .map(|generation| {
                let node = &nodes[dice.below(nodes.len())];
                let is_put = dice.below(3) > 0;
                is_put.then(|| at(node, generation as u64))
            })
            .collect();
        let orders: Vec<Vec<usize>> = (0..CLIENTS)
            .map(|_| {
                let mut order: Vec<usize> = (0..WORDS).collect();
                for left in (1..WORDS).rev() {
                    order.swap(left, dice.below(left + 1));
                }
                order
            })
            .collect();
        let say = async |order: &[usize], pauses: u64| {
            let mut pauses = Dice(pauses);
            for generation in order {
                match &history[*generation] {
                    Some(route) => catalog.route_put(&id, route.clone()).await.map(drop),
                    None => {
                        let removed = catalog.route_remove(&id, &nodes[0], *generation as u64);
                        removed.await.map(drop)
                    }
                }
                .unwrap();
                for _ in 0..pauses.below(3) {
                    yield_now().await;
                }
            }
        };
        tokio::join!(
            say(&orders[0], 1),
            say(&orders[1], 2),
            say(&orders[2], 3),
            say(&orders[3], 4),
        );
        let newest = history.last().cloned().flatten();
        assert_eq!(
            catalog.route_by_id(&id).await.unwrap(),
            newest,
            "{history:?} {orders:?}"
        );
        // What is known of nodes is as true: emptying the others takes nothing away.
        for node in nodes
            .iter()
            .filter(|node| newest.as_ref().is_none_or(|it| it.node != **node))
        {
            catalog.routes_replace(node, &[], &[]).await.unwrap();
        }
        assert_eq!(catalog.route_by_id(&id).await.unwrap(), newest);
        for node in &nodes {
            catalog.routes_replace(node, &[], &[]).await.unwrap();
        }
        assert_eq!(catalog.route_by_id(&id).await.unwrap(), None);
    }
}
