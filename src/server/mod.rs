//! The one room that wires the others: threads, clocks, signals, start and end.
//!
//! | thread | what it does | module |
//! |---|---|---|
//! | `shard-N` | receives, decides, answers; owns the leases of its clients | [`shard_loop`] |
//! | `log` | writes rows, syncs, publishes watermarks | [`engine`] |
//! | `control` (the first) | control API, HA machine, configuration, interfaces, clean-up of the lease file | [`control_loop`] |
//!
//! Promises: a shard thread neither allocates nor frees for a packet, takes no lock, and makes no system call but those of
//! its ports. What shards and control say to each other goes through bounded queues and published words.

pub mod admission;
pub mod clock;
pub mod control_loop;
pub mod desk;
pub mod engine;
pub mod gathering;
pub mod ha;
pub mod lease_writer;
pub mod listeners;
mod loading;
mod log_work;
pub mod network;
pub mod pairs;
pub mod sampler;
pub mod setup;
pub mod shard_bell;
pub mod shard_loop;

use std::error::Error;
use std::io;

use crate::store;

/// An error with all its causes, as one line for people. Where the kernel's answer has a usual reason, that is said too.
#[must_use]
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let of_file = error.downcast_ref::<store::Error>().is_some();
    let mut next = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        let kernels = cause.downcast_ref::<io::Error>();
        if let Some(reason) = kernels.and_then(|answer| usual_reason(answer, of_file)) {
            text.push_str(reason);
        }
        next = cause.source();
    }
    text
}

/// What most often is behind an answer of the kernel, about a lease file or about sockets.
fn usual_reason(error: &io::Error, of_file: bool) -> Option<&'static str> {
    match (error.kind(), of_file) {
        (io::ErrorKind::NotFound, true) => Some(" (is there such a folder?)"),
        (io::ErrorKind::PermissionDenied, true) => {
            Some(" (the file and its folder must be writable for the user that the server runs as)")
        }
        (io::ErrorKind::AddrInUse, _) => Some(" (is another DHCP server running?)"),
        (io::ErrorKind::PermissionDenied, false) => {
            Some(" (packet sockets need CAP_NET_RAW, port 67 needs CAP_NET_BIND_SERVICE)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_the_kernels_answer_and_its_usual_reason() {
        let error = crate::net::OpenError {
            interface: "eth9".to_owned(),
            step: "bind the fallback socket",
            source: io::Error::from_raw_os_error(libc::EADDRINUSE),
        };
        let text = told(&error);
        assert!(text.starts_with("cannot bind the fallback socket on interface eth9: "), "{text}");
        assert!(
            text.contains("os error 98") && text.ends_with("(is another DHCP server running?)"),
            "{text}"
        );
    }

    #[test]
    fn what_is_said_about_files_is_not_what_is_said_about_sockets() {
        let file = |code| {
            let (action, path) = ("lock", "/var/lib/kea/leases.csv.lock".into());
            told(&store::Error::Io { action, path, source: io::Error::from_raw_os_error(code) })
        };
        assert!(file(libc::ENOENT).ends_with("(is there such a folder?)"));
        assert!(file(libc::EACCES).ends_with("for the user that the server runs as)"));
        assert!(told(&io::Error::from_raw_os_error(libc::EPERM)).contains("CAP_NET_RAW"));
    }
}
