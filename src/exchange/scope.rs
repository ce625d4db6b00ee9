//! Which of several HA relationships serves a query: known only with its subnet.

use crate::ids::ClassId;

/// The number of an HA relationship, from 0 in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationshipIndex(pub u8);

/// Judges a query once its subnet is known.
pub trait SubnetScope: std::fmt::Debug {
    /// The classes of the query when this relationship, that of its subnet, serves it here; nothing when it is not for us. A subnet
    /// without a relationship is nobody's.
    fn classes(&self, relationship: Option<RelationshipIndex>) -> Option<&[ClassId]>;
}
