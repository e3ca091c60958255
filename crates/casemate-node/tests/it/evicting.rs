//! What lies in the bucket too goes where its room is wanted, and never from below a sandbox.

use std::io::Write;
use std::os::unix::net::UnixStream;

use casemate_rpc::{NodeError, NodePort, ResumeRequest};
use casemate_runtime::Snapshots;
use casemate_types::{LayerId, Portable, SnapshotId};

use super::*;

/// A layer of so many bytes.
fn sealed(host: &Host, name: &str, bytes: usize) -> LayerId {
    let layer = LayerId::parse(name).unwrap();
    host.runtime.has_layer(&layer, &"x".repeat(bytes));
    host.sync_layers();
    layer
}

fn what(layer: &LayerId) -> Portable {
    Portable::Layer(layer.clone())
}

fn over(layers: &[&LayerId]) -> CreateRequest {
    let names = layers.iter().map(|layer| layer.to_string());
    CreateRequest {
        layers: names.chain(["base".into()]).collect(),
        ..request(HOUR)
    }
}

impl Host {
    /// The fake has layers, and makes no folders.
    fn sync_layers(&self) {
        for layer in self.runtime.layer_ids() {
            std::fs::create_dir_all(self.layer(layer.as_str())).unwrap();
        }
        for found in std::fs::read_dir(self.dir.path().join("layers")).unwrap() {
            let found = found.unwrap();
            let name = found.file_name();
            let layer = LayerId::parse(name.to_str().unwrap());
            if layer.is_ok_and(|layer| !self.runtime.layer_ids().contains(&layer)) {
                std::fs::remove_dir_all(found.path()).unwrap();
            }
        }
    }

    fn has(&self, layer: &LayerId) -> bool {
        self.runtime.layer_ids().contains(layer)
    }
}

async fn cache(node: &Node) -> casemate_rpc::NodeCache {
    node.info().await.unwrap().cache.unwrap()
}

/// It comes from the bucket, with so many bytes.
async fn fetch(node: &Node, what: &Portable, bytes: usize) -> Result<u64, NodeError> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let stream = format!("fake tree:{}.", "x".repeat(bytes));
    // What is there already is not read.
    let writing = tokio::task::spawn_blocking(move || drop(ours.write_all(stream.as_bytes())));
    let unpacked = node.unpack(what, bytes.try_into().unwrap(), theirs).await;
    writing.await.unwrap();
    unpacked
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn what_comes_takes_the_place_of_what_was_not_used_for_longest() {
    let mut host = Host::new();
    host.cache_bytes_max = 100;
    let node = host.start().await;
    let layers: Vec<_> = (0..5)
        .map(|n| LayerId::parse(&format!("t-{n}")).unwrap())
        .collect();
    for layer in &layers[..3] {
        assert_eq!(fetch(&node, &what(layer), 30).await, Ok(30));
    }
    host.sync_layers();
    assert_eq!(cache(&node).await.bytes, 90);
    // The first is used once more.
    let used = over(&[&layers[0]]);
    node.create(used.clone()).await.unwrap();
    node.kill(&used.sandbox, EndReason::Killed).await.unwrap();
    // One that has come already needs no room.
    assert_eq!(fetch(&node, &what(&layers[2]), 30).await, Ok(30));
    assert_eq!(cache(&node).await.evictions, 0);
    fetch(&node, &what(&layers[3]), 30).await.unwrap();
    let here = |node: &Node| {
        let node = node.clone();
        async move { node.layers(None).await.unwrap() }
    };
    assert_eq!(
        here(&node).await,
        [layers[0].clone(), layers[2].clone(), layers[3].clone()]
    );
    fetch(&node, &what(&layers[4]), 50).await.unwrap();
    assert_eq!(here(&node).await, [layers[3].clone(), layers[4].clone()]);
    let kept = cache(&node).await;
    assert_eq!((kept.bytes, kept.bytes_max, kept.evictions), (80, 100, 3));
}

