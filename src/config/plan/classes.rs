//! Client classes as a plan holds them: their names, their definitions, and guards made of them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::{BootFields, Lifetimes, ScopeIndex};
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

/// Classes of which a query must have at least one; without any, everybody passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard(pub Box<[ClassId]>);

impl Guard {
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
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name's number.
    pub id: ClassId,
    /// When it is evaluated.
    pub stage: Stage,
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
}

impl Default for ClassNames {
    fn default() -> Self {
        let mut names = Self { names: Vec::new(), by_name: HashMap::new() };
        for name in FIXED {
            names.intern(name);
        }
        names
    }
}

impl ClassNames {
    /// The number of `name`, which is given one if it has none yet; nothing once all 65,536 numbers are taken.
    pub fn intern(&mut self, name: &str) -> Option<ClassId> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        let id = ClassId(u16::try_from(self.names.len()).ok()?);
        self.names.push(name.into());
        self.by_name.insert(name.into(), id);
        Some(id)
    }

    /// The number of `name`; nothing when the configuration does not speak of it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ClassId> {
        self.by_name.get(name).copied()
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
