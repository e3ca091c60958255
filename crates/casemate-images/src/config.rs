//! What the operator says of registries, and what it may say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::NotAReference;
use crate::reference::checked_repository;
use crate::web::Authority;

/// Everything that [`crate::Images::open`] is told.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// A folder for layers; it is made when it is missing. Only `blobs` and `partial` in it are ours.
    pub cache_dir: PathBuf,
    /// Bytes of compressed layers that are kept. A layer that does not fit beside those that are
    /// being read is refused, so this bounds the largest image as well.
    pub cache_bytes_max: u64,
    /// Bytes of an image's layers together, unpacked.
    pub image_bytes_max: u64,
    /// By host as in references, with the port where they name one. Only hosts that are named here,
    /// as mirrors, in `aliases`, as `ecr_endpoint` or as `proxy` may have addresses in closed
    /// ranges, each with that port alone; the token service or storage of a registry on a private
    /// network therefore needs an entry of its own.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Whole references that stand for others: `ubuntu:22.04` → `127.0.0.1:5000/mine/ubuntu:22.04`.
    /// Both sides are read with Docker's defaults. The targets are asked without credentials.
    pub aliases: BTreeMap<String, String>,
    /// What is taken from images for several platforms, and asked of others.
    pub platform: Platform,
    /// The operator's own proxy for https; plain http never goes through it.
    pub proxy: Option<ProxyConfig>,
    /// Where AWS's ECR is asked instead of `https://api.ecr.<region>.amazonaws.com`.
    pub ecr_endpoint: Option<String>,
    pub patience: Patience,
}

/// What is said of one registry.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Asked before the registry, in this order, without credentials. Requests with credentials go to
    /// the registry itself.
    pub mirrors: Vec<Mirror>,
    /// Whether the registry itself is asked when no mirror has what is wanted. `false` keeps to the
    /// mirrors, for requests with credentials too (which the mirrors do not get to see).
    pub fallback: bool,
    /// Plain http, on port 80 when the name has none.
    pub insecure: bool,
    /// PEM files of authorities that are trusted for this host besides the system's.
    pub ca_files: Vec<PathBuf>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            fallback: true,
            insecure: false,
            ca_files: Vec::new(),
        }
    }
}

/// A host that has what another has: `[http://|https://]HOST[:PORT][/PREFIX]`. Authorities for it are
/// named in an entry of its own in [`ImagesConfig::registries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub(crate) host: String,
    pub(crate) prefix: Option<String>,
    /// Plain http.
    pub insecure: bool,
}

/// Why a text is no mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAMirror {
    #[error("it has another scheme than http and https")]
    Scheme,
    #[error("it is not a host with an optional port")]
    Host,
    #[error("what follows the host cannot begin a repository")]
    Prefix(#[source] NotAReference),
}

impl FromStr for Mirror {
    type Err = NotAMirror;

    fn from_str(text: &str) -> Result<Self, NotAMirror> {
        let (insecure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return Err(NotAMirror::Scheme),
            None => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, prefix) = match rest.split_once('/') {
            Some((host, prefix)) => {
                let prefix = checked_repository(prefix).map_err(NotAMirror::Prefix)?;
                (host, Some(prefix.to_string()))
            }
            None => (rest, None),
        };
        let host = host.to_ascii_lowercase();
        Authority::parse(&host, 443).ok_or(NotAMirror::Host)?;
        Ok(Self {
            host,
            prefix,
            insecure,
        })
    }
}

/// An operating system and a processor, in the words of Go and of registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl Platform {
    /// Linux on the processor that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
        }
    }
}

/// A proxy that is asked to CONNECT.
#[derive(Clone)]
pub struct ProxyConfig {
    pub host: String,
    pub port: u16,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Hosts that are dialled without it: names, and with a leading dot all names below.
    pub bypass: Vec<String>,
    /// Whether the proxy is told names instead of addresses that were checked here. Set it only for
    /// one that itself keeps private networks closed: names may resolve differently for it.
    pub resolves_names: bool,
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("credentials", &self.credentials.as_ref().map(|_| ".."))
            .field("bypass", &self.bypass)
            .field("resolves_names", &self.resolves_names)
            .finish()
    }
}

/// How long others are waited for, and how often they are asked.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Looking up a name, connecting and shaking hands, together.
    pub connect: Duration,
    /// Without a byte.
    pub stall: Duration,
    /// One manifest, config or token, whole.
    pub document: Duration,
    /// One layer, whole, tries and waits included.
    pub layer: Duration,
    /// Tries after the first; of the last of several sources only, the others have one try.
    pub retries: u32,
    /// Before the first of them; doubled before each of the next.
    pub retry_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            document: Duration::from_secs(180),
            layer: Duration::from_secs(3600),
            retries: 3,
            retry_wait: Duration::from_secs(1),
        }
    }
}

/// What is wrong with a configuration, or with the machine it is for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("'{0}' is not a host with an optional port")]
    Host(String),
    #[error("'{text}' is not an image reference")]
    Alias {
        text: String,
        #[source]
        source: NotAReference,
    },
    #[error("'{0}' is not a URL with http or https, a host and no path")]
    EcrEndpoint(String),
    #[error("the proxy's host cannot be connected to")]
    ProxyHost,
    #[error("the proxy's user name or password cannot be sent")]
    ProxyCredentials,
    #[error("read authorities of {path}", path = .path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{path} holds no authority that can be used", path = .0.display())]
    NoAuthority(PathBuf),
    #[error("prepare the cache of images in {path}", path = .path.display())]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl ImagesConfig {
    /// The unpacked size that upstream allows: 25,000 of its megabytes, which are 2^20 bytes.
    pub const IMAGE_BYTES_MAX: u64 = 25_000 << 20;

    /// A configuration that names no host, with the usual limits.
    pub fn new(cache_dir: PathBuf, cache_bytes_max: u64) -> Self {
        Self {
            cache_dir,
            cache_bytes_max,
            image_bytes_max: Self::IMAGE_BYTES_MAX,
            registries: BTreeMap::new(),
            aliases: BTreeMap::new(),
            platform: Platform::host(),
            proxy: None,
            ecr_endpoint: None,
            patience: Patience::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_as_they_are_written() {
        let mirror = |text: &str| text.parse::<Mirror>();
        let expected = |host: &str, prefix: Option<&str>, insecure| Mirror {
            host: host.into(),
            prefix: prefix.map(str::to_string),
            insecure,
        };
        assert_eq!(
            mirror("127.0.0.1:5000"),
            Ok(expected("127.0.0.1:5000", None, false))
        );
        assert_eq!(mirror("http://M.corp/"), Ok(expected("m.corp", None, true)));
        assert_eq!(
            mirror("https://m.corp/hub/x"),
            Ok(expected("m.corp", Some("hub/x"), false))
        );
        assert_eq!(mirror("ftp://m.corp"), Err(NotAMirror::Scheme));
        assert_eq!(mirror("u@m.corp"), Err(NotAMirror::Host));
        assert_eq!(mirror(""), Err(NotAMirror::Host));
        assert!(matches!(mirror("m.corp/../x"), Err(NotAMirror::Prefix(_))));
    }
}
