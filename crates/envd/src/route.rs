//! The way of a request: cross-origin rules, token, named account, then its handler.

use std::rc::Rc;

use http::{Method, Request, StatusCode};

use crate::answer::{self, Answer, Refusal};
use crate::auth;
use crate::body::RequestBody;
use crate::connect::{self, Call, Context, RpcError};
use crate::guest::Guest;
use crate::users::User;
use crate::{build, control, cors, files, filesystem, metrics, process, startup, workers};

/// A request to a plain HTTP route.
pub struct Plain {
    pub guest: Rc<Guest>,
    pub request: Request<RequestBody>,
}

/// Answers one request.
pub async fn route(guest: Rc<Guest>, request: Request<RequestBody>) -> Answer {
    if let Some(answer) = cors::preflight(request.method(), request.headers()) {
        return answer;
    }
    let has_origin = request.headers().contains_key(http::header::ORIGIN);
    let mut answer = authenticated(guest, request).await;
    cors::mark(has_origin, &mut answer);
    answer
}

async fn authenticated(guest: Rc<Guest>, request: Request<RequestBody>) -> Answer {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let checked = auth::check_token(&guest.settings.borrow(), method, path, headers);
    if let Err(refused) = checked {
        return refused.into();
    }
    let named = match auth::named_user(headers) {
        Ok(named) => named,
        Err(error) => return connect::refuse(headers, &error),
    };
    let path = path.to_owned();
    if path.starts_with("/process.Process/") || path.starts_with("/filesystem.Filesystem/") {
        return rpc(guest, named, &path, request).await;
    }
    plain(Plain { guest, request }, &path).await
}

async fn plain(call: Plain, path: &str) -> Answer {
    let method = call.request.method().clone();
    match (path, &method) {
        ("/health", &Method::GET) => answer::done(),
        ("/metrics", &Method::GET) => metrics::metrics(&call.guest),
        ("/envs", &Method::GET) => control::envs::envs(&call.guest),
        ("/files", &Method::GET) => files::download::download(call).await,
        ("/files", &Method::POST) => files::upload::upload(call).await,
        ("/files/compose", &Method::POST) => files::compose::compose(call).await,
        ("/build/layer", &Method::POST) => build::layer::layer(call).await,
        ("/build/root", &Method::GET) => build::export::export(call).await,
        ("/build/copy", &Method::POST) => build::copy::copy(call).await,
        ("/startup", &Method::GET) => startup::route::startup(call).await,
        ("/init", &Method::POST) => control::init::init(call).await,
        ("/freeze", &Method::POST) => control::freeze::freeze(&call),
        ("/unfreeze", &Method::POST) => control::freeze::unfreeze(),
        ("/fsfreeze", &Method::POST) => control::freeze::filesystem_freeze(call).await,
        ("/fsthaw", &Method::POST) => control::freeze::filesystem_thaw(call).await,
        ("/collapse", &Method::POST) => control::freeze::collapse(),
        ("/upgrade", &Method::POST) => control::upgrade::upgrade(&call),
        ("/health" | "/metrics" | "/envs" | "/startup" | "/build/root", _) => {
            answer::wrong_method("GET")
        }
        ("/files", _) => answer::wrong_method("GET, POST"),
        (
            "/files/compose" | "/build/layer" | "/build/copy" | "/init" | "/freeze" | "/unfreeze"
            | "/fsfreeze" | "/fsthaw" | "/collapse" | "/upgrade",
            _,
        ) => answer::wrong_method("POST"),
        _ => answer::not_found(),
    }
}

async fn rpc(
    guest: Rc<Guest>,
    named: Option<User>,
    path: &str,
    request: Request<RequestBody>,
) -> Answer {
    let method = request.method().clone();
    let (parts, body) = request.into_parts();
    let context = Context::new(guest, named, &parts.headers);
    let call = Call {
        headers: parts.headers,
        body,
        context,
    };
    if method != Method::POST && is_method(path) {
        return answer::wrong_method("POST");
    }
    match path {
        "/process.Process/List" => connect::unary(call, process::list::list).await,
        "/process.Process/Connect" => connect::server_stream(call, process::connect::connect).await,
        "/process.Process/Start" => connect::server_stream(call, process::start::start).await,
        "/process.Process/Update" => connect::unary(call, process::update::update).await,
        "/process.Process/StreamInput" => {
            connect::client_stream(call, process::input::stream_input).await
        }
        "/process.Process/SendInput" => connect::unary(call, process::input::send_input).await,
        "/process.Process/SendSignal" => connect::unary(call, process::signal::send_signal).await,
        "/process.Process/CloseStdin" => connect::unary(call, process::input::close_stdin).await,
        "/filesystem.Filesystem/Stat" => connect::unary(call, filesystem::stat::stat).await,
        "/filesystem.Filesystem/MakeDir" => {
            connect::unary(call, filesystem::make_dir::make_dir).await
        }
        "/filesystem.Filesystem/Move" => connect::unary(call, filesystem::rename::rename).await,
        "/filesystem.Filesystem/ListDir" => {
            connect::unary(call, filesystem::list_dir::list_dir).await
        }
        "/filesystem.Filesystem/Remove" => connect::unary(call, filesystem::remove::remove).await,
        "/filesystem.Filesystem/WatchDir" => {
            connect::server_stream(call, filesystem::watch_dir::watch_dir).await
        }
        "/filesystem.Filesystem/CreateWatcher" => {
            connect::unary(call, filesystem::watchers::create).await
        }
        "/filesystem.Filesystem/GetWatcherEvents" => {
            connect::unary(call, filesystem::watchers::events).await
        }
        "/filesystem.Filesystem/RemoveWatcher" => {
            connect::unary(call, filesystem::watchers::remove).await
        }
        _ => answer::not_found(),
    }
}

fn is_method(path: &str) -> bool {
    const PROCESS: [&str; 8] = [
        "List",
        "Connect",
        "Start",
        "Update",
        "StreamInput",
        "SendInput",
        "SendSignal",
        "CloseStdin",
    ];
    const FILESYSTEM: [&str; 9] = [
        "Stat",
        "MakeDir",
        "Move",
        "ListDir",
        "Remove",
        "WatchDir",
        "CreateWatcher",
        "GetWatcherEvents",
        "RemoveWatcher",
    ];
    let known = |prefix, names: &[&str]| {
        path.strip_prefix(prefix)
            .is_some_and(|name| names.contains(&name))
    };
    known("/process.Process/", &PROCESS) || known("/filesystem.Filesystem/", &FILESYSTEM)
}

/// The account of a plain route: its query parameter, else the default one.
pub fn account(guest: &Guest, username: Option<&str>) -> Result<User, Refusal> {
    let name = match username {
        Some(name) => name.to_owned(),
        None => guest.settings.borrow().default_user.clone(),
    };
    if username.is_none() && name.is_empty() {
        return Err(answer::refuse(
            StatusCode::BAD_REQUEST,
            "username not provided",
        ));
    }
    User::by_name(&name).ok_or_else(|| {
        let text = format!("error looking up user '{name}': user: unknown user {name}");
        answer::refuse(StatusCode::UNAUTHORIZED, &text)
    })
}

/// Runs file work on a thread of its own, where one can be had: it may block, the agent must not.
pub async fn blocking<T, F>(work: F) -> Result<T, RpcError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    workers::run(work)
        .await
        .ok_or_else(|| RpcError::internal("file work failed: it panicked"))
}
