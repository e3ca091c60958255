//! Contexts on disk: what is selected, what it hashes to, what is packed.

mod archive;
mod sdk;
mod select;
mod tree;
