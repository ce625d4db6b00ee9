//! The asked side of a synchronisation in service: peers copy our leases while clients are served, and are told what changed meanwhile.
//!
//! ```text
//! shard -> log ring -> log thread: ChangedTap -> Changed -> control thread: a ChangeFeed per peer
//! aplomado-sync-changes -> a mark through every shard -> durable up to the marks -> next of the feed -> their leases from all shards
//! ```
//! Nothing that was acknowledged before a session ends is missing at the peer:
//! * The log thread notes a change after the shard has made it. One that it passed on before it saw the session open was made before
//!   any page of the session was read, so that the pages have it; every later one is in the feed.
//! * The mark is the position of a shard's last change. What is durable has been noted, since the taps of a group come before its rows.
//!   After `dhcp-disable` no shard serves a query any more that it turns to after the mark, so the feed has all of them then.
//! * A lease is read after its address was taken from the feed. One that changes later, or moves to another shard while it is looked
//!   for, is noted again.
//!
//! All origins count but one: a peer that copies needs what commands, other peers and time have done, too, and not what it has brought itself.
//!
//! Bounds: one session and one command per peer; addresses only, each once, and with too many the peer is told to begin anew.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::control::backend::Ticket;
use crate::control::command::{Answer, Command};
use crate::control::log::Severity;
use crate::ha::command::page::{CHANGES_TEXT, write_changes_arguments};
use crate::ha::feed::{ChangeFeed, Changes, ChangesRequest};
use crate::ha::partner::{SYNC_BEGIN_COMMAND, SYNC_CHANGES_COMMAND, SYNC_END_COMMAND};
use crate::ha::posts::PostMark;
use crate::ids::{Lsn, PeerId, ShardId};
use crate::journal::{Change, ChangeOrigin, Tap};
use crate::lease::Lease4Buf;
use crate::lease::request::{LeaseReply, LeaseRequest};
use crate::log;
use crate::server::engine::Engine;
use crate::server::ha::api_answer;
use crate::server::shard_loop::Order;
use crate::time::Now;

const HA: &str = "kea-dhcp4.ha-hooks";

/// Orders with a number from here on, and below those of bulk commands, are those of peers that copy.
pub const SOURCE_NUMBERS: u64 = 1 << 61;
/// Changes that may wait for the control thread.
const WAITING_MAX: usize = 1 << 20;

/// Addresses whose leases have changed, on their way from the log thread to the control thread.
#[derive(Debug, Default)]
pub struct Changed {
    open: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Noted>,
    overflown: bool,
}

/// A change: the address of its lease, and which peer has brought it if one that copies has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    address: Ipv4Addr,
    copier: Option<PeerId>,
}

impl Changed {
    /// From now on changes are kept, or not.
    fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        if !open {
            *self.waiting.lock() = Waiting::default();
        }
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut self.waiting.lock())
    }
}

/// Takes the addresses of changes from the log, and who brought them.
pub struct ChangedTap {
    changed: Arc<Changed>,
    group: Vec<Noted>,
}

impl ChangedTap {
    /// A tap that fills `changed`.
    #[must_use]
    pub const fn new(changed: Arc<Changed>) -> Self {
        Self { changed, group: Vec::new() }
    }
}

impl Tap for ChangedTap {
    fn offer(&mut self, _: ShardId, _: Lsn, origin: ChangeOrigin, change: &Change<'_>) {
        if self.changed.open.load(Ordering::Acquire) {
            let (Change::Put(lease) | Change::Delete(lease)) = change;
            let copier = if let ChangeOrigin::Copier(peer) = origin { Some(peer) } else { None };
            self.group.push(Noted { address: lease.address, copier });
        }
    }

    fn group_end(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let mut waiting = self.changed.waiting.lock();
        if waiting.changes.len() + self.group.len() > WAITING_MAX {
            *waiting = Waiting { changes: Vec::new(), overflown: true };
        } else if !waiting.overflown {
            waiting.changes.extend_from_slice(&self.group);
        }
        self.group.clear();
    }
}

