//! `ListDir`: depth first, in the order of names.

use std::fs;
use std::io;
use std::path::Path;

use envd_wire::filesystem::{EntryInfo, FileType, ListDirRequest, ListDirResponse};

use super::{entry, resolve};
use crate::connect::{Code, Context, RpcError};
use crate::limits::LIST_ENTRIES;
use crate::paths::os_text;
use crate::route::blocking;
use crate::users::Names;

pub async fn list_dir(
    context: Context,
    request: ListDirRequest,
) -> Result<ListDirResponse, RpcError> {
    let (_, path) = resolve(&context, &request.path)?;
    let depth = request.depth.max(1);
    let entries = blocking(move || list(&path, depth, LIST_ENTRIES)).await??;
    Ok(ListDirResponse { entries })
}

/// Lists what `asked` leads to; the paths told begin with `asked` itself.
fn list(asked: &str, depth: u32, entries_max: usize) -> Result<Vec<EntryInfo>, RpcError> {
    let real = fs::canonicalize(asked).map_err(|error| unresolved(asked, &error))?;
    let found = fs::metadata(&real).map_err(|error| unresolved(asked, &error))?;
    if !found.is_dir() {
        return Err(RpcError::invalid(format!(
            "path is not a directory: {asked}"
        )));
    }
    let asked = if asked == "/" {
        ""
    } else {
        asked.trim_end_matches('/')
    };
    let mut walk = Walk {
        names: Names::read(),
        entries: Vec::new(),
        entries_max,
    };
    // Directories to read, the next one last; each with its path below the start.
    let mut open = vec![(walk.children(&real, "", asked)?, 1)];
    while let Some((children, level)) = open.last_mut() {
        let Some(below) = children.pop() else {
            open.pop();
            continue;
        };
        let level = *level;
        if let Some(found) = walk.visit(&real, &below, asked)?
            && found
            && level < depth
        {
            open.push((walk.children(&real, &below, asked)?, level + 1));
        }
    }
    Ok(walk.entries)
}

struct Walk {
    names: Names,
    entries: Vec<EntryInfo>,
    entries_max: usize,
}

impl Walk {
    /// Names in a directory, the first one last. A directory that vanished has none.
    fn children(&self, real: &Path, below: &str, asked: &str) -> Result<Vec<String>, RpcError> {
        let broken = |error: io::Error| {
            RpcError::internal(format!(
                "error reading directory {asked}{below}: {}",
                os_text(&error)
            ))
        };
        let dir = real.join(below.trim_start_matches('/'));
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(broken)?,
        };
        let mut children = Vec::new();
        for child in entries {
            let name = child.map_err(broken)?.file_name();
            children.push(format!("{below}/{}", name.to_string_lossy()));
            if children.len() + self.entries.len() > self.entries_max {
                return Err(self.too_many());
            }
        }
        children.sort_unstable_by(|a, b| b.cmp(a));
        Ok(children)
    }

    /// Adds an entry; tells whether it is a directory itself. `None`: it vanished.
    fn visit(&mut self, real: &Path, below: &str, asked: &str) -> Result<Option<bool>, RpcError> {
        if self.entries.len() >= self.entries_max {
            return Err(self.too_many());
        }
        let path = real.join(below.trim_start_matches('/'));
        let Ok(mut entry) = entry::look(&path.to_string_lossy(), &self.names) else {
            return Ok(None);
        };
        entry.path = format!("{asked}{below}");
        let is_dir = entry.r#type == FileType::FILE_TYPE_DIRECTORY && !entry.is_symlink;
        self.entries.push(entry);
        Ok(Some(is_dir))
    }

    fn too_many(&self) -> RpcError {
        let text = format!("more than {} entries", self.entries_max);
        RpcError::new(Code::ResourceExhausted, text)
    }
}

fn unresolved(asked: &str, error: &io::Error) -> RpcError {
    if error.kind() == io::ErrorKind::NotFound {
        return RpcError::not_found(format!("path not found: lstat {asked}: {}", os_text(error)));
    }
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        let text = format!("cyclic symlink or chain >255 links at \"{asked}\"");
        return RpcError::new(Code::FailedPrecondition, text);
    }
    RpcError::internal(format!(
        "error getting file info: lstat {asked}: {}",
        os_text(error)
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn depth_order_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("real/a/deep/deeper")).unwrap();
        fs::write(at("real/a.txt"), "").unwrap();
        fs::write(at("real/b"), "").unwrap();
        symlink("a", at("real/link")).unwrap();
        symlink("real", at("alias")).unwrap();
        let listed = |name: &str, depth| -> Vec<String> {
            let root = at(name);
            let root = root.to_str().unwrap();
            let entries = list(root, depth, 100).unwrap();
            entries
                .iter()
                .map(|e| e.path.strip_prefix(root).unwrap().to_owned())
                .collect()
        };
        assert_eq!(listed("real", 1), ["/a", "/a.txt", "/b", "/link"]);
        assert_eq!(
            listed("alias", 2),
            ["/a", "/a/deep", "/a.txt", "/b", "/link"]
        );
        assert_eq!(
            listed("real", 9),
            ["/a", "/a/deep", "/a/deep/deeper", "/a.txt", "/b", "/link"]
        );
    }

    #[test]
    fn errors() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("f"), "").unwrap();
        symlink("loop", at("loop")).unwrap();
        let code = |name: &str| list(&at(name), 1, 100).unwrap_err();
        assert_eq!(code("none").code, Code::NotFound);
        assert_eq!(code("loop").code, Code::FailedPrecondition);
        assert!(code("loop").message.contains("cyclic symlink"));
        assert_eq!(code("f").code, Code::InvalidArgument);
        assert!(code("f").message.contains("not a directory"));
    }

    #[test]
    fn listings_without_end_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/1", "a/2", "b/1", "b/2"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let root = dir.path().to_str().unwrap();
        assert_eq!(list(root, 2, 6).unwrap().len(), 6);
        for bound in [1, 3, 5] {
            assert_eq!(
                list(root, 2, bound).unwrap_err().code,
                Code::ResourceExhausted
            );
        }
    }
}
