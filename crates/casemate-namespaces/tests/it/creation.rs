//! Making sandboxes, and failing to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use casemate_runtime::{CreateError, Runtime};

use casemate_types::{InstanceId, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{self, World};
use crate::{dead, host};

pub async fn a_sandbox_runs_commands_in_its_own_root() {
    let world = World::new().await;
    let sandbox = world.create().await;
    assert_eq!(world.ok(&sandbox, "id -u; id -g; id -G").await, "0\n0\n0");
    assert_eq!(world.ok(&sandbox, "hostname; uname -n").await, "box\nbox");
    assert_eq!(
        world
            .ok(&sandbox, "cut -d: -f3 /proc/self/cgroup | sort -u")
            .await,
        "/"
    );
    assert_eq!(world.ok(&sandbox, "ls /sys/class/net").await, "eth0\nlo");
    let uptime = world.ok(&sandbox, "cut -d. -f1 /proc/uptime").await;
    assert!(
        uptime.parse::<u32>().unwrap() < 30,
        "the clock starts at birth: {uptime}"
    );
    assert!(
        world
            .ok(&sandbox, "cat /tmp/config")
            .await
            .contains(sandbox.as_str())
    );
    world
        .ok(
            &sandbox,
            "echo a > /new && echo b >> /etc/passwd && rm /bin/wget",
        )
        .await;
    let other = world.create().await;
    world
        .ok(
            &other,
            "test ! -e /new && test -e /bin/wget && ! grep -q ^b /etc/passwd",
        )
        .await;
    world
        .ok(&sandbox, "test -e /new && test ! -e /bin/wget")
        .await;
    // Only the agent's descriptors are there: none of ours.
    let fds = world
        .ok(
            &sandbox,
            "ls -l /proc/1/fd | grep -v 'socket:\\|pipe:\\|pidfd'",
        )
        .await;
    for line in fds.lines().filter(|line| line.contains("->")) {
        assert!(
            ["/dev/null", "/disk", "/log"]
                .iter()
                .any(|end| line.ends_with(end))
                || line.contains("/memfd:output"),
            "{line}"
        );
        let host = ["/run", world.instance.as_str()];
        assert!(!host.iter().any(|name| line.contains(name)), "{line}");
    }
    world.purge().await;
}

pub async fn what_the_agent_is_told_may_be_long() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.agent.envs.insert("LONG".into(), "x".repeat(240 << 10));
    let sandbox = spec.sandbox.clone();
    world.create_as(spec).await;
    let length = world.ok(&sandbox, "wc -c < /tmp/config").await;
    assert!(length.trim().parse::<usize>().unwrap() > 240 << 10);
    world.purge().await;
}

pub async fn upper_layers_win_and_folders_of_lower_ones_can_be_renamed() {
    let world = World::new().await;
    let site = world.layer("site", &[("etc/motd", "site\n"), ("opt/a/b", "deep")]);
    let mut spec = world.spec();
    spec.lowers.insert(0, site);
    let sandbox = spec.sandbox.clone();
    world.create_as(spec).await;
    assert_eq!(
        world
            .ok(&sandbox, "cat /etc/motd; grep -c ^root /etc/passwd")
            .await,
        "site\n1"
    );
    assert_eq!(
        world.ok(&sandbox, "mv /opt/a /opt/c && cat /opt/c/b").await,
        "deep"
    );
    // Numbers of files differ between layers, or `cp` and `find` go wrong.
    world
        .ok(&sandbox, "for i in $(seq 900); do echo > /home/$i; done")
        .await;
    let all = "find / -xdev -type f -exec stat -c '%d:%i' {} + | sort | uniq -d | wc -l";
    assert_eq!(world.ok(&sandbox, all).await, "0");
    world.purge().await;
}

