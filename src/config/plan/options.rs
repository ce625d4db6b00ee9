//! Options as a plan holds them: values encoded beforehand, in sets that answer "has it?" with one bit test, and the
//! choice of what goes into an answer.
//!
//! A scope (global, network, subnet, pool, class, reservation) is a run of entries sorted by code, with three sets of
//! codes beside it. Pool, subnet and network are merged when the plan is made, because which of them apply is known
//! then; reservation, merged scope, classes and global scope are brought together per query.

use std::collections::HashMap;

use super::{Guard, at};
use crate::ids::ClassId;

pub use crate::wire::option::CodeSet;

/// A scope of options by its position in an [`OptionStore`]; the default is the empty scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeIndex(pub u32);

/// One option of a scope, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionEntry {
    /// Its code; in the vendor part of a scope, the code of the sub-option.
    pub code: u8,
    /// `always-send`.
    pub always: bool,
    /// `never-send`.
    pub never: bool,
    /// Position of its guard; 0 is the guard that admits all.
    guard: u32,
    /// Enterprise number of options 124 and 125 and of vendor sub-options; 0 in all others.
    pub enterprise: u32,
    value_bytes: u32,
    /// A value of up to four octets itself, as an address is; else where it begins, in big-endian order.
    place: [u8; INLINE_BYTES_MAX],
}

/// Octets of a value that lies in its entry.
const INLINE_BYTES_MAX: usize = 4;

/// The options of one scope. One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct OptionScope {
    /// Codes that it has entries for.
    pub codes: CodeSet,
    /// Position of what is always and never sent; 0 is nothing of either.
    urgency: u32,
    /// Entries: plain ones by code, then those of `vendor-N` spaces by enterprise and code.
    first: u32,
    vendor: u32,
    end: u32,
}

const _: () = assert!(size_of::<OptionScope>() == 64, "a scope is one cache line");

/// Codes that a scope wants sent or kept back whatever is asked for. Few scopes have any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// `always-send`.
    pub always: CodeSet,
    /// `never-send`.
    pub never: CodeSet,
}

/// All options of a plan: values side by side, entries, scopes.
#[derive(Clone, Debug)]
pub struct OptionStore {
    values: Vec<u8>,
    guards: Vec<Guard>,
    entries: Vec<OptionEntry>,
    scopes: Vec<OptionScope>,
    urgencies: Vec<Urgency>,
}

impl Default for OptionStore {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            guards: vec![Guard::default()],
            entries: Vec::new(),
            scopes: vec![OptionScope::default()],
            urgencies: vec![Urgency::default()],
        }
    }
}

impl OptionStore {
    /// The scope at `index`.
    #[must_use]
    pub fn scope(&self, index: ScopeIndex) -> &OptionScope {
        &self.scopes[at(index.0)]
    }

    /// What `scope` wants sent or kept back whatever is asked for.
    #[must_use]
    pub fn urgency(&self, scope: &OptionScope) -> &Urgency {
        &self.urgencies[at(scope.urgency)]
    }

    /// The plain entries of `scope`, ascending by code, then in order of precedence.
    #[must_use]
    pub fn entries(&self, scope: &OptionScope) -> &[OptionEntry] {
        &self.entries[at(scope.first)..at(scope.vendor)]
    }

    /// The entries of `scope` in `vendor-N` spaces, ascending by enterprise and code, then in order of precedence.
    #[must_use]
    pub fn vendor_entries(&self, scope: &OptionScope) -> &[OptionEntry] {
        &self.entries[at(scope.vendor)..at(scope.end)]
    }

    /// The encoded value of `entry`: no code, no length, of any size up to [`VALUE_BYTES_MAX`]. For option 125 the
    /// sub-options alone: enterprise and length are put before them when they are sent.
    #[must_use]
    pub fn value<'a>(&'a self, entry: &'a OptionEntry) -> &'a [u8] {
        let bytes = at(entry.value_bytes);
        if let Some(value) = entry.place.get(..bytes) {
            return value;
        }
        let start = at(u32::from_be_bytes(entry.place));
        &self.values[start..start + bytes]
    }

    /// The value of option `code` of the scope at `index` for a query with `classes`.
    #[must_use]
    pub fn find(&self, index: ScopeIndex, code: u8, classes: &[ClassId]) -> Option<&[u8]> {
        self.find_entry(self.scope(index), code, classes).map(|entry| self.value(entry))
    }

    pub(crate) fn find_entry(
        &self,
        scope: &OptionScope,
        code: u8,
        classes: &[ClassId],
    ) -> Option<&OptionEntry> {
        if !scope.codes.contains(code) {
            return None;
        }
        self.instances(scope, code).find(|entry| self.admits(entry, classes))
    }

    pub(crate) fn instances(&self, scope: &OptionScope, code: u8) -> impl Iterator<Item = &OptionEntry> {
        let entries = self.entries(scope);
        let from = entries.partition_point(|entry| entry.code < code);
        entries[from..].iter().take_while(move |entry| entry.code == code)
    }

    pub(crate) fn of_enterprise(&self, scope: &OptionScope, enterprise: u32) -> &[OptionEntry] {
        let entries = self.vendor_entries(scope);
        let from = entries.partition_point(|entry| entry.enterprise < enterprise);
        let until = entries.partition_point(|entry| entry.enterprise <= enterprise);
        &entries[from..until]
    }

