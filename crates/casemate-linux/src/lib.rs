//! Safe wrappers over the Linux kernel: the only crate with `unsafe`. Owns no policy.

pub mod guest;
pub mod scm;
