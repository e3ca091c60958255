use casemate_types::{Sample, Usage};

use super::*;
use crate::{History, Range, UsageAt};

fn usage(number: u64) -> Usage {
    Usage {
        vcpus: 2,
        cpu_used_percent: (number % 100) as f64 + 0.25,
        memory_used_bytes: number << 20,
        memory_total_bytes: 512 << 20,
        memory_cache_bytes: number,
        disk_used_bytes: number << 12,
        disk_total_bytes: u64::MAX >> 1,
    }
}

fn sample(team: &TeamId, sandbox: &SandboxId, seconds: i64, number: u64) -> Sample {
    Sample {
        sandbox: sandbox.clone(),
        team: team.clone(),
        at: at(seconds),
        usage: usage(number),
    }
}

fn range(from: i64, to: i64) -> Range {
    Range {
        from: at(from),
        to: at(to),
    }
}

async fn read(
    history: &dyn History,
    team: &TeamId,
    sandbox: &SandboxId,
    of: Range,
) -> Vec<UsageAt> {
    let read = history.samples_read(team, sandbox, of, SECOND).await;
    read.unwrap()
}

pub async fn samples_come_back_in_order_and_in_range(history: &dyn History) {
    let (team, one, other) = (team(), sandbox(), sandbox());
    assert_eq!(history.samples_range(&team, &one).await.unwrap(), None);
    assert_eq!(read(history, &team, &one, range(0, 9)).await, []);
    for seconds in [3, 1, 2] {
        let number = u64::try_from(seconds).unwrap();
        let batch = [
            sample(&team, &one, seconds, number),
            sample(&team, &other, seconds, 90),
        ];
        history.samples_append(&batch).await.unwrap();
    }
    let expected = |from: u64, to: u64| -> Vec<_> {
        let point = |number: u64| UsageAt {
            at: at(i64::try_from(number).unwrap()),
            usage: usage(number),
        };
        (from..=to).map(point).collect()
    };
    assert_eq!(
        read(history, &team, &one, range(0, 9)).await,
        expected(1, 3)
    );
    assert_eq!(
        read(history, &team, &one, range(2, 3)).await,
        expected(2, 3)
    );
    assert_eq!(
        read(history, &team, &one, range(2, 2)).await,
        expected(2, 2)
    );
    assert_eq!(read(history, &team, &one, range(4, 9)).await, []);
    let whole = history.samples_range(&team, &one).await.unwrap();
    assert_eq!(whole, Some(range(1, 3)));
}

pub async fn samples_of_one_moment_are_one(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    for number in [1, 2] {
        let batch = [sample(&team, &sandbox, 5, number)];
        history.samples_append(&batch).await.unwrap();
    }
    let read = read(history, &team, &sandbox, range(0, 9)).await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].usage, usage(2));
}

pub async fn samples_are_aggregated_by_step(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let batch: Vec<_> = [(0, 10), (5, 30), (10, 2), (31, 4)]
        .into_iter()
        .map(|(seconds, number)| sample(&team, &sandbox, seconds, number))
        .collect();
    history.samples_append(&batch).await.unwrap();
    let half_minutes = history
        .samples_read(&team, &sandbox, range(0, 60), SECOND * 30)
        .await
        .unwrap();
    let points: Vec<_> = half_minutes
        .iter()
        .map(|point| (point.at, point.usage.memory_used_bytes >> 20))
        .collect();
    assert_eq!(points, [(at(10), 30), (at(31), 4)]);
    let mean = half_minutes[0].usage.cpu_used_percent;
    assert!((mean - 14.25).abs() < 0.01, "{mean}");
    assert_eq!(half_minutes[0].usage.disk_used_bytes, 30 << 12);
}

/// Whatever an adapter does to keep them small.
pub async fn samples_of_many_minutes_read_like_those_of_one(history: &dyn History) {
    let (team, boxes) = (team(), [sandbox(), sandbox(), sandbox()]);
    const COUNT: u64 = 1000;
    for number in 0..COUNT {
        let seconds = i64::try_from(number * 5).unwrap();
        let batch: Vec<_> = boxes
            .iter()
            .map(|sandbox| sample(&team, sandbox, seconds, number))
            .collect();
        history.samples_append(&batch).await.unwrap();
    }
    for sandbox in &boxes {
        let read = read(history, &team, sandbox, range(0, 5000)).await;
        assert_eq!(read.len(), usize::try_from(COUNT).unwrap());
        for (number, point) in (0..).zip(read) {
            assert_eq!(point.usage, usage(number));
        }
        let some = history
            .samples_read(&team, sandbox, range(1000, 1010), SECOND)
            .await
            .unwrap();
        assert_eq!(some.len(), 3);
    }
    let latest = history.samples_latest(&team, &boxes).await.unwrap();
    assert!(latest.iter().all(|sample| sample.at == at(4995)) && latest.len() == 3);
}

pub async fn samples_of_a_sandbox_are_its_teams_alone(history: &dyn History) {
    let (team, stranger, sandbox) = (team(), team(), sandbox());
    let batch = [sample(&team, &sandbox, 5, 1)];
    history.samples_append(&batch).await.unwrap();
    assert_eq!(read(history, &stranger, &sandbox, range(0, 9)).await, []);
    let range = history.samples_range(&stranger, &sandbox).await.unwrap();
    assert_eq!(range, None);
    let asked = [sandbox];
    assert_eq!(history.samples_latest(&stranger, &asked).await.unwrap(), []);
    assert_eq!(history.samples_latest(&team, &asked).await.unwrap(), batch);
}

pub async fn latest_samples_leave_out_who_has_none(history: &dyn History) {
    let (team, one, nothing) = (team(), sandbox(), sandbox());
    for seconds in [1, 9, 4] {
        let number = u64::try_from(seconds).unwrap();
        let batch = [sample(&team, &one, seconds, number)];
        history.samples_append(&batch).await.unwrap();
    }
    let asked = [nothing, one.clone()];
    let latest = history.samples_latest(&team, &asked);
    assert_eq!(latest.await.unwrap(), [sample(&team, &one, 9, 9)]);
}
