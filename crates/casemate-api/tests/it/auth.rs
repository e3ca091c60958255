//! Who may do what: every operation of `api.md` 9, against every kind of caller.

use casemate_store::Standing;

use crate::world::{ACCESS_TOKEN, ADMIN, API_KEY, World};

const UUID: &str = "6f0c1f0a-7f9e-4e4f-9a57-0d6f9f1f3a51";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nobody,
    T,
    TA,
    U,
    P,
    UorPT,
    PT,
    PTorAD,
    AD,
}

/// Written from the specification, apart from the server's own table.
fn table() -> Vec<(&'static str, String, Who)> {
    use Who::{AD, Nobody, P, PT, PTorAD, T, TA, U, UorPT};
    let rows: [(&str, &str, Who); 94] = [
        ("GET", "/health", Nobody),
        ("GET", "/teams", U),
        ("GET", "/teams/UUID/metrics", T),
        ("GET", "/teams/UUID/metrics/max", T),
        ("GET", "/sandboxes", T),
        ("POST", "/sandboxes", T),
        ("POST", "/v2/sandboxes", T),
        ("GET", "/v2/sandboxes", T),
        ("GET", "/sandboxes/metrics", T),
        ("GET", "/events/sandboxes", T),
        ("GET", "/events/sandboxes/iabc", T),
        ("GET", "/sandboxes/iabc/logs", T),
        ("GET", "/v2/sandboxes/iabc/logs", T),
        ("GET", "/sandboxes/iabc", T),
        ("DELETE", "/sandboxes/iabc", T),
        ("GET", "/sandboxes/iabc/metrics", T),
        ("POST", "/sandboxes/iabc/pause", T),
        ("POST", "/sandboxes/iabc/resume", T),
        ("POST", "/sandboxes/iabc/connect", T),
        ("POST", "/v2/sandboxes/iabc/connect", T),
        ("POST", "/sandboxes/iabc/fork", T),
        ("POST", "/sandboxes/iabc/timeout", T),
        ("PUT", "/sandboxes/iabc/network", T),
        ("POST", "/sandboxes/iabc/refreshes", T),
        ("POST", "/sandboxes/iabc/snapshots", T),
        ("GET", "/snapshots", T),
        ("POST", "/v3/templates", T),
        ("GET", "/v2/templates", TA),
        ("POST", "/v2/templates", T),
        ("GET", "/templates/tid/files/hash", TA),
        ("GET", "/templates", TA),
        ("POST", "/templates", UorPT),
        ("GET", "/templates/tid", T),
        ("GET", "/templates/tid/archive", T),
        ("POST", "/templates/tid", UorPT),
        ("DELETE", "/templates/tid", TA),
        ("PATCH", "/templates/tid", TA),
        ("PATCH", "/v2/templates/tid", TA),
        ("POST", "/templates/tid/builds/UUID", UorPT),
        ("POST", "/v2/templates/tid/builds/UUID", T),
        ("GET", "/templates/tid/builds/UUID/status", TA),
        ("GET", "/templates/tid/builds/UUID/logs", TA),
        ("POST", "/templates/tags", T),
        ("DELETE", "/templates/tags", T),
        ("GET", "/templates/tid/tags", T),
        ("GET", "/templates/aliases/base", T),
        ("GET", "/nodes", AD),
        ("GET", "/nodes/fake", AD),
        ("POST", "/nodes/fake", AD),
        ("POST", "/admin/teams/UUID/sandboxes/kill", AD),
        ("GET", "/admin/sandboxes/running-counts", AD),
        ("POST", "/admin/teams/UUID/builds/cancel", AD),
        ("POST", "/admin/teams/UUID/api-keys", AD),
        ("DELETE", "/admin/teams/UUID/api-keys/UUID", AD),
        ("POST", "/admin/cluster/tokens", AD),
        ("GET", "/admin/cluster/nodes", AD),
        ("POST", "/admin/cluster/nodes/NODE/standing", AD),
        ("POST", "/admin/cluster/nodes/NODE/fence", AD),
        ("POST", "/admin/cluster/nodes/NODE/drain", AD),
        ("DELETE", "/admin/cluster/nodes/NODE", AD),
        ("DELETE", "/admin/cluster/edges/EDGE", AD),
        ("POST", "/access-tokens", P),
        ("DELETE", "/access-tokens/UUID", P),
        ("GET", "/api-keys", PTorAD),
        ("POST", "/api-keys", PT),
        ("PATCH", "/api-keys/UUID", PTorAD),
        ("DELETE", "/api-keys/UUID", PTorAD),
        ("GET", "/volumes", T),
        ("POST", "/volumes", T),
        ("GET", "/volumes/UUID", T),
        ("DELETE", "/volumes/UUID", T),
        ("GET", "/volumecontent/UUID/path", Nobody),
        ("PATCH", "/volumecontent/UUID/path", Nobody),
        ("DELETE", "/volumecontent/UUID/path", Nobody),
        ("GET", "/volumecontent/UUID/dir", Nobody),
        ("POST", "/volumecontent/UUID/dir", Nobody),
        ("GET", "/volumecontent/UUID/file", Nobody),
        ("PUT", "/volumecontent/UUID/file", Nobody),
        ("GET", "/secrets", T),
        ("POST", "/secrets", T),
        ("GET", "/secrets/sec_1", T),
        ("POST", "/secrets/sec_1", T),
        ("DELETE", "/secrets/sec_1", T),
        ("GET", "/default-templates", T),
        ("GET", "/templates/tid/tags/count", T),
        ("GET", "/templates/tid/tags/exists", T),
        ("GET", "/templates/tid/tags/groups", T),
        ("GET", "/templates/tid/tags/t/assignments", T),
        ("POST", "/builds/gc", T),
        // The link itself is the key.
        ("PUT", "/uploads/token", Nobody),
        ("GET", "/ready", Nobody),
        ("GET", "/openapi.json", Nobody),
        // Guarded by itself: see `platform`.
        ("GET", "/metrics", Nobody),
        ("HEAD", "/health", Nobody),
    ];
    let full = |(method, path, who): (_, &str, _)| (method, path.replace("UUID", UUID), who);
    rows.into_iter().map(full).collect()
}

