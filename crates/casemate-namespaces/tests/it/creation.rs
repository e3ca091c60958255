//! Making sandboxes, and failing to.

use crate::world::World;

pub async fn a_sandbox_runs_commands_in_its_own_root() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let out = world.ok(&sandbox, "id; hostname; cat /proc/self/cgroup; ls -la / /dev; mount; cat /proc/uptime; ls /sys/class/net; ip a; cat /proc/self/status; cat /proc/self/uid_map; ls -l /proc/self/ns; ps; df /; ulimit -a; cat /proc/1/environ; ls -l /proc/1/fd; touch /tmp/a; cat /tmp/config").await;
    println!("{out}");
    world.purge().await;
}