#[tokio::test]
async fn what_is_needed_stays_beyond_the_bound() {
    let mut host = Host::new();
    host.cache_bytes_max = 1;
    let node = host.start().await;
    let layers: Vec<_> = ["t-runs", "t-rests", "t-held", "t-own", "t-free"]
        .map(|name| sealed(&host, name, 10))
        .into();
    let [runs, rests, held, own, free] = &layers[..] else {
        unreachable!("they are five");
    };
    let (running, resting) = (over(&[runs]), over(&[rests]));
    for request in [&running, &resting] {
        node.create(request.clone()).await.unwrap();
    }
    node.pause(&resting.sandbox, Kept::Files).await.unwrap();
    let next = over(&[held]);
    let missing = node.missing(&next.layers, None, Some(next.sandbox.as_str()));
    assert_eq!(missing.await, Ok(vec![]));
    // All but one are in the bucket.
    let told: Vec<_> = [runs, rests, held, free].map(what).into();
    node.stored(&told).await.unwrap();
    until("it goes", async || !host.has(free)).await;
    for layer in [runs, rests, held, own] {
        assert!(host.has(layer), "{layer}");
    }
    // Who held one begins with it, and with its end nobody needs it.
    node.create(next.clone()).await.unwrap();
    assert!(host.has(held));
    node.kill(&next.sandbox, EndReason::Killed).await.unwrap();
    node.stored(&told).await.unwrap();
    until("it goes", async || !host.has(held)).await;
    // The same for one that rested, and for a node that knows them from its journal alone.
    drop(node);
    let node = host.start().await;
    node.stored(&told).await.unwrap();
    until("they are measured", async || cache(&node).await.bytes == 20).await;
    let resume = ResumeRequest {
        sandbox: resting.clone(),
        from: Kept::Files,
        with_memory_only: false,
    };
    node.resume(resume).await.unwrap();
    node.kill(&resting.sandbox, EndReason::Killed)
        .await
        .unwrap();
    node.stored(&told).await.unwrap();
    until("it goes", async || !host.has(rests)).await;
    assert!(host.has(runs) && host.has(own));
    assert_eq!(
        host.runtime.policy(&running.sandbox),
        Some(CompiledPolicy::open())
    );
}

#[tokio::test]
async fn nothing_goes_that_nobody_said_the_bucket_has() {
    let mut host = Host::new();
    host.cache_bytes_max = 1;
    let node = host.start().await;
    let layer = sealed(&host, "t-one", 10);
    let files = SnapshotId::random_of_pause();
    host.runtime.create_snapshot(&files);
    node.stored(&[Portable::Snapshot(files.clone())])
        .await
        .unwrap();
    let other = what(&LayerId::parse("t-other").unwrap());
    fetch(&node, &other, 50).await.unwrap();
    // The next one that comes takes the place of the other alone.
    let third = what(&LayerId::parse("t-third").unwrap());
    fetch(&node, &third, 50).await.unwrap();
    assert!(host.has(&layer));
    assert!(host.runtime.has(&files).await.unwrap());
}

#[tokio::test]
async fn files_go_as_layers_do_and_a_create_that_begins_with_them_comes_before_or_after() {
    let mut host = Host::new();
    host.cache_bytes_max = 1;
    let node = host.start().await;
    let files = SnapshotId::random();
    let kept = Portable::Snapshot(files.clone());
    fetch(&node, &kept, 10).await.unwrap();
    until("they go", async || !host.runtime.has(&files).await.unwrap()).await;
    let request = CreateRequest {
        files: Some(files.clone()),
        ..over(&[])
    };
    let refused = node.create(request.clone()).await;
    assert!(
        matches!(refused, Err(NodeError::Unsupported { .. })),
        "{refused:?}"
    );
    let hold = request.sandbox.to_string();
    let missing = node
        .missing(&request.layers, Some(&files), Some(&hold))
        .await;
    assert_eq!(missing, Ok(vec![files.to_string()]));
    fetch(&node, &kept, 10).await.unwrap();
    node.stored(std::slice::from_ref(&kept)).await.unwrap();
    node.create(request).await.unwrap();
}

/// What leaves is fetched once it has left: not taken for here, and gone then.
#[tokio::test]
async fn what_is_being_evicted_comes_back_after_that() {
    let mut host = Host::new();
    host.cache_bytes_max = 1;
    let node = host.start().await;
    let layer = sealed(&host, "t-one", 10);
    let held = host.runtime.hold_removals().await;
    node.stored(&[what(&layer)]).await.unwrap();
    host.runtime.removal_waits().await;
    let request = over(&[&layer]);
    let refused = node.create(request.clone()).await;
    assert!(
        matches!(refused, Err(NodeError::Unsupported { .. })),
        "{refused:?}"
    );
    let hold = request.sandbox.to_string();
    let missing = node.missing(&request.layers, None, Some(&hold)).await;
    assert_eq!(missing, Ok(vec![layer.to_string()]));
    let fetching = tokio::spawn({
        let (node, what) = (node.clone(), what(&layer));
        async move { fetch(&node, &what, 10).await }
    });
    drop(held);
    assert_eq!(fetching.await.unwrap(), Ok(10));
    assert_eq!(host.runtime.unpacked(), 1);
    node.create(request).await.unwrap();
}

