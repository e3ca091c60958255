//! Reading requests: bodies, queries and path segments, with E2B's words for what is wrong.

use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use bytes::Bytes;
use casemate_store::KeyId;
use casemate_types::limits::API_BODY_BYTES_MAX;
use casemate_types::{SandboxId, TeamId, Timestamp};
use http_body_util::LengthLimitError;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::ApiError;

/// A body that takes longer to arrive is 408.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A JSON body that must be there; the raw bytes beside it.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) raw: Bytes,
}

/// A JSON body that may be left out.
pub(crate) struct OptionalJson<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let raw = read(request).await?;
        if raw.is_empty() {
            let missing = "request body has an error: value is required but missing";
            return Err(ApiError::validation(missing));
        }
        let value = parse(&raw)?;
        Ok(Self { value, raw })
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let raw = read(request).await?;
        if raw.is_empty() {
            return Ok(Self(None));
        }
        parse(&raw).map(|value| Self(Some(value)))
    }
}

/// Whatever its content type: old clients name none. Neither is a length needed: JS sends chunks.
async fn read(request: Request) -> Result<Bytes, ApiError> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > API_BODY_BYTES_MAX as u64) {
        return Err(ApiError::body_too_large());
    }
    let read = collect(request.into_body());
    match tokio::time::timeout(BODY_TIME_MAX, read).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::body_too_slow()),
    }
}

async fn collect(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, API_BODY_BYTES_MAX)
        .await
        .map_err(|error| {
            let error = error.into_inner();
            if error.is::<LengthLimitError>() {
                ApiError::body_too_large()
            } else {
                ApiError::bad_request("Error when parsing request: the body ended early")
            }
        })
}

fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, ApiError> {
    // A list would be read too, field by field in our order, which is nobody's business.
    if !raw.trim_ascii_start().starts_with(b"{") {
        return Err(match serde_json::from_slice::<IgnoredAny>(raw) {
            Ok(_) => schema_error("", "value must be an object"),
            Err(error) => unreadable(&error),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = pointer(error.path());
        let inner = error.into_inner();
        if inner.is_data() {
            schema_error(&path, &in_words(&inner.to_string()))
        } else {
            unreadable(&inner)
        }
    })?;
    reader.end().map_err(|error| unreadable(&error))?;
    Ok(value)
}

fn schema_error(path: &str, what: &str) -> ApiError {
    ApiError::validation(format_args!(
        "request body has an error: doesn't match schema: Error at \"{path}\": {what}"
    ))
}

/// Without the names that types have in our sources.
fn in_words(text: &str) -> String {
    [
        ("i32", "a 32-bit integer"),
        ("u32", "a 32-bit integer, not negative"),
        ("i64", "a 64-bit integer"),
        ("u64", "a 64-bit integer, not negative"),
        ("a map", "an object"),
        ("a sequence", "a list"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (name, words)| {
        text.replace(&format!("expected {name}"), &format!("expected {words}"))
    })
    .replace("invalid type: map", "invalid type: object")
    .replace("invalid type: sequence", "invalid type: list")
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format_args!("Error when parsing request: {error}"))
}

/// `/network/allowOut/0`, as schema validators write it.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path.iter() {
        text.push('/');
        match segment {
            Segment::Seq { index } => text.push_str(&index.to_string()),
            Segment::Map { key } => text.push_str(key),
            Segment::Enum { variant } => text.push_str(variant),
            Segment::Unknown => text.push('?'),
        }
    }
    text
}

/// The query's pairs, decoded once.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|_| ApiError::validation("the query cannot be decoded"))
    }
}

