//! A whole Debian inside: needs the base template's archive (`CASEMATE_TEST_BASE`), and says so
//! when it skips.

use std::process::Command;

use crate::world::World;

pub async fn what_people_do_as_root_and_as_user_works() {
    let Some(base) = std::env::var_os("CASEMATE_TEST_BASE") else {
        println!("skipped: set CASEMATE_TEST_BASE to the base template's archive");
        return;
    };
    let world = World::new().await;
    let layer = world.layer("debian", &[]);
    std::fs::create_dir_all(&layer).expect("is made");
    let done = Command::new("tar")
        .arg("-xf")
        .arg(base)
        .arg("-C")
        .arg(&layer)
        .status();
    assert!(done.expect("tar runs").success(), "the archive is unpacked");
    let mut spec = world.spec();
    spec.lowers = vec![layer];
    spec.resources.memory_mib = 512;
    spec.resources.disk_mib = 1024;
    spec.resources.processes_max = 512;
    let sandbox = spec.sandbox.clone();
    world.create_as(spec).await;
    for command in [
        "su user -c 'sudo -n id -u' | grep -qx 0",
        "su user -c 'sudo -n sh -c \"echo a > /etc/made && chown user /etc/made\"'",
        "cp /bin/cat /tmp/cat && setcap cap_net_bind_service+ep /tmp/cat && getcap /tmp/cat",
        "ping -c 1 -W 2 127.0.0.1",
        "su user -c 'ping -c 1 -W 2 127.0.0.1'",
        "su user -c 'strace -f -o /tmp/trace sh -c true' && grep -q execve /tmp/trace",
        "strace -p 1 -o /dev/null & sleep 0.3; kill $!",
        "python3 -c 'import os, multiprocessing as m; p = m.Pool(2); p.map(abs, range(9))'",
        "python3 -c 'import threading, ctypes, sqlite3, ssl'",
        "node -e 'require(\"fs\").writeFileSync(\"/tmp/n\", \"x\")'",
        "su user -c 'cd && git init -q r && cd r && git -c user.name=a -c user.email=a@b \
         commit -q --allow-empty -m m'",
        "mkdir -p /tmp/p/DEBIAN /tmp/p/opt/p && echo x > /tmp/p/opt/p/f && printf 'Package: p\\n\
         Version: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: d\\n' > \
         /tmp/p/DEBIAN/control && dpkg-deb -b /tmp/p /tmp/p.deb && dpkg -i /tmp/p.deb && \
         dpkg -r p",
        "useradd -m other && su other -c 'touch ~/f' && userdel -r other",
        "mv /usr/share/doc /usr/share/doc2 && cp -a /etc /tmp/etc && rm -r /tmp/etc",
        "tar -cf /tmp/all.tar --one-file-system /etc /home && tar -tf /tmp/all.tar | grep -q passwd",
        "chmod 1777 /tmp && su user -c 'mktemp'",
        "date && test $(date +%Y) -gt 2000",
        // A machine of its own, as programs ask for it.
        "free -m | awk '$1 == \"Mem:\" { exit $2 != 512 }'",
        "top -bn1 | grep -E 'MiB Mem : +512.0 total'",
        "top -bn1 | grep -Eq '^%Cpu'",
        "vmstat 1 2 | awk 'NR == 3 { exit $4 == 0 || $4 > 512 * 1024 }'",
        "test $(ps -o etimes= -p 1) -lt 600",
        "uptime | grep -Eq 'up [0-9]+ min'",
        "test \"$(nproc)\" = 1",
        "python3 -c 'import os; assert os.cpu_count() == 1, os.cpu_count()'",
        "node -e 'const o = require(\"os\"); if (o.cpus().length != 1 || o.totalmem() != 512 << 20) \
         throw [o.cpus().length, o.totalmem()]'",
        "lscpu -p=cpu | grep -vc '#' | grep -qx 1",
        "! dmesg",
    ] {
        world.ok(&sandbox, command).await;
    }
    if let Some(script) = std::env::var_os("CASEMATE_TEST_SCRIPT") {
        let script = std::fs::read_to_string(script).expect("the script is readable");
        println!("{}", world.sh(&sandbox, &script).await.0);
    }
    world.purge().await;
}
