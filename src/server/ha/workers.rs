//! The threads that talk to peers: they block, nobody else does.
//!
//! | thread | how many | what it sends |
//! |---|---|---|
//! | `ha-update-P-N` | `http-client-threads` per peer | lease updates, in the order of its queue |
//! | `ha-heartbeat` | one | heartbeats to the partner |
//! | `ha-command-P` | one per peer | short commands |
//! | `ha-sync-P` | one per peer | the commands of a synchronisation, pages included |
//!
//! Each has a connection of its own, and what it says and hears is a [`PeerWork`], which knows no sockets. They end when the other
//! end of their channel is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use super::links::Links;
use super::queue::{Update, UpdateQueue};
use crate::control::peer::{PeerConnection, PeerTarget};
use crate::ha::command::bulk::{BULK_ITEMS_MAX, BulkWriter, bulk_verdicts};
use crate::ha::command::lease::{UpdateForm, write_update4};
use crate::ha::command::page::PageAnswer;
use crate::ha::command::{PeerAnswer, PeerError, Verdict, verdict};
use crate::ha::relationship::Ticket;
use crate::ha::unacked::ClientFingerprint;
use crate::ids::Lsn;
use crate::lease::LeaseState;
use crate::server::clock::Clock;
use crate::server::gathering::{POSTS_APART, is_worth_a_pause};

/// What a command that was sent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `ha-heartbeat`.
    Heartbeat(Ticket),
    /// `ha-reset`.
    Reset(Ticket),
    /// `ha-maintenance-notify`.
    Maintenance(Ticket),
    /// A change of the backlog.
    Flush(Ticket),
    /// `list-commands` of the peer at this position.
    Commands(usize),
    /// The settings of the peer at this position.
    Settings(usize),
    /// A short command of a synchronisation.
    Sync(Ticket),
    /// A page of a synchronisation.
    Page(Ticket),
}

/// A command to send.
pub struct Job {
    /// What it is for.
    pub tag: Tag,
    /// Its body.
    pub body: Vec<u8>,
    /// How long it may take, the answer included.
    pub timeout: Duration,
}

/// What workers tell the control thread.
pub enum Report {
    /// A command was answered, or not.
    Answered(Tag, Result<PeerAnswer, PeerError>),
    /// A page came, with its body, or not.
    Page(Ticket, Result<(PageAnswer, Vec<u8>), PeerError>),
    /// The peer at this position does not know released leases.
    ReleasedRefused(usize),
    /// Lease updates were answered by the peer at this position.
    Updates {
        /// Which peer.
        position: usize,
        /// What it thinks of one of them.
        verdict: Verdict,
        /// Whose it was.
        client: Option<ClientFingerprint>,
        /// What it said, when it refused.
        text: String,
    },
}

/// Sends reports and wakes the control thread.
#[derive(Clone)]
pub struct Reporter {
    /// Where reports go.
    pub reports: Sender<Report>,
    /// How the control thread is woken.
    pub links: Arc<Links>,
}

impl Reporter {
    fn tell(&self, report: Report) {
        // Without a control thread nobody needs it.
        let _ = self.reports.send(report);
        self.links.wake_control();
    }
}

/// A body to send to a peer, and how long it may take, the answer included.
pub struct Post {
    /// The body.
    pub body: Vec<u8>,
    /// How long that may take.
    pub timeout: Duration,
}

/// What one connection to a peer carries. It sends nothing itself: [`PeerWork::next_post`] says what to send, [`PeerWork::answered`] takes
/// what came of it, one after the other.
pub struct PeerWork {
    /// The peer's position in the relationship.
    pub position: usize,
    /// The name of its thread.
    pub name: String,
    kind: Kind,
    reporter: Reporter,
}

enum Kind {
    Commands { jobs: Receiver<Job>, sent: Option<Tag> },
    Updates(Updates),
}

impl PeerWork {
    /// The commands of `jobs`, one after the other.
    #[must_use]
    pub const fn commands(position: usize, name: String, jobs: Receiver<Job>, reporter: Reporter) -> Self {
        Self { position, name, kind: Kind::Commands { jobs, sent: None }, reporter }
    }

