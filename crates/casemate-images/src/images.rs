//! What others see: the images of one process, and one image.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::archive::Archived;
use crate::cache::{Cache, Scope};
use crate::config::ConfigError;
use crate::credentials::Login;
use crate::download::Shared;
use crate::reference::DOCKER_HUB;
use crate::registry::{Packed, Source};
use crate::web::{Authority, Hosts, Url, Web};
use crate::{Compression, Digest, ImagesConfig, ProcessConfig, Reference, RegistryConfig};

/// Layers that are fetched at once; more wait.
const DOWNLOADS_MAX: usize = 32;
/// Docker Hub's API is not at the name that references have.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Images of registries, and the cache of their layers. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    pub(crate) shared: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ImagesConfig,
    pub(crate) aliases: Vec<(Reference, Reference)>,
    pub(crate) ecr_endpoint: Option<Url>,
    pub(crate) web: Web,
    pub(crate) cache: Arc<Cache>,
    pub(crate) downloads: Mutex<Shared>,
    pub(crate) seats: Semaphore,
}

/// An image that was found, and may be read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    /// The reference as it was asked for.
    pub asked: String,
    /// Who answered: host, port and repository, and the tag or digest.
    pub answered: String,
    /// Of the manifest for the platform, not of an index that named it.
    pub digest: Digest,
    /// Variables of the image's config; none has an empty value.
    pub env: Vec<(String, String)>,
    /// The same and more as the config has it.
    pub process: ProcessConfig,
    /// From the lowest up.
    pub layers: Vec<Layer>,
    /// All layers together.
    pub compressed_bytes: u64,
    pub(crate) origin: Arc<Origin>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob, as it is fetched.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub compressed_bytes: u64,
    /// Of the plain tar in it.
    pub diff_id: Digest,
    /// As the manifest says; what the blob begins with counts when it is read.
    pub compression: Compression,
}

/// Where an image's layers are had, and how much of it was unpacked.
pub(crate) struct Origin {
    pub(crate) place: Place,
    /// The most bytes that a reader got out of each layer.
    unpacked: Mutex<Vec<u64>>,
}

pub(crate) enum Place {
    Registry {
        /// The one that answered is the first.
        sources: Vec<Source>,
        scope: Scope,
    },
    Archive(Arc<Archived>),
}

impl Layer {
    pub(crate) fn of(packed: Packed, diff_id: Digest) -> Self {
        Self {
            digest: packed.digest,
            compressed_bytes: packed.bytes,
            diff_id,
            compression: packed.compression,
        }
    }
}

impl Origin {
    pub(crate) fn new(place: Place, layers: usize) -> Self {
        Self {
            place,
            unpacked: Mutex::new(vec![0; layers]),
        }
    }

    pub(crate) fn sources(&self) -> &[Source] {
        match &self.place {
            Place::Registry { sources, .. } => sources,
            Place::Archive(_) => &[],
        }
    }

    /// Notes that so much came out of a layer, and tells the sum over all of them.
    pub(crate) fn count(&self, layer: usize, bytes: u64) -> u64 {
        // Numbers that only grow are whole after a panic too.
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(most) = unpacked.get_mut(layer) {
            *most = bytes.max(*most);
        }
        unpacked
            .iter()
            .fold(0, |sum: u64, most| sum.saturating_add(*most))
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin(..)")
    }
}

impl Images {
    /// Checks the configuration, and makes or sweeps the cache: partial files that are older than a
    /// day, and what has no name of ours. Reads files; call it where blocking is allowed.
    pub fn open(config: ImagesConfig) -> Result<Self, ConfigError> {
        let Checked {
            config,
            hosts,
            aliases,
            ecr_endpoint,
        } = Checked::new(config)?;
        let cache = Cache::open(&config.cache_dir, config.cache_bytes_max).map_err(|source| {
            ConfigError::Cache {
                path: config.cache_dir.clone(),
                source,
            }
        })?;
        let patience = config.patience;
        Ok(Self {
            shared: Arc::new(Inner {
                config,
                aliases,
                ecr_endpoint,
                web: Web::new(hosts, patience),
                cache: Arc::new(cache),
                downloads: Mutex::default(),
                seats: Semaphore::new(DOWNLOADS_MAX),
            }),
        })
    }

    /// What [`Images::open`] would refuse of a configuration, without touching the cache.
    pub fn check(config: ImagesConfig) -> Result<(), ConfigError> {
        Checked::new(config).map(drop)
    }

