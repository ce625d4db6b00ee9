//! A shard's hold on leases: the table, the claims on addresses, the directory of clients that live elsewhere, the log,
//! and the counters, changed together or not at all.
//!
//! Every change is: room in the log is made sure of, the address is claimed, the record is stored, the row is logged, the
//! counters follow. A change that cannot be made leaves everything as it was.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::serving::Serving;
use super::stats::{LeaseStats, add};
use crate::classify::steer::Steering;
use crate::config::plan::SubnetIndex;
use crate::ids::{HwAddr, LeaseRef, Lsn, ShardId, SubnetId};
use crate::journal::{Change, ChangeOrigin, LogTx};
use crate::lease::address::{AddressSpace, Claimed, Owner, Retiring, Walk};
use crate::lease::directory::Directory;
use crate::lease::table::{KeyHash, LeaseTable, Origin, Record, TableError};
use crate::lease::{Lease4, LeaseState};
use crate::wire::drop::DropReason;

/// Slots of the log ring that one query can need: the deletion of the old lease and the new lease, each with the longest
/// host name and the longest relay information that a packet can bring.
const SLOTS_PER_QUERY: usize = 64;
/// Addresses given up that one turn opens at most.
const SETTLED_PER_TURN_MAX: usize = 256;

/// What can be said of an address before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Nobody has it.
    Free,
    /// A lease of this shard that nobody claims any more: expired, reclaimed or released.
    Over(LeaseRef),
    /// An over lease of another shard, free to be claimed.
    OverElsewhere,
    /// A lease of this shard in use.
    Used(LeaseRef),
    /// In use by a client of another shard, or given up a moment ago by one.
    UsedElsewhere,
    /// The server keeps no leases on this address.
    Unknown,
}

impl Status {
    /// Whether another client may have the address.
    pub(super) const fn is_available(self) -> bool {
        matches!(self, Self::Free | Self::Over(_) | Self::OverElsewhere)
    }
}

/// What becomes of a lease that its client has done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetGo {
    /// Expired: kept for its client as reclaimed.
    Reclaim,
    /// Released at this time, kept for its client.
    Release {
        /// When.
        wall_s: u64,
    },
}

/// Leases that one turn counts into the counters of pools, and addresses that it looks at for one of them.
const RECOUNTED_PER_TURN_MAX: u32 = 256;
const RECOUNT_SCAN_MAX: u32 = 4096;

/// All that one shard knows and may change of leases.
pub struct Leases {
    /// Which shard this is.
    pub shard: ShardId,
    /// The leases of the clients that this shard owns.
    pub table: LeaseTable,
    /// Who holds which address: shared by all shards.
    pub space: Arc<AddressSpace>,
    /// Clients that do not live with the owner of their hardware address; nothing with one shard.
    pub directory: Option<Arc<Directory>>,
    /// The function that says who owns a client.
    pub steering: Steering,
    /// Addresses given up, until their last row is durable.
    pub retiring: Retiring,
    /// Where changes are logged.
    pub log: LogTx,
    /// The counters of leases of the whole server.
    pub totals: Arc<LeaseStats>,
    /// While the counters of pools begin anew: the leases from this address on are still to be counted.
    pub recount: Option<Ipv4Addr>,
    /// The latest row among the last rows of all leases that have ended or changed their client: replies for later ones need no look.
    pub ended: Lsn,
}

/// The counters that a lease belongs to: the server's, its subnet's, its pool's unless that has still to count it (from the address
/// `recount` on).
fn levels<'a>(
    serving: &'a Serving,
    totals: &'a LeaseStats,
    subnet_id: SubnetId,
    address: Ipv4Addr,
    recount: Option<Ipv4Addr>,
) -> impl Iterator<Item = &'a LeaseStats> {
    let subnet = serving.plan.subnet_by_id(subnet_id);
    let is_counted = recount.is_none_or(|from| address < from);
    let pool = subnet.filter(|_| is_counted).and_then(|subnet| serving.plan.pool_of(subnet, address));
    [
        Some(totals),
        // A subnet that is not there now keeps its counters right for when it comes back.
        subnet.map_or_else(|| serving.absent_stats(subnet_id), |subnet| Some(serving.subnet_stats(subnet))),
        pool.map(|pool| serving.pool_stats(pool)),
    ]
    .into_iter()
    .flatten()
}

