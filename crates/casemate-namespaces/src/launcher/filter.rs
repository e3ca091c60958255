//! The system calls that sandboxes do not get.
//!
//! A list of denials and not of permissions: sandboxes run whatever people bring, and what is
//! closed here is what is open without a filter to root of a user namespace (`docs/security.md`).
//! `no_new_privs` stays off, so `sudo` works.

use casemate_linux::seccomp::{Condition, Denial, Filter, FilterError, Test};
use libc::*;

/// Not in `libc` for this target, by their numbers on x86_64.
const SYS_OPEN_TREE_ATTR: c_long = 467;

/// Answered with `EPERM` whatever the arguments are.
const DENIED: &[c_long] = &[
    // Other kernels and code in this one.
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_bpf,
    SYS_reboot,
    // Watching and steering the whole machine.
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_syslog,
    SYS_acct,
    SYS_lookup_dcookie,
    SYS_fanotify_init,
    SYS_vhangup,
    SYS_iopl,
    SYS_ioperm,
    SYS_swapon,
    SYS_swapoff,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    // Around permissions: files by handle, keys of the kernel.
    SYS_open_by_handle_at,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_quotactl,
    SYS_quotactl_fd,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    SYS_setns,
    // Left-overs.
    SYS_uselib,
    SYS_ustat,
    SYS_sysfs,
    SYS__sysctl,
    SYS_nfsservctl,
];

/// Answered with `ENOSYS`, so that programs fall back to what they used before.
const ABSENT: &[c_long] = &[
    SYS_clone3,
    // Its contexts come out of one number for the whole host; programs fall back to threads.
    SYS_io_setup,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
];

/// Execution domains that change nothing of interest: plain, 32-bit names, old version numbers,
/// no address randomization (debuggers), and the question which one is set.
const PERSONALITIES: [u32; 6] = [0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

/// The filter of every sandbox.
pub(super) fn strict() -> Result<Filter, FilterError> {
    let always = |call: &c_long, errno| Denial {
        call: *call,
        errno,
        when: Vec::new(),
    };
    let mut all = conditional();
    all.extend(DENIED.iter().map(|call| always(call, EPERM)));
    all.extend(ABSENT.iter().map(|call| always(call, ENOSYS)));
    Filter::deny(&all)
}

fn conditional() -> Vec<Denial> {
    let new_user = Test::Has(CLONE_NEWUSER.unsigned_abs());
    let other_personality = PERSONALITIES
        .map(|kind| when(0, Test::IsNot(kind)))
        .to_vec();
    // Typing into another's terminal, and the console's own tricks.
    let requests = [TIOCSTI, TIOCLINUX].map(|request| vec![when(1, Test::Is(request as u32))]);
    // Refused as a kernel without them does: the audit library, and with it `su`, takes any
    // other answer for a failure.
    vec![
        denial(SYS_socket, EAFNOSUPPORT, socket_conditions()),
        denial(SYS_socketpair, EAFNOSUPPORT, vec![vec![is_not(0, AF_UNIX)]]),
        denial(SYS_ioctl, EPERM, requests.to_vec()),
        denial(SYS_clone, EPERM, vec![vec![when(0, new_user)]]),
        denial(SYS_unshare, EPERM, vec![vec![when(0, new_user)]]),
        denial(SYS_personality, EPERM, vec![other_personality]),
    ]
}

/// Local sockets, the internet, and the two kinds of netlink that programs ask about the network.
/// `AF_VSOCK` above all must not pass: it has no namespaces and reaches the hypervisor.
fn socket_conditions() -> Vec<Vec<Condition>> {
    let families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
    let other = families.map(|family| is_not(0, family)).to_vec();
    let netlink = vec![
        when(0, Test::Is(AF_NETLINK.unsigned_abs())),
        is_not(2, NETLINK_ROUTE),
        is_not(2, NETLINK_KOBJECT_UEVENT),
    ];
    vec![other, netlink]
}

fn denial(call: c_long, errno: c_int, when: Vec<Vec<Condition>>) -> Denial {
    Denial { call, errno, when }
}

fn is_not(argument: u8, value: c_int) -> Condition {
    when(argument, Test::IsNot(value.unsigned_abs()))
}

fn when(argument: u8, test: Test) -> Condition {
    Condition { argument, test }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_compile_and_name_no_call_twice() {
        strict().unwrap();
        let all: std::collections::BTreeSet<_> = DENIED.iter().chain(ABSENT).collect();
        assert_eq!(all.len(), DENIED.len() + ABSENT.len());
    }
}
