//! The typed tree: what a configuration says, every word understood, defaults and inheritance resolved.
//!
//! Structures only. Where a value can be inherited, two things are kept: what the scope itself wrote
//! ([`ScopeSettings`], for `config-get`) and what holds there ([`Settings`], for those who serve). Places are kept
//! where another room may still find fault (options, class tests, HA parameters).
//!
//! Seconds are `u32` with `u32::MAX` for "never ends", as on the wire. Class names are text here: the plan numbers
//! them.

mod entry;
mod infra;

use std::net::Ipv4Addr;

pub use entry::{ClassTest, ClientClass, Host, IdentifierKind, OptionData, OptionDef};
pub use infra::{
    AgentSocket, AuthClient, Authentication, Compatibility, ControlAgent, ControlSocket, ControlSocketKind,
    DhcpDdns, ExpiredLeases, ExtendedInfoChecks, Feature, FlexId, HookLibrary, HttpSocket, InterfaceChoice,
    InterfacesConfig, LeaseChecks, LeaseDatabase, LogOutput, Logger, MultiThreading, QueueControl,
    SanityChecks, Secret, Severity, SocketType, TlsFiles,
};

use super::json::{Placed, Span, Value};
use crate::ids::SubnetId;

/// The block `Dhcp4`.
#[derive(Clone, Debug, Default)]
pub struct Dhcp4 {
    /// The map.
    pub at: Span,
    /// What the global scope wrote.
    pub own: ScopeSettings,
    /// What holds where no network or subnet says otherwise.
    pub settings: Settings,
    /// `interfaces-config`.
    pub interfaces: InterfacesConfig,
    /// `lease-database`.
    pub lease_database: LeaseDatabase,
    /// `expired-leases-processing`.
    pub expired: ExpiredLeases,
    /// `sanity-checks`.
    pub sanity: SanityChecks,
    /// `option-def`, in order.
    pub option_defs: Vec<OptionDef>,
    /// `option-data`, in order.
    pub options: Vec<OptionData>,
    /// `client-classes`, in order: a test may refer to earlier ones only.
    pub classes: Vec<ClientClass>,
    /// `shared-networks`, in order.
    pub shared_networks: Vec<SharedNetwork>,
    /// `subnet4` outside the networks, in order of the file. All ids are set, unique over networks too.
    pub subnets: Vec<Subnet4>,
    /// Global `reservations`.
    pub reservations: Vec<Host>,
    /// `host-reservation-identifiers`: the order of lookup. `auto` has become Kea's default order.
    pub host_identifiers: Vec<IdentifierKind>,
    /// `control-socket` and `control-sockets`.
    pub control_sockets: Vec<ControlSocket>,
    /// `hooks-libraries`, in order.
    pub hooks: Vec<HookLibrary>,
    /// `libdhcp_flex_id` among them, where it has an expression.
    pub flex_id: Option<FlexId>,
    /// `loggers`.
    pub loggers: Vec<Logger>,
    /// `multi-threading`.
    pub multi_threading: MultiThreading,
    /// `dhcp-queue-control`.
    pub queue_control: QueueControl,
    /// `dhcp-ddns`.
    pub dhcp_ddns: DhcpDdns,
    /// `compatibility`.
    pub compatibility: Compatibility,
    /// `echo-client-id` (true).
    pub echo_client_id: bool,
    /// `decline-probation-period`, seconds (86400).
    pub decline_probation_period_s: u32,
    /// `ip-reservations-unique` (true).
    pub ip_reservations_unique: bool,
    /// `early-global-reservations-lookup` (false).
    pub early_global_reservations_lookup: bool,
    /// `reservations-lookup-first` (false).
    pub reservations_lookup_first: bool,
    /// `parked-packet-limit` (256); 0: no limit.
    pub parked_packet_limit: u32,
    /// `server-tag`.
    pub server_tag: String,
    /// `statistic-default-sample-count` (20).
    pub statistic_sample_count: u32,
    /// `statistic-default-sample-age`, seconds (0).
    pub statistic_sample_age_s: u32,
    /// `stash-agent-options` (false).
    pub stash_agent_options: bool,
    /// `dhcp4o6-port` (0); not acted on.
    pub dhcp4o6_port: u16,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
    /// Our own settings, from `user-context.aplomado`.
    pub aplomado: Aplomado,
}

