//! What time it is for the bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The bucket's clock, as its last answer told it; until then, and for folders, this machine's.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Inner);

#[derive(Debug, Clone)]
enum Inner {
    /// Seconds that the bucket is ahead.
    Ahead(Arc<AtomicI64>),
    /// Seconds since 1970 that a test sets.
    Set(Arc<AtomicU64>),
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self(Inner::Ahead(Arc::default()))
    }

    pub(crate) fn set_by(seconds: Arc<AtomicU64>) -> Self {
        Self(Inner::Set(seconds))
    }

    pub(crate) fn now(&self) -> SystemTime {
        match &self.0 {
            Inner::Ahead(ahead) => moved(SystemTime::now(), ahead.load(Ordering::Relaxed)),
            Inner::Set(seconds) => {
                UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed))
            }
        }
    }

    /// What time the bucket says it is.
    pub(crate) fn set(&self, time: SystemTime) {
        let Inner::Ahead(ahead) = &self.0 else { return };
        let now = SystemTime::now();
        let seconds = match time.duration_since(now) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX),
            Err(behind) => i64::try_from(behind.duration().as_secs()).map_or(i64::MIN, |s| -s),
        };
        ahead.store(seconds, Ordering::Relaxed);
    }
}

fn moved(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = match seconds < 0 {
        true => time.checked_sub(by),
        false => time.checked_add(by),
    };
    moved.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_knows_better() {
        let clock = Clock::system();
        for days in [9, -9] {
            let told = moved(SystemTime::now(), days * 24 * 3600);
            clock.set(told);
            let apart = clock
                .now()
                .duration_since(told)
                .unwrap_or_else(|e| e.duration());
            assert!(apart < Duration::from_secs(5));
        }
    }
}
