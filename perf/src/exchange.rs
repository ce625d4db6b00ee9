//! Exchanges under way: one slot each, named by the `xid`, and the wheel of their deadlines.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Bits of an `xid` that name the slot; the rest counts how often it was used, so that late replies to an old exchange are told
/// apart.
const SLOT_BITS: u32 = 22;
/// Most exchanges under way at a time.
pub(crate) const EXCHANGES_MAX: u32 = 1 << SLOT_BITS;
/// So many slots rest before one is used again, where there may be so many: else an `xid` would come again before its last deadline is over.
const RESTING_MIN: usize = 4096;
const TICK_NS: u64 = 4_000_000;
const TICKS: usize = 1 << 14;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// DISCOVER, OFFER, REQUEST, ACK.
    Dora,
    /// DISCOVER, OFFER.
    Discover,
    /// REQUEST with the address in use, ACK.
    Renew,
    /// RELEASE, which nobody answers.
    Release,
    /// Any frame back.
    Reflect,
}

impl Goal {
    pub(crate) const ALL: [Self; 5] = [Self::Dora, Self::Discover, Self::Renew, Self::Release, Self::Reflect];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dora => "dora",
            Self::Discover => "discover",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Reflect => "reflect",
        }
    }
}

/// An exchange under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) client: u32,
    pub(crate) goal: Goal,
    /// Waiting for the answer to a REQUEST rather than to a DISCOVER.
    pub(crate) requesting: bool,
    /// Messages sent in this phase.
    pub(crate) attempts: u8,
    in_use: bool,
    uses: u16,
    /// When it should have begun.
    pub(crate) due_ns: u64,
    /// When the first message of this phase left.
    pub(crate) phase_ns: u64,
    /// When the next step is due if no answer comes.
    pub(crate) deadline_ns: u64,
    pub(crate) offered: Ipv4Addr,
    pub(crate) server_id: Ipv4Addr,
}

/// All exchanges under way.
#[derive(Debug)]
pub(crate) struct Exchanges {
    slots: Vec<Exchange>,
    free: VecDeque<u32>,
    limit: u32,
    /// The `xid`s of exchanges by the tick at which to look at them; those that have ended are still there and skipped.
    wheel: Vec<Vec<u32>>,
    /// The next tick to be looked at.
    tick: u64,
}

