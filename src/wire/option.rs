//! Options: walking them in either format, and the table that a message's options are found in.
//!
//! DHCPv4 options and all sub-options have a one-octet code and length, DHCPv6 options two octets each; [`Walk`] reads
//! both. [`OptionTable`] is for DHCPv4 messages, whose options are looked up many times each: one walk notes where
//! each code stands. It is plain data without a lifetime and as cheap to reset as its 256-bit map.

use std::ops::Range;

use super::codes::option::{END, PAD};
use super::drop::DropReason;
use super::shapes::Shapes;

/// Most octets that the repeated options of one message join to (RFC 3396): more than a frame of 1500 octets holds.
pub const JOINED_BYTES_MAX: usize = 1280;

/// One option or sub-option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its code.
    pub code: u16,
    /// Its payload.
    pub data: &'a [u8],
}

/// Walks options whose code and length take `WIDTH` octets each: 1 (DHCPv4, all its sub-options) or 2 (DHCPv6).
/// There are no pads and no end mark here. The walk ends at the first option that is cut short; what was before counts.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a, const WIDTH: usize> {
    rest: &'a [u8],
}

impl<'a, const WIDTH: usize> Walk<'a, WIDTH> {
    /// A walk over `options`.
    #[must_use]
    pub const fn new(options: &'a [u8]) -> Self {
        const { assert!(WIDTH == 1 || WIDTH == 2, "options have one-octet or two-octet headers") };
        Self { rest: options }
    }

    /// What has not been walked over: empty after a walk that met no cut option.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether every option is whole to the end of the octets.
    #[must_use]
    pub fn is_whole(mut self) -> bool {
        while self.next().is_some() {}
        self.rest.is_empty()
    }

    /// The payload of the first option with `code`.
    #[must_use]
    pub fn find(mut self, code: u16) -> Option<&'a [u8]> {
        self.find_map(|option| (option.code == code).then_some(option.data))
    }
}

impl<'a, const WIDTH: usize> Iterator for Walk<'a, WIDTH> {
    type Item = Opt<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Opt<'a>> {
        let (code, len, data) = if WIDTH == 1 {
            let (&[code, len], data) = self.rest.split_first_chunk()?;
            (u16::from(code), usize::from(len), data)
        } else {
            let (&[code_high, code_low, len_high, len_low], data) = self.rest.split_first_chunk()?;
            (
                u16::from_be_bytes([code_high, code_low]),
                usize::from(u16::from_be_bytes([len_high, len_low])),
                data,
            )
        };
        let (data, rest) = data.split_at_checked(len)?;
        self.rest = rest;
        Some(Opt { code, data })
    }
}

/// A set of one-octet codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeSet([u64; 4]);

impl CodeSet {
    /// No code.
    pub const EMPTY: Self = Self([0; 4]);

    /// Adds `code`; true when it was not in yet.
    pub const fn insert(&mut self, code: u8) -> bool {
        let (word, bit) = (code as usize / 64, 1 << (code % 64));
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    /// Takes `code` out.
    pub const fn remove(&mut self, code: u8) {
        self.0[code as usize / 64] &= !(1 << (code % 64));
    }

    /// Whether `code` is in.
    #[must_use]
    pub const fn contains(&self, code: u8) -> bool {
        self.0[code as usize / 64] & (1 << (code % 64)) != 0
    }

    /// Whether no code is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// All codes of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The codes of this set that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The codes of both sets.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// The codes, ascending.
    #[must_use]
    pub const fn iter(self) -> Codes {
        Codes { words: self.0, at: 0 }
    }
}

impl FromIterator<u8> for CodeSet {
    fn from_iter<I: IntoIterator<Item = u8>>(codes: I) -> Self {
        let mut set = Self::EMPTY;
        for code in codes {
            set.insert(code);
        }
        set
    }
}

impl IntoIterator for CodeSet {
    type Item = u8;
    type IntoIter = Codes;

    fn into_iter(self) -> Codes {
        self.iter()
    }
}

/// The codes of a [`CodeSet`], ascending.
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    words: [u64; 4],
    /// The word under way: those before it are empty.
    at: u8,
}

