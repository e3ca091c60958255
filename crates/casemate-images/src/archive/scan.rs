//! Where the parts of a tar are: its headers read once, from front to back.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::NotAnArchive;
use crate::ImageError;

const BLOCK: u64 = 512;
/// Headers of one archive, extended ones counted: some 500 layers, for all platforms that there are.
pub(super) const HEADERS_MAX: usize = 20_000;
/// One extended header. What archives of images have in them is short.
const EXTENSION_BYTES_MAX: u64 = 64 * 1024;
/// Longer names are of nothing that is looked for.
const NAME_BYTES_MAX: usize = 256;

/// Where a file's content is, in bytes from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// What is at a name: of two of one name the later one counts, as for who unpacks it.
#[derive(Debug)]
enum Named {
    File(Span),
    /// A symbolic link, to this name in the archive. Docker before 25 wrote one for a layer that the
    /// archive has already.
    Link(String),
}

/// Regular files of an archive, and links to them, by their names.
#[derive(Debug)]
pub(super) struct Names(HashMap<String, Named>);

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Names {
    pub(super) fn read(file: &File) -> Result<Self, ImageError> {
        let failed = |error| ImageError::disk("an archive".as_ref(), error);
        let length = file.metadata().map_err(failed)?.len();
        let mut names = HashMap::new();
        let (mut at, mut extension) = (0, Extension::default());
        for header in 0..HEADERS_MAX {
            if length - at < BLOCK {
                return match (header, length - at) {
                    // Some writers leave the end out.
                    (1.., 0) => Ok(Self(names)),
                    (0, _) => Err(NotAnArchive::NotATar.into()),
                    _ => Err(NotAnArchive::CutOff.into()),
                };
            }
            let mut block = [0; BLOCK as usize];
            file.read_exact_at(&mut block, at).map_err(failed)?;
            if header == 0 && is_compressed(&block) {
                return Err(NotAnArchive::Compressed.into());
            }
            if block.iter().all(|byte| *byte == 0) {
                return Ok(Self(names));
            }
            if !is_checked(&block) {
                return Err(NotAnArchive::NotATar.into());
            }
            let kind = block[156];
            let is_extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
            let size = number(&block[124..136]).ok_or(NotAnArchive::NotATar)?;
            let size = match extension.size.filter(|_| !is_extension) {
                Some(size) => size,
                None => size,
            };
            at += BLOCK;
            let span = Span { at, bytes: size };
            // Behind it to the next block; the end of the last one may be missing.
            if size > length - at {
                return Err(NotAnArchive::CutOff.into());
            }
            at = (at + size.next_multiple_of(BLOCK)).min(length);
            if is_extension {
                if kind == b'x' || kind == b'L' {
                    if size > EXTENSION_BYTES_MAX {
                        return Err(NotAnArchive::NotATar.into());
                    }
                    let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
                    file.read_exact_at(&mut content, span.at).map_err(failed)?;
                    extension.take(kind, &content)?;
                }
                continue;
            }
            let Extension { name, .. } = std::mem::take(&mut extension);
            let name = name.unwrap_or_else(|| name_of(&block));
            let name = checked(&name)?;
            let Some(name) = name else {
                continue;
            };
            if matches!(kind, b'0' | 0 | b'7') {
                names.insert(name, Named::File(span));
            } else if kind == b'2'
                && let Some(target) = beside(&name, &text(&block[157..257]))
            {
                names.insert(name, Named::Link(target));
            }
        }
        Err(NotAnArchive::Entries.into())
    }

    pub(super) fn get(&self, name: &str) -> Option<Span> {
        let name = name.strip_prefix("./").unwrap_or(name);
        let found = match self.0.get(name)? {
            // A link to a link is none that anybody writes.
            Named::Link(target) => self.0.get(target)?,
            found => found,
        };
        match found {
            Named::File(span) => Some(*span),
            Named::Link(_) => None,
        }
    }
}

