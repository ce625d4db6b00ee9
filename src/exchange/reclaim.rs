//! Time passing over a shard's leases: addresses of expired leases become free for others at once, reclamation and
//! flushing go on in cycles, within their limits (`expired-leases-processing`).

use super::leases::LetGo;
use super::process::Shard;
use super::serving::Serving;
use crate::classify::bucket::bucket;
use crate::ids::LeaseRef;
use crate::journal::ChangeOrigin;
use crate::lease::table::Due;
use crate::lease::{Lease4, LeaseState};
use crate::time::{Mono, Now};
use crate::wire::drop::DropReason;

/// Leases that one turn looks at when time has moved on.
const DUE_PER_TURN_MAX: u32 = 64;
/// Leases reclaimed or flushed in one turn: below client traffic, whatever a cycle allows.
const WORK_PER_TURN_MAX: u32 = 32;

/// `expired-leases-processing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclamation {
    /// Seconds from the end of a cycle to the next; 0 reclaims nothing.
    pub reclaim_wait_s: u32,
    /// Seconds between flushes; 0 flushes nothing and ends affinity after release.
    pub flush_wait_s: u32,
    /// How long reclaimed leases are held, seconds; 0 ends affinity after release.
    pub hold_s: u32,
    /// Most leases in one cycle; 0 is no limit.
    pub leases_max: u32,
    /// Longest cycle, milliseconds; 0 is no limit.
    pub cycle_ms_max: u32,
    /// Incomplete cycles in a row before a warning.
    pub unwarned_cycles: u32,
}

impl Default for Reclamation {
    fn default() -> Self {
        Self {
            reclaim_wait_s: 10,
            flush_wait_s: 25,
            hold_s: 3600,
            leases_max: 100,
            cycle_ms_max: 250,
            unwarned_cycles: 5,
        }
    }
}

/// Whose expired leases are reclaimed here: all, unless the pair has ended and the other server may have prolonged some of which nobody
/// tells us any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaims {
    /// Those of clients in an even RFC 3074 bucket.
    pub even: bool,
    /// Those of clients in an odd one.
    pub odd: bool,
    /// Those without an identity (declined ones).
    pub nobody: bool,
}

impl Reclaims {
    /// Every lease.
    pub const ALL: Self = Self { even: true, odd: true, nobody: true };

    fn covers(self, lease: &Lease4<'_>) -> bool {
        let key = if lease.client_id.is_empty() { lease.hw_addr.as_bytes() } else { lease.client_id };
        match (key.is_empty(), bucket(key).is_multiple_of(2)) {
            (true, _) => self.nobody,
            (false, true) => self.even,
            (false, false) => self.odd,
        }
    }
}

/// Where a shard's cycles are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycles {
    /// When the cycle that runs began, and how many leases it has reclaimed.
    running: Option<(Mono, u32)>,
    next_reclaim: Mono,
    flushing: bool,
    next_flush: Mono,
    incomplete: u32,
    /// Cycles in a row that left work behind; for the warning.
    pub warn: bool,
}

impl Shard {
    /// One step of time's work: capped, to be called once per turn. True while there is more to do at once.
    pub fn pass_time(&mut self, serving: &Serving, now: Now, cycles: &mut Cycles) -> bool {
        let limits = serving.reclamation;
        let mut more = self.leases.recount_some(serving);
        more |= self.lend_expired(serving, now);
        if limits.reclaim_wait_s > 0 && now.mono >= cycles.next_reclaim {
            more |= self.reclaim_cycle(serving, now, limits, cycles);
        }
        if limits.flush_wait_s > 0 && (cycles.flushing || now.mono >= cycles.next_flush) {
            let left = self.flush_some(serving, now);
            cycles.flushing = left;
            if !left {
                cycles.next_flush = now.mono.plus_ms(u64::from(limits.flush_wait_s) * 1000);
            }
            more |= left;
        }
        more
    }