/// How a lease in this state counts: as assigned, as declined.
fn counts(state: LeaseState) -> (i64, i64) {
    let used = matches!(state, LeaseState::Assigned | LeaseState::Declined);
    (i64::from(used), i64::from(state == LeaseState::Declined))
}

/// Why a change of a lease is not made, as a reason to drop the packet that wanted it.
const fn table_reason(error: TableError) -> DropReason {
    match error {
        TableError::RecordsFull | TableError::IndexFull | TableError::BlobsFull => DropReason::TableFull,
        TableError::ClientIdTooLong | TableError::PartsTooLong | TableError::CltTooLate => {
            DropReason::ProcessingFailed
        }
    }
}

impl Leases {
    /// Whether leases may be changed now: there is room in the log and for addresses given up.
    ///
    /// # Errors
    /// [`DropReason::LogFull`] when there is none.
    #[inline(always)]
    pub fn ready(&mut self) -> Result<(), DropReason> {
        if !self.log.has_room(SLOTS_PER_QUERY) || self.retiring.is_full() {
            return Err(DropReason::LogFull);
        }
        Ok(())
    }

    /// Whether what the row at `lsn` promised to a client of this lease is still so. Without this, a reply that waits would leave for a lease
    /// that has ended meanwhile, and whose address can be somebody else's. A later row of the same client counts as an end once any
    /// lease has ended since: that row has a reply of its own.
    #[must_use]
    pub fn is_promised(&self, lease: LeaseRef, lsn: Lsn) -> bool {
        // Nearly always: no lease has ended whose own reply could still wait. That spares a look at the record.
        lsn > self.ended
            || self
                .table
                .record_if_live(lease)
                .is_some_and(|record| record.pending_lsn() == lsn && !record.is_loose())
    }

    /// A reply leaves that tells a client of this lease.
    pub fn promise(&mut self, lease: LeaseRef) {
        if self.table.record_if_live(lease).is_some_and(Record::is_unpromised) {
            self.table.set_unpromised(lease, false);
        }
    }

    /// From now on no reply may leave for what this lease has promised so far.
    pub(super) fn end_promises(&mut self, lease: LeaseRef) {
        self.ended = self.ended.max(self.table.record(lease).pending_lsn());
    }

    /// What is known of `address`.
    pub(super) fn status(&self, address: Ipv4Addr, wall_s: u64) -> Status {
        match self.space.owner(address) {
            Owner::Unknown => Status::Unknown,
            Owner::Free => Status::Free,
            Owner::InUse { shard, lease } if shard == self.shard => {
                if is_over(self.table.record(lease), wall_s) {
                    Status::Over(lease)
                } else {
                    Status::Used(lease)
                }
            }
            Owner::Stealable { shard, lease } if shard == self.shard => Status::Over(lease),
            Owner::Stealable { .. } => Status::OverElsewhere,
            Owner::Retiring { shard } if shard == self.shard => Status::Free,
            Owner::InUse { .. } | Owner::Retiring { .. } => Status::UsedElsewhere,
        }
    }

    /// The two leases among `found` that `rank` puts first. One that has no `place` does not count, and one whose address has
    /// gone to another shard is none any more: time sweeps its record away.
    #[inline(always)]
    fn first(
        &self,
        found: impl Iterator<Item = LeaseRef>,
        place: impl Fn(&Record) -> Option<SubnetIndex>,
        rank: impl Fn(&Record, SubnetIndex) -> u64,
    ) -> [Option<LeaseRef>; 2] {
        let mut first: Option<(LeaseRef, SubnetIndex)> = None;
        let mut second: Option<(LeaseRef, SubnetIndex)> = None;
        let rank = |(lease, subnet): (LeaseRef, SubnetIndex)| (rank(self.table.record(lease), subnet), lease);
        for lease in found {
            let record = self.table.record(lease);
            let Some(subnet) = place(record) else { continue };
            if record.is_loose() && !self.space.refers_to(record.address(), self.shard, lease) {
                continue;
            }
            let other = (lease, subnet);
            // Nearly every client has one lease: nothing to compare.
            let Some(best) = first else {
                first = Some(other);
                continue;
            };
            if rank(other) < rank(best) {
                (first, second) = (Some(other), Some(best));
            } else if second.is_none_or(|second| rank(other) < rank(second)) {
                second = Some(other);
            }
        }
        [first.map(|(lease, _)| lease), second.map(|(lease, _)| lease)]
    }

