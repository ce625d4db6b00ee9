//! Running a program: two stacks of fixed size and a scratch buffer, nothing else.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::ast::{Enterprise, Root, VendorOption};
use super::compile::{Op, Program};
use super::content::{Layout, vendor_content};
use super::subject::{Short, Subject};
use super::text::{self, Sink, signed, unsigned};
use super::{Content, Family, STRINGS_MAX};
use crate::wire::option::Walk;
use crate::wire::vendor::Blocks;

/// Octets for strings that an evaluation puts together.
pub const SCRATCH_BYTES_MAX: usize = 16_384;

/// Why an evaluation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EvalError {
    /// `addrtotext` of something that is neither 4 nor 16 octets.
    NotAnAddress,
    /// `int8totext` and the like of something with another number of octets.
    NotAnInteger,
    /// The strings of this packet are too long to be put together.
    TooLong,
    /// A program for a truth was asked for a string, or the other way round.
    WrongType,
}

impl fmt::Display for EvalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotAnAddress => "an address has 4 or 16 octets",
            Self::NotAnInteger => "the string has not as many octets as the integer",
            Self::TooLong => "the strings of this packet are too long to be put together",
            Self::WrongType => "the expression is of the other type",
        })
    }
}

impl std::error::Error for EvalError {}

/// Room for the strings of one evaluation. Belongs to one thread and is used again for each.
#[derive(Clone, Debug)]
pub struct Scratch {
    octets: Box<[u8]>,
    used: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Makes the room. Allocates: once per thread.
    #[must_use]
    pub fn new() -> Self {
        Self { octets: vec![0; SCRATCH_BYTES_MAX].into(), used: 0 }
    }

    fn append(&mut self, octets: &[u8]) -> Result<(), EvalError> {
        let end = self.used + octets.len();
        self.octets.get_mut(self.used..end).ok_or(EvalError::TooLong)?.copy_from_slice(octets);
        self.used = end;
        Ok(())
    }

    fn append_within(&mut self, range: Range<usize>) -> Result<(), EvalError> {
        let end = self.used + range.len();
        if end > self.octets.len() {
            return Err(EvalError::TooLong);
        }
        self.octets.copy_within(range, self.used);
        self.used = end;
        Ok(())
    }
}

impl Write for Scratch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl Sink for Scratch {
    fn octets(&mut self, octets: &[u8]) -> fmt::Result {
        self.append(octets).map_err(|_| fmt::Error)
    }
}

/// A string on the stack.
#[derive(Clone, Copy, Debug)]
enum Value<'s> {
    /// Of the program or the packet.
    Borrowed(&'s [u8]),
    /// In the scratch.
    Made {
        at: u32,
        len: u32,
    },
    Short(Short),
}

impl Value<'_> {
    fn bytes<'a>(&'a self, scratch: &'a Scratch) -> &'a [u8] {
        match self {
            Self::Borrowed(octets) => octets,
            Self::Made { at, len } => scratch.octets.get(made(*at, *len)).unwrap_or(&[]),
            Self::Short(short) => short.as_bytes(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Borrowed(octets) => octets.len(),
            Self::Made { len, .. } => made(0, *len).end,
            Self::Short(short) => short.as_bytes().len(),
        }
    }

    /// The part of it in `range`, which lies within its length.
    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Borrowed(octets) => Self::Borrowed(octets.get(range).unwrap_or(&[])),
            Self::Made { at, .. } => {
                let (start, len) = (u32::try_from(range.start), u32::try_from(range.len()));
                Self::Made { at: at + start.unwrap_or(0), len: len.unwrap_or(0) }
            }
            Self::Short(short) => Self::Short(Short::new(short.as_bytes().get(range).unwrap_or(&[]))),
        }
    }
}

/// A range of the scratch, whose size an `u32` always holds.
fn made(at: u32, len: u32) -> Range<usize> {
    let (at, len) = (usize::try_from(at).unwrap_or(0), usize::try_from(len).unwrap_or(0));
    at..at + len
}

const _: () = assert!(SCRATCH_BYTES_MAX <= u32::MAX as usize, "positions in the scratch fit");

/// Most tests keep no more strings pending than this, and a small stack is made in no time.
const FEW_STRINGS: usize = 4;

const NOTHING: Value<'static> = Value::Borrowed(&[]);

/// The two stacks. The compiler has counted that they suffice and that nothing is popped that was not pushed; that
/// reading past their ends yields nothing, and false, only keeps a mistake there from becoming a crash.
struct Stacks<'s, const STRINGS: usize> {
    strings: [Value<'s>; STRINGS],
    count: usize,
    bools: u64,
}

