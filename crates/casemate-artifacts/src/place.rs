//! Which bucket, and where in it: one text.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

const BUCKET_LEN_MAX: usize = 222;
const PREFIX_LEN_MAX: usize = 256;

/// Where artifacts lie. As text: `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]`,
/// `az://ACCOUNT/CONTAINER[/PREFIX]`, `file:///ABSOLUTE/PATH`. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Amazon S3, and what speaks like it.
    S3 { bucket: String, prefix: String },
    /// Google Cloud Storage.
    Gcs { bucket: String, prefix: String },
    /// Azure Blob Storage.
    Azure {
        account: String,
        container: String,
        prefix: String,
    },
    /// A folder of this machine, or of a file system that several mount.
    Folder(PathBuf),
}

/// Which cloud a bare bucket's name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudKind {
    S3,
    Gcs,
    Azure,
}

/// What is wrong with the text of a place. It does not show the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlace {
    #[error("a bucket is s3://BUCKET, gs://BUCKET, az://ACCOUNT/CONTAINER or file:///PATH")]
    Scheme,
    #[error(
        "a bucket's name is 3 to {BUCKET_LEN_MAX} lower-case letters, digits, '.', '_' and '-'"
    )]
    Bucket,
    #[error("an Azure account's name is 3 to 24 lower-case letters and digits")]
    Account,
    #[error(
        "a prefix is of letters, digits, '.', '_', '-' and '/', at most {PREFIX_LEN_MAX} bytes"
    )]
    Prefix,
    #[error("a folder's path is absolute and has no '..'")]
    Path,
    #[error("credentials and options have settings of their own; the bucket's URL has none")]
    Secret,
}

impl Place {
    /// The place that the guide's `STORAGE_BUCKET` names: `BUCKET[/PREFIX]`, on Azure
    /// `ACCOUNT/CONTAINER[/PREFIX]`.
    pub fn bare(kind: CloudKind, name: &str) -> Result<Self, NotAPlace> {
        let scheme = match kind {
            CloudKind::S3 => "s3",
            CloudKind::Gcs => "gs",
            CloudKind::Azure => "az",
        };
        format!("{scheme}://{name}").parse()
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (scheme, rest) = text.split_once("://").ok_or(NotAPlace::Scheme)?;
        if scheme == "file" {
            return folder(rest);
        }
        if rest.contains(['@', '?', '#']) {
            return Err(NotAPlace::Secret);
        }
        match scheme {
            "s3" => {
                let (bucket, prefix) = bucket_and_prefix(rest)?;
                Ok(Self::S3 { bucket, prefix })
            }
            "gs" => {
                let (bucket, prefix) = bucket_and_prefix(rest)?;
                Ok(Self::Gcs { bucket, prefix })
            }
            "az" => {
                let (account, rest) = rest.split_once('/').ok_or(NotAPlace::Scheme)?;
                let plain = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
                if !(3..=24).contains(&account.len()) || !account.bytes().all(plain) {
                    return Err(NotAPlace::Account);
                }
                let (container, prefix) = bucket_and_prefix(rest)?;
                Ok(Self::Azure {
                    account: account.to_owned(),
                    container,
                    prefix,
                })
            }
            _ => Err(NotAPlace::Scheme),
        }
    }
}

fn folder(path: &str) -> Result<Place, NotAPlace> {
    let dots = path.split('/').any(|part| part == "." || part == "..");
    match path.starts_with('/') && !dots && !path.contains('\0') {
        true => Ok(Place::Folder(PathBuf::from(path))),
        false => Err(NotAPlace::Path),
    }
}

fn bucket_and_prefix(text: &str) -> Result<(String, String), NotAPlace> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let edge = |b: &u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let inner = |b: &u8| edge(b) || matches!(b, b'.' | b'_' | b'-');
    let bytes = bucket.as_bytes();
    let fits = (3..=BUCKET_LEN_MAX).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge);
    if !fits {
        return Err(NotAPlace::Bucket);
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(word);
    match prefix.is_empty() || (prefix.len() <= PREFIX_LEN_MAX && prefix.split('/').all(part)) {
        true => Ok((bucket.to_owned(), prefix.to_owned())),
        false => Err(NotAPlace::Prefix),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::S3 { bucket, prefix } => {
                write!(f, "s3://{bucket}")?;
                prefix
            }
            Self::Gcs { bucket, prefix } => {
                write!(f, "gs://{bucket}")?;
                prefix
            }
            Self::Azure {
                account,
                container,
                prefix,
            } => {
                write!(f, "az://{account}/{container}")?;
                prefix
            }
            Self::Folder(path) => return write!(f, "file://{}", path.display()),
        };
        match prefix.is_empty() {
            true => Ok(()),
            false => write!(f, "/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, NotAPlace>) {
        let place = text.parse::<Place>().map(|place| place.to_string());
        assert_eq!(place.as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn places_are_read_and_written() {
        for text in [
            "s3://artifacts",
            "s3://my.artifacts/a/b-c",
            "gs://artifacts/x",
            "az://account1/e2b-files",
            "az://account1/e2b-files/p",
            "file:///var/lib/casemate/artifacts",
        ] {
            check(text, Ok(text));
        }
        check("s3://artifacts/", Ok("s3://artifacts"));
        let bare = Place::bare(CloudKind::Azure, "account1/e2b-files").unwrap();
        assert_eq!(bare.to_string(), "az://account1/e2b-files");
        assert_eq!(
            Place::bare(CloudKind::S3, "bucket").unwrap().to_string(),
            "s3://bucket"
        );
    }

    #[test]
    fn others_are_refused() {
        check("artifacts", Err(NotAPlace::Scheme));
        check("https://artifacts", Err(NotAPlace::Scheme));
        check("az://account1", Err(NotAPlace::Scheme));
        check("az://Account/files", Err(NotAPlace::Account));
        check("s3://ab", Err(NotAPlace::Bucket));
        check("s3://Upper", Err(NotAPlace::Bucket));
        check("s3://-bucket", Err(NotAPlace::Bucket));
        check("s3://bucket/a//b", Err(NotAPlace::Prefix));
        check("s3://bucket/../b", Err(NotAPlace::Prefix));
        check("s3://key:secret@bucket", Err(NotAPlace::Secret));
        check("az://account1/files?sig=x", Err(NotAPlace::Secret));
        check("file://relative", Err(NotAPlace::Path));
        check("file:///a/../b", Err(NotAPlace::Path));
    }
}
