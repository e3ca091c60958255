//! The end of what a command wrote.

use std::collections::VecDeque;

use crate::limits::STARTUP_OUTPUT_BYTES;

#[derive(Default)]
pub struct Tail(VecDeque<u8>);

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(STARTUP_OUTPUT_BYTES)..];
        let over = (self.0.len() + kept.len()).saturating_sub(STARTUP_OUTPUT_BYTES);
        self.0.drain(..over);
        self.0.extend(kept);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// At most [`STARTUP_OUTPUT_BYTES`]: a character that was cut in front is left out.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let over = text.len().saturating_sub(STARTUP_OUTPUT_BYTES);
        text[text.ceil_char_boundary(over)..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"a");
        tail.push(&[b'b'; STARTUP_OUTPUT_BYTES - 1]);
        assert!(tail.text().starts_with("ab"));
        tail.push(b"c");
        assert!(tail.text().starts_with('b') && tail.text().ends_with('c'));
        tail.push(&[b'd'; 3 * STARTUP_OUTPUT_BYTES]);
        assert_eq!(tail.text(), "d".repeat(STARTUP_OUTPUT_BYTES));
        tail.push(&[0xff; STARTUP_OUTPUT_BYTES]);
        assert!(tail.text().len() <= STARTUP_OUTPUT_BYTES);
    }
}
