//! Whether an installation keeps its word while its processes are killed.
//!
//! ```text
//! load:    create ─▶ a program that counts ─▶ look at its files and memory … ─▶ kill, or expire
//!          from base or a snapshot            pause, resume, wake, snapshot, fork
//!          build a template ─▶ begin with it … ─▶ delete it
//! murders: start `up` with one point armed ─▶ a death there, some at random ─▶ start it again …
//! ```
//!
//! What a client was told must stay true: a sandbox that was acknowledged runs on, with its files,
//! its memory and without a gap, until its client or its deadline ends it, and is listed; one that
//! was paused stands still with what was to be kept, and goes on with that; a snapshot can be begun
//! with and holds what its sandbox had written, no more and no less, until it is deleted; so can a
//! template whose build was told to be ready, with what its step wrote; one that
//! has ended is not there, and in the end nothing is. A call may fail while nobody is there to answer; it may not lie. What is found
//! is counted and told, nothing is asserted here.
//!
//! Owns the installation that it starts, and clears it away.

mod asking;
mod error;
mod ledger;
mod life;
mod lot;
mod memory;
mod platform;
mod report;
mod resting;
mod snapshots;
mod templates;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_failpoint::{Plan, Point};
use tokio::task::JoinSet;

pub use error::ChaosError;
pub use report::Report;

use ledger::Ledger;
use platform::{Platform, Victim};
use world::World;

/// What to do, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `casemate` program.
    pub program: PathBuf,
    /// Of the installation: nothing may be there, and nothing is left.
    pub data_dir: PathBuf,
    /// An archive of the base template; without one the first start makes it.
    pub base: Option<PathBuf>,
    /// Goes on until so many processes were killed, and one at least at every point.
    pub kills: u64,
    /// Sandboxes at the same time, about.
    pub sandboxes: usize,
}

/// Of an armed point, at each hit.
const PROBABILITY: f64 = 0.3;
/// Points that are armed in one start. A death of the node is the last one there; one of control
/// leaves the other.
const ARMED: usize = 2;
/// How long one start of the platform is given for its points to be hit.
const ROUND: Duration = Duration::from_secs(8);
/// How often it is looked whether it was.
const LOOK: Duration = Duration::from_millis(50);
/// After a death the platform gets a moment to mend itself before the next one.
const BREATH_MS: std::ops::Range<u64> = 200..1500;
/// Starts in a row that get nowhere; a point at the start is armed again and again.
const STARTS_MAX: u32 = 12;
/// Rounds for one point that it is not reached in; then the report says so. A point that is passed
/// once in a start is missed by seven starts of ten, and by one row of so many in five thousand.
const ROUNDS_PER_POINT_MAX: u64 = 24;

/// Runs it, telling `progress` how far it is, in percent, and what it does. With `stop` it is over
/// early: the report then says what was found until then, and that the run was no good.
pub async fn run(
    options: &Options,
    progress: &(dyn Fn(u8, &str) + Sync),
    stop: impl Future<Output = ()>,
) -> Result<Report, ChaosError> {
    let mut platform = Platform::new(options)?;
    let (ledger, begun) = (Arc::default(), Instant::now());
    let done = tokio::select! {
        // Dropped at a stop, with the load.
        done = murder(options, &mut platform, &ledger, progress) => Some(done),
        () = stop => None,
    };
    let is_stopped = done.is_none();
    let report = platform.deaths().map(|deaths| {
        let outage = platform.longest_outage();
        Report::new(&ledger, deaths, begun.elapsed(), outage, is_stopped)
    });
    // Whatever happened, nothing of it stays; what failed first is what is told.
    let cleared = platform.clear_away().await;
    done.unwrap_or(Ok(()))?;
    let mut report = report?;
    cleared?;
    if report.is_good() || is_stopped && report.is_clean() {
        platform.forget_log();
    } else {
        report.log = Some(platform.log().to_owned());
    }
    Ok(report)
}

async fn murder(
    options: &Options,
    platform: &mut Platform,
    ledger: &Arc<Ledger>,
    progress: &(dyn Fn(u8, &str) + Sync),
) -> Result<(), ChaosError> {
    progress(0, "the first start");
    platform.start(&Plan::default()).await?;
    let world = Arc::new(World::new(platform.server()?, Arc::clone(ledger)));
    world.calm_templates().await;
    let fresh = platform.stocked().await?;
    let mut load = JoinSet::new();
    for _ in 0..options.sandboxes {
        load.spawn(life::sandboxes(Arc::clone(&world)));
    }
    load.spawn(life::lists(Arc::clone(&world)));
    load.spawn(templates::templates(Arc::clone(&world)));

    let mut rounds = vec![0_u64; Point::ALL.len()];
    loop {
        let deaths = platform.deaths()?;
        let killed = deaths.values().sum::<u64>() + ledger.murders();
        let left = |point: &Point| !deaths.contains_key(point);
        let hopeful = |point: &Point| rounds[*point as usize] < ROUNDS_PER_POINT_MAX;
        let missing = Point::ALL.iter().filter(|p| left(p) && hopeful(p)).count();
        if killed >= options.kills && missing == 0 {
            break;
        }
        let percent = killed.min(options.kills) * 100 / options.kills.max(1);
        progress(
            u8::try_from(percent.min(99)).unwrap_or(99),
            &format!("{killed} kills, {missing} points not reached yet"),
        );
        let mut next = Point::ALL.to_vec();
        next.sort_by_key(|point| {
            let died = deaths.get(point).copied().unwrap_or_default();
            (died, rounds[*point as usize])
        });
        next.truncate(ARMED);
        for point in &next {
            rounds[*point as usize] += 1;
        }
        round(platform, &next).await?;
        // What is left then are points alone.
        if killed < options.kills {
            kill_at_random(platform, ledger).await?;
        }
    }

    progress(99, "the end of the load");
    platform.restart(&Plan::default()).await?;
    world.end();
    while let Some(ended) = load.join_next().await {
        ended.map_err(ChaosError::Load)?;
    }
    world.last_look(platform, &fresh).await
}

/// One start with these points armed, until somebody died at each or nobody is left.
async fn round(platform: &mut Platform, points: &[Point]) -> Result<(), ChaosError> {
    let deaths = |platform: &Platform| -> Result<Vec<u64>, ChaosError> {
        let deaths = platform.deaths()?;
        let of = |point| deaths.get(point).copied().unwrap_or_default();
        Ok(points.iter().map(of).collect())
    };
    let before = deaths(platform)?;
    let plan = Plan::of(points.iter().copied(), PROBABILITY);
    platform.restart_against(&plan, STARTS_MAX).await?;
    let deadline = Instant::now() + ROUND;
    while platform.runs() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        if deaths(platform)?
            .iter()
            .zip(&before)
            .all(|(now, then)| now > then)
        {
            break;
        }
    }
    Ok(())
}

async fn kill_at_random(platform: &mut Platform, ledger: &Ledger) -> Result<(), ChaosError> {
    tokio::time::sleep(Duration::from_millis(lot::between(BREATH_MS))).await;
    let victim = Victim::ALL[lot::index(Victim::ALL.len())];
    if platform.kill(victim)? {
        ledger.murder(victim);
    }
    if victim.is_a_child() {
        tokio::time::sleep(Duration::from_millis(lot::between(BREATH_MS))).await;
    }
    Ok(())
}
