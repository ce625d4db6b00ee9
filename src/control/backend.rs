//! What the control API needs of the rest of the server.
//!
//! Facts are asked synchronously and must be at hand: nothing here may wait. Work is ordered by [`Backend::submit`]
//! under a [`Ticket`] and comes back, any time later, through [`super::event_loop::ControlLoop::complete`].

use std::net::Ipv4Addr;

use serde_json::Value;

use super::command::{Answer, Command};
use super::statistics::Snapshot;
use crate::config::tree::Prefix4;
use crate::ids::SubnetId;
use crate::lease::request::{LeaseReply, LeaseRequest};
use crate::time::Now;

/// The name of one piece of work that a command waits for. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The daemons that one process can be, by the blocks of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Daemon {
    /// `Dhcp4`.
    Dhcp4,
    /// `Dhcp6`.
    Dhcp6,
    /// `Control-agent`.
    Agent,
}

impl Daemon {
    /// The name of its block in a configuration.
    #[must_use]
    pub const fn block(self) -> &'static str {
        match self {
            Self::Dhcp4 => "Dhcp4",
            Self::Dhcp6 => "Dhcp6",
            Self::Agent => "Control-agent",
        }
    }

    /// The name by which `service` addresses it.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::Dhcp4 => "dhcp4",
            Self::Dhcp6 => "dhcp6",
            Self::Agent => "control-agent",
        }
    }

    /// The default realm of its basic authentication.
    #[must_use]
    pub const fn realm(self) -> &'static str {
        match self {
            Self::Dhcp4 => "kea-dhcpv4-server",
            Self::Dhcp6 => "kea-dhcpv6-server",
            Self::Agent => "kea-control-agent",
        }
    }
}

/// Work that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask or change leases. A listing comes back merged from all shards, ascending by address, at most `limit`;
    /// fewer than `limit` leases mean that there are no more. A change comes back when it is durable.
    Lease(LeaseRequest),
    /// Work on the configuration.
    Config(ConfigOrder),
    /// Write the lease database to this file (`lease4-write`).
    WriteLeases(String),
    /// Start the clean-up of the lease file (`kea-lfc-start`); comes back when it has started.
    CleanLeaseFile,
    /// Answer a whole command that another room knows (HA), registered by
    /// [`super::table::CommandTable::register_elsewhere`]; comes back as [`Completion::Answer`].
    Command(Box<Command>),
}

/// Work on a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOrder {
    /// Whose configuration.
    pub daemon: Daemon,
    /// What to do.
    pub action: ConfigAction,
}

/// What to do with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigAction {
    /// Check it without applying it.
    Test(ConfigText),
    /// Apply it; on failure the running one stays.
    Set(ConfigText),
    /// Read the start-up file again and apply it.
    Reload,
    /// Write the running configuration to this file; without a name to the start-up file.
    Write(Option<String>),
}

/// A configuration inside a command: its text with its place, so that faults can name positions in the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// The whole command as it came.
    pub command: Vec<u8>,
    /// Where in `command` the value of the daemon's block stands.
    pub block: std::ops::Range<usize>,
}

/// What became of an [`Order`].
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// Of [`Order::Lease`].
    Lease(LeaseReply),
    /// Of [`Order::Config`] with `Test`, `Set`, `Reload`: done, or the code and text of the first error.
    Config(Result<(), ConfigFailure>),
    /// Of [`ConfigAction::Write`]: the file and its size in octets, or what went wrong.
    Written(Result<WrittenFile, String>),
    /// Of [`Order::WriteLeases`]: done, or what went wrong.
    LeasesWritten(Result<(), String>),
    /// Of [`Order::CleanLeaseFile`].
    LeaseFile(LfcStart),
    /// The whole answer: commands that another room answers (HA).
    Answer(Answer),
}

/// Why a configuration was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFailure {
    /// 1 when the old configuration stays in force, 5 when the server cannot go on as configured.
    pub fatal: bool,
    /// What is wrong and where.
    pub text: String,
}

/// A configuration that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its name as given or as at start.
    pub file: String,
    /// Its size.
    pub bytes: u64,
}

/// What became of a request to clean up the lease file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LfcStart {
    /// It runs now.
    Started,
    /// It was running already.
    Running,
    /// It could not be started.
    Failed,
    /// Leases are not kept in a file (`persist` false).
    NotPersisted,
}

/// What lease and subnet commands need to know of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetFacts {
    /// Its identifier.
    pub id: SubnetId,
    /// Its network address.
    pub network: Ipv4Addr,
    /// Octets of its prefix, 0 to 32.
    pub prefix_len: u8,
    /// `valid-lifetime`, seconds.
    pub valid_lft_s: u32,
    /// The shared network it is part of.
    pub shared_network: Option<String>,
}

impl SubnetFacts {
    /// Whether `address` is inside.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        Prefix4 { first: self.network, length: self.prefix_len }.contains(address)
    }

    /// The prefix as Kea prints it.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/{}", self.network, self.prefix_len)
    }
}

