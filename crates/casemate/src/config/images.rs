//! `[images]` and `[builds]`: where recipes' images come from, and how much builds may take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use casemate_images::{ConfigError, ImagesConfig, Mirror, ProxyConfig, Reference, RegistryConfig};
use casemate_types::template::TemplateRef;
use serde::{Deserialize, Serialize};

use super::Secret;

/// `[images]`: registries, mirrors and what stands for what.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// By host as in references, with the port where they name one. Only hosts that are named here,
    /// as mirrors, aliases or proxy may be on closed networks, loopback among them.
    pub registries: BTreeMap<String, Registry>,
    /// Whole references that stand for others.
    pub aliases: BTreeMap<String, String>,
    /// Images that are at hand as templates, by reference.
    pub templates: BTreeMap<String, String>,
    /// Compressed layers that are kept, MiB; it bounds the largest image as well.
    pub cache_mib_max: u64,
    /// All files of one image, MiB.
    pub image_mib_max: u32,
    /// `http://[USER:PASSWORD@]HOST:PORT`, asked to CONNECT to registries. Empty: none.
    pub proxy: Secret,
    /// Hosts that are dialled without it: names, and with a leading dot all names below.
    pub proxy_bypass: Vec<String>,
    /// The proxy is told names and keeps closed networks closed itself. Otherwise it is told
    /// addresses that were checked here.
    pub proxy_resolves_names: bool,
    /// Where AWS's registry service is asked for tokens. Empty: at AWS.
    pub ecr_endpoint: String,
}

/// One registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Asked first, in this order, without credentials: `[http://|https://]HOST[:PORT][/PREFIX]`.
    pub mirrors: Vec<String>,
    /// Whether the registry is asked for what no mirror has.
    pub fallback: bool,
    /// Plain http.
    pub insecure: bool,
    /// PEM files of authorities for it.
    pub ca_files: Vec<PathBuf>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            fallback: true,
            insecure: false,
            ca_files: Vec::new(),
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            aliases: BTreeMap::new(),
            // What the SDKs begin with when a recipe names nothing.
            templates: BTreeMap::from([("e2bdev/base".into(), "base".into())]),
            cache_mib_max: 20 * 1024,
            image_mib_max: 25_000,
            proxy: Secret::default(),
            proxy_bypass: Vec::new(),
            proxy_resolves_names: false,
            ecr_endpoint: String::new(),
        }
    }
}

impl Images {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.cache_mib_max >= 256,
            "images.cache_mib_max must be at least 256"
        );
        ensure!(
            (64..=1_000_000).contains(&self.image_mib_max),
            "images.image_mib_max must be 64 to 1000000"
        );
        self.at_hand()?;
        let config = self.config(PathBuf::new())?;
        casemate_images::Images::check(config).map_err(|error| {
            let key = match &error {
                ConfigError::Host(_) => "images.registries",
                ConfigError::CaFile { .. } | ConfigError::NoAuthority(_) => {
                    "images.registries, ca_files"
                }
                ConfigError::Alias { .. } => "images.aliases",
                ConfigError::EcrEndpoint(_) => "images.ecr_endpoint",
                ConfigError::ProxyHost | ConfigError::ProxyCredentials => "images.proxy",
                ConfigError::Cache { .. } => "images",
            };
            anyhow::Error::new(error).context(key)
        })
    }

    /// Templates by the normal form of the images that they stand for.
    pub fn at_hand(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let normal = |(image, template): (&String, &String)| {
            let reference = Reference::parse(image)
                .with_context(|| format!("images.templates: {image:?} is no image"))?;
            TemplateRef::parse(template)
                .with_context(|| format!("images.templates: {template:?} is no template"))?;
            Ok((reference.to_string(), template.clone()))
        };
        self.templates.iter().map(normal).collect()
    }

    /// As the registries' client takes it.
    pub fn config(&self, cache_dir: PathBuf) -> anyhow::Result<ImagesConfig> {
        let mut config = ImagesConfig::new(cache_dir, self.cache_mib_max << 20);
        config.image_bytes_max = u64::from(self.image_mib_max) << 20;
        for (host, registry) in &self.registries {
            let mirror = |text: &String| {
                text.parse::<Mirror>()
                    .with_context(|| format!("images.registries.{host}: the mirror {text:?}"))
            };
            let read = RegistryConfig {
                mirrors: registry
                    .mirrors
                    .iter()
                    .map(mirror)
                    .collect::<Result<_, _>>()?,
                fallback: registry.fallback,
                insecure: registry.insecure,
                ca_files: registry.ca_files.clone(),
            };
            config.registries.insert(host.clone(), read);
        }
        config.aliases = self.aliases.clone();
        config.proxy = self.proxy()?;
        config.ecr_endpoint = Some(self.ecr_endpoint.clone()).filter(|url| !url.is_empty());
        Ok(config)
    }

    fn proxy(&self) -> anyhow::Result<Option<ProxyConfig>> {
        if self.proxy.is_empty() {
            return Ok(None);
        }
        // The text may hold a password: no error shows it.
        let form = "images.proxy is not http://[USER:PASSWORD@]HOST:PORT";
        let rest = self.proxy.expose().strip_prefix("http://").context(form)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let Some((host, port)) = place.rsplit_once(':') else {
            bail!(form);
        };
        let credentials = match login.map(|login| login.split_once(':')) {
            None => None,
            Some(Some((user, password))) => Some((user.to_owned(), password.to_owned())),
            Some(None) => bail!(form),
        };
        Ok(Some(ProxyConfig {
            host: host.to_owned(),
            port: port.parse().ok().context(form)?,
            credentials,
            bypass: self.proxy_bypass.clone(),
            resolves_names: self.proxy_resolves_names,
        }))
    }
}

