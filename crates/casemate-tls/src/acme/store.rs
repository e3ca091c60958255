//! What ACME keeps between starts: the account, the certificate with its key, and which DNS records
//! are made and not removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use super::AcmeError;
use crate::pair::Pair;

/// Of the account's file and of the records'.
const VERSION: u32 = 1;

/// Where the certificate lies below an ACME folder, with its key, in one file: so both are replaced
/// at once.
pub fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("certificate.pem")
}

pub(super) struct Store {
    dir: PathBuf,
}

/// A TXT record that the operator's command was asked to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Serialize, Deserialize)]
struct Records {
    version: u32,
    records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Account {
    version: u32,
    /// Of the authority that knows it.
    directory: String,
    credentials: AccountCredentials,
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn pair(&self) -> Option<Pair> {
        let text = fs::read_to_string(certificate_path(&self.dir)).ok()?;
        // Each reader finds its part.
        Some(Pair {
            chain: text.clone(),
            key: text,
        })
    }

    pub(super) fn keep_pair(&self, pair: &Pair) -> Result<(), AcmeError> {
        let text = format!("{}\n{}", pair.chain.trim_end(), pair.key);
        self.write(&certificate_path(&self.dir), text.as_bytes())
    }

    /// The account with this authority; `None`: another one is to be made.
    pub(super) fn account(&self, directory: &str) -> Option<AccountCredentials> {
        let text = fs::read_to_string(self.account_path()).ok()?;
        let account: Account = serde_json::from_str(&text).ok()?;
        let ours = account.version == VERSION && account.directory == directory;
        ours.then_some(account.credentials)
    }

    pub(super) fn keep_account(
        &self,
        directory: &str,
        credentials: AccountCredentials,
    ) -> Result<(), AcmeError> {
        let account = Account {
            version: VERSION,
            directory: directory.to_owned(),
            credentials,
        };
        let text = serde_json::to_vec_pretty(&account).expect("an account is plain text");
        self.write(&self.account_path(), &text)
    }

    /// The authority knows it no more.
    pub(super) fn forget_account(&self) {
        let _ = fs::remove_file(self.account_path());
    }

    /// Records that may be there.
    pub(super) fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.records_path()).unwrap_or_default();
        let noted = serde_json::from_str::<Records>(&text).ok();
        let ours = noted.filter(|noted| noted.version == VERSION);
        ours.map(|noted| noted.records).unwrap_or_default()
    }

    /// To be called before the record is made.
    pub(super) fn note_record(&self, record: &Record) -> Result<(), AcmeError> {
        let mut records = self.records();
        records.push(record.clone());
        self.keep_records(records)
    }

    pub(super) fn forget_record(&self, record: &Record) -> Result<(), AcmeError> {
        let mut records = self.records();
        records.retain(|noted| noted != record);
        self.keep_records(records)
    }

    fn keep_records(&self, records: Vec<Record>) -> Result<(), AcmeError> {
        let records = Records {
            version: VERSION,
            records,
        };
        let text = serde_json::to_vec_pretty(&records).expect("records are plain text");
        self.write(&self.records_path(), &text)
    }

    fn records_path(&self) -> PathBuf {
        self.dir.join("records.json")
    }

    fn account_path(&self) -> PathBuf {
        self.dir.join("account.json")
    }

    /// Whole, synced, then in place; for the owner alone.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), AcmeError> {
        let half = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&half)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&half, path)
        };
        write().map_err(|source| AcmeError::Write {
            path: path.into(),
            source,
        })
    }
}
