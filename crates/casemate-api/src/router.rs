//! The table of operations and the router made from it.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use casemate_catalog::Rates;
use casemate_control::Control;
use casemate_control::auth::Access;
use casemate_control::members::Members;

use crate::error::ApiError;
use crate::metrics::{Metrics, MetricsAccess};
use crate::operation::Operation;
use crate::rate_limits::{self, Limiter, RateLimits};
use crate::{
    admin, api_keys, auth, events, health, layers, metrics, nodes, not_yet, openapi, sandboxes,
    snapshots, teams, templates,
};

/// What handlers share. Clones are the same.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) metrics_access: Arc<MetricsAccess>,
    pub(crate) certificate_end: Option<CertificateEnd>,
    /// What links begin with, whichever way a client came.
    pub(crate) public_url: Option<Arc<str>>,
    limiter: Option<Limiter>,
    /// Of a cluster.
    pub(crate) members: Option<Arc<Members>>,
}

/// The end of the certificate that is shown now, in seconds since 1970; `None`: there is none yet.
type CertificateEnd = Arc<dyn Fn() -> Option<i64> + Send + Sync>;

impl ApiState {
    pub fn new(control: Arc<Control>, metrics_access: MetricsAccess) -> Self {
        Self {
            control,
            metrics: Arc::default(),
            metrics_access: Arc::new(metrics_access),
            certificate_end: None,
            public_url: None,
            limiter: None,
            members: None,
        }
    }

    /// Behind a proxy: links that clients get begin with this, `SCHEME://HOST[:PORT]`. What requests
    /// say of a proxy (`X-Forwarded-…`) never counts: a client could write it as well.
    #[must_use]
    pub fn with_public_url(mut self, url: &str) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Callers may ask as often as `limits` says; `rates` counts.
    #[must_use]
    pub fn with_rate_limits(mut self, limits: RateLimits, rates: Arc<dyn Rates>) -> Self {
        self.limiter = Some(Limiter { limits, rates });
        self
    }

    /// Of a cluster: administrators let machines in and look after its nodes.
    #[must_use]
    pub fn with_members(mut self, members: Arc<Members>) -> Self {
        self.members = Some(members);
        self
    }

    /// With TLS in front: the metrics say when its certificate ends.
    #[must_use]
    pub fn with_certificate_end(
        mut self,
        end: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        self.certificate_end = Some(Arc::new(end));
        self
    }
}

/// Everything that is answered under the API's host.
pub fn router(state: ApiState) -> Router {
    let (mut timed, mut long) = (Router::new(), Router::new());
    for operation in operations() {
        let demand = auth::Demand::of(&operation);
        let guarded = from_fn_with_state((state.clone(), demand), auth::guard);
        let limited = state
            .limiter
            .as_ref()
            .and_then(|limiter| limiter.of(&operation));
        let router = if operation.is_long {
            &mut long
        } else {
            &mut timed
        };
        let routes = std::mem::take(router);
        let mut handler = operation.handler;
        if let Some(limited) = limited {
            let limited = from_fn_with_state((state.clone(), limited), rate_limits::limit);
            handler = handler.route_layer(limited);
        }
        *router = routes.route(operation.path, handler.route_layer(guarded));
    }
    timed
        .layer(from_fn(layers::deadline))
        .merge(long)
        .fallback(no_operation)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(layers::secrets))
        .layer(from_fn(layers::cors))
        .layer(from_fn(layers::panics))
        .layer(from_fn_with_state(state.clone(), metrics::count))
        .with_state(state)
}

