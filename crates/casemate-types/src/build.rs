//! Builds of templates: where one stands, what it failed of, and what its sandboxes start with.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a build stands (`templates.md` 1.5). [`BuildStatus::Ready`] and [`BuildStatus::Failed`] are
/// final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildStatus {
    /// Asked for, and its recipe not there yet.
    Waiting,
    /// Under way.
    Building,
    /// Sandboxes can be made from it.
    Ready,
    /// Failed, cancelled or superseded. `error` on the wire.
    #[serde(rename = "error")]
    Failed,
}

/// Why a build failed, in words for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    pub message: String,
    /// `base`, `finalize`, or the number of a step counted from 1; `None` for what is no step's fault.
    pub step: Option<String>,
}

/// Bytes of a [`BuildFailure::message`] at most.
pub const FAILURE_BYTES_MAX: usize = 16 * 1024;
/// What stands where a message was cut.
const CUT: &str = " […] ";

impl BuildFailure {
    /// What a recipe says stands in messages, and a recipe may be megabytes long, while a failure is
    /// read with every page of builds and told with every look at one. So a message of more than
    /// [`FAILURE_BYTES_MAX`] is cut in its middle: its begin says what was tried, its end what came of
    /// it.
    pub fn new(mut message: String, step: Option<String>) -> Self {
        if message.len() > FAILURE_BYTES_MAX {
            let half = (FAILURE_BYTES_MAX - CUT.len()) / 2;
            let begin = message.floor_char_boundary(half);
            let end = message.ceil_char_boundary(message.len() - half);
            message.replace_range(begin..end, CUT);
        }
        Self { message, step }
    }
}

/// How commands of a template are run: the user, the folder and the variables that earlier steps set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildContext {
    pub user: String,
    /// `None`: the user's home.
    pub workdir: Option<String>,
    pub envs: BTreeMap<String, String>,
}

impl fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables may hold what is nobody else's business.
        f.debug_struct("BuildContext")
            .field("user", &self.user)
            .field("workdir", &self.workdir)
            .field("envs", &format_args!("{} names", self.envs.len()))
            .finish()
    }
}

/// What runs in every sandbox of a template before it is given away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// Goes on running, or ends with 0. `None`: only the other was given.
    pub start: Option<String>,
    /// Tried until it ends with 0.
    pub ready: String,
    /// Of both.
    pub context: BuildContext,
}

/// Which Linux distribution a template holds: what of the operator's settings fits it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Debian of this suite, such as `bookworm`; its mirrors can be named.
    Debian(String),
    /// Any other: names, certificates and language registries are laid over it, no package sources.
    Other,
}

impl Distribution {
    /// `debian:<suite>` or `other`, for stores.
    pub fn word(&self) -> String {
        match self {
            Self::Debian(suite) => format!("debian:{suite}"),
            Self::Other => "other".into(),
        }
    }

    /// Of [`Distribution::word`]; `None` for anything else.
    pub fn of_word(word: &str) -> Option<Self> {
        match word.split_once(':') {
            Some(("debian", suite)) => Self::debian(suite),
            None if word == "other" => Some(Self::Other),
            _ => None,
        }
    }

    /// Debian of a suite that a file inside named: 1 to 32 of `a-z`, `0-9` and `-`.
    pub fn debian(suite: &str) -> Option<Self> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = (1..=32).contains(&suite.len()) && suite.bytes().all(plain);
        fits.then(|| Self::Debian(suite.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_both_its_ends() {
        let short = "ä".repeat(FAILURE_BYTES_MAX / 2);
        assert_eq!(BuildFailure::new(short.clone(), None).message, short);
        // No cut is inside of a character, wherever it falls.
        for begin in ["", "x", "xy"] {
            let long = format!("{begin}{}: exit status 3", "€".repeat(FAILURE_BYTES_MAX));
            let cut = BuildFailure::new(long, None).message;
            assert!(cut.len() <= FAILURE_BYTES_MAX && cut.len() > FAILURE_BYTES_MAX - 16);
            assert!(cut.starts_with(&format!("{begin}€€")), "{begin}");
            assert!(cut.contains("€ […] €") && cut.ends_with("€: exit status 3"));
        }
    }

    #[test]
    fn distributions_have_words_that_are_read_again() {
        for known in [Distribution::Debian("bookworm".into()), Distribution::Other] {
            assert_eq!(Distribution::of_word(&known.word()), Some(known));
        }
        for wrong in [
            "",
            "debian",
            "debian:",
            "debian:../x",
            "other:x",
            "ubuntu:jammy",
        ] {
            assert_eq!(Distribution::of_word(wrong), None, "{wrong:?}");
        }
    }
}
