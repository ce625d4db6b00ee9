//! Option definitions and values: from the text of a configuration to the octets of an answer.
//!
//! [`Definitions`] holds what is standard and what `option-def` adds, [`encode`] turns value text into octets and
//! checks octets given in hex, the scope part makes one scope's `option-data` ready for the plan: sub-options inside their
//! carriers, vendor options by enterprise.
//!
//! Promises: no panic on any input, any thread may call; allocates, so it is for whoever loads a configuration.
//! Everything that is wrong is reported with its place, in Kea's words.
//!
//! Bounds: 65,535 octets in an option, 255 in a sub-option.
//!
//! Sources: RFC 2132, RFC 3396, RFC 3442, RFC 3925, RFC 8415; the option chapters of Kea's manual.

mod content;
mod definitions;
mod encode;
mod hex;
mod scope;
mod shapes;
mod standard4;
mod standard6;

use std::borrow::Cow;

pub use definitions::Definitions;
pub use encode::{Family, check, encode};
pub use hex::parse_hex;
pub use scope::{EncodedOption, encode_scope};

/// The type of an option's value or of one of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing, perhaps sub-options.
    Empty,
    /// Octets.
    Binary,
    /// One octet, 0 or 1.
    Boolean,
    /// With sign.
    Int8,
    /// With sign.
    Int16,
    /// With sign.
    Int32,
    /// Without sign.
    Uint8,
    /// Without sign.
    Uint16,
    /// Without sign.
    Uint32,
    /// Four octets.
    Ipv4,
    /// Sixteen octets.
    Ipv6,
    /// A length and as many octets as it needs.
    Ipv6Prefix,
    /// A length and a port set number.
    Psid,
    /// Text.
    String,
    /// Text behind its length.
    Tuple,
    /// A domain name as labels.
    Fqdn,
    /// With rules of its own.
    Internal,
    /// Several fields.
    Record,
}

impl Kind {
    /// Every type with its word in `option-def`.
    const WORDS: [(&'static str, Self); 17] = [
        ("empty", Self::Empty),
        ("binary", Self::Binary),
        ("boolean", Self::Boolean),
        ("int8", Self::Int8),
        ("int16", Self::Int16),
        ("int32", Self::Int32),
        ("uint8", Self::Uint8),
        ("uint16", Self::Uint16),
        ("uint32", Self::Uint32),
        ("ipv4-address", Self::Ipv4),
        ("ipv6-address", Self::Ipv6),
        ("ipv6-prefix", Self::Ipv6Prefix),
        ("psid", Self::Psid),
        ("string", Self::String),
        ("tuple", Self::Tuple),
        ("fqdn", Self::Fqdn),
        ("record", Self::Record),
    ];

    /// The type that `word` names in `option-def`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|entry| entry.0 == word).map(|entry| entry.1)
    }
}

/// What an option's value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its code.
    pub code: u16,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: Kind,
    /// Whether values repeat; of a record the last field.
    pub array: bool,
    /// The fields of a record.
    pub fields: Cow<'static, [Kind]>,
    /// The space of its sub-options; empty when it has none.
    pub encapsulates: Cow<'static, str>,
}

const fn definition(
    code: u16,
    name: &'static str,
    kind: Kind,
    array: bool,
    fields: &'static [Kind],
    space: &'static str,
) -> Definition {
    Definition {
        code,
        name: Cow::Borrowed(name),
        kind,
        array,
        fields: Cow::Borrowed(fields),
        encapsulates: Cow::Borrowed(space),
    }
}

const fn one(code: u16, name: &'static str, kind: Kind) -> Definition {
    definition(code, name, kind, false, &[], "")
}

const fn list(code: u16, name: &'static str, kind: Kind) -> Definition {
    definition(code, name, kind, true, &[], "")
}

const fn record(code: u16, name: &'static str, fields: &'static [Kind]) -> Definition {
    definition(code, name, Kind::Record, false, fields, "")
}

const fn records(code: u16, name: &'static str, fields: &'static [Kind]) -> Definition {
    definition(code, name, Kind::Record, true, fields, "")
}

const fn carrier(code: u16, name: &'static str, space: &'static str) -> Definition {
    definition(code, name, Kind::Empty, false, &[], space)
}