impl Params {
    /// The first value of that name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// One that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        let missing = || bad_param(name, "value is required but missing");
        self.text(name).ok_or_else(missing)
    }

    /// A value of another type.
    pub(crate) fn value<T>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let wrong = |error| bad_param(name, format_args!("value {text}: {error}"));
        text.parse().map(Some).map_err(wrong)
    }

    fn number<T: FromStr<Err = ParseIntError>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error: ParseIntError| {
            let what = match error.kind() {
                IntErrorKind::PosOverflow => "is too large",
                IntErrorKind::NegOverflow => "is too small",
                _ => "is not an integer",
            };
            bad_param(name, format_args!("value \"{text}\" {what}"))
        })
    }

    /// An int32 within bounds.
    pub(crate) fn int32(&self, name: &str, min: i32, max: i32) -> Result<Option<u32>, ApiError> {
        let Some(number) = self.number::<i32>(name)? else {
            return Ok(None);
        };
        if number < min {
            return Err(bad_param(
                name,
                format_args!("number must be at least {min}"),
            ));
        }
        if number > max {
            return Err(bad_param(
                name,
                format_args!("number must be at most {max}"),
            ));
        }
        Ok(u32::try_from(number).ok())
    }

    /// An int64 from `min` on.
    pub(crate) fn int64(&self, name: &str, min: i64) -> Result<Option<i64>, ApiError> {
        match self.number::<i64>(name)? {
            Some(number) if number < min => Err(bad_param(
                name,
                format_args!("number must be at least {min}"),
            )),
            number => Ok(number),
        }
    }

    /// A moment in seconds.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.moment(name, |seconds| Timestamp::from_second(seconds).ok())
    }

    /// A moment in milliseconds.
    pub(crate) fn milliseconds(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.moment(name, |millis| Timestamp::from_millisecond(millis).ok())
    }

    fn moment(
        &self,
        name: &str,
        of_number: impl FnOnce(i64) -> Option<Timestamp>,
    ) -> Result<Option<Timestamp>, ApiError> {
        let number = self.int64(name, 0)?;
        // Later than any time is as good as the last one.
        Ok(number.map(|number| of_number(number).unwrap_or(Timestamp::MAX)))
    }
}

pub(crate) fn bad_param(name: &str, what: impl fmt::Display) -> ApiError {
    ApiError::validation(format_args!(
        "parameter \"{name}\" in query has an error: {what}"
    ))
}

/// `{sandboxID}`, also in the old composite form.
pub(crate) struct SandboxPath(pub(crate) SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for SandboxPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state).await?;
        SandboxId::parse_path(&text)
            .map(Self)
            .map_err(|_| ApiError::bad_request("Invalid sandbox ID"))
    }
}

/// The only parameter of a path, decoded.
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state).await.map(Self)
    }
}

/// The two parameters of a path, decoded.
pub(crate) struct TwoSegments(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for TwoSegments {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((first, second))| Self(first, second))
            .map_err(|_| undecodable())
    }
}

/// `{teamID}`.
pub(crate) struct TeamPath(pub(crate) TeamId);

impl<S: Send + Sync> FromRequestParts<S> for TeamPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        team_id(&segment(parts, state).await?).map(Self)
    }
}

/// `{apiKeyID}`.
pub(crate) struct KeyPath(pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        key_id(&segment(parts, state).await?).map(Self)
    }
}

/// `{teamID}` and `{apiKeyID}`.
pub(crate) struct TeamKeyPath(pub(crate) TeamId, pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for TeamKeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let TwoSegments(team, key) = TwoSegments::from_request_parts(parts, state).await?;
        Ok(Self(team_id(&team)?, key_id(&key)?))
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, ApiError> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(text)| text).map_err(|_| undecodable())
}

fn team_id(text: &str) -> Result<TeamId, ApiError> {
    let id = TeamId::parse(&text.to_ascii_lowercase());
    id.map_err(|_| bad_path("teamID"))
}

fn key_id(text: &str) -> Result<KeyId, ApiError> {
    KeyId::parse(text).map_err(|_| bad_path("apiKeyID"))
}

fn bad_path(name: &str) -> ApiError {
    ApiError::validation(format_args!(
        "parameter \"{name}\" in path has an error: value is not a UUID"
    ))
}

