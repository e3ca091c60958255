//! The node over the fake runtime: admission, journal, deadlines, adoption.

mod evicting;
mod layers;
mod locating;
mod pausing;
mod warm;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use casemate_node::{AdmissionLimits, Node, NodeConfig, Offer, Site};
use casemate_rpc::{CreateRequest, NodeError, NodeEvent, NodePort, NodeTemplate};
use casemate_runtime::fake::FakeRuntime;
use casemate_runtime::{Consumption, Runtime};
use casemate_types::{
    CompiledPolicy, Distribution, EndReason, Entrance, Kept, OnTimeout, Resources, Sample,
    SandboxId, Timestamp,
};
use tokio::sync::mpsc::Receiver;

struct Host {
    dir: tempfile::TempDir,
    runtime: Arc<FakeRuntime>,
    paused_memory_bytes: u64,
    paused_max: usize,
    cache_bytes_max: u64,
    disk_reserve_bytes: u64,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("layers/base")).unwrap();
        Self {
            dir,
            runtime: Arc::default(),
            paused_memory_bytes: u64::MAX,
            paused_max: 1000,
            cache_bytes_max: u64::MAX,
            disk_reserve_bytes: 1,
        }
    }

    async fn start(&self) -> Node {
        self.start_with(1000, 16).await
    }

    async fn start_with(&self, sandboxes_max: u32, queue_max: usize) -> Node {
        let config = NodeConfig {
            name: "test".into(),
            version: "0".into(),
            journal_dir: self.journal(),
            admission: AdmissionLimits {
                sandboxes_max,
                memory_overcommit: 32.0,
                memory_reserve_bytes: 1,
                disk_reserve_bytes: self.disk_reserve_bytes,
            },
            boots_max: 4,
            queue_max,
            paused_memory_bytes: self.paused_memory_bytes,
            paused_max: self.paused_max,
            cache_bytes_max: self.cache_bytes_max,
        };
        let (runtime, snapshots) = (Arc::clone(&self.runtime), Arc::clone(&self.runtime));
        let node = Node::start(config, runtime, snapshots).await.unwrap();
        node.offer(self.offer());
        node
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.dir.path().join("layers").join(name)
    }

    fn offer(&self) -> Offer {
        let site = |name: &str| Site {
            dir: self.layer(name),
            envs: [("SITE".to_owned(), name.to_owned())].into(),
        };
        Offer {
            templates: vec![template()],
            layers_dir: self.dir.path().join("layers"),
            scratch: self.layer("e-1"),
            sites: [
                (bookworm(), site("s-bookworm")),
                (Distribution::Other, site("s-other")),
            ]
            .into(),
        }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// Entries that count, and halves of some.
    fn journalled(&self) -> usize {
        std::fs::read_dir(self.journal()).unwrap().count()
    }

    fn is_recorded(&self, sandbox: &SandboxId) -> bool {
        let text = std::fs::read(self.journal().join(format!("{sandbox}.json"))).unwrap();
        let entry: serde_json::Value = serde_json::from_slice(&text).unwrap();
        entry["recorded"] == true
    }
}

fn bookworm() -> Distribution {
    Distribution::Debian("bookworm".into())
}

fn template() -> NodeTemplate {
    NodeTemplate {
        template: "basebasebasebasebase".parse().unwrap(),
        build: "6a0e3e2c-5a48-4f7c-8a9b-0123456789ab".into(),
        alias: "base".into(),
        layers: vec!["base".into()],
        distribution: bookworm(),
        resources: Resources::BASE,
        default_user: "user".into(),
        default_workdir: None,
        agent_version: "0.6.13".into(),
        created_at: Timestamp::now(),
    }
}

