//! The plan: a checked configuration in the form that shards read while they answer.
//!
//! It is built once by the control thread, shared by `Arc` and never changed; a new configuration is a new plan with
//! indexes of its own, so whatever outlives a plan names subnets by [`SubnetId`].
//!
//! Promises: everything that takes `&self` here neither allocates nor locks nor panics, whatever the packet holds,
//! and any thread may call it. Indexes come from the same plan that they are used with: one from another plan is a
//! bug and panics.
//!
//! Bounds: 2^32 - 1 subnets, pools and reservations, 1,024 class names, 65,535 octets in an option's value.
//!
//! Sources: RFC 2131 4.3, RFC 2132, RFC 3925, RFC 3046; the DHCPv4 chapters of Kea's manual.

mod build;
pub mod classes;
mod expression;
pub mod flex_id;
pub mod hosts;
pub mod lookup;
pub mod names;
pub mod options;
pub mod resolve;

use std::net::Ipv4Addr;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::config::load::SystemInterface;
use crate::config::tree::netmask_bits;
use crate::ids::{ClassId, SubnetId};
use crate::memory::Table;
use crate::wire::dhcp4::Strictness;
use crate::wire::shapes::Shapes;

pub use build::{Surroundings, build};
pub use classes::{Class, ClassNames, Guard, Stage};
pub use flex_id::FlexId;
pub use hosts::{Host, HostFilter, Hosts, IdentifierKind, Identifiers};
pub use lookup::SubnetLookup;
pub use names::NameRules;
pub use options::{CodeSet, OptionStore, ScopeIndex};
pub use resolve::{ChosenOptions, Sources, Wanted, resolve, resolve_one};

/// A subnet by its position in [`Plan::subnets`], which is ascending by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetIndex(pub u32);

/// A network (a shared network, or the one that a single subnet makes) by its position in [`Plan::networks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkIndex(pub u32);

/// A pool by its position in [`Plan::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(pub u32);

/// A reservation by its position among [`Hosts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIndex(pub u32);

/// A set of name rules by its position in [`Plan::name_rules`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameRulesIndex(pub u32);

/// Minimum, default and maximum of a lifetime, in seconds; `u32::MAX` is infinite. `min <= default <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Granted at least.
    pub min_s: u32,
    /// Granted when the client does not say what it wants.
    pub default_s: u32,
    /// Granted at most.
    pub max_s: u32,
}

impl Lifetimes {
    /// What is granted to a client that asks for `wanted_s` (option 51); nothing and 0 mean the default.
    #[must_use]
    #[inline(always)]
    pub fn granted_s(&self, wanted_s: Option<u32>) -> u32 {
        match wanted_s {
            None | Some(0) => self.default_s,
            Some(wanted_s) => wanted_s.clamp(self.min_s, self.max_s),
        }
    }
}

/// How T1 and T2 (options 58 and 59) come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timers {
    /// `renew-timer`, seconds.
    pub renew_s: Option<u32>,
    /// `rebind-timer`, seconds.
    pub rebind_s: Option<u32>,
    /// `calculate-tee-times`: a timer that is not configured is a share of the lifetime.
    pub calculate: bool,
    /// `t1-percent`, a fraction between 0 and 1.
    pub t1_share: f64,
    /// `t2-percent`, a fraction between 0 and 1.
    pub t2_share: f64,
}

impl Timers {
    /// T1 and T2 for a lease of `granted_s` seconds; each is left out when it would not come before what follows it.
    #[must_use]
    #[inline(always)]
    pub fn t1_t2_s(&self, granted_s: u32) -> (Option<u32>, Option<u32>) {
        let share = |share: f64| {
            if !self.calculate {
                return None;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "float to int saturates, and a share lies between 0 and 1"
            )]
            let seconds = (f64::from(granted_s) * share).round() as u32;
            Some(seconds)
        };
        let t2 = self.rebind_s.or_else(|| share(self.t2_share)).filter(|t2| (1..granted_s).contains(t2));
        let t1 = self
            .renew_s
            .or_else(|| share(self.t1_share))
            .filter(|t1| (1..t2.unwrap_or(granted_s)).contains(t1));
        (t1, t2)
    }
}

/// `next-server`, `server-hostname`, `boot-file-name` of one scope; what is absent there comes from the next scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFields {
    /// For `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// For `sname`, at most 63 octets.
    pub server_hostname: Option<Box<[u8]>>,
    /// For `file`, at most 128 octets.
    pub boot_file_name: Option<Box<[u8]>>,
}

