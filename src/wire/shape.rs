//! What the content of a DHCPv4 option must look like, and what that is for the well-known ones.
//!
//! The table holds the standard definitions as far as parsing needs them: how many octets there must be, and which
//! may be too many. What an option means is told by those who use it.

use super::name;
use super::option::Walk;

/// The shape of one option's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything: no definition, or a binary one.
    Any,
    /// A scalar or a record of scalars of this many octets in all. More are tolerated and cut off.
    Scalar(u8),
    /// Addresses of this many octets each, none at all included.
    Addresses(u8),
    /// Integers of this many octets, at least one.
    Integers(u8),
    /// Text: NUL octets at its end are not part of it; without any other octet the option is as if absent.
    Text,
    /// A record that begins with this many octets and goes on with anything.
    AtLeast(u8),
    /// A record of `fixed` octets whose last field, `field` octets long, comes once or more.
    Repeats {
        /// Octets before the repeated field.
        fixed: u8,
        /// Octets of the repeated field.
        field: u8,
    },
    /// This many octets, then a domain name.
    NameAfter(u8),
    /// Domain names, one after the other.
    Names,
    /// One-octet lengths, each with as many octets: two in all at least.
    Tuples,
    /// Two-octet lengths, each with as many octets.
    LongTuples,
    /// Sub-options; those from the first cut one on are as if absent.
    SubOptions,
    /// RFC 4702.
    Fqdn,
    /// RFC 3925 3: enterprise numbers, each with a one-octet length and as many octets.
    VendorClass,
    /// RFC 3925 4: the same, the octets being sub-options.
    VendorInformation,
    /// What a configuration defines and none of the others can say: a record of [`Shapes`](super::shapes::Shapes).
    Defined(u16),
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Fits,
    /// Good when cut to this many octets.
    Cut(usize),
    /// As if it were not there.
    Absent,
    /// Fails the packet.
    Malformed,
    /// Ends the options: this one and those after it are as if absent.
    EndsOptions,
}

impl Shape {
    /// Judges a payload. `lenient` forgives what stands after the first good name or tuple.
    pub(super) fn check(self, data: &[u8], lenient: bool) -> Verdict {
        match self {
            Self::Any | Self::Defined(_) => Verdict::Fits,
            Self::Scalar(bytes) => match data.len().cmp(&usize::from(bytes)) {
                std::cmp::Ordering::Less => Verdict::Malformed,
                std::cmp::Ordering::Equal => Verdict::Fits,
                std::cmp::Ordering::Greater => Verdict::Cut(usize::from(bytes)),
            },
            Self::Addresses(bytes) => malformed_unless(data.len().is_multiple_of(usize::from(bytes))),
            Self::Integers(bytes) => {
                malformed_unless(!data.is_empty() && data.len().is_multiple_of(usize::from(bytes)))
            }
            Self::Text => match data.iter().rposition(|octet| *octet != 0) {
                None => Verdict::Absent,
                Some(last) if last + 1 == data.len() => Verdict::Fits,
                Some(last) => Verdict::Cut(last + 1),
            },
            Self::AtLeast(bytes) => malformed_unless(data.len() >= usize::from(bytes)),
            Self::Repeats { fixed, field } => {
                malformed_unless(data.len().checked_sub(usize::from(fixed)).is_some_and(|rest| {
                    rest >= usize::from(field) && rest.is_multiple_of(usize::from(field))
                }))
            }
            Self::NameAfter(bytes) => {
                let name = data.get(usize::from(bytes)..).and_then(name::wire_len);
                let whole = name.map(|len| len + usize::from(bytes));
                whole.map_or(Verdict::Malformed, |len| {
                    if len == data.len() { Verdict::Fits } else { Verdict::Cut(len) }
                })
            }
            Self::Names => sequence(data, lenient, |at| name::wire_len_within(data, at)),
            Self::Tuples if data.len() < 2 => Verdict::Malformed,
            Self::Tuples => sequence(data, lenient, |at| Some(1 + usize::from(*data.get(at)?))),
            Self::LongTuples => sequence(data, lenient, |at| {
                let len = data.get(at..)?.first_chunk()?;
                Some(2 + usize::from(u16::from_be_bytes(*len)))
            }),
            Self::SubOptions => {
                let mut walk = Walk::<1>::new(data);
                while walk.next().is_some() {}
                match walk.rest().len() {
                    0 => Verdict::Fits,
                    broken => Verdict::Cut(data.len() - broken),
                }
            }
            Self::Fqdn => check_fqdn(data, lenient),
            Self::VendorClass => vendor_blocks(data, |_| true),
            Self::VendorInformation => vendor_blocks(data, |options| Walk::<1>::new(options).is_whole()),
        }
    }
}

