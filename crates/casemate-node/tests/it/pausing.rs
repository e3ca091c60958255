//! Pauses: what is kept, what goes on, and what is left after a crash or a restart.

use casemate_rpc::{NodeError, NodeEvent, NodePort, PausedSandbox, ResumeRequest};
use casemate_runtime::Snapshots;
use casemate_types::{Kept, OnTimeout, PauseReason, SnapshotId, steady};

use super::*;

const LONG: u64 = 600_000;

async fn paused(events: &mut Receiver<NodeEvent>, id: &SandboxId) -> PausedSandbox {
    loop {
        if let NodeEvent::Paused(paused) = next(events).await
            && paused.sandbox == *id
        {
            return paused;
        }
    }
}

async fn made(host: &Host, node: &Node, request: &CreateRequest) -> SandboxId {
    node.create(request.clone()).await.unwrap();
    host.runtime.write(&request.sandbox, "written");
    request.sandbox.clone()
}

fn resume(request: &CreateRequest, from: Kept) -> ResumeRequest {
    ResumeRequest {
        sandbox: request.clone(),
        from,
        with_memory_only: false,
    }
}

async fn snapshots(host: &Host) -> usize {
    host.runtime.list().await.unwrap().len()
}

#[tokio::test]
async fn a_paused_one_stands_still_without_a_deadline_and_goes_on_with_a_new_one() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(500);
    let id = made(&host, &node, &request).await;
    let mut events = node.watch().await.unwrap();
    let reply = node.pause(&id, Kept::Memory).await.unwrap();
    assert_eq!(reply.kept, Kept::Memory);
    assert!(host.runtime.is_frozen(&id));
    assert_eq!(node.pause(&id, Kept::Memory).await, Ok(reply), "idempotent");
    let seen = paused(&mut events, &id).await;
    assert_eq!((seen.at, seen.reason), (reply.at, PauseReason::Asked));

    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(host.runtime.is_frozen(&id), "its deadline does not count");
    let refused = Err(NodeError::Paused(id.clone()));
    assert_eq!(node.dial(&id, 80).await.map(drop), refused);
    assert_eq!(node.set_deadline(&id, steady::now()).await, refused);
    let open = CompiledPolicy::open();
    assert_eq!(node.set_network(&id, open).await, refused);
    let kept = SnapshotId::random();
    assert_eq!(node.snapshot(&id, &kept).await.map(drop), refused);
    assert!(node.running().is_empty());

    let before = steady::now();
    let resumed = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(resumed.from, Kept::Memory);
    assert!(resumed.started_at >= before);
    let life = resumed.ends_at.duration_since(resumed.started_at);
    assert_eq!(life.as_millis(), 500);
    assert!(!host.runtime.is_frozen(&id));
    let again = node.resume(resume(&request, Kept::Memory)).await;
    assert_eq!(again, Err(NodeError::Exists(id.clone())));
    assert_eq!(ended(&mut events, &id).await, EndReason::Expired);
    assert_eq!(host.journalled(), 0);
}

#[tokio::test]
async fn a_deadline_pauses_where_that_was_asked_for() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    for kept in [Kept::Memory, Kept::Files] {
        let mut request = request(100);
        request.on_timeout = OnTimeout::Pause(kept);
        let id = made(&host, &node, &request).await;
        // It stands still with all it has before anything is given up.
        let steps: &[Kept] = match kept {
            Kept::Memory => &[Kept::Memory],
            Kept::Files => &[Kept::Memory, Kept::Files],
        };
        for step in steps {
            let seen = paused(&mut events, &id).await;
            assert_eq!((seen.kept, seen.reason), (*step, PauseReason::Expired));
        }
        assert_eq!(host.runtime.is_frozen(&id), kept == Kept::Memory);
        // What comes at the next deadline is said anew.
        request.on_timeout = OnTimeout::Kill;
        node.resume(resume(&request, Kept::Memory)).await.unwrap();
        assert_eq!(host.runtime.files(&id), "written");
        assert_eq!(ended(&mut events, &id).await, EndReason::Expired);
    }
    assert_eq!(snapshots(&host).await, 0);
}

