//! Time that nobody sets: what lives and deadlines of sandboxes are counted in.
//!
//! The wall clock jumps: it is corrected after a boot, a virtual machine is resumed, somebody types
//! a date. A deadline that was written down by it would come an hour early, or never. So deadlines,
//! and what is compared with them, are kept in *steady time*: the kernel's time since the boot,
//! which also counts while the machine is suspended, from an origin that is fixed once in a boot.
//! It reads like the wall clock of that moment and is a [`Timestamp`] as well, so that whatever is
//! stored needs no other form; [`to_wall`] makes of it what the wall clock says of the same moment
//! now. Only answers and the history have wall time.
//!
//! All processes of a machine must have the same origin: whoever starts them fixes it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Jumps below this are none: two clocks are never read at the same moment, and what is shown of a
/// sandbox must not flicker.
const JUMP_MIN_US: i64 = 50_000;

/// Microseconds from the boot's start to the epoch of the wall clock as it was then.
static ORIGIN: OnceLock<i64> = OnceLock::new();
/// By how much the wall clock has jumped since, microseconds.
static JUMPED: AtomicI64 = AtomicI64::new(0);
/// Whether that is told by [`follow_wall`], and not by this machine's clock.
static FOLLOWS: AtomicBool = AtomicBool::new(false);

/// A question to a clock that runs elsewhere, and its answer; in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When it was asked, since the boot.
    pub asked: i64,
    /// When the answer was there, since the boot.
    pub answered: i64,
    /// What it said.
    pub said: i64,
}

impl Exchange {
    pub fn round_trip(&self) -> i64 {
        self.answered.saturating_sub(self.asked)
    }

    /// The other clock's origin. It said what it said at some moment in between: in the middle of it
    /// this is wrong by half of the round trip at most.
    pub fn origin(&self) -> i64 {
        let middle = self.asked.saturating_add(self.round_trip() / 2);
        self.said.saturating_sub(middle)
    }
}

/// Seconds since 1970 between which a moment lies that another process names: the years 1900 to 9000. A
/// clock may be off by decades; beyond these, no span can be added and databases cannot say it.
const MOMENTS: std::ops::Range<i64> = -2_208_988_800..221_845_392_000;

/// A moment as another process tells it, for serde's `deserialize_with`. What reckons with it may add
/// spans to it: one that leaves no room for that would end whoever does.
pub fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let told = Timestamp::deserialize(from)?;
    match MOMENTS.contains(&told.as_second()) {
        true => Ok(told),
        false => Err(D::Error::custom("a moment that no clock shows")),
    }
}

/// The origin of this process; fixed by the first call of anything here if nobody did before.
pub fn origin() -> i64 {
    *ORIGIN.get_or_init(offset)
}

/// Fixes the origin; `false` if that was done and it is another one.
pub fn set_origin(origin: i64) -> bool {
    *ORIGIN.get_or_init(|| origin) == origin
}

/// What an origin would be that is fixed now.
pub fn offset() -> i64 {
    Timestamp::now().as_microsecond() - since_boot_us()
}

/// From now on the wall clock is another machine's, whose origin is this. Servers that answer for one
/// another must say the same of one moment.
pub fn follow_wall(origin_of_wall: i64) {
    FOLLOWS.store(true, Ordering::Relaxed);
    note_jump(origin_of_wall - origin());
}

/// Now, in steady time.
pub fn now() -> Timestamp {
    Timestamp::from_microsecond(origin().saturating_add(since_boot_us())).unwrap_or(Timestamp::MAX)
}

/// What the wall clock says, or would say, at a moment of steady time.
pub fn to_wall(steady: Timestamp) -> Timestamp {
    let jumped = SignedDuration::from_micros(jumped_us());
    steady.saturating_add(jumped).unwrap_or(Timestamp::MAX)
}

/// The moment of steady time at which the wall clock says, or would say, this.
pub fn from_wall(wall: Timestamp) -> Timestamp {
    let jumped = SignedDuration::from_micros(jumped_us());
    wall.saturating_sub(jumped).unwrap_or(Timestamp::MIN)
}

fn jumped_us() -> i64 {
    match FOLLOWS.load(Ordering::Relaxed) {
        true => JUMPED.load(Ordering::Relaxed),
        false => note_jump(offset() - origin()),
    }
}

/// What it is held to be.
fn note_jump(measured: i64) -> i64 {
    let known = JUMPED.load(Ordering::Relaxed);
    if (measured - known).abs() < JUMP_MIN_US {
        return known;
    }
    JUMPED.store(measured, Ordering::Relaxed);
    measured
}

/// Microseconds since the machine booted.
pub fn since_boot_us() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_others_leave_room_for_spans() {
        #[derive(Deserialize)]
        struct Told(#[serde(deserialize_with = "moment")] Timestamp);
        let read = |text: &str| serde_json::from_str::<Told>(&format!("\"{text}\""));
        for good in [
            "1970-01-01T00:00:00Z",
            "1969-12-31T10:00:00Z",
            "2187-01-01T00:00:00Z",
        ] {
            let told = read(good).unwrap().0;
            assert!(
                told.checked_add(SignedDuration::from_hours(24 * 365))
                    .is_ok()
            );
        }
        for bad in [Timestamp::MAX, Timestamp::MIN] {
            assert!(read(&bad.to_string()).is_err(), "{bad}");
        }
        assert!(read("yesterday").is_err());
    }

    #[test]
    fn without_a_jump_steady_time_is_the_wall_clocks() {
        let apart = now().duration_since(Timestamp::now());
        assert!(apart.unsigned_abs().as_millis() < 50, "{apart:?}");
        let moment = now();
        assert_eq!(to_wall(moment), moment);
        assert_eq!(from_wall(moment), moment);
        assert!(set_origin(origin()) && !set_origin(origin() + 1));
        // Another machine's, which is a minute ahead and then put right but for a little.
        follow_wall(origin() + 60_000_000);
        let minute = SignedDuration::from_secs(60);
        assert_eq!(to_wall(moment), moment + minute);
        assert_eq!(from_wall(moment + minute), moment);
        follow_wall(origin() + JUMP_MIN_US - 1);
        assert_eq!(
            to_wall(moment),
            moment + SignedDuration::from_micros(JUMP_MIN_US - 1)
        );
        follow_wall(origin());
        assert_eq!(
            to_wall(moment),
            moment + SignedDuration::from_micros(JUMP_MIN_US - 1)
        );
    }
}
