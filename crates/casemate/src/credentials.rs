//! What the first start makes for its user: a team, a user, keys, and the file that holds them.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::tls::Certificate;
use crate::config::{Config, Role, Secret};
use crate::data_dir::{DataDir, random_hex, write_private};

/// What control enters into an empty store, in clear, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bootstrap {
    pub team_id: String,
    pub user_id: String,
    pub api_key: Secret,
    pub access_token: Secret,
}

const FILE: &str = "credentials.env";

/// Reads `DIR/credentials.env`, or makes its content. The file is written anew at each start, for
/// address and domain may have changed; the keys in it stay.
pub fn prepare(dir: &DataDir, config: &Config) -> anyhow::Result<Bootstrap> {
    let path = dir.root().join(FILE);
    let bootstrap = match read(&path)? {
        Some(bootstrap) => bootstrap,
        None => Bootstrap {
            team_id: uuid::Uuid::new_v4().to_string(),
            user_id: uuid::Uuid::new_v4().to_string(),
            api_key: Secret::new(format!("e2b_{}", random_hex(20))),
            access_token: Secret::new(format!("sk_e2b_{}", random_hex(20))),
        },
    };
    write(dir, config, &bootstrap)?;
    Ok(bootstrap)
}

/// Writes the file anew.
pub fn write(dir: &DataDir, config: &Config, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let path = dir.root().join(FILE);
    write_private(&path, render(bootstrap, config, dir).as_bytes())
}

/// Where clients on this machine reach us.
pub fn local_url(config: &Config) -> String {
    let ip = config.listen.ip();
    let port = config.listen.port();
    match ip {
        _ if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
        std::net::IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        std::net::IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
    }
}

/// With an authority of our own, also what makes Python and Node.js trust it.
fn trust(config: &Config, dir: &DataDir) -> Vec<(&'static str, String)> {
    match config.tls.as_ref().map(|tls| &tls.certificate) {
        Some(Certificate::Local) => {
            let text = |path: std::path::PathBuf| quoted(&path.display().to_string());
            vec![
                // The only file that Python and OpenSSL then look at: so it has the others too.
                ("SSL_CERT_FILE", text(dir.trust_bundle())),
                ("NODE_EXTRA_CA_CERTS", text(dir.authority_certificate())),
            ]
        }
        Some(Certificate::Files { .. } | Certificate::Acme(_)) | None => Vec::new(),
    }
}

/// For a shell that reads the file; what needs no quotes gets none.
fn quoted(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    if path.bytes().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

fn render(bootstrap: &Bootstrap, config: &Config, dir: &DataDir) -> String {
    let url = local_url(config);
    let trust = trust(config, dir);
    let rows = [
        ("E2B_API_KEY", bootstrap.api_key.expose()),
        ("E2B_ACCESS_TOKEN", bootstrap.access_token.expose()),
        ("E2B_API_URL", url.as_str()),
        ("E2B_DOMAIN", &config.domain),
        ("CASEMATE_INTERNAL_TEAM_ID", &bootstrap.team_id),
        ("CASEMATE_INTERNAL_USER_ID", &bootstrap.user_id),
    ];
    let mut text = String::from("# Made by casemate. Use: set -a; . THIS_FILE; set +a\n");
    let trust = trust.iter().map(|(name, value)| (*name, value.as_str()));
    // Of a cluster, sandboxes are reached elsewhere than its API.
    let edge = (config.role == Role::Up).then_some(("E2B_SANDBOX_URL", url.as_str()));
    for (name, value) in rows.into_iter().chain(edge).chain(trust) {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

fn read(path: &Path) -> anyhow::Result<Option<Bootstrap>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        let line = line.with_context(|| format!("{} has no {name}", path.display()))?;
        anyhow::Ok(line.trim().to_owned())
    };
    Ok(Some(Bootstrap {
        team_id: value("CASEMATE_INTERNAL_TEAM_ID")?,
        user_id: value("CASEMATE_INTERNAL_USER_ID")?,
        api_key: Secret::new(value("E2B_API_KEY")?),
        access_token: Secret::new(value("E2B_ACCESS_TOKEN")?),
    }))
}
