//! An authority of the installation's own, for machines that no public authority can see.
//!
//! Whoever trusts it trusts it for the installation's names only: they are written into it as name
//! constraints, so that its key, if it were stolen, is of no use against anybody else's site. So
//! other names need another authority.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::pair::Pair;

const DAY: i64 = 24 * 3600;
/// How long the authority holds: whoever trusts it does so by hand.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a server's certificate holds. A new one needs nobody's consent.
const SERVER_DAYS: i64 = 90;
/// An authority with less left than its next certificate needs is replaced.
const AUTHORITY_LEFT_DAYS: i64 = 2 * SERVER_DAYS;
/// Certificates hold from a while ago: clocks of clients may be behind ours.
const BEHIND_SECONDS: i64 = 3600;

/// Of the record's format.
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("the authority's record cannot be read")]
    Record(#[source] serde_json::Error),
    #[error("the authority's record has version {0}, which this casemate does not know")]
    Version(u32),
}

/// What certificates are made out for: hosts, of which each with two labels or more has all names
/// one label below it as well, and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub hosts: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// In order and without doubles, so that equal sets are equal.
    pub fn new(hosts: impl IntoIterator<Item = String>, addresses: Vec<IpAddr>) -> Self {
        let mut names = Self {
            hosts: hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect(),
            addresses,
        };
        names.hosts.sort();
        names.hosts.dedup();
        names.addresses.sort();
        names.addresses.dedup();
        names
    }
}

/// The authority, with its key.
pub struct Authority {
    record: Record,
    key: KeyPair,
}

/// As it is kept; whoever reads it can sign.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Its common name.
    name: String,
    names: Names,
    not_after: i64,
    certificate: String,
    key: String,
}

impl Authority {
    /// Makes one for these names; `name` tells people whose it is. Times are seconds since 1970.
    pub fn make(name: &str, names: Names, now: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let not_after = now + AUTHORITY_DAYS * DAY;
        let mut params = issuer(name);
        params.not_before = moment(now - BEHIND_SECONDS);
        params.not_after = moment(not_after);
        params.name_constraints = Some(constraints(&names));
        let certificate = params.self_signed(&key)?.pem();
        let record = Record {
            version: VERSION,
            name: name.to_owned(),
            names,
            not_after,
            certificate,
            key: key.serialize_pem(),
        };
        Ok(Self { record, key })
    }

    /// Reads what [`Authority::record`] wrote.
    pub fn read(record: &str) -> Result<Self, AuthorityError> {
        let record: Record = serde_json::from_str(record).map_err(AuthorityError::Record)?;
        if record.version != VERSION {
            return Err(AuthorityError::Version(record.version));
        }
        let key = KeyPair::from_pem(&record.key)?;
        Ok(Self { record, key })
    }

    /// Everything of it, its key included: keep it where nobody else reads.
    pub fn record(&self) -> String {
        serde_json::to_string_pretty(&self.record).expect("the record is plain text")
    }

    /// Its certificate, which clients trust; PEM.
    pub fn certificate(&self) -> &str {
        &self.record.certificate
    }

    /// Its end, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.record.not_after
    }

    /// Whether it may sign for these names, and for long enough.
    pub fn serves(&self, names: &Names, now: i64) -> bool {
        let Names { hosts, addresses } = &self.record.names;
        names.hosts.iter().all(|host| hosts.contains(host))
            && names.addresses.iter().all(|ip| addresses.contains(ip))
            && self.record.not_after - now > AUTHORITY_LEFT_DAYS * DAY
    }

    /// A certificate for a server, with a key of its own.
    pub fn issue(&self, names: &Names, now: i64) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = moment(now - BEHIND_SECONDS);
        params.not_after = moment(now + SERVER_DAYS * DAY);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Casemate");
        params.subject_alt_names = alternatives(names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let by = issuer(&self.record.name);
        let certificate = params.signed_by(&key, &Issuer::from_params(&by, &self.key))?;
        Ok(Pair {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What of the authority's certificate those that it signs refer to.
fn issuer(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A permitted host permits everything below it.
fn constraints(names: &Names) -> NameConstraints {
    let hosts = names.hosts.iter().cloned().map(GeneralSubtree::DnsName);
    let whole =
        |ip: &IpAddr| CidrSubnet::from_addr_prefix(*ip, if ip.is_ipv4() { 32 } else { 128 });
    let addresses = names.addresses.iter().map(whole);
    NameConstraints {
        permitted_subtrees: hosts
            .chain(addresses.map(GeneralSubtree::IpAddress))
            .collect(),
        excluded_subtrees: Vec::new(),
    }
}

fn alternatives(names: &Names) -> Result<Vec<SanType>, rcgen::Error> {
    let mut alternatives = Vec::new();
    for host in &names.hosts {
        alternatives.push(SanType::DnsName(host.as_str().try_into()?));
        // No client takes a wildcard below a single label, and rustls then takes none of the names.
        if host.contains('.') {
            alternatives.push(SanType::DnsName(format!("*.{host}").try_into()?));
        }
    }
    alternatives.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    Ok(alternatives)
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("our clock is between the years 0 and 9999")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000;

    fn names(hosts: &[&str]) -> Names {
        let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        Names::new(hosts.iter().map(|h| (*h).to_owned()), addresses)
    }

    #[test]
    fn an_authority_is_the_same_after_it_was_read_again() {
        let names = names(&["casemate.localhost", "localhost"]);
        let made = Authority::make("Casemate test", names.clone(), NOW).unwrap();
        let read = Authority::read(&made.record()).unwrap();
        assert_eq!(read.certificate(), made.certificate());
        let checked = read.issue(&names, NOW).unwrap().check(NOW).unwrap();
        for host in [
            "casemate.localhost",
            "3000-abc.casemate.localhost",
            "localhost",
            "127.0.0.1",
            "::1",
        ] {
            assert!(checked.covers(host), "{host}");
        }
        for host in ["a.b.casemate.localhost", "example.com", "127.0.0.2"] {
            assert!(!checked.covers(host), "{host}");
        }
        assert_eq!(checked.validity.not_after, NOW + SERVER_DAYS * DAY);
    }

    #[test]
    fn other_names_or_a_near_end_need_another_authority() {
        let few = names(&["localhost"]);
        let authority = Authority::make("Casemate test", few.clone(), NOW).unwrap();
        assert!(authority.serves(&few, NOW));
        assert!(!authority.serves(&names(&["localhost", "box.example"]), NOW));
        let late = authority.not_after() - AUTHORITY_LEFT_DAYS * DAY;
        assert!(authority.serves(&few, late - 1) && !authority.serves(&few, late));
    }
}
