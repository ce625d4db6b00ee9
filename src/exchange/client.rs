//! What one query says about its client, and what the plan says about that client: identifiers, reservations,
//! the current subnet.

use std::net::Ipv4Addr;
use std::ops::Deref;

use crate::config::plan::{
    HostIndex, Hosts, IdentifierKind, Identifiers, NetworkIndex, Plan, PoolIndex, SubnetIndex,
};
use crate::ids::{ClassId, HwAddr, LeaseRef, SubnetId};
use crate::lease::table::KeyHash;
use crate::time::Now;
use crate::wire::query::Query;

/// What does not change while a query goes through the rules.
pub(super) struct Asker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) query: &'a Query<'a>,
    pub(super) now: Now,
    pub(super) hw_addr: &'a HwAddr,
    /// Content of option 61; empty when there is none.
    pub(super) client_id: &'a [u8],
    pub(super) identifiers: &'a Identifiers<'a>,
    /// The subnet that was selected, and the client's reservation there.
    pub(super) selected: SubnetIndex,
    pub(super) host: Option<HostIndex>,
    /// The hash of the identifier, or of the hardware address when there is none.
    pub(super) key_hash: KeyHash,
    /// The leases that this shard holds for the client in its network, looked for once: see [`super::allocation::client_leases`].
    /// Nothing for those that are not asked about a lease.
    pub(super) held: [Option<LeaseRef>; 2],
}

impl Asker<'_> {
    /// The network that is served from.
    #[inline(always)]
    pub(super) fn network(&self) -> NetworkIndex {
        self.plan.subnet(self.selected).network
    }

    /// The subnet with the identifier `id`: mostly the selected one, for which nothing has to be searched.
    #[inline(always)]
    pub(super) fn subnet_by_id(&self, id: SubnetId) -> Option<SubnetIndex> {
        if self.plan.subnet(self.selected).id == id {
            return Some(self.selected);
        }
        self.plan.subnet_by_id(id)
    }
}

/// A query on its way through the rules, once its subnet is known. Small, because it is made anew for each step.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) asker: &'a Asker<'a>,
    /// The current subnet: selected at first, then the one that the lease is of.
    pub(super) subnet: SubnetIndex,
    /// The query's classes in the order in which it got them.
    pub(super) classes: &'a [ClassId],
}

impl<'a> Deref for Client<'a> {
    type Target = Asker<'a>;

    fn deref(&self) -> &Asker<'a> {
        self.asker
    }
}

/// The identifiers of a query that any of `hosts` may be for; `flex_id` is what an expression made of it, empty for nothing.
pub(super) fn identifiers<'a>(hosts: &Hosts, query: &Query<'a>, flex_id: &'a [u8]) -> Identifiers<'a> {
    use IdentifierKind::{CircuitId, ClientId, Duid, FlexId, HwAddress};
    let mut identifiers = Identifiers::default();
    for kind in [HwAddress, Duid, CircuitId, ClientId, FlexId] {
        if !hosts.has_kind(kind) {
            continue;
        }
        let value = match kind {
            HwAddress => query.packet.chaddr(),
            Duid => query.duid().unwrap_or_default(),
            CircuitId => query.relay_agent().circuit_id().unwrap_or_default(),
            ClientId => query.client_id().unwrap_or_default(),
            FlexId => flex_id,
        };
        identifiers.set(kind, value);
    }
    identifiers
}

/// What a client's reservation says about its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) subnet: SubnetIndex,
    pub(super) address: Ipv4Addr,
}

