//! What shards, log thread, update workers and control thread share of the pair.
//!
//! ```text
//! shard -> log ring -> log thread: UpdateTap -> queue of one worker -> peer
//!   ^                                                  |
//!   +---- refusal, then watermark, then bell ----------+
//! ```
//! The changes of a group of the log go on together: to one worker when the peer takes many in one command, else each to the
//! worker that its address names, so that two changes of one address never overtake each other. What a peer has
//! answered is kept as one contiguous position per shard and peer; a refusal reaches the shard before the
//! position passes it.
//!
//! Promises: shards read words and positions, and take refusals from a ring of fixed size. The log thread never waits for a peer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::queue::{Progress, QueueEntrance, Update, UpdateQueue, queue};
use crate::classify::bucket::bucket;
use crate::exchange::RelationshipIndex;
use crate::exchange::serving::Serving;
use crate::ha::backlog::{Delay, Delayed, Operation};
use crate::ha::config::RelationshipConfig;
use crate::ha::posts::PostNumbers;
use crate::ha::relationship::Ticket;
use crate::ha::unacked::{ClientFingerprint, Traffic, UnackedClients, UnackedCounts};
use crate::ha::view::{ScopeView, ScopeWord};
use crate::ids::{Lsn, PeerId, SHARDS_MAX, ShardId, SubnetId};
use crate::journal::{Change, ChangeOrigin, Tap};
use crate::lease::Lease4;
use crate::server::pairs::peer_id;
use crate::server::shard_bell::ShardBell;
use crate::server::shard_loop::Shared;
use crate::sync::Watermark;

/// Refusals that may wait for one shard.
const REFUSED_MAX: usize = 65_536;
/// Changes that may wait for the backlog, at most.
const DELAYED_MAX: usize = 1 << 20;

/// Changes that are remembered for a partner that did not answer them; with more it needs a synchronisation.
const OWED_MAX: usize = 16_384;

/// A change that a peer did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its position.
    pub lsn: Lsn,
    /// Which peer.
    pub peer: PeerId,
    /// Whose lease it is.
    pub address: Ipv4Addr,
}

/// One peer.
pub struct PeerLink {
    /// Its position in the relationship.
    pub position: usize,
    /// The number of the relationship's first peer among those of all relationships.
    first: u8,
    /// Whether it takes our bulk command.
    pub bulk: AtomicBool,
    /// Whether it takes released leases as updates.
    pub released: AtomicBool,
    /// Changes that found no room on their way, or failed, at a peer that nobody waits for: it needs a synchronisation.
    pub lost: AtomicU64,
    progress: Vec<Mutex<Progress>>,
    marks: Vec<Arc<Watermark>>,
    queues: Vec<QueueEntrance>,
    /// Updates in the queues, or sent and not answered.
    under_way: AtomicUsize,
    /// Whether all updates go by the first queue: one connection carries many changes in a POST better than several do. It
    /// changes only while nothing is under way, so that two changes of an address never take different ways.
    is_single: Mutex<bool>,
    /// The numbers of its bulk commands.
    pub posts: Mutex<PostNumbers>,
}

impl PeerLink {
    /// Its number as replies wait for it.
    #[must_use]
    pub fn id(&self) -> PeerId {
        peer_id(self.first, self.position)
    }

    /// The changes of `shard` up to here are answered, or nobody waits for them.
    #[must_use]
    pub fn mark(&self, shard: usize) -> Arc<Watermark> {
        Arc::clone(&self.marks[shard])
    }

    const fn bit(&self) -> u16 {
        1 << self.position
    }

    /// Puts updates into the queues; those that find no room come back.
    fn enqueue(&self, updates: Vec<Update>) -> Vec<Update> {
        let mut is_single = self.is_single.lock();
        if self.under_way.load(Ordering::Acquire) == 0 {
            *is_single = self.bulk.load(Ordering::Relaxed);
        }
        let count = updates.len();
        self.under_way.fetch_add(count, Ordering::SeqCst);
        let refused = if *is_single || self.queues.len() == 1 {
            self.queues[0].push(updates)
        } else {
            let mut parts: Vec<Vec<Update>> = self.queues.iter().map(|_| Vec::new()).collect();
            for update in updates {
                parts[worker_of(update.lease.view().address, self.queues.len())].push(update);
            }
            self.queues.iter().zip(parts).flat_map(|(queue, part)| queue.push(part)).collect()
        };
        self.under_way.fetch_sub(refused.len(), Ordering::AcqRel);
        refused
    }
}

