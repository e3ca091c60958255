//! Extended attributes `user.e2b.*`: what users attach to files.

use std::collections::HashMap;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

const PREFIX: &[u8] = b"user.e2b.";
/// The kernel's own limits.
const LIST_BYTES: usize = 64 * 1024;
const VALUE_BYTES: usize = 64 * 1024;
const USUAL_LIST_BYTES: usize = 1024;

/// All pairs that are text, following links. Errors are no pairs.
pub fn read(path: &Path) -> HashMap<String, String> {
    attributes(path)
        .into_iter()
        .filter_map(|name| {
            let key = String::from_utf8(name[PREFIX.len()..].to_vec()).ok()?;
            let value = String::from_utf8(value(path, &name)?).ok()?;
            Some((key, value))
        })
        .collect()
}

/// Replaces all pairs. On a file system without such attributes, does nothing.
pub fn replace<'a>(
    path: &Path,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Errno> {
    let mut stale = attributes(path);
    for (key, value) in pairs {
        let name = [PREFIX, key.as_bytes()].concat();
        match setxattr(path, name.as_slice(), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error),
        }
        stale.retain(|old| *old != name);
    }
    for name in stale {
        match removexattr(path, name.as_slice()) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Full names of ours.
fn attributes(path: &Path) -> Vec<Vec<u8>> {
    let mut usual = [0; USUAL_LIST_BYTES];
    let mut large = Vec::new();
    let list = match listxattr(path, &mut usual) {
        Ok(length) => &usual[..length],
        Err(Errno::RANGE) => {
            large.resize(LIST_BYTES, 0);
            match listxattr(path, &mut large) {
                Ok(length) => &large[..length],
                Err(_) => return Vec::new(),
            }
        }
        Err(_) => return Vec::new(),
    };
    list.split(|byte| *byte == 0)
        .filter(|name| name.starts_with(PREFIX))
        .map(<[u8]>::to_vec)
        .collect()
}

fn value(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; USUAL_LIST_BYTES];
    let length = match getxattr(path, name, &mut value) {
        Ok(length) => length,
        Err(Errno::RANGE) => {
            value.resize(VALUE_BYTES, 0);
            getxattr(path, name, &mut value).ok()?
        }
        Err(_) => return None,
    };
    value.truncate(length);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_replaced_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "").unwrap();
        if setxattr(&path, "user.other", b"1", XattrFlags::empty()).is_err() {
            println!("skipped: no user attributes on {}", dir.path().display());
            return;
        }
        replace(&path, [("a", "1"), ("empty", "")]).unwrap();
        setxattr(&path, "user.e2b.binary", b"\xff", XattrFlags::empty()).unwrap();
        let expected = [("a", "1"), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(read(&path), HashMap::from(expected));
        let moved = dir.path().join("g");
        std::fs::rename(&path, &moved).unwrap();
        assert_eq!(read(&moved).len(), 2);
        replace(&moved, [("b", "2")]).unwrap();
        assert_eq!(
            read(&moved),
            HashMap::from([("b".to_owned(), "2".to_owned())])
        );
        replace(&moved, []).unwrap();
        assert!(read(&moved).is_empty());
        assert_eq!(value(&moved, b"user.other").as_deref(), Some(&b"1"[..]));
    }
}
