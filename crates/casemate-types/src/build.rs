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
