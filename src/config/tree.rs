//! The typed tree: what a configuration says, every word understood, defaults and inheritance resolved.
//!
//! Structures only. Where a value can be inherited, two things are kept: what the scope itself wrote
//! ([`ScopeSettings`], for `config-get`) and what holds there ([`Settings`], for those who serve). Places are kept
//! where another room may still find fault (options, class tests, HA parameters).
//!
//! Seconds are `u32` with `u32::MAX` for "never ends", as on the wire. Class names are text here: the plan numbers
//! them.

use std::net::{IpAddr, Ipv4Addr};

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

impl Prefix4 {
    /// The prefix of `length` bits around `address`; nothing when there are more than 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Self> {
        let host_bits = 32_u8.checked_sub(length)?;
        let mask = u32::MAX.checked_shl(u32::from(host_bits)).unwrap_or(0);
        Some(Self { first: Ipv4Addr::from(u32::from(address) & mask), length })
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

/// One entry of `option-data`. Name or code is there; name, code, space and definition have not been compared yet
/// and the data is text: that is the work of whoever encodes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptionData {
    /// The map.
    pub at: Span,
    /// `name`.
    pub name: Option<Placed<String>>,
    /// `code`, 1 to 254.
    pub code: Option<Placed<u16>>,
    /// `space` (`dhcp4`).
    pub space: Option<Placed<String>>,
    /// `csv-format`; unset: true where there is a definition.
    pub csv_format: Option<bool>,
    /// `data`; absent is empty text at the place of the map.
    pub data: Placed<String>,
    /// `always-send` (false).
    pub always_send: bool,
    /// `never-send` (false).
    pub never_send: bool,
    /// `client-classes`: only for queries in one of these; empty: for all.
    pub client_classes: Vec<Placed<String>>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// One entry of `option-def`. The members are there and of their types; whether they make a definition is the work
/// of whoever keeps the definitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptionDef {
    /// The map.
    pub at: Span,
    /// `name`.
    pub name: Placed<String>,
    /// `code`.
    pub code: Placed<i64>,
    /// `type`, the word.
    pub type_word: Placed<String>,
    /// `space` (`dhcp4`).
    pub space: Option<Placed<String>>,
    /// `array` (false).
    pub array: bool,
    /// `record-types` (empty).
    pub record_types: Placed<String>,
    /// `encapsulate` (empty).
    pub encapsulate: Placed<String>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// One entry of `client-classes`.
#[derive(Clone, Debug, Default)]
pub struct ClientClass {
    /// The map.
    pub at: Span,
    /// `name`; not empty, unique.
    pub name: Placed<String>,
    /// `test` or `template-test`; not parsed yet.
    pub test: ClassTest,
    /// `only-in-additional-list` or `only-if-required` (false).
    pub only_in_additional_list: bool,
    /// `option-def`.
    pub option_defs: Vec<OptionDef>,
    /// `option-data`.
    pub options: Vec<OptionData>,
    /// `next-server`.
    pub next_server: Option<Ipv4Addr>,
    /// `server-hostname`.
    pub server_hostname: Option<String>,
    /// `boot-file-name`.
    pub boot_file_name: Option<String>,
    /// `valid-lifetime` and its bounds as written; with any bound there is a default.
    pub valid_lifetime: TripletSettings,
    /// `offer-lifetime`, seconds.
    pub offer_lifetime_s: Option<u32>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// How a class is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ClassTest {
    /// Not by an expression: built in, or assigned by HA, a host or nobody.
    #[default]
    None,
    /// `test`: a member when true.
    Test(Placed<String>),
    /// `template-test`: a member of `SPAWN_name_value`.
    Template(Placed<String>),
}

/// What a host is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentifierKind {
    /// `hw-address`, at most 20 octets.
    HwAddress,
    /// `duid`, 3 to 130 octets.
    Duid,
    /// `circuit-id`, at most 128 octets.
    CircuitId,
    /// `client-id`, 2 to 255 octets.
    ClientId,
    /// `flex-id`, at most 128 octets.
    FlexId,
}

