//! A store that fails at the calls that a test names, over one that does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::template::TemplateRef;
use casemate_types::{
    BuildFailure, EndReason, Kept, LayerId, NetworkPolicy, Portable, SandboxId, SnapshotId, TeamId,
    TemplateId, Timestamp, UserId,
};

use crate::{
    AccessToken, AliveSandbox, ApiKey, Artifacts, Begun, Build, BuildBegun, BuildCache, BuildId,
    BuildRecord, BuildRequested, Builds, BuiltBytes, CacheKey, CacheTrim, CachedLayer,
    CreatedCursor, Dropped, Idempotency, JoinRole, JoinToken, JoinTokenHash, JoinTokens, KeyClaim,
    KeyHash, KeyId, Keys, Lease, LeaseTaken, Leases, Membership, NewBuild, NewJoinToken, NewRun,
    NewSnapshot, Node, NodeJoin, NodeReport, NodeStanding, Nodes, Page, PlacedSnapshot,
    RequestHash, Resolution, Sandbox, SandboxFilter, Sandboxes, Server, ServerBeat, Servers,
    Settings, Snapshot, SnapshotCursor, SnapshotFilter, Snapshots, Store, StoreError,
    StoredArtifact, TagAssignment, TagEvent, Team, Teams, Template, TemplateDeleted, TemplateOrder,
    TemplateSummary, Templates, Trimmed, Upload, User, Users,
};

/// How a call fails, which is [`StoreError::Unavailable`] either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The database is away: nothing is done.
    Away,
    /// It is done, and the answer is lost.
    AnswerLost,
}

/// See the module.
pub struct FaultyStore {
    store: Arc<dyn Store>,
    calls: Mutex<BTreeMap<&'static str, Call>>,
}

/// What becomes of the calls of one name.
#[derive(Default)]
struct Call {
    fault: Option<Fault>,
    failed: usize,
}

impl FaultyStore {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            calls: Mutex::default(),
        }
    }

    /// Every call of this name fails so from now on.
    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.lock().entry(call).or_default().fault = Some(fault);
    }

    /// No call fails from now on.
    pub fn heal(&self) {
        for call in self.lock().values_mut() {
            call.fault = None;
        }
    }

    /// How often a call of this name failed.
    pub fn failed(&self, call: &'static str) -> usize {
        self.lock().get(call).map_or(0, |call| call.failed)
    }

    /// Whether it fails now.
    fn fault(&self, name: &'static str) -> Option<Fault> {
        let mut calls = self.lock();
        let call = calls.get_mut(name)?;
        let fault = call.fault?;
        call.failed += 1;
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Call>> {
        self.calls.lock().expect("no holder of this lock panics")
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.into())
}

#[async_trait]
impl Store for FaultyStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}

/// Hands the calls of these ports on, but for those that fail.
macro_rules! hand_on {
    ($($port:ident { $($call:ident($($name:ident: $of:ty),*) -> $done:ty;)* })*) => { $(
        #[async_trait]
        impl $port for FaultyStore {
            $(async fn $call(&self, $($name: $of),*) -> Result<$done, StoreError> {
                let fault = self.fault(stringify!($call));
                if fault == Some(Fault::Away) {
                    return Err(unavailable("a test took it away"));
                }
                let done = self.store.$call($($name),*).await?;
                match fault {
                    Some(_) => Err(unavailable("a test took the answer away")),
                    None => Ok(done),
                }
            })*
        }
    )* };
}

