//! Writing tar streams: POSIX.1-2001 headers, and records of theirs where a field is too small. Files
//! with holes are in the form that GNU tar calls 1.0, which Go's and Python's readers know as well.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind, Sparse, Time};

/// What eleven octal digits hold.
const OCTAL_MAX: u64 = 0o777_7777_7777;
const NAME_BYTES: usize = 100;

/// An archive that is written once, from front to back.
pub struct Packer<W> {
    output: W,
    /// Of the content of the current entry.
    left: u64,
    /// Behind it.
    padding: usize,
}

impl<W: Write> Packer<W> {
    pub fn new(output: W) -> Self {
        Self {
            output,
            left: 0,
            padding: 0,
        }
    }

    /// Begins the next entry, of which so many bytes of content are to follow: of a file with holes
    /// its pieces together. Owners are below 2^21, and names hold no NUL.
    pub fn entry(&mut self, entry: &Entry, bytes: u64) -> io::Result<()> {
        self.end_content()?;
        let (kind, link): (u8, &[u8]) = match &entry.kind {
            Kind::File => (b'0', b""),
            Kind::HardLink(to) => (b'1', to),
            Kind::Symlink(to) => (b'2', to),
            Kind::Directory => (b'5', b""),
            Kind::Fifo => (b'6', b""),
            Kind::Device => return Err(io::Error::other("a device is of one machine only")),
        };
        let front = entry.sparse.as_ref().map(front).unwrap_or_default();
        let size = bytes + front.len() as u64;
        let mut records = Records::default();
        if let Some(sparse) = &entry.sparse {
            records.add("GNU.sparse.major", b"1");
            records.add("GNU.sparse.minor", b"0");
            records.add("GNU.sparse.name", &entry.path);
            records.add("GNU.sparse.realsize", sparse.length.to_string().as_bytes());
        } else if entry.path.len() > NAME_BYTES {
            records.add("path", &entry.path);
        }
        if link.len() > NAME_BYTES {
            records.add("linkpath", link);
        }
        if size > OCTAL_MAX {
            records.add("size", size.to_string().as_bytes());
        }
        let seconds = u64::try_from(entry.modified.seconds).ok();
        let seconds = seconds.filter(|seconds| *seconds <= OCTAL_MAX);
        if seconds.is_none() || entry.modified.nanos > 0 {
            records.add("mtime", time(entry.modified).as_bytes());
        }
        for (name, value) in &entry.attributes {
            let key = [b"SCHILY.xattr.", name.as_slice()].concat();
            records.add_bytes(&key, value);
        }
        if !records.0.is_empty() {
            let length = records.0.len() as u64;
            self.header(b'x', b"PaxHeaders/entry", b"", (0o644, 0, 0), length, 0)?;
            self.output.write_all(&records.0)?;
            self.pad(padding(length))?;
        }
        let owned = (entry.mode & 0o7777, entry.uid, entry.gid);
        let modified = seconds.unwrap_or_default();
        self.header(kind, &entry.path, link, owned, size, modified)?;
        self.output.write_all(&front)?;
        (self.left, self.padding) = (bytes, padding(size));
        Ok(())
    }

