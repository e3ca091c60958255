//! Templates and builds.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use casemate_client::api::{
    CollectBuilds, NewTemplateBuild, StartTemplateBuild, TemplateFilesUpload,
};
use casemate_client::{Api, ApiError, HttpError, Transport};

use crate::server::{Answer, Server};

fn api(server: &Server) -> Api {
    Api::new(Transport::new(), server.url.parse().unwrap(), "e2b_00").unwrap()
}

fn file(content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!(
        "casemate-upload-{}-{}",
        std::process::id(),
        content.len()
    ));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn link(url: String) -> TemplateFilesUpload {
    TemplateFilesUpload {
        present: false,
        url: Some(url),
        headers: Some([("X-Want".to_owned(), "yes".to_owned())].into()),
    }
}

#[tokio::test]
async fn a_build_is_asked_for_and_started_with_what_is_said_and_no_more() {
    let requested = r#"{"templateID":"t","buildID":"b","public":false,"aliases":["n"],"names":["s/n"],"tags":["default"]}"#;
    let server = Server::start(vec![
        ("POST /v3/templates", Answer::status(202, requested)),
        ("POST /v2/templates/t/builds/b", Answer::status(202, "")),
    ])
    .await;
    let api = api(&server);
    let new = NewTemplateBuild {
        name: Some("n".to_owned()),
        ..NewTemplateBuild::default()
    };
    let requested = api.template_build_request(&new).await.unwrap();
    let recipe = StartTemplateBuild {
        from_image: Some("debian".to_owned()),
        ..StartTemplateBuild::default()
    };
    api.template_build_start(&requested.template_id, &requested.build_id, &recipe)
        .await
        .unwrap();
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [r#"{"name":"n"}"#, r#"{"fromImage":"debian"}"#]);
}

#[tokio::test]
async fn an_upload_carries_its_length_and_no_key() {
    let server = Server::start(vec![("PUT /u/secret", Answer::status(200, ""))]).await;
    let content = vec![7; 1_000_000];
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    api(&server)
        .template_files_upload(
            &link(format!("{}/u/secret", server.url)),
            file(&content),
            content.len() as u64,
            Box::new(move |sent| tell.lock().unwrap().push(sent)),
        )
        .await
        .unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.body, content);
    assert_eq!(seen.headers["content-length"], "1000000");
    assert_eq!(seen.headers["x-want"], "yes");
    assert!(!seen.headers.contains_key("x-api-key"));
    assert!(!seen.headers.contains_key("transfer-encoding"));
    assert_eq!(told.lock().unwrap().last(), Some(&1_000_000));
}

