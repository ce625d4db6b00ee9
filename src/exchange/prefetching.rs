//! What the stages before the decision start loading, so that a batch waits for memory once and not once per packet.

use std::net::Ipv4Addr;

use super::process::Shard;
use super::serving::Serving;
use crate::config::plan::SubnetIndex;
use crate::ids::HwAddr;
use crate::lease::table::KeyHash;
use crate::memory::prefetch;
use crate::wire::codes::MessageType;
use crate::wire::query::Query;

impl Shard {
    /// Starts loading what [`Self::process`] will look at first: the bucket of the client in the table.
    #[inline(always)]
    pub fn prefetch(&self, query: &Query<'_>) -> KeyHash {
        let hash = self.key_hash(query);
        self.leases.table.prefetch(hash);
        hash
    }

    /// Starts loading what is looked at for a client without a lease under `hash`, the key of [`Self::prefetch`]: the bucket of its
    /// hardware address, and with several shards what says of both keys who else has a lease.
    pub fn prefetch_unknown(&self, hw_addr: &HwAddr, hash: KeyHash) {
        let table = &self.leases.table;
        let by_hw = table.hash_hw(hw_addr);
        if by_hw != hash {
            table.prefetch(by_hw);
        }
        if let Some(directory) = &self.leases.directory {
            directory.prefetch(hash);
            if by_hw != hash {
                directory.prefetch(by_hw);
            }
        }
    }

    /// Starts loading the first thing that [`Self::prefetch_plan`] will look at for a query through `relay`.
    pub fn prefetch_relay(serving: &Serving, relay: Ipv4Addr) {
        if let Some(entry) = serving.plan.lookup.first_look(relay) {
            prefetch(entry);
        }
    }

    /// Starts loading what the plan has for a query of this type through `relay`, where that is more than stays near: the answer's
    /// options, the subnet. Gives the subnet that it most likely starts in.
    pub fn prefetch_plan(
        &self,
        serving: &Serving,
        relay: Ipv4Addr,
        kind: Option<MessageType>,
    ) -> Option<SubnetIndex> {
        let likely = serving.plan.likely_subnet(relay)?;
        prefetch(serving.plan.subnet(likely));
        self.desk.known.prefetch(kind, likely);
        Some(likely)
    }

    /// Starts loading what `likely`, which should be there by now, leads to: its first pool and network. Not its reservations: that
    /// would mean hashing the identifiers of every client, and the subnet's filter spares most the look.
    pub fn prefetch_subnet(serving: &Serving, likely: SubnetIndex) {
        let plan = &serving.plan;
        let subnet = plan.subnet(likely);
        if !subnet.is_alone {
            prefetch(plan.network(subnet.network));
        }
        if !subnet.has_plain_pool()
            && let Some(pool) = plan.pools_of(likely).first()
        {
            prefetch(pool);
        }
    }

    /// The hash of the key that a client's lease is first looked for with: its identifier, else its hardware address.
    #[inline(always)]
    pub(super) fn key_hash(&self, query: &Query<'_>) -> KeyHash {
        match query.client_id() {
            Some(client_id) => self.leases.table.hash_client_id(client_id),
            None => self.leases.table.hash_hw(&query.hw_addr()),
        }
    }
}