    /// Opens the addresses of leases whose time is over: whoever asks first may have them, reclaimed or not.
    pub(super) fn lend_expired(&mut self, serving: &Serving, now: Now) -> bool {
        if self.leases.ready().is_err() {
            return false;
        }
        let mut expired = [None; DUE_PER_TURN_MAX as usize];
        let mut count = 0;
        let more = self.leases.table.expire(now.wall_s, DUE_PER_TURN_MAX, &mut |due| {
            if let (Due::Expired(lease), Some(place)) = (due, expired.get_mut(count)) {
                *place = Some(lease);
                count += 1;
            }
        });
        for lease in expired.into_iter().flatten() {
            let Some(record) = self.leases.table.record_if_live(lease) else { continue };
            // A declined lease is held until it is reclaimed: its address comes back only then.
            if record.state() == LeaseState::Assigned && self.may_reclaim(serving, lease) {
                let lsn = record.pending_lsn();
                if self.leases.lend(lease, self.leases.log.appended().max(lsn)).is_err() {
                    break;
                }
            }
        }
        more
    }

    fn reclaim_cycle(
        &mut self,
        serving: &Serving,
        now: Now,
        limits: Reclamation,
        cycles: &mut Cycles,
    ) -> bool {
        let (began, mut done) = *cycles.running.get_or_insert((now.mono, 0));
        for _ in 0..WORK_PER_TURN_MAX {
            let over_count = limits.leases_max > 0 && done >= limits.leases_max;
            let over_time =
                limits.cycle_ms_max > 0 && now.mono.ms_since(began) >= u64::from(limits.cycle_ms_max);
            let full = over_count || over_time;
            let next = if full || self.leases.ready().is_err() {
                None
            } else {
                self.leases.table.next_to_reclaim(now.wall_s)
            };
            let Some(lease) = next else {
                cycles.incomplete = if full { cycles.incomplete + 1 } else { 0 };
                cycles.warn |= cycles.incomplete == limits.unwarned_cycles.saturating_add(1);
                cycles.running = None;
                cycles.next_reclaim = now.mono.plus_ms(u64::from(limits.reclaim_wait_s) * 1000);
                return false;
            };
            // One that is left alone comes round again in a minute.
            if self.may_reclaim(serving, lease) {
                self.reclaim(serving, lease, false);
                done += 1;
            }
        }
        cycles.running = Some((began, done));
        true
    }

    /// Whether an expired lease is ours to reclaim.
    pub(super) fn may_reclaim(&self, serving: &Serving, lease: LeaseRef) -> bool {
        if self.reclaims.iter().all(|reclaims| *reclaims == Reclaims::ALL) {
            return true;
        }
        let lease = self.leases.table.view(lease);
        let reclaims = match &*self.reclaims {
            [only] => Some(only),
            // A lease without a relationship is not left to anybody.
            several => serving
                .relationship_of_id(lease.subnet_id)
                .and_then(|index| several.get(usize::from(index.0))),
        };
        reclaims.is_none_or(|reclaims| reclaims.covers(&lease))
    }

    /// Reclaims one expired lease: declined ones go, the others are kept for affinity unless `remove`.
    pub(super) fn reclaim(&mut self, serving: &Serving, lease: LeaseRef, remove: bool) {
        let record = self.leases.table.record(lease);
        if record.is_loose() && !self.leases.space.refers_to(record.address(), self.leases.shard, lease) {
            self.leases.drop_stale(serving, lease);
            return;
        }
        let state = record.state();
        if self.leases.ready().is_err() {
            return;
        }
        self.leases.count_reclaimed(serving, lease);
        let keep = !remove && matches!(state, LeaseState::Assigned | LeaseState::Released);
        let done = if keep {
            self.leases.let_go(serving, lease, LetGo::Reclaim)
        } else {
            self.leases.delete(serving, lease, ChangeOrigin::Expiry)
        };
        if done == Err(DropReason::NoLease) {
            self.leases.drop_stale(serving, lease);
        }
        // Without room now the lease comes round again.
    }

    fn flush_some(&mut self, serving: &Serving, now: Now) -> bool {
        for _ in 0..WORK_PER_TURN_MAX {
            if self.leases.ready().is_err() {
                return false;
            }
            let Some(lease) = self.leases.table.next_to_flush(now.wall_s) else { return false };
            let record = self.leases.table.record(lease);
            if record.is_loose() && !self.leases.space.refers_to(record.address(), self.leases.shard, lease) {
                self.leases.drop_stale(serving, lease);
                continue;
            }
            if self.leases.delete(serving, lease, ChangeOrigin::Expiry).is_err() {
                return false;
            }
        }
        true
    }
}
