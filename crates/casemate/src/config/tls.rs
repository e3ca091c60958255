//! `[tls]`, checked: which certificate, for which names, at which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_tls::Names;
use serde::{Deserialize, Serialize};

use super::{Config, Flags, raw};

/// Https, where it is on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tls {
    pub listen: SocketAddr,
    /// Where everybody is sent to https, and ACME's challenges are answered.
    pub http_listen: Option<SocketAddr>,
    pub certificate: Certificate,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    /// An authority of our own.
    Local,
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
    Acme(Acme),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acme {
    pub directory: String,
    pub contact: Vec<String>,
    pub ca: Option<PathBuf>,
    pub challenge: Challenge,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Challenge {
    Http01,
    Dns01 { hook: PathBuf, wait: Duration },
}

/// What no client resolves to anything but loopback, with two labels: OpenSSL, Node.js, rustls and
/// browsers all refuse a certificate for `*.localhost`, and take one for `*.casemate.localhost`.
const LOCAL_DOMAIN: &str = "casemate.localhost";
/// Of https, which URLs leave out.
const HTTPS_PORT: u16 = 443;

impl Tls {
    pub(super) fn check(raw: &raw::Tls, flags: &Flags) -> anyhow::Result<Option<Self>> {
        let certificate = match flags.tls.as_deref().unwrap_or(&raw.mode) {
            "off" => {
                ensure!(
                    flags.tls_listen.is_none()
                        && flags.tls_certificate.is_none()
                        && flags.tls_key.is_none(),
                    "https is off: say with --tls where its certificate comes from"
                );
                return Ok(None);
            }
            "local" => Certificate::Local,
            "files" => Certificate::Files {
                chain: file(
                    "certificate",
                    flags.tls_certificate.as_ref(),
                    &raw.certificate,
                )?,
                key: file("key", flags.tls_key.as_ref(), &raw.key)?,
            },
            "acme" => Certificate::Acme(Acme::check(raw)?),
            other => bail!("tls.mode: {other:?} is none of off, local, files, acme"),
        };
        let listen = flags.tls_listen.as_deref().unwrap_or(&raw.listen);
        let http_listen = Some(&raw.http_listen).filter(|at| !at.is_empty());
        Ok(Some(Self {
            listen: address("tls.listen", listen)?,
            http_listen: http_listen
                .map(|at| address("tls.http_listen", at))
                .transpose()?,
            certificate,
        }))
    }

    /// The domain of whoever named none.
    pub(super) fn domain(&self) -> String {
        match self.listen.port() {
            HTTPS_PORT => LOCAL_DOMAIN.into(),
            port => format!("{LOCAL_DOMAIN}:{port}"),
        }
    }
}

impl Acme {
    fn check(raw: &raw::Tls) -> anyhow::Result<Self> {
        ensure!(
            raw.acme_directory.starts_with("https://"),
            "tls.acme_directory: {:?} is no https URL",
            raw.acme_directory
        );
        ensure!(
            raw.acme_terms_agreed,
            "tls.acme_terms_agreed must be true: read the terms of the authority at {}",
            raw.acme_directory
        );
        let challenge = match raw.acme_challenge.as_str() {
            "http-01" => Challenge::Http01,
            "dns-01" => Challenge::Dns01 {
                hook: file("acme_dns_hook", None, &raw.acme_dns_hook)?,
                wait: Duration::from_secs(raw.acme_dns_wait_seconds),
            },
            other => bail!("tls.acme_challenge: {other:?} is neither http-01 nor dns-01"),
        };
        let ca = Some(&raw.acme_ca).filter(|path| !path.is_empty());
        Ok(Self {
            directory: raw.acme_directory.clone(),
            contact: raw.acme_contact.clone(),
            ca: ca.map(|path| file("acme_ca", None, path)).transpose()?,
            challenge,
        })
    }
}

/// The flag's path as the shell means it; a setting's is read from anywhere.
fn file(key: &str, flag: Option<&PathBuf>, setting: &str) -> anyhow::Result<PathBuf> {
    if let Some(named) = flag {
        return std::path::absolute(named).with_context(|| format!("tls.{key}"));
    }
    ensure!(
        !setting.is_empty(),
        "tls.{key} must be set with this tls.mode"
    );
    let path = PathBuf::from(setting);
    ensure!(
        path.is_absolute(),
        "tls.{key}: {path:?} is no absolute path"
    );
    Ok(path)
}

fn address(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("{key}: {text:?} is not ADDRESS:PORT"))
}

impl Config {
    /// What cannot work with this domain.
    pub(super) fn check_tls_names(&self) -> anyhow::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let (domain, host) = (&self.domain, self.host());
        match &tls.certificate {
            Certificate::Local => ensure!(
                host.contains('.') && host.parse::<IpAddr>().is_err(),
                "domain: {domain:?} has one label, and no client takes a certificate for \
                 \"*.{host}\": name one such as {LOCAL_DOMAIN}"
            ),
            Certificate::Acme(_) => ensure!(
                !self.domain_is_default && host.contains('.'),
                "tls.mode = \"acme\" needs server.domain: the name that the authority can look at"
            ),
            Certificate::Files { .. } => {}
        }
        Ok(())
    }

    /// The domain without its port.
    pub fn host(&self) -> &str {
        self.domain
            .rsplit_once(':')
            .map_or(&self.domain, |(host, _)| host)
    }

    /// The port of https as clients see it.
    pub fn https_port(&self) -> u16 {
        let named = self.domain.rsplit_once(':').map(|(_, port)| port.parse());
        named.and_then(Result::ok).unwrap_or(HTTPS_PORT)
    }

    /// What a certificate of our own authority is for.
    pub fn local_names(&self) -> Names {
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let named = self.tls.as_ref().map(|tls| tls.listen.ip());
        addresses.extend(named.filter(|ip| !ip.is_unspecified()));
        let mut hosts = vec![self.host().to_owned(), "localhost".to_owned()];
        for host in &self.edge_hosts {
            match host.parse() {
                Ok(ip) => addresses.push(ip),
                Err(_) => hosts.push(without_port(host).to_owned()),
            }
        }
        Names::new(hosts, addresses)
    }

    /// What is asked of an ACME authority. Without DNS there is no wildcard: then what the SDKs
    /// reach by header is named, and `get_host()` has no certificate.
    pub fn acme_names(&self, challenge: &Challenge) -> Vec<String> {
        let host = self.host();
        let mut names = vec![host.to_owned()];
        names.extend(match challenge {
            Challenge::Dns01 { .. } => vec![format!("*.{host}")],
            Challenge::Http01 => vec![format!("api.{host}"), format!("sandbox.{host}")],
        });
        let further = self.edge_hosts.iter().map(|host| without_port(host));
        let public = |host: &&str| host.contains('.') && host.parse::<IpAddr>().is_err();
        for further in further.filter(public) {
            if !names.iter().any(|name| name == further) {
                names.push(further.to_owned());
            }
        }
        names
    }
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}
