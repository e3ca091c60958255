use std::collections::BTreeMap;
use std::time::Duration;

use casemate_cluster::{JoinToken, MemberKey, Peers};
use casemate_rpc::control::{
    ControlError, JoinRequest, Member, MemberRole, NodePlace, RenewRequest,
};
use casemate_store::testing::TempStore;
use casemate_store::{NodeStanding, Nodes, Settings};

use super::{Members, MembersError, TokenError};
use crate::keys::RootSecret;

const HOUR: Duration = Duration::from_secs(3600);

async fn open(store: &TempStore, byte: u8) -> Result<Members, MembersError> {
    let secret = RootSecret::new(vec![byte; 32]).unwrap();
    Members::open(store.share(), &secret).await
}

fn member(role: MemberRole, name: &str) -> Member {
    Member {
        role,
        name: name.into(),
    }
}

fn place(address: &str) -> NodePlace {
    NodePlace {
        address: address.into(),
        labels: BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]),
        isolation: "namespaces".into(),
    }
}

fn request(token: &JoinToken, role: MemberRole, name: &str) -> JoinRequest {
    JoinRequest {
        token_id: token.id(),
        token_secret: token.secret(),
        member: member(role, name),
        public_key: MemberKey::make().unwrap().public(),
        node: (role == MemberRole::Node).then(|| place("10.0.0.1:8082")),
    }
}

fn renewal(node: Option<NodePlace>) -> RenewRequest {
    RenewRequest {
        public_key: MemberKey::make().unwrap().public(),
        node,
    }
}

#[track_caller]
fn check_not_admitted<T: std::fmt::Debug>(refused: Result<T, ControlError>) {
    let refused = refused.expect_err("nobody is admitted");
    assert!(
        matches!(refused, ControlError::NotAdmitted { .. }),
        "{refused}"
    );
}

#[track_caller]
fn check_invalid<T: std::fmt::Debug>(refused: Result<T, ControlError>) {
    let refused = refused.expect_err("the request is wrong");
    assert!(matches!(refused, ControlError::Invalid { .. }), "{refused}");
}

