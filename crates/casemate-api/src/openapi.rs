//! The OpenAPI document of what is really served.
//!
//! Bodies and parameters come from the annotations beside the handlers; who may call comes from
//! the table of operations, so it cannot differ from what is enforced.

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use casemate_control::auth::Access;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation as Entry, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};

use crate::operation::Kind;
use crate::router::operations;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Casemate",
        description = "Self-hosted sandboxes for AI agents, with the API that E2B clients speak.",
    ),
    paths(
        crate::health::health,
        crate::health::ready,
        crate::metrics::show,
        show,
        crate::teams::list,
        crate::sandboxes::list::v1,
        crate::sandboxes::list::v2,
        crate::sandboxes::create::v1,
        crate::sandboxes::create::v2,
        crate::sandboxes::get::get,
        crate::sandboxes::kill::kill,
        crate::sandboxes::timeout::set,
        crate::sandboxes::timeout::refresh,
        crate::sandboxes::connect::v1,
        crate::sandboxes::connect::v2,
        crate::sandboxes::pause::pause,
        crate::sandboxes::resume::resume,
        crate::sandboxes::fork::fork,
        crate::sandboxes::snapshot::take,
        crate::snapshots::list,
        crate::sandboxes::network::update,
        crate::sandboxes::logs::v1,
        crate::sandboxes::logs::v2,
        crate::sandboxes::metrics::one,
        crate::sandboxes::metrics::many,
        crate::teams::metrics::list,
        crate::teams::metrics::max,
        crate::events::of_team,
        crate::events::of_sandbox,
        crate::templates::alias,
        crate::templates::delete,
        crate::templates::request::request,
        crate::templates::start::start,
        crate::templates::export::archive,
        crate::templates::files::link,
        crate::templates::upload::put,
        crate::templates::builds::status,
        crate::templates::builds::logs,
        crate::templates::gc::gc,
        crate::templates::list::v1,
        crate::templates::list::v2,
        crate::templates::list::get,
        crate::templates::update::v1,
        crate::templates::update::v2,
        crate::templates::tags::assign,
        crate::templates::tags::remove,
        crate::templates::tags::list,
        crate::templates::tags::count,
        crate::templates::tags::exists,
        crate::templates::tag_history::groups,
        crate::templates::tag_history::of_tag,
        crate::templates::list::stock,
        crate::api_keys::list,
        crate::api_keys::rename,
        crate::api_keys::delete,
        crate::nodes::list,
        crate::nodes::get,
        crate::nodes::set_status,
        crate::admin::keys::create,
        crate::admin::keys::delete,
        crate::admin::sandboxes::kill_all,
        crate::admin::sandboxes::running_counts,
        crate::admin::builds::cancel_all,
        crate::admin::cluster::token,
        crate::admin::cluster::nodes,
        crate::admin::cluster::set_standing,
        crate::admin::cluster::drain,
        crate::admin::cluster::fence,
        crate::admin::cluster::remove,
        crate::admin::cluster::remove_edge,
    )
)]
struct Document;

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200)))]
pub(crate) async fn show() -> Response {
    Json(document()).into_response()
}

pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_with(Default::default);
    for (name, scheme) in schemes() {
        components.add_security_scheme(name, scheme);
    }
    for operation in operations() {
        if operation.kind == Kind::NotYet {
            continue;
        }
        let item = document.paths.paths.get_mut(operation.path);
        if let Some(entry) = item.and_then(|item| entry(item, &operation.method)) {
            entry.security = Some(security(operation.access));
            entry.operation_id = None;
        }
    }
    document
}

pub(crate) fn entry<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Entry> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::PATCH => item.patch.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

fn schemes() -> [(&'static str, SecurityScheme); 6] {
    let header = |name: &str| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
    let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    [
        ("ApiKeyAuth", header("X-API-Key")),
        ("AccessTokenAuth", bearer()),
        ("AuthProviderBearerAuth", bearer()),
        ("AuthProviderTeamAuth", header("X-Team-ID")),
        ("AdminApiKeyAuth", header("X-Admin-Token")),
        ("AdminTeamAuth", header("X-Team-ID")),
    ]
}

fn security(access: Access) -> Vec<SecurityRequirement> {
    let one = |name: &str| SecurityRequirement::new(name, [""; 0]);
    let two = |a: &str, b: &str| SecurityRequirement::new(a, [""; 0]).add(b, [""; 0]);
    let provider_team = || two("AuthProviderBearerAuth", "AuthProviderTeamAuth");
    let admin_team = || two("AdminApiKeyAuth", "AdminTeamAuth");
    match access {
        Access::Anybody => Vec::new(),
        Access::Team => vec![one("ApiKeyAuth"), provider_team(), admin_team()],
        Access::TeamOrToken => vec![
            one("ApiKeyAuth"),
            one("AccessTokenAuth"),
            provider_team(),
            admin_team(),
        ],
        Access::User => vec![one("AccessTokenAuth"), one("AuthProviderBearerAuth")],
        Access::Provider => vec![one("AuthProviderBearerAuth")],
        Access::UserOrProviderTeam => vec![
            one("AccessTokenAuth"),
            one("AuthProviderBearerAuth"),
            provider_team(),
        ],
        Access::ProviderTeam => vec![provider_team()],
        Access::ProviderTeamOrAdmin => vec![provider_team(), admin_team()],
        Access::Admin => vec![one("AdminApiKeyAuth")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_what_is_served_and_nothing_else() {
        let mut document = document();
        let mut served = 0;
        for operation in operations() {
            let item = document.paths.paths.get_mut(operation.path);
            let found = item
                .and_then(|item| entry(item, &operation.method))
                .is_some();
            let expected = operation.kind == Kind::Served;
            assert_eq!(found, expected, "{} {}", operation.method, operation.path);
            served += usize::from(expected);
        }
        let all = document.paths.paths.values_mut().map(|item| {
            let methods = [
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ];
            methods.iter().filter(|m| entry(item, m).is_some()).count()
        });
        assert_eq!(all.sum::<usize>(), served);
    }

    #[test]
    fn everything_that_it_refers_to_is_in_it() {
        let text = serde_json::to_string(&document()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
