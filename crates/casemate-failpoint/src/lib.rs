//! Named places where a process of ours can be made to die, as if by `kill -9`.
//!
//! What a crash leaves depends on where it struck, and most places are microseconds wide: killing
//! at random hardly ever hits them. `casemate chaos` arms them one after the other. They are part
//! of every build, so that what is tested is what is shipped; unarmed, a point is one load.
//!
//! Owns the names and the dying. Whoever has a place calls [`hit`]; whoever starts a process of
//! ours hands [`environment`] on; every process calls [`arm_from_environment`] first. Only the
//! environment of `casemate up` arms anything, which is root's.

mod plan;
mod point;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use rustix::rand::GetRandomFlags;

pub use plan::{InvalidPlan, Plan};
pub use point::Point;

/// A [`Plan`] as text.
pub const PLAN: &str = "CASEMATE_INTERNAL_FAIL_POINTS";
/// A file that exists and everybody may write: each death adds the point's name as a line.
pub const LOG: &str = "CASEMATE_INTERNAL_FAIL_LOG";

/// Odds of each point in 1 of 2^32; 0 is never.
static ODDS: [AtomicU32; Point::ALL.len()] = [const { AtomicU32::new(0) }; Point::ALL.len()];
static DEATHS: OnceLock<File> = OnceLock::new();

/// Why points that were asked for are not armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    #[error("{PLAN}")]
    Plan(#[from] InvalidPlan),
    #[error("open {LOG}")]
    Log(#[source] std::io::Error),
}

/// Arms what the environment names. Answers with what was armed; nothing is the usual case.
pub fn arm_from_environment() -> Result<Plan, ArmError> {
    let Ok(text) = std::env::var(PLAN) else {
        return Ok(Plan::default());
    };
    let plan: Plan = text.parse()?;
    // Before any change of user, root or mounts; kept open for the same reason.
    if let Ok(path) = std::env::var(LOG) {
        let file = OpenOptions::new().append(true).open(path);
        let _ = DEATHS.set(file.map_err(ArmError::Log)?);
    }
    for (point, odds) in plan.iter() {
        ODDS[point as usize].store(odds, Ordering::Relaxed);
    }
    Ok(plan)
}

/// What a child needs to arm the same.
pub fn environment() -> impl Iterator<Item = (&'static str, String)> {
    [PLAN, LOG]
        .into_iter()
        .filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

/// Dies here, if the point is armed and its lot falls.
pub fn hit(point: Point) {
    let odds = ODDS[point as usize].load(Ordering::Relaxed);
    if odds != 0 && lot().is_some_and(|lot| lot < odds) {
        die(point);
    }
}

/// From the kernel by its system call: launchers are static, where a library that looks for the
/// C library's function finds none, and see no device file that it could read instead.
fn lot() -> Option<u32> {
    let mut bytes = [0; 4];
    let filled = rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| u32::from_ne_bytes(bytes))
}

#[cold]
fn die(point: Point) {
    if let Some(mut deaths) = DEATHS.get() {
        // One write, so that lines of several processes stay whole.
        let _ = deaths.write_all(format!("{point}\n").as_bytes());
    }
    // Nothing of ours runs after it: no destructor, no handler, no flush.
    let _ = kill_process(getpid(), Signal::KILL);
    // The signal of a process to itself is delivered before the call returns; in a pid namespace
    // whose first process we are it is not.
    std::process::abort();
}
