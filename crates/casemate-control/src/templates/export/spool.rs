//! The layer on its way to the disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use casemate_images::{Digest, PackedLayer};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::mpsc;

use super::ExportError;
use crate::templates::uploads::{Temporary, Writer};

/// Bytes that are gathered before they are packed, and before they go to the disk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Writes what was packed, within bounds.
struct Bounded {
    writer: Writer,
    bytes: u64,
    bytes_max: u64,
    reserve: u64,
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.writer.write(chunk, self.reserve)?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts what comes into pieces of one length. What a packer makes of it depends on where it is cut, and
/// the same files are to be the same archive.
struct Even<W> {
    into: W,
    gathered: Vec<u8>,
}

impl<W: Write> Even<W> {
    fn new(into: W) -> Self {
        Self {
            into,
            gathered: Vec::with_capacity(CHUNK_BYTES),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.gathered.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == CHUNK_BYTES {
                self.into.write_all(&self.gathered)?;
                self.gathered.clear();
            }
        }
        Ok(())
    }

    /// With what is left.
    fn finish(mut self) -> io::Result<W> {
        self.into.write_all(&self.gathered)?;
        Ok(self.into)
    }
}

/// Packs what comes, to its end. Whether that is the whole, only who sends it knows. Blocks.
pub(super) fn spool(
    dir: &Path,
    mut plain: mpsc::Receiver<Bytes>,
    bytes_max: u64,
    reserve: u64,
) -> Result<(PackedLayer, File), ExportError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExportError::DiskFull,
        io::ErrorKind::FileTooLarge => ExportError::TooLarge(bytes_max),
        _ => ExportError::Write(error),
    };
    let (file, writer) = Temporary::create(dir).map_err(failed)?;
    let bounded = Bounded {
        writer,
        bytes: 0,
        bytes_max,
        reserve,
    };
    let output = BufWriter::with_capacity(CHUNK_BYTES, bounded);
    // Fast: it is read once, and whoever keeps it can pack it better.
    let mut packer = Even::new(GzEncoder::new(output, Compression::fast()));
    let mut diff_id = Sha256::new();
    let packed = (|| {
        while let Some(piece) = plain.blocking_recv() {
            diff_id.update(&piece);
            packer.write(&piece)?;
        }
        let output = packer.finish()?.finish()?;
        output.into_inner().map_err(io::IntoInnerError::into_error)
    })();
    let Bounded { writer, bytes, .. } = packed.map_err(failed)?;
    let (written, digest) = writer.into_parts();
    // Its name goes; the content stays as long as somebody has it open.
    drop(file);
    let digest_of = |hash: Sha256| {
        let text = format!("sha256:{}", hex::encode(hash.finalize()));
        Digest::parse(&text).expect("a SHA-256 in hexadecimal is a digest")
    };
    let layer = PackedLayer {
        digest: digest_of(digest),
        bytes,
        diff_id: digest_of(diff_id),
    };
    Ok((layer, written))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn spooled(
        pieces: &[&[u8]],
        bytes_max: u64,
        reserve: u64,
    ) -> Result<(PackedLayer, File), ExportError> {
        let dir = tempfile::tempdir().unwrap();
        let (sender, plain) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(sender);
        let spooled = spool(&dir.path().join("team"), plain, bytes_max, reserve);
        let left = std::fs::read_dir(dir.path().join("team")).unwrap().count();
        assert_eq!(left, 0);
        spooled
    }

    #[test]
    fn a_layer_is_packed_and_has_no_name() {
        let (layer, mut file) = spooled(&[b"one ", b"two"], 1000, 0).unwrap();
        let mut packed = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut packed).unwrap();
        assert_eq!(layer.bytes, packed.len() as u64);
        assert_eq!(layer.digest, Digest::of(&packed));
        assert_eq!(layer.diff_id, Digest::of(b"one two"));
        let mut plain = String::new();
        GzDecoder::new(packed.as_slice())
            .read_to_string(&mut plain)
            .unwrap();
        assert_eq!(plain, "one two");
    }

    /// Notes how it was cut.
    #[derive(Default)]
    struct Cuts(Vec<usize>);

    impl Write for Cuts {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.push(piece.len());
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_packer_sees_no_difference_however_it_came() {
        let plain = vec![7; 3 * CHUNK_BYTES + 5];
        for length in [1000, 65_536, CHUNK_BYTES, 700_001, plain.len()] {
            let mut even = Even::new(Cuts::default());
            for piece in plain.chunks(length) {
                even.write(piece).unwrap();
            }
            let Cuts(cuts) = even.finish().unwrap();
            let expected = [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 5];
            assert_eq!(cuts, expected, "{length}");
        }
    }

    #[test]
    fn its_size_and_the_disk_have_bounds() {
        let error = spooled(&[b"content"], 10, 0).err();
        assert!(
            matches!(error, Some(ExportError::TooLarge(10))),
            "{error:?}"
        );
        let error = spooled(&[b"content"], 1000, u64::MAX).err();
        assert!(matches!(error, Some(ExportError::DiskFull)), "{error:?}");
    }
}
