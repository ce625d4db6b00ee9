//! The threads that talk to peers: they block, nobody else does.
//!
//! | thread | how many | what it sends |
//! |---|---|---|
//! | `ha-update-P-N` | `http-client-threads` per peer | lease updates, in the order of its queue |
//! | `ha-heartbeat` | one | heartbeats to the partner |
//! | `ha-command-P` | one per peer | short commands |
//! | `ha-sync-P` | one per peer | the commands of a synchronisation, pages included |
//!
//! Each has a connection of its own. They end when the other end of their channel is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use super::links::{Links, Update};
use crate::control::peer::{PeerConnection, PeerTarget};
use crate::ha::command::bulk::{BULK_ITEMS_MAX, BulkWriter, bulk_verdicts};
use crate::ha::command::lease::{UpdateForm, write_update4};
use crate::ha::command::page::PageAnswer;
use crate::ha::command::{PeerAnswer, PeerError, Verdict, verdict};
use crate::ha::relationship::Ticket;
use crate::ha::unacked::ClientFingerprint;
use crate::ids::Lsn;
use crate::lease::LeaseState;

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
    /// How long each step of it may take.
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

/// Starts a thread that sends the commands of `jobs` one after the other.
///
/// # Errors
/// When there is no thread to be had.
pub fn command_worker(
    name: String,
    target: &PeerTarget,
    jobs: Receiver<Job>,
    reporter: Reporter,
) -> std::io::Result<()> {
    let connection = PeerConnection::new(target);
    std::thread::Builder::new().name(name).spawn(move || {
        for job in jobs {
            let answer = connection.post(&job.body, job.timeout).map_err(PeerError::Io);
            reporter.tell(match job.tag {
                Tag::Page(ticket) => {
                    let page = answer.and_then(|body| PageAnswer::scan(&body).map(|page| (page, body)));
                    Report::Page(ticket, page)
                }
                tag => Report::Answered(tag, answer.and_then(|body| PeerAnswer::parse(&body))),
            });
        }
    })?;
    Ok(())
}

/// One worker of lease updates.
pub struct UpdateWorker {
    /// What it shares.
    pub links: Arc<Links>,
    /// The place of its peer in [`Links::peers`].
    pub peer: usize,
    /// This server's name.
    pub server_name: String,
    /// How long each step of an update may take.
    pub timeout: Duration,
    /// Its queue.
    pub queue: Receiver<Update>,
    /// Where it reports.
    pub reporter: Reporter,
}

impl UpdateWorker {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(self, name: String, target: &PeerTarget) -> std::io::Result<()> {
        let connection = PeerConnection::new(target);
        std::thread::Builder::new().name(name).spawn(move || self.run(&connection))?;
        Ok(())
    }

    fn run(self, connection: &PeerConnection) {
        let mut bulk = BulkWriter::new(&self.server_name);
        let mut body = Vec::new();
        let mut batch: Vec<Update> = Vec::new();
        while let Ok(first) = self.queue.recv() {
            batch.clear();
            batch.push(first);
            let peer = &self.links.peers[self.peer];
            let (verdicts, answer) = if peer.bulk.load(Ordering::Relaxed) {
                batch.extend(self.queue.try_iter().take(BULK_ITEMS_MAX - 1));
                for update in &batch {
                    bulk.push(update.operation, &update.lease.view());
                }
                let answer = self.post(connection, bulk.finish());
                let verdicts = bulk_verdicts(batch.len(), &answer);
                (verdicts, answer)
            } else {
                let form = UpdateForm {
                    released_as_update: peer.released.load(Ordering::Relaxed),
                    expire_32_bits: false,
                };
                body.clear();
                write_update4(&mut body, batch[0].operation, &batch[0].lease.view(), form);
                let mut answer = self.post(connection, &body);
                let is_released = batch[0].lease.view().state == LeaseState::Released;
                if form.released_as_update
                    && is_released
                    && matches!(&answer, Ok(answer) if answer.result == 1)
                {
                    // Before 2.7 there is no such state: what is released is deleted there.
                    peer.released.store(false, Ordering::Relaxed);
                    self.reporter.tell(Report::ReleasedRefused(peer.position));
                    body.clear();
                    let form = UpdateForm { released_as_update: false, ..form };
                    write_update4(&mut body, batch[0].operation, &batch[0].lease.view(), form);
                    answer = self.post(connection, &body);
                }
                (vec![verdict(&answer)], answer)
            };
            let is_silent = matches!(answer, Err(PeerError::Io(_)));
            self.finish(&mut batch, verdicts, &describe(&answer), is_silent);
        }
    }

    fn post(&self, connection: &PeerConnection, body: &[u8]) -> Result<PeerAnswer, PeerError> {
        let answer = connection.post(body, self.timeout).map_err(PeerError::Io)?;
        PeerAnswer::parse(&answer)
    }

    /// Tells the shards and the control thread. Of a peer that `is_silent` nobody knows what it has made of the changes.
    fn finish(&self, batch: &mut Vec<Update>, mut verdicts: Vec<Verdict>, text: &str, is_silent: bool) {
        let peer = &self.links.peers[self.peer];
        verdicts.resize(batch.len(), Verdict::Error);
        if verdicts.contains(&Verdict::Error) {
            // A peer that does not answer would let everything that waits run into its timeout, one after the other.
            if is_silent && self.links.partner == Some(peer.position) {
                self.links.owe(peer, &self.queue, batch);
            } else {
                batch.extend(self.queue.try_iter());
            }
            verdicts.resize(batch.len(), Verdict::Error);
        }
        self.links.answered(peer, batch, |index| verdicts[index] != Verdict::Success);
        let remembers = self.links.remembers.load(Ordering::Relaxed);
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
            let client = self.links.fingerprint(lease.hw_addr.as_bytes(), lease.client_id);
            self.reporter.tell(Report::Updates {
                position: peer.position,
                verdict,
                client: Some(client),
                text: if verdict == Verdict::Success { String::new() } else { text.to_owned() },
            });
        }
    }
}

fn describe(answer: &Result<PeerAnswer, PeerError>) -> String {
    match answer {
        Ok(answer) => format!("result {}: {}", answer.result, answer.text),
        Err(error) => error.to_string(),
    }
}
