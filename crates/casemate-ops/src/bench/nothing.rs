//! A server that says yes: the floor of whatever is a client.
//!
//! It makes no sandbox and runs no command; it answers a create, a command and a kill as if they had
//! been done, so that what is left is what the client itself needs.

use std::convert::Infallible;

use bytes::Bytes;
use casemate_client::BaseUrl;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use super::error::BenchError;

const SANDBOX: &str = r#"{"templateID":"nothing","sandboxID":"nothing","clientID":"nothing","envdVersion":"0.6.12","envdAccessToken":"nothing","trafficAccessToken":null,"domain":null}"#;

const STARTED: &[u8] = br#"{"event":{"start":{"pid":1}}}"#;
const ENDED: &[u8] = br#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#;

/// Serves until it is dropped.
pub(super) struct DoNothing {
    pub(super) base: BaseUrl,
    serving: AbortHandle,
}

impl DoNothing {
    pub(super) async fn start() -> Result<Self, BenchError> {
        let fault = |source| BenchError::Io {
            action: "listen for the stock SDK",
            source,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let serving = tokio::spawn(serve(listener)).abort_handle();
        Ok(Self {
            base: format!("http://{address}").parse()?,
            serving,
        })
    }
}

impl Drop for DoNothing {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Connections end with the task that runs this: the set that holds them is dropped with it.
async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            let service = service_fn(answer);
            // A client that hangs up is no fault of anybody's.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, sent) = request.into_parts();
    // The stock client takes an answer that overtakes its request for a broken connection. One
    // that breaks while it is read gets an answer that nobody reads.
    let _ = sent.collect().await;
    let (status, content_type, body) = match (&head.method, head.uri.path()) {
        (&Method::POST, "/v2/sandboxes") => {
            (StatusCode::CREATED, "application/json", SANDBOX.into())
        }
        (&Method::POST, "/process.Process/Start") => {
            (StatusCode::OK, "application/connect+json", command())
        }
        (&Method::DELETE, _) => (StatusCode::NO_CONTENT, "", Bytes::new()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            Bytes::from_static(b"nothing is here\n"),
        ),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if !content_type.is_empty() {
        let value = http::HeaderValue::from_static(content_type);
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, value);
    }
    Ok(response)
}

/// The stream of a command that began and ended well.
fn command() -> Bytes {
    let mut out = Vec::new();
    for (flags, payload) in [(0, STARTED), (0, ENDED), (2, b"{}".as_slice())] {
        out.push(flags);
        let length = u32::try_from(payload.len()).expect("our own messages are short");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_client::api::NewSandbox;
    use casemate_client::envd::Codec;
    use casemate_client::envd::process::Command;
    use casemate_client::{Api, Transport};

    #[tokio::test]
    async fn a_client_is_content_with_it() {
        let server = DoNothing::start().await.unwrap();
        let api = Api::new(Transport::new(), server.base.clone(), "e2b_00").unwrap();
        let sandbox = api.sandbox_create(&NewSandbox::default()).await.unwrap();
        let envd = api.envd(&server.base, &sandbox.sandbox_id, None).unwrap();
        let envd = envd.with_codec(Codec::Json);
        let end = envd
            .process_start(Command::default())
            .await
            .unwrap()
            .collect(0)
            .await
            .unwrap()
            .end;
        assert_eq!((end.exit_code, end.exited), (0, true));
        assert!(api.sandbox_kill(&sandbox.sandbox_id).await.unwrap());
    }
}
