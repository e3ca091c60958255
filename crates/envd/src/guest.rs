//! The state of the agent: what `/init` and the platform set, live processes, watchers.
//! One thread owns it; nothing here locks.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::build;
use crate::config::Config;
use crate::filesystem::watchers::Watchers;
use crate::log::Log;
use crate::process::table::ProcessTable;
use crate::settings::{Authority, Settings};
use crate::startup::Startup;

/// Shared by all requests.
pub struct Guest {
    pub settings: RefCell<Settings>,
    /// Who may change the token by `/init`.
    pub authority: Authority,
    pub processes: Rc<ProcessTable>,
    pub watchers: Rc<Watchers>,
    /// One `/init` at a time.
    pub init_turn: tokio::sync::Mutex<()>,
    /// One change of the CA bundle at a time, with what it last installed.
    pub ca_turn: tokio::sync::Mutex<Option<String>>,
    /// One freeze or thaw of the file system at a time.
    pub freeze_turn: tokio::sync::Mutex<()>,
    /// One layer or COPY step at a time.
    pub build_turn: build::receive::Turn,
    /// How the start of the template goes.
    pub startup: Startup,
    /// An authorised `/init` came.
    pub initialised: Cell<bool>,
    pub cpu: crate::metrics::CpuSince,
    pub disk: crate::metrics::Disk,
    pub log: Rc<Log>,
}

impl Guest {
    pub fn new(
        config: Option<&Config>,
        in_sandbox: bool,
        disk: Option<OwnedFd>,
        log: Option<OwnedFd>,
    ) -> Rc<Self> {
        Rc::new(Self {
            settings: RefCell::new(Settings::new(config, in_sandbox)),
            authority: Authority::of(config),
            processes: Rc::new(ProcessTable::default()),
            watchers: Rc::new(Watchers::default()),
            init_turn: tokio::sync::Mutex::new(()),
            ca_turn: tokio::sync::Mutex::new(None),
            freeze_turn: tokio::sync::Mutex::new(()),
            build_turn: build::receive::Turn::default(),
            startup: Startup::default(),
            initialised: Cell::new(false),
            cpu: crate::metrics::CpuSince::default(),
            disk: crate::metrics::Disk::new(disk),
            log: Rc::new(Log::new(log)),
        })
    }
}
