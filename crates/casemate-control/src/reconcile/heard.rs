//! What a node says of itself: that it is there, what room it has, which templates come from it.

use casemate_rpc::NodeInfo;
use casemate_store::{BuildId, NodeReport, StoreError};
use casemate_types::{Timestamp, chain};

use super::ReconcileError;
use crate::Control;
use crate::nodes::Node;

impl Control {
    /// Takes a heartbeat in; templates that changed go to the store first, so that nobody is told
    /// of one that cannot be found.
    pub(super) async fn heard_from(
        &self,
        node: &Node,
        info: NodeInfo,
    ) -> Result<(), ReconcileError> {
        if info.node != node.name {
            return Err(ReconcileError::OtherNode(info.node));
        }
        let known = {
            let heard = node.heard();
            let same = |old: &NodeInfo| old.templates == info.templates;
            heard.templates_known && heard.info.as_ref().is_some_and(same)
        };
        if !known {
            self.report_templates(&info).await?;
        }
        self.nodes.hear(node, |heard| {
            let ready = |info: &Option<NodeInfo>| info.as_ref().is_some_and(|i| i.ready);
            if ready(&heard.info) != info.ready {
                heard.changed_at = Some(Timestamp::now());
            }
            heard.templates_known = true;
            heard.info = Some(info);
            heard.since = Default::default();
        });
        Ok(())
    }

    async fn report_templates(&self, info: &NodeInfo) -> Result<(), ReconcileError> {
        for template in &info.templates {
            let Ok(build) = BuildId::parse(&template.build) else {
                tracing::error!(
                    template.id = %template.template, build = template.build,
                    "the node names a build that is no UUID"
                );
                continue;
            };
            let report = NodeReport {
                build: casemate_store::Build {
                    id: build,
                    template: template.template.clone(),
                    layers: template.layers.clone(),
                    resources: template.resources,
                    default_user: template.default_user.clone(),
                    default_workdir: template.default_workdir.clone(),
                    envd_version: template.agent_version.clone(),
                    files: None,
                    envs: Default::default(),
                    startup: None,
                    distribution: template.distribution.clone(),
                    created_at: template.created_at,
                },
                alias: template.alias.clone(),
            };
            match self.store.template_report(&report, Timestamp::now()).await {
                Ok(changed) if changed => {
                    self.forget_builds().await;
                    tracing::info!(
                        template.id = %template.template, alias = template.alias,
                        "template {} comes from node {}", template.alias, info.node
                    );
                }
                Ok(_) => {}
                Err(error @ StoreError::Exists { .. }) => tracing::error!(
                    template.id = %template.template, error = chain(&error),
                    "the node's template {} belongs to a team", template.alias
                ),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn connected(&self, node: &Node) {
        node.answers
            .send_if_modified(|answers| !std::mem::replace(answers, true));
        self.nodes.hear(node, |heard| {
            heard.connection = Some(Timestamp::now());
            heard.changed_at = heard.connection;
        });
    }

    pub(super) fn disconnected(&self, node: &Node) {
        self.nodes.hear(node, |heard| {
            if heard.connection.take().is_some() {
                heard.changed_at = Some(Timestamp::now());
            }
        });
    }
}