/// The lengths that are good whatever the payload: from `min` to `max`, without these bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    min: u8,
    max: u8,
    odd: u8,
}

impl Plain {
    /// The lengths at which a payload of this shape need not be looked at: [`Shape::check`] would say that it fits.
    pub(super) const fn of(shape: Shape) -> Self {
        const MAX: u8 = u8::MAX;
        match shape {
            Shape::Any => Self { min: 0, max: MAX, odd: 0 },
            Shape::Scalar(bytes) => Self { min: bytes, max: bytes, odd: 0 },
            Shape::Addresses(bytes) if bytes.is_power_of_two() => Self { min: 0, max: MAX, odd: bytes - 1 },
            Shape::AtLeast(bytes) => Self { min: bytes, max: MAX, odd: 0 },
            Shape::Integers(bytes) if bytes.is_power_of_two() => {
                Self { min: bytes, max: MAX, odd: bytes - 1 }
            }
            // Of no length.
            _ => Self { min: MAX, max: 0, odd: 0 },
        }
    }

    /// Whether `len` is one of them.
    #[inline]
    pub(super) const fn has(self, len: u16) -> bool {
        self.min as u16 <= len && len <= self.max as u16 && len & self.odd as u16 == 0
    }
}

fn malformed_unless(fits: bool) -> Verdict {
    if fits { Verdict::Fits } else { Verdict::Malformed }
}

/// One item or more, each as long as `item` says of its position, to the end. A lenient check keeps the good ones before
/// a bad one.
fn sequence(data: &[u8], lenient: bool, item: impl Fn(usize) -> Option<usize>) -> Verdict {
    let mut at = 0;
    while at < data.len() {
        match item(at).map(|len| at + len).filter(|end| *end <= data.len()) {
            Some(end) => at = end,
            None if lenient && at > 0 => return Verdict::Cut(at),
            None => return Verdict::Malformed,
        }
    }
    malformed_unless(!data.is_empty())
}

/// RFC 4702 2: flags, two codes nobody uses any more, a name that may be partial or absent.
fn check_fqdn(data: &[u8], lenient: bool) -> Verdict {
    const SERVER_UPDATES: u8 = 0b0001;
    const ENCODED: u8 = 0b0100;
    const NO_UPDATES: u8 = 0b1000;
    let Some((&[flags, _, _], domain)) = data.split_first_chunk() else {
        return Verdict::Malformed;
    };
    // RFC 4702 2.1: a client that wants no update cannot want the server to make one.
    if flags & NO_UPDATES != 0 && flags & SERVER_UPDATES != 0 {
        return Verdict::Malformed;
    }
    let fits = if flags & ENCODED != 0 { name::is_wire_or_partial(domain) } else { name::is_text(domain) };
    match (fits, lenient) {
        (true, _) => Verdict::Fits,
        (false, true) => Verdict::Cut(3),
        (false, false) => Verdict::Malformed,
    }
}

/// Enterprise number, length, octets, once or more; `inner` judges the octets.
fn vendor_blocks(data: &[u8], inner: impl Fn(&[u8]) -> bool) -> Verdict {
    let mut blocks = super::vendor::Blocks::new(data);
    let whole = blocks.by_ref().all(|block| inner(block.data));
    if whole && blocks.rest().is_empty() && !data.is_empty() { Verdict::Fits } else { Verdict::EndsOptions }
}

/// The standard shapes.
pub(super) const SHAPES: [Shape; 256] = {
    let mut table = [Shape::Any; 256];
    let mut index = 0;
    while index < DEFINED.len() {
        let (first, last, shape) = DEFINED[index];
        let mut code = first;
        while code <= last {
            table[code as usize] = shape;
            code += 1;
        }
        index += 1;
    }
    table
};

