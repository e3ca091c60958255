//! Emulators, one process of each for all tests; they end when the test's process does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The account and key that Azurite is documented with.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
pub const BUCKET: &str = "artifacts";

/// moto, with a bucket; `None` where it is not installed, which is said.
pub fn moto() -> Option<SocketAddr> {
    static MOTO: OnceLock<Option<(SocketAddr, Child)>> = OnceLock::new();
    let started = MOTO.get_or_init(|| {
        let program = named("CASEMATE_TEST_MOTO")?;
        let port = free_port();
        let child = start(&[&program, "-H", "127.0.0.1", "-p", &port.to_string()]);
        let address = ready(port);
        let made = ask(address, &format!("PUT /{BUCKET} HTTP/1.1\r\n"));
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some((address, child))
    });
    started.as_ref().map(|(address, _)| *address)
}

/// A moto of its own, that speaks TLS.
pub struct TlsMoto {
    pub address: SocketAddr,
    cert: PathBuf,
    /// The emulator goes with its end of the pipe.
    _shell: Child,
}

pub fn moto_with_tls(cert: &Path, key: &Path) -> Option<TlsMoto> {
    let program = named("CASEMATE_TEST_MOTO")?;
    let port = free_port();
    let (cert_text, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let shell = start(&[
        &program,
        "-H",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-s",
        "-c",
        cert_text,
        "-k",
        key,
    ]);
    Some(TlsMoto {
        address: ready(port),
        cert: cert.to_owned(),
        _shell: shell,
    })
}

impl TlsMoto {
    /// By a stranger's client.
    pub fn make_bucket(&self) {
        let url = format!("https://{}/{BUCKET}", self.address);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--request", "PUT", "--cacert"]);
        assert!(curl.arg(&self.cert).arg(url).status().unwrap().success());
    }
}

/// Azurite, with a container; `None` where it is not installed, which is said.
pub fn azurite() -> Option<SocketAddr> {
    static AZURITE: OnceLock<Option<(SocketAddr, Child)>> = OnceLock::new();
    let started = AZURITE.get_or_init(|| {
        let program = named("CASEMATE_TEST_AZURITE")?;
        let port = free_port().to_string();
        let child = start(&[
            &program,
            "--inMemoryPersistence",
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port,
        ]);
        let address = ready(port.parse().unwrap());
        let made = ask(address, &azure_container());
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
        Some((address, child))
    });
    started.as_ref().map(|(address, _)| *address)
}

fn named(variable: &str) -> Option<String> {
    let program = std::env::var(variable).ok();
    if program.is_none() {
        println!("skipped: {variable} names no emulator");
    }
    program
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// However this process ends, its end of the pipe closes, and the shell ends the emulator.
fn start(command: &[&str]) -> Child {
    let script = r#""$@" >/dev/null 2>&1 </dev/null & cat; kill $!"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args(command);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn ready(port: u16) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let until = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "the emulator did not become ready");
        std::thread::sleep(Duration::from_millis(100));
    }
    address
}

/// Sends a request without a body, of these lines, and reads the answer.
fn ask(address: SocketAddr, lines: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let host = "Host: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{lines}{host}").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Azurite makes a container for nobody without a signature.
fn azure_container() -> String {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let version = "2023-11-03";
    let headers = format!("x-ms-date:{date}\nx-ms-version:{version}");
    let path = format!("/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}");
    let signed = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}\n{path}\nrestype:container");
    let key = STANDARD.decode(AZURE_KEY).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    format!(
        "PUT /{AZURE_ACCOUNT}/{BUCKET}?restype=container HTTP/1.1\r\n\
         x-ms-date: {date}\r\nx-ms-version: {version}\r\n\
         Authorization: SharedKey {AZURE_ACCOUNT}:{signature}\r\n"
    )
}