#[tokio::test]
async fn with_files_alone_it_starts_anew_and_nothing_is_left_behind() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    let reply = node.pause(&id, Kept::Files).await.unwrap();
    assert_eq!(reply.kept, Kept::Files);
    assert_eq!(snapshots(&host).await, 1);
    let named = node.snapshots(None).await.unwrap();
    assert_eq!(named, [], "a pause's files are nobody's snapshot");

    host.runtime.fail_next_create();
    let failed = node.resume(resume(&request, Kept::Memory)).await;
    assert!(matches!(failed, Err(NodeError::CreateFailed { .. })));
    assert_eq!(node.pause(&id, Kept::Files).await, Ok(reply), "as before");

    let resumed = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(resumed.from, Kept::Files);
    assert_eq!(host.runtime.files(&id), "written");
    assert_eq!(snapshots(&host).await, 0);
    node.kill(&id, EndReason::Killed).await.unwrap();
    assert_eq!(host.journalled(), 0);
}

#[tokio::test]
async fn memory_that_is_kept_can_be_given_up_later() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    node.pause(&id, Kept::Memory).await.unwrap();
    let resumed = node.resume(resume(&request, Kept::Files)).await.unwrap();
    assert_eq!(resumed.from, Kept::Files);
    assert_eq!(host.runtime.files(&id), "written");
    let info = node.info().await.unwrap();
    assert_eq!((info.sandboxes, info.sandboxes_paused), (1, 0));
    let closed = node.dial(&id, 80).await.map(drop);
    assert!(matches!(closed, Err(NodeError::PortClosed { .. })));
    node.pause(&id, Kept::Memory).await.unwrap();
    let less = node.pause(&id, Kept::Files).await.unwrap();
    assert_eq!(less.kept, Kept::Files);
    node.kill(&id, EndReason::Killed).await.unwrap();
    assert_eq!(snapshots(&host).await, 0);
    assert_eq!(host.journalled(), 0);
    let info = node.info().await.unwrap();
    assert_eq!(info.memory_promised_bytes, 0);
}

#[tokio::test]
async fn without_room_for_its_files_it_is_paused_with_its_memory() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    host.runtime.has_no_room(true);
    let reply = node.pause(&id, Kept::Files).await.unwrap();
    assert_eq!(reply.kept, Kept::Memory);
    let failed = node.resume(resume(&request, Kept::Files)).await;
    assert!(
        matches!(failed, Err(NodeError::DiskFull { .. })),
        "{failed:?}"
    );
    assert!(host.runtime.is_frozen(&id), "nothing was given up for it");

    drop(node);
    let node = host.start().await;
    let resumed = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(resumed.from, Kept::Memory);
    assert!(!host.runtime.is_frozen(&id));
    node.pause(&id, Kept::Memory).await.unwrap();
    host.runtime.has_no_room(false);
    let resumed = node.resume(resume(&request, Kept::Files)).await.unwrap();
    assert_eq!(resumed.from, Kept::Files);
    node.kill(&id, EndReason::Killed).await.unwrap();
    assert_eq!(snapshots(&host).await, 0);
    assert_eq!(host.journalled(), 0);
}

#[tokio::test]
async fn what_lost_its_processes_waits_for_room() {
    let host = Host::new();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let id = made(&host, &node, &request(LONG)).await;
    node.pause(&id, Kept::Memory).await.unwrap();
    let seen = paused(&mut events, &id).await;
    assert_eq!(seen.kept, Kept::Memory);
    host.runtime.has_no_room(true);
    host.runtime.exit(&id);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(snapshots(&host).await, 0);
    host.runtime.has_no_room(false);
    let seen = paused(&mut events, &id).await;
    assert_eq!(
        (seen.kept, seen.reason),
        (Kept::Files, PauseReason::ProcessesLost)
    );
}

#[tokio::test]
async fn one_that_does_not_stand_still_runs_on() {
    let host = Host::new();
    let node = host.start().await;
    let id = made(&host, &node, &request(LONG)).await;
    host.runtime.fail_next_freeze();
    let failed = node.pause(&id, Kept::Memory).await;
    assert!(matches!(failed, Err(NodeError::PauseFailed { .. })));
    assert!(!host.runtime.is_frozen(&id));
    assert_eq!(node.running().len(), 1);
}

