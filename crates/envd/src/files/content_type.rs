//! The type of a file's content: by its name, else by its first bytes.

/// Bytes that are looked at.
pub const SNIFF_BYTES: usize = 512;
const BINARY: &str = "application/octet-stream";

pub fn by_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "tar" => "application/x-tar",
        "avif" => "image/avif",
        "gif" => "image/gif",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "ico" => "image/vnd.microsoft.icon",
        "mp3" => "audio/mpeg",
        "wav" => "audio/x-wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "py" => "text/x-python; charset=utf-8",
        "sh" => "application/x-sh",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => return None,
    })
}

pub fn unknown() -> &'static str {
    BINARY
}

/// By the first bytes of the content.
pub fn by_content(head: &[u8]) -> &'static str {
    const SIGNATURES: [(&[u8], &str); 11] = [
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b\x08", "application/x-gzip"),
        (b"\0asm", "application/wasm"),
        (b"\xef\xbb\xbf", "text/plain; charset=utf-8"),
        (b"\xfe\xff", "text/plain; charset=utf-16be"),
        (b"\xff\xfe", "text/plain; charset=utf-16le"),
    ];
    if let Some((_, kind)) = SIGNATURES.iter().find(|(magic, _)| head.starts_with(magic)) {
        return kind;
    }
    if head.starts_with(b"RIFF") && head.get(8..14) == Some(b"WEBPVP") {
        return "image/webp";
    }
    let start = head.trim_ascii_start();
    let begins = |tag: &str| {
        start
            .get(..tag.len())
            .is_some_and(|own| own.eq_ignore_ascii_case(tag.as_bytes()))
    };
    if begins("<!DOCTYPE HTML") || begins("<html") {
        return "text/html; charset=utf-8";
    }
    if begins("<?xml") {
        return "text/xml; charset=utf-8";
    }
    if head.iter().any(|byte| is_binary(*byte)) {
        BINARY
    } else {
        "text/plain; charset=utf-8"
    }
}

/// Control bytes that text does not have.
fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(by_name("a.JSON"), Some("application/json"));
        assert_eq!(by_name("Makefile"), None);
        assert_eq!(by_content(b"hello\n"), "text/plain; charset=utf-8");
        assert_eq!(by_content(b""), "text/plain; charset=utf-8");
        assert_eq!(by_content(b"a\0b"), BINARY);
        assert_eq!(by_content("grün".as_bytes()), "text/plain; charset=utf-8");
        assert_eq!(
            by_content(b"  <!doctype html><p>"),
            "text/html; charset=utf-8"
        );
        assert_eq!(by_content(b"\x89PNG\r\n\x1a\n"), "image/png");
    }
}
