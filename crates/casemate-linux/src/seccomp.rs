//! System call filters: compiled once, installed in a process that is about to execute.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
pub use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter};

/// For each system call the conditions under which it is refused; none means always.
pub type Denials = BTreeMap<i64, Vec<SeccompRule>>;

/// Why a list of denials is no filter.
#[derive(Debug, thiserror::Error)]
#[error("compile a system call filter")]
pub struct FilterError(#[source] seccompiler::BackendError);

/// A filter that answers some system calls with an error and lets all others pass.
///
/// Calls of the x32 kind and of other architectures never get past it.
#[derive(Debug, Clone)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles; the calls of `denials` will answer with `errno`.
    pub fn deny(denials: Denials, errno: u32) -> Result<Self, FilterError> {
        let compiled = SeccompFilter::new(
            denials,
            SeccompAction::Allow,
            SeccompAction::Errno(errno),
            TargetArch::x86_64,
        )
        .and_then(BpfProgram::try_from)
        .map_err(FilterError)?;
        Ok(Self(refuse_x32().into_iter().chain(compiled).collect()))
    }

    /// Installs it for the calling thread and all that it executes.
    ///
    /// Needs `CAP_SYS_ADMIN` in the thread's user namespace and never sets `no_new_privs`, which
    /// would disable setuid programs.
    pub fn install(&self) -> io::Result<()> {
        let length =
            u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog {
            len: length,
            filter: self.0.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: `program` points at `length` instructions of the kernel's layout (seccompiler's
        // type is a copy of it); the kernel copies them and checks them itself.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// x32 calls have the architecture of ordinary ones and a bit in the number that no list names.
fn refuse_x32() -> [sock_filter; 3] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, at offset 0: the number.
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32_BIT: u32 = 0x4000_0000;
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    [
        sock_filter {
            code: LOAD_WORD,
            jt: 0,
            jf: 0,
            k: 0,
        },
        sock_filter {
            code: JUMP_IF_AT_LEAST,
            jt: 0,
            jf: 1,
            k: X32_BIT,
        },
        sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: enosys,
        },
    ]
}
