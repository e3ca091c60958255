//! What an edge answers to what is not for a sandbox. It does not carry it on to an API server: the
//! load balancer tells the two apart, and an edge that is taken for the API should be seen.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

/// `domain` is the cluster's, as clients write it.
pub(super) fn router(domain: &str) -> Router {
    let mut message = format!(
        "This address reaches sandboxes, by the host PORT-SANDBOX.{domain} or by the headers \
         E2b-Sandbox-Id and E2b-Sandbox-Port."
    );
    // On this machine alone a domain leads to this edge, whatever stands before it.
    if !domain.starts_with("localhost") {
        message += &format!(" The API is at api.{domain}");
    }
    Router::new()
        .route("/health", get(async || "ok: Health check successful"))
        .fallback(async move || refused(&message))
}

/// In the form of the API's own errors.
fn refused(message: &str) -> Response {
    let status = StatusCode::NOT_FOUND;
    let body = json!({"code": status.as_u16(), "message": message});
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(at: std::net::SocketAddr, line: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: api.demo.test\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_takes_an_edge_for_the_api_is_told_where_that_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router("demo.test")).await });
        for line in ["GET /sandboxes", "POST /sandboxes", "POST /health", "GET /"] {
            let answer = ask(at, line).await;
            let status = answer.split(' ').nth(1).unwrap();
            assert!(status == "404" || status == "405", "{line}: {answer}");
        }
        let answer = ask(at, "GET /sandboxes").await;
        assert!(answer.contains(r#""code":404"#), "{answer}");
        assert!(answer.contains("The API is at api.demo.test"), "{answer}");
        assert!(ask(at, "GET /health").await.contains("ok: "));
    }
}