impl<'a> Client<'a> {
    /// The client identifier as leases of `subnet` are stored and found with.
    #[inline(always)]
    pub(super) fn client_id_in(&self, subnet: SubnetIndex) -> &'a [u8] {
        if self.plan.subnet(subnet).match_client_id { self.client_id } else { &[] }
    }

    /// How long an offer is kept for the client, seconds: of its first class that says so, else of the subnet; 0 is not at all.
    #[inline(always)]
    pub(super) fn offer_lifetime_s(&self) -> u32 {
        let of_class = || self.classes.iter().find_map(|&class| self.plan.class(class)?.offer_lifetime_s);
        let of_class = if self.plan.classes.is_empty() { None } else { of_class() };
        of_class.unwrap_or(self.plan.subnet(self.subnet).offer_lifetime_s)
    }

    /// Whether the classes allow the subnet.
    #[inline(always)]
    pub(super) fn allows_subnet(&self, subnet: SubnetIndex) -> bool {
        self.plan.subnet_allowed(subnet, self.classes)
    }

    /// The pool of `subnet` that holds `address` and that the classes allow.
    #[inline(always)]
    pub(super) fn allowed_pool(&self, subnet: SubnetIndex, address: Ipv4Addr) -> Option<PoolIndex> {
        self.plan.allowed_pool(subnet, address, self.classes)
    }

    /// The first allowed subnet of the network, ascending by id, with an allowed pool that holds `address`.
    #[inline(always)]
    pub(super) fn allowed_place(&self, address: Ipv4Addr) -> Option<(SubnetIndex, PoolIndex)> {
        for &subnet in self.members() {
            if self.plan.subnet(subnet).contains(address)
                && self.allows_subnet(subnet)
                && let Some(pool) = self.allowed_pool(subnet, address)
            {
                return Some((subnet, pool));
            }
        }
        None
    }

    /// Whether `address` lies in any pool of the network, whoever may use it.
    pub(super) fn is_known_address(&self, address: Ipv4Addr) -> bool {
        self.members().iter().any(|&subnet| self.plan.pool_of(subnet, address).is_some())
    }

    /// The subnets of the network, ascending by id.
    #[inline(always)]
    pub(super) fn members(&self) -> &[SubnetIndex] {
        if self.plan.subnet(self.subnet).is_alone {
            return std::slice::from_ref(&self.subnet);
        }
        self.plan.members(self.network())
    }

    /// The reservation of this client in `subnet`.
    #[inline(always)]
    pub(super) fn host_in(&self, subnet: SubnetIndex) -> Option<HostIndex> {
        if subnet == self.selected { self.host } else { self.plan.find_host(subnet, self.identifiers) }
    }

    /// The global reservation of this client, if `subnet` looks at those.
    #[inline(always)]
    pub(super) fn global_host(&self, subnet: SubnetIndex) -> Option<HostIndex> {
        if !self.plan.subnet(subnet).reservations.global {
            return None;
        }
        self.plan.find_global_host(self.identifiers)
    }

    /// The reservation that counts in the current subnet.
    #[inline(always)]
    pub(super) fn current_host(&self) -> Option<HostIndex> {
        match self.host_in(self.subnet) {
            Some(host) => Some(host),
            None => self.global_host(self.subnet),
        }
    }

    /// Whether any reservation is found: the client is KNOWN.
    pub(super) fn is_known(&self) -> bool {
        self.network_has_hosts()
            && self
                .members()
                .iter()
                .any(|&subnet| self.allows_subnet(subnet) && self.host_in(subnet).is_some())
            || self.global_host(self.subnet).is_some()
    }

    #[inline(always)]
    fn network_has_hosts(&self) -> bool {
        let subnet = self.plan.subnet(self.subnet);
        subnet.has_hosts() || !subnet.is_alone && self.plan.network(self.network()).has_hosts
    }

    /// The address reserved for this client: walking the network from the current subnet, the first subnet with a
    /// reservation decides and becomes the current one; else the global reservation, if its address is in range.
    #[inline(always)]
    pub(super) fn reserved_address(&mut self) -> Option<Reserved> {
        let alone = [self.subnet];
        let members = if self.plan.subnet(self.subnet).is_alone {
            &alone[..]
        } else {
            self.asker.plan.members(self.network())
        };
        if self.network_has_hosts() {
            let start = members.iter().position(|&subnet| subnet == self.subnet).unwrap_or(0);
            for &subnet in members[start..].iter().chain(&members[..start]) {
                if !self.allows_subnet(subnet) {
                    continue;
                }
                let Some(host) = self.host_in(subnet) else { continue };
                let address = self.plan.hosts.host(host).address;
                self.subnet = subnet;
                let unusable = self.plan.subnet(subnet).reservations.out_of_pool
                    && self.plan.pool_of(subnet, address).is_some();
                return (!address.is_unspecified() && !unusable).then_some(Reserved { subnet, address });
            }
        }
        let host = self.global_host(self.subnet)?;
        let address = self.plan.hosts.host(host).address;
        if address.is_unspecified() {
            return None;
        }
        let subnet = members.iter().copied().find(|&subnet| {
            let own = self.plan.subnet(subnet);
            self.plan.subnet(subnet).reservations.global
                && own.contains(address)
                && self.allows_subnet(subnet)
        })?;
        Some(Reserved { subnet, address })
    }

    /// Whether `address` of `subnet` is reserved for somebody else.
    #[inline(always)]
    pub(super) fn reserved_for_other(&self, subnet: SubnetIndex, address: Ipv4Addr) -> bool {
        self.plan.reserved_for_other(subnet, address, self.identifiers)
    }
}
