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

pub mod clock;
pub mod control_loop;
pub mod desk;
pub mod engine;
pub mod ha;
pub mod lease_writer;
pub mod listeners;
pub mod network;
pub mod setup;
pub mod shard_loop;

use std::error::Error;
use std::io;

/// An error with all its causes, as one line for people. Where the kernel's answer has a usual reason, that is said too.
#[must_use]
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        if let Some(reason) = cause.downcast_ref::<io::Error>().and_then(usual_reason) {
            text.push_str(reason);
        }
        next = cause.source();
    }
    text
}

/// What most often is behind an answer of the kernel.
fn usual_reason(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Some(" (is another DHCP server running?)"),
        io::ErrorKind::PermissionDenied => Some(
            " (packet sockets need CAP_NET_RAW, port 67 needs CAP_NET_BIND_SERVICE, files their permissions)",
        ),
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
}