/// First code, last code, shape. Codes that are not here, or binary, have any content.
const DEFINED: &[(u8, u8, Shape)] = &[
    (1, 2, Shape::Scalar(4)),
    (3, 11, Shape::Addresses(4)),
    (12, 12, Shape::Text),
    (13, 13, Shape::Scalar(2)),
    (14, 15, Shape::Text),
    (16, 16, Shape::Scalar(4)),
    (17, 18, Shape::Text),
    (19, 20, Shape::Scalar(1)),
    (21, 21, Shape::Addresses(4)),
    (22, 22, Shape::Scalar(2)),
    (23, 23, Shape::Scalar(1)),
    (24, 24, Shape::Scalar(4)),
    (25, 25, Shape::Integers(2)),
    (26, 26, Shape::Scalar(2)),
    (27, 27, Shape::Scalar(1)),
    (28, 28, Shape::Scalar(4)),
    (29, 31, Shape::Scalar(1)),
    (32, 32, Shape::Scalar(4)),
    (33, 33, Shape::Addresses(4)),
    (34, 34, Shape::Scalar(1)),
    (35, 35, Shape::Scalar(4)),
    (36, 37, Shape::Scalar(1)),
    (38, 38, Shape::Scalar(4)),
    (39, 39, Shape::Scalar(1)),
    (40, 40, Shape::Text),
    (41, 42, Shape::Addresses(4)),
    (44, 45, Shape::Addresses(4)),
    (46, 46, Shape::Scalar(1)),
    (47, 47, Shape::Text),
    (48, 49, Shape::Addresses(4)),
    (50, 51, Shape::Scalar(4)),
    (52, 52, Shape::Scalar(1)),
    // Not cut to one octet: a doubled message type, joined to two, is no type at all.
    (53, 53, Shape::AtLeast(1)),
    (54, 54, Shape::Scalar(4)),
    (55, 55, Shape::Integers(1)),
    (56, 56, Shape::Text),
    (57, 57, Shape::Scalar(2)),
    (58, 59, Shape::Scalar(4)),
    (60, 60, Shape::Text),
    (62, 62, Shape::Text),
    (64, 64, Shape::Text),
    (65, 65, Shape::Addresses(4)),
    (66, 67, Shape::Text),
    (68, 76, Shape::Addresses(4)),
    (78, 78, Shape::Repeats { fixed: 1, field: 4 }),
    (79, 79, Shape::AtLeast(1)),
    (81, 81, Shape::Fqdn),
    (82, 82, Shape::SubOptions),
    (85, 85, Shape::Addresses(4)),
    (86, 87, Shape::Text),
    (88, 88, Shape::Names),
    (89, 89, Shape::Addresses(4)),
    (91, 91, Shape::Scalar(4)),
    (92, 92, Shape::Addresses(4)),
    (93, 93, Shape::Integers(2)),
    (94, 94, Shape::Scalar(3)),
    (97, 97, Shape::AtLeast(1)),
    (98, 98, Shape::Text),
    (100, 101, Shape::Text),
    (108, 108, Shape::Scalar(4)),
    (112, 112, Shape::Addresses(4)),
    (113, 114, Shape::Text),
    (116, 116, Shape::Scalar(1)),
    (117, 117, Shape::Integers(2)),
    (118, 118, Shape::Scalar(4)),
    (119, 119, Shape::Names),
    (124, 124, Shape::VendorClass),
    (125, 125, Shape::VendorInformation),
    (136, 136, Shape::Addresses(4)),
    (137, 137, Shape::NameAfter(0)),
    (138, 138, Shape::Addresses(4)),
    (141, 141, Shape::Names),
    (143, 143, Shape::LongTuples),
    (146, 146, Shape::NameAfter(9)),
    (151, 151, Shape::AtLeast(1)),
    (152, 155, Shape::Scalar(4)),
    (156, 157, Shape::Scalar(1)),
    (159, 159, Shape::Scalar(4)),
    (212, 212, Shape::Repeats { fixed: 18, field: 4 }),
    (213, 213, Shape::NameAfter(0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u8, data: &[u8]) -> Verdict {
        SHAPES[usize::from(code)].check(data, false)
    }

    #[test]
    fn scalars_may_be_too_long_but_not_too_short() {
        assert_eq!(check(51, &[0, 0, 1]), Verdict::Malformed);
        assert_eq!(check(51, &[0, 0, 1, 0]), Verdict::Fits);
        assert_eq!(check(51, &[0, 0, 1, 0, 9]), Verdict::Cut(4));
        assert_eq!(check(50, &[192, 0, 2]), Verdict::Malformed);
    }

    #[test]
    fn arrays_are_whole() {
        assert_eq!(check(3, &[1, 2, 3, 4, 5]), Verdict::Malformed);
        assert_eq!(check(3, &[]), Verdict::Fits);
        assert_eq!(check(55, &[]), Verdict::Malformed);
        assert_eq!(check(93, &[0]), Verdict::Malformed);
        assert_eq!(check(93, &[0, 7, 0, 9]), Verdict::Fits);
        assert_eq!(check(78, &[1]), Verdict::Malformed);
        assert_eq!(check(78, &[1, 192, 0, 2, 1]), Verdict::Fits);
    }

    #[test]
    fn addresses_to_bootstrap_from_have_lengths_of_two_octets() {
        // RFC 8572 8.1.
        assert_eq!(check(143, &[0, 1, b'a', 0, 2, b'b', b'c']), Verdict::Fits);
        assert_eq!(check(143, &[1, b'a']), Verdict::Malformed);
        assert_eq!(check(143, &[0, 1, b'a', 0]), Verdict::Malformed);
        assert_eq!(check(143, &[]), Verdict::Malformed);
        assert_eq!(Shape::LongTuples.check(&[0, 1, b'a', 0], true), Verdict::Cut(3));
        assert_eq!(Shape::Tuples.check(&[1, b'a', 0], false), Verdict::Fits);
        assert_eq!(Shape::Tuples.check(&[0], false), Verdict::Malformed);
    }

    #[test]
    fn text_loses_its_nul_octets() {
        assert_eq!(check(12, b"host\0\0"), Verdict::Cut(4));
        assert_eq!(check(12, b"a\0b"), Verdict::Fits);
        assert_eq!(check(12, b"\0\0"), Verdict::Absent);
        assert_eq!(check(12, b""), Verdict::Absent);
    }

    #[test]
    fn client_fqdn_is_checked() {
        assert_eq!(check(81, &[4, 0]), Verdict::Malformed);
        assert_eq!(check(81, &[4, 0, 0]), Verdict::Fits);
        assert_eq!(check(81, &[9, 0, 0]), Verdict::Malformed);
        assert_eq!(check(81, &[4, 0, 0, 3, b'f', b'o', b'o', 0]), Verdict::Fits);
        assert_eq!(check(81, &[4, 0, 0, 3, b'f', b'o', b'o']), Verdict::Fits);
        assert_eq!(check(81, &[4, 0, 0, 9, b'f', b'o', b'o']), Verdict::Malformed);
        assert_eq!(check(81, &[0, 0, 0, b'f', b'.', b'g', b'.']), Verdict::Fits);
        assert_eq!(check(81, &[0, 0, 0, b'f', b'.', b'.', b'g']), Verdict::Malformed);
        assert_eq!(Shape::Fqdn.check(&[0, 0, 0, b'.', b'.'], true), Verdict::Cut(3));
    }

    #[test]
    fn cut_vendor_options_end_the_options() {
        assert_eq!(check(124, &[0, 0, 1]), Verdict::EndsOptions);
        assert_eq!(check(124, &[0, 0, 0, 9, 2, 1, 2]), Verdict::Fits);
        assert_eq!(check(124, &[0, 0, 0, 9, 3, 1, 2]), Verdict::EndsOptions);
        assert_eq!(check(125, &[0, 0, 0, 9, 3, 1, 1, 7]), Verdict::Fits);
        assert_eq!(check(125, &[0, 0, 0, 9, 3, 1, 2, 7]), Verdict::EndsOptions);
    }

    #[test]
    fn sub_options_before_a_cut_one_count() {
        assert_eq!(check(82, &[1, 1, 7, 2, 9, 0]), Verdict::Cut(3));
        assert_eq!(check(82, &[1, 9]), Verdict::Cut(0));
        assert_eq!(check(82, &[1, 1, 7]), Verdict::Fits);
    }

    #[test]
    fn names_are_whole_or_leniently_cut() {
        let names = [1, b'a', 0, 1, b'b', 0];
        assert_eq!(check(119, &names), Verdict::Fits);
        assert_eq!(check(119, &names[..5]), Verdict::Malformed);
        assert_eq!(Shape::Names.check(&names[..5], true), Verdict::Cut(3));
        assert_eq!(check(119, &[1, b'a', 0, 0xc0, 0]), Verdict::Fits, "a pointer back");
        assert_eq!(check(119, &[1, b'a', 0, 0xc0, 3]), Verdict::Malformed, "a pointer to itself");
        assert_eq!(check(119, &[1, b'a', 0, 0xc0]), Verdict::Malformed);
        assert_eq!(check(119, &[]), Verdict::Malformed);
        assert_eq!(check(146, &[0; 10]), Verdict::Fits);
        assert_eq!(check(146, &[0; 9]), Verdict::Malformed);
    }
}
