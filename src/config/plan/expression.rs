//! What names in a class's test stand for, and what the test depends on.

use std::cell::RefCell;

use super::classes::{ClassNames, is_built_in};
use crate::config::option::Definitions;
use crate::expr::{Content, Family, Names};
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

impl Names for Surrounding<'_> {
    fn option_code(&self, name: &str) -> Option<u16> {
        Some(self.definitions.by_name(self.definitions.main_space(), name)?.code)
    }

    fn sub_option_code(&self, path: &[u16], name: &str) -> Option<u16> {
        let space = &*self.definitions.at_path(path)?.encapsulates;
        Some(self.definitions.by_name(space, name)?.code)
    }

    fn class(&self, name: &str) -> Option<ClassId> {
        let mut names = self.names.borrow_mut();
        match names.find(name).filter(|id| self.defined.contains(id)) {
            None if is_built_in(name) => names.intern(name),
            known => known,
        }
    }

    fn content(&self, _family: Family, path: &[u16]) -> Content {
        self.definitions.content(path)
    }

    fn sub_options_at(&self, _family: Family, path: &[u16]) -> Option<u16> {
        self.definitions.sub_options_at(path)
    }
}
