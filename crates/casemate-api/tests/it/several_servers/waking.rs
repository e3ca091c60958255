//! Traffic to a paused sandbox whose node is lost.

use casemate_control::sandboxes::ChangeError;
use casemate_control::sandboxes::wake::{Knock, WakeError};

use super::lost::{BASE, change, comes_back, create_at, lose, two_nodes};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_files_are_lost_for_now_is_woken_when_they_are_back() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let runs = create_at(&cluster, &second, BASE).await;
    let woken = r#"{"templateID":"base","timeout":300,"autoResume":{"enabled":true}}"#;
    let rests = create_at(&cluster, &second, woken).await;
    assert_eq!(change(&cluster, 0, &rests, "pause").await.status, 204);
    lose(&cluster, &second, &runs).await;
    for control in &cluster.controls {
        let refused = control.wake(&rests, Knock::default()).await;
        assert!(
            matches!(&refused, Err(WakeError::Unavailable(why))
                if matches!(**why, ChangeError::FilesLost { .. })),
            "{refused:?}"
        );
    }
    comes_back(&cluster, &second).await;
    cluster.controls[1]
        .wake(&rests, Knock::default())
        .await
        .unwrap();
}
