//! One order, from the account to the certificate. What was shown to the authority is taken away
//! again, however it ends; what a process that ended with it left, at the next start.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use casemate_types::chain;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use tracing::warn;

use super::store::{Record, Store};
use super::{AcmeConfig, Challenge, Challenges, DnsHook, HookError};
use crate::pair::{Pair, PairError};

/// Time for the authority to look at everything, and for it to sign.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time for a whole order, the operator's commands included.
const ORDER_TIMEOUT: Duration = Duration::from_secs(1800);
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("the authority at {directory} does not take us")]
    Account {
        directory: String,
        #[source]
        source: instant_acme::Error,
    },
    #[error("the authority does not do what was asked")]
    Asked(#[from] instant_acme::Error),
    #[error("the authority does not offer {challenge} for {name}")]
    NotOffered {
        challenge: &'static str,
        name: String,
    },
    #[error("the authority did not find the names to be ours: {0}")]
    Refused(String),
    #[error("the hook for DNS failed")]
    Hook(#[from] HookError),
    #[error("it took longer than {} minutes", ORDER_TIMEOUT.as_secs() / 60)]
    Timeout,
    #[error("what the authority gave cannot be used")]
    Pair(#[source] PairError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Something that is shown to the authority now.
enum Shown {
    Token(String),
    Record(Record),
}

pub(super) async fn run(
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
) -> Result<Pair, AcmeError> {
    let mut shown = Vec::new();
    let ordered = tokio::time::timeout(ORDER_TIMEOUT, order(config, store, challenges, &mut shown));
    let ordered = ordered.await.unwrap_or(Err(AcmeError::Timeout));
    for shown in shown {
        match (shown, &config.challenge) {
            (Shown::Token(token), _) => challenges.close(&token),
            (Shown::Record(record), Challenge::Dns01(hook)) => remove(hook, store, &record).await,
            (Shown::Record(_), Challenge::Http01) => {}
        }
    }
    if let Err(AcmeError::Asked(instant_acme::Error::Api(problem))) = &ordered
        && problem.r#type.as_deref() == Some(NO_ACCOUNT)
    {
        store.forget_account();
    }
    ordered
}

async fn order(
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
    shown: &mut Vec<Shown>,
) -> Result<Pair, AcmeError> {
    let account = account(config, store).await?;
    let names: Vec<_> = config.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    show_all(&mut order, config, store, challenges, shown).await?;
    if let Challenge::Dns01(hook) = &config.challenge {
        tokio::time::sleep(hook.wait).await;
    }
    let kind = config.challenge.kind();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(kind.clone())
        {
            challenge.set_ready().await?;
        }
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    match order.poll_ready(&patience).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(instant_acme::Error::Api(_)) => {
            return Err(AcmeError::Refused(reasons(&mut order).await));
        }
        Err(error) => return Err(error.into()),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&patience).await?;
    Ok(Pair { chain, key })
}

async fn account(config: &AcmeConfig, store: &Store) -> Result<Account, AcmeError> {
    let refused = |source| AcmeError::Account {
        directory: config.directory.clone(),
        source,
    };
    let builder = match &config.root {
        Some(root) => Account::builder_with_root(root),
        None => Account::builder(),
    };
    let builder = builder.map_err(refused)?;
    if let Some(known) = store.account(&config.directory) {
        return builder.from_credentials(known).await.map_err(refused);
    }
    let contact: Vec<_> = config
        .contact
        .iter()
        .map(|to| format!("mailto:{to}"))
        .collect();
    let new = NewAccount {
        contact: &contact.iter().map(String::as_str).collect::<Vec<_>>(),
        // The operator said so in the settings, else we would not be here.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = builder.create(&new, config.directory.clone(), None).await;
    let (account, credentials) = made.map_err(refused)?;
    store.keep_account(&config.directory, credentials)?;
    Ok(account)
}

async fn show_all(
    order: &mut Order,
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
    shown: &mut Vec<Shown>,
) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // Valid is what was proved a short while ago.
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let host = match authorization.identifier().identifier {
            Identifier::Dns(host) => host.clone(),
            other => format!("{other:?}"),
        };
        let Some(challenge) = authorization.challenge(config.challenge.kind()) else {
            return Err(AcmeError::NotOffered {
                challenge: config.challenge.name(),
                name: host,
            });
        };
        let proof = challenge.key_authorization();
        match &config.challenge {
            Challenge::Http01 => {
                challenges.open(challenge.token.clone(), proof.as_str().to_owned());
                shown.push(Shown::Token(challenge.token.clone()));
            }
            Challenge::Dns01(hook) => {
                let record = Record {
                    name: format!("_acme-challenge.{host}"),
                    value: proof.dns_value(),
                };
                // Before it is known to be there: one that failed may have made it all the same,
                // and we may end in the middle of it.
                if let Err(failed) = store.note_record(&record) {
                    warn!(error = %chain(&failed), "a DNS record could not be noted");
                }
                shown.push(Shown::Record(record.clone()));
                hook.present(&record.name, &record.value).await?;
            }
        }
    }
    Ok(())
}

/// Removes what a process made that ended in the middle of its order.
pub(super) async fn remove_left(config: &AcmeConfig, store: &Store) {
    let Challenge::Dns01(hook) = &config.challenge else {
        return;
    };
    for record in store.records() {
        remove(hook, store, &record).await;
    }
}

/// Tried once: a record that stays does no harm but to order.
async fn remove(hook: &DnsHook, store: &Store, record: &Record) {
    let name = &record.name;
    if let Err(failed) = hook.cleanup(name, &record.value).await {
        warn!(error = %chain(&failed), "a record of {name} may be left");
    }
    if let Err(failed) = store.forget_record(record) {
        warn!(error = %chain(&failed), "a record of {name} will be removed once more");
    }
}

/// Why an order did not become ready, in the authority's words.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let name = state.identifier().to_string();
        let problems = state.challenges.iter().filter_map(|c| c.error.as_ref());
        reasons.extend(problems.map(|problem: &Problem| format!("{name}: {problem}")));
    }
    if reasons.is_empty() {
        return "it gave no reason".into();
    }
    reasons.join("; ")
}

impl Challenge {
    fn kind(&self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::Dns01(_) => ChallengeType::Dns01,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Http01 => "HTTP-01",
            Self::Dns01(_) => "DNS-01",
        }
    }
}
