//! Credentials that a workload is lent by a service beside it, for a short time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use casemate_artifacts::{BucketConfig, BucketCredentials, Environment};

use crate::emulator;
use crate::place::{get, noise, open, put, s3, scope};

/// Lends a key that expired long ago, so that each request has to ask again.
fn lender(asked: Arc<AtomicUsize>, token: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            let mut request = [0; 4096];
            let read = client.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
            let known = request.contains(&format!("authorization: {token}"));
            let number = asked.fetch_add(1, Ordering::Relaxed);
            // It too fails now and then.
            let (status, body) = match known {
                _ if number == 1 => (500, String::new()),
                true => (
                    200,
                    r#"{"AccessKeyId":"ASIALENT","SecretAccessKey":"lent","Token":"lent",
                        "Expiration":"2020-01-01T00:00:00Z"}"#
                        .to_owned(),
                ),
                false => (403, String::new()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n");
            let _ = write!(client, "{head}Connection: close\r\n\r\n{body}");
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lent_credentials_are_fetched_again_when_they_expire() {
    let Some(moto) = emulator::moto() else { return };
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "of-the-workload").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let lender = lender(Arc::clone(&asked), "of-the-workload");
    let variables = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{lender}/v1/credentials"),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            token.to_str().unwrap().to_owned(),
        ),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let credentials = BucketCredentials::Environment(Environment::of(variables));
    let artifacts = open(&BucketConfig {
        credentials,
        ..s3(moto)
    });
    let content = noise(1 << 20, 1);
    let put = put(&artifacts, &scope("team"), &content).await;
    assert!(get(&artifacts, &scope("team"), &put.artifact).await == content);
    assert!(asked.load(Ordering::Relaxed) > 3);
}