/// A command that shards are busy with.
struct Asked {
    ticket: Ticket,
    peer: String,
    request: ChangesRequest,
    number: u64,
    /// Shards that have the order, by number from the first.
    ordered: usize,
    answered: usize,
    stage: Stage,
}

enum Stage {
    /// Every shard says what its last change is.
    Mark(Vec<(ShardId, Lsn)>),
    /// Every shard gives those of these leases that it has.
    Read { addresses: Arc<[Ipv4Addr]>, remaining: u64, found: Vec<Lease4Buf>, mark: Option<PostMark> },
}

/// What peers that copy leases have asked for.
pub struct SyncSource {
    changed: Arc<Changed>,
    /// By the name of the peer, with its number.
    feeds: BTreeMap<String, (PeerId, ChangeFeed)>,
    asked: Vec<Asked>,
    sessions: u64,
    number: u64,
}

impl SyncSource {
    /// Nobody copies yet. Sessions have numbers above `last`.
    #[must_use]
    pub const fn new(changed: Arc<Changed>, last: u64) -> Self {
        Self { changed, feeds: BTreeMap::new(), asked: Vec::new(), sessions: last, number: 0 }
    }

    /// Whether `name` is a command that is answered here.
    #[must_use]
    pub fn answers(name: &str) -> bool {
        [SYNC_BEGIN_COMMAND, SYNC_CHANGES_COMMAND, SYNC_END_COMMAND].contains(&name)
    }

    /// Begins to answer a command; what is answered at once comes back.
    pub fn command(
        &mut self,
        now: Now,
        ticket: Ticket,
        command: &Command,
        peer_id: impl Fn(&str) -> Option<PeerId>,
        mark: impl Fn(&str) -> Option<PostMark>,
    ) -> Vec<(Ticket, Answer)> {
        let arguments = command.arguments();
        let name = arguments.as_ref().and_then(|arguments| arguments.get("server-name"));
        let known = name.and_then(Value::as_str).and_then(|name| Some((name.to_owned(), peer_id(name)?)));
        let Some((peer, id)) = known else {
            let found = name.map_or_else(|| "none".to_owned(), Value::to_string);
            let text = format!("expected the name of another server as \"server-name\", found {found}");
            return vec![(ticket, Answer::error(text))];
        };
        match command.name.as_str() {
            SYNC_BEGIN_COMMAND => {
                // What waits belongs to the sessions that are open.
                self.take_changes();
                let mut answers = self.abandon(&peer, "another synchronization has begun");
                self.changed.set_open(true);
                let mut feed = ChangeFeed::new(self.sessions);
                self.sessions = feed.begin(now);
                log!(
                    Severity::Info,
                    HA,
                    HA_SYNC_SOURCE_START,
                    "{peer} copies the leases of this server, which goes on serving clients"
                );
                let mut told = json!({ "session": self.sessions });
                if let Some(PostMark { session, last }) = mark(&peer) {
                    (told["post-session"], told["post"]) = (json!(session), json!(last));
                }
                self.feeds.insert(peer, (id, feed));
                let answer = Answer::success("Changes of leases are remembered from now on.");
                answers.push((ticket, answer.with(told)));
                answers
            }
            SYNC_CHANGES_COMMAND => match ChangesRequest::parse(arguments.as_ref()) {
                Ok(request) => {
                    let answers = self.abandon(&peer, "the changes were asked for again");
                    self.number = (self.number + 1) % SOURCE_NUMBERS;
                    self.asked.push(Asked {
                        ticket,
                        peer,
                        request,
                        number: SOURCE_NUMBERS | self.number,
                        ordered: 0,
                        answered: 0,
                        stage: Stage::Mark(Vec::new()),
                    });
                    answers
                }
                Err(answer) => vec![(ticket, api_answer(answer))],
            },
            _ => {
                let session = arguments.as_ref().and_then(|arguments| arguments.get("session")?.as_u64());
                if let (Some((_, feed)), Some(session)) = (self.feeds.get_mut(&peer), session) {
                    feed.end(session);
                }
                vec![(ticket, Answer::success("The synchronization has ended."))]
            }
        }
    }

