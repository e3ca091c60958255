//! Who is given a certificate.

use std::collections::BTreeMap;

use casemate_cluster::authority::CERTIFICATE_HOURS;
use casemate_cluster::{is_member_name, token};
use casemate_rpc::control::{
    Admitted, ControlError, JoinRequest, Member, MemberRole, NodePlace, RenewRequest,
};
use casemate_store::nodes::{LABELS_BYTES_MAX, LABELS_MAX};
use casemate_store::{JoinRole, Node, NodeJoin, StoreError};
use casemate_types::{chain, steady};
use tracing::{info, warn};

use super::authority::now;
use super::{Members, MembersError};
use crate::servers::keeping::{NODES, of_node};

/// Longest `host:port` of a node.
const ADDRESS_BYTES_MAX: usize = 280;
/// Longest word of an isolation kind.
const ISOLATION_BYTES_MAX: usize = 64;
/// Before the name of an edge that belongs to the cluster, as a setting.
const EDGE: &str = "cluster.edge.";

impl Members {
    /// A certificate for this server itself: who can open the authority is one of its servers.
    pub fn admit_server(&self, name: &str, public_key: &str) -> Result<Admitted, MembersError> {
        let member = Member {
            role: MemberRole::Api,
            name: name.to_owned(),
        };
        Ok(self.certify(&member, public_key)?)
    }

    /// A machine with a token becomes a member. One whose name is known is that machine again, as
    /// after a time without a certificate: a token is an administrator's word for whoever bears it. But
    /// none is another one that is there.
    pub async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        let JoinRequest { member, node, .. } = &request;
        if !is_member_name(&member.name) {
            return Err(invalid("that cannot be a member's name"));
        }
        let (role, place) = match (member.role, node) {
            (MemberRole::Node, Some(place)) => {
                (JoinRole::Node, Some(join_of(&member.name, place)?))
            }
            (MemberRole::Node, None) => return Err(invalid("a node says where it is reached")),
            (MemberRole::Edge, None) => (JoinRole::Edge, None),
            (MemberRole::Edge, Some(_)) => return Err(invalid("an edge has no gate")),
            (MemberRole::Api, _) => return Err(not_admitted("API servers do not join")),
        };
        // Before the token is used: a request that is wrong costs no use of it.
        if let Some(place) = &place {
            self.takes_no_place(place).await?;
        }
        let admitted = self
            .certify(member, &request.public_key)
            .map_err(|error| invalid(error.to_string()))?;
        let (id, hash) = (&request.token_id, token::hash(&request.token_secret));
        let used = self.store.join_token_use(id, &hash, role).await;
        match used.map_err(unavailable)? {
            Some(is_for) if is_for == role => {}
            Some(_) => return Err(not_admitted("the token is for another role")),
            None => {
                if let Some(untold) = self.bad_tokens.happened() {
                    warn!(
                        member = %member, untold,
                        "{member} came with a join token that is not good"
                    );
                }
                return Err(not_admitted("the token is unknown, used up or expired"));
            }
        }
        match place {
            Some(place) => {
                self.store.node_join(&place).await.map_err(unavailable)?;
            }
            None => self.note_edge(&member.name).await?,
        }
        info!(member = %member, "{member} joined the cluster");
        self.changed.send_replace(());
        Ok(admitted)
    }

    /// Refuses the name, and the address, of a node with which an API server speaks, or did seconds
    /// ago: a machine that takes it over would have none of its sandboxes.
    async fn takes_no_place(&self, place: &NodeJoin) -> Result<(), ControlError> {
        let nodes = self.store.node_list().await.map_err(unavailable)?;
        let leases = self.store.lease_list(NODES).await.map_err(unavailable)?;
        let is_there = |node: &&Node| {
            let lease = of_node(&node.id);
            leases
                .iter()
                .any(|held| held.name == lease && held.free_for.is_none())
        };
        let has_it = |node: &&Node| node.id == place.id || node.address == place.address;
        let Some(other) = nodes.iter().filter(has_it).find(is_there) else {
            return Ok(());
        };
        Err(not_admitted(&match other.id == place.id {
            true => format!(
                "node {0} is there, an API server speaks with it or did seconds ago: choose another \
                 name, or end that node and try again in 10 s",
                other.id
            ),
            false => format!(
                "node {} is reached at {}: name the address of this machine, or end that node and try \
                 again in 10 s",
                other.id, other.address
            ),
        }))
    }

    /// The next certificate of a member, if it still is one.
    pub async fn renew(
        &self,
        caller: &Member,
        request: RenewRequest,
    ) -> Result<Admitted, ControlError> {
        let place = match (caller.role, &request.node) {
            (MemberRole::Node, Some(place)) => Some(join_of(&caller.name, place)?),
            (_, None) => None,
            (MemberRole::Api | MemberRole::Edge, Some(_)) => {
                return Err(invalid("only a node has a gate"));
            }
        };
        let known = match caller.role {
            MemberRole::Node => {
                let found = self.store.node_by_id(&caller.name).await;
                let found = found.map_err(unavailable)?;
                match (&found, place) {
                    (Some(node), Some(place)) if differs(node, &place) => {
                        self.store.node_join(&place).await.map_err(unavailable)?;
                        self.changed.send_replace(());
                    }
                    _ => {}
                }
                found.is_some()
            }
            MemberRole::Edge => self.knows_edge(&caller.name).await?,
            // They make their own.
            MemberRole::Api => false,
        };
        if !known {
            return Err(not_admitted("it does not belong to the cluster any more"));
        }
        self.certify(caller, &request.public_key)
            .map_err(|error| invalid(error.to_string()))
    }

    /// An edge is no member any more once its certificate has run out. Whether there was such an
    /// edge.
    pub async fn edge_remove(&self, edge: &str) -> Result<bool, StoreError> {
        let name = format!("{EDGE}{edge}");
        let found = self.store.setting_by_name(&name).await?;
        if found.as_deref() != Some(MEMBER) {
            return Ok(false);
        }
        self.store.setting_put(&name, "removed").await?;
        Ok(true)
    }

    async fn note_edge(&self, edge: &str) -> Result<(), ControlError> {
        let name = format!("{EDGE}{edge}");
        let noted = self.store.setting_put(&name, MEMBER).await;
        noted.map_err(unavailable)
    }

    async fn knows_edge(&self, edge: &str) -> Result<bool, ControlError> {
        let name = format!("{EDGE}{edge}");
        let found = self.store.setting_by_name(&name).await;
        Ok(found.map_err(unavailable)?.as_deref() == Some(MEMBER))
    }

    fn certify(
        &self,
        member: &Member,
        public_key: &str,
    ) -> Result<Admitted, casemate_cluster::AuthorityError> {
        Ok(Admitted {
            certificate: self.authority.admit(member, public_key, now())?,
            authorities: self.authority.certificate().to_owned(),
            lasts_seconds: u64::try_from(CERTIFICATE_HOURS * 3600).unwrap_or(0),
            now_us: steady::now().as_microsecond(),
        })
    }
}

