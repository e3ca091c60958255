//! Manifests, indexes and configs: Docker's image manifest version 2, schema 2, and the OCI image
//! specification 1.1. Every length and sum in them is a claim of the registry's.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{Compression, Digest, Platform};

/// More layers than any tool makes (Docker stops at 127).
const LAYERS_MAX: usize = 512;
/// Entries of an index that are looked at.
const INDEX_LEN_MAX: usize = 1024;
/// Platforms in an error, and characters of each.
const SHOWN_MAX: usize = 16;
const SHOWN_LEN_MAX: usize = 64;

/// A manifest of either kind.
#[derive(Debug)]
pub(crate) enum Manifest {
    Image { config: Digest, layers: Vec<Packed> },
    Index(Index),
}

/// A layer as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) compression: Compression,
}

/// Images of which each is for another platform.
#[derive(Debug)]
pub(crate) struct Index(Vec<(Option<ForPlatform>, Digest)>);

/// Why a document is of no use. It is well if a user reads it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnImage {
    #[error("image architecture \"{found}\" does not match expected \"{expected}\"")]
    Platform { found: String, expected: String },
    #[error("its manifest cannot be read")]
    Unreadable,
    #[error("its manifest is of schema {0}, and only schema 2 can be used")]
    Schema(u64),
    #[error("its manifest is both of an image and of several")]
    Ambiguous,
    #[error("it has a layer of the kind '{0}', which cannot be used")]
    LayerKind(String),
    #[error("it has a digest that is not of SHA-256")]
    DigestKind,
    #[error("it has more than {LAYERS_MAX} layers")]
    Layers,
    #[error("its index is nested too deep")]
    Nested,
    #[error("its config cannot be read")]
    Config,
    #[error("its config names {config} layers, its manifest {manifest}")]
    LayerCount { config: usize, manifest: usize },
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u64,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<ForPlatform>,
}

#[derive(Debug, Deserialize)]
struct ForPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// Reads a manifest by what is in it. Content types are not asked: registries get them wrong, and a
/// manifest that can be read in two ways is refused (CVE-2021-41190).
pub(crate) fn read_manifest(body: &[u8]) -> Result<Manifest, NotAnImage> {
    let raw: RawManifest = serde_json::from_slice(body).map_err(|_| NotAnImage::Unreadable)?;
    if raw.schema_version != 2 {
        return Err(NotAnImage::Schema(raw.schema_version));
    }
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) => Ok(Manifest::Image {
            config: digest(&config.digest)?,
            layers: read_layers(&layers)?,
        }),
        (None, None, Some(manifests)) => read_index(manifests).map(Manifest::Index),
        (None, None, None) | (Some(_), None, None) | (None, Some(_), None) => {
            Err(NotAnImage::Unreadable)
        }
        (_, _, Some(_)) => Err(NotAnImage::Ambiguous),
    }
}

/// Whether an image may have so many layers.
pub(crate) fn check_layers(count: usize) -> Result<(), NotAnImage> {
    match count > LAYERS_MAX {
        true => Err(NotAnImage::Layers),
        false => Ok(()),
    }
}

fn read_layers(layers: &[Descriptor]) -> Result<Vec<Packed>, NotAnImage> {
    check_layers(layers.len())?;
    let packed = layers.iter().map(|layer| {
        let kind = || NotAnImage::LayerKind(layer.media_type.chars().take(100).collect());
        Ok(Packed {
            digest: digest(&layer.digest)?,
            bytes: layer.size,
            compression: Compression::of_media_type(&layer.media_type).ok_or_else(kind)?,
        })
    });
    packed.collect()
}

fn read_index(manifests: Vec<Descriptor>) -> Result<Index, NotAnImage> {
    let entries = manifests.into_iter().take(INDEX_LEN_MAX);
    let read = entries.map(|entry| Ok((entry.platform, digest(&entry.digest)?)));
    read.collect::<Result<_, _>>().map(Index)
}

fn digest(text: &str) -> Result<Digest, NotAnImage> {
    Digest::parse(text).ok_or(NotAnImage::DigestKind)
}

