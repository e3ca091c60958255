//! Values that are read from the output of a login shell.
//!
//! The image's own profile runs first, and may print what it likes, on standard output, too. So a
//! value stands between two marks that nobody can know, and what is outside of them is nobody's.

use super::BuildError;

/// What a command may print for a value that is read; more is an error.
pub(super) const VALUE_BYTES_MAX: usize = 128 * 1024;

/// Two marks, and what was found between them so far.
pub(super) struct Between {
    begin: Vec<u8>,
    end: Vec<u8>,
    /// Before the first mark the end of the noise that may be the mark's begin; then the value, and
    /// perhaps the begin of the second one.
    found: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Inside,
    Behind,
}

impl Between {
    /// With new marks.
    pub(super) fn random() -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel's random source answers once booted");
        let mark = hex::encode(random);
        Self::new(format!("<{mark}>"), format!("</{mark}>"))
    }

    fn new(begin: String, end: String) -> Self {
        Self {
            begin: begin.into_bytes(),
            end: end.into_bytes(),
            found: Vec::new(),
            place: Place::Before,
        }
    }

    /// A script that prints the marks around what `script` prints. Its status is the script's, and
    /// what that sets, or whether it exits, is its own affair.
    pub(super) fn around(&self, script: &str) -> String {
        let [begin, end] = [&self.begin, &self.end].map(|mark| String::from_utf8_lossy(mark));
        // No `exit`: at one a login shell reads `~/.bash_logout`, which may print, too.
        format!(
            "builtin printf %s '{begin}'\n(\n{script}\n)\nstatus=$?\n\
             builtin printf %s '{end}'\n(exit \"$status\")"
        )
    }

    /// More of the output.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        if self.place == Place::Behind {
            return Ok(());
        }
        self.found.extend_from_slice(bytes);
        if self.place == Place::Before {
            match position(&self.found, &self.begin) {
                Some(at) => {
                    self.found.drain(..at + self.begin.len());
                    self.place = Place::Inside;
                }
                None => {
                    let kept = self.begin.len() - 1;
                    self.found.drain(..self.found.len().saturating_sub(kept));
                    return Ok(());
                }
            }
        }
        // Only where a mark could have come since the last look.
        let new = bytes.len() + self.end.len();
        let from = self.found.len().saturating_sub(new);
        if let Some(at) = position(&self.found[from..], &self.end) {
            self.found.truncate(from + at);
            self.place = Place::Behind;
        }
        match self.found.len() > VALUE_BYTES_MAX + self.end.len() {
            true => Err(BuildError::TooLong),
            false => Ok(()),
        }
    }

    /// What stood between the marks; `None` where one of them did not come.
    pub(super) fn value(self) -> Option<Vec<u8>> {
        (self.place == Place::Behind && self.found.len() <= VALUE_BYTES_MAX).then_some(self.found)
    }
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn between() -> Between {
        Between::new("<0>".into(), "</0>".into())
    }

    #[test]
    fn a_value_is_what_stands_between_the_marks_however_it_comes() {
        let check = |output: &str, expected: Option<&str>| {
            for size in [1, 2, 3, output.len().max(1)] {
                let mut found = between();
                for piece in output.as_bytes().chunks(size) {
                    found.push(piece).unwrap();
                }
                let value = found.value();
                assert_eq!(
                    value.as_deref(),
                    expected.map(str::as_bytes),
                    "{output} by {size}"
                );
            }
        };
        check("<0>value</0>", Some("value"));
        check("<0></0>", Some(""));
        check("Welcome!\n<0>a\nb</0>bye\n", Some("a\nb"));
        check("<<0><</0></0>", Some("<"));
        check("<0>value", None);
        check("value</0>", None);
        check("", None);
    }

    #[test]
    fn noise_is_not_kept_and_values_are_bounded() {
        let mut found = between();
        for _ in 0..100 {
            found.push(&[b'x'; 64 << 10]).unwrap();
        }
        assert!(found.found.len() < 10);
        found.push(b"<0>").unwrap();
        found.push(&[b'v'; VALUE_BYTES_MAX]).unwrap();
        found.push(b"</0>").unwrap();
        found.push(&[b'x'; 1 << 20]).unwrap();
        assert_eq!(
            found.value().map(|value| value.len()),
            Some(VALUE_BYTES_MAX)
        );
        let mut found = between();
        found.push(b"<0>").unwrap();
        let much = found.push(&[b'v'; VALUE_BYTES_MAX + 100]);
        assert!(matches!(much, Err(BuildError::TooLong)));
        // A hair too long.
        let mut found = between();
        found.push(b"<0>v").unwrap();
        found.push(&[b'v'; VALUE_BYTES_MAX]).unwrap();
        found.push(b"</0>").unwrap();
        assert_eq!(found.value(), None);
    }

    /// Its status, and the value, as a login shell of this profile prints it.
    fn login(profile: &str, logout: &str, script: &str) -> (Option<i32>, Option<String>) {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".bash_profile"), profile).unwrap();
        std::fs::write(home.path().join(".bash_logout"), logout).unwrap();
        let mut between = Between::random();
        let ran = Command::new("bash")
            .args(["-l", "-c", &between.around(script)])
            .env("HOME", home.path())
            .output()
            .unwrap();
        between.push(&ran.stdout).unwrap();
        let value = between.value();
        let value = value.map(|value| String::from_utf8(value).unwrap());
        (ran.status.code(), value)
    }

    #[test]
    fn a_profile_may_print_sleep_trap_and_exit() {
        let check = |profile: &str, script: &str, status: i32, expected: Option<&str>| {
            let told = login(profile, "echo goodbye", script);
            assert_eq!(
                told,
                (Some(status), expected.map(String::from)),
                "{profile}"
            );
        };
        let script = "printf %s \"$A\"";
        check("A=1; export A", script, 0, Some("1"));
        check(
            "A=2; echo Welcome; printf 'no newline'",
            script,
            0,
            Some("2"),
        );
        check("A=3; trap 'echo trapped' EXIT", script, 0, Some("3"));
        check(
            "A=4; printf() { echo mine; }",
            "builtin printf %s \"$A\"",
            0,
            Some("4"),
        );
        check("A=5; sleep 0.1; set -e; echo", script, 0, Some("5"));
        check("", "echo lost >&2; exit 7", 7, Some(""));
        check("", "printf half; exit 0; printf more", 0, Some("half"));
        // No value, though all went well.
        check("echo Welcome; exit 0", script, 0, None);
        check("exit 3", script, 3, None);
        check("exec >/dev/null", script, 0, None);
    }
}
