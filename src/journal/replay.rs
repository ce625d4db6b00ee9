//! From the octets of lease files back to leases: the last good row of an address wins, a lifetime of 0 removes.
//!
//! Two ways. [`replay`] hands every good row to a [`ReplaySink`] in file order. [`LastWins`] remembers only where the
//! last good row of each address stands, and hands out the leases that remain at the end; several threads can share
//! the work, each with the [`Part`] of the addresses that is its own, because what counts is the order of the rows of
//! one address and no other.
//!
//! Nothing here compares times: the order of the rows is the truth, as in Kea.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use super::row::{Family, HeaderError, ROW_BYTES_MAX, RowReader, RowReason, Schema};

/// A line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Position among all lines of the file, from 1.
    pub number: u64,
    /// Octets of the file before it.
    pub offset: u64,
    /// The line without its end.
    pub text: &'a [u8],
}

/// The lines of some octets that are not blank.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    number: u64,
    base: u64,
}

impl<'a> Lines<'a> {
    /// The lines of a whole file.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, number: 0, base: 0 }
    }

    /// The lines of a piece of a file that starts `base` octets and `number` lines into it.
    #[must_use]
    pub const fn of_piece(bytes: &'a [u8], base: u64, number: u64) -> Self {
        Self { bytes, at: 0, number, base }
    }

    /// Lines seen so far, blank ones too.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    #[inline]
    fn next(&mut self) -> Option<Line<'a>> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let rest = &self.bytes[start..];
            let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            self.at = start + len + 1;
            self.number += 1;
            if len > 0 {
                let offset = self.base + start as u64;
                return Some(Line { number: self.number, offset, text: &rest[..len] });
            }
        }
        None
    }
}

/// A bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Its line, from 1.
    pub line: u64,
    /// Octets of the file before it.
    pub offset: u64,
    /// Why it is refused.
    pub reason: RowReason,
}

impl fmt::Display for RowError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {} (octet {}): {}", self.line, self.offset, self.reason)
    }
}

/// A file's octets behind its header.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    /// What the header says of the rows.
    pub schema: Schema,
    /// The rows.
    pub lines: Lines<'a>,
}

impl<'a> Body<'a> {
    /// Reads the header of a file that is not empty.
    ///
    /// # Errors
    /// The line of the header, from 1, and what is wrong with it.
    pub fn new<F: Family>(bytes: &'a [u8]) -> Result<Self, (u64, HeaderError)> {
        let mut lines = Lines::new(bytes);
        let Some(header) = lines.next() else { return Err((1, HeaderError::Missing)) };
        match Schema::from_header::<F>(header.text) {
            Ok(schema) => Ok(Self { schema, lines }),
            Err(error) => Err((header.number, error)),
        }
    }
}

/// Where replayed rows go.
pub trait ReplaySink<F: Family> {
    /// The lease is now as given.
    fn put(&mut self, lease: &F::Lease<'_>);

    /// There is no lease of this key any more (perhaps there was none).
    fn delete(&mut self, key: F::Key);

    /// A row was refused; `text` is what stands there.
    fn reject(&mut self, error: RowError, text: &[u8]);
}

/// How many rows a replay saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Good rows, deletions among them.
    pub good: u64,
    /// Rows refused.
    pub bad: u64,
}

/// Hands all rows to `sink` in file order. `errors_max` is Kea's `max-row-errors`: 0 tolerates any number.
///
/// # Errors
/// The bad row that passed the limit; what came before it has been handed out.
pub fn replay<F: Family>(
    body: Body<'_>,
    errors_max: u64,
    sink: &mut impl ReplaySink<F>,
) -> Result<ReplayCounts, RowError> {
    let mut reader = RowReader::<F>::new(body.schema);
    let mut counts = ReplayCounts::default();
    for line in body.lines {
        match reader.read(line.text) {
            Ok(lease) => {
                counts.good += 1;
                if F::is_deletion(&lease) {
                    sink.delete(F::key(&lease));
                } else {
                    sink.put(&lease);
                }
            }
            Err(reason) => {
                counts.bad += 1;
                let error = RowError { line: line.number, offset: line.offset, reason };
                sink.reject(error, line.text);
                if errors_max > 0 && counts.bad > errors_max {
                    return Err(error);
                }
            }
        }
    }
    Ok(counts)
}

