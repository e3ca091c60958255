//! What is told of one file, directory or link.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use envd_wire::Timestamp;
use envd_wire::filesystem::{EntryInfo, FileType};

use super::{metadata, permissions};
use crate::paths::base_name;
use crate::users::Names;

/// The entry at `path` itself. For a link, type and mode are those of its final target.
pub fn look(path: &str, names: &Names) -> io::Result<EntryInfo> {
    let own = fs::symlink_metadata(path)?;
    let is_symlink = own.is_symlink();
    let target = if is_symlink {
        fs::metadata(path).ok()
    } else {
        Some(own.clone())
    };
    let (kind, mode) = match &target {
        Some(target) if target.is_file() => (FileType::FILE_TYPE_FILE, target.mode()),
        Some(target) if target.is_dir() => (FileType::FILE_TYPE_DIRECTORY, target.mode()),
        Some(target) => (FileType::FILE_TYPE_UNSPECIFIED, target.mode()),
        None => (FileType::FILE_TYPE_UNSPECIFIED, 0),
    };
    let pairs = metadata::read(Path::new(path));
    Ok(EntryInfo {
        name: base_name(path).to_owned(),
        r#type: kind.into(),
        path: path.to_owned(),
        size: i64::try_from(own.size()).unwrap_or(i64::MAX),
        mode: mode & 0o777,
        permissions: permissions::text(own.mode()),
        owner: names.user(own.uid()),
        group: names.group(own.gid()),
        modified_time: modified(&own).into(),
        symlink_target: is_symlink.then(|| resolved(path)),
        metadata: pairs.into_iter().collect(),
        is_symlink,
    })
}

fn modified(own: &fs::Metadata) -> Option<Timestamp> {
    let (seconds, nanos) = (
        own.mtime(),
        i32::try_from(own.mtime_nsec()).unwrap_or_default(),
    );
    (seconds != 0 || nanos != 0).then(|| Timestamp {
        seconds,
        nanos,
        ..Timestamp::default()
    })
}

/// The final target; the link itself if there is none.
fn resolved(link: &str) -> String {
    match fs::canonicalize(link) {
        Ok(target) => target.to_string_lossy().into_owned(),
        Err(_) => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[track_caller]
    fn check(path: &Path, kind: FileType, mode: u32, target: Option<&Path>) {
        let path = path.to_str().unwrap();
        let entry = look(path, &Names::default()).unwrap();
        assert_eq!(entry.r#type, kind);
        assert_eq!(entry.mode, mode);
        assert_eq!(entry.path, path);
        assert_eq!(
            entry.symlink_target.as_deref(),
            target.map(|t| t.to_str().unwrap())
        );
        assert_eq!(entry.is_symlink, target.is_some());
        assert!(entry.modified_time.is_set());
        assert_eq!(entry.owner, rustix::process::getuid().as_raw().to_string());
    }

    #[test]
    fn files_directories_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let at = |name: &str| dir.join(name);
        fs::write(at("f"), "hello").unwrap();
        fs::set_permissions(at("f"), fs::Permissions::from_mode(0o4640)).unwrap();
        fs::create_dir(at("d")).unwrap();
        fs::set_permissions(at("d"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("f", at("link")).unwrap();
        symlink("link", at("chain")).unwrap();
        symlink("d", at("to-dir")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        symlink("cycle", at("cycle")).unwrap();

        check(&at("f"), FileType::FILE_TYPE_FILE, 0o640, None);
        check(&at("d"), FileType::FILE_TYPE_DIRECTORY, 0o755, None);
        check(&at("link"), FileType::FILE_TYPE_FILE, 0o640, Some(&at("f")));
        check(
            &at("chain"),
            FileType::FILE_TYPE_FILE,
            0o640,
            Some(&at("f")),
        );
        check(
            &at("to-dir"),
            FileType::FILE_TYPE_DIRECTORY,
            0o755,
            Some(&at("d")),
        );
        check(
            &at("broken"),
            FileType::FILE_TYPE_UNSPECIFIED,
            0,
            Some(&at("broken")),
        );
        check(
            &at("cycle"),
            FileType::FILE_TYPE_UNSPECIFIED,
            0,
            Some(&at("cycle")),
        );
        let size = look(at("link").to_str().unwrap(), &Names::default())
            .unwrap()
            .size;
        assert_eq!(size, 1, "the length of the link's text");
    }
}
