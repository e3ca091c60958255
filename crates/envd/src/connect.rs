//! The Connect protocol over HTTP/1.1: unary calls, streams to the client, streams from it.
//! JSON and binary messages, deadlines, errors. Knows envelopes and codes, not methods.

mod content;
mod deadline;
mod envelope;
mod error;
mod gzip;
mod stream;
mod unary;

pub use error::{Code, RpcError};
pub use stream::{Incoming as Messages, Sink, client_stream, server_stream};
pub use unary::unary;

use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;

use crate::answer::Answer;
use crate::body::RequestBody;
use crate::guest::Guest;
use crate::limits;
use crate::users::User;

/// One call of a method, before its messages are read.
pub struct Call {
    pub headers: HeaderMap,
    pub body: RequestBody,
    pub context: Context,
}

/// What a method knows of its call besides the message.
#[derive(Clone)]
pub struct Context {
    pub guest: Rc<Guest>,
    /// The account that the caller named, already looked up.
    pub named_user: Option<User>,
    /// The deadline of the call; of a process that it starts, also the life.
    pub deadline: Option<Duration>,
    /// Silence after which the stream sends a keepalive.
    pub keepalive: Duration,
}

impl Context {
    pub fn new(guest: Rc<Guest>, named_user: Option<User>, headers: &HeaderMap) -> Self {
        let keepalive = headers
            .get("keepalive-ping-interval")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .filter(|seconds| *seconds > 0)
            .map_or(limits::KEEPALIVE, |seconds: u32| {
                Duration::from_secs(seconds.into())
            });
        Self {
            guest,
            named_user,
            deadline: None,
            keepalive,
        }
    }

    /// The account that the call runs for.
    pub fn user(&self) -> Result<User, RpcError> {
        if let Some(user) = &self.named_user {
            return Ok(user.clone());
        }
        let name = self.guest.settings.borrow().default_user.clone();
        if name.is_empty() {
            return Err(RpcError::new(Code::Unauthenticated, "no user specified"));
        }
        User::by_name(&name).ok_or_else(|| {
            RpcError::new(
                Code::Unauthenticated,
                format!("invalid default user: '{name}'"),
            )
        })
    }
}

/// A call that is refused before its method is reached, in the shape that the caller reads.
pub fn refuse(headers: &HeaderMap, error: &RpcError) -> Answer {
    if stream::is_stream(headers) {
        stream::failed(headers, error)
    } else {
        unary::failed(error)
    }
}
