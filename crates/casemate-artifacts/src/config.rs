//! How a bucket is reached. Read from settings by the caller: nothing here reads the environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::place::Place;

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A bucket and how to speak with it. It is dialled directly: proxies that the environment names are
/// not used.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    pub place: Place,
    /// Where the cloud's API is, for emulators and private clouds: `https://HOST[:PORT][/PATH]`. On
    /// Azure with the account, if that is in the path. Default: the cloud's own.
    pub endpoint: Option<String>,
    /// S3's region. Default: the environment's, else `us-east-1`.
    pub region: Option<String>,
    /// S3: the bucket is named in the host (`true`) or in the path (`false`, default), which every
    /// server knows.
    pub bucket_in_host: bool,
    pub credentials: BucketCredentials,
    /// Sends requests, and credentials with them, without TLS where the endpoint says `http`.
    pub plain_http: bool,
    /// Authorities beside the system's, as PEM.
    pub authorities_pem: Vec<u8>,
    /// S3 only; other clouds encrypt always.
    pub encryption: Encryption,
    pub patience: Patience,
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum BucketCredentials {
    /// As the cloud's own tools do: keys or files named in these variables, the identity of a
    /// workload, or of the instance by its metadata service.
    Environment(Environment),
    S3 {
        access_key_id: String,
        secret_access_key: Secret,
        session_token: Option<Secret>,
    },
    /// The JSON of a service account's key.
    GcsServiceAccount(Secret),
    /// The account's key, in base64.
    AzureKey(Secret),
    /// Nobody: emulators, and buckets that are open to a network.
    Anonymous,
}

/// Variables of a process's environment that clouds define (`AWS_…`, `GOOGLE_…`, `AZURE_…` and a few
/// more); others are not kept.
#[derive(Clone, Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Whether a variable is one that clouds define.
    pub fn is_ours(name: &str) -> bool {
        let prefixes = ["AWS_", "GOOGLE_", "AZURE_"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == "IDENTITY_ENDPOINT"
    }

    /// Keeps of these what is meant for us.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter();
        Self(variables.filter(|(name, _)| Self::is_ours(name)).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// What S3 is asked to encrypt with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// S3's own keys (`AES256`).
    #[default]
    Aes256,
    /// A key of the key management service, by its id.
    Kms(String),
    /// As the bucket does by itself; for servers that know no such header.
    BucketDefault,
}

/// How long is waited, and how often tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, with TLS. Default 5 s.
    pub connect: Duration,
    /// For one request with its answer, which has at most 8 MiB; a manifest's has longer by its
    /// size. Too low, and slow lines never end a piece. Default 60 s.
    pub request: Duration,
    /// How often one operation is tried in all. Default 6.
    pub tries: u32,
    /// For all tries of one operation, with the waits between: after that no new one begins.
    /// Default 90 s.
    pub total: Duration,
    /// Before the second try; doubled before each further one, a random part of it taken off.
    /// Default 200 ms.
    pub wait_first: Duration,
    /// Longest wait, also where the bucket asks for a longer one (`Retry-After`). Default 15 s.
    pub wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(60),
            tries: 6,
            total: Duration::from_secs(90),
            wait_first: Duration::from_millis(200),
            wait_max: Duration::from_secs(15),
        }
    }
}

impl BucketConfig {
    /// A bucket as its cloud has it, with these credentials and the defaults of all else.
    pub fn new(place: Place, credentials: BucketCredentials) -> Self {
        Self {
            place,
            endpoint: None,
            region: None,
            bucket_in_host: false,
            credentials,
            plain_http: false,
            authorities_pem: Vec::new(),
            encryption: Encryption::default(),
            patience: Patience::default(),
        }
    }
}

/// What a process takes of its machine for artifacts.
#[derive(Debug, Clone)]
pub struct ArtifactsConfig {
    /// Pieces that are on their way at once, all puts and gets together; each takes up to 8 MiB of
    /// memory. Default 12.
    pub pieces_at_once: usize,
    /// How many pieces a reader has fetched or asked for before they are read. Default 6.
    pub ahead: usize,
    pub cache: Option<CacheConfig>,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        Self {
            pieces_at_once: 12,
            ahead: 6,
            cache: None,
        }
    }
}

/// A folder for pieces that were read.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Made if missing. One process may own it.
    pub folder: PathBuf,
    /// Bytes of all pieces in it; what was used least lately goes beyond that. Too low, and every
    /// create reads from the bucket.
    pub bytes_max: u64,
}
