use std::path::Path;

use async_trait::async_trait;
use casemate_control::RootSecret;
use casemate_control::members::MembersRole;
use casemate_rpc::control::{
    Admitted, ControlError, JoinRequest, Knock, NodeAddress, RenewRequest,
};
use casemate_store::{Leases, Nodes, SqliteStore};
use casemate_types::SandboxId;

use super::*;
use crate::config::{self, ClusterFlags, Config, Flags, Role, Secret};
use crate::data_dir::DataDir;
use crate::member::{NotEntered, Place, Wanted};

/// What of an API server members ask for.
struct Served(Arc<Members>);

#[async_trait]
impl ControlPort for Served {
    async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        self.0.join(request).await
    }

    async fn renew(
        &self,
        caller: &Member,
        request: RenewRequest,
    ) -> Result<Admitted, ControlError> {
        self.0.renew(caller, request).await
    }

    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        Ok(Vec::new())
    }

    async fn wake(&self, _: &SandboxId, _: Knock) -> Result<(), ControlError> {
        Ok(())
    }

    async fn home(&self, _: &SandboxId) -> Result<Option<String>, ControlError> {
        Ok(Some("n1".into()))
    }
}

struct World {
    dir: tempfile::TempDir,
    store: Arc<SqliteStore>,
    members: Arc<Members>,
    api: String,
    ending: CancellationToken,
}

impl World {
    async fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.sqlite")).await;
        let store = Arc::new(store.unwrap());
        let secret = RootSecret::new(vec![1; 32]).unwrap();
        let members = Members::open(Arc::clone(&store) as _, &secret).await;
        let members = Arc::new(members.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = listener.local_addr().unwrap().to_string();
        let ending = CancellationToken::new();
        let calls = Arc::new(Served(Arc::clone(&members)));
        let peers = peers(&members, "a1").unwrap();
        tokio::spawn(serve(listener, peers, calls, ending.clone()));
        Self {
            dir,
            store,
            members,
            api,
            ending,
        }
    }

    async fn token(&self, role: MembersRole) -> Option<Secret> {
        let made = self.members.token_make(role, Duration::from_secs(60), 1);
        Some(Secret::new(made.await.unwrap().to_string()))
    }

    /// As a process of the role reads it in its data directory.
    fn wanted(&self, role: Role, cluster: ClusterFlags) -> anyhow::Result<Wanted> {
        wanted(&self.dir.path().join("machine"), role, cluster)
    }
}

fn settings(dir: &Path, role: Role, cluster: ClusterFlags) -> Config {
    let flags = Flags {
        data_dir: Some(dir.to_owned()),
        role,
        cluster,
        ..Flags::default()
    };
    config::load(&flags).unwrap().config
}

fn wanted(dir: &Path, role: Role, cluster: ClusterFlags) -> anyhow::Result<Wanted> {
    let config = settings(dir, role, cluster);
    let dir = DataDir::open(&config.data_dir)?;
    Wanted::of(&config, &Place::of(&dir))
}

fn flags(api: &str, token: Option<Secret>) -> ClusterFlags {
    ClusterFlags {
        api: vec!["127.0.0.1:1".into(), api.to_owned()],
        address: Some("10.0.0.2:8082".into()),
        labels: vec!["disk=nvme".into()],
        join_token: token,
        ..ClusterFlags::default()
    }
}

#[tokio::test]
async fn a_node_joins_once_and_goes_on_with_what_it_joined_with() {
    let world = World::begin().await;
    let token = world.token(MembersRole::Node).await;
    let first = world.wanted(Role::Node, flags(&world.api, token)).unwrap();
    let name = first.name().to_owned();
    let (_, origin) = first.enter().await.unwrap();
    assert!(origin.is_some());
    // The server's time, by its own word after the certificate's: both are this machine's here.
    let apart = origin.unwrap() - casemate_types::steady::origin();
    assert!(apart.abs() < 5_000_000, "{apart}");
    let kept = world.store.node_by_id(&name).await.unwrap().unwrap();
    assert_eq!(kept.address, "10.0.0.2:8082");

    // The next start says nothing, and has no token.
    let next = world.wanted(Role::Node, ClusterFlags::default()).unwrap();
    assert_eq!(next.name(), name);
    let (membership, origin) = next.enter().await.unwrap();
    assert!(origin.is_some());
    let client = membership.servers.client().await.unwrap();
    assert!(client.time_us().await.is_ok());
    assert!(client.time_us().await.unwrap() > 0);
    let labels = world.store.node_by_id(&name).await.unwrap().unwrap().labels;
    assert_eq!(labels["disk"], "nvme");

    // It is one node for good, and no edge.
    let renamed = ClusterFlags {
        name: Some("another".into()),
        ..ClusterFlags::default()
    };
    let refused = world.wanted(Role::Node, renamed).unwrap_err().to_string();
    assert!(refused.contains("cannot change"), "{refused}");
    assert!(world.wanted(Role::Edge, ClusterFlags::default()).is_err());
}

