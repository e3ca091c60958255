//! Archives for `COPY` steps: links, and what comes under them.

use std::io::{Read, Write};
use std::time::Duration;

use axum::body::Body;
use casemate_api::{ApiState, router};
use casemate_artifacts::{ArtifactsConfig, Scope};
use casemate_store::{Artifacts as _, BuildCache, CacheKey, Standing};
use casemate_types::{TeamId, Timestamp};

use crate::builds::ask;
use crate::world::{ACCESS_TOKEN, Answer, World, until};

const HASH: &str = "49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5";

async fn link(world: &World, template: &str, hash: &str) -> (bool, String) {
    let path = format!("/templates/{template}/files/{hash}");
    let answer = world.api("GET", &path).send().await;
    linked(&answer)
}

/// Whether it is there, and the path of the link.
fn linked(answer: &Answer) -> (bool, String) {
    assert_eq!(answer.status, 201, "{}", answer.text);
    let body = answer.json();
    let url = body["url"].as_str().unwrap();
    let start = url.find("/uploads/").unwrap();
    (body["present"].as_bool().unwrap(), url[start..].to_owned())
}

async fn put(world: &World, path: &str, content: impl Into<Body>) -> Answer {
    world.call("PUT", path).body(content.into()).send().await
}

fn names(world: &World, team: &TeamId) -> Vec<String> {
    let dir = world.uploads.path().join(team.as_str());
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

async fn content(world: &World, team: &TeamId, hash: &str) -> Option<Vec<u8>> {
    let key = CacheKey::parse(hash).unwrap();
    let found = world.control.open_upload(team, &key).await.unwrap()?;
    let mut content = Vec::new();
    let mut file = found.file.into_std().await;
    file.read_to_end(&mut content).unwrap();
    assert_eq!(found.bytes, content.len() as u64);
    assert!(names(world, team).contains(&found.sha256));
    Some(content)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_there_for_all_templates_of_its_team_and_no_other() {
    let world = World::new().await;
    let (a, b) = (
        ask(&world, r#"{"name":"a"}"#).await,
        ask(&world, r#"{"name":"b"}"#).await,
    );
    let (present, path) = link(&world, &a.template, HASH).await;
    assert!(!present);
    let large: Vec<u8> = (0..1_000_003_u32).map(|i| (i * 7) as u8).collect();
    let answer = put(&world, &path, large.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), large);
    let (present, again) = link(&world, &b.template, HASH).await;
    assert!(present);
    assert!(link(&world, "first%2Fb", HASH).await.0);
    // The last one holds, whatever it is, and the one before is not kept.
    let mut gzip = flate2_of(b"tar");
    assert_eq!(put(&world, &again, gzip.clone()).await.status, 200);
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), gzip);
    assert_eq!(names(&world, &world.team).len(), 1);
    assert_eq!(put(&world, &path, "").await.status, 200);
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), b"");

    let (other, key) = world.other_team(Standing::Good).await;
    let call = world
        .call("POST", "/v3/templates")
        .header("x-api-key", &key);
    let theirs = crate::builds::asked(call.json(r#"{"name":"a"}"#).send().await);
    let files = format!("/templates/{}/files/{HASH}", theirs.template);
    let call = world.call("GET", &files).header("x-api-key", &key);
    let (present, path) = linked(&call.send().await);
    assert!(!present);
    gzip.push(1);
    assert_eq!(put(&world, &path, gzip.clone()).await.status, 200);
    assert_eq!(content(&world, &other, HASH).await.unwrap(), gzip);
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), b"");
    let foreign = world.api("GET", &files).send().await.error(404);
    assert!(
        foreign.starts_with("Error when getting template: "),
        "{foreign}"
    );
}

