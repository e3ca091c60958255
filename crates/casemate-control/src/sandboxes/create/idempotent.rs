//! A create that is sent twice under one key makes one sandbox (`api.md` 3.0, decision 13).

use casemate_store::{Begun, RequestHash};
use casemate_types::{SandboxId, TemplateId, chain, steady};
use serde::{Deserialize, Serialize};

use super::{CreateError, CreateSandbox, Created};
use crate::Control;
use crate::auth::TeamCaller;

const KEY_CHARS_MAX: usize = 255;
/// Of [`KeptAnswer`].
const VERSION: u32 = 1;

/// A client's name for one create: 1 to 255 of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to {KEY_CHARS_MAX} characters of a-z, 0-9 and '-'")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }
}

/// Why a key gives no sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    #[error("A request with this Idempotency-Key is still in progress")]
    InProgress,
    #[error("The outcome of the first request with this Idempotency-Key is not known")]
    OutcomeUnknown,
    #[error("This Idempotency-Key was used with a different request")]
    Mismatch,
}

/// What is kept of an answer: the token is derived again, never kept.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    version: u32,
    sandbox: SandboxId,
    template: TemplateId,
    alias: Option<String>,
    envd_version: String,
    /// Its ports are not public.
    #[serde(default)]
    private: bool,
}

impl Control {
    /// [`Control::create`] under a key; `request` is a digest of the body.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn create_idempotent(
        &self,
        caller: &TeamCaller,
        key: &IdempotencyKey,
        request: &RequestHash,
        ask: CreateSandbox,
    ) -> Result<Created, CreateError> {
        let (team, key) = (&caller.team.id, key.0.as_str());
        let now = steady::now();
        let begun = self
            .store
            .idempotency_begin(team, key, request, &self.owner, now);
        match begun.await? {
            Begun::New => {}
            Begun::InProgress => return Err(IdempotencyError::InProgress.into()),
            Begun::Mismatch => return Err(IdempotencyError::Mismatch.into()),
            Begun::Unknown => return Err(IdempotencyError::OutcomeUnknown.into()),
            Begun::Done { answer } => return self.replay(&answer),
        }
        match self.create(caller, ask).await {
            Ok(created) => {
                self.keep_answer(caller, key, &created).await;
                Ok(created)
            }
            Err(error) => {
                // A failed create leaves nothing, so the key may be used again.
                if let Err(error) = self.store.idempotency_abandon(team, key).await {
                    tracing::warn!(team.id = %team, error = chain(&error), "could not free an idempotency key");
                }
                Err(error)
            }
        }
    }

    /// The sandbox runs whether or not this succeeds: a key that stays in progress makes a retry
    /// answer 409, never a second sandbox.
    async fn keep_answer(&self, caller: &TeamCaller, key: &str, created: &Created) {
        let kept = KeptAnswer {
            version: VERSION,
            sandbox: created.sandbox.clone(),
            template: created.template.clone(),
            alias: created.alias.clone(),
            envd_version: created.envd_version.clone(),
            private: created.traffic_token.is_some(),
        };
        let answer = serde_json::to_string(&kept).expect("texts and numbers serialize");
        let team = &caller.team.id;
        if let Err(error) = self.store.idempotency_finish(team, key, &answer).await {
            tracing::warn!(team.id = %team, error = chain(&error), "could not keep an idempotent answer");
        }
    }

    fn replay(&self, answer: &str) -> Result<Created, CreateError> {
        let kept: KeptAnswer = serde_json::from_str(answer)
            .ok()
            .filter(|kept: &KeptAnswer| kept.version == VERSION)
            .ok_or(IdempotencyError::OutcomeUnknown)?;
        Ok(Created {
            access_token: self.keys.envd_token(&kept.sandbox),
            traffic_token: kept.private.then(|| self.keys.traffic_token(&kept.sandbox)),
            domain: self.config.domain.clone(),
            sandbox: kept.sandbox,
            template: kept.template,
            alias: kept.alias,
            envd_version: kept.envd_version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded() {
        let parse = |text: &str| IdempotencyKey::parse(text).is_ok();
        assert!(parse("a") && parse("0-9") && parse(&"x".repeat(255)));
        for wrong in ["", "A", "a b", "a_b", "ä", &"x".repeat(256)] {
            assert!(!parse(wrong), "{wrong:?}");
        }
    }
}