#[tokio::test]
async fn what_is_paused_is_found_again() {
    let host = Host::new();
    let (held, at_rest) = (request(100), request(100));
    {
        let node = host.start().await;
        made(&host, &node, &held).await;
        made(&host, &node, &at_rest).await;
        node.pause(&held.sandbox, Kept::Memory).await.unwrap();
        node.pause(&at_rest.sandbox, Kept::Files).await.unwrap();
    }
    let orphan = SnapshotId::random_of_pause();
    host.runtime.create_snapshot(&orphan);
    let users = SnapshotId::random();
    host.runtime.create_snapshot(&users);

    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let first = paused(&mut events, &held.sandbox).await;
    assert_eq!(first.kept, Kept::Memory);
    assert!(host.runtime.is_frozen(&held.sandbox));
    let kept = host.runtime.list().await.unwrap();
    assert!(!kept.contains_key(&orphan), "nobody names it");
    assert!(kept.contains_key(&users));
    assert_eq!(node.snapshots(None).await.unwrap().len(), 1);
    for request in [&held, &at_rest] {
        node.resume(resume(request, Kept::Memory)).await.unwrap();
        assert_eq!(host.runtime.files(&request.sandbox), "written");
    }
}

#[tokio::test]
async fn a_restart_of_the_machine_leaves_files() {
    let host = Host::new();
    let request = request(LONG);
    let id = {
        let node = host.start().await;
        let id = made(&host, &node, &request).await;
        node.pause(&id, Kept::Memory).await.unwrap();
        id
    };
    host.runtime.restart_machine();
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let seen = paused(&mut events, &id).await;
    assert_eq!(
        (seen.kept, seen.reason),
        (Kept::Files, PauseReason::ProcessesLost)
    );
    let resumed = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(resumed.from, Kept::Files);
    assert_eq!(host.runtime.files(&id), "written");
}

#[tokio::test]
async fn one_that_rests_and_loses_its_processes_keeps_its_files() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    let mut events = node.watch().await.unwrap();
    node.pause(&id, Kept::Memory).await.unwrap();
    paused(&mut events, &id).await;
    host.runtime.exit(&id);
    let seen = paused(&mut events, &id).await;
    assert_eq!(
        (seen.kept, seen.reason),
        (Kept::Files, PauseReason::ProcessesLost)
    );
    node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(host.runtime.files(&id), "written");
}

#[tokio::test]
async fn beyond_the_bound_who_rested_for_longest_loses_its_processes() {
    let mut host = Host::new();
    host.paused_memory_bytes = 250;
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = made(&host, &node, &request(LONG)).await;
        let consumption = Consumption {
            cpu_time: Duration::ZERO,
            memory_used_bytes: 100,
            memory_cache_bytes: 0,
            disk_used_bytes: None,
        };
        host.runtime.consume(&id, consumption);
        node.pause(&id, Kept::Memory).await.unwrap();
        ids.push(id);
    }
    let seen = paused(&mut events, &ids[0]).await;
    assert_eq!(seen.kept, Kept::Memory);
    let seen = paused(&mut events, &ids[0]).await;
    assert_eq!(
        (seen.kept, seen.reason),
        (Kept::Files, PauseReason::MemoryBound)
    );
    assert!(host.runtime.is_frozen(&ids[1]) && host.runtime.is_frozen(&ids[2]));
    let info = node.info().await.unwrap();
    assert_eq!((info.sandboxes, info.sandboxes_paused), (0, 3));
    assert_eq!(
        (info.memory_promised_bytes, info.memory_paused_bytes),
        (0, 200)
    );
}

#[tokio::test]
async fn one_that_lost_its_processes_is_not_started_for_who_wants_them() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    node.pause(&id, Kept::Files).await.unwrap();
    let wanted = ResumeRequest {
        with_memory_only: true,
        ..resume(&request, Kept::Memory)
    };
    let refused = node.resume(wanted.clone()).await;
    assert_eq!(refused, Err(NodeError::FilesOnly(id.clone())));
    let started = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(started.from, Kept::Files);
    node.pause(&id, Kept::Memory).await.unwrap();
    let woken = node.resume(wanted).await.unwrap();
    assert_eq!(woken.from, Kept::Memory);
}

#[tokio::test]
async fn no_more_are_held_than_there_are_places() {
    let mut host = Host::new();
    host.paused_max = 1;
    let node = host.start().await;
    let mut events = node.watch().await.unwrap();
    let ids = [
        made(&host, &node, &request(LONG)).await,
        made(&host, &node, &request(LONG)).await,
    ];
    for id in &ids {
        node.pause(id, Kept::Memory).await.unwrap();
    }
    paused(&mut events, &ids[0]).await;
    let seen = paused(&mut events, &ids[0]).await;
    assert_eq!(
        (seen.kept, seen.reason),
        (Kept::Files, PauseReason::MemoryBound)
    );
    assert!(host.runtime.is_frozen(&ids[1]));
}

