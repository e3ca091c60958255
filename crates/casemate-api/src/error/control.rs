//! Each error of the use cases, in one `match`.

use axum::http::StatusCode;
use casemate_control::QuotaReached;
use casemate_control::admin::KeyError;
use casemate_control::auth::{AuthError, KeyFault};
use casemate_control::metrics::MetricsError;
use casemate_control::sandboxes::ChangeError;
use casemate_control::sandboxes::create::{CreateError, CreateRefused, IdempotencyError};
use casemate_control::sandboxes::fork::ForkError;
use casemate_control::sandboxes::list::ListError;
use casemate_control::sandboxes::network::NetworkError;
use casemate_control::sandboxes::place::PlacementError;
use casemate_control::sandboxes::snapshot::{ListSnapshotsError, SnapshotError};
use casemate_control::sandboxes::startup::StartupError;
use casemate_control::tasks::TaskLost;
use casemate_history::HistoryError;
use casemate_rpc::NodeError;
use casemate_store::StoreError;
use casemate_types::network::PolicyError;

use super::ApiError;

const API_KEY_HELP: &str =
    "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.";
const ACCESS_TOKEN_HELP: &str =
    "Invalid Access token, try to login again by running `e2b auth login`.";
const BACKEND_FAILED: &str = "Backend authentication failed";
const PLACEMENT_FAILED: &str = "Failed to place sandbox";

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::unauthorized("authorization header is missing"),
            AuthError::Malformed => Self::unauthorized("authorization header is malformed"),
            AuthError::ApiKey(fault) => {
                let detail = match fault {
                    KeyFault::Format => "Invalid API key format",
                    KeyFault::Unknown => "Cannot get the team for the given API key",
                };
                Self::unauthorized(format!("{API_KEY_HELP}\n{detail}"))
            }
            AuthError::AccessToken(fault) => {
                let detail = match fault {
                    KeyFault::Format => "Invalid access token format",
                    KeyFault::Unknown => "Cannot get the user for the given access token",
                };
                Self::unauthorized(format!("{ACCESS_TOKEN_HELP}\n{detail}"))
            }
            AuthError::Provider => {
                Self::unauthorized(format!("Invalid auth provider token.\n{BACKEND_FAILED}"))
            }
            AuthError::Admin => Self::unauthorized("Invalid Access token.\nInvalid Access token."),
            AuthError::AdminTeam => {
                Self::unauthorized(format!("Invalid team ID.\n{BACKEND_FAILED}"))
            }
            AuthError::Banned => Self::forbidden("team is banned"),
            AuthError::Blocked { reason: None } => Self::forbidden("team is blocked"),
            AuthError::Blocked {
                reason: Some(reason),
            } => Self::forbidden(format!("team is blocked: {reason}")),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::DiskFull(_)) {
            Self::unavailable("The disk of this platform is full", &error)
        } else if error.is_retryable() {
            Self::unavailable("Service is unavailable", &error)
        } else {
            Self::internal("Internal server error", &error)
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        if error.is_retryable() {
            Self::unavailable("Service is unavailable", &error)
        } else {
            Self::internal("Internal server error", &error)
        }
    }
}

impl From<MetricsError> for ApiError {
    fn from(error: MetricsError) -> Self {
        match error {
            MetricsError::Range | MetricsError::TooMany => Self::bad_request(error),
            MetricsError::NotYours => Self::forbidden(error.to_string()),
            MetricsError::History(error) => error.into(),
        }
    }
}

impl From<TaskLost> for ApiError {
    fn from(lost: TaskLost) -> Self {
        match lost {
            TaskLost::Panicked => Self::lost(),
            // It may have taken effect: whether to ask again is not for a library to decide.
            TaskLost::Ending => Self::unavailable("Service is unavailable", &lost).never_retry(),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Template(error) => error.into(),
            CreateError::Refused(error) => error.into(),
            CreateError::Quota(quota) => quota.into(),
            CreateError::Placement(error) => error.into(),
            CreateError::Startup(error) => error.into(),
            CreateError::Idempotency(error) => error.into(),
            CreateError::Store(error) => error.into(),
        }
    }
}

