//! The edge between real sockets: clients of every kind on one side, services on the other.

mod crowd;
mod drain;
mod ended;
mod http1;
mod http2;
mod limits;
mod load;
mod pool;
mod refusals;
mod routing;
mod stalled;
mod streaming;
mod support;
mod upgrade;
mod waking;
