//! What the stages before the decision start loading, so that a batch waits for memory once and not once per packet.

use super::process::Shard;
use super::serving::Serving;
use crate::config::plan::SubnetIndex;
use crate::config::plan::hosts::IdentifierKind;
use crate::lease::table::KeyHash;
use crate::memory::prefetch;
use crate::wire::query::Query;

impl Shard {
    /// Starts loading what [`Self::process`] will look at first: the bucket of the client in the table.
    pub fn prefetch(&self, query: &Query<'_>) -> KeyHash {
        let hash = self.key_hash(query);
        self.leases.table.prefetch(hash);
        hash
    }

    /// Starts loading the first thing that [`Self::prefetch_plan`] will look at.
    pub fn prefetch_relay(serving: &Serving, query: &Query<'_>) {
        if query.is_relayed()
            && let Some(entry) = serving.plan.lookup.first_look(query.packet.giaddr())
        {
            prefetch(entry);
        }
    }

    /// Starts loading what the plan has for this query, where that is more than stays near: the answer's options, the subnet.
    /// Gives the subnet that it most likely starts in.
    pub fn prefetch_plan(&self, serving: &Serving, query: &Query<'_>) -> Option<SubnetIndex> {
        let likely =
            query.is_relayed().then(|| serving.plan.likely_subnet(query.packet.giaddr())).flatten()?;
        prefetch(serving.plan.subnet(likely));
        self.desk.known.prefetch(query.message_type, likely);
        Some(likely)
    }

    /// Starts loading what `likely`, which should be there by now, leads to: its first pool and network, and where the reservations
    /// of this client would be.
    pub fn prefetch_subnet(serving: &Serving, query: &Query<'_>, likely: SubnetIndex) {
        let plan = &serving.plan;
        let subnet = plan.subnet(likely);
        if !subnet.is_alone {
            prefetch(plan.network(subnet.network));
        }
        if let Some(pool) = plan.pools_of(likely).first() {
            prefetch(pool);
        }
        if subnet.has_hosts {
            let hw_addr = query.hw_addr();
            let of_hw =
                plan.hosts.first_look(likely, subnet.filter, IdentifierKind::HwAddress, hw_addr.as_bytes());
            let client_id = query.client_id();
            let of_id = client_id
                .and_then(|id| plan.hosts.first_look(likely, subnet.filter, IdentifierKind::ClientId, id));
            for tag in [of_hw, of_id].into_iter().flatten() {
                prefetch(tag);
            }
        }
    }

    /// The hash of the key that a client's lease is first looked for with: its identifier, else its hardware address.
    pub(super) fn key_hash(&self, query: &Query<'_>) -> KeyHash {
        match query.client_id() {
            Some(client_id) => self.leases.table.hash_client_id(client_id),
            None => self.leases.table.hash_hw(&query.hw_addr()),
        }
    }
}
