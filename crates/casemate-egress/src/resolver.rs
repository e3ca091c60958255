//! What becomes of one question. Decides; listening and asking are elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use casemate_types::network::DomainName;

use crate::EgressConfig;
use crate::control::{Control, Dns, SlotPolicy};
use crate::gate::{Full, Gate, Pass};
use crate::message::{
    Code, Query, TYPE_AAAA, TYPE_HTTPS, TYPE_SVCB, Unfit, addresses, is_failure, is_truncated,
};
use crate::servers::Servers;
use crate::upstream::{Transport, ask};

/// The resolver's state, shared by all its tasks, which run on one thread.
#[derive(Debug)]
pub(crate) struct Resolver {
    control: Control,
    servers: Servers,
    questions: Gate,
    /// Of the proxy, in slots' places. A count of their own: what programs ask must not keep the
    /// connections that they make of it from being looked up.
    lookups: Gate,
    config: EgressConfig,
}

/// The next step for a question.
#[derive(Debug)]
pub(crate) enum Step {
    Silence,
    Answer(Vec<u8>),
    Ask(Asking),
}

/// A question that goes to name servers, with its place among those under way.
#[derive(Debug)]
pub(crate) struct Asking {
    query: Query,
    servers: Vec<IpAddr>,
    _pass: Pass,
}

impl Resolver {
    pub(crate) fn new(control: Control, config: EgressConfig) -> Self {
        Self {
            control,
            servers: Servers::new(config.upstreams.clone(), config.opened.clone()),
            questions: Gate::new(config.questions_per_slot_max, config.questions_max),
            lookups: Gate::new(config.questions_per_slot_max, config.questions_max),
            config,
        }
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn config(&self) -> &EgressConfig {
        &self.config
    }

    pub(crate) fn judge(&self, slot: Ipv4Addr, bytes: &[u8]) -> Step {
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(Unfit::Silence) => return Step::Silence,
            Err(Unfit::Answer(answer)) => return Step::Answer(answer),
        };
        let policy = self.control.slot(slot).map(|slot| slot.policy());
        let Some(policy) = policy.filter(|policy| answers(policy, &query)) else {
            return Step::Answer(query.answered(Code::Refused));
        };
        let without_records = match query.kind() {
            // Slots have no IPv6: addresses of that kind would only make programs try and wait.
            TYPE_AAAA => true,
            // They lead to QUIC and to hellos with encrypted names, and neither passes the proxy.
            TYPE_SVCB | TYPE_HTTPS => !policy.domains.is_empty(),
            _ => false,
        };
        if without_records {
            return Step::Answer(query.answered(Code::NoError));
        }
        match self.questions.enter(slot) {
            Ok(pass) => Step::Ask(Asking {
                servers: self.servers.list(&policy.upstreams),
                query,
                _pass: pass,
            }),
            Err(Full::Slot) => Step::Answer(query.answered(Code::Refused)),
            Err(Full::All) => Step::Answer(query.answered(Code::ServerFailure)),
        }
    }

    /// The IPv4 addresses of a name, asked for in a slot's place; none where nobody knows any.
    pub(crate) async fn addresses(
        &self,
        slot: Ipv4Addr,
        policy: &SlotPolicy,
        name: &DomainName,
    ) -> Vec<Ipv4Addr> {
        let Ok(pass) = self.lookups.enter(slot) else {
            return Vec::new();
        };
        let asking = Asking {
            query: Query::addresses_of(name),
            servers: self.servers.list(&policy.upstreams),
            _pass: pass,
        };
        let mut reply = self.ask(&asking, Transport::Udp).await;
        // A packet that got lost is no answer. TCP loses none, and has room for all.
        if is_truncated(&reply) || is_failure(&reply) {
            reply = self.ask(&asking, Transport::Tcp).await;
        }
        addresses(&reply)
    }

    pub(crate) async fn ask(&self, asking: &Asking, transport: Transport) -> Vec<u8> {
        let each = self.config.upstream_timeout;
        ask(&asking.query, &asking.servers, transport, each).await
    }
}

/// Whether a policy lets this name be asked for. Where not all may, only those that the proxy opens:
/// any other name would carry data out.
fn answers(policy: &SlotPolicy, query: &Query) -> bool {
    match policy.dns {
        Dns::Allowed => true,
        Dns::Refused => query.name().is_some_and(|name| policy.opens(&name)),
    }
}