fn request(life_ms: u64) -> CreateRequest {
    CreateRequest {
        sandbox: SandboxId::random(),
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        template: template().template,
        layers: vec!["base".into()],
        distribution: Some(bookworm()),
        resources: Resources::BASE,
        network: CompiledPolicy::open(),
        envs: Default::default(),
        access_token: None,
        default_user: "user".into(),
        default_workdir: None,
        life_ms,
        on_timeout: OnTimeout::Kill,
        files: None,
        startup: None,
        warm: false,
        creator: String::new(),
        entrance: None,
    }
}

/// The next event that says neither how the node is nor what sandboxes use.
async fn next(events: &mut Receiver<NodeEvent>) -> NodeEvent {
    let look = async {
        loop {
            match events.recv().await.unwrap() {
                NodeEvent::Heartbeat(_) | NodeEvent::Samples(_) => {}
                event => return event,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), look)
        .await
        .expect("an event in time")
}

async fn ended(events: &mut Receiver<NodeEvent>, id: &SandboxId) -> EndReason {
    loop {
        if let NodeEvent::Ended {
            sandbox, reason, ..
        } = next(events).await
            && sandbox == *id
        {
            return reason;
        }
    }
}

/// The next samples.
async fn samples(events: &mut Receiver<NodeEvent>) -> Vec<Sample> {
    let look = async {
        loop {
            if let NodeEvent::Samples(samples) = events.recv().await.unwrap() {
                return samples;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .expect("samples in time")
}

const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn a_deadline_ends_a_sandbox_and_can_be_moved() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let short = request(50);
    let reply = node.create(short.clone()).await.unwrap();
    assert_eq!(
        reply.ends_at.duration_since(reply.started_at).as_millis(),
        50
    );
    assert_eq!(ended(&mut events, &short.sandbox).await, EndReason::Expired);
    let long = request(HOUR);
    node.create(long.clone()).await.unwrap();
    node.set_deadline(&long.sandbox, Timestamp::now())
        .await
        .unwrap();
    assert_eq!(ended(&mut events, &long.sandbox).await, EndReason::Expired);
    assert_eq!(host.journalled(), 0);
    let gone = Err(NodeError::NotFound(long.sandbox.clone()));
    assert_eq!(
        node.set_deadline(&long.sandbox, Timestamp::now()).await,
        gone
    );
}

#[tokio::test]
async fn kills_of_one_sandbox_at_once_all_succeed_and_later_ones_find_nothing() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let sandbox = request(HOUR);
    node.create(sandbox.clone()).await.unwrap();
    let id = &sandbox.sandbox;
    let kill = || node.kill(id, EndReason::Killed);
    let (a, b, c) = tokio::join!(kill(), kill(), kill());
    assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
    assert_eq!(ended(&mut events, id).await, EndReason::Killed);
    assert_eq!(kill().await, Err(NodeError::NotFound(id.clone())));
}

#[tokio::test]
async fn of_one_that_ends_under_a_dial_no_port_is_closed() {
    let host = Host::new();
    let node = host.start().await;
    let sandbox = request(HOUR);
    node.create(sandbox.clone()).await.unwrap();
    let id = &sandbox.sandbox;
    let held = host.runtime.hold_dials().await;
    let mut dial = std::pin::pin!(node.dial(id, 80));
    let soon = tokio::time::timeout(Duration::from_millis(20), &mut dial);
    assert!(soon.await.is_err());
    node.kill(id, EndReason::Killed).await.unwrap();
    drop(held);
    let gone = NodeError::NotFound(id.clone());
    assert_eq!(dial.await.map(drop), Err(gone));
}

#[tokio::test]
async fn an_exit_from_inside_ends_it() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let sandbox = request(HOUR);
    node.create(sandbox.clone()).await.unwrap();
    host.runtime.exit(&sandbox.sandbox);
    assert_eq!(
        ended(&mut events, &sandbox.sandbox).await,
        EndReason::Exited
    );
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let host = Host::new();
    let node = host.start_with(1, 16).await;
    host.runtime.fail_next_create();
    let failed = node.create(request(HOUR)).await;
    assert!(
        matches!(failed, Err(NodeError::CreateFailed { .. })),
        "{failed:?}"
    );
    assert_eq!(host.journalled(), 0);
    assert_eq!(node.info().await.unwrap().memory_promised_bytes, 0);
    node.create(request(HOUR)).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_entry_cannot_count_is_ended_again() {
    let host = Host::new();
    let node = host.start().await;
    let order = request(HOUR);
    // A folder in the entry's place: it can be noted and not renamed.
    let place = host.journal().join(format!("{}.json", order.sandbox));
    std::fs::create_dir(&place).unwrap();
    let failed = node.create(order.clone()).await.unwrap_err();
    assert!(matches!(failed, NodeError::Internal { .. }), "{failed}");
    assert!(host.runtime.policy(&order.sandbox).is_none());
    std::fs::remove_dir(&place).unwrap();
    assert_eq!(std::fs::read_dir(host.journal()).unwrap().count(), 0);
    // Nothing of it is in the way.
    node.create(order).await.unwrap();
}

#[tokio::test]
async fn admission_and_identity_are_checked_before_anything_is_made() {
    let host = Host::new();
    let node = host.start_with(2, 16).await;
    let first = request(HOUR);
    node.create(first.clone()).await.unwrap();
    assert_eq!(
        node.create(first.clone()).await,
        Err(NodeError::Exists(first.sandbox))
    );
    let mut unknown = request(HOUR);
    unknown.layers = vec!["../base".into()];
    assert!(matches!(
        node.create(unknown).await,
        Err(NodeError::Unsupported { .. })
    ));
    node.create(request(HOUR)).await.unwrap();
    assert!(matches!(
        node.create(request(HOUR)).await,
        Err(NodeError::Full { .. })
    ));
    assert_eq!(node.info().await.unwrap().sandboxes, 2);
}

#[tokio::test]
async fn a_new_node_takes_over_what_runs_and_tells_of_what_does_not() {
    let host = Host::new();
    let node = host.start().await;
    let (stays, dies, overdue) = (request(HOUR), request(HOUR), request(300));
    for sandbox in [&stays, &dies, &overdue] {
        node.create(sandbox.clone()).await.unwrap();
    }
    // The process dies: its tasks stop with the runtime that the test gives them no more time in.
    let mut events = node.watch().await.unwrap();
    assert_eq!(
        ended(&mut events, &overdue.sandbox).await,
        EndReason::Expired
    );
    host.runtime.exit(&dies.sandbox);
    assert_eq!(ended(&mut events, &dies.sandbox).await, EndReason::Exited);
    drop((node, events));

    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let running = match next(&mut events).await {
        NodeEvent::Running(running) => running,
        other => panic!("expected what runs first, got {other:?}"),
    };
    assert_eq!(running.sandbox, stays.sandbox);
    assert_eq!(next(&mut events).await, NodeEvent::Synced);
    node.kill(&stays.sandbox, EndReason::Killed).await.unwrap();
}

#[tokio::test]
async fn what_control_has_a_row_of_is_marked_and_stays_so() {
    let host = Host::new();
    let node = host.start().await;
    let (first, second) = (request(HOUR), request(HOUR));
    node.create(first.clone()).await.unwrap();
    node.create(second.clone()).await.unwrap();
    let unknown = SandboxId::random();
    let rows = [first.sandbox.clone(), unknown];
    node.recorded(&rows).await.unwrap();
    // Behind the mark, as all orders for one sandbox.
    let later = Timestamp::now() + Duration::from_secs(7200);
    node.set_deadline(&first.sandbox, later).await.unwrap();
    node.set_deadline(&second.sandbox, later).await.unwrap();
    assert!(host.is_recorded(&first.sandbox) && !host.is_recorded(&second.sandbox));
    assert_eq!(host.journalled(), 2);
    drop(node);
    let node = host.start().await;
    for shown in node.running() {
        assert_eq!(shown.recorded, shown.sandbox == first.sandbox);
        assert_eq!(shown.ends_at, later);
        node.kill(&shown.sandbox, EndReason::Killed).await.unwrap();
    }
    assert_eq!(host.journalled(), 0);
}

#[tokio::test]
async fn one_whose_rules_cannot_be_set_again_is_ended() {
    let host = Host::new();
    let node = host.start().await;
    let order = request(HOUR);
    node.create(order.clone()).await.unwrap();
    drop(node);
    host.runtime.fail_next_set_network();
    let node = host.start().await;
    let gone = async {
        while host.journalled() > 0 || !node.running().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), gone).await;
    in_time.expect("it is ended");
    assert!(host.runtime.policy(&order.sandbox).is_none());
}

#[tokio::test]
async fn an_entry_of_a_half_made_sandbox_is_swept_and_told_as_lost() {
    let host = Host::new();
    let sandbox = request(HOUR);
    {
        let node = host.start().await;
        node.create(sandbox.clone()).await.unwrap();
    }
    let path = host.journal().join(format!("{}.json", sandbox.sandbox));
    let mut entry: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    entry["record"] = serde_json::Value::Null;
    std::fs::write(&path, entry.to_string()).unwrap();
    std::fs::write(host.journal().join("ihalf.tmp"), "{").unwrap();
    std::fs::write(host.journal().join("ibroken.json"), "{").unwrap();

    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    assert_eq!(ended(&mut events, &sandbox.sandbox).await, EndReason::Lost);
    assert!(
        host.runtime.policy(&sandbox.sandbox).is_none(),
        "the sweep ended it"
    );
    // What could not be read is set aside.
    assert_eq!(host.journalled(), 1);
    assert!(host.journal().join("ibroken.bad").exists());
    assert!(host.journal().join("ibroken.bad").exists());
    assert!(node.running().is_empty());
}

#[tokio::test]
async fn a_drained_node_makes_nothing_and_keeps_what_runs() {
    let host = Host::new();
    let node = host.start().await;
    node.create(request(HOUR)).await.unwrap();
    node.drain().await;
    assert!(matches!(
        node.create(request(HOUR)).await,
        Err(NodeError::Full { .. })
    ));
    assert_eq!(node.running().len(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let host = Host::new();
    let node = host.start_with(1000, 0).await;
    assert_eq!(
        node.create(request(HOUR)).await,
        Err(NodeError::QueueFull { max: 0 })
    );
}

#[tokio::test]
async fn egress_rules_outlive_the_process_that_set_them() {
    let host = Host::new();
    let sandbox = request(HOUR);
    let mut closed = CompiledPolicy::open();
    closed.dns = false;
    closed.deny = vec!["0.0.0.0/0".parse().unwrap()];
    {
        let node = host.start().await;
        node.create(sandbox.clone()).await.unwrap();
        node.set_network(&sandbox.sandbox, closed.clone())
            .await
            .unwrap();
    }
    // As after a restart of the processes that hold part of the rules.
    let open = CompiledPolicy::open();
    casemate_runtime::Runtime::set_network(&*host.runtime, &sandbox.sandbox, &open)
        .await
        .unwrap();
    let _node = host.start().await;
    assert_eq!(host.runtime.policy(&sandbox.sandbox), Some(closed));
}

/// Decision 9: what any released version wrote is read for ever.
#[tokio::test]
async fn journals_of_every_released_version_are_read() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut versions = 0;
    for folder in std::fs::read_dir(fixtures).unwrap() {
        let folder = folder.unwrap();
        let folder_name = folder.file_name().into_string().unwrap();
        let written = folder.path().join("journal");
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&written).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let journal = casemate_node::journal::Journal::open(dir.path()).unwrap();
        let entries = journal.load().unwrap();
        assert_eq!(entries.len(), 1, "{}", written.display());
        let entry = &entries[0];
        assert_eq!(entry.sandbox.as_str(), "i0q1nk12npc1nfdt8olss");
        let resources = Resources {
            processes_max: 4096,
            ..Resources::BASE
        };
        assert_eq!(entry.resources, resources);
        assert!(!entry.network.dns && entry.network.deny.len() == 1);
        let record = entry.record.as_ref().expect("it ran when it was written");
        assert_eq!(record.facts["slot"], serde_json::json!(74), "{record:?}");
        let pause = entry.pause.as_ref().map(|pause| pause.files.as_str());
        match folder_name.as_str() {
            "data-v1" => assert_eq!((entry.on_timeout, pause), (OnTimeout::Kill, None)),
            _ => {
                assert_eq!(entry.on_timeout, OnTimeout::Pause(Kept::Files));
                assert_eq!(pause, Some("pfixture0000000000000"));
            }
        }
        versions += 1;
    }
    assert!(versions >= 2);
}

#[tokio::test]
async fn samples_say_what_was_used_since_the_one_before() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let (busy, calm) = (request(HOUR), request(HOUR));
    for one in [&busy, &calm] {
        node.create(one.clone()).await.unwrap();
    }
    let consumed = Consumption {
        // More than it can have had: the clocks differ, the answer stays a percentage.
        cpu_time: Duration::from_secs(3600),
        memory_used_bytes: 5 << 20,
        memory_cache_bytes: 7,
        disk_used_bytes: Some(4096),
    };
    host.runtime.consume(&busy.sandbox, consumed);
    let mut of_busy = Vec::new();
    let mut of_calm = Vec::new();
    while of_busy.len() < 2 || of_calm.is_empty() {
        for sample in samples(&mut events).await {
            assert_eq!(sample.team, busy.team);
            if sample.sandbox == busy.sandbox {
                of_busy.push(sample.usage);
            } else {
                of_calm.push(sample.usage);
            }
        }
    }
    let [first, second, ..] = of_busy[..] else {
        panic!("{of_busy:?}");
    };
    assert_eq!(
        (first.cpu_used_percent, second.cpu_used_percent),
        (100.0, 0.0)
    );
    assert_eq!((first.vcpus, first.memory_used_bytes), (2, 5 << 20));
    assert_eq!((first.memory_cache_bytes, first.disk_used_bytes), (7, 4096));
    assert_eq!(first.memory_total_bytes, 512 << 20);
    assert_eq!(first.disk_total_bytes, 10 << 30);
    assert_eq!(
        (of_calm[0].cpu_used_percent, of_calm[0].disk_used_bytes),
        (0.0, 0)
    );
    node.kill(&busy.sandbox, EndReason::Killed).await.unwrap();
    node.kill(&calm.sandbox, EndReason::Killed).await.unwrap();
}

