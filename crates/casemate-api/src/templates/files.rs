//! `GET /templates/{templateID}/files/{hash}`.

use axum::Json;
use axum::extract::State;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use casemate_control::templates::Asker;
use casemate_types::peer::OverTls;
use casemate_wire::{ErrorBody, TemplateFilesUpload};

use crate::auth::TeamOrUser;
use crate::error::ApiError;
use crate::extract::TwoSegments;
use crate::router::ApiState;

/// A name of 253 characters and a port.
const HOST_BYTES_MAX: usize = 260;

/// Where the archive of a `COPY` step can be put.
#[utoipa::path(
    get, path = "/templates/{templateID}/files/{hash}", tag = "templates",
    params(
        ("templateID" = String, Path),
        ("hash" = String, Path, description = "The client's name of it, 64 hexadecimal characters"),
    ),
    responses((status = 201, body = TemplateFilesUpload), (status = "default", body = ErrorBody))
)]
pub(crate) async fn link(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    TwoSegments(template, hash): TwoSegments,
    Reached(base): Reached,
) -> Result<(StatusCode, Json<TemplateFilesUpload>), ApiError> {
    let asker = Asker::from(caller);
    let link = state.control.upload_link(&asker, &template, &hash).await?;
    let base = match &state.public_url {
        Some(url) => url.to_string(),
        None => base.unwrap_or_else(|| format!("http://{}", state.control.domain())),
    };
    let answer = TemplateFilesUpload {
        present: link.present,
        url: Some(format!("{base}/uploads/{}", link.token)),
        headers: None,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Scheme and host by which the client reached us, for links that lead it here again; `None` when it
/// named none that could stand in one.
pub(crate) struct Reached(Option<String>);

impl<S: Sync> axum::extract::FromRequestParts<S> for Reached {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let scheme = match parts.extensions.get::<OverTls>() {
            Some(OverTls) => "https",
            None => "http",
        };
        let host = host(&parts.uri, &parts.headers);
        Ok(Self(host.map(|host| format!("{scheme}://{host}"))))
    }
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let host = match uri.authority() {
        Some(authority) => {
            let whole = authority.as_str();
            whole.rsplit_once('@').map_or(whole, |(_, host)| host)
        }
        None => headers.get(HOST)?.to_str().ok()?,
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
    let fits = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_plain);
    fits.then_some(host)
}
