//! Hosts that the operator named, and what holds for each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{Authority, Url};
use crate::config::{ConfigError, ProxyConfig};

/// The largest file of authorities that is read, in certificates.
const AUTHORITIES_MAX: usize = 1000;

/// Whom requests may reach, and how.
pub(crate) struct Hosts {
    named: BTreeMap<Authority, Named>,
    /// For everyone else: the system's authorities.
    tls: Arc<ClientConfig>,
    roots: RootCertStore,
    pub(super) proxy: Option<ProxyConfig>,
}

/// What the operator said of a host.
#[derive(Default)]
struct Named {
    insecure: bool,
    tls: Option<Arc<ClientConfig>>,
}

impl Hosts {
    pub(crate) fn new(proxy: Option<ProxyConfig>) -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "an authority of the system's cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        Self {
            named: BTreeMap::new(),
            tls: client(roots.clone()),
            roots,
            proxy,
        }
    }

    /// Opens a host whatever its addresses are; by plain http if it is insecure. Once insecure, it
    /// stays so.
    pub(crate) fn name(&mut self, at: Authority, insecure: bool) {
        self.named.entry(at).or_default().insecure |= insecure;
    }

    /// Trusts these authorities for the host, besides the system's.
    pub(crate) fn trust(&mut self, at: Authority, files: &[PathBuf]) -> Result<(), ConfigError> {
        let mut roots = self.roots.clone();
        for path in files {
            let failed = |source| ConfigError::CaFile {
                path: path.clone(),
                source,
            };
            let found = CertificateDer::pem_file_iter(path)
                .map_err(failed)?
                .take(AUTHORITIES_MAX)
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed)?;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(ConfigError::NoAuthority(path.clone()));
            }
        }
        self.named.entry(at).or_default().tls = Some(client(roots));
        Ok(())
    }

    /// Whether the operator named it.
    pub(super) fn is_named(&self, at: &Authority) -> bool {
        self.named.contains_key(at)
    }

    /// Whether plain http may be spoken with it.
    pub(super) fn is_insecure(&self, at: &Authority) -> bool {
        self.named.get(at).is_some_and(|named| named.insecure)
    }

    pub(super) fn tls(&self, at: &Authority) -> Arc<ClientConfig> {
        let own = self.named.get(at).and_then(|named| named.tls.clone());
        own.unwrap_or_else(|| Arc::clone(&self.tls))
    }

    /// The proxy, if it is for this request.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<&ProxyConfig> {
        let proxy = self.proxy.as_ref()?;
        let host = url.at.host();
        let bypassed = proxy
            .bypass
            .iter()
            .any(|entry| match entry.strip_prefix('.') {
                Some(parent) => host
                    .strip_suffix(parent)
                    .is_some_and(|rest| rest.ends_with('.')),
                None => entry == host,
            });
        (url.secure && !bypassed).then_some(proxy)
    }
}

/// TLS 1.2 and 1.3 by `ring`, whatever the process has for its default.
fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the protocol versions that rustls has by default")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_for_https_to_others() {
        let hosts = Hosts::new(Some(ProxyConfig {
            host: "proxy".into(),
            port: 3128,
            credentials: None,
            bypass: vec!["here".into(), ".corp".into()],
            resolves_names: false,
        }));
        let proxied = |url: &str| hosts.proxy_for(&Url::parse(url).unwrap()).is_some();
        assert!(proxied("https://a.example/"));
        assert!(proxied("https://corp/"));
        assert!(proxied("https://xcorp/"));
        assert!(!proxied("http://a.example/"));
        assert!(!proxied("https://here:5000/"));
        assert!(!proxied("https://a.b.corp/"));
    }
}
