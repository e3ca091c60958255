//! Members and strangers over real sockets.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use casemate_cluster::peers::connect_to_join;
use casemate_cluster::{
    Accepted, Arrivals, At, Authority, ControlServers, Identity, MemberKey, NodeConnector, Peers,
};
use casemate_rpc::Wire;
use casemate_rpc::control::{Admitted, Member, MemberRole};
use casemate_rpc::far::{Connect, Purpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn member(role: MemberRole, name: &str) -> Member {
    let name = name.to_owned();
    Member { role, name }
}

/// A member that was admitted at a moment.
fn admitted_at(authority: &Authority, member: Member, now: i64) -> Identity {
    let key = MemberKey::make().unwrap();
    let certificate = authority.admit(&member, &key.public(), now).unwrap();
    let admitted = Admitted {
        certificate,
        authorities: authority.certificate().to_owned(),
        lasts_seconds: 60,
        now_us: 0,
    };
    key.admitted(member, &admitted)
}

fn admitted(authority: &Authority, role: MemberRole, name: &str) -> Identity {
    admitted_at(authority, member(role, name), now())
}

fn peers(authority: &Authority, role: MemberRole, name: &str) -> Arc<Peers> {
    Arc::new(Peers::new(&admitted(authority, role, name)).unwrap())
}

/// Says of each connection that comes through who made it and what for, and then echoes.
async fn listen(
    peers: Arc<Peers>,
    at: At,
) -> (SocketAddr, mpsc::Receiver<(Option<Member>, Purpose)>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut arrivals = Arrivals::of(listener, peers, at).unwrap();
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(accepted) = arrivals.next().await {
            let Accepted {
                mut stream,
                member,
                purpose,
                ..
            } = accepted;
            sender.send((member, purpose)).await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read]).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    (address, receiver)
}

/// In TLS 1.3 a client hears only with the first answer that its certificate was refused.
async fn echoes(stream: std::io::Result<Box<dyn Wire>>) -> bool {
    let Ok(mut stream) = stream else {
        return false;
    };
    let mut buffer = [0; 5];
    let echo = async {
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        stream.read_exact(&mut buffer).await
    };
    let heard = tokio::time::timeout(Duration::from_secs(5), echo).await;
    heard.expect("an answer or an end").is_ok() && &buffer == b"hello"
}

fn to_node(peers: &Arc<Peers>, node: &str, address: SocketAddr) -> NodeConnector {
    NodeConnector {
        peers: Arc::clone(peers),
        node: node.to_owned(),
        address: address.to_string(),
    }
}

