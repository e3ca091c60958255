//! The states of sandboxes under random changes through two servers at once.

use std::collections::{BTreeMap, BTreeSet};

use casemate_catalog::Catalog;
use casemate_control::Sharing;
use casemate_store::SandboxFilter;
use casemate_types::{SandboxId, SandboxState};

use super::cluster::{Cluster, id_of};
use crate::world::{Answer, until};

const ROUNDS: usize = 150;
/// Changes of a round, all at once.
const CHANGES: usize = 8;
/// Sandboxes that a team may run.
const LIMIT: u32 = 4;
/// Of those that are changed.
const SANDBOXES: usize = 6;

/// xorshift64* (S. Vigna, 2016).
struct Lots(u64);

impl Lots {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let lot = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(lot).unwrap() % end
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Create,
    Pause,
    PauseFiles,
    Resume,
    Connect,
    Kill,
    Timeout,
    Snapshot,
}

const ALL: [Change; 8] = [
    Change::Create,
    Change::Pause,
    Change::PauseFiles,
    Change::Resume,
    Change::Connect,
    Change::Kill,
    Change::Timeout,
    Change::Snapshot,
];

impl Change {
    /// What a client is told, whatever others do.
    fn may_answer(self, status: u16) -> bool {
        let expected: &[u16] = match self {
            Self::Create => &[201, 429],
            Self::Pause | Self::PauseFiles => &[204, 404, 409],
            Self::Resume => &[201, 404, 409, 429],
            Self::Connect => &[200, 201, 404, 409, 410, 429],
            Self::Kill => &[204, 404],
            Self::Timeout => &[204, 404, 409],
            Self::Snapshot => &[201, 404, 409],
        };
        expected.contains(&status)
    }
}

