//! The asked side of a synchronisation in service: which leases have changed since it began.
//!
//! The asking server opens a session, copies pages while this server goes on serving, then asks for what changed
//! meanwhile, again and again until little is left, and only then disables the service for the rest. Here only addresses
//! are kept, each once, so that a lease that changes often costs one entry; its content is read when it is asked for.
//!
//! An answer may be lost: the same sequence number gets the same addresses again.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;

use serde_json::Value;

use super::command::Answer;
use crate::time::{Mono, Now};

/// Most changed addresses that wait; with more the copy must begin anew.
pub const CHANGES_MAX: usize = 4_000_000;
/// Most addresses per answer.
pub const CHANGES_PER_ANSWER_MAX: u32 = 20_000;
/// A session that nobody asks about is forgotten after this.
pub const SESSION_IDLE_MS: u64 = 120_000;

/// Changes since a session began; one session per feed, a new one replaces it.
#[derive(Debug, Default)]
pub struct ChangeFeed {
    session: Option<Session>,
    sessions: u64,
}

#[derive(Debug)]
struct Session {
    id: u64,
    sequence: u64,
    queue: VecDeque<Ipv4Addr>,
    queued: HashSet<Ipv4Addr>,
    outstanding: Vec<Ipv4Addr>,
    overflown: bool,
    used: Mono,
}

impl Session {
    /// Nothing that is kept is of use any more.
    fn overflow(&mut self) {
        self.overflown = true;
        self.queue = VecDeque::new();
        self.queued = HashSet::new();
    }
}

/// What is to be answered: read these leases now; those that are absent are deletions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Addresses whose leases changed.
    pub addresses: Vec<Ipv4Addr>,
    /// How many more wait.
    pub remaining: u64,
    /// Changes were lost.
    pub overflown: bool,
}

/// The arguments of `aplomado-sync-changes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangesRequest {
    /// From `aplomado-sync-begin`.
    pub session: u64,
    /// One more than the last one answered, or the same to have it again.
    pub sequence: u64,
    /// Most addresses.
    pub limit: u32,
}

impl ChangesRequest {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The answer (result 1) to give.
    pub fn parse(arguments: Option<&Value>) -> Result<Self, Answer> {
        let field = |key: &str| {
            arguments
                .and_then(|arguments| arguments.get(key))
                .and_then(Value::as_u64)
                .ok_or_else(|| Answer::error(format!("expected the integer \"{key}\", found none")))
        };
        let limit = u32::try_from(field("limit")?).unwrap_or(u32::MAX).clamp(1, CHANGES_PER_ANSWER_MAX);
        Ok(Self { session: field("session")?, sequence: field("sequence")?, limit })
    }
}

impl ChangeFeed {
    /// A feed whose sessions have numbers above `last`: after a restart none is taken for one of before.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self { session: None, sessions: last }
    }

    /// Begins a session: from now on [`ChangeFeed::note`] must be called for every change. Returns its number.
    pub fn begin(&mut self, now: Now) -> u64 {
        self.sessions += 1;
        self.session = Some(Session {
            id: self.sessions,
            sequence: 0,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            outstanding: Vec::new(),
            overflown: false,
            used: now.mono,
        });
        self.sessions
    }

    /// Whether changes are to be noted.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// Changes were lost before they came here: the copy must begin anew.
    pub fn overflow(&mut self) {
        if let Some(session) = &mut self.session {
            session.overflow();
        }
    }

    /// The lease of `address` was created, changed or removed.
    pub fn note(&mut self, address: Ipv4Addr) {
        let Some(session) = &mut self.session else { return };
        if session.queue.len() >= CHANGES_MAX {
            session.overflow();
        }
        if !session.overflown && session.queued.insert(address) {
            session.queue.push_back(address);
        }
    }

    /// The next changes; nothing when there is no such session or the sequence is not the next one.
    pub fn take(&mut self, now: Now, request: ChangesRequest) -> Option<Changes> {
        let session = self.session.as_mut().filter(|session| session.id == request.session)?;
        session.used = now.mono;
        if request.sequence == session.sequence.saturating_add(1) {
            session.sequence = request.sequence;
            let count = session.queue.len().min(usize::try_from(request.limit).unwrap_or(usize::MAX));
            session.outstanding.clear();
            for address in session.queue.drain(..count) {
                // A change after this moment is noted again.
                session.queued.remove(&address);
                session.outstanding.push(address);
            }
        } else if request.sequence != session.sequence || request.sequence == 0 {
            return None;
        }
        Some(Changes {
            addresses: session.outstanding.clone(),
            remaining: u64::try_from(session.queue.len()).unwrap_or(u64::MAX),
            overflown: session.overflown,
        })
    }

    /// Leases are being fetched: whoever copies is at it.
    pub const fn refresh(&mut self, now: Now) {
        if let Some(session) = &mut self.session {
            session.used = now.mono;
        }
    }

    /// Ends the session `id`, if it is the one.
    pub fn end(&mut self, id: u64) {
        self.session.take_if(|session| session.id == id);
    }

    /// Forgets a session that nobody has asked about for long.
    pub fn expire(&mut self, now: Now) {
        self.session.take_if(|session| now.mono.ms_since(session.used) > SESSION_IDLE_MS);
    }

    /// When [`ChangeFeed::expire`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.session.as_ref().map(|session| session.used.plus_ms(SESSION_IDLE_MS + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: u64, sequence: u64, limit: u32) -> ChangesRequest {
        ChangesRequest { session, sequence, limit }
    }

    #[test]
    fn lost_answer_is_given_again_and_later_changes_come_after() {
        let now = Now::default();
        let mut feed = ChangeFeed::default();
        feed.note(Ipv4Addr::new(10, 0, 0, 9));
        let id = feed.begin(now);
        for last in [1, 2, 1, 3] {
            feed.note(Ipv4Addr::new(10, 0, 0, last));
        }
        let first = feed.take(now, request(id, 1, 2)).expect("in sequence");
        assert_eq!((first.addresses.len(), first.remaining), (2, 1));
        feed.note(Ipv4Addr::new(10, 0, 0, 1));
        let again = feed.take(now, request(id, 1, 2)).expect("the same again");
        assert_eq!(again.addresses, first.addresses);
        let rest = feed.take(now, request(id, 2, 10)).expect("in sequence");
        assert_eq!(rest.addresses, [Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(rest.remaining, 0);
        assert_eq!(feed.take(now, request(id, 4, 10)), None);
        assert_eq!(feed.take(now, request(id + 1, 1, 10)), None);
    }

    #[test]
    fn idle_session_is_forgotten() {
        let now = Now::default();
        let mut feed = ChangeFeed::default();
        feed.begin(now);
        feed.expire(now.plus_ms(SESSION_IDLE_MS));
        assert!(feed.is_open());
        feed.expire(now.plus_ms(SESSION_IDLE_MS + 1));
        assert!(!feed.is_open());
    }
}
