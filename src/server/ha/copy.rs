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
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::server::engine::Engine;
use crate::server::shard_loop::Order;

/// Orders with a number from here on are those of a synchronisation.
pub const COPY_NUMBERS: u64 = 1 << 63;
/// Leases that may be on their way to the shards at once.
const WINDOW: usize = 512;

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
    /// Read, but its shard took no order.
    held: Option<(ShardId, LeaseRequest)>,
    outstanding: usize,
    gates: Vec<Lsn>,
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

    /// A shard has put a lease, or not.
    pub fn put(&mut self, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let Some(page) = &mut self.page else { return };
        page.outstanding = page.outstanding.saturating_sub(1);
        if let Some(gate) = page.gates.get_mut(usize::from(shard.0)) {
            *gate = lsn.max(*gate);
        }
        match reply {
            LeaseReply::Added | LeaseReply::Updated | LeaseReply::Deleted => page.applied.stored += 1,
            LeaseReply::Kept | LeaseReply::Busy | LeaseReply::NotFound => page.applied.kept += 1,
            _ => page.applied.bad += 1,
        }
    }

    /// Goes on as far as possible. `number` numbers orders.
    pub fn step(&mut self, engine: &Engine, number: &mut u64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        loop {
            let mut moved = false;
            while let Some(action) = self.sync.poll_action() {
                moved = true;
                match action {
                    SyncAction::Send { body, timeout_ms, expect } => {
                        self.touched.clear();
                        wishes.push(Wish::Send { body, timeout_ms, page: expect == Expect::Page });
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
                if page.is_done(engine) {
                    let applied = page.applied;
                    self.page = None;
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
            held: None,
            outstanding: 0,
            gates: vec![Lsn(0); engine.shards.len()],
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
        while self.outstanding < WINDOW {
            let next = self.held.take().or_else(|| self.next(engine, filter, touched));
            let Some((shard, request)) = next else { return };
            *number = number.wrapping_add(1);
            let Some(handle) = engine.shards.get(usize::from(shard.0)) else { return };
            if handle.order(Order::Leases(COPY_NUMBERS | *number, request.clone())).is_err() {
                // As many orders wait as may: the next turn goes on here.
                self.held = Some((shard, request));
                return;
            }
            self.outstanding += 1;
        }
    }

    fn next(
        &mut self,
        engine: &Engine,
        filter: &SubnetFilter,
        touched: &HashSet<Ipv4Addr>,
    ) -> Option<(ShardId, LeaseRequest)> {
        // The source has served while this server did not: of one second its changes are the later ones.
        let origin = if self.changes { Origin::Partner { partner_wins: true } } else { self.origin };
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
            return Some((shard, LeaseRequest::Put { lease, mode: PutMode::Newer, origin }));
        }
        while let Some(&address) = self.page.deleted.get(self.deleted) {
            self.deleted += 1;
            if is_older(&address) {
                continue;
            }
            if let Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } = engine.space.owner(address) {
                return Some((shard, LeaseRequest::Delete { key: LeaseKey::Address(address), origin }));
            }
        }
        None
    }

    fn is_done(&self, engine: &Engine) -> bool {
        self.outstanding == 0
            && self.offset.is_none()
            && self.held.is_none()
            && self.deleted >= self.page.deleted.len()
            && (0u8..)
                .zip(&self.gates)
                .all(|(shard, &lsn)| lsn == Lsn(0) || engine.is_durable(ShardId(shard), lsn))
    }
}
