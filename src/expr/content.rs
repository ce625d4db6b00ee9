//! What the standard options hold, as far as expressions see it: how `.text` prints them, where their sub-options begin.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Family;
use crate::ids::ColonHex;
use crate::wire::option::Walk;

/// What an option holds: decides how `.text` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text: printed as it is, without the code and length that all others begin with.
    Text,
    /// Octets, or anything not listed here: hex with colons.
    Octets,
    /// One address of the family.
    Address,
    /// Addresses of the family.
    Addresses,
    /// One integer of this many octets.
    Integer(u8),
    /// One signed integer of this many octets.
    Signed(u8),
    /// Integers of this many octets.
    Integers(u8),
    /// One octet, 0 or 1.
    Boolean,
    /// Nothing but sub-options.
    SubOptions,
}

/// What the standard option at `path` holds.
#[must_use]
pub const fn standard_content(family: Family, path: &[u16]) -> Content {
    match (family, path) {
        (Family::V4, [code]) => standard4(*code),
        (Family::V4, [82, sub]) => match sub {
            5 | 11 => Content::Address,
            6 | 14 | 15 | 18 => Content::Text,
            4 | 17 => Content::Integer(4),
            10 => Content::Integer(1),
            13 => Content::Integer(2),
            _ => Content::Octets,
        },
        (Family::V6, [code]) => standard6(*code),
        _ => Content::Octets,
    }
}

const fn standard4(code: u16) -> Content {
    match code {
        12 | 14 | 15 | 17 | 18 | 40 | 47 | 56 | 60 | 62 | 64 | 66 | 67 | 86 | 87 | 98 | 100 | 101 | 113
        | 114 => Content::Text,
        1 | 16 | 28 | 32 | 50 | 54 | 118 => Content::Address,
        3..=11 | 21 | 33 | 41 | 42 | 44 | 45 | 48 | 49 | 65 | 68..=76 | 85 | 89 | 92 | 112 | 136 | 138 => {
            Content::Addresses
        }
        19 | 20 | 27 | 29 | 30 | 31 | 34 | 36 | 39 => Content::Boolean,
        23 | 37 | 46 | 52 | 53 | 116 | 156 | 157 => Content::Integer(1),
        13 | 22 | 26 | 57 => Content::Integer(2),
        24 | 35 | 38 | 51 | 58 | 59 | 91 | 108 | 152..=155 => Content::Integer(4),
        2 => Content::Signed(4),
        55 => Content::Integers(1),
        25 | 93 | 117 => Content::Integers(2),
        43 | 82 | 122 => Content::SubOptions,
        _ => Content::Octets,
    }
}

