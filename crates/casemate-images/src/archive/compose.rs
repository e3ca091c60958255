//! An OCI archive around one layer that lies elsewhere.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::layout::REF_NAME;
use crate::{Digest, Platform};

const MANIFEST_KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_KIND: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_KIND: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_KIND: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TITLE: &str = "org.opencontainers.image.title";
const BLOCK: usize = 512;

/// A layer, packed with gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedLayer {
    /// Of the packed bytes.
    pub digest: Digest,
    pub bytes: u64,
    /// Of the plain tar.
    pub diff_id: Digest,
}

/// An image that is to be written.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Shown to people.
    pub title: String,
    /// By which it is found in the archive: a tag.
    pub name: String,
    pub created: Timestamp,
    /// What its files came of, as its history says it.
    pub created_by: String,
    pub platform: Platform,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub user: String,
    /// Empty: none.
    pub workdir: String,
    /// Empty: none.
    pub command: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub layer: PackedLayer,
}

impl NewImage {
    /// What comes before the bytes of the layer in an archive, and what comes behind them.
    pub fn around_layer(&self) -> (Vec<u8>, Vec<u8>) {
        let config = self.config();
        let manifest = self.manifest(&config);
        let index = self.index(&manifest);
        let mut before = Vec::new();
        self.put(
            &mut before,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        );
        self.put(&mut before, "index.json", &index);
        for document in [&manifest, &config] {
            self.put(&mut before, &blob(Digest::of(document)), document);
        }
        self.begin(&mut before, &blob(self.layer.digest), self.layer.bytes);
        let padding = self.layer.bytes.wrapping_neg() % BLOCK as u64;
        // Less than a block.
        let padding = usize::try_from(padding).unwrap_or_default();
        (before, vec![0; padding + 2 * BLOCK])
    }

    fn config(&self) -> Vec<u8> {
        let mut process = json!({"Env": self.env, "User": self.user, "Labels": self.labels});
        if !self.workdir.is_empty() {
            process["WorkingDir"] = json!(self.workdir);
        }
        if !self.command.is_empty() {
            process["Cmd"] = json!(self.command);
        }
        let created = self.created.to_string();
        let config = json!({
            "created": created,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": [self.layer.diff_id.to_string()]},
            "history": [{"created": created, "created_by": self.created_by}],
        });
        config.to_string().into_bytes()
    }

    fn manifest(&self, config: &[u8]) -> Vec<u8> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_KIND,
            "config": descriptor(CONFIG_KIND, Digest::of(config), config.len() as u64),
            "layers": [descriptor(LAYER_KIND, self.layer.digest, self.layer.bytes)],
            "annotations": {TITLE: self.title},
        });
        manifest.to_string().into_bytes()
    }

    fn index(&self, manifest: &[u8]) -> Vec<u8> {
        let mut entry = descriptor(MANIFEST_KIND, Digest::of(manifest), manifest.len() as u64);
        entry["platform"] = json!({
            "architecture": self.platform.architecture,
            "os": self.platform.os,
        });
        entry["annotations"] = json!({REF_NAME: self.name, TITLE: self.title});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX_KIND,
            "manifests": [entry],
        });
        index.to_string().into_bytes()
    }

    fn put(&self, archive: &mut Vec<u8>, name: &str, content: &[u8]) {
        self.begin(archive, name, content.len() as u64);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }

    fn begin(&self, archive: &mut Vec<u8>, name: &str, bytes: u64) {
        let mut header = tar::Header::new_gnu();
        // All names are shorter than the field.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes);
        header.set_mtime(u64::try_from(self.created.as_second()).unwrap_or_default());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
    }
}

fn descriptor(kind: &str, digest: Digest, bytes: u64) -> serde_json::Value {
    json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes})
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
