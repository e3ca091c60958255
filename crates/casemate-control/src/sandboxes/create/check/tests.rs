use std::sync::Arc;

use casemate_store::{BuildId, LimitOverrides, Standing, Team};
use casemate_types::{Distribution, Resources, TeamId, TemplateId, Timestamp};

use super::*;
use crate::config::Limits;
use crate::sandboxes::network::NetworkAsk;

fn caller() -> TeamCaller {
    let team = Team {
        id: TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap(),
        slug: "team".into(),
        name: "Team".into(),
        standing: Standing::Good,
        limits: LimitOverrides::default(),
        created_at: Timestamp::UNIX_EPOCH,
    };
    TeamCaller {
        team: Arc::new(team),
        limits: Limits::default(),
    }
}

fn build() -> Build {
    Build {
        id: BuildId::random(),
        template: TemplateId::random(),
        layers: vec!["base".into()],
        resources: Resources::BASE,
        default_user: "user".into(),
        default_workdir: None,
        envd_version: "0.6.12".into(),
        files: None,
        envs: Default::default(),
        startup: None,
        distribution: Distribution::Other,
        created_at: Timestamp::UNIX_EPOCH,
    }
}

fn ask() -> CreateSandbox {
    CreateSandbox {
        template: "base".into(),
        timeout_seconds: 300,
        auto_pause: false,
        auto_pause_memory: true,
        auto_resume: false,
        network: NetworkAsk::default(),
        metadata: BTreeMap::new(),
        envs: BTreeMap::new(),
        iam_tokens: 0,
        volume_mounts: 0,
    }
}

#[track_caller]
fn check_ask(change: impl FnOnce(&mut CreateSandbox), expected: Option<CreateRefused>) {
    let mut ask = ask();
    change(&mut ask);
    assert_eq!(check(&caller(), &ask, &build()).err(), expected);
}

#[track_caller]
fn check_build(change: impl FnOnce(&mut Build), expected: Option<CreateRefused>) {
    let mut build = build();
    change(&mut build);
    assert_eq!(check(&caller(), &ask(), &build).err(), expected);
}

#[test]
fn the_timeout_has_both_bounds() {
    check_ask(|_| {}, None);
    check_ask(|a| a.timeout_seconds = 0, Some(CreateRefused::TimeoutZero));
    check_ask(|a| a.timeout_seconds = 24 * 3600, None);
    let too_long = CreateRefused::TimeoutTooLong { hours: 24 };
    check_ask(|a| a.timeout_seconds = 24 * 3600 + 1, Some(too_long));
}

#[test]
fn files_alone_are_kept_by_a_pause_that_traffic_does_not_end() {
    let alone = CreateRefused::AutoPauseMemoryAlone;
    check_ask(|a| a.auto_pause_memory = false, Some(alone));
    check_ask(
        |a| (a.auto_pause, a.auto_pause_memory, a.auto_resume) = (true, false, true),
        Some(CreateRefused::AutoPauseMemoryWithAutoResume),
    );
    check_ask(|a| (a.auto_pause, a.auto_resume) = (true, true), None);
    check_ask(
        |a| (a.auto_pause, a.auto_pause_memory) = (true, false),
        None,
    );
    check_ask(|a| a.auto_resume = true, None);
}

#[test]
fn the_agent_must_ask_for_tokens() {
    check_build(
        |b| b.envd_version = String::new(),
        Some(CreateRefused::EnvdUnknown),
    );
    for old in ["0.1.9", "0.2", "v0.6.1", "x"] {
        let refused = CreateRefused::EnvdTooOld(old.into());
        check_build(|b| b.envd_version = old.into(), Some(refused));
    }
    check_build(|b| b.envd_version = "0.2.0".into(), None);
    check_build(|b| b.envd_version = "1.0.0".into(), None);
}

#[test]
fn a_template_larger_than_the_team_may_is_refused() {
    let refused = CreateRefused::TooBig {
        what: "MB of memory",
        asked: 8193,
        max: 8192,
    };
    check_build(|b| b.resources.memory_mib = 8193, Some(refused));
}

#[test]
fn texts_are_bounded_and_possible() {
    let pair = |key: &str, value: String| BTreeMap::from([(key.to_string(), value)]);
    let bytes = METADATA_BYTES_MAX + 1;
    check_ask(
        |a| a.metadata = pair("k", "v".repeat(METADATA_BYTES_MAX)),
        Some(CreateRefused::MetadataTooLarge { bytes }),
    );
    for (key, value, shown) in [("k\0", "", r"k\0"), ("k", "a\0b", "k")] {
        check_ask(
            |a| a.metadata = pair(key, value.into()),
            Some(CreateRefused::MetadataNul(shown.into())),
        );
    }
    let bytes = ENV_BYTES_MAX + 1;
    check_ask(
        |a| a.envs = pair("k", "v".repeat(ENV_BYTES_MAX)),
        Some(CreateRefused::EnvsTooLarge { bytes }),
    );
    for (name, value, shown) in [
        ("", "", ""),
        ("A=B", "", "A=B"),
        ("A\0", "", r"A\0"),
        ("A", "\0", "A"),
    ] {
        let refused = CreateRefused::EnvImpossible(shown.into());
        check_ask(|a| a.envs = pair(name, value.into()), Some(refused));
    }
    let most = "v".repeat(ENV_ONE_BYTES_MAX - 1);
    check_ask(|a| a.envs = pair("k", most.clone()), None);
    let refused = CreateRefused::EnvTooLarge {
        name: "k".into(),
        bytes: ENV_ONE_BYTES_MAX + 1,
    };
    check_ask(|a| a.envs = pair("k", most.clone() + "v"), Some(refused));
}

#[test]
fn the_first_failure_in_the_order_wins() {
    let everything_wrong = |a: &mut CreateSandbox| {
        a.timeout_seconds = 0;
        a.auto_pause_memory = false;
        a.iam_tokens = 1;
        a.network.rules = true;
        a.volume_mounts = 1;
    };
    check_ask(everything_wrong, Some(CreateRefused::TimeoutZero));
    check_ask(
        |a| {
            everything_wrong(a);
            a.timeout_seconds = 1;
            a.auto_pause_memory = true;
        },
        Some(CreateRefused::Iam),
    );
    check_ask(
        |a| (a.network.rules, a.volume_mounts) = (true, 1),
        Some(CreateRefused::Network(NetworkError::Rules)),
    );
    check_ask(|a| a.volume_mounts = 1, Some(CreateRefused::VolumeMounts));
}
