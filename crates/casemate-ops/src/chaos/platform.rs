//! The installation under test: its start, its processes, their deaths.

mod held;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use casemate_client::{Api, BaseUrl, Transport};
use casemate_failpoint::{LOG, PLAN, Plan, Point};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::error::ChaosError;
use super::{Options, lot};

pub(super) use held::Held;

/// Time to be ready: a start that makes or imports the base template, and any later one.
const FIRST_START: Duration = Duration::from_secs(600);
const START: Duration = Duration::from_secs(60);
/// Time to leave what it does, in the end.
const END: Duration = Duration::from_secs(20);
/// A small stock, so that it is filled up all the time.
const SLOT_STOCK: u64 = 8;
/// How often it is looked whether it is full.
const LOOK: Duration = Duration::from_millis(100);
/// Only root's environment has settings; what the caller has for another platform is not ours.
const FOREIGN: [&str; 2] = ["CASEMATE_", "E2B_"];

/// What is killed at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    /// The node. Its children end with it.
    Up,
    Control,
    Egress,
    Launcher,
    /// All at the same time.
    All,
}

impl Victim {
    pub(super) const ALL: [Self; 5] = [
        Self::Up,
        Self::Control,
        Self::Egress,
        Self::Launcher,
        Self::All,
    ];

    pub(super) fn is_a_child(self) -> bool {
        matches!(self, Self::Control | Self::Egress | Self::Launcher)
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Control => "control",
            Self::Egress => "egress",
            Self::Launcher => "launcher",
            Self::All => "all",
        })
    }
}

pub(super) struct Platform {
    program: PathBuf,
    data_dir: PathBuf,
    base: Option<PathBuf>,
    listen: String,
    deaths: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    is_first_start: bool,
    /// Since when nobody is there to answer.
    down_since: Option<Instant>,
    longest_outage: Duration,
}

/// Whom the load speaks to.
pub(super) struct Server {
    pub(super) api: Api,
    pub(super) edge: BaseUrl,
}

