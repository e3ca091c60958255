//! Sealed layers and kept files leave a machine and come to another one, as streams.
//!
//! What comes is made as what is sealed or kept here is: as a draft that a start sweeps, put in its
//! place once all of it is on the disk. A stream that ends early or is no tree leaves nothing.

use std::io::{self, Read, Write};

use casemate_failpoint::{self as failpoint, Point};
use casemate_types::{LayerId, SnapshotId};

use super::copy::AsItIs;
use super::{INNER, Pool, pack, still, unpack};

/// Beside what a layer consists of, while it comes.
const LINKS: &str = "links";

impl Pool {
    /// Writes a sealed layer to a stream. `NotFound`: there is none of this name; it must not be
    /// removed meanwhile.
    pub fn pack_sealed(&self, layer: &LayerId, to: impl Write) -> io::Result<()> {
        pack::tree(&self.sealed_at(layer), to)
    }

    /// The same with a snapshot.
    pub fn pack_kept(&self, snapshot: &SnapshotId, to: impl Write) -> io::Result<()> {
        pack::tree(&self.kept_at(snapshot).join(INNER[0]), to)
    }

    /// Makes a layer of what [`Pool::pack_sealed`] wrote, for good on return: the bytes that it takes.
    /// One that is there stays as it is, and nothing is read. `InvalidData`: it is no tree;
    /// `UnexpectedEof`: not all of one; `StorageFull`. On an error nothing is left.
    pub fn unpack_sealed(&self, layer: &LayerId, from: impl Read) -> io::Result<u64> {
        let place = self.sealed_at(layer);
        if place.is_dir() {
            return still::bytes_below(&place);
        }
        self.seal_by(layer, |to, links, sealing| {
            unpack::tree(from, to, links, sealing)
        })
    }

    /// Keeps what [`Pool::pack_kept`] wrote as a snapshot, for good on return: the bytes that it
    /// holds. One that is there stays as it is, and nothing is read. Errors as above.
    pub fn unpack_kept(&self, snapshot: &SnapshotId, from: impl Read) -> io::Result<u64> {
        if self.is_kept(snapshot) {
            return self.holds(snapshot);
        }
        let layer = self.unused_name();
        let folder = self.writable_dir();
        self.layers.make(&folder, &layer.0)?;
        let place = folder.join(&layer.0);
        let filled = self.layers.limit(&place, u64::MAX).and_then(|()| {
            let [upper, work] = INNER.map(|inner| place.join(inner));
            unpack::tree(from, &upper, &place.join(LINKS), &mut AsItIs)?;
            std::fs::create_dir(work)
        });
        filled.inspect_err(|_| self.discard(&layer))?;
        failpoint::hit(Point::SnapshotMade);
        self.keep_copy(&layer, snapshot)?;
        self.holds(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, CString};
    use std::fs::{self, File, Permissions};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, Mode, Stat, mkdirat, mknodat, openat};

    use super::super::copy::each_attribute;
    use super::super::still::{FOLDER, Order, Visit, walk_in};
    use super::super::{packed, plain};
    use super::*;