fn asked(
    cluster: &Cluster,
    server: usize,
    change: Change,
    sandbox: &SandboxId,
    lots: &mut Lots,
) -> impl Future<Output = Answer> + Send + 'static {
    let path = format!("/sandboxes/{sandbox}");
    let post = |verb: &str, body: &str| {
        let call = cluster.api(server, "POST", &format!("{path}/{verb}"));
        call.json(body)
    };
    let timeout = format!(r#"{{"timeout":{}}}"#, 200 + lots.below(300));
    let call = match change {
        Change::Create => {
            let call = cluster.api(server, "POST", "/v2/sandboxes");
            call.json(r#"{"templateID":"base","timeout":300,"autoPause":true}"#)
        }
        Change::Pause => post("pause", "{}"),
        Change::PauseFiles => post("pause", r#"{"memory":false}"#),
        Change::Resume => post("resume", &timeout),
        Change::Connect => post("connect", &timeout),
        Change::Timeout => post("timeout", &timeout),
        Change::Snapshot => post("snapshots", "{}"),
        Change::Kill => cluster.api(server, "DELETE", &path),
    };
    call.send()
}

/// How a sandbox stands.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Running { ends_at: i64 },
    Paused,
    Gone,
}

async fn by_row(cluster: &Cluster, sandbox: &SandboxId) -> Stands {
    match cluster.state_of(sandbox).await {
        Some(SandboxState::Running { ends_at }) => Stands::Running {
            ends_at: ends_at.as_microsecond(),
        },
        Some(SandboxState::Paused { .. }) => Stands::Paused,
        Some(SandboxState::Dead { .. }) | None => Stands::Gone,
    }
}

fn by_node(cluster: &Cluster, sandbox: &SandboxId) -> Stands {
    match (cluster.node.ends_at(sandbox), cluster.node.kept(sandbox)) {
        (None, _) => Stands::Gone,
        (Some(_), Some(_)) => Stands::Paused,
        (Some(ends_at), None) => Stands::Running {
            ends_at: ends_at.as_microsecond(),
        },
    }
}

/// Whether it has a route that is asleep.
async fn by_route(cluster: &Cluster, sandbox: &SandboxId) -> Option<bool> {
    let route = cluster.catalog.route_by_id(sandbox).await.unwrap();
    route.map(|route| route.asleep)
}

async fn disagreement(cluster: &Cluster, known: &BTreeSet<SandboxId>) -> Option<String> {
    let strangers = cluster.node.running().into_iter();
    if let Some(stranger) = strangers.into_iter().find(|id| !known.contains(id)) {
        return Some(format!("{stranger} runs, and nobody was told of it"));
    }
    for sandbox in known {
        let (row, node) = (by_row(cluster, sandbox).await, by_node(cluster, sandbox));
        let route = by_route(cluster, sandbox).await;
        let expected = match &row {
            Stands::Running { .. } => Some(false),
            Stands::Paused => Some(true),
            Stands::Gone => None,
        };
        if row != node || route != expected {
            return Some(format!(
                "{sandbox}: row {row:?}, node {node:?}, asleep {route:?}"
            ));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_of_both_row_node_and_route_agree_in_the_end() {
    check(Cluster::with(|config| config.limits.sandboxes_max = LIMIT).await).await;
}

/// As while Redis is away: neither knows what the other one is at.
#[tokio::test(flavor = "multi_thread")]
async fn and_so_they_do_when_neither_is_told_what_the_other_does() {
    let cluster = Cluster::with(|config| {
        config.limits.sandboxes_max = LIMIT;
        if let Sharing::Several(shared) = &mut config.servers {
            (shared.leases, shared.events) = (None, None);
        }
    });
    check(cluster.await).await;
}

async fn check(cluster: Cluster) {
    let given = std::env::var("CASEMATE_TEST_SEED").ok();
    let seed = given.map_or_else(
        || {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(0) | 1
        },
        |seed| seed.parse().unwrap(),
    );
    // Shown when it fails.
    println!("CASEMATE_TEST_SEED={seed}");
    let mut lots = Lots(seed);
    // Pauses that keep files alone ask them.
    cluster.node.serve_agents();
    let (mut known, mut killed) = (BTreeSet::new(), BTreeSet::new());
    let mut changed: Vec<SandboxId> = Vec::new();
    let mut told: BTreeMap<(String, u16), usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut asked_for = Vec::new();
        for _ in 0..CHANGES {
            let mut change = ALL[lots.below(ALL.len())];
            if changed.is_empty() {
                change = Change::Create;
            }
            let nobody = SandboxId::random();
            let sandbox = match changed.len() {
                0 => nobody,
                count => changed[lots.below(count)].clone(),
            };
            let call = asked(&cluster, lots.below(2), change, &sandbox, &mut lots);
            asked_for.push((change, sandbox, tokio::spawn(call)));
        }
        let mut trace = Vec::new();
        for (change, sandbox, call) in asked_for {
            let answer = call.await.unwrap();
            let status = answer.status.as_u16();
            trace.push(format!("{change:?} {sandbox} {status}"));
            assert!(
                change.may_answer(status),
                "round {round}: {change:?} of {sandbox}: {status} {}",
                answer.text
            );
            *told.entry((format!("{change:?}"), status)).or_default() += 1;
            match change {
                Change::Create if status == 201 => {
                    let made = id_of(&answer);
                    known.insert(made.clone());
                    changed.push(made);
                }
                Change::Kill if status == 204 => {
                    killed.insert(sandbox.clone());
                }
                _ => {}
            }
        }
        let running = SandboxFilter::running(cluster.team.clone());
        let running = cluster.store.sandbox_count(&running).await.unwrap();
        assert!(running <= LIMIT.into(), "round {round}: {running} run");
        for sandbox in &killed {
            let stands = by_row(&cluster, sandbox).await;
            assert_eq!(stands, Stands::Gone, "round {round}: {sandbox}");
        }
        let last = std::sync::Mutex::new(String::new());
        let what = format!("round {round} agrees: {trace:#?}");
        let agreed = tokio::time::timeout(
            std::time::Duration::from_secs(9),
            until(&what, || async {
                let found = disagreement(&cluster, &known).await;
                let agrees = found.is_none();
                *last.lock().unwrap() = found.unwrap_or_default();
                agrees
            }),
        );
        assert!(agreed.await.is_ok(), "{what}: {}", last.lock().unwrap());
        // The dead need no more changes, but for one that shows that they stay so.
        changed.retain(|sandbox| !killed.contains(sandbox));
        while changed.len() > SANDBOXES {
            let old = changed.remove(0);
            let kill = cluster.api(round % 2, "DELETE", &format!("/sandboxes/{old}"));
            let kill = kill.send().await;
            assert!([204, 404].contains(&kill.status.as_u16()), "{}", kill.text);
            killed.insert(old);
        }
    }
    println!("{told:#?}");
    // It was no test if nothing was done.
    for change in ALL {
        let done = told
            .iter()
            .filter(|((of, status), _)| *of == format!("{change:?}") && *status < 300)
            .map(|(_, count)| count)
            .sum::<usize>();
        assert!(
            done >= ROUNDS / 20,
            "{change:?} was done {done} times: {told:#?}"
        );
    }
}
