//! `POST /build/copy`: the files of a COPY step, from the archive that a client uploaded.
//!
//! ```text
//!   archive ──► private folder ──► the source in it ──► owner, mode ──► moved to the target
//! ```
//! The private folder is beside the target, so that moving is renaming; it goes in every case. Rules
//! as in the template specification, 3.6 and 4.4, except that folders made for the target belong to
//! the owner.

mod accounts;
mod private;
mod put;
mod select;
mod unpack;

use std::io::Read;
use std::path::Path;

use super::Done;
use super::error::BuildError;
use super::input::{Input, Stop};
use super::receive::receive;
use super::root::{Root, as_path};
use crate::answer::Answer;
use crate::limits::PATH_BYTES;
use crate::query::value;
use crate::route::Plain;
use accounts::Owner;
use private::Private;
use put::Put;

pub async fn copy(call: Plain) -> Answer {
    let order = Order::read(call.request.uri().query());
    receive(call, move |input: Input| {
        let stop = input.stop.clone();
        run(&order?, input, &stop)
    })
    .await
}

/// What the query says.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    /// As the step has it: globs and all.
    source: String,
    /// Absolute; a slash at the end means something.
    target: String,
    owner: String,
    group: String,
    /// Twelve bits, of all that is copied.
    mode: Option<u32>,
}

impl Order {
    fn read(query: Option<&str>) -> Result<Self, BuildError> {
        let asked = |text: &str| BuildError::Asked(text.to_owned());
        let given = |name: &str| value(query, name).filter(|value| !value.is_empty());
        let needed = |name: &str| given(name).ok_or_else(|| asked(&format!("{name} is required")));
        let owner = needed("owner")?;
        let order = Self {
            source: needed("source")?,
            target: target(&needed("target")?, given("workdir").as_deref())?,
            group: given("group").unwrap_or_else(|| owner.clone()),
            owner,
            mode: match given("mode") {
                Some(text) => Some(mode(&text).ok_or_else(|| asked("mode must be octal"))?),
                None => None,
            },
        };
        for (name, path) in [("source", &order.source), ("target", &order.target)] {
            if path.len() >= PATH_BYTES || path.contains('\0') {
                return Err(asked(&format!("{name} is not a possible path")));
            }
        }
        Ok(order)
    }
}

fn target(target: &str, workdir: Option<&str>) -> Result<String, BuildError> {
    if target.starts_with('/') {
        return Ok(target.to_owned());
    }
    match workdir {
        Some(workdir) if workdir.starts_with('/') => Ok(format!("{workdir}/{target}")),
        _ => Err(BuildError::Asked(
            "a relative target needs an absolute workdir".to_owned(),
        )),
    }
}

/// One to four octal digits, with or without a zero more in front.
fn mode(text: &str) -> Option<u32> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| plain)?;
    (mode <= 0o7777).then_some(mode)
}

fn run(order: &Order, input: impl Read, stop: &Stop) -> Result<Done, BuildError> {
    let owner = Owner::find(&order.owner, &order.group)?;
    let system =
        Root::of_system(Path::new("/")).map_err(|source| BuildError::write(b"/", source))?;
    let beside = put::nearest(&system, &order.target)?;
    let private = Private::make(beside)
        .map_err(|source| BuildError::write(order.target.as_bytes(), source))?;
    let done = within(order, input, stop, owner, &system, &private);
    let removed = private
        .remove()
        .map_err(|source| BuildError::write(order.target.as_bytes(), source));
    let done = done?;
    removed?;
    Ok(done)
}

fn within(
    order: &Order,
    input: impl Read,
    stop: &Stop,
    owner: Owner,
    system: &Root,
    private: &Private,
) -> Result<Done, BuildError> {
    let tree = private
        .tree()
        .map_err(|source| BuildError::write(order.target.as_bytes(), source))?;
    let done = unpack::unpack(input, &tree, stop)?;
    let source = select::select(&tree, &order.source)?;
    let put = Put {
        system,
        owner,
        mode: order.mode,
        stop,
    };
    put.own(&source)?;
    put.move_to(&source, as_path(order.target.as_bytes()))?;
    Ok(done)
}

#[cfg(test)]
mod tests;
