//! Which address a client gets: reservation, own lease, hint, then whatever the allocator has (RFC 2131 4.3.1).

use std::net::Ipv4Addr;

use super::allocators::Allocators;
use super::client::{Asker, Client, Reserved};
use super::leases::{Leases, Status, is_over};
use super::serving::Serving;
use super::stats::add;
use crate::allocate::Pick;
use crate::config::plan::{PoolIndex, SubnetIndex};
use crate::ids::LeaseRef;
use crate::lease::LeaseState;
use crate::lease::table::Record;
use crate::wire::drop::DropReason;

/// Most candidates tried for one query: each has been lost to another shard or a reservation since the search began.
const CANDIDATES_TRIED_MAX: usize = 64;

/// An address for a client, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    pub(super) subnet: SubnetIndex,
    pub(super) pool: Option<PoolIndex>,
}

/// Why a REQUEST gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client is told so.
    Nak,
    /// The address is in no pool of the network: another server may own it.
    UnknownAddress,
}

/// What a REQUEST leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// The client's own lease goes on.
    Renew(LeaseRef, Place),
    /// A lease on a new address; the client's lease on another address ends.
    Create(Place, Option<LeaseRef>),
    /// A lease on an address that the allocator chooses; the client's lease on another address ends.
    Any(Option<LeaseRef>),
}

/// The client's lease in its network, and the next one if it has two: by client identifier in every subnet that matches by it, then
/// by hardware address. The first in subnet order counts, in whatever state; declined leases have no identity and are never found. Two in one subnet
/// come from two servers that gave one each before they could tell each other: then one in use goes before one that is over, and
/// the newer one before the older one.
#[inline(always)]
pub(super) fn client_leases(leases: &Leases, asker: &Asker<'_>) -> [Option<LeaseRef>; 2] {
    let network = asker.network();
    let place = |record: &Record, by_client_id: bool| {
        let subnet = asker.subnet_by_id(record.subnet_id())?;
        let own = asker.plan.subnet(subnet);
        let counts = own.network == network
            && record.state() != LeaseState::Declined
            && (!by_client_id || own.match_client_id);
        counts.then_some(subnet)
    };
    let rank = |record: &Record, subnet| order_of(record, subnet, asker.now.wall_s);
    if !asker.client_id.is_empty() {
        let found =
            leases.find_client_id(asker.key_hash, asker.client_id, |record| place(record, true), rank);
        if found[0].is_some() {
            return found;
        }
    }
    if asker.hw_addr.is_empty() {
        return [None; 2];
    }
    // A subnet that does not match by client identifier stores leases without one, so that they are all found here.
    let hash = if asker.client_id.is_empty() { asker.key_hash } else { leases.table.hash_hw(asker.hw_addr) };
    leases.find_hw(hash, asker.hw_addr, asker.client_id, |record| place(record, false), rank)
}

/// The rank of a client's lease among its leases.
fn order_of(record: &Record, subnet: SubnetIndex, wall_s: u64) -> u64 {
    // 32 bits of seconds last until 2106, and RFC 2131 has no more either.
    let age = !record.cltt() & u64::from(u32::MAX);
    u64::from(subnet.0) << 33 | u64::from(is_over(record, wall_s)) << 32 | age
}

/// The client's lease for a REQUEST for `wanted`, and another lease of the same client that it does not need beside that one. A client
/// that names an address of its own has that one.
#[inline(always)]
pub(super) fn requested_lease(
    leases: &Leases,
    client: &Client<'_>,
    wanted: Option<Ipv4Addr>,
) -> [Option<LeaseRef>; 2] {
    let (own, other) = match client.held {
        [Some(own), Some(other)] => (own, other),
        [own, _] => return [own, None],
    };
    let record = |lease| leases.table.record(lease);
    let (own, other) = if wanted == Some(record(other).address()) { (other, own) } else { (own, other) };
    let in_use = record(other).state() == LeaseState::Assigned && !is_over(record(other), client.now.wall_s);
    // A boot loader without an identifier and its system with one share a hardware address, and each has its own lease.
    let same = leases.table.client_id(own) == leases.table.client_id(other);
    let is_renewed = wanted == Some(record(own).address());
    [Some(own), (in_use && same && is_renewed).then_some(other)]
}

/// The place of the client's lease, if it may keep it: in an allowed pool, and not reserved for somebody else.
#[inline(always)]
fn keepable(leases: &Leases, client: &Client<'_>, lease: LeaseRef) -> Option<Place> {
    let record = leases.table.record(lease);
    let address = record.address();
    let subnet = client.subnet_by_id(record.subnet_id())?;
    let pool = client.allowed_pool(subnet, address)?;
    (client.allows_subnet(subnet) && !client.reserved_for_other(subnet, address)).then_some(Place {
        address,
        subnet,
        pool: Some(pool),
    })
}

/// The address to offer to a client that discovers. Nothing is stored.
#[inline(always)]
pub(super) fn offer(
    leases: &Leases,
    allocators: &mut Allocators,
    serving: &Serving,
    client: &mut Client<'_>,
) -> Result<Place, DropReason> {
    let wall_s = client.now.wall_s;
    let own = client.held[0];
    let own_address = own.map(|lease| leases.table.record(lease).address());
    if let Some(Reserved { subnet, address }) = client.reserved_address() {
        let place = Place { address, subnet, pool: client.plan.pool_of(subnet, address) };
        if own_address == Some(address) || leases.status(address, wall_s).is_available() {
            return Ok(place);
        }
        for stats in [&*leases.totals, serving.subnet_stats(subnet)] {
            add(&stats.reservation_conflicts, 1);
        }
    }
    if let Some(place) = own.and_then(|lease| keepable(leases, client, lease)) {
        return Ok(place);
    }
    let ciaddr = client.query.packet.ciaddr();
    let hint = client.query.requested_address().or_else(|| (!ciaddr.is_unspecified()).then_some(ciaddr));
    if let Some(address) = hint
        && let Some((subnet, pool)) = client.allowed_place(address)
        && !client.reserved_for_other(subnet, address)
        && leases.status(address, wall_s).is_available()
    {
        return Ok(Place { address, subnet, pool: Some(pool) });
    }
    // Not as it comes: a place that a call writes lies in memory, and then so do all others that are given back here.
    let Place { address, subnet, pool } = unreserved(leases, allocators, serving, client)?;
    Ok(Place { address, subnet, pool })
}

