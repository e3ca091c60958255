//! The egress process: resolver and proxy of sandboxes, without privileges.

use std::os::fd::OwnedFd;

use anyhow::{Context, anyhow};
use casemate_egress::{EgressConfig, Sockets, Upstreams};
use serde::{Deserialize, Serialize};

use crate::config::{Config, raw};
use crate::{child, log};

/// What the process is started with; the four sockets at the gateway come along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressSetup {
    log: raw::Log,
    egress: EgressConfig,
}

impl EgressSetup {
    pub fn new(config: &Config) -> Self {
        let mut egress = EgressConfig {
            opened: config.allow_ranges.clone(),
            ..EgressConfig::default()
        };
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
    let (setup, fds, control) = child::receive::<EgressSetup>()?;
    log::start(&setup.log)?;
    let [udp, tcp, http, tls] = <[OwnedFd; 4]>::try_from(fds)
        .map_err(|fds| anyhow!("the egress process needs four sockets, got {}", fds.len()))?;
    let sockets = Sockets {
        dns_udp: udp.into(),
        dns_tcp: tcp.into(),
        proxy_http: http.into(),
        proxy_tls: tls.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(casemate_egress::run(sockets, control, setup.egress))
        .context("the egress process ended")
}