    /// Somebody lists leases. A page does not say whose it is, and all pages together can take longer than a session may be idle.
    pub fn listed(&mut self, now: Now) {
        for (_, feed) in self.feeds.values_mut() {
            feed.refresh(now);
        }
    }

    /// A peer says that it has all leases.
    pub fn completed(&mut self, peer: &str) {
        if self.feeds.remove(peer).is_some() {
            log!(Severity::Info, HA, HA_SYNC_SOURCE_COMPLETE, "{peer} has copied the leases of this server");
        }
    }

    /// A command that is asked again, or of a session that is no more, gets no other answer.
    fn abandon(&mut self, peer: &str, text: &str) -> Vec<(Ticket, Answer)> {
        let old = self.asked.extract_if(.., |asked| asked.peer == peer);
        old.map(|asked| (asked.ticket, Answer::error(text))).collect()
    }

    /// A shard's answer.
    pub fn answered(&mut self, number: u64, reply: LeaseReply, shard: ShardId, lsn: Lsn) {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.number == number) else { return };
        asked.answered += 1;
        match (&mut asked.stage, reply) {
            (Stage::Mark(marks), _) => marks.push((shard, lsn)),
            (Stage::Read { found, .. }, LeaseReply::Leases(leases)) => found.extend(leases),
            (Stage::Read { .. }, _) => {}
        }
    }

    /// Whether a command is at work.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Goes on; the commands that are done, with their answers. Before it the control thread must have asked to be woken when something
    /// becomes durable.
    pub fn step(
        &mut self,
        now: Now,
        engine: &Engine,
        mark: impl Fn(&str) -> Option<PostMark>,
    ) -> Vec<(Ticket, Answer)> {
        let mut done = Vec::new();
        for index in 0..self.asked.len() {
            if let Some(answer) = self.step_one(now, engine, index, &mark) {
                done.push((self.asked[index].ticket, answer));
            }
        }
        self.asked.retain(|asked| !done.iter().any(|(ticket, _)| *ticket == asked.ticket));
        if !self.feeds.is_empty() {
            self.take_changes();
            self.feeds.retain(|peer, (_, feed)| {
                feed.expire(now);
                if !feed.is_open() {
                    log!(
                        Severity::Warn,
                        HA,
                        HA_SYNC_SOURCE_ABANDONED,
                        "{peer} has not copied the leases of this server to the end"
                    );
                }
                feed.is_open()
            });
        }
        if self.feeds.is_empty() && self.changed.open.load(Ordering::Relaxed) {
            self.changed.set_open(false);
        }
        done
    }

    /// Notes for every peer what the log thread has seen, but for what that peer has brought.
    fn take_changes(&mut self) {
        let Waiting { changes, overflown } = self.changed.take();
        for (id, feed) in self.feeds.values_mut() {
            if overflown {
                feed.overflow();
            }
            for change in changes.iter().filter(|change| change.copier != Some(*id)) {
                feed.note(change.address);
            }
        }
    }

    fn step_one(
        &mut self,
        now: Now,
        engine: &Engine,
        index: usize,
        mark: &impl Fn(&str) -> Option<PostMark>,
    ) -> Option<Answer> {
        let asked = &mut self.asked[index];
        asked.order(engine);
        if asked.answered < engine.shards.len() {
            return None;
        }
        if let Stage::Mark(marks) = &asked.stage {
            if !marks.iter().all(|&(shard, lsn)| engine.is_durable(shard, lsn)) {
                return None;
            }
            let (peer, request) = (asked.peer.clone(), asked.request);
            self.take_changes();
            let Some(changes) = self.feeds.get_mut(&peer).and_then(|(_, feed)| feed.take(now, request))
            else {
                return Some(Answer::error(
                    "there is no such synchronization, or these are not its next changes",
                ));
            };
            let Changes { addresses, remaining, overflown } = changes;
            if overflown {
                log!(
                    Severity::Warn,
                    HA,
                    HA_SYNC_SOURCE_OVERFLOW,
                    "too many leases change for {peer} to copy them in service: clients are not served until it has begun anew and has all"
                );
                self.feeds.remove(&peer);
                return Some(changes_answer(&[], &[], 0, true, None));
            }
            // The shards are asked for the leases after this.
            let mark = mark(&peer);
            self.number = (self.number + 1) % SOURCE_NUMBERS;
            let asked = &mut self.asked[index];
            asked.number = SOURCE_NUMBERS | self.number;
            (asked.ordered, asked.answered) = (0, 0);
            asked.stage = Stage::Read { addresses: addresses.into(), remaining, found: Vec::new(), mark };
            asked.order(engine);
            return None;
        }
        let Stage::Read { addresses, remaining, found, mark } = &asked.stage else { return None };
        Some(changes_answer(addresses, found, *remaining, false, *mark))
    }
}

