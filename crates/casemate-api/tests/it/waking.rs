//! Traffic to a paused sandbox whose node cannot let it go on now.

use casemate_control::sandboxes::ChangeError;
use casemate_control::sandboxes::wake::{Knock, WakeError};
use casemate_rpc::NodeError;
use casemate_types::SandboxId;

use crate::world::{World, until};

const WOKEN_BY_TRAFFIC: &str = r#","autoResume":{"enabled":true}"#;

async fn pause(world: &World, id: &SandboxId) {
    let path = format!("/sandboxes/{id}/pause");
    let paused = world.api("POST", &path).json("{}").send().await;
    assert_eq!(paused.status, 204, "{}", paused.text);
}

async fn is_paused(world: &World, id: &SandboxId) -> bool {
    let path = format!("/sandboxes/{id}");
    world.api("GET", &path).send().await.json()["state"] == "paused"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_woken_now_is_not_one_that_is_not_there() {
    let world = World::new().await;
    let id = world.create(WOKEN_BY_TRAFFIC).await;
    pause(&world, &id).await;

    world.node.fall_silent();
    let refused = world.control.wake(&id, Knock::default()).await;
    assert!(
        matches!(&refused, Err(WakeError::Unavailable(why))
            if matches!(**why, ChangeError::Node { source: NodeError::Unreachable, .. })),
        "{refused:?}"
    );
    world.node.reconnect();

    let full = NodeError::Full {
        what: "told to be".into(),
    };
    world.node.fail_creates(Some(full));
    let refused = world.control.wake(&id, Knock::default()).await;
    assert!(
        matches!(&refused, Err(WakeError::Unavailable(why))
            if matches!(**why, ChangeError::Placement(_))),
        "{refused:?}"
    );
    assert!(is_paused(&world, &id).await);

    world.node.fail_creates(None);
    until("it is woken", || async {
        world.control.wake(&id, Knock::default()).await.is_ok()
    })
    .await;
    assert!(!is_paused(&world, &id).await);
}