#[tokio::test]
async fn what_a_sandbox_writes_to_its_log_waits_for_a_watcher_and_comes_before_its_end() {
    let host = Host::new();
    let node = host.start().await;
    let (one, other) = (request(HOUR), request(HOUR));
    for request in [&one, &other] {
        node.create(request.clone()).await.unwrap();
    }
    host.runtime.write_log(&one.sandbox, "first\n");
    host.runtime.fill_memory(&other.sandbox, 2);
    // Nobody hears of it yet.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut events = node.watch().await.unwrap();
    let (mut logs, mut kills) = (Vec::new(), Vec::new());
    while logs.is_empty() || kills.is_empty() {
        match next(&mut events).await {
            NodeEvent::Log {
                sandbox,
                team,
                since,
                at,
                lines,
            } => {
                assert!(since < at && team == one.team);
                logs.push((sandbox, lines));
            }
            NodeEvent::MemoryFull {
                sandbox, processes, ..
            } => kills.push((sandbox, processes)),
            _ => {}
        }
    }
    assert_eq!(logs, [(one.sandbox.clone(), "first\n".to_owned())]);
    assert_eq!(kills, [(other.sandbox.clone(), 2)]);
    host.runtime.write_log(&one.sandbox, "last\n");
    node.kill(&one.sandbox, EndReason::Killed).await.unwrap();
    loop {
        match next(&mut events).await {
            NodeEvent::Log { lines, .. } => {
                assert_eq!(lines, "last\n");
                break;
            }
            NodeEvent::Ended { .. } => panic!("its last words are lost"),
            _ => {}
        }
    }
    node.kill(&other.sandbox, EndReason::Killed).await.unwrap();
}

