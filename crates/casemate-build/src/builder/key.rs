//! Keys of layers: the hash of the recipe so far (`templates.md` 4.6).
//!
//! What is not in a key is shared by recipes that differ in it: processors and memory, the commands
//! that start a template (both only stand in the key of having seen that start), its name. The image stands in it as written, so that a tag that moved is
//! seen by a forced build alone, as with E2B.

use casemate_store::{BuildId, CacheKey};
use casemate_types::{Resources, Startup};
use sha2::{Digest, Sha256};

use super::finalize::CONFIGURE;
use super::ground::PROVISION;
use super::steps::ADMINISTRATOR;

/// Changes all keys when the way of building changes so that older layers do not fit.
const VERSION: &str = "casemate 1";

/// Of an image's files alone, by what its registry answered.
pub(super) fn of_unpacked(digest: &str) -> CacheKey {
    hash(&[VERSION, "unpacked", digest])
}

/// Of an image, provisioned.
pub(super) fn of_image(reference: &str) -> CacheKey {
    hash(&[
        VERSION,
        "image",
        std::env::consts::ARCH,
        PROVISION,
        reference,
    ])
}

/// The same of one in an archive, where nothing but its digest stands for it.
pub(super) fn of_archive(digest: &str) -> CacheKey {
    hash(&[
        VERSION,
        "archive",
        std::env::consts::ARCH,
        PROVISION,
        digest,
    ])
}

/// Of another template's build.
pub(super) fn of_template(parent: BuildId, is_image: bool) -> CacheKey {
    let what = if is_image {
        "image at hand"
    } else {
        "template"
    };
    hash(&[VERSION, what, &parent.to_string()])
}

/// Of a step behind a state.
pub(super) fn of_step(
    before: &CacheKey,
    kind: &str,
    args: &[String],
    files: Option<&str>,
) -> CacheKey {
    let mut parts = vec![before.as_str(), "step", kind, files.unwrap_or("")];
    parts.extend(args.iter().map(String::as_str));
    hash(&parts)
}

/// Of what sandboxes begin with.
pub(super) fn of_end(before: &CacheKey) -> CacheKey {
    hash(&[before.as_str(), "end", CONFIGURE, ADMINISTRATOR])
}

/// Of a start command that was seen to become ready.
pub(super) fn of_start(layers: &[String], startup: &Startup, resources: &Resources) -> CacheKey {
    // Neither can fail: they are text and numbers.
    let startup = serde_json::to_string(startup).unwrap_or_default();
    let resources = serde_json::to_string(resources).unwrap_or_default();
    let mut parts = vec![VERSION, "start", &startup, &resources];
    parts.extend(layers.iter().map(String::as_str));
    hash(&parts)
}

/// Each part with its length, so that no two lists of parts are one text.
fn hash(parts: &[&str]) -> CacheKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    CacheKey::parse(&hex::encode(hash.finalize())).expect("a SHA-256 in hexadecimal is a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let base = of_image("debian:12");
        let args = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
        let keys = [
            of_step(&base, "ENV", &args(&["A", "1 B", "2"]), None),
            of_step(&base, "ENV", &args(&["A", "1", "B", "2"]), None),
            of_step(&base, "ENV", &args(&["A", "1"]), None),
            of_step(&base, "RUN", &args(&["A", "1"]), None),
            of_step(&base, "RUN", &args(&["A"]), Some("1")),
            of_step(&of_image("debian:13"), "RUN", &args(&["A"]), Some("1")),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(of_image("debian:12"), base);
    }
}
