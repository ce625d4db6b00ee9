//! The log: Kea's message identifiers and logger tree, outputs written by a thread of its own.
//!
//! [`log!`](crate::log) formats a line only when its logger wants it and hands it to the writer through a bounded queue: whoever
//! logs never waits for a terminal, a disk or a syslog daemon. A full queue loses lines, which are counted and told.
//! [`log_limited!`](crate::log_limited) is for what packets cause: at most [`LIMIT_LINES`] lines per message and second, then one line that
//! says how many more there were. Shards do not format at all: they offer a [`Sample`] to a [`SampleQueue`] that the control
//! thread empties.
//!
//! Promises: no panic, no lock held while writing; `offer` neither allocates nor blocks.

mod output;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, RecvTimeoutError, Sender};
use crossbeam::queue::ArrayQueue;
use parking_lot::{Mutex, RwLock};

pub use output::{LogFormat, OutputSpec, OutputTarget, SyslogFacility};
use output::{Outputs, Record};

use super::clock::Zone;
use crate::ids::HwAddr;

/// Lines that wait for the writer.
pub const QUEUE_LINES_MAX: usize = 8192;
/// Lines of one message per second before the rest is only counted.
pub const LIMIT_LINES: u32 = 10;
const LIMIT_WINDOW_US: u64 = 1_000_000;

/// How much a line matters. A logger writes lines that are not above its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The server stops.
    Fatal,
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something happened.
    Info,
    /// For whoever looks closely, 0 to 99.
    Debug(u8),
}

impl Severity {
    /// Kea's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug(_) => "DEBUG",
        }
    }

    /// The severity of a configuration: its word and `debuglevel`; nothing is `NONE` (or no word at all).
    #[must_use]
    pub fn from_word(word: &str, debug_level: u8) -> Option<Self> {
        Some(match word {
            "FATAL" => Self::Fatal,
            "ERROR" => Self::Error,
            "WARN" => Self::Warn,
            "INFO" => Self::Info,
            "DEBUG" => Self::Debug(debug_level),
            _ => return None,
        })
    }
}

/// A logger as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggerSpec {
    /// Its name: it and everything below it (`kea-dhcp4` covers `kea-dhcp4.leases`).
    pub name: String,
    /// The least important severity it writes; `None` writes nothing.
    pub severity: Option<Severity>,
    /// Where to; those of the next logger above when empty.
    pub outputs: Vec<OutputSpec>,
}