/// At another server the row is there, and not the file.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_another_server_took_comes_from_the_bucket() {
    let bucket = casemate_artifacts::Artifacts::in_memory(&ArtifactsConfig::default()).unwrap();
    let shared = bucket.clone();
    let world = World::with(|config| config.bucket = Some(shared)).await;
    let a = ask(&world, r#"{"name":"a"}"#).await;
    let (_, path) = link(&world, &a.template, HASH).await;
    let large: Vec<u8> = (0..3_000_003_u32).map(|i| (i * 7) as u8).collect();
    assert_eq!(put(&world, &path, large.clone()).await.status, 200);
    let dir = world.uploads.path().join(world.team.as_str());
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(
        link(&world, &a.template, HASH).await.0,
        "it need not be sent"
    );
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), large);
    assert_eq!(names(&world, &world.team).len(), 1, "and is here now");

    // Gone from there as well, it was never sent.
    std::fs::remove_dir_all(&dir).unwrap();
    let scope: Scope = world.team.as_str().parse().unwrap();
    let rows = world.store.artifact_references(&world.team).await.unwrap();
    let [artifact] = &rows[..] else {
        panic!("{rows:?}");
    };
    let artifact = artifact.parse().unwrap();
    bucket.remove(&scope, &artifact).await.unwrap();
    assert!(!link(&world, &a.template, HASH).await.0);
}

fn flate2_of(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b];
    bytes.write_all(content).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_to_where_the_client_came_from() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let path = format!("/templates/{}/files/{HASH}", asked.template);
    let url = |answer: Answer| answer.json()["url"].as_str().unwrap().to_owned();
    let call = || world.api("GET", &path);
    let plain = url(call().header("host", "api.demo.test:81").send().await);
    assert!(
        plain.starts_with("http://api.demo.test:81/uploads/"),
        "{plain}"
    );
    let secure = url(call().header("host", "[::1]:8443").over_tls().send().await);
    assert!(
        secure.starts_with("https://[::1]:8443/uploads/"),
        "{secure}"
    );
    // Anybody can write these.
    let forwarded = call()
        .header("host", "box.test")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.test")
        .header("forwarded", "proto=https;host=evil.test");
    let plain = url(forwarded.send().await);
    assert!(plain.starts_with("http://box.test/uploads/"), "{plain}");
    for host in ["", "a b", "a/b", "a@b", "\u{e4}", &"a".repeat(300)] {
        let own = url(call().header("host", host).send().await);
        assert!(own.starts_with("http://localhost:8080/uploads/"), "{own}");
    }
    let token = format!("Bearer {ACCESS_TOKEN}");
    let user = world.call("GET", &path).header("authorization", &token);
    assert!(!linked(&user.send().await).0);
    for (path, status, expected) in [
        (
            format!("/templates/{}/files/abc", asked.template),
            400,
            "Invalid files hash",
        ),
        (
            format!("/templates/x/files/{}", HASH.to_uppercase()),
            400,
            "Invalid files hash",
        ),
        (
            format!("/templates/none/files/{HASH}"),
            404,
            "Error when getting template: ",
        ),
        (
            format!("/templates/a%20b/files/{HASH}"),
            404,
            "Error when getting template: ",
        ),
        (
            format!("/templates/base/files/{HASH}"),
            404,
            "Error when getting template: ",
        ),
    ] {
        let message = world.api("GET", &path).send().await.error(status);
        assert!(message.starts_with(expected), "{path}: {message}");
    }
}

