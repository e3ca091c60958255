//! Resolution of references, and what nodes report.

use casemate_types::template::TemplateRef;
use casemate_types::{Distribution, Resources, TemplateId};

use super::*;
use crate::{Build, BuildId, NodeReport, Resolution};

fn a_report(alias: &str, created: i64) -> NodeReport {
    NodeReport {
        build: Build {
            id: BuildId::random(),
            template: TemplateId::random(),
            layers: vec!["upper".into(), "with \"quotes\"".into()],
            resources: Resources::BASE,
            default_user: "user".into(),
            default_workdir: Some("/home/user".into()),
            envd_version: "0.6.12".into(),
            files: None,
            envs: Default::default(),
            startup: None,
            distribution: Distribution::Other,
            created_at: at(created, 3),
        },
        alias: alias.into(),
    }
}

fn new_alias() -> String {
    format!("alias-{}", KeyId::random())
}

async fn report(store: &dyn Store, report: &NodeReport) -> bool {
    store.template_report(report, at(500, 0)).await.unwrap()
}

async fn resolve(store: &dyn Store, home: &str, text: &str) -> Resolution {
    let reference = TemplateRef::parse(text).unwrap();
    store.template_resolve(home, &reference).await.unwrap()
}

/// What it resolves to: the matched name and the build.
async fn found(store: &dyn Store, text: &str) -> Option<(String, Build)> {
    match resolve(store, "some-team", text).await {
        Resolution::Found {
            identifier, build, ..
        } => Some((identifier, build)),
        Resolution::Unknown | Resolution::NoBuild { .. } => None,
    }
}

pub async fn promoted_template_resolves_for_every_team(store: &dyn Store) {
    let base = a_report(&new_alias(), 10);
    assert!(report(store, &base).await);
    let id = base.build.template.clone();
    for name in [base.alias.clone(), id.to_string()] {
        for text in [name.clone(), format!("{name}:default")] {
            let Resolution::Found {
                template,
                identifier,
                build,
            } = resolve(store, "some-team", &text).await
            else {
                panic!("{text} has no build");
            };
            assert_eq!(identifier, name);
            assert_eq!(build, base.build);
            assert_eq!(template.id, id);
            assert_eq!(template.owner, None);
            assert!(template.public);
            assert_eq!(template.alias.as_deref(), Some(&*base.alias));
            assert_eq!(template.created_at, at(500, 0));
            let by_id = store.template_by_id(&id).await.unwrap();
            assert_eq!(by_id, Some(template));
        }
        match resolve(store, "some-team", &format!("{name}:v2")).await {
            Resolution::NoBuild {
                template,
                identifier,
            } => assert_eq!((template.id, identifier), (id.clone(), name)),
            other => panic!("{other:?}"),
        }
    }
}

pub async fn unknown_references_stay_unknown(store: &dyn Store) {
    let base = a_report(&new_alias(), 10);
    report(store, &base).await;
    let (alias, id) = (&base.alias, &base.build.template);
    for text in [
        "nothing".to_string(),
        format!("some-team/{alias}"),
        format!("some-team/{id}"),
        format!("{alias}x"),
        format!("{}%", &alias[..8]),
    ] {
        let Ok(reference) = TemplateRef::parse(&text) else {
            continue;
        };
        let resolved = store.template_resolve("some-team", &reference).await;
        assert_eq!(resolved.unwrap(), Resolution::Unknown, "{text}");
    }
    let stranger = TemplateId::random();
    assert_eq!(store.template_by_id(&stranger).await.unwrap(), None);
}

pub async fn reported_template_is_idempotent(store: &dyn Store) {
    let base = a_report(&new_alias(), 10);
    assert!(report(store, &base).await);
    let before = store.template_by_id(&base.build.template).await.unwrap();
    for later in [500, 900] {
        let changed = store.template_report(&base, at(later, 0)).await.unwrap();
        assert!(!changed);
    }
    let after = store.template_by_id(&base.build.template).await.unwrap();
    assert_eq!(before, after);
}

pub async fn reported_build_takes_new_values(store: &dyn Store) {
    let mut base = a_report(&new_alias(), 10);
    report(store, &base).await;
    base.build.envd_version = "0.7.0".into();
    base.build.layers = vec!["other".into()];
    base.build.default_workdir = None;
    assert!(report(store, &base).await);
    assert_eq!(
        found(store, &base.alias).await,
        Some((base.alias.clone(), base.build.clone()))
    );
    // A build belongs to one template for good.
    let mut stolen = a_report(&new_alias(), 20);
    stolen.build.id = base.build.id;
    check_exists(store.template_report(&stolen, at(0, 0)).await);
    let missing = store.template_by_id(&stolen.build.template).await.unwrap();
    assert_eq!(missing, None, "a refused report leaves nothing");
}

pub async fn youngest_reported_build_wins(store: &dyn Store) {
    let base = a_report(&new_alias(), 10);
    let rebuilt = |created| {
        let mut report = base.clone();
        report.build.id = BuildId::random();
        report.build.created_at = at(created, 0);
        report
    };
    let (older, younger) = (rebuilt(5), rebuilt(15));
    report(store, &base).await;
    assert!(report(store, &older).await, "the build becomes known");
    assert_eq!(found(store, &base.alias).await.unwrap().1.id, base.build.id);
    assert!(report(store, &younger).await);
    for again in [&base, &older, &younger] {
        assert!(!report(store, again).await);
        let build = found(store, &base.alias).await.unwrap().1;
        assert_eq!(build.id, younger.build.id);
    }
}

pub async fn youngest_reported_template_takes_the_alias(store: &dyn Store) {
    let first = a_report(&new_alias(), 10);
    let (older, younger) = (a_report(&first.alias, 5), a_report(&first.alias, 15));
    report(store, &first).await;
    report(store, &older).await;
    assert_eq!(
        found(store, &first.alias).await.unwrap().1.id,
        first.build.id
    );
    report(store, &younger).await;
    for again in [&first, &older, &younger] {
        assert!(!report(store, again).await);
        let build = found(store, &first.alias).await.unwrap().1;
        assert_eq!(build.id, younger.build.id);
    }
    // Those that lost the alias are still found by id.
    let by_id = found(store, older.build.template.as_str()).await.unwrap();
    assert_eq!(by_id.1, older.build);
    let lost = store.template_by_id(&first.build.template).await.unwrap();
    assert_eq!(lost.unwrap().alias, None);
    let stock = store.template_list_stock().await.unwrap();
    assert!(stock.is_sorted_by_key(|one| one.template.id.clone()));
    let of = |report: &crate::NodeReport| {
        let mut rows = stock.iter();
        rows.find(|one| one.template.id == report.build.template)
    };
    assert!(of(&first).is_none() && of(&older).is_none());
    let row = of(&younger).unwrap();
    assert_eq!(row.names, [(None, first.alias.clone())]);
    let ready = row.ready.as_ref().map(|build| build.id);
    assert_eq!(ready, Some(younger.build.id));
}
