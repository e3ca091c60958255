//! What the schemas say and `Option` does not: an absent field is `None`, `null` is an error.

use serde::de::{Deserialize, Deserializer, Error};

/// For a field that may be absent but not `null` (use with `default`).
pub(crate) fn non_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An int32 of at least 0 that must be there.
pub(crate) fn natural<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = i32::deserialize(deserializer)?;
    u32::try_from(value).map_err(|_| D::Error::custom("number must be at least 0"))
}

/// An int32 of at least 0 that may be absent but not `null` (use with `default`).
pub(crate) fn natural_opt<'de, D>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    natural(deserializer).map(Some)
}

/// A refresh: 0 to one hour, absent but not `null` (use with `default`).
pub(crate) fn refresh_seconds<'de, D>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    let max = casemate_types::limits::REFRESH_SECONDS_MAX;
    match natural(deserializer)? {
        seconds if seconds <= max => Ok(Some(seconds)),
        _ => Err(D::Error::custom(format_args!(
            "number must be at most {max}"
        ))),
    }
}