impl Iterator for Codes {
    type Item = u8;

    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        loop {
            let word = self.words.get_mut(usize::from(self.at))?;
            if *word != 0 {
                let bit = u8::try_from(word.trailing_zeros()).ok()?;
                *word &= *word - 1;
                return Some(self.at * 64 + bit);
            }
            self.at += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    offset: u16,
    len: u16,
}

/// Where each option of a DHCPv4 message stands. Reused from packet to packet: [`super::dhcp4::parse`] fills it.
///
/// ```text
/// present  256 bits   which codes there are; nothing else below is valid without its bit
/// repeated 256 bits   whose payload was joined and stands in `joined`, not in the message
/// doubtful 256 bits   whose length alone does not say that they are well formed
/// place    256 x 4    offset and length
/// joined   1280       payloads of repeated codes
/// ```
#[derive(Clone, Debug)]
pub struct OptionTable {
    present: CodeSet,
    repeated: CodeSet,
    doubtful: CodeSet,
    place: [Place; 256],
    joined: [u8; JOINED_BYTES_MAX],
}

impl Default for OptionTable {
    fn default() -> Self {
        Self::new()
    }
}

impl OptionTable {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            present: CodeSet::EMPTY,
            repeated: CodeSet::EMPTY,
            doubtful: CodeSet::EMPTY,
            place: [Place { offset: 0, len: 0 }; 256],
            joined: [0; JOINED_BYTES_MAX],
        }
    }

    /// Forgets everything.
    pub const fn clear(&mut self) {
        self.present = CodeSet::EMPTY;
        self.repeated = CodeSet::EMPTY;
        self.doubtful = CodeSet::EMPTY;
    }

    /// Notes the options in `area` of `payload`, one entry for each code; payloads of a repeated code are joined in
    /// their order (RFC 3396). The first option that is cut short ends the walk silently, as END and the end of the
    /// area do.
    ///
    /// # Errors
    /// [`DropReason::ParseOptionsTooLong`] when repeated codes join to more than [`JOINED_BYTES_MAX`] octets, or the
    /// area ends beyond 65,535.
    #[inline(always)]
    pub fn read(&mut self, payload: &[u8], area: Range<usize>, shapes: &Shapes) -> Result<(), DropReason> {
        self.clear();
        let options = payload.get(..area.end).unwrap_or(payload);
        let Ok(end) = u16::try_from(options.len()) else {
            return Err(DropReason::ParseOptionsTooLong);
        };
        let start = u16::try_from(area.start).map_or(end, |start| start.min(end));

        let mut joined_len = 0;
        for (code, place) in (Headers { payload: options, at: usize::from(start) }) {
            let known = &mut self.place[usize::from(code)];
            if self.present.insert(code) {
                *known = place;
                if !shapes.is_plain(code, place.len) {
                    self.doubtful.insert(code);
                }
                continue;
            }
            self.doubtful.insert(code);
            if self.repeated.insert(code) {
                joined_len += usize::from(known.len);
            }
            joined_len += usize::from(place.len);
            if joined_len > JOINED_BYTES_MAX {
                self.clear();
                return Err(DropReason::ParseOptionsTooLong);
            }
            known.len += place.len; // cannot wrap: the sum is at most JOINED_BYTES_MAX
        }
        if !self.repeated.is_empty() {
            self.join(options, start);
        }
        Ok(())
    }

    /// Second walk of a message with repeated codes: copies their parts together.
    fn join(&mut self, options: &[u8], start: u16) {
        let mut next = 0;
        for code in self.repeated {
            let place = &mut self.place[usize::from(code)];
            place.offset = next;
            next += place.len;
            place.len = 0;
        }
        for (code, part) in (Headers { payload: options, at: usize::from(start) }) {
            if !self.repeated.contains(code) {
                continue;
            }
            let place = &mut self.place[usize::from(code)];
            let to = usize::from(place.offset) + usize::from(place.len);
            let from = usize::from(part.offset);
            let len = usize::from(part.len);
            self.joined[to..to + len].copy_from_slice(&options[from..from + len]);
            place.len += part.len;
        }
    }

    /// The payload of option `code`; `payload` is the message that was read. Nothing when there is no such option.
    #[must_use]
    #[inline(always)]
    pub fn find<'a>(&'a self, payload: &'a [u8], code: u8) -> Option<&'a [u8]> {
        if !self.present.contains(code) {
            return None;
        }
        let place = self.place[usize::from(code)];
        let range = usize::from(place.offset)..usize::from(place.offset) + usize::from(place.len);
        if self.repeated.contains(code) { self.joined.get(range) } else { payload.get(range) }
    }

    /// The codes whose payload has to be looked at ([`super::shape`]); the others are as they should be.
    pub(super) const fn doubtful(&self) -> CodeSet {
        self.doubtful
    }

    /// Whether option `code` is there.
    #[must_use]
    pub const fn contains(&self, code: u8) -> bool {
        self.present.contains(code)
    }

    /// All codes that are there.
    #[must_use]
    pub const fn codes(&self) -> CodeSet {
        self.present
    }

    /// Forgets one option.
    pub(super) const fn remove(&mut self, code: u8) {
        self.present.remove(code);
    }

    /// Cuts the payload of an option that is there to `len` octets.
    pub(super) fn shorten(&mut self, code: u8, len: usize) {
        let place = &mut self.place[usize::from(code)];
        place.len = u16::try_from(len).map_or(place.len, |len| place.len.min(len));
    }
}

