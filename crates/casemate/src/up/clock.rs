//! The origin of steady time: one for each boot, whoever runs in it.

use std::fs;
use std::io;
use std::path::Path;

use casemate_namespaces::NamespacesConfig;
use casemate_types::steady;

use super::sandboxes::make_run_dir;
use crate::data_dir::DataDir;

/// In the instance's folder of `/run`, which a reboot empties.
const FILE: &str = "clock";

/// Takes the origin that an earlier process of this boot fixed, or fixes one.
pub(super) fn start(dir: &DataDir) -> anyhow::Result<()> {
    let run_dir = NamespacesConfig::run_dir_default();
    make_run_dir(&run_dir)?;
    let folder = run_dir.join(dir.instance().as_str());
    fs::create_dir_all(&folder)?;
    let path = folder.join(FILE);
    let origin = match read(&path)? {
        Some(origin) => origin,
        None => {
            let (origin, half) = (steady::offset(), path.with_extension("new"));
            fs::write(&half, origin.to_string())?;
            fs::rename(&half, &path)?;
            origin
        }
    };
    steady::set_origin(origin);
    Ok(())
}

/// `None` where there is none that can be read.
fn read(path: &Path) -> io::Result<Option<i64>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
