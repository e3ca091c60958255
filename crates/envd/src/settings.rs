//! Token, environment and defaults, and the rule of who may change the token.

use std::collections::BTreeMap;

use sha2::{Digest, Sha512};

use crate::config::Config;
use crate::record::Record;

/// What requests run with.
pub struct Settings {
    pub access_token: Option<String>,
    /// Variables of the platform; users cannot change them.
    internal: BTreeMap<String, String>,
    /// The operator's: below those of `/init`, which leave them in place.
    site: BTreeMap<String, String>,
    /// Variables of `/init`, replaced as a whole.
    user: BTreeMap<String, String>,
    pub default_user: String,
    pub default_workdir: Option<String>,
    /// For the server after this one.
    kept: Option<Record>,
    /// The newest `/init` seen, in nanoseconds since the epoch.
    pub newest_init: Option<i128>,
}

impl Settings {
    pub fn new(config: Option<&Config>, in_sandbox: bool) -> Self {
        let mut internal = BTreeMap::new();
        internal.insert("E2B_SANDBOX".to_owned(), in_sandbox.to_string());
        let mut settings = Self {
            access_token: None,
            internal,
            site: BTreeMap::new(),
            user: BTreeMap::new(),
            default_user: "root".to_owned(),
            default_workdir: None,
            kept: None,
            newest_init: None,
        };
        if let Some(config) = config {
            settings.access_token.clone_from(&config.access_token);
            settings.set_internal("E2B_SANDBOX_ID", &config.sandbox_id);
            settings.set_internal("E2B_TEMPLATE_ID", &config.template_id);
            settings.site.clone_from(&config.site_envs);
            settings.replace_user_variables(config.envs.clone());
            settings.change_defaults(
                config.default_user.as_deref(),
                config.default_workdir.as_deref(),
            );
        }
        settings
    }

    pub fn set_internal(&mut self, name: &str, value: &str) {
        self.user.remove(name);
        self.internal.insert(name.to_owned(), value.to_owned());
    }

    /// Names of the platform's own variables are skipped in silence.
    pub fn replace_user_variables(&mut self, variables: BTreeMap<String, String>) {
        self.user = variables;
        self.user
            .retain(|name, _| !self.internal.contains_key(name));
        if let Some(kept) = &self.kept {
            kept.write(&self.user);
        }
    }

    /// Variables are kept there from now on; those that are there already count.
    pub fn keep_variables(&mut self, kept: Option<Record>) {
        if let Some(former) = kept.as_ref().and_then(Record::read) {
            self.replace_user_variables(former);
        }
        self.kept = kept;
    }

    /// Absent and empty change nothing.
    pub fn change_defaults(&mut self, user: Option<&str>, workdir: Option<&str>) {
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            self.default_user = user.to_owned();
        }
        if let Some(workdir) = workdir.filter(|workdir| !workdir.is_empty()) {
            self.default_workdir = Some(workdir.to_owned());
        }
    }

    /// Of everything that runs here: the operator's and the platform's. The same name may come again,
    /// and counts as it comes last.
    pub fn variables_of_all(&self) -> impl Iterator<Item = (&String, &String)> {
        self.site.iter().chain(&self.internal)
    }

    /// Of what clients start; as above.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.variables_of_all().chain(&self.user)
    }

    /// Whether `token` is the one that is set. In constant time for its length.
    pub fn token_is(&self, token: &[u8]) -> bool {
        self.access_token
            .as_deref()
            .is_some_and(|own| same_bytes(own.as_bytes(), token))
    }
}

/// Compares without telling by the time taken where the first difference is.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b))) == 0
}

/// What the platform says about genuine `/init` calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Nobody said anything: the first caller sets up.
    None,
    /// The token of genuine calls has this SHA-512; that of the empty string allows the reset.
    Hash(Box<[u8; 64]>),
}

/// Why an `/init` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("access token reset not authorized")]
    Reset,
    #[error("access token validation failed")]
    Token,
}

impl Authority {
    pub fn of(config: Option<&Config>) -> Self {
        config.map_or(Self::None, |config| {
            Self::hash_of(config.access_token.as_deref())
        })
    }

    fn hash_of(token: Option<&str>) -> Self {
        Self::Hash(Box::new(Sha512::digest(token.unwrap_or_default()).into()))
    }

    /// Whether a call with the token `given` may change the settings.
    pub fn check(&self, own: Option<&str>, given: Option<&str>) -> Result<(), Refused> {
        if let (Some(own), Some(given)) = (own, given)
            && same_bytes(own.as_bytes(), given.as_bytes())
        {
            return Ok(());
        }
        match self {
            Self::Hash(_) if *self == Self::hash_of(given) => Ok(()),
            Self::None if own.is_none() => Ok(()),
            Self::Hash(_) | Self::None => Err(if given.is_some() {
                Refused::Token
            } else {
                Refused::Reset
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        authority: &Authority,
        own: Option<&str>,
        given: Option<&str>,
        expected: Option<Refused>,
    ) {
        assert_eq!(authority.check(own, given).err(), expected);
    }

    #[test]
    fn who_may_initialise() {
        let hash_a = Authority::hash_of(Some("a"));
        let hash_nothing = Authority::hash_of(None);
        // The token that is set is enough, whatever the platform says.
        check(&Authority::None, Some("a"), Some("a"), None);
        check(&hash_nothing, Some("a"), Some("a"), None);
        // The platform's word is enough.
        check(&hash_a, None, Some("a"), None);
        check(&hash_a, Some("b"), Some("a"), None);
        check(&hash_nothing, Some("a"), None, None);
        check(&hash_nothing, None, None, None);
        // First set-up where nobody said anything.
        check(&Authority::None, None, None, None);
        check(&Authority::None, None, Some("a"), None);
        // All else is refused.
        check(&Authority::None, Some("a"), None, Some(Refused::Reset));
        check(&Authority::None, Some("a"), Some("b"), Some(Refused::Token));
        check(&hash_a, Some("a"), None, Some(Refused::Reset));
        check(&hash_a, None, None, Some(Refused::Reset));
        check(&hash_a, None, Some("b"), Some(Refused::Token));
        check(&hash_nothing, None, Some("a"), Some(Refused::Token));
    }

    #[test]
    fn user_variables_never_hide_internal_ones() {
        let mut settings = Settings::new(None, true);
        settings.replace_user_variables(
            [("E2B_SANDBOX", "x"), ("A", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        let all: Vec<_> = settings
            .variables()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(all, ["E2B_SANDBOX=true", "A=1"]);
        settings.replace_user_variables(BTreeMap::new());
        assert_eq!(settings.variables().count(), 1);
    }

    #[test]
    fn empty_defaults_change_nothing() {
        let mut settings = Settings::new(None, false);
        settings.change_defaults(Some("user"), Some("/w"));
        settings.change_defaults(Some(""), Some(""));
        settings.change_defaults(None, None);
        assert_eq!(settings.default_user, "user");
        assert_eq!(settings.default_workdir.as_deref(), Some("/w"));
    }
}