impl BootFields {
    /// Whether none of the three is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next_server.is_none() && self.server_hostname.is_none() && self.boot_file_name.is_none()
    }
}

/// The boot fields of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootView<'a> {
    /// For `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// For `sname`.
    pub server_hostname: Option<&'a [u8]>,
    /// For `file`.
    pub boot_file_name: Option<&'a [u8]>,
}

/// Where reservations of a subnet are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationFlags {
    /// `reservations-global`.
    pub global: bool,
    /// `reservations-in-subnet`.
    pub in_subnet: bool,
    /// `reservations-out-of-pool`: reserved addresses are promised to lie outside the pools.
    pub out_of_pool: bool,
}

/// `allocator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocatorKind {
    /// One address after the other.
    #[default]
    Iterative,
    /// A random permutation.
    Random,
    /// A queue of free addresses.
    Flq,
}

/// When a renewal is answered without a write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LeaseCache {
    /// `cache-threshold`: a share of the lifetime.
    pub threshold: Option<f64>,
    /// `cache-max-age`, seconds; 0 never.
    pub max_age_s: Option<u32>,
}

impl LeaseCache {
    /// Whether a lease of `age_s` seconds, granted for `lifetime_s`, is young enough to be answered from.
    #[must_use]
    #[inline(always)]
    pub fn covers(&self, age_s: u64, lifetime_s: u32) -> bool {
        if self.threshold.is_none() && self.max_age_s.is_none() || age_s >= u64::from(lifetime_s) {
            return false;
        }
        let in_age = self.max_age_s.is_none_or(|max_s| max_s > 0 && age_s <= u64::from(max_s));
        #[expect(
            clippy::cast_precision_loss,
            reason = "an age beyond 2^52 seconds has failed the test above"
        )]
        let in_threshold =
            self.threshold.is_none_or(|share| share > 0.0 && age_s as f64 <= f64::from(lifetime_s) * share);
        in_age && in_threshold
    }
}

/// What holds in a subnet besides its place: everything inherited is in it. Subnets with equal settings share one, so
/// that with many subnets these stay in the processor's cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The subnet's own guard; the network's is beside it ([`Plan::subnet_allowed`] tests both).
    pub guard: Guard,
    /// Classes to evaluate after allocation.
    pub additional_classes: Box<[ClassId]>,
    /// Lease lifetimes.
    pub lifetimes: Lifetimes,
    /// `offer-lifetime` in seconds; 0 stores no offers.
    pub offer_lifetime_s: u32,
    /// `adaptive-lease-time-threshold`: occupancy from which leases are cut short.
    pub adaptive_threshold: Option<f64>,
    /// T1 and T2.
    pub timers: Timers,
    /// T1 and T2 of a lease with the default lifetime, which is what nearly every client gets.
    pub default_times: (Option<u32>, Option<u32>),
    /// `match-client-id`.
    pub match_client_id: bool,
    /// `authoritative`.
    pub authoritative: bool,
    /// Boot fields, own or inherited from network and global scope.
    pub boot: BootFields,
    /// Where reservations are looked for.
    pub reservations: ReservationFlags,
    /// How addresses are chosen.
    pub allocator: AllocatorKind,
    /// When a renewal is answered without a write.
    pub cache: LeaseCache,
    /// `store-extended-info`.
    pub store_extended_info: bool,
    /// How names are made here.
    pub name_rules: NameRulesIndex,
}

/// A subnet: where it is and what is in it. One cache line: a query for one of many subnets fetches it from memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Subnet {
    /// As configured, or assigned.
    pub id: SubnetId,
    /// First address of the prefix: host bits are cleared.
    pub prefix: Ipv4Addr,
    /// The ends of its pool, if it has one only and that is plain: then nothing has to be looked up there. Else in the wrong order.
    pub plain_pool: (Ipv4Addr, Ipv4Addr),
    /// The network it belongs to.
    pub network: NetworkIndex,
    /// Its pools, as positions in [`Plan::pools`].
    pub pools: Range<u32>,
    /// What holds in it, shared with all subnets of which the same is true.
    pub settings: Arc<Settings>,
    /// Options of subnet and network merged, the subnet's first: for answers without an address of a pool.
    pub options: ScopeIndex,
    /// 0 to 32.
    pub prefix_len: u8,
    /// Whether neither the subnet nor its network has a guard.
    pub is_open: bool,
    /// Whether its network is that of this subnet and no other: then there is nothing to look up there.
    pub is_alone: bool,
    /// Whether there are classes to evaluate after allocation: of the subnet, its network or any of its pools.
    pub has_additional_classes: bool,
    /// Whether option 108 (RFC 8925) is configured in its network.
    pub has_v6_only_preferred: bool,
    /// Which reservations there can be, so that a query of a client without one looks no further.
    pub filter: HostFilter,
}

