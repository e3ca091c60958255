//! The authority's record in the store: sealed with a key of the root secret, made once.

use std::time::SystemTime;

use casemate_cluster::Authority;
use casemate_store::Store;

use super::MembersError;
use crate::keys::Keys;

const AUTHORITY: &str = "cluster.authority";
/// By which a server with another secret is told before it does anything.
const SECRET_CHECK: &str = "cluster.secret_check";

pub(super) async fn open(store: &dyn Store, keys: &Keys) -> Result<Authority, MembersError> {
    let check = keys.check();
    if store.setting_claim(SECRET_CHECK, &check).await? != check {
        return Err(MembersError::OtherSecret);
    }
    let sealed = match store.setting_by_name(AUTHORITY).await? {
        Some(sealed) => sealed,
        None => {
            let made = Authority::make(now())?;
            let sealed = hex::encode(keys.seal_authority(made.record().as_bytes()));
            store.setting_claim(AUTHORITY, &sealed).await?
        }
    };
    let sealed = hex::decode(sealed).map_err(|_| MembersError::Sealed)?;
    let record = keys.open_authority(&sealed);
    let record = record.map_err(|_| MembersError::Sealed)?;
    let record = String::from_utf8(record).map_err(|_| MembersError::Sealed)?;
    Ok(Authority::read(&record)?)
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}
