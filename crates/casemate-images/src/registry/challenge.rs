//! What a registry asks for when it answers 401 (`WWW-Authenticate`, RFC 9110, 11.6.1).

use crate::web::Url;

/// Longest header that is looked at, in bytes.
const CHALLENGE_LEN_MAX: usize = 8 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token of the service at `realm`; the scope is ours to say.
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

impl Challenge {
    /// The first that can be answered; a token before a password.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers.filter(|header| header.len() <= CHALLENGE_LEN_MAX) {
            match Self::parse(header) {
                Some(Self::Basic) => basic = Some(Self::Basic),
                Some(bearer) => return Some(bearer),
                None => {}
            }
        }
        basic
    }

    fn parse(header: &str) -> Option<Self> {
        let header = header.trim_start();
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        let mut rest = rest;
        while let Some((name, value, after)) = parameter(rest) {
            if name.eq_ignore_ascii_case("realm") {
                realm = Some(value);
            } else if name.eq_ignore_ascii_case("service") {
                service = Some(value);
            }
            rest = after;
        }
        let realm = Url::parse(&realm?)?;
        Some(Self::Bearer { realm, service })
    }
}

/// `name=value` or `name="value"`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
        return Some((name.trim_end(), value.trim().to_string(), after));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((name.trim_end(), value, &quoted[at + 1..])),
            _ => value.push(character),
        }
    }
    // A quote that never ends.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_string),
        })
    }

    #[track_caller]
    fn check(headers: &[&str], expected: Option<Challenge>) {
        assert_eq!(Challenge::choose(headers.iter().copied()), expected);
    }

    #[test]
    fn challenges_of_registries_are_read() {
        check(
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
            ],
            bearer("https://auth.docker.io/token", Some("registry.docker.io")),
        );
        check(
            &[r#"bearer scope="a,b=c" , realm=https://a/b"#],
            bearer("https://a/b", None),
        );
        check(
            &[r#"Bearer realm="https://a/b",service="x\"y""#],
            bearer("https://a/b", Some("x\"y")),
        );
        check(&["Basic realm=x"], Some(Challenge::Basic));
        check(
            &["Basic realm=x", r#"Bearer realm="https://a""#],
            bearer("https://a", None),
        );
    }

    #[test]
    fn others_are_not() {
        check(&[], None);
        check(&["Digest realm=x", ""], None);
        check(&["Bearer"], None);
        check(&[r#"Bearer service="x""#], None);
        check(&[r#"Bearer realm="https://a"#], None);
        check(&[r#"Bearer realm="file:///etc/passwd""#], None);
        check(
            &[&format!("Bearer realm=https://a,x={}", "y".repeat(9000))],
            None,
        );
    }
}
