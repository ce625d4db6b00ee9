//! Sleeping until a descriptor is readable, and a descriptor to end that sleep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::checked;

/// An eventfd: a counter that is readable while it is not 0.
#[derive(Debug)]
pub(in crate::net) struct EventFd(OwnedFd);

impl EventFd {
    pub(in crate::net) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and answers a new descriptor or -1.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is fresh and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable. Cannot fail in a way that matters: a full counter is readable already.
    pub(in crate::net) fn signal(&self) {
        let one = 1_u64;
        // SAFETY: `one` is 8 readable bytes, which is what an eventfd takes.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Makes it unreadable until the next signal.
    pub(in crate::net) fn drain(&self) {
        let mut count = 0_u64;
        // SAFETY: `count` is 8 writable bytes, which is what an eventfd fills.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    pub(in crate::net) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Several descriptors as one, which is readable when one of them is.
pub(in crate::net) struct Epoll {
    fd: OwnedFd,
    /// Room for what one look tells of.
    events: Box<[libc::epoll_event]>,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Epoll")
    }
}

impl Epoll {
    /// An empty set that tells of `count` descriptors at a time.
    pub(in crate::net) fn new(count: usize) -> io::Result<Self> {
        // SAFETY: takes an integer and answers a new descriptor or -1.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; count.max(1)].into_boxed_slice();
        // SAFETY: the descriptor is fresh and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, events })
    }

    /// Adds a descriptor under a number; closing it takes it out.
    pub(in crate::net) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let readable = u32::try_from(libc::EPOLLIN).expect("a positive flag");
        let mut event = libc::epoll_event { events: readable, u64: number };
        // SAFETY: both descriptors are open, and the kernel only reads `event`.
        checked(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }

    /// The numbers of those that are readable now. Does not wait.
    pub(in crate::net) fn readable(&mut self) -> io::Result<impl Iterator<Item = u64> + '_> {
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the pointer and count describe `events`, which the kernel fills at most to that count; 0 is "do not wait".
        let answer =
            checked(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, 0) });
        let count = match answer {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(self.events[..count].iter().map(|event| event.u64))
    }

    pub(in crate::net) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The descriptors of one sleep, kept between sleeps so that none of them allocates.
#[derive(Debug)]
pub(in crate::net) struct PollSet(Vec<libc::pollfd>);

impl PollSet {
    pub(in crate::net) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(in crate::net) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a descriptor for this sleep; `None` keeps the position and waits for nothing.
    pub(in crate::net) fn push(&mut self, fd: Option<BorrowedFd<'_>>) {
        let fd: RawFd = fd.map_or(-1, |fd| fd.as_raw_fd());
        self.0.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    }

    /// Sleeps until a descriptor is readable or in error, or the time is over. A signal ends the sleep as time does.
    pub(in crate::net) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        let count = libc::nfds_t::try_from(self.0.len()).expect("a set holds few descriptors");
        // SAFETY: the pointer and count describe the vector's initialised elements, `limit` outlives the call, and a null
        // signal mask means that the mask stays as it is.
        let answer =
            checked(unsafe { libc::ppoll(self.0.as_mut_ptr(), count, &raw const limit, ptr::null()) });
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                for entry in &mut self.0 {
                    entry.revents = 0;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the descriptor at this position was readable when the sleep ended.
    pub(in crate::net) fn is_readable(&self, position: usize) -> bool {
        self.0.get(position).is_some_and(|entry| entry.revents & libc::POLLIN != 0)
    }

    /// Whether the descriptor at this position has an error to report.
    pub(in crate::net) fn is_in_error(&self, position: usize) -> bool {
        self.0
            .get(position)
            .is_some_and(|entry| entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0)
    }
}