/// Our own settings: `"user-context": { "aplomado": { … } }` of `Dhcp4`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aplomado {
    /// `sync`: when rows of the lease file are made durable.
    pub sync: SyncMode,
    /// `max-leases`: how many leases the tables are made for; unset: derived from the pools.
    pub max_leases: Option<u64>,
}

/// `sync`: when rows of the lease file are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// `group`: before the reply leaves, many rows at a time.
    #[default]
    Group,
    /// `interval`: by a timer; replies do not wait.
    Interval,
    /// `never`: the kernel decides, as in Kea.
    Never,
}

/// A lifetime with its bounds, seconds: `min` ≤ `default` ≤ `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triplet {
    /// Least that a client may ask for.
    pub min: u32,
    /// What a client gets that asks for nothing.
    pub default: u32,
    /// Most that a client may ask for.
    pub max: u32,
}

/// The members of a triplet as one scope wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TripletSettings {
    /// `min-valid-lifetime`, seconds.
    pub min: Option<u32>,
    /// `valid-lifetime`, seconds.
    pub default: Option<u32>,
    /// `max-valid-lifetime`, seconds.
    pub max: Option<u32>,
}

/// What the global scope, a network or a subnet wrote itself; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScopeSettings {
    /// `valid-lifetime` and its bounds.
    pub valid_lifetime: TripletSettings,
    /// `renew-timer` (T1), seconds.
    pub renew_timer_s: Option<u32>,
    /// `rebind-timer` (T2), seconds.
    pub rebind_timer_s: Option<u32>,
    /// `calculate-tee-times`.
    pub calculate_tee_times: Option<bool>,
    /// `t1-percent`, a fraction.
    pub t1_percent: Option<f64>,
    /// `t2-percent`, a fraction.
    pub t2_percent: Option<f64>,
    /// `match-client-id`.
    pub match_client_id: Option<bool>,
    /// `authoritative`.
    pub authoritative: Option<bool>,
    /// `next-server`.
    pub next_server: Option<Ipv4Addr>,
    /// `server-hostname`, at most 63 octets.
    pub server_hostname: Option<String>,
    /// `boot-file-name`, at most 128 octets.
    pub boot_file_name: Option<String>,
    /// `store-extended-info`.
    pub store_extended_info: Option<bool>,
    /// `cache-threshold`, a fraction: 0 ≤ x < 1.
    pub cache_threshold: Option<f64>,
    /// `cache-max-age`, seconds.
    pub cache_max_age_s: Option<u32>,
    /// `adaptive-lease-time-threshold`, a fraction: 0 < x ≤ 1.
    pub adaptive_lease_time_threshold: Option<f64>,
    /// `allocator`.
    pub allocator: Option<Allocator>,
    /// `offer-lifetime`, seconds.
    pub offer_lifetime_s: Option<u32>,
    /// `reservations-global`, or what `reservation-mode` says of it.
    pub reservations_global: Option<bool>,
    /// `reservations-in-subnet`, or what `reservation-mode` says of it.
    pub reservations_in_subnet: Option<bool>,
    /// `reservations-out-of-pool`, or what `reservation-mode` says of it.
    pub reservations_out_of_pool: Option<bool>,
    /// `hostname-char-set`, `hostname-char-replacement`.
    pub hostname_char: HostnameChar,
    /// `ddns-*`.
    pub ddns: DdnsSettings,
}

