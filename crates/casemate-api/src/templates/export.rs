//! `GET /templates/{templateID}/archive`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use casemate_control::templates::export::ExportError;
use casemate_wire::ErrorBody;
use futures_util::stream;

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::Segment;
use crate::router::ApiState;

/// Ours. The answer begins once all of the template was packed, which takes minutes.
#[utoipa::path(
    get, path = "/templates/{templateID}/archive", tag = "templates",
    params(("templateID" = String, Path, description = "`[slug/]alias[:tag]` or an id")),
    responses(
        (status = 200, content_type = "application/x-tar", description = "An OCI archive"),
        (status = "default", body = ErrorBody)
    )
)]
pub(crate) async fn archive(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
) -> Result<Response, ApiError> {
    let archive = state.control.export_template(&caller, &template).await?;
    let length = HeaderValue::from(archive.bytes);
    let pieces = stream::unfold(archive, async |mut archive| {
        let piece = archive.next().await?;
        Some((piece, archive))
    });
    let mut answer = Response::new(Body::from_stream(pieces));
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("application/x-tar");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, length);
    Ok(answer)
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Template(error) => error.into(),
            ExportError::Lost(error) => error.into(),
            ExportError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            ExportError::Unavailable | ExportError::Cancelled => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            ExportError::Files(_) => Self::bad_request(error),
            ExportError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            ExportError::DiskFull => {
                tracing::error!("an export was refused: the disk is full");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            ExportError::Write(_) => Self::internal("Internal server error", &error),
            // Which was logged with its build.
            ExportError::Build(_) => Self::lost(),
        }
    }
}