impl Index {
    /// The manifest for a platform: an entry of the processor's usual variant, else the first of any,
    /// else the only one if it does not say what it is for.
    pub(crate) fn choose(&self, platform: &Platform) -> Option<Digest> {
        let fits = |entry: &&(Option<ForPlatform>, Digest)| {
            let of = entry.0.as_ref();
            of.is_some_and(|of| of.os == platform.os && of.architecture == platform.architecture)
        };
        let usual = |entry: &&(Option<ForPlatform>, Digest)| {
            let variant = entry.0.as_ref().and_then(|of| of.variant.as_deref());
            matches!(variant, None | Some("" | "v1" | "v8"))
        };
        let fitting = || self.0.iter().filter(fits);
        let sole = || match self.0.as_slice() {
            [sole @ (None, _)] => Some(sole),
            _ => None,
        };
        let chosen = fitting()
            .find(usual)
            .or_else(|| fitting().next())
            .or_else(sole);
        chosen.map(|(_, digest)| *digest)
    }

    /// That none of the entries is for the platform.
    pub(crate) fn wrong_platform(&self, platform: &Platform) -> NotAnImage {
        let mut names: Vec<String> = Vec::new();
        for of in self.0.iter().filter_map(|(of, _)| of.as_ref()) {
            let name = shown(&of.os, &of.architecture, platform);
            // What describes an image has "unknown" for its processor.
            if of.architecture != "unknown" && names.len() < SHOWN_MAX && !names.contains(&name) {
                names.push(name);
            }
        }
        NotAnImage::Platform {
            found: names.join(", "),
            expected: platform.architecture.clone(),
        }
    }
}

/// A processor, with the operating system where that is another one; as short as it should be.
fn shown(os: &str, architecture: &str, platform: &Platform) -> String {
    let text = match os == platform.os {
        true => architecture.to_string(),
        false => format!("{os}/{architecture}"),
    };
    text.chars().take(SHOWN_LEN_MAX).collect()
}

/// The part of an image's config that is used.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<RunConfig>,
    rootfs: RootFs,
}

/// Texts are read as any value: what nobody asks for must not make an image unusable.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    env: Option<Vec<String>>,
    user: Value,
    working_dir: Value,
    labels: Option<BTreeMap<String, Value>>,
}

/// What an image's config says of its processes, as it is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty: none is named.
    pub user: String,
    /// Empty: none is named.
    pub workdir: String,
    pub labels: BTreeMap<String, String>,
}

impl From<RunConfig> for ProcessConfig {
    fn from(raw: RunConfig) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let labels = raw.labels.unwrap_or_default().into_iter();
        Self {
            env: raw.env.unwrap_or_default(),
            user: text(raw.user).unwrap_or_default(),
            workdir: text(raw.working_dir).unwrap_or_default(),
            labels: labels
                .filter_map(|(name, value)| Some((name, text(value)?)))
                .collect(),
        }
    }
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

/// What a config says.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) process: ProcessConfig,
    /// The digest of each layer's plain tar.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Reads an image's config; one for another platform, or for another number of layers, is refused.
pub(crate) fn read_config(
    body: &[u8],
    layers: usize,
    platform: &Platform,
) -> Result<Config, NotAnImage> {
    let raw: RawConfig = serde_json::from_slice(body).map_err(|_| NotAnImage::Config)?;
    if raw.os != platform.os || raw.architecture != platform.architecture {
        return Err(NotAnImage::Platform {
            found: shown(&raw.os, &raw.architecture, platform),
            expected: platform.architecture.clone(),
        });
    }
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers {
        return Err(NotAnImage::LayerCount {
            config: diff_ids.len(),
            manifest: layers,
        });
    }
    let process = ProcessConfig::from(raw.config.unwrap_or_default());
    let env = process.env.iter();
    Ok(Config {
        env: env.filter_map(|entry| variable(entry)).collect(),
        process,
        diff_ids: diff_ids
            .iter()
            .map(|text| digest(text))
            .collect::<Result<_, _>>()?,
    })
}

