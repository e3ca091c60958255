//! The control plane as one value, and its start and end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use casemate_build::builder::{Builder, BuilderLimits};
use casemate_catalog::Catalog;
use casemate_history::History;
use casemate_images::Images;
use casemate_store::{Build, KeyHash, KeyId, Store, StoreError, Team, Template};
use casemate_types::CompiledPolicy;

use crate::config::{ControlConfig, Shared, Sharing};
use crate::keys::Keys;
use crate::locks::SandboxLocks;
use crate::nodes::{Nodes, Starting};
use crate::quota::Quota;
use crate::recall::Recall;
use crate::recent::Recent;
use crate::reconcile::Unwanted;
use crate::reconcile::aging::Aging;
use crate::reconcile::astray::Copies;
use crate::reconcile::ending::Ending;
use crate::reconcile::records::Records;
use crate::recorder::Recorder;
use crate::sandboxes::snapshot::Unrecorded;
use crate::servers::{self, Servers, news};
use crate::tasks::{TaskKind, Tasks};
use crate::templates::ResolvedFor;
use crate::templates::export::Exporting;
use crate::templates::spawned::{self, Spawned};
use crate::templates::start::Building;
use crate::templates::uploads::Uploads;
use crate::transitions::{Elsewhere, Transitions};
use crate::warm::Warm;
use crate::{janitor, reconcile, recorder, warm};

/// See the crate. One for each process.
pub struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) nodes: Nodes,
    pub(crate) history: Arc<dyn History>,
    pub(crate) recorder: Recorder,
    pub(crate) tasks: Tasks,
    pub(crate) quota: Arc<Quota>,
    pub(crate) teams_by_key: Recall<KeyHash, Team>,
    pub(crate) builds_by_reference: Recall<ResolvedFor, (Template, Build)>,
    pub(crate) locks: SandboxLocks,
    pub(crate) transitions: Transitions,
    pub(crate) unrecorded: Unrecorded,
    pub(crate) uploads: Uploads,
    pub(crate) spawned: Spawned,
    /// Held while the end of a sandbox is noted, inside of [`Self::locks`].
    pub(crate) notes: SandboxLocks,
    pub(crate) recent: Recent,
    pub(crate) starting: Starting,
    pub(crate) ending: Ending,
    pub(crate) copies: Copies,
    pub(crate) records: Records,
    pub(crate) builder: Builder,
    pub(crate) building: Building,
    pub(crate) exporting: Exporting,
    pub(crate) unwanted: Unwanted,
    pub(crate) aging: Aging,
    pub(crate) warm: Warm,
    /// Held while a team's caches are trimmed: the store writes for one at a time anyway.
    pub(crate) trimming: tokio::sync::Mutex<()>,
    /// This process, another name after each start: what it holds when it dies is found by it.
    pub(crate) owner: String,
    pub(crate) servers: Servers,
    pub(crate) bucket_failures: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("read what should run")]
    Store(#[from] StoreError),
}

impl Control {
    /// Reads what should run and starts the reconcilers. Nodes come by [`Self::add_node`].
    pub async fn start(
        config: ControlConfig,
        store: Arc<dyn Store>,
        catalog: Arc<dyn Catalog>,
        history: Arc<dyn History>,
        images: Arc<Images>,
    ) -> Result<Arc<Self>, StartError> {
        let owner = KeyId::random().to_string();
        let quota = Arc::new(Quota::default());
        let nodes = store.node_list().await?.into_iter();
        let lost = nodes.filter(|node| node.lost_at.is_some());
        let lost: HashSet<String> = lost.map(|node| node.id).collect();
        for row in store.sandbox_list_alive(None).await? {
            if row.is_running() && !lost.contains(&row.node) {
                quota.count(&row.team, &row.id);
            }
        }
        let (records, waiting) = Records::new();
        let builder = Builder::new(
            Arc::clone(&store) as _,
            images,
            // As a sandbox that asks for nothing.
            CompiledPolicy {
                dns: true,
                ..CompiledPolicy::default()
            },
            BuilderLimits {
                builds_at_once: config.builds.at_once,
                image_mib_max: config.builds.image_mib_max,
                team_bytes_max: config.builds.team_bytes_max,
                startup: config.create_timeout,
            },
            owner.clone(),
        );
        let warm = Warm::new(config.warm_pool);
        let (servers, tasks) = (Servers::new(&config.servers), Tasks::default());
        let elsewhere = match &config.servers {
            Sharing::Several(Shared {
                leases: Some(leases),
                ..
            }) => Some(Elsewhere::new(Arc::clone(leases), &owner, tasks.clone())),
            Sharing::Several(_) | Sharing::Alone => None,
        };
        let control = Arc::new(Self {
            keys: Keys::derive(&config.root_secret),
            config,
            store,
            catalog,
            nodes: Nodes::default(),
            history,
            recorder: Recorder::default(),
            tasks,
            quota,
            teams_by_key: Recall::default(),
            builds_by_reference: Recall::default(),
            locks: SandboxLocks::default(),
            transitions: Transitions::beside(elsewhere),
            unrecorded: Unrecorded::default(),
            uploads: Uploads::default(),
            spawned: Spawned::default(),
            notes: SandboxLocks::default(),
            recent: Recent::default(),
            starting: Starting::default(),
            ending: Ending::default(),
            copies: Copies::default(),
            records,
            builder,
            building: Building::default(),
            exporting: Exporting::default(),
            unwanted: Unwanted::default(),
            aging: Aging::default(),
            warm,
            trimming: tokio::sync::Mutex::default(),
            owner,
            servers,
            bucket_failures: Arc::default(),
        });
        match &control.config.servers {
            // All others are dead.
            Sharing::Alone => control.bury(Duration::ZERO).await?,
            // Before anything is begun here: whoever is not there is dead.
            Sharing::Several(_) => control.beat().await?,
        }
        let tasks = &control.tasks;
        tasks.spawn(TaskKind::Reconciler, servers::run(Arc::clone(&control)));
        tasks.spawn(TaskKind::Reconciler, news::listen(Arc::clone(&control)));
        let tell = reconcile::records::tell(Arc::clone(&control), waiting);
        tasks.spawn(TaskKind::Reconciler, tell);
        tasks.spawn(TaskKind::Reconciler, janitor::run(Arc::clone(&control)));
        tasks.spawn(TaskKind::Reconciler, recorder::run(Arc::clone(&control)));
        tasks.spawn(TaskKind::Reconciler, spawned::run(Arc::clone(&control)));
        tasks.spawn(TaskKind::Reconciler, warm::run(Arc::clone(&control)));
        Ok(control)
    }

    /// Seconds to live when a create or connect (v2) names none.
    pub fn life_seconds_default(&self) -> u32 {
        self.config.limits.life_seconds_default
    }

    /// Where handlers run what must not stop with their client.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// The name of this process among the servers of its store; another one after each start.
    pub fn server(&self) -> &str {
        &self.owner
    }

    /// Does nothing more by itself, and tells nobody: as a process that died, but for what clients
    /// still ask of it.
    #[cfg(any(test, feature = "testing"))]
    pub fn die(&self) {
        self.tasks.halt();
    }

    /// Stops the reconcilers, waits for every change that is under way and writes down what
    /// happened.
    pub async fn shutdown(&self) {
        self.interrupt_builds().await;
        self.tasks.shutdown().await;
        self.leave_servers().await;
        self.drop_warm().await;
        self.recorder.write_all(&*self.history).await;
        self.spawned.write(&*self.store).await;
    }
}
