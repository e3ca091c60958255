//! The first and the last page of a long list of sandboxes, as control reads them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use casemate_control::RootSecret;
use casemate_control::keys::Keys;
use casemate_control::sandboxes::list::{RowsAsk, rows};
use casemate_store::sandboxes::FIRST_GENERATION;
use casemate_store::{
    BuildId, LimitOverrides, Order, Sandbox, SandboxFilter, Standing, Store, Team,
};
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_types::{
    Ingress, NetworkPolicy, OnTimeout, Resources, SandboxId, SandboxState, TeamId, TemplateId,
    Timestamp,
};
use futures_util::future::join_all;

use super::{Alone, Figures, Notes};
use crate::bench::error::{BenchError, Cause};
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Rows that are written at the same time.
const AT_ONCE: usize = 16;

pub(super) async fn measure(
    options: &Alone,
    figures: &mut Figures,
    notes: &mut Notes,
) -> Result<(), BenchError> {
    let keys = RootSecret::new(vec![7; 32]).map_err(store)?;
    let keys = Keys::derive(&keys);
    let count = options.rows;
    for (name, at) in &options.stores {
        let filter = fill(&**at, count).await?;
        let (tokens, walked) = walk(&**at, &keys, &filter).await?;
        let (first, middle) = (None, tokens.get(tokens.len() / 2));
        let (mut pages, mut counted) = ([(); 3].map(|()| Samples::default()), Samples::default());
        for _ in 0..options.count {
            // In turn, so that a slow moment of the machine is all of theirs.
            let starts = [first, middle, tokens.last()];
            for (samples, token) in pages.iter_mut().zip(starts) {
                let begun = Instant::now();
                page(&**at, &keys, &filter, token.map(String::as_str)).await?;
                samples.push_duration(begun.elapsed());
            }
            let begun = Instant::now();
            at.sandbox_count(&filter).await.map_err(store)?;
            counted.push_duration(begun.elapsed());
        }
        let [first, middle, last] = pages;
        figures.push(Figure::time(
            &format!("page 1 of {count} sandboxes, {name}"),
            &first,
        ));
        for (which, samples) in [("the middle page", middle), ("the last page", last)] {
            let figure = Figure::time(&format!("· {which}"), &samples);
            figures.push(figure.beside("page 1", &first).at_most(first.p50() * 1.5));
        }
        figures.push(Figure::time("· how many run (`X-Total-Running`)", &counted));
        notes.push(format!(
            "{name}: all {} pages one after the other took {:.2} s",
            tokens.len() + 1,
            walked.as_secs_f64()
        ));
    }
    Ok(())
}

fn store(error: impl Into<Cause>) -> BenchError {
    BenchError::Store(error.into())
}

async fn page(
    at: &dyn Store,
    keys: &Keys,
    filter: &SandboxFilter,
    token: Option<&str>,
) -> Result<Option<String>, BenchError> {
    let ask = RowsAsk {
        filter,
        order: Order::NewestFirst,
        limit: PAGE_ROWS_MAX,
        token,
    };
    let (_, next) = rows(at, keys, &ask).await.map_err(store)?;
    Ok(next)
}

/// The tokens of all pages after the first.
async fn walk(
    at: &dyn Store,
    keys: &Keys,
    filter: &SandboxFilter,
) -> Result<(Vec<String>, Duration), BenchError> {
    let begun = Instant::now();
    let mut tokens: Vec<String> = Vec::new();
    while let Some(next) = page(at, keys, filter, tokens.last().map(String::as_str)).await? {
        tokens.push(next);
    }
    Ok((tokens, begun.elapsed()))
}

/// This many sandboxes of a team of their own.
async fn fill(at: &dyn Store, count: usize) -> Result<SandboxFilter, BenchError> {
    let team = TeamId::parse(&BuildId::random().to_string()).map_err(store)?;
    let of = Team {
        id: team.clone(),
        slug: team.to_string(),
        name: "measured".into(),
        standing: Standing::Good,
        limits: LimitOverrides::default(),
        created_at: Timestamp::now(),
    };
    at.team_insert(&of).await.map_err(store)?;
    let begin = Timestamp::now().as_microsecond();
    let numbers: Vec<i64> = (0..).take(count).collect();
    for some in numbers.chunks(AT_ONCE) {
        let write = async |number: &i64| {
            let row = sandbox(&team, begin + number).map_err(store)?;
            at.sandbox_insert(&row, None).await.map_err(store)
        };
        for written in join_all(some.iter().map(write)).await {
            written?;
        }
    }
    Ok(SandboxFilter::running(team))
}

fn sandbox(team: &TeamId, started_us: i64) -> Result<Sandbox, Cause> {
    let started_at = Timestamp::from_microsecond(started_us)?;
    Ok(Sandbox {
        id: SandboxId::random(),
        team: team.clone(),
        template: TemplateId::random(),
        alias: Some("base".into()),
        build: BuildId::random(),
        node: "node-1".into(),
        envd_version: "0.6.13".into(),
        resources: Resources::BASE,
        metadata: BTreeMap::from([("run".into(), "1".into()), ("user".into(), "a".into())]),
        secured: true,
        network: NetworkPolicy::default(),
        ingress: Ingress::default(),
        envs: None,
        timeout: Duration::from_secs(300),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        started_at,
        state: SandboxState::Running {
            ends_at: started_at,
        },
        generation: FIRST_GENERATION,
        stored_files: None,
    })
}
