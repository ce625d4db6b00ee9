//! Client classes as a plan holds them: their names, their definitions, and guards made of them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::{BootFields, Lifetimes, ScopeIndex};
use crate::expr::{CLASS_IDS_MAX, Program};
use crate::ids::ClassId;

/// `ALL`: every query has it.
pub const ALL: ClassId = ClassId(0);
/// `KNOWN`: a reservation was found.
pub const KNOWN: ClassId = ClassId(1);
/// `UNKNOWN`: no reservation was found.
pub const UNKNOWN: ClassId = ClassId(2);
/// `BOOTP`: the query has no message type.
pub const BOOTP: ClassId = ClassId(3);
/// `DROP`: the query is dropped.
pub const DROP: ClassId = ClassId(4);
/// `REJECT`: a request is refused.
pub const REJECT: ClassId = ClassId(5);

/// The names of the classes above, in their order.
const FIXED: [&str; 6] = ["ALL", "KNOWN", "UNKNOWN", "BOOTP", "DROP", "REJECT"];

/// What the name of a query's vendor class begins with.
const VENDOR_CLASS_PREFIX: &[u8] = b"VENDOR_CLASS_";
/// Longest name that is put together per query.
const JOINED_BYTES_MAX: usize = 1024;

/// Whether tests may refer to `name` without a definition.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    let after = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start == prefix) && name.len() > prefix.len()
    };
    let scope = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("HA_")) && name.len() > 3;
    FIXED[..4].contains(&name) || scope || ["VENDOR_CLASS_", "AFTER_", "EXTERNAL_"].into_iter().any(after)
}

/// How a class is decided.
#[derive(Debug)]
pub enum Test {
    /// A member when true.
    Bool(Program),
    /// A member when the value is not empty, and of the class that this text and the value name.
    Template(Program, Box<[u8]>),
}

impl Test {
    /// Whether it asks for membership in `class`.
    #[must_use]
    pub fn depends_on(&self, class: ClassId) -> bool {
        match self {
            Self::Bool(program) | Self::Template(program, _) => program.depends_on(class),
        }
    }
}

/// Classes of which a query must have at least one; without any, everybody passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard(pub Box<[ClassId]>);

impl Guard {
    /// Whether every query passes.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a query with `classes` passes.
    #[must_use]
    pub fn admits(&self, classes: &[ClassId]) -> bool {
        self.0.is_empty() || self.0.iter().any(|class| classes.contains(class))
    }
}

/// When a class is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As soon as the query is parsed.
    First,
    /// After the search for reservations: its test depends on `KNOWN` or `UNKNOWN`.
    AfterKnown,
    /// Not by itself: it has no test, or it is only for lists of additional classes.
    OnDemand,
}

/// A class that the configuration defines.
#[derive(Debug)]
pub struct Class {
    /// Its name's number.
    pub id: ClassId,
    /// When it is evaluated.
    pub stage: Stage,
    /// How it is decided; nothing for a class that is only assigned.
    pub test: Option<Test>,
    /// Its options.
    pub options: ScopeIndex,
    /// Boot fields, which go before the subnet's.
    pub boot: BootFields,
    /// Lifetimes, which go before the subnet's.
    pub lifetimes: Option<Lifetimes>,
    /// `offer-lifetime`, seconds.
    pub offer_lifetime_s: Option<u32>,
    /// Its option 54, which makes that address the server's for queries of this class.
    pub server_identifier: Option<Ipv4Addr>,
}

/// All names of classes that a configuration defines or refers to, and the six that are always there.
#[derive(Clone, Debug)]
pub struct ClassNames {
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, ClassId>,
    /// Whether any name is that of a vendor class: most configurations speak of none, and most clients have one.
    has_vendor: bool,
}

impl Default for ClassNames {
    fn default() -> Self {
        let mut names = Self { names: Vec::new(), by_name: HashMap::new(), has_vendor: false };
        for name in FIXED {
            names.intern(name);
        }
        names
    }
}

impl ClassNames {
    /// The number of `name`, which is given one if it has none yet; nothing once all [`CLASS_IDS_MAX`] are taken.
    pub fn intern(&mut self, name: &str) -> Option<ClassId> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        let id = ClassId(u16::try_from(self.names.len()).ok()?);
        if usize::from(id.0) >= CLASS_IDS_MAX {
            return None;
        }
        self.has_vendor |= name.as_bytes().starts_with(VENDOR_CLASS_PREFIX);
        self.names.push(name.into());
        self.by_name.insert(name.into(), id);
        Some(id)
    }

    /// The number of `name`; nothing when the configuration does not speak of it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ClassId> {
        self.by_name.get(name).copied()
    }

    /// The number of the name that `parts` make together. What is longer than a name of a class can be is none.
    #[must_use]
    pub fn find_joined(&self, parts: [&[u8]; 2]) -> Option<ClassId> {
        let mut name = [0; JOINED_BYTES_MAX];
        let mut bytes = 0;
        for part in parts {
            name.get_mut(bytes..bytes + part.len())?.copy_from_slice(part);
            bytes += part.len();
        }
        self.find(std::str::from_utf8(&name[..bytes]).ok()?)
    }

    /// The class `VENDOR_CLASS_` with the vendor class of a query (option 60): as it is, which is what Kea up to 3.0
    /// calls it, and escaped, where that differs.
    pub fn of_vendor(&self, vendor_class: &[u8]) -> impl Iterator<Item = ClassId> {
        let vendor_class = if self.has_vendor { vendor_class } else { &[] };
        let mut escaped = [0; 3 * u8::MAX as usize];
        let mut bytes = 0;
        for &octet in vendor_class {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
            let whole = [b'%', digit(octet >> 4), digit(octet)];
            let part: &[u8] = match octet {
                b'%' => b"%%",
                _ if octet.is_ascii_alphanumeric() || b"!#$&*+-./:?@^_|~".contains(&octet) => &whole[..1],
                _ => &whole,
            };
            let Some(room) = escaped.get_mut(bytes..bytes + part.len()) else { break };
            room.copy_from_slice(part);
            if part.len() == 1 {
                room[0] = octet;
            }
            bytes += part.len();
        }
        let raw = if self.has_vendor { self.find_joined([VENDOR_CLASS_PREFIX, vendor_class]) } else { None };
        let escaped = Some(&escaped[..bytes])
            .filter(|escaped| *escaped != vendor_class)
            .and_then(|escaped| self.find_joined([VENDOR_CLASS_PREFIX, escaped]));
        raw.into_iter().chain(escaped)
    }

    /// The classes of the HA scope `server`: `HA_server`, and `ha_server` as the guide of 2018 spells it.
    pub fn of_scope(&self, server: &str) -> impl Iterator<Item = ClassId> {
        ["HA_", "ha_"].into_iter().filter_map(move |prefix| self.find(&format!("{prefix}{server}")))
    }

    /// The name of `id`.
    #[must_use]
    pub fn name(&self, id: ClassId) -> &str {
        &self.names[usize::from(id.0)]
    }

    /// How many names there are; their numbers are all below.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len()
    }
}
