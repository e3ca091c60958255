//! The memory adapter against the contract.

use std::sync::Arc;

use casemate_catalog::{Catalog, MemoryCatalog, Route};
use casemate_types::{Ingress, SandboxId};

async fn open() -> Box<MemoryCatalog> {
    Box::default()
}

casemate_catalog::catalog_conformance!(open);

/// A rebuild is one step: whoever looks while it goes on sees the old routes or the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_hides_no_sandbox_that_runs_on() {
    let catalog = Arc::new(MemoryCatalog::new());
    let route = Route {
        node: "n".into(),
        asleep: false,
        ingress: Ingress::default(),
    };
    let runs: Vec<_> = (0..200)
        .map(|_| (SandboxId::random(), route.clone()))
        .collect();
    let (last, _) = &runs[199];
    catalog.route_put(last, route).await.unwrap();
    let rebuild = {
        let (catalog, runs) = (Arc::clone(&catalog), runs.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                catalog.routes_replace("n", &runs, &[]).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    while !rebuild.is_finished() {
        let found = catalog.route_by_id(last).await.unwrap();
        assert!(found.is_some());
        tokio::task::yield_now().await;
    }
    rebuild.await.unwrap();
}
