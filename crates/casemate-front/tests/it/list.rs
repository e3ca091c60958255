//! The list of nodes, from API servers and from the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use casemate_edge::{Dialer, Routes};
use casemate_front::{Finder, ListError, NodeTable, Servers, keep_listed};
use casemate_rpc::NodePort;
use casemate_rpc::control::NodeAddress;
use casemate_types::SandboxId;

use crate::support::{FakeNode, FakeServers, Has, LONG, address};

/// Sooner than API servers are asked by themselves.
const SOON: Duration = Duration::from_secs(1);

/// A table whose nodes are one, and how often the way to one was made.
fn table() -> (Arc<NodeTable>, Arc<FakeNode>, Arc<AtomicUsize>) {
    let (node, made) = (Arc::<FakeNode>::default(), Arc::<AtomicUsize>::default());
    let (port, counter) = (Arc::clone(&node), Arc::clone(&made));
    let table = NodeTable::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Arc::clone(&port) as Arc<dyn NodePort>
    });
    (Arc::new(table), node, made)
}

#[tokio::test]
async fn an_edge_that_starts_while_no_api_server_answers_goes_on_with_whom_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.json");
    let servers = Arc::<FakeServers>::default();
    *servers.nodes.lock().unwrap() = Some(vec![address("a"), address("b")]);
    {
        let (table, ..) = table();
        table.read(&path).unwrap();
        assert_eq!(table.count(), 0, "there is no file yet");
        let told: Arc<dyn Servers> = Arc::clone(&servers) as _;
        let keeping = tokio::spawn(keep_listed(Arc::clone(&table), told, path.clone()));
        tokio::time::timeout(LONG, async {
            table.any().await;
            while !path.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(table.count(), 2);
        keeping.abort();
    }
    *servers.nodes.lock().unwrap() = None;
    let (table, ..) = table();
    table.read(&path).unwrap();
    assert_eq!(table.count(), 2);
    std::fs::write(&path, r#"{"version": 9, "nodes": []}"#).unwrap();
    let refused = table.read(&path);
    assert!(matches!(refused, Err(ListError::Unreadable { .. })));
    assert_eq!(table.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joined_just_now_is_asked_for_and_waited_for() {
    let (table, node, made) = table();
    let servers = Arc::<FakeServers>::default();
    *servers.nodes.lock().unwrap() = Some(vec![address("a")]);
    let told: Arc<dyn Servers> = Arc::clone(&servers) as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.json");
    let keeping = tokio::spawn(keep_listed(Arc::clone(&table), told, path));
    table.any().await;
    let catalog = Arc::new(casemate_catalog::MemoryCatalog::new());
    let id = SandboxId::random();
    let route = casemate_catalog::Route {
        node: "b".into(),
        asleep: false,
        ingress: Default::default(),
        generation: 1,
        traffic_token: None,
    };
    casemate_catalog::Catalog::route_put(&*catalog, &id, route)
        .await
        .unwrap();
    let told: Arc<dyn Servers> = Arc::clone(&servers) as _;
    let finder = Finder::new(Some(catalog), Arc::clone(&table), told);
    node.put(&id, Has::running());
    assert!(finder.lookup(&id).await.unwrap().is_some());
    let dialled = |finder: Arc<Finder>, id: SandboxId| async move {
        // It gets so far as the port, on which nothing listens.
        matches!(
            finder.dial(&id, 80).await,
            Err(casemate_edge::DialFailure::PortClosed)
        )
    };
    let finder = Arc::new(finder);
    assert!(!dialled(Arc::clone(&finder), id.clone()).await, "unknown");
    *servers.nodes.lock().unwrap() = Some(vec![address("a"), address("b")]);
    let begun = tokio::time::Instant::now();
    assert!(dialled(Arc::clone(&finder), id.clone()).await);
    assert!(begun.elapsed() < SOON);

    // One that is not reached may have another address by now.
    let moved = NodeAddress {
        address: "elsewhere:8082".into(),
        ..address("b")
    };
    *servers.nodes.lock().unwrap() = Some(vec![address("a"), moved]);
    node.is_away.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    assert!(!dialled(finder, id).await);
    while made.load(Ordering::SeqCst) < 3 {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(SOON / 100).await;
    }
    keeping.abort();
}

#[tokio::test]
async fn the_way_to_a_node_stays_for_as_long_as_its_address_does() {
    let (table, _, made) = table();
    let moved = NodeAddress {
        address: "elsewhere:8082".into(),
        ..address("a")
    };
    for (list, changed, ways) in [
        (vec![address("a")], true, 1),
        (vec![address("a")], false, 1),
        (vec![address("a"), address("b")], true, 2),
        (vec![moved, address("b")], true, 3),
        (vec![address("b")], true, 3),
    ] {
        assert_eq!(table.set(&list), changed, "{list:?}");
        assert_eq!(made.load(Ordering::SeqCst), ways, "{list:?}");
        assert_eq!(table.count(), list.len());
    }
}
