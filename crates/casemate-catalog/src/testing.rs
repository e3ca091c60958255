//! A Redis of a test's own: Debian's `redis-server` on a free port of loopback, with a password.
//!
//! It ends with the test's process, however that ends. Tests that need one skip themselves unless
//! `CASEMATE_TEST_REDIS` is set, as `scripts/test` does, which installs it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use casemate_types::SandboxId;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Password, RedisSettings};

/// How long a server may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(20);

/// How a Redis is started.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// TLS and nothing else, with a certificate for `localhost` of an authority of its own.
    pub tls: bool,
    /// What it holds is on the disk before it is acknowledged, and there again after
    /// [`Redis::restart`].
    pub durable: bool,
    /// More arguments.
    pub args: Vec<String>,
}

/// A server. Dropping it ends the server.
pub struct Redis {
    options: RedisOptions,
    port: u16,
    password: String,
    dir: TempDir,
    server: Option<Child>,
}

/// The server of all tests of a process that share one.
static SHARED: OnceLock<Redis> = OnceLock::new();

impl Redis {
    /// Whether tests with Redis are asked for; if not, says that the test skips.
    pub fn is_wanted() -> bool {
        let wanted = std::env::var_os("CASEMATE_TEST_REDIS").is_some();
        if !wanted {
            eprintln!("skipped: CASEMATE_TEST_REDIS is not set");
        }
        wanted
    }

    /// One for all tests of this process that do it no harm. Their [`settings`](Self::settings) keep
    /// them apart.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            let redis = Self::start(RedisOptions::default());
            // Nothing drops it, and it writes nothing.
            let _ = std::fs::remove_dir(redis.dir.path());
            redis
        })
    }

    /// One of the test's own. Blocks until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(options: RedisOptions) -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        if options.tls {
            write_certificates(dir.path());
        }
        let mut redis = Self {
            options,
            port: free_port(),
            password: SandboxId::random().to_string(),
            dir,
            server: None,
        };
        redis.restart();
        redis
    }

    /// Kills it, if it runs, and starts it on the same port. Blocks until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]);
        let port = self.port.to_string();
        let (plain, tls) = if self.options.tls {
            ("0", &*port)
        } else {
            (&*port, "0")
        };
        command.args(["--bind", "127.0.0.1", "--port", plain, "--tls-port", tls]);
        command.args(["--requirepass", &self.password, "--save", ""]);
        command.arg("--dir").arg(self.dir.path());
        if self.options.durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if self.options.tls {
            for (option, file) in [
                ("cert", "server.pem"),
                ("key", "server.key"),
                ("ca-cert", "ca.pem"),
            ] {
                command
                    .arg(format!("--tls-{option}-file"))
                    .arg(self.dir.path().join(file));
            }
            command.args(["--tls-auth-clients", "no"]);
        }
        command.args(&self.options.args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.server = Some(spawn(command));
        let begun = Instant::now();
        while self.try_cli(&["PING"]).as_deref() != Some("PONG") {
            assert!(begun.elapsed() < START_MAX, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may be gone already.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Lets it stand still (`STOP`) or go on (`CONT`).
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: &str) {
        let server = self.server.as_ref().expect("it runs");
        let sent = Command::new("kill")
            .args(["-s", signal, &server.id().to_string()])
            .status();
        assert!(sent.expect("send a signal").success(), "it runs");
    }

    /// What `redis-cli` answers to a command, without the line's end.
    ///
    /// # Panics
    /// When Redis cannot be reached.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).expect("redis-cli answers")
    }

    fn try_cli(&self, args: &[&str]) -> Option<String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.port.to_string(), "--no-auth-warning"]);
        cli.env("REDISCLI_AUTH", &self.password);
        if self.options.tls {
            cli.args(["-h", "localhost", "--tls", "--cacert"])
                .arg(self.ca());
        }
        let output = cli.args(args).output().expect("run redis-cli");
        let text = String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned();
        output.status.success().then_some(text)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// The authority of its certificate; there is one with TLS.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Where it is, without the password.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        format!("{scheme}://localhost:{}", self.port)
    }

    /// For a catalog that shares nothing with others of the same server.
    ///
    /// # Panics
    /// Never: they are checked here.
    pub fn settings(&self) -> RedisSettings {
        let settings = RedisSettings::new(&self.url(), Password::new(&self.password));
        let mut settings = settings.expect("the URL of loopback is one");
        settings.prefix = SandboxId::random().to_string();
        settings.ca_file = self.options.tls.then(|| self.ca());
        settings
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Started by a thread that lives as long as the process: a server dies with the thread that
/// started it, and each test has its own.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, taken) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                // Whoever asked may have given up.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    let order = spawner.send((command, answer));
    order.expect("the thread lives as long as the process");
    let child = child.recv().expect("it answers each order");
    child.expect("start redis-server; Debian's package of that name has it")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind to loopback");
    listener.local_addr().expect("it is bound").port()
}

fn write_certificates(dir: &Path) {
    let authority_key = KeyPair::generate().expect("make a key");
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).expect("sign oneself");
    let key = KeyPair::generate().expect("make a key");
    let mut server = CertificateParams::new(vec!["localhost".into()]).expect("that is a name");
    // Two of one name would be taken for one that signed itself.
    server.distinguished_name.push(DnType::CommonName, "server");
    let issuer = Issuer::new(authority, authority_key);
    let server = server.signed_by(&key, &issuer).expect("sign the server's");
    for (name, text) in [
        ("ca.pem", certificate.pem()),
        ("server.pem", server.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        std::fs::write(dir.join(name), text).expect("write to the temporary directory");
    }
}
