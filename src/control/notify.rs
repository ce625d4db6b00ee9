//! What the service manager is told: `sd_notify` by datagram, without a library.
//!
//! Promises: no panic, never waits; without a service manager everything here does nothing.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    #[must_use]
    pub fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && for_us).map(Duration::from_micros);
        Self { socket: std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok()), watchdog }
    }

    /// How often [`Self::watchdog`] is to be called: half of what the service manager allows.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|allowed| allowed / 2)
    }

    /// Clients are served.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again; [`Self::ready`] ends it. `monotonic_us` is the machine's `CLOCK_MONOTONIC` in
    /// microseconds: the manager compares it with its own.
    pub fn reloading(&self, monotonic_us: u64) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={monotonic_us}"));
    }

    /// The server is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The server is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen is not waited for.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_each_state() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("binds");
        let notifier =
            Notifier { socket: connect(&path.into_os_string()).ok(), watchdog: Some(Duration::from_secs(3)) };
        notifier.ready("serving\nX=1");
        notifier.reloading(5);
        notifier.watchdog();
        notifier.stopping();
        let heard = || {
            let mut buffer = [0; 200];
            let count = manager.recv(&mut buffer).expect("a datagram");
            String::from_utf8(buffer[..count].to_vec()).expect("text")
        };
        assert_eq!(heard(), "READY=1\nSTATUS=serving X=1");
        assert_eq!(heard(), "RELOADING=1\nMONOTONIC_USEC=5");
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(heard(), "STOPPING=1");
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_millis(1500)));
        Notifier::default().ready("nobody listens");
    }
}
