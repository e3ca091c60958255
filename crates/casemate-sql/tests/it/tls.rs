//! Who a server is.

use std::path::PathBuf;

use casemate_sql::Error;
use casemate_sql::postgres::{Commits, PostgresOptions, TlsMode, connect};
use casemate_sql::testing::{Postgres, Setup, is_enabled};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::chain;

/// An authority's certificate, and one of a server of this name with its key; all PEM.
fn authority(name: &str) -> (String, (String, String)) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap().pem();
    (certificate, (server, key.serialize_pem()))
}

#[tokio::test]
async fn a_server_proves_its_name_where_that_is_asked_for() {
    if !is_enabled() {
        return;
    }
    let (ours, server_tls) = authority("localhost");
    let (others, _) = authority("localhost");
    let server = Postgres::start(&Setup {
        tls: Some(server_tls),
        ..Setup::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let (ours, others) = (file("ours.pem", &ours), file("others.pem", &others));
    for (host, tls, roots, is_welcome) in [
        ("localhost", TlsMode::VerifyFull, Some(&ours), true),
        ("127.0.0.1", TlsMode::VerifyFull, Some(&ours), false),
        ("127.0.0.1", TlsMode::VerifyCa, Some(&ours), true),
        ("localhost", TlsMode::VerifyFull, Some(&others), false),
        ("localhost", TlsMode::VerifyCa, Some(&others), false),
        ("localhost", TlsMode::VerifyFull, None, false),
        ("127.0.0.1", TlsMode::Require, None, true),
        ("127.0.0.1", TlsMode::Prefer, None, true),
        ("127.0.0.1", TlsMode::Disable, None, true),
    ] {
        let options = PostgresOptions {
            host: host.into(),
            tls,
            tls_roots: roots.cloned(),
            ..server.options("postgres")
        };
        let connected = connect(&options, Commits::Synced).await;
        match &connected {
            Ok(pool) => {
                let is_tls: bool = casemate_sql::query_scalar(
                    "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
                )
                .fetch_one(pool)
                .await
                .unwrap();
                assert_eq!(is_tls, tls != TlsMode::Disable, "{host} {tls:?}");
            }
            Err(error) => {
                let words = chain(error);
                assert!(words.contains("certificate"), "{words}");
                assert!(matches!(error, Error::Unavailable(_)), "{words}");
            }
        }
        assert_eq!(connected.is_ok(), is_welcome, "{host} {tls:?} {roots:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    for tls in [TlsMode::Require, TlsMode::VerifyFull] {
        let options = PostgresOptions {
            tls,
            ..server.options("postgres")
        };
        let words = chain(&connect(&options, Commits::Synced).await.unwrap_err());
        assert!(words.contains("TLS"), "{words}");
    }
}