#[tokio::test]
async fn a_refused_upload_says_why_before_all_was_sent() {
    let refused = Answer {
        early: true,
        ..Answer::status(413, r#"{"code":413,"message":"too large"}"#)
    };
    let server = Server::start(vec![("PUT /u", refused)]).await;
    let content = vec![0; 20_000];
    let error = api(&server)
        .template_files_upload(
            &link(format!("{}/u", server.url)),
            file(&content),
            content.len() as u64,
            Box::new(|_| {}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "too large (status 413 Payload Too Large)"
    );
}

#[tokio::test]
async fn a_file_that_is_shorter_than_it_was_is_no_upload() {
    let server = Server::start(vec![("PUT /u", Answer::status(200, ""))]).await;
    let sent = api(&server)
        .template_files_upload(
            &link(format!("{}/u", server.url)),
            file(b"short"),
            6,
            Box::new(|_| {}),
        )
        .await;
    assert!(sent.is_err());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_fails_of_an_upload_does_not_tell_its_link() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Server::start(Vec::new()).await;
    for url in [
        format!("{nobody}/uploads/secret"),
        "not a url?secret".into(),
    ] {
        let sent = api(&server)
            .template_files_upload(&link(url), file(b"x"), 1, Box::new(|_| {}))
            .await;
        let error = sent.unwrap_err();
        assert!(matches!(
            error,
            ApiError::Http(HttpError::Send { .. } | HttpError::BaseUrl { .. })
        ));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_name_stays_one_piece_of_the_path_and_unknown_is_none() {
    let server = Server::start(vec![
        (
            "GET /templates/aliases/s%2Fn",
            Answer::status(200, r#"{"templateID":"t","public":false}"#),
        ),
        (
            "GET /templates/aliases/gone",
            Answer::status(404, r#"{"code":404,"message":"no"}"#),
        ),
        ("DELETE /templates/s%2Fn", Answer::status(204, "")),
    ])
    .await;
    let api = api(&server);
    let found = api.template_by_name("s/n").await.unwrap();
    assert_eq!(found.unwrap().template_id, "t");
    assert!(api.template_by_name("gone").await.unwrap().is_none());
    assert!(api.template_delete("s/n").await.unwrap());
}

#[tokio::test]
async fn what_is_changed_is_said_in_the_body() {
    let server = Server::start(vec![
        (
            "PATCH /v2/templates/s%2Fn",
            Answer::status(200, r#"{"names":["s/n"]}"#),
        ),
        (
            "POST /templates/tags",
            Answer::status(201, r#"{"tags":["v1"],"buildID":"b"}"#),
        ),
        ("DELETE /templates/tags", Answer::status(204, "")),
        (
            "POST /builds/gc",
            Answer::status(
                200,
                r#"{"builds":1,"steps":2,"layers":3,"uploads":4,"bytes":5}"#,
            ),
        ),
    ])
    .await;
    let api = api(&server);
    assert_eq!(api.template_publish("s/n", true).await.unwrap(), ["s/n"]);
    let tags = ["v1".to_owned()];
    let assigned = api.template_tags_assign("n:old", &tags).await.unwrap();
    assert_eq!(assigned.build_id, "b");
    api.template_tags_remove("n", &tags).await.unwrap();
    let ask = CollectBuilds {
        older_than_seconds: None,
        dry_run: Some(true),
    };
    let gone = api.builds_collect(&ask).await.unwrap();
    assert_eq!((gone.builds, gone.layers, gone.bytes), (1, 3, 5));
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    let expected = [
        r#"{"public":true}"#,
        r#"{"target":"n:old","tags":["v1"]}"#,
        r#"{"name":"n","tags":["v1"]}"#,
        r#"{"dryRun":true}"#,
    ];
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn a_status_is_asked_for_from_an_offset() {
    let info = r#"{"templateID":"t","buildID":"b","status":"error","logs":[],"logEntries":[{"timestamp":"2026-01-01T00:00:00Z","message":"m","level":"warn","step":"2"}],"reason":{"message":"why","step":"2"}}"#;
    let line = "GET /templates/t/builds/b/status?logsOffset=7&level=warn";
    let server = Server::start(vec![(line, Answer::status(200, info))]).await;
    let info = api(&server)
        .template_build_status("t", "b", 7, "warn")
        .await
        .unwrap();
    assert_eq!(info.log_entries[0].message, "m");
    assert_eq!(info.reason.unwrap().step.as_deref(), Some("2"));
}

#[tokio::test]
async fn an_archive_comes_whole_or_is_an_error() {
    let server = Server::start(vec![
        (
            "GET /templates/a%2Fb%3Av1/archive",
            Answer::status(200, "archive"),
        ),
        (
            "GET /templates/gone/archive",
            Answer::status(404, r#"{"code":404,"message":"no"}"#),
        ),
        (
            "GET /templates/busy/archive",
            Answer::status(429, r#"{"code":429,"message":"busy"}"#),
        ),
    ])
    .await;
    let api = api(&server);
    let mut archive = api.template_export("a/b:v1").await.unwrap().unwrap();
    let mut content = Vec::new();
    while let Some(piece) = archive.chunk().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    assert_eq!(content, b"archive");
    assert!(api.template_export("gone").await.unwrap().is_none());
    let busy = api.template_export("busy").await.unwrap_err();
    assert!(matches!(busy, ApiError::Refused { .. }), "{busy}");
}
