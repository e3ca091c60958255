//! What a cloud says when it refuses, in the words of each.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

const CODE_LEN_MAX: usize = 64;

/// An answer that is no success. Of its text only the code is kept: S3 repeats what was signed.
#[derive(Debug, thiserror::Error)]
#[error("status {status}")]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: Option<String>,
    pub(super) retry_after: Option<Duration>,
    path: String,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is no such object.
    Missing,
    /// Later it may go.
    Later,
    Full,
    Denied,
}

impl Refused {
    pub(super) fn new(
        status: StatusCode,
        path: String,
        retry_after: Option<Duration>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        // Azure says it in a header too, also where there is no body.
        let header = headers
            .get("x-ms-error-code")
            .and_then(|value| value.to_str().ok());
        let code = header.map(str::to_owned).or_else(|| code(body));
        let fits = |code: &String| {
            code.len() <= CODE_LEN_MAX && code.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        Self {
            status,
            code: code.filter(fits),
            retry_after,
            path,
        }
    }

    /// What it means for a request for the object of this name. The credentials that a request needs
    /// are fetched on the way, elsewhere: what is missing there is not the object.
    pub(super) fn meaning(&self, name: &str) -> Meaning {
        let code = self.code.as_deref().unwrap_or_default();
        // Google's addresses have slashes of names encoded.
        let last = name.rsplit('/').next().unwrap_or(name);
        if self.status == StatusCode::INSUFFICIENT_STORAGE || is_of_space(code) {
            return Meaning::Full;
        }
        match self.status {
            StatusCode::NOT_FOUND if is_of_bucket(code) => Meaning::Denied,
            StatusCode::NOT_FOUND if self.path.ends_with(last) => Meaning::Missing,
            StatusCode::NOT_IMPLEMENTED => Meaning::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Meaning::Later,
            status if status.is_server_error() || is_of_load(code) => Meaning::Later,
            _ => Meaning::Denied,
        }
    }
}

fn is_of_space(code: &str) -> bool {
    matches!(
        code,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded"
    ) || matches!(code, "AccountQuotaExceeded" | "InsufficientAccountQuota")
}

fn is_of_bucket(code: &str) -> bool {
    matches!(
        code,
        "NoSuchBucket" | "ContainerNotFound" | "AccountNotFound"
    )
}

fn is_of_load(code: &str) -> bool {
    matches!(
        code,
        "SlowDown" | "RequestTimeout" | "InternalError" | "ServerBusy"
    ) || matches!(code, "OperationTimedOut" | "ContainerBeingDeleted")
}

/// `<Code>` of an XML error, which all three clouds send.
fn code(body: &[u8]) -> Option<String> {
    let text = str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: &str, path: &str, expected: Meaning) {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        let status = StatusCode::from_u16(status).unwrap();
        let headers = HeaderMap::new();
        let refused = Refused::new(status, path.into(), None, &headers, body.as_bytes());
        assert_eq!(refused.meaning("ab/abcd"), expected);
    }

    #[test]
    fn each_refusal_has_its_meaning() {
        check(404, "NoSuchKey", "/bucket/ab/abcd", Meaning::Missing);
        check(404, "NoSuchKey", "/bucket/ab%2Fabcd", Meaning::Missing);
        check(404, "NoSuchBucket", "/bucket/ab/abcd", Meaning::Denied);
        check(404, "", "/latest/meta-data/iam", Meaning::Denied);
        check(403, "AccessDenied", "/bucket/ab/abcd", Meaning::Denied);
        check(403, "QuotaExceeded", "/bucket/ab/abcd", Meaning::Full);
        check(400, "ExpiredToken", "/bucket/ab/abcd", Meaning::Denied);
        check(400, "RequestTimeout", "/bucket/ab/abcd", Meaning::Later);
        check(503, "SlowDown", "/bucket/ab/abcd", Meaning::Later);
        check(500, "", "/bucket/ab/abcd", Meaning::Later);
        check(429, "", "/bucket/ab/abcd", Meaning::Later);
        check(501, "NotImplemented", "/bucket/ab/abcd", Meaning::Denied);
        check(507, "XMinioStorageFull", "/bucket/ab/abcd", Meaning::Full);
        check(301, "PermanentRedirect", "/bucket/ab/abcd", Meaning::Denied);
    }

    #[test]
    fn what_was_signed_is_not_kept() {
        let body =
            b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>x</StringToSign></Error>";
        let status = StatusCode::FORBIDDEN;
        let refused = Refused::new(status, "/b".into(), None, &HeaderMap::new(), body);
        assert_eq!(refused.code.as_deref(), Some("SignatureDoesNotMatch"));
        assert!(!format!("{refused:?}").contains("StringToSign"));
    }
}
