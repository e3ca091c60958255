//! The contract of [`Catalog`] as tests over any adapter. Each case uses ids and nodes of its
//! own, so that cases may share a catalog. An adapter's tests call [`catalog_conformance!`].

use casemate_types::{Ingress, SandboxId};

use crate::{Catalog, Route};

/// One test for each case. `$open` is an async function without arguments that gives a value
/// which dereferences to a [`Catalog`].
#[macro_export]
macro_rules! catalog_conformance {
    ($open:path) => {
        $crate::catalog_conformance! { @ $open,
            route_is_put_replaced_and_removed,
            late_word_of_another_node_removes_nothing,
            replacing_makes_the_routes_of_a_node_exact,
            replacing_leaves_alone_what_is_unsure,
            replacing_takes_over_from_another_node,
            replacing_with_nothing_empties_the_node,
        }
    };
    (@ $open:path, $($case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let catalog = $open().await;
                $crate::conformance::$case(&*catalog).await;
            }
        )+
    };
}

fn node() -> String {
    format!("node-{}", SandboxId::random())
}

fn to(node: &str) -> Route {
    Route {
        node: node.into(),
        asleep: false,
        ingress: Ingress::default(),
    }
}

async fn put(catalog: &dyn Catalog, node: &str) -> SandboxId {
    let id = SandboxId::random();
    catalog.route_put(&id, to(node)).await.unwrap();
    id
}

async fn node_of(catalog: &dyn Catalog, sandbox: &SandboxId) -> Option<String> {
    let route = catalog.route_by_id(sandbox).await.unwrap();
    route.map(|route| route.node)
}

pub async fn route_is_put_replaced_and_removed(catalog: &dyn Catalog) {
    let (first, second) = (node(), node());
    assert_eq!(node_of(catalog, &SandboxId::random()).await, None);
    let neighbour = put(catalog, &first).await;
    let id = put(catalog, &first).await;
    assert_eq!(node_of(catalog, &id).await.as_ref(), Some(&first));
    let route = Route {
        asleep: true,
        ingress: Ingress {
            allow_public_traffic: Some(false),
            ..Ingress::default()
        },
        ..to(&second)
    };
    catalog.route_put(&id, route.clone()).await.unwrap();
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route));
    assert!(catalog.route_remove(&id, &second).await.unwrap());
    assert_eq!(node_of(catalog, &id).await, None);
    assert!(!catalog.route_remove(&id, &second).await.unwrap());
    assert_eq!(node_of(catalog, &neighbour).await, Some(first));
}

pub async fn late_word_of_another_node_removes_nothing(catalog: &dyn Catalog) {
    let (now, before) = (node(), node());
    let id = put(catalog, &now).await;
    assert!(!catalog.route_remove(&id, &before).await.unwrap());
    assert_eq!(node_of(catalog, &id).await, Some(now));
}

pub async fn replacing_makes_the_routes_of_a_node_exact(catalog: &dyn Catalog) {
    let (rebuilt, other) = (node(), node());
    let (stays, gone) = (put(catalog, &rebuilt).await, put(catalog, &rebuilt).await);
    let elsewhere = put(catalog, &other).await;
    let new = SandboxId::random();
    let runs = [stays.clone(), new.clone()].map(|id| (id, to(&rebuilt)));
    for _ in 0..2 {
        catalog.routes_replace(&rebuilt, &runs, &[]).await.unwrap();
        assert_eq!(node_of(catalog, &stays).await.as_ref(), Some(&rebuilt));
        assert_eq!(node_of(catalog, &new).await.as_ref(), Some(&rebuilt));
        assert_eq!(node_of(catalog, &gone).await, None);
        assert_eq!(node_of(catalog, &elsewhere).await.as_ref(), Some(&other));
    }
}

pub async fn replacing_leaves_alone_what_is_unsure(catalog: &dyn Catalog) {
    let node = node();
    let (starts, gone) = (put(catalog, &node).await, put(catalog, &node).await);
    let nobody = SandboxId::random();
    let unsure = [starts.clone(), nobody.clone()];
    catalog.routes_replace(&node, &[], &unsure).await.unwrap();
    assert_eq!(node_of(catalog, &starts).await, Some(node));
    assert_eq!(node_of(catalog, &nobody).await, None);
    assert_eq!(node_of(catalog, &gone).await, None);
}

pub async fn replacing_takes_over_from_another_node(catalog: &dyn Catalog) {
    let (rebuilt, other) = (node(), node());
    let moved = put(catalog, &other).await;
    let runs = [(moved.clone(), to(&rebuilt))];
    catalog.routes_replace(&rebuilt, &runs, &[]).await.unwrap();
    assert_eq!(node_of(catalog, &moved).await.as_ref(), Some(&rebuilt));
    catalog.routes_replace(&other, &[], &[]).await.unwrap();
    assert_eq!(node_of(catalog, &moved).await, Some(rebuilt));
}

pub async fn replacing_with_nothing_empties_the_node(catalog: &dyn Catalog) {
    let (empty, other) = (node(), node());
    let gone = put(catalog, &empty).await;
    let stays = put(catalog, &other).await;
    catalog.routes_replace(&empty, &[], &[]).await.unwrap();
    assert_eq!(node_of(catalog, &gone).await, None);
    assert_eq!(node_of(catalog, &stays).await, Some(other));
}