impl<'s, const STRINGS: usize> Stacks<'s, STRINGS> {
    const fn new() -> Self {
        Self { strings: [NOTHING; STRINGS], count: 0, bools: 0 }
    }

    fn push(&mut self, value: Value<'s>) {
        if let Some(slot) = self.strings.get_mut(self.count) {
            *slot = value;
            self.count += 1;
        }
    }

    fn pop(&mut self) -> Value<'s> {
        self.count = self.count.saturating_sub(1);
        self.strings.get(self.count).copied().unwrap_or(NOTHING)
    }

    const fn push_bool(&mut self, truth: bool) {
        self.bools = self.bools << 1 | truth as u64;
    }

    const fn pop_bool(&mut self) -> bool {
        let truth = self.bools & 1 == 1;
        self.bools >>= 1;
        truth
    }
}

impl Program {
    /// Whether the expression holds for `subject`.
    ///
    /// # Errors
    /// Why it has no truth for this packet: a class with such a test is not assigned.
    pub fn eval_bool<S: Subject + ?Sized>(
        &self,
        subject: &S,
        scratch: &mut Scratch,
    ) -> Result<bool, EvalError> {
        if !self.yields_bool {
            return Err(EvalError::WrongType);
        }
        if self.strings <= FEW_STRINGS {
            let mut stacks = Stacks::<FEW_STRINGS>::new();
            self.run(subject, scratch, &mut stacks)?;
            Ok(stacks.pop_bool())
        } else {
            let mut stacks = Stacks::<STRINGS_MAX>::new();
            self.run(subject, scratch, &mut stacks)?;
            Ok(stacks.pop_bool())
        }
    }