    /// Lease updates.
    #[must_use]
    pub const fn updates(position: usize, name: String, updates: Updates, reporter: Reporter) -> Self {
        Self { position, name, kind: Kind::Updates(updates), reporter }
    }

    /// What to send next; nothing when there is nothing now.
    pub fn next_post(&mut self) -> Option<Post> {
        match &mut self.kind {
            Kind::Commands { jobs, sent } => begin(|| jobs.try_recv().ok(), sent, &self.reporter),
            Kind::Updates(updates) => {
                if std::mem::take(&mut updates.again) {
                    return Some(updates.post_one(&self.reporter.links));
                }
                updates.begin(&self.reporter.links)
            }
        }
    }

    /// Waits for what to send next; nothing when there will never be anything. `gather` is called where it is worth letting more come
    /// first.
    pub fn wait(&mut self, gather: impl FnOnce()) -> Option<Post> {
        match &mut self.kind {
            Kind::Commands { jobs, sent } => begin(|| jobs.recv().ok(), sent, &self.reporter),
            Kind::Updates(updates) => {
                if std::mem::take(&mut updates.again) {
                    return Some(updates.post_one(&self.reporter.links));
                }
                if !updates.queue.wait() {
                    return None;
                }
                if is_worth_a_pause(updates.batch.len()) {
                    gather();
                }
                updates.begin(&self.reporter.links)
            }
        }
    }

    /// The body that came back for what was sent, or why none did.
    pub fn answered(&mut self, answer: Result<Vec<u8>, String>) {
        let answer = answer.map_err(PeerError::Io);
        match &mut self.kind {
            Kind::Commands { sent, .. } => {
                let Some(tag) = sent.take() else { return };
                self.reporter.tell(match tag {
                    Tag::Page(ticket) => {
                        let page = answer.and_then(|body| PageAnswer::scan(&body).map(|page| (page, body)));
                        Report::Page(ticket, page)
                    }
                    tag => Report::Answered(tag, answer.and_then(|body| PeerAnswer::parse(&body))),
                });
            }
            Kind::Updates(updates) => {
                updates.finish(&answer.and_then(|body| PeerAnswer::parse(&body)), &self.reporter);
            }
        }
    }

    /// Starts a thread that does the work over a connection of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(mut self, target: &PeerTarget) -> std::io::Result<()> {
        let connection = PeerConnection::new(target);
        std::thread::Builder::new().name(self.name.clone()).spawn(move || {
            let clock = Clock::new();
            let mut begun = clock.now().mono;
            while let Some(post) = self.wait(|| clock.rest(begun, POSTS_APART)) {
                begun = clock.now().mono;
                self.answered(connection.post(&post.body, post.timeout));
            }
        })?;
        Ok(())
    }
}

/// The next job that is still wanted: one that has waited for a silent peer may be out of date.
fn begin(mut next: impl FnMut() -> Option<Job>, sent: &mut Option<Tag>, reporter: &Reporter) -> Option<Post> {
    loop {
        let Job { tag, body, timeout } = next()?;
        if let Tag::Flush(ticket) | Tag::Reset(ticket) = tag
            && !reporter.links.is_wanted(ticket)
        {
            let late = PeerError::Io("not wanted any more".to_owned());
            reporter.tell(Report::Answered(tag, Err(late)));
            continue;
        }
        *sent = Some(tag);
        return Some(Post { body, timeout });
    }
}

/// One queue of lease updates.
pub struct Updates {
    /// The place of its peer in [`Links::peers`].
    peer: usize,
    /// How long an update may take, the answer included.
    timeout: Duration,
    queue: UpdateQueue,
    bulk: BulkWriter,
    batch: Vec<Update>,
    /// Whether what was sent is a bulk command.
    is_bulk: bool,
    /// Its number then.
    number: u64,
    /// Whether what was sent may say that a lease is released.
    as_released: bool,
    /// What was sent is to be sent again, in another form.
    again: bool,
}

impl Updates {
    /// The updates of `queue` for the peer at this place of [`Links::peers`], from the server of this name.
    #[must_use]
    pub fn new(peer: usize, server_name: &str, timeout: Duration, queue: UpdateQueue) -> Self {
        let bulk = BulkWriter::new(server_name);
        Self {
            peer,
            timeout,
            queue,
            bulk,
            batch: Vec::new(),
            is_bulk: false,
            number: 0,
            as_released: false,
            again: false,
        }
    }

