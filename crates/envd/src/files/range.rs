//! `Range`: which bytes of a file.

use crate::limits::RANGES;

/// Bytes from `start`, `length` of them; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub start: u64,
    pub length: u64,
}

impl Part {
    /// `bytes 0-4/13`.
    pub fn content_range(&self, size: u64) -> String {
        format!(
            "bytes {}-{}/{size}",
            self.start,
            self.start + self.length - 1
        )
    }
}

/// What a header asks of a file of some size.
#[derive(Debug, PartialEq, Eq)]
pub enum Ranges {
    Whole,
    Parts(Vec<Part>),
    NotSatisfiable,
}

pub fn read(header: Option<&str>, size: u64) -> Ranges {
    let Some(header) = header else {
        return Ranges::Whole;
    };
    let Some(list) = header.strip_prefix("bytes=") else {
        return Ranges::NotSatisfiable;
    };
    let mut parts = Vec::new();
    let mut beyond = false;
    for item in list
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        match one(item, size) {
            Some(Some(part)) => parts.push(part),
            Some(None) => beyond = true,
            None => return Ranges::NotSatisfiable,
        }
    }
    if parts.is_empty() {
        return if beyond {
            Ranges::NotSatisfiable
        } else {
            Ranges::Whole
        };
    }
    // More than the file itself is no saving but an attack.
    let total = parts
        .iter()
        .try_fold(0_u64, |sum, part| sum.checked_add(part.length));
    if parts.len() > RANGES || total.is_none_or(|total| total > size) {
        return Ranges::Whole;
    }
    Ranges::Parts(parts)
}

/// `Some(None)`: well written, but there is nothing.
fn one(item: &str, size: u64) -> Option<Option<Part>> {
    let (start, end) = item.split_once('-')?;
    let (start, end) = (start.trim(), end.trim());
    if start.is_empty() {
        let length = number(end)?.min(size);
        return Some((length > 0).then(|| Part {
            start: size - length,
            length,
        }));
    }
    let start = number(start)?;
    let last = if end.is_empty() {
        size.saturating_sub(1)
    } else {
        number(end)?
    };
    if !end.is_empty() && last < start {
        return None;
    }
    if start >= size {
        return Some(None);
    }
    Some(Some(Part {
        start,
        length: last.min(size - 1) - start + 1,
    }))
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, expected: &[(u64, u64)]) {
        let parts = expected.iter().map(|(start, length)| Part {
            start: *start,
            length: *length,
        });
        assert_eq!(
            read(Some(header), 10),
            Ranges::Parts(parts.collect()),
            "{header}"
        );
    }

    #[test]
    fn parts() {
        check("bytes=0-4", &[(0, 5)]);
        check("bytes=5-", &[(5, 5)]);
        check("bytes=-3", &[(7, 3)]);
        check("bytes=-30", &[(0, 10)]);
        check("bytes=0-0, 9-20", &[(0, 1), (9, 1)]);
        check("bytes=0-1,50-60", &[(0, 2)]);
    }

    #[test]
    fn others() {
        assert_eq!(read(None, 10), Ranges::Whole);
        for header in [
            "bytes=10-",
            "bytes=-0",
            "bytes=4-2",
            "bytes=a-b",
            "lines=1-2",
            "bytes=1",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(read(Some(header), 10), Ranges::NotSatisfiable, "{header}");
        }
        assert_eq!(read(Some("bytes=0-9,0-9"), 10), Ranges::Whole);
        assert_eq!(read(Some("bytes=0-"), 0), Ranges::NotSatisfiable);
        assert_eq!(
            Part {
                start: 0,
                length: 5
            }
            .content_range(13),
            "bytes 0-4/13"
        );
    }
}