#[tokio::test]
async fn a_paused_one_takes_no_place_and_needs_one_to_go_on() {
    let host = Host::new();
    let node = host.start_with(1, 16).await;
    let (first, second) = (request(LONG), request(LONG));
    made(&host, &node, &first).await;
    node.pause(&first.sandbox, Kept::Memory).await.unwrap();
    made(&host, &node, &second).await;
    let refused = node.resume(resume(&first, Kept::Memory)).await;
    assert!(matches!(refused, Err(NodeError::Full { .. })));
    assert!(host.runtime.is_frozen(&first.sandbox));
    node.pause(&second.sandbox, Kept::Memory).await.unwrap();
    node.resume(resume(&first, Kept::Memory)).await.unwrap();
    node.kill(&second.sandbox, EndReason::Killed).await.unwrap();
    node.kill(&first.sandbox, EndReason::Killed).await.unwrap();
    let promised = node.info().await.unwrap().memory_promised_bytes;
    assert_eq!(promised, 0);
}

#[tokio::test]
async fn a_platform_that_ends_keeps_the_files_of_paused_ones() {
    let host = Host::new();
    let [held, at_rest, running] = [request(LONG), request(LONG), request(LONG)];
    {
        let node = host.start().await;
        for request in [&held, &at_rest, &running] {
            made(&host, &node, request).await;
        }
        node.pause(&held.sandbox, Kept::Memory).await.unwrap();
        node.pause(&at_rest.sandbox, Kept::Files).await.unwrap();
    }
    let journal = host.journal();
    let kept = casemate_node::keep_paused(&journal, &*host.runtime).await;
    assert_eq!(kept.unwrap(), 2);
    host.runtime.teardown(false).await.unwrap();
    casemate_node::forget_others(&journal).unwrap();
    assert_eq!(host.journalled(), 2);
    let node = host.start().await;
    assert!(node.running().is_empty());
    for request in [&held, &at_rest] {
        let resumed = node.resume(resume(request, Kept::Memory)).await.unwrap();
        assert_eq!(resumed.from, Kept::Files);
        assert_eq!(host.runtime.files(&request.sandbox), "written");
    }
}

#[tokio::test]
async fn the_files_of_a_paused_one_can_be_had_while_it_stands_still() {
    let host = Host::new();
    let node = host.start().await;
    let request = request(LONG);
    let id = made(&host, &node, &request).await;
    let name = SnapshotId::random();
    let refused = node.keep_paused(&id, &name).await;
    assert_eq!(refused, Err(NodeError::Exists(id.clone())), "it runs");
    assert_eq!(snapshots(&host).await, 0);

    // With its memory they are copied, and nothing of it changes.
    node.pause(&id, Kept::Memory).await.unwrap();
    assert_eq!(node.keep_paused(&id, &name).await, Ok(name.clone()));
    assert!(host.runtime.is_frozen(&id));
    assert!(host.runtime.has(&name).await.unwrap());
    node.remove_snapshot(&name).await.unwrap();
    let resumed = node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert_eq!(resumed.from, Kept::Memory);

    // Without it they are there already, under the name of their pause alone.
    node.pause(&id, Kept::Files).await.unwrap();
    let kept = node.keep_paused(&id, &name).await.unwrap();
    assert!(kept.is_of_pause());
    assert_eq!(node.keep_paused(&id, &name).await, Ok(kept.clone()));
    assert!(!host.runtime.has(&name).await.unwrap());
    assert!(host.runtime.has(&kept).await.unwrap());
    node.resume(resume(&request, Kept::Memory)).await.unwrap();
    assert!(!host.runtime.has(&kept).await.unwrap(), "it is over");
    node.pause(&id, Kept::Files).await.unwrap();
    let again = node.keep_paused(&id, &name).await.unwrap();
    assert_ne!(again, kept, "another pause has another name");

    node.kill(&id, EndReason::Killed).await.unwrap();
    let gone = node.keep_paused(&id, &name).await;
    assert_eq!(gone, Err(NodeError::NotFound(id)));
    assert_eq!(snapshots(&host).await, 0);
}
