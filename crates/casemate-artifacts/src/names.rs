//! Where things lie in the bucket, and when a name is no longer given to anything new.
//!
//! ```text
//! format                                             which layout this is; made by the first put
//! scopes/<scope>/manifests/<xx>/<sha256>             one for each put
//! scopes/<scope>/pieces/<period>/<xx>/<sha256>       shared by all manifests of the scope
//! ```
//!
//! # Why pieces have a period
//!
//! A put that finds a piece leaves it where it is and names it in a manifest that is written later;
//! a sweep that saw no manifest name it deletes it in between. Buckets know no "delete unless
//! somebody wants it", so neither can wait for the other. Instead names grow old: time is cut into
//! periods of [`PERIOD`], a piece is named with the period in which it was uploaded, and
//!
//! * a put names only pieces of the current period and of the one before, and looks at the clock
//!   again before it writes its manifest; an older piece is uploaded once more, under a new name;
//! * a sweep deletes only pieces that are three periods old or older, and fixes what that means
//!   before it lists manifests.
//!
//! So whatever manifest names a piece that a sweep may delete was written, a whole period for the
//! request to arrive included, before the sweep looked: no new reference to such a name can be made
//! any more. It costs a second upload of what is put again after two to four days, and that garbage
//! stays six to eight. A name that is still young can be remembered as present without asking.
//! The clock is the bucket's (its `Date`), as far as it has one, so that hosts whose own are wrong
//! by days agree.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Digest;

/// Two days. Changing it makes names of old and new processes incomparable: it is part of the
/// layout's version.
pub const PERIOD: Duration = Duration::from_secs(2 * 24 * 3600);
/// Content of [`FORMAT`]: the layout's version.
pub(crate) const FORMAT_TEXT: &[u8] = b"casemate artifacts 1\n";
pub(crate) const FORMAT: &str = "format";
pub(crate) const SCOPES: &str = "scopes";

const SCOPE_LEN_MAX: usize = 64;

/// Whose artifacts: a team's id, or a name for what all may have. Equal content of two scopes is
/// stored twice, so that nobody learns by a fast upload what others have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// That a text cannot be a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is 1 to {SCOPE_LEN_MAX} letters, digits, hyphens and underscores")]
pub struct NotAScope;

impl Scope {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        match (1..=SCOPE_LEN_MAX).contains(&text.len()) && text.bytes().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAScope),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many [`PERIOD`]s have passed since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Period(pub(crate) u32);

impl Period {
    pub(crate) fn at(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Self(u32::try_from(seconds / PERIOD.as_secs()).unwrap_or(u32::MAX))
    }

    pub(crate) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Whether a manifest that is written now may name a piece of this period.
    pub(crate) fn is_young(self, now: Self) -> bool {
        self >= now.before()
    }

    /// Whether a sweep that begins now may delete pieces of this period.
    pub(crate) fn is_old(self, now: Self) -> bool {
        self.0.saturating_add(3) <= now.0
    }

    /// From a folder's name, which has exactly eight digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = u32::from_str_radix(text, 16).ok().map(Self)?;
        (number.to_string() == text).then_some(number)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

pub(crate) fn manifests(scope: &Scope) -> String {
    format!("{SCOPES}/{scope}/manifests")
}

pub(crate) fn manifest(scope: &Scope, digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{}/{}/{hex}", manifests(scope), &hex[..2])
}

pub(crate) fn pieces(scope: &Scope) -> String {
    format!("{SCOPES}/{scope}/pieces")
}

pub(crate) fn piece(scope: &Scope, period: Period, digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{}/{period}/{}/{hex}", pieces(scope), &hex[..2])
}

/// The digest at the end of a name, if there is one.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    name.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_put_may_name_no_sweep_may_delete_for_a_whole_period_more() {
        let now = Period(100);
        for number in 90..=101 {
            let period = Period(number);
            // The sweep may have begun one period after the put looked at its clock.
            let swept = period.is_old(Period(now.0 + 1));
            assert!(!(period.is_young(now) && swept), "{number}");
        }
        assert!(Period(97).is_old(now) && !Period(98).is_old(now));
        assert!(Period(99).is_young(now) && !Period(98).is_young(now));
    }

    #[test]
    fn names_are_of_safe_parts_only() {
        let scope: Scope = "team-1".parse().unwrap();
        let digest = Digest::of(b"");
        let name = piece(&scope, Period(0x2a), &digest);
        let hex = digest.to_string();
        assert_eq!(name, format!("scopes/team-1/pieces/0000002a/e3/{hex}"));
        assert_eq!(digest_of(&name), Some(digest));
        for wrong in ["", "..", "a/b", "a.b", "ä", &"x".repeat(65)] {
            assert_eq!(wrong.parse::<Scope>(), Err(NotAScope), "{wrong}");
        }
        assert_eq!(Period::parse("0000002a"), Some(Period(0x2a)));
        for wrong in ["2a", "0000002A", "+000002a", "0000002a0", "x"] {
            assert_eq!(Period::parse(wrong), None, "{wrong}");
        }
    }
}