const _: () = assert!(size_of::<Subnet>() == 64, "a subnet is one cache line");

/// What holds in a subnet reads as if it were its own.
impl Deref for Subnet {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Settings {
    /// T1 and T2 for a lease of `granted_s` seconds.
    #[must_use]
    #[inline(always)]
    pub fn t1_t2_s(&self, granted_s: u32) -> (Option<u32>, Option<u32>) {
        if granted_s == self.lifetimes.default_s {
            return self.default_times;
        }
        self.timers.t1_t2_s(granted_s)
    }
}

impl Subnet {
    /// For option 1.
    #[must_use]
    #[inline(always)]
    pub const fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(netmask_bits(self.prefix_len))
    }

    /// Whether `address` lies in the prefix.
    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & netmask_bits(self.prefix_len) == self.prefix.to_bits()
    }

    /// Whether any reservation belongs to this subnet.
    #[must_use]
    #[inline(always)]
    pub fn has_hosts(&self) -> bool {
        self.filter != HostFilter::default()
    }

    /// Whether its only pool is plain: it has no guard, no classes, no identifier, and its names are made as everywhere in the subnet.
    #[must_use]
    #[inline(always)]
    pub const fn has_plain_pool(&self) -> bool {
        self.plain_pool.0.to_bits() <= self.plain_pool.1.to_bits()
    }

    /// Whether `address` lies in that pool.
    #[inline(always)]
    const fn is_in_plain_pool(&self, address: Ipv4Addr) -> bool {
        self.plain_pool.0.to_bits() <= address.to_bits() && address.to_bits() <= self.plain_pool.1.to_bits()
    }
}

/// A pool of addresses. One cache line, as a subnet.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Pool {
    /// The subnet it belongs to.
    pub subnet: SubnetIndex,
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below the first.
    pub last: Ipv4Addr,
    /// `pool-id`; 0 when not configured.
    pub pool_id: u32,
    /// Options of pool, subnet and network merged, in this order of precedence.
    pub options: ScopeIndex,
    /// How names are made for its addresses.
    pub name_rules: NameRulesIndex,
    /// Who may have addresses from here.
    pub guard: Guard,
    /// Classes to evaluate after allocation.
    pub additional_classes: Box<[ClassId]>,
}

const _: () = assert!(size_of::<Pool>() == 64, "a pool is one cache line");

impl Pool {
    /// Whether `address` lies in the pool.
    #[must_use]
    #[inline(always)]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first.to_bits() <= address.to_bits() && address.to_bits() <= self.last.to_bits()
    }

    /// How many addresses it has.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }
}

/// A shared network, or the network that a subnet outside of any is by itself.
#[derive(Clone, Debug)]
pub struct Network {
    /// The shared network's name; nothing for a single subnet.
    pub name: Option<Box<str>>,
    /// Its subnets, as positions in [`Plan::network_subnets`].
    pub members: Range<u32>,
    /// Who may be served from it.
    pub guard: Guard,
    /// Classes to evaluate after allocation.
    pub additional_classes: Box<[ClassId]>,
    /// Whether any reservation belongs to one of its subnets.
    pub has_hosts: bool,
    /// Whether option 108 (RFC 8925) is configured in it or in one of its subnets.
    pub has_v6_only_preferred: bool,
}

