//! From a reference to an image: who is asked, in which order, and what is believed.

use crate::cache::Scope;
use crate::credentials::Login;
use crate::images::{Origin, Place};
use crate::registry::{AwsKeys, Manifest, Packed, Source, ecr_login, read_config, read_manifest};
use crate::{Credentials, Digest, Image, ImageError, Images, Layer, ProcessConfig, Reference};

/// Indexes in indexes that are followed.
pub(crate) const INDEX_DEPTH_MAX: usize = 3;

impl Images {
    /// Finds an image and checks what its registry says of it: digests, sizes, the platform. Reads no
    /// layer. `scope` says whose the credentials are (a team, say): layers that were had with them are
    /// found again in the cache under the same scope alone.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing.
    pub async fn resolve(
        &self,
        reference: &str,
        credentials: &Credentials,
        scope: &str,
    ) -> Result<Image, ImageError> {
        let parsed = Reference::parse(reference).map_err(|why| ImageError::Reference {
            reference: reference.chars().take(256).collect(),
            why,
        })?;
        let aliases = &self.shared.aliases;
        let alias = aliases.iter().find(|(from, _)| *from == parsed);
        // What an alias leads to is not who the credentials are for.
        let (target, credentials) = match alias {
            Some((_, to)) => (to, &Credentials::Anonymous),
            None => (&parsed, credentials),
        };
        let login = self.log_in(reference, credentials).await?;
        let scope = match login {
            Some(_) => Scope::private(target.host(), scope),
            None => Scope::public(target.host()),
        };
        let mut sources = self.shared.sources(target, login);
        let mut failed = ImageError::ManifestUnknown {
            reference: reference.to_string(),
        };
        for at in 0..sources.len() {
            let tries = self.tries(at, sources.len());
            match self.ask(reference, target, &sources[at], tries).await {
                Ok(read) => {
                    sources.rotate_left(at);
                    return read.into_image(reference, target, sources, scope);
                }
                Err(error) if error.is_of_source() => {
                    if let ImageError::Unreachable { cause, .. } = &error {
                        let cause = casemate_types::chain(cause);
                        tracing::debug!(source = %sources[at], cause, "an image is not had here");
                    }
                    failed = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// The last that can be asked is asked again; before it there is another to ask.
    pub(crate) fn tries(&self, at: usize, sources: usize) -> u32 {
        match at + 1 == sources {
            true => self.shared.config.patience.retries + 1,
            false => 1,
        }
    }

    async fn log_in(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<Option<Login>, ImageError> {
        match credentials {
            Credentials::Anonymous => Ok(None),
            Credentials::Basic { username, password } => Ok(Some(Login::new(username, password)?)),
            Credentials::Gcp {
                service_account_json,
            } => Ok(Some(Login::gcp(service_account_json)?)),
            Credentials::Aws {
                access_key_id,
                secret_access_key,
                region,
            } => {
                let keys = AwsKeys::new(access_key_id, secret_access_key, region)?;
                let endpoint = self.shared.ecr_endpoint.as_ref();
                let login = ecr_login(&self.shared.web, &keys, endpoint).await;
                login
                    .map(Some)
                    .map_err(|error| ImageError::pull(reference, error))
            }
        }
    }

    async fn ask(
        &self,
        asked: &str,
        target: &Reference,
        source: &Source,
        tries: u32,
    ) -> Result<Read, ImageError> {
        let web = &self.shared.web;
        let platform = &self.shared.config.platform;
        let unusable = |why| ImageError::unusable(asked, why);
        let (mut name, mut expected) = (target.manifest(), target.digest());
        for _ in 0..=INDEX_DEPTH_MAX {
            let found = source.manifest(web, &name, tries).await;
            let body = found.map_err(|error| ImageError::pull(asked, error))?;
            let digest = Digest::of(&body);
            check_digest(asked, expected, digest)?;
            match read_manifest(&body).map_err(unusable)? {
                Manifest::Index(index) => {
                    let chosen = index.choose(platform);
                    let chosen = chosen.ok_or_else(|| unusable(index.wrong_platform(platform)))?;
                    (name, expected) = (chosen.to_string(), Some(chosen));
                }
                Manifest::Image { config, layers } => {
                    let bytes_max = self.shared.config.image_bytes_max;
                    let compressed_bytes = sum(&layers, bytes_max)?;
                    let body = source.small_blob(web, &config.to_string(), tries).await;
                    let body = body.map_err(|error| ImageError::pull(asked, error))?;
                    check_digest(asked, Some(config), Digest::of(&body))?;
                    let config = read_config(&body, layers.len(), platform).map_err(unusable)?;
                    return Ok(Read {
                        digest,
                        compressed_bytes,
                        env: config.env,
                        process: config.process,
                        layers: paired(layers, config.diff_ids),
                    });
                }
            }
        }
        Err(unusable(crate::registry::NotAnImage::Nested))
    }
}

/// An image as one source has it.
struct Read {
    digest: Digest,
    compressed_bytes: u64,
    env: Vec<(String, String)>,
    process: ProcessConfig,
    layers: Vec<Layer>,
}

impl Read {
    fn into_image(
        self,
        asked: &str,
        target: &Reference,
        sources: Vec<Source>,
        scope: Scope,
    ) -> Result<Image, ImageError> {
        let mark = if target.digest().is_some() { '@' } else { ':' };
        let at = sources.first().map(Source::to_string).unwrap_or_default();
        let place = Place::Registry { sources, scope };
        Ok(Image {
            asked: asked.to_string(),
            answered: format!("{at}{mark}{}", target.manifest()),
            digest: self.digest,
            env: self.env,
            process: self.process,
            compressed_bytes: self.compressed_bytes,
            origin: std::sync::Arc::new(Origin::new(place, self.layers.len())),
            layers: self.layers,
        })
    }
}

fn check_digest(asked: &str, expected: Option<Digest>, found: Digest) -> Result<(), ImageError> {
    match expected {
        Some(digest) if digest != found => Err(ImageError::WrongDigest {
            reference: asked.to_string(),
            digest,
        }),
        _ => Ok(()),
    }
}

/// Layers are hardly ever larger than what is in them, so that what does not fit packed is refused
/// before it is fetched.
fn sum(layers: &[Packed], bytes_max: u64) -> Result<u64, ImageError> {
    let add = |sum: u64, layer: &Packed| sum.saturating_add(layer.bytes);
    let bytes = layers.iter().fold(0, add);
    match bytes > bytes_max {
        true => Err(ImageError::TooLarge { bytes, bytes_max }),
        false => Ok(bytes),
    }
}

fn paired(layers: Vec<Packed>, diff_ids: Vec<Digest>) -> Vec<Layer> {
    let pairs = layers.into_iter().zip(diff_ids);
    pairs
        .map(|(packed, diff_id)| Layer::of(packed, diff_id))
        .collect()
}
