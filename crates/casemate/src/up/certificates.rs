//! The certificate that the control process shows, kept by root, who alone reads the authority's key
//! and the operator's files: it is sent to each control process over a socket of its own, at its
//! start and whenever there is another one. Certificates by ACME are not ours: they are had and
//! kept where strangers' bytes are read.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use casemate_tls::{Authority, Checked, Files, Names, Pair, Validity};
use casemate_types::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::config::tls::Certificate;
use crate::data_dir::{DataDir, write_private, write_public};

/// How often it is looked whether a certificate of our own is to be renewed.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// What the system trusts: of Debian and its like, of Fedora and its like.
const SYSTEM_BUNDLES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Where the certificate comes from, and the one that is shown.
pub struct Certificates {
    source: Source,
    validity: Validity,
    shown: watch::Sender<Pair>,
}

enum Source {
    Local {
        authority: Box<Authority>,
        names: Names,
    },
    Files(Files),
}

impl Certificates {
    /// The first certificate; `None`: none is ours to keep. One that cannot be used is an error.
    pub fn open(config: &Config, dir: &DataDir) -> anyhow::Result<Option<Self>> {
        let Some(tls) = &config.tls else {
            return Ok(None);
        };
        let (source, pair, validity) = match &tls.certificate {
            Certificate::Acme(_) => return Ok(None),
            Certificate::Files { chain, key } => {
                let mut files = Files::new(chain.clone(), key.clone());
                let (pair, checked) = files.read()?;
                // Not a reason to refuse http as well.
                if let Err(why) = checked.holds(now()) {
                    error!(error = %why, "clients will refuse https");
                }
                warn_of_names(config, &checked);
                (Source::Files(files), pair, checked.validity)
            }
            Certificate::Local => {
                let names = config.local_names();
                let authority = authority(dir, &names)?;
                publish(dir, &authority)?;
                let (pair, validity) = issue(&authority, &names)?;
                let authority = Box::new(authority);
                (Source::Local { authority, names }, pair, validity)
            }
        };
        Ok(Some(Self {
            source,
            validity,
            shown: watch::Sender::new(pair),
        }))
    }

    /// The certificate that is shown, and each that follows.
    pub fn follow(&self) -> watch::Receiver<Pair> {
        self.shown.subscribe()
    }

    /// Renews for as long as it is polled.
    pub async fn keep(mut self) {
        loop {
            let (pair, validity) = match &mut self.source {
                Source::Files(files) => {
                    let (pair, checked) = files.changed(now).await;
                    (pair, checked.validity)
                }
                Source::Local { authority, names } => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    if now() < self.validity.renew_at() {
                        continue;
                    }
                    match issue(authority, names) {
                        Ok(issued) => issued,
                        Err(failed) => {
                            let failed = format!("{failed:#}");
                            error!(error = failed, "the certificate cannot be renewed");
                            continue;
                        }
                    }
                }
            };
            info!(
                "the certificate that is shown now ends at {}",
                day(validity.not_after)
            );
            self.validity = validity;
            self.shown.send_replace(pair);
        }
    }
}

/// Whether the files that are named can be used; before anybody is asked to make room for us.
pub fn try_out(config: &Config) -> anyhow::Result<()> {
    let tls = config.tls.as_ref().map(|tls| &tls.certificate);
    if let Some(Certificate::Files { chain, key }) = tls {
        Files::new(chain.clone(), key.clone()).read()?;
    }
    Ok(())
}

/// Sends a control process what it shows, until it is gone.
pub async fn feed(stream: UnixStream, mut pairs: watch::Receiver<Pair>) -> io::Result<()> {
    let (mut reads, mut writes) = stream.into_split();
    loop {
        let mut line = serde_json::to_vec(&*pairs.borrow_and_update())?;
        line.push(b'\n');
        writes.write_all(&line).await?;
        let mut said = [0];
        tokio::select! {
            // It says nothing, so this is its end.
            _ = reads.read(&mut said) => return Ok(()),
            changed = pairs.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// The authority of the installation, for these names: the one that is there, or another.
fn authority(dir: &DataDir, names: &Names) -> anyhow::Result<Authority> {
    let path = dir.tls_authority();
    let there = match fs::read_to_string(&path) {
        Ok(record) => Some(Authority::read(&record).with_context(|| path.display().to_string())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    match there {
        Some(authority) if authority.serves(names, now()) => return Ok(authority),
        Some(_) => warn!(
            "the authority of this installation is made anew, for other names or for longer: \
             whoever trusted {} must do so again",
            dir.authority_certificate().display()
        ),
        None => {}
    }
    let name = format!("Casemate {}", dir.instance());
    let authority = Authority::make(&name, names.clone(), now())?;
    write_private(&path, authority.record().as_bytes())?;
    Ok(authority)
}

/// What clients trust: the authority alone, and it together with what this system trusts, for
/// programs that take one file for everything.
fn publish(dir: &DataDir, authority: &Authority) -> anyhow::Result<()> {
    let ours = authority.certificate();
    write_public(&dir.authority_certificate(), ours.as_bytes())?;
    let read = |path: &&str| fs::read_to_string(Path::new(path)).ok();
    let system = SYSTEM_BUNDLES.iter().find_map(read).unwrap_or_default();
    write_public(&dir.trust_bundle(), format!("{ours}{system}").as_bytes())
}

fn issue(authority: &Authority, names: &Names) -> anyhow::Result<(Pair, Validity)> {
    let pair = authority
        .issue(names, now())
        .context("make a certificate")?;
    let checked = pair.check(now()).context("the certificate that was made")?;
    Ok((pair, checked.validity))
}

fn warn_of_names(config: &Config, checked: &Checked) {
    let host = config.host();
    for name in [format!("api.{host}"), format!("49983-sandbox.{host}")] {
        if !checked.covers(&name) {
            warn!(
                "the certificate is not for {name}: SDKs with E2B_DOMAIN={} refuse it",
                config.domain
            );
        }
    }
}

pub fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

pub fn now() -> i64 {
    Timestamp::now().as_second()
}
