//! `Content-Disposition`: the name under which a file is sent.

use std::fmt::Write as _;

/// `inline; filename=…`: bare if it is a token, else quoted, else percent-encoded.
pub fn inline(name: &str) -> String {
    if !name.is_empty() && name.bytes().all(is_token) {
        return format!("inline; filename={name}");
    }
    if name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_control()) {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("inline; filename=\"{escaped}\"");
    }
    let mut header = String::from("inline; filename*=utf-8''");
    for byte in name.bytes() {
        if is_attribute(byte) {
            header.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(header, "%{byte:02X}");
        }
    }
    header
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?="#.contains(&byte)
}

fn is_attribute(byte: u8) -> bool {
    is_token(byte) && !b"*'%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("test.txt", "inline; filename=test.txt"),
            (".env", "inline; filename=.env"),
            ("my file.txt", "inline; filename=\"my file.txt\""),
            ("a\"b.txt", "inline; filename=\"a\\\"b.txt\""),
            ("a\\b", "inline; filename=\"a\\\\b\""),
            ("naïve.txt", "inline; filename*=utf-8''na%C3%AFve.txt"),
            ("a\nb", "inline; filename*=utf-8''a%0Ab"),
        ] {
            assert_eq!(inline(name), expected);
        }
    }
}
