//! One batch: received, chosen when there is too much, parsed, decided; each stage over all of it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hand_over::hand_over;
use super::{ShardLoop, room};
use crate::config::plan::SubnetIndex;
use crate::exchange::serving::Serving;
use crate::exchange::{Given, Outcome, RelationshipIndex, Shard, SubnetScope};
use crate::lease::table::KeyHash;
use crate::net::{BATCH_MAX, Port, PortSet, RxFrame, WINDOW_MAX};
use crate::server::admission::{Glance, PATIENCE_NS, Shed};
use crate::server::pairs::classes_of;
use crate::time::Now;
use crate::wire::codes::MessageType;
use crate::wire::dhcp4::{self, Head, Packet};
use crate::wire::drop::DropReason;
use crate::wire::frame::{self, Arrival as FrameArrival, Datagram};
use crate::wire::option::OptionTable;
use crate::wire::query::Query;

/// A packet that waited longer is shed: its client has asked again or soon will.
const STALE_NS: u64 = 1_000_000_000;
/// With so many subnets what the plan knows of each does not stay near the processor.
const SUBNETS_FAR: usize = 256;
/// How many queries before a query is decided what the plan has for it begins to be loaded, and then what that leads to. A whole batch at
/// once would be more than the processor fetches at a time, and part of it gone again before its turn.
const PLAN_AHEAD: usize = 12;
const SUBNET_AHEAD: usize = 6;

/// A packet of the batch after parsing.
pub(super) struct Parsed {
    pub(super) datagram: Datagram,
    pub(super) options: OptionTable,
    pub(super) head: Head,
    /// The relay that it came through.
    pub(super) relay: Option<Ipv4Addr>,
    /// The subnet that it most likely starts in, as far as that was looked for.
    pub(super) likely: Option<SubnetIndex>,
    pub(super) state: Stage,
}

#[derive(Clone, Copy)]
pub(super) enum Stage {
    Dropped,
    Ready(KeyHash),
}

impl<P: Port> ShardLoop<P> {
    /// Receives one batch and does everything for it.
    pub(super) fn receive(&mut self, now: Now, wall_ns: u64) -> bool {
        let mut count = self.ports.recv(&mut self.rx);
        self.pace.heard(now.mono, count);
        if count == 0 {
            return false;
        }
        self.heard = true;
        self.shard.counters.batch();
        let is_full = count == BATCH_MAX;
        let arrivals = self.rx.frames().iter().map(|frame| frame.wall_ns).filter(|wall_ns| *wall_ns != 0);
        let oldest_age_ns = arrivals.min().map_or(0, |oldest_ns| wall_ns.saturating_sub(oldest_ns));
        let is_behind = self.admission.is_behind(is_full, oldest_age_ns, wall_ns);
        if self.admission.is_overloaded(is_full && self.ports.is_crowded()) {
            count = self.choose();
        }
        let serving = Arc::clone(&self.serving);
        let enabled = self.shared.enabled.load(Ordering::Relaxed);
        for index in 0..count {
            self.parse(index, wall_ns, enabled, is_behind);
        }
        if is_full {
            self.shed_duplicates(count);
        }
        for index in 0..count {
            if let Stage::Ready(hash) = self.parsed[index].state {
                let is_known = self.shard.leases.table.prefetch_record(hash);
                if !is_known {
                    self.prefetch_unknown(index, hash);
                }
            }
        }
        let is_far = serving.plan.subnets.len() >= SUBNETS_FAR;
        if is_far {
            (0..PLAN_AHEAD).for_each(|index| self.prefetch_plan(&serving, index, count));
        }
        for index in 0..count {
            if is_far {
                self.prefetch_plan(&serving, index + PLAN_AHEAD, count);
            }
            if let Stage::Ready(hash) = self.parsed[index].state {
                self.decide(&serving, now, index, hash);
                self.shard.leases.table.scout();
            }
        }
        self.ports.recycle(&mut self.rx);
        true
    }

