//! The files of a sandbox.

use envd_client::{EnvdError, HttpError};

use crate::agent::agent;
use crate::server::{Answer, Server};

#[tokio::test]
async fn a_file_longer_than_the_limit_is_an_error_not_a_shorter_file() {
    let path = "GET /files?path=/tmp/a%20b&username=root";
    let server = Server::start(vec![
        (path, Answer::ok([vec![1; 600], vec![2; 600]])),
        (path, Answer::ok([vec![1; 600], vec![2; 600]])),
        (
            path,
            Answer::status(
                404,
                r#"{"code":404,"message":"path '/tmp/a b' does not exist"}"#,
            ),
        ),
    ])
    .await;
    let envd = agent(&server).as_user("root");
    let error = envd.file_read("/tmp/a b", 1000).await.unwrap_err();
    assert!(matches!(
        error,
        EnvdError::Http(HttpError::TooLong {
            bytes_max: 1000,
            ..
        })
    ));
    assert_eq!(envd.file_read("/tmp/a b", 2000).await.unwrap().len(), 1200);
    assert!(
        envd.file_read("/tmp/a b", 2000)
            .await
            .unwrap_err()
            .is_not_found()
    );
}
