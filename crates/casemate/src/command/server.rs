//! Which installation a verb speaks to: flags, else the environment of the SDKs, else what `up`
//! wrote into its data directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use casemate_client::{Admin, Api, BaseUrl, Transport};

/// Where `up` keeps its data unless told otherwise.
const DATA_DIR: &str = "/var/lib/casemate";

const CREDENTIALS: &str = "credentials.env";
const ADMIN_TOKEN: &str = "secrets/admin_token";
const TEAM_ID: &str = "CASEMATE_INTERNAL_TEAM_ID";

// The flags of every verb that is a client. No document comment: it would take the place of each
// verb's own in the help.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ServerArgs {
    /// The platform's data directory on this machine; its credentials are used [default:
    /// /var/lib/casemate].
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Where the API is [default: E2B_API_URL, else https://api. before E2B_DOMAIN].
    #[arg(long, value_name = "URL", global = true)]
    api_url: Option<String>,
    /// Where sandboxes are reached [default: E2B_SANDBOX_URL; with E2B_DOMAIN alone
    /// https://sandbox. before it; else where the API is].
    #[arg(long, value_name = "URL", global = true)]
    sandbox_url: Option<String>,
    /// The team's key [default: E2B_API_KEY].
    #[arg(long, value_name = "KEY", global = true)]
    api_key: Option<String>,
}

/// An installation, as a team's client sees it.
pub struct Server {
    pub api: Api,
    /// Where that API is, and with which key it was opened, for programs that we start.
    pub base: BaseUrl,
    pub api_key: String,
    /// Through which sandboxes are reached.
    pub edge: BaseUrl,
}

impl ServerArgs {
    /// The platform of a data directory.
    pub fn of_dir(dir: PathBuf) -> Self {
        Self {
            data_dir: Some(dir),
            ..Self::default()
        }
    }

    pub fn connect(&self) -> anyhow::Result<Server> {
        let settings = self.settings()?;
        let missing = || Needed::Any.missing(&self.dir());
        let url = settings.api_url.with_context(missing)?;
        let key = settings.api_key.with_context(missing)?;
        let base: BaseUrl = url.parse()?;
        let edge = settings.sandbox_url.map(|url| url.parse()).transpose()?;
        let edge = edge.unwrap_or_else(|| base.clone());
        let api = Api::new(transport([&base, &edge])?, base.clone(), &key)?;
        Ok(Server {
            api,
            edge,
            base,
            api_key: key,
        })
    }

    /// The administrator's view, which only root of the platform's machine has.
    pub fn connect_admin(&self) -> anyhow::Result<Admin> {
        let dir = self.dir();
        let file = read_credentials(&dir, Needed::Directory)?;
        let missing = || Needed::Directory.missing(&dir);
        let team = file.get(TEAM_ID).with_context(missing)?;
        let url = self.api_url.as_ref().or_else(|| file.get("E2B_API_URL"));
        let url: BaseUrl = url.with_context(missing)?.parse()?;
        let token = read_private(&dir.join(ADMIN_TOKEN), Needed::Directory)?;
        let token = token.with_context(missing)?;
        Ok(Admin::new(transport([&url])?, url, token.trim(), team)?)
    }

    /// The data directory that was named, or the usual one.
    pub fn dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| DATA_DIR.into())
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let settings = resolve(self, environment);
        if settings.is_complete() {
            // Who is not root may well use the API: only what is needed is opened.
            return Ok(settings);
        }
        let file = read_credentials(&self.dir(), Needed::Any)?;
        Ok(settings.or(Settings::of(|name| file.get(name).cloned())))
    }
}

/// Whom the system trusts is looked up for https only: http needs nobody.
fn transport<const COUNT: usize>(urls: [&BaseUrl; COUNT]) -> anyhow::Result<Transport> {
    Ok(match urls.into_iter().any(BaseUrl::is_https) {
        true => Transport::with_system_trust()?,
        false => Transport::new(),
    })
}

/// What is known about an installation.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    api_url: Option<String>,
    sandbox_url: Option<String>,
    api_key: Option<String>,
    /// The addresses are made from a domain.
    is_by_domain: bool,
}

impl Settings {
    /// As the SDKs read them: an address wins over what is made from the domain.
    fn of(named: impl Fn(&str) -> Option<String>) -> Self {
        let (api_url, sandbox_url) = (named("E2B_API_URL"), named("E2B_SANDBOX_URL"));
        let given = Self {
            api_url,
            sandbox_url,
            api_key: named("E2B_API_KEY"),
            is_by_domain: false,
        };
        match named("E2B_DOMAIN") {
            Some(domain) if given.api_url.is_none() => Self {
                api_url: Some(format!("https://api.{domain}")),
                sandbox_url: given
                    .sandbox_url
                    .or_else(|| Some(format!("https://sandbox.{domain}"))),
                is_by_domain: true,
                ..given
            },
            _ => given,
        }
    }

    fn is_complete(&self) -> bool {
        self.api_url.is_some() && self.api_key.is_some()
    }