/// What is set once for the whole server.
#[derive(Clone, Debug)]
pub struct Globals {
    /// `authoritative` at global scope: decides when no subnet is found.
    pub authoritative: bool,
    /// `echo-client-id` (RFC 6842).
    pub echo_client_id: bool,
    /// `decline-probation-period`, seconds.
    pub decline_probation_s: u32,
    /// The identifier that `libdhcp_flex_id` makes of a query.
    pub flex_id: Option<Arc<FlexId>>,
    /// `early-global-reservations-lookup`.
    pub early_global_lookup: bool,
    /// `ip-reservations-unique`.
    pub ip_reservations_unique: bool,
    /// `compatibility.lenient-option-parsing`.
    pub lenient_option_parsing: bool,
    /// `compatibility.ignore-dhcp-server-identifier`.
    pub ignore_server_identifier: bool,
    /// `compatibility.ignore-rai-link-selection`.
    pub ignore_link_selection: bool,
    /// `compatibility.exclude-first-last-24`.
    pub exclude_first_last_24: bool,
    /// `stash-agent-options`.
    pub stash_agent_options: bool,
    /// Options of the global scope.
    pub options: ScopeIndex,
    /// How names are made where no subnet is known.
    pub name_rules: NameRulesIndex,
    /// Values of option 54 configured globally, in a subnet or in a network, ascending: each of them is this server.
    pub server_identifiers: Box<[Ipv4Addr]>,
    /// What each option of a query must look like.
    pub shapes: Box<Shapes>,
}

impl Globals {
    /// How the options of a query are judged.
    #[must_use]
    pub fn strictness(&self) -> Strictness<'_> {
        Strictness { lenient: self.lenient_option_parsing, shapes: &self.shapes }
    }
}

/// A configuration, ready to answer from.
#[derive(Debug)]
pub struct Plan {
    /// Counts the plans of this process; the first is 1.
    pub generation: u64,
    /// What is set once.
    pub globals: Globals,
    /// All subnets, ascending by id.
    pub subnets: Table<Subnet>,
    /// All networks.
    pub networks: Table<Network>,
    /// The subnets of each network side by side, ascending by id within each.
    pub network_subnets: Table<SubnetIndex>,
    /// All pools, those of one subnet side by side, ascending by first address.
    pub pools: Table<Pool>,
    /// The classes that are defined, in their order.
    pub classes: Vec<Class>,
    /// Of each class name, the position of its definition in `classes`; beyond the end for those without.
    pub class_positions: Vec<u32>,
    /// All names of classes that anything refers to.
    pub class_names: ClassNames,
    /// The reservations.
    pub hosts: Hosts,
    /// All options' values and scopes.
    pub options: OptionStore,
    /// Sets of name rules, each once.
    pub name_rules: Vec<NameRules>,
    /// The interfaces that the plan was made with; a position is an [`InterfaceId`](crate::ids::InterfaceId), and of the addresses the first is
    /// the one that subnet selection uses.
    pub interfaces: Vec<SystemInterface>,
    /// Subnets by address, relay and interface.
    pub lookup: SubnetLookup,
}

/// `usize` of an index: no target of this program has less than 32 bits.
pub(crate) const fn at(index: u32) -> usize {
    index as usize
}

impl Plan {
    /// The subnet at `index`.
    #[must_use]
    pub fn subnet(&self, index: SubnetIndex) -> &Subnet {
        &self.subnets[at(index.0)]
    }

    /// The network at `index`.
    #[must_use]
    pub fn network(&self, index: NetworkIndex) -> &Network {
        &self.networks[at(index.0)]
    }

    /// The pool at `index`.
    #[must_use]
    pub fn pool(&self, index: PoolIndex) -> &Pool {
        &self.pools[at(index.0)]
    }

    /// The name rules at `index`.
    #[must_use]
    pub fn name_rules(&self, index: NameRulesIndex) -> &NameRules {
        &self.name_rules[at(index.0)]
    }

    /// The pool of the subnet at `index` that holds `address` and admits a query with `classes`.
    #[must_use]
    #[inline(always)]
    pub fn allowed_pool(
        &self,
        index: SubnetIndex,
        address: Ipv4Addr,
        classes: &[ClassId],
    ) -> Option<PoolIndex> {
        let pool = self.pool_of(index, address)?;
        (self.subnet(index).has_plain_pool() || self.pool(pool).guard.admits(classes)).then_some(pool)
    }

    /// `pool-id` of a pool of the subnet at `index`; 0 for an address of none.
    #[must_use]
    #[inline(always)]
    pub fn pool_id(&self, index: SubnetIndex, pool: Option<PoolIndex>) -> u32 {
        match pool {
            Some(pool) if !self.subnet(index).has_plain_pool() => self.pool(pool).pool_id,
            _ => 0,
        }
    }

