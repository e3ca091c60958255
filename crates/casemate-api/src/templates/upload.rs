//! `PUT /uploads/{token}`: the archive of a `COPY` step, by its link alone.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use axum::{extract::Request, http::HeaderMap};
use casemate_control::templates::uploads::{Receiving, UploadError};
use casemate_wire::ErrorBody;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::empty;
use crate::error::ApiError;
use crate::extract::Segment;
use crate::router::ApiState;

/// Of a whole upload, waiting for its turn included: what SDKs allow.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3600);

/// Neither the limit of the API's bodies nor the one of its requests' time holds here.
#[utoipa::path(
    put, path = "/uploads/{token}", tag = "templates",
    params(("token" = String, Path, description = "As the link has it")),
    request_body(content_type = "application/octet-stream", description = "A tar, gzipped or not"),
    responses((status = 200), (status = "default", body = ErrorBody))
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    Segment(token): Segment,
    request: Request,
) -> Result<Response, ApiError> {
    let length = length(request.headers())?;
    let receiving = async {
        let mut receiving = state.control.receive_upload(&token, length).await?;
        receive(&mut receiving, request.into_body()).await?;
        Ok::<_, ApiError>(receiving)
    };
    let receiving = timeout(UPLOAD_TIME_MAX, receiving).await;
    let receiving = receiving.map_err(|_| ApiError::body_too_slow())??;
    let whole = state.control.tasks().detached(receiving.finish()).await?;
    whole?;
    Ok(empty(StatusCode::OK))
}

async fn receive(receiving: &mut Receiving, mut body: Body) -> Result<(), ApiError> {
    let silence_max = receiving.silence_max();
    loop {
        let frame = timeout(silence_max, body.frame()).await;
        let frame = match frame.map_err(|_| ApiError::body_too_slow())? {
            None => return Ok(()),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(ApiError::bad_request("the upload ended early")),
        };
        if let Ok(data) = frame.into_data() {
            receiving.write(&data).await?;
        }
    }
}

/// As announced; hyper takes nothing that is no number.
fn length(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || ApiError::bad_request("the content length is no number");
    length.map(Some).ok_or_else(wrong)
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Link | UploadError::Expired => Self::forbidden(error.to_string()),
            UploadError::TooLarge(_) | UploadError::TeamFull(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            UploadError::CutOff { .. } => Self::bad_request(error),
            UploadError::DiskFull => {
                tracing::error!("an upload was refused: the disk is full");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            UploadError::Bucket => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            UploadError::Write(_) => Self::internal("Internal server error", &error),
            UploadError::Store(error) => error.into(),
        }
    }
}