/// One shard.
struct ShardLink {
    refuse: Sender<Refusal>,
    refused: Receiver<Refusal>,
    unacked: OnceLock<Arc<UnackedCounts>>,
}

/// What the partner did not answer, and what may not be sent again over something newer.
#[derive(Default)]
struct Owed {
    /// The last change of each address, and whether its client was told.
    changes: BTreeMap<Ipv4Addr, (Delayed, Delay)>,
    /// The last change of each address that went into the backlog, until a newer one is sent: an older one may still be under way, be given
    /// up, and must not be sent again over it, nor may what comes too late for the backlog be sent over a newer one.
    kept: BTreeMap<Ipv4Addr, Delayed>,
    /// How often all was forgotten because the partner copies all leases: what was sent before that has arrived with the copy, or something
    /// newer has.
    copies: u64,
    /// The partner copies only what it knows to be missing: what it does not answer any more counts as unsent.
    is_counted: bool,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.kept.is_empty()
    }

    /// Something newer is known of this address, or on its way.
    fn forget(&mut self, address: Ipv4Addr) {
        self.changes.remove(&address);
        self.kept.remove(&address);
    }
}

/// Whether there is room for one more change of this address among so many.
fn has_room<T>(changes: &BTreeMap<Ipv4Addr, T>, address: Ipv4Addr, max: usize) -> bool {
    changes.len() < max || changes.contains_key(&address)
}

/// Everything that threads share of one relationship.
pub struct Links {
    /// What shards do with queries and replies now.
    pub scope: ScopeView,
    /// The position of the partner.
    pub partner: Option<usize>,
    /// The peers but this server, by position.
    pub peers: Vec<PeerLink>,
    /// Whether the machine remembers rejected clients: then it is told of successes too.
    pub remembers: AtomicBool,
    /// Changes that were not sent to the partner.
    pub unsent: AtomicU64,
    /// Changes for the backlog.
    pub delayed: Receiver<Delayed>,
    delayed_tx: Sender<Delayed>,
    /// Addresses of the backlog that are remembered: with more it is overflown.
    kept_max: usize,
    /// The last change of each address that the partner did not answer: it may have made it, or make it later.
    owed: Mutex<Owed>,
    /// Whether the backlog waits for what the partner has under way.
    awaits_partner: AtomicBool,
    /// What the machine still wants sent of what can wait behind a peer's silence for longer than its reason lasts.
    wanted: Mutex<[Option<Ticket>; 2]>,
    key: (u64, u64),
    unacked_max: u32,
    ack_delay_ms: u64,
    shards: Vec<ShardLink>,
    bells: OnceLock<Vec<Arc<ShardBell>>>,
    wake_control: Arc<dyn Fn() + Send + Sync>,
}