    /// How names are made for an address of the subnet at `index`, of this pool if it is of one.
    #[must_use]
    #[inline(always)]
    pub fn name_rules_at(&self, index: SubnetIndex, pool: Option<PoolIndex>) -> &NameRules {
        let subnet = self.subnet(index);
        self.name_rules(match pool.filter(|_| !subnet.has_plain_pool()) {
            Some(pool) => self.pool(pool).name_rules,
            None => subnet.name_rules,
        })
    }

    /// The subnet with the identifier `id`.
    #[must_use]
    #[inline(always)]
    pub fn subnet_by_id(&self, id: SubnetId) -> Option<SubnetIndex> {
        // Most configurations number their subnets without gaps: then the subnet's own line is all that is touched.
        let first = self.subnets.first()?.id;
        let guess = id.0.wrapping_sub(first.0);
        if self.subnets.get(at(guess)).is_some_and(|subnet| subnet.id == id) {
            return Some(SubnetIndex(guess));
        }
        self.search_subnet(id)
    }

    /// The same by a search, which is not worth its place in those that ask.
    #[inline(never)]
    fn search_subnet(&self, id: SubnetId) -> Option<SubnetIndex> {
        let position = self.subnets.binary_search_by_key(&id, |subnet| subnet.id).ok()?;
        u32::try_from(position).ok().map(SubnetIndex)
    }

    /// The subnet that a query through `relay` most likely starts in: worth loading, not more.
    #[must_use]
    pub fn likely_subnet(&self, relay: Ipv4Addr) -> Option<SubnetIndex> {
        self.lookup.by_relay(relay, |_| true).or_else(|| self.lookup.by_address(relay, |_| true))
    }

    /// The subnets of the network at `index`, ascending by id.
    #[must_use]
    #[inline(always)]
    pub fn members(&self, index: NetworkIndex) -> &[SubnetIndex] {
        let members = &self.network(index).members;
        &self.network_subnets[at(members.start)..at(members.end)]
    }

    /// The pools of the subnet at `index`, ascending by first address.
    #[must_use]
    pub fn pools_of(&self, index: SubnetIndex) -> &[Pool] {
        let pools = &self.subnet(index).pools;
        &self.pools[at(pools.start)..at(pools.end)]
    }

    /// How many addresses the pools of the subnet at `index` have together.
    #[must_use]
    pub fn pool_addresses(&self, index: SubnetIndex) -> u64 {
        self.pools_of(index).iter().map(Pool::capacity).sum()
    }

    /// The pool of the subnet at `index` that holds `address`.
    #[must_use]
    #[inline(always)]
    pub fn pool_of(&self, index: SubnetIndex, address: Ipv4Addr) -> Option<PoolIndex> {
        let subnet = self.subnet(index);
        let pools = &subnet.pools;
        if subnet.has_plain_pool() {
            return subnet.is_in_plain_pool(address).then_some(PoolIndex(pools.start));
        }
        if pools.end - pools.start == 1 {
            return self.pools[at(pools.start)].contains(address).then_some(PoolIndex(pools.start));
        }
        let after = self.pools_of(index).partition_point(|pool| pool.first <= address);
        let position = pools.start + u32::try_from(after.checked_sub(1)?).ok()?;
        self.pools[at(position)].contains(address).then_some(PoolIndex(position))
    }

    /// Whether a query with `classes` may have an address of the subnet: by the subnet's guard and the network's.
    #[must_use]
    #[inline(always)]
    pub fn subnet_allowed(&self, index: SubnetIndex, classes: &[ClassId]) -> bool {
        let subnet = self.subnet(index);
        subnet.is_open
            || self.subnet(index).guard.admits(classes) && self.network(subnet.network).guard.admits(classes)
    }

    /// The reservation of the subnet at `index` for the client that has `identifiers`, where the subnet's reservations
    /// are to be looked for at all.
    #[must_use]
    #[inline(always)]
    pub fn find_host(&self, index: SubnetIndex, identifiers: &Identifiers<'_>) -> Option<HostIndex> {
        let subnet = self.subnet(index);
        if !subnet.has_hosts() || !subnet.reservations.in_subnet {
            return None;
        }
        self.hosts.find_filtered(index, subnet.filter, identifiers)
    }

    /// The global reservation for the client that has `identifiers`. Whether it is to be looked for is a flag of the
    /// subnet ([`ReservationFlags::global`]), or of an early lookup.
    #[must_use]
    pub fn find_global_host(&self, identifiers: &Identifiers<'_>) -> Option<HostIndex> {
        self.hosts.find(None, identifiers)
    }