/// `NAME=value`, trimmed. An entry without a value is dropped, as upstream does, and one that no
/// process could have.
fn variable(entry: &str) -> Option<(String, String)> {
    let (name, value) = entry.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let whole = !name.is_empty() && !value.is_empty() && !entry.contains('\0');
    whole.then(|| (name.to_string(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amd64() -> Platform {
        Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
        }
    }

    fn index(entries: serde_json::Value) -> Index {
        let body = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        match read_manifest(body.as_bytes()) {
            Ok(Manifest::Index(index)) => index,
            other => panic!("{other:?}"),
        }
    }

    fn entry(content: &str, platform: Option<(&str, &str, &str)>) -> serde_json::Value {
        let digest = Digest::of(content.as_bytes()).to_string();
        match platform {
            Some((os, architecture, variant)) => json!({"digest": digest, "size": 1, "platform":
                {"os": os, "architecture": architecture, "variant": variant}}),
            None => json!({"digest": digest, "size": 1}),
        }
    }

    #[test]
    fn the_usual_variant_is_chosen() {
        let chosen = |entries| index(entries).choose(&amd64());
        let of = |content: &str| Some(Digest::of(content.as_bytes()));
        let entries = json!([
            entry("arm", Some(("linux", "arm64", "v8"))),
            entry("windows", Some(("windows", "amd64", ""))),
            entry("v3", Some(("linux", "amd64", "v3"))),
            entry("plain", Some(("linux", "amd64", ""))),
        ]);
        assert_eq!(chosen(entries), of("plain"));
        assert_eq!(
            chosen(json!([entry("v3", Some(("linux", "amd64", "v3")))])),
            of("v3")
        );
        assert_eq!(chosen(json!([entry("sole", None)])), of("sole"));
        assert_eq!(chosen(json!([entry("a", None), entry("b", None)])), None);
        assert_eq!(chosen(json!([])), None);
    }

    #[test]
    fn what_there_is_instead_is_said() {
        let index = index(json!([
            entry("a", Some(("linux", "arm64", "v8"))),
            entry("b", Some(("linux", "arm64", ""))),
            entry("c", Some(("windows", "amd64", ""))),
            entry("d", Some(("unknown", "unknown", ""))),
        ]));
        assert_eq!(
            index.wrong_platform(&amd64()).to_string(),
            "image architecture \"arm64, windows/amd64\" does not match expected \"amd64\""
        );
    }

    #[track_caller]
    fn check_refused(body: serde_json::Value, expected: NotAnImage) {
        let read = read_manifest(body.to_string().as_bytes());
        assert_eq!(read.map(|_| ()).unwrap_err(), expected);
    }

    #[test]
    fn manifests_that_are_no_images_are_refused() {
        let digest = Digest::of(b"x").to_string();
        let config = json!({"digest": digest, "size": 1});
        check_refused(
            json!({"schemaVersion": 1, "fsLayers": []}),
            NotAnImage::Schema(1),
        );
        check_refused(json!({"schemaVersion": 2}), NotAnImage::Unreadable);
        check_refused(json!([]), NotAnImage::Unreadable);
        check_refused(
            json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}),
            NotAnImage::Ambiguous,
        );
        let layer = |kind: &str, digest: &str| {
            json!({"schemaVersion": 2, "config": config, "layers":
                [{"mediaType": kind, "digest": digest, "size": 1}]})
        };
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        check_refused(
            layer(foreign, &digest),
            NotAnImage::LayerKind(foreign.into()),
        );
        let oci = "application/vnd.oci.image.layer.v1.tar";
        check_refused(layer(oci, "sha256:../x"), NotAnImage::DigestKind);
        let many = json!({"schemaVersion": 2, "config": config, "layers":
            vec![json!({"mediaType": oci, "digest": digest, "size": 1}); LAYERS_MAX + 1]});
        check_refused(many, NotAnImage::Layers);
        let mut negative = layer(oci, &digest);
        negative["layers"][0]["size"] = json!(-1);
        check_refused(negative, NotAnImage::Unreadable);
    }

    #[test]
    fn variables_are_trimmed_and_empty_ones_dropped() {
        let digest = Digest::of(b"x");
        let body = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest.to_string()]},
            "config": {"Env": ["PATH=/bin:/a=b", " A = b ", "EMPTY=", "BLANK= ", "=x", "NONE", "N=\u{0}"]}});
        let read = |layers| read_config(body.to_string().as_bytes(), layers, &amd64());
        let config = read(1).unwrap();
        let expected = [("PATH", "/bin:/a=b"), ("A", "b")];
        assert_eq!(
            config.env,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(config.diff_ids, [digest]);
        assert_eq!(
            read(2).unwrap_err(),
            NotAnImage::LayerCount {
                config: 1,
                manifest: 2
            }
        );
    }
}