/// A share of all addresses: with `count` threads, each takes one `index` below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Part `index` of `count`; every key is in exactly one part of each `count`.
    ///
    /// # Panics
    /// When `index` is not below `count`.
    #[must_use]
    pub const fn new(index: u32, count: u32) -> Self {
        assert!(index < count, "a part's index is below the count of parts");
        Self { index, count }
    }

    /// Whether the row is this part's. A row whose key cannot be read belongs to the first part, which refuses it.
    #[inline]
    fn owns<F: Family>(self, text: &[u8]) -> bool {
        if self.count == 1 {
            return true;
        }
        let first = &text[..memchr::memchr(b',', text).unwrap_or(text.len())];
        match F::read_key(first) {
            None => self.index == 0,
            Some(key) => {
                let mut hasher = KeyHasher::default();
                std::hash::Hash::hash(&key, &mut hasher);
                // The middle bits: the table below uses the lowest and the highest ones.
                (hasher.finish() >> 24 & 0xffff_ffff) % u64::from(self.count) == u64::from(self.index)
            }
        }
    }
}

/// A hash of addresses for tables that a file fills: fast, and without a key, as who writes the file needs no
/// collisions to do harm.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

impl KeyHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_be_bytes(word));
        }
    }

    #[inline]
    fn write_usize(&mut self, _length: usize) {
        // Only lengths come this way, and all keys of a family have the same.
    }

    #[inline]
    fn finish(&self) -> u64 {
        let folded = self.0 ^ self.0 >> 32;
        folded.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

/// Where a row stands: file (of at most four), offset, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

const LENGTH_BITS: u32 = 21;
const OFFSET_BITS: u32 = 41;
const _: () = assert!(ROW_BYTES_MAX < 1 << LENGTH_BITS);
const _: () = assert!(LENGTH_BITS + OFFSET_BITS + 2 == 64);

impl Place {
    /// The row of `length` octets at `offset` of file `file`; nothing past 2 TiB.
    fn new(file: u8, offset: u64, length: usize) -> Option<Self> {
        let is_small = file < 4 && offset < 1 << OFFSET_BITS && length < 1 << LENGTH_BITS;
        is_small.then_some(Self(u64::from(file) << 62 | offset << LENGTH_BITS | length as u64))
    }

    /// Position of its file among those replayed.
    #[must_use]
    pub const fn file(self) -> usize {
        (self.0 >> 62) as usize
    }

    /// Octets of the file before it.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 >> LENGTH_BITS & ((1 << OFFSET_BITS) - 1)
    }

    /// Its octets, without the line end.
    #[must_use]
    pub const fn row_bytes(self) -> usize {
        (self.0 & ((1 << LENGTH_BITS) - 1)) as usize
    }
}

/// Where the last good row of each key stands, for keys that have a lease: 16 octets and some room per v4 lease.
#[derive(Debug)]
pub struct LastWins<F: Family> {
    places: HashMap<F::Key, Place, BuildHasherDefault<KeyHasher>>,
    part: Part,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> LastWins<F> {
    /// An empty one for the keys of `part`, with room for `lease_count` leases.
    #[must_use]
    pub fn new(part: Part, lease_count: usize) -> Self {
        let places = HashMap::with_capacity_and_hasher(lease_count, BuildHasherDefault::default());
        Self { places, part, family: PhantomData }
    }

    /// Takes the next row of file `file` (0 to 3, in the order of replay) into account.
    ///
    /// # Errors
    /// Why the row is refused; it changes nothing then. Rows of other parts are never refused.
    #[inline]
    pub fn apply(&mut self, file: u8, line: Line<'_>, reader: &mut RowReader<F>) -> Result<(), RowReason> {
        if !self.part.owns::<F>(line.text) {
            return Ok(());
        }
        let lease = reader.read(line.text)?;
        let place = Place::new(file, line.offset, line.text.len()).ok_or(RowReason::TooLong)?;
        let key = F::key(&lease);
        match self.places.entry(key) {
            Entry::Occupied(entry) if F::is_deletion(&lease) => {
                entry.remove();
            }
            Entry::Occupied(mut entry) => {
                entry.insert(place);
            }
            Entry::Vacant(_) if F::is_deletion(&lease) => {}
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
        }
        Ok(())
    }

    /// How many leases there are.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.places.len()
    }

