//! Laying the file and the environment over the defaults. The defaults say which keys there are
//! and of which type each is.

use std::ffi::OsString;

use anyhow::{Context, bail};
use toml::{Table, Value};

use super::guide::{Meaning, NAMES};

const PREFIX: &str = "CASEMATE_";

/// Variables of ours that are no settings of the platform: those of tests and scripts.
const NO_SETTINGS: &[&str] = &[
    "CASEMATE_TEST_",
    "CASEMATE_BENCH_",
    "CASEMATE_INTERNAL_",
    "CASEMATE_ENVD",
];

/// Lays a file over `table`. Types are checked later, names here.
pub(super) fn merge_file(table: &mut Table, text: &str) -> anyhow::Result<()> {
    let file: Table = text.parse().context("this is not TOML")?;
    for (section, value) in file {
        let Some(Value::Table(known)) = table.get_mut(&section) else {
            bail!("unknown section [{section}]; known are {}", names(table));
        };
        let Value::Table(keys) = value else {
            bail!("{section} is a section: write [{section}]");
        };
        for (key, value) in keys {
            match known.get_mut(&key) {
                Some(place) => *place = whole_as_float(place, value),
                None => bail!("unknown key {section}.{key}; known are {}", names(known)),
            }
        }
    }
    Ok(())
}

/// Lays the environment over `table`.
pub(super) fn merge_environment(
    table: &mut Table,
    variables: impl Iterator<Item = (OsString, OsString)>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    // The guide's names first: a name of ours wins over them.
    let (ours, others): (Vec<_>, Vec<_>) = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .partition(|(name, _)| name.starts_with(PREFIX));
    for (name, value) in others {
        let known = |n: &str| n == name || n.to_uppercase() == name;
        match NAMES.iter().find(|(n, _)| known(n)) {
            Some((_, Meaning::Key(section, key))) => set(table, &name, section, key, value)?,
            Some((_, Meaning::Seconds(section, key))) => {
                let number = value.to_str().and_then(|text| text.strip_suffix('s'));
                let value = number.map_or_else(|| value.clone(), OsString::from);
                set(table, &name, section, key, value)?;
            }
            Some((_, Meaning::Nothing(why))) => {
                warnings.push(format!("{name} has no effect: {why}"));
            }
            None => {}
        }
    }
    for (name, value) in ours {
        if NO_SETTINGS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let lower = name[PREFIX.len()..].to_lowercase();
        // A section's name may have the character that parts it from the key.
        let mut parts = lower
            .match_indices('_')
            .map(|(at, _)| (&lower[..at], &lower[at + 1..]));
        let first = parts.clone().next();
        let Some((section, key)) = parts
            .find(|(section, _)| table.contains_key(*section))
            .or(first)
        else {
            bail!("unknown variable {name}: settings are CASEMATE_<SECTION>_<KEY>");
        };
        set(table, &name, section, key, value)?;
    }
    Ok(())
}

fn set(
    table: &mut Table,
    name: &str,
    section: &str,
    key: &str,
    value: OsString,
) -> anyhow::Result<()> {
    let Some(Value::Table(known)) = table.get_mut(section) else {
        bail!("unknown variable {name}: sections are {}", names(table));
    };
    let Some(place) = known.get_mut(key) else {
        bail!(
            "unknown variable {name}: keys of [{section}] are {}",
            names(known)
        );
    };
    let Ok(text) = value.into_string() else {
        bail!("{name} is not UTF-8");
    };
    *place = parse_as(place, &text).with_context(|| format!("{name}={}", shown(key, &text)))?;
    Ok(())
}

/// The text as a value of the same type as what stands there.
fn parse_as(place: &Value, text: &str) -> anyhow::Result<Value> {
    Ok(match place {
        Value::String(_) => Value::String(text.into()),
        Value::Integer(_) => Value::Integer(text.parse().context("expected a whole number")?),
        Value::Float(_) => Value::Float(text.parse().context("expected a number")?),
        Value::Boolean(_) => Value::Boolean(text.parse().context("expected true or false")?),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.into())).collect())
        }
        Value::Datetime(_) | Value::Table(_) => bail!("this cannot be set by a variable"),
    })
}

/// TOML tells 32 from 32.0; people do not.
fn whole_as_float(place: &Value, value: Value) -> Value {
    match (place, value) {
        (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    }
}

fn shown<'a>(key: &str, text: &'a str) -> &'a str {
    if key.contains("secret") || key.contains("token") {
        "<redacted>"
    } else {
        text
    }
}

fn names(table: &Table) -> String {
    table
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
