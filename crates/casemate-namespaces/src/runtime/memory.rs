//! Files in memory that the first process gets: what it is told, and where its output goes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// What is kept of the first process's output.
const OUTPUT_BYTES_MAX: u64 = 4096;

/// Read-only content for the agent.
pub(super) fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd(name)?;
    file.write_all_at(content, 0)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Takes output up to a bound, then refuses; never blocks who writes, and needs no reader.
pub(super) fn bounded(name: &str) -> io::Result<OwnedFd> {
    let file = memfd(name)?;
    ftruncate(&file, OUTPUT_BYTES_MAX)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

fn memfd(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(memfd_create(name, flags)?))
}

/// What the first process wrote, as text that harms no log.
pub(super) fn text_of(output: &File) -> String {
    let mut bytes = vec![0; OUTPUT_BYTES_MAX as usize];
    let length = output.read_at(&mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..length]);
    let printable = |c: &char| !c.is_control() || *c == '\n';
    text.chars()
        .filter(printable)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn output_beyond_its_bound_is_refused_and_the_rest_kept() {
        let mut file = File::from(bounded("test").unwrap());
        file.seek(SeekFrom::Start(OUTPUT_BYTES_MAX - 2)).unwrap();
        assert_eq!(file.write(b"ab").unwrap(), 2);
        assert!(file.write(b"c").is_err());
        assert_eq!(file.metadata().unwrap().len(), OUTPUT_BYTES_MAX);
    }

    #[test]
    fn what_the_agent_is_told_cannot_be_changed() {
        let mut file = File::from(sealed("test", b"{}").unwrap());
        assert!(file.write(b"x").is_err());
    }
}