    /// Takes what there is, as much as one command carries.
    fn begin(&mut self, links: &Links) -> Option<Post> {
        let peer = &links.peers[self.peer];
        self.is_bulk = peer.bulk.load(Ordering::Relaxed);
        self.batch.clear();
        self.queue.take_alike(if self.is_bulk { BULK_ITEMS_MAX } else { 1 }, &mut self.batch);
        if self.batch.is_empty() {
            return None;
        }
        if !self.is_bulk {
            return Some(self.post_one(links));
        }
        self.bulk.mark(self.batch[0].delay);
        for update in &self.batch {
            self.bulk.push(update.operation, &update.lease.view());
        }
        let post = peer.posts.lock().begin();
        self.number = post.number;
        Some(Post { body: self.bulk.finish(Some(post)).to_vec(), timeout: self.timeout })
    }

    /// The first update of the batch, in Kea's form.
    fn post_one(&mut self, links: &Links) -> Post {
        let form = UpdateForm {
            released_as_update: links.peers[self.peer].released.load(Ordering::Relaxed),
            expire_32_bits: false,
        };
        self.as_released = form.released_as_update;
        let mut body = Vec::new();
        write_update4(&mut body, self.batch[0].operation, &self.batch[0].lease.view(), form);
        Post { body, timeout: self.timeout }
    }

    /// Tells the shards and the control thread. Of a peer that is silent nobody knows what it has made of the changes.
    fn finish(&mut self, answer: &Result<PeerAnswer, PeerError>, reporter: &Reporter) {
        let links = &reporter.links;
        let peer = &links.peers[self.peer];
        let is_released = !self.is_bulk && self.batch[0].lease.view().state == LeaseState::Released;
        if is_released
            && matches!(answer, Ok(answer) if answer.result == 1)
            && std::mem::take(&mut self.as_released)
        {
            // Before 2.7 there is no such state: what is released is deleted there.
            peer.released.store(false, Ordering::Relaxed);
            reporter.tell(Report::ReleasedRefused(peer.position));
            self.again = true;
            return;
        }
        if self.is_bulk {
            peer.posts.lock().end(self.number);
        }
        let is_silent = matches!(answer, Err(PeerError::Io(_)));
        let batch = &mut self.batch;
        let mut verdicts =
            if self.is_bulk { bulk_verdicts(batch.len(), answer) } else { vec![verdict(answer)] };
        verdicts.resize(batch.len(), Verdict::Error);
        if verdicts.contains(&Verdict::Error) {
            // A peer that does not answer would let everything that waits run into its timeout, one after the other.
            if is_silent && links.partner == Some(peer.position) {
                links.owe(peer, &mut self.queue, batch);
            } else {
                self.queue.take(usize::MAX, batch);
            }
            verdicts.resize(batch.len(), Verdict::Error);
        }
        links.answered(peer, batch, |index| verdicts[index] != Verdict::Success);
        let remembers = links.remembers.load(Ordering::Relaxed);
        let mut told = false;
        for (update, &verdict) in batch.iter().zip(&verdicts) {
            if verdict == Verdict::Error {
                if update.lsn == Lsn(0) {
                    peer.lost.fetch_add(1, Ordering::Relaxed);
                }
                if std::mem::replace(&mut told, true) {
                    continue;
                }
            } else if verdict == Verdict::Success && !remembers {
                continue;
            }
            let lease = update.lease.view();
            let client = links.fingerprint(lease.hw_addr.as_bytes(), lease.client_id);
            reporter.tell(Report::Updates {
                position: peer.position,
                verdict,
                client: Some(client),
                text: if verdict == Verdict::Success { String::new() } else { describe(answer) },
            });
        }
        links.settled(peer, batch.len());
    }
}

fn describe(answer: &Result<PeerAnswer, PeerError>) -> String {
    match answer {
        Ok(answer) => format!("result {}: {}", answer.result, answer.text),
        Err(error) => error.to_string(),
    }
}
