//! Figures, printed; asked for by `CASEMATE_TEST_SPEED=1`, because they take a while and mean
//! something only in a release build on a quiet machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use casemate_runtime::Runtime;
use casemate_types::InstanceId;

use crate::dead;
use crate::world::{self, World};

const IN_A_ROW: usize = 200;
const AT_ONCE: usize = 100;

pub async fn creation_in_a_row_and_at_once() {
    if std::env::var_os("CASEMATE_TEST_SPEED").is_none() {
        println!("skipped: set CASEMATE_TEST_SPEED=1 for figures of creation");
        return;
    }
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    let mut config = world::config(folder, instance);
    config.slot_stock = 128;
    if let Some(agent) = std::env::var_os("CASEMATE_ENVD") {
        config.agent = agent.into();
    }
    let world = World::open_config(config).await;
    world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    filled(&world, 128).await;
    let (mut creates, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..IN_A_ROW {
        let begun = Instant::now();
        let sandbox = world.create().await;
        creates.push(begun.elapsed());
        let begun = Instant::now();
        world.runtime.stop(&sandbox).await.expect("stops");
        stops.push(begun.elapsed());
    }
    report("create to ready, in a row", &mut creates);
    report("stop, in a row", &mut stops);
    filled(&world, 128).await;
    let available = memory_available_kib();
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (runtime, spec) = (std::sync::Arc::clone(&world.runtime), world.spec());
        tasks.spawn(async move {
            let begun = Instant::now();
            let sandbox = spec.sandbox.clone();
            runtime.create(spec).await.expect("a sandbox is made");
            (sandbox, begun.elapsed())
        });
    }
    let made = tasks.join_all().await;
    println!("{AT_ONCE} at once: all ready after {:?}", begun.elapsed());
    let mut creates: Vec<_> = made.iter().map(|(_, took)| *took).collect();
    report("create to ready, at once", &mut creates);
    filled(&world, 128).await;
    let used = available.saturating_sub(memory_available_kib());
    println!(
        "memory: {} KiB a sandbox with its slot and layer",
        used / AT_ONCE as u64
    );
    let begun = Instant::now();
    for (sandbox, _) in made {
        world.runtime.stop(&sandbox).await.expect("stops");
    }
    println!(
        "{AT_ONCE} stopped one after the other in {:?}",
        begun.elapsed()
    );
    world.purge().await;
}

async fn filled(world: &World, stock: usize) {
    loop {
        let now = world.runtime.stock();
        // The last quarter is filled only with more.
        if now.slots_ready.min(now.layers_ready) > stock * 3 / 4 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    let (least, p10, p50, p90, p99) = (at(0), at(10), at(50), at(90), at(99));
    println!("{what}: min {least:?}, p10 {p10:?}, p50 {p50:?}, p90 {p90:?}, p99 {p99:?}");
}

fn memory_available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo is readable");
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .expect("it is there");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