/// Every operation, served or not yet.
pub(crate) fn operations() -> Vec<Operation> {
    use Access::{Admin, Anybody, ProviderTeamOrAdmin, Team, User};
    let (get, post) = (Method::GET, Method::POST);
    let (put, patch, delete) = (Method::PUT, Method::PATCH, Method::DELETE);
    let served = vec![
        Operation::served(get.clone(), "/health", Anybody, health::health),
        Operation::served(get.clone(), "/ready", Anybody, health::ready),
        Operation::served(get.clone(), "/metrics", Anybody, metrics::show),
        Operation::served(get.clone(), "/openapi.json", Anybody, openapi::show),
        Operation::served(get.clone(), "/teams", User, teams::list),
        Operation::served(get.clone(), "/sandboxes", Team, sandboxes::list::v1).also_when_blocked(),
        Operation::served(get.clone(), "/v2/sandboxes", Team, sandboxes::list::v2)
            .also_when_blocked(),
        Operation::served(post.clone(), "/sandboxes", Team, sandboxes::create::v1),
        Operation::served(post.clone(), "/v2/sandboxes", Team, sandboxes::create::v2),
        Operation::served(
            get.clone(),
            "/sandboxes/{sandboxID}",
            Team,
            sandboxes::get::get,
        )
        .also_when_blocked(),
        Operation::served(
            delete.clone(),
            "/sandboxes/{sandboxID}",
            Team,
            sandboxes::kill::kill,
        )
        .also_when_blocked(),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/timeout",
            Team,
            sandboxes::timeout::set,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/refreshes",
            Team,
            sandboxes::timeout::refresh,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/connect",
            Team,
            sandboxes::connect::v1,
        ),
        Operation::served(
            post.clone(),
            "/v2/sandboxes/{sandboxID}/connect",
            Team,
            sandboxes::connect::v2,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/pause",
            Team,
            sandboxes::pause::pause,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/resume",
            Team,
            sandboxes::resume::resume,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/fork",
            Team,
            sandboxes::fork::fork,
        ),
        Operation::served(
            post.clone(),
            "/sandboxes/{sandboxID}/snapshots",
            Team,
            sandboxes::snapshot::take,
        ),
        Operation::served(get.clone(), "/snapshots", Team, snapshots::list).also_when_blocked(),
        Operation::served(
            put.clone(),
            "/sandboxes/{sandboxID}/network",
            Team,
            sandboxes::network::update,
        ),
        Operation::served(
            get.clone(),
            "/sandboxes/{sandboxID}/logs",
            Team,
            sandboxes::logs::v1,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/v2/sandboxes/{sandboxID}/logs",
            Team,
            sandboxes::logs::v2,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/sandboxes/metrics",
            Team,
            sandboxes::metrics::many,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/sandboxes/{sandboxID}/metrics",
            Team,
            sandboxes::metrics::one,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/teams/{teamID}/metrics",
            Team,
            teams::metrics::list,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/teams/{teamID}/metrics/max",
            Team,
            teams::metrics::max,
        )
        .also_when_blocked(),
        Operation::served(get.clone(), "/events/sandboxes", Team, events::of_team)
            .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/events/sandboxes/{sandboxID}",
            Team,
            events::of_sandbox,
        )
        .also_when_blocked(),
        Operation::served(
            get.clone(),
            "/api-keys",
            ProviderTeamOrAdmin,
            api_keys::list,
        )
        .also_when_blocked(),
        Operation::served(
            patch.clone(),
            "/api-keys/{apiKeyID}",
            ProviderTeamOrAdmin,
            api_keys::rename,
        ),
        Operation::served(
            delete.clone(),
            "/api-keys/{apiKeyID}",
            ProviderTeamOrAdmin,
            api_keys::delete,
        )
        .also_when_blocked(),
        Operation::served(get.clone(), "/nodes", Admin, nodes::list),
        Operation::served(get.clone(), "/nodes/{nodeID}", Admin, nodes::get),
        Operation::served(post.clone(), "/nodes/{nodeID}", Admin, nodes::set_status),
        Operation::served(
            post.clone(),
            "/admin/teams/{teamID}/api-keys",
            Admin,
            admin::keys::create,
        ),
        Operation::served(
            delete.clone(),
            "/admin/teams/{teamID}/api-keys/{apiKeyID}",
            Admin,
            admin::keys::delete,
        ),
        Operation::served(
            post.clone(),
            "/admin/teams/{teamID}/sandboxes/kill",
            Admin,
            admin::sandboxes::kill_all,
        ),
        Operation::served(
            get.clone(),
            "/admin/sandboxes/running-counts",
            Admin,
            admin::sandboxes::running_counts,
        ),
        Operation::served(
            post.clone(),
            "/admin/teams/{teamID}/builds/cancel",
            Admin,
            admin::builds::cancel_all,
        ),
        Operation::served(
            post.clone(),
            "/admin/cluster/tokens",
            Admin,
            admin::cluster::token,
        ),
        Operation::served(
            get.clone(),
            "/admin/cluster/nodes",
            Admin,
            admin::cluster::nodes,
        ),
        Operation::served(
            post.clone(),
            "/admin/cluster/nodes/{nodeID}/standing",
            Admin,
            admin::cluster::set_standing,
        ),
        Operation::served(
            post.clone(),
            "/admin/cluster/nodes/{nodeID}/drain",
            Admin,
            admin::cluster::drain,
        ),
        Operation::served(
            post.clone(),
            "/admin/cluster/nodes/{nodeID}/fence",
            Admin,
            admin::cluster::fence,
        ),
        Operation::served(
            delete.clone(),
            "/admin/cluster/nodes/{nodeID}",
            Admin,
            admin::cluster::remove,
        ),
        Operation::served(
            delete.clone(),
            "/admin/cluster/edges/{edgeID}",
            Admin,
            admin::cluster::remove_edge,
        ),
    ];
    let all = served.into_iter().chain(templates::operations());
    all.chain(not_yet::operations()).collect()
}

/// Paths of SDKs that are older than any that we serve.
const RETIRED: [&str; 2] = ["instances", "envs"];

async fn no_operation(uri: Uri) -> ApiError {
    let first = uri.path().split('/').nth(1).unwrap_or_default();
    if RETIRED.contains(&first) {
        return ApiError::validation(format_args!(
            "the '/{first}' endpoints are deprecated, please update your SDK to the latest version"
        ));
    }
    ApiError::not_found("no matching operation was found")
}

async fn no_method() -> ApiError {
    ApiError::method_not_allowed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_are_open_to_anybody() {
        let open = |path: &str| {
            let served = ["/health", "/ready", "/metrics", "/openapi.json"];
            // The link of an upload is its key.
            let by_link = ["/volumecontent/", "/uploads/"];
            served.contains(&path) || by_link.iter().any(|start| path.starts_with(start))
        };
        for operation in operations() {
            let expected = open(operation.path);
            let found = operation.access == Access::Anybody;
            assert_eq!(found, expected, "{} {}", operation.method, operation.path);
        }
    }
}