    /// A folder of a test's own, gone with it.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("casemate-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn unpack(&self, name: &str, stream: &[u8]) -> io::Result<PathBuf> {
            let (to, links) = (self.0.join(name), self.0.join(format!("{name}-links")));
            unpack::tree(stream, &to, &links, &mut AsItIs)?;
            assert!(!links.exists());
            Ok(to)
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let parent = self.0.parent().unwrap().to_owned();
            let name = self.0.file_name().unwrap().to_str().unwrap().to_owned();
            plain::delete_flat(&parent, &name).unwrap();
        }
    }

    /// All that is to be found of a tree by whoever looks at it.
    fn seen(top: &Path) -> Vec<String> {
        struct Seen(Vec<String>);
        impl Seen {
            fn note(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
                let kind = FileType::from_raw_mode(found.st_mode);
                let names = match kind {
                    FileType::Directory | FileType::CharacterDevice => 1,
                    _ => found.st_nlink,
                };
                let size = match kind {
                    FileType::Directory => 0,
                    _ => found.st_size,
                };
                let mut line = format!(
                    "{name:?} {:o} {}:{} {size} {names} {}.{} {}",
                    found.st_mode,
                    found.st_uid,
                    found.st_gid,
                    found.st_mtime,
                    found.st_mtime_nsec,
                    found.st_rdev,
                );
                let all = |name: &[u8]| name != b"security.selinux";
                each_attribute(folder, name, all, |name, value| {
                    line.push_str(&format!(" {}={value:?}", String::from_utf8_lossy(name)));
                    Ok(())
                })?;
                match kind {
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                        line.push_str(&format!(" {target:?}"));
                    }
                    FileType::RegularFile => {
                        let read = rustix::fs::OFlags::RDONLY;
                        let file = File::from(openat(folder, name, read, Mode::empty())?);
                        line.push_str(&format!(" {:x}", crc(&file)?));
                    }
                    _ => {}
                }
                self.0.push(line);
                Ok(())
            }
        }
        impl Visit for Seen {
            fn entry(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
                self.note(folder, name, found)
            }
            fn enter(&mut self, name: &CStr) -> io::Result<()> {
                self.0.push(format!("into {name:?}"));
                Ok(())
            }
            fn leave(&mut self, folder: &OwnedFd) -> io::Result<()> {
                self.note(folder, c".", &rustix::fs::fstat(folder)?)
            }
        }
        let mut all = Seen(Vec::new());
        walk_in(top, Order::ByName, &mut all).unwrap();
        all.0
    }

    fn crc(mut file: &File) -> io::Result<u64> {
        use std::hash::Hasher;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&bytes);
        Ok(hasher.finish())
    }

    fn set(path: &Path, attribute: &str, value: &[u8]) {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        rustix::fs::lsetxattr(&path, attribute, value, rustix::fs::XattrFlags::empty()).unwrap();
    }

    fn packed(top: &Path) -> Vec<u8> {
        let mut stream = Vec::new();
        pack::tree(top, &mut stream).unwrap();
        stream
    }

    /// What a sandbox may leave, in a folder `from`.
    fn sample(home: &Home) -> PathBuf {
        let from = home.0.join("from");
        fs::create_dir_all(from.join("folder/inner")).unwrap();
        fs::write(from.join("folder/file"), "content").unwrap();
        fs::write(from.join("folder/inner/empty"), "").unwrap();
        fs::hard_link(from.join("folder/file"), from.join("hard")).unwrap();
        fs::hard_link(from.join("folder/file"), from.join("folder/inner/hard")).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let raw = std::os::unix::ffi::OsStringExt::from_vec(b"not \xff utf-8\n".to_vec());
        let raw: std::ffi::OsString = raw;
        fs::write(from.join(raw), "x").unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.write_all_at(b"middle", 1 << 20).unwrap();
        sparse.set_len(8 << 20).unwrap();
        fs::write(from.join("large"), vec![7; 700 << 10]).unwrap();
        let mode = Mode::RUSR;
        mknodat(CWD, from.join("pipe"), FileType::Fifo, mode, 0).unwrap();
        mknodat(CWD, from.join("gone"), FileType::CharacterDevice, mode, 0).unwrap();
        fs::write(from.join("program"), "#!").unwrap();
        std::os::unix::fs::chown(from.join("program"), Some(1000), Some(7)).unwrap();
        let modes = [("folder", 0o500), ("program", 0o6755)];
        for (path, mode) in modes {
            fs::set_permissions(from.join(path), Permissions::from_mode(mode)).unwrap();
        }
        set(&from.join("folder"), "trusted.overlay.opaque", b"y");
        set(&from.join("program"), "user.note", b"of a user");
        let mut at = openat(CWD, &from, FOLDER, Mode::empty()).unwrap();
        for _ in 0..2500 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        from
    }

    #[test]
    fn a_tree_is_the_same_on_the_other_side_and_gives_the_same_bytes() {
        let home = Home::new("portable");
        let from = sample(&home);
        let stream = packed(&from);
        assert!(stream.len() < 2 << 20, "holes take no bytes");
        let to = home.unpack("to", &stream).unwrap();
        assert_eq!(seen(&to), seen(&from));
        assert!(seen(&to).len() > 2500);
        let sparse = fs::metadata(to.join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
        // A folder that was filled in another order gives the same.
        assert!(packed(&to) == stream);
    }

    #[test]
    fn what_is_of_this_machine_does_not_travel() {
        let home = Home::new("portable-machine");
        let from = home.0.join("from");
        fs::create_dir_all(from.join("folder")).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        set(&from.join("file"), "trusted.overlay.origin", b"handle");
        set(&from.join("file"), "trusted.ours", b"handle");
        set(&from.join("folder"), "trusted.overlay.origin", b"handle");
        mknodat(
            CWD,
            from.join("disk"),
            FileType::BlockDevice,
            Mode::RUSR,
            rustix::fs::makedev(7, 0),
        )
        .unwrap();
        let to = home.unpack("to", &packed(&from)).unwrap();
        assert!(!to.join("disk").exists());
        let of = |name: &str| {
            let mut names = Vec::new();
            let folder = openat(CWD, &to, FOLDER, Mode::empty()).unwrap();
            let name = CString::new(name).unwrap();
            let ours = |name: &[u8]| name.starts_with(b"trusted.");
            let tell = |name: &[u8], _: &[u8]| {
                names.push(String::from_utf8(name.to_vec()).unwrap());
                Ok(())
            };
            each_attribute(&folder, &name, ours, tell).unwrap();
            names
        };
        assert!(of("file").is_empty());
        assert_eq!(of("folder"), ["trusted.overlay.origin"]);
    }

    /// A stream by hand.
    #[derive(Clone)]
    struct Stream(Vec<u8>);

    impl Stream {
        fn new() -> Self {
            Self(packed::MAGIC.to_vec())
        }

        fn tag(mut self, tag: u8, name: &[u8]) -> Self {
            self.0.push(tag);
            self.text(name)
        }

        fn text(mut self, text: &[u8]) -> Self {
            let length = u16::try_from(text.len()).unwrap();
            self.0.extend(length.to_le_bytes());
            self.0.extend(text);
            self
        }

        fn number(mut self, number: u64) -> Self {
            self.0.extend(number.to_le_bytes());
            self
        }

        fn small(mut self, number: u32) -> Self {
            self.0.extend(number.to_le_bytes());
            self
        }

        fn dress(self) -> Self {
            self.undressed(0, 0).text(b"")
        }

        /// … and no attribute yet.
        fn undressed(self, uid: u32, gid: u32) -> Self {
            self.small(uid).small(gid).small(0o755).number(0).small(0)
        }

        fn file(self, name: &[u8], number: u64) -> Self {
            let begun = self.tag(packed::FILE, name).number(number).number(0);
            begun.small(packed::NO_MORE).dress()
        }

        fn end(mut self) -> Self {
            self.0.push(packed::LEAVE);
            let mut ended = self.dress();
            ended.0.push(packed::END);
            ended
        }
    }

    #[test]
    fn what_is_no_tree_of_ours_is_refused() {
        let home = Home::new("portable-refused");
        let new = Stream::new;
        let good = new().file(b"a", 1).tag(packed::LINK, b"b").number(1);
        home.unpack("good", &good.end().0).unwrap();
        let attribute = |name: &[u8]| {
            let begun = new().tag(packed::FIFO, b"a").undressed(0, 0);
            begun.text(name).small(1).text(b"").end()
        };
        let long = vec![b'a'; 256];
        let bad: Vec<(&str, Stream)> = vec![
            ("nothing", Stream(Vec::new())),
            ("another format", Stream(b"cmtree2\n".to_vec())),
            ("no end", new().file(b"a", 0)),
            ("up", new().file(b"..", 0).end()),
            ("here", new().file(b".", 0).end()),
            ("no name", new().file(b"", 0).end()),
            ("a path", new().file(b"a/b", 0).end()),
            ("nul", new().file(b"a\0b", 0).end()),
            ("a long name", new().file(&long, 0).end()),
            ("a folder up", new().tag(packed::ENTER, b"..").end()),
            ("twice", new().file(b"a", 0).file(b"a", 0).end()),
            (
                "a name of no file",
                new().tag(packed::LINK, b"b").number(1).end(),
            ),
            ("a number of two", new().file(b"a", 1).file(b"b", 1).end()),
            ("no kind", new().tag(b'?', b"a").end()),
            ("a device", new().tag(b'b', b"a").dress().end()),
            (
                "nobody",
                new()
                    .tag(packed::FIFO, b"a")
                    .undressed(u32::MAX, 0)
                    .text(b"")
                    .end(),
            ),
            ("an attribute of ours", attribute(b"trusted.ours")),
            ("a label", attribute(b"security.selinux")),
            ("metacopy", attribute(b"trusted.overlay.metacopy")),
            (
                "a run beyond its file",
                new()
                    .tag(packed::FILE, b"a")
                    .number(0)
                    .number(1)
                    .small(1)
                    .number(1)
                    .end(),
            ),
            (
                "a run that overflows",
                new()
                    .tag(packed::FILE, b"a")
                    .number(0)
                    .number(1)
                    .small(1)
                    .number(u64::MAX)
                    .end(),
            ),
            (
                "a long run",
                new()
                    .tag(packed::FILE, b"a")
                    .number(0)
                    .number(1 << 30)
                    .small(1 << 29)
                    .number(0)
                    .end(),
            ),
            (
                "a long target",
                new()
                    .tag(packed::SYMLINK, b"a")
                    .text(&[b'a'; 5000])
                    .dress()
                    .end(),
            ),
        ];
        for (at, (what, stream)) in bad.into_iter().enumerate() {
            let refused = home.unpack(&format!("bad-{at}"), &stream.0);
            let kind = refused.err().map(|error| error.kind());
            let expected = match what {
                "nothing" | "no end" => io::ErrorKind::UnexpectedEof,
                "twice" => io::ErrorKind::AlreadyExists,
                _ => io::ErrorKind::InvalidData,
            };
            assert_eq!(kind, Some(expected), "{what}");
        }
    }

    #[test]
    fn a_link_leads_nothing_out() {
        let home = Home::new("portable-link");
        let outside = home.0.join("outside");
        fs::create_dir(&outside).unwrap();
        let target = outside.to_str().unwrap().as_bytes();
        let linked = Stream::new()
            .tag(packed::SYMLINK, b"a")
            .text(target)
            .dress();
        let through = linked.clone().tag(packed::ENTER, b"a").file(b"b", 0);
        assert!(home.unpack("folder", &through.end().0).is_err());
        let over = linked.file(b"a", 0);
        assert!(home.unpack("file", &over.end().0).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
