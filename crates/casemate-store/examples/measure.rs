//! Measures what a create and its neighbours cost in the store:
//! `cargo run --release -p casemate-store --example measure -- DIR [COUNT]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_store::sandboxes::FIRST_GENERATION;
use casemate_store::{
    BuildCache, BuildId, Builds, CreatedCursor, LimitOverrides, NewBuild, Order, Page, Sandbox,
    SandboxFilter, Sandboxes, SqliteStore, Standing, Team, Teams, TemplateOrder,
};
use casemate_types::template::DEFAULT_TAG;
use casemate_types::{
    BuildFailure, EndReason, Ingress, LayerId, NetworkPolicy, OnTimeout, Resources, SandboxId,
    SandboxState, TeamId, TemplateId, Timestamp,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: measure DIR [COUNT]")?);
    let count: usize = args.next().map_or(Ok(2000), |text| text.parse())?;
    let store = Arc::new(SqliteStore::open(&dir.join("measure.sqlite")).await?);
    let team = TeamId::parse(&BuildId::random().to_string())?;
    store
        .team_insert(&Team {
            id: team.clone(),
            slug: team.to_string(),
            name: "measured".into(),
            standing: Standing::Good,
            limits: LimitOverrides::default(),
            created_at: Timestamp::now(),
        })
        .await?;

    let rows: Vec<Sandbox> = (0..count).map(|_| a_sandbox(&team)).collect();
    let mut times = Vec::new();
    for row in &rows {
        let start = Instant::now();
        store.sandbox_insert(row, None).await?;
        times.push(start.elapsed());
    }
    report("insert, one after the other", times);

    let start = Instant::now();
    let burst: Vec<_> = (0..100)
        .map(|_| {
            let (store, row) = (Arc::clone(&store), a_sandbox(&team));
            tokio::spawn(async move { store.sandbox_insert(&row, None).await })
        })
        .collect();
    for task in burst {
        task.await??;
    }
    println!("100 inserts at once: {:?}", start.elapsed());

    let mut times = Vec::new();
    for row in &rows {
        let start = Instant::now();
        store.sandbox_by_id(&row.id).await?;
        times.push(start.elapsed());
    }
    report("by id", times);

    let page = Page {
        order: Order::NewestFirst,
        after: None,
        rows_max: 101,
    };
    let mut filter = SandboxFilter::running(team.clone());
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        store.sandbox_page(&filter, &page).await?;
        times.push(start.elapsed());
    }
    report("first page of 100", times);
    filter.metadata = BTreeMap::from([("run".into(), "nothing".into())]);
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        store.sandbox_count(&filter).await?;
        times.push(start.elapsed());
    }
    report("count with a metadata pair that none has", times);
    let mut times = Vec::new();
    let running = SandboxFilter::running(team.clone());
    for _ in 0..50 {
        let start = Instant::now();
        store.sandbox_count(&running).await?;
        times.push(start.elapsed());
    }
    report("count of running", times);

    let mut times = Vec::new();
    for row in &rows {
        let (generation, now) = (row.generation, Timestamp::now());
        let start = Instant::now();
        let end = store.sandbox_end(&row.id, generation, EndReason::Killed, now);
        end.await?;
        times.push(start.elapsed());
    }
    report("end", times);
    measure_templates(&store, &team, count).await?;
    store.close().await;
    Ok(())
}

/// Requests, pages and sweeps with as many templates, each with a build that waits.
async fn measure_templates(
    store: &SqliteStore,
    team: &TeamId,
    count: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    for number in 0..count {
        let now = Timestamp::now();
        let new = NewBuild {
            team: team.clone(),
            namespace: team.to_string(),
            alias: format!("template-{number}"),
            tags: vec![DEFAULT_TAG.into()],
            build: BuildId::random(),
            template: TemplateId::random(),
            resources: Resources::BASE,
            at: now,
            builds_max: u32::MAX,
            counted_from: now,
            waiting_counted_from: now,
            superseded: BuildFailure {
                message: String::new(),
                step: None,
            },
        };
        let start = Instant::now();
        store.build_request(&new).await?;
        times.push(start.elapsed());
    }
    report("request of a build", times);
    let (mut times, mut after) = (Vec::new(), None);
    loop {
        let start = Instant::now();
        let order = TemplateOrder::NewestFirst;
        let page = store
            .template_page(team, order, after.as_ref(), 101)
            .await?;
        times.push(start.elapsed());
        let Some(last) = page.last() else { break };
        after = Some(CreatedCursor {
            created_at: last.template.created_at,
            id: last.template.id.to_string(),
        });
    }
    let last = times[times.len().saturating_sub(2)];
    println!("first page of templates: {:?}, last: {last:?}", times[0]);
    report("page of 100 templates", times);
    let layers: Vec<LayerId> = (0..count).map(|_| LayerId::random()).collect();
    let start = Instant::now();
    store.layer_wanted(&layers).await?;
    println!("layers that are wanted: {:?}", start.elapsed());
    Ok(())
}

fn a_sandbox(team: &TeamId) -> Sandbox {
    let now = Timestamp::now();
    Sandbox {
        id: SandboxId::random(),
        team: team.clone(),
        template: TemplateId::random(),
        alias: Some("base".into()),
        build: BuildId::random(),
        node: "node-1".into(),
        envd_version: "0.6.12".into(),
        resources: Resources::BASE,
        metadata: BTreeMap::from([("run".into(), "1".into()), ("user".into(), "a".into())]),
        secured: true,
        network: NetworkPolicy::default(),
        ingress: Ingress::default(),
        envs: None,
        timeout: Duration::from_secs(300),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        started_at: now,
        state: SandboxState::Running { ends_at: now },
        generation: FIRST_GENERATION,
        stored_files: None,
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?} ({} times)",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}
