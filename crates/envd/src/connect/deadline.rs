//! `Connect-Timeout-Ms`.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::error::{Code, RpcError};

const DIGITS: usize = 10;

/// Absent and 0 mean no limit.
pub fn read(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text.len() > DIGITS || !digits {
        return Err(RpcError::invalid(format!(
            "parse timeout: invalid value \"{text}\""
        )));
    }
    let milliseconds = text.parse::<u64>().unwrap_or_default();
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// Runs `call` to its end or to the deadline.
pub async fn until<T>(
    deadline: Option<Instant>,
    call: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    match deadline {
        None => call.await,
        Some(at) => timeout_at(at, call).await.unwrap_or_else(|_| {
            Err(RpcError::new(
                Code::DeadlineExceeded,
                "context deadline exceeded",
            ))
        }),
    }
}

/// The same, from now on.
pub async fn within<T>(
    limit: Option<Duration>,
    call: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    until(
        limit.and_then(|limit| Instant::now().checked_add(limit)),
        call,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: Option<&str>, expected: Option<Option<u64>>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert("connect-timeout-ms", value.parse().unwrap());
        }
        let read = read(&headers)
            .ok()
            .map(|limit| limit.map(|limit| limit.as_millis()));
        assert_eq!(read, expected.map(|limit| limit.map(u128::from)));
    }

    #[test]
    fn values() {
        check(None, Some(None));
        check(Some("0"), Some(None));
        check(Some("1500"), Some(Some(1500)));
        check(Some("9999999999"), Some(Some(9_999_999_999)));
        for bad in ["", "abc", "-1", "1.5", "12345678901", "+1"] {
            check(Some(bad), None);
        }
    }
}