impl Asked {
    /// Gives the order of this stage to the shards that do not have it. One that takes none now is asked at the next turn.
    fn order(&mut self, engine: &Engine) {
        while let Some(shard) = engine.shards.get(self.ordered) {
            let request = match &self.stage {
                Stage::Mark(_) => LeaseRequest::Mark,
                Stage::Read { addresses, .. } => LeaseRequest::GetAll(Arc::clone(addresses)),
            };
            if shard.order(Order::Leases(self.number, request)).is_err() {
                return;
            }
            self.ordered += 1;
        }
    }
}

fn changes_answer(
    addresses: &[Ipv4Addr],
    found: &[Lease4Buf],
    remaining: u64,
    overflown: bool,
    mark: Option<PostMark>,
) -> Answer {
    let there: HashSet<Ipv4Addr> = found.iter().map(|lease| lease.view().address).collect();
    let deleted = addresses.iter().copied().filter(|address| !there.contains(address));
    let mut printed = Vec::new();
    let found = found.iter().map(|lease| (lease.view(), lease.is_untold()));
    write_changes_arguments(&mut printed, found, deleted, remaining, overflown, mark);
    Answer::success(CHANGES_TEXT).with_printed(printed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease4;

    fn lease(last: u8) -> Lease4<'static> {
        Lease4::sample(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn changes_of_all_origins_are_kept_while_a_session_is_open() {
        let changed = Arc::new(Changed::default());
        let mut tap = ChangedTap::new(Arc::clone(&changed));
        let mut offer = |origin, change: Change<'_>| {
            tap.offer(ShardId(0), Lsn(1), origin, &change);
            tap.group_end();
        };
        offer(ChangeOrigin::Client, Change::Put(lease(1)));
        assert!(changed.take().changes.is_empty(), "nobody copies");
        changed.set_open(true);
        for (last, origin) in [
            (2, ChangeOrigin::Client),
            (3, ChangeOrigin::Command),
            (4, ChangeOrigin::Partner),
            (5, ChangeOrigin::Expiry),
        ] {
            offer(origin, Change::Put(lease(last)));
        }
        offer(ChangeOrigin::Client, Change::Delete(lease(6)));
        let waiting = changed.take();
        let last: Vec<u8> = waiting.changes.iter().map(|change| change.address.octets()[3]).collect();
        assert_eq!((last, waiting.overflown), (vec![2, 3, 4, 5, 6], false));
    }

    #[test]
    fn changes_that_nobody_takes_are_lost_but_not_silently() {
        let changed = Arc::new(Changed::default());
        changed.set_open(true);
        let mut tap = ChangedTap::new(Arc::clone(&changed));
        for _ in 0..=WAITING_MAX {
            tap.offer(ShardId(0), Lsn(1), ChangeOrigin::Client, &Change::Put(lease(1)));
            if tap.group.len() == 8192 {
                tap.group_end();
            }
        }
        tap.group_end();
        let waiting = changed.take();
        assert!(waiting.overflown && waiting.changes.is_empty());
        // What comes after it was told belongs to whoever begins anew.
        tap.offer(ShardId(0), Lsn(1), ChangeOrigin::Client, &Change::Put(lease(1)));
        tap.group_end();
        assert_eq!(changed.take().changes.len(), 1);
    }
}
