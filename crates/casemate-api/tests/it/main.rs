//! The router in process, over SQLite in a temporary directory and a fake node.

mod auth;
mod bodies;
mod build_limits;
mod build_luck;
mod builds;
mod create;
mod events;
mod exports;
mod gc;
mod idempotency;
mod keys;
mod lifecycle;
mod list;
mod logs;
mod metrics;
mod network;
mod not_yet;
mod pausing;
mod platform;
mod snapshots;
mod survival;
mod tag_history;
mod templates;
mod uploads;
mod warm;
mod world;