pub async fn sixteen_layers_fit_and_more_are_refused() {
    for by_path in [false, true] {
        let instance = InstanceId::random();
        let mut config = world::config(crate::dead::folder(&instance), instance);
        config.layers_by_path = by_path;
        let world = World::open_config(config).await;
        world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
        let (mut spec, mut expected) = (world.spec(), String::new());
        for number in 10..25 {
            let name = format!("l{number}");
            let layer = world.layer(&name, &[(&format!("layer/{number}"), &name)]);
            spec.lowers.insert(0, layer);
            expected.push_str(&name);
            if number == 23 {
                // What a template of fourteen layers and the operator's have together.
                let mut fifteen = world.spec();
                fifteen.lowers = spec.lowers.clone();
                let sandbox = world.create_as(fifteen).await.sandbox;
                assert_eq!(world.ok(&sandbox, "cat /layer/*").await, expected);
            }
        }
        let one_more = spec.lowers[0].clone();
        let sandbox = world.create_as(spec.clone()).await.sandbox;
        assert_eq!(world.ok(&sandbox, "cat /layer/*").await, expected);
        spec.lowers.push(one_more);
        let mut other = world.spec();
        other.lowers = spec.lowers;
        let refused = world.runtime.create(other).await;
        assert!(
            matches!(refused, Err(CreateError::Unsupported { .. })),
            "{refused:?}"
        );
        world.purge().await;
    }
}

pub async fn layers_outside_the_data_directory_are_refused() {
    let world = World::new().await;
    for lower in ["/etc", "/nowhere/at/all"] {
        let mut spec = world.spec();
        spec.lowers = vec![lower.into()];
        let refused = world.runtime.create(spec).await;
        assert!(
            matches!(refused, Err(CreateError::Unsupported { .. })),
            "{refused:?}"
        );
    }
    let mut spec = world.spec();
    spec.lowers
        .push(world.folder.join("node/layers/base/../../../../../etc"));
    let refused = world.runtime.create(spec).await;
    assert!(
        matches!(refused, Err(CreateError::Unsupported { .. })),
        "{refused:?}"
    );
    world.purge().await;
}

pub async fn an_id_exists_once() {
    let world = World::new().await;
    let spec = world.spec();
    world.create_as(spec.clone()).await;
    let again = world.runtime.create(spec.clone()).await;
    assert!(matches!(again, Err(CreateError::Exists(_))), "{again:?}");
    world.ok(&spec.sandbox, "true").await;
    world.runtime.stop(&spec.sandbox).await.unwrap();
    world.create_as(spec).await;
    world.purge().await;
}

pub async fn an_agent_that_ends_is_undone_and_quoted() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.agent.default_user = "die".into();
    let error = world.runtime.create(spec.clone()).await.unwrap_err();
    assert!(matches!(&error, CreateError::Agent { output, .. } if output.contains("told to die")));
    assert_eq!(host::busy_groups(&world.instance), [""; 0]);
    let gone = world.runtime.dial(&spec.sandbox, 49983).await;
    assert!(matches!(
        gone,
        Err(casemate_runtime::DialError::NotFound(_))
    ));
    // The id can be used for a sandbox that works.
    spec.agent.default_user = "user".into();
    world.create_as(spec).await;
    world.purge().await;
}

pub async fn an_agent_that_never_reports_is_undone_in_time() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.agent.default_user = "hang".into();
    let begun = Instant::now();
    let error = world.runtime.create(spec).await.unwrap_err();
    assert!(matches!(&error, CreateError::Agent { output, .. } if output.contains("in time")));
    assert!(begun.elapsed() < Duration::from_secs(14));
    assert_eq!(host::busy_groups(&world.instance), [""; 0]);
    world.purge().await;
}

pub async fn stopping_is_idempotent_and_an_end_from_inside_is_reported() {
    let world = World::new().await;
    let mut exits = world.runtime.exits();
    let (stopped, ended) = (world.create().await, world.create().await);
    world.runtime.stop(&stopped).await.unwrap();
    world.runtime.stop(&stopped).await.unwrap();
    // Signals from inside cannot end the first process; from outside anything can.
    let pid = world.first_process(&ended);
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(5), exits.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(exit.sandbox, ended);
    assert!(exits.try_recv().is_err(), "an asked-for end is no news");
    world.runtime.stop(&ended).await.unwrap();
    world.purge().await;
}

pub async fn creates_at_once_beyond_the_stock_all_come() {
    let world = World::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (runtime, spec) = (std::sync::Arc::clone(&world.runtime), world.spec());
        tasks.spawn(async move {
            let begun = Instant::now();
            loop {
                match runtime.create(spec.clone()).await {
                    // On a machine so slow that the stock does not come within a create's patience.
                    Err(CreateError::Capacity { .. })
                        if begun.elapsed() < Duration::from_secs(120) => {}
                    other => return other.map(|record| record.sandbox),
                }
            }
        });
    }
    let made: Result<Vec<_>, _> = tasks.join_all().await.into_iter().collect();
    for sandbox in made.expect("all are made") {
        world.ok(&sandbox, "true").await;
    }
    world.purge().await;
}

