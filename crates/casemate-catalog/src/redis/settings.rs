//! Which Redis, and how long it may take.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Port of a URL that names none.
const PORT: u16 = 6379;
/// Bytes of a key prefix.
const PREFIX_BYTES_MAX: usize = 64;

/// A text that no log and no error shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "\"\""
        } else {
            "<redacted>"
        })
    }
}

/// One Redis, or a service that speaks as one. No cluster, and no Sentinel: see `docs/redis.md`.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Password,
    pub(super) database: u16,
    /// Authorities that the server's certificate is checked against, PEM. `None`: those that the
    /// system knows. Of `rediss://` only.
    pub ca_file: Option<PathBuf>,
    /// What all keys begin with, in braces: installations with different ones share a Redis.
    pub prefix: String,
    /// From a name to a connection that is logged in. Longer than the calls that wait for it only
    /// means that they fail before it.
    pub connection_timeout: Duration,
    /// Of one call, from when it is made to its answer. One connection carries all calls, so that
    /// reading and writing have no limits of their own. Too short fails calls that would have been
    /// answered; too long holds up requests when Redis hangs, once.
    pub call_timeout: Duration,
    /// Calls under way at once; one more fails. Bounds what a Redis that hangs makes us keep.
    pub calls_max: usize,
}

/// Why a Redis cannot be used as it is described. No text holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisSettingsError {
    #[error("the URL of Redis must be redis://[USER@]HOST[:PORT][/DATABASE], or rediss:// for TLS")]
    Url,
    #[error("the password of Redis is given twice: in its URL, and apart from it")]
    TwoPasswords,
    #[error(
        "redis:// sends password and data in clear to {host}: use rediss://, or allow plain text by \
         redis.insecure_plaintext = true (CASEMATE_REDIS_INSECURE_PLAINTEXT=true)"
    )]
    Plaintext { host: String },
    #[error("the key prefix must be 1 to 64 letters, digits, '-', '_', '.' or ':'")]
    Prefix,
    #[error("a limit of Redis must not be zero")]
    Zero,
}

impl RedisSettings {
    /// Where it is, for people.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Of a URL `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, with the guide's limits: 5 s
    /// to connect, 3 s a call. Without TLS only a host that is this machine is taken.
    pub fn new(url: &str, password: Password) -> Result<Self, RedisSettingsError> {
        let settings = Self::parse(url, password)?;
        if !settings.tls && !is_loopback(&settings.host) {
            return Err(RedisSettingsError::Plaintext {
                host: settings.host,
            });
        }
        Ok(settings)
    }

    /// The same where a network of one's own carries what must not be read: `redis://` goes to any
    /// host.
    pub fn insecure_plaintext(url: &str, password: Password) -> Result<Self, RedisSettingsError> {
        Self::parse(url, password)
    }

    fn parse(url: &str, password: Password) -> Result<Self, RedisSettingsError> {
        let url = redis::parse_redis_url(url).ok_or(RedisSettingsError::Url)?;
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisSettingsError::Url),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(RedisSettingsError::Url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RedisSettingsError::Url);
        }
        let database = match url.path().trim_matches('/') {
            "" => 0,
            path => path.parse().map_err(|_| RedisSettingsError::Url)?,
        };
        let decoded = |text: &str| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8();
            text.map(String::from).map_err(|_| RedisSettingsError::Url)
        };
        let in_url = url.password().map(decoded).transpose()?;
        let password = match (in_url, password.is_empty()) {
            (None, _) => password,
            (Some(in_url), true) => Password(in_url),
            (Some(_), false) => return Err(RedisSettingsError::TwoPasswords),
        };
        let user = Some(decoded(url.username())?).filter(|user| !user.is_empty());
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(PORT),
            tls,
            user,
            password,
            database,
            ca_file: None,
            prefix: "casemate".into(),
            connection_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(3),
            calls_max: 4096,
        })
    }

    /// What can be said only once all is set.
    pub fn check(&self) -> Result<(), RedisSettingsError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let has_length = (1..=PREFIX_BYTES_MAX).contains(&self.prefix.len());
        if !has_length || !self.prefix.bytes().all(is_plain) {
            return Err(RedisSettingsError::Prefix);
        }
        if self.calls_max == 0 || self.call_timeout.is_zero() || self.connection_timeout.is_zero() {
            return Err(RedisSettingsError::Zero);
        }
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, u16, bool, u16), RedisSettingsError>) {
        let settings = RedisSettings::new(url, Password::default());
        let parts = settings
            .as_ref()
            .map(|it| (&*it.host, it.port, it.tls, it.database));
        assert_eq!(parts.map_err(Clone::clone), expected, "{url}");
    }

    #[test]
    fn a_url_says_where_and_how() {
        check("redis://localhost", Ok(("localhost", 6379, false, 0)));
        check(
            "redis://127.0.0.1:7000/3",
            Ok(("127.0.0.1", 7000, false, 3)),
        );
        check("redis://[::1]:7000", Ok(("::1", 7000, false, 0)));
        check(
            "rediss://cache.example:6380",
            Ok(("cache.example", 6380, true, 0)),
        );
        let plain = |host: &str| RedisSettingsError::Plaintext { host: host.into() };
        check("redis://cache.example", Err(plain("cache.example")));
        check("redis://10.0.0.1", Err(plain("10.0.0.1")));
        check("redis://localhost.example", Err(plain("localhost.example")));
        for url in [
            "",
            "http://localhost",
            "redis://",
            "redis://localhost/x",
            "unix:///s",
            "redis://localhost/70000",
            "rediss://h/#insecure",
            "redis://localhost?protocol=resp3",
        ] {
            check(url, Err(RedisSettingsError::Url));
        }
        assert!(RedisSettings::insecure_plaintext("redis://10.0.0.1", Password::default()).is_ok());
    }

    #[test]
    fn a_password_is_taken_from_one_place_and_never_shown() {
        let url = "redis://me:s%65cret@localhost";
        let settings = RedisSettings::new(url, Password::default()).unwrap();
        assert_eq!(settings.password.expose(), "secret");
        assert_eq!(settings.user.as_deref(), Some("me"));
        let apart = RedisSettings::new("redis://localhost", Password::new("secret")).unwrap();
        for settings in [settings, apart] {
            assert_eq!(settings.password.expose(), "secret");
            assert!(!format!("{settings:?}").contains("secret"));
        }
        let twice = RedisSettings::new(url, Password::new("other"));
        assert_eq!(twice.unwrap_err(), RedisSettingsError::TwoPasswords);
    }
}
