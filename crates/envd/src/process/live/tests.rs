use std::fs::File;
use std::time::Duration;

use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::*;
use crate::ready::register;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A stand-in with a real handle (of this process).
fn process() -> Process {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    Process::new(
        7,
        None,
        ProcessConfig::default(),
        register(pidfd, tokio::io::Interest::READABLE).unwrap(),
        Input::Closed,
    )
}

fn chunk(number: u8) -> Chunk {
    Chunk {
        source: Source::Stdout,
        bytes: vec![number].into(),
    }
}

async fn all(mut queue: mpsc::Receiver<Chunk>) -> Vec<u8> {
    let mut got = Vec::new();
    while let Some(chunk) = queue.recv().await {
        got.extend_from_slice(&chunk.bytes);
    }
    got
}

#[test]
fn every_live_reader_gets_every_chunk_in_order() {
    run(async {
        let process = process();
        let (a, b) = (process.subscribe().unwrap(), process.subscribe().unwrap());
        for number in 0..10 {
            process.publish(chunk(number)).await;
        }
        process.finish(EndEvent::default());
        let expected: Vec<u8> = (0..10).collect();
        assert_eq!(all(a).await, expected);
        assert_eq!(all(b).await, expected);
    });
}

#[test]
fn a_slow_reader_holds_back_and_a_gone_one_does_not() {
    run(async {
        let process = process();
        let slow = process.subscribe().unwrap();
        for number in 0..16 {
            process.publish(chunk(number)).await;
        }
        let full = timeout(Duration::from_millis(20), process.publish(chunk(16))).await;
        assert!(full.is_err());
        drop(slow);
        timeout(Duration::from_secs(5), process.publish(chunk(17)))
            .await
            .unwrap();
        assert!(!process.has_readers());
    });
}

#[test]
fn a_reader_that_leaves_frees_who_waits_for_it() {
    run(async {
        let process = process();
        let slow = process.subscribe().unwrap();
        for number in 0..16 {
            process.publish(chunk(number)).await;
        }
        let leave = async {
            tokio::task::yield_now().await;
            drop(slow);
        };
        let publish = timeout(Duration::from_secs(5), process.publish(chunk(16)));
        tokio::join!(publish, leave).0.unwrap();
    });
}

#[test]
fn subscribing_after_the_end_gives_a_closed_queue() {
    run(async {
        let process = process();
        process.finish(EndEvent {
            exit_code: 3,
            ..Default::default()
        });
        assert!(all(process.subscribe().unwrap()).await.is_empty());
        assert_eq!(process.ended().unwrap().exit_code, 3);
    });
}

#[test]
fn readers_are_bounded_and_those_who_left_do_not_count() {
    run(async {
        let process = process();
        let mut queues: Vec<_> = (0..READERS_PER_PROCESS)
            .map(|_| process.subscribe().unwrap())
            .collect();
        assert!(process.subscribe().is_none());
        queues.pop();
        assert!(process.subscribe().is_some());
    });
}

#[test]
fn signals_go_to_the_handle() {
    run(async {
        let process = process();
        // Signal 0 does not exist in rustix; an unopened handle is the failure that can be had.
        let null = File::open("/dev/null").unwrap();
        assert_eq!(pidfd_send_signal(&null, Signal::CONT), Err(Errno::BADF));
        assert_eq!(process.signal(Signal::CONT), Ok(()));
    });
}
