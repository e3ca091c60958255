//! `[database]` and `[redis]`: what is kept where, beyond this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use casemate_catalog::RedisSettings;
use casemate_sql::postgres::{Password, PostgresOptions};
use serde::{Deserialize, Serialize};

use super::Secret;

/// `[database]`: PostgreSQL. Without a URL the store is a file in the data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://USER@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`. A password may stand in it.
    pub url: Secret,
    /// Wins over the URL's.
    pub password: Secret,
    /// Connections of each process.
    pub connections_max: u32,
    /// After which a connection that is not used is closed.
    pub idle_seconds: u64,
    /// After which a connection is closed in any case.
    pub lifetime_seconds: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password: Secret::default(),
            connections_max: 20,
            idle_seconds: 300,
            lifetime_seconds: 3600,
        }
    }
}

impl Database {
    /// `None`: the store is a file.
    pub fn options(&self) -> anyhow::Result<Option<PostgresOptions>> {
        if self.url.is_empty() {
            ensure!(
                self.password.is_empty(),
                "database.password (DATABASE_PASSWORD) is set, and database.url (DATABASE_URL) is not"
            );
            return Ok(None);
        }
        let options = PostgresOptions::parse(self.url.expose());
        let options = options.context("database.url (DATABASE_URL)")?;
        let password =
            (!self.password.is_empty()).then(|| Password::new(self.password.expose().to_owned()));
        let options = PostgresOptions {
            connections_max: self.connections_max,
            idle_timeout: Duration::from_secs(self.idle_seconds),
            connection_lifetime: Duration::from_secs(self.lifetime_seconds),
            ..options.with_password(password)
        };
        options.check().context("[database]")?;
        Ok(Some(options))
    }
}

/// `[redis]`: the catalog that several processes share. Without a URL it is in memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`.
    pub url: Secret,
    pub password: Secret,
    /// PEM file of the authority behind its certificate. Empty: those that the system knows.
    pub ca_file: String,
    /// What all keys begin with: installations with different ones can share a Redis.
    pub prefix: String,
    /// `redis://` to another machine, which sends the password in clear.
    pub insecure_plaintext: bool,
    pub connection_timeout_seconds: u64,
    /// Of one call, from its question to its answer.
    pub call_timeout_seconds: u64,
    /// Calls under way at once.
    pub calls_max: usize,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password: Secret::default(),
            ca_file: String::new(),
            prefix: "casemate".into(),
            insecure_plaintext: false,
            connection_timeout_seconds: 5,
            call_timeout_seconds: 3,
            calls_max: 10_000,
        }
    }
}

impl Redis {
    /// `None`: the catalog is in memory.
    pub fn settings(&self) -> anyhow::Result<Option<RedisSettings>> {
        if self.url.is_empty() {
            ensure!(
                self.password.is_empty(),
                "redis.password is set, and redis.url (REDIS_URL) is not"
            );
            return Ok(None);
        }
        let password = casemate_catalog::Password::new(self.password.expose());
        let settings = match self.insecure_plaintext {
            true => RedisSettings::insecure_plaintext(self.url.expose(), password),
            false => RedisSettings::new(self.url.expose(), password),
        };
        let mut settings = settings.context("redis.url (REDIS_URL)")?;
        settings.ca_file = (!self.ca_file.is_empty()).then(|| PathBuf::from(&self.ca_file));
        settings.prefix.clone_from(&self.prefix);
        settings.connection_timeout = Duration::from_secs(self.connection_timeout_seconds);
        settings.call_timeout = Duration::from_secs(self.call_timeout_seconds);
        settings.calls_max = self.calls_max;
        settings.check().context("[redis]")?;
        Ok(Some(settings))
    }
}
