//! What a failed operation of `object_store` means, and whether it is tried again.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::refused::{Meaning, Refused};
use super::service::{PlainHttp, TooLong, Transport};
use crate::config::Patience;
use crate::error::Cause;

/// As much of a text as is kept that is not ours.
const TEXT_LEN_MAX: usize = 200;

/// Why one try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Missing,
    Exists,
    Denied(Cause),
    /// Worth another try.
    Later(Cause),
    Full(Cause),
}

impl Failure {
    /// What became of a request for the object of this name.
    pub(super) fn of(error: &object_store::Error, name: &str) -> Self {
        match error {
            object_store::Error::NotFound { .. } => return Self::Missing,
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => {
                return Self::Exists;
            }
            _ => {}
        }
        let mut link: Option<&(dyn Error + 'static)> = Some(error);
        let mut last: &(dyn Error + 'static) = error;
        while let Some(error) = link {
            if let Some(found) = Self::of_link(error, name) {
                return found;
            }
            last = error;
            link = error.source();
        }
        // As an answer that is no XML: a broken one on the way would be another next time.
        Self::Later(Cause::Unexpected(shown(&last.to_string())))
    }

    fn of_link(error: &(dyn Error + 'static), name: &str) -> Option<Self> {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            let cause = Cause::Status {
                status: refused.status.as_u16(),
                code: refused.code.clone(),
                retry_after: refused.retry_after,
            };
            return Some(match refused.meaning(name) {
                Meaning::Missing => Self::Missing,
                Meaning::Later => Self::Later(cause),
                Meaning::Full => Self::Full(cause),
                Meaning::Denied => Self::Denied(cause),
            });
        }
        if let Some(transport) = error.downcast_ref::<Transport>() {
            return Some(Self::Later(match transport {
                Transport::Connect(text) => Cause::Connect(shown(text)),
                Transport::Cut(text) => Cause::Cut(shown(text)),
            }));
        }
        if error.is::<TooLong>() {
            let bytes_max = super::ANSWER_BYTES_MAX;
            return Some(Self::Denied(Cause::TooLong { bytes_max }));
        }
        if error.is::<PlainHttp>() {
            return Some(Self::Denied(Cause::Unexpected(shown(&error.to_string()))));
        }
        error.downcast_ref::<io::Error>().map(Self::of_disk)
    }

    /// Of a folder that is the bucket, or of a file that has credentials: that such a one is missing
    /// must never say that an object is.
    pub(super) fn of_disk(error: &io::Error) -> Self {
        let kind = error.kind();
        match kind {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(Cause::Disk(kind)),
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::IsADirectory => Self::Denied(Cause::Disk(kind)),
            _ => Self::Later(Cause::Disk(kind)),
        }
    }

    /// How long to wait before the next try, the `number`th (from 1), if there is to be one.
    pub(super) fn wait(&self, number: u32, patience: &Patience) -> Option<Duration> {
        let Self::Later(cause) = self else {
            return None;
        };
        if number >= patience.tries {
            return None;
        }
        let asked = match cause {
            Cause::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let doubled = patience
            .wait_first
            .saturating_mul(1 << (number - 1).min(16));
        // Not all at once: a half to the whole of it.
        let half = doubled.min(patience.wait_max) / 2;
        let own = half + half.mul_f64(f64::from(lot()) / 256.0);
        Some(own.max(asked).min(patience.wait_max))
    }
}

/// A byte of the system's randomness; without it, all wait the longest.
fn lot() -> u8 {
    let mut byte = [u8::MAX];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// A text of others for logs: without what may be signed, and not long.
fn shown(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(TEXT_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(seconds: Option<u64>) -> Failure {
        Failure::Later(Cause::Status {
            status: 503,
            code: None,
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    #[test]
    fn waits_grow_and_have_an_end() {
        let patience = Patience::default();
        for (number, most) in [(1, 200), (2, 400), (3, 800), (5, 3200)] {
            let wait = later(None).wait(number, &patience).unwrap();
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{number}: {wait:?}");
        }
        assert_eq!(later(None).wait(6, &patience), None);
        assert_eq!(
            later(Some(3)).wait(1, &patience),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            later(Some(9999)).wait(1, &patience),
            Some(patience.wait_max)
        );
        assert_eq!(Failure::Missing.wait(1, &patience), None);
    }

    #[test]
    fn signed_addresses_are_not_shown() {
        let error = object_store::Error::Generic {
            store: "Azure",
            source: "GET https://a/b?sig=secret failed".into(),
        };
        let Failure::Later(cause) = Failure::of(&error, "x") else {
            panic!("an unknown failure")
        };
        assert!(!cause.to_string().contains("secret"));
    }
}
