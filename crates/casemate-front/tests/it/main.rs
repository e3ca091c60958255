//! Finding sandboxes over a catalog, nodes and API servers that do as a test says.

mod edge;
mod finding;
mod list;
mod support;
