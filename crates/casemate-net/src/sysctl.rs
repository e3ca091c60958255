//! Kernel settings of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::NetError;

const ROOT: &str = "/proc/sys/net";

/// Sets one value; `name` is a path below `/proc/sys/net`.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NetError> {
    let path = path(name);
    fs::write(&path, value).map_err(|source| NetError::Sysctl { path, source })
}

/// As [`set`]; a setting that this kernel does not have (IPv6 switched off) is skipped.
pub(crate) fn set_if_present(name: &str, value: &str) -> Result<(), NetError> {
    match set(name, value) {
        Err(NetError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn get(name: &str) -> Result<String, NetError> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(NetError::Sysctl { path, source }),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}