#[tokio::test]
async fn without_an_api_server_a_member_goes_on_and_others_wait() {
    let world = World::begin().await;
    let token = world.token(MembersRole::Edge).await;
    let of_edge = |token| ClusterFlags {
        address: None,
        labels: Vec::new(),
        ..flags(&world.api, token)
    };
    let joins = world.wanted(Role::Edge, of_edge(token)).unwrap();
    joins.enter().await.unwrap();
    let token = world.token(MembersRole::Node).await;
    world.ending.cancel();
    let edge = world.wanted(Role::Edge, ClusterFlags::default()).unwrap();
    let (_, origin) = edge.enter().await.unwrap();
    assert_eq!(origin, None, "nobody answers");
    let late = wanted(
        &world.dir.path().join("late"),
        Role::Node,
        flags(&world.api, token),
    );
    let late = late.unwrap().enter().await.err();
    assert!(matches!(late, Some(NotEntered::Now(_))), "{late:?}");
}

#[tokio::test]
async fn who_was_removed_or_has_no_token_is_told_so() {
    let world = World::begin().await;
    let none = world.wanted(Role::Node, flags(&world.api, None)).unwrap();
    let refused = none.enter().await.err();
    assert!(
        matches!(&refused, Some(NotEntered::ForGood(why)) if why.to_string().contains("join token"))
    );
    let token = world.token(MembersRole::Node).await;
    let joins = world
        .wanted(Role::Node, flags(&world.api, token.clone()))
        .unwrap();
    let name = joins.name().to_owned();
    joins.enter().await.unwrap();
    assert!(world.members.node_remove(&name).await.unwrap());
    // The token is used up.
    let again = world.wanted(Role::Node, flags(&world.api, token)).unwrap();
    assert!(matches!(
        again.enter().await.err(),
        Some(NotEntered::ForGood(_))
    ));
    // With another one it is the same node again.
    let token = world.token(MembersRole::Node).await;
    let again = world.wanted(Role::Node, flags(&world.api, token)).unwrap();
    let (membership, _) = again.enter().await.unwrap();
    assert!(world.store.node_by_id(&name).await.unwrap().is_some());
    assert!(membership.renew().await.is_ok());
}

#[tokio::test]
async fn nobody_takes_the_place_of_a_node_that_is_there() {
    let world = World::begin().await;
    let token = world.token(MembersRole::Node).await;
    let first = world.wanted(Role::Node, flags(&world.api, token)).unwrap();
    let name = first.name().to_owned();
    first.enter().await.unwrap();
    let lease = format!("node/{name}");
    let lasts = Duration::from_secs(600);
    world.store.lease_take(&lease, "a1", lasts).await.unwrap();

    let token = world.token(MembersRole::Node).await;
    let comes = |name: Option<&str>, address: &str| {
        let flags = ClusterFlags {
            name: name.map(str::to_owned),
            address: Some(address.into()),
            ..flags(&world.api, token.clone())
        };
        wanted(&world.dir.path().join("another"), Role::Node, flags).unwrap()
    };
    for (called, address, why) in [
        (Some(name.as_str()), "10.0.0.3:8082", "choose another name"),
        (None, "10.0.0.2:8082", "is reached at 10.0.0.2:8082"),
    ] {
        let refused = comes(called, address).enter().await.err();
        let said = matches!(&refused, Some(NotEntered::ForGood(error))
            if format!("{error:#}").contains(why));
        assert!(said, "{refused:?}");
    }
    let kept = world.store.node_by_id(&name).await.unwrap().unwrap();
    assert_eq!(kept.address, "10.0.0.2:8082");
    // Once no server speaks with it a machine with a token is that node; the token was not used.
    assert!(world.store.lease_give(&lease, "a1").await.unwrap());
    let again = comes(Some(&name), "10.0.0.3:8082").enter().await;
    assert!(again.is_ok());
    let kept = world.store.node_by_id(&name).await.unwrap().unwrap();
    assert_eq!(kept.address, "10.0.0.3:8082");
}

#[tokio::test]
async fn strangers_lose_their_places_to_those_that_come() {
    let world = World::begin().await;
    let token = world.token(MembersRole::Edge).await.unwrap();
    let parsed: casemate_cluster::JoinToken = token.expose().parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..STRANGERS_MAX / 2 + 8 {
        let stream = casemate_cluster::peers::connect_to_join(&world.api, parsed.fingerprint());
        let stream = stream.await.unwrap();
        idle.push(control::ControlClient::connect(stream).await.unwrap());
    }
    let closed = idle[0].closed();
    let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
    assert!(closed.is_ok(), "the first of them had to go");
    assert!(!idle.last().unwrap().is_closed());
    // A machine at the same address joins all the same, and a member comes through.
    let wanted = world.wanted(Role::Edge, flags(&world.api, Some(token)));
    assert!(wanted.unwrap().enter().await.is_ok());
    let servers = a_member_of(&world, "a2");
    assert!(servers.client().await.unwrap().nodes().await.is_ok());
}

fn a_member_of(world: &World, name: &str) -> casemate_cluster::ControlServers {
    let member = Arc::new(Peers::new(&identity(&world.members, name).unwrap()).unwrap());
    casemate_cluster::ControlServers::new(member, vec![world.api.clone()])
}

#[tokio::test]
async fn one_member_has_so_many_connections_and_others_have_theirs() {
    let world = World::begin().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_OF_ONE_MAX {
        held.push(a_member_of(&world, "a2").client().await.unwrap());
    }
    assert!(a_member_of(&world, "a2").client().await.is_err());
    assert!(a_member_of(&world, "a3").client().await.is_ok());
    drop(held);
    // Their ends are seen a moment later.
    let again = async {
        while a_member_of(&world, "a2").client().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(60), again).await;
    assert!(again.is_ok(), "its share comes back");
}
