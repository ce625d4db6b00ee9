//! Queries that reach another shard than the one that owns their client, and cross over once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::ArrayQueue;

use super::{ShardLoop, room};
use crate::exchange::serving::Serving;
use crate::exchange::{Given, Outcome, RelationshipIndex, SubnetScope};
use crate::ids::ShardId;
use crate::net::{BATCH_MAX, FRAME_BYTES, Port, RxFrame};
use crate::server::pairs::classes_of;
use crate::time::Now;
use crate::wire::dhcp4;
use crate::wire::drop::DropReason;
use crate::wire::frame::{self, Arrival as FrameArrival};
use crate::wire::query::Query;

/// Queries that other shards may have waiting here.
pub const HAND_OVER_SLOTS: usize = 256;
/// Queries taken from other shards in one turn.
const HAND_OVER_PER_TURN: usize = 32;

/// A query on its way to the shard that owns its client.
pub struct HandOver {
    bytes: [u8; FRAME_BYTES],
    len: usize,
    /// What its port knew of it. Where it lay there is void.
    rx: RxFrame,
}

impl HandOver {
    /// Room for one query. Allocates.
    #[must_use]
    pub fn boxed() -> Box<Self> {
        Box::new(Self { bytes: [0; FRAME_BYTES], len: 0, rx: RxFrame::default() })
    }
}

/// One shard's end of handing over: empty carriers, and where to put full ones. Carriers go round; none is ever made or freed.
pub struct Crossing {
    /// Empty carriers, shared by all shards.
    pub spare: Arc<ArrayQueue<Box<HandOver>>>,
    /// Full ones for each shard, by number.
    pub inboxes: Vec<Arc<ArrayQueue<Box<HandOver>>>>,
    /// How to wake each shard, by number.
    pub bells: Vec<Arc<crate::net::Doorbell>>,
}

impl<P: Port> ShardLoop<P> {
    /// Serves queries that other shards have passed on.
    pub(super) fn take_over(&mut self, now: Now) -> bool {
        let inbox = Arc::clone(&self.crossing.inboxes[usize::from(self.id.0)]);
        let serving = Arc::clone(&self.serving);
        let mut busy = false;
        for _ in 0..HAND_OVER_PER_TURN {
            let Some(carrier) = inbox.pop() else { break };
            busy = true;
            self.serve_carrier(&serving, now, &carrier);
            // There is always room: as many carriers were made as there are places.
            let _ = self.crossing.spare.push(carrier);
        }
        busy
    }

    fn serve_carrier(&mut self, serving: &Serving, now: Now, carrier: &HandOver) {
        // Passed on before the service went off: a peer that copies our leases must have seen the last change by now.
        if !self.shared.enabled.load(Ordering::Relaxed) {
            return self.shard.counters.dropped(DropReason::ServiceDisabled);
        }
        let bytes = &carrier.bytes[..carrier.len];
        let arrival = FrameArrival {
            tag_stripped: false,
            checksum_not_ready: !carrier.rx.flags.checksum_is_unverified(),
        };
        let Ok(datagram) = frame::parse(bytes, arrival) else { return };
        let (slot, payload) = (BATCH_MAX, datagram.payload(bytes));
        let parsed = &mut self.parsed[slot];
        let strict = serving.plan.globals.strictness();
        let Ok(head) = dhcp4::parse_with(payload, &mut parsed.options, strict) else { return };
        let Ok(query) = Query::new(&datagram, payload, &parsed.options, head, carrier.rx.interface) else {
            return;
        };
        let Some(arrival) = serving.arrival(carrier.rx.interface) else { return };
        if let Err(reason) = room(&self.park, self.pairs.gate(), head.message_type) {
            return self.shard.counters.dropped(reason);
        }
        let decision = self.pairs.decide(&query);
        if !decision.in_scope {
            return self.shard.counters.dropped(DropReason::HaNotForUs);
        }
        let Some(out) = self.slab.take() else {
            return self.shard.counters.dropped(DropReason::FramesGone);
        };
        let late = self.pairs.late(serving);
        let given = Given {
            now,
            came_ns: carrier.rx.wall_ns,
            arrival,
            scope_classes: classes_of(serving, RelationshipIndex(0), decision),
            by_subnet: late.as_ref().map(|late| late as &dyn SubnetScope),
            handed_over: true,
            key_hash: None,
        };
        let outcome = self.shard.process(serving, &given, &query, self.slab.bytes_mut(&out));
        if let Outcome::Drop(reason) = outcome {
            self.sampler.query(reason, now.wall_s, &query);
        }
        if let Outcome::HandOver(shard) = outcome {
            // Once more, from the owner of the client to who has its lease.
            self.slab.put(out);
            let handed = hand_over(&self.crossing, shard, bytes, &carrier.rx);
            return self.shard.counters.handed_over(handed);
        }
        self.act(outcome, out, carrier.rx.interface);
    }
}

/// Passes a query on to the shard that owns its client.
pub(super) fn hand_over(
    crossing: &Crossing,
    shard: ShardId,
    bytes: &[u8],
    rx: &RxFrame,
) -> Result<(), DropReason> {
    let to = usize::from(shard.0);
    let Some(inbox) = crossing.inboxes.get(to) else { return Err(DropReason::HandOverFull) };
    let Some(mut carrier) = crossing.spare.pop() else { return Err(DropReason::HandOverFull) };
    let fits = bytes.len() <= FRAME_BYTES;
    if fits {
        carrier.bytes[..bytes.len()].copy_from_slice(bytes);
        carrier.len = bytes.len();
        carrier.rx = *rx;
        match inbox.push(carrier) {
            Ok(()) => {
                if let Some(bell) = crossing.bells.get(to) {
                    bell.ring();
                }
                return Ok(());
            }
            Err(back) => carrier = back,
        }
    }
    let _ = crossing.spare.push(carrier);
    Err(DropReason::HandOverFull)
}