    /// The leases with this client identifier that have a `place`, as `rank` puts them.
    #[inline(always)]
    pub(super) fn find_client_id(
        &self,
        hash: KeyHash,
        client_id: &[u8],
        place: impl Fn(&Record) -> Option<SubnetIndex>,
        rank: impl Fn(&Record, SubnetIndex) -> u64,
    ) -> [Option<LeaseRef>; 2] {
        self.first(self.table.with_client_id(hash, client_id), place, rank)
    }

    /// The same with this hardware address, among those of a client that sends `client_id`.
    pub(super) fn find_hw(
        &self,
        hash: KeyHash,
        hw_addr: &HwAddr,
        client_id: &[u8],
        place: impl Fn(&Record) -> Option<SubnetIndex>,
        rank: impl Fn(&Record, SubnetIndex) -> u64,
    ) -> [Option<LeaseRef>; 2] {
        self.first(self.table.with_hw(hash, hw_addr, client_id), place, rank)
    }

    /// The other shard that holds a lease under `hash`: the query belongs there.
    pub(super) fn elsewhere(&self, hash: KeyHash) -> Option<ShardId> {
        self.directory.as_ref()?.lookup(hash).without(self.shard).lowest()
    }

    /// Whether this other shard holds a lease under `hash`, as far as the directory says.
    pub(super) fn is_with(&self, hash: KeyHash, shard: ShardId) -> bool {
        let Some(directory) = &self.directory else { return false };
        shard != self.shard && directory.lookup(hash).contains(shard)
    }

    /// Stores a lease on an address that nobody else holds; `replaces` is the client's lease on another address, which is
    /// deleted in the same breath. Gives back the lease and the log position of its row.
    ///
    /// # Errors
    /// [`DropReason::NoLease`] when the address is gone, other reasons when there is no room; nothing has changed then.
    pub(super) fn create(
        &mut self,
        serving: &Serving,
        lease: &Lease4<'_>,
        replaces: Option<LeaseRef>,
        wall_s: u64,
        origin: ChangeOrigin,
    ) -> Result<(LeaseRef, Lsn), DropReason> {
        self.ready()?;
        let source = if origin == ChangeOrigin::Client { Origin::Client } else { Origin::Record };
        let fresh = self.table.insert(lease, source).map_err(table_reason)?;
        let old = match self.status(lease.address, wall_s) {
            Status::Over(old) if !self.table.record(old).is_loose() => {
                self.space.move_lease(lease.address, self.shard, old, fresh).then_some(Some(old))
            }
            _ => match self.space.claim(lease.address, self.shard, fresh) {
                Ok(Claimed::Stolen { shard, lease: old }) if shard == self.shard => Some(Some(old)),
                Ok(_) => Some(None),
                Err(_) => None,
            },
        };
        let Some(old) = old else {
            self.table.remove(fresh);
            return Err(DropReason::NoLease);
        };
        if let Some(old) = old {
            self.count_over(serving, old);
            self.forget(old);
        }
        if let Some(replaced) = replaces.filter(|&replaced| Some(replaced) != old) {
            self.delete(serving, replaced, origin)?;
        }
        self.learn(fresh);
        self.table.set_unpromised(fresh, origin == ChangeOrigin::Client);
        let lsn = self.log_put(fresh, origin)?;
        let after = (lease.state, lease.subnet_id);
        self.transition(
            serving,
            lease.address,
            (LeaseState::Reclaimed, lease.subnet_id),
            after,
            origin == ChangeOrigin::Client,
        );
        Ok((fresh, lsn))
    }

