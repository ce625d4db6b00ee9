//! What names in a class's test stand for, and what the test depends on.

use std::cell::RefCell;

use super::classes::{ClassNames, is_built_in};
use crate::config::option::{Definition, Definitions, Kind};
use crate::expr::{Content, Family, Names, standard_content, standard_sub_options_at};
use crate::ids::ClassId;

/// The names that a test may use at its place in the configuration.
pub(super) struct Surrounding<'a> {
    /// Option definitions.
    pub(super) definitions: &'a Definitions,
    /// All class names: built-in ones are given numbers as they are met.
    pub(super) names: RefCell<&'a mut ClassNames>,
    /// The classes defined earlier.
    pub(super) defined: &'a [ClassId],
}

impl Surrounding<'_> {
    /// The definition of the option at `path`, when the configuration brought it.
    fn definition(&self, path: &[u16]) -> Option<&Definition> {
        let mut space = self.definitions.main_space();
        let mut found = None;
        for &code in path {
            let definition = self.definitions.by_code(space, code)?;
            space = &definition.encapsulates;
            found = Some(definition);
        }
        found
    }
}

impl Names for Surrounding<'_> {
    fn option_code(&self, name: &str) -> Option<u16> {
        Some(self.definitions.by_name(self.definitions.main_space(), name)?.code)
    }

    fn sub_option_code(&self, path: &[u16], name: &str) -> Option<u16> {
        let space = &*self.definition(path)?.encapsulates;
        Some(self.definitions.by_name(space, name)?.code)
    }

    fn class(&self, name: &str) -> Option<ClassId> {
        let mut names = self.names.borrow_mut();
        match names.find(name).filter(|id| self.defined.contains(id)) {
            None if is_built_in(name) => names.intern(name),
            known => known,
        }
    }

    fn content(&self, family: Family, path: &[u16]) -> Content {
        let Some(definition) = self.definition(path) else {
            return standard_content(family, path);
        };
        match (definition.kind, definition.array) {
            (Kind::String, _) => Content::Text,
            (Kind::Ipv4, true) if family == Family::V4 => Content::Addresses,
            (Kind::Ipv4, false) if family == Family::V4 => Content::Address,
            (Kind::Ipv6, true) if family == Family::V6 => Content::Addresses,
            (Kind::Ipv6, false) if family == Family::V6 => Content::Address,
            (Kind::Uint8, true) => Content::Integers(1),
            (Kind::Uint16, true) => Content::Integers(2),
            (Kind::Uint32, true) => Content::Integers(4),
            (Kind::Uint8, false) => Content::Integer(1),
            (Kind::Uint16, false) => Content::Integer(2),
            (Kind::Uint32, false) => Content::Integer(4),
            (Kind::Int8, false) => Content::Signed(1),
            (Kind::Int16, false) => Content::Signed(2),
            (Kind::Int32, false) => Content::Signed(4),
            (Kind::Boolean, false) => Content::Boolean,
            (Kind::Empty, _) if !definition.encapsulates.is_empty() => Content::SubOptions,
            _ => standard_content(family, path),
        }
    }

    fn sub_options_at(&self, family: Family, path: &[u16]) -> Option<u16> {
        if let Some(standard) = standard_sub_options_at(family, path) {
            return Some(standard);
        }
        let definition = self.definition(path)?;
        if definition.encapsulates.is_empty() || definition.array {
            return None;
        }
        let size = |kind: Kind| match kind {
            Kind::Empty => Some(0),
            Kind::Boolean | Kind::Int8 | Kind::Uint8 => Some(1),
            Kind::Int16 | Kind::Uint16 => Some(2),
            Kind::Int32 | Kind::Uint32 | Kind::Ipv4 => Some(4),
            Kind::Ipv6 => Some(16),
            _ => None,
        };
        match definition.kind {
            Kind::Record => definition.fields.iter().map(|&kind| size(kind)).sum(),
            kind => size(kind),
        }
    }
}