hand_on! {
    Teams {
        team_insert(team: &Team) -> ();
        team_by_id(id: &TeamId) -> Option<Team>;
        team_by_slug(slug: &str) -> Option<Team>;
        team_update(team: &Team) -> bool;
        team_list() -> Vec<Team>;
    }
    Users {
        user_insert(user: &User) -> ();
        user_by_id(id: &UserId) -> Option<User>;
        member_put(user: &UserId, team: &TeamId, is_default: bool, now: Timestamp) -> ();
        memberships(user: &UserId) -> Vec<Membership>;
    }
    Keys {
        key_insert(key: &ApiKey) -> ();
        key_by_hash(hash: &KeyHash) -> Option<(ApiKey, Team)>;
        key_list(team: &TeamId) -> Vec<ApiKey>;
        key_rename(team: &TeamId, id: &KeyId, name: &str) -> bool;
        key_delete(team: &TeamId, id: &KeyId) -> Option<ApiKey>;
        key_touch(id: &KeyId, at: Timestamp) -> ();
        token_insert(token: &AccessToken) -> ();
        token_by_hash(hash: &KeyHash) -> Option<AccessToken>;
        token_delete(user: &UserId, id: &KeyId) -> Option<AccessToken>;
    }
    Templates {
        template_resolve(home: &str, reference: &TemplateRef) -> Resolution;
        build_by_id(id: &BuildId) -> Option<Build>;
        template_by_id(id: &TemplateId) -> Option<Template>;
        template_report(report: &NodeReport, now: Timestamp) -> bool;
    }
    Builds {
        build_request(new: &NewBuild) -> BuildRequested;
        build_record(id: &BuildId) -> Option<BuildRecord>;
        build_begin(id: &BuildId, owner: &str, at: Timestamp) -> BuildBegun;
        build_finish(build: &Build, disk_size_mib: u32, at: Timestamp) -> bool;
        build_fail(id: &BuildId, failure: &BuildFailure, at: Timestamp) -> bool;
        build_fail_waiting(
            before: Timestamp, failure: &BuildFailure, at: Timestamp
        ) -> Vec<BuildId>;
        build_fail_building(
            caller: &str, seen_within: Duration, failure: &BuildFailure, at: Timestamp
        ) -> Vec<BuildId>;
        build_has_others(caller: &str) -> bool;
        build_list_open(team: &TeamId) -> Vec<BuildId>;
        build_known(ids: &[BuildId]) -> Vec<BuildId>;
        build_forget_failed(before: Timestamp) -> u64;
        build_forget_unused(before: Timestamp) -> u64;
        build_page(
            template: &TemplateId, after: Option<&CreatedCursor>, rows_max: u32
        ) -> Vec<BuildRecord>;
        template_page(
            team: &TeamId, order: TemplateOrder, after: Option<&CreatedCursor>, rows_max: u32
        ) -> Vec<TemplateSummary>;
        template_summary(id: &TemplateId) -> Option<TemplateSummary>;
        template_set_public(id: &TemplateId, public: bool, at: Timestamp) -> bool;
        template_spawned(spawned: &[(TemplateId, u64, Timestamp)]) -> ();
        tags_assign(template: &TemplateId, build: &BuildId, tags: &[String], at: Timestamp) -> ();
        tags_remove(template: &TemplateId, tags: &[String]) -> ();
        template_list_stock() -> Vec<TemplateSummary>;
        tags_latest(template: &TemplateId) -> Vec<(String, Timestamp)>;
        tags_history(
            template: &TemplateId, tags: &[String], before: Option<Timestamp>, rows_max: u32
        ) -> Vec<TagEvent>;
        tags_list(template: &TemplateId) -> Vec<TagAssignment>;
    }
    BuildCache {
        layer_find(team: &TeamId, key: &CacheKey, at: Timestamp) -> Option<CachedLayer>;
        layer_put(team: &TeamId, key: &CacheKey, layer: &CachedLayer, at: Timestamp) -> Dropped;
        layer_forget(team: &TeamId, key: &CacheKey, layer: &CachedLayer) -> Dropped;
        layer_expire(before: Timestamp, rows_max: u32) -> Dropped;
        built_note(team: &TeamId, built: &BuiltBytes, at: Timestamp) -> ();
        built_holds(name: &str) -> Option<u64>;
        built_needed(team: &TeamId, layers: &[String]) -> u64;
        built_trim(team: &TeamId, bytes_max: u64) -> Dropped;
        layer_wanted(layers: &[LayerId]) -> Vec<LayerId>;
        cache_trim(trim: &CacheTrim) -> Trimmed;
        upload_find(team: &TeamId, key: &CacheKey, at: Timestamp) -> Option<Upload>;
        upload_put(team: &TeamId, key: &CacheKey, upload: &Upload, at: Timestamp) -> ();
        upload_put_within(
            team: &TeamId, key: &CacheKey, upload: &Upload, at: Timestamp, bytes_max: u64
        ) -> bool;
        upload_expire(before: Timestamp) -> u64;
        upload_wanted(team: &TeamId, sha256: &[String]) -> Vec<String>;
        upload_bytes(team: &TeamId) -> u64;
    }
    Sandboxes {
        sandbox_insert(sandbox: &Sandbox, running_max: Option<u32>) -> ();
        sandbox_by_id(id: &SandboxId) -> Option<Sandbox>;
        sandbox_page(filter: &SandboxFilter, page: &Page) -> Vec<Sandbox>;
        sandbox_count(filter: &SandboxFilter) -> u64;
        sandbox_count_by_team() -> Vec<(TeamId, u64)>;
        sandbox_list_alive(node: Option<&str>) -> Vec<AliveSandbox>;
        sandbox_list_nowhere() -> Vec<AliveSandbox>;
        sandbox_set_deadline(id: &SandboxId, generation: u64, ends_at: Timestamp) -> u64;
        sandbox_set_network(id: &SandboxId, generation: u64, network: &NetworkPolicy) -> u64;
        sandbox_pause(id: &SandboxId, generation: u64, at: Timestamp, kept: Kept) -> u64;
        sandbox_resume(
            id: &SandboxId, generation: u64, run: &NewRun<'_>, running_max: Option<u32>
        ) -> u64;
        sandbox_store(id: &SandboxId, generation: u64, artifact: &StoredArtifact) -> ();
        sandbox_list_unstored(
            node: &str, before: Timestamp, after: Option<&(Timestamp, SandboxId)>, rows_max: u32
        ) -> Vec<AliveSandbox>;
        sandbox_end(id: &SandboxId, generation: u64, reason: EndReason, at: Timestamp) -> u64;
        sandbox_list_paused(team: &TeamId, before: Timestamp) -> Vec<Sandbox>;
        sandbox_forget(before: Timestamp) -> u64;
    }
    Snapshots {
        snapshot_insert(snapshot: &NewSnapshot) -> PlacedSnapshot;
        snapshot_page(
            filter: &SnapshotFilter, after: Option<&SnapshotCursor>, rows_max: u32
        ) -> Vec<Snapshot>;
        snapshot_wanted(files: &[SnapshotId]) -> Vec<SnapshotId>;
        snapshot_expire(team: &TeamId, before: Timestamp) -> Vec<SnapshotId>;
        template_delete(id: &TemplateId) -> TemplateDeleted;
        template_purge() -> Vec<SnapshotId>;
    }
    Idempotency {
        idempotency_begin(claim: &KeyClaim, request: &RequestHash) -> Begun;
        idempotency_finish(claim: &KeyClaim, answer: &str) -> ();
        idempotency_abandon(claim: &KeyClaim) -> ();
        idempotency_orphan(caller: &str, seen_within: Duration) -> u64;
        idempotency_purge(before: Timestamp) -> u64;
    }
    Settings {
        setting_by_name(name: &str) -> Option<String>;
        setting_put(name: &str, value: &str) -> ();
        setting_claim(name: &str, value: &str) -> String;
    }
    Servers {
        server_beat(beat: &ServerBeat) -> Timestamp;
        server_leave(id: &str) -> ();
        server_list(seen_within: Duration) -> Vec<Server>;
        server_clock() -> Timestamp;
        server_forget(unseen_for: Duration) -> u64;
    }
    Leases {
        lease_take(name: &str, holder: &str, lasts: Duration) -> LeaseTaken;
        lease_give(name: &str, holder: &str) -> bool;
        lease_list(prefix: &str) -> Vec<Lease>;
    }
    Nodes {
        node_join(node: &NodeJoin) -> Node;
        node_list() -> Vec<Node>;
        node_by_id(id: &str) -> Option<Node>;
        node_set_standing(id: &str, standing: NodeStanding) -> bool;
        node_fence(id: &str, generation: u64) -> u64;
        node_return(id: &str, generation: u64) -> ();
        node_remove(id: &str) -> bool;
        node_remove_unused(id: &str) -> bool;
    }
    JoinTokens {
        join_token_put(token: &NewJoinToken) -> JoinToken;
        join_token_use(id: &str, hash: &JoinTokenHash, role: JoinRole) -> Option<JoinRole>;
        join_token_list() -> Vec<JoinToken>;
        join_token_revoke(id: &str) -> bool;
        join_token_forget_expired() -> u64;
    }
    Artifacts {
        artifact_due(whats: &[Portable]) -> Vec<(Portable, TeamId)>;
        artifact_put(artifact: &StoredArtifact) -> bool;
        artifact_find(whats: &[Portable]) -> Vec<StoredArtifact>;
        artifact_unneeded(rows_max: u32) -> Vec<StoredArtifact>;
        artifact_forget(artifact: &StoredArtifact) -> bool;
        artifact_references(team: &TeamId) -> Vec<String>;
    }
}
