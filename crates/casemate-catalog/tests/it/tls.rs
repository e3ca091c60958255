//! Who a catalog talks to, and what it tells whom.

use std::time::Duration;

use casemate_catalog::conformance::{events, leases, order, rates, routes};
use casemate_catalog::redis::{RedisOpenError, RedisSettingsError};
use casemate_catalog::testing::{Redis, RedisOptions};
use casemate_catalog::{Catalog, Health, Password, RedisCatalog, RedisSettings};
use casemate_types::{SandboxId, chain};

fn with_tls() -> Option<Redis> {
    Redis::is_wanted().then(|| {
        Redis::start(RedisOptions {
            tls: true,
            ..RedisOptions::default()
        })
    })
}

/// Why it does not answer, with all causes.
async fn refusal(settings: RedisSettings) -> String {
    let catalog = RedisCatalog::open(settings).unwrap();
    let error = catalog.ping().await.unwrap_err();
    assert!(error.is_retryable());
    chain(&error).to_string()
}

#[tokio::test]
async fn a_certificate_of_the_given_authority_is_taken_and_no_other() {
    let Some(redis) = with_tls() else { return };
    let catalog = RedisCatalog::open(redis.settings()).unwrap();
    catalog.ping().await.unwrap();

    // The system knows no such authority.
    let mut unknown = redis.settings();
    unknown.ca_file = None;
    let why = refusal(unknown).await;
    assert!(why.contains("UnknownIssuer"), "{why}");

    let other = with_tls().unwrap();
    let mut foreign = redis.settings();
    foreign.ca_file = Some(other.ca());
    let why = refusal(foreign).await;
    assert!(why.contains("invalid peer certificate"), "{why}");

    // It is named `localhost`, and not by its address.
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let mut by_address = RedisSettings::new(&url, Password::new(redis.password())).unwrap();
    by_address.ca_file = Some(redis.ca());
    let why = refusal(by_address).await;
    assert!(why.contains("not valid for name"), "{why}");
}

#[tokio::test]
async fn plain_text_reaches_no_server_of_tls() {
    let Some(redis) = with_tls() else { return };
    let url = format!("redis://localhost:{}", redis.port());
    let mut settings = RedisSettings::new(&url, Password::new(redis.password())).unwrap();
    settings.connection_timeout = Duration::from_millis(400);
    let why = refusal(settings).await;
    assert!(!why.contains(redis.password()), "{why}");
}

#[tokio::test]
async fn tls_where_there_is_none_is_said_to_be_that() {
    if !Redis::is_wanted() {
        return;
    }
    let redis = Redis::shared();
    let url = redis.url().replace("redis://", "rediss://");
    let mut settings = RedisSettings::new(&url, Password::default()).unwrap();
    settings.connection_timeout = Duration::from_secs(1);
    let refused = casemate_catalog::try_out(settings).await.unwrap_err();
    let why = chain(&refused);
    assert!(
        why.contains("TLS") && !why.contains(redis.password()),
        "{why}"
    );
    // A listener that says nothing at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    for (scheme, words) in [
        ("rediss", "the TLS handshake with 127.0.0.1:"),
        ("redis", "did not answer the login in time"),
    ] {
        let url = format!("{scheme}://{address}");
        let mut settings = RedisSettings::new(&url, Password::default()).unwrap();
        settings.connection_timeout = Duration::from_millis(300);
        let refused = casemate_catalog::try_out(settings).await.unwrap_err();
        let why = refused.to_string();
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    if !Redis::is_wanted() {
        return;
    }
    let redis = Redis::shared();
    for password in ["not-the-password", ""] {
        let settings = RedisSettings::new(&redis.url(), Password::new(password)).unwrap();
        assert!(!format!("{settings:?}").contains("not-the-password"));
        let why = refusal(settings).await;
        assert!(why.contains("log in to Redis"), "{why}");
        assert!(!why.contains("not-the-password"), "{why}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_at_once() {
    let settings = || RedisSettings::new("rediss://localhost", Password::default()).unwrap();
    let refused = |settings| match RedisCatalog::open(settings) {
        Err(error) => error,
        Ok(_) => panic!("it is refused"),
    };
    for prefix in ["", "a{b}", "a b", &"p".repeat(65)] {
        let mut settings = settings();
        settings.prefix = prefix.into();
        assert!(matches!(
            refused(settings),
            RedisOpenError::Settings(RedisSettingsError::Prefix)
        ));
    }
    let mut none_at_once = settings();
    none_at_once.calls_max = 0;
    assert!(matches!(
        refused(none_at_once),
        RedisOpenError::Settings(RedisSettingsError::Zero)
    ));
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for file in [dir.path().join("none.pem"), empty] {
        let mut settings = settings();
        settings.ca_file = Some(file);
        assert!(matches!(refused(settings), RedisOpenError::Authority(_)));
    }
}

/// What `docs/redis.md` says.
#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    if !Redis::is_wanted() {
        return;
    }
    let redis = Redis::start(RedisOptions::default());
    let rights = "+@hash +@string +@set +@keyspace +@scripting +@pubsub +@connection +time";
    let mut args = vec!["ACL", "SETUSER", "me", "on", ">mine", "~{p}:*", "&{p}:*"];
    args.extend(rights.split(' '));
    assert_eq!(redis.cli(&args), "OK");
    let url = format!("redis://me@localhost:{}", redis.port());
    let mut settings = RedisSettings::new(&url, Password::new("mine")).unwrap();
    settings.prefix = "p".into();
    let catalog = RedisCatalog::open(settings.clone()).unwrap();
    routes::replacing_takes_over_from_another_node(&catalog).await;
    order::a_removal_is_remembered(&catalog).await;
    leases::whoever_waits_hears_of_the_end(&catalog).await;
    rates::many_at_once_take_no_more_than_there_is(&catalog).await;
    events::events_reach_those_that_listen(&catalog).await;
    events::a_catalog_that_is_there_answers(&catalog).await;
    // Elsewhere it may nothing: refused, and not for want of Redis.
    settings.prefix = "q".into();
    let why = refusal_to_look(settings).await;
    assert!(
        why.contains("NOPERM") || why.contains("permissions"),
        "{why}"
    );
}

async fn refusal_to_look(settings: RedisSettings) -> String {
    let catalog = RedisCatalog::open(settings).unwrap();
    catalog.ping().await.unwrap();
    let looked = catalog.route_by_id(&SandboxId::random()).await;
    let why = chain(&looked.unwrap_err()).to_string();
    catalog.ping().await.unwrap();
    why
}