/// A proxy in front ends TLS, and has a name of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_is_what_links_begin_with() {
    let mut world = World::new().await;
    let access = crate::world::guarded(false);
    let state = ApiState::new(world.control.clone(), access);
    world.router = router(state.with_public_url("https://box.example.com:8443"));
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let path = format!("/templates/{}/files/{HASH}", asked.template);
    for host in ["127.0.0.1:8080", "evil.test", ""] {
        let answer = world.api("GET", &path).header("host", host).send().await;
        let url = answer.json()["url"].as_str().unwrap().to_owned();
        let path = url.strip_prefix("https://box.example.com:8443").unwrap();
        assert_eq!(put(&world, path, "content").await.status, 200);
    }
    assert_eq!(
        content(&world, &world.team, HASH).await.unwrap(),
        b"content"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_link_opens_and_not_for_ever() {
    let mut world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let (start, token) = path.split_at("/uploads/".len());
    let mut changed = token.as_bytes().to_vec();
    let at = changed.len() / 2;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for token in [changed.as_str(), "x", &token[1..], &"a".repeat(2000)] {
        let message = put(&world, &format!("{start}{token}"), "content")
            .await
            .error(403);
        assert!(message.contains("not valid"), "{message}");
    }
    // Of another installation.
    world
        .restart_with(|config| {
            config.root_secret = casemate_control::RootSecret::new(vec![8; 32]).unwrap();
        })
        .await;
    put(&world, &path, "content").await.error(403);
    assert!(names(&world, &world.team).is_empty());
    world.restart().await;
    assert_eq!(put(&world, &path, "content").await.status, 200);
    // Of a team that may do nothing any more.
    let mut team = casemate_store::Teams::team_by_id(&*world.store, &world.team).await;
    let team = team.as_mut().unwrap().as_mut().unwrap();
    team.standing = Standing::Banned;
    casemate_store::Teams::team_update(&*world.store, team)
        .await
        .unwrap();
    put(&world, &path, "more").await.error(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_leaves_nothing() {
    let world = World::with(|config| {
        config.uploads.upload_bytes_max = 1000;
        config.uploads.team_bytes_max = 1500;
    })
    .await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let announced = world.call("PUT", &path).header("content-length", "1001");
    // Nothing ever comes, and the answer does not wait for it.
    let never = Body::from_stream(futures_util::stream::pending::<
        Result<Vec<u8>, std::io::Error>,
    >());
    let message = announced.body(never).send().await.error(413);
    assert!(message.contains("more than 1000 bytes"), "{message}");
    let chunks = [Ok::<_, std::io::Error>(vec![1; 600]), Ok(vec![2; 600])];
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    put(&world, &path, body).await.error(413);
    assert!(names(&world, &world.team).is_empty());
    assert_eq!(put(&world, &path, vec![1; 1000]).await.status, 200);
    let (_, second) = link(&world, &asked.template, &"ab".repeat(32)).await;
    let message = world.call("PUT", &second).header("content-length", "501");
    let message = message
        .body(Body::from(vec![2; 501]))
        .send()
        .await
        .error(413);
    assert!(message.contains("1500 bytes"), "{message}");
    put(&world, &second, vec![2; 501]).await.error(413);
    assert_eq!(names(&world, &world.team).len(), 1);
    assert_eq!(put(&world, &second, vec![2; 500]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_begin_together_do_not_each_find_all_the_room() {
    use futures_util::{StreamExt, stream};
    let world = World::with(|config| {
        config.uploads.upload_bytes_max = 1000;
        config.uploads.team_bytes_max = 1500;
    })
    .await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let (_, second) = link(&world, &asked.template, &"ab".repeat(32)).await;
    // It does not say how much it will be.
    let (release, released) = tokio::sync::oneshot::channel();
    let begin = stream::iter([Ok::<_, std::io::Error>(vec![2])]);
    let rest = stream::once(async {
        released.await.unwrap();
        Ok(vec![2; 999])
    });
    let slow = world.call("PUT", &second);
    let slow = slow.body(Body::from_stream(begin.chain(rest))).send();
    let slow = tokio::spawn(slow);
    until("it has begun", || async {
        names(&world, &world.team).len() == 1
    })
    .await;
    assert_eq!(put(&world, &path, vec![1; 1000]).await.status, 200);
    release.send(()).unwrap();
    let message = slow.await.unwrap().error(413);
    assert!(message.contains("1500 bytes"), "{message}");
    assert_eq!(names(&world, &world.team).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_replaced_is_there_all_the_time() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    assert_eq!(put(&world, &path, "first").await.status, 200);
    let is_over = AtomicBool::new(false);
    let replacing = async {
        for number in 0..300 {
            let content = format!("content {number}");
            assert_eq!(put(&world, &path, content).await.status, 200);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let key = CacheKey::parse(HASH).unwrap();
    let looking = async {
        while !is_over.load(Ordering::Relaxed) {
            let found = world.control.open_upload(&world.team, &key).await.unwrap();
            assert!(found.is_some());
        }
    };
    tokio::join!(replacing, looking);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_too_slow_leaves_nothing() {
    let world = World::with(|config| config.uploads.silence_max = Duration::from_millis(50)).await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let broken = [Ok(vec![1; 300_000]), Err(std::io::Error::other("gone"))];
    let broken = Body::from_stream(futures_util::stream::iter(broken));
    put(&world, &path, broken).await.error(400);
    let short = world.call("PUT", &path).header("content-length", "9");
    short.body(Body::from("four")).send().await.error(400);
    use futures_util::StreamExt;
    let some = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![1; 300_000])]);
    let slow = Body::from_stream(some.chain(futures_util::stream::pending()));
    put(&world, &path, slow).await.error(408);
    assert!(names(&world, &world.team).is_empty());
    assert!(content(&world, &world.team, HASH).await.is_none());
    assert!(!link(&world, &asked.template, HASH).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_507() {
    let world = World::with(|config| config.uploads.disk_reserve_bytes = u64::MAX / 2).await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let message = put(&world, &path, "content").await.error(507);
    assert_eq!(message, "the disk of this platform is full");
    assert!(names(&world, &world.team).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_name_at_once_leave_one_whole() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    let puts = (0..8).map(|i| put(&world, &path, vec![i as u8; 400_000]));
    for answer in futures_util::future::join_all(puts).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let found = content(&world, &world.team, HASH).await.unwrap();
    assert_eq!(found.len(), 400_000);
    assert!(found.iter().all(|byte| *byte == found[0]));
    assert_eq!(names(&world, &world.team).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_goes_at_the_start() {
    let mut world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, path) = link(&world, &asked.template, HASH).await;
    assert_eq!(put(&world, &path, "kept").await.status, 200);
    let old = "cd".repeat(32);
    let (_, path) = link(&world, &asked.template, &old).await;
    assert_eq!(put(&world, &path, "unused").await.status, 200);
    let key = CacheKey::parse(&old).unwrap();
    let unused = world.store.upload_find(&world.team, &key, Timestamp::now());
    let unused = unused.await.unwrap().unwrap();
    let long_ago = Timestamp::now() - Duration::from_secs(8 * 24 * 3600);
    let put = world.store.upload_put(&world.team, &key, &unused, long_ago);
    put.await.unwrap();
    let dir = world.uploads.path().join(world.team.as_str());
    let (part, locked, stray) = (
        dir.join("tmp-1"),
        dir.join("tmp-2"),
        dir.join("ef".repeat(32)),
    );
    for path in [&part, &locked, &stray] {
        std::fs::write(path, "x").unwrap();
    }
    let held = std::fs::File::open(&locked).unwrap();
    held.try_lock().unwrap();
    world.restart().await;
    until("it is swept", || async {
        !part.exists() && !stray.exists() && !dir.join(&unused.sha256).exists()
    })
    .await;
    assert!(locked.exists());
    assert!(content(&world, &world.team, &old).await.is_none());
    assert_eq!(content(&world, &world.team, HASH).await.unwrap(), b"kept");
    // A row whose file is gone says that it is to be sent again.
    let key = CacheKey::parse(HASH).unwrap();
    let kept = world.store.upload_find(&world.team, &key, Timestamp::now());
    let kept = kept.await.unwrap().unwrap();
    std::fs::remove_file(dir.join(kept.sha256)).unwrap();
    assert!(!link(&world, &asked.template, HASH).await.0);
}