#[tokio::test]
async fn members_meet_by_name_and_say_what_for() {
    let authority = Authority::read(&Authority::make(now()).unwrap().record()).unwrap();
    let (address, mut came) = listen(peers(&authority, MemberRole::Node, "n1"), At::Node).await;
    let api = peers(&authority, MemberRole::Api, "a1");
    for purpose in [Purpose::Calls, Purpose::Dial, Purpose::Dial] {
        let connected = to_node(&api, "n1", address).connect(purpose).await;
        assert!(echoes(connected).await);
        let who = Some(member(MemberRole::Api, "a1"));
        assert_eq!(came.recv().await.unwrap(), (who, purpose));
    }
    // Whoever answers there is another node than the one that is meant.
    let other = to_node(&api, "n2", address).connect(Purpose::Calls).await;
    let refused = other.err().expect("it is another node").to_string();
    assert!(refused.contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn nobody_else_comes_through_to_a_node() {
    let (ours, foreign) = (
        Authority::make(now()).unwrap(),
        Authority::make(now()).unwrap(),
    );
    let (address, mut came) = listen(peers(&ours, MemberRole::Node, "n1"), At::Node).await;
    let stranger = peers(&foreign, MemberRole::Api, "a1");
    let connected = to_node(&stranger, "n1", address)
        .connect(Purpose::Calls)
        .await;
    assert!(
        !echoes(connected).await,
        "it trusts nobody of another cluster"
    );
    // One that trusts our authority, with a certificate of another one.
    let key = MemberKey::make().unwrap();
    let one = member(MemberRole::Api, "a1");
    let mixed = Admitted {
        certificate: foreign.admit(&one, &key.public(), now()).unwrap(),
        authorities: ours.certificate().to_owned(),
        lasts_seconds: 60,
        now_us: 0,
    };
    let mixed = Arc::new(Peers::new(&key.admitted(one, &mixed)).unwrap());
    let connected = to_node(&mixed, "n1", address).connect(Purpose::Calls).await;
    assert!(
        !echoes(connected).await,
        "its certificate is of another authority"
    );
    // One whose time is over, and one whose time has not come.
    for when in [now() - 2 * 24 * 3600, now() + 3600] {
        let identity = admitted_at(&ours, member(MemberRole::Api, "a1"), when);
        let peers = Arc::new(Peers::new(&identity).unwrap());
        let connected = to_node(&peers, "n1", address).connect(Purpose::Calls).await;
        assert!(!echoes(connected).await, "{when}");
    }
    // A clock that is some minutes off is no reason.
    let ahead = admitted_at(&ours, member(MemberRole::Api, "a1"), now() + 120);
    let ahead = Arc::new(Peers::new(&ahead).unwrap());
    assert!(echoes(to_node(&ahead, "n1", address).connect(Purpose::Calls).await).await);
    // Without any certificate, as one that joins; and with no TLS at all.
    let joining = connect_to_join(&address.to_string(), ours.fingerprint().unwrap()).await;
    assert!(!echoes(joining).await);
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(came.recv().await.unwrap().0.is_some());
    assert!(
        came.try_recv().is_err(),
        "one came through, who is a member"
    );
}

#[tokio::test]
async fn a_machine_that_joins_knows_the_cluster_by_its_fingerprint_alone() {
    let (ours, foreign) = (
        Authority::make(now()).unwrap(),
        Authority::make(now()).unwrap(),
    );
    let (address, mut came) = listen(peers(&ours, MemberRole::Api, "a1"), At::Control).await;
    let address = address.to_string();
    let connected = connect_to_join(&address, ours.fingerprint().unwrap()).await;
    assert!(echoes(connected).await);
    assert_eq!(came.recv().await.unwrap(), (None, Purpose::Calls));
    let refused = connect_to_join(&address, foreign.fingerprint().unwrap()).await;
    let why = refused.err().expect("another authority").to_string();
    assert!(
        why.contains("no API server of the cluster that the token is of"),
        "{why}"
    );
    // Where the REST API is there is no TLS.
    let rest = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rest_address = rest.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = rest.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let refused = connect_to_join(&rest_address, ours.fingerprint().unwrap()).await;
    let why = refused.err().expect("no TLS").to_string();
    assert!(
        why.contains("there is no TLS") && why.contains("8082"),
        "{why}"
    );
    answering.await.unwrap();
    // A node of the cluster is no API server.
    let (node, _) = listen(peers(&ours, MemberRole::Node, "n1"), At::Control).await;
    let refused = connect_to_join(&node.to_string(), ours.fingerprint().unwrap()).await;
    assert!(refused.is_err(), "another role");
    let edge = peers(&ours, MemberRole::Edge, "e1");
    assert!(edge.connect_to_control(&node.to_string()).await.is_err());
    assert!(echoes(edge.connect_to_control(&address).await).await);
    let who = Some(member(MemberRole::Edge, "e1"));
    assert_eq!(came.recv().await.unwrap().0, who);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_then_on() {
    let authority = Authority::make(now()).unwrap();
    let (address, _came) = listen(peers(&authority, MemberRole::Node, "n1"), At::Node).await;
    let old = admitted_at(
        &authority,
        member(MemberRole::Api, "a1"),
        now() - 2 * 24 * 3600,
    );
    let peers = Arc::new(Peers::new(&old).unwrap());
    let connect = || to_node(&peers, "n1", address);
    assert!(!echoes(connect().connect(Purpose::Calls).await).await);
    peers
        .renew(&admitted(&authority, MemberRole::Api, "a1"))
        .unwrap();
    assert!(echoes(connect().connect(Purpose::Calls).await).await);
}

#[test]
fn an_identity_is_kept_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.json");
    assert!(Identity::read(&path).unwrap().is_none());
    let authority = Authority::make(now()).unwrap();
    let identity = admitted(&authority, MemberRole::Node, "n1");
    std::fs::write(path.with_extension("new"), "left by a crash").unwrap();
    identity.write(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let read = Identity::read(&path).unwrap().unwrap();
    assert_eq!(read.member, member(MemberRole::Node, "n1"));
    assert!(Peers::new(&read).is_ok());
    let shown = format!("{read:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
    std::fs::write(&path, r#"{"version": 9}"#).unwrap();
    let refused = Identity::read(&path).unwrap_err().to_string();
    assert!(refused.contains("version 9"), "{refused}");
    std::fs::write(&path, "not JSON").unwrap();
    assert!(Identity::read(&path).is_err());
}

#[test]
fn only_names_and_keys_that_are_some_are_certified() {
    let authority = Authority::make(now()).unwrap();
    let key = MemberKey::make().unwrap().public();
    let admit =
        |name: &str, key: &str| authority.admit(&member(MemberRole::Node, name), key, now());
    assert!(admit("n1", &key).is_ok());
    for name in ["", "N1", "a.b", "*", "n1.api"] {
        assert!(admit(name, &key).is_err(), "{name}");
    }
    for bad in [
        "",
        "04",
        &key[2..],
        &format!("05{}", &key[2..]),
        &"zz".repeat(65),
    ] {
        assert!(admit("n1", bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn of_several_addresses_of_api_servers_any_will_do() {
    use casemate_rpc::control::{
        self, ControlError, ControlPort, JoinRequest, Knock, NodeAddress, RenewRequest,
    };
    use casemate_types::SandboxId;

    struct Named(&'static str);

    #[async_trait::async_trait]
    impl ControlPort for Named {
        async fn join(&self, _: JoinRequest) -> Result<Admitted, ControlError> {
            Err(ControlError::Unreachable)
        }
        async fn renew(&self, _: &Member, _: RenewRequest) -> Result<Admitted, ControlError> {
            Err(ControlError::Unreachable)
        }
        async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
            Ok(vec![NodeAddress {
                node: self.0.into(),
                address: String::new(),
            }])
        }
        async fn wake(&self, _: &SandboxId, _: Knock) -> Result<(), ControlError> {
            Ok(())
        }

        async fn home(&self, _: &SandboxId) -> Result<Option<String>, ControlError> {
            Ok(Some("n1".into()))
        }
    }

    async fn api(authority: &Authority, name: &'static str) -> (String, tokio::task::AbortHandle) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peers = peers(authority, MemberRole::Api, name);
        let serving = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let accepted = peers.accept_at_control(stream).await.unwrap();
                all.spawn(control::serve(
                    accepted.stream,
                    accepted.member,
                    Arc::new(Named(name)),
                ));
            }
        });
        (address, serving.abort_handle())
    }

    let authority = Authority::make(now()).unwrap();
    let ((first, one), (second, two)) = (api(&authority, "a1").await, api(&authority, "a2").await);
    let nobody = "127.0.0.1:1".to_owned();
    let peers = peers(&authority, MemberRole::Edge, "e1");
    let servers = ControlServers::new(peers, vec![nobody, first, second]);
    let asked = async || {
        servers
            .client()
            .await?
            .nodes()
            .await
            .map_err(std::io::Error::other)
    };
    let name = |nodes: Vec<NodeAddress>| nodes[0].node.clone();
    assert_eq!(name(asked().await.unwrap()), "a1");
    one.abort();
    // The connection's end is seen a moment later.
    let client = servers.client().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), client.closed())
        .await
        .unwrap();
    assert_eq!(name(asked().await.unwrap()), "a2");
    two.abort();
    let client = servers.client().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), client.closed())
        .await
        .unwrap();
    assert!(asked().await.is_err());
}
