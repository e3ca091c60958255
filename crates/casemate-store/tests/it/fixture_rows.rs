//! What every `tests/fixtures/data-vN/store.sqlite` holds: written by the example
//! `write_fixture` of the version that brought the schema, read by all that come after.

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_store::{
    AccessToken, ApiKey, Build, BuildId, BuiltBytes, CacheKey, CachedLayer, KeyHash, KeyId,
    KeyMask, LimitOverrides, NewBuild, NewSnapshot, NodeReport, Sandbox, Standing, Team, Upload,
    User,
};
use casemate_types::{
    BuildContext, BuildFailure, Distribution, EndReason, Ingress, Kept, NetworkPolicy, OnTimeout,
    Resources, SandboxId, SandboxState, SnapshotId, Startup, TeamId, TemplateId, Timestamp, UserId,
};

pub const IDEMPOTENCY_KEY: &str = "fixture-key";
pub const ANSWER: &str = r#"{"sandbox":"ifixture000000000000a"}"#;
pub const SETTING: (&str, &str) = ("fixture.setting", "a value");

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).expect("a time of this century")
}

fn uuid(last: u32) -> String {
    format!("0b7a2b0e-6f5c-4b43-9c0c-{last:012}")
}

fn team_id() -> TeamId {
    TeamId::parse(&uuid(1)).expect("a UUID")
}

fn user_id() -> UserId {
    UserId::parse(&uuid(2)).expect("a UUID")
}

pub fn team() -> Team {
    Team {
        id: team_id(),
        slug: "fixture".into(),
        name: "Fixture team".into(),
        standing: Standing::Blocked {
            reason: Some("for the test".into()),
        },
        limits: LimitOverrides {
            sandboxes_max: Some(7),
            ..LimitOverrides::default()
        },
        created_at: at(0),
    }
}

pub fn user() -> User {
    User {
        id: user_id(),
        created_at: at(1),
    }
}

pub fn key() -> ApiKey {
    ApiKey {
        id: KeyId::parse(&uuid(3)).expect("a UUID"),
        team: team_id(),
        name: "fixture key".into(),
        hash: KeyHash::of(b"not a secret of anybody"),
        mask: KeyMask::of("e2b_", "00112233445566778899aabbccddeeff00112233"),
        created_at: at(3),
        created_by: Some(user_id()),
        last_used: Some(at(4)),
    }
}

pub fn token() -> AccessToken {
    AccessToken {
        id: KeyId::parse(&uuid(4)).expect("a UUID"),
        user: user_id(),
        name: "fixture token".into(),
        hash: KeyHash::of(b"not a token of anybody"),
        mask: KeyMask::of("sk_e2b_", "ffeeddccbbaa99887766554433221100ffeeddcc"),
        created_at: at(5),
    }
}

/// The base's when the first of them was written.
const RESOURCES: Resources = Resources {
    processes_max: 4096,
    ..Resources::BASE
};

pub fn report() -> NodeReport {
    NodeReport {
        build: Build {
            id: BuildId::parse(&uuid(5)).expect("a UUID"),
            template: TemplateId::parse("fixturetemplate00000").expect("a template id"),
            layers: vec!["site-1".into(), "base-1".into()],
            resources: RESOURCES,
            default_user: "user".into(),
            default_workdir: Some("/home/user".into()),
            envd_version: "0.6.12".into(),
            files: None,
            envs: Default::default(),
            startup: None,
            distribution: Distribution::Debian("bookworm".into()),
            created_at: at(6),
        },
        alias: "base".into(),
    }
}

pub fn reported_at() -> Timestamp {
    at(7)
}

pub fn running() -> Sandbox {
    Sandbox {
        id: SandboxId::parse("ifixture000000000000a").expect("a sandbox id"),
        team: team_id(),
        template: report().build.template,
        alias: Some("base".into()),
        build: report().build.id,
        node: "node-1".into(),
        envd_version: "0.6.12".into(),
        resources: RESOURCES,
        metadata: BTreeMap::from([("user".into(), "a b".into())]),
        secured: true,
        network: NetworkPolicy {
            allow_internet_access: Some(false),
            allow_out: Some(vec!["8.8.8.8".into()]),
            deny_out: None,
            dns_servers: None,
        },
        ingress: Ingress::default(),
        envs: None,
        timeout: Duration::from_secs(300),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        started_at: at(8),
        state: SandboxState::Running { ends_at: at(308) },
        generation: 3,
        stored_files: None,
    }
}

