//! The nodes, the sandboxes and the clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use casemate_rpc::far::{Connect, FarNode, Purpose};
use casemate_rpc::{NodeInfo, NodePort, Wire};
use casemate_types::{Resources, Timestamp};

use super::{HEARTBEAT, Loads, Outcome, Plan, timed};
use crate::nodes::placement::Wanted;
use crate::nodes::{Node, Nodes};

/// Microseconds.
type Time = u64;

const SECOND: Time = 1_000_000;
/// A node is asked, and answers.
const ASKED: Time = 2_000;
/// A create with everything at hand, and without.
const MADE: Time = 150_000;
const FETCHED: Time = 3 * SECOND;
/// A server notices that a node went away.
const NOTICED: Time = 6 * SECOND;
/// A node goes away this often, for so long; all that it ran is gone.
const LEAVES_EVERY: Time = 20 * SECOND;
const AWAY: Time = 60 * SECOND;
/// Loads are noted.
const NOTED_EVERY: Time = 5 * SECOND;
/// Of 1000 nodes these have a fault that makes them refuse, in this part of the creates (of 100).
const FAULTY: usize = 20;
const REFUSES: usize = 10;

const TEMPLATES: usize = 50;
/// Nodes that have a template, other than the base, at the beginning (of 1000).
const AT_HAND: usize = 10;
const MIB: u64 = 1 << 20;
/// Memory limits of sandboxes in MiB, and how many of a hundred have each.
const SIZES: [(u32, usize); 4] = [(512, 60), (1024, 20), (2048, 15), (8192, 5)];

/// A node as it is.
struct Machine {
    memory_mib_max: u64,
    sandboxes_max: u32,
    memory_mib: u64,
    sandboxes: u32,
    layers: HashSet<String>,
    faulty: bool,
    /// Counts its returns: what ran before one is gone.
    life: u32,
    away: bool,
    /// … as each server knows it.
    known: Vec<Arc<Node>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Heartbeat(usize),
    Create,
    /// The create at a server is done.
    Made {
        server: usize,
        machine: usize,
        life: u32,
        memory_mib: u32,
        template: usize,
    },
    End {
        machine: usize,
        life: u32,
        memory_mib: u32,
    },
    Leave,
    LeftNoticed(usize),
    Return(usize),
    Note,
}

pub(super) struct World {
    plan: Plan,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    /// Orders events of one moment.
    number: u64,
    machines: Vec<Machine>,
    servers: Vec<Nodes>,
    templates: Vec<Vec<String>>,
    random: u64,
    every: f64,
    outcome: Outcome,
}

/// Nobody is called in a simulation.
struct Nowhere;

