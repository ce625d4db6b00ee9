//! Network namespaces: the demo, the instruments and the tests open sockets in namespaces of their own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::checked;

/// Moves the calling thread into the network namespace that `namespace` (a file of `/run/netns` or `/proc/*/ns/net`) stands
/// for. Sockets opened by this thread from now on live there, wherever they are used.
///
/// # Errors
/// Without the privilege (CAP_SYS_ADMIN over both namespaces), or when the file is none of a network namespace.
pub fn enter_network_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: takes a descriptor and a kind; changes the calling thread's namespace and no memory.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// The calling thread's network namespace.
///
/// # Errors
/// Without `/proc`.
pub fn network_namespace() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Moves the calling thread into a new network namespace without a name. It ends with the last thread, socket and file in it:
/// nothing is left to clean up, however the process ends.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the system allows no more namespaces.
pub fn new_network_namespace() -> io::Result<File> {
    // SAFETY: takes a kind; changes the calling thread's namespace and no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    network_namespace()
}

/// Moves the process, which must have one thread only, into a new user namespace in which it is root and has every privilege
/// over the namespaces that it makes from there.
///
/// # Errors
/// Where the system does not allow it to this user, or with more than one thread. When only the mapping of users is refused,
/// the process is in the new namespace without privileges.
pub fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: both only read the process's own numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: takes a kind; changes the process's namespace and no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    // The kernel takes a mapping of groups from the unprivileged only when groups cannot be dropped any more.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Makes the child that `command` starts end with the calling thread, even when that is killed.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec and makes one system call, which allocates and locks nothing.
    unsafe {
        command.pre_exec(|| {
            let signal = libc::c_ulong::try_from(libc::SIGKILL).unwrap_or(9);
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, signal)).map(drop)
        })
    }
}
