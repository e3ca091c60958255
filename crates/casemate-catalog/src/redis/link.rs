//! The one connection to Redis that a process has: kept up, shared by all calls, and known to be
//! away when it is, so that nobody waits for what will not come.
//!
//! ```text
//! Trying ──connected──▶ Up ──broken off──▶ Trying
//!    │                  │ └──no answer in time──┐
//!    └──refused, or not at once──▶ Down ◀───────┘   Down ──connected──▶ Up
//! ```
//!
//! A call made while it tries waits a little; while it is down it fails at once. One task connects;
//! calls only say what they saw.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ErrorKind, PushInfo, PushKind, RedisError, ScriptInvocation, ServerErrorKind, Value,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use casemate_types::chain;
use casemate_types::pauses::drawn;

use super::dial::{Dialer, Dialled};
use crate::CatalogError;
use crate::events::Hub;

/// How long calls wait for a connection that broke off just now, or is the first.
const TRYING_MAX: Duration = Duration::from_millis(500);
/// Between two attempts: the first wait, doubled each time up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between the loss of a connection and the next attempt.
const PAUSE_AFTER_LOSS: Duration = Duration::from_millis(20);
/// How often it is tried whether an idle connection still answers.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The connection of one process. Dropping it ends the task that keeps it up.
pub(super) struct Link {
    shared: Arc<Shared>,
    _keeper: AbortOnDropHandle<()>,
}

struct Shared {
    dialer: Dialer,
    state: watch::Sender<State>,
    calls: Semaphore,
    hub: Arc<Hub>,
    /// What the channels of our events begin with.
    channels: String,
}

#[derive(Clone)]
enum State {
    Trying,
    Up {
        id: u64,
        connection: MultiplexedConnection,
    },
    Down(Away),
}

/// Why Redis did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Away {
    #[error("Redis is away: {0}")]
    Down(Arc<str>),
    #[error("Redis did not answer in time")]
    Timeout,
    #[error("the connection to Redis broke off")]
    Broken(#[source] RedisError),
    #[error("Redis refused")]
    Refused(#[source] RedisError),
    #[error("too many calls to Redis are under way")]
    Busy,
}

impl From<RedisError> for Away {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::Timeout
        } else if is_broken(&error) {
            Self::Broken(error)
        } else {
            Self::Refused(error)
        }
    }
}

impl From<Away> for CatalogError {
    fn from(away: Away) -> Self {
        Self::Unavailable(Box::new(away))
    }
}

/// What is asked of Redis.
pub(super) enum Ask<'a> {
    Command(Cmd),
    Script(ScriptInvocation<'a>),
}

impl Ask<'_> {
    async fn of(&self, mut connection: MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(&mut connection).await,
            Self::Script(script) => script.invoke_async(&mut connection).await,
        }
    }
}

/// Whether a call that was cut off may be made again: it may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    No,
}