/// One entry of `reservations`.
#[derive(Clone, Debug)]
pub struct Host {
    /// The map.
    pub at: Span,
    /// Which identifier it has.
    pub kind: IdentifierKind,
    /// The identifier's octets (of a hardware address without its type).
    pub identifier: Box<[u8]>,
    /// `ip-address`.
    pub address: Option<Placed<Ipv4Addr>>,
    /// `hostname` (empty: none).
    pub hostname: String,
    /// `client-classes`.
    pub client_classes: Vec<Placed<String>>,
    /// `option-data`.
    pub options: Vec<OptionData>,
    /// `next-server`; 0.0.0.0: none.
    pub next_server: Ipv4Addr,
    /// `server-hostname` (empty: none).
    pub server_hostname: String,
    /// `boot-file-name` (empty: none).
    pub boot_file_name: String,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// `interfaces-config`.
#[derive(Clone, Debug)]
pub struct InterfacesConfig {
    /// `interfaces`, in order; empty: nobody is served.
    pub interfaces: Vec<Placed<InterfaceChoice>>,
    /// `dhcp-socket-type` as written; unset: raw.
    pub socket_type: Option<SocketType>,
    /// `outbound-interface` is `use-routing` (false: `same-as-inbound`).
    pub outbound_use_routing: Option<bool>,
    /// `re-detect` (true).
    pub re_detect: bool,
    /// `service-sockets-require-all` (false).
    pub require_all: Option<bool>,
    /// `service-sockets-retry-wait-time`, milliseconds (5000).
    pub retry_wait_ms: Option<u32>,
    /// `service-sockets-max-retries` (0).
    pub max_retries: Option<u32>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

impl Default for InterfacesConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            socket_type: None,
            outbound_use_routing: None,
            re_detect: true,
            require_all: None,
            retry_wait_ms: None,
            max_retries: None,
            user_context: None,
        }
    }
}

/// One entry of `interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// `*`: all that are up, running, not loopback and have an address.
    All,
    /// `eth0`: its first address.
    Name(String),
    /// `eth0/192.0.2.1`.
    Address(String, Ipv4Addr),
}

/// `dhcp-socket-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketType {
    /// `raw`.
    #[default]
    Raw,
    /// `udp`.
    Udp,
}

/// `lease-database`, of type `memfile`.
#[derive(Clone, Debug)]
pub struct LeaseDatabase {
    /// `persist` (true).
    pub persist: bool,
    /// `name`: the path; unset: the default place.
    pub name: Option<String>,
    /// `lfc-interval`, seconds (3600); 0: never.
    pub lfc_interval_s: u32,
    /// `max-row-errors` (0: any number).
    pub max_row_errors: u32,
    /// Members that mean nothing for a memfile, kept for `config-get`.
    pub ignored: Vec<(String, Value)>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

impl Default for LeaseDatabase {
    fn default() -> Self {
        Self {
            persist: true,
            name: None,
            lfc_interval_s: 3600,
            max_row_errors: 0,
            ignored: Vec::new(),
            user_context: None,
        }
    }
}

/// `expired-leases-processing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredLeases {
    /// `reclaim-timer-wait-time`, seconds (10); 0: no reclamation.
    pub reclaim_wait_s: u32,
    /// `flush-reclaimed-timer-wait-time`, seconds (25); 0: reclaimed leases stay, no affinity on release.
    pub flush_wait_s: u32,
    /// `hold-reclaimed-time`, seconds (3600); 0: no affinity.
    pub hold_s: u32,
    /// `max-reclaim-leases` per cycle (100); 0: no limit.
    pub max_leases: u32,
    /// `max-reclaim-time` per cycle, milliseconds (250); 0: no limit.
    pub max_ms: u32,
    /// `unwarned-reclaim-cycles` (5).
    pub unwarned_cycles: u32,
}