    /// The value of the expression for `subject`.
    ///
    /// # Errors
    /// Why it has no value for this packet.
    pub fn eval_string<'a, S: Subject + ?Sized>(
        &'a self,
        subject: &'a S,
        scratch: &'a mut Scratch,
    ) -> Result<&'a [u8], EvalError> {
        if self.yields_bool {
            return Err(EvalError::WrongType);
        }
        let mut stacks = Stacks::<STRINGS_MAX>::new();
        self.run(subject, scratch, &mut stacks)?;
        match stacks.pop() {
            Value::Borrowed(octets) => Ok(octets),
            Value::Made { at, len } => Ok(scratch.octets.get(made(at, len)).unwrap_or(&[])),
            Value::Short(short) => {
                let start = scratch.used;
                scratch.append(short.as_bytes())?;
                Ok(scratch.octets.get(start..scratch.used).unwrap_or(&[]))
            }
        }
    }

    fn run<'s, S: Subject + ?Sized, const STRINGS: usize>(
        &'s self,
        subject: &'s S,
        scratch: &mut Scratch,
        stacks: &mut Stacks<'s, STRINGS>,
    ) -> Result<(), EvalError> {
        scratch.used = 0;
        let mut at = 0;
        // Jumps go forward only, so this ends.
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match *op {
                Op::Jump(to) => at = target(to, at),
                Op::Unless(to) => {
                    if !stacks.pop_bool() {
                        at = target(to, at);
                    }
                }
                Op::Decided { when, to } => {
                    let truth = stacks.pop_bool();
                    if truth == when {
                        stacks.push_bool(truth);
                        at = target(to, at);
                    }
                }
                op => self.step(op, subject, scratch, stacks)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn step<'s, S: Subject + ?Sized, const STRINGS: usize>(
        &'s self,
        op: Op,
        subject: &'s S,
        scratch: &mut Scratch,
        stacks: &mut Stacks<'s, STRINGS>,
    ) -> Result<(), EvalError> {
        match op {
            Op::Const { at, len } => {
                stacks.push(Value::Borrowed(self.constants.get(made(at, len)).unwrap_or(&[])))
            }
            Op::Hex(place) => stacks.push(Value::Borrowed(self.find(place, subject).unwrap_or(&[]))),
            Op::Text(place) => {
                let value = self.text(place, subject, scratch)?;
                stacks.push(value);
            }
            Op::Interface => stacks.push(Value::Borrowed(subject.interface())),
            Op::Field(field) => stacks.push(Value::Short(subject.field(field))),
            Op::Relay6 { level, peer } => {
                let relay = subject.relay(level);
                let address = relay.map(|relay| if peer { relay.peer } else { relay.link });
                stacks.push(address.map_or(NOTHING, |address| Value::Short(Short::new(&address))));
            }
            Op::Concat(count) => concat(usize::from(count), scratch, stacks)?,
            Op::Substring { start, len } => {
                let text = stacks.pop();
                stacks.push(text.part(substring(text.len(), start, len)));
            }
            Op::Split(field) => {
                let delimiters = stacks.pop();
                let text = stacks.pop();
                let range = split(text.bytes(scratch), delimiters.bytes(scratch), field);
                stacks.push(text.part(range));
            }
            Op::Case { upper } => {
                let text = stacks.pop();
                let value = make(scratch, |scratch| append(text, scratch))?;
                if let Value::Made { at, len } = value {
                    let copy = scratch.octets.get_mut(made(at, len)).unwrap_or(&mut []);
                    if upper { copy.make_ascii_uppercase() } else { copy.make_ascii_lowercase() }
                }
                stacks.push(value);
            }
            Op::HexString => {
                let separator = stacks.pop();
                let text = stacks.pop();
                let value = make(scratch, |scratch| hex_string(text, separator, scratch))?;
                stacks.push(value);
            }
            Op::AddressText => {
                let text = stacks.pop();
                let value = address_text(text, scratch)?;
                stacks.push(value);
            }
            Op::IntegerText { bytes, signed } => {
                let text = stacks.pop();
                let value = integer_text(text, usize::from(bytes), signed, scratch)?;
                stacks.push(value);
            }
            Op::Enterprise(kind) => {
                let enterprise = vendor(self.family, subject, kind, None).map(|(enterprise, _)| enterprise);
                stacks.push(enterprise.map_or(NOTHING, |number| Value::Short(Short::number(number))));
            }
            Op::VendorData { enterprise, index } => {
                let content = vendor(self.family, subject, VendorOption::Class, enterprise);
                let data = content.and_then(|(_, data)| tuple(self.family, data, index));
                stacks.push(Value::Borrowed(data.unwrap_or(&[])));
            }
            Op::Select => {
                let (yes, no) = (stacks.pop(), stacks.pop());
                let value = if stacks.pop_bool() { yes } else { no };
                stacks.push(value);
            }
            Op::Equal => {
                let (right, left) = (stacks.pop(), stacks.pop());
                stacks.push_bool(left.bytes(scratch) == right.bytes(scratch));
            }
            Op::Exists(place) => stacks.push_bool(self.find(place, subject).is_some()),
            Op::VendorExists(kind, enterprise) => {
                stacks.push_bool(vendor(self.family, subject, kind, enterprise).is_some());
            }
            Op::Member(class) => stacks.push_bool(subject.member(class)),
            Op::Match(pattern) => {
                let text = stacks.pop();
                let pattern = self.patterns.get(usize::from(pattern));
                stacks.push_bool(pattern.is_some_and(|pattern| pattern.matches(text.bytes(scratch))));
            }
            Op::Not => {
                let truth = stacks.pop_bool();
                stacks.push_bool(!truth);
            }
            Op::All(count) => {
                let all = (0..count).fold(true, |all, _| stacks.pop_bool() && all);
                stacks.push_bool(all);
            }
            Op::Any(count) => {
                let any = (0..count).fold(false, |any, _| stacks.pop_bool() || any);
                stacks.push_bool(any);
            }
            Op::Decided { .. } | Op::Unless(_) | Op::Jump(_) => {}
        }
        Ok(())
    }

    /// The payload at a place.
    fn find<'s, S: Subject + ?Sized>(&self, place: u16, subject: &'s S) -> Option<&'s [u8]> {
        let steps = self.places.get(usize::from(place))?;
        let (first, rest) = steps.path.split_first()?;
        let offsets = steps.offsets.as_deref()?;
        let mut data = match steps.root {
            Root::Message => {
                if !rest.is_empty() && !subject.interprets(*first) {
                    return None;
                }
                subject.option(*first)?
            }
            Root::Relay6(level) => Walk::<2>::new(subject.relay(level)?.options).find(*first)?,
            Root::Vendor(enterprise) => {
                let (_, options) = vendor(self.family, subject, VendorOption::Information, enterprise)?;
                self.sub_option(options, *first)?
            }
        };
        for (code, offset) in rest.iter().zip(offsets) {
            let mut options = data.get(usize::from(*offset)..)?;
            if self.family == Family::V4 && *offset == 5 {
                // Only the first enterprise's part of vendor information: its length stands before it.
                options = options.get(..usize::from(*data.get(4)?)).unwrap_or(options);
            }
            data = self.sub_option(options, *code)?;
        }
        Some(data)
    }

    fn sub_option<'s>(&self, options: &'s [u8], code: u16) -> Option<&'s [u8]> {
        match self.family {
            Family::V4 => Walk::<1>::new(options).find(code),
            Family::V6 => Walk::<2>::new(options).find(code),
        }
    }

    fn text<'s, S: Subject + ?Sized>(
        &'s self,
        place: u16,
        subject: &'s S,
        scratch: &mut Scratch,
    ) -> Result<Value<'s>, EvalError> {
        let (Some(data), Some(steps)) = (self.find(place, subject), self.places.get(usize::from(place)))
        else {
            return Ok(NOTHING);
        };
        let code = steps.path.last().copied().unwrap_or(0);
        let by_enterprise;
        let layout = match (steps.root, &steps.path[..]) {
            // Not yet interpreted.
            (Root::Message, [code]) if !subject.interprets(*code) => &OCTETS,
            (Root::Vendor(enterprise), [code]) => {
                let found = vendor(self.family, subject, VendorOption::Information, enterprise);
                let content = found.map(|(enterprise, _)| vendor_content(self.family, enterprise, *code));
                by_enterprise = Layout::leaf(content.unwrap_or(Content::Octets));
                &by_enterprise
            }
            _ => steps.layout.as_ref().unwrap_or(&OCTETS),
        };
        if layout.content == Content::Text {
            return Ok(Value::Borrowed(data));
        }
        make(scratch, |scratch| {
            text::print(scratch, self.family, code, layout, data, 0).map_err(|_| EvalError::TooLong)
        })
    }
}

