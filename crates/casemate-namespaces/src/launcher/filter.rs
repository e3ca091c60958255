//! The system calls that sandboxes do not get.
//!
//! A list of denials and not of permissions: sandboxes run whatever people bring, and what is
//! closed here is what is open without a filter to root of a user namespace (`docs/security.md`).
//! `no_new_privs` stays off, so `sudo` works.

use casemate_linux::seccomp::{
    Denials, Filter, FilterError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
};
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
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
];

/// Execution domains that change nothing of interest: plain, 32-bit names, old version numbers,
/// no address randomization (debuggers), and the question which one is set.
const PERSONALITIES: [u64; 6] = [0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

/// The filters of every sandbox, in order of installation.
pub(super) fn strict() -> Result<Vec<Filter>, FilterError> {
    let absent = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    let sockets = Denials::from([
        (SYS_socket, socket_rules()),
        (SYS_socketpair, vec![rule(vec![is_not(0, AF_UNIX)])]),
    ]);
    Ok(vec![
        Filter::deny(absent, ENOSYS as u32)?,
        // What a kernel without them says: the audit library, and with it `su`, takes any other
        // answer for a failure.
        Filter::deny(sockets, EAFNOSUPPORT as u32)?,
        Filter::deny(denials(), EPERM as u32)?,
    ])
}

fn denials() -> Denials {
    let mut all: Denials = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let new_user = u64::from(CLONE_NEWUSER.unsigned_abs());
    for call in [SYS_clone, SYS_unshare] {
        all.insert(
            call,
            vec![rule(vec![when(
                0,
                SeccompCmpOp::MaskedEq(new_user),
                new_user,
            )])],
        );
    }
    let kept: Vec<_> = PERSONALITIES
        .iter()
        .map(|kind| when(0, SeccompCmpOp::Ne, *kind))
        .collect();
    all.insert(SYS_personality, vec![rule(kept)]);
    // Typing into another's terminal, and the console's own tricks.
    let requests = [TIOCSTI, TIOCLINUX]
        .map(|request| rule(vec![when(1, SeccompCmpOp::Eq, request & 0xffff_ffff)]));
    all.insert(SYS_ioctl, requests.to_vec());
    all
}

/// Local sockets, the internet, and the two kinds of netlink that programs ask about the network.
/// `AF_VSOCK` above all must not pass: it has no namespaces and reaches the hypervisor.
fn socket_rules() -> Vec<SeccompRule> {
    let families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
    let other = families.iter().map(|family| is_not(0, *family)).collect();
    let netlink = vec![
        when(0, SeccompCmpOp::Eq, u64::from(AF_NETLINK.unsigned_abs())),
        is_not(2, NETLINK_ROUTE),
        is_not(2, NETLINK_KOBJECT_UEVENT),
    ];
    vec![rule(other), rule(netlink)]
}

fn is_not(argument: u8, value: c_int) -> SeccompCondition {
    when(argument, SeccompCmpOp::Ne, u64::from(value.unsigned_abs()))
}

/// Compares the lower half only: these arguments are C ints, whose upper half is anybody's.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .expect("arguments are numbered 0 to 5")
}

fn rule(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).expect("the list of conditions is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_compile_and_name_no_call_twice() {
        assert_eq!(strict().unwrap().len(), 3);
        let all: std::collections::BTreeSet<_> = DENIED.iter().chain(ABSENT).collect();
        assert_eq!(all.len(), DENIED.len() + ABSENT.len());
    }
}
