//! Why files cannot be taken.

use std::io;
use std::path::PathBuf;

/// Files of a context that cannot be taken. The first two texts are the SDKs'.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error(
        "Invalid source path \"{source_path}\": absolute paths are not allowed. Use a relative path \
         within the context directory."
    )]
    Absolute { source_path: String },
    #[error(
        "Invalid source path \"{source_path}\": path escapes the context directory. The path must \
         stay within the context directory."
    )]
    Escapes { source_path: String },
    #[error("No files found in {}", path.display())]
    Nothing { path: PathBuf },
    #[error("the pattern '{pattern}' cannot be read: {reason}")]
    Pattern {
        pattern: String,
        reason: &'static str,
    },
    #[error("line {line} of .dockerignore cannot be read: {reason}")]
    Ignore { line: usize, reason: &'static str },
    #[error(".dockerignore is larger than {} KiB", bytes_max >> 10)]
    IgnoreTooLong { bytes_max: u64 },
    #[error("{} is not UTF-8", path.display())]
    NotText { path: PathBuf },
    #[error("one COPY takes more than {files_max} files")]
    TooMany { files_max: usize },
    #[error("the files of '{source_path}' changed while they were read")]
    Changed { source_path: String },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write the archive")]
    Write {
        #[source]
        source: io::Error,
    },
}
