//! How fast output is streamed, over all processes together. Without a bound one program that
//! writes without end takes all the processor time there is, most of it outside the limits of its
//! sandbox: in the proxies on the way and in whoever reads the stream.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::limits::{OUTPUT_BURST, OUTPUT_BYTES_PER_SECOND, OUTPUT_MESSAGE_BYTES};

/// Each message costs time, by its length. What was sent is on time as long as it is no more than
/// a burst ahead (the generic cell rate algorithm, ITU-T I.371 annex A).
#[derive(Default)]
pub struct Pace {
    /// When all that was sent would have been sent, at the allowed rate without bursts.
    due: Cell<Option<Instant>>,
}

impl Pace {
    /// Counts a message of `bytes` that was sent to so many readers: how long to wait from `now` on
    /// before the next read.
    pub fn count(&self, bytes: usize, readers: u32, now: Instant) -> Duration {
        let due = self.due.get().map_or(now, |due| due.max(now)) + cost(bytes) * readers;
        self.due.set(Some(due));
        due.saturating_duration_since(now)
            .saturating_sub(OUTPUT_BURST)
    }
}

fn cost(bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes.max(OUTPUT_MESSAGE_BYTES)).unwrap_or(u64::MAX);
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / OUTPUT_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIPE_CHUNK_BYTES;

    /// How many bytes are read in `seconds`, by one who waits as told.
    fn streamed(pace: &Pace, from: Instant, seconds: u64, piece: usize) -> u64 {
        let (mut now, mut count) = (from, 0);
        while now < from + Duration::from_secs(seconds) {
            count += piece as u64;
            now += pace.count(piece, 1, now);
            // Reading takes time too.
            now += Duration::from_micros(10);
        }
        count
    }

    #[test]
    fn a_burst_is_free_and_what_follows_is_paced() {
        let (pace, start) = (Pace::default(), Instant::now());
        let burst = OUTPUT_BYTES_PER_SECOND * OUTPUT_BURST.as_millis() as u64 / 1000;
        let mut free = 0;
        while pace.count(PIPE_CHUNK_BYTES, 1, start).is_zero() {
            free += PIPE_CHUNK_BYTES as u64;
        }
        assert_eq!(
            free / PIPE_CHUNK_BYTES as u64,
            burst / PIPE_CHUNK_BYTES as u64
        );
        let paced = streamed(&pace, start, 4, PIPE_CHUNK_BYTES);
        let expected = 4 * OUTPUT_BYTES_PER_SECOND;
        assert!(
            paced.abs_diff(expected) < expected / 100,
            "{paced} {expected}"
        );
    }

    #[test]
    fn after_a_rest_there_is_a_burst_again_and_no_more() {
        let (pace, start) = (Pace::default(), Instant::now());
        streamed(&pace, start, 2, PIPE_CHUNK_BYTES);
        let later = start + Duration::from_secs(3600);
        let once = streamed(&pace, later, 1, PIPE_CHUNK_BYTES);
        let burst = OUTPUT_BYTES_PER_SECOND * OUTPUT_BURST.as_millis() as u64 / 1000;
        let expected = OUTPUT_BYTES_PER_SECOND + burst;
        assert!(once.abs_diff(expected) < expected / 50, "{once} {expected}");
    }

    #[test]
    fn each_reader_costs() {
        let now = Instant::now();
        let (one, ten) = (Pace::default(), Pace::default());
        for _ in 0..1000 {
            one.count(PIPE_CHUNK_BYTES, 10, now);
        }
        let many = (0..10_000).map(|_| ten.count(PIPE_CHUNK_BYTES, 1, now));
        assert_eq!(one.count(0, 0, now), many.last().unwrap());
    }

    #[test]
    fn small_messages_cost_as_much_as_larger_ones() {
        let (pace, start) = (Pace::default(), Instant::now());
        streamed(&pace, start, 2, 1);
        let messages = streamed(&pace, start + Duration::from_secs(2), 1, 1);
        let expected = OUTPUT_BYTES_PER_SECOND / OUTPUT_MESSAGE_BYTES as u64;
        assert!(
            messages.abs_diff(expected) < expected / 50,
            "{messages} {expected}"
        );
    }
}