impl From<StartupError> for ApiError {
    fn from(error: StartupError) -> Self {
        let status = match &error {
            // What the command said is for whoever made the template.
            StartupError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            StartupError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            StartupError::Agent(_) | StartupError::Node(_) => {
                return Self::internal("the sandbox's agent failed", &error);
            }
        };
        Self::new(status, error.to_string())
            .code("sandbox_start_command_failed")
            .never_retry()
    }
}

impl From<CreateRefused> for ApiError {
    fn from(error: CreateRefused) -> Self {
        match error {
            CreateRefused::TimeoutZero
            | CreateRefused::TimeoutTooLong { .. }
            | CreateRefused::AutoPauseMemoryAlone
            | CreateRefused::AutoPauseMemoryWithAutoResume
            | CreateRefused::EnvdUnknown
            | CreateRefused::EnvdTooOld(_)
            | CreateRefused::TooBig { .. }
            | CreateRefused::MetadataTooLarge { .. }
            | CreateRefused::MetadataNul(_)
            | CreateRefused::EnvsTooLarge { .. }
            | CreateRefused::EnvTooLarge { .. }
            | CreateRefused::EnvImpossible(_)
            | CreateRefused::Iam
            | CreateRefused::VolumeMounts => Self::bad_request(error),
            CreateRefused::Network(error) => error.into(),
        }
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        match &error {
            NetworkError::Policy(
                PolicyError::Denied(_)
                | PolicyError::Allowed(_)
                | PolicyError::DomainsNeedDenyAll
                | PolicyError::TooMany { .. }
                | PolicyError::TooManyDomains { .. }
                | PolicyError::DnsServer(_)
                | PolicyError::DnsServerClosed(_)
                | PolicyError::TooManyDnsServers { .. },
            )
            | NetworkError::Ingress(_)
            | NetworkError::Rules => Self::bad_request(error),
            NetworkError::EgressProxyAtCreate | NetworkError::EgressProxyAtUpdate => {
                Self::forbidden(error.to_string())
            }
        }
    }
}

impl From<QuotaReached> for ApiError {
    fn from(quota: QuotaReached) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, quota_text(quota.max))
    }
}

/// Whoever wakes a sandbox by traffic reads it too.
pub fn quota_text(max: u32) -> String {
    format!(
        "you have reached the maximum number of concurrent E2B sandboxes ({max}). End one, or ask \
         whoever runs this installation for a higher limit."
    )
}

impl From<PlacementError> for ApiError {
    fn from(error: PlacementError) -> Self {
        let (status, code, why) = match &error {
            PlacementError::NoNode => (
                StatusCode::SERVICE_UNAVAILABLE,
                "sandbox_capacity_unavailable",
                "no node is ready",
            ),
            PlacementError::Timeout(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                "sandbox_placement_timeout",
                "the node did not answer in time",
            ),
            PlacementError::Node(error) => of_node(error),
        };
        Self::new(status, format!("{PLACEMENT_FAILED}: {why}")).code(code)
    }
}

fn of_node(error: &NodeError) -> (StatusCode, &'static str, &'static str) {
    match error {
        NodeError::Full { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sandbox_capacity_unavailable",
            "no node has room for it",
        ),
        NodeError::DiskFull { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sandbox_capacity_unavailable",
            "the disk is full",
        ),
        NodeError::QueueFull { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sandbox_capacity_unavailable",
            "too many sandboxes wait to be created",
        ),
        NodeError::Unreachable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sandbox_capacity_unavailable",
            "the node cannot be reached",
        ),
        NodeError::Unsupported { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sandbox_no_compatible_node",
            "no node can run this template",
        ),
        NodeError::CreateFailed { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "sandbox_create_failed",
            "the node could not start it",
        ),
        NodeError::NotFound(_)
        | NodeError::Exists(_)
        | NodeError::Paused(_)
        | NodeError::FilesOnly(_)
        | NodeError::NoSnapshot(_)
        | NodeError::InUse(_)
        | NodeError::NotHere(_)
        | NodeError::CarryFailed { .. }
        | NodeError::PauseFailed { .. }
        | NodeError::StillEnding(_)
        | NodeError::PortClosed { .. }
        | NodeError::Denied
        | NodeError::Internal { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_server_error",
            "the node failed",
        ),
    }
}

