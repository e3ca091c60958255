//! Modes as text, in Go's letters.

use rustix::fs::{FileType, Mode};

/// Type letters and nine permission letters: `-rw-r--r--`, `Lrwxrwxrwx`, `dtrwxrwxrwx`.
pub fn text(raw_mode: u32) -> String {
    let mut text = String::with_capacity(11);
    match FileType::from_raw_mode(raw_mode) {
        FileType::Directory => text.push('d'),
        FileType::Symlink => text.push('L'),
        FileType::BlockDevice => text.push('D'),
        FileType::CharacterDevice => text.push_str("Dc"),
        FileType::Fifo => text.push('p'),
        FileType::Socket => text.push('S'),
        FileType::RegularFile | FileType::Unknown => {}
    }
    let mode = Mode::from_raw_mode(raw_mode);
    // Go writes the letter for "character device" after these, but no device has them set.
    for (bit, letter) in [(Mode::SUID, 'u'), (Mode::SGID, 'g'), (Mode::SVTX, 't')] {
        if mode.contains(bit) {
            text.push(letter);
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in "rwxrwxrwx".chars().enumerate() {
        let set = raw_mode & (0o400 >> index) != 0;
        text.push(if set { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (mode, expected) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o060_660, "Drw-rw----"),
            (0o010_644, "prw-r--r--"),
            (0o140_755, "Srwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o106_711, "ugrwx--x--x"),
            (0o100_000, "----------"),
        ] {
            assert_eq!(text(mode), expected, "{mode:o}");
        }
    }
}