impl Link {
    /// Begins to connect, and does so until it is dropped. To be called inside a runtime.
    pub(super) fn new(dialer: Dialer, hub: Arc<Hub>, channels: String) -> Self {
        let shared = Arc::new(Shared {
            calls: Semaphore::new(dialer.settings().calls_max),
            dialer,
            state: watch::Sender::new(State::Trying),
            hub,
            channels,
        });
        let keeper = tokio::spawn(keep(Arc::clone(&shared)));
        Self {
            shared,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// Asks within the limit of a call.
    pub(super) async fn ask(&self, ask: Ask<'_>, again: Again) -> Result<Value, Away> {
        let Ok(_permit) = self.shared.calls.try_acquire() else {
            return Err(Away::Busy);
        };
        let (mut id, mut connection) = self.shared.up().await?;
        let asked = async {
            let mut answer = ask.of(connection.clone()).await;
            if again == Again::Yes && answer.as_ref().is_err_and(is_broken) {
                self.shared.saw(id, State::Trying);
                (id, connection) = self.shared.up().await?;
                answer = ask.of(connection).await;
            }
            answer.map_err(Away::from)
        };
        let limit = self.shared.dialer.settings().call_timeout;
        let asked = tokio::time::timeout(limit, asked).await;
        let asked = asked.unwrap_or(Err(Away::Timeout));
        match &asked {
            Err(Away::Timeout) => self.shared.saw(id, State::Down(Away::Timeout)),
            Err(Away::Broken(_)) => self.shared.saw(id, State::Trying),
            Ok(_) | Err(Away::Down(_) | Away::Refused(_) | Away::Busy) => {}
        }
        asked
    }

    /// Returns when the connection is up, at once if it is.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub(super) async fn is_up(&self) {
        let mut state = self.shared.state.subscribe();
        // An error would say that the sender is gone, which `self` holds.
        let _ = state
            .wait_for(|state| matches!(state, State::Up { .. }))
            .await;
    }
}

/// Whether another connection may do better. One to a replica that was the master does not.
fn is_broken(error: &RedisError) -> bool {
    let leads_elsewhere = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    let is_lost = error.is_io_error() || error.is_unrecoverable_error();
    !error.is_timeout() && (is_lost || leads_elsewhere)
}

impl Shared {
    async fn up(&self) -> Result<(u64, MultiplexedConnection), Away> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Trying));
        match tokio::time::timeout(TRYING_MAX, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Up { id, connection } => Ok((*id, connection.clone())),
                State::Down(away) => Err(away.clone()),
                State::Trying => Err(Away::Down("it is not connected yet".into())),
            },
            Ok(Err(_)) | Err(_) => Err(Away::Down("it is not connected yet".into())),
        }
    }

    /// Notes what was seen of the connection `id`, unless there is another by now.
    fn saw(&self, id: u64, next: State) {
        self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Up { id: now, .. } if *now == id);
            if is_it {
                *state = next;
            }
            is_it
        });
    }

    /// Of the connection `id`: what the server says by itself.
    fn on_push(
        self: &Arc<Self>,
        id: u64,
    ) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + use<> {
        let shared = Arc::clone(self);
        move |push| {
            match (push.kind, push.data.as_slice()) {
                (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                    let channel = std::str::from_utf8(channel).ok();
                    let topic = channel.and_then(|channel| channel.strip_prefix(&shared.channels));
                    if let Some(topic) = topic {
                        shared.hub.tell(topic, payload);
                    }
                }
                (PushKind::Disconnection, _) => shared.saw(id, State::Trying),
                // Confirmations, and what nobody asked for.
                _ => {}
            }
            Ok(())
        }
    }
}