    /// Some of the content that was announced.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("more content than was announced"))?;
        self.output.write_all(bytes)
    }

    /// The end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_content()?;
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn end_content(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("less content than was announced"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.pad(padding)
    }

    fn pad(&mut self, bytes: usize) -> io::Result<()> {
        self.output.write_all(&[0; BLOCK][..bytes])
    }

    fn header(
        &mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        (mode, uid, gid): (u32, u64, u64),
        size: u64,
        modified: u64,
    ) -> io::Result<()> {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path[..path.len().min(NAME_BYTES)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{:07o}", uid & 0o777_7777).as_bytes());
        put(116, format!("{:07o}", gid & 0o777_7777).as_bytes());
        // Where a record says it.
        let shown = if size > OCTAL_MAX { 0 } else { size };
        put(124, format!("{shown:011o}").as_bytes());
        put(136, format!("{modified:011o}").as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &link[..link.len().min(NAME_BYTES)]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.output.write_all(&block)
    }
}

fn padding(bytes: u64) -> usize {
    let rest = bytes.wrapping_neg() % BLOCK as u64;
    // Less than a block.
    usize::try_from(rest).unwrap_or_default()
}

/// The map of a file with holes, as it stands before its pieces.
fn front(sparse: &Sparse) -> Vec<u8> {
    let mut front = format!("{}\n", sparse.pieces.len()).into_bytes();
    for (offset, length) in &sparse.pieces {
        front.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    front.resize(front.len().next_multiple_of(BLOCK), 0);
    front
}

/// As records have it.
fn time(time: Time) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        // The fraction counts upwards from the second before.
        (seconds, nanos) if seconds < 0 => {
            let whole = (seconds + 1).unsigned_abs();
            format!("-{whole}.{:09}", 1_000_000_000 - nanos)
        }
        (seconds, nanos) => format!("{seconds}.{nanos:09}"),
    }
}

#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        self.add_bytes(key.as_bytes(), value);
    }

    fn add_bytes(&mut self, key: &[u8], value: &[u8]) {
        // The space, the sign and the newline; then the digits of the length itself.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + digits(rest);
        if digits(length) > digits(rest) {
            length = rest + digits(length);
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::tar::Archive;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o4751,
            uid: 65_534,
            gid: 7,
            modified: Time {
                seconds: 1_700_000_000,
                nanos: 0,
            },
            attributes: Vec::new(),
            sparse: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = format!("{}/é", "d".repeat(300));
        let at = |seconds, nanos| Time { seconds, nanos };
        let sparse = Sparse {
            length: 1 << 40,
            pieces: vec![(0, 3), (1 << 33, 2), (1 << 40, 0)],
        };
        // Lengths around those where a record's own length gets a digit more.
        let attributes = (60..110).map(|n| (format!("user.{n}").into_bytes(), vec![b'\n'; n]));
        let mut all = vec![
            (entry("plain", Kind::File), &b"12345"[..]),
            (entry("d/", Kind::Directory), b""),
            (entry(&long, Kind::HardLink(b"plain".into())), b""),
            (entry("s", Kind::Symlink(long.clone().into())), b""),
            (entry("pipe", Kind::Fifo), b""),
        ];
        for modified in [at(-2, 750_000_000), at(-1, 0), at(7, 1), at(1 << 40, 0)] {
            let entry = Entry {
                modified,
                ..entry("time", Kind::File)
            };
            all.push((entry, b""));
        }
        let with = Entry {
            attributes: attributes.collect(),
            ..entry("attributes", Kind::File)
        };
        let holes = Entry {
            sparse: Some(sparse),
            ..entry(&format!("x/{long}"), Kind::File)
        };
        all.extend([(with, &[0; 512][..]), (holes, b"abcde")]);
        let mut packer = Packer::new(Vec::new());
        for (entry, content) in &all {
            packer.entry(entry, content.len() as u64).unwrap();
            packer.content(content).unwrap();
        }
        let bytes = packer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut archive = Archive::new(bytes.as_slice());
        for (expected, content) in &all {
            let found = archive.next_entry().unwrap().unwrap();
            let shown = format!("{found:?}");
            assert_eq!(shown, format!("{expected:?}"));
            let mut read = Vec::new();
            archive.content().read_to_end(&mut read).unwrap();
            assert_eq!(read, *content, "{shown}");
        }
        assert!(archive.next_entry().unwrap().is_none());
    }

    #[test]
    fn content_is_as_long_as_it_was_announced() {
        let mut packer = Packer::new(Vec::new());
        packer.entry(&entry("a", Kind::File), 2).unwrap();
        assert!(packer.content(b"abc").is_err());
        packer.content(b"a").unwrap();
        assert!(packer.entry(&entry("b", Kind::File), 0).is_err());
    }
}
