//! What the platform hands to the init before the sandbox runs: identity and first settings.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;

use crate::limits::CONFIG_BYTES;

/// The version that this agent understands. Unknown fields are ignored, other versions refused:
/// a field that must not be ignored comes with a new version.
const VERSION: u32 = 3;

#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    version: u32,
    #[serde(default)]
    pub sandbox_id: String,
    #[serde(default)]
    pub template_id: String,
    #[serde(default)]
    pub access_token: Option<String>,
    /// The operator's, for every process. Since version 3.
    #[serde(default)]
    pub site_envs: BTreeMap<String, String>,
    /// For what clients start.
    #[serde(default)]
    pub envs: BTreeMap<String, String>,
    #[serde(default)]
    pub default_user: Option<String>,
    #[serde(default)]
    pub default_workdir: Option<String>,
    #[serde(default)]
    pub hostname: Option<String>,
    /// What the template starts. Since version 2: an agent that ignored it would give away sandboxes
    /// in which nothing runs.
    #[serde(default)]
    pub startup: Option<Startup>,
}

/// Commands of a template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Startup {
    /// Goes on running, or ends with 0.
    #[serde(default)]
    pub start: Option<String>,
    /// Tried until it ends with 0.
    pub ready: String,
    pub context: Context,
}

/// How both are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Context {
    pub user: String,
    /// `None`: the user's home.
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub envs: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration")]
    Read(#[source] io::Error),
    #[error("configuration of more than {CONFIG_BYTES} bytes")]
    TooLong,
    #[error("configuration is not as expected")]
    Parse(#[source] serde_json::Error),
    #[error("configuration has version {0}, this agent understands {VERSION}")]
    Version(u32),
    #[error("configuration has an empty access token")]
    EmptyToken,
}

impl Config {
    /// Reads to the end of `source`.
    pub fn read(source: impl Read) -> Result<Self, ConfigError> {
        let mut text = Vec::new();
        source
            .take(CONFIG_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(ConfigError::Read)?;
        if text.len() as u64 > CONFIG_BYTES {
            return Err(ConfigError::TooLong);
        }
        Self::parse(&text)
    }

    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(text).map_err(ConfigError::Parse)?;
        if config.version != VERSION {
            return Err(ConfigError::Version(config.version));
        }
        // An empty token would be one that everybody has.
        if config.access_token.as_deref() == Some("") {
            return Err(ConfigError::EmptyToken);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_configuration_with_unknown_fields() {
        let config = Config::parse(
            br#"{"version":3,"sandbox_id":"i1","template_id":"base","access_token":"ab",
                "envs":{"A":"1"},"default_user":"user","default_workdir":null,"hostname":"h","x":2,
                "startup":{"start":null,"ready":"true","context":{"user":"u","workdir":"/w","envs":{}}}}"#,
        )
        .unwrap();
        assert_eq!(config.sandbox_id, "i1");
        assert_eq!(config.access_token.as_deref(), Some("ab"));
        assert_eq!(config.envs["A"], "1");
        assert_eq!(config.default_workdir, None);
        let startup = config.startup.unwrap();
        assert_eq!((startup.start, startup.ready.as_str()), (None, "true"));
        assert_eq!(startup.context.workdir.as_deref(), Some("/w"));
    }

    #[test]
    fn refused() {
        assert!(matches!(
            Config::parse(br#"{"version":1}"#),
            Err(ConfigError::Version(1))
        ));
        assert!(matches!(Config::parse(b"{}"), Err(ConfigError::Parse(_))));
        assert!(matches!(
            Config::parse(br#"{"version":3,"access_token":""}"#),
            Err(ConfigError::EmptyToken)
        ));
        let long = vec![b' '; usize::try_from(CONFIG_BYTES).unwrap() + 1];
        assert!(matches!(
            Config::read(long.as_slice()),
            Err(ConfigError::TooLong)
        ));
    }
}