static OCTETS: Layout = Layout::leaf(Content::Octets);

/// Where a jump leads: never back.
fn target(to: u32, at: usize) -> usize {
    usize::try_from(to).map_or(at, |to| to.max(at))
}

/// What `write` appends, as a value.
fn make<'s>(
    scratch: &mut Scratch,
    write: impl FnOnce(&mut Scratch) -> Result<(), EvalError>,
) -> Result<Value<'s>, EvalError> {
    let start = scratch.used;
    write(scratch)?;
    let (at, len) = (u32::try_from(start), u32::try_from(scratch.used - start));
    Ok(Value::Made { at: at.map_err(|_| EvalError::TooLong)?, len: len.map_err(|_| EvalError::TooLong)? })
}

fn append(value: Value<'_>, scratch: &mut Scratch) -> Result<(), EvalError> {
    match value {
        Value::Borrowed(octets) => scratch.append(octets),
        Value::Made { at, len } => scratch.append_within(made(at, len)),
        Value::Short(short) => scratch.append(short.as_bytes()),
    }
}

fn concat<const STRINGS: usize>(
    count: usize,
    scratch: &mut Scratch,
    stacks: &mut Stacks<'_, STRINGS>,
) -> Result<(), EvalError> {
    let first = stacks.count.saturating_sub(count);
    let value = make(scratch, |scratch| {
        let parts = stacks.strings.get(first..stacks.count).unwrap_or(&[]);
        parts.iter().try_for_each(|part| append(*part, scratch))
    })?;
    stacks.count = first;
    stacks.push(value);
    Ok(())
}

/// The part of a string of `len` octets that `substring` means.
fn substring(len: usize, start: i32, wanted: Option<i32>) -> Range<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let mut start = i64::from(start);
    if start < -len || start >= len {
        return 0..0;
    }
    if start < 0 {
        start += len;
    }
    let (from, to) = match wanted.map(i64::from) {
        None => (start, len),
        Some(wanted) if wanted >= 0 => (start, len.min(start + wanted)),
        Some(wanted) => ((start + wanted).max(0), start),
    };
    usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0)
}

/// The part of `text` that is field `field`, counted from 1, between any octets of `delimiters`.
fn split(text: &[u8], delimiters: &[u8], field: i32) -> Range<usize> {
    if delimiters.is_empty() {
        // There is nothing to cut at, so every field is the whole.
        return 0..text.len();
    }
    let Some(mut before) = usize::try_from(field).ok().and_then(|field| field.checked_sub(1)) else {
        return 0..0;
    };
    let mut start = 0;
    loop {
        let rest = text.get(start..).unwrap_or(&[]);
        let len = rest.iter().position(|octet| delimiters.contains(octet));
        match (before, len) {
            (0, len) => return start..len.map_or(text.len(), |len| start + len),
            (_, None) => return 0..0,
            (_, Some(len)) => start += len + 1,
        }
        before -= 1;
    }
}

fn hex_string(text: Value<'_>, separator: Value<'_>, scratch: &mut Scratch) -> Result<(), EvalError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for index in 0..text.len() {
        if index > 0 {
            append(separator, scratch)?;
        }
        let octet = text.bytes(scratch).get(index).copied().unwrap_or(0);
        scratch.append(&[DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]])?;
    }
    Ok(())
}

