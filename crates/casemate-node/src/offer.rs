//! What the node can make sandboxes of, and over which layers.
//!
//! ```text
//! a template's layers, topmost first
//! the operator's layer for what the lowest holds      (`Site`)
//! the template's lowest layer: an image, or a base
//! ```
//!
//! So a template's own changes win over the operator's settings, and those over what an image came
//! with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_rpc::{CreateRequest, NodeError, NodeTemplate};
use casemate_runtime::{AgentConfig, CreateSpec};
use casemate_types::Distribution;

/// What the node can make sandboxes of.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    pub templates: Vec<NodeTemplate>,
    /// Holds a folder for each layer.
    pub layers_dir: PathBuf,
    /// What a sandbox without layers is made over: nothing but what every one needs.
    pub scratch: PathBuf,
    /// The operator's settings. A distribution that has none gets those of [`Distribution::Other`].
    pub sites: BTreeMap<Distribution, Site>,
}

/// The operator's settings for one distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// The layer.
    pub dir: PathBuf,
    /// For every process; what a request sets wins.
    pub envs: BTreeMap<String, String>,
}

impl Offer {
    /// What the runtime is told of a sandbox. [`NodeError::Unsupported`] names a layer that is not
    /// here.
    pub(crate) fn spec(&self, request: &CreateRequest) -> Result<CreateSpec, NodeError> {
        let site = self.site(request);
        let hostname = request.sandbox.to_string();
        Ok(CreateSpec {
            sandbox: request.sandbox.clone(),
            lowers: self.lowers(request, site)?,
            files: request.files.clone(),
            resources: request.resources,
            network: request.network.clone(),
            hostname: hostname.clone(),
            agent: AgentConfig {
                version: AgentConfig::VERSION,
                sandbox_id: request.sandbox.clone(),
                template_id: request.template.clone(),
                access_token: request.access_token.clone(),
                site_envs: site.map(|site| site.envs.clone()).unwrap_or_default(),
                envs: request.envs.clone(),
                default_user: request.default_user.clone(),
                default_workdir: request.default_workdir.clone(),
                hostname,
                startup: request.startup.clone(),
            },
        })
    }

    fn lowers(
        &self,
        request: &CreateRequest,
        site: Option<&Site>,
    ) -> Result<Vec<PathBuf>, NodeError> {
        let named = request.layers.iter().map(|name| self.layer(name));
        let mut lowers = named.collect::<Result<Vec<_>, _>>()?;
        match lowers.len().checked_sub(1) {
            Some(lowest) => {
                if let Some(site) = site {
                    lowers.insert(lowest, site.dir.clone());
                }
            }
            None => lowers.push(self.scratch.clone()),
        }
        Ok(lowers)
    }

    pub(crate) fn layer(&self, name: &str) -> Result<PathBuf, NodeError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let known = !name.is_empty() && name.chars().all(plain);
        let dir = self.layers_dir.join(name);
        match known && dir.is_dir() {
            true => Ok(dir),
            false => Err(NodeError::Unsupported {
                why: format!("layer {name:?} is not on this node"),
            }),
        }
    }

    fn site(&self, request: &CreateRequest) -> Option<&Site> {
        let distribution = request.distribution.as_ref()?;
        if request.layers.is_empty() {
            return None;
        }
        let own = self.sites.get(distribution);
        own.or_else(|| self.sites.get(&Distribution::Other))
    }
}

#[cfg(test)]
mod tests {
    use casemate_types::{CompiledPolicy, OnTimeout, Resources, SandboxId};

    use super::*;

    #[test]
    fn the_operators_variables_and_those_of_a_request_are_told_apart() {
        let envs = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = all
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            owned.collect()
        };
        let site = Site {
            dir: "/layers/s-1".into(),
            envs: envs(&[("PROXY", "site"), ("LANG", "site")]),
        };
        let site_envs = site.envs.clone();
        let mut offer = Offer {
            layers_dir: "/".into(),
            sites: [(Distribution::Other, site)].into(),
            ..Offer::default()
        };
        let mut request = CreateRequest {
            sandbox: SandboxId::random(),
            team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
            template: "base".parse().unwrap(),
            // A folder of every machine.
            layers: vec!["proc".into()],
            distribution: Some(Distribution::Debian("buster".into())),
            resources: Resources::BASE,
            network: CompiledPolicy::open(),
            envs: envs(&[("LANG", "own")]),
            access_token: None,
            default_user: "user".into(),
            default_workdir: None,
            life_ms: 0,
            on_timeout: OnTimeout::Kill,
            files: None,
            startup: None,
            warm: false,
            creator: String::new(),
            entrance: None,
        };
        let told = |offer: &Offer, request: &CreateRequest| {
            let agent = offer.spec(request).unwrap().agent;
            (agent.site_envs, agent.envs)
        };
        let own = request.envs.clone();
        assert_eq!(told(&offer, &request), (site_envs, own.clone()));
        request.distribution = None;
        assert_eq!(told(&offer, &request), (BTreeMap::new(), own.clone()));
        request.distribution = Some(Distribution::Other);
        offer.sites.clear();
        assert_eq!(told(&offer, &request), (BTreeMap::new(), own));
    }
}