impl Exchanges {
    pub(crate) fn new(limit: u32, now_ns: u64) -> Self {
        let mut wheel = Vec::new();
        wheel.resize_with(TICKS, Vec::new);
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
            limit: limit.min(EXCHANGES_MAX),
            wheel,
            tick: now_ns / TICK_NS,
        }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).expect("at most EXCHANGES_MAX")
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// A new exchange's slot and `xid`, or nothing when there are as many as may be.
    pub(crate) fn start(&mut self, client: u32, goal: Goal, due_ns: u64, now_ns: u64) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let fresh = Exchange {
            client,
            goal,
            requesting: matches!(goal, Goal::Renew),
            attempts: 0,
            in_use: true,
            uses: 0,
            due_ns,
            phase_ns: now_ns,
            deadline_ns: now_ns,
            offered: Ipv4Addr::UNSPECIFIED,
            server_id: Ipv4Addr::UNSPECIFIED,
        };
        let may_grow = self.slots.len() < index(self.limit);
        if (self.free.len() > RESTING_MIN || !may_grow)
            && let Some(slot) = self.free.pop_front()
        {
            let old = &mut self.slots[index(slot)];
            *old = Exchange { uses: old.uses.wrapping_add(1), ..fresh };
            return Some(slot);
        }
        self.slots.push(fresh);
        Some(u32::try_from(self.slots.len() - 1).expect("below the limit"))
    }

    pub(crate) fn xid(&self, slot: u32) -> u32 {
        (u32::from(self.slots[index(slot)].uses) << SLOT_BITS) | slot
    }

    /// The slot that an `xid` names, if that exchange is still under way.
    pub(crate) fn slot(&self, xid: u32) -> Option<u32> {
        let slot = xid & (EXCHANGES_MAX - 1);
        let exchange = self.slots.get(index(slot))?;
        (exchange.in_use && self.xid(slot) == xid).then_some(slot)
    }

    pub(crate) fn at(&self, slot: u32) -> &Exchange {
        &self.slots[index(slot)]
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Exchange {
        &mut self.slots[index(slot)]
    }

    /// Ends an exchange.
    pub(crate) fn end(&mut self, slot: u32) {
        self.slots[index(slot)].in_use = false;
        self.free.push_back(slot);
    }

    /// Puts a slot on the wheel for its deadline. Once per exchange is enough: a deadline that has moved on is put again.
    pub(crate) fn watch(&mut self, slot: u32) {
        let due = self.slots[index(slot)].deadline_ns / TICK_NS + 1;
        let ahead = due.saturating_sub(self.tick).clamp(1, TICKS as u64 - 1);
        let xid = self.xid(slot);
        self.wheel[Self::spoke(self.tick + ahead)].push(xid);
    }

    /// Slots whose deadline may have passed; those that have not are put back here. `late` gets the others.
    pub(crate) fn expire(&mut self, now_ns: u64, late: &mut Vec<u32>) {
        while (self.tick + 1) * TICK_NS <= now_ns {
            self.tick += 1;
            let mut spoke = std::mem::take(&mut self.wheel[Self::spoke(self.tick)]);
            for xid in spoke.drain(..) {
                let Some(slot) = self.slot(xid) else { continue };
                if self.slots[index(slot)].deadline_ns <= now_ns {
                    late.push(slot);
                    // Told once, also when an exchange before it of the same `xid` has left its deadline here.
                    self.slots[index(slot)].deadline_ns = u64::MAX;
                } else {
                    self.watch(slot);
                }
            }
            let place = &mut self.wheel[Self::spoke(self.tick)];
            if place.is_empty() {
                *place = spoke;
            }
        }
    }

    /// All exchanges under way.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.slots).filter(|(_, exchange)| exchange.in_use).map(|(slot, _)| slot)
    }

    fn spoke(tick: u64) -> usize {
        usize::try_from(tick % TICKS as u64).expect("below TICKS")
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).expect("32 bits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn late_reply_to_an_old_exchange_names_no_new_one() {
        let mut exchanges = Exchanges::new(1, 0);
        let first = exchanges.start(1, Goal::Dora, 0, 0).expect("room");
        let xid = exchanges.xid(first);
        assert_eq!(exchanges.slot(xid), Some(first));
        exchanges.end(first);
        assert_eq!(exchanges.slot(xid), None);
        let second = exchanges.start(2, Goal::Dora, 0, 0).expect("room");
        assert_eq!((second, exchanges.slot(xid)), (first, None), "the same slot, another xid");
    }

    #[test]
    fn exchange_is_late_once_however_often_its_slot_was_used_before() {
        let mut exchanges = Exchanges::new(1, 0);
        let mut last = None;
        for _ in 0..5000 {
            if let Some(slot) = last {
                exchanges.end(slot);
            }
            let slot = exchanges.start(1, Goal::Dora, 0, 0).expect("room");
            exchanges.at_mut(slot).deadline_ns = 100 * MS;
            exchanges.watch(slot);
            last = Some(slot);
        }
        let mut late = Vec::new();
        exchanges.expire(200 * MS, &mut late);
        assert_eq!(late, [last.expect("one")]);
    }

    #[test]
    fn limit_holds() {
        let mut exchanges = Exchanges::new(2, 0);
        assert!(exchanges.start(1, Goal::Dora, 0, 0).is_some());
        assert!(exchanges.start(2, Goal::Dora, 0, 0).is_some());
        assert_eq!((exchanges.start(3, Goal::Dora, 0, 0), exchanges.len()), (None, 2));
    }

    #[test]
    fn deadline_is_told_once_it_has_passed_and_not_before() {
        let mut exchanges = Exchanges::new(8, 0);
        let slot = exchanges.start(1, Goal::Dora, 0, 0).expect("room");
        exchanges.at_mut(slot).deadline_ns = 100 * MS;
        exchanges.watch(slot);
        let mut late = Vec::new();
        exchanges.expire(99 * MS, &mut late);
        assert!(late.is_empty());
        exchanges.at_mut(slot).deadline_ns = 300_000 * MS;
        exchanges.expire(299_000 * MS, &mut late);
        assert!(late.is_empty(), "it moved on, beyond one turn of the wheel");
        exchanges.expire(300_010 * MS, &mut late);
        assert_eq!(late, [slot]);
    }
}
