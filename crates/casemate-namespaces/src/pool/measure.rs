//! What is kept beyond sandboxes takes, and when it was used last.
//!
//! The last use is the time of access of the folder: no stream has it ([`super::packed`]), and sandboxes
//! see their own upper folder in its place.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use casemate_runtime::Measured;
use casemate_types::Portable;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, lstat, utimensat};

use super::{Pool, still};

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW,
};

impl Pool {
    /// What one of them takes, and for how long nobody has used it. `None`: it is not there.
    pub fn measure(&self, what: &Portable) -> io::Result<Option<Measured>> {
        let place = self.place_of(what);
        match self.measure_at(&place, what) {
            // It may have been removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            measured => measured.map(Some),
        }
    }

    fn measure_at(&self, place: &Path, what: &Portable) -> io::Result<Measured> {
        let found = lstat(place)?;
        let used_at = Timespec {
            tv_sec: found.st_atime,
            tv_nsec: found.st_atime_nsec.try_into().unwrap_or(0),
        };
        let bytes = match what {
            Portable::Layer(_) => still::bytes_below(place)?,
            Portable::Snapshot(_) => self.layers.kept_bytes(place)?.unwrap_or(0),
        };
        // Looking is no use.
        set_used_at(place, used_at)?;
        let seconds = u64::try_from(used_at.tv_sec).unwrap_or(0);
        let used_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // The clock may have been set back.
        let unused_for = used_at.elapsed().unwrap_or_default();
        Ok(Measured { bytes, unused_for })
    }

    /// Notes that these are used now, as far as that works.
    pub fn note_use(&self, whats: &[Portable]) {
        for what in whats {
            if let Err(error) = set_used_at(&self.place_of(what), NOW)
                && error.kind() != io::ErrorKind::NotFound
            {
                let cause = error.to_string();
                tracing::debug!(cause, "the use of {what} is not noted");
            }
        }
    }

    fn place_of(&self, what: &Portable) -> PathBuf {
        match what {
            Portable::Layer(layer) => self.sealed_at(layer),
            Portable::Snapshot(snapshot) => self.kept_at(snapshot),
        }
    }
}

fn set_used_at(place: &Path, at: Timespec) -> io::Result<()> {
    let times = Timestamps {
        last_access: at,
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
