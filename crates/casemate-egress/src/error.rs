//! Why the process cannot go on.

use std::io;

/// What ends the egress process; questions that fail are answered, not raised.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("take over the {0} socket")]
    Socket(&'static str, #[source] io::Error),
    #[error("read what the node says")]
    Control(#[source] io::Error),
    #[error("receive questions")]
    Receive(#[source] io::Error),
}