pub async fn a_launcher_that_dies_is_replaced() {
    let world = World::new().await;
    for pid in host::children() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    // The first creates may find the dead ones; none leaves anything, and then all is well.
    let mut failures = 0;
    let sandbox = loop {
        let spec = world.spec();
        match world.runtime.create(spec.clone()).await {
            Ok(_) => break spec.sandbox,
            Err(error) => {
                assert!(matches!(error, CreateError::Step { .. }), "{error:?}");
                failures += 1;
            }
        }
        assert!(failures <= 2, "no launcher came back");
    };
    world.ok(&sandbox, "true").await;
    let busy = host::busy_groups(&world.instance);
    let slots: BTreeSet<_> = busy.iter().filter_map(|g| g.rsplit('/').next()).collect();
    assert_eq!(slots.len(), 1, "only one sandbox has processes: {busy:?}");
    world.purge().await;
}

pub async fn kernels_that_take_layers_by_path_only_do_as_well() {
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    let mut config = world::config(folder, instance);
    config.layers_by_path = true;
    let world = World::open_config(config).await;
    world.runtime.sweep(&BTreeSet::new()).await.unwrap();
    let mut spec = world.spec();
    for number in 1..8 {
        let name = format!("l{number}");
        let file = format!("layer/{number}");
        spec.lowers.insert(0, world.layer(&name, &[(&file, &name)]));
    }
    let sandbox = spec.sandbox.clone();
    world.create_as(spec).await;
    assert_eq!(world.ok(&sandbox, "cat /layer/*").await, "l1l2l3l4l5l6l7");
    world
        .ok(&sandbox, "mv /layer /other && echo x > /other/new")
        .await;
    let mounts = world.ok(&sandbox, "cat /proc/self/mountinfo").await;
    assert!(mounts.contains("upperdir=/m/0/upper"), "{mounts}");
    assert!(
        !mounts.contains("casemate") && !mounts.contains("btrfs"),
        "{mounts}"
    );
    world.purge().await;
}

pub async fn the_contract_of_the_port_holds() {
    let world = World::new().await;
    casemate_runtime::conformance::all(&*world.runtime, &|| world.spec()).await;
    world.purge().await;
}

pub async fn the_real_agent_serves() {
    let Some(agent) = std::env::var_os("CASEMATE_ENVD") else {
        println!("skipped: set CASEMATE_ENVD to a static build of the agent");
        return;
    };
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    let mut config = world::config(folder, instance);
    config.agent = agent.into();
    let world = World::open_config(config).await;
    world.runtime.sweep(&BTreeSet::new()).await.unwrap();
    let sandbox = world.create().await;
    let health = get(&world, &sandbox, "/health").await;
    assert!(health.starts_with("HTTP/1.1 20"), "{health}");
    // What it tells of the sandbox is the sandbox's, not the host's.
    let metrics = get(&world, &sandbox, "/metrics").await;
    let (_, body) = metrics
        .split_once("\r\n\r\n")
        .expect("an answer has a body");
    let metrics: serde_json::Value = serde_json::from_str(body).expect(body);
    assert_eq!(metrics["mem_total"], 128 << 20, "{metrics}");
    assert_eq!(metrics["mem_total_mib"], 128, "{metrics}");
    assert_eq!(metrics["cpu_count"], 1, "{metrics}");
    assert_eq!(metrics["disk_total"], 64 << 20, "{metrics}");
    let used = metrics["disk_used"].as_u64().expect("a number");
    assert!(used < 32 << 20, "{metrics}");
    let used = metrics["mem_used"].as_u64().expect("a number");
    assert!(used < 128 << 20, "{metrics}");
    let log = world.runtime.log(&sandbox);
    let line: serde_json::Value = serde_json::from_str(&log).expect(&log);
    assert_eq!(line["message"], "Agent started", "{log}");
    world.purge().await;
}

async fn get(world: &World, sandbox: &SandboxId, path: &str) -> String {
    let stream = world.runtime.dial(sandbox, 49983).await.unwrap();
    let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
