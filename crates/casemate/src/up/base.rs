//! The base template and the operator's layers: made or found, then offered by the node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use casemate_build::base::packages::SUITE;
use casemate_build::base::{self, BaseConfig, BaseManifest};
use casemate_build::scratch;
use casemate_build::site::{self, Certificates, Mirror, SiteConfig};
use casemate_node::{Node, Offer, Site};
use casemate_rpc::NodeTemplate;
use casemate_types::{Distribution, Resources};

use super::sandboxes::Opened;
use crate::config::{Config, raw};
use crate::output::Output;

/// Where the base of a data directory is.
pub fn base_config(config: &Config, layers_dir: &Path) -> BaseConfig {
    let node = config.data_dir.join("node");
    BaseConfig {
        layers_dir: layers_dir.into(),
        templates_dir: node.join("templates"),
        logs_dir: node.join("logs"),
        import: config.base.clone(),
        host_root: PathBuf::from("/"),
    }
}

/// Makes sure of the base, and lets the node make sandboxes of it.
pub async fn offer(
    config: &Config,
    node: &Node,
    opened: &Opened,
    output: &Output,
) -> anyhow::Result<()> {
    let limits = &config.limits;
    let (config, layers_dir) = (config.clone(), opened.layers_dir.clone());
    let (gateway, progress) = (opened.gateway, output.progress("base template"));
    let make = move || -> anyhow::Result<_> {
        let manifest = base::ensure(&base_config(&config, &layers_dir), &progress)
            .context("make the base template")?;
        progress.finish();
        let site_config = site_config(&config.guest, &layers_dir, gateway)?;
        // The manifest names the lowest layer first, a sandbox its highest.
        let layers: Vec<_> = manifest.layers.iter().rev().cloned().collect();
        let dirs: Vec<_> = layers.iter().map(|name| layers_dir.join(name)).collect();
        let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        let sites = site::ensure(&site_config, &dirs).context("make the operator's layers")?;
        let scratch = scratch::ensure(&layers_dir).context("make the layer below images")?;
        Ok((manifest, layers, sites, scratch))
    };
    let (manifest, layers, sites, scratch) = tokio::task::spawn_blocking(make)
        .await
        .context("the base template's task")??;
    let notes: BTreeSet<_> = sites.values().flat_map(|site| &site.notes).collect();
    for note in notes {
        tracing::warn!("of this host's settings for sandboxes, {note}");
    }
    let base_envs = manifest.env.clone();
    let sites = sites.into_iter().map(|(distribution, site)| {
        // What the base sets, every Debian understands.
        let mut envs = match &distribution {
            Distribution::Debian(_) => base_envs.clone(),
            Distribution::Other => BTreeMap::new(),
        };
        envs.extend(site.env);
        let dir = opened.layers_dir.join(&site.layer);
        (distribution, Site { dir, envs })
    });
    node.offer(Offer {
        sites: sites.collect(),
        templates: vec![template(limits, manifest, layers)],
        layers_dir: opened.layers_dir.clone(),
        scratch,
    });
    Ok(())
}

fn template(limits: &raw::Limits, manifest: BaseManifest, layers: Vec<String>) -> NodeTemplate {
    NodeTemplate {
        template: manifest.template_id,
        build: manifest.build_id.to_string(),
        alias: manifest.alias,
        layers,
        distribution: Distribution::Debian(SUITE.into()),
        resources: Resources {
            vcpus: limits.vcpus,
            memory_mib: limits.memory_mib,
            disk_mib: limits.disk_mib,
            processes_max: limits.processes_max,
        },
        default_user: manifest.user.name,
        default_workdir: Some(manifest.workdir),
        agent_version: super::programs::AGENT_VERSION.into(),
        created_at: manifest.created_at,
    }
}

fn site_config(
    guest: &raw::Guest,
    layers_dir: &Path,
    gateway: std::net::Ipv4Addr,
) -> anyhow::Result<SiteConfig> {
    let certificates = match guest.ca_certificates.as_str() {
        "host" => Certificates::Host,
        "none" => Certificates::None,
        path => Certificates::Files(vec![absolute("guest.ca_certificates", path)?]),
    };
    Ok(SiteConfig {
        layers_dir: layers_dir.into(),
        certificates,
        apt: mirror("guest.apt", &guest.apt)?,
        pip: mirror("guest.pip", &guest.pip)?,
        npm: mirror("guest.npm", &guest.npm)?,
        nameserver: gateway.into(),
        hostname: "e2b.local".into(),
        host_root: PathBuf::from("/"),
    })
}

fn mirror(key: &str, text: &str) -> anyhow::Result<Mirror> {
    Ok(match text {
        "host" => Mirror::Host,
        "none" => Mirror::None,
        path => Mirror::Path(absolute(key, path)?),
    })
}

fn absolute(key: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(text);
    anyhow::ensure!(
        path.is_absolute(),
        "{key}: {text:?} is neither \"host\", nor \"none\", nor an absolute path"
    );
    Ok(path)
}