    /// Chooses the batch among all that waits, if that makes a difference; how many frames it has.
    fn choose(&mut self) -> usize {
        let Self { ports, rx, admission, glances, shard, .. } = self;
        if !admission.is_mixed(rx.frames().iter().map(|frame| glance(ports, frame))) {
            return rx.len();
        }
        let count = ports.widen(rx);
        for (place, frame) in glances.iter_mut().zip(rx.frames()) {
            *place = glance(ports, frame);
        }
        let mut chosen = [false; WINDOW_MAX];
        admission.choose(&glances[..count], &mut chosen, |_, shed| {
            shard.counters.received();
            shard.counters.dropped(match shed {
                Shed::Discover => DropReason::ShedDiscover,
                Shed::Share => DropReason::ShedUnfair,
            });
        });
        rx.keep(&chosen);
        rx.len()
    }

    /// Parses frame `index` of the batch and starts loading its client's bucket.
    #[inline(always)]
    fn parse(&mut self, index: usize, wall_ns: u64, enabled: bool, is_behind: bool) {
        let rx = self.rx.frames()[index];
        let bytes = self.ports.bytes(&rx);
        let parsed = &mut self.parsed[index];
        parsed.state = Stage::Dropped;
        let counters = &self.shard.counters;
        let age_ns = if rx.wall_ns == 0 { 0 } else { wall_ns.saturating_sub(rx.wall_ns) };
        // Before anything is spent on it.
        if age_ns > STALE_NS {
            counters.received();
            return counters.dropped(DropReason::ShedStale);
        }
        if is_behind && age_ns >= PATIENCE_NS && Glance::at(bytes, 0).is_discover {
            counters.received();
            return counters.dropped(DropReason::ShedDiscover);
        }
        let arrival =
            FrameArrival { tag_stripped: false, checksum_not_ready: !rx.flags.checksum_is_unverified() };
        match frame::parse(bytes, arrival) {
            Ok(datagram) => parsed.datagram = datagram,
            Err(reason) => return counters.dropped(reason),
        }
        let payload = parsed.datagram.payload(bytes);
        if payload.len() < dhcp4::FIXED_BYTES {
            // No DHCP message at all: Kea does not count it as received either.
            return counters.dropped(DropReason::FrameShort);
        }
        counters.received();
        if !enabled {
            return counters.dropped(DropReason::ServiceDisabled);
        }
        match dhcp4::parse_with(payload, &mut parsed.options, self.serving.plan.globals.strictness()) {
            Ok(head) => parsed.head = head,
            Err(reason) => {
                self.sampler.message(reason, wall_ns / 1_000_000_000, payload);
                return counters.dropped(reason);
            }
        }
        counters.received_type(parsed.head.message_type);
        let Ok(query) = Query::new(&parsed.datagram, payload, &parsed.options, parsed.head, rx.interface)
        else {
            return counters.dropped(DropReason::ParseShort);
        };
        parsed.relay = Some(query.packet.giaddr()).filter(|_| query.is_relayed());
        if self.serving.plan.subnets.len() >= SUBNETS_FAR
            && let Some(relay) = parsed.relay
        {
            Shard::prefetch_relay(&self.serving, relay);
        }
        parsed.state = Stage::Ready(self.shard.prefetch(&query));
    }

    /// Starts loading what is looked at for the client of packet `index`, which has no lease.
    fn prefetch_unknown(&self, index: usize, hash: KeyHash) {
        let payload = self.parsed[index].datagram.payload(self.ports.bytes(&self.rx.frames()[index]));
        if let Ok(packet) = Packet::new_checked(payload) {
            self.shard.prefetch_unknown(&packet.hw_addr(), hash);
        }
    }

    /// Starts loading what the plan of a large configuration has for query `index` of `count`, and what that leads to for an earlier one.
    fn prefetch_plan(&mut self, serving: &Serving, index: usize, count: usize) {
        if index < count {
            let parsed = &mut self.parsed[index];
            parsed.likely = match (parsed.state, parsed.relay) {
                (Stage::Ready(_), Some(relay)) => {
                    self.shard.prefetch_plan(serving, relay, parsed.head.message_type)
                }
                _ => None,
            };
        }
        if let Some(earlier) = index.checked_sub(PLAN_AHEAD - SUBNET_AHEAD)
            && earlier < count
            && let Some(subnet) = self.parsed[earlier].likely
        {
            Shard::prefetch_subnet(serving, subnet);
        }
    }