/// So many processes that ended for want of memory are told of next.
async fn memory_full(events: &mut Receiver<NodeEvent>) -> u64 {
    loop {
        match next(events).await {
            NodeEvent::MemoryFull { processes, .. } => return processes,
            NodeEvent::Ended { .. } => panic!("it is not told of before the end"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_full_memory_is_told_of_before_the_end_that_follows_at_once() {
    let host = Host::new();
    let node = host.start().await;
    let (killed, exited) = (request(HOUR), request(HOUR));
    for request in [&killed, &exited] {
        node.create(request.clone()).await.unwrap();
    }
    let mut events = node.watch().await.unwrap();
    host.runtime.fill_memory(&killed.sandbox, 1);
    node.kill(&killed.sandbox, EndReason::Killed).await.unwrap();
    assert_eq!(memory_full(&mut events).await, 1);
    // Also of one that ends while nobody watches.
    drop(events);
    host.runtime.fill_memory(&exited.sandbox, 2);
    node.kill(&exited.sandbox, EndReason::Killed).await.unwrap();
    let mut events = node.watch().await.unwrap();
    assert_eq!(memory_full(&mut events).await, 2);
}

#[tokio::test]
async fn a_full_memory_is_told_of_once_across_starts() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(HOUR);
    let sandbox = &request.sandbox;
    node.create(request.clone()).await.unwrap();
    let mut events = node.watch().await.unwrap();
    host.runtime.fill_memory(sandbox, 1);
    assert_eq!(memory_full(&mut events).await, 1);
    let told = |count: u64| {
        let text = std::fs::read(host.journal().join(format!("{sandbox}.json"))).unwrap();
        let entry: serde_json::Value = serde_json::from_slice(&text).unwrap();
        entry["memory_kills"] == count
    };
    while !told(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(events);
    // The next process knows what this one told, and what came while there was none.
    host.runtime.fill_memory(sandbox, 4);
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    assert_eq!(memory_full(&mut events).await, 3);
    while !told(4) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.kill(sandbox, EndReason::Killed).await.unwrap();
    assert_eq!(ended(&mut events, sandbox).await, EndReason::Killed);
}

#[tokio::test]
async fn a_full_memory_that_ended_a_sandbox_between_two_starts_is_told_of() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(HOUR);
    node.create(request.clone()).await.unwrap();
    drop(node);
    host.runtime.fill_memory(&request.sandbox, 2);
    // The node that is gone hears of no exit.
    drop(host.runtime.exits());
    host.runtime.exit(&request.sandbox);
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    assert_eq!(memory_full(&mut events).await, 2);
    let reason = ended(&mut events, &request.sandbox).await;
    assert_eq!(reason, EndReason::Exited);
}

#[tokio::test]
async fn what_an_earlier_version_counted_was_its_own_to_tell() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(HOUR);
    let sandbox = &request.sandbox;
    node.create(request.clone()).await.unwrap();
    let path = host.journal().join(format!("{sandbox}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let older = text.replace(r#","memory_kills":0"#, "");
    assert_ne!(text, older);
    std::fs::write(&path, older).unwrap();
    host.runtime.fill_memory(sandbox, 2);
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    while !std::fs::read_to_string(&path)
        .unwrap()
        .contains(r#""memory_kills":2"#)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.runtime.fill_memory(sandbox, 3);
    assert_eq!(memory_full(&mut events).await, 1);
}
