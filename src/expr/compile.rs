//! From a tree to a flat program, with its needs counted: what would not fit an evaluation is refused here.

use super::ast::{Bool, Enterprise, Place, Root, Str, VendorOption};
use super::content::Layout;
use super::eval::SCRATCH_BYTES_MAX;
use super::pattern::Pattern;
use super::subject::Field;
use super::{BOOLS_MAX, Content, Family, Names, STRINGS_MAX};
use crate::ids::ClassId;

/// A compiled expression. Never changes; freed as a whole.
#[derive(Debug)]
pub struct Program {
    pub(super) ops: Box<[Op]>,
    pub(super) constants: Box<[u8]>,
    pub(super) places: Box<[Steps]>,
    pub(super) patterns: Box<[Pattern]>,
    pub(super) family: Family,
    pub(super) yields_bool: bool,
    /// Most strings that are pending at a time.
    pub(super) strings: usize,
    members: Box<[ClassId]>,
}

impl Program {
    /// Whether it asks for membership in `class`.
    #[must_use]
    pub fn depends_on(&self, class: ClassId) -> bool {
        self.members.contains(&class)
    }

    /// The classes that it asks for, each once, in the order of the text.
    pub fn members(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.members.iter().copied()
    }
}

/// One step of an evaluation. Strings and truths have a stack each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Pushes constant octets.
    Const {
        at: u32,
        len: u32,
    },
    /// Pushes the payload at a place, or nothing.
    Hex(u16),
    /// Pushes the text of what is at a place, or nothing.
    Text(u16),
    Interface,
    Field(Field),
    Relay6 {
        level: i8,
        peer: bool,
    },
    /// Replaces that many strings by their concatenation.
    Concat(u16),
    Substring {
        start: i32,
        len: Option<i32>,
    },
    Split(i32),
    Case {
        upper: bool,
    },
    HexString,
    AddressText,
    IntegerText {
        bytes: u8,
        signed: bool,
    },
    Enterprise(VendorOption),
    VendorData {
        enterprise: Enterprise,
        index: u8,
    },
    /// Replaces two strings by the second if the topmost truth holds, else by the first; drops the truth.
    Select,
    Equal,
    Exists(u16),
    VendorExists(VendorOption, Enterprise),
    Member(ClassId),
    Match(u16),
    Not,
    /// Replaces that many truths by whether all hold.
    All(u16),
    /// Replaces that many truths by whether any holds.
    Any(u16),
    /// Jumps if the topmost truth is this and leaves it; else drops it.
    Decided {
        when: bool,
        to: u32,
    },
    /// Drops the topmost truth and jumps if it does not hold.
    Unless(u32),
    Jump(u32),
}

/// A place with everything that finding it takes.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) root: Root,
    /// The codes, for printing.
    pub(super) path: Box<[u16]>,
    /// What it holds, for printing; of places that are printed.
    pub(super) layout: Option<Layout>,
    /// How many octets of each option but the last stand before its sub-options; absent when there are none at all.
    pub(super) offsets: Option<Box<[u16]>>,
}

/// Octets assumed of each option when the need of a program is counted: as many as one option can have.
const OPTION_BYTES: usize = 255;
/// Octets of an IPv6 address as text.
pub(super) const ADDRESS_TEXT_BYTES: usize = 45;

pub(super) fn compile_bool(tree: &Bool, family: Family, names: &dyn Names) -> Result<Program, Box<str>> {
    let mut compiler = Compiler::new(family, names);
    compiler.bool(tree)?;
    compiler.finish(true)
}

pub(super) fn compile_string(tree: &Str, family: Family, names: &dyn Names) -> Result<Program, Box<str>> {
    let mut compiler = Compiler::new(family, names);
    compiler.str(tree)?;
    compiler.finish(false)
}

struct Compiler<'n> {
    names: &'n dyn Names,
    family: Family,
    ops: Vec<Op>,
    constants: Vec<u8>,
    places: Vec<Steps>,
    patterns: Vec<Pattern>,
    members: Vec<ClassId>,
    strings: usize,
    strings_max: usize,
    bools: usize,
    scratch: usize,
}

impl<'n> Compiler<'n> {
    fn new(family: Family, names: &'n dyn Names) -> Self {
        Self {
            names,
            family,
            ops: Vec::new(),
            constants: Vec::new(),
            places: Vec::new(),
            patterns: Vec::new(),
            members: Vec::new(),
            strings: 0,
            strings_max: 0,
            bools: 0,
            scratch: 0,
        }
    }

    fn finish(self, yields_bool: bool) -> Result<Program, Box<str>> {
        // The result of a string expression may have to be copied there.
        if self.scratch > SCRATCH_BYTES_MAX - OPTION_BYTES {
            return Err(format!(
                "The expression may need {} octets to put strings together; there are {}.",
                self.scratch,
                SCRATCH_BYTES_MAX - OPTION_BYTES
            )
            .into());
        }
        Ok(Program {
            ops: self.ops.into(),
            constants: self.constants.into(),
            places: self.places.into(),
            patterns: self.patterns.into(),
            family: self.family,
            yields_bool,
            strings: self.strings_max,
            members: self.members.into(),
        })
    }