    /// Where layers are kept.
    pub fn cache_dir(&self) -> &Path {
        &self.shared.config.cache_dir
    }
}

impl Inner {
    /// Everyone who may have this image, in the order in which they are asked. Only the registry
    /// itself gets to see a login.
    pub(crate) fn sources(&self, reference: &Reference, login: Option<Login>) -> Vec<Source> {
        let known = self.config.registries.get(reference.host());
        let usual = RegistryConfig::default();
        let registry = known.unwrap_or(&usual);
        let repository = reference.repository();
        let mut sources = Vec::new();
        if login.is_none() || !registry.fallback {
            for mirror in &registry.mirrors {
                let repository = match &mirror.prefix {
                    Some(prefix) => format!("{prefix}/{repository}"),
                    None => repository.to_string(),
                };
                if let Some(at) = Authority::parse(&mirror.host, port(mirror.insecure)) {
                    sources.push(Source::new(at, mirror.insecure, repository, None));
                }
            }
        }
        if registry.fallback
            && let Ok((at, insecure)) = registry_at(&self.config, reference.host())
        {
            sources.push(Source::new(at, insecure, repository.to_string(), login));
        }
        sources
    }
}

/// A configuration that can be used, and what was read of it.
struct Checked {
    config: ImagesConfig,
    hosts: Hosts,
    aliases: Vec<(Reference, Reference)>,
    ecr_endpoint: Option<Url>,
}

impl Checked {
    fn new(mut config: ImagesConfig) -> Result<Self, ConfigError> {
        // As references have them.
        let registries = std::mem::take(&mut config.registries).into_iter();
        config.registries = registries
            .map(|(host, registry)| (host.to_ascii_lowercase(), registry))
            .collect();
        let mut hosts = Hosts::new(config.proxy.clone());
        if let Some(proxy) = &config.proxy {
            proxy.check()?;
        }
        for (host, registry) in &config.registries {
            name_registry(&mut hosts, host, registry)?;
        }
        let mut aliases = Vec::new();
        for (from, to) in &config.aliases {
            let (from, to) = (alias(from)?, alias(to)?);
            let (at, insecure) = registry_at(&config, to.host())?;
            hosts.name(at, insecure);
            aliases.push((from, to));
        }
        let ecr_endpoint = config.ecr_endpoint.as_deref().map(endpoint).transpose()?;
        if let Some(url) = &ecr_endpoint {
            hosts.name(url.at.clone(), !url.secure);
        }
        Ok(Self {
            config,
            hosts,
            aliases,
            ecr_endpoint,
        })
    }
}

fn name_registry(
    hosts: &mut Hosts,
    host: &str,
    registry: &RegistryConfig,
) -> Result<(), ConfigError> {
    let at = authority(host, port(registry.insecure))?;
    let at = api_of(at, host);
    hosts.name(at.clone(), registry.insecure);
    if !registry.ca_files.is_empty() {
        hosts.trust(at, &registry.ca_files)?;
    }
    for mirror in &registry.mirrors {
        hosts.name(
            authority(&mirror.host, port(mirror.insecure))?,
            mirror.insecure,
        );
    }
    Ok(())
}

/// Where a registry's API is, by the name that references have.
fn registry_at(config: &ImagesConfig, host: &str) -> Result<(Authority, bool), ConfigError> {
    let known = config.registries.get(host);
    let insecure = known.is_some_and(|registry| registry.insecure);
    Ok((api_of(authority(host, port(insecure))?, host), insecure))
}

fn api_of(at: Authority, host: &str) -> Authority {
    match host {
        DOCKER_HUB => Authority::parse(DOCKER_HUB_API, at.port()).unwrap_or(at),
        _ => at,
    }
}

fn port(insecure: bool) -> u16 {
    if insecure { 80 } else { 443 }
}

fn authority(host: &str, port: u16) -> Result<Authority, ConfigError> {
    Authority::parse(host, port).ok_or_else(|| ConfigError::Host(host.to_string()))
}

fn alias(text: &str) -> Result<Reference, ConfigError> {
    Reference::parse(text).map_err(|source| ConfigError::Alias {
        text: text.to_string(),
        source,
    })
}

fn endpoint(text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).filter(|url| url.path == "/");
    url.ok_or_else(|| ConfigError::EcrEndpoint(text.to_string()))
}
