//! The source of a COPY step in the unpacked archive.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use crate::build::error::BuildError;
use crate::build::root::{Root, open_step};

/// What is copied.
pub enum Source {
    /// What is in a folder, not the folder itself.
    Contents(OwnedFd),
    /// A file or a link.
    One { folder: OwnedFd, name: CString },
}

/// The entry that the leading elements of `source` without a glob name: `src/*.py` is `src`, as the
/// client packed only what matched.
pub fn select(tree: &OwnedFd, source: &str) -> Result<Source, BuildError> {
    let missing = || BuildError::Asked(format!("source path does not exist: {source}"));
    let failed = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => missing(),
        errno => BuildError::write(source.as_bytes(), errno),
    };
    let mut leading = literal(source);
    if leading.contains(&"..") {
        return Err(BuildError::entry(
            source.as_bytes(),
            "a source must not contain '..'",
        ));
    }
    let again = tree
        .try_clone()
        .map_err(|error| BuildError::write(source.as_bytes(), error))?;
    let Some(last) = leading.pop() else {
        return Ok(Source::Contents(again));
    };
    let root = Root::without_links(again);
    let folder = root.folder(leading.join("/").as_bytes()).map_err(failed)?;
    let name = CString::new(last).map_err(|_| missing())?;
    let found = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode).is_dir() {
        let contents = open_step(folder.as_fd(), &name).map_err(failed)?;
        return Ok(Source::Contents(contents));
    }
    Ok(Source::One { folder, name })
}

/// Elements before the first with a character of a glob, as either SDK knows them.
fn literal(source: &str) -> Vec<&str> {
    source
        .split('/')
        .take_while(|element| !element.contains(['*', '?', '[', '{']))
        .filter(|element| !matches!(*element, "" | "."))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_elements() {
        for (source, expected) in [
            (".", ""),
            ("./", ""),
            ("*", ""),
            ("d*", ""),
            ("a.txt", "a.txt"),
            ("./dir", "dir"),
            ("dir/", "dir"),
            ("dir/**", "dir"),
            ("src/*.py", "src"),
            ("a/b?/c", "a"),
            ("a//b/[x]/c", "a/b"),
            ("a/{b,c}", "a"),
        ] {
            assert_eq!(literal(source).join("/"), expected, "{source}");
        }
    }
}
