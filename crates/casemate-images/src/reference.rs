//! References to images, with Docker's defaults: `ubuntu` is `docker.io/library/ubuntu:latest`.
//!
//! The grammar is that of the distribution project's `reference` package; only digests of SHA-256 are
//! taken.

use std::fmt;

use crate::Digest;
use crate::web::Authority;

/// The registry of references that name none.
pub(crate) const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_OLD: &str = "index.docker.io";
const TAG_DEFAULT: &str = "latest";
/// Longest reference in bytes; longer ones are refused before they are looked at.
const REFERENCE_LEN_MAX: usize = 1024;
/// Longest host and repository together, as the distribution project has it.
const NAME_LEN_MAX: usize = 255;
const TAG_LEN_MAX: usize = 128;

/// A whole reference: host, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAReference {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {REFERENCE_LEN_MAX} bytes, or its name than {NAME_LEN_MAX}")]
    TooLong,
    #[error("its registry is not a host with an optional port")]
    Host,
    #[error("its repository must be lowercase")]
    UpperCase,
    #[error("its repository is not a list of names with slashes between")]
    Repository,
    #[error("its tag is not up to {TAG_LEN_MAX} letters, digits, '_', '.' and '-'")]
    Tag,
    #[error("its digest is not 'sha256:' and 64 lowercase hexadecimal digits")]
    Digest,
}

impl Reference {
    /// Parses a reference and fills in what it leaves out.
    pub fn parse(text: &str) -> Result<Self, NotAReference> {
        if text.is_empty() {
            return Err(NotAReference::Empty);
        }
        if text.len() > REFERENCE_LEN_MAX {
            return Err(NotAReference::TooLong);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest).ok_or(NotAReference::Digest)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = split_host(rest);
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_string())),
            Some(_) => return Err(NotAReference::Tag),
            None => (rest, None),
        };
        let host = checked_host(host)?;
        let mut repository = checked_repository(repository)?.to_string();
        if host == DOCKER_HUB && !repository.contains('/') {
            repository.insert_str(0, "library/");
        }
        if host.len() + 1 + repository.len() > NAME_LEN_MAX {
            return Err(NotAReference::TooLong);
        }
        let tag = match (tag, digest) {
            (None, None) => Some(TAG_DEFAULT.to_string()),
            (tag, _) => tag,
        };
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }

    /// The registry, in lower case, with its port where one was named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest that the manifest must have, if one was asked for.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What follows `manifests/` in the registry's API: a digest wins over a tag.
    pub(crate) fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| TAG_DEFAULT.into()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// What stands before the first slash is a host only if it looks like one.
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (host, rest)
        }
        _ => (DOCKER_HUB, text),
    }
}

fn checked_host(host: &str) -> Result<String, NotAReference> {
    let host = host.to_ascii_lowercase();
    if host == DOCKER_HUB_OLD {
        return Ok(DOCKER_HUB.into());
    }
    match Authority::parse(&host, 443) {
        Some(_) => Ok(host),
        None => Err(NotAReference::Host),
    }
}

pub(crate) fn checked_repository(repository: &str) -> Result<&str, NotAReference> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(NotAReference::UpperCase);
    }
    if repository.len() <= NAME_LEN_MAX && repository.split('/').all(is_component) {
        Ok(repository)
    } else {
        Err(NotAReference::Repository)
    }
}

/// `[a-z0-9]+` with one of `.`, `_`, `__` or any number of `-` between.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next();
    text.len() <= TAG_LEN_MAX
        && first.is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = Reference::parse(text).map(|reference| reference.to_string());
        assert_eq!(shown.as_deref(), Ok(expected));
    }

    #[test]
    fn what_is_left_out_is_dockers() {
        check("ubuntu", "docker.io/library/ubuntu:latest");
        check("ubuntu:22.04", "docker.io/library/ubuntu:22.04");
        check("docker.io/ubuntu", "docker.io/library/ubuntu:latest");
        check("index.docker.io/a/b:c", "docker.io/a/b:c");
        check("e2bdev/base", "docker.io/e2bdev/base:latest");
        check("localhost/a", "localhost/a:latest");
        check("127.0.0.1:5000/mine/x:1", "127.0.0.1:5000/mine/x:1");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check("GHCR.io/a/b", "ghcr.io/a/b:latest");
        check("a/b__c.d--e_f", "docker.io/a/b__c.d--e_f:latest");
        let digest = Digest::of(b"x");
        check(&format!("a/b@{digest}"), &format!("docker.io/a/b@{digest}"));
        let both = Reference::parse(&format!("a/b:tag@{digest}")).unwrap();
        assert_eq!(both.manifest(), digest.to_string());
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, why) in [
            ("", NotAReference::Empty),
            ("a//b", NotAReference::Repository),
            ("/a", NotAReference::Repository),
            ("a/../b", NotAReference::Repository),
            ("a/.b", NotAReference::Repository),
            ("a___b", NotAReference::Repository),
            ("a b", NotAReference::Repository),
            ("a?b=c", NotAReference::Repository),
            ("ex.com/", NotAReference::Repository),
            ("a/B", NotAReference::UpperCase),
            ("a:", NotAReference::Tag),
            ("a:-x", NotAReference::Tag),
            ("a:b:c", NotAReference::Tag),
            ("a:x/y", NotAReference::Host),
            ("ex.com:99999/a", NotAReference::Host),
            ("user@ex.com/a", NotAReference::Digest),
            ("a@sha512:00", NotAReference::Digest),
            ("ex..com/a", NotAReference::Host),
        ] {
            assert_eq!(Reference::parse(text), Err(why), "{text}");
        }
        let long = "a".repeat(REFERENCE_LEN_MAX + 1);
        assert_eq!(Reference::parse(&long), Err(NotAReference::TooLong));
        let long = "a".repeat(NAME_LEN_MAX - 10);
        assert_eq!(Reference::parse(&long), Err(NotAReference::TooLong));
    }
}
