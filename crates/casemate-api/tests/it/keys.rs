//! API keys, teams, and what administrators do.

use casemate_store::Standing;

use crate::world::{ACCESS_TOKEN, API_KEY, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_makes_and_deletes_keys() {
    let world = World::new().await;
    let path = format!("/admin/teams/{}/api-keys", world.team);
    let made = world
        .admin("POST", &path)
        .json(r#"{"name":"ci"}"#)
        .send()
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("e2b_") && key.len() == 44);
    assert_eq!(made["mask"]["valueLength"], 40);
    assert_eq!(made["mask"]["maskedValuePrefix"], key[4..6]);
    assert_eq!(made["mask"]["maskedValueSuffix"], key[40..]);
    assert!(made["createdBy"].is_null() && made["lastUsed"].is_null());
    let list = || world.call("GET", "/v2/sandboxes").header("x-api-key", key);
    assert_eq!(list().send().await.status, 200);
    let delete = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(world.admin("DELETE", &delete).send().await.status, 204);
    list().send().await.error(401);
    assert_eq!(
        world.admin("DELETE", &delete).send().await.error(404),
        "API key not found"
    );
    world
        .admin("DELETE", &format!("{path}/nope"))
        .send()
        .await
        .error(400);
    let unknown = "/admin/teams/00000000-0000-0000-0000-000000000000/api-keys";
    let unknown = world
        .admin("POST", unknown)
        .json(r#"{"name":"x"}"#)
        .send()
        .await;
    assert_eq!(unknown.error(404), "Team not found");
    for wrong in ["{}", r#"{"name":""}"#, r#"{"name":null}"#] {
        world
            .admin("POST", &path)
            .json(wrong)
            .send()
            .await
            .error(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_without_their_value_and_renamed() {
    let world = World::new().await;
    let admin = |method: &str, path: &str| {
        world
            .admin(method, path)
            .header("x-team-id", world.team.as_str())
    };
    world.api("GET", "/v2/sandboxes").send().await;
    let mut keys = admin("GET", "/api-keys").send().await.json();
    until("the use is noted", || async {
        let keys = admin("GET", "/api-keys").send().await.json();
        keys[0]["lastUsed"].is_string()
    })
    .await;
    let id = keys[0]["id"].as_str().unwrap().to_owned();
    assert!(keys[0].get("key").is_none());
    assert!(!keys.to_string().contains(&API_KEY[4..]));
    let path = format!("/api-keys/{id}");
    let renamed = admin("PATCH", &path).json(r#"{"name":"new"}"#).send().await;
    assert_eq!((renamed.status.as_u16(), renamed.text.as_str()), (202, ""));
    keys = admin("GET", "/api-keys").send().await.json();
    assert_eq!(keys[0]["name"], "new");
    let (_, other) = world.other_team(Standing::Good).await;
    assert_ne!(other, API_KEY);
    let foreign = world.admin("DELETE", &path);
    let foreign = foreign.header("x-team-id", "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162");
    foreign.send().await.error(404);
    assert_eq!(admin("DELETE", &path).send().await.status, 204);
    world.api("GET", "/v2/sandboxes").send().await.error(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_set_up_for_one_team_and_takes_further_keys_for_it() {
    use casemate_control::{Bootstrap, BootstrapError};
    let world = World::new().await;
    let mut first = Bootstrap {
        team_slug: "first".into(),
        team_name: "First".into(),
        api_key: "e2b_abcdef".into(),
        access_token: ACCESS_TOKEN.into(),
    };
    let who = world.control.bootstrap(&first).await.unwrap();
    assert_eq!(world.control.bootstrap_as(&first, &who).await.unwrap(), who);
    for key in ["e2b_abcdef", API_KEY] {
        let list = world.call("GET", "/v2/sandboxes").header("x-api-key", key);
        assert_eq!(list.send().await.status, 200);
    }
    let mut other = who.clone();
    other.team = casemate_types::TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap();
    assert_eq!(
        world.control.bootstrap_as(&first, &other).await.unwrap(),
        who
    );
    let (_, foreign) = world.other_team(Standing::Good).await;
    first.api_key = foreign;
    let refused = world.control.bootstrap_as(&first, &who).await;
    assert!(matches!(refused, Err(BootstrapError::Foreign("api key"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lines_login_gets_teams_with_working_keys() {
    let world = World::new().await;
    let token = format!("Bearer {ACCESS_TOKEN}");
    let teams = world
        .call("GET", "/teams")
        .header("authorization", &token)
        .send()
        .await
        .json();
    assert_eq!(teams.as_array().unwrap().len(), 1);
    assert_eq!(teams[0]["teamID"], world.team.as_str());
    assert_eq!(
        (&teams[0]["name"], &teams[0]["isDefault"]),
        (&"First".into(), &true.into())
    );
    let key = teams[0]["apiKey"].as_str().unwrap();
    let list = world.call("GET", "/v2/sandboxes").header("x-api-key", key);
    assert_eq!(list.send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_ends_and_counts_the_sandboxes_of_a_team() {
    let world = World::new().await;
    for _ in 0..12 {
        world.create("").await;
    }
    let (_, key) = world.other_team(Standing::Good).await;
    let other = world
        .call("POST", "/v2/sandboxes")
        .header("x-api-key", &key);
    other.json(r#"{"templateID":"base"}"#).send().await;
    let counts = || world.admin("GET", "/admin/sandboxes/running-counts");
    assert_eq!(counts().send().await.json()[world.team.as_str()], 12);
    let path = format!("/admin/teams/{}/sandboxes/kill", world.team);
    let killed = world.admin("POST", &path).send().await.json();
    assert_eq!(
        killed,
        serde_json::json!({"killedCount": 12, "failedCount": 0})
    );
    assert_eq!(world.node.running().len(), 1);
    assert!(
        counts()
            .send()
            .await
            .json()
            .get(world.team.as_str())
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_say_whether_a_name_is_taken() {
    let world = World::new().await;
    let get = async |alias: &str| {
        world
            .api("GET", &format!("/templates/aliases/{alias}"))
            .send()
            .await
    };
    let promoted = get("base").await.error(403);
    assert_eq!(promoted, "You don't have access to this template alias");
    assert_eq!(get("nope").await.error(404), "template 'nope' not found");
    assert_eq!(
        get("first%2Fnope").await.error(404),
        "template 'first/nope' not found"
    );
    get("other%2Fbase").await.error(400);
    assert!(
        get("a.b")
            .await
            .error(400)
            .starts_with("Invalid alias format: ")
    );
    get("first/base").await.error(404);
}
