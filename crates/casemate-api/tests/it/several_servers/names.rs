//! Where names of templates lead.

use casemate_store::testing::build_ready;
use casemate_types::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, id_of};

/// Whoever was told by one server that a tag moved gets what it stands for at the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_to_the_same_build_at_both() {
    let cluster = Cluster::new().await;
    let team = cluster.store.team_by_id(&cluster.team).await.unwrap();
    let team = team.unwrap();
    let mut builds = Vec::new();
    for tag in ["one", "two"] {
        let tags = [tag];
        let build = build_ready(&*cluster.store, &team, "web", &tags, Timestamp::now());
        builds.push((tag, build.await));
    }
    for round in 0..20 {
        let (tag, build) = &builds[round % 2];
        let (told, asked) = (round % 3 % 2, 1 - round % 3 % 2);
        let body = json!({"target": format!("web:{tag}"), "tags": ["default"]}).to_string();
        let moved = cluster.api(told, "POST", "/templates/tags").json(&body);
        let moved = moved.send().await;
        assert_eq!(moved.status, 201, "{}", moved.text);
        let create = cluster.api(asked, "POST", "/v2/sandboxes");
        let made = create.json(r#"{"templateID":"web","timeout":300}"#).send();
        let made = made.await;
        assert_eq!(made.status, 201, "{}", made.text);
        let row = cluster.store.sandbox_by_id(&id_of(&made)).await.unwrap();
        assert_eq!(row.unwrap().build, build.id, "round {round}");
    }
}
