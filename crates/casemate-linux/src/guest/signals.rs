//! Signals taken in turn instead of by handlers, as an init does.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use libc::c_int;

/// What an init is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// A child ended (one note may stand for several).
    Child,
    /// Stop everything.
    Terminate,
    /// Of no meaning to an init.
    Other(c_int),
}

/// The signal mask as it was; restores it when asked.
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Puts the remembered mask back.
    pub fn restore(&self) -> io::Result<()> {
        mask(&self.0).map(drop)
    }
}

/// Blocks all signals for [`wait_signal`] to take. A blocked signal reaches even process 1, which
/// the kernel otherwise shields from all that it has no handler for.
pub fn block_for_init() -> io::Result<SignalMask> {
    mask(&all_signals()).map(SignalMask)
}

/// Waits for one blocked signal. `None`: the time is over.
pub fn wait_signal(timeout: Option<Duration>) -> io::Result<Option<Caught>> {
    let set = all_signals();
    let until = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let until = until.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `set` and the optional timespec live through the call; no siginfo is asked for.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), until) };
    match signal {
        libc::SIGCHLD => Ok(Some(Caught::Child)),
        libc::SIGTERM | libc::SIGINT => Ok(Some(Caught::Terminate)),
        signal if signal > 0 => Ok(Some(Caught::Other(signal))),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
            error if error.raw_os_error() == Some(libc::EINTR) => Ok(None),
            error => Err(error),
        },
    }
}

/// Sends SIGTERM (or SIGKILL) to every process that this one may signal, except itself and
/// process 1. For use as process 1 of a pid namespace only: elsewhere it refuses.
pub fn kill_everyone(force: bool) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let signal = if force { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: no memory is passed.
    let done = unsafe { libc::kill(-1, signal) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(super) fn all_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset writes the whole set and cannot fail on a valid pointer.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Sets this thread's mask, gives the former one.
pub(super) fn mask(set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut old = all_signals();
    // SAFETY: both sets live through the call.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, &raw mut old) };
    if error != 0 {
        Err(io::Error::from_raw_os_error(error))
    } else {
        Ok(old)
    }
}