    fn push_string(&mut self, op: Op) -> Result<(), Box<str>> {
        self.ops.push(op);
        self.strings += 1;
        self.strings_max = self.strings_max.max(self.strings);
        if self.strings > STRINGS_MAX {
            return Err(format!("The expression keeps more than {STRINGS_MAX} strings pending.").into());
        }
        Ok(())
    }

    fn push_bool(&mut self, op: Op) -> Result<(), Box<str>> {
        self.ops.push(op);
        self.bools += 1;
        if self.bools > BOOLS_MAX {
            return Err(format!("The expression keeps more than {BOOLS_MAX} truths pending.").into());
        }
        Ok(())
    }

    fn bool(&mut self, tree: &Bool) -> Result<(), Box<str>> {
        match tree {
            Bool::Not(inner) => {
                self.bool(inner)?;
                self.ops.push(Op::Not);
            }
            Bool::All { strict: true, terms } => {
                let count = self.strict(terms)?;
                self.ops.push(Op::All(count));
            }
            Bool::Any { strict: true, terms } => {
                let count = self.strict(terms)?;
                self.ops.push(Op::Any(count));
            }
            Bool::All { terms, .. } => self.decided(terms, false)?,
            Bool::Any { terms, .. } => self.decided(terms, true)?,
            Bool::Equal(left, right) => {
                self.str(left)?;
                self.str(right)?;
                self.strings -= 2;
                self.push_bool(Op::Equal)?;
            }
            Bool::Exists(place) => {
                let place = self.place(place)?;
                self.push_bool(Op::Exists(place))?;
            }
            Bool::VendorExists(kind, enterprise) => self.push_bool(Op::VendorExists(*kind, *enterprise))?,
            Bool::Member(class) => {
                if !self.members.contains(class) {
                    self.members.push(*class);
                }
                self.push_bool(Op::Member(*class))?;
            }
            Bool::Match(pattern, text) => {
                self.str(text)?;
                self.strings -= 1;
                let index = index(self.patterns.len())?;
                self.patterns.push(pattern.clone());
                self.push_bool(Op::Match(index))?;
            }
        }
        Ok(())
    }

    /// All terms, one after the other, each a truth of its own.
    fn strict(&mut self, terms: &[Bool]) -> Result<u16, Box<str>> {
        for term in terms {
            self.bool(term)?;
        }
        self.bools -= terms.len() - 1;
        index(terms.len())
    }

    /// Terms until one of them is `when`.
    fn decided(&mut self, terms: &[Bool], when: bool) -> Result<(), Box<str>> {
        let mut jumps = Vec::new();
        for (number, term) in terms.iter().enumerate() {
            if number > 0 {
                jumps.push(self.ops.len());
                self.ops.push(Op::Decided { when, to: 0 });
                self.bools -= 1;
            }
            self.bool(term)?;
        }
        let to = self.here()?;
        for jump in jumps {
            self.ops[jump] = Op::Decided { when, to };
        }
        Ok(())
    }

    fn here(&self) -> Result<u32, Box<str>> {
        u32::try_from(self.ops.len()).map_err(|_| "The expression is too long.".into())
    }

    /// Compiles a string; returns how many octets it has at most, as far as needs are counted.
    fn str(&mut self, tree: &Str) -> Result<usize, Box<str>> {
        match tree {
            Str::Const(octets) => {
                let at = u32::try_from(self.constants.len()).map_err(|_| "The expression is too long.")?;
                let len = u32::try_from(octets.len()).map_err(|_| "The expression is too long.")?;
                self.constants.extend(octets);
                self.push_string(Op::Const { at, len })?;
                Ok(octets.len())
            }
            Str::Hex(place) => {
                let place = self.place(place)?;
                self.push_string(Op::Hex(place))?;
                Ok(OPTION_BYTES)
            }
            Str::Text(place) => {
                let layout = self.layout(place);
                let need = match layout.content {
                    Content::Text => None,
                    _ => Some(layout.text_bytes_max(OPTION_BYTES)),
                };
                let place = self.place_with(place, Some(layout))?;
                self.push_string(Op::Text(place))?;
                Ok(need.map_or(OPTION_BYTES, |need| self.made(need)))
            }
            Str::Interface => self.push_string(Op::Interface).map(|()| OPTION_BYTES),
            Str::Field(field) => self.push_string(Op::Field(*field)).map(|()| 20),
            Str::Relay6 { level, peer } => {
                self.push_string(Op::Relay6 { level: *level, peer: *peer }).map(|()| 16)
            }
            Str::Enterprise(kind) => self.push_string(Op::Enterprise(*kind)).map(|()| 4),
            Str::VendorData { enterprise, index } => {
                let op = Op::VendorData { enterprise: *enterprise, index: *index };
                self.push_string(op).map(|()| OPTION_BYTES)
            }
            Str::IfElse { strict, test, yes, no } => self.if_else(*strict, test, yes, no),
            Str::Concat(parts) => self.concat(parts),
            _ => self.function(tree),
        }
    }