/// A query made up for `subnet4-select-test`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectQuery {
    /// Name of the interface of arrival.
    pub interface: Option<String>,
    /// `ciaddr`.
    pub address: Option<Ipv4Addr>,
    /// `giaddr`.
    pub relay: Option<Ipv4Addr>,
    /// Destination address.
    pub local: Option<Ipv4Addr>,
    /// Source address.
    pub remote: Option<Ipv4Addr>,
    /// Relay agent's link selection sub-option.
    pub link: Option<Ipv4Addr>,
    /// Subnet selection option.
    pub subnet: Option<Ipv4Addr>,
    /// Classes of the query.
    pub classes: Vec<String>,
}

/// An interface as `interface-list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Its hardware address, colon hex.
    pub mac: String,
    /// The kernel's `ARPHRD_` number.
    pub hw_type: u16,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_RUNNING`.
    pub running: bool,
    /// `IFF_MULTICAST`.
    pub multicast: bool,
    /// `IFF_BROADCAST`.
    pub broadcast: bool,
    /// Whether clients are served on it.
    pub in_use: bool,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// Whether the DHCP sockets are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SocketsStatus {
    /// All are.
    #[default]
    Ready,
    /// Some are not and are tried again; why.
    Retrying(Vec<String>),
    /// Some are not and will not be; why.
    Failed(Vec<String>),
}

/// What `status-get` tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Seconds since start.
    pub uptime_s: u64,
    /// Seconds since the configuration was last applied.
    pub reload_s: u64,
    /// Number of shards.
    pub thread_count: u32,
    /// Size of the queue before each shard, packets.
    pub packet_queue_size: u32,
    /// Mean queue length over 10, 100 and 1000 packets.
    pub packet_queue_means: [f64; 3],
    /// Path of the lease file when leases are kept in one.
    pub lease_file: Option<String>,
    /// The DHCP sockets.
    pub sockets: SocketsStatus,
    /// The origins that hold the DHCP service off, as [`super::disabling::Disabling`] numbers them.
    pub disabled_by: Vec<u32>,
    /// The list `high-availability`, when there is HA.
    pub high_availability: Option<Value>,
}

/// Which optional sets of commands are there: those whose library the configuration names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `libdhcp_lease_cmds`.
    pub lease_cmds: bool,
    /// `libdhcp_ha`.
    pub ha: bool,
}

/// The rest of the server, as the control API sees it. No method may wait.
pub trait Backend {
    /// The time now.
    fn now(&mut self) -> Now;
    /// Wall-clock time in microseconds since the Unix epoch.
    fn wall_us(&mut self) -> u64;
    /// Orders work; `ticket` comes back through [`super::event_loop::ControlLoop::complete`] exactly once. It must not be completed from
    /// inside this call.
    fn submit(&mut self, ticket: Ticket, order: Order);

    /// Which optional commands are there.
    fn features(&self) -> Features;
    /// The subnet of this identifier.
    fn subnet(&self, id: SubnetId) -> Option<SubnetFacts>;
    /// The subnet that holds this address, whatever its class guards.
    fn subnet_of(&self, address: Ipv4Addr) -> Option<SubnetFacts>;
    /// All subnets, ascending by identifier.
    fn subnets(&self) -> Vec<SubnetFacts>;
    /// A subnet as `config-get` shows it, in Kea's printed form.
    fn subnet_config(&self, id: SubnetId) -> Option<Vec<u8>>;
    /// The names of the shared networks, in the order of the configuration.
    fn shared_networks(&self) -> Vec<String>;
    /// A shared network as `config-get` shows it, in Kea's printed form.
    fn shared_network_config(&self, name: &str) -> Option<Vec<u8>>;
    /// The subnet that a query would be served from.
    fn select_subnet(&self, query: &SelectQuery) -> Option<SubnetFacts>;

    /// The value of the block of `daemon` in the running configuration, in Kea's printed form.
    fn config(&self, daemon: Daemon) -> Vec<u8>;
    /// `server-tag`; empty when there is none.
    fn server_tag(&self) -> String;
    /// What `status-get` tells.
    fn status(&mut self) -> Status;
    /// The interfaces; looks again when `scan` is true.
    fn interfaces(&mut self, scan: bool) -> Vec<InterfaceFacts>;
    /// Fills in the counters of this moment, summed over the shards.
    fn sample(&mut self, into: &mut Snapshot);

    /// `origin` takes the DHCP service away, for `max_period_s` seconds at most when that is given.
    fn dhcp_disable(&mut self, origin: u32, max_period_s: Option<u64>);
    /// `origin` gives the DHCP service back.
    fn dhcp_enable(&mut self, origin: u32);
    /// Ends the process with `exit_value` once the answer has left (within two seconds in any case).
    fn shutdown(&mut self, exit_value: i64);
}
