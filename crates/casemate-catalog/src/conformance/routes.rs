//! Routes: put, removed, replaced.

use casemate_types::{Ingress, SandboxId};

use super::node;
use crate::{Catalog, Route, TokenHash};

pub(super) fn to(node: &str) -> Route {
    Route {
        node: node.into(),
        asleep: false,
        ingress: Ingress::default(),
        generation: 1,
        traffic_token: None,
    }
}

pub(super) async fn put(catalog: &dyn Catalog, node: &str) -> SandboxId {
    let id = SandboxId::random();
    assert!(catalog.route_put(&id, to(node)).await.unwrap());
    id
}

pub(super) async fn node_of(catalog: &dyn Catalog, sandbox: &SandboxId) -> Option<String> {
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
    assert!(catalog.route_put(&id, route.clone()).await.unwrap());
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route));
    assert!(catalog.route_remove(&id, &second, 1).await.unwrap());
    assert_eq!(node_of(catalog, &id).await, None);
    assert!(!catalog.route_remove(&id, &second, 1).await.unwrap());
    assert_eq!(node_of(catalog, &neighbour).await, Some(first));
}

pub async fn late_word_of_another_node_removes_nothing(catalog: &dyn Catalog) {
    let (now, before) = (node(), node());
    let id = put(catalog, &now).await;
    assert!(!catalog.route_remove(&id, &before, 1).await.unwrap());
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

pub async fn all_of_a_route_comes_back(catalog: &dyn Catalog) {
    let id = SandboxId::random();
    let route = Route {
        node: node(),
        asleep: true,
        ingress: Ingress {
            allow_public_traffic: Some(false),
            mask_request_host: Some("\"ä\n${PORT}\"".into()),
            https_ports: Some(vec![443, u16::MAX]),
        },
        generation: u64::MAX,
        traffic_token: Some(TokenHash([0xfe; 32])),
    };
    assert!(catalog.route_put(&id, route.clone()).await.unwrap());
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route));
}