pub fn dead() -> Sandbox {
    Sandbox {
        id: SandboxId::parse("ifixture000000000000b").expect("a sandbox id"),
        state: SandboxState::Dead {
            ended_at: at(100),
            reason: EndReason::Expired,
        },
        metadata: BTreeMap::new(),
        network: NetworkPolicy::default(),
        ..running()
    }
}

/// Since version 2.
pub fn paused() -> Sandbox {
    Sandbox {
        id: SandboxId::parse("ifixture000000000000c").expect("a sandbox id"),
        state: SandboxState::Paused {
            at: at(50),
            kept: Kept::Files,
        },
        ingress: Ingress {
            allow_public_traffic: Some(false),
            mask_request_host: Some("localhost:${PORT}".into()),
            https_ports: Some(vec![8443]),
        },
        envs: Some(vec![1, 2, 3]),
        on_timeout: OnTimeout::Pause(Kept::Memory),
        auto_resume: true,
        ..running()
    }
}

/// Since version 2.
pub fn snapshot() -> NewSnapshot {
    NewSnapshot {
        team: team_id(),
        namespace: team().slug,
        alias: Some("kept".into()),
        tag: "v1".into(),
        build: Build {
            id: BuildId::parse("7c1e9a52-3f0d-4b6e-8a57-2d4f6b8c0e13").expect("a UUID"),
            template: TemplateId::parse("fixturesnapshot00000").expect("a template id"),
            files: Some(SnapshotId::parse("sfixture0000000000000").expect("a snapshot id")),
            ..report().build
        },
        node: "node-1".into(),
        sandbox: running().id,
    }
}

/// Since version 3: one that is ready, and one of the same name that failed.
pub fn requests() -> [NewBuild; 2] {
    let ready = NewBuild {
        team: team_id(),
        namespace: team().slug,
        alias: "built".into(),
        tags: vec!["default".into()],
        build: BuildId::parse("7c1e9a52-3f0d-4b6e-8a57-2d4f6b8c0e14").expect("a UUID"),
        template: TemplateId::parse("fixturebuilt00000000").expect("a template id"),
        resources: RESOURCES,
        at: at(20),
        builds_max: 20,
        counted_from: at(0),
        waiting_counted_from: at(0),
        superseded: failure(),
    };
    let failed = NewBuild {
        build: BuildId::parse("7c1e9a52-3f0d-4b6e-8a57-2d4f6b8c0e15").expect("a UUID"),
        template: TemplateId::parse("fixturebuilt00000001").expect("a template id"),
        at: at(30),
        ..ready.clone()
    };
    [ready, failed]
}

/// What the first of [`requests`] came to.
pub fn built() -> Build {
    let [ready, _] = requests();
    Build {
        id: ready.build,
        template: ready.template,
        layers: vec!["t-fixture0000000000000".into(), "base-1".into()],
        default_workdir: None,
        startup: Some(Startup {
            start: Some("serve".into()),
            ready: "true".into(),
            context: context(),
        }),
        distribution: Distribution::Other,
        created_at: ready.at,
        ..report().build
    }
}

/// What the second of [`requests`] failed of.
pub fn failure() -> BuildFailure {
    BuildFailure {
        message: "exit status 1".into(),
        step: Some("2".into()),
    }
}

fn context() -> BuildContext {
    BuildContext {
        user: "user".into(),
        workdir: Some("/app".into()),
        envs: BTreeMap::from([("A".into(), "b".into())]),
    }
}

/// Since version 3: of the layer and of the upload.
pub fn cache_key() -> CacheKey {
    CacheKey::parse(&"0f".repeat(32)).expect("64 digits")
}

pub fn cached_layer() -> CachedLayer {
    CachedLayer {
        layers: vec!["base-1".into()],
        files: Some(SnapshotId::parse("sfixture0000000000001").expect("a snapshot id")),
        context: context(),
        distribution: Distribution::Debian("trixie".into()),
        size_mib: 12,
    }
}

pub fn built_bytes() -> BuiltBytes {
    BuiltBytes {
        name: cached_layer().layers.swap_remove(0),
        bytes: 3 << 32,
        holds: 4 << 32,
    }
}

pub fn upload() -> Upload {
    Upload {
        sha256: "a0".repeat(32),
        bytes: 5 << 30,
        artifact: None,
    }
}
