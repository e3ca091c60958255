//! What must be remembered of a sandbox to find it again, and how it is recognised.

use std::io;
use std::os::fd::OwnedFd;

use casemate_runtime::{IsolationKind, RuntimeRecord};
use casemate_types::SandboxId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::view::Machine;

/// Format of [`Facts`]; a record with another one is not adopted.
pub(crate) const FACTS_VERSION: u32 = 1;

/// A running sandbox's marks on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Of the boot in which the numbers below mean anything.
    pub(crate) boot_id: String,
    pub(crate) pid: i32,
    /// In clock ticks since boot: with the pid it names a process for good.
    pub(crate) start_time: u64,
    /// The kernel's number of its control group.
    pub(crate) cgroup: u64,
    /// The group's name; earlier versions named it after the sandbox and did not write it down.
    #[serde(default)]
    pub(crate) group: Option<String>,
    pub(crate) slot: u16,
    pub(crate) layer: String,
    /// What it sees as its machine; earlier versions showed the host's.
    #[serde(default)]
    pub(crate) machine: Option<Machine>,
}

impl Facts {
    pub(crate) fn record(&self, sandbox: &SandboxId) -> Result<RuntimeRecord, serde_json::Error> {
        Ok(RuntimeRecord {
            sandbox: sandbox.clone(),
            kind: IsolationKind::Namespaces,
            version: FACTS_VERSION,
            facts: serde_json::to_value(self)?,
        })
    }

    pub(crate) fn of(record: &RuntimeRecord) -> io::Result<Self> {
        if record.kind != IsolationKind::Namespaces || record.version != FACTS_VERSION {
            let what = format!(
                "record of kind {:?}, version {}",
                record.kind, record.version
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(serde_json::from_value(record.facts.clone())?)
    }

    /// The first process, if it still runs: never another one that got its number.
    pub(crate) fn process(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            other => other?,
        };
        // Looked up after the descriptor was taken: if it matches, the descriptor is right.
        match start_time(self.pid) {
            Ok(time) if time == self.start_time && !has_ended(&pidfd)? => Ok(Some(pidfd)),
            _ => Ok(None),
        }
    }
}

/// Also of one that nobody has waited for: it keeps its number and has nothing else.
fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let at_once = Timespec::default();
    Ok(retry_on_intr(|| poll(&mut polled, Some(&at_once)))? > 0)
}

pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Field 22 of `stat`. The name in field 2 may hold anything, so fields count from its end.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_fields() {
        let fields: Vec<_> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("7 (short) S 1"), None);
    }

    #[test]
    fn a_record_of_an_earlier_version_says_nothing_of_its_machine() {
        let text = r#"{"boot_id":"b","pid":1,"start_time":2,"cgroup":3,"slot":4,"layer":"5"}"#;
        let facts: Facts = serde_json::from_str(text).unwrap();
        assert!(facts.machine.is_none() && facts.group.is_none());
    }

    #[test]
    fn this_process_is_recognised_and_a_changed_mark_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut facts = Facts {
            boot_id: boot_id().unwrap(),
            pid,
            start_time: start_time(pid).unwrap(),
            cgroup: 1,
            group: None,
            slot: 0,
            layer: "0".into(),
            machine: None,
        };
        assert!(facts.process().unwrap().is_some());
        facts.start_time += 1;
        assert!(facts.process().unwrap().is_none());
        facts.start_time -= 1;
        facts.boot_id = "another".into();
        assert!(facts.process().unwrap().is_none());
    }
}