impl Links {
    /// Links of a relationship whose peers are numbered from `first` on, for `shard_count` shards and `worker_count` workers per peer;
    /// the queues' other ends, by peer.
    #[must_use]
    pub fn new(
        config: &RelationshipConfig,
        first: u8,
        shard_count: usize,
        worker_count: usize,
        seed: u64,
        wake_control: Arc<dyn Fn() + Send + Sync>,
    ) -> (Arc<Self>, Vec<Vec<UpdateQueue>>) {
        let shard_count = shard_count.clamp(1, SHARDS_MAX);
        let mut ends = Vec::new();
        let peers = (0..config.peers.len())
            .filter(|&position| position != config.this)
            .map(|position| {
                let (queues, receivers) = (0..worker_count.max(1)).map(|_| queue()).unzip();
                ends.push(receivers);
                PeerLink {
                    position,
                    first,
                    bulk: AtomicBool::new(false),
                    released: AtomicBool::new(false),
                    lost: AtomicU64::new(0),
                    progress: (0..shard_count).map(|_| Mutex::default()).collect(),
                    marks: (0..shard_count).map(|_| Arc::default()).collect(),
                    queues,
                    under_way: AtomicUsize::new(0),
                    is_single: Mutex::new(false),
                    posts: Mutex::default(),
                }
            })
            .collect();
        let limit = usize::try_from(config.delayed_updates_limit).unwrap_or(usize::MAX);
        let (delayed_tx, delayed) = bounded(limit.saturating_add(1).min(DELAYED_MAX));
        let shard = || {
            let (refuse, refused) = bounded(REFUSED_MAX);
            ShardLink { refuse, refused, unacked: OnceLock::new() }
        };
        let links = Self {
            scope: ScopeView::new(ScopeWord::new(crate::ha::view::ScopeParts::default())),
            partner: config.partner(),
            peers,
            remembers: AtomicBool::new(false),
            unsent: AtomicU64::new(0),
            delayed,
            delayed_tx,
            kept_max: limit.saturating_add(1).max(OWED_MAX),
            owed: Mutex::default(),
            awaits_partner: AtomicBool::new(false),
            wanted: Mutex::default(),
            key: (seed, seed.rotate_left(32) ^ 0x5851_f42d_4c95_7f2d),
            unacked_max: config.max_unacked_clients,
            ack_delay_ms: config.max_ack_delay_ms,
            shards: (0..shard_count).map(|_| shard()).collect(),
            bells: OnceLock::new(),
            wake_control,
        };
        (Arc::new(links), ends)
    }

    /// How shards are woken; told once, when there are shards.
    pub fn set_bells(&self, bells: Vec<Arc<ShardBell>>) {
        // The first ones stay: there is one engine per process.
        let _ = self.bells.set(bells);
    }

    /// Shows a word to the shards.
    pub fn publish(&self, word: ScopeWord) {
        self.scope.publish(word);
        for bell in self.bells.get().into_iter().flatten() {
            bell.ring();
        }
    }

    /// The table of unacked clients for a shard: once per shard.
    #[must_use]
    pub fn unacked_clients(&self, shard: usize) -> UnackedClients {
        let table = UnackedClients::new(self.unacked_max, self.ack_delay_ms);
        let _ = self.shards[shard].unacked.set(table.counts());
        table
    }

    /// What the shards have seen of the partner's clients.
    #[must_use]
    pub fn traffic(&self, epoch: u16) -> Traffic {
        UnackedCounts::sum(
            self.shards.iter().filter_map(|shard| shard.unacked.get()).map(|counts| &**counts),
            epoch,
        )
    }

    /// A client as the table of unacked clients and that of refusals know it.
    #[must_use]
    pub fn fingerprint(&self, hw_addr: &[u8], client_id: &[u8]) -> ClientFingerprint {
        ClientFingerprint::v4(self.key, hw_addr, client_id)
    }

    /// The refusals for a shard.
    #[must_use]
    pub fn refused(&self, shard: ShardId) -> Receiver<Refusal> {
        self.shards[usize::from(shard.0)].refused.clone()
    }

    /// Wakes the control thread.
    pub fn wake_control(&self) {
        (self.wake_control)();
    }

