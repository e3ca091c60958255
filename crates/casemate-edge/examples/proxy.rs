//! An edge in front of one service, for `scripts/bench-edge`: every sandbox is that service.
//!
//! `proxy LISTEN SERVICE WORKERS`, where the first two are addresses.

mod one_service;

use std::sync::Arc;

use anyhow::{Context, Result};
use casemate_edge::{Edge, EdgeConfig, InvalidHost};
use one_service::OneService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    let argument = |n| {
        std::env::args()
            .nth(n)
            .context("proxy LISTEN SERVICE WORKERS")
    };
    let (listen, service) = (argument(1)?, argument(2)?.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(argument(3)?.parse()?)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let world = Arc::new(OneService(service));
        let mut config = EdgeConfig::new("demo.test");
        // As many as the other proxy keeps.
        config.limits.envd_idle_max = 256;
        let edge = Edge::new(config, world.clone(), world, InvalidHost);
        let listener = TcpListener::bind(&listen).await?;
        edge.serve(listener, CancellationToken::new()).await;
        Ok(())
    })
}
