//! Where a database is, and how it is spoken to.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

/// Of [`PostgresOptions::connections_max`].
pub const CONNECTIONS_MAX: u32 = 1000;
/// Of each timeout.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Of the address of a database.
pub const URL_BYTES_MAX: usize = 4096;

/// A password; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn new(password: String) -> Self {
        Self(password)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What of TLS a connection must have; the words are those of libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// Where the server has it; against nobody who is in between.
    Prefer,
    /// Encrypted, to whoever answers.
    Require,
    /// A certificate of an authority that we know, for whatever name.
    VerifyCa,
    /// … and of the server's name.
    VerifyFull,
}

impl TlsMode {
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "disable" => Some(Self::Disable),
            "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }
}

/// See [`PostgresOptions::parse`] for the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// A name, an address, or the folder of a socket (it begins with `/`).
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<Password>,
    /// By default [`TlsMode::VerifyFull`], and on loopback [`TlsMode::Prefer`]; nothing of it is
    /// used on a socket.
    pub tls: TlsMode,
    /// Authorities (PEM) beside the system's.
    pub tls_roots: Option<PathBuf>,
    /// Connections of this process, up to [`CONNECTIONS_MAX`]. The server's own `max_connections`
    /// (usually 100) is for all processes together; calls wait for one when all are in use.
    pub connections_max: u32,
    /// After which a connection that is not used is closed.
    pub idle_timeout: Duration,
    /// After which a connection is closed in any case: behind a balancer it is how others get their
    /// share.
    pub connection_lifetime: Duration,
    /// How long a call waits for a connection before it fails as busy.
    pub acquire_timeout: Duration,
    /// How long a statement may take, and wait for locks.
    pub statement_timeout: Duration,
    /// The only schema that connections see, made by [`super::migrate`]; `None`: the database's usual
    /// ones. A word of ours, not of a setting.
    pub schema: Option<&'static str>,
}

