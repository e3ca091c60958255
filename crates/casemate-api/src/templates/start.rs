//! `POST /v2/templates/{templateID}/builds/{buildID}`.

use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use casemate_control::templates::recipe::{FromArchive, Recipe, RegistryLogin, Step};
use casemate_control::templates::start::StartBuild;
use casemate_types::limits::{BUILD_STEPS_MAX, RECIPE_BYTES_MAX};
use casemate_wire::{ErrorBody, ImageRegistry, StartTemplateBuild, TemplateStep};

use super::empty;
use crate::auth::{Headers, Team};
use crate::error::ApiError;
use crate::extract::{JsonBody, TwoSegments};
use crate::router::ApiState;

/// The first SDK whose steps run as `user`.
const SETS_USER_SINCE: [u64; 3] = [2, 3, 0];

/// Begins a build. What is wrong with its recipe shows in its status.
#[utoipa::path(
    post, path = "/v2/templates/{templateID}/builds/{buildID}", tag = "templates",
    request_body = StartTemplateBuild,
    params(("templateID" = String, Path), ("buildID" = String, Path, description = "A UUID")),
    responses((status = 202), (status = "default", body = ErrorBody))
)]
pub(crate) async fn start(
    State(state): State<ApiState>,
    Team(caller): Team,
    TwoSegments(template, build): TwoSegments,
    Headers(headers): Headers,
    body: JsonBody<StartTemplateBuild>,
) -> Result<Response, ApiError> {
    let sets_user = sets_user(&headers).map_err(|word| {
        ApiError::bad_request(format_args!(
            "Error when parsing user agent: '{word}' names no version"
        ))
    })?;
    if body.raw.len() > RECIPE_BYTES_MAX {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Invalid request body: a recipe can have {RECIPE_BYTES_MAX} bytes"),
        ));
    }
    let ask = StartBuild {
        recipe: recipe(body.value)?,
        sets_user,
    };
    let control = state.control.clone();
    let work = async move { control.start_build(&caller, &template, &build, ask).await };
    let started = state.control.tasks().detached(work).await?;
    started.map_err(|error| ApiError::from(error).made_once())?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Whether the client is none of E2B's SDKs, or one from [`SETS_USER_SINCE`] on. The error is the word
/// that cannot be read.
fn sets_user(headers: &HeaderMap) -> Result<bool, String> {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    for word in agent.unwrap_or_default().split_whitespace() {
        let sdk = ["e2b-js-sdk/", "e2b-python-sdk/"];
        let version = sdk.iter().find_map(|sdk| word.strip_prefix(sdk));
        if let Some(version) = version {
            let version = version_of(version).ok_or_else(|| word.to_owned())?;
            return Ok(version >= SETS_USER_SINCE);
        }
    }
    Ok(true)
}

/// One to three numbers; what follows a `-` or `+` orders nothing here.
fn version_of(text: &str) -> Option<[u64; 3]> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let plain = text.split(['-', '+']).next()?;
    let mut numbers = plain.split('.');
    let mut version = [0; 3];
    for (place, number) in version.iter_mut().zip(numbers.by_ref()) {
        *place = number.parse().ok()?;
    }
    numbers.next().is_none().then_some(version)
}

fn recipe(body: StartTemplateBuild) -> Result<Recipe, ApiError> {
    let steps = body.steps.unwrap_or_default();
    if steps.len() > BUILD_STEPS_MAX {
        return Err(ApiError::bad_request(format_args!(
            "Invalid request body: {} steps are too many, at most {BUILD_STEPS_MAX} are allowed",
            steps.len()
        )));
    }
    // Python sends no empty texts, others may.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Recipe {
        from_image: given(body.from_image),
        from_template: given(body.from_template),
        from_archive: body.from_archive.map(|archive| FromArchive {
            files_hash: archive.files_hash,
            reference: given(archive.reference),
        }),
        registry: body.from_image_registry.map(login),
        force: body.force.unwrap_or_default(),
        steps: steps.into_iter().map(step).collect(),
        start: given(body.start_cmd),
        ready: given(body.ready_cmd),
    })
}

fn step(step: TemplateStep) -> Step {
    Step {
        kind: step.kind,
        args: step.args.unwrap_or_default(),
        files_hash: step.files_hash,
        force: step.force.unwrap_or_default(),
    }
}

fn login(registry: ImageRegistry) -> RegistryLogin {
    match registry {
        ImageRegistry::Registry { username, password } => {
            RegistryLogin::Basic { username, password }
        }
        ImageRegistry::Aws {
            aws_access_key_id,
            aws_secret_access_key,
            aws_region,
        } => RegistryLogin::Aws {
            access_key_id: aws_access_key_id,
            secret_access_key: aws_secret_access_key,
            region: aws_region,
        },
        ImageRegistry::Gcp {
            service_account_json,
        } => RegistryLogin::Gcp {
            service_account_json,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_sdks_run_steps_as_root() {
        let check = |agent: &str, expected: Result<bool, &str>| {
            let headers = HeaderMap::from_iter([(USER_AGENT, agent.parse().unwrap())]);
            let found = sets_user(&headers);
            assert_eq!(found, expected.map_err(str::to_owned), "{agent:?}");
        };
        assert_eq!(sets_user(&HeaderMap::new()), Ok(true));
        check("curl/8", Ok(true));
        check("e2b-python-sdk/2.63.0", Ok(true));
        check("e2b-js-sdk/2.49.0 e2b-cli/2.19.0", Ok(true));
        check("e2b-js-sdk/2.3.0", Ok(true));
        check("e2b-js-sdk/2.3", Ok(true));
        check("e2b-js-sdk/2.2.99", Ok(false));
        check("x e2b-python-sdk/1.9.9-beta.1", Ok(false));
        check("e2b-python-sdk/", Err("e2b-python-sdk/"));
        check("e2b-js-sdk/two", Err("e2b-js-sdk/two"));
        check("e2b-js-sdk/1.2.3.4", Err("e2b-js-sdk/1.2.3.4"));
    }
}
