//! The identifier that an expression makes of a query (`libdhcp_flex_id`).

use crate::expr::{ClassSet, Program, Scratch, Subject4};
use crate::wire::Query;

/// Longest identifier, octets: with a type octet before it, it is a client identifier that a lease can hold.
pub const FLEX_ID_BYTES_MAX: usize = 254;

/// How identifiers are made.
#[derive(Debug)]
pub struct FlexId {
    /// The expression.
    pub program: Program,
    /// `replace-client-id`.
    pub replaces_client_id: bool,
}

/// Room for one identifier, behind the type octet 0 that makes a client identifier of it.
#[derive(Debug)]
pub struct FlexIdBuffer {
    octets: [u8; FLEX_ID_BYTES_MAX + 1],
    len: usize,
}

impl Default for FlexIdBuffer {
    fn default() -> Self {
        Self { octets: [0; FLEX_ID_BYTES_MAX + 1], len: 0 }
    }
}

impl FlexIdBuffer {
    /// The identifier; empty when the query has none.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[1..=self.len]
    }

    /// The identifier as a client identifier; empty when the query has none.
    #[must_use]
    pub fn as_client_id(&self) -> &[u8] {
        if self.len == 0 { &[] } else { &self.octets[..=self.len] }
    }
}

impl FlexId {
    /// Makes the identifier of `query`, which came in by `interface` and has `classes`; none when the expression cannot be
    /// evaluated or gives too many octets, of which the value tells.
    pub fn evaluate(
        &self,
        query: &Query<'_>,
        interface: &[u8],
        classes: &ClassSet,
        scratch: &mut Scratch,
        out: &mut FlexIdBuffer,
    ) -> bool {
        out.len = 0;
        let subject = Subject4 { query: *query, interface, classes, interprets_private: true };
        let Ok(octets) = self.program.eval_string(&subject, scratch) else { return false };
        let Some(room) = out.octets.get_mut(1..=octets.len()) else { return false };
        room.copy_from_slice(octets);
        out.len = octets.len();
        true
    }
}
