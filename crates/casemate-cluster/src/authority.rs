//! The private authority of a cluster: one key, which API servers share through the store.

use casemate_rpc::control::Member;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::names::{host_of, host_of_role, is_member_name};

const HOUR: i64 = 3600;
/// How long the authority holds.
const AUTHORITY_HOURS: i64 = 20 * 365 * 24;
/// How long a member's certificate holds. It is renewed when half of that is over, so that a cluster
/// whose API servers are away keeps its connections for half a day at least.
pub const CERTIFICATE_HOURS: i64 = 24;
/// Certificates hold from a while ago: the members' clocks need not agree better than this.
const BEHIND_SECONDS: i64 = 10 * 60;
/// Of the record's format.
const VERSION: u32 = 1;
/// A point of P-256, not compressed.
const PUBLIC_KEY_BYTES: usize = 65;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("the authority's record cannot be read")]
    Record(#[source] serde_json::Error),
    #[error("the authority's record has version {0}, which this casemate does not know")]
    Version(u32),
    #[error("the authority's certificate cannot be read")]
    Certificate,
    #[error("the public key is not a point of P-256 in hexadecimal")]
    PublicKey,
    #[error("{0:?} cannot be a member's name: lower-case letters, digits and hyphens, 63 at most")]
    Name(String),
}

/// See the module.
pub struct Authority {
    record: Record,
    key: KeyPair,
}

/// As it is kept; whoever reads it can admit anybody.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    certificate: String,
    key: String,
}

impl Authority {
    /// Makes one; `now` is seconds since 1970.
    pub fn make(now: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = issuer();
        params.not_before = moment(now - BEHIND_SECONDS);
        params.not_after = moment(now + AUTHORITY_HOURS * HOUR);
        let record = Record {
            version: VERSION,
            certificate: params.self_signed(&key)?.pem(),
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

    /// Everything of it, its key included.
    pub fn record(&self) -> String {
        serde_json::to_string(&self.record).expect("the record is plain text")
    }

    /// Its certificate, which members trust; PEM.
    pub fn certificate(&self) -> &str {
        &self.record.certificate
    }

    /// By which a machine that joins knows it.
    pub fn fingerprint(&self) -> Result<[u8; 32], AuthorityError> {
        let der = CertificateDer::from_pem_slice(self.record.certificate.as_bytes());
        Ok(fingerprint(&der.map_err(|_| AuthorityError::Certificate)?))
    }

    /// A certificate for a member with this public key ([`crate::MemberKey::public`]); PEM. That it
    /// has the private one as well shows when it is used. `now` is seconds since 1970.
    pub fn admit(
        &self,
        member: &Member,
        public_key: &str,
        now: i64,
    ) -> Result<String, AuthorityError> {
        if !is_member_name(&member.name) {
            return Err(AuthorityError::Name(member.name.clone()));
        }
        let key = MemberPublicKey::parse(public_key)?;
        let mut params = CertificateParams::default();
        params.not_before = moment(now - BEHIND_SECONDS);
        params.not_after = moment(now + CERTIFICATE_HOURS * HOUR);
        params.distinguished_name = DistinguishedName::new();
        // Some implementations bound a common name at 64 characters; nobody reads it.
        let role = member.role.to_string();
        params.distinguished_name.push(DnType::CommonName, role);
        params.subject_alt_names = vec![
            SanType::DnsName(host_of(member).try_into()?),
            SanType::DnsName(host_of_role(member.role).try_into()?),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let by = issuer();
        let signed = params.signed_by(&key, &Issuer::from_params(&by, &self.key))?;
        Ok(signed.pem())
    }
}

pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// What of the authority's certificate those that it signs refer to.
fn issuer() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = "Casemate cluster authority";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("our clock is between the years 0 and 9999")
}

struct MemberPublicKey([u8; PUBLIC_KEY_BYTES]);

impl MemberPublicKey {
    fn parse(text: &str) -> Result<Self, AuthorityError> {
        let mut point = [0; PUBLIC_KEY_BYTES];
        hex::decode_to_slice(text, &mut point).map_err(|_| AuthorityError::PublicKey)?;
        // As SEC 1, 2.3.3 begins such a point.
        (point[0] == 4)
            .then_some(Self(point))
            .ok_or(AuthorityError::PublicKey)
    }
}

impl PublicKeyData for MemberPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