    /// Notes octets that an evaluation has to write.
    const fn made(&mut self, len: usize) -> usize {
        self.scratch = self.scratch.saturating_add(len);
        len
    }

    /// Long sums are put together in runs, so that their length is not bounded by the stack.
    fn concat(&mut self, parts: &[Str]) -> Result<usize, Box<str>> {
        const RUN: usize = 8;
        let mut len: usize = 0;
        let mut pending: u16 = 0;
        for part in parts {
            len = len.saturating_add(self.str(part)?);
            pending += 1;
            if usize::from(pending) == RUN {
                self.join(&mut pending);
                self.made(len);
            }
        }
        if pending > 1 {
            self.join(&mut pending);
            self.made(len);
        }
        Ok(len)
    }

    fn join(&mut self, pending: &mut u16) {
        self.ops.push(Op::Concat(*pending));
        self.strings -= usize::from(*pending) - 1;
        *pending = 1;
    }

    fn if_else(&mut self, strict: bool, test: &Bool, yes: &Str, no: &Str) -> Result<usize, Box<str>> {
        self.bool(test)?;
        if strict {
            let len = self.str(no)?.max(self.str(yes)?);
            self.ops.push(Op::Select);
            self.strings -= 1;
            self.bools -= 1;
            return Ok(len);
        }
        let unless = self.ops.len();
        self.ops.push(Op::Unless(0));
        self.bools -= 1;
        let yes_len = self.str(yes)?;
        let jump = self.ops.len();
        self.ops.push(Op::Jump(0));
        self.strings -= 1;
        self.ops[unless] = Op::Unless(self.here()?);
        let no_len = self.str(no)?;
        self.ops[jump] = Op::Jump(self.here()?);
        Ok(yes_len.max(no_len))
    }

    /// The functions of one string, and of two.
    fn function(&mut self, tree: &Str) -> Result<usize, Box<str>> {
        match tree {
            Str::Substring { text, start, len } => {
                let bound = self.str(text)?;
                let wanted = len.map(clamp);
                self.ops.push(Op::Substring { start: clamp(*start), len: wanted });
                let wanted = len.and_then(|len| usize::try_from(len.unsigned_abs()).ok());
                Ok(wanted.map_or(bound, |wanted| wanted.min(bound)))
            }
            Str::Split { text, delimiters, field } => {
                let bound = self.str(text)?;
                self.str(delimiters)?;
                self.ops.push(Op::Split(clamp(*field)));
                self.strings -= 1;
                Ok(bound)
            }
            Str::Case { upper, text } => {
                let bound = self.str(text)?;
                self.ops.push(Op::Case { upper: *upper });
                Ok(self.made(bound))
            }
            Str::HexString { text, separator } => {
                let text = self.str(text)?;
                let separator = self.str(separator)?;
                self.ops.push(Op::HexString);
                self.strings -= 1;
                Ok(self.made(text.saturating_mul(separator.saturating_add(2))))
            }
            Str::AddressText(text) => {
                self.str(text)?;
                self.ops.push(Op::AddressText);
                Ok(self.made(ADDRESS_TEXT_BYTES))
            }
            Str::IntegerText { bytes, signed, text } => {
                self.str(text)?;
                self.ops.push(Op::IntegerText { bytes: *bytes, signed: *signed });
                Ok(self.made(11))
            }
            _ => Err("The expression is of a kind that cannot be compiled.".into()),
        }
    }

    /// What an option is, for printing. What an enterprise's option is depends on the enterprise, which the packet tells.
    fn layout(&self, place: &Place) -> Layout {
        match place.root {
            Root::Vendor(_) => Layout::leaf(Content::Octets),
            _ => Layout::of(self.family, &place.path, self.names),
        }
    }

    fn place(&mut self, place: &Place) -> Result<u16, Box<str>> {
        self.place_with(place, None)
    }

    fn place_with(&mut self, place: &Place, layout: Option<Layout>) -> Result<u16, Box<str>> {
        let (family, names) = (self.family, self.names);
        // A relay's options are those of a message; a vendor's are in a space of their own.
        let standard = !matches!(place.root, Root::Vendor(_));
        let offsets = (1..place.path.len())
            .map(|len| names.sub_options_at(family, &place.path[..len]).filter(|_| standard))
            .collect::<Option<Box<[u16]>>>();
        let index = index(self.places.len())?;
        self.places.push(Steps { root: place.root, path: place.path.clone().into(), layout, offsets });
        Ok(index)
    }
}

fn index(count: usize) -> Result<u16, Box<str>> {
    u16::try_from(count).map_err(|_| "The expression is too long.".into())
}

/// Numbers beyond any string's length are as good as the largest.
fn clamp(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}
