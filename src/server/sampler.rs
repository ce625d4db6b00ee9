//! Which dropped packets are told of: the first of each reason in each second and shard. The rest is in the counters.
//!
//! Promises: no allocation, no lock, no wait; a reason that was told of in this second costs a look at one bit.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::control::log::{Sample, SampleQueue, Severity};
use crate::ids::HwAddr;
use crate::wire::Query;
use crate::wire::dhcp4::Packet;
use crate::wire::drop::{DropKind, DropReason};

/// Samples that wait for the control thread: several seconds of all reasons.
pub const SAMPLES_MAX: usize = 1024;
/// Where Kea writes the same of packets.
const DEBUG_LEVEL: u8 = 15;

/// One shard's choice.
#[derive(Debug)]
pub(super) struct Sampler {
    queue: Arc<SampleQueue>,
    second: u64,
    told: [u64; DropReason::COUNT.div_ceil(64)],
}

impl Sampler {
    pub(super) const fn new(queue: Arc<SampleQueue>) -> Self {
        Self { queue, second: 0, told: [0; DropReason::COUNT.div_ceil(64)] }
    }

    /// Tells of a query that is not answered.
    pub(super) fn query(&mut self, reason: DropReason, wall_s: u64, query: &Query<'_>) {
        if self.is_due(reason, wall_s) {
            let ciaddr = query.packet.ciaddr();
            let address = query.requested_address().unwrap_or(ciaddr);
            self.tell(reason, query.hw_addr(), query.packet.xid(), address);
        }
    }

    /// Tells of a message that could not be parsed, as far as it can be read.
    pub(super) fn message(&mut self, reason: DropReason, wall_s: u64, payload: &[u8]) {
        if self.is_due(reason, wall_s) {
            let packet = Packet::new_checked(payload).ok();
            let hw_addr = packet.and_then(|packet| HwAddr::new(packet.htype(), packet.chaddr()));
            let xid = packet.map_or(0, |packet| packet.xid());
            self.tell(reason, hw_addr.unwrap_or(HwAddr::ethernet([0; 6])), xid, Ipv4Addr::UNSPECIFIED);
        }
    }

    fn is_due(&mut self, reason: DropReason, wall_s: u64) -> bool {
        if std::mem::replace(&mut self.second, wall_s) != wall_s {
            self.told.fill(0);
        }
        let (word, bit) = (reason.index() / 64, 1 << (reason.index() % 64));
        let due = self.told[word] & bit == 0 && reason != DropReason::NoAnswer;
        self.told[word] |= bit;
        due
    }

    fn tell(&self, reason: DropReason, hw_addr: HwAddr, xid: u32, address: Ipv4Addr) {
        let (severity, logger) = importance(reason);
        let (id, text) = (reason.message_id(), reason.help());
        self.queue.offer(Sample { severity, logger, id, text, hw_addr, xid, address });
    }
}

/// How much a drop matters to an operator, and whose business it is. What clients do wrong, or what other servers serve, is
/// for whoever looks closely, as in Kea; what clients miss because this server is at a limit is a warning.
const fn importance(reason: DropReason) -> (Severity, &'static str) {
    match (reason, reason.kind()) {
        (DropReason::NoLease, _) => (Severity::Warn, "kea-dhcp4.alloc-engine"),
        (DropReason::ParkCancelled, _) => (Severity::Debug(DEBUG_LEVEL), "kea-dhcp4.packets"),
        (DropReason::ProcessingFailed, _) => (Severity::Error, "kea-dhcp4.bad-packets"),
        (
            DropReason::QueueFull
            | DropReason::ShedStale
            | DropReason::ShedUnfair
            | DropReason::ShedDiscover
            | DropReason::HandOverFull
            | DropReason::LimitExceeded,
            _,
        )
        | (_, DropKind::Withheld) => (Severity::Warn, "kea-dhcp4.packets"),
        (_, DropKind::Frame | DropKind::Refused) => (Severity::Debug(DEBUG_LEVEL), "kea-dhcp4.bad-packets"),
        (_, DropKind::Silent) => (Severity::Debug(DEBUG_LEVEL), "kea-dhcp4.packets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_of_once_a_second() {
        let queue = Arc::new(SampleQueue::new(SAMPLES_MAX));
        let mut sampler = Sampler::new(Arc::clone(&queue));
        let mut message = [0; 240];
        message[1..3].copy_from_slice(&[1, 6]);
        message[4..8].copy_from_slice(&[0, 0, 0, 9]);
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        for second in [7, 7, 7, 8] {
            sampler.message(DropReason::ParseCookie, second, &message);
            sampler.message(DropReason::NoLease, second, &[]);
            sampler.message(DropReason::NoAnswer, second, &message);
        }
        let told: Vec<Sample> = std::iter::from_fn(|| queue.take()).collect();
        let ids: Vec<&str> = told.iter().map(|sample| sample.id).collect();
        let each = ["DHCP4_PACKET_DROP_0001", "ALLOC_ENGINE_V4_ALLOC_FAIL"];
        assert_eq!(ids, [each, each].concat());
        assert_eq!((told[0].hw_addr, told[0].xid), (HwAddr::ethernet([2, 0, 0, 0, 0, 1]), 9));
        assert_eq!((told[0].severity, told[1].severity), (Severity::Debug(DEBUG_LEVEL), Severity::Warn));
    }
}
