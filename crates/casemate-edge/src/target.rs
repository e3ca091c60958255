//! Where a request goes, from its host and its routing headers alone (decision 11, `api.md` 4.1).
//!
//! Pure: no lookup is made here, so the same bytes always give the same answer.

use std::net::IpAddr;

use casemate_types::SandboxId;
use http::{HeaderMap, HeaderName};

/// The port that envd listens on in every sandbox.
pub(crate) const ENVD_PORT: u16 = 49983;

const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// The decision for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Api,
    Sandbox(SandboxTarget),
}

/// A port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxTarget {
    pub(crate) sandbox: SandboxId,
    /// As the client wrote it; not range-checked here, a port above 65535 is simply not open.
    pub(crate) port: u64,
    /// The request came by header through `sandbox.<domain>`; then this is `<domain>` and the
    /// service sees the host that the sandbox would have by name.
    pub(crate) shared_domain: Option<String>,
}

/// A request that names a sandbox in a way that cannot be read; `Display` is the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("missing header")]
    MissingHeader,
    #[error("Invalid host")]
    InvalidHost,
    #[error("Invalid sandbox port")]
    InvalidPort,
    #[error("Invalid sandbox ID")]
    InvalidId,
}

/// The hosts that this edge answers for, without ports and in lower case.
#[derive(Debug, Clone)]
pub(crate) struct OwnHosts {
    domain: String,
    api: String,
    further: Vec<String>,
}

impl OwnHosts {
    pub(crate) fn new(domain: &str, further: &[String]) -> Self {
        let domain = normal(without_port(domain));
        Self {
            api: format!("api.{domain}"),
            further: further.iter().map(|h| normal(without_port(h))).collect(),
            domain,
        }
    }

    /// Decides for a request with this host (with or without a port) and these headers.
    pub(crate) fn target(&self, host: &str, headers: &HeaderMap) -> Result<Target, TargetError> {
        let name = normal(without_port(host));
        if name == self.api {
            return Ok(Target::Api);
        }
        let shared_domain = shared_domain(&name, host);
        let own = name == self.domain || self.further.contains(&name);
        let allowed = own || shared_domain.is_some() || name == "localhost" || is_address(&name);
        if allowed && let Some(target) = by_headers(headers, shared_domain)? {
            return Ok(Target::Sandbox(target));
        }
        // A machine may be called `10-web.internal`: its own names are never read as a sandbox's.
        if own || is_address(&name) {
            return Ok(Target::Api);
        }
        Ok(by_host(&name)?.map_or(Target::Api, Target::Sandbox))
    }
}

/// What follows `sandbox.` in the host as the client wrote it, its port included.
fn shared_domain(name: &str, host: &str) -> Option<String> {
    let domain = name.strip_prefix("sandbox.")?;
    let written = host.get("sandbox.".len()..)?;
    (!domain.is_empty() && !host.starts_with('[')).then(|| written.to_owned())
}

fn by_headers(
    headers: &HeaderMap,
    shared_domain: Option<String>,
) -> Result<Option<SandboxTarget>, TargetError> {
    let (id, port) = match (headers.get(SANDBOX_ID), headers.get(SANDBOX_PORT)) {
        (None, None) => return Ok(None),
        (Some(id), Some(port)) => (id, port),
        (Some(_), None) | (None, Some(_)) => return Err(TargetError::MissingHeader),
    };
    let port = port.to_str().map_err(|_| TargetError::InvalidPort)?;
    let id = id.to_str().map_err(|_| TargetError::InvalidId)?;
    Ok(Some(SandboxTarget {
        port: parse_port(port)?,
        sandbox: SandboxId::parse(id).map_err(|_| TargetError::InvalidId)?,
        shared_domain,
    }))
}

/// Reads `<digits>-<id>[-…].<anything>`; any other host is not a sandbox's.
fn by_host(name: &str) -> Result<Option<SandboxTarget>, TargetError> {
    let Some((label, _)) = name.split_once('.') else {
        return Ok(None);
    };
    // Pieces after the id are the client id of old SDKs.
    let mut pieces = label.split('-');
    let (Some(port), Some(id)) = (pieces.next(), pieces.next()) else {
        return Ok(None);
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    Ok(Some(SandboxTarget {
        port: parse_port(port)?,
        sandbox: SandboxId::parse(id).map_err(|_| TargetError::InvalidId)?,
        shared_domain: None,
    }))
}

fn parse_port(text: &str) -> Result<u64, TargetError> {
    // `parse` alone would take a leading `+`.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TargetError::InvalidPort);
    }
    text.parse().map_err(|_| TargetError::InvalidPort)
}

/// Cuts `:port`; an IPv6 address stands in brackets, which go too.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => host,
    }
}

fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
