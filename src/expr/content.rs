//! What options hold, as far as `.text` is concerned.

use super::{Family, Names};

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Octets to the end.
    Octets,
    /// One octet, 0 or 1.
    Boolean,
    /// An integer of this many octets, with sign.
    Signed(u8),
    /// An integer of this many octets.
    Unsigned(u8),
    /// Four octets.
    Address4,
    /// Sixteen octets.
    Address6,
    /// A length in bits and as many octets as it takes.
    Prefix,
    /// A length in bits and two octets.
    PortSet,
    /// Text to the end.
    Text,
    /// Text behind its length, which takes one octet, in DHCPv6 two.
    Tuple,
    /// A domain name.
    Name,
}

/// What an option holds: decides how `.text` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text: printed as it is, without the code and length that all others begin with.
    Text,
    /// Octets, or anything not known: hex with colons.
    Octets,
    /// Nothing, whatever stands there.
    Empty,
    /// Values one after the other, then perhaps sub-options.
    Items {
        /// Their types.
        items: Box<[Item]>,
        /// Whether the last comes again and again.
        repeats: bool,
    },
    /// Addresses, all of the one type.
    Addresses(Item),
    /// Integers, all of the one type.
    Integers(Item),
    /// Texts behind their lengths.
    Tuples,
    /// A client's name (RFC 4702).
    ClientName,
    /// Scopes of service location (RFC 2610 4).
    ServiceScope,
    /// What an enterprise calls its device (RFC 3925 3).
    VendorClass,
    /// Options of an enterprise (RFC 3925 4).
    VendorInformation,
}

/// An option's content and that of its sub-options.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) content: Content,
    /// Whether there are sub-options behind the content.
    pub(super) carries: bool,
    /// The sub-options that are more than octets.
    pub(super) inner: Vec<(u16, Self)>,
}

/// Sub-options that printing knows below one option; more of them are octets. Spaces may hold each other.
const INNER_MAX: usize = 1_024;
/// How deep sub-options are printed as such.
const DEPTH_MAX: usize = 4;

impl Layout {
    pub(super) fn of(family: Family, path: &[u16], names: &dyn Names) -> Self {
        let mut left = INNER_MAX;
        Self::below(family, &mut path.to_vec(), names, DEPTH_MAX, &mut left)
    }

    pub(super) const fn leaf(content: Content) -> Self {
        Self { content, carries: false, inner: Vec::new() }
    }

    fn below(family: Family, path: &mut Vec<u16>, names: &dyn Names, depth: usize, left: &mut usize) -> Self {
        let content = names.content(family, path);
        let carries = depth > 0
            && matches!(content, Content::Items { .. })
            && names.sub_options_at(family, path).is_some();
        let mut inner = Vec::new();
        if carries {
            for code in 0..=u16::from(u8::MAX) {
                path.push(code);
                if names.content(family, path) != Content::Octets && *left > 0 {
                    *left -= 1;
                    inner.push((code, Self::below(family, path, names, depth - 1, left)));
                }
                path.pop();
            }
        }
        Self { content, carries, inner }
    }

    /// Most octets that an option of `len` octets takes when it is printed.
    pub(super) fn text_bytes_max(&self, len: usize) -> usize {
        // The longest beginning is that of a client's name.
        let (fixed, for_each) = match &self.content {
            Content::Text => return len,
            Content::Empty => (96, 0),
            Content::Octets | Content::ServiceScope => (96, 3),
            // `255.255.255.255 `, and IPv6 is no longer.
            Content::Addresses(_) | Content::ClientName => (96, 4),
            // `255(uint8) `
            Content::Integers(_) => (96, 11),
            // An octet of a name may take four; a value and its type no more than the longest address.
            Content::Items { items, repeats: false } if !self.carries => (96 + 64 * items.len(), 4),
            // ` false (boolean)`; sub-options take less for their two octets or more.
            Content::Items { .. } | Content::VendorClass | Content::VendorInformation => (96, 16),
            // `, data-len0=0, data0=''` with larger numbers for an octet without text.
            Content::Tuples => (96, 32),
        };
        fixed + for_each * len
    }
}

/// What the sub-option `code` of an enterprise's options holds: those of Cable Television Laboratories are known.
pub(super) fn vendor_content(family: Family, enterprise: u32, code: u16) -> Content {
    match (enterprise, family, code) {
        (4491, Family::V4, 1) => Content::Integers(Item::Unsigned(1)),
        (4491, Family::V4, 2) => Content::Addresses(Item::Address4),
        (4491, Family::V6, 1) => Content::Integers(Item::Unsigned(2)),
        (4491, Family::V6, 32 | 34 | 37) => Content::Addresses(Item::Address6),
        (4491, Family::V6, 2 | 10 | 33) => Content::Text,
        (4491, Family::V6, 38) => Content::Items { items: [Item::Signed(4)].into(), repeats: false },
        _ => Content::Octets,
    }
}

/// How many octets stand before the sub-options of the standard option at `path`; nothing when it has none.
#[must_use]
pub const fn standard_sub_options_at(family: Family, path: &[u16]) -> Option<u16> {
    match (family, path) {
        (Family::V4, [43 | 82 | 122]) | (Family::V6, [56 | 66 | 94 | 95 | 96]) => Some(0),
        // The first enterprise's number and the length of what it says.
        (Family::V4, [125]) => Some(5),
        (Family::V6, [17]) => Some(4),
        (Family::V6, [3 | 25]) => Some(12),
        (Family::V6, [4]) => Some(4),
        (Family::V6, [3 | 4, 5]) => Some(24),
        (Family::V6, [25, 26]) => Some(25),
        _ => None,
    }
}
