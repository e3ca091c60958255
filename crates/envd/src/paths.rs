//! From the path in a request to the path on disk, and making what is missing above it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use crate::limits::PATH_BYTES;
use crate::users::User;

#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("cannot expand user-specific home dir")]
    OtherHome,
    #[error("path contains a NUL byte")]
    Nul,
    #[error("path of more than {PATH_BYTES} bytes")]
    TooLong,
}

/// Expands `path` for `user`. Absolute paths stay as they are: the kernel resolves them.
/// Relative ones belong to the home directory.
pub fn expand(path: &str, user: &User, workdir: Option<&str>) -> Result<String, PathError> {
    if path.contains('\0') {
        return Err(PathError::Nul);
    }
    if path.len() > PATH_BYTES {
        return Err(PathError::TooLong);
    }
    let path = match (path, workdir) {
        ("", Some(workdir)) => workdir,
        ("", None) => return Ok(user.home.clone()),
        _ => path,
    };
    if path == "~" {
        return Ok(user.home.clone());
    }
    if let Some(rest) = path.strip_prefix("~/") {
        return Ok(clean(&format!("{}/{rest}", user.home)));
    }
    if path.starts_with('~') {
        return Err(PathError::OtherHome);
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Ok(clean(&format!("{}/{path}", user.home)))
}

/// Resolves `.`, `..` and double slashes by the text alone.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The last element; `/` for the root.
pub fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        None | Some("") => "/",
        Some(name) => name,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("path is a file: {0}")]
    IsFile(String),
    #[error("stat {path}: {}", os_text(.source))]
    Look { path: String, source: io::Error },
    #[error("mkdir {path}: {}", os_text(.source))]
    Make { path: String, source: io::Error },
    #[error("chown {path}: {}", os_text(.source))]
    Own { path: String, source: io::Error },
}

impl EnsureError {
    /// What the kernel said when it could not make a directory.
    pub fn making(&self) -> Option<&io::Error> {
        match self {
            Self::Make { source, .. } => Some(source),
            Self::IsFile(_) | Self::Look { .. } | Self::Own { .. } => None,
        }
    }
}

/// Makes `path` and all that is missing above it, for `user`. What exists is left alone; somebody
/// else making the same at the same time is no error.
pub fn ensure_dirs(path: &Path, user: &User) -> Result<(), EnsureError> {
    let mut missing: Vec<PathBuf> = Vec::new();
    for ancestor in path.ancestors() {
        let shown = || ancestor.display().to_string();
        match fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => break,
            Ok(_) => return Err(EnsureError::IsFile(shown())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(ancestor.to_owned());
            }
            Err(source) => {
                return Err(EnsureError::Look {
                    path: shown(),
                    source,
                });
            }
        }
    }
    for dir in missing.into_iter().rev() {
        make_dir(&dir, user)?;
    }
    Ok(())
}

fn make_dir(dir: &Path, user: &User) -> Result<(), EnsureError> {
    let shown = || dir.display().to_string();
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => chown(dir, Some(user.uid), Some(user.gid)).map_err(|source| EnsureError::Own {
            path: shown(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if dir.is_dir() {
                Ok(())
            } else {
                Err(EnsureError::IsFile(shown()))
            }
        }
        Err(source) => Err(EnsureError::Make {
            path: shown(),
            source,
        }),
    }
}

/// The words of the C library for an error, in lower case and without the number, as users of the
/// upstream agent know them ("no such file or directory").
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "user".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/user".into(),
        }
    }

    #[track_caller]
    fn check(path: &str, workdir: Option<&str>, expected: &str) {
        assert_eq!(expand(path, &user(), workdir).unwrap(), expected);
    }

    #[test]
    fn paths_of_requests() {
        check("", None, "/home/user");
        check("", Some("/w"), "/w");
        check("", Some("sub"), "/home/user/sub");
        check("", Some("~/w"), "/home/user/w");
        check("~", Some("/w"), "/home/user");
        check("~/x", None, "/home/user/x");
        check("/a/../b", None, "/a/../b");
        check("test", Some("/w"), "/home/user/test");
        check("../x/./y//z", None, "/home/x/y/z");
        check("../../../..", None, "/");
    }

    #[test]
    fn refused_paths() {
        assert!(matches!(
            expand("~other/x", &user(), None),
            Err(PathError::OtherHome)
        ));
        assert!(matches!(expand("a\0b", &user(), None), Err(PathError::Nul)));
        let long = "a".repeat(PATH_BYTES + 1);
        assert!(matches!(
            expand(&long, &user(), None),
            Err(PathError::TooLong)
        ));
    }

    #[test]
    fn base_names() {
        for (path, expected) in [("/a/b", "b"), ("/a/b/", "b"), ("/", "/"), ("x", "x")] {
            assert_eq!(base_name(path), expected);
        }
    }

    #[test]
    fn parents_are_made_once_and_files_stay_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let me = User {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            ..user()
        };
        let deep = dir.path().join("a/b/c");
        ensure_dirs(&deep, &me).unwrap();
        ensure_dirs(&deep, &me).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        assert!(matches!(
            ensure_dirs(&dir.path().join("f"), &me),
            Err(EnsureError::IsFile(_))
        ));
        let below = ensure_dirs(&dir.path().join("f/x"), &me).unwrap_err();
        assert!(matches!(below, EnsureError::Look { .. }), "{below}");
    }

    #[test]
    fn error_texts() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(os_text(&error), "no such file or directory");
    }
}