impl Extension {
    fn take(&mut self, kind: u8, content: &[u8]) -> Result<(), NotAnArchive> {
        if kind == b'L' {
            let end = content.iter().position(|byte| *byte == 0);
            self.name = Some(content[..end.unwrap_or(content.len())].to_vec());
            return Ok(());
        }
        let mut rest = content;
        while rest.first().is_some_and(|byte| *byte != 0) {
            let (record, more) = record(rest).ok_or(NotAnArchive::NotATar)?;
            if let Some(name) = record.strip_prefix(b"path=") {
                self.name = Some(name.to_vec());
            } else if let Some(size) = record.strip_prefix(b"size=") {
                self.size = Some(decimal(size).ok_or(NotAnArchive::NotATar)?);
            }
            rest = more;
        }
        Ok(())
    }
}

/// `length key=value\n`: the middle of it, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    Some((record.get(space + 1..)?.strip_suffix(b"\n")?, rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;
    text.parse().ok()
}

/// Octal digits between spaces and NULs, or a number behind a set first bit.
fn number(field: &[u8]) -> Option<u64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let mut bytes = field[1..].iter();
        // The second bit is the sign.
        return bytes.try_fold(u64::from(first & 0x7f), |value, byte| {
            Some(value.checked_mul(256)? | u64::from(*byte))
        });
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| is_blank(byte));
    digits
        .take_while(|byte| !is_blank(byte))
        .try_fold(0_u64, |value, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
            value.checked_mul(8)?.checked_add(digit.into())
        })
}

/// The sum over all bytes, with spaces in place of itself.
fn is_checked(block: &[u8]) -> bool {
    let sum = block.iter().enumerate().map(|(at, byte)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    });
    number(&block[148..156]) == Some(sum.sum())
}

fn is_compressed(block: &[u8]) -> bool {
    let beginnings: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"];
    let begins = |beginning: &&[u8]| block.starts_with(beginning);
    beginnings.iter().any(begins) && !is_checked(block)
}

/// With the prefix that POSIX has for long ones.
fn name_of(block: &[u8]) -> Vec<u8> {
    let name = text(&block[..100]);
    match (&block[257..263], text(&block[345..500])) {
        (b"ustar\0", prefix) if !prefix.is_empty() => [&prefix[..], b"/", &name].concat(),
        _ => name,
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|byte| *byte == 0);
    field[..end.unwrap_or(field.len())].to_vec()
}

/// Where a link leads that has this name; `None`: out of the archive.
fn beside(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    if target.starts_with('/') {
        return None;
    }
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut steps = Vec::new();
    for step in folder.split('/').chain(target.split('/')) {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()?),
            _ => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// Without what means nothing in it; `None`: nobody looks for it. One that leads out is refused,
/// though nothing is unpacked: whoever made it was up to something.
fn checked(name: &[u8]) -> Result<Option<String>, NotAnArchive> {
    let mut steps = name.split(|byte| *byte == b'/');
    if name.starts_with(b"/") || steps.any(|step| step == b"..") {
        let shown = String::from_utf8_lossy(name);
        return Err(NotAnArchive::Name(shown.chars().take(100).collect()));
    }
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let fits = name.len() <= NAME_BYTES_MAX;
    let name = std::str::from_utf8(name).ok().filter(|_| fits);
    Ok(name.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_forms() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b" 17 \0"), Some(15));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(number(b"\0\0\0"), Some(0));
        for wrong in [&b"8"[..], b"-1", b"x", &[0xff; 12]] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn links_stay_inside() {
        let check = |name, target: &str, expected: Option<&str>| {
            let found = beside(name, target.as_bytes());
            assert_eq!(found.as_deref(), expected, "{name} {target}");
        };
        check("a/layer.tar", "../b/layer.tar", Some("b/layer.tar"));
        check("a/layer.tar", "./x", Some("a/x"));
        check("l", "x", Some("x"));
        check("a/l", "../../x", None);
        check("l", "..", None);
        check("a/l", "/a/x", None);
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let check = |name: &str, expected: Option<&str>| {
            let found = checked(name.as_bytes()).ok().flatten();
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("./index.json", Some("index.json"));
        check("blobs/sha256/ab", Some("blobs/sha256/ab"));
        check("..json", Some("..json"));
        check(&"x".repeat(300), None);
        for wrong in ["/index.json", "../x", "blobs/../../x", "x/.."] {
            assert!(checked(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
