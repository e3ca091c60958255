//! Nodes that are taken out, and one that joins again.

use casemate_store::NodeJoin;
use casemate_types::{EndReason, SandboxId, SandboxState};

use super::cluster::Cluster;
use super::lost::{
    BASE, change, comes_back, create_at, lose, lose_untold, made_at, sandbox, two_nodes,
};
use crate::world::until;

async fn is_lost_for_good(cluster: &Cluster, id: &SandboxId) -> bool {
    let state = cluster.state_of(id).await;
    let reason = EndReason::Lost;
    matches!(state, Some(SandboxState::Dead { reason: found, .. }) if found == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_takes_its_sandboxes_with_it() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let made = made_at(&cluster, &second, 2).await;
    assert_eq!(change(&cluster, 0, &made[1], "pause").await.status, 204);
    let remove = async |query: &str| {
        let path = format!("/admin/cluster/nodes/second{query}");
        cluster.admin(0, "DELETE", &path).send().await
    };
    let refused = remove("").await;
    refused.error_code(409, "node_in_use");
    assert!(refused.error(409).contains("1 running and 1 paused"));
    lose(&cluster, &second, &made[0]).await;
    let removed = remove("").await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert_eq!(removed.json()["running"], 1);
    assert_eq!(removed.json()["paused"], 1);
    for id in &made {
        let state = cluster.state_of(id).await;
        assert!(
            matches!(
                state,
                Some(SandboxState::Dead {
                    reason: EndReason::Lost,
                    ..
                })
            ),
            "{state:?}"
        );
    }
    assert_eq!(remove("").await.status, 404);
    let forced = cluster
        .admin(0, "DELETE", "/admin/cluster/nodes/fake?force=true")
        .send()
        .await;
    assert_eq!(forced.status, 200, "{}", forced.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removal_left_behind_is_lost_as_well() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let made = made_at(&cluster, &second, 2).await;
    assert_eq!(change(&cluster, 0, &made[1], "pause").await.status, 204);
    let stays = create_at(&cluster, &cluster.node, BASE).await;
    // Whoever removed it died before it had ended anything.
    assert!(cluster.store.node_remove("second").await.unwrap());
    for id in &made {
        until("its row ends", || is_lost_for_good(&cluster, id)).await;
    }
    assert_eq!(sandbox(&cluster, 1, "GET", &stays).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_joins_again_under_its_name_is_another_one() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let made = made_at(&cluster, &second, 1).await;
    // So that servers have seen it return in a generation that it comes to again.
    lose(&cluster, &second, &made[0]).await;
    comes_back(&cluster, &second).await;
    let joined = cluster.store.node_by_id("second").await.unwrap().unwrap();
    assert!(cluster.store.node_remove("second").await.unwrap());
    let join = NodeJoin {
        id: joined.id,
        address: joined.address,
        labels: joined.labels,
        isolation: joined.isolation,
    };
    let again = cluster.store.node_join(&join).await.unwrap();
    assert!(again.joined_at > joined.joined_at);
    let runs = create_at(&cluster, &second, BASE).await;
    lose_untold(&cluster, &second).await;
    for server in 0..2 {
        let shown = sandbox(&cluster, server, "GET", &runs).await;
        shown.error_code(404, "sandbox_lost");
    }
}