fn undecodable() -> ApiError {
    ApiError::validation("the path cannot be decoded")
}

#[cfg(test)]
mod tests {
    use casemate_wire::{NewSandboxV2, RefreshSandbox, SandboxTimeout};

    use super::*;

    #[track_caller]
    fn check<T: DeserializeOwned>(body: &str, expected: Option<&str>) {
        use axum::response::IntoResponse;
        let error = parse::<T>(body.as_bytes()).err();
        let text = error.as_ref().map(|error| format!("{error:?}"));
        match (text, expected) {
            (None, None) => {}
            (Some(text), Some(expected)) => assert!(text.contains(expected), "{text}"),
            (found, _) => panic!("{body}: {found:?}"),
        }
        if let Some(error) = error {
            assert_eq!(error.into_response().status(), 400);
        }
    }

    #[test]
    fn bodies_are_read_as_the_schemas_say() {
        check::<SandboxTimeout>(r#"{"timeout":0}"#, None);
        check::<SandboxTimeout>(r#"{"timeout":5,"more":[null]}"#, None);
        check::<SandboxTimeout>("{}", Some("missing field `timeout`"));
        check::<SandboxTimeout>(r#"{"timeout":-1}"#, Some("number must be at least 0"));
        check::<SandboxTimeout>(
            r#"{"timeout":2147483648}"#,
            Some("expected a 32-bit integer"),
        );
        check::<SandboxTimeout>(r#"{"timeout":"5"}"#, Some("/timeout"));
        check::<SandboxTimeout>(r#"{"timeout":null}"#, Some("validation error"));
        check::<SandboxTimeout>("{", Some("Error when parsing request"));
        check::<SandboxTimeout>(r#"{"timeout":5} x"#, Some("Error when parsing request"));
        check::<RefreshSandbox>(r#"{"duration":3601}"#, Some("at most 3600"));
        check::<RefreshSandbox>("{}", None);
        for scalar in ["null", " 5", "true", "\"{}\"", "[]", "[5]"] {
            check::<RefreshSandbox>(scalar, Some("value must be an object"));
        }
        check::<SandboxTimeout>(
            r#"{"timeout":[]}"#,
            Some("invalid type: list, expected a 32-bit integer"),
        );
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check::<SandboxTimeout>(&deep, Some("rror"));
    }

    #[test]
    fn null_is_not_absent() {
        let body = |field: &str| format!(r#"{{"templateID":"base",{field}}}"#);
        for field in [
            "\"timeout\":null",
            "\"autoPause\":null",
            "\"metadata\":null",
            "\"envVars\":{\"A\":null}",
            "\"metadata\":{\"a\":1}",
            "\"network\":null",
            "\"network\":{\"allowOut\":null}",
            "\"network\":{\"allowOut\":[1]}",
            "\"autoResume\":{}",
            "\"volumeMounts\":[{\"name\":\"v\"}]",
            "\"mcp\":[]",
            "\"network\":[]",
            "\"network\":[true]",
            "\"network\":{\"egressProxy\":[\"a:1\"]}",
            "\"autoResume\":[false]",
            "\"iam\":[]",
            "\"volumeMounts\":[[\"v\",\"/p\"]]",
        ] {
            check::<NewSandboxV2>(&body(field), Some("validation error"));
        }
        for field in [
            "\"mcp\":null",
            "\"mcp\":{\"x\":{}}",
            "\"network\":{\"allowPublicTraffic\":null,\"egressProxy\":null}",
            "\"autoResume\":{\"enabled\":false}",
            "\"volumeMounts\":[{\"name\":\"v\",\"path\":\"/p\"}]",
            "\"network\":{\"egressProxy\":{\"address\":\"a:1\"}}",
            "\"unknown\":null",
        ] {
            check::<NewSandboxV2>(&body(field), None);
        }
    }
}
