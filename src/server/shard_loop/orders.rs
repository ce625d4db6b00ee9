//! What the control thread asks of a shard, done between batches in capped steps, and what a shard tells it.

use std::sync::Arc;

use super::ShardLoop;
use crate::exchange::request::{Job, Progress};
use crate::ids::{InterfaceId, Lsn, ShardId};
use crate::lease::request::{LeaseReply, LeaseRequest};
use crate::lease::table::{Part, Want};
use crate::net::Port;
use crate::time::Now;

/// Orders about one lease each that a turn takes: a partner's updates come so when it has no bulk command.
const ORDERS_PER_TURN: usize = 16;
/// Orders that may wait for a shard.
pub const ORDERS_MAX: usize = 1024;

/// What the control thread tells a shard.
pub enum Order<P> {
    /// Do this with leases; the answer carries the number back.
    Leases(u64, LeaseRequest),
    /// Serve this interface too.
    AddPort(P),
    /// Hear these addresses on this interface from now on.
    Readdress(InterfaceId, Arc<[std::net::Ipv4Addr]>),
    /// Serve this interface no more.
    RemovePort(InterfaceId),
    /// Memory for the table.
    Memory(Part),
    /// Stop after this turn.
    Stop,
}

/// What a shard tells the control thread.
pub enum Event<P> {
    /// The answer to [`Order::Leases`]: complete once the position is durable.
    Leases(u64, LeaseReply, ShardId, Lsn),
    /// A port that is not served any more, to be closed.
    Port(P),
    /// The table would like memory.
    Want(ShardId, Want),
    /// Memory that it has done with, to be freed.
    Spare(Part),
    /// Reclamation falls behind.
    ReclaimBehind(ShardId),
    /// The shard has ended.
    Stopped(ShardId),
}

impl<P: Port> ShardLoop<P> {
    /// Takes a few short orders or one that is longer, or goes on with the one that is under way; and makes a step of what takes a whole
    /// database's time. Listings and wipes come in turn, but keep nobody waiting who has a lease to change: a partner's replies hang on it.
    pub(super) fn obey(&mut self, now: Now) -> bool {
        let mut busy = self.obey_next(now);
        // One that has to wait for the disk is no work: the shard may sleep until its rows are there.
        let is_due = |job: &mut (u64, Job)| job.1.awaited() <= self.marks.disk();
        if let Some((number, job)) = self.long_jobs.pop_front_if(is_due) {
            busy = true;
            if let Some(job) = self.work(now, number, job) {
                self.long_jobs.push_front((number, job));
            }
        }
        // Where the disk is slow, a shard that tries again at once takes from all others the time that they have for it.
        let has_job = self.job.is_some() || !self.long_jobs.is_empty();
        self.is_held_up = has_job && self.shard.leases.ready().is_err();
        busy && !self.is_held_up
    }

    fn obey_next(&mut self, now: Now) -> bool {
        if let Some((number, job)) = self.job.take() {
            self.job = self.work(now, number, job).map(|job| (number, job));
            return true;
        }
        for taken in 0..ORDERS_PER_TURN {
            if self.long_jobs.len() == ORDERS_MAX {
                return taken > 0;
            }
            let Ok(order) = self.orders.try_recv() else { return taken > 0 };
            let is_short = matches!(
                order,
                Order::Leases(
                    _,
                    LeaseRequest::Put { .. } | LeaseRequest::Delete { .. } | LeaseRequest::Get(_)
                )
            );
            self.follow(now, order);
            if !is_short {
                break;
            }
        }
        true
    }

    fn follow(&mut self, now: Now, order: Order<P>) {
        match order {
            Order::Leases(number, request) => {
                let is_long = matches!(
                    request,
                    LeaseRequest::List { .. } | LeaseRequest::Wipe(_) | LeaseRequest::Reclaim { .. }
                );
                let job = Job::new(request);
                if is_long {
                    self.long_jobs.push_back((number, job));
                } else {
                    self.job = self.work(now, number, job).map(|job| (number, job));
                }
            }
            Order::AddPort(port) => {
                if let Some(old) = self.ports.remove(port.interface()) {
                    self.let_go(old);
                }
                if let Err(port) = self.ports.add(port) {
                    self.tell(Event::Port(port));
                }
            }
            Order::Readdress(interface, addresses) => {
                for port in self.ports.ports_mut().iter_mut().filter(|port| port.interface() == interface) {
                    port.set_addresses(&addresses);
                }
            }
            Order::RemovePort(interface) => {
                if let Some(port) = self.ports.remove(interface) {
                    self.let_go(port);
                }
            }
            Order::Memory(part) => {
                self.wanted = false;
                if let Err(part) = self.shard.leases.table.give(part) {
                    self.tell(Event::Spare(part));
                }
            }
            Order::Stop => self.stopping = true,
        }
    }

    /// The position up to which every peer that new replies wait for has answered.
    fn answered(&self) -> Lsn {
        let awaited = self.bell.acked().filter(|(peer, _)| self.pairs.open_gate().awaits(*peer));
        awaited.map(|(_, lsn)| lsn).min().unwrap_or(Lsn(u64::MAX))
    }

    /// One step of a job; the job when there is more of it.
    fn work(&mut self, now: Now, number: u64, job: Job) -> Option<Job> {
        let serving = Arc::clone(&self.serving);
        self.shard.answered = self.answered();
        let progress = self.shard.serve(&serving, now, job);
        match progress {
            Progress::More(job) => Some(job),
            Progress::Done(reply, lsn) => {
                let id = self.id;
                self.tell(Event::Leases(number, reply, id, lsn));
                None
            }
        }
    }

    /// Asks for memory before it runs out, and moves a growing index along.
    pub(super) fn mind_memory(&mut self) -> bool {
        if !self.wanted
            && let Some(want) = self.shard.leases.table.wants()
        {
            self.wanted = true;
            let id = self.id;
            self.tell(Event::Want(id, want));
        }
        let moving = self.shard.leases.table.migrate(64);
        if !moving && let Some(part) = self.shard.leases.table.discard() {
            self.tell(Event::Spare(part));
        }
        if std::mem::take(&mut self.cycles.warn) {
            let id = self.id;
            self.tell(Event::ReclaimBehind(id));
        }
        moving
    }
}
