//! A PostgreSQL server of the tests' own, with a database for each test.
//!
//! It runs in a folder that disappears, on a free port of 127.0.0.1, with a password. A shell owns
//! it: the shell ends with the tests' process, however that ends, and takes the server and the folder
//! with it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::postgres::{Password, PostgresOptions, connect_alone};

/// Of the user `postgres`.
pub const PASSWORD: &str = "p@ss:word/of tests";

/// How long a server may take to start. Machines of CI are slow at times.
const START_WAIT: Duration = Duration::from_secs(60);

/// Where Debian has it.
const BIN: &str = "/usr/lib/postgresql";

/// Names the folder of another version's programs.
const OTHER_BIN: &str = "CASEMATE_TEST_POSTGRES_BIN";

/// The first version that can be told to sort by the Unicode library, so that its order is not the
/// machine's.
const SORTS_BY_ICU: u32 = 15;

/// Reads an order from each line: `start`, `kill` (its postmaster, without a word), `stop` (no one
/// of its processes runs on), `cont`. Told nothing more, it ends all of them. Arguments: the folder
/// and the programs' one.
const OWNER: &str = r#"
set -u
dir=$1 bin=$2
each() { for one in $pid $(pgrep -P "$pid" 2>/dev/null); do kill "$1" "$one" 2>/dev/null; done; }
pid=
while read -r word; do
  case $word in
  start) "$bin/postgres" -D "$dir/data" >>"$dir/log" 2>&1 </dev/null & pid=$! ;;
  kill)
    # The next one does not start before the last of these is gone. Stopped, it starts no more.
    kill -STOP "$pid"
    rest=$(pgrep -P "$pid")
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    for one in $rest; do while kill -0 "$one" 2>/dev/null; do sleep 0.01; done; done ;;
  stop) each -STOP ;;
  cont) each -CONT ;;
  esac
  echo "$word"
done
if [ -n "$pid" ]; then each -CONT; kill -INT "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; fi
rm -rf "$dir"
"#;

/// What the server does beside answering.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Whether it writes to the disk before it acknowledges: slow, and needed where it is killed.
    pub synced: bool,
    /// Certificate and key (PEM): it speaks TLS.
    pub tls: Option<(String, String)>,
}

/// See the module.
pub struct Postgres {
    port: u16,
    /// Only one makes databases: their template must have no other user meanwhile.
    making: tokio::sync::Mutex<()>,
    made: AtomicU64,
    owner: Mutex<Owner>,
}

struct Owner {
    shell: Child,
    /// Kept by the shell, which removes it; named here for the log.
    dir: PathBuf,
}