#[tokio::test]
async fn servers_that_start_at_once_share_one_authority_and_another_secret_is_refused() {
    let store = TempStore::open().await;
    let (one, other) = tokio::join!(open(&store, 1), open(&store, 1));
    let (one, other) = (one.unwrap(), other.unwrap());
    let fingerprint = |members: &Members| members.authority.fingerprint().unwrap();
    assert_eq!(fingerprint(&one), fingerprint(&other));
    let refused = open(&store, 2).await.err().expect("it has another secret");
    assert!(matches!(refused, MembersError::OtherSecret), "{refused}");
    // The record's key is not to be read in the database.
    let kept = store.setting_by_name("cluster.authority").await.unwrap();
    let kept = hex::decode(kept.unwrap()).unwrap();
    let shown = String::from_utf8_lossy(&kept).into_owned();
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[tokio::test]
async fn a_token_admits_as_often_as_it_may_and_as_what_it_is_for() {
    let store = TempStore::open().await;
    let members = open(&store, 1).await.unwrap();
    let token = members.token_make(MemberRole::Node, HOUR, 1).await.unwrap();
    // What is wrong costs no use of it.
    check_not_admitted(members.join(request(&token, MemberRole::Api, "a1")).await);
    check_invalid(members.join(request(&token, MemberRole::Node, "N1")).await);
    let nowhere = JoinRequest {
        node: None,
        ..request(&token, MemberRole::Node, "n1")
    };
    check_invalid(members.join(nowhere).await);
    let keyless = JoinRequest {
        public_key: "00".into(),
        ..request(&token, MemberRole::Node, "n1")
    };
    check_invalid(members.join(keyless).await);
    for address in ["", "host", "host:port", "host:99999"] {
        let wrong = JoinRequest {
            node: Some(place(address)),
            ..request(&token, MemberRole::Node, "n1")
        };
        check_invalid(members.join(wrong).await);
    }
    let guessed = JoinRequest {
        token_secret: "00".repeat(32),
        ..request(&token, MemberRole::Node, "n1")
    };
    check_not_admitted(members.join(guessed).await);
    assert!(store.node_list().await.unwrap().is_empty());

    let key = MemberKey::make().unwrap();
    let good = JoinRequest {
        public_key: key.public(),
        ..request(&token, MemberRole::Node, "n1")
    };
    let admitted = members.join(good).await.unwrap();
    let identity = key.admitted(member(MemberRole::Node, "n1"), &admitted);
    Peers::new(&identity).unwrap();
    let nodes = store.node_list().await.unwrap();
    assert_eq!((&*nodes[0].id, &*nodes[0].address), ("n1", "10.0.0.1:8082"));
    check_not_admitted(members.join(request(&token, MemberRole::Node, "n2")).await);
    let edges = members.token_make(MemberRole::Edge, HOUR, 1).await.unwrap();
    check_not_admitted(members.join(request(&edges, MemberRole::Node, "n2")).await);
    members
        .join(request(&edges, MemberRole::Edge, "e1"))
        .await
        .unwrap();
    assert_eq!(store.node_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_have_bounds() {
    let store = TempStore::open().await;
    let members = open(&store, 1).await.unwrap();
    let make = |role, lasts, uses| members.token_make(role, lasts, uses);
    let refused = make(MemberRole::Api, HOUR, 1).await.unwrap_err();
    assert!(matches!(refused, TokenError::Role));
    let refused = make(MemberRole::Node, Duration::ZERO, 1).await.unwrap_err();
    assert!(matches!(refused, TokenError::Lasts));
    let refused = make(MemberRole::Node, HOUR * 24 * 31, 1).await.unwrap_err();
    assert!(matches!(refused, TokenError::Lasts));
    let refused = make(MemberRole::Node, HOUR, 0).await.unwrap_err();
    assert!(matches!(refused, TokenError::Uses));
}

#[tokio::test]
async fn who_was_removed_gets_no_other_certificate() {
    let store = TempStore::open().await;
    let members = open(&store, 1).await.unwrap();
    let token = members.token_make(MemberRole::Node, HOUR, 2).await.unwrap();
    let node = member(MemberRole::Node, "n1");
    check_not_admitted(members.renew(&node, renewal(None)).await);
    members
        .join(request(&token, MemberRole::Node, "n1"))
        .await
        .unwrap();
    // It says where it is now; what an administrator said of it stays.
    assert!(
        members
            .node_set_standing("n1", NodeStanding::Cordoned)
            .await
            .unwrap()
    );
    let moved = renewal(Some(place("10.0.0.9:8082")));
    members.renew(&node, moved).await.unwrap();
    let kept = store.node_by_id("n1").await.unwrap().unwrap();
    assert_eq!(kept.address, "10.0.0.9:8082");
    assert_eq!(kept.standing, NodeStanding::Cordoned);
    // A renewal is in the name of the certificate, so it makes no other node.
    check_invalid(
        members
            .renew(&member(MemberRole::Edge, "n1"), renewal(Some(place("h:1"))))
            .await,
    );
    check_not_admitted(
        members
            .renew(&member(MemberRole::Edge, "n1"), renewal(None))
            .await,
    );
    check_not_admitted(
        members
            .renew(&member(MemberRole::Api, "n1"), renewal(None))
            .await,
    );
    assert!(members.node_remove("n1").await.unwrap());
    let back = renewal(Some(place("10.0.0.9:8082")));
    check_not_admitted(members.renew(&node, back).await);
    assert!(store.node_list().await.unwrap().is_empty());

    let token = members.token_make(MemberRole::Edge, HOUR, 1).await.unwrap();
    let edge = member(MemberRole::Edge, "e1");
    members
        .join(request(&token, MemberRole::Edge, "e1"))
        .await
        .unwrap();
    members.renew(&edge, renewal(None)).await.unwrap();
    assert!(members.edge_remove("e1").await.unwrap());
    assert!(!members.edge_remove("e1").await.unwrap());
    check_not_admitted(members.renew(&edge, renewal(None)).await);
}

#[tokio::test]
async fn labels_of_a_node_are_bounded() {
    let store = TempStore::open().await;
    let members = open(&store, 1).await.unwrap();
    let token = members.token_make(MemberRole::Node, HOUR, 1).await.unwrap();
    let labels = |count: usize, value: &str| {
        let named = (0..count).map(|n| (format!("l{n}"), value.to_owned()));
        let mut request = request(&token, MemberRole::Node, "n1");
        request.node.as_mut().unwrap().labels = named.collect();
        request
    };
    check_invalid(members.join(labels(65, "x")).await);
    check_invalid(members.join(labels(2, &"x".repeat(9000))).await);
    members.join(labels(64, "x")).await.unwrap();
}
