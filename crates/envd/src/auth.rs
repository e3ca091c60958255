//! Who may call: the access token, the named account, signatures of file links.

pub mod signature;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};

use crate::answer::{Refusal, refuse};
use crate::connect::{Code, RpcError};
use crate::settings::Settings;
use crate::users::User;

pub const TOKEN_HEADER: &str = "x-access-token";
const REFUSED: &str =
    "unauthorized access, please provide a valid access token or method signing if supported";

/// Routes that check for themselves, or need no check.
const EXEMPT: [(&Method, &str); 4] = [
    (&Method::GET, "/health"),
    (&Method::GET, "/files"),
    (&Method::POST, "/files"),
    (&Method::POST, "/init"),
];

/// Refuses a request without the right token, if one is set.
pub fn check_token(
    settings: &Settings,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if settings.access_token.is_none() || EXEMPT.contains(&(method, path)) {
        return Ok(());
    }
    match headers.get(TOKEN_HEADER) {
        Some(token) if settings.token_is(token.as_bytes()) => Ok(()),
        _ => Err(refuse(StatusCode::UNAUTHORIZED, REFUSED)),
    }
}

/// The account named by a `Basic` header. Its password means nothing; other schemes name nobody.
pub fn named_user(headers: &HeaderMap) -> Result<Option<User>, RpcError> {
    let Some(name) = headers
        .get(AUTHORIZATION)
        .and_then(|value| basic_name(value.as_bytes()))
    else {
        return Ok(None);
    };
    match User::by_name(&name) {
        Some(user) => Ok(Some(user)),
        None => Err(RpcError::new(
            Code::Unauthenticated,
            format!("invalid username: '{name}'"),
        )),
    }
}

fn basic_name(value: &[u8]) -> Option<String> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_names() {
        for (value, expected) in [
            ("Basic dXNlcjo=", Some("user")),
            ("basic dXNlcjpwdw==", Some("user")),
            ("Basic Og==", Some("")),
            ("Basic dXNlcg==", None),
            ("Basic !", None),
            ("Bearer dXNlcjo=", None),
            ("B", None),
        ] {
            assert_eq!(basic_name(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn exempt_routes_are_compared_whole() {
        let mut settings = Settings::new(None, true);
        settings.access_token = Some("tok".to_owned());
        let check = |method: &Method, path: &str, token: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(TOKEN_HEADER, token.parse().unwrap());
            }
            check_token(&settings, method, path, &headers).is_ok()
        };
        for path in ["/health", "/files"] {
            assert!(check(&Method::GET, path, None));
        }
        assert!(check(&Method::POST, "/init", None));
        for (method, path) in [
            (Method::POST, "/health"),
            (Method::GET, "/health/"),
            (Method::POST, "/files/compose"),
            (Method::GET, "/metrics"),
            (Method::GET, "/init"),
            (Method::POST, "/process.Process/List"),
        ] {
            assert!(!check(&method, path, None), "{path}");
            assert!(!check(&method, path, Some("toK")), "{path}");
            assert!(!check(&method, path, Some("to")), "{path}");
            assert!(check(&method, path, Some("tok")), "{path}");
        }
    }
}
