//! A synchronisation at work: pages that came are put into the shards lease by lease, so many at a time that clients do not
//! notice, and the sub-machine is told when a page is safe.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;

use crate::ha::command::page::{PageAnswer, PageLeases};
use crate::ha::command::{PeerAnswer, PeerError};
use crate::ha::relationship::Ticket;
use crate::ha::sync::{Applied, Expect, Reply, SubnetFilter, Sync, SyncAction, SyncSummary};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::request::{LeaseChange, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::server::engine::Engine;
use crate::server::shard_loop::Order;

/// Orders with a number from here on are those of a synchronisation.
pub const COPY_NUMBERS: u64 = 1 << 63;
/// Changes of one order to a shard.
const CHANGES_PER_ORDER: usize = 256;
/// Orders that one shard may have at once.
const ORDERS_PER_SHARD: usize = 4;

/// Addresses that peers may change while the source is asked for changes; with more the copy begins anew.
const TOUCHED_MAX: usize = 1 << 20;

/// What a copy wants of its owner.
pub enum Wish {
    /// Send this to the source.
    Send {
        /// The body.
        body: Vec<u8>,
        /// How long each step may take.
        timeout_ms: u64,
        /// Whether a page is expected.
        page: bool,
    },
    /// The source does not know this command.
    Unsupported(&'static str),
    /// The source knows these commands.
    Commands(Option<Vec<String>>),
    /// It is over.
    Finished(Result<SyncSummary, String>),
}

/// A page on its way into the shards.
struct Page {
    page: PageAnswer,
    body: Vec<u8>,
    /// Where the next lease stands; nothing when all have been read.
    offset: Option<usize>,
    first: bool,
    changes: bool,
    origin: Origin,
    deleted: usize,
    /// What each shard is to be given next.
    batches: Vec<Vec<LeaseChange>>,
    /// Orders that each shard has not answered.
    outstanding: Vec<usize>,
    applied: Applied,
}

/// One synchronisation.
pub struct Copy {
    /// Whose end is to be told.
    pub ticket: Ticket,
    /// The position of the source.
    pub source: usize,
    sync: Sync,
    filter: SubnetFilter,
    /// Whether the source's lease is taken where both have one of the same second.
    goes_first: bool,
    /// Whether the source is an Aplomado: with a Kea what is here stays, as at a Kea.
    pub is_from_ours: bool,
    waiting: VecDeque<(PageAnswer, Vec<u8>)>,
    page: Option<Page>,
    /// What each shard must have made durable for all pages to be safe.
    gates: Vec<Lsn>,
    /// A command that waits for that.
    held: Option<Wish>,
    /// Addresses that a peer has changed here since the source was asked: what it will answer may be older.
    touched: HashSet<Ipv4Addr>,
}

impl Copy {
    /// A copy that begins.
    #[must_use]
    pub fn new(ticket: Ticket, source: usize, sync: Sync, filter: SubnetFilter, goes_first: bool) -> Self {
        Self {
            ticket,
            source,
            sync,
            filter,
            goes_first,
            is_from_ours: false,
            waiting: VecDeque::new(),
            page: None,
            gates: Vec::new(),
            held: None,
            touched: HashSet::new(),
        }
    }

    /// A short command was answered.
    pub fn answered(&mut self, answer: Result<PeerAnswer, PeerError>) {
        self.sync.answered(Reply::Short(answer));
    }

    /// A page came, or not.
    pub fn page_came(&mut self, page: Result<(PageAnswer, Vec<u8>), PeerError>) {
        match page {
            Ok((page, body)) => {
                if page.is_success() {
                    self.waiting.push_back((page.clone(), body));
                }
                self.sync.answered(Reply::Page(Ok(page)));
            }
            Err(error) => self.sync.answered(Reply::Page(Err(error))),
        }
    }

    /// A peer's update changes the lease of `address` here.
    pub fn touch(&mut self, address: Ipv4Addr) {
        if self.touched.len() < TOUCHED_MAX {
            self.touched.insert(address);
        } else {
            self.sync.cancel();
        }
    }

    /// Nobody waits for it any more.
    pub fn cancel(&mut self) {
        self.sync.cancel();
    }

    /// A shard has made the changes of an order, each or not.
    pub fn put(&mut self, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let Some(page) = &mut self.page else { return };
        let place = usize::from(shard.0);
        if let Some(outstanding) = page.outstanding.get_mut(place) {
            *outstanding = outstanding.saturating_sub(1);
        }
        if let Some(gate) = self.gates.get_mut(place) {
            *gate = lsn.max(*gate);
        }
        let LeaseReply::Applied(replies) = reply else { return };
        for reply in replies {
            match reply {
                LeaseReply::Added | LeaseReply::Updated | LeaseReply::Deleted => page.applied.stored += 1,
                LeaseReply::Kept | LeaseReply::Busy | LeaseReply::NotFound => page.applied.kept += 1,
                _ => page.applied.bad += 1,
            }
        }
    }

    fn is_durable(&self, engine: &Engine) -> bool {
        (0u8..).zip(&self.gates).all(|(shard, &lsn)| lsn == Lsn(0) || engine.is_durable(ShardId(shard), lsn))
    }

    /// Goes on as far as possible. `number` numbers orders.
    pub fn step(&mut self, engine: &Engine, number: &mut u64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.gates.resize(engine.shards.len(), Lsn(0));
        loop {
            let mut moved = false;
            if self.held.is_some() && self.is_durable(engine) {
                wishes.extend(self.held.take());
            }
            while let Some(action) = self.sync.poll_action() {
                moved = true;
                match action {
                    SyncAction::Send { body, timeout_ms, expect } => {
                        self.touched.clear();
                        let page = expect == Expect::Page;
                        let wish = Wish::Send { body, timeout_ms, page };
                        // The source is told that a copy is complete, and disabled for the last of it, when all the rest is safe.
                        if page || self.is_durable(engine) {
                            wishes.push(wish);
                        } else {
                            self.held = Some(wish);
                        }
                    }
                    SyncAction::Apply { changes } => self.begin_page(engine, changes),
                    SyncAction::Unsupported(command) => wishes.push(Wish::Unsupported(command)),
                    SyncAction::Commands(names) => wishes.push(Wish::Commands(names)),
                    SyncAction::Finished(result) => wishes.push(Wish::Finished(result)),
                }
            }
            if let Some(page) = &mut self.page {
                page.origin = Origin::Partner { partner_wins: self.goes_first && self.is_from_ours };
                page.feed(engine, &self.filter, &self.touched, number);
                // An address that a change has freed can be taken by another one when that is durable.
                if page.is_done() && (!page.changes || self.is_durable(engine)) {
                    let applied = self.page.take().map(|page| page.applied).unwrap_or_default();
                    self.sync.applied(Ok(applied));
                    moved = true;
                }
            }
            if !moved {
                return wishes;
            }
        }
    }

    fn begin_page(&mut self, engine: &Engine, changes: bool) {
        let Some((page, body)) = self.waiting.pop_front() else {
            return self.sync.applied(Err("expected a page, found none".to_owned()));
        };
        self.page = Some(Page {
            offset: page.leases_at,
            deleted: 0,
            page,
            body,
            first: true,
            changes,
            origin: Origin::Partner { partner_wins: false },
            batches: vec![Vec::new(); engine.shards.len()],
            outstanding: vec![0; engine.shards.len()],
            applied: Applied::default(),
        });
    }
}

impl Page {
    /// Gives the shards as much as they take.
    fn feed(
        &mut self,
        engine: &Engine,
        filter: &SubnetFilter,
        touched: &HashSet<Ipv4Addr>,
        number: &mut u64,
    ) {
        loop {
            // A batch that is full and finds no room holds all up: what follows may be for the same shard.
            for place in 0..self.batches.len() {
                if self.batches[place].len() >= CHANGES_PER_ORDER && !self.give(engine, place, number) {
                    return;
                }
            }
            let Some((shard, change)) = self.next(engine, filter, touched) else { break };
            if let Some(batch) = self.batches.get_mut(usize::from(shard.0)) {
                batch.push(change);
            }
        }
        for place in 0..self.batches.len() {
            self.give(engine, place, number);
        }
    }

    /// Gives a shard its batch; false when it has enough to do.
    fn give(&mut self, engine: &Engine, place: usize, number: &mut u64) -> bool {
        let Some(handle) = engine.shards.get(place) else { return false };
        if self.batches[place].is_empty() {
            return true;
        }
        if self.outstanding[place] >= ORDERS_PER_SHARD || handle.orders.is_full() {
            return false;
        }
        *number = number.wrapping_add(1);
        let request = LeaseRequest::Apply {
            changes: std::mem::take(&mut self.batches[place]),
            mode: PutMode::Newer,
            origin: self.origin(),
        };
        // Nobody else gives orders, so there is room; a shard that has ended takes the process with it.
        if handle.order(Order::Leases(COPY_NUMBERS | *number, request)).is_ok() {
            self.outstanding[place] += 1;
        }
        true
    }

    /// The source has served while this server did not: of one second its changes are the later ones.
    const fn origin(&self) -> Origin {
        if self.changes { Origin::Partner { partner_wins: true } } else { self.origin }
    }

    fn next(
        &mut self,
        engine: &Engine,
        filter: &SubnetFilter,
        touched: &HashSet<Ipv4Addr>,
    ) -> Option<(ShardId, LeaseChange)> {
        let changes = self.changes;
        let is_older = |address: &Ipv4Addr| changes && touched.contains(address);
        while self.offset.is_some() {
            let mut leases = PageLeases::resume(&self.body, self.offset, self.first);
            self.first = false;
            let lease: Option<Lease4Buf> = match leases.next() {
                Some(Ok(lease)) if !filter.keeps(lease.subnet_id) || is_older(&lease.address) => {
                    self.applied.kept += 1;
                    None
                }
                Some(Ok(lease)) => Some(lease.to_owned()),
                Some(Err(_)) => {
                    self.applied.bad += 1;
                    None
                }
                None => None,
            };
            self.offset = leases.offset();
            let Some(lease) = lease else { continue };
            let view = lease.view();
            if engine.space.ensure(view.address, view.address).is_err() {
                self.applied.bad += 1;
                continue;
            }
            let shard = match engine.space.owner(view.address) {
                Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } => shard,
                Owner::Unknown | Owner::Free | Owner::Retiring { .. } => engine.steering.owner(&view.hw_addr),
            };
            return Some((shard, LeaseChange::Put(lease)));
        }
        while let Some(&address) = self.page.deleted.get(self.deleted) {
            self.deleted += 1;
            if is_older(&address) {
                continue;
            }
            if let Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } = engine.space.owner(address) {
                return Some((shard, LeaseChange::Delete(address)));
            }
        }
        None
    }

    fn is_done(&self) -> bool {
        self.offset.is_none()
            && self.deleted >= self.page.deleted.len()
            && self.batches.iter().all(Vec::is_empty)
            && self.outstanding.iter().all(|&outstanding| outstanding == 0)
    }
}