    /// Whether `address` of the subnet at `index` is kept from the client that has `identifiers`: it is reserved, and
    /// for others only. Addresses of pools are not looked up where reservations are promised to lie outside.
    #[must_use]
    #[inline(always)]
    pub fn reserved_for_other(
        &self,
        index: SubnetIndex,
        address: Ipv4Addr,
        identifiers: &Identifiers<'_>,
    ) -> bool {
        let subnet = self.subnet(index);
        if !subnet.has_hosts() || !subnet.filter.may_hold(address, subnet.prefix_len) {
            return false;
        }
        let flags = &subnet.reservations;
        flags.in_subnet
            && !(flags.out_of_pool && self.pool_of(index, address).is_some())
            && self.hosts.is_reserved_for_other(index, address, identifiers)
    }

    /// Whether `address` is the server's by configuration: as option 54 of any subnet or network, of the global scope,
    /// or of one of the query's classes.
    #[must_use]
    pub fn is_server_identifier(&self, address: Ipv4Addr, classes: &[ClassId]) -> bool {
        self.globals.server_identifiers.binary_search(&address).is_ok()
            || classes
                .iter()
                .filter_map(|&class| self.class(class))
                .any(|class| class.server_identifier == Some(address))
    }

    /// The lifetimes for a query with `classes`: of its first class that has some, else of the subnet.
    #[must_use]
    #[inline(always)]
    pub fn lifetimes(&self, index: SubnetIndex, classes: &[ClassId]) -> Lifetimes {
        let of_class = || classes.iter().find_map(|&class| self.class(class)?.lifetimes);
        let of_class = if self.classes.is_empty() { None } else { of_class() };
        of_class.unwrap_or_else(|| self.subnet(index).lifetimes)
    }

    /// The boot fields of an answer: each from the reservation, else the first class that has it, else the subnet.
    #[must_use]
    pub fn boot_fields(
        &self,
        index: SubnetIndex,
        classes: &[ClassId],
        host: Option<HostIndex>,
    ) -> BootView<'_> {
        let subnet = &self.subnet(index).boot;
        let host = host.and_then(|host| self.hosts.host(host).boot.as_deref());
        let mut view = BootView::default();
        let of_classes = classes.iter().filter_map(|&class| self.class(class)).map(|class| &class.boot);
        for boot in host.into_iter().chain(of_classes).chain([subnet]) {
            view.next_server = view.next_server.or(boot.next_server);
            view.server_hostname = view.server_hostname.or(boot.server_hostname.as_deref());
            view.boot_file_name = view.boot_file_name.or(boot.boot_file_name.as_deref());
        }
        view
    }

    /// All pools as ranges of addresses, ascending, those that touch or overlap made one.
    #[must_use]
    pub fn address_ranges(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let mut pools: Vec<(Ipv4Addr, Ipv4Addr)> =
            self.pools.iter().map(|pool| (pool.first, pool.last)).collect();
        pools.sort_unstable();
        let mut ranges: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::with_capacity(pools.len());
        for (first, last) in pools {
            match ranges.last_mut() {
                Some(range) if u64::from(first.to_bits()) <= u64::from(range.1.to_bits()) + 1 => {
                    range.1 = range.1.max(last);
                }
                _ => ranges.push((first, last)),
            }
        }
        ranges
    }

    /// The reserved addresses that lie in no pool of any subnet, ascending, each once.
    #[must_use]
    pub fn reserved_outside_pools(&self) -> Vec<Ipv4Addr> {
        let ranges = self.address_ranges();
        let mut addresses: Vec<Ipv4Addr> = self
            .hosts
            .all()
            .iter()
            .map(|host| host.address)
            .filter(|address| !address.is_unspecified())
            .filter(|address| {
                let after = ranges.partition_point(|range| range.0 <= *address);
                after == 0 || ranges[after - 1].1 < *address
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// How many leases there can be at once: one per address of a pool, and per address reserved outside them.
    #[must_use]
    pub fn lease_capacity(&self) -> u64 {
        let pools: u64 = self
            .address_ranges()
            .iter()
            .map(|(first, last)| u64::from(last.to_bits() - first.to_bits()) + 1)
            .sum();
        pools + self.reserved_outside_pools().len() as u64
    }
}
