//! Watchers that are asked for their events: `CreateWatcher`, `GetWatcherEvents`, `RemoveWatcher`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use envd_wire::filesystem::{
    CreateWatcherRequest, CreateWatcherResponse, FilesystemEvent, GetWatcherEventsRequest,
    GetWatcherEventsResponse, RemoveWatcherRequest, RemoveWatcherResponse,
};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::task::AbortHandle;

use super::events::{Wanted, Watcher};
use super::resolve;
use crate::connect::{Context, RpcError};
use crate::limits::EVENTS_PER_WATCHER;
use crate::paths::os_text;

const ID_LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 20;

/// All watchers of the agent.
#[derive(Default)]
pub struct Watchers {
    /// Of both kinds.
    pub open: Rc<Cell<usize>>,
    polled: RefCell<HashMap<String, Polled>>,
}

struct Polled {
    gathered: Rc<RefCell<Gathered>>,
    task: AbortHandle,
}

#[derive(Default)]
struct Gathered {
    events: Vec<FilesystemEvent>,
    failure: Option<RpcError>,
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn create(
    context: Context,
    request: CreateWatcherRequest,
) -> Result<CreateWatcherResponse, RpcError> {
    let (_, path) = resolve(&context, &request.path)?;
    let wanted = Wanted {
        path,
        recursive: request.recursive,
        include_entry: request.include_entry,
        allow_network_mounts: request.allow_network_mounts,
    };
    let watchers = &context.guest.watchers;
    let watcher = Watcher::open(&watchers.open, wanted).await?;
    let watcher_id = random_id()?;
    let gathered = Rc::default();
    let task = tokio::task::spawn_local(gather(watcher, Rc::clone(&gathered))).abort_handle();
    watchers
        .polled
        .borrow_mut()
        .insert(watcher_id.clone(), Polled { gathered, task });
    Ok(CreateWatcherResponse { watcher_id })
}

/// Takes what there is; a failure is told again each time.
pub async fn events(
    context: Context,
    request: GetWatcherEventsRequest,
) -> Result<GetWatcherEventsResponse, RpcError> {
    let polled = context.guest.watchers.polled.borrow();
    let watcher = polled
        .get(&request.watcher_id)
        .ok_or_else(|| missing(&request.watcher_id))?;
    let mut gathered = watcher.gathered.borrow_mut();
    let events = std::mem::take(&mut gathered.events);
    match &gathered.failure {
        Some(failure) => Err(failure.clone()),
        None => Ok(GetWatcherEventsResponse { events }),
    }
}

pub async fn remove(
    context: Context,
    request: RemoveWatcherRequest,
) -> Result<RemoveWatcherResponse, RpcError> {
    match context
        .guest
        .watchers
        .polled
        .borrow_mut()
        .remove(&request.watcher_id)
    {
        Some(_) => Ok(RemoveWatcherResponse::default()),
        None => Err(missing(&request.watcher_id)),
    }
}

async fn gather(mut watcher: Watcher, gathered: Rc<RefCell<Gathered>>) {
    loop {
        let next = watcher.next().await;
        let mut gathered = gathered.borrow_mut();
        match next {
            Ok(events) if gathered.events.len() + events.len() <= EVENTS_PER_WATCHER => {
                gathered.events.extend(events);
            }
            // Nobody fetches them: say so instead of growing.
            Ok(_) => {
                gathered.events = Vec::new();
                let text = "watcher error: queue or buffer overflow: events were not fetched";
                gathered.failure = Some(RpcError::internal(text));
                return;
            }
            Err(error) => {
                gathered.failure = Some(error);
                return;
            }
        }
    }
}

fn missing(id: &str) -> RpcError {
    RpcError::not_found(format!("watcher with id {id} not found"))
}

fn random_id() -> Result<String, RpcError> {
    let mut id = String::from("w");
    let mut bytes = [0_u8; 2 * ID_LENGTH];
    while id.len() <= ID_LENGTH {
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| {
            RpcError::internal(format!(
                "error generating watcher id: {}",
                os_text(&error.into())
            ))
        })?;
        // 252 is the last multiple of 36 in a byte: beyond, some letters would come more often.
        let letters = bytes.iter().filter(|byte| **byte < 252);
        id.extend(letters.map(|byte| char::from(ID_LETTERS[usize::from(byte % 36)])));
    }
    id.truncate(ID_LENGTH + 1);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_documented_and_differ() {
        let (a, b) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(a, b);
        for id in [a, b] {
            assert_eq!(id.len(), 21);
            assert!(id.starts_with('w'));
            assert!(id.bytes().all(|byte| ID_LETTERS.contains(&byte)));
        }
    }
}