    /// The rows that remain, by their place: reading them in this order reads each file once, front to back.
    #[must_use]
    pub fn into_places(self) -> Vec<Place> {
        let mut places: Vec<Place> = self.places.into_values().collect();
        places.sort_unstable();
        places
    }

    /// The rows that remain, by ascending key.
    #[must_use]
    pub fn into_sorted(self) -> Vec<(F::Key, Place)> {
        let mut places: Vec<(F::Key, Place)> = self.places.into_iter().collect();
        places.sort_unstable_by_key(|(key, _)| *key);
        places
    }
}

/// What to do about leases whose subnet is not what the configuration says (`sanity-checks.lease-checks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SanityMode {
    /// Nothing.
    None,
    /// Keep and report.
    #[default]
    Warn,
    /// Give it the subnet of its address; keep and report it when there is none.
    Fix,
    /// Give it the subnet of its address; drop it when there is none.
    FixDel,
    /// Drop it.
    Del,
}

/// What a sanity check says of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanity<S> {
    /// Load it as it is.
    Keep,
    /// Load it as it is, and say that it is odd.
    KeepAndReport,
    /// Load it with this subnet.
    Fix(S),
    /// Do not load it.
    Drop,
}

/// Judges a lease: `in_own_subnet` when its subnet exists and holds its address, `found` the subnet that holds its
/// address if any does.
#[must_use]
pub fn sanity<S>(mode: SanityMode, in_own_subnet: bool, found: Option<S>) -> Sanity<S> {
    if in_own_subnet {
        return Sanity::Keep;
    }
    match (mode, found) {
        (SanityMode::None, _) => Sanity::Keep,
        (SanityMode::Warn, _) | (SanityMode::Fix, None) => Sanity::KeepAndReport,
        (SanityMode::Fix | SanityMode::FixDel, Some(subnet)) => Sanity::Fix(subnet),
        (SanityMode::FixDel, None) | (SanityMode::Del, _) => Sanity::Drop,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::journal::V4;
    use crate::lease::{Lease4, Lease4Buf};

    #[derive(Default)]
    struct Naive {
        leases: BTreeMap<Ipv4Addr, Lease4Buf>,
        rejected: Vec<(u64, RowReason)>,
    }

    impl ReplaySink<V4> for Naive {
        fn put(&mut self, lease: &Lease4<'_>) {
            self.leases.insert(lease.address, lease.to_owned());
        }

        fn delete(&mut self, key: Ipv4Addr) {
            self.leases.remove(&key);
        }

        fn reject(&mut self, error: RowError, _text: &[u8]) {
            self.rejected.push((error.line, error.reason));
        }
    }

    fn file(rows: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        V4::write_header(&mut bytes);
        bytes.extend_from_slice(rows.as_bytes());
        bytes
    }

    fn replayed(rows: &str) -> Naive {
        let mut naive = Naive::default();
        let bytes = file(rows);
        replay::<V4>(Body::new::<V4>(&bytes).expect("our header"), 0, &mut naive).expect("no limit");
        naive
    }

    #[test]
    fn the_last_row_of_an_address_wins() {
        let row = |lifetime: u32| format!("192.0.2.12,1a:1b,,{lifetime},2000,1,0,0,,0,,0\n");
        let only =
            |naive: Naive| naive.leases.into_values().map(|lease| lease.view().valid_lft).collect::<Vec<_>>();
        assert_eq!(only(replayed(&(row(100) + &row(200)))), [200]);
        assert_eq!(only(replayed(&(row(100) + &row(0) + &row(300)))), [300]);
        assert_eq!(only(replayed(&(row(100) + &row(0)))), [0u32; 0]);
        assert_eq!(only(replayed(&row(0))), [0u32; 0]);
    }

    #[test]
    fn blank_lines_are_skipped_and_counted() {
        let naive = replayed("\n\n\nbad\n\n");
        assert_eq!((naive.leases.len(), naive.rejected), (0, vec![(5, RowReason::TooFewColumns)]));
        assert!(replayed("\n\n").rejected.is_empty());
    }

    #[test]
    fn one_bad_row_more_than_the_limit_ends_the_replay() {
        let bytes = file("x\n\ny\nz\n");
        let run =
            |limit| replay::<V4>(Body::new::<V4>(&bytes).expect("our header"), limit, &mut Naive::default());
        assert_eq!(run(3), Ok(ReplayCounts { good: 0, bad: 3 }));
        let error = run(2).expect_err("three bad rows");
        assert_eq!((error.line, error.offset), (5, bytes.len() as u64 - 2));
    }

    #[test]
    fn a_file_without_header_is_refused() {
        assert_eq!(Body::new::<V4>(b"\n\n").expect_err("blank").1, HeaderError::Missing);
        assert_eq!(Body::new::<V4>(b"\naddress\n").expect_err("short").0, 2);
    }

    #[test]
    fn leases_outside_their_subnet_are_treated_as_configured() {
        use SanityMode::{Del, Fix, FixDel, None as Off, Warn};
        for mode in [Off, Warn, Fix, FixDel, Del] {
            assert_eq!(sanity(mode, true, Some(2)), Sanity::Keep);
        }
        for (mode, differs, nowhere) in [
            (Off, Sanity::Keep, Sanity::<i32>::Keep),
            (Warn, Sanity::KeepAndReport, Sanity::KeepAndReport),
            (Fix, Sanity::Fix(2), Sanity::KeepAndReport),
            (FixDel, Sanity::Fix(2), Sanity::Drop),
            (Del, Sanity::Drop, Sanity::Drop),
        ] {
            assert_eq!(
                (sanity(mode, false, Some(2)), sanity(mode, false, None)),
                (differs, nowhere),
                "{mode:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_number_of_parts_finds_what_a_plain_map_finds(
            rows in proptest::collection::vec((0u8..12, 0u32..3, 0u8..10), 0..120), parts in 1u32..5,
        ) {
            let mut text = String::new();
            for (host, lifetime, luck) in rows {
                let mac = if luck == 0 { "" } else { "1a:1b" };
                text += &format!("192.0.2.{host},{mac},,{lifetime},{luck}00,1,0,0,h{luck},0,,0\n");
            }
            let naive = replayed(&text);
            let bytes = file(&text);
            let mut found = BTreeMap::new();
            let mut refused = 0;
            for index in 0..parts {
                let body = Body::new::<V4>(&bytes).expect("our header");
                let mut reader = RowReader::<V4>::new(body.schema);
                let mut part = LastWins::<V4>::new(Part::new(index, parts), 0);
                for line in body.lines {
                    refused += usize::from(part.apply(0, line, &mut reader).is_err());
                }
                for place in part.into_places() {
                    let start = usize::try_from(place.offset()).expect("small");
                    let lease = reader.read(&bytes[start..start + place.row_bytes()]).expect("read before");
                    proptest::prop_assert!(found.insert(lease.address, lease.to_owned()).is_none());
                }
            }
            proptest::prop_assert_eq!(found, naive.leases);
            proptest::prop_assert_eq!(refused, naive.rejected.len());
        }
    }
}
