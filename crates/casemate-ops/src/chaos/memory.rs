//! What a sandbox must say of its files and its memory.

use std::time::{Duration, Instant};

/// Longest time in which the counting program must have counted on.
const COUNTS_WITHIN: Duration = Duration::from_secs(8);
/// It counts no faster than this.
const COUNTS_EVERY: Duration = Duration::from_millis(200);

/// Counts, and says with every number what its memory holds. Started twice it runs once: the
/// answer to the first start may have been lost. Named by its second word, for files of a former
/// one may be there.
pub(super) const COUNTER: &str = r#"
import hashlib, os, sys, time
file = "/tmp/counter-" + sys.argv[2]
try:
    os.close(os.open(file + ".lock", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    sys.exit(0)
memory = bytearray(hashlib.shake_256(sys.argv[1].encode()).digest(64 << 10))
n = 0
with open(file, "a") as file:
    while True:
        file.write(f"{n} {hashlib.sha256(memory).hexdigest()}\n")
        file.flush()
        n += 1
        time.sleep(0.2)
"#;

/// What was written into a sandbox and read from it so far.
#[derive(Default)]
pub(super) struct Memory {
    files: Files,
    counter: Option<Counter>,
}

/// What is in its files, and so in a snapshot of it.
#[derive(Debug, Default, Clone)]
pub(super) struct Files {
    /// Marks that were written, and whether that was acknowledged.
    marks: Vec<(String, bool)>,
    /// A file of random bytes: the word in its name, and its digest.
    pub(super) blob: Option<(String, String)>,
}

/// What is known of the program that counts.
#[derive(Debug)]
pub(super) struct Counter {
    /// In the name of its file.
    pub(super) word: String,
    begun: Instant,
    digest: Option<String>,
    /// The last number, and when it was read.
    count: Option<(u64, Instant)>,
    /// How long it was known to stand still, and how often.
    asleep: (Duration, u64),
}

impl Counter {
    pub(super) fn new(word: String) -> Self {
        Self {
            word,
            begun: Instant::now(),
            digest: None,
            count: None,
            asleep: (Duration::ZERO, 0),
        }
    }

    /// The highest number that it can have come to, were it never held up. A sleep that was cut by
    /// standing still is over at once.
    fn most(&self) -> u64 {
        let (asleep, times) = self.asleep;
        let awake = self.begun.elapsed().saturating_sub(asleep);
        let most = awake.as_millis() / COUNTS_EVERY.as_millis();
        u64::try_from(most).unwrap_or(u64::MAX) + times + 1
    }
}

impl Memory {
    /// Of a sandbox that begins with these.
    pub(super) fn of(files: Files) -> Self {
        Self {
            files,
            counter: None,
        }
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn has(&mut self, blob: (String, String)) {
        self.files.blob = Some(blob);
    }

    pub(super) fn counts(&mut self, counter: Counter) {
        self.counter = Some(counter);
    }

    pub(super) fn wrote(&mut self, marks: &mut Vec<(String, bool)>) {
        self.files.marks.append(marks);
    }

    /// It stood still for so long.
    pub(super) fn slept(&mut self, long: Duration) {
        if let Some(counter) = &mut self.counter {
            counter.asleep.0 += long;
            counter.asleep.1 += 1;
            if let Some((_, at)) = &mut counter.count {
                *at = Instant::now();
            }
        }
    }

    /// Writes a mark and reads everything.
    pub(super) fn script(&self, mark: &str) -> String {
        let mut script = format!("echo {mark} >>/home/user/marks && cat /home/user/marks");
        if let Some((word, _)) = &self.files.blob {
            script += &format!(" && echo -- && sha256sum </home/user/blob-{word}");
        }
        if let Some(counter) = &self.counter {
            script += &format!(" && echo -- && cat /tmp/counter-{}", counter.word);
        }
        script
    }

    /// Compares what a look read, status and text, with what it must be.
    pub(super) fn judge(&mut self, code: i32, text: &str) -> Result<(), String> {
        let counted = self.counter.as_ref().is_some_and(|one| one.count.is_some());
        // The counting program may need a moment before it opens its file.
        if code != 0 && (counted || self.counter.is_none()) {
            return Err(format!("status {code}, read {text:?}"));
        }
        let mut parts = text.split("--\n");
        self.files.judge_marks(parts.next().unwrap_or_default())?;
        if let Some((word, digest)) = &self.files.blob {
            let said = parts.next().and_then(|said| said.split(' ').next());
            if said != Some(digest) {
                return Err(format!("its blob-{word} is {said:?} and not {digest}"));
            }
        }
        match (&mut self.counter, parts.next()) {
            (Some(counter), Some(count)) => counter.judge(count),
            (Some(_), None) if code == 0 => Err("its counter says nothing".to_owned()),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

impl Files {
    fn judge_marks(&self, marks: &str) -> Result<(), String> {
        let mut found = marks.lines().peekable();
        for (mark, acknowledged) in &self.marks {
            if found.peek() == Some(&mark.as_str()) {
                found.next();
            } else if *acknowledged {
                return Err(format!("its file lacks {mark}"));
            }
        }
        match found.next() {
            None => Ok(()),
            Some(more) => Err(format!(
                "its file has {more:?}, which nobody wrote, or wrote once"
            )),
        }
    }
}

impl Counter {
    fn judge(&mut self, count: &str) -> Result<(), String> {
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
        if last > self.most() {
            let most = self.most();
            return Err(format!(
                "its counter is at {last} and cannot be above {most}: it counted while it was paused"
            ));
        }
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
        let mut counter = Counter::new("w".to_owned());
        counter.begun -= Duration::from_secs(1);
        memory.counts(counter);
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

    #[test]
    fn a_counter_does_not_count_while_it_stands_still() {
        let counts = "--\n0 x\n1 x\n2 x\n3 x\n4 x\n";
        assert_eq!(after(&[]).judge(0, counts), Ok(()));
        let mut slept = after(&[]);
        slept.slept(Duration::from_millis(900));
        assert!(slept.judge(0, counts).is_err());
    }

    #[test]
    fn what_a_snapshot_holds_is_what_its_sandbox_wrote_until_then() {
        let mut before = after(&[("a", true)]);
        before.has(("w".to_owned(), "abc".to_owned()));
        let mut begun = Memory::of(before.files().clone());
        assert_eq!(begun.judge(0, "a\n--\nabc  -\n"), Ok(()));
        assert!(begun.judge(0, "a\nb\n--\nabc  -\n").is_err());
        assert!(begun.judge(0, "a\n--\nabd  -\n").is_err());
    }
}
