//! Which shard serves a client: the owner of its hardware address says so.

use std::net::Ipv4Addr;

use super::client::Asker;
use super::process::Shard;
use crate::ids::{HwAddr, LeaseRef, ShardId};
use crate::lease::address::Owner;
use crate::lease::table::KeyHash;
use crate::wire::codes::MessageType;
use crate::wire::query::Query;

impl Shard {
    /// The shard that owns the client, if it is another one and the query has not been handed over yet.
    #[inline(always)]
    pub(super) fn other_owner(&self, hw_addr: &HwAddr, handed_over: bool) -> Option<ShardId> {
        self.leases.directory.as_ref()?;
        let owner = self.leases.steering.owner(hw_addr);
        (owner != self.leases.shard && !handed_over).then_some(owner)
    }

    /// Whether the leases that were found for the client say that it is served here, so that [`Self::elsewhere`] need not be asked:
    /// it would look for the same leases again, which is most of what several shards cost a client that has a lease.
    #[inline(always)]
    pub(super) fn is_at_home(&self, asker: &Asker<'_>, kind: MessageType) -> bool {
        if self.leases.directory.is_none() {
            return true;
        }
        let table = &self.leases.table;
        let by_first_key =
            |lease: &LeaseRef| asker.client_id.is_empty() || table.record(*lease).has_client_id();
        if !asker.held[0].as_ref().is_some_and(by_first_key) {
            return false;
        }
        // No loop over both: as an adapter of iterators it stays a call.
        let holds = |at: usize, address| asker.held[at].is_some_and(|lease| self.is_of(lease, address));
        !names_another(asker.query, kind, |wanted| holds(0, wanted) || holds(1, wanted))
    }

    /// The shard that serves this client, if it is another one. The owner of the client says so: it has the client's lease, or knows from
    /// the directory who has. A query goes at most to the owner, and from there to one that is not the owner, where it stays. Asked only
    /// with several shards.
    pub(super) fn elsewhere(&self, query: &Query<'_>, kind: MessageType) -> Option<ShardId> {
        self.leases.directory.as_ref()?;
        let hw_addr = query.hw_addr();
        if self.leases.steering.owner(&hw_addr) != self.leases.shard {
            return None;
        }
        let table = &self.leases.table;
        if let Some(client_id) = query.client_id() {
            let hash = table.hash_client_id(client_id);
            let found = table.with_client_id(hash, client_id);
            if let Some(place) = self.place_of_wanted(query, kind, hash, found) {
                return place;
            }
            if let Some(shard) = self.leases.elsewhere(hash) {
                return Some(shard);
            }
        }
        let hash = table.hash_hw(&hw_addr);
        let found = table.with_hw(hash, &hw_addr, query.client_id().unwrap_or(&[]));
        self.place_of_wanted(query, kind, hash, found).unwrap_or_else(|| self.leases.elsewhere(hash))
    }

    /// Where a client that has leases here, `found` under `hash`, is served; nothing when it has none here. A REQUEST for an address that
    /// another shard holds for the client belongs there: a client can have leases with two shards, when one of them came from the partner
    /// on an address that the shard had for somebody else before.
    fn place_of_wanted(
        &self,
        query: &Query<'_>,
        kind: MessageType,
        hash: KeyHash,
        found: impl Iterator<Item = LeaseRef>,
    ) -> Option<Option<ShardId>> {
        let mut found = found.peekable();
        found.peek()?;
        if !names_another(query, kind, |wanted| found.any(|lease| self.is_of(lease, wanted))) {
            return Some(None);
        }
        Some(match self.leases.space.owner(wanted_address(query)) {
            Owner::InUse { shard, .. } if self.leases.is_with(hash, shard) => Some(shard),
            _ => None,
        })
    }

    /// Whether the lease is of this address.
    #[inline(always)]
    fn is_of(&self, lease: LeaseRef, address: Ipv4Addr) -> bool {
        self.leases.table.record(lease).address() == address
    }
}

/// Whether this is a REQUEST for an address of which the client has no lease, as `has` says.
#[inline(always)]
fn names_another(query: &Query<'_>, kind: MessageType, mut has: impl FnMut(Ipv4Addr) -> bool) -> bool {
    if kind != MessageType::Request {
        return false;
    }
    let wanted = wanted_address(query);
    !wanted.is_unspecified() && !has(wanted)
}

/// The address that a client names as its own, unspecified for none.
#[inline(always)]
fn wanted_address(query: &Query<'_>) -> Ipv4Addr {
    query.requested_address().unwrap_or_else(|| query.packet.ciaddr())
}
