//! Whether what would be packed can be unpacked again: asked before the first byte goes out, for then
//! it can still be said.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::super::error::BuildError;
use super::super::layer::WHITEOUT;
use super::super::root::open_step;
use super::folder::{Budget, Folder, open_root};
use super::is_left_empty;

/// Looks at all names below `root`.
pub fn check(root: &Path) -> Result<(), BuildError> {
    let mut budget = Budget::default();
    let mut above = vec![Folder::read(open_root(root)?, Vec::new(), &mut budget)?];
    while let Some(folder) = above.last_mut() {
        let Some(name) = folder.next(&mut budget) else {
            above.pop();
            continue;
        };
        let path = folder.path_of(&name)?;
        if name.to_bytes().starts_with(WHITEOUT) {
            let why = "in an image a name with '.wh.' at its beginning takes another away";
            return Err(BuildError::entry(&path, why));
        }
        if is_left_empty(&path) {
            continue;
        }
        match open_step(folder.fd.as_fd(), &name) {
            Ok(fd) => above.push(Folder::read(fd, path, &mut budget)?),
            // No folder, or one of another mount.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
            Err(errno) => return Err(BuildError::read(&path, errno)),
        }
    }
    Ok(())
}