    /// Stores a lease read from disk at the start: no row, no check of what else there is.
    ///
    /// # Errors
    /// The table's own error, or [`TableError::RecordsFull`] when another shard holds the address.
    pub fn load(&mut self, serving: &Serving, lease: &Lease4<'_>) -> Result<(), TableError> {
        let fresh = self.table.insert(lease, Origin::Record)?;
        if self.space.claim(lease.address, self.shard, fresh).is_err() {
            self.table.remove(fresh);
            return Err(TableError::RecordsFull);
        }
        self.learn(fresh);
        if matches!(lease.state, LeaseState::Reclaimed | LeaseState::Released)
            && let Some(ticket) = self.space.begin_lend(lease.address, self.shard, fresh)
        {
            // Its row is on disk: that is where it comes from.
            self.table.set_loose(fresh, true);
            self.space.settle(ticket);
        }
        let after = (lease.state, lease.subnet_id);
        self.transition(serving, lease.address, (LeaseState::Reclaimed, lease.subnet_id), after, false);
        Ok(())
    }

    /// Overwrites a lease of this shard, on the same address.
    ///
    /// # Errors
    /// [`DropReason::NoLease`] when the address has gone to somebody else, other reasons when there is no room; nothing
    /// has changed then.
    pub(super) fn update(
        &mut self,
        serving: &Serving,
        old: LeaseRef,
        lease: &Lease4<'_>,
        origin: ChangeOrigin,
    ) -> Result<(LeaseRef, Lsn), DropReason> {
        self.ready()?;
        let record = self.table.record(old);
        debug_assert_eq!(record.address(), lease.address, "an update stays on its address");
        let before = (record.state(), record.subnet_id());
        // A lease that was over by its time only is assigned anew all the same.
        let again = is_reactivation(before.0, lease.state)
            || before.0 == LeaseState::Assigned && record.is_expired(lease.cltt);
        if record.is_loose() && !self.space.reactivate(lease.address, self.shard, old) {
            return Err(DropReason::NoLease);
        }
        self.table.set_loose(old, false);
        let source = if origin == ChangeOrigin::Client { Origin::Client } else { Origin::Record };
        self.unlearn(old);
        let updated = self.table.update(old, lease, source);
        self.learn(old);
        updated.map_err(table_reason)?;
        if again || origin != ChangeOrigin::Client {
            self.table.set_unpromised(old, origin == ChangeOrigin::Client);
        }
        let counted = again && origin == ChangeOrigin::Client;
        self.transition(serving, lease.address, before, (lease.state, lease.subnet_id), counted);
        let lsn = self.log_put(old, origin)?;
        Ok((old, lsn))
    }

    /// The cheap update of a lease in use: only its times change.
    ///
    /// # Errors
    /// When the log is full.
    #[inline(always)]
    pub(super) fn renew(&mut self, lease: LeaseRef, cltt: u64, valid_lft: u32) -> Result<Lsn, DropReason> {
        self.ready()?;
        self.table.renew(lease, cltt, valid_lft);
        self.log_put(lease, ChangeOrigin::Client)
    }