/// Why an address is none of a PostgreSQL database. It never repeats the address, which may have a
/// password in it.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("the address of the database is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("the address of the database is not a URL")]
    NoUrl(#[source] url::ParseError),
    #[error("the address of the database begins neither with postgres:// nor with postgresql://")]
    Scheme,
    #[error("the address of the database has no {0}")]
    Missing(&'static str),
    #[error("the {0} in the address of the database is not percent-encoded UTF-8")]
    Encoding(&'static str),
    #[error("the address of the database has an unknown parameter {0:?}")]
    Parameter(String),
    #[error("sslmode {0:?} is not one of disable, prefer, require, verify-ca and verify-full")]
    TlsMode(String),
    #[error("{what} is {value}, which is not between {min} and {max}")]
    Range {
        what: &'static str,
        value: u64,
        min: u64,
        max: u64,
    },
}

impl PostgresOptions {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`. Without a port 5432,
    /// without a database the user's name. A socket: `postgres:///DATABASE?host=/FOLDER&user=USER`.
    ///
    /// All else has its default: 20 connections, idle for 300 s and alive for 3600 s at most, 5 s
    /// to wait for one, 10 s for a statement.
    pub fn parse(url: &str) -> Result<Self, OptionsError> {
        if url.len() > URL_BYTES_MAX {
            return Err(OptionsError::TooLong);
        }
        let url = Url::parse(url).map_err(OptionsError::NoUrl)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(OptionsError::Scheme);
        }
        let mut host = decoded(url.host_str().unwrap_or_default(), "host")?;
        let mut user = decoded(url.username(), "user")?;
        let (mut tls, mut tls_roots) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => {
                    let mode = TlsMode::of_word(&value);
                    tls = Some(mode.ok_or_else(|| OptionsError::TlsMode(value.into_owned()))?);
                }
                "sslrootcert" => tls_roots = Some(PathBuf::from(value.into_owned())),
                "host" if value.starts_with('/') => host = value.into_owned(),
                "user" if user.is_empty() => user = value.into_owned(),
                _ => return Err(OptionsError::Parameter(name.into_owned())),
            }
        }
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(OptionsError::Missing("host"));
        }
        if user.is_empty() {
            return Err(OptionsError::Missing("user"));
        }
        let password = url.password().map(|text| decoded(text, "password"));
        let database = decoded(url.path().trim_start_matches('/'), "name")?;
        let is_near = is_loopback(&host);
        Ok(Self {
            tls: tls.unwrap_or(if is_near {
                TlsMode::Prefer
            } else {
                TlsMode::VerifyFull
            }),
            tls_roots,
            port: url.port().unwrap_or(5432),
            database: if database.is_empty() {
                user.clone()
            } else {
                database
            },
            user,
            password: password.transpose()?.map(Password),
            host,
            connections_max: 20,
            idle_timeout: Duration::from_secs(300),
            connection_lifetime: Duration::from_secs(3600),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            schema: None,
        })
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match (self.host.starts_with('/'), self.host.contains(':')) {
            (true, _) => self.host.clone(),
            (false, true) => format!("[{}]:{}", self.host, self.port),
            (false, false) => format!("{}:{}", self.host, self.port),
        }
    }

    /// With another password than the one in the address, if there is one.
    #[must_use]
    pub fn with_password(self, password: Option<Password>) -> Self {
        Self {
            password: password.or(self.password),
            ..self
        }
    }

    /// Whether all numbers are within their limits.
    pub fn check(&self) -> Result<(), OptionsError> {
        let connections = u64::from(self.connections_max);
        in_range(
            "the number of connections",
            connections,
            u64::from(CONNECTIONS_MAX),
        )?;
        let timeouts = [
            ("the idle timeout in ms", self.idle_timeout),
            (
                "the lifetime of connections in ms",
                self.connection_lifetime,
            ),
            ("the timeout for a connection in ms", self.acquire_timeout),
            ("the timeout of statements in ms", self.statement_timeout),
        ];
        for (what, timeout) in timeouts {
            in_range(what, millis(timeout), millis(TIMEOUT_MAX))?;
        }
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn in_range(what: &'static str, value: u64, max: u64) -> Result<(), OptionsError> {
    let min = 1;
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(OptionsError::Range {
        what,
        value,
        min,
        max,
    })
}

fn decoded(text: &str, what: &'static str) -> Result<String, OptionsError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| OptionsError::Encoding(what))?;
    Ok(decoded.into_owned())
}

/// A socket, or an address or name that never leaves this machine.
fn is_loopback(host: &str) -> bool {
    let is_address = |address: IpAddr| address.is_loopback();
    host.starts_with('/') || host == "localhost" || host.parse().is_ok_and(is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let url = "postgresql://me:p%40ss%2Fword@db.example:6000/base?sslmode=verify-ca\
                   &sslrootcert=/etc/ca.pem";
        let options = PostgresOptions::parse(url).unwrap();
        assert_eq!((&*options.host, options.port), ("db.example", 6000));
        assert_eq!((&*options.user, &*options.database), ("me", "base"));
        assert_eq!(options.password.unwrap().expose(), "p@ss/word");
        assert_eq!(options.tls, TlsMode::VerifyCa);
        assert_eq!(options.tls_roots, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn far_servers_are_verified_unless_another_mode_is_named() {
        for (url, tls) in [
            ("postgres://me@db.example/base", TlsMode::VerifyFull),
            ("postgres://me@10.0.0.7", TlsMode::VerifyFull),
            ("postgres://me@db.example?sslmode=disable", TlsMode::Disable),
            ("postgres://me@127.0.0.1:5433/base", TlsMode::Prefer),
            ("postgres://me@[::1]/base", TlsMode::Prefer),
            ("postgres://me@localhost/base", TlsMode::Prefer),
            (
                "postgres:///base?host=/run/postgresql&user=me",
                TlsMode::Prefer,
            ),
            ("postgres://me@%2Frun%2Fpostgresql/base", TlsMode::Prefer),
        ] {
            assert_eq!(PostgresOptions::parse(url).unwrap().tls, tls, "{url}");
        }
    }

    #[test]
    fn other_addresses_are_refused_without_their_password() {
        for url in [
            "mysql://me:secret@host/base",
            "postgres://me:secret@host/base?sslmode=allow",
            "postgres://me:secret@host/base?options=-c",
            "postgres://me:secret@host:port/base",
            "postgres://:secret@host/base",
            "postgres://me:secret@/base",
            "secret",
        ] {
            let error = PostgresOptions::parse(url).unwrap_err();
            let words = format!("{error} {error:?}");
            assert!(!words.contains("secret"), "{words}");
        }
    }

    #[test]
    fn a_password_of_its_own_wins_and_is_never_shown() {
        let options = PostgresOptions::parse("postgres://me:first@host/base").unwrap();
        let other = Some(Password::new("second".into()));
        let options = options.with_password(None).with_password(other);
        assert_eq!(options.password.as_ref().unwrap().expose(), "second");
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("first") && !shown.contains("second"),
            "{shown}"
        );
    }

    #[test]
    fn numbers_have_limits() {
        let options = PostgresOptions::parse("postgres://me@host/base").unwrap();
        options.check().unwrap();
        let none = PostgresOptions {
            connections_max: 0,
            ..options.clone()
        };
        none.check().unwrap_err();
        let never = PostgresOptions {
            statement_timeout: Duration::ZERO,
            ..options
        };
        never.check().unwrap_err();
    }
}
