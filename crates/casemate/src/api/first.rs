//! The first team of a cluster, and how its keys reach the operator.
//!
//! API servers share nothing but the root secret and the database, and any of them may be the first:
//! so the first keys are derived from the secret, and each server writes them to its own data
//! directory. They are entered into the store once; what is revoked stays so.

use anyhow::Context;
use casemate_control::keys::Keys;
use casemate_control::{Bootstrapped, Control};

use crate::config::{Config, Secret};
use crate::credentials::{self, Bootstrap};
use crate::data_dir::{DataDir, write_private};

/// The administrator's token, which `casemate cluster` and `casemate key` read.
pub(super) fn admin_token(dir: &DataDir, keys: &Keys) -> anyhow::Result<Secret> {
    let token = keys.admin_token();
    write_private(&dir.root().join("secrets/admin_token"), token.as_bytes())?;
    Ok(Secret::new(token))
}

/// With ids for a store that has none yet.
pub(super) fn bootstrap(keys: &Keys) -> Bootstrap {
    let credential = |prefix: &str, purpose: &str| {
        let random = hex::encode(keys.first_credential(purpose));
        Secret::new(format!("{prefix}{random}"))
    };
    Bootstrap {
        team_id: uuid::Uuid::new_v4().to_string(),
        user_id: uuid::Uuid::new_v4().to_string(),
        api_key: credential("e2b_", "api key"),
        access_token: credential("sk_e2b_", "access token"),
    }
}

/// Makes the first team, if no server has yet, and writes its credentials.
pub(super) async fn make(
    control: &Control,
    first: &Bootstrap,
    dir: &DataDir,
    config: &Config,
) -> anyhow::Result<()> {
    let proposed = Bootstrapped {
        team: first.team_id.parse().context("the first team's id")?,
        user: first.user_id.parse().context("the first user's id")?,
    };
    let secrets = crate::control::bootstrap(first);
    let made = control.bootstrap_once(&secrets, &proposed).await;
    let made = made.context("make the first team")?;
    let known = Bootstrap {
        team_id: made.team.to_string(),
        user_id: made.user.to_string(),
        ..first.clone()
    };
    credentials::write(dir, config, &known)
}