/// What holds in a scope, everything inherited and defaulted.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `valid-lifetime` (7200) and its bounds (the same).
    pub valid_lifetime: Triplet,
    /// `renew-timer` (T1), seconds; unset: not sent unless calculated.
    pub renew_timer_s: Option<u32>,
    /// `rebind-timer` (T2), seconds; unset: not sent unless calculated.
    pub rebind_timer_s: Option<u32>,
    /// `calculate-tee-times` (false).
    pub calculate_tee_times: bool,
    /// `t1-percent` (0.5).
    pub t1_percent: f64,
    /// `t2-percent` (0.875).
    pub t2_percent: f64,
    /// `match-client-id` (true).
    pub match_client_id: bool,
    /// `authoritative` (false).
    pub authoritative: bool,
    /// `next-server` (0.0.0.0: none).
    pub next_server: Ipv4Addr,
    /// `server-hostname` (empty: none).
    pub server_hostname: String,
    /// `boot-file-name` (empty: none).
    pub boot_file_name: String,
    /// `store-extended-info` (false).
    pub store_extended_info: bool,
    /// `cache-threshold` (0.25); 0: no caching by share of the lifetime.
    pub cache_threshold: f64,
    /// `cache-max-age`, seconds; unset: no bound by age; 0: no caching at all.
    pub cache_max_age_s: Option<u32>,
    /// `adaptive-lease-time-threshold` (unset).
    pub adaptive_lease_time_threshold: Option<f64>,
    /// `allocator` (iterative).
    pub allocator: Allocator,
    /// `offer-lifetime`, seconds (0: offers write nothing).
    pub offer_lifetime_s: u32,
    /// `reservations-global` (false).
    pub reservations_global: bool,
    /// `reservations-in-subnet` (true).
    pub reservations_in_subnet: bool,
    /// `reservations-out-of-pool` (false).
    pub reservations_out_of_pool: bool,
    /// `hostname-char-set` (`[^A-Za-z0-9.-]`); empty: no cleaning. A regular expression that has been tried.
    pub hostname_char_set: String,
    /// `hostname-char-replacement` (empty).
    pub hostname_char_replacement: String,
    /// `ddns-send-updates` (true).
    pub ddns_send_updates: bool,
    /// `ddns-override-no-update` (false).
    pub ddns_override_no_update: bool,
    /// `ddns-override-client-update` (false).
    pub ddns_override_client_update: bool,
    /// `ddns-replace-client-name` (never).
    pub ddns_replace_client_name: ReplaceClientName,
    /// `ddns-generated-prefix` (myhost).
    pub ddns_generated_prefix: String,
    /// `ddns-qualifying-suffix` (empty).
    pub ddns_qualifying_suffix: String,
    /// `ddns-update-on-renew` (false).
    pub ddns_update_on_renew: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            valid_lifetime: Triplet { min: 7200, default: 7200, max: 7200 },
            renew_timer_s: None,
            rebind_timer_s: None,
            calculate_tee_times: false,
            t1_percent: 0.5,
            t2_percent: 0.875,
            match_client_id: true,
            authoritative: false,
            next_server: Ipv4Addr::UNSPECIFIED,
            server_hostname: String::new(),
            boot_file_name: String::new(),
            store_extended_info: false,
            cache_threshold: 0.25,
            cache_max_age_s: None,
            adaptive_lease_time_threshold: None,
            allocator: Allocator::Iterative,
            offer_lifetime_s: 0,
            reservations_global: false,
            reservations_in_subnet: true,
            reservations_out_of_pool: false,
            hostname_char_set: "[^A-Za-z0-9.-]".to_owned(),
            hostname_char_replacement: String::new(),
            ddns_send_updates: true,
            ddns_override_no_update: false,
            ddns_override_client_update: false,
            ddns_replace_client_name: ReplaceClientName::Never,
            ddns_generated_prefix: "myhost".to_owned(),
            ddns_qualifying_suffix: String::new(),
            ddns_update_on_renew: false,
        }
    }
}

/// `hostname-char-*` as one scope wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostnameChar {
    /// `hostname-char-set`: a regular expression of what is replaced.
    pub set: Option<String>,
    /// `hostname-char-replacement`.
    pub replacement: Option<String>,
}

/// `ddns-*` as one scope wrote them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DdnsSettings {
    /// `ddns-send-updates`.
    pub send_updates: Option<bool>,
    /// `ddns-override-no-update`.
    pub override_no_update: Option<bool>,
    /// `ddns-override-client-update`.
    pub override_client_update: Option<bool>,
    /// `ddns-replace-client-name`.
    pub replace_client_name: Option<ReplaceClientName>,
    /// `ddns-generated-prefix`.
    pub generated_prefix: Option<String>,
    /// `ddns-qualifying-suffix`.
    pub qualifying_suffix: Option<String>,
    /// `ddns-update-on-renew`.
    pub update_on_renew: Option<bool>,
    /// `ddns-use-conflict-resolution` (older spelling).
    pub use_conflict_resolution: Option<bool>,
    /// `ddns-conflict-resolution-mode`, the word.
    pub conflict_resolution_mode: Option<String>,
    /// `ddns-ttl-percent`.
    pub ttl_percent: Option<f64>,
    /// `ddns-ttl`, seconds.
    pub ttl_s: Option<u32>,
    /// `ddns-ttl-min`, seconds.
    pub ttl_min_s: Option<u32>,
    /// `ddns-ttl-max`, seconds.
    pub ttl_max_s: Option<u32>,
}