fn address_text<'s>(text: Value<'s>, scratch: &mut Scratch) -> Result<Value<'s>, EvalError> {
    let octets = text.bytes(scratch);
    let four: Option<[u8; 4]> = octets.try_into().ok();
    let sixteen: Option<[u8; 16]> = octets.try_into().ok();
    let empty = octets.is_empty();
    match (four, sixteen) {
        (Some(octets), _) => print(scratch, format_args!("{}", Ipv4Addr::from(octets))),
        (_, Some(octets)) => print(scratch, format_args!("{}", Ipv6Addr::from(octets))),
        _ if empty => Ok(NOTHING),
        _ => Err(EvalError::NotAnAddress),
    }
}

fn integer_text<'s>(
    text: Value<'s>,
    bytes: usize,
    is_signed: bool,
    scratch: &mut Scratch,
) -> Result<Value<'s>, EvalError> {
    let octets = text.bytes(scratch);
    if octets.is_empty() {
        return Ok(NOTHING);
    }
    if octets.len() != bytes {
        return Err(EvalError::NotAnInteger);
    }
    if is_signed {
        let number = signed(octets);
        print(scratch, format_args!("{number}"))
    } else {
        let number = unsigned(octets);
        print(scratch, format_args!("{number}"))
    }
}

fn print<'s>(scratch: &mut Scratch, arguments: fmt::Arguments<'_>) -> Result<Value<'s>, EvalError> {
    make(scratch, |scratch| scratch.write_fmt(arguments).map_err(|_| EvalError::TooLong))
}

/// What the first vendor option of `kind` says, if its enterprise is the one asked for: the number and what follows
/// it. In DHCPv4 that is, for vendor information, the first enterprise's sub-options; for a class, all blocks.
fn vendor<S: Subject + ?Sized>(
    family: Family,
    subject: &S,
    kind: VendorOption,
    wanted: Enterprise,
) -> Option<(u32, &[u8])> {
    let code = match (family, kind) {
        (Family::V4, VendorOption::Class) => 124,
        (Family::V4, VendorOption::Information) => 125,
        (Family::V6, VendorOption::Class) => 16,
        (Family::V6, VendorOption::Information) => 17,
    };
    let data = subject.option(code)?;
    let (number, rest) = data.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number);
    if wanted.is_some_and(|wanted| wanted != number) {
        return None;
    }
    match (family, kind) {
        (Family::V4, VendorOption::Information) => Blocks::new(data).next().map(|block| (number, block.data)),
        (Family::V4, VendorOption::Class) => Some((number, data)),
        (Family::V6, _) => Some((number, rest)),
    }
}

/// Data tuple `index` of a vendor class: in DHCPv4 each enterprise has one.
fn tuple(family: Family, data: &[u8], index: u8) -> Option<&[u8]> {
    let index = usize::from(index);
    match family {
        Family::V4 => Blocks::new(data).nth(index).map(|block| block.data),
        Family::V6 => {
            let mut rest = data;
            for _ in 0..index {
                rest = two_octet_tuple(rest)?.1;
            }
            two_octet_tuple(rest).map(|(tuple, _)| tuple)
        }
    }
}

fn two_octet_tuple(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(text: &str, start: i32, len: Option<i32>) -> &str {
        &text[substring(text.len(), start, len)]
    }

    #[test]
    fn substring_counts_from_either_end() {
        assert_eq!(sub("foobar", -5, Some(4)), "ooba");
        assert_eq!(sub("foobar", -1, Some(-3)), "oba");
        assert_eq!(sub("foobar", 5, Some(-10)), "fooba");
        assert_eq!(sub("foobar", 6, Some(-6)), "");
        assert_eq!(sub("foobar", -7, Some(2)), "");
        assert_eq!(sub("foobar", i32::MIN, Some(i32::MIN)), "");
        assert_eq!(sub("foobar", 2, Some(i32::MAX)), "obar");
        assert_eq!(sub("", 0, None), "");
    }

    #[test]
    fn split_keeps_empty_fields() {
        let field =
            |text: &str, delimiters: &[u8], field| text[split(text.as_bytes(), delimiters, field)].to_owned();
        assert_eq!(field("a,b;c", b",;", 3), "c");
        assert_eq!(field("a,,c", b",", 2), "");
        assert_eq!(field("a,", b",", 2), "");
        assert_eq!(field("a", b",", 2), "");
        assert_eq!(field("abc", b"", 1), "abc");
        assert_eq!(field("abc", b",", i32::MIN), "");
        assert_eq!(field("abc", b"", 0), "abc");
    }
}