    /// The numbers of peers, given as a bit for each position.
    pub fn peers_of(&self, positions: u16) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.iter().filter(move |peer| positions & peer.bit() != 0).map(PeerLink::id)
    }

    /// The peer at this position.
    #[must_use]
    pub fn peer(&self, position: usize) -> Option<&PeerLink> {
        self.peers.iter().find(|peer| peer.position == position)
    }

    /// A peer has answered changes: `refused` says which of them it did not take.
    pub fn answered(&self, peer: &PeerLink, updates: &[Update], refused: impl Fn(usize) -> bool) {
        let mut has_refused = [false; SHARDS_MAX];
        for (index, update) in updates.iter().enumerate() {
            if update.lsn == Lsn(0) || !refused(index) {
                continue;
            }
            has_refused[usize::from(update.shard.0)] = true;
            let shard = usize::from(update.shard.0);
            let address = update.lease.view().address;
            let refusal = Refusal { lsn: update.lsn, peer: peer.id(), address };
            if let Err(TrySendError::Full(refusal)) = self.shards[shard].refuse.try_send(refusal) {
                // A shard turns at least every 100 ms; its ring has room again then. Gone shards need nothing.
                self.ring(shard);
                let _ = self.shards[shard].refuse.send(refusal);
            }
        }
        for (shard, (progress, mark)) in (0u8..).zip(peer.progress.iter().zip(&peer.marks)) {
            let is_awaited = |update: &&Update| update.shard == ShardId(shard) && update.lsn != Lsn(0);
            let mut of_shard = updates.iter().filter(is_awaited).peekable();
            if of_shard.peek().is_none() {
                continue;
            }
            let mut progress = progress.lock();
            of_shard.for_each(|update| progress.answer(update.lsn));
            mark.publish(progress.mark());
            drop(progress);
            if has_refused[usize::from(shard)] {
                self.ring(usize::from(shard));
            } else if let Some(bell) = self.bells.get().and_then(|bells| bells.get(usize::from(shard))) {
                bell.mark_moved();
            }
        }
    }

    /// The partner has not answered `batch`, nor will it answer what waits in `queue`, which joins the batch. Of each address the last
    /// change is kept until [`Self::send_owed`], or until another change of it is on its way. What was queued before the partner
    /// copied all leases has arrived so.
    pub fn owe(&self, peer: &PeerLink, queue: &mut UpdateQueue, batch: &mut Vec<Update>) {
        let mut owed = self.owed.lock();
        // Under the lock: a change that comes now is queued after this, and is newer than what is owed.
        queue.take(usize::MAX, batch);
        let copies = owed.copies;
        // Replies that waited for these changes have left when nothing waits for the partner any more.
        let delay = if self.scope.read().parts().queue { Delay::Told } else { Delay::Untold };
        if owed.is_counted {
            let forgotten = batch.iter().filter(|update| update.copies != copies).count();
            self.unsent.fetch_add(forgotten as u64, Ordering::Relaxed);
        }
        for Update { operation, lease, .. } in batch.iter().filter(|update| update.copies == copies) {
            let address = lease.view().address;
            if !has_room(&owed.changes, address, OWED_MAX) {
                peer.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let newer = owed.kept.get(&address).cloned();
            let given_up = || (Delayed { operation: *operation, lease: lease.clone() }, delay);
            let change = newer.map_or_else(given_up, |newer| (newer, Delay::Told));
            owed.changes.insert(address, change);
        }
    }

    /// Sends again what the partner at `position` did not answer; gives how many changes.
    pub fn send_owed(&self, position: usize) -> usize {
        let mut owed = self.owed.lock();
        let changes = std::mem::take(&mut owed.changes);
        let count = changes.len();
        if let Some(peer) = self.peer(position) {
            Self::send_unawaited(peer, owed.copies, changes.into_values());
        }
        count
    }

    /// A change for the backlog.
    fn delay(&self, delayed: Delayed) {
        let address = delayed.lease.view().address;
        let mut owed = self.owed.lock();
        if let Some(older) = owed.changes.get_mut(&address) {
            *older = (delayed.clone(), Delay::Told);
        }
        if has_room(&owed.kept, address, self.kept_max) {
            owed.kept.insert(address, delayed.clone());
        }
        // More than fit overflow the backlog, unless it has just been sent.
        if let Err(TrySendError::Full(delayed)) = self.delayed_tx.try_send(delayed)
            && has_room(&owed.changes, address, OWED_MAX)
        {
            owed.changes.insert(address, (delayed, Delay::Told));
        }
    }

    /// Sends a change that comes too late for the backlog. One whose address has gone on since is not sent: the newer change has been.
    pub fn send_delayed(&self, position: usize, delayed: Delayed) {
        let owed = self.owed.lock();
        if owed.kept.contains_key(&delayed.lease.view().address)
            && let Some(peer) = self.peer(position)
        {
            // Under the lock: a change that comes now is queued after this.
            Self::send_unawaited(peer, owed.copies, std::iter::once((delayed, Delay::Told)));
        }
    }

    /// Whether the address of a change of the backlog has gone on since: the partner knows something newer of it, or gets it.
    pub fn is_overtaken(&self, address: Ipv4Addr) -> bool {
        !self.owed.lock().kept.contains_key(&address)
    }

    /// Forgets what went into the backlog, which has been sent, unless a part of it has not been taken from here yet.
    pub fn forget_kept(&self) {
        let mut owed = self.owed.lock();
        if self.delayed.is_empty() {
            owed.kept = BTreeMap::new();
        }
    }

    /// Forgets what the partner did not answer: it will copy all leases, or, when it may have copied before (`is_counted`), must be made to if it
    /// says that it is ready.
    pub fn forget_owed(&self, is_counted: bool) {
        let mut owed = self.owed.lock();
        if is_counted {
            self.unsent.fetch_add(owed.changes.len() as u64, Ordering::Relaxed);
        }
        *owed = Owed { copies: owed.copies + 1, is_counted, ..Owed::default() };
    }

    /// So many updates to a peer are not under way any more, whatever has become of them.
    pub fn settled(&self, peer: &PeerLink, count: usize) {
        let before = peer.under_way.fetch_sub(count, Ordering::SeqCst);
        if before == count && self.awaits_partner.load(Ordering::SeqCst) {
            self.wake_control();
        }
    }

    /// Whether the peer at `position` has answered all updates, or they were given up. If not, the control thread is woken when it is so.
    #[must_use]
    pub fn is_settled(&self, position: usize) -> bool {
        // Before the look: whoever settles the last one after it sees this.
        self.awaits_partner.store(true, Ordering::SeqCst);
        let is_settled = self.peer(position).is_none_or(|peer| peer.under_way.load(Ordering::SeqCst) == 0);
        if is_settled {
            self.awaits_partner.store(false, Ordering::SeqCst);
        }
        is_settled
    }

    /// Notes which flush and which reset the machine wants: before one is given to a worker, and when the machine has moved.
    pub fn want(&self, wanted: [Option<Ticket>; 2]) {
        *self.wanted.lock() = wanted;
    }

    /// Whether the machine still wants this flush or reset.
    #[must_use]
    pub fn is_wanted(&self, ticket: Ticket) -> bool {
        self.wanted.lock().contains(&Some(ticket))
    }

    fn ring(&self, shard: usize) {
        if let Some(bell) = self.bells.get().and_then(|bells| bells.get(shard)) {
            bell.ring();
        }
    }

    /// Sends changes of which nobody waits for the answer; those that find no room are lost.
    fn send_unawaited(peer: &PeerLink, copies: u64, changes: impl Iterator<Item = (Delayed, Delay)>) {
        let update = |(Delayed { operation, lease }, delay)| Update {
            shard: ShardId(0),
            lsn: Lsn(0),
            operation,
            lease,
            copies,
            delay: Some(delay),
        };
        let updates = changes.map(update).collect();
        let lost = peer.enqueue(updates).len();
        peer.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// Sends what the log has taken in for a peer since this was called last.
    fn send_group(&self, peer: &PeerLink, group: &mut Group) {
        for (passed, (progress, mark)) in group.passed.iter_mut().zip(peer.progress.iter().zip(&peer.marks)) {
            if passed.is_empty() {
                continue;
            }
            let mut progress = progress.lock();
            for (lsn, is_sent) in passed.drain(..) {
                progress.pass(lsn, is_sent);
            }
            mark.publish(progress.mark());
        }
        if group.updates.is_empty() {
            return;
        }
        // As much room as this group needed the next may need.
        let room = group.updates.len();
        let mut updates = std::mem::replace(&mut group.updates, Vec::with_capacity(room));
        let refused = {
            let mut owed = self.owed.lock();
            if self.partner == Some(peer.position) {
                let (copies, owes) = (owed.copies, !owed.is_empty());
                for update in &mut updates {
                    update.copies = copies;
                    if owes {
                        owed.forget(update.lease.view().address);
                    }
                }
            }
            peer.enqueue(updates)
        };
        if !refused.is_empty() {
            peer.lost.fetch_add(refused.len() as u64, Ordering::Relaxed);
            self.answered(peer, &refused, |_| true);
        }
    }
}

/// What the log has taken in for one peer and not handed on yet.
#[derive(Default)]
struct Group {
    /// The positions of each shard that went by, and whether they are among the updates.
    passed: Vec<Vec<(Lsn, bool)>>,
    updates: Vec<Update>,
}

/// The worker for an address.
fn worker_of(address: Ipv4Addr, count: usize) -> usize {
    usize::from(bucket(&address.octets())) % count.max(1)
}

/// Which leases belong to one of several relationships: those of its subnets, by the plan in force.
pub struct Territory {
    index: RelationshipIndex,
    shared: Arc<Shared>,
    serving: Arc<Serving>,
    generation: u64,
}

impl Territory {
    /// What belongs to the relationship of this number.
    #[must_use]
    pub fn new(index: RelationshipIndex, shared: Arc<Shared>) -> Self {
        let (generation, serving) = (shared.serving.generation(), shared.serving.load());
        Self { index, shared, serving, generation }
    }

    fn holds(&mut self, subnet: SubnetId) -> bool {
        let generation = self.shared.serving.generation();
        if generation != self.generation {
            (self.generation, self.serving) = (generation, self.shared.serving.load());
        }
        self.serving.relationship_of_id(subnet) == Some(self.index)
    }
}

/// Feeds the peers' queues from the log.
pub struct UpdateTap {
    links: Arc<Links>,
    /// Of which leases its peers are told; nothing with one relationship, which tells of all.
    territory: Option<Territory>,
    /// What is on its way, by peer.
    groups: Vec<Group>,
    /// The last change of each shard when it was the deletion of a client's lease: its position, and whose it was.
    deleted: Vec<Option<(Lsn, ClientFingerprint)>>,
}

impl UpdateTap {
    /// A tap for these.
    #[must_use]
    pub fn new(links: Arc<Links>, territory: Option<Territory>) -> Self {
        let shard_count = links.shards.len();
        let group = || Group { passed: vec![Vec::new(); shard_count], updates: Vec::new() };
        let groups = links.peers.iter().map(|_| group()).collect();
        Self { deleted: vec![None; shard_count], territory, groups, links }
    }

    /// Whether a change begins a transaction of a client. One that moves to another address deletes its lease and takes the other in one.
    fn begins(&mut self, shard: ShardId, lsn: Lsn, operation: Operation, lease: &Lease4<'_>) -> bool {
        let client = self.links.fingerprint(lease.hw_addr.as_bytes(), lease.client_id);
        let Some(deleted) = self.deleted.get_mut(usize::from(shard.0)) else { return true };
        match operation {
            Operation::Delete => {
                *deleted = Some((lsn, client));
                true
            }
            Operation::Update => deleted.take() != Some((Lsn(lsn.0.saturating_sub(1)), client)),
        }
    }
}

impl Tap for UpdateTap {
    fn offer(&mut self, shard: ShardId, lsn: Lsn, origin: ChangeOrigin, change: &Change<'_>) {
        let word = self.links.scope.read();
        // What was decided when this server still served is told to the partner: its reply waits for that.
        let held = word.held(self.links.partner);
        let word = word.parts();
        let (operation, lease) = match change {
            Change::Put(lease) => (Operation::Update, lease),
            Change::Delete(lease) => (Operation::Delete, lease),
        };
        // What a command, the partner or time has done is not told: the others do it themselves, or know.
        let is_ours = self.territory.as_mut().is_none_or(|territory| territory.holds(lease.subnet_id));
        let by_client = is_ours && origin == ChangeOrigin::Client;
        if matches!(origin, ChangeOrigin::Partner | ChangeOrigin::Copier(_)) {
            // It knows better than what it did not answer.
            self.links.owed.lock().forget(lease.address);
        }
        for (peer, group) in self.links.peers.iter().zip(&mut self.groups) {
            let is_sent = by_client && (word.sent | held) & peer.bit() != 0;
            group.passed[usize::from(shard.0)].push((lsn, is_sent));
            if is_sent {
                group.updates.push(Update {
                    shard,
                    lsn,
                    operation,
                    lease: lease.to_owned(),
                    copies: 0,
                    delay: None,
                });
            }
        }
        if by_client && word.queue {
            let delayed = Delayed { operation, lease: lease.to_owned() };
            self.links.delay(delayed);
            self.links.wake_control();
        }
        if by_client && word.count_unsent && self.begins(shard, lsn, operation, lease) {
            self.links.unsent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn group_end(&mut self) {
        for (peer, group) in self.links.peers.iter().zip(&mut self.groups) {
            self.links.send_group(peer, group);
        }
    }
}