impl Default for ExpiredLeases {
    fn default() -> Self {
        Self {
            reclaim_wait_s: 10,
            flush_wait_s: 25,
            hold_s: 3600,
            max_leases: 100,
            max_ms: 250,
            unwarned_cycles: 5,
        }
    }
}

/// `sanity-checks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SanityChecks {
    /// `lease-checks`.
    pub lease_checks: LeaseChecks,
    /// `extended-info-checks`; unset: `fix`.
    pub extended_info: Option<ExtendedInfoChecks>,
}

/// `lease-checks`: what happens to a lease of the file whose subnet id does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseChecks {
    /// `none`.
    None,
    /// `warn`.
    #[default]
    Warn,
    /// `fix`.
    Fix,
    /// `fix-del`.
    FixDel,
    /// `del`.
    Del,
}

/// `extended-info-checks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedInfoChecks {
    /// `none`.
    None,
    /// `fix`.
    #[default]
    Fix,
    /// `strict`.
    Strict,
    /// `pedantic`.
    Pedantic,
}

/// A place where commands are taken.
#[derive(Clone, Debug)]
pub struct ControlSocket {
    /// The map.
    pub at: Span,
    /// Whether it was written as the single map `control-socket`.
    pub legacy: bool,
    /// What it is.
    pub kind: ControlSocketKind,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// The kinds of control sockets.
#[derive(Clone, Debug)]
pub enum ControlSocketKind {
    /// `unix`: the path.
    Unix(String),
    /// `http` or `https`.
    Http(Box<HttpSocket>),
}

/// A listener for commands over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSocket {
    /// `socket-address` or `http-host` (127.0.0.1).
    pub address: IpAddr,
    /// `socket-port` or `http-port` (8000).
    pub port: u16,
    /// Whether it says `https` or has a certificate.
    pub tls: Option<TlsFiles>,
    /// `cert-required` (true).
    pub cert_required: bool,
    /// `authentication`.
    pub authentication: Option<Authentication>,
    /// `http-headers`: name and value.
    pub headers: Vec<(String, String)>,
}

/// The three files of TLS: all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `trust-anchor`: a file or a folder.
    pub trust_anchor: String,
    /// `cert-file`.
    pub cert_file: String,
    /// `key-file`.
    pub key_file: String,
}

/// `authentication`, of type `basic`.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// `realm`.
    pub realm: String,
    /// `directory` of the files below.
    pub directory: String,
    /// `clients`.
    pub clients: Vec<AuthClient>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// One entry of `clients`.
#[derive(Clone, Debug, Default)]
pub struct AuthClient {
    /// `user` or `user-file`.
    pub user: Secret,
    /// `password` or `password-file`; unset: empty.
    pub password: Option<Secret>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// A text of the configuration or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text itself.
    Text(String),
    /// A file name, under `directory` when relative.
    File(String),
}

impl Default for Secret {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A tree may end in a log: texts that open doors do not go with it.
            Self::Text(_) => out.write_str("Text(*****)"),
            Self::File(name) => out.debug_tuple("File").field(name).finish(),
        }
    }
}

/// One entry of `hooks-libraries`: names a built-in feature.
#[derive(Clone, Debug)]
pub struct HookLibrary {
    /// The map.
    pub at: Span,
    /// `library` as written.
    pub path: String,
    /// Which of our features it names.
    pub feature: Feature,
    /// `parameters`, free JSON with places.
    pub parameters: Option<Value>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// A feature that Kea has as a library and we have built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// `libdhcp_lease_cmds`.
    LeaseCmds,
    /// `libdhcp_ha`.
    Ha,
    /// `libdhcp_stat_cmds`.
    StatCmds,
    /// `libdhcp_subnet_cmds`.
    SubnetCmds,
    /// `libdhcp_flex_id`.
    FlexId,
}

