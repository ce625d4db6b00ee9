//! A plan as shards serve from it: the plan, and beside it the counters of its subnets and pools, which outlive it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::answer::Arrival;
use super::reclaim::Reclamation;
use super::scope::RelationshipIndex;
use super::stats::{LeaseStats, add};
use crate::config::plan::{Plan, Pool, PoolIndex, SubnetIndex};
use crate::ids::{ClassId, InterfaceId, SubnetId};

/// The counters of all subnets and pools that the server has ever had: a subnet that goes and comes back finds its own.
#[derive(Debug, Default)]
pub struct StatsBook {
    /// The whole server.
    pub totals: Arc<LeaseStats>,
    subnets: HashMap<SubnetId, Arc<LeaseStats>>,
    pools: HashMap<(SubnetId, u32), Arc<LeaseStats>>,
    /// Plans that were put together with these counters.
    served: u64,
    /// The pools of the last plan: where they are is what their counters count.
    ranges: Option<Vec<(SubnetId, u32, Ipv4Addr, Ipv4Addr)>>,
    /// How often the counters of pools have begun anew.
    renewals: u64,
}

/// What shards answer from: immutable but for the counters.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub plan: Plan,
    /// Which one it is of those that share their counters: the first is 1.
    pub number: u64,
    /// Which time it is that the counters of pools begin anew, because pools have moved: each shard counts its leases into them.
    pub renewal: u64,
    /// `expired-leases-processing`.
    pub reclamation: Reclamation,
    /// Of each interface, by its [`InterfaceId`], how answers leave; nothing where the server does not listen.
    pub arrivals: Vec<Option<Arrival>>,
    /// By number of the HA relationship the classes of its scopes, primary's and secondary's, in both spellings; empty without HA.
    pub scope_classes: Vec<[Vec<ClassId>; 2]>,
    /// By subnet the relationship that it names, which matters when there are several; empty without HA.
    pub relationships: Vec<Option<RelationshipIndex>>,
    subnet_stats: Vec<Arc<LeaseStats>>,
    pool_stats: Vec<Arc<LeaseStats>>,
    /// Counters of subnets that leases may name and the plan does not have, ascending.
    absent_stats: Vec<(SubnetId, Arc<LeaseStats>)>,
}

impl StatsBook {
    /// Counts leases of a subnet that the plan does not have: they are on disk, and the subnet may come back.
    pub fn count_absent(&mut self, subnet: SubnetId, assigned: i64, declined: i64) {
        let stats = self.subnets.entry(subnet).or_default();
        add(&stats.assigned, assigned);
        add(&stats.declined, declined);
    }

    /// Takes note of where the pools of `plan` are. When they are not where they were, what their counters say of leases is void.
    fn note_pools(&mut self, plan: &Plan) {
        let range = |pool: &Pool| (plan.subnet(pool.subnet).id, pool.pool_id, pool.first, pool.last);
        let mut ranges: Vec<_> = plan.pools.iter().map(range).collect();
        ranges.sort_unstable();
        if self.ranges.as_ref() == Some(&ranges) {
            return;
        }
        self.ranges = Some(ranges);
        self.renewals += 1;
        for stats in self.pools.values_mut() {
            // Shards that still serve from the old plan go on with the old counters.
            *stats = Arc::new(stats.without_leases());
        }
    }

    /// The counters of the subnets that `plan` does not have, ascending.
    fn absent(&self, plan: &Plan) -> Vec<(SubnetId, Arc<LeaseStats>)> {
        let others = self.subnets.iter().filter(|(id, _)| plan.subnet_by_id(**id).is_none());
        let mut absent: Vec<_> = others.map(|(id, stats)| (*id, Arc::clone(stats))).collect();
        absent.sort_unstable_by_key(|(id, _)| *id);
        absent
    }
}

impl Serving {
    /// Puts `plan` together with its counters. Control thread only: it allocates.
    #[must_use]
    pub fn new(
        plan: Plan,
        reclamation: Reclamation,
        arrivals: Vec<Option<Arrival>>,
        book: &mut StatsBook,
    ) -> Self {
        book.note_pools(&plan);
        let subnet_stats = plan
            .subnets
            .iter()
            .map(|subnet| Arc::clone(book.subnets.entry(subnet.id).or_default()))
            .collect();
        let pool_stats = plan
            .pools
            .iter()
            .map(|pool| {
                let key = (plan.subnet(pool.subnet).id, pool.pool_id);
                Arc::clone(book.pools.entry(key).or_default())
            })
            .collect();
        book.served += 1;
        let absent_stats = book.absent(&plan);
        Self {
            plan,
            number: book.served,
            renewal: book.renewals,
            reclamation,
            arrivals,
            scope_classes: Vec::new(),
            relationships: Vec::new(),
            subnet_stats,
            pool_stats,
            absent_stats,
        }
    }

    /// The classes of a scope of a relationship: the primary's, or the secondary's.
    #[must_use]
    pub fn scope_classes(&self, relationship: RelationshipIndex, secondary: bool) -> &[ClassId] {
        self.scope_classes
            .get(usize::from(relationship.0))
            .map_or(&[], |scopes| &scopes[usize::from(secondary)])
    }

    /// Of several relationships the one that serves a subnet.
    #[must_use]
    pub fn relationship_of(&self, subnet: SubnetIndex) -> Option<RelationshipIndex> {
        self.relationships.get(usize::try_from(subnet.0).ok()?).copied().flatten()
    }

    /// Of several relationships the one that serves the subnet of this number.
    #[must_use]
    pub fn relationship_of_id(&self, subnet: SubnetId) -> Option<RelationshipIndex> {
        self.relationship_of(self.plan.subnet_by_id(subnet)?)
    }

    /// How answers leave by an interface.
    #[must_use]
    pub fn arrival(&self, interface: InterfaceId) -> Option<&Arrival> {
        self.arrivals.get(usize::from(interface.0))?.as_ref()
    }

    /// Whether a released lease is kept for its client.
    #[must_use]
    pub const fn keeps_released(&self) -> bool {
        self.reclamation.flush_wait_s != 0 && self.reclamation.hold_s != 0
    }

    /// The counters of a subnet.
    #[must_use]
    pub fn subnet_stats(&self, subnet: SubnetIndex) -> &LeaseStats {
        &self.subnet_stats[subnet.0 as usize]
    }

    /// Takes in the subnets that the book has learnt of since ([`StatsBook::count_absent`]).
    pub fn learn_absent(&mut self, book: &StatsBook) {
        self.absent_stats = book.absent(&self.plan);
    }

    /// The counters of a subnet that leases name and the plan does not have.
    #[must_use]
    pub fn absent_stats(&self, subnet: SubnetId) -> Option<&LeaseStats> {
        let position = self.absent_stats.binary_search_by_key(&subnet, |(id, _)| *id).ok()?;
        self.absent_stats.get(position).map(|(_, stats)| &**stats)
    }

    /// The counters of a pool, shared with all pools of the subnet that have the same `pool-id`.
    #[must_use]
    pub fn pool_stats(&self, pool: PoolIndex) -> &LeaseStats {
        &self.pool_stats[pool.0 as usize]
    }
}
