//! What a parsed expression is. Names are codes and identifiers already; runs of one operator are lists, so that the
//! depth of a tree is the nesting of its text.

use super::pattern::Pattern;
use super::subject::Field;
use crate::ids::ClassId;

/// An expression of either type.
#[derive(Debug)]
pub(super) enum Expr {
    Bool(Bool),
    Str(Str),
}

/// True or false.
#[derive(Debug)]
pub(super) enum Bool {
    Not(Box<Self>),
    /// `and` (`sand` when strict).
    All {
        strict: bool,
        terms: Vec<Self>,
    },
    /// `or` (`sor` when strict).
    Any {
        strict: bool,
        terms: Vec<Self>,
    },
    Equal(Str, Str),
    Exists(Place),
    VendorExists(VendorOption, Enterprise),
    Member(ClassId),
    Match(Pattern, Str),
}

/// Octets.
#[derive(Debug)]
pub(super) enum Str {
    Const(Vec<u8>),
    Concat(Vec<Self>),
    Hex(Place),
    Text(Place),
    Interface,
    Field(Field),
    /// The peer or link address of a relay level.
    Relay6 {
        level: i8,
        peer: bool,
    },
    Substring {
        text: Box<Self>,
        start: i64,
        len: Option<i64>,
    },
    Split {
        text: Box<Self>,
        delimiters: Box<Self>,
        field: i64,
    },
    IfElse {
        strict: bool,
        test: Box<Bool>,
        yes: Box<Self>,
        no: Box<Self>,
    },
    Case {
        upper: bool,
        text: Box<Self>,
    },
    HexString {
        text: Box<Self>,
        separator: Box<Self>,
    },
    AddressText(Box<Self>),
    IntegerText {
        bytes: u8,
        signed: bool,
        text: Box<Self>,
    },
    Enterprise(VendorOption),
    VendorData {
        enterprise: Enterprise,
        index: u8,
    },
}

/// Which of the two options with an enterprise number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VendorOption {
    /// 124 of DHCPv4, 16 of DHCPv6.
    Class,
    /// 125 of DHCPv4, 17 of DHCPv6.
    Information,
}

/// An enterprise number, or any.
pub(super) type Enterprise = Option<u32>;

/// An option or sub-option: where to begin, and the codes down to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) root: Root,
    pub(super) path: Vec<u16>,
}

/// Where the first code of a path is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Message,
    Relay6(i8),
    Vendor(Enterprise),
}
