use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::de::{non_null, object_or_null, set_at_create};

/// A proxy for what leaves the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct EgressProxy {
    /// `host:port`.
    pub address: String,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub username: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub password: Option<String>,
}

/// `network` of a create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SandboxNetworkConfig)]
pub struct NetworkConfig {
    /// `null` is the team's setting.
    #[serde(default)]
    pub allow_public_traffic: Option<bool>,
    /// Addresses, ranges or domains that stay open. They win over `denyOut`.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub allow_out: Option<Vec<String>>,
    /// Addresses or ranges that are closed.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub deny_out: Option<Vec<String>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub dns_servers: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object_or_null")]
    pub egress_proxy: Option<EgressProxy>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub mask_request_host: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub https_ports: Option<Vec<i32>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false, value_type = Option<BTreeMap<String, Vec<Object>>>)]
    pub rules: Option<BTreeMap<String, Vec<serde_json::Value>>>,
}

/// Body of `PUT /sandboxes/{sandboxID}/network`: the whole egress part, an absent field clears.
/// What concerns traffic to the sandbox is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SandboxNetworkUpdate)]
pub struct NetworkUpdate {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub allow_out: Option<Vec<String>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub deny_out: Option<Vec<String>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub dns_servers: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object_or_null")]
    pub egress_proxy: Option<EgressProxy>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false, value_type = Option<BTreeMap<String, Vec<Object>>>)]
    pub rules: Option<BTreeMap<String, Vec<serde_json::Value>>>,
    #[serde(
        default,
        deserialize_with = "non_null",
        rename = "allow_internet_access"
    )]
    #[schema(nullable = false)]
    pub allow_internet_access: Option<bool>,
    // What a create sets for good: to ignore it here would leave open what somebody wants closed.
    #[serde(default, deserialize_with = "set_at_create")]
    #[schema(ignore)]
    allow_public_traffic: (),
    #[serde(default, deserialize_with = "set_at_create")]
    #[schema(ignore)]
    mask_request_host: (),
    #[serde(default, deserialize_with = "set_at_create")]
    #[schema(ignore)]
    https_ports: (),
}

/// `network` of an answer: as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SandboxNetworkShown)]
pub struct NetworkShown {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_public_traffic: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_out: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_out: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_ports: Option<Vec<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
}
