//! Which classes a query gets, and when.
//!
//! The order is Kea's: `ALL`; the HA scope (assigned by whoever decides it, before the first stage, so that tests see
//! it); the vendor class; the classes that do not depend on `KNOWN`, in the order of the configuration; after the search
//! for reservations the host's classes, `KNOWN` or `UNKNOWN` and what depends on them; after allocation the additional
//! ones. A test that fails to evaluate leaves its class unassigned.
//!
//! Promises: no allocation, no panic, whatever the query holds. Any thread may call, each with a scratch of its own.

use crate::config::plan::classes::{ALL, KNOWN, Stage, Test, UNKNOWN};
use crate::config::plan::{Class, HostIndex, Plan, PoolIndex, SubnetIndex};
use crate::expr::{ClassSet, Scratch, Subject4};
use crate::ids::ClassId;
use crate::wire::Query;

/// A query being classified.
#[derive(Debug)]
pub struct Classifier<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The query.
    pub query: Query<'a>,
    /// Room for the evaluation.
    pub scratch: &'a mut Scratch,
    /// Classes that were not assigned because their test could not be evaluated or the query has too many: to be
    /// counted.
    pub fault_count: u32,
}

/// Starts a query's classes: forgets what is in `classes`, then `ALL`.
pub fn begin(classes: &mut ClassSet) {
    classes.clear();
    // An empty set has room for one.
    let _ = classes.insert(ALL);
}

impl Classifier<'_> {
    /// The first stage, once the query is parsed and its HA scope is among `classes`: vendor class and all tests that
    /// do not depend on reservations.
    pub fn first_stage(&mut self, classes: &mut ClassSet) {
        if let Some(vendor_class) = self.query.vendor_class() {
            let plan = self.plan;
            for class in plan.class_names.of_vendor(vendor_class) {
                self.insert(class, classes);
            }
        }
        self.evaluate_stage(Stage::First, classes);
    }

    /// Takes in the classes that a reservation gives: those with a test are forgotten and tested again, because tests
    /// may refer to the host's. For a global reservation or a subnet outside any shared network; in a shared network
    /// use [`Self::add_host`] once the subnet is final.
    pub fn apply_host(&mut self, host: HostIndex, classes: &mut ClassSet) {
        let plan = self.plan;
        if plan.hosts.host(host).classes.is_empty() {
            return;
        }
        classes.retain(|class| plan.class(class).is_none_or(|class| class.test.is_none()));
        self.add_host(host, classes);
        self.evaluate_stage(Stage::First, classes);
    }

    /// Adds the classes that a reservation gives.
    pub fn add_host(&mut self, host: HostIndex, classes: &mut ClassSet) {
        let plan = self.plan;
        for &class in &plan.hosts.host(host).classes {
            self.insert(class, classes);
        }
    }

    /// The second stage: `KNOWN` when any reservation was found, else `UNKNOWN`, and the tests that depend on them.
    pub fn second_stage(&mut self, found: bool, classes: &mut ClassSet) {
        self.insert(if found { KNOWN } else { UNKNOWN }, classes);
        self.evaluate_stage(Stage::AfterKnown, classes);
    }

    /// The additional classes, after allocation: of the pool, the subnet and the network.
    pub fn additional(&mut self, subnet: SubnetIndex, pool: Option<PoolIndex>, classes: &mut ClassSet) {
        let plan = self.plan;
        let network = plan.network(plan.subnet(subnet).network);
        let of_pool = pool.map_or(&[][..], |pool| &plan.pool(pool).additional_classes);
        for list in [of_pool, &plan.subnet(subnet).additional_classes, &network.additional_classes] {
            for &id in list {
                // A name without definition is not assigned: the configuration asks to evaluate it.
                if let Some(class) = plan.class(id) {
                    self.evaluate(class, true, classes);
                }
            }
        }
    }

    fn evaluate_stage(&mut self, stage: Stage, classes: &mut ClassSet) {
        let plan = self.plan;
        for class in plan.classes.iter().filter(|class| class.stage == stage) {
            self.evaluate(class, stage != Stage::First, classes);
        }
    }

    fn evaluate(&mut self, class: &Class, interprets_private: bool, classes: &mut ClassSet) {
        if classes.contains(class.id) {
            return;
        }
        let interface = self
            .plan
            .interfaces
            .get(usize::from(self.query.interface.0))
            .map_or(&[][..], |interface| interface.name.as_bytes());
        let subject = Subject4 { query: self.query, interface, classes, interprets_private };
        let spawned = match &class.test {
            None => None,
            Some(Test::Bool(program)) => match program.eval_bool(&subject, self.scratch) {
                Ok(true) => None,
                Ok(false) => return,
                Err(_) => {
                    self.fault_count += 1;
                    return;
                }
            },
            Some(Test::Template(program, prefix)) => match program.eval_string(&subject, self.scratch) {
                Ok([]) => return,
                Ok(value) => self.plan.class_names.find_joined([prefix, value]),
                Err(_) => {
                    self.fault_count += 1;
                    return;
                }
            },
        };
        // The specific class first, so that its options win.
        if let Some(spawned) = spawned {
            self.insert(spawned, classes);
        }
        self.insert(class.id, classes);
    }

    fn insert(&mut self, class: ClassId, classes: &mut ClassSet) {
        if classes.insert(class).is_err() {
            self.fault_count += 1;
        }
    }
}
