//! The statistics of a running server, gathered from shards, subnets and pools.

use std::sync::atomic::Ordering;

use super::Desk;
use crate::config::plan::SubnetIndex;
use crate::control::statistics::{
    PoolCounter, PortCounter, ServerCounter, Snapshot, SubnetCounter, SubnetSample,
};
use crate::exchange::stats::{INTERFACES_COUNTED, LeaseStats};
use crate::wire::codes::MessageType;
use crate::wire::drop::{DropKind, DropReason};

impl Desk {
    /// Reads every counter.
    pub(super) fn read_statistics(&self, into: &mut Snapshot) {
        let serving = self.engine.serving();
        let server = &mut into.server;
        *server = [0; ServerCounter::COUNT];
        into.drops = [0; DropReason::COUNT];
        into.ports = [0; PortCounter::COUNT];
        into.interfaces.clear();
        for shard in &self.engine.shards {
            let counters = &shard.counters;
            let mut add = |counter: ServerCounter, value: u64| server[counter.index()] += value;
            add(ServerCounter::Received, counters.received_count());
            for (kind, counter) in [
                (MessageType::Discover, ServerCounter::DiscoverReceived),
                (MessageType::Offer, ServerCounter::OfferReceived),
                (MessageType::Request, ServerCounter::RequestReceived),
                (MessageType::Ack, ServerCounter::AckReceived),
                (MessageType::Nak, ServerCounter::NakReceived),
                (MessageType::Release, ServerCounter::ReleaseReceived),
                (MessageType::Decline, ServerCounter::DeclineReceived),
                (MessageType::Inform, ServerCounter::InformReceived),
                (MessageType::LeaseQuery, ServerCounter::LeaseQueryReceived),
            ] {
                add(counter, counters.received_type_count(Some(kind)));
            }
            add(ServerCounter::UnknownReceived, counters.received_type_count(None));
            for number in MessageType::ForceRenew.number()..=u8::MAX {
                let kind = MessageType::from_number(number).filter(|kind| *kind != MessageType::LeaseQuery);
                if kind.is_some() {
                    // No client sends these to a server.
                    add(ServerCounter::UnknownReceived, counters.received_type_count(kind));
                }
            }
            add(ServerCounter::Sent, counters.sent_count());
            for (kind, counter) in [
                (MessageType::Offer, ServerCounter::OfferSent),
                (MessageType::Ack, ServerCounter::AckSent),
                (MessageType::Nak, ServerCounter::NakSent),
            ] {
                add(counter, counters.sent_type_count(kind));
            }
            for &reason in DropReason::ALL {
                let count = counters.drop_count(reason);
                into.drops[reason.index()] += count;
                if reason.kind() == DropKind::Refused {
                    add(ServerCounter::ReceiveDrop, count);
                }
                let known = reason.statistic().and_then(|name| {
                    ServerCounter::ALL.iter().copied().find(|counter| counter.name() == name)
                });
                if let Some(counter) = known {
                    add(counter, count);
                }
            }
        }
        for row in 0..INTERFACES_COUNTED {
            let mut counts = [0; PortCounter::COUNT];
            for (position, value) in counts.iter_mut().enumerate() {
                *value =
                    self.engine.shards.iter().map(|shard| shard.counters.port_count(row, position)).sum();
            }
            for (total, value) in into.ports.iter_mut().zip(counts) {
                *total += value;
            }
            // The last row is of no interface alone.
            let interface = serving.plan.interfaces.get(row).filter(|_| row < INTERFACES_COUNTED - 1);
            if let Some(interface) = interface.filter(|_| counts.iter().any(|count| *count > 0)) {
                into.interfaces.push((interface.name.to_string(), counts));
            }
        }
        let totals = subnet_values(&self.engine.book.totals, 0);
        for (from, to) in [
            (SubnetCounter::Assigned, ServerCounter::Assigned),
            (SubnetCounter::CumulativeAssigned, ServerCounter::CumulativeAssigned),
            (SubnetCounter::Declined, ServerCounter::Declined),
            (SubnetCounter::Reclaimed, ServerCounter::Reclaimed),
            (SubnetCounter::ReclaimedDeclined, ServerCounter::ReclaimedDeclined),
            (SubnetCounter::AllocationFail, ServerCounter::AllocationFail),
            (SubnetCounter::AllocationFailSharedNetwork, ServerCounter::AllocationFailSharedNetwork),
            (SubnetCounter::AllocationFailSubnet, ServerCounter::AllocationFailSubnet),
            (SubnetCounter::AllocationFailNoPools, ServerCounter::AllocationFailNoPools),
            (SubnetCounter::AllocationFailClasses, ServerCounter::AllocationFailClasses),
            (SubnetCounter::LeaseReuses, ServerCounter::LeaseReuses),
            (SubnetCounter::ReservationConflicts, ServerCounter::ReservationConflicts),
        ] {
            server[to.index()] = totals[from.index()];
        }
        into.subnets.clear();
        let plan = &serving.plan;
        for (position, subnet) in plan.subnets.iter().enumerate() {
            let index = SubnetIndex(u32::try_from(position).unwrap_or(u32::MAX));
            let mut pools: Vec<(u32, [u64; PoolCounter::COUNT])> = Vec::new();
            for (offset, pool) in plan.pools_of(index).iter().enumerate() {
                if let Some((_, values)) = pools.iter_mut().find(|(id, _)| *id == pool.pool_id) {
                    values[PoolCounter::Total.index()] += pool.capacity();
                    continue;
                }
                let place = subnet.pools.start + u32::try_from(offset).unwrap_or(0);
                let of =
                    subnet_values(serving.pool_stats(crate::config::plan::PoolIndex(place)), pool.capacity());
                let mut values = [0; PoolCounter::COUNT];
                for counter in PoolCounter::ALL {
                    let from = SubnetCounter::ALL.iter().find(|other| other.name() == counter.name());
                    values[counter.index()] = from.map_or(0, |from| of[from.index()]);
                }
                pools.push((pool.pool_id, values));
            }
            let values = subnet_values(serving.subnet_stats(index), serving.plan.pool_addresses(index));
            into.subnets.push(SubnetSample { id: subnet.id, values, pools });
        }
    }
}

