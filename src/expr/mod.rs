//! Client-class expressions: the language of `test`, `template-test` and identifier expressions.
//!
//! A text is compiled once, when a configuration is loaded: `lex`, `parse` (which also checks names and ranges, as far to
//! the left as it can, so that the first mistake is the one reported), then `compile` to a flat [`Program`]. A program is
//! evaluated on anything that is a [`Subject`]; for DHCPv4 that is [`Subject4`], a query with its classes.
//!
//! Promises: evaluation allocates nothing, takes no lock, and panics on no program and no packet. A [`Program`] never
//! changes and may be shared by threads; a [`Scratch`] belongs to one. Loading allocates, and refuses what it cannot
//! bound: an expression nested deeper than [`NESTING_MAX`], one that would need more than [`STRINGS_MAX`] pending
//! strings or [`BOOLS_MAX`] pending truths, or more than [`SCRATCH_BYTES_MAX`] octets for packets whose options are not
//! longer than one option can be. A packet with longer ones that overruns the scratch is an [`EvalError`], not a class.
//!
//! `match` runs on an automaton that is built whole when the expression is loaded, because the usual engines allocate
//! while they search; an expression whose automaton would be larger than a megabyte is refused.
//!
//! Follows the chapter on client classification of Kea's manual. `and`, `or` and `ifelse` skip what is already decided;
//! `sand`, `sor` and `sifelse` evaluate everything, so that an error there counts.

mod ast;
mod class_set;
mod compile;
mod content;
mod eval;
mod lex;
mod parse;
mod pattern;
mod subject;
mod text;

use std::fmt;

pub use class_set::{CLASS_IDS_MAX, CLASSES_MAX, ClassSet, Full};
pub use compile::Program;
pub use content::{Content, Item, standard_sub_options_at};
pub use eval::{EvalError, SCRATCH_BYTES_MAX, Scratch};
pub use pattern::Pattern;
pub use subject::{Field, RelayLevel, Short, Subject, Subject4};

use crate::ids::ClassId;

/// Deepest nesting of parentheses, calls and negations.
pub const NESTING_MAX: usize = 64;
/// Most strings that an evaluation keeps pending.
pub const STRINGS_MAX: usize = 24;
/// Most truths that an evaluation keeps pending: they are the bits of one word.
pub const BOOLS_MAX: usize = 64;

/// The protocol that an expression is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// DHCPv4.
    V4,
    /// DHCPv6.
    V6,
}

impl Family {
    /// The highest option code.
    #[must_use]
    pub const fn code_max(self) -> u16 {
        match self {
            Self::V4 => u8::MAX as u16,
            Self::V6 => u16::MAX,
        }
    }
}

/// What the names in an expression stand for, at the place in the configuration where it is written.
///
/// An option is told by its path: the codes from the message's option down to it.
pub trait Names {
    /// The code of the option called `name`: of the standard first, then of the configuration.
    fn option_code(&self, name: &str) -> Option<u16>;

    /// The code of the sub-option called `name` in the space that the option at `path` encapsulates.
    fn sub_option_code(&self, path: &[u16], name: &str) -> Option<u16> {
        let _ = (path, name);
        None
    }

    /// The class called `name`: built in (`ALL`, `HA_x`, `ha_x`, …) or defined earlier.
    fn class(&self, name: &str) -> Option<ClassId>;

    /// What the option at `path` holds: decides how `.text` prints it.
    fn content(&self, family: Family, path: &[u16]) -> Content {
        let _ = (family, path);
        Content::Octets
    }

    /// How many octets stand before the sub-options of the option at `path`; nothing when it has none.
    fn sub_options_at(&self, family: Family, path: &[u16]) -> Option<u16> {
        standard_sub_options_at(family, path)
    }
}

/// Whether `name` is a class that exists without a definition: the server or a hook assigns it. A prefix counts only
/// with something behind it; that of HA scopes in either case, because the guide of 2018 wrote it in lower case.
#[must_use]
pub fn is_built_in_class(name: &str) -> bool {
    const EXACT: [&str; 4] = ["ALL", "KNOWN", "UNKNOWN", "BOOTP"];
    const PREFIXES: [&str; 3] = ["VENDOR_CLASS_", "AFTER_", "EXTERNAL_"];
    let is_scope = name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("HA_")) && name.len() > 3;
    is_scope
        || EXACT.contains(&name)
        || PREFIXES.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

/// Why an expression cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    text: Box<str>,
    span: lex::Span,
    reason: Box<str>,
}

impl ExprError {
    /// The place within the text: `line.column`, both from 1, or `line.first-last` for more than one octet.
    #[must_use]
    pub fn position(&self) -> String {
        self.span.to_string()
    }

    /// What is wrong there.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Without the place of the string in the file, which the caller knows and adds as ` at (FILE:LINE:COLUMN)`.
impl fmt::Display for ExprError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "expression: [{}] error: <string>:{}: {}", self.text, self.span, self.reason)
    }
}

impl std::error::Error for ExprError {}

/// Compiles an expression that is true or false: a class's `test`.
///
/// # Errors
/// The first mistake in `text`, or what makes it too large.
pub fn compile_bool(text: &str, family: Family, names: &dyn Names) -> Result<Program, ExprError> {
    let error = |(span, reason): parse::Mistake| ExprError { text: text.into(), span, reason };
    let tree = parse::parse_bool(text, family, names).map_err(error)?;
    compile::compile_bool(&tree, family, names).map_err(|reason| error((lex::Span::START, reason)))
}

/// Compiles an expression whose value is octets: `template-test`, `identifier-expression`.
///
/// # Errors
/// The first mistake in `text`, or what makes it too large.
pub fn compile_string(text: &str, family: Family, names: &dyn Names) -> Result<Program, ExprError> {
    let error = |(span, reason): parse::Mistake| ExprError { text: text.into(), span, reason };
    let tree = parse::parse_string(text, family, names).map_err(error)?;
    compile::compile_string(&tree, family, names).map_err(|reason| error((lex::Span::START, reason)))
}

#[cfg(test)]
mod tests {
    use super::is_built_in_class;

    #[test]
    fn built_in_classes_need_no_definition() {
        for name in [
            "ALL",
            "KNOWN",
            "UNKNOWN",
            "BOOTP",
            "HA_a",
            "ha_server1",
            "VENDOR_CLASS_x",
            "AFTER_b",
            "EXTERNAL_c",
        ] {
            assert!(is_built_in_class(name), "{name}");
        }
        for name in
            ["", "all", "HA_", "ha_", "VENDOR_CLASS_", "vendor_class_x", "DROP", "REJECT", "SPAWN_a_b", "é"]
        {
            assert!(!is_built_in_class(name), "{name}");
        }
    }
}
