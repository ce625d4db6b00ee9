//! Options, option definitions, client classes, hosts.

use std::net::Ipv4Addr;

use super::super::json::{Placed, Span, Value};
use super::TripletSettings;

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