enum Message {
    Record(Record),
    Configure(Vec<LoggerSpec>),
    Flush(Sender<()>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    begun_us: u64,
    lines: u32,
    suppressed: u64,
}

struct Shared {
    queue: Sender<Message>,
    levels: RwLock<Vec<(String, Option<Severity>)>>,
    lost: AtomicU64,
    clock_us: fn() -> u64,
    windows: Mutex<HashMap<&'static str, Window>>,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Starts the log: `loggers` say what is written where, `clock_us` tells the time in microseconds since the Unix epoch.
/// Lines logged before go nowhere. A second call only configures.
pub fn start(loggers: Vec<LoggerSpec>, format: LogFormat, clock_us: fn() -> u64) {
    let (queue, messages) = channel::bounded(QUEUE_LINES_MAX);
    let shared = Shared {
        queue,
        levels: RwLock::new(Vec::new()),
        lost: AtomicU64::new(0),
        clock_us,
        windows: Mutex::new(HashMap::new()),
    };
    if SHARED.set(shared).is_ok() {
        let run = move || {
            let mut outputs = Outputs::new(format, Zone::local());
            loop {
                match messages.recv_timeout(Duration::from_secs(1)) {
                    Ok(Message::Record(record)) => outputs.write(&record),
                    Ok(Message::Configure(loggers)) => outputs.configure(&loggers),
                    Ok(Message::Flush(done)) => {
                        Outputs::flush();
                        // Whoever waited may have given up.
                        let _ = done.send(());
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if messages.is_empty() {
                    tell_losses(&mut outputs);
                }
            }
        };
        // Without a thread there is no log; the server can do its work all the same.
        let _ = thread::Builder::new().name("log-writer".to_owned()).spawn(run);
    }
    configure(loggers);
}

/// Writes what was lost or held back, now that there is room.
fn tell_losses(outputs: &mut Outputs) {
    let Some(shared) = SHARED.get() else { return };
    let now_us = (shared.clock_us)();
    let lost = shared.lost.swap(0, Ordering::Relaxed);
    let record = |id, text| Record { at_us: now_us, severity: Severity::Warn, logger: "kea-dhcp4", id, text };
    if lost > 0 {
        outputs.write(&record("LOG_LINES_LOST", format!("{lost} log lines were lost: the queue was full")));
    }
    let held_back: Vec<(&'static str, u64)> = shared
        .windows
        .lock()
        .iter_mut()
        .filter(|(_, window)| {
            window.suppressed > 0 && now_us.saturating_sub(window.begun_us) >= LIMIT_WINDOW_US
        })
        .map(|(id, window)| (*id, std::mem::take(&mut window.suppressed)))
        .collect();
    for (id, count) in held_back {
        outputs.write(&record(id, format!("{count} more suppressed")));
    }
}

/// Puts other loggers in force; files are opened anew.
pub fn configure(loggers: Vec<LoggerSpec>) {
    let Some(shared) = SHARED.get() else { return };
    *shared.levels.write() = loggers.iter().map(|logger| (logger.name.clone(), logger.severity)).collect();
    // A full queue is full of lines that the writer is about to write: this one may wait.
    let _ = shared.queue.send(Message::Configure(loggers));
}

/// Waits until everything logged so far is written, for `timeout` at most: before the process ends.
pub fn flush(timeout: Duration) {
    let Some(shared) = SHARED.get() else { return };
    let (done, wait) = channel::bounded(1);
    if shared.queue.send_timeout(Message::Flush(done), timeout).is_ok() {
        let _ = wait.recv_timeout(timeout);
    }
}

/// The entry of `loggers` that speaks for `name`: the longest name that is it or above it.
fn governing<'a, T>(loggers: &'a [T], name: &str, name_of: impl Fn(&T) -> &str) -> Option<&'a T> {
    let covers = |own: &str| {
        own.is_empty() || name.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    loggers.iter().filter(|logger| covers(name_of(logger))).max_by_key(|logger| name_of(logger).len())
}

/// Whether `logger` writes lines of `severity`.
#[must_use]
pub fn is_enabled(severity: Severity, logger: &str) -> bool {
    let Some(shared) = SHARED.get() else { return false };
    let levels = shared.levels.read();
    match governing(&levels, logger, |(name, _)| name) {
        Some((_, threshold)) => threshold.is_some_and(|threshold| severity <= threshold),
        None => severity <= Severity::Info,
    }
}

/// Hands a line to the writer. Called by the macros after [`is_enabled`].
pub fn write(severity: Severity, logger: &'static str, id: &'static str, text: fmt::Arguments<'_>) {
    let Some(shared) = SHARED.get() else { return };
    let record = Record { at_us: (shared.clock_us)(), severity, logger, id, text: text.to_string() };
    if shared.queue.try_send(Message::Record(record)).is_err() {
        shared.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether another line of message `id` may be written in this second; if so, how many were held back before it.
#[must_use]
pub fn admit(id: &'static str) -> Option<u64> {
    let shared = SHARED.get()?;
    let now_us = (shared.clock_us)();
    shared.windows.lock().entry(id).or_default().admit(now_us)
}

impl Window {
    fn admit(&mut self, now_us: u64) -> Option<u64> {
        if now_us.saturating_sub(self.begun_us) >= LIMIT_WINDOW_US || now_us < self.begun_us {
            self.begun_us = now_us;
            self.lines = 0;
        }
        if self.lines >= LIMIT_LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Logs a line: severity, logger, message identifier, then as [`format!`].
#[macro_export]
macro_rules! log {
    ($severity:expr, $logger:expr, $id:ident, $($text:tt)+) => {{
        let severity = $severity;
        if $crate::control::log::is_enabled(severity, $logger) {
            $crate::control::log::write(severity, $logger, stringify!($id), format_args!($($text)+));
        }
    }};
}

/// As [`log!`](crate::log), with at most [`LIMIT_LINES`] lines per message and second.
#[macro_export]
macro_rules! log_limited {
    ($severity:expr, $logger:expr, $id:ident, $($text:tt)+) => {{
        let severity = $severity;
        if $crate::control::log::is_enabled(severity, $logger)
            && let Some(suppressed) = $crate::control::log::admit(stringify!($id))
        {
            if suppressed > 0 {
                $crate::control::log::write(
                    severity, $logger, stringify!($id), format_args!("{suppressed} more suppressed"),
                );
            }
            $crate::control::log::write(severity, $logger, stringify!($id), format_args!($($text)+));
        }
    }};
}

/// What a shard wants to be told of one packet: plain values, formatted by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How much it matters.
    pub severity: Severity,
    /// The logger.
    pub logger: &'static str,
    /// The message identifier.
    pub id: &'static str,
    /// What it is about.
    pub text: &'static str,
    /// The client.
    pub hw_addr: HwAddr,
    /// The transaction.
    pub xid: u32,
    /// The address in question; 0.0.0.0 when there is none.
    pub address: Ipv4Addr,
}

/// Samples on their way from one or more shards to the control thread.
#[derive(Debug)]
pub struct SampleQueue {
    samples: ArrayQueue<Sample>,
    lost: AtomicU64,
}

impl SampleQueue {
    /// A queue for at most `capacity` samples (1 at least).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { samples: ArrayQueue::new(capacity.max(1)), lost: AtomicU64::new(0) }
    }

    /// Offers a sample; when there is no room it is counted as lost. Neither allocates nor blocks.
    pub fn offer(&self, sample: Sample) {
        if self.samples.push(sample).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest sample.
    #[must_use]
    pub fn take(&self) -> Option<Sample> {
        self.samples.pop()
    }

    /// Samples lost since this was last asked.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Logs what has gathered, rate-limited per message.
    pub fn log_all(&self) {
        // No more than were there at the start: shards may be faster than this.
        for _ in 0..self.samples.len() {
            let Some(sample) = self.take() else { break };
            if !is_enabled(sample.severity, sample.logger) {
                continue;
            }
            let Some(suppressed) = admit(sample.id) else { continue };
            if suppressed > 0 {
                write(
                    sample.severity,
                    sample.logger,
                    sample.id,
                    format_args!("{suppressed} more suppressed"),
                );
            }
            let Sample { hw_addr, xid, text, address, .. } = sample;
            let htype = hw_addr.htype;
            if address.is_unspecified() {
                let args = format_args!("[hwtype={htype} {hw_addr}], tid=0x{xid:08x}: {text}");
                write(sample.severity, sample.logger, sample.id, args);
            } else {
                let args = format_args!("[hwtype={htype} {hw_addr}], tid=0x{xid:08x}: {text} {address}");
                write(sample.severity, sample.logger, sample.id, args);
            }
        }
        let lost = self.take_lost();
        if lost > 0
            && let Some(shared) = SHARED.get()
        {
            shared.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_logger_above_a_name_speaks_for_it() {
        let loggers =
            [("kea-dhcp4".to_owned(), 1), ("kea-dhcp4.leases".to_owned(), 2), ("kea".to_owned(), 3)];
        let found = |name: &str| governing(&loggers, name, |(name, _)| name).map(|(_, number)| *number);
        assert_eq!(found("kea-dhcp4.leases"), Some(2));
        assert_eq!(found("kea-dhcp4.leases.x"), Some(2));
        assert_eq!(found("kea-dhcp4.leasesx"), Some(1));
        assert_eq!(found("kea-dhcp4"), Some(1));
        assert_eq!(found("other"), None);
    }

    #[test]
    fn severities_are_ordered_as_kea_orders_them() {
        let threshold = Severity::from_word("DEBUG", 50).expect("a severity");
        assert!(Severity::Debug(50) <= threshold && Severity::Debug(51) > threshold);
        assert!(Severity::Info <= threshold && Severity::Fatal <= Severity::Error);
        assert_eq!(Severity::from_word("NONE", 0), None);
    }

    #[test]
    fn a_flood_is_ten_lines_per_second_and_a_count() {
        let mut window = Window::default();
        let admitted = (0..100).filter(|_| window.admit(5_000_000).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(window.admit(6_000_000), Some(90));
        assert_eq!(window.admit(6_000_001), Some(0));
        // A clock that goes back does not close the window for ever.
        assert_eq!(window.admit(1), Some(0));
    }

    #[test]
    fn samples_beyond_the_room_are_counted() {
        let queue = SampleQueue::new(2);
        let sample = Sample {
            severity: Severity::Warn,
            logger: "kea-dhcp4",
            id: "X",
            text: "",
            hw_addr: HwAddr::ethernet([0; 6]),
            xid: 1,
            address: Ipv4Addr::UNSPECIFIED,
        };
        for _ in 0..5 {
            queue.offer(sample);
        }
        assert_eq!(queue.take_lost(), 3);
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some(sample), Some(sample), None));
    }
}
