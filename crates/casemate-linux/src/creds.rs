//! Whose rights a thread acts with: file system ids, capabilities, session keyring.

use std::io;

use rustix::process::Uid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_thread_res_uid,
};

/// Runs `action` with another user's file system ids and all capabilities that the thread has.
///
/// The kernel records such ids as the owner of what is mounted meanwhile. Changing them away from
/// root drops the file capabilities, so they are raised again; both are put back afterwards.
pub fn with_fs_ids<T>(id: u32, action: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    let _back = FsIds::set(id)?;
    set_capabilities(None, before)?;
    Ok(action())
}

/// Puts root's file system ids back, also when the action panics.
struct FsIds;

impl FsIds {
    fn set(id: u32) -> io::Result<Self> {
        let back = Self;
        change_fs_ids(id);
        // Asking with an impossible id answers what is set and changes nothing.
        // SAFETY: setfsuid and setfsgid take any number.
        let now = unsafe { (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX)) };
        if (now.0 as u32, now.1 as u32) != (id, id) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(back)
    }
}

impl Drop for FsIds {
    fn drop(&mut self) {
        change_fs_ids(0);
    }
}

fn change_fs_ids(id: u32) {
    // SAFETY: both take any number and act on the calling thread only. The group goes first: the
    // right to change it is lost with the user.
    unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
}

/// The thread acts as another effective user, with all capabilities that it had, until this is
/// dropped. The kernel counts what is made meanwhile (user namespaces, and through them the
/// watches, signals and queues of their processes) against that user.
///
/// Real and saved ids stay root's, so that the way back is open.
pub struct EffectiveUser(());

impl EffectiveUser {
    pub fn set(id: u32) -> io::Result<Self> {
        let before = capabilities(None)?;
        set_thread_res_uid(None, Uid::from_raw(id), None)?;
        let back = Self(());
        set_capabilities(None, before)?;
        Ok(back)
    }
}

impl Drop for EffectiveUser {
    fn drop(&mut self) {
        // Only a thread that is no longer in this user namespace can fail here, and it has no use
        // for the way back.
        let _ = set_thread_res_uid(None, Uid::ROOT, None);
    }
}

/// Gives up every capability outside `kept`, for this thread and all that it executes.
pub fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..=63 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(Into::into)
}

/// Leaves the session keyring of whoever started us for a new, empty one.
pub fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: no pointer but the null name, which asks for an anonymous keyring.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
    match answer {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
