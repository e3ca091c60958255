//! All live processes, and the ends of those that were.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use envd_wire::process::process_event::EndEvent;

use super::live::Process;
use super::pace::Pace;
use crate::limits::{PROCESSES, RETAINED_EXIT, RETAINED_EXITS};

#[derive(Default)]
pub struct ProcessTable {
    live: RefCell<HashMap<u32, Rc<Process>>>,
    retained: RefCell<VecDeque<Retained>>,
    /// Of what all of them write.
    pub pace: Pace,
}

/// How a process ended, for those who ask later.
#[derive(Debug, Clone)]
pub struct Retained {
    pub pid: u32,
    pub tag: Option<String>,
    pub end: EndEvent,
    at: Instant,
}

impl ProcessTable {
    pub fn is_full(&self) -> bool {
        self.live.borrow().len() >= PROCESSES
    }

    /// A new process takes its pid and its tag from those that ended.
    pub fn insert(&self, process: Rc<Process>) {
        self.retained.borrow_mut().retain(|old| {
            old.pid != process.pid && (process.tag.is_none() || old.tag != process.tag)
        });
        self.live.borrow_mut().insert(process.pid, process);
    }

    /// Moves a process to the ended ones, unless its pid or tag is another's by now.
    pub fn retire(&self, process: &Rc<Process>, end: &EndEvent) {
        let mut live = self.live.borrow_mut();
        match live.get(&process.pid) {
            Some(current) if Rc::ptr_eq(current, process) => live.remove(&process.pid),
            _ => return,
        };
        let newer = process.tag.is_some() && live.values().any(|other| other.tag == process.tag);
        let mut retained = self.retained.borrow_mut();
        purge(&mut retained);
        if retained.len() >= RETAINED_EXITS {
            retained.pop_front();
        }
        retained.push_back(Retained {
            pid: process.pid,
            tag: process.tag.clone().filter(|_| !newer),
            end: end.clone(),
            at: Instant::now(),
        });
    }

    pub fn by_pid(&self, pid: u32) -> Option<Rc<Process>> {
        self.live.borrow().get(&pid).cloned()
    }

    pub fn by_tag(&self, tag: &str) -> Option<Rc<Process>> {
        self.live
            .borrow()
            .values()
            .find(|process| process.tag.as_deref() == Some(tag))
            .cloned()
    }

    pub fn retained(&self, matches: impl Fn(&Retained) -> bool) -> Option<Retained> {
        let mut retained = self.retained.borrow_mut();
        purge(&mut retained);
        retained.iter().rev().find(|old| matches(old)).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Process>> {
        self.live.borrow().values().cloned().collect()
    }
}

fn purge(retained: &mut VecDeque<Retained>) {
    while retained
        .front()
        .is_some_and(|oldest| oldest.at.elapsed() > RETAINED_EXIT)
    {
        retained.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use envd_wire::process::ProcessConfig;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::super::live::Input;
    use super::*;
    use crate::ready::register;

    fn in_runtime(test: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test() });
    }

    fn process(pid: u32, tag: Option<&str>) -> Rc<Process> {
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let pidfd = register(pidfd, tokio::io::Interest::READABLE).unwrap();
        let tag = tag.map(str::to_owned);
        Rc::new(Process::new(
            pid,
            tag,
            ProcessConfig::default(),
            pidfd,
            Input::Closed,
        ))
    }

    fn end(exit_code: i32) -> EndEvent {
        EndEvent {
            exit_code,
            ..Default::default()
        }
    }

    #[test]
    fn an_end_is_kept_until_the_pid_or_tag_is_used_again() {
        in_runtime(|| {
            let table = ProcessTable::default();
            let first = process(7, Some("web"));
            table.insert(Rc::clone(&first));
            table.retire(&first, &end(1));
            assert!(table.by_pid(7).is_none());
            assert_eq!(table.retained(|old| old.pid == 7).unwrap().end.exit_code, 1);

            table.insert(process(8, Some("web")));
            assert!(table.retained(|old| old.pid == 7).is_none());

            let third = process(9, None);
            table.insert(Rc::clone(&third));
            table.retire(&third, &end(3));
            table.insert(process(9, None));
            assert!(table.retained(|old| old.pid == 9).is_none());
        });
    }

    #[test]
    fn a_late_end_harms_no_newer_process() {
        in_runtime(|| {
            let table = ProcessTable::default();
            let old = process(7, None);
            table.insert(Rc::clone(&old));
            let new = process(7, None);
            table.insert(Rc::clone(&new));
            table.retire(&old, &end(1));
            assert!(Rc::ptr_eq(&table.by_pid(7).unwrap(), &new));
            assert!(table.retained(|old| old.pid == 7).is_none());
        });
    }

    #[test]
    fn tags_are_searched_among_all() {
        in_runtime(|| {
            let table = ProcessTable::default();
            for (pid, tag) in [(1, "a"), (2, "b"), (3, "c")] {
                table.insert(process(pid, Some(tag)));
            }
            assert_eq!(table.by_tag("b").unwrap().pid, 2);
            assert!(table.by_tag("d").is_none());
        });
    }

    #[test]
    fn ends_are_bounded() {
        in_runtime(|| {
            let table = ProcessTable::default();
            let shared = process(1, None);
            for _ in 0..=RETAINED_EXITS {
                table.live.borrow_mut().insert(1, Rc::clone(&shared));
                table.retire(&shared, &end(0));
            }
            assert_eq!(table.retained.borrow().len(), RETAINED_EXITS);
        });
    }
}
