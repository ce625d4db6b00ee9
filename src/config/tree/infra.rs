//! What the server runs on and how it is spoken to.

use std::net::{IpAddr, Ipv4Addr};

use super::super::json::{Placed, Span, Value};

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
#[derive(Clone, Debug, Default)]
pub struct LeaseDatabase {
    /// `persist`, if it is written; else true.
    pub persist: Option<bool>,
    /// `name`: the path; unset: the default place.
    pub name: Option<String>,
    /// `lfc-interval` in seconds, if it is written; else 3600. 0: never.
    pub lfc_interval_s: Option<u32>,
    /// `max-row-errors` (0: any number).
    pub max_row_errors: u32,
    /// Members that mean nothing for a memfile, kept for `config-get`.
    pub ignored: Vec<(String, Value)>,
    /// `user-context` with `comment` folded in.
    pub user_context: Option<Value>,
}

impl LeaseDatabase {
    /// Whether leases are kept in a file.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.persist.unwrap_or(true)
    }

    /// Seconds between two clean-ups of the file; 0: never.
    #[must_use]
    pub fn cleanup_interval_s(&self) -> u32 {
        self.lfc_interval_s.unwrap_or(3600)
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

/// What `libdhcp_flex_id` is told.
#[derive(Clone, Debug)]
pub struct FlexId {
    /// `identifier-expression`, not yet compiled.
    pub expression: Placed<String>,
    /// `replace-client-id` (false): the identifier takes the place of the client's for everything but the HA scope.
    pub replace_client_id: bool,
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
