//! The adapters against the contract, and against what happens to a Redis.

mod loss;
mod memory;
mod proxy;
mod redis;
mod resilient;
mod tls;
