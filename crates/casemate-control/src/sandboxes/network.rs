//! Network policy: what is asked for at create, and its replacement.

use std::sync::Arc;

use casemate_rpc::NodeError;
use casemate_store::{Sandbox, StoreError};
use casemate_types::network::PolicyError;
use casemate_types::{CompiledPolicy, NetworkPolicy, SandboxId, SandboxState, chain};

use super::ChangeError;
use super::ingress::IngressError;
use super::timeout::gone_or;
use crate::Control;
use crate::auth::TeamCaller;
use crate::tasks::TaskKind;

/// The network part of a request, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkAsk {
    pub allow_internet_access: Option<bool>,
    pub allow_out: Option<Vec<String>>,
    pub deny_out: Option<Vec<String>>,
    pub allow_public_traffic: Option<bool>,
    pub mask_request_host: Option<String>,
    pub https_ports: Vec<i32>,
    pub dns_servers: Option<Vec<String>>,
    pub egress_proxy: bool,
    pub rules: bool,
}

/// Why a network policy is refused. The texts are E2B's where E2B has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Ingress(#[from] IngressError),
    #[error("Network transform rules are not available for your team.")]
    Rules,
    #[error("Egress proxy (network.egressProxy) is not enabled for this team.")]
    EgressProxyAtCreate,
    #[error("Egress proxy (egressProxy) is not enabled for this team.")]
    EgressProxyAtUpdate,
}

impl NetworkAsk {
    /// The policy to keep and its compiled form; the first thing that is wrong otherwise.
    /// `proxy_refused` is the text for this operation.
    pub(crate) fn check(
        &self,
        proxy_refused: NetworkError,
    ) -> Result<(NetworkPolicy, CompiledPolicy), NetworkError> {
        let policy = NetworkPolicy {
            allow_internet_access: self.allow_internet_access,
            allow_out: self.allow_out.clone(),
            deny_out: self.deny_out.clone(),
            dns_servers: self.dns_servers.clone(),
        };
        let compiled = policy.compile()?;
        if self.rules {
            return Err(NetworkError::Rules);
        }
        if self.egress_proxy {
            return Err(proxy_refused);
        }
        Ok((policy, compiled))
    }
}

impl Control {
    /// Replaces the egress policy of a running sandbox; it holds for new connections on return.
    /// What is not said is cleared, internet access too: it is then as if it was never said.
    pub async fn update_network(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        ask: &NetworkAsk,
    ) -> Result<(), ChangeError> {
        // Unknown before wrong: another team's sandbox is 404 whatever the body says.
        self.not_busy(caller, id).await?;
        let _one = self.locks.lock(id).await;
        loop {
            let (row, _) = self.running_row(caller, id).await?;
            let (policy, compiled) = ask.check(NetworkError::EgressProxyAtUpdate)?;
            self.may_ask(&compiled)?;
            let set = async { self.nodes.port(&row.node)?.set_network(id, compiled).await };
            self.told(&row.node, id, set.await).await?;
            let written = self
                .store
                .sandbox_set_network(id, row.generation, &policy)
                .await;
            match written {
                Ok(_) => {}
                // Another server changed something of it.
                Err(StoreError::Conflict { .. }) if self.shared().is_some() => {
                    self.agree_on_network(id, &policy).await?;
                    continue;
                }
                // It may be written all the same.
                Err(error) if error.is_in_doubt() => {
                    self.agree_on_network_soon(id);
                    return Err(gone_or(id, error));
                }
                Err(error) => {
                    self.tell_network(&row).await;
                    return Err(gone_or(id, error));
                }
            }
            self.note_network(&row);
            if self.shared().is_some() {
                self.agree_on_network(id, &policy).await?;
            }
            return Ok(());
        }
    }

    /// Tells the node what the row says, if that is not `told`, until the two agree: words of several
    /// servers may arrive in another order than that of their writes.
    async fn agree_on_network(
        &self,
        id: &SandboxId,
        told: &NetworkPolicy,
    ) -> Result<(), ChangeError> {
        let mut told = told.clone();
        while let Some(row) = self.store.sandbox_by_id(id).await?
            && row.network != told
            && !matches!(row.state, SandboxState::Dead { .. })
        {
            self.tell_network(&row).await;
            told = row.network;
        }
        Ok(())
    }

    /// Refuses name servers that sandboxes may not reach.
    pub(super) fn may_ask(&self, policy: &CompiledPolicy) -> Result<(), NetworkError> {
        Ok(policy.check_dns_servers(&self.config.allow_ranges)?)
    }

    /// The same where a write is in doubt, or whoever began a change died before it wrote: after a
    /// while, and until it was done. Changes that other servers have under way are over by then, or
    /// come between two looks.
    pub(crate) fn agree_on_network_soon(self: &Arc<Self>, id: &SandboxId) {
        let (control, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(TaskKind::Reconciler, async move {
            let mut told = None;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(control.config.row_grace) => {}
                    () = control.tasks.stopped() => return,
                }
                match control.store.sandbox_by_id(&id).await {
                    Ok(Some(row)) if matches!(row.state, SandboxState::Running { .. }) => {
                        if told.as_ref() == Some(&row.network) {
                            return;
                        }
                        let _one = control.locks.lock(&id).await;
                        told = control.tell_network(&row).await.then_some(row.network);
                    }
                    // What is paused is told when it goes on.
                    Ok(_) => return,
                    Err(error) => tracing::debug!(
                        sandbox.id = %id, error = chain(&error),
                        "cannot look for the network policy of sandbox {id}"
                    ),
                }
            }
        });
    }

    /// The node goes by what the store says; whether it was told.
    async fn tell_network(&self, row: &Sandbox) -> bool {
        let id = &row.id;
        let Ok(compiled) = row.network.compile() else {
            return true;
        };
        let set = async { self.nodes.port(&row.node)?.set_network(id, compiled).await };
        match set.await {
            Ok(()) => true,
            // It goes on, or ends, with what the row says.
            Err(NodeError::NotFound(_) | NodeError::Paused(_)) => true,
            Err(error) => {
                tracing::error!(
                    sandbox.id = %id, error = chain(&error),
                    "sandbox {id} keeps a network policy that is not recorded"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ask: NetworkAsk, expected: Option<&str>) {
        let found = ask.check(NetworkError::EgressProxyAtCreate).err();
        assert_eq!(found.map(|e| e.to_string()).as_deref(), expected);
    }

    #[test]
    fn features_that_are_off_are_refused_and_names_and_servers_accepted() {
        let default = NetworkAsk::default;
        check(default(), None);
        check(
            NetworkAsk {
                allow_public_traffic: Some(true),
                dns_servers: Some(vec!["1.1.1.1".into()]),
                allow_out: Some(vec!["*.example.com".into()]),
                deny_out: Some(vec!["0.0.0.0/0".into()]),
                ..default()
            },
            None,
        );
        check(
            NetworkAsk {
                dns_servers: Some(vec!["dns.google".into()]),
                ..default()
            },
            Some("invalid DNS server dns.google: dnsServers are IPv4 addresses"),
        );
        check(
            NetworkAsk {
                rules: true,
                egress_proxy: true,
                ..default()
            },
            Some("Network transform rules are not available for your team."),
        );
    }
}
