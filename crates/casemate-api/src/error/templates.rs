//! Errors of templates and their builds.

use axum::http::StatusCode;
use casemate_control::templates::builds::ReadBuildError;
use casemate_control::templates::delete::DeleteTemplateError;
use casemate_control::templates::list::ListTemplatesError;
use casemate_control::templates::request::RequestBuildError;
use casemate_control::templates::start::StartBuildError;
use casemate_control::templates::tags::TagsError;
use casemate_control::templates::update::UpdateTemplateError;
use casemate_control::templates::uploads::UploadLinkError;
use casemate_control::templates::{AliasError, TeamChoiceError, TemplateError};
use casemate_types::chain;

use super::ApiError;

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        match &error {
            TemplateError::Reference(_) => Self::bad_request(error),
            TemplateError::NotFound(_) | TemplateError::NoBuild { .. } => Self::not_found(error),
            TemplateError::Store { source, .. } if source.is_retryable() => {
                Self::unavailable("Service is unavailable", &error)
            }
            TemplateError::Store { source, .. } => {
                tracing::error!(error = chain(source), "could not resolve a template");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Reference(_) | AliasError::Namespace { .. } => Self::bad_request(error),
            AliasError::NotYours => Self::forbidden(error.to_string()),
            AliasError::NotFound(_) | AliasError::NoBuild { .. } => Self::not_found(error),
            AliasError::Store(error) => error.into(),
        }
    }
}

impl From<RequestBuildError> for ApiError {
    fn from(error: RequestBuildError) -> Self {
        match error {
            RequestBuildError::NoName
            | RequestBuildError::Name(_)
            | RequestBuildError::Namespace { .. }
            | RequestBuildError::Tag(_)
            | RequestBuildError::Tags(_)
            | RequestBuildError::Resources(_) => Self::bad_request(error),
            RequestBuildError::AliasTaken(_) => Self::conflict(error),
            RequestBuildError::TooMany(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            RequestBuildError::Store(error) => error.into(),
        }
    }
}

impl From<StartBuildError> for ApiError {
    fn from(error: StartBuildError) -> Self {
        match error {
            StartBuildError::InvalidBuildId(_) | StartBuildError::NotWaiting => {
                Self::bad_request(error)
            }
            StartBuildError::NotYours => Self::forbidden(error.to_string()),
            StartBuildError::NotFound(_) => Self::not_found(error),
            // The client's fault, and E2B's status.
            StartBuildError::Source(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            StartBuildError::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            StartBuildError::Store(error) => error.into(),
        }
    }
}

impl From<ReadBuildError> for ApiError {
    fn from(error: ReadBuildError) -> Self {
        match error {
            // Clients look for 400 where there is no such build.
            ReadBuildError::Id | ReadBuildError::NotFound(_) => Self::bad_request(error),
            ReadBuildError::NotYours(_) => Self::forbidden(error.to_string()),
            ReadBuildError::Store(error) => error.into(),
            ReadBuildError::History(error) => error.into(),
        }
    }
}

impl From<UploadLinkError> for ApiError {
    fn from(error: UploadLinkError) -> Self {
        match error {
            UploadLinkError::Hash => Self::bad_request(error),
            UploadLinkError::Reference(_) | UploadLinkError::NotFound(_) => Self::not_found(error),
            UploadLinkError::Store(error) => error.into(),
        }
    }
}

impl From<TeamChoiceError> for ApiError {
    fn from(error: TeamChoiceError) -> Self {
        match error {
            TeamChoiceError::Mismatch => Self::bad_request(error),
            TeamChoiceError::NotMember => Self::forbidden(error.to_string()),
            TeamChoiceError::NoDefault => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            TeamChoiceError::Store(error) => error.into(),
        }
    }
}

impl From<ListTemplatesError> for ApiError {
    fn from(error: ListTemplatesError) -> Self {
        match error {
            ListTemplatesError::Cursor(_) | ListTemplatesError::Reference(_) => {
                Self::bad_request(error)
            }
            ListTemplatesError::Team(error) => error.into(),
            ListTemplatesError::NotYours(_) => Self::forbidden(error.to_string()),
            ListTemplatesError::NotFound(_) => Self::not_found(error),
            ListTemplatesError::Store(error) => error.into(),
        }
    }
}

impl From<UpdateTemplateError> for ApiError {
    fn from(error: UpdateTemplateError) -> Self {
        match error {
            UpdateTemplateError::Reference(_) => Self::bad_request(error),
            UpdateTemplateError::NotYours(_) => Self::forbidden(error.to_string()),
            UpdateTemplateError::NotFound(_) | UpdateTemplateError::Snapshot(_) => {
                Self::not_found(error)
            }
            UpdateTemplateError::Store(error) => error.into(),
        }
    }
}

impl From<TagsError> for ApiError {
    fn from(error: TagsError) -> Self {
        match error {
            TagsError::None
            | TagsError::TooMany(_)
            | TagsError::Default
            | TagsError::NameWithTag
            | TagsError::Tag(_)
            | TagsError::Target(_)
            | TagsError::Name(_)
            | TagsError::Reference(_)
            | TagsError::Cursor(_)
            | TagsError::Namespace { .. } => Self::bad_request(error),
            TagsError::NotYours(_) => Self::forbidden(error.to_string()),
            TagsError::NotFound(_) | TagsError::NoBuild { .. } => Self::not_found(error),
            TagsError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteTemplateError> for ApiError {
    fn from(error: DeleteTemplateError) -> Self {
        match error {
            DeleteTemplateError::Reference(_) | DeleteTemplateError::InUse { .. } => {
                Self::bad_request(error)
            }
            DeleteTemplateError::NotFound(_) => Self::not_found(error),
            DeleteTemplateError::NotYours(_) => Self::forbidden(error.to_string()),
            DeleteTemplateError::Store(error) => error.into(),
        }
    }
}
