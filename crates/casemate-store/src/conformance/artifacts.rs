//! [`crate::Artifacts`].

use casemate_types::{LayerId, Portable, SnapshotId};

use super::builds::{a_known_team, a_request, finished, request};
use super::snapshots::{a_snapshot, files};
use super::*;
use crate::StoredArtifact;

fn stored(what: &Portable, team: &Team, artifact: &str) -> StoredArtifact {
    StoredArtifact {
        what: what.clone(),
        team: team.id.clone(),
        artifact: artifact.into(),
        bytes: 1 << 40,
    }
}

async fn is_unneeded(store: &dyn Store, what: &Portable) -> bool {
    let all = store.artifact_unneeded(u32::MAX).await.unwrap();
    all.iter().any(|one| one.what == *what)
}

pub async fn what_ready_builds_need_is_due_until_it_is_stored(store: &dyn Store) {
    let team = a_known_team(store).await;
    let (layer, nobodys) = (LayerId::random(), LayerId::random());
    let new = a_request(&team, "mine", &["default"], 10);
    let template = request(store, &new).await;
    let mut build = finished(&new, &template);
    build.layers = vec![layer.to_string(), "base".into()];
    store
        .build_begin(&new.build, "a-server", at(11, 0))
        .await
        .unwrap();
    let (what, other) = (Portable::Layer(layer), Portable::Layer(nobodys));
    let both = [what.clone(), other.clone()];
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    store.build_finish(&build, 1, at(12, 0)).await.unwrap();
    let due = store.artifact_due(&both).await.unwrap();
    assert_eq!(due, [(what.clone(), team.id.clone())]);

    let first = stored(&what, &team, "first");
    assert!(store.artifact_put(&first).await.unwrap());
    let second = stored(&what, &team, "second");
    assert!(!store.artifact_put(&second).await.unwrap());
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    assert_eq!(store.artifact_find(&both).await.unwrap(), [first]);
    assert_eq!(
        store.artifact_references(&team.id).await.unwrap(),
        ["first"]
    );

    let lost = stored(&other, &team, "lost");
    assert!(store.artifact_put(&lost).await.unwrap());
    assert!(!is_unneeded(store, &what).await);
    assert!(is_unneeded(store, &other).await);
    store.template_delete(&template).await.unwrap();
    assert!(is_unneeded(store, &what).await);
    for what in &both {
        store.artifact_forget(what).await.unwrap();
        store.artifact_forget(what).await.unwrap();
    }
    assert_eq!(store.artifact_find(&both).await.unwrap(), []);
    assert!(!is_unneeded(store, &what).await);
}

pub async fn files_of_snapshots_are_due_as_well(store: &dyn Store) {
    let team = a_known_team(store).await;
    let new = a_snapshot(&team, None, "default", 10);
    let what = Portable::Snapshot(files(&new));
    let nobodys = Portable::Snapshot(SnapshotId::random());
    let both = [what.clone(), nobodys];
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    store.snapshot_insert(&new).await.unwrap();
    let due = store.artifact_due(&both).await.unwrap();
    assert_eq!(due, [(what.clone(), team.id.clone())]);
    let one = stored(&what, &team, "files");
    assert!(store.artifact_put(&one).await.unwrap());
    assert!(!is_unneeded(store, &what).await);
    store.template_delete(&new.build.template).await.unwrap();
    assert!(is_unneeded(store, &what).await);
    store.artifact_forget(&what).await.unwrap();
}
