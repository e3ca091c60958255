//! Images made by the tests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use casemate_images::{
    Digest, Image, ImageError, Images, ImagesConfig, LayerReader, Patience, Platform,
    RegistryConfig,
};
use serde_json::{Value, json};

pub const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a registry holds of one image.
#[derive(Clone)]
pub struct Files {
    pub manifest: Vec<u8>,
    pub manifest_kind: &'static str,
    /// Config and layers.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// As packed, in order.
    pub layers: Vec<Vec<u8>>,
}

/// A layer before it is part of an image.
pub struct Packed {
    pub kind: &'static str,
    pub plain: Vec<u8>,
    pub packed: Vec<u8>,
}

/// A tar of one file with this content.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Bytes that do not pack well, the same ones each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| step()).collect()
}

pub fn gzip(plain: &[u8]) -> Packed {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    Packed {
        kind: DOCKER_GZIP,
        plain: plain.to_vec(),
        packed: encoder.finish().unwrap(),
    }
}

pub fn zstd(plain: &[u8]) -> Packed {
    Packed {
        kind: OCI_ZSTD,
        plain: plain.to_vec(),
        packed: zstd::encode_all(plain, 3).unwrap(),
    }
}

pub fn unpacked(plain: &[u8]) -> Packed {
    Packed {
        kind: OCI_PLAIN,
        plain: plain.to_vec(),
        packed: plain.to_vec(),
    }
}

/// An image for linux/amd64 of these layers, and a change to its config.
pub fn image_with(layers: &[Packed], change: impl FnOnce(&mut Value)) -> Files {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| Digest::of(&layer.plain).to_string())
        .collect();
    let mut config = json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Env": ["PATH=/usr/bin", "EMPTY="], "User": "nobody"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    change(&mut config);
    let config = config.to_string().into_bytes();
    let oci = layers.iter().any(|layer| layer.kind != DOCKER_GZIP);
    let (manifest_kind, config_kind) = match oci {
        true => (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json"),
        false => (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
        ),
    };
    let descriptor = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes).to_string();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| descriptor(layer.kind, &layer.packed))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_kind,
        "config": descriptor(config_kind, &config), "layers": descriptors,
    });
    let packed: Vec<_> = layers.iter().map(|layer| layer.packed.clone()).collect();
    let blobs = packed.iter().chain([&config]);
    Files {
        manifest: manifest.to_string().into_bytes(),
        manifest_kind,
        blobs: blobs
            .map(|blob| (Digest::of(blob).to_string(), blob.clone()))
            .collect(),
        layers: packed,
    }
}

pub fn image(layers: &[Packed]) -> Files {
    image_with(layers, |_| {})
}

/// An image of one packed layer with a file of noise.
pub fn simple(length: usize) -> Files {
    image(&[gzip(&tar_of("noise", &noise(length)))])
}

/// Limits of time that suit tests.
pub fn quick() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(1),
        document: Duration::from_secs(20),
        layer: Duration::from_secs(60),
        retries: 2,
        retry_wait: Duration::from_millis(10),
    }
}

/// A configuration that names these hosts as insecure ones.
pub fn config(dir: &Path, hosts: &[&str]) -> ImagesConfig {
    let mut config = ImagesConfig::new(dir.join("cache"), 1 << 30);
    config.patience = quick();
    config.platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };
    for host in hosts {
        let registry = RegistryConfig {
            insecure: true,
            ..RegistryConfig::default()
        };
        config.registries.insert((*host).to_string(), registry);
    }
    config
}

/// Fetches a layer and reads all of it.
pub async fn read(images: &Images, image: &Image, n: usize) -> Result<Vec<u8>, ImageError> {
    let reader = images.layer(image, n, |_| {}).await?;
    read_all(reader).await
}

pub async fn read_all(mut reader: LayerReader) -> Result<Vec<u8>, ImageError> {
    let read = move || {
        let mut tar = Vec::new();
        reader.read_to_end(&mut tar).map(|_| tar)
    };
    let read = tokio::task::spawn_blocking(read).await.unwrap();
    read.map_err(|error| ImageError::from_io(error).unwrap())
}