/// `ddns-replace-client-name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplaceClientName {
    /// `never`.
    #[default]
    Never,
    /// `always`.
    Always,
    /// `when-present`.
    WhenPresent,
    /// `when-not-present`.
    WhenNotPresent,
}

/// `allocator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocator {
    /// `iterative`: the address after the last one given.
    #[default]
    Iterative,
    /// `random`: any address, none twice before all were tried.
    Random,
    /// `flq`: the address that has been free longest.
    Flq,
}

/// `shared-networks`: subnets on one link.
#[derive(Clone, Debug, Default)]
pub struct SharedNetwork {
    /// The map.
    pub at: Span,
    /// `name`; not empty, unique.
    pub name: String,
    /// `interface`; empty: any.
    pub interface: String,
    /// `relay`.
    pub relays: Vec<Ipv4Addr>,
    /// What the network wrote.
    pub own: ScopeSettings,
    /// `client-classes` or `client-class`: the guard, any of these lets a query in; empty: no guard.
    pub guards: Vec<Placed<String>>,
    /// `evaluate-additional-classes` or `require-client-classes`.
    pub additional_classes: Vec<Placed<String>>,
    /// `option-data`.
    pub options: Vec<OptionData>,
    /// `subnet4`, in order of the file.
    pub subnets: Vec<Subnet4>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// One entry of `subnet4`.
#[derive(Clone, Debug)]
pub struct Subnet4 {
    /// The map.
    pub at: Span,
    /// `id`, or the one we gave; 1 to 4294967294.
    pub id: SubnetId,
    /// Whether the id was given by us.
    pub id_automatic: bool,
    /// The prefix, host bits cleared.
    pub prefix: Prefix4,
    /// `subnet` without blanks, host bits as written.
    pub text: String,
    /// `interface` of the subnet or its network; empty: any.
    pub interface: String,
    /// `relay`, its own or its network's.
    pub relays: Vec<Ipv4Addr>,
    /// What the subnet wrote.
    pub own: ScopeSettings,
    /// What holds in the subnet.
    pub settings: Settings,
    /// `client-classes` or `client-class`: the guard, any of these lets a query in; empty: no guard.
    pub guards: Vec<Placed<String>>,
    /// `evaluate-additional-classes` or `require-client-classes`.
    pub additional_classes: Vec<Placed<String>>,
    /// `option-data`.
    pub options: Vec<OptionData>,
    /// `pools`, by first address, none overlapping.
    pub pools: Vec<Pool4>,
    /// `reservations`, in order of the file.
    pub reservations: Vec<Host>,
    /// `4o6-interface`; not acted on.
    pub four_o6_interface: String,
    /// `4o6-interface-id`; not acted on.
    pub four_o6_interface_id: String,
    /// `4o6-subnet`; not acted on.
    pub four_o6_subnet: String,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// An IPv4 prefix, host bits clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix4 {
    /// The first address.
    pub first: Ipv4Addr,
    /// 0 to 32.
    pub length: u8,
}

/// The mask of a prefix of 0 to 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is the mask")]
pub(crate) const fn netmask_bits(length: u8) -> u32 {
    (u64::MAX << 32 >> (length & 63)) as u32
}

impl Prefix4 {
    /// The prefix of `length` bits around `address`; nothing when there are more than 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Self> {
        (length <= 32)
            .then(|| Self { first: Ipv4Addr::from_bits(address.to_bits() & netmask_bits(length)), length })
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) | u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0))
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last()
    }
}

/// One entry of `pools`: `first` ≤ `last`, inside the subnet.
#[derive(Clone, Debug)]
pub struct Pool4 {
    /// The map.
    pub at: Span,
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, inclusive.
    pub last: Ipv4Addr,
    /// `pool-id`; 0: none.
    pub pool_id: u32,
    /// `client-classes` or `client-class`: the guard, any of these lets a query in; empty: no guard.
    pub guards: Vec<Placed<String>>,
    /// `evaluate-additional-classes` or `require-client-classes`.
    pub additional_classes: Vec<Placed<String>>,
    /// `option-data`.
    pub options: Vec<OptionData>,
    /// `hostname-char-*`.
    pub hostname_char: HostnameChar,
    /// `ddns-*`.
    pub ddns: DdnsSettings,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}