/// Headers of a caller, and for whom they are good.
type CallerRow = (&'static [(&'static str, &'static str)], &'static [Who]);

const CALLERS: &[CallerRow] = &[
    (&[], &[]),
    (&[("x-api-key", API_KEY)], &[Who::T, Who::TA]),
    (&[("x-api-key", "e2b_00")], &[]),
    (&[("x-api-key", "e2b_zz")], &[]),
    (&[("x-api-key", "\u{e4}")], &[]),
    (&[("x-api-key", ACCESS_TOKEN)], &[]),
    (&[("authorization", "Bearer e2b_00")], &[]),
    (&[("authorization", "Bearer sk_e2b_00")], &[]),
    (&[("authorization", "Bearer a.b.c")], &[]),
    (
        &[("authorization", "Bearer a.b.c"), ("x-team-id", UUID)],
        &[],
    ),
    (&[("x-admin-token", ADMIN)], &[Who::AD]),
    (&[("x-admin-token", "wrong"), ("x-team-id", UUID)], &[]),
    (&[("x-admin-token", ADMIN), ("x-team-id", UUID)], &[Who::AD]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lets_in_whom_it_should() {
    let world = World::new().await;
    let token = format!("Bearer {ACCESS_TOKEN}");
    let team = world.team.to_string();
    for (method, path, who) in table() {
        for (headers, good_for) in CALLERS {
            let mut call = world.call(method, &path);
            for (name, value) in *headers {
                call = call.header(name, value);
            }
            let answer = call.send().await;
            let expected = who == Who::Nobody || good_for.contains(&who);
            check(&answer, expected, &format!("{method} {path} {headers:?}"));
            if !expected {
                answer.error(401);
            }
        }
        let by_token = world.call(method, &path).header("authorization", &token);
        let good = matches!(who, Who::Nobody | Who::U | Who::UorPT | Who::TA);
        check(
            &by_token.send().await,
            good,
            &format!("{method} {path} by token"),
        );
        let by_admin = world.admin(method, &path).header("x-team-id", &team);
        let good = matches!(who, Who::Nobody | Who::T | Who::TA | Who::PTorAD | Who::AD);
        check(
            &by_admin.send().await,
            good,
            &format!("{method} {path} by admin"),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_served_operation_has_a_case() {
    let world = World::new().await;
    let document = world.call("GET", "/openapi.json").send().await.json();
    let cases = table();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let found = cases.iter().any(|(case_method, case_path, _)| {
                case_method.eq_ignore_ascii_case(method) && fits(path, case_path)
            });
            assert!(found, "{method} {path} has no case in the table");
        }
    }
}

/// Whether a path is one of a template's.
fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(t, p)| t.starts_with('{') || t == p)
}

#[track_caller]
fn check(answer: &crate::world::Answer, good: bool, what: &str) {
    let metrics = what.starts_with("GET /metrics");
    assert!(
        metrics || (answer.status != 401) == good,
        "{what}: {}",
        answer.text
    );
    assert_ne!(answer.status, 500, "{what}: {}", answer.text);
    if answer.status.is_client_error() && !what.starts_with("HEAD") {
        answer.error(answer.status.as_u16());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_read_as_specified() {
    let world = World::new().await;
    let check = async |name: &str, value: &str, path: &str, expected: &str| {
        let answer = world.call("GET", path).header(name, value).send().await;
        assert_eq!(answer.error(401), expected, "{name}: {value}");
    };
    let missing = "authorization header is missing";
    check("x-api-key", "", "/v2/sandboxes", missing).await;
    check("x-other", "x", "/v2/sandboxes", missing).await;
    let malformed = "authorization header is malformed";
    check("x-api-key", "E2B_00", "/v2/sandboxes", malformed).await;
    check("authorization", "Basic eDp5", "/teams", malformed).await;
    let help = "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.";
    let format = format!("{help}\nInvalid API key format");
    check("x-api-key", "e2b_123", "/v2/sandboxes", &format).await;
    let unknown = format!("{help}\nCannot get the team for the given API key");
    check("x-api-key", "e2b_1234", "/v2/sandboxes", &unknown).await;
    let token = "Invalid Access token, try to login again by running `e2b auth login`.\n";
    let format = format!("{token}Invalid access token format");
    check("authorization", "Bearer sk_e2b_xyz", "/teams", &format).await;
    let jwt = "Invalid auth provider token.\nBackend authentication failed";
    check("authorization", "Bearer a.b.c", "/teams", jwt).await;
    check("authorization", "Bearer a.b.c", "/v2/sandboxes", jwt).await;
    let admin = "Invalid Access token.\nInvalid Access token.";
    check("x-admin-token", "wrong", "/nodes", admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_scheme_that_was_tried_is_blamed_and_any_good_one_suffices() {
    let world = World::new().await;
    let wrong_key = world
        .admin("GET", "/v2/sandboxes")
        .header("x-api-key", "e2b_12");
    let answer = wrong_key.send().await;
    assert!(answer.error(401).starts_with("Invalid API key"));
    let both = world
        .admin("GET", "/v2/sandboxes")
        .header("x-api-key", "e2b_12")
        .header("x-team-id", world.team.as_str());
    assert_eq!(both.send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn authentication_comes_before_the_body_and_any_look_up() {
    let world = World::new().await;
    for body in ["", "{", r#"{"templateID":5}"#, r#"{"templateID":"nope"}"#] {
        let call = world.call("POST", "/v2/sandboxes").json(body);
        call.send().await.error(401);
    }
    let call = world.call("DELETE", "/sandboxes/nonexistingsandbox");
    call.send().await.error(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_team_reads_and_ends_and_a_banned_one_does_nothing() {
    let world = World::new().await;
    let reason = Some("unpaid".to_owned());
    let (_, key) = world.other_team(Standing::Blocked { reason }).await;
    let call = async |method: &str, path: &str| {
        let call = world.call(method, path).header("x-api-key", &key);
        call.json(r#"{"templateID":"base"}"#).send().await
    };
    assert_eq!(call("GET", "/v2/sandboxes").await.status, 200);
    assert_eq!(call("GET", "/sandboxes").await.status, 200);
    assert_eq!(call("GET", "/sandboxes/iabc").await.status, 404);
    assert_eq!(call("DELETE", "/sandboxes/iabc").await.status, 404);
    for path in ["/sandboxes", "/v2/sandboxes", "/sandboxes/iabc/pause"] {
        assert_eq!(
            call("POST", path).await.error(403),
            "team is blocked: unpaid"
        );
    }
    assert_eq!(world.node.creates(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_team_does_nothing() {
    let world = World::new().await;
    let (_, key) = world.other_team(Standing::Banned).await;
    let call = world.call("GET", "/v2/sandboxes").header("x-api-key", &key);
    assert_eq!(call.send().await.error(403), "team is banned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_never_sees_what_is_another_teams() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let (_, key) = world.other_team(Standing::Good).await;
    for (method, path, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("POST", "/timeout", r#"{"timeout":1}"#),
        ("POST", "/refreshes", "{}"),
        ("POST", "/connect", r#"{"timeout":1}"#),
        ("PUT", "/network", "{}"),
        ("PUT", "/network", r#"{"denyOut":["nonsense"]}"#),
    ] {
        let path = format!("/sandboxes/{sandbox}{path}");
        let call = world.call(method, &path).header("x-api-key", &key);
        let expected =
            format!("Sandbox \"{sandbox}\" doesn't exist or you don't have access to it");
        assert_eq!(call.json(body).send().await.error(404), expected);
    }
    let listed = world.call("GET", "/v2/sandboxes").header("x-api-key", &key);
    assert_eq!(listed.send().await.text, "[]");
    assert_eq!(world.status_of(&sandbox).await, 200);
}
