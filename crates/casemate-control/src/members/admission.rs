//! Who is given a certificate.

use std::collections::BTreeMap;

use casemate_cluster::authority::CERTIFICATE_HOURS;
use casemate_cluster::{is_member_name, token};
use casemate_rpc::control::{
    Admitted, ControlError, JoinRequest, Member, MemberRole, NodePlace, RenewRequest,
};
use casemate_store::nodes::{LABELS_BYTES_MAX, LABELS_MAX};
use casemate_store::{JoinRole, NodeJoin, StoreError};
use casemate_types::{chain, steady};
use tracing::{info, warn};

use super::authority::now;
use super::{Members, MembersError};

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
    /// after a time without a certificate: a token is an administrator's word for whoever bears it.
    pub async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        let JoinRequest { member, node, .. } = &request;
        if !is_member_name(&member.name) {
            return Err(invalid("that cannot be a member's name"));
        }
        let place = match (member.role, node) {
            (MemberRole::Node, Some(place)) => Some(join_of(&member.name, place)?),
            (MemberRole::Node, None) => return Err(invalid("a node says where it is reached")),
            (MemberRole::Edge, None) => None,
            (MemberRole::Edge, Some(_)) => return Err(invalid("an edge has no gate")),
            (MemberRole::Api, _) => return Err(not_admitted("API servers do not join")),
        };
        // Before the token is used: a request that is wrong costs no use of it.
        let admitted = self
            .certify(member, &request.public_key)
            .map_err(|error| invalid(error.to_string()))?;
        let hash = token::hash(&request.token_secret);
        let used = self.store.join_token_use(&request.token_id, &hash).await;
        let role = match used.map_err(unavailable)? {
            Some(JoinRole::Node) => MemberRole::Node,
            Some(JoinRole::Edge) => MemberRole::Edge,
            None => {
                if let Some(untold) = self.bad_tokens.happened() {
                    warn!(
                        member = %member, untold,
                        "{member} came with a join token that is not good"
                    );
                }
                return Err(not_admitted("the token is unknown, used up or expired"));
            }
        };
        if role != member.role {
            return Err(not_admitted("the token is for another role"));
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

fn differs(node: &casemate_store::Node, place: &NodeJoin) -> bool {
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
