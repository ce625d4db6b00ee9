//! In ascending order: after the address given last, through the pools, and round again.
//!
//! The order is Kea's, address by address: each pool remembers the address given last, the subnet remembers it too and so which
//! pool is being worked through. A pool that comes to its end is spent until all open pools are; then they all start again.
//!
//! One difference: Kea gives up after as many candidates as the open pools have addresses. Where clients of different classes
//! have left the pools at different places, it can count some addresses twice and miss a free one; here it is found.

use std::net::Ipv4Addr;

use super::{PoolRange, Start};
use crate::lease::address::AddressSpace;

#[derive(Debug)]
pub(super) struct Iterative {
    /// The address given last, of whichever pool.
    last: Option<Ipv4Addr>,
    pools: Box<[Progress]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing given in this round: its first address is next.
    Fresh,
    /// This one was given last.
    After(Ipv4Addr),
    /// Its last address was given.
    Spent,
}

impl Iterative {
    /// Every pool begins at its own part of `start`: a place in all of them laid end to end would be in one pool only, and shards whose
    /// clients may not use that one would all begin at the first address of another and offer the same addresses.
    pub(super) fn new(pools: &[PoolRange], start: Start) -> Self {
        let progress = pools.iter().map(|pool| match start.within(pool.len()).checked_sub(1) {
            Some(before) => Progress::After(pool.at(before)),
            None => Progress::Fresh,
        });
        Self { last: None, pools: progress.collect() }
    }

    pub(super) fn pick(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        allowed: &impl Fn(usize) -> bool,
    ) -> Option<(usize, Ipv4Addr)> {
        let open = |pool: &usize| allowed(*pool) && !pools[*pool].is_empty();
        let first_open = (0..pools.len()).find(open)?;
        let current = self
            .last
            .and_then(|last| (0..pools.len()).filter(open).find(|pool| pools[*pool].contains(last)))
            .unwrap_or(first_open);
        let found = self.rest(pools, space, open, current).or_else(|| {
            // All open pools start again. When there is nothing at all, what is remembered does not matter:
            // the next address to become available is found from anywhere.
            for pool in (first_open..pools.len()).filter(open) {
                self.pools[pool] = Progress::Fresh;
            }
            self.rest(pools, space, open, first_open)
        });
        if let Some((_, address)) = found {
            self.last = Some(address);
        }
        found
    }

    /// The next address of this round, from the pool `current` on.
    fn rest(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        open: impl Fn(&usize) -> bool,
        current: usize,
    ) -> Option<(usize, Ipv4Addr)> {
        for pool in (current..pools.len()).filter(open) {
            let from = match self.pools[pool] {
                Progress::Fresh => Some(pools[pool].first),
                Progress::After(last) => last
                    .to_bits()
                    .checked_add(1)
                    .map(Ipv4Addr::from_bits)
                    .filter(|next| *next <= pools[pool].last),
                Progress::Spent => None,
            };
            if let Some(found) = from.and_then(|from| space.next_available(from, pools[pool].last)) {
                self.pools[pool] = Progress::After(found);
                return Some((pool, found));
            }
            self.pools[pool] = Progress::Spent;
        }
        None
    }
}
