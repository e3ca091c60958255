//! What the schemas say and `Option` does not: an absent field is `None`, `null` is an error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// For a field that may be absent but not `null` (use with `default`).
pub(crate) fn non_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An object that may be absent but not `null` (use with `default`). A struct alone would read a
/// list too, field by field in our order.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_map(Object(PhantomData)).map(Some)
}

/// The same where `null` is as good as absent.
pub(crate) fn object_or_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Option<Strict<T>> = Option::deserialize(deserializer)?;
    Ok(read.map(|Strict(value)| value))
}

/// A list of objects that may be absent but not `null` (use with `default`).
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Vec<Strict<T>> = Vec::deserialize(deserializer)?;
    Ok(Some(read.into_iter().map(|Strict(value)| value).collect()))
}

struct Strict<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object(PhantomData)).map(Self)
    }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A field that must not be there (use with `default`).
pub(crate) fn set_at_create<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom(
        "is set when a sandbox is created and cannot be changed",
    ))
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