impl Postgres {
    /// The one server of this process, or `None` with a word about it where
    /// `CASEMATE_TEST_POSTGRES` is not 1.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| is_enabled().then(|| Self::start(&Setup::default())));
        shared.as_ref()
    }

    /// A server apart from others.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(setup: &Setup) -> Self {
        let server = Self::prepare(setup).expect("prepare a PostgreSQL server");
        server.order("start");
        server.await_ready();
        server
    }

    fn prepare(setup: &Setup) -> io::Result<Self> {
        let bin = programs()?;
        let dir = TempDir::with_prefix("casemate-postgres-")?.keep();
        let user = unprivileged()?;
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid))?;
        }
        let as_user = |program: &Path| {
            let Some((uid, gid)) = user else {
                return Command::new(program);
            };
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
            command.args(["--clear-groups", "--"]).arg(program);
            command
        };
        let data = dir.join("data");
        let secret = dir.join("password");
        std::fs::write(&secret, PASSWORD)?;
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644))?;
        // An order of words that is not the bytes': statements must not depend on it.
        let order_of_words: &[&str] = match version(&bin)? {
            SORTS_BY_ICU.. => &["--locale-provider=icu", "--icu-locale=en"],
            _ => &[],
        };
        let made = as_user(&bin.join("initdb"))
            .args(["--no-sync", "-E", "UTF8", "--locale=C.UTF-8"])
            .args(order_of_words)
            .args(["-U", "postgres", "--auth=scram-sha-256"])
            .arg("--pwfile")
            .arg(&secret)
            .arg("-D")
            .arg(&data)
            .output()?;
        if !made.status.success() {
            let words = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(io::Error::other(format!("initdb: {words}")));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut settings = settings(port, setup.synced);
        if let Some((certificate, key)) = &setup.tls {
            for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
                let path = data.join(name);
                std::fs::write(&path, pem)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
                if let Some((uid, gid)) = user {
                    chown(&path, Some(uid), Some(gid))?;
                }
            }
            settings.push_str("ssl = on\n");
        }
        let path = data.join("postgresql.conf");
        let defaults = std::fs::read_to_string(&path)?;
        std::fs::write(&path, defaults + &settings)?;
        let shell = as_user(Path::new("/bin/sh"))
            .args(["-c", OWNER, "owner"])
            .arg(&dir)
            .arg(&bin)
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            port,
            making: tokio::sync::Mutex::new(()),
            made: AtomicU64::new(0),
            owner: Mutex::new(Owner { shell, dir }),
        })
    }

    /// As `kill -9` leaves it.
    pub fn kill(&self) {
        self.order("kill");
    }

    /// Starts one that was killed.
    pub fn restart(&self) {
        self.order("start");
        self.await_ready();
    }

    /// Lets none of its processes run on, as a machine that hangs.
    pub fn stop(&self) {
        self.order("stop");
    }

    /// … and all again.
    pub fn cont(&self) {
        self.order("cont");
    }

    /// Of a database of it, as the user `postgres`.
    pub fn options(&self, database: &str) -> PostgresOptions {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let options = PostgresOptions::parse(&url).expect("an address of ours");
        options.with_password(Some(Password::new(PASSWORD.into())))
    }

    /// A new database, empty or as `template` is, which nobody may be connected to.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self, template: Option<&str>) -> PostgresOptions {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.create(&name, template).await;
        self.options(&name)
    }

    /// A database of this name, made by whoever asks first: `fill` gets it, and leaves it. For a
    /// template.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn template<E: std::fmt::Debug>(
        &self,
        name: &str,
        fill: impl AsyncFnOnce(PostgresOptions) -> Result<(), E>,
    ) {
        let _alone = self.making.lock().await;
        let mut admin = self.admin().await;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut admin)
            .await
            .expect("look for a database");
        if found.is_none() {
            create(&mut admin, name, None).await;
            fill(self.options(name)).await.expect("fill the template");
        }
        admin.close().await.expect("close a connection");
    }

    async fn create(&self, name: &str, template: Option<&str>) {
        let _alone = self.making.lock().await;
        let mut admin = self.admin().await;
        create(&mut admin, name, template).await;
        admin.close().await.expect("close a connection");
    }

    async fn admin(&self) -> PgConnection {
        connect_alone(&self.options("postgres"))
            .await
            .expect("connect to the tests' server")
    }

    fn order(&self, word: &str) {
        let mut owner = self.owner.lock().expect("no order panics");
        owner
            .order(word)
            .expect("give an order to the tests' server");
    }

    fn await_ready(&self) {
        let until = Instant::now() + START_WAIT;
        // Of any version, and not every package has it.
        let bin = debians().expect("PostgreSQL's programs");
        loop {
            let ready = Command::new(bin.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .expect("ask a server whether it is ready");
            if ready.success() {
                return;
            }
            if Instant::now() > until {
                let owner = self.owner.lock().expect("no order panics");
                let log = std::fs::read_to_string(owner.dir.join("log"));
                panic!("PostgreSQL did not start: {log:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Owner {
    fn order(&mut self, word: &str) -> io::Result<()> {
        let missing = || io::Error::other("no pipe to the owner");
        let orders = self.shell.stdin.as_mut().ok_or_else(missing)?;
        writeln!(orders, "{word}")?;
        // It says each word again when it was carried out.
        let answers = self.shell.stdout.as_mut().ok_or_else(missing)?;
        let mut answer = vec![0; word.len() + 1];
        io::Read::read_exact(answers, &mut answer)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Whether tests that need a server run.
pub fn is_enabled() -> bool {
    let is_set = std::env::var_os("CASEMATE_TEST_POSTGRES").is_some_and(|value| value == "1");
    if !is_set {
        println!("skipped: set CASEMATE_TEST_POSTGRES=1 to run these tests against PostgreSQL");
    }
    is_set
}

async fn create(admin: &mut PgConnection, name: &str, template: Option<&str>) {
    let template = template.unwrap_or("template1");
    let sql = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\"");
    admin
        .execute(AssertSqlSafe(sql))
        .await
        .expect("make a database");
}

fn settings(port: u16, synced: bool) -> String {
    let mut settings = String::new();
    let switch = if synced { "on" } else { "off" };
    write!(
        settings,
        "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
         max_connections = 200\nshared_buffers = 32MB\nfsync = {switch}\nsynchronous_commit = off\n\
         full_page_writes = {switch}\nautovacuum = off\n"
    )
    .expect("a text takes all");
    settings
}

/// The folder of the newest version's programs.
fn programs() -> io::Result<PathBuf> {
    match std::env::var_os(OTHER_BIN) {
        Some(other) => Ok(other.into()),
        None => debians(),
    }
}

/// The newest that is installed.
fn debians() -> io::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(BIN)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let newest = found
        .pop()
        .ok_or_else(|| io::Error::other("no PostgreSQL"))?;
    Ok(newest.1)
}

/// The major one.
fn version(bin: &Path) -> io::Result<u32> {
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.split(|one: char| !one.is_ascii_digit());
    let number = number.filter(|digits| !digits.is_empty()).map(str::parse);
    match number.into_iter().next() {
        Some(Ok(major)) => Ok(major),
        _ => Err(io::Error::other(format!("which version is {said:?}"))),
    }
}

/// Whom it runs as when we are root, which it refuses: user and group.
fn unprivileged() -> io::Result<Option<(u32, u32)>> {
    let id = |args: &[&str]| -> io::Result<u32> {
        let output = Command::new("id").args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(io::Error::other)
    };
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    Ok(Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?)))
}