/// Many tasks, each as a server does: create; if it is not here, hold, fetch, create again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_create_fails_and_no_layer_goes_from_below_a_sandbox() {
    let mut host = Host::new();
    // Two of six.
    host.cache_bytes_max = 20;
    let node = host.start().await;
    let layers: Vec<_> = (0..6)
        .map(|n| LayerId::parse(&format!("t-{n}")).unwrap())
        .collect();
    for layer in &layers {
        // It is the fake that knows what is here.
        std::fs::create_dir_all(host.layer(layer.as_str())).unwrap();
    }
    let host = Arc::new(host);
    let tasks = (0..12_usize).map(|task| {
        let (host, node, layers) = (Arc::clone(&host), node.clone(), layers.clone());
        tokio::spawn(async move {
            for round in 0..30 {
                let (one, two) = (
                    &layers[(task + round) % 6],
                    &layers[(task * 5 + round * 7) % 6],
                );
                let request = over(&[one, two]);
                let hold = request.sandbox.to_string();
                node.missing(&request.layers, None, Some(&hold))
                    .await
                    .unwrap();
                for layer in [one, two] {
                    fetch(&node, &what(layer), 10).await.unwrap();
                }
                node.create(request.clone()).await.unwrap();
                for layer in [one, two] {
                    assert!(host.has(layer), "{layer} is below a sandbox");
                }
                tokio::task::yield_now().await;
                for layer in [one, two] {
                    assert!(host.has(layer), "{layer} is below a sandbox");
                }
                node.kill(&request.sandbox, EndReason::Killed)
                    .await
                    .unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(cache(&node).await.evictions > 0);
    // Nobody needs any of them any more.
    let last = what(&LayerId::parse("t-last").unwrap());
    fetch(&node, &last, 10).await.unwrap();
    until("they are within the bound", async || {
        cache(&node).await.bytes <= 20
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_no_reason_to_refuse_while_something_may_go() {
    let mut host = Host::new();
    // So much is never free.
    host.disk_reserve_bytes = u64::MAX / 4;
    let node = host.start().await;
    let (layer, own) = (sealed(&host, "t-one", 10), sealed(&host, "t-own", 10));
    let refused = node.create(over(&[&own])).await;
    assert!(
        matches!(refused, Err(NodeError::DiskFull { .. })),
        "{refused:?}"
    );
    node.stored(&[what(&layer)]).await.unwrap();
    // Also without anybody who asks: nobody is to meet a full disk.
    until("it goes", async || !host.has(&layer)).await;
    assert!(host.has(&own));
    assert_eq!(cache(&node).await.evictions, 1);
}

/// The last use is known to the next process.
#[tokio::test]
async fn a_node_that_begins_anew_knows_what_was_used_last() {
    let mut host = Host::new();
    host.cache_bytes_max = 1000;
    let node = host.start().await;
    let (old, new) = (sealed(&host, "t-1", 10), sealed(&host, "t-0", 10));
    for layer in [&old, &new] {
        let request = over(&[layer]);
        node.create(request.clone()).await.unwrap();
        node.kill(&request.sandbox, EndReason::Killed)
            .await
            .unwrap();
        let noted = async || {
            let found = host.runtime.measure(&what(layer)).await.unwrap();
            found.unwrap().unused_for < Duration::from_secs(3600)
        };
        until("it is noted", noted).await;
    }
    drop(node);
    host.cache_bytes_max = 15;
    let node = host.start().await;
    node.stored(&[what(&old), what(&new)]).await.unwrap();
    until("one goes", async || cache(&node).await.evictions == 1).await;
    assert!(host.has(&new) && !host.has(&old));
}

/// A successor may have begun with it.
#[tokio::test]
async fn a_node_that_is_being_left_evicts_nothing() {
    let mut host = Host::new();
    host.cache_bytes_max = 1;
    let node = host.start().await;
    node.drain().await;
    let (one, two) = (sealed(&host, "t-one", 10), sealed(&host, "t-two", 10));
    node.stored(&[what(&one)]).await.unwrap();
    until("it is measured", async || cache(&node).await.bytes == 10).await;
    fetch(&node, &what(&two), 10).await.unwrap();
    let other = what(&LayerId::parse("t-other").unwrap());
    fetch(&node, &other, 10).await.unwrap();
    assert!(host.has(&one) && host.has(&two));
    node.undrain();
    until("it goes", async || {
        node.stored(&[what(&one)]).await.unwrap();
        !host.has(&one)
    })
    .await;
}