    pub(crate) fn admits(&self, entry: &OptionEntry, classes: &[ClassId]) -> bool {
        entry.guard == 0 || self.guards[at(entry.guard)].admits(classes)
    }
}

/// Longest value of an option.
pub const VALUE_BYTES_MAX: usize = 65_535;

/// An option to be stored, with its value encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewOption {
    /// Its code.
    pub code: u8,
    /// For options 124 and 125, and vendor sub-options.
    pub enterprise: u32,
    /// Whether it belongs to the space of its enterprise and not to the main one.
    pub vendor: bool,
    /// `always-send`.
    pub always: bool,
    /// `never-send`.
    pub never: bool,
    /// `client-classes`.
    pub guard: Guard,
    /// As [`OptionStore::value`] gives it back; at most [`VALUE_BYTES_MAX`] octets.
    pub value: Vec<u8>,
}

/// Makes an [`OptionStore`]: equal values and equal merges are stored once.
#[derive(Debug, Default)]
pub struct OptionStoreBuilder {
    store: OptionStore,
    values: HashMap<Vec<u8>, u32>,
    guards: HashMap<Box<[ClassId]>, u32>,
    merged: HashMap<Vec<ScopeIndex>, ScopeIndex>,
}

impl OptionStoreBuilder {
    /// The store.
    #[must_use]
    pub fn finish(self) -> OptionStore {
        self.store
    }

    /// What is stored so far.
    #[must_use]
    pub fn store(&self) -> &OptionStore {
        &self.store
    }

    /// Stores one scope. Of plain options with one code all are kept in their order: the first that is admitted
    /// counts, in each scope at most one without guard.
    ///
    /// # Panics
    /// When more than 2^32 octets of values are stored: configurations are bounded far below.
    pub fn scope(&mut self, options: &[NewOption]) -> ScopeIndex {
        if options.is_empty() {
            return ScopeIndex::default();
        }
        let entries = options
            .iter()
            .map(|option| {
                let entry = OptionEntry {
                    code: option.code,
                    always: option.always,
                    never: option.never,
                    guard: self.guard(&option.guard),
                    enterprise: option.enterprise,
                    value_bytes: count32(option.value.len()),
                    place: self.value(&option.value),
                };
                (option.vendor, entry)
            })
            .collect();
        self.add(entries)
    }

    /// The scope that holds the options of all of `scopes`, the first going before the later ones.
    pub fn merge(&mut self, scopes: &[ScopeIndex]) -> ScopeIndex {
        let scopes: Vec<ScopeIndex> =
            scopes.iter().copied().filter(|&scope| scope != ScopeIndex::default()).collect();
        match *scopes {
            [] => return ScopeIndex::default(),
            [only] => return only,
            _ => {}
        }
        if let Some(&merged) = self.merged.get(&scopes) {
            return merged;
        }
        let mut entries = Vec::new();
        for &scope in &scopes {
            let scope = *self.store.scope(scope);
            entries.extend(self.store.entries(&scope).iter().map(|&entry| (false, entry)));
            entries.extend(self.store.vendor_entries(&scope).iter().map(|&entry| (true, entry)));
        }
        let merged = self.add(entries);
        self.merged.insert(scopes, merged);
        merged
    }

    fn add(&mut self, mut entries: Vec<(bool, OptionEntry)>) -> ScopeIndex {
        entries
            .sort_by_key(|(vendor, entry)| (*vendor, if *vendor { entry.enterprise } else { 0 }, entry.code));
        let first = count32(self.store.entries.len());
        let plain = entries.iter().take_while(|(vendor, _)| !vendor).count();
        let mut scope = OptionScope {
            first,
            vendor: first + count32(plain),
            end: first + count32(entries.len()),
            ..OptionScope::default()
        };
        let mut urgency = Urgency::default();
        for (_, entry) in &entries[..plain] {
            scope.codes.insert(entry.code);
            if entry.always {
                urgency.always.insert(entry.code);
            }
            if entry.never {
                urgency.never.insert(entry.code);
            }
        }
        scope.urgency = self.urgency(urgency);
        self.store.entries.extend(entries.into_iter().map(|(_, entry)| entry));
        self.store.scopes.push(scope);
        ScopeIndex(count32(self.store.scopes.len() - 1))
    }

    fn guard(&mut self, guard: &Guard) -> u32 {
        if guard.0.is_empty() {
            return 0;
        }
        if let Some(&position) = self.guards.get(&guard.0) {
            return position;
        }
        let position = count32(self.store.guards.len());
        self.store.guards.push(guard.clone());
        self.guards.insert(guard.0.clone(), position);
        position
    }

    fn urgency(&mut self, urgency: Urgency) -> u32 {
        if let Some(position) = self.store.urgencies.iter().position(|known| *known == urgency) {
            return count32(position);
        }
        self.store.urgencies.push(urgency);
        count32(self.store.urgencies.len() - 1)
    }

    fn value(&mut self, value: &[u8]) -> [u8; INLINE_BYTES_MAX] {
        let mut place = [0; INLINE_BYTES_MAX];
        if let Some(room) = place.get_mut(..value.len()) {
            room.copy_from_slice(value);
            return place;
        }
        if let Some(&start) = self.values.get(value) {
            return start.to_be_bytes();
        }
        let start = count32(self.store.values.len());
        self.store.values.extend_from_slice(value);
        self.values.insert(value.to_vec(), start);
        start.to_be_bytes()
    }
}

fn count32(count: usize) -> u32 {
    u32::try_from(count).expect("a configuration of less than 2^32 parts")
}
