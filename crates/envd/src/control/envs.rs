//! `GET /envs`: the variables that every process gets.

use std::collections::BTreeMap;

use crate::answer::{Answer, json, not_stored};
use crate::guest::Guest;

pub fn envs(guest: &Guest) -> Answer {
    let settings = guest.settings.borrow();
    let all: BTreeMap<&String, &String> = settings.variables().collect();
    not_stored(json(serde_json::to_string(&all).unwrap_or_default()))
}
