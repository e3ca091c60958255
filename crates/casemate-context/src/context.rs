//! The context folder.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::ContextError;
use crate::ignore::Ignore;
use crate::select::{self, Selection};

/// The largest `.dockerignore`, in bytes. Each of its lines is tried on each file.
const IGNORE_BYTES_MAX: u64 = 256 << 10;

/// A folder, and what of it is not to be taken.
#[derive(Debug)]
pub struct Context {
    /// With every link in its path followed.
    pub(crate) root: PathBuf,
    pub(crate) ignore: Ignore,
}

impl Context {
    /// Reads the folder's `.dockerignore`.
    ///
    /// # Errors
    /// The folder is not there, or the file cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ContextError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| ContextError::Read { path, source }
        };
        let root = fs::canonicalize(folder).map_err(read(folder))?;
        if !fs::metadata(&root).map_err(read(folder))?.is_dir() {
            return Err(read(folder)(ErrorKind::NotADirectory.into()));
        }
        let path = root.join(".dockerignore");
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                let mut file = file.take(IGNORE_BYTES_MAX + 1);
                file.read_to_end(&mut text).map_err(read(&path))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(read(&path)(error)),
        }
        if text.len() as u64 > IGNORE_BYTES_MAX {
            return Err(ContextError::IgnoreTooLong {
                bytes_max: IGNORE_BYTES_MAX,
            });
        }
        let text = String::from_utf8(text).map_err(|_| ContextError::NotText { path })?;
        let ignore = Ignore::parse(&text, &root)?;
        Ok(Self { root, ignore })
    }

    /// The files that `COPY source destination` takes.
    ///
    /// # Errors
    /// The source leaves the folder, or names nothing.
    pub fn select(&self, source: &str, destination: &str) -> Result<Selection<'_>, ContextError> {
        select::select(self, source, destination)
    }
}