/// What an edge's setting says while it belongs to the cluster.
const MEMBER: &str = "member";

/// What a node says of its place, looked at.
fn join_of(name: &str, place: &NodePlace) -> Result<NodeJoin, ControlError> {
    let address = &place.address;
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>());
    if address.len() > ADDRESS_BYTES_MAX || !matches!(port, Some(Ok(_))) {
        return Err(invalid("the node's address is not HOST:PORT"));
    }
    check_labels(&place.labels)?;
    let isolation = &place.isolation;
    if isolation.is_empty() || isolation.len() > ISOLATION_BYTES_MAX {
        return Err(invalid("the node says no kind of isolation"));
    }
    Ok(NodeJoin {
        id: name.to_owned(),
        address: address.clone(),
        labels: place.labels.clone(),
        isolation: isolation.clone(),
    })
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ControlError> {
    let bytes: usize = labels.iter().map(|(n, v)| n.len() + v.len() + 6).sum();
    if labels.len() > LABELS_MAX || bytes > LABELS_BYTES_MAX {
        return Err(invalid(format!(
            "a node has {LABELS_MAX} labels and {LABELS_BYTES_MAX} bytes of them at most"
        )));
    }
    Ok(())
}

fn differs(node: &Node, place: &NodeJoin) -> bool {
    (&node.address, &node.labels, &node.isolation)
        != (&place.address, &place.labels, &place.isolation)
}

fn invalid(why: impl Into<String>) -> ControlError {
    ControlError::Invalid { why: why.into() }
}

fn not_admitted(why: &str) -> ControlError {
    ControlError::NotAdmitted { why: why.into() }
}

fn unavailable(error: StoreError) -> ControlError {
    if let StoreError::TooLarge { .. } = error {
        return invalid(error.to_string());
    }
    warn!(error = chain(&error), "a member cannot be served");
    ControlError::Unavailable {
        why: "the database does not answer".into(),
    }
}