/// One entry of `loggers`.
#[derive(Clone, Debug, Default)]
pub struct Logger {
    /// `name`; empty: the daemon's root.
    pub name: String,
    /// `severity`.
    pub severity: Severity,
    /// `debuglevel`, 0 to 99.
    pub debug_level: u8,
    /// `output-options` or `output_options`.
    pub outputs: Vec<LogOutput>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// `severity` of a logger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `DEBUG`.
    Debug,
    /// `INFO`.
    #[default]
    Info,
    /// `WARN`.
    Warn,
    /// `ERROR`.
    Error,
    /// `FATAL`.
    Fatal,
    /// `NONE`.
    None,
}

/// One entry of `output-options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOutput {
    /// `output`: `stdout`, `stderr`, `syslog`, `syslog:facility` or a path.
    pub output: String,
    /// `flush` (true).
    pub flush: bool,
    /// `maxsize`, octets (10240000); under 204800: no rotation.
    pub max_size_bytes: u64,
    /// `maxver` (1).
    pub max_versions: u32,
    /// `pattern` (empty).
    pub pattern: String,
}

/// `multi-threading`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiThreading {
    /// `enable-multi-threading` (true).
    pub enabled: bool,
    /// `thread-pool-size` (0: one shard per core).
    pub thread_pool_size: u16,
    /// `packet-queue-size` (64).
    pub packet_queue_size: u16,
}

impl Default for MultiThreading {
    fn default() -> Self {
        Self { enabled: true, thread_pool_size: 0, packet_queue_size: 64 }
    }
}

/// `dhcp-queue-control`; not acted on: our queues are the rings of the shards.
#[derive(Clone, Debug)]
pub struct QueueControl {
    /// `enable-queue` (false).
    pub enable_queue: bool,
    /// `queue-type` (`kea-ring4`).
    pub queue_type: String,
    /// `capacity` (64).
    pub capacity: u32,
    /// Other members: Kea takes any.
    pub others: Vec<(String, Value)>,
}

impl Default for QueueControl {
    fn default() -> Self {
        Self { enable_queue: false, queue_type: "kea-ring4".to_owned(), capacity: 64, others: Vec::new() }
    }
}

/// `dhcp-ddns`; updates are off, always: switching them on is refused.
#[derive(Clone, Debug)]
pub struct DhcpDdns {
    /// `server-ip` (127.0.0.1).
    pub server_ip: IpAddr,
    /// `server-port` (53001).
    pub server_port: u16,
    /// `sender-ip`; unset: any.
    pub sender_ip: Option<IpAddr>,
    /// `sender-port` (0: any).
    pub sender_port: u16,
    /// `max-queue-size` (1024).
    pub max_queue_size: u32,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

impl Default for DhcpDdns {
    fn default() -> Self {
        Self {
            server_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            server_port: 53001,
            sender_ip: None,
            sender_port: 0,
            max_queue_size: 1024,
            user_context: None,
        }
    }
}

/// `compatibility`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compatibility {
    /// `lenient-option-parsing` (false).
    pub lenient_option_parsing: bool,
    /// `ignore-dhcp-server-identifier` (false).
    pub ignore_dhcp_server_identifier: bool,
    /// `ignore-rai-link-selection` (false).
    pub ignore_rai_link_selection: bool,
    /// `exclude-first-last-24` (false).
    pub exclude_first_last_24: bool,
}

/// The block `Control-agent`.
#[derive(Clone, Debug)]
pub struct ControlAgent {
    /// The map.
    pub at: Span,
    /// `http-host`, `http-port`, TLS files, `authentication`, `http-headers`.
    pub listener: HttpSocket,
    /// `http-host` as written.
    pub http_host: String,
    /// `control-sockets`: where the servers behind it listen.
    pub sockets: Vec<AgentSocket>,
    /// `hooks-libraries`, by path; nothing is loaded.
    pub hooks: Vec<(String, Option<Value>)>,
    /// `loggers`.
    pub loggers: Vec<Logger>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

/// A server behind the agent.
#[derive(Clone, Debug)]
pub struct AgentSocket {
    /// The service: `dhcp4`, `dhcp6` or `d2`.
    pub service: String,
    /// `socket-name`: the path.
    pub path: String,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}