/// Where the header of the last option with `code` stands in `area` of `payload`.
pub(super) fn last_header(payload: &[u8], area: Range<usize>, code: u8) -> Option<usize> {
    let headers = Headers { payload: payload.get(..area.end)?, at: area.start };
    headers.filter(|(other, _)| *other == code).last().map(|(_, place)| usize::from(place.offset) - 2)
}

/// The options of a message: pads skipped, END ends. Yields the code and where its payload stands.
struct Headers<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Iterator for Headers<'_> {
    type Item = (u8, Place);

    #[inline(always)]
    fn next(&mut self) -> Option<(u8, Place)> {
        loop {
            let code = *self.payload.get(self.at)?;
            self.at += 1;
            match code {
                PAD => {}
                END => {
                    self.at = self.payload.len();
                    return None;
                }
                _ => {
                    let len = *self.payload.get(self.at)?;
                    let offset = self.at + 1;
                    let end = offset + usize::from(len);
                    if end > self.payload.len() {
                        self.at = self.payload.len();
                        return None;
                    }
                    self.at = end;
                    let offset = u16::try_from(offset).ok()?;
                    return Some((code, Place { offset, len: u16::from(len) }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shapes::STANDARD;
    use super::*;

    fn table(options: &[u8]) -> OptionTable {
        let mut table = OptionTable::new();
        table.read(options, 0..options.len(), &STANDARD).expect("short enough");
        table
    }

    /// What a table must say, the slow way.
    fn naive(options: &[u8], code: u8) -> Option<Vec<u8>> {
        let (mut at, mut found) = (0, None::<Vec<u8>>);
        while at < options.len() && options[at] != END {
            if options[at] == PAD {
                at += 1;
                continue;
            }
            let Some(len) = options.get(at + 1) else { break };
            let end = at + 2 + usize::from(*len);
            let Some(data) = options.get(at + 2..end) else { break };
            if options[at] == code {
                found.get_or_insert_default().extend(data);
            }
            at = end;
        }
        found
    }

    #[test]
    fn pads_are_skipped_and_end_ends() {
        let options = [0, 53, 1, 1, 0, 0, 12, 2, b'a', b'b', 255, 50, 1, 1];
        let table = table(&options);
        assert_eq!(table.find(&options, 53), Some(&[1][..]));
        assert_eq!(table.find(&options, 12), Some(&b"ab"[..]));
        assert_eq!(table.find(&options, 50), None);
        assert_eq!(table.codes().iter().collect::<Vec<u8>>(), [12, 53]);
    }

    #[test]
    fn missing_end_is_tolerated_and_a_cut_option_ends_the_walk() {
        let options = [53, 1, 1, 12, 200, b'a', 50, 0];
        let table = table(&options);
        assert!(table.contains(53) && !table.contains(12) && !table.contains(50));
        let lone_code = [53, 1, 1, 12];
        assert!(!super::tests::table(&lone_code).contains(12));
    }

    #[test]
    fn repeated_codes_are_joined_in_order() {
        let options = [12, 2, b'a', b'b', 53, 1, 1, 12, 1, b'c', 60, 1, b'x', 12, 0, 60, 1, b'y', 255];
        let table = table(&options);
        assert_eq!(table.find(&options, 12), Some(&b"abc"[..]));
        assert_eq!(table.find(&options, 60), Some(&b"xy"[..]));
        assert_eq!(table.find(&options, 53), Some(&[1][..]));
    }

    #[test]
    fn joining_is_bounded() {
        let mut options = Vec::new();
        for _ in 0..6 {
            options.extend([43, 255]);
            options.extend([1; 255]);
        }
        let mut table = OptionTable::new();
        assert_eq!(table.read(&options, 0..options.len(), &STANDARD), Err(DropReason::ParseOptionsTooLong));
        assert!(table.codes().is_empty(), "a refused message leaves nothing behind");
        assert!(table.read(&options, 0..5 * 257, &STANDARD).is_ok(), "five times 255 are 1275");
    }

    #[test]
    fn two_octet_format_is_walked_and_a_cut_option_ends_it() {
        let options = [0, 1, 0, 2, 7, 8, 0, 9, 0, 0, 0, 1, 0, 9, 1];
        let mut walk = Walk::<2>::new(&options);
        assert_eq!(walk.next(), Some(Opt { code: 1, data: &[7, 8] }));
        assert_eq!(walk.next(), Some(Opt { code: 9, data: &[] }));
        assert_eq!(walk.next(), None);
        assert!(!walk.is_whole());
        assert_eq!(walk.rest(), &options[10..]);
        assert_eq!(Walk::<2>::new(&options).find(9), Some(&[][..]));
        assert!(Walk::<2>::new(&options[..10]).is_whole());
    }

    #[test]
    fn sub_options_know_neither_pad_nor_end() {
        let options = [0, 1, 5, 255, 0, 1, 1, 9];
        let codes: Vec<u16> = Walk::<1>::new(&options).map(|option| option.code).collect();
        assert_eq!(codes, [0, 255, 1]);
    }

    #[test]
    fn code_set_is_a_set() {
        let mut set: CodeSet = [255, 0, 63, 64, 0].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<u8>>(), [0, 63, 64, 255]);
        set.remove(63);
        assert!(!set.contains(63) && set.contains(64));
        let other: CodeSet = [64, 7].into_iter().collect();
        assert_eq!(set.minus(other).iter().collect::<Vec<u8>>(), [0, 255]);
        assert_eq!(set.union(other).iter().collect::<Vec<u8>>(), [0, 7, 64, 255]);
        assert_eq!(set.common(other).iter().collect::<Vec<u8>>(), [64]);
    }

    proptest! {
        #[test]
        fn table_equals_the_slow_way(
            parts in proptest::collection::vec((0_u8..8, proptest::collection::vec(any::<u8>(), 0..12)), 0..40),
            tail in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            let mut options = Vec::new();
            for (code, data) in parts {
                options.push(code);
                if code != PAD {
                    options.push(u8::try_from(data.len()).expect("short"));
                    options.extend(data);
                }
            }
            options.extend(tail);
            let table = table(&options);
            for code in 1..=254 {
                prop_assert_eq!(table.find(&options, code).map(<[u8]>::to_vec), naive(&options, code));
            }
        }

        #[test]
        fn reading_never_panics(
            payload in proptest::collection::vec(any::<u8>(), 0..3000),
            start in 0_usize..4000,
            end in 0_usize..4000,
        ) {
            let mut table = OptionTable::new();
            if table.read(&payload, start..end, &STANDARD).is_ok() {
                for code in 0..=255 {
                    prop_assert_eq!(table.find(&payload, code).is_some(), table.contains(code));
                }
            }
            let _ = Walk::<1>::new(&payload).count() + Walk::<2>::new(&payload).count();
        }
    }
}
