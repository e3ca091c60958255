//! File systems whose changes inotify does not see, because others make them elsewhere.

use std::io;
use std::path::Path;

use rustix::fs::statfs;

const MAGIC: [i64; 5] = [
    0x6969,      // NFS
    0xFF53_4D42, // CIFS
    0x517B,      // SMB
    0xFE53_4D42, // SMB2
    0x6573_5546, // FUSE
];

pub fn is_network(path: &Path) -> io::Result<bool> {
    // Some architectures have narrower words here.
    #[allow(
        clippy::useless_conversion,
        reason = "the width differs between architectures"
    )]
    let magic = i64::from(statfs(path)?.f_type);
    Ok(MAGIC.contains(&magic))
}