    /// Of several packets of one client in a full batch only the newest is served.
    fn shed_duplicates(&mut self, count: usize) {
        // Open addressing over positions of the batch, counted from one, the newest packet first: never full.
        let mut seen = [0_u8; 4 * BATCH_MAX];
        for index in (0..count).rev() {
            let Stage::Ready(hash) = self.parsed[index].state else { continue };
            let kind = self.parsed[index].head.message_type;
            if !matches!(kind, Some(MessageType::Discover | MessageType::Request)) {
                continue;
            }
            let mut place = usize::try_from(hash.bits() >> 32).unwrap_or_default() % seen.len();
            while let Some(newer) = usize::from(seen[place]).checked_sub(1) {
                let newer = &self.parsed[newer];
                if matches!(newer.state, Stage::Ready(other) if other == hash)
                    && newer.head.message_type == kind
                {
                    break;
                }
                place = (place + 1) % seen.len();
            }
            if seen[place] == 0 {
                seen[place] = u8::try_from(index + 1).expect("a batch is small");
            } else {
                self.parsed[index].state = Stage::Dropped;
                self.shard.counters.dropped(DropReason::ShedDuplicate);
            }
        }
    }

    /// Decides packet `index` of the batch.
    #[inline(always)]
    fn decide(&mut self, serving: &Serving, now: Now, index: usize, hash: KeyHash) {
        let rx = self.rx.frames()[index];
        let Some(arrival) = serving.arrival(rx.interface) else {
            return self.shard.counters.dropped(DropReason::FrameAddress);
        };
        if let Err(reason) = room(&self.park, self.pairs.gate(), self.parsed[index].head.message_type) {
            let parsed = &self.parsed[index];
            self.sampler.message(reason, now.wall_s, parsed.datagram.payload(self.ports.bytes(&rx)));
            return self.shard.counters.dropped(reason);
        }
        let Some(out) = self.slab.take() else {
            self.sampler.message(DropReason::FramesGone, now.wall_s, &[]);
            return self.shard.counters.dropped(DropReason::FramesGone);
        };
        let bytes = self.ports.bytes(&rx);
        let parsed = &self.parsed[index];
        let payload = parsed.datagram.payload(bytes);
        let Ok(packet) = Packet::new_checked(payload) else {
            self.slab.put(out);
            return self.shard.counters.dropped(DropReason::ParseShort);
        };
        let query = Query {
            datagram: &parsed.datagram,
            packet,
            options: &parsed.options,
            message_type: parsed.head.message_type,
            interface: rx.interface,
            recovered_relay: &[],
            replaced_client_id: &[],
        };
        let decision = self.pairs.decide(&query);
        if !decision.in_scope {
            if decision.analyse {
                self.pairs.analyse(RelationshipIndex(0), &query);
            }
            self.slab.put(out);
            return self.shard.counters.dropped(DropReason::HaNotForUs);
        }
        let late = self.pairs.late(serving);
        let given = Given {
            now,
            came_ns: rx.wall_ns,
            arrival,
            scope_classes: classes_of(serving, RelationshipIndex(0), decision),
            by_subnet: late.as_ref().map(|late| late as &dyn SubnetScope),
            handed_over: false,
            key_hash: Some(hash),
        };
        let outcome = self.shard.process(serving, &given, &query, self.slab.bytes_mut(&out));
        if let Some(relationship) = late.and_then(|late| late.unanswered()) {
            self.pairs.analyse(relationship, &query);
        }
        if let Outcome::Drop(reason) = outcome {
            self.sampler.query(reason, now.wall_s, &query);
        }
        if let Outcome::HandOver(shard) = outcome {
            self.slab.put(out);
            let handed = hand_over(&self.crossing, shard, bytes, &rx);
            return self.shard.counters.handed_over(handed);
        }
        self.act(outcome, out, rx.interface);
    }
}

/// What is seen of a frame before it is parsed.
fn glance<P: Port>(ports: &PortSet<P>, frame: &RxFrame) -> Glance {
    Glance::at(ports.bytes(frame), frame.interface.0)
}