    /// Removes a lease for good: its deletion is logged, its address is free for others once that row is durable.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn delete(
        &mut self,
        serving: &Serving,
        lease: LeaseRef,
        origin: ChangeOrigin,
    ) -> Result<Lsn, DropReason> {
        let view = self.table.view(lease);
        let (address, before) = (view.address, (view.state, view.subnet_id));
        // The word first: once it says Retiring nobody else can take the address and write a row before this one.
        let Some(ticket) = self.space.begin_retire(address, self.shard, lease) else {
            self.drop_stale(serving, lease);
            return Ok(Lsn(0));
        };
        let view = self.table.view(lease);
        let lsn = self.log.append(&Change::Delete(view), origin).map_err(|_| DropReason::LogFull)?;
        self.forget(lease);
        self.retiring.wait(lsn, ticket).map_err(|_| DropReason::LogFull)?;
        self.transition(serving, address, before, (LeaseState::Reclaimed, before.1), false);
        Ok(lsn)
    }

    /// Keeps a lease for its client, but lets others have the address once the row is durable.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn let_go(
        &mut self,
        serving: &Serving,
        lease: LeaseRef,
        how: LetGo,
    ) -> Result<Lsn, DropReason> {
        self.ready()?;
        let record = self.table.record(lease);
        let before = (record.state(), record.subnet_id());
        let address = record.address();
        // A lease that others may claim is taken back before its row is written: rows of one address stay in order.
        if record.is_loose() {
            if !self.space.reactivate(address, self.shard, lease) {
                return Err(DropReason::NoLease);
            }
            self.table.set_loose(lease, false);
        }
        let origin = match how {
            LetGo::Reclaim => {
                self.table.reclaim(lease);
                ChangeOrigin::Expiry
            }
            LetGo::Release { wall_s } => {
                self.table.release(lease, wall_s);
                ChangeOrigin::Client
            }
        };
        let lsn = self.log_put(lease, origin)?;
        self.lend(lease, lsn)?;
        let after = self.table.record(lease).state();
        self.transition(serving, address, before, (after, before.1), false);
        Ok(lsn)
    }

    /// Lets others have the address of a lease once `lsn` is durable; does nothing when that is so already.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn lend(&mut self, lease: LeaseRef, lsn: Lsn) -> Result<(), DropReason> {
        let record = self.table.record(lease);
        let address = record.address();
        if record.is_loose() {
            return Ok(());
        }
        self.table.set_loose(lease, true);
        self.end_promises(lease);
        match self.space.begin_lend(address, self.shard, lease) {
            Some(ticket) => self.retiring.wait(lsn, ticket).map_err(|_| DropReason::LogFull),
            None => Ok(()),
        }
    }

    /// Puts a lease in probation.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn decline(
        &mut self,
        serving: &Serving,
        lease: LeaseRef,
        wall_s: u64,
        probation_s: u32,
    ) -> Result<Lsn, DropReason> {
        self.ready()?;
        let record = self.table.record(lease);
        let before = (record.state(), record.subnet_id());
        let address = record.address();
        // A lease that others may claim is taken back before its row is written: rows of one address stay in order.
        if record.is_loose() {
            if !self.space.reactivate(address, self.shard, lease) {
                return Err(DropReason::NoLease);
            }
            self.table.set_loose(lease, false);
        }
        self.unlearn(lease);
        self.end_promises(lease);
        self.table.decline(lease, wall_s, probation_s);
        self.transition(serving, address, before, (LeaseState::Declined, before.1), false);
        self.log_put(lease, ChangeOrigin::Client)
    }

    /// Addresses whose last row is durable become free for others; each is named to `opened`.
    pub fn settle(&mut self, durable: Lsn, opened: impl FnMut(Ipv4Addr)) {
        self.retiring.settle(durable, &self.space, SETTLED_PER_TURN_MAX, opened);
    }

    /// Logs a lease as it is in the table and remembers the position.
    #[inline(always)]
    fn log_put(&mut self, lease: LeaseRef, origin: ChangeOrigin) -> Result<Lsn, DropReason> {
        let change = Change::Put(self.table.view(lease));
        let lsn = self.log.append(&change, origin).map_err(|_| DropReason::LogFull)?;
        self.table.set_pending(lease, lsn);
        Ok(lsn)
    }

    /// Removes a record whose address is not its own any more, without a row.
    fn forget(&mut self, lease: LeaseRef) {
        self.unlearn(lease);
        self.end_promises(lease);
        self.table.remove(lease);
    }

    /// Removes a record whose address another shard has taken, and counts what that shard could not see.
    pub(super) fn drop_stale(&mut self, serving: &Serving, lease: LeaseRef) {
        self.count_over(serving, lease);
        self.forget(lease);
    }

    /// Takes a lease that is over out of the counters, because somebody else gets its address.
    fn count_over(&self, serving: &Serving, lease: LeaseRef) {
        let record = self.table.record(lease);
        let before = (record.state(), record.subnet_id());
        self.count_reclaimed(serving, lease);
        self.transition(serving, record.address(), before, (LeaseState::Reclaimed, before.1), false);
    }

    /// Counts the reclamation of a lease that is still to be reclaimed.
    pub(super) fn count_reclaimed(&self, serving: &Serving, lease: LeaseRef) {
        let record = self.table.record(lease);
        if record.state() == LeaseState::Reclaimed {
            return;
        }
        for stats in levels(serving, &self.totals, record.subnet_id(), record.address(), self.recount) {
            add(&stats.reclaimed, 1);
            if record.state() == LeaseState::Declined {
                add(&stats.reclaimed_declined, 1);
            }
        }
    }

    /// Counters of a change of state: assigned counts Assigned and Declined leases.
    fn transition(
        &self,
        serving: &Serving,
        address: Ipv4Addr,
        before: (LeaseState, SubnetId),
        after: (LeaseState, SubnetId),
        counted: bool,
    ) {
        let (used_before, declined_before) = counts(before.0);
        let (used_after, declined_after) = counts(after.0);
        if (used_before, declined_before) == (used_after, declined_after) && before.1 == after.1 && !counted {
            return;
        }
        for stats in levels(serving, &self.totals, before.1, address, self.recount) {
            add(&stats.assigned, -used_before);
            add(&stats.declined, -declined_before);
        }
        for stats in levels(serving, &self.totals, after.1, address, self.recount) {
            add(&stats.assigned, used_after);
            add(&stats.declined, declined_after);
            if counted {
                add(&stats.cumulative_assigned, 1);
            }
        }
    }

    /// Counts some of the leases that the counters of pools have not seen yet; true when there are more.
    pub(super) fn recount_some(&mut self, serving: &Serving) -> bool {
        let Some(mut at) = self.recount else { return false };
        let mut left = RECOUNTED_PER_TURN_MAX;
        while left > 0 {
            left -= 1;
            match self.space.walk(at, Ipv4Addr::BROADCAST, RECOUNT_SCAN_MAX) {
                Walk::Held(address, owner) => {
                    if let Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } = owner
                        && shard == self.shard
                    {
                        self.count_in_pool(serving, lease);
                    }
                    match address.to_bits().checked_add(1) {
                        Some(next) => at = Ipv4Addr::from_bits(next),
                        None => {
                            self.recount = None;
                            return false;
                        }
                    }
                }
                Walk::More(address) => {
                    at = address;
                    break;
                }
                Walk::End => {
                    self.recount = None;
                    return false;
                }
            }
        }
        self.recount = Some(at);
        true
    }

    fn count_in_pool(&self, serving: &Serving, lease: LeaseRef) {
        let record = self.table.record(lease);
        let subnet = serving.plan.subnet_by_id(record.subnet_id());
        let Some(pool) = subnet.and_then(|subnet| serving.plan.pool_of(subnet, record.address())) else {
            return;
        };
        let (used, declined) = counts(record.state());
        let stats = serving.pool_stats(pool);
        add(&stats.assigned, used);
        add(&stats.declined, declined);
    }

    /// Tells the directory of a lease: its client identifier always, its hardware address when it lives elsewhere.
    fn learn(&self, lease: LeaseRef) {
        let Some(directory) = &self.directory else { return };
        let view = self.table.view(lease);
        if !view.client_id.is_empty() {
            // A full directory counts what it refuses; the client then costs a new lease in the worst case.
            let _ = directory.insert(self.table.hash_client_id(view.client_id), self.shard);
        }
        if self.lives_away(&view.hw_addr) {
            let _ = directory.insert(self.table.hash_hw(&view.hw_addr), self.shard);
        }
    }

    fn unlearn(&self, lease: LeaseRef) {
        let Some(directory) = &self.directory else { return };
        let view = self.table.view(lease);
        if !view.client_id.is_empty() {
            directory.remove(self.table.hash_client_id(view.client_id), self.shard);
        }
        if self.lives_away(&view.hw_addr) {
            directory.remove(self.table.hash_hw(&view.hw_addr), self.shard);
        }
    }

    fn lives_away(&self, hw_addr: &HwAddr) -> bool {
        !hw_addr.is_empty() && self.steering.owner(hw_addr) != self.shard
    }

    /// The share of a subnet's addresses that are assigned, 0 to 1.
    pub(super) fn occupancy(serving: &Serving, subnet: SubnetIndex) -> f64 {
        let capacity = serving.plan.pool_addresses(subnet);
        if capacity == 0 {
            return 0.0;
        }
        let assigned = serving.subnet_stats(subnet).assigned.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        let share = assigned as f64 / capacity as f64;
        share
    }
}

/// Whether a lease comes back into use.
fn is_reactivation(before: LeaseState, after: LeaseState) -> bool {
    matches!(before, LeaseState::Reclaimed | LeaseState::Released) && after == LeaseState::Assigned
}

/// Whether a lease is over for its client: expired by time, reclaimed or released.
pub(super) fn is_over(record: &Record, wall_s: u64) -> bool {
    match record.state() {
        LeaseState::Reclaimed | LeaseState::Released => true,
        LeaseState::Assigned | LeaseState::Declined | LeaseState::Registered => record.is_expired(wall_s),
    }
}
