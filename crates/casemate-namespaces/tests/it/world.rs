//! A platform for one test: folders, a small root file system, a runtime, and ways to look inside.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use casemate_namespaces::lease::LeaseError;
use casemate_namespaces::{NamespacesConfig, NamespacesRuntime, OpenError};
use casemate_runtime::{AgentConfig, CreateSpec, Runtime, RuntimeRecord};
use casemate_types::{CompiledPolicy, InstanceId, Resources, SandboxId, TemplateId, chain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{dead, host};

/// Enough for tests, little enough for any disk.
const POOL_BYTES: u64 = 4 << 30;

/// How long what the test dropped may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct World {
    pub folder: PathBuf,
    pub instance: InstanceId,
    pub runtime: Arc<NamespacesRuntime>,
    made: Mutex<BTreeMap<SandboxId, RuntimeRecord>>,
    /// Processes that ended because a sandbox's memory was full, as looks told.
    memory_kills: Arc<Mutex<BTreeMap<SandboxId, u64>>>,
}

impl World {
    /// A runtime of a new instance, swept and ready.
    pub async fn new() -> Self {
        let instance = InstanceId::random();
        let folder = dead::folder(&instance);
        Self::open(folder, instance, 4).await
    }

    /// A runtime on what is there; sandboxes of an earlier process are not adopted yet.
    pub async fn open(folder: PathBuf, instance: InstanceId, stock: usize) -> Self {
        let world = Self::open_unswept(folder, instance, stock).await;
        world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
        world
    }

    pub async fn open_unswept(folder: PathBuf, instance: InstanceId, stock: usize) -> Self {
        let mut config = config(folder, instance);
        config.slot_stock = stock;
        Self::open_config(config).await
    }