/// The next address that nobody has, from the subnets of the network in turn. Moves the allocator's memory.
pub(super) fn unreserved(
    leases: &Leases,
    allocators: &mut Allocators,
    serving: &Serving,
    client: &Client<'_>,
) -> Result<Place, DropReason> {
    let members = client.members();
    let preferred = allocators.preferred(client.network()).unwrap_or(client.subnet);
    let preferred = if same_guard(client, preferred) { preferred } else { client.subnet };
    let start = members.iter().position(|&subnet| subnet == preferred).unwrap_or(0);
    let mut any_candidate = false;
    let mut last_tried = client.subnet;
    for &subnet in members[start..].iter().chain(&members[..start]) {
        if !client.allows_subnet(subnet) {
            continue;
        }
        last_tried = subnet;
        let first_pool = client.plan.subnet(subnet).pools.start;
        for _ in 0..CANDIDATES_TRIED_MAX {
            let allowed = |pool: usize| client.plan.pools_of(subnet)[pool].guard.admits(client.classes);
            let (pool, address) = match allocators.pick(subnet, &leases.space, allowed) {
                Pick::Found { address, pool } => (pool, address),
                Pick::Full => {
                    any_candidate = true;
                    break;
                }
                Pick::NoPools => break,
            };
            any_candidate = true;
            if client.reserved_for_other(subnet, address)
                || !leases.status(address, client.now.wall_s).is_available()
            {
                continue;
            }
            allocators.prefer(client.network(), subnet);
            let pool = first_pool + u32::try_from(pool).unwrap_or(0);
            return Ok(Place { address, subnet, pool: Some(PoolIndex(pool)) });
        }
    }
    let shared = client.plan.network(client.network()).name.is_some();
    for stats in [&*leases.totals, serving.subnet_stats(last_tried)] {
        add(if shared { &stats.fail_shared_network } else { &stats.fail_subnet }, 1);
        add(if any_candidate { &stats.fail } else { &stats.fail_no_pools }, 1);
        if !client.classes.is_empty() {
            add(&stats.fail_classes, 1);
        }
    }
    Err(DropReason::NoLease)
}

/// The preferred subnet counts only among subnets with the same class list as the selected one.
fn same_guard(client: &Client<'_>, other: SubnetIndex) -> bool {
    client.plan.subnet(other).network == client.network()
        && client.plan.subnet(other).guard == client.plan.subnet(client.subnet).guard
}

/// What a REQUEST for `wanted` (option 50, else `ciaddr`) leads to; `own` is the client's lease.
#[inline(always)]
pub(super) fn grant(
    leases: &Leases,
    client: &mut Client<'_>,
    wanted: Option<Ipv4Addr>,
    own: Option<LeaseRef>,
) -> Result<Grant, Refusal> {
    let wall_s = client.now.wall_s;
    let reserved = client.reserved_address();
    let wanted = match wanted {
        Some(address) => {
            let subnet = subnet_of(client, address).unwrap_or(client.subnet);
            if client.reserved_for_other(subnet, address) {
                return Err(Refusal::Nak);
            }
            Some(address)
        }
        None => reserved.map(|reserved| reserved.address),
    };
    let Some(address) = wanted else {
        if let Some(lease) = own
            && let Some(place) = keepable(leases, client, lease)
        {
            return Ok(Grant::Renew(lease, place));
        }
        return Ok(Grant::Any(own));
    };

    let mine = own.is_some_and(|lease| leases.table.record(lease).address() == address);
    // A renewal does not look at its address's word: that would be one more line from memory.
    let status = if mine { None } else { Some(leases.status(address, wall_s)) };
    if matches!(status, Some(Status::Used(_) | Status::UsedElsewhere)) {
        return Err(Refusal::Nak);
    }
    if let Some(reserved) = reserved
        && reserved.address != address
    {
        // While its reservation is taken, be it by itself, the client may have another address.
        if leases.status(reserved.address, wall_s).is_available() {
            return Err(Refusal::Nak);
        }
    }
    let place = match reserved {
        Some(Reserved { subnet, address: own }) if own == address => {
            Place { address, subnet, pool: client.plan.pool_of(subnet, address) }
        }
        _ => match client.allowed_place(address) {
            Some((subnet, pool)) => Place { address, subnet, pool: Some(pool) },
            None if client.is_known_address(address) => return Err(Refusal::Nak),
            None => return Err(Refusal::UnknownAddress),
        },
    };
    match own {
        Some(lease) if mine => Ok(Grant::Renew(lease, place)),
        _ if status == Some(Status::Unknown) => Err(Refusal::Nak),
        _ => Ok(Grant::Create(place, own)),
    }
}

/// The subnet of the network whose prefix holds `address`.
#[inline(always)]
#[expect(clippy::manual_find, reason = "the adapter stays a call on the way of every packet")]
fn subnet_of(client: &Client<'_>, address: Ipv4Addr) -> Option<SubnetIndex> {
    for &subnet in client.members() {
        if client.plan.subnet(subnet).contains(address) {
            return Some(subnet);
        }
    }
    None
}
