//! The origin of steady time: one for each boot, whoever runs in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use casemate_namespaces::NamespacesConfig;
use casemate_types::{Timestamp, steady};

use super::sandboxes::make_run_dir;
use crate::data_dir::DataDir;
use crate::member::ClusterNow;

/// In the instance's folder of `/run`: the origin, and the boot that it is of. Not everywhere does a
/// reboot empty that folder.
const FILE: &str = "clock";

/// Takes the origin that an earlier process of this boot fixed, or fixes one by the wall clock.
pub(super) fn start(dir: &DataDir) -> anyhow::Result<()> {
    let kept = Kept::of(dir)?;
    match kept.origin {
        Some(origin) => steady::set_origin(origin),
        None => kept.fix(steady::offset())?,
    };
    Ok(())
}

/// The origin of a moment of another machine's steady time, which is now.
pub fn origin_of(now: ClusterNow) -> i64 {
    let ahead = now.0.saturating_sub(Timestamp::now().as_microsecond());
    steady::offset().saturating_add(ahead)
}

/// What of it is known in this boot.
pub(super) struct Kept {
    path: PathBuf,
    boot: String,
    pub(super) origin: Option<i64>,
}

impl Kept {
    pub(super) fn of(dir: &DataDir) -> anyhow::Result<Self> {
        let run_dir = NamespacesConfig::run_dir_default();
        make_run_dir(&run_dir)?;
        let folder = run_dir.join(dir.instance().as_str());
        fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.trim().to_owned();
        let origin = read(&path)?
            .as_deref()
            .and_then(|text| of_boot(text, &boot));
        Ok(Self { path, boot, origin })
    }

    /// From now on, and for the processes of this boot that follow.
    pub(super) fn fix(&self, origin: i64) -> io::Result<bool> {
        let half = self.path.with_extension("new");
        fs::write(&half, format!("{origin} {}", self.boot))?;
        fs::rename(&half, &self.path)?;
        Ok(steady::set_origin(origin))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `None` where it is another boot's, or nothing that can be read.
fn of_boot(text: &str, boot: &str) -> Option<i64> {
    let (origin, of) = text.split_once(' ')?;
    (of.trim() == boot).then(|| origin.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::of_boot;

    #[test]
    fn an_origin_is_one_boot_s() {
        assert_eq!(of_boot("-12 a\n", "a"), Some(-12));
        assert_eq!(of_boot("12 a", "b"), None);
        assert_eq!(of_boot("12", "a"), None);
        assert_eq!(of_boot("x a", "a"), None);
    }
}
