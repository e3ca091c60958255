use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer that is an error. The JS SDK reads `code`, the Python SDK the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// The HTTP status.
    pub code: u16,
    /// For people; SDKs and the command line show it.
    pub message: String,
    /// For programs; an open set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}