#[async_trait]
impl Connect for Nowhere {
    async fn connect(&self, _: Purpose) -> std::io::Result<Box<dyn Wire>> {
        std::future::pending().await
    }
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let port: Arc<dyn NodePort> = Arc::new(FarNode::new("simulated", Nowhere));
        let servers: Vec<Nodes> = (0..plan.servers).map(|_| Nodes::default()).collect();
        let templates: Vec<Vec<String>> = (0..TEMPLATES)
            .map(|at| match at {
                0 => vec!["base".to_owned()],
                _ => vec!["base".to_owned(), format!("template-{at}")],
            })
            .collect();
        let mut world = Self {
            plan: plan.clone(),
            now: 0,
            events: BinaryHeap::new(),
            number: 0,
            machines: Vec::new(),
            servers,
            templates,
            random: plan.seed,
            every: 0.0,
            outcome: Outcome::default(),
        };
        for at in 0..plan.nodes {
            let known = world.servers.iter().map(|server| {
                let added = server.add(&format!("node-{at:05}"), Arc::clone(&port).into());
                added.expect("each name is given once")
            });
            let known = known.collect();
            let large = world.lot(2) == 0;
            let mut layers = HashSet::from(["base".to_owned()]);
            for template in 1..TEMPLATES {
                if world.lot(1000) < AT_HAND {
                    layers.insert(format!("template-{template}"));
                }
            }
            let faulty = world.lot(1000) < FAULTY;
            world.machines.push(Machine {
                memory_mib_max: if large { 128 } else { 64 } * 1024,
                sandboxes_max: 1000,
                memory_mib: 0,
                sandboxes: 0,
                layers,
                faulty,
                life: 0,
                away: false,
                known,
            });
            world.heard(at);
            let phase = world.lot(HEARTBEAT.as_micros().try_into().unwrap_or(1));
            world.after(phase.try_into().unwrap_or(0), Event::Heartbeat(at));
        }
        let room: u64 = world.machines.iter().map(|of| of.memory_mib_max).sum();
        let size: f64 = SIZES
            .iter()
            .map(|(mib, of)| f64::from(*mib) * *of as f64 / 100.0)
            .sum();
        let alive = room as f64 * plan.filled / size;
        world.every = plan.life.as_secs_f64() / alive;
        world.after(0, Event::Create);
        world.after(LEAVES_EVERY, Event::Leave);
        world.after(NOTED_EVERY, Event::Note);
        world
    }

    pub(super) fn run(mut self) -> Outcome {
        while self.outcome.creates < self.plan.creates {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.happens(event);
        }
        self.outcome
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Heartbeat(at) => {
                if !self.machines[at].away {
                    self.heard(at);
                }
                self.after(
                    HEARTBEAT.as_micros().try_into().unwrap_or(SECOND),
                    Event::Heartbeat(at),
                );
            }
            Event::Create => {
                self.create();
                let wait = self.drawn(self.every / self.asked_more());
                self.after(wait, Event::Create);
            }
            Event::Made {
                server,
                machine,
                life,
                memory_mib,
                template,
            } => {
                let of = &mut self.machines[machine];
                of.known[server].starting.fetch_sub(1, Ordering::Relaxed);
                if of.life == life {
                    of.layers.extend(self.templates[template].iter().cloned());
                    of.known[server].create_succeeded(memory_mib);
                    let lives = self.drawn(self.plan.life.as_secs_f64());
                    self.after(
                        lives,
                        Event::End {
                            machine,
                            life,
                            memory_mib,
                        },
                    );
                }
            }
            Event::End {
                machine,
                life,
                memory_mib,
            } => {
                let of = &mut self.machines[machine];
                if of.life == life {
                    of.sandboxes -= 1;
                    of.memory_mib -= u64::from(memory_mib);
                }
            }
            Event::Leave => {
                let at = self.lot(self.machines.len());
                let of = &mut self.machines[at];
                if !of.away {
                    of.away = true;
                    (of.memory_mib, of.sandboxes) = (0, 0);
                    of.life += 1;
                    self.after(NOTICED, Event::LeftNoticed(at));
                    self.after(AWAY, Event::Return(at));
                }
                self.after(LEAVES_EVERY, Event::Leave);
            }
            Event::LeftNoticed(at) => {
                for (server, node) in self.servers.iter().zip(&self.machines[at].known) {
                    server.hear(node, |heard| heard.connection = None);
                }
            }
            Event::Return(at) => {
                self.machines[at].away = false;
                self.heard(at);
            }
            Event::Note => {
                self.note();
                self.after(NOTED_EVERY, Event::Note);
            }
        }
    }

    /// What servers hear of a node that speaks.
    fn heard(&self, at: usize) {
        let of = &self.machines[at];
        // As it comes over the wire: what it says nothing of has its default.
        let info: NodeInfo = serde_json::from_value(serde_json::json!({
            "node": "", "version": "", "ready": true, "sandboxes": of.sandboxes,
            "sandboxes_max": of.sandboxes_max, "queue_length": 0, "slots_ready": 32,
            "layers_ready": 32, "cpu_count": 16, "memory_total_bytes": of.memory_mib_max * MIB,
            "memory_available_bytes": 0, "memory_promised_bytes": of.memory_mib * MIB,
            "memory_promised_max_bytes": of.memory_mib_max * MIB,
            "cpu_percent": of.memory_mib * 60 / of.memory_mib_max,
            "disk_limit_enforced": true, "templates": [],
        }))
        .expect("a word of the protocol");
        let layers = Arc::new(of.layers.clone());
        for (server, node) in self.servers.iter().zip(&of.known) {
            server.hear(node, |heard| {
                heard.connection = Some(Timestamp::UNIX_EPOCH);
                heard.layers = Arc::clone(&layers);
                heard.info = Some(info.clone());
                heard.since = Default::default();
            });
        }
    }

    fn create(&mut self) {
        self.outcome.creates += 1;
        let server = self.lot(self.servers.len());
        let memory_mib = self.size();
        // Half of all want the base; of the others a few are wanted by most.
        let template = match self.lot(2) {
            0 => 0,
            _ => self.lot(TEMPLATES).min(self.lot(TEMPLATES)),
        };
        let labels = BTreeMap::new();
        let wanted = Wanted {
            resources: Resources {
                memory_mib,
                ..Resources::BASE
            },
            layers: &self.templates[template],
            isolation: None,
            labels: &labels,
        };
        let (nodes, mut random) = (&self.servers[server], self.random);
        let (chosen, took) = timed(|| nodes.choose(&wanted, |below| below_of(&mut random, below)));
        self.random = random;
        self.outcome.took.push(took);
        for (asked, node) in chosen.iter().enumerate() {
            let at: usize = node.name[5..].parse().expect("a name of ours");
            let fault =
                self.machines[at].away || self.machines[at].faulty && self.lot(100) < REFUSES;
            let of = &mut self.machines[at];
            let full = of.sandboxes >= of.sandboxes_max
                || of.memory_mib + u64::from(memory_mib) > of.memory_mib_max;
            if fault || full {
                if asked == 0 {
                    self.outcome.first_full += u64::from(!fault);
                    self.outcome.first_failed += u64::from(fault);
                }
                continue;
            }
            of.sandboxes += 1;
            of.memory_mib += u64::from(memory_mib);
            self.outcome.over += u64::from(of.memory_mib > of.memory_mib_max);
            node.starting.fetch_add(1, Ordering::Relaxed);
            let has = self.templates[template]
                .iter()
                .all(|layer| of.layers.contains(layer));
            self.outcome.fetched += u64::from(!has);
            let tried: Time = ASKED * (asked as Time + 1);
            let takes = tried + if has { MADE } else { FETCHED };
            let (machine, life) = (at, of.life);
            self.after(
                takes,
                Event::Made {
                    server,
                    machine,
                    life,
                    memory_mib,
                    template,
                },
            );
            return;
        }
        self.outcome.nowhere += 1;
        let largest = u64::from(SIZES[SIZES.len() - 1].0);
        let roomy = |of: &&Machine| !of.away && of.memory_mib + largest <= of.memory_mib_max;
        let with_room = self.machines.iter().filter(roomy).count() * 2 > self.machines.len();
        self.outcome.nowhere_with_room += u64::from(with_room);
    }

    fn note(&mut self) {
        let there = self.machines.iter().filter(|of| !of.away);
        let mut loads: Vec<f64> = there
            .map(|of| of.memory_mib as f64 / of.memory_mib_max as f64)
            .collect();
        loads.sort_by(f64::total_cmp);
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        let squares = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>();
        self.outcome.loads.push(Loads {
            mean,
            p99: loads[(loads.len() * 99).div_ceil(100) - 1],
            max: loads[loads.len() - 1],
            deviation: (squares / loads.len() as f64).sqrt(),
        });
    }

    /// The middle fifth wants more.
    fn asked_more(&self) -> f64 {
        let done = self.outcome.creates * 5 / self.plan.creates.max(1);
        if done == 2 { 1.25 } else { 1.0 }
    }

    fn size(&mut self) -> u32 {
        let mut drawn = self.lot(100);
        for (mib, of) in SIZES {
            if drawn < of {
                return mib;
            }
            drawn -= of;
        }
        SIZES[0].0
    }

    fn after(&mut self, wait: Time, event: Event) {
        self.number += 1;
        self.events
            .push(Reverse((self.now + wait, self.number, event)));
    }

    fn lot(&mut self, below: usize) -> usize {
        below_of(&mut self.random, below)
    }

    /// A time with this mean, in seconds, that does not depend on what was before.
    fn drawn(&mut self, mean: f64) -> Time {
        let share = (self.lot(1 << 30) as f64 + 0.5) / f64::from(1 << 30);
        let micros = Duration::from_secs_f64(-share.ln() * mean).as_micros();
        micros.try_into().unwrap_or(Time::MAX)
    }
}

/// SplitMix64 (G. Steele et al., 2014).
fn below_of(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    usize::try_from(mixed >> 33).unwrap_or(0) % below
}
