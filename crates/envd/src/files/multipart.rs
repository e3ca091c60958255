//! Forms with files in them, read as they arrive.

use bytes::{Buf, Bytes, BytesMut};
use percent_encoding::percent_decode_str;

use super::decode::{Upload, UploadError};
use crate::limits::PART_HEAD_BYTES;

/// The kernel of RFC 2046: at most 70 characters.
const BOUNDARY_BYTES: usize = 70;

#[derive(Debug, thiserror::Error)]
pub enum MultipartError {
    #[error("{0}")]
    Upload(#[from] UploadError),
    #[error("multipart: NextPart: EOF")]
    Eof,
    #[error("multipart: header of more than {PART_HEAD_BYTES} bytes")]
    LongHead,
    #[error("multipart: expected a line end after the boundary")]
    Boundary,
}

/// What the head of a part says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub name: Option<String>,
    pub filename: Option<String>,
}

pub struct Multipart<'a> {
    upload: Upload<'a>,
    buffer: BytesMut,
    /// Line end, two hyphens, boundary.
    delimiter: Vec<u8>,
    /// Between a delimiter and the next one; the text before the first counts as a part.
    inside: bool,
}

/// The boundary of a multipart content type.
pub fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    (!boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES).then_some(boundary)
}

impl<'a> Multipart<'a> {
    pub fn new(upload: Upload<'a>, boundary: &str) -> Self {
        // The first boundary has no line end before it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self {
            upload,
            buffer,
            delimiter: format!("\r\n--{boundary}").into(),
            inside: true,
        }
    }

    /// Skips what is left of the current part. `None`: that was the last one.
    pub async fn next_part(&mut self) -> Result<Option<Head>, MultipartError> {
        while self.next_piece().await?.is_some() {}
        self.need(2).await?;
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let line = self.line().await?;
        if !line.trim_ascii().is_empty() {
            return Err(MultipartError::Boundary);
        }
        let mut head = Head::default();
        let mut length = 0;
        loop {
            let line = self.line().await?;
            length += line.len();
            if length > PART_HEAD_BYTES {
                return Err(MultipartError::LongHead);
            }
            if line.is_empty() {
                self.inside = true;
                return Ok(Some(head));
            }
            read_header(&String::from_utf8_lossy(&line), &mut head);
        }
    }

    /// The next piece of the current part; `None` at its end.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, MultipartError> {
        while self.inside {
            match find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    self.buffer.advance(self.delimiter.len());
                    self.inside = false;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                None => {}
            }
            // All but what may be the start of a delimiter.
            let certain = (self.buffer.len() + 1).saturating_sub(self.delimiter.len());
            if certain > 0 {
                return Ok(Some(self.buffer.split_to(certain).freeze()));
            }
            self.more().await?;
        }
        Ok(None)
    }

    async fn line(&mut self) -> Result<Bytes, MultipartError> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > PART_HEAD_BYTES {
                return Err(MultipartError::LongHead);
            }
            self.more().await?;
        }
    }

    async fn need(&mut self, length: usize) -> Result<(), MultipartError> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), MultipartError> {
        let piece = self.upload.next().await.ok_or(MultipartError::Eof)??;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

fn read_header(line: &str, head: &mut Head) {
    let Some((name, value)) = line.split_once(':') else {
        return;
    };
    if !name.trim().eq_ignore_ascii_case("content-disposition") {
        return;
    }
    head.name = parameter(value, "name");
    head.filename = match parameter(value, "filename*") {
        Some(extended) => extended
            .split_once("''")
            .map(|(_, text)| percent_decode_str(text).decode_utf8_lossy().into_owned()),
        None => parameter(value, "filename").map(|name| unescape(&name)),
    };
}

/// Clients write three characters that would break the header in this way, and no others.
fn unescape(name: &str) -> String {
    name.replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

/// A parameter of a header value: `…; name=value` or `…; name="quoted \"value\""`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = &value[value.find(';')?..];
    loop {
        rest = rest.strip_prefix(';')?.trim_start();
        let (name, after) = rest.split_once('=')?;
        let (text, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = after.trim_start();
    }
}

/// The text up to the closing quote, and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((text, &quoted[at + 1..])),
            // Only these two are escaped; a lone backslash is one (paths of old browsers).
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                text.extend(chars.next().map(|(_, char)| char));
            }
            char => text.push(char),
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| byte == first) {
        if haystack[from + at + 1..].starts_with(rest) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        for (text, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            (
                "multipart/form-data; charset=utf-8; Boundary=\"a b\"",
                Some("a b"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
        ] {
            assert_eq!(boundary(text).as_deref(), expected, "{text}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        assert_eq!(boundary(&long), None);
    }

    #[track_caller]
    fn check(line: &str, name: Option<&str>, filename: Option<&str>) {
        let mut head = Head::default();
        read_header(line, &mut head);
        assert_eq!(
            (head.name.as_deref(), head.filename.as_deref()),
            (name, filename)
        );
    }

    #[test]
    fn heads() {
        check(
            "Content-Disposition: form-data; name=\"file\"; filename=\"/a/b c.txt\"",
            Some("file"),
            Some("/a/b c.txt"),
        );
        check(
            "content-disposition: form-data; name=file; filename=\"a\\\"b\\\\c%22d%41\"",
            Some("file"),
            Some("a\"b\\c\"d%41"),
        );
        check(
            "Content-Disposition: form-data; filename=\"x\"; filename*=utf-8''%C3%BC; name=\"f\"",
            Some("f"),
            Some("ü"),
        );
        check("Content-Type: text/plain; name=\"file\"", None, None);
        check("Content-Disposition: form-data; name=\"file", None, None);
        check("Content-Disposition", None, None);
    }

    #[test]
    fn searching() {
        assert_eq!(find(b"ab\r\r\n--x", b"\r\n--x"), Some(3));
        assert_eq!(find(b"\r\n--", b"\r\n--x"), None);
        assert_eq!(find(b"", b"x"), None);
    }
}
