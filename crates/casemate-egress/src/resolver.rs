//! What becomes of one question. Decides; listening and asking are elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use crate::EgressConfig;
use crate::control::{Control, Dns};
use crate::gate::{Full, Gate, Pass};
use crate::message::{Code, Query, TYPE_AAAA, Unfit};
use crate::servers::Servers;
use crate::upstream::{Transport, ask};

/// The resolver's state, shared by all its tasks, which run on one thread.
#[derive(Debug)]
pub(crate) struct Resolver {
    control: Control,
    servers: Servers,
    questions: Gate,
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
            servers: Servers::new(config.upstreams.clone()),
            questions: Gate::new(config.questions_per_slot_max, config.questions_max),
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
        let policy = match self.control.policy(slot) {
            Some(policy) if policy.dns == Dns::Allowed => policy,
            Some(_) | None => return Step::Answer(query.answered(Code::Refused)),
        };
        // Slots have no IPv6: addresses of that kind would only make programs try and wait.
        if query.kind() == TYPE_AAAA {
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

    pub(crate) async fn ask(&self, asking: Asking, transport: Transport) -> Vec<u8> {
        let each = self.config.upstream_timeout;
        ask(&asking.query, &asking.servers, transport, each).await
    }
}
