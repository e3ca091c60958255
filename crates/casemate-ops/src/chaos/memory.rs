//! What a sandbox must say of its files and its memory.

use std::time::{Duration, Instant};

/// Longest time in which the counting program must have counted on.
const COUNTS_WITHIN: Duration = Duration::from_secs(8);

/// Counts, and says with every number what its memory holds. Started twice it runs once: the
/// answer to the first start may have been lost.
pub(super) const COUNTER: &str = r#"
import hashlib, os, sys, time
try:
    os.close(os.open("/tmp/counter.lock", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    sys.exit(0)
memory = bytearray(hashlib.shake_256(sys.argv[1].encode()).digest(64 << 10))
n = 0
with open("/tmp/counter", "a") as file:
    while True:
        file.write(f"{n} {hashlib.sha256(memory).hexdigest()}\n")
        file.flush()
        n += 1
        time.sleep(0.2)
"#;

/// What was written into a sandbox and read from it so far.
#[derive(Default)]
pub(super) struct Memory {
    /// Marks that were written, and whether that was acknowledged.
    marks: Vec<(String, bool)>,
    digest: Option<String>,
    /// The last number, and when it was read.
    count: Option<(u64, Instant)>,
}

impl Memory {
    pub(super) fn wrote(&mut self, marks: &mut Vec<(String, bool)>) {
        self.marks.append(marks);
    }

    /// Compares what a look read, status and text, with what it must be.
    pub(super) fn judge(&mut self, code: i32, text: &str) -> Result<(), String> {
        let Some((marks, count)) = text.split_once("--\n") else {
            // The counting program may need a moment before it opens its file.
            let begins = code != 0 && self.count.is_none();
            return if begins {
                Ok(())
            } else {
                Err(format!("status {code}, read {text:?}"))
            };
        };
        let mut found = marks.lines().peekable();
        for (mark, acknowledged) in &self.marks {
            if found.peek() == Some(&mark.as_str()) {
                found.next();
            } else if *acknowledged {
                return Err(format!("its file lacks {mark}"));
            }
        }
        if let Some(more) = found.next() {
            return Err(format!(
                "its file has {more:?}, which nobody wrote, or wrote once"
            ));
        }
        let mut last = None;
        for (n, line) in count.lines().enumerate() {
            let Some((number, digest)) = line.split_once(' ') else {
                return Err(format!("its counter says {line:?}"));
            };
            if number.parse() != Ok(n) {
                return Err(format!("its counter says {number} after {n} numbers"));
            }
            let first = self.digest.get_or_insert_with(|| digest.to_owned());
            if first != digest {
                return Err(format!("its memory has changed at {number}"));
            }
            last = Some(n as u64);
        }
        let Some(last) = last else {
            return Ok(());
        };
        let now = Instant::now();
        if let Some((before, at)) = self.count {
            let stands = last == before && now.duration_since(at) > COUNTS_WITHIN;
            if last < before || stands {
                return Err(format!("its counter went from {before} to {last}"));
            }
            if last == before {
                return Ok(());
            }
        }
        self.count = Some((last, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(marks: &[(&str, bool)]) -> Memory {
        let mut memory = Memory::default();
        memory.wrote(&mut marks.iter().map(|(m, a)| ((*m).to_owned(), *a)).collect());
        memory
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_the_rest_may() {
        let marks = [("a", true), ("b", false), ("c", true)];
        assert_eq!(after(&marks).judge(0, "a\nb\nc\n--\n0 x\n1 x\n"), Ok(()));
        assert_eq!(after(&marks).judge(0, "a\nc\n--\n0 x\n"), Ok(()));
        for lie in ["a\nb\n--\n", "b\nc\n--\n", "a\nc\nd\n--\n", "a\na\nc\n--\n"] {
            assert!(after(&marks).judge(0, lie).is_err(), "{lie:?}");
        }
    }

    #[test]
    fn a_counter_never_skips_goes_back_or_forgets() {
        for lie in ["--\n0 x\n2 x\n", "--\n0 x\n1 y\n", "--\n1 x\n", "--\nx\n"] {
            assert!(after(&[]).judge(0, lie).is_err(), "{lie:?}");
        }
        let mut memory = after(&[]);
        assert_eq!(memory.judge(0, "--\n0 x\n1 x\n"), Ok(()));
        assert!(memory.judge(0, "--\n0 x\n").is_err());
        assert!(memory.judge(1, "").is_err());
    }
}