    pub async fn open_config(config: NamespacesConfig) -> Self {
        furnish(&config.data_dir.join("node/layers/base"));
        let (folder, instance) = (config.data_dir.clone(), config.instance.clone());
        let begun = Instant::now();
        let runtime = loop {
            match NamespacesRuntime::open(config.clone()).await {
                Ok(runtime) => break runtime,
                // Tasks of one that was dropped just now end a moment later.
                Err(OpenError::Lease(LeaseError::Held(_))) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("the runtime opens: {}", chain(&error)),
            }
        };
        let runtime = Arc::new(runtime);
        let looker = Arc::downgrade(&runtime);
        let memory_kills = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let counted = Arc::clone(&memory_kills);
        // As a node does.
        tokio::spawn(async move {
            while let Some(runtime) = looker.upgrade() {
                match runtime.look().await {
                    Ok(seen) => {
                        let mut kills = counted.lock().unwrap();
                        for one in seen {
                            kills.insert(one.sandbox, one.memory_kills);
                        }
                    }
                    Err(error) => eprintln!("a look failed: {}", chain(&error)),
                }
                drop(runtime);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Self {
            folder,
            instance,
            runtime,
            made: Mutex::default(),
            memory_kills,
        }
    }

    pub fn spec(&self) -> CreateSpec {
        let sandbox = SandboxId::random();
        let resources = Resources {
            vcpus: 1,
            memory_mib: 128,
            disk_mib: 64,
            processes_max: 64,
        };
        CreateSpec {
            agent: AgentConfig {
                version: AgentConfig::VERSION,
                sandbox_id: sandbox.clone(),
                template_id: TemplateId::random(),
                access_token: None,
                site_envs: Default::default(),
                envs: Default::default(),
                default_user: "user".into(),
                default_workdir: None,
                hostname: "box".into(),
                startup: None,
            },
            sandbox,
            lowers: vec![self.folder.join("node/layers/base")],
            files: None,
            resources,
            network: CompiledPolicy::open(),
            hostname: "box".into(),
        }
    }

    /// Another layer with some files.
    pub fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let layer = self.folder.join("node/layers").join(name);
        for (path, content) in files {
            let path = layer.join(path);
            std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("is made");
            std::fs::write(path, content).expect("is written");
        }
        layer
    }

    /// A sandbox with the test's usual limits.
    pub async fn create(&self) -> SandboxId {
        let spec = self.spec();
        let sandbox = spec.sandbox.clone();
        self.create_as(spec).await;
        sandbox
    }

    pub async fn create_as(&self, spec: CreateSpec) -> RuntimeRecord {
        let made = self.runtime.create(spec).await;
        let record = made.unwrap_or_else(|error| panic!("a sandbox is made: {}", chain(&error)));
        let mut all = self.made.lock().unwrap();
        all.insert(record.sandbox.clone(), record.clone());
        record
    }

    pub fn memory_kills(&self, sandbox: &SandboxId) -> u64 {
        let kills = self.memory_kills.lock().unwrap();
        kills.get(sandbox).copied().unwrap_or(0)
    }

    /// The host's number of the first process of a sandbox that was made here.
    pub fn first_process(&self, sandbox: &SandboxId) -> i32 {
        host::first_process(&self.made.lock().unwrap()[sandbox])
    }

    /// Runs a shell command as root inside; its output without the last newline, and its code.
    pub async fn sh(&self, sandbox: &SandboxId, command: &str) -> (String, i32) {
        let stream = self
            .runtime
            .dial(sandbox, 49983)
            .await
            .expect("the agent's port is open");
        let mut stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
        stream
            .write_all(command.as_bytes())
            .await
            .expect("it listens");
        stream.shutdown().await.expect("it listens");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers");
        let (output, code) = answer.rsplit_once("exit ").expect("the answer has a code");
        (
            output.trim_end().to_owned(),
            code.parse().expect("the code is a number"),
        )
    }

    /// The same for a command that must succeed.
    pub async fn ok(&self, sandbox: &SandboxId, command: &str) -> String {
        let (output, code) = self.sh(sandbox, command).await;
        assert_eq!(code, 0, "{command}: {output}");
        output
    }

    /// Ends everything, also on disk.
    pub async fn purge(self) {
        let ended = self.runtime.teardown(true).await;
        ended.unwrap_or_else(|error| panic!("everything is torn down: {}", chain(&error)));
        drop(self.runtime);
        std::fs::remove_dir_all(&self.folder).expect("the data directory goes");
    }
}

/// The configuration of a small platform.
pub fn config(folder: PathBuf, instance: InstanceId) -> NamespacesConfig {
    let mut config = NamespacesConfig::new(instance, folder, agent().clone());
    config.slot_stock = 4;
    config.pool_bytes_max = Some(POOL_BYTES);
    config
}

/// Names the stand-in to processes that a test starts, so that they need none of their own.
pub const AGENT_VARIABLE: &str = "CASEMATE_IT_AGENT";

static AGENT: OnceLock<PathBuf> = OnceLock::new();

/// The stand-in, compiled once a run.
pub fn agent() -> &'static PathBuf {
    AGENT.get_or_init(|| {
        if let Some(path) = std::env::var_os(AGENT_VARIABLE) {
            return path.into();
        }
        let out = std::env::temp_dir().join(format!("casemate-it-init-{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/init.rs");
        let done = Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
            ])
            .args([
                "-C",
                "relocation-model=static",
                "-C",
                "panic=abort",
                "-C",
                "strip=symbols",
            ])
            .arg("-o")
            .arg(&out)
            .arg(source)
            .status()
            .expect("rustc runs");
        assert!(done.success(), "the stand-in compiles");
        out
    })
}

/// Takes the stand-in away again.
pub fn forget_agent() {
    if let Some(agent) = AGENT.get() {
        // Gone already is as good.
        let _ = std::fs::remove_file(agent);
    }
}

/// A root file system of busybox.
fn furnish(root: &Path) {
    if root.exists() {
        return;
    }
    for folder in [
        "bin",
        "etc",
        "tmp",
        "home/user",
        "root",
        "proc",
        "sys",
        "dev",
        "run",
    ] {
        std::fs::create_dir_all(root.join(folder)).expect("folders are made");
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777))
        .expect("modes are set");
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox is there (Debian: busybox-static)");
    let list = Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .expect("busybox runs")
        .stdout;
    for applet in String::from_utf8(list).expect("names are text").lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).expect("links are made");
        }
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).expect("files are written");
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("files are written");
    std::os::unix::fs::chown(root.join("home/user"), Some(1000), Some(1000)).expect("root chowns");
}
