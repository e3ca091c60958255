//! The port of rates, and the arithmetic of a token bucket.
//!
//! A bucket holds `burst` tokens and gains `per_second` of them each second. It is kept as one
//! number, the time at which it will be full again: a token moves that time on by `1/per_second`,
//! and is refused when it would come to lie further ahead than a full bucket's worth. The same
//! arithmetic stands in `redis/rate.lua`.

use std::time::Duration;

use async_trait::async_trait;

use crate::CatalogError;

/// Bytes of a bucket's name.
pub const RATE_KEY_BYTES_MAX: usize = 200;
/// The fastest rate, and the slowest that it may be divided by.
pub const RATE_PER_SECOND_MAX: f64 = 1_000_000.0;
/// The slowest rate: one in about twelve days.
pub const RATE_PER_SECOND_MIN: f64 = 0.000_001;
/// The largest bucket.
pub const RATE_BURST_MAX: u32 = 1_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second, in [`RATE_PER_SECOND_MIN`]`..=`[`RATE_PER_SECOND_MAX`].
    pub per_second: f64,
    /// Tokens that a full bucket has, in `1..=`[`RATE_BURST_MAX`].
    pub burst: u32,
}

/// What came of asking for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateTake {
    /// One was there.
    Taken {
        /// The bucket's size.
        limit: u32,
        /// Whole tokens that are left.
        remaining: u32,
        /// Until the bucket is full.
        reset: Duration,
    },
    /// There was none.
    Refused {
        /// The bucket's size.
        limit: u32,
        /// Until there is one.
        retry_after: Duration,
        /// Until the bucket is full.
        reset: Duration,
    },
    /// Nobody counts at the moment: let it pass.
    Uncounted,
}

#[async_trait]
pub trait Rates: Send + Sync {
    /// Takes one token of the bucket `key`, which is full when it was never used. Another rate than
    /// the last one counts from now on. Buckets that are full again are forgotten.
    /// [`CatalogError::Limit`] for what is outside this module's limits.
    async fn rate_take(&self, key: &str, rate: Rate) -> Result<RateTake, CatalogError>;
}

pub(crate) fn check_rate(key: &str, rate: Rate) -> Result<(), CatalogError> {
    if !(1..=RATE_KEY_BYTES_MAX).contains(&key.len()) {
        return Err(CatalogError::Limit {
            what: "the name of a bucket",
            limit: "1 to 200 bytes",
        });
    }
    // A rate that is no number is in no range.
    if !(RATE_PER_SECOND_MIN..=RATE_PER_SECOND_MAX).contains(&rate.per_second)
        || !(1..=RATE_BURST_MAX).contains(&rate.burst)
    {
        return Err(CatalogError::Limit {
            what: "a rate",
            limit: "0.000001 to 1000000 a second, a burst of 1 to 1000000",
        });
    }
    Ok(())
}

/// Takes a token `now`, in microseconds, of a bucket that is full at `full_at`; what came of it,
/// and when it is full now.
pub(crate) fn take(rate: Rate, full_at: Option<f64>, now: f64) -> (RateTake, f64) {
    let each = 1e6 / rate.per_second;
    let whole = each * f64::from(rate.burst);
    // A clock that was set back, or a smaller bucket than before, must not lock anybody out.
    let full_at = full_at.unwrap_or(now).clamp(now, now + whole);
    let next = full_at + each;
    let limit = rate.burst;
    // A rounding must not cost a token.
    let room = now + whole - next;
    if room < -0.5 {
        let refused = RateTake::Refused {
            limit,
            retry_after: micros(-room),
            reset: micros(full_at - now),
        };
        return (refused, full_at);
    }
    let taken = RateTake::Taken {
        limit,
        remaining: whole_tokens(room.max(0.0) / each),
        reset: micros(next - now),
    };
    (taken, next)
}

/// Tokens of a fraction of a bucket: at most [`RATE_BURST_MAX`], so the cast loses nothing but the
/// fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to RATE_BURST_MAX"
)]
pub(crate) fn whole_tokens(tokens: f64) -> u32 {
    (tokens + 1e-6).floor() as u32
}

/// Never negative, and at most a full bucket's time: 10^12 seconds.
pub(crate) fn micros(micros: f64) -> Duration {
    Duration::try_from_secs_f64(micros.max(0.0) / 1e6).unwrap_or(Duration::MAX)
}