impl From<IdempotencyError> for ApiError {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::InProgress => Self::conflict(error).code("idempotency_in_progress"),
            IdempotencyError::OutcomeUnknown => {
                Self::conflict(error).code("idempotency_outcome_unknown")
            }
            IdempotencyError::Mismatch => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
                    .code("idempotency_request_mismatch")
            }
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Cursor(_) | ListError::Template(_) | ListError::TemplateTag { .. } => {
                Self::bad_request(error)
            }
            ListError::Store(error) => error.into(),
        }
    }
}

impl ApiError {
    /// `refused` is what the client reads when the node did not do it.
    pub(crate) fn of_change(refused: &'static str, error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound(_) => Self::not_found(error),
            ChangeError::Lost { .. } => Self::not_found(error).code("sandbox_lost"),
            // When its node comes back, if it does, is not for a library to wait for.
            ChangeError::FilesLost { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                    .code("sandbox_node_lost")
                    .never_retry()
            }
            ChangeError::TimeoutTooLong { .. }
            | ChangeError::TimeoutZero
            | ChangeError::LifeExceeded => Self::bad_request(error),
            ChangeError::Busy { .. }
            | ChangeError::AlreadyPaused(_)
            | ChangeError::AlreadyRunning(_) => Self::conflict(error),
            ChangeError::StartInFlight(_) => Self::conflict(error).code("sandbox_start_in_flight"),
            ChangeError::Unhealthy(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).never_retry()
            }
            ChangeError::Quota(quota) => quota.into(),
            ChangeError::Placement(error) => error.into(),
            ChangeError::Network(error) => error.into(),
            ChangeError::Node { ref source, .. }
                if matches!(source, NodeError::DiskFull { .. }) =>
            {
                Self::unavailable("The disk of this platform is full", &error)
            }
            // It runs on there: what was asked for may be asked again.
            ChangeError::Node {
                source: NodeError::Unreachable,
                ..
            } => Self::unavailable("The node of this sandbox cannot be reached now", &error)
                .code("sandbox_node_unreachable"),
            // The node goes on ending it: a second kill waits for the same end.
            ChangeError::Node {
                source: NodeError::StillEnding(_),
                ..
            } => Self::unavailable("The sandbox is still ending", &error)
                .code("sandbox_still_ending"),
            ChangeError::Node { .. } => Self::internal(refused, &error),
            ChangeError::Store(error) => error.into(),
        }
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Name(_) | SnapshotError::Namespace { .. } => Self::bad_request(error),
            SnapshotError::Memory => Self::bad_request(error).code("snapshot_memory_unsupported"),
            SnapshotError::Taken(_) | SnapshotError::Busy { .. } => Self::conflict(error),
            SnapshotError::Change(error) => Self::of_change("Error creating snapshot", error),
        }
    }
}

impl From<ListSnapshotsError> for ApiError {
    fn from(error: ListSnapshotsError) -> Self {
        match error {
            ListSnapshotsError::Cursor(_)
            | ListSnapshotsError::Name(_)
            | ListSnapshotsError::Namespace { .. } => Self::bad_request(error),
            ListSnapshotsError::Store(error) => error.into(),
        }
    }
}

impl From<ForkError> for ApiError {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::TooFew
            | ForkError::TooMany
            | ForkError::AboveTeam(_)
            | ForkError::TimeoutZero => Self::bad_request(error),
            ForkError::Paused(_) | ForkError::Busy { .. } => Self::conflict(error),
            ForkError::Change(error) => Self::of_change("Error forking sandbox", error),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NoTeam => Self::not_found(error),
            KeyError::Standing(error) => error.into(),
            KeyError::Name => Self::bad_request(error),
            KeyError::Store(error) => error.into(),
        }
    }
}
