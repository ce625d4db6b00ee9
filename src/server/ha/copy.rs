//! A synchronisation at work: pages that came are put into the shards lease by lease, so many at a time that clients do not
//! notice, and the sub-machine is told when a page is safe. What came is remembered, so that a source of ours can be given what it
//! lacks (module `give`).

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;

use super::give::{Give, Want};
use crate::ha::command::page::{PageAnswer, PageLeases};
use crate::ha::command::{PeerAnswer, PeerError};
use crate::ha::posts::PostMark;
use crate::ha::relationship::Ticket;
use crate::ha::sync::{Applied, Expect, Reply, SubnetFilter, Sync, SyncAction, SyncParams, SyncSummary};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::known::KnownLeases;
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
        /// How long it may take, the answer included.
        timeout_ms: u64,
        /// Whether a page is expected.
        page: bool,
    },
    /// The source does not know this command.
    Unsupported(&'static str),
    /// The source knows these commands.
    Commands(Option<Vec<String>>),
    /// The source has been given what it lacked: so many leases; so many it did not take.
    Gave(u64, u64),
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
    mode: PutMode,
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
    is_primary: bool,
    /// Whether the source copies from this server at the same time. Neither has served since then, whatever it is known to do: what one
    /// took over from the other must not come back as news, and of two leases of one second the primary's stays.
    pub is_mutual: bool,
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
    /// Orders up to this number are of copies before it.
    first: Option<u64>,
    /// What the source was seen to have.
    known: KnownLeases,
    give: Option<Give>,
    /// Whether the source has taken everything that it lacked. What it reports as changed from then on was done while this server did
    /// nothing, and is later than everything here, also when the clocks say otherwise.
    gave_all: bool,
    server_name: String,
}

impl Copy {
    /// A copy that begins.
    #[must_use]
    pub fn new(
        ticket: Ticket,
        source: usize,
        params: SyncParams,
        filter: SubnetFilter,
        goes_first: bool,
        is_primary: bool,
        wall_s: u64,
    ) -> Self {
        let subnets = match &filter {
            SubnetFilter::All => None,
            SubnetFilter::Only(own) => Some(own.iter().copied().collect()),
        };
        Self {
            known: KnownLeases::new(subnets, wall_s),
            first: None,
            give: None,
            gave_all: false,
            server_name: params.server_name.clone(),
            sync: Sync::new(params),
            ticket,
            source,
            filter,
            goes_first,
            is_primary,
            is_mutual: false,
            is_from_ours: false,
            waiting: VecDeque::new(),
            page: None,
            gates: Vec::new(),
            held: None,
            touched: HashSet::new(),
        }
    }

    /// A short command was answered; which of the source's commands tell of nothing newer, if it says so.
    pub fn answered(&mut self, answer: Result<PeerAnswer, PeerError>) -> Option<PostMark> {
        if let Some(give) = &mut self.give {
            give.answered(&answer);
            return None;
        }
        let mark = answer.as_ref().ok().and_then(|answer| {
            let told = |key: &str| answer.arguments.as_ref()?.get(key)?.as_u64();
            Some(PostMark { session: told("post-session")?, last: told("post")? })
        });
        self.sync.answered(Reply::Short(answer));
        mark
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
            self.cancel();
        }
    }

    /// Nobody waits for it any more.
    pub fn cancel(&mut self) {
        self.sync.cancel();
        if let Some(give) = &mut self.give {
            give.cancel();
        }
    }

    /// A shard has made the changes of an order, each or not, or has looked for leases that the source lacks.
    pub fn put(&mut self, number: u64, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let is_ours = self.first.is_some_and(|first| number > COPY_NUMBERS | first);
        if !is_ours || self.give.as_mut().is_some_and(|give| give.found(number, reply)) {
            return;
        }
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
        self.first.get_or_insert(*number);
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
                    SyncAction::Give => {
                        self.give = Some(Give::new(std::mem::take(&mut self.known), &self.server_name));
                    }
                    SyncAction::Unsupported(command) => wishes.push(Wish::Unsupported(command)),
                    SyncAction::Commands(names) => wishes.push(Wish::Commands(names)),
                    SyncAction::Finished(result) => wishes.push(Wish::Finished(result)),
                }
            }
            if let Some(give) = &mut self.give {
                match give.step(engine, COPY_NUMBERS, number) {
                    Want::Nothing => {}
                    Want::Send(body) => wishes.push(Wish::Send {
                        body,
                        timeout_ms: self.sync.params().timeouts.command_ms,
                        page: false,
                    }),
                    Want::Finished(result) => {
                        self.give = None;
                        moved = true;
                        if let Ok(Some((taken, refused))) = result {
                            self.gave_all = refused == 0;
                            wishes.push(Wish::Gave(taken, refused));
                        }
                        self.sync.given(result.map(|gave| gave.map_or(0, |(taken, _)| taken)));
                    }
                }
            }
            if let Some(page) = &mut self.page {
                // The source has served while this server did not: of one second its changes are the later ones.
                let partner_wins = match self.is_mutual {
                    true => !self.is_primary && self.is_from_ours,
                    false => page.changes || self.goes_first && self.is_from_ours,
                };
                page.origin = Origin::Partner { partner_wins };
                page.feed(engine, &self.filter, &self.touched, &mut self.known, number);
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
            mode: if changes && self.gave_all && !self.is_mutual { PutMode::Later } else { PutMode::Newer },
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
        known: &mut KnownLeases,
        number: &mut u64,
    ) {
        loop {
            // A batch that is full and finds no room holds all up: what follows may be for the same shard.
            for place in 0..self.batches.len() {
                if self.batches[place].len() >= CHANGES_PER_ORDER && !self.give(engine, place, number) {
                    return;
                }
            }
            let Some((shard, change)) = self.next(engine, filter, touched, known) else { break };
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
            mode: self.mode,
            origin: self.origin,
        };
        // Nobody else gives orders, so there is room; a shard that has ended takes the process with it.
        if handle.order(Order::Leases(COPY_NUMBERS | *number, request)).is_ok() {
            self.outstanding[place] += 1;
        }
        true
    }

    fn next(
        &mut self,
        engine: &Engine,
        filter: &SubnetFilter,
        touched: &HashSet<Ipv4Addr>,
        known: &mut KnownLeases,
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
            let untold = leases.is_untold();
            let Some(lease) = lease.map(|lease| lease.with_untold(untold)) else { continue };
            let view = lease.view();
            if engine.space.ensure(view.address, view.address).is_err() {
                self.applied.bad += 1;
                continue;
            }
            // What its own clients were told the source is given instead, if this server knows of it.
            if !untold {
                known.note(&view);
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
                return Some((shard, LeaseChange::Delete { address, told: None }));
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
