//! The classes of one query, gathered in the order of their assignment: a shard's memory for [`crate::classify::classes`].

use crate::classify::classes::{self, Classifier as Rules};
use crate::config::plan::classes::{KNOWN, UNKNOWN};
use crate::config::plan::flex_id::FlexIdBuffer;
use crate::config::plan::{FlexId, HostIndex, Plan, PoolIndex, SubnetIndex};
use crate::expr::{ClassSet, Scratch};
use crate::ids::ClassId;
use crate::wire::Query;
use crate::wire::codes::option;

/// The class set and the room for evaluation, used again for every query.
#[derive(Default)]
pub(super) struct Classifier {
    classes: ClassSet,
    scratch: Scratch,
    /// Tests that could not be evaluated, since the start.
    pub(super) fault_count: u64,
}

impl Classifier {
    /// The classes so far.
    pub(super) fn classes(&self) -> &[ClassId] {
        self.classes.as_slice()
    }

    /// Whether the query has this class.
    pub(super) fn has(&self, class: ClassId) -> bool {
        self.classes.contains(class)
    }

    fn with(&mut self, plan: &Plan, query: &Query<'_>, rule: impl FnOnce(&mut Rules<'_>, &mut ClassSet)) {
        let mut rules = Rules { plan, query: *query, scratch: &mut self.scratch, fault_count: 0 };
        rule(&mut rules, &mut self.classes);
        self.fault_count += u64::from(rules.fault_count);
    }

    /// Begins a query: ALL, the scope's classes, those of the first stage.
    #[inline(always)]
    pub(super) fn start(&mut self, plan: &Plan, query: &Query<'_>, scope: &[ClassId]) {
        classes::begin(&mut self.classes);
        self.add(scope);
        if !query.recovered_relay.is_empty()
            && let Some(class) = plan.class_names.find("STASH_AGENT_OPTIONS")
            && self.classes.insert(class).is_err()
        {
            self.fault_count += 1;
        }
        if !plan.classes.is_empty() || query.options.contains(option::VENDOR_CLASS_ID) {
            self.with(plan, query, |rules, classes| rules.first_stage(classes));
        }
    }

    /// Classes that are given to the query, and that no expression has looked for so far.
    #[inline(always)]
    pub(super) fn add(&mut self, classes: &[ClassId]) {
        for &class in classes {
            if self.classes.insert(class).is_err() {
                self.fault_count += 1;
            }
        }
    }

    /// The identifier that an expression makes of a query after the first stage.
    pub(super) fn flex_id(
        &mut self,
        plan: &Plan,
        flex_id: &FlexId,
        query: &Query<'_>,
        out: &mut FlexIdBuffer,
    ) {
        let interface = plan.interfaces.get(usize::from(query.interface.0));
        let interface = interface.map_or(&[][..], |interface| interface.name.as_bytes());
        let made = flex_id.evaluate(query, interface, &self.classes, &mut self.scratch, out);
        self.fault_count += u64::from(!made);
    }

    /// A reservation's classes: those with a test are evaluated again with them in place.
    pub(super) fn reserve(&mut self, plan: &Plan, query: &Query<'_>, host: HostIndex) {
        self.with(plan, query, |rules, classes| rules.apply_host(host, classes));
    }

    /// A reservation's classes, and nothing else.
    pub(super) fn add_host(&mut self, plan: &Plan, query: &Query<'_>, host: HostIndex) {
        self.with(plan, query, |rules, classes| rules.add_host(host, classes));
    }

    /// KNOWN or UNKNOWN, and the classes that depend on them.
    #[inline(always)]
    pub(super) fn known(&mut self, plan: &Plan, query: &Query<'_>, found: bool) {
        if plan.classes.is_empty() {
            return self.add(&[if found { KNOWN } else { UNKNOWN }]);
        }
        self.with(plan, query, |rules, classes| rules.second_stage(found, classes));
    }

    /// Classes to be evaluated once the place of the lease is known.
    #[inline(always)]
    pub(super) fn additional(
        &mut self,
        plan: &Plan,
        query: &Query<'_>,
        subnet: SubnetIndex,
        pool: Option<PoolIndex>,
    ) {
        if plan.subnet(subnet).has_additional_classes {
            self.with(plan, query, |rules, classes| rules.additional(subnet, pool, classes));
        }
    }
}
