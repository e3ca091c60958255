//! The egress process: the resolver of sandboxes, without privileges.

use anyhow::{Context, ensure};
use casemate_egress::{EgressConfig, Sockets, Upstreams};
use serde::{Deserialize, Serialize};

use crate::config::{Config, raw};
use crate::{child, log};

/// What the process is started with; the gateway's UDP and TCP sockets come along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressSetup {
    log: raw::Log,
    egress: EgressConfig,
}

impl EgressSetup {
    pub fn new(config: &Config) -> Self {
        let mut egress = EgressConfig::default();
        if !config.dns_upstreams.is_empty() {
            egress.upstreams = Upstreams::Fixed(config.dns_upstreams.clone());
        }
        Self {
            log: config.log.clone(),
            egress,
        }
    }
}

pub fn run() -> anyhow::Result<()> {
    let (setup, mut fds, control) = child::receive::<EgressSetup>()?;
    log::start(&setup.log)?;
    ensure!(
        fds.len() == 2,
        "the resolver needs two sockets, got {}",
        fds.len()
    );
    let dns_tcp = fds.remove(1).into();
    let sockets = Sockets {
        dns_udp: fds.remove(0).into(),
        dns_tcp,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(casemate_egress::run(sockets, control, setup.egress))
        .context("the resolver ended")
}
