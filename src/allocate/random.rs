//! In a random order that comes to every address before it repeats one.

use std::net::Ipv4Addr;

use super::permutation::Permutation;
use super::{Layout, PoolRange, Start, scan_from};
use crate::lease::address::AddressSpace;

/// Candidates of the order that a pick tries before it takes the nearest available address above the last of them.
const TRIES: u32 = 8;

#[derive(Debug)]
pub(super) struct Random {
    layout: Layout,
    order: Permutation,
    next: u64,
}

impl Random {
    pub(super) fn new(pools: &[PoolRange], start: Start) -> Self {
        let layout = Layout::new(pools);
        let order = Permutation::new(layout.len(), start.seed);
        let next = start.within(layout.len());
        Self { layout, order, next }
    }

    pub(super) fn pick(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        allowed: &impl Fn(usize) -> bool,
    ) -> Option<(usize, Ipv4Addr)> {
        let mut place = (0, pools.first()?.first);
        for _ in 0..TRIES {
            place = self.layout.place(pools, self.order.at(self.next));
            self.next = (self.next + 1) % self.layout.len();
            if allowed(place.0) && space.is_available(place.1) {
                return Some(place);
            }
        }
        scan_from(pools, space, allowed, place.0, place.1)
    }
}
