//! The near end of a sandbox's log: what its agent wrote, cut into lines.
//!
//! A sandbox may write anything, at any rate. Nothing is read but its bytes: they are bounded, cut
//! at ends of lines and handed on as they are.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use casemate_runtime::LOG_BYTES_MAX;

/// A line that is longer is not waited for: its pieces are handed on.
const LINE_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Log {
    pipe: File,
    /// The beginning of a line that was not whole yet.
    rest: Vec<u8>,
}

impl Log {
    /// Of a pipe that does not wait.
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe: pipe.into(),
            rest: Vec::new(),
        }
    }

    /// What came since the last time, as whole lines; at most [`LOG_BYTES_MAX`] of it.
    pub(super) fn take(&mut self) -> io::Result<String> {
        let mut text = std::mem::take(&mut self.rest);
        let begun = text.len();
        text.resize(LOG_BYTES_MAX, 0);
        let count = match self.pipe.read(&mut text[begun..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        text.truncate(begun + count);
        let whole = text.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        if text.len() - whole <= LINE_BYTES_MAX {
            self.rest = text.split_off(whole);
            self.rest.shrink_to_fit();
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::io::ioctl_fionbio;

    use super::*;

    fn log() -> (Log, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        (Log::new(reader.into()), writer)
    }

    #[test]
    fn lines_come_whole_and_once() {
        let (mut log, mut writer) = log();
        assert_eq!(log.take().unwrap(), "");
        writer.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(log.take().unwrap(), "one\ntwo\n");
        assert_eq!(log.take().unwrap(), "");
        writer.write_all(b"ee\n\xff\n").unwrap();
        assert_eq!(log.take().unwrap(), "three\n\u{fffd}\n");
        drop(writer);
        assert_eq!(log.take().unwrap(), "");
    }

    #[test]
    fn what_never_ends_is_bounded() {
        let (mut log, mut writer) = log();
        let mut handed_on = 0;
        for _ in 0..20 {
            // As much as fits.
            let _ = writer.write(&[b'x'; 40_000]);
            handed_on += log.take().unwrap().len();
            assert!(log.rest.len() <= LINE_BYTES_MAX);
        }
        assert!(handed_on > LOG_BYTES_MAX);
        writer.write_all(b"\nend\n").unwrap();
        let (mut last, mut all) = (log.take().unwrap(), String::new());
        while !last.is_empty() {
            all += &last;
            last = log.take().unwrap();
        }
        assert!(all.ends_with("\nend\n"));
    }
}