const fn standard6(code: u16) -> Content {
    match code {
        41 | 42 | 59 | 103 => Content::Text,
        12 | 80 => Content::Address,
        22 | 23 | 27 | 28 | 31 | 34 | 40 | 52 | 88 | 143 => Content::Addresses,
        7 | 19 => Content::Integer(1),
        8 | 135 => Content::Integer(2),
        32 | 82 | 83 => Content::Integer(4),
        6 | 43 | 61 => Content::Integers(2),
        56 | 66 | 94 | 95 | 96 => Content::SubOptions,
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

/// Prints an option as `.text` shows it; text itself is not for here.
pub(super) fn print(
    out: &mut impl Write,
    family: Family,
    path: &[u16],
    content: Content,
    data: &[u8],
    content_of: &dyn Fn(&[u16]) -> Content,
) -> fmt::Result {
    let code = path.last().copied().unwrap_or(0);
    match family {
        Family::V4 => write!(out, "type={code:03}, len={:03}:", data.len())?,
        Family::V6 => write!(out, "type={code:05}, len={:05}:", data.len())?,
    }
    match content {
        Content::Text => write!(out, " \"{}\" (string)", Lossy(data)),
        Content::Octets if data.is_empty() => Ok(()),
        Content::Octets => write!(out, " {}", ColonHex(data)),
        Content::Address => {
            let kind = match family {
                Family::V4 => "ipv4-address",
                Family::V6 => "ipv6-address",
            };
            out.write_str(" ")?;
            print_address(out, data)?;
            write!(out, " ({kind})")
        }
        Content::Addresses => {
            let size = match family {
                Family::V4 => 4,
                Family::V6 => 16,
            };
            data.chunks_exact(size).try_for_each(|address| {
                out.write_str(" ")?;
                print_address(out, address)
            })
        }
        Content::Integer(bytes) => {
            write!(out, " {} (uint{})", unsigned(data), u32::from(bytes) * 8)
        }
        Content::Signed(bytes) => write!(out, " {} (int{})", signed(data), u32::from(bytes) * 8),
        Content::Integers(bytes) => data
            .chunks_exact(usize::from(bytes.max(1)))
            .try_for_each(|item| write!(out, " {}(uint{})", unsigned(item), u32::from(bytes) * 8)),
        Content::Boolean => {
            let value = if data.iter().all(|octet| *octet == 0) { "false" } else { "true" };
            write!(out, " {value} (boolean)")
        }
        Content::SubOptions => {
            if data.is_empty() {
                return Ok(());
            }
            out.write_str(",\noptions:")?;
            let sub_options: &mut dyn Iterator<Item = crate::wire::option::Opt<'_>> = match family {
                Family::V4 => &mut Walk::<1>::new(data),
                Family::V6 => &mut Walk::<2>::new(data),
            };
            for option in sub_options {
                out.write_str("\n  ")?;
                let path = [code, option.code];
                let content = match content_of(&path) {
                    // One level is all that is printed, so that the depth is bounded.
                    Content::SubOptions => Content::Octets,
                    content => content,
                };
                print_flat(out, family, option.code, content, option.data)?;
            }
            Ok(())
        }
    }
}

fn print_flat(out: &mut impl Write, family: Family, code: u16, content: Content, data: &[u8]) -> fmt::Result {
    print(out, family, &[code], content, data, &|_| Content::Octets)
}

fn print_address(out: &mut impl Write, octets: &[u8]) -> fmt::Result {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        write!(out, "{}", Ipv4Addr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        write!(out, "{}", Ipv6Addr::from(octets))
    } else {
        write!(out, "{}", ColonHex(octets))
    }
}

/// A big-endian integer of at most eight octets.
pub(super) fn unsigned(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
}

/// A big-endian two's-complement integer of at most eight octets.
pub(super) fn signed(octets: &[u8]) -> i64 {
    let negative = octets.first().is_some_and(|octet| octet & 0x80 != 0);
    octets.iter().fold(if negative { -1 } else { 0 }, |value, octet| value << 8 | i64::from(*octet))
}

/// Octets that should be text.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| out.write_str(chunk.valid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &[u16], data: &[u8]) -> String {
        let mut out = String::new();
        let content = standard_content(Family::V4, path);
        print(&mut out, Family::V4, path, content, data, &|path| standard_content(Family::V4, path))
            .expect("room");
        out
    }

    #[test]
    fn options_print_by_their_content() {
        assert_eq!(text(&[50], &[192, 0, 2, 15]), "type=050, len=004: 192.0.2.15 (ipv4-address)");
        assert_eq!(text(&[55], &[1, 3]), "type=055, len=002: 1(uint8) 3(uint8)");
        assert_eq!(text(&[82, 1], b"eth1"), "type=001, len=004: 65:74:68:31");
        assert_eq!(text(&[51], &[0, 0, 14, 16]), "type=051, len=004: 3600 (uint32)");
        assert_eq!(text(&[6], &[1, 2, 3, 4, 5, 6, 7, 8]), "type=006, len=008: 1.2.3.4 5.6.7.8");
        assert_eq!(text(&[19], &[1]), "type=019, len=001: true (boolean)");
        assert_eq!(text(&[2], &[255, 255, 255, 254]), "type=002, len=004: -2 (int32)");
        assert_eq!(text(&[82], &[1, 1, 7]), "type=082, len=003:,\noptions:\n  type=001, len=001: 07");
    }

    #[test]
    fn the_second_family_prints_five_digits() {
        let mut out = String::new();
        print(&mut out, Family::V6, &[1], Content::Octets, &[0, 3], &|_| Content::Octets).expect("room");
        assert_eq!(out, "type=00001, len=00002: 00:03");
    }

    #[test]
    fn integers_are_big_endian() {
        assert_eq!((unsigned(&[1, 0]), signed(&[0xff]), signed(&[0x7f, 0xff])), (256, -1, 32767));
        assert_eq!((unsigned(&[255; 8]), signed(&[255; 8]), unsigned(&[])), (u64::MAX, -1, 0));
    }
}