fn set(array: &mut [u64], index: usize, value: i64) {
    array[index] = u64::try_from(value).unwrap_or(0);
}

fn subnet_values(stats: &LeaseStats, total: u64) -> [u64; SubnetCounter::COUNT] {
    let read = |counter: &std::sync::atomic::AtomicI64| counter.load(Ordering::Relaxed);
    let mut values = [0; SubnetCounter::COUNT];
    values[SubnetCounter::Total.index()] = total;
    set(&mut values, SubnetCounter::Assigned.index(), read(&stats.assigned));
    set(&mut values, SubnetCounter::CumulativeAssigned.index(), read(&stats.cumulative_assigned));
    set(&mut values, SubnetCounter::Declined.index(), read(&stats.declined));
    set(&mut values, SubnetCounter::Reclaimed.index(), read(&stats.reclaimed));
    set(&mut values, SubnetCounter::ReclaimedDeclined.index(), read(&stats.reclaimed_declined));
    set(&mut values, SubnetCounter::AllocationFail.index(), read(&stats.fail));
    set(&mut values, SubnetCounter::AllocationFailSharedNetwork.index(), read(&stats.fail_shared_network));
    set(&mut values, SubnetCounter::AllocationFailSubnet.index(), read(&stats.fail_subnet));
    set(&mut values, SubnetCounter::AllocationFailNoPools.index(), read(&stats.fail_no_pools));
    set(&mut values, SubnetCounter::AllocationFailClasses.index(), read(&stats.fail_classes));
    set(&mut values, SubnetCounter::LeaseReuses.index(), read(&stats.reuses));
    set(&mut values, SubnetCounter::ReservationConflicts.index(), read(&stats.reservation_conflicts));
    values
}
