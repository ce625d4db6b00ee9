//! One shard's allocators for one plan: made by the control thread together with the plan, used by the shard alone.

use std::net::Ipv4Addr;

use crate::allocate::{Allocator, AllocatorKind, Pick, PoolRange, Share, Start};
use crate::config::plan::{AllocatorKind as Configured, NetworkIndex, Plan, SubnetIndex};
use crate::ids::ShardId;
use crate::lease::address::AddressSpace;

/// The allocators of all subnets of a plan, and the subnet of each network that was allocated from last.
#[derive(Debug, Default)]
pub struct Allocators {
    subnets: Vec<(Allocator, Box<[PoolRange]>)>,
    preferred: Vec<Option<SubnetIndex>>,
}

impl Allocators {
    /// Subnets that they are for.
    #[must_use]
    pub const fn subnet_count(&self) -> usize {
        self.subnets.len()
    }

    /// Allocators for every subnet of `plan`, for shard `shard` of `shard_count`. Allocates.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64, shard: ShardId, shard_count: usize, share: Share) -> Self {
        let shared = Start::of_shard(seed, shard, shard_count, share);
        // A guard is how the pools of a pair are told apart: the partner does not allocate from those that this server may use.
        let alone = Start::of_shard(seed, shard, shard_count, Share::Whole);
        let subnets = (0..plan.subnets.len())
            .filter_map(|index| u32::try_from(index).ok().map(SubnetIndex))
            .map(|index| {
                let pools: Box<[PoolRange]> = plan
                    .pools_of(index)
                    .iter()
                    .map(|pool| PoolRange { first: pool.first, last: pool.last })
                    .collect();
                let kind = match plan.subnet(index).allocator {
                    Configured::Iterative => AllocatorKind::Iterative,
                    Configured::Random => AllocatorKind::Random,
                    Configured::Flq => AllocatorKind::Flq,
                };
                let is_guarded = !plan.subnet(index).guard.is_open()
                    || plan.pools_of(index).iter().any(|pool| !pool.guard.is_open());
                (Allocator::new(kind, &pools, if is_guarded { alone } else { shared }), pools)
            })
            .collect();
        Self { subnets, preferred: vec![None; plan.networks.len()] }
    }

    /// The next available address of `subnet` from pools that `allowed` opens (by position in the subnet).
    pub(super) fn pick(
        &mut self,
        subnet: SubnetIndex,
        space: &AddressSpace,
        allowed: impl Fn(usize) -> bool,
    ) -> Pick {
        match self.subnets.get_mut(subnet.0 as usize) {
            Some((allocator, pools)) => allocator.pick(pools, space, allowed),
            None => Pick::NoPools,
        }
    }

    /// The subnet of the network that the last address came from.
    pub(super) fn preferred(&self, network: NetworkIndex) -> Option<SubnetIndex> {
        self.preferred.get(network.0 as usize).copied().flatten()
    }

    /// Remembers where an address of the network came from.
    pub(super) fn prefer(&mut self, network: NetworkIndex, subnet: SubnetIndex) {
        if let Some(preferred) = self.preferred.get_mut(network.0 as usize) {
            *preferred = Some(subnet);
        }
    }

    /// Tells the allocator of the subnet that holds `address` that it became available.
    pub fn freed(&mut self, plan: &Plan, address: Ipv4Addr) {
        let Some(subnet) = plan.lookup.by_address(address, |index| plan.pool_of(index, address).is_some())
        else {
            return;
        };
        if let Some((allocator, pools)) = self.subnets.get_mut(subnet.0 as usize) {
            allocator.freed(pools, address);
        }
    }
}