/// `[builds]`: builds of templates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Builds {
    /// Builds that run at once; others wait. 0: as many as the machine has processors, at least 2.
    pub at_once: usize,
    /// Days that a step's result is kept after its last use.
    pub cache_days: u32,
    /// Results of steps that are kept of each team.
    pub cache_steps_max: u32,
    /// What layers of a team's templates and results of its steps may take together, MiB. Results that
    /// were not used for longest go for it; a template that does not fit beside the others fails.
    pub team_mib_max: u64,
    /// Days that a ready build is kept to which neither tag nor sandbox leads; 0: for ever.
    pub unused_days: u32,
    /// The layer of an exported template, MiB, packed; beyond it 413. It is on the disk while the
    /// client fetches it.
    pub export_mib_max: u64,
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            at_once: 0,
            cache_days: 7,
            cache_steps_max: 2000,
            team_mib_max: 20 * 1024,
            unused_days: 30,
            export_mib_max: 8192,
        }
    }
}

impl Builds {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.at_once <= 256, "builds.at_once must be 0 to 256");
        ensure!(
            (1..=365).contains(&self.cache_days),
            "builds.cache_days must be 1 to 365, got {}",
            self.cache_days
        );
        ensure!(
            self.cache_steps_max >= 10,
            "builds.cache_steps_max must be at least 10, got {}",
            self.cache_steps_max
        );
        ensure!(
            self.team_mib_max >= 256,
            "builds.team_mib_max must be at least 256, got {}",
            self.team_mib_max
        );
        ensure!(
            self.unused_days <= 3650,
            "builds.unused_days must be 0 to 3650, got {}",
            self.unused_days
        );
        ensure!(
            (1..=1024 * 1024).contains(&self.export_mib_max),
            "builds.export_mib_max must be 1 to 1048576, got {}",
            self.export_mib_max
        );
        Ok(())
    }

    pub fn at_once(&self) -> usize {
        match self.at_once {
            0 => std::thread::available_parallelism().map_or(2, |count| count.get().max(2)),
            set => set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(text: &str) -> anyhow::Result<Images> {
        let images: Images = toml::from_str(text)?;
        images.check()?;
        Ok(images)
    }

    #[test]
    fn a_site_without_the_internet() {
        let text = r#"
            [registries."docker.io"]
            mirrors = ["http://127.0.0.1:5000"]
            fallback = false
            [aliases]
            "ubuntu:22.04" = "127.0.0.1:5000/mine/ubuntu:22.04"
            [templates]
            "e2bdev/base" = "mine"
        "#;
        let images = images(text).unwrap();
        let at_hand = images.at_hand().unwrap();
        assert_eq!(at_hand["docker.io/e2bdev/base:latest"], "mine");
        let config = images.config("/x".into()).unwrap();
        assert!(!config.registries["docker.io"].fallback);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_shown() {
        for (text, expected) in [
            ("cache_mib_max = 1", "cache_mib_max"),
            ("[registries.x]\nmirrors = [\"ftp://y\"]", "ftp://y"),
            ("[templates]\n\"A B\" = \"base\"", "A B"),
            ("[templates]\nx = \"C D\"", "C D"),
            ("[aliases]\n\"a b\" = \"c\"", "images.aliases: 'a b'"),
            ("[aliases]\na = \"c d\"", "images.aliases: 'c d'"),
            ("[registries.\"a b\"]", "images.registries: 'a b'"),
            (
                "[registries.x]\nca_files = [\"/nowhere.pem\"]",
                "images.registries, ca_files: read authorities of /nowhere.pem",
            ),
            ("ecr_endpoint = \"ftp://x\"", "images.ecr_endpoint"),
            ("proxy = \"https://u:geheim@h:1\"", "images.proxy"),
            ("proxy = \"http://u:geheim@h\"", "images.proxy"),
        ] {
            let error = format!("{:#}", images(text).unwrap_err());
            assert!(
                error.contains(expected) && !error.contains("geheim"),
                "{error}"
            );
        }
    }
}
