//! Network namespaces: the demo, the instruments and the tests open sockets in namespaces of their own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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