impl Platform {
    pub(super) fn new(options: &Options) -> Result<Self, ChaosError> {
        if options.data_dir.exists() {
            return Err(ChaosError::DataDirExists(options.data_dir.clone()));
        }
        let port = free_port().map_err(ChaosError::io("find a free port"))?;
        let own = |kind: &str| {
            let name = format!("casemate-chaos-{}.{kind}", std::process::id());
            std::env::temp_dir().join(name)
        };
        let deaths = own("deaths");
        // Control writes its own death down and is not root.
        File::create_new(&deaths)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o622)))
            .map_err(ChaosError::io("make the list of deaths"))?;
        Ok(Self {
            program: options.program.clone(),
            data_dir: options.data_dir.clone(),
            base: options.base.clone(),
            listen: format!("127.0.0.1:{port}"),
            deaths,
            log: own("log"),
            child: None,
            is_first_start: true,
            down_since: None,
            longest_outage: Duration::ZERO,
        })
    }

    /// Starts `up` and waits until it is ready.
    pub(super) async fn start(&mut self, plan: &Plan) -> Result<(), ChaosError> {
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        let log = log.map_err(ChaosError::io("open the platform's log"))?;
        let mut command = self.command(&["up", "--listen", &self.listen]);
        if let Some(base) = &self.base {
            command.arg("--base").arg(base);
        }
        if !plan.is_empty() {
            command.env(PLAN, plan.to_string()).env(LOG, &self.deaths);
        }
        command
            .env("CASEMATE_NODE_SLOT_STOCK", SLOT_STOCK.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(ChaosError::io("start `casemate up`"))?;
        let output = child.stdout.take();
        self.child = Some(child);
        let patience = if self.is_first_start {
            FIRST_START
        } else {
            START
        };
        let ready = async {
            let mut lines = BufReader::new(output?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("casemate ready") {
                    // Whoever writes to a closed pipe is killed, or has a reason to complain.
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Some(());
                }
            }
            None
        };
        match tokio::time::timeout(patience, ready).await {
            Ok(Some(())) => {
                self.is_first_start = false;
                if let Some(since) = self.down_since.take() {
                    self.longest_outage = self.longest_outage.max(since.elapsed());
                }
                Ok(())
            }
            Ok(None) => {
                self.reap().await?;
                Err(ChaosError::NotReady(self.log.clone()))
            }
            Err(_) => Err(ChaosError::Slow {
                seconds: patience.as_secs(),
                log: self.log.clone(),
            }),
        }
    }

    /// Ends what runs, the hard way, and starts it again.
    pub(super) async fn restart(&mut self, plan: &Plan) -> Result<(), ChaosError> {
        self.kill(Victim::All)?;
        self.reap().await?;
        self.start(plan).await
    }

    /// The same, where the start itself may be what kills: it is tried again.
    pub(super) async fn restart_against(
        &mut self,
        plan: &Plan,
        starts_max: u32,
    ) -> Result<(), ChaosError> {
        let mut starts = 0;
        loop {
            starts += 1;
            match self.restart(plan).await {
                Err(ChaosError::NotReady(_)) if starts < starts_max => {}
                // As often as that, and always there: enough of it.
                Err(ChaosError::NotReady(_)) => return self.restart(&Plan::default()).await,
                other => return other,
            }
        }
    }

    pub(super) fn runs(&mut self) -> bool {
        let runs = self
            .child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !runs {
            self.down_since.get_or_insert_with(Instant::now);
        }
        runs
    }

    /// `kill -9`. Whether there was somebody.
    pub(super) fn kill(&mut self, victim: Victim) -> Result<bool, ChaosError> {
        if !self.runs() {
            return Ok(false);
        }
        let Some(up) = self.child.as_ref().and_then(Child::id) else {
            return Ok(false);
        };
        let children = children_of(up).map_err(ChaosError::io("find the platform's processes"))?;
        let named = |role: &str| {
            let of_role = |(_, other): &&(u32, String)| other == role;
            let found: Vec<_> = children
                .iter()
                .filter(of_role)
                .map(|(pid, _)| *pid)
                .collect();
            let one = (!found.is_empty()).then(|| found[lot::index(found.len())]);
            one.into_iter().collect::<Vec<_>>()
        };
        let doomed = match victim {
            Victim::Up => vec![up],
            Victim::Control => named("control"),
            Victim::Egress => named("egress"),
            Victim::Launcher => named("launcher"),
            Victim::All => {
                let children = children.iter().map(|(pid, _)| *pid);
                std::iter::once(up).chain(children).collect()
            }
        };
        let mut killed = false;
        for pid in doomed {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            killed |= pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
        }
        if !victim.is_a_child() {
            self.down_since.get_or_insert_with(Instant::now);
        }
        Ok(killed)
    }

    async fn reap(&mut self) -> Result<(), ChaosError> {
        if let Some(child) = &mut self.child {
            let waited = child.wait().await;
            waited.map_err(ChaosError::io("wait for the platform's end"))?;
            // Not before: a run that is stopped meanwhile waits again.
            self.child = None;
            self.down_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Ends `up` wherever it is: while it only starts, it would not answer `down`.
    async fn end(&mut self) -> Result<(), ChaosError> {
        let up = self.child.as_ref().and_then(Child::id);
        if let Some(up) = up.and_then(|up| Pid::from_raw(i32::try_from(up).ok()?)) {
            // It may be gone, which is as well.
            let _ = kill_process(up, Signal::TERM);
        }
        if let Ok(reaped) = tokio::time::timeout(END, self.reap()).await {
            return reaped;
        }
        self.kill(Victim::All)?;
        self.reap().await
    }

    /// Deaths at each point so far.
    pub(super) fn deaths(&self) -> Result<BTreeMap<Point, u64>, ChaosError> {
        let text = std::fs::read_to_string(&self.deaths);
        let text = text.map_err(ChaosError::io("read the list of deaths"))?;
        let mut deaths = BTreeMap::new();
        for point in text.lines().filter_map(|line| line.parse::<Point>().ok()) {
            *deaths.entry(point).or_default() += 1;
        }
        Ok(deaths)
    }

    pub(super) fn longest_outage(&self) -> Duration {
        self.longest_outage
    }

    pub(super) fn server(&self) -> Result<Server, ChaosError> {
        let path = self.data_dir.join("credentials.env");
        let text = std::fs::read_to_string(path).map_err(ChaosError::io("read credentials"))?;
        let named = |name: &str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let mut found = pairs.filter(|(key, _)| *key == name);
            found
                .next()
                .map(|(_, value)| value.trim_matches(['\'', '"']).to_owned())
        };
        let (url, key) = named("E2B_API_URL")
            .zip(named("E2B_API_KEY"))
            .ok_or(ChaosError::Credentials)?;
        let base: BaseUrl = url.parse()?;
        Ok(Server {
            api: Api::new(Transport::new(), base.clone(), &key)?,
            edge: base,
        })
    }

    /// Entries of the node's journal: what it says that runs.
    pub(super) fn journalled(&self) -> Result<usize, ChaosError> {
        let listed = std::fs::read_dir(self.data_dir.join("node/journal"));
        Ok(listed
            .map_err(ChaosError::io("look into the journal"))?
            .count())
    }

    /// What a fresh installation holds, once its stock is full.
    pub(super) async fn stocked(&self) -> Result<Held, ChaosError> {
        let deadline = Instant::now() + START;
        loop {
            let held = self.held().await?;
            if held.is_rested() || Instant::now() > deadline {
                return Ok(held);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the pool of layers holds.
    pub(super) async fn held(&self) -> Result<Held, ChaosError> {
        let id = std::fs::read_to_string(self.data_dir.join("instance"));
        let id = id.map_err(ChaosError::io("read the instance's id"))?;
        let pool = Path::new("/run/casemate").join(id.trim()).join("pool");
        let layers = self.data_dir.join("node/layers");
        Held::of(&pool, &layers, self.layers_ready().await?).await
    }

    /// Layers in stock, as the node says. What it has emptied to be used again is among them.
    async fn layers_ready(&self) -> Result<u64, ChaosError> {
        let mut status = self.command(&["--json", "status"]);
        let told = status.output().await;
        let told = told.map_err(ChaosError::io("run `casemate status`"))?;
        let told: serde_json::Value = serde_json::from_slice(&told.stdout)
            .map_err(|error| ChaosError::io("read what `casemate status` says")(error.into()))?;
        Ok(told["node"]["layers_ready"].as_u64().unwrap_or_default())
    }

    /// Ends everything and removes the installation. Its log stays when the run was no good.
    pub(super) async fn clear_away(&mut self) -> Result<(), ChaosError> {
        self.end().await?;
        if self.data_dir.exists() {
            let purge = self.command(&["down", "--purge"]).output().await;
            let purge = purge.map_err(ChaosError::io("run `casemate down --purge`"))?;
            if !purge.status.success() {
                let said = String::from_utf8_lossy(&purge.stderr).trim().to_owned();
                return Err(ChaosError::Purge(said));
            }
        }
        let _ = std::fs::remove_file(&self.deaths);
        Ok(())
    }

    pub(super) fn forget_log(&self) {
        let _ = std::fs::remove_file(&self.log);
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if FOREIGN.iter().any(|prefix| name_text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.args(args).arg("--data-dir").arg(&self.data_dir);
        command
    }
}

/// Direct children that are ours, with their roles.
fn children_of(up: u32) -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for item in std::fs::read_dir("/proc")? {
        let name = item?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Any of them may be gone by now.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.and_then(|text| text.trim().parse().ok()) != Some(up) {
            continue;
        }
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0').skip(1);
        if let (Some("internal"), Some(role)) = (words.next(), words.next()) {
            found.push((pid, role.to_owned()));
        }
    }
    Ok(found)
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
