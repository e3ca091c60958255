//! Archives for tests, honest or not, byte by byte.

use super::BLOCK;

/// A header with its content; fields are as they go into the archive.
pub struct Item<'a> {
    pub name: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub modified: u64,
    pub content: &'a [u8],
}

impl<'a> Item<'a> {
    pub fn of(kind: u8, name: &'a str) -> Self {
        Self {
            name,
            kind,
            link: "",
            mode: 0o644,
            owner: (0, 0),
            modified: 1_000_000_000,
            content: b"",
        }
    }

    pub fn file(name: &'a str, content: &'a str) -> Self {
        Self {
            content: content.as_bytes(),
            ..Self::of(b'0', name)
        }
    }

    pub fn folder(name: &'a str) -> Self {
        Self {
            mode: 0o755,
            ..Self::of(b'5', name)
        }
    }

    pub fn symlink(name: &'a str, link: &'a str) -> Self {
        Self {
            link,
            ..Self::of(b'2', name)
        }
    }

    pub fn hard_link(name: &'a str, link: &'a str) -> Self {
        Self {
            link,
            ..Self::of(b'1', name)
        }
    }
}

#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn of(items: &[Item<'_>]) -> Vec<u8> {
        let mut writer = Self::default();
        for item in items {
            writer.item(item);
        }
        writer.end()
    }

    pub fn item(&mut self, item: &Item<'_>) {
        let mut block = header(item);
        checksum(&mut block);
        self.0.extend_from_slice(&block);
        self.content(item.content);
    }

    pub fn content(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        let padding = content.len().wrapping_neg() % BLOCK;
        self.0.extend_from_slice(&vec![0; padding]);
    }

    /// Records for the next item.
    pub fn pax(&mut self, records: &[(&str, &[u8])]) {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            if length.to_string().len() > rest.to_string().len() {
                length += 1;
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.item(&Item {
            content: &content,
            ..Item::of(b'x', "pax")
        });
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}

pub fn header(item: &Item<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, item.name.as_bytes());
    put(100, format!("{:07o}", item.mode).as_bytes());
    put(108, format!("{:07o}", item.owner.0).as_bytes());
    put(116, format!("{:07o}", item.owner.1).as_bytes());
    put(124, format!("{:011o}", item.content.len()).as_bytes());
    put(136, format!("{:011o}", item.modified).as_bytes());
    put(156, &[item.kind]);
    put(157, item.link.as_bytes());
    put(257, b"ustar\x0000");
    block
}

pub fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
