//! What the control thread asks of a shard's leases, done between two batches in capped steps.
//!
//! A listing walks the addresses in order, some thousands per step, so that a million leases do not hold the clients up. Commands
//! allocate what they answer with: they are not the packet path.

use std::cmp::Ordering;
use std::net::Ipv4Addr;

use super::leases::Status;
use super::process::Shard;
use super::serving::Serving;
use crate::ids::{LeaseRef, Lsn, SubnetId};
use crate::journal::ChangeOrigin;
use crate::lease::address::{Owner, Walk};
use crate::lease::known::place_in_second;
use crate::lease::request::{LeaseChange, LeaseFilter, LeaseKey, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::lease::{Lease4, Lease4Buf, LeaseState};
use crate::time::Now;
use crate::wire::drop::DropReason;

/// Addresses that one step of a listing or of a wipe looks at.
const SCAN_PER_STEP_MAX: u32 = 4096;
/// How long a peer's change may be under way: the time that Kea gives it.
const CHANGE_UNDER_WAY_S: u64 = 10;
/// Leases that one step lists.
const LEASES_PER_STEP_MAX: usize = 256;
/// Leases that one step removes or reclaims: about as much work as a batch of packets.
pub const REMOVED_PER_STEP_MAX: usize = 64;
/// Rows of a wipe or of reclamations that may wait for the disk. Clients need the same ring, and their rows are written behind these.
pub const ROWS_AHEAD_MAX: u64 = 256;
/// Changes of [`LeaseRequest::Apply`] that one step makes: about as much work as a batch of packets.
const CHANGES_PER_STEP_MAX: usize = 64;

/// A request under way in a shard.
#[derive(Debug)]
pub struct Job {
    request: LeaseRequest,
    at: Ipv4Addr,
    found: Vec<Lease4Buf>,
    replies: Vec<LeaseReply>,
    count: u64,
    lsn: Lsn,
}

/// What a step of a [`Job`] came to.
#[derive(Debug)]
pub enum Progress {
    /// There is more to do.
    More(Job),
    /// The answer, and the log position that must be durable before it is given (0: none).
    Done(LeaseReply, Lsn),
}

impl Job {
    /// A request that has not begun.
    #[must_use]
    pub fn new(request: LeaseRequest) -> Self {
        let at = match &request {
            LeaseRequest::List { from, .. } => next(*from).unwrap_or(Ipv4Addr::BROADCAST),
            _ => Ipv4Addr::UNSPECIFIED,
        };
        Self { request, at, found: Vec::new(), replies: Vec::new(), count: 0, lsn: Lsn(0) }
    }

    /// What must be durable before the next step, so that what takes a whole database's rows keeps below the clients' own.
    #[must_use]
    pub const fn awaited(&self) -> Lsn {
        match self.request {
            LeaseRequest::Wipe(_) | LeaseRequest::Reclaim { .. } => {
                Lsn(self.lsn.0.saturating_sub(ROWS_AHEAD_MAX))
            }
            _ => Lsn(0),
        }
    }
}

/// The address after `address`, if there is one.
fn next(address: Ipv4Addr) -> Option<Ipv4Addr> {
    address.to_bits().checked_add(1).map(Ipv4Addr::from_bits)
}

/// Whether a lease is one that the filter asks for.
fn matches(filter: &LeaseFilter, lease: &Lease4<'_>) -> bool {
    match filter {
        LeaseFilter::All => true,
        LeaseFilter::Subnets(subnets) => subnets.contains(&lease.subnet_id),
        LeaseFilter::HwAddr(hw_addr) => lease.hw_addr.as_bytes() == hw_addr.as_bytes(),
        LeaseFilter::ClientId(client_id) => lease.client_id == &**client_id,
        LeaseFilter::Hostname(name) => lease.hostname.eq_ignore_ascii_case(name),
        LeaseFilter::State(state, subnet) => {
            lease.state == *state && subnet.is_none_or(|subnet| lease.subnet_id == subnet)
        }
        LeaseFilter::Lacking(known) => known.lacks(lease),
    }
}

impl Shard {
    /// One step of a request.
    pub fn serve(&mut self, serving: &Serving, now: Now, mut job: Job) -> Progress {
        let request = std::mem::replace(&mut job.request, LeaseRequest::Wipe(None));
        match request {
            LeaseRequest::Put { lease, mode, origin } => {
                let (reply, lsn) = self.put(serving, now, &lease, mode, origin);
                Progress::Done(reply, lsn)
            }
            LeaseRequest::Delete { key, origin } => {
                let (reply, lsn) = self.remove(serving, &key, origin);
                Progress::Done(reply, lsn)
            }
            LeaseRequest::Apply { changes, mode, origin } => {
                if self.apply_step(serving, now, &mut job, &changes, mode, origin) {
                    Progress::Done(LeaseReply::Applied(job.replies), job.lsn)
                } else {
                    job.request = LeaseRequest::Apply { changes, mode, origin };
                    Progress::More(job)
                }
            }
            LeaseRequest::Get(key) => {
                let reply = self.lookup(&key).map_or(LeaseReply::NotFound, |lease| {
                    LeaseReply::Lease(self.leases.table.view(lease).to_owned())
                });
                Progress::Done(reply, Lsn(0))
            }
            LeaseRequest::GetAll(addresses) => {
                let done = usize::try_from(job.count).unwrap_or(usize::MAX);
                let step = addresses.iter().skip(done).take(LEASES_PER_STEP_MAX);
                let held = step.filter_map(|&address| self.lookup(&LeaseKey::Address(address)));
                job.found.extend(held.map(|lease| self.leases.table.owned(lease)));
                job.count += LEASES_PER_STEP_MAX as u64;
                if done.saturating_add(LEASES_PER_STEP_MAX) >= addresses.len() {
                    Progress::Done(LeaseReply::Leases(job.found), Lsn(0))
                } else {
                    job.request = LeaseRequest::GetAll(addresses);
                    Progress::More(job)
                }
            }
            LeaseRequest::Mark => Progress::Done(LeaseReply::Marked, self.leases.log.appended()),
            LeaseRequest::List { from, limit, filter } => {
                if self.list_step(&mut job, limit, &filter) {
                    Progress::Done(LeaseReply::Leases(job.found), Lsn(0))
                } else {
                    job.request = LeaseRequest::List { from, limit, filter };
                    Progress::More(job)
                }
            }
            LeaseRequest::Wipe(subnet) => {
                if self.wipe_step(serving, &mut job, subnet) {
                    Progress::Done(LeaseReply::Count(job.count), job.lsn)
                } else {
                    job.request = LeaseRequest::Wipe(subnet);
                    Progress::More(job)
                }
            }
            LeaseRequest::Reclaim { remove } => {
                for _ in 0..REMOVED_PER_STEP_MAX {
                    if self.leases.ready().is_err() {
                        break;
                    }
                    let mut next = self.leases.table.next_to_reclaim(now.wall_s);
                    if next.is_none() {
                        // Leases whose time is over may not have come out of the wheel yet: right after a start, for one.
                        let more = self.lend_expired(serving, now);
                        next = self.leases.table.next_to_reclaim(now.wall_s);
                        if next.is_none() && more {
                            break;
                        }
                    }
                    let Some(lease) = next else {
                        let lsn = self.leases.log.appended();
                        return Progress::Done(LeaseReply::Count(job.count), lsn);
                    };
                    if self.may_reclaim(serving, lease) {
                        self.reclaim(serving, lease, remove);
                        job.count += 1;
                        job.lsn = self.leases.log.appended();
                    }
                }
                job.request = LeaseRequest::Reclaim { remove };
                Progress::More(job)
            }
        }
    }

    /// Makes further changes of many; true when all are made. Those that find no room in the log wait for a later step.
    fn apply_step(
        &mut self,
        serving: &Serving,
        now: Now,
        job: &mut Job,
        changes: &[LeaseChange],
        mode: PutMode,
        origin: Origin,
    ) -> bool {
        job.replies.reserve_exact(changes.len() - job.replies.len());
        for change in changes.iter().skip(job.replies.len()).take(CHANGES_PER_STEP_MAX) {
            if self.leases.ready().is_err() {
                return false;
            }
            let (reply, lsn) = match change {
                LeaseChange::Put(lease) => self.put(serving, now, lease, mode, origin),
                LeaseChange::Delete { address, told } => {
                    let key = LeaseKey::Address(*address);
                    let stays = told.as_ref().is_some_and(|told| {
                        self.lookup(&key).is_some_and(|lease| self.is_beside(lease, &told.view()))
                    });
                    if stays && matches!(mode, PutMode::Newer | PutMode::Uninformed | PutMode::Delayed { .. })
                    {
                        (LeaseReply::Kept, Lsn(0))
                    } else {
                        self.remove(serving, &key, origin)
                    }
                }
            };
            job.lsn = lsn.max(job.lsn);
            job.replies.push(reply);
        }
        job.replies.len() == changes.len()
    }

    fn remove(&mut self, serving: &Serving, key: &LeaseKey, origin: Origin) -> (LeaseReply, Lsn) {
        let Some(lease) = self.lookup(key) else { return (LeaseReply::NotFound, Lsn(0)) };
        // What the partner has done with is gone already: here is a newer lease of which it does not know yet.
        if origin.is_peer() && self.is_unanswered(lease) {
            return (LeaseReply::NotFound, Lsn(0));
        }
        let deleted = match self.leases.ready() {
            Ok(()) => self.leases.delete(serving, lease, change_origin(origin)),
            Err(reason) => Err(reason),
        };
        match deleted {
            Ok(lsn) => (LeaseReply::Deleted, lsn),
            Err(reason) => (LeaseReply::Full(reason.help()), Lsn(0)),
        }
    }

    fn put(
        &mut self,
        serving: &Serving,
        now: Now,
        lease: &Lease4Buf,
        mode: PutMode,
        origin: Origin,
    ) -> (LeaseReply, Lsn) {
        let (lease, untold) = (&lease.view(), lease.is_untold());
        if lease.is_of_nobody() {
            return (LeaseReply::Full("it names no client"), Lsn(0));
        }
        let old = match self.leases.status(lease.address, now.wall_s) {
            Status::Over(old) | Status::Used(old) => Some(old),
            Status::UsedElsewhere => return (LeaseReply::Busy, Lsn(0)),
            Status::Free | Status::OverElsewhere | Status::Unknown => None,
        };
        match (mode, old) {
            (PutMode::Add, Some(_)) => return (LeaseReply::Exists, Lsn(0)),
            (PutMode::Update, None) => return (LeaseReply::NotFound, Lsn(0)),
            // Nobody was told of it, and of what is here somebody was.
            (PutMode::Newer, Some(old)) if untold && self.is_anothers(old, lease, now) => {
                return (LeaseReply::Kept, Lsn(0));
            }
            (PutMode::Newer, Some(old)) if self.is_as_new(old, lease, mode, origin, now) => {
                return (LeaseReply::Kept, Lsn(0));
            }
            (PutMode::Uninformed, Some(old)) if self.is_as_new(old, lease, mode, origin, now) => {
                // No client must hear that it has a lease which is another one's here, or nobody's.
                let record = self.leases.table.record(old);
                let is_whole = place_in_second(record.state(), record.is_expired(now.wall_s)) > 0
                    || place_in_second(lease.state, lease.is_expired(now.wall_s)) == 0;
                let is_same = self.leases.table.belongs(old, &lease.hw_addr, lease.client_id);
                return (if is_same && is_whole { LeaseReply::Kept } else { LeaseReply::Busy }, Lsn(0));
            }
            (PutMode::Delayed { told }, Some(old)) => {
                if let Some(reply) = self.weigh_delayed(old, lease, told, origin, now) {
                    return (reply, Lsn(0));
                }
            }
            (PutMode::Later, Some(old)) if self.leases.table.view(old) == *lease => {
                return (LeaseReply::Kept, Lsn(0));
            }
            _ => {}
        }
        if let Some(old) = old
            && !self.leases.table.belongs(old, &lease.hw_addr, lease.client_id)
        {
            // Two changes of one address have crossed: at most one of the two clients may hear that it is theirs.
            let unanswered = self.is_unanswered(old) && origin != (Origin::Partner { partner_wins: true });
            let of_a_peer = origin.is_peer() && matches!(mode, PutMode::Upsert | PutMode::Uninformed);
            // A declined address is nobody's: no second client is told that it has it, and who has just got it is who declines it.
            let may_have_crossed = lease.state != LeaseState::Declined && self.may_have_crossed(old, now);
            if unanswered || of_a_peer && !self.is_unanswered(old) && may_have_crossed {
                let kept = mode == PutMode::Newer;
                return (if kept { LeaseReply::Kept } else { LeaseReply::Busy }, Lsn(0));
            }
            self.leases.end_promises(old);
        }
        let stored = match old {
            Some(old) => self.leases.update(serving, old, lease, change_origin(origin)),
            None => self.leases.create(serving, lease, None, now.wall_s, change_origin(origin)),
        };
        match stored {
            Ok((_, lsn)) if old.is_some() => (LeaseReply::Updated, lsn),
            Ok((_, lsn)) => (LeaseReply::Added, lsn),
            Err(DropReason::NoLease) => (LeaseReply::Busy, Lsn(0)),
            Err(reason) => (LeaseReply::Full(reason.help()), Lsn(0)),
        }
    }

    /// Whether a lease of a page has nothing to say about the lease that is here. In one and the same second a server can give an address
    /// and die, and the other give it to somebody else: the one whose clients were told must win.
    fn is_as_new(&self, old: LeaseRef, lease: &Lease4<'_>, mode: PutMode, origin: Origin, now: Now) -> bool {
        let record = self.leases.table.record(old);
        let here = (record.cltt(), place_in_second(record.state(), record.is_expired(now.wall_s)));
        let there = (lease.cltt, place_in_second(lease.state, lease.is_expired(now.wall_s)));
        let partner_wins =
            matches!(origin, Origin::Partner { partner_wins: true } | Origin::Copier { wins: true, .. });
        if !self.leases.table.belongs(old, &lease.hw_addr, lease.client_id) {
            if record.is_unpromised() && there.1 > 0 {
                // Nobody was told of the one that is here.
                return false;
            }
            // That one client has no lease says nothing of another one's. A server that stood still reads late that the first has given its
            // lease back, and the other has served the second meanwhile: what that one says of holders stays, or is taken.
            let is_page = mode == PutMode::Newer && matches!(origin, Origin::Partner { .. });
            match (here.1 > 0, there.1 > 0) {
                (true, false) if !is_page => return true,
                (false, true) if is_page => return false,
                _ => {}
            }
        }
        match here.cmp(&there) {
            Ordering::Less => false,
            // A server that copies from this one brings another lease of the same second only where its own goes first.
            Ordering::Equal => !partner_wins || self.leases.table.view(old) == *lease,
            Ordering::Greater => true,
        }
    }

    /// Whether another client has the lease that is here, and was told.
    fn is_anothers(&self, old: LeaseRef, lease: &Lease4<'_>, now: Now) -> bool {
        let record = self.leases.table.record(old);
        place_in_second(record.state(), record.is_expired(now.wall_s)) > 1
            && !record.is_unpromised()
            && !self.leases.table.belongs(old, &lease.hw_addr, lease.client_id)
    }

    /// What a delayed change gets that is not to be made. Each of two servers that could not talk may have given the address away, and each sends
    /// the other one its change: both must come to the same end, whichever of the two arrives first.
    fn weigh_delayed(
        &self,
        old: LeaseRef,
        lease: &Lease4<'_>,
        told: bool,
        origin: Origin,
        now: Now,
    ) -> Option<LeaseReply> {
        let record = self.leases.table.record(old);
        let here = (record.cltt(), place_in_second(record.state(), record.is_expired(now.wall_s)));
        let there = (lease.cltt, place_in_second(lease.state, lease.is_expired(now.wall_s)));
        if here.1 == 0 || self.leases.table.belongs(old, &lease.hw_addr, lease.client_id) {
            return None;
        }
        if there.1 == 0 {
            return Some(LeaseReply::Kept);
        }
        // The partner may have made it already: a copy will tell.
        if self.is_unanswered(old) {
            return Some(LeaseReply::Busy);
        }
        let partner_wins = origin == (Origin::Partner { partner_wins: true });
        // A declined address is nobody's, and nobody is told of it.
        let is_owed = told || lease.state == LeaseState::Declined;
        let stays = !is_owed || here > there || here == there && !partner_wins;
        (stays && !record.is_unpromised()).then_some(LeaseReply::Kept)
    }

    /// Whether the end of the lease `told` says nothing of the lease that is here: this one is newer, or another client's.
    fn is_beside(&self, here: LeaseRef, told: &Lease4<'_>) -> bool {
        let table = &self.leases.table;
        table.record(here).cltt() > told.cltt
            || !told.is_of_nobody() && !table.belongs(here, &told.hw_addr, told.client_id)
    }

    /// Whether a peer has still to answer the last change of a lease.
    fn is_unanswered(&self, lease: LeaseRef) -> bool {
        self.leases.table.record(lease).pending_lsn() > self.answered
    }

    /// Whether a peer that gives the address of this lease to another client may have done so before it heard of the lease. Its answer
    /// to our change can overtake its own change: both have connections of their own.
    fn may_have_crossed(&self, lease: LeaseRef, now: Now) -> bool {
        let record = self.leases.table.record(lease);
        // What a peer refused or never answered is not the client's yet. Who made the lease a record does not say: a peer that gives
        // away what it has just given is refused for a moment, too, and asks again.
        record.state() == LeaseState::Assigned
            && !record.is_expired(now.wall_s)
            && !record.is_uncacheable()
            && now.wall_s.saturating_sub(record.cltt()) < CHANGE_UNDER_WAY_S
    }

    /// The lease of this shard that `key` names.
    fn lookup(&self, key: &LeaseKey) -> Option<LeaseRef> {
        let table = &self.leases.table;
        match key {
            LeaseKey::Address(address) => match self.leases.space.owner(*address) {
                Owner::InUse { shard, lease } | Owner::Stealable { shard, lease }
                    if shard == self.leases.shard =>
                {
                    Some(lease)
                }
                _ => None,
            },
            LeaseKey::HwAddr(subnet, hw_addr) => table
                .with_hw_octets(table.hash_hw(hw_addr), hw_addr.as_bytes())
                .find(|&lease| self.is_current(lease, *subnet)),
            LeaseKey::ClientId(subnet, client_id) => table
                .with_client_id(table.hash_client_id(client_id), client_id)
                .find(|&lease| self.is_current(lease, *subnet)),
        }
    }

    fn is_current(&self, lease: LeaseRef, subnet: SubnetId) -> bool {
        let record = self.leases.table.record(lease);
        record.subnet_id() == subnet
            && self.leases.space.refers_to(record.address(), self.leases.shard, lease)
    }

    /// Lists on; true when the listing is complete.
    fn list_step(&self, job: &mut Job, limit: u32, filter: &LeaseFilter) -> bool {
        let limit = limit as usize;
        let table = &self.leases.table;
        let by_key: Option<Vec<LeaseRef>> = match filter {
            LeaseFilter::HwAddr(hw_addr) => {
                Some(table.with_hw_octets(table.hash_hw(hw_addr), hw_addr.as_bytes()).collect())
            }
            LeaseFilter::ClientId(client_id) => {
                Some(table.with_client_id(table.hash_client_id(client_id), client_id).collect())
            }
            _ => None,
        };
        if let Some(leases) = by_key {
            let current = leases.into_iter().filter(|&lease| {
                let address = table.record(lease).address();
                address >= job.at && self.leases.space.refers_to(address, self.leases.shard, lease)
            });
            job.found = current.map(|lease| table.view(lease).to_owned()).collect();
            job.found.sort_by_key(|lease| lease.view().address);
            job.found.truncate(limit);
            return true;
        }
        let (mut scan, mut listed) = (SCAN_PER_STEP_MAX, 0);
        while scan > 0 && listed < LEASES_PER_STEP_MAX && job.found.len() < limit {
            match self.leases.space.walk(job.at, Ipv4Addr::BROADCAST, scan) {
                Walk::Held(address, owner) => {
                    scan -= 1;
                    if let Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } = owner
                        && shard == self.leases.shard
                        && matches(filter, &table.view(lease))
                    {
                        job.found.push(table.owned(lease));
                        listed += 1;
                    }
                    match next(address) {
                        Some(address) => job.at = address,
                        None => return true,
                    }
                }
                Walk::More(address) => {
                    job.at = address;
                    return false;
                }
                Walk::End => return true,
            }
        }
        job.found.len() >= limit
    }

    /// Wipes on; true when done.
    fn wipe_step(&mut self, serving: &Serving, job: &mut Job, subnet: Option<SubnetId>) -> bool {
        for _ in 0..REMOVED_PER_STEP_MAX {
            if self.leases.ready().is_err() {
                return false;
            }
            match self.leases.space.walk(job.at, Ipv4Addr::BROADCAST, SCAN_PER_STEP_MAX) {
                Walk::Held(address, owner) => {
                    if let Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } = owner
                        && shard == self.leases.shard
                    {
                        let of = self.leases.table.record(lease).subnet_id();
                        let wanted =
                            subnet.map_or_else(|| serving.plan.subnet_by_id(of).is_some(), |id| of == id);
                        if wanted {
                            match self.leases.delete(serving, lease, ChangeOrigin::Command) {
                                // A lease that had gone to another shard has no row.
                                Ok(lsn) => job.lsn = lsn.max(job.lsn),
                                Err(_) => return false,
                            }
                            job.count += 1;
                        }
                    }
                    match next(address) {
                        Some(address) => job.at = address,
                        None => return true,
                    }
                }
                Walk::More(address) => {
                    job.at = address;
                    return false;
                }
                Walk::End => return true,
            }
        }
        false
    }
}

const fn change_origin(origin: Origin) -> ChangeOrigin {
    match origin {
        Origin::Command => ChangeOrigin::Command,
        Origin::Partner { .. } => ChangeOrigin::Partner,
        Origin::Copier { peer, .. } => ChangeOrigin::Copier(peer),
    }
}