    /// Fills what is missing. The address of sandboxes belongs to that of the API: one is never
    /// taken from another installation than the other.
    fn or(self, other: Self) -> Self {
        let sandbox_url = match self.api_url {
            Some(_) => self.sandbox_url,
            None => self.sandbox_url.or(other.sandbox_url),
        };
        Self {
            api_url: self.api_url.or(other.api_url),
            sandbox_url,
            api_key: self.api_key.or(other.api_key),
            is_by_domain: self.is_by_domain || other.is_by_domain,
        }
    }
}

/// Flags and environment. The environment counts only as a whole, and not beside a data directory
/// that was named: a key for another service must not be sent to this one.
fn resolve(args: &ServerArgs, environment: impl Fn(&str) -> Option<String>) -> Settings {
    let flags = Settings {
        api_url: args.api_url.clone(),
        sandbox_url: args.sandbox_url.clone(),
        api_key: args.api_key.clone(),
        is_by_domain: false,
    };
    let mut environment = Settings::of(environment);
    if environment.is_by_domain && environment.api_key.is_none() && args.api_key.is_none() {
        // Nor does a domain alone get the key of this machine's installation.
        environment = Settings::default();
    }
    if args.data_dir.is_some() {
        flags
    } else if environment.api_url.is_some() {
        flags.or(environment)
    } else if flags.api_url.is_some() {
        flags.or(Settings {
            api_key: environment.api_key,
            ..Settings::default()
        })
    } else {
        flags
    }
}

fn read_credentials(dir: &Path, needed: Needed) -> anyhow::Result<BTreeMap<String, String>> {
    let text = read_private(&dir.join(CREDENTIALS), needed)?;
    let text = text.with_context(|| needed.missing(dir))?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// A file that root alone may read; `None` when it is not there.
fn read_private(path: &Path, needed: Needed) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let instead = match needed {
                Needed::Any => ", or set E2B_API_URL and E2B_API_KEY",
                Needed::Directory => "",
            };
            bail!("{} is root's alone: use sudo{instead}", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// What a verb can do with.
#[derive(Debug, Clone, Copy)]
enum Needed {
    /// An address and a key, wherever they come from.
    Any,
    /// The administrator's token, which lies only in the data directory.
    Directory,
}

impl Needed {
    fn missing(self, dir: &Path) -> String {
        let dir = dir.display();
        match self {
            Self::Any => format!(
                "no installation is known: {dir} has no credentials (`casemate up` makes them). \
                 Name another directory with --data-dir, or set E2B_API_URL (or E2B_DOMAIN) and \
                 E2B_API_KEY"
            ),
            Self::Directory => format!(
                "this is for whoever runs the platform, on a machine of it: {dir} has no credentials \
                 (`casemate up` makes them, in a cluster `casemate api`). Name the data directory of \
                 one of them with --data-dir"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[track_caller]
    fn check(args: &ServerArgs, environment: &[(&str, &str)], expected: [Option<&str>; 3]) {
        let named = |name: &str| {
            environment
                .iter()
                .find_map(|(key, value)| (*key == name).then(|| (*value).to_owned()))
        };
        let [api_url, sandbox_url, api_key] = expected.map(|value| value.map(str::to_owned));
        let found = resolve(args, named);
        assert_eq!(
            (found.api_url, found.sandbox_url, found.api_key),
            (api_url, sandbox_url, api_key)
        );
    }

    #[test]
    fn flags_win_over_the_environment_and_a_named_directory_silences_it() {
        let env = [
            ("E2B_API_URL", "http://e"),
            ("E2B_SANDBOX_URL", "http://s"),
            ("E2B_API_KEY", "k"),
        ];
        let none = ServerArgs::default();
        check(&none, &env, [Some("http://e"), Some("http://s"), Some("k")]);
        let url = ServerArgs {
            api_url: some("http://f"),
            ..Default::default()
        };
        check(&url, &env, [Some("http://f"), None, Some("k")]);
        let dir = ServerArgs {
            data_dir: Some("/d".into()),
            ..Default::default()
        };
        check(&dir, &env, [None, None, None]);
    }

    #[test]
    fn a_domain_is_enough_and_an_address_wins_over_it() {
        let env = [("E2B_DOMAIN", "box.test:8443"), ("E2B_API_KEY", "k")];
        let none = ServerArgs::default();
        let (api, edge) = ("https://api.box.test:8443", "https://sandbox.box.test:8443");
        check(&none, &env, [Some(api), Some(edge), Some("k")]);
        let both = [("E2B_API_URL", "http://e"), env[0], env[1]];
        check(&none, &both, [Some("http://e"), None, Some("k")]);
        check(&none, &env[..1], [None, None, None]);
        let url = ServerArgs {
            api_url: some("http://f"),
            ..Default::default()
        };
        check(&url, &env, [Some("http://f"), None, Some("k")]);
    }

    #[test]
    fn a_key_alone_in_the_environment_is_meant_for_another_service() {
        let env = [("E2B_API_KEY", "cloud")];
        check(&ServerArgs::default(), &env, [None, None, None]);
        let url = ServerArgs {
            api_url: some("http://f"),
            ..Default::default()
        };
        check(&url, &env, [Some("http://f"), None, Some("cloud")]);
    }
}