/// Connects for ever.
async fn keep(shared: Arc<Shared>) {
    let mut pause = PAUSE_MIN;
    let mut is_known_away = false;
    // Why, as it was told last: a password that was changed looks like a Redis that died otherwise.
    let mut told = String::new();
    for id in 0_u64.. {
        let connected = async {
            let dialled = dial(&shared, id).await?;
            let heard = prepare(&shared, &dialled.connection).await?;
            Ok::<_, Away>((dialled, heard))
        };
        match connected.await {
            // The driver is dropped with the end of this round, and the connection with it.
            Ok((
                Dialled {
                    connection,
                    driver: _driver,
                },
                heard,
            )) => {
                if std::mem::take(&mut is_known_away) {
                    tracing::info!("Redis is back");
                }
                pause = PAUSE_MIN;
                told.clear();
                let away = serve(&shared, id, connection, heard).await;
                shared.hub.went_deaf();
                is_known_away = true;
                tracing::warn!(error = chain(&away), "the connection to Redis was lost");
                // At once, but not without end where each is cut as soon as it is made.
                tokio::time::sleep(drawn(PAUSE_AFTER_LOSS)).await;
            }
            Err(away) => {
                shared.hub.went_deaf();
                is_known_away = true;
                let why = chain(&away).to_string();
                if why != told {
                    tracing::warn!(error = why, "Redis cannot be reached; it is tried again");
                    told = why;
                }
                shared.state.send_replace(State::Down(away));
                tokio::time::sleep(drawn(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// One attempt, known as down as soon as it is not done at once.
async fn dial(shared: &Arc<Shared>, id: u64) -> Result<Dialled, Away> {
    let mut dialling = std::pin::pin!(shared.dialer.dial(shared.on_push(id)));
    let dialled = match tokio::time::timeout(TRYING_MAX, &mut dialling).await {
        Ok(dialled) => dialled,
        Err(_) => {
            let away = Away::Down("it is not connected yet".into());
            shared.state.send_replace(State::Down(away));
            dialling.await
        }
    };
    dialled.map_err(|error| Away::Down(chain(&error).to_string().into()))
}

/// Before anybody can make a call, so that nothing that a call brings about is missed; and one that
/// still reads its data answers nothing.
async fn prepare(
    shared: &Shared,
    connection: &MultiplexedConnection,
) -> Result<HashSet<String>, Away> {
    let mut connection = connection.clone();
    ping(&mut connection).await?;
    let mut heard = HashSet::new();
    subscribe(shared, &mut heard, &mut connection).await?;
    Ok(heard)
}

/// Keeps one connection until it is lost, and says why: its subscriptions are those of the hub, and
/// it answers.
async fn serve(
    shared: &Arc<Shared>,
    id: u64,
    mut connection: MultiplexedConnection,
    mut heard: HashSet<String>,
) -> Away {
    let mut changes = shared.hub.changes();
    // What changed before this is seen by the first look.
    changes.mark_changed();
    shared.state.send_replace(State::Up {
        id,
        connection: connection.clone(),
    });
    let mut state = shared.state.subscribe();
    let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let kept = tokio::select! {
            away = lost(&mut state) => return away,
            _ = changes.changed() => subscribe(shared, &mut heard, &mut connection).await,
            _ = pings.tick() => ping(&mut connection).await,
        };
        if let Err(away) = kept {
            shared.saw(id, State::Down(away.clone()));
            return away;
        }
    }
}

/// Waits until somebody has seen that the connection is lost.
async fn lost(state: &mut watch::Receiver<State>) -> Away {
    let lost = state
        .wait_for(|state| !matches!(state, State::Up { .. }))
        .await;
    match lost.as_deref() {
        Ok(State::Down(away)) => away.clone(),
        Ok(State::Up { .. } | State::Trying) | Err(_) => Away::Down("it was closed".into()),
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Away> {
    let pong = Cmd::new().arg("PING").take().query_async(connection).await;
    pong.map_err(Away::from)
}

/// Makes what the connection hears what the hub wants.
async fn subscribe(
    shared: &Shared,
    heard: &mut HashSet<String>,
    connection: &mut MultiplexedConnection,
) -> Result<(), Away> {
    let wanted: HashSet<String> = shared.hub.topics().into_iter().collect();
    let channel = |topic: &String| format!("{}{topic}", shared.channels);
    for topic in heard.difference(&wanted).cloned().collect::<Vec<_>>() {
        if shared.hub.went_deaf_to(&topic) {
            let done = connection.unsubscribe(channel(&topic)).await;
            done.map_err(Away::from)?;
            heard.remove(&topic);
        }
    }
    for topic in wanted.difference(heard).cloned().collect::<Vec<_>>() {
        let done = connection.subscribe(channel(&topic)).await;
        match done.map_err(Away::from) {
            Ok(()) => {
                // Its answer comes after the subscription stands, whatever that one's looks like.
                ping(connection).await?;
                shared.hub.hears(&topic);
            }
            // Its user may not. Everything else goes on.
            Err(away @ Away::Refused(_)) => {
                tracing::warn!(error = chain(&away), "could not listen to {topic} in Redis");
            }
            Err(away) => return Err(away),
        }
        heard.insert(topic);
    }
    Ok(())
}
