//! How `.text` prints an option: Kea's form, which differs by the class that reads the option as well as by its types.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Family;
use super::content::{Content, Item, Layout, vendor_content};
use crate::ids::ColonHex;
use crate::wire::name::{Fqdn, Labels, LabelsWithin};
use crate::wire::option::{Opt, Walk};
use crate::wire::vendor::Blocks;

/// Where text is put.
pub(super) trait Sink: Write {
    /// Appends octets that need not be text.
    fn octets(&mut self, octets: &[u8]) -> fmt::Result;
}

/// Prints the option `code`, `indent` columns in. At the top, text itself is not for here.
pub(super) fn print(
    out: &mut impl Sink,
    family: Family,
    code: u16,
    layout: &Layout,
    data: &[u8],
    indent: usize,
) -> fmt::Result {
    match &layout.content {
        Content::Octets => {
            head(out, family, code, data.len())?;
            write!(out, " {}", ColonHex(data))
        }
        Content::Empty => {
            head(out, family, code, 0)?;
            out.write_str(" ")
        }
        Content::Text => {
            head(out, family, code, data.len())?;
            out.write_str(" \"")?;
            out.octets(data)?;
            out.write_str("\" (string)")
        }
        Content::Items { items, repeats } => {
            let walk = Items { family, data, at: 0, items, index: 0, repeats: *repeats };
            let (mut len, mut end) = (0, 0);
            for (item, octets, at) in walk.clone() {
                end = at + octets.len();
                // A compressed name counts as what it stands for.
                len += if item == Item::Name { name_len(data, at) } else { octets.len() };
            }
            let rest = data.get(end..).filter(|_| layout.carries).unwrap_or(&[]);
            head(
                out,
                family,
                code,
                len + sub_options(family, rest).map(|option| option.size).sum::<usize>(),
            )?;
            for (item, octets, at) in walk {
                out.write_str(" ")?;
                print_item(out, family, item, octets, data.get(..at + octets.len()).unwrap_or(data), at)?;
            }
            print_sub_options(out, family, rest, indent, &|code| {
                layout.inner.iter().find(|(known, _)| *known == code).map(|(_, layout)| layout)
            })
        }
        Content::Addresses(item) => {
            head(out, family, code, data.len())?;
            let size = if *item == Item::Address6 { 16 } else { 4 };
            data.chunks_exact(size).try_for_each(|address| {
                out.write_str(" ")?;
                print_address(out, address)
            })
        }
        Content::Integers(item) => {
            head(out, family, code, data.len())?;
            let (bytes, is_signed) = match item {
                Item::Signed(bytes) => (*bytes, true),
                Item::Unsigned(bytes) => (*bytes, false),
                _ => (1, false),
            };
            let bits = u32::from(bytes) * 8;
            data.chunks_exact(usize::from(bytes.max(1))).try_for_each(|item| {
                // Kea reads larger integers with sign as such without.
                if is_signed && bytes == 1 {
                    write!(out, " {}(int8)", signed(item))
                } else {
                    write!(out, " {}(uint{bits})", unsigned(item))
                }
            })
        }
        Content::Tuples => {
            write!(out, "type={code}, len={}", data.len())?;
            // Those of option 143 have lengths of two octets, as in DHCPv6 (RFC 8572 8.1).
            tuples(if code == 143 { Family::V6 } else { family }, data).enumerate().try_for_each(
                |(index, text)| {
                    write!(out, ", data-len{index}={}, data{index}='", text.len())?;
                    out.octets(text)?;
                    out.write_str("'")
                },
            )
        }
        Content::ClientName => print_client_name(out, code, data),
        Content::ServiceScope => {
            head(out, family, code, data.len())?;
            let (mandatory, scopes) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
            write!(out, " mandatory:{}, scope-list:\"", u8::from(mandatory != 0))?;
            out.octets(scopes)?;
            out.write_str("\"")
        }
        Content::VendorClass => print_vendor_class(out, family, code, data),
        Content::VendorInformation => print_vendor_information(out, family, code, data, indent),
    }
}

/// What a line begins with.
fn head(out: &mut impl Write, family: Family, code: u16, len: usize) -> fmt::Result {
    match family {
        Family::V4 => write!(out, "type={code:03}, len={len:03}:"),
        Family::V6 => write!(out, "type={code:05}, len={len:05}:"),
    }
}

/// The values of an option with their positions; ends at one that is cut short.
#[derive(Clone)]
struct Items<'a> {
    family: Family,
    data: &'a [u8],
    at: usize,
    items: &'a [Item],
    index: usize,
    repeats: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = (Item, &'a [u8], usize);

    fn next(&mut self) -> Option<Self::Item> {
        let is_again = self.index >= self.items.len();
        let item = match self.items.get(self.index) {
            Some(item) => *item,
            None => *self.items.last().filter(|_| self.repeats)?,
        };
        let rest = self.data.get(self.at..)?;
        if is_again && rest.is_empty() {
            return None;
        }
        let len = match item {
            Item::Octets | Item::Text => rest.len(),
            Item::Boolean => 1,
            Item::Signed(bytes) | Item::Unsigned(bytes) => usize::from(bytes),
            Item::Address4 => 4,
            Item::Address6 => 16,
            Item::Prefix => 1 + usize::from(rest.first()?.div_ceil(8)),
            Item::PortSet => 3,
            Item::Tuple => tuple(self.family, rest)?.1,
            Item::Name => LabelsWithin::len_at(self.data, self.at)?,
        };
        let octets = rest.get(..len)?;
        let at = self.at;
        self.at += len;
        self.index += 1;
        Some((item, octets, at))
    }
}

/// The length of the name at `at` without compression.
fn name_len(data: &[u8], at: usize) -> usize {
    1 + LabelsWithin::new(data, at).map(|label| 1 + label.len()).sum::<usize>()
}

fn print_item(
    out: &mut impl Sink,
    family: Family,
    item: Item,
    octets: &[u8],
    data: &[u8],
    at: usize,
) -> fmt::Result {
    match item {
        Item::Octets => {
            octets.iter().try_for_each(|octet| write!(out, "{octet:02X}"))?;
            out.write_str(" (binary)")
        }
        Item::Boolean => {
            let value = if octets.iter().all(|octet| *octet == 0) { "false" } else { "true" };
            write!(out, "{value} (boolean)")
        }
        Item::Signed(bytes) => write!(out, "{} (int{})", signed(octets), u32::from(bytes) * 8),
        Item::Unsigned(bytes) => write!(out, "{} (uint{})", unsigned(octets), u32::from(bytes) * 8),
        Item::Address4 => {
            print_address(out, octets)?;
            out.write_str(" (ipv4-address)")
        }
        Item::Address6 => {
            print_address(out, octets)?;
            out.write_str(" (ipv6-address)")
        }
        // Kea prints no prefix here.
        Item::Prefix => out.write_str(" (ipv6-prefix)"),
        Item::PortSet => {
            let (bits, set) = octets.split_first().map_or((0, octets), |(bits, set)| (*bits, set));
            // The number is in the high bits.
            let number = unsigned(set) >> 16_u32.saturating_sub(u32::from(bits)).min(16);
            write!(out, "len={bits},psid={number} (psid)")
        }
        Item::Text => quoted(out, octets, "string"),
        Item::Tuple => quoted(out, tuple(family, octets).map_or(&[], |(text, _)| text), "tuple"),
        Item::Name => {
            out.write_str("\"")?;
            let mut labels = LabelsWithin::new(data, at).peekable();
            if labels.peek().is_none() {
                out.write_str(".")?;
            }
            for label in labels {
                print_label(out, label, false)?;
                out.write_str(".")?;
            }
            out.write_str("\" (fqdn)")
        }
    }
}

fn quoted(out: &mut impl Sink, text: &[u8], kind: &str) -> fmt::Result {
    out.write_str("\"")?;
    out.octets(text)?;
    write!(out, "\" ({kind})")
}

/// One label as RFC 1035 5.1 writes it.
fn print_label(out: &mut impl Write, label: &[u8], is_lower: bool) -> fmt::Result {
    label.iter().try_for_each(|octet| {
        let octet = if is_lower { octet.to_ascii_lowercase() } else { *octet };
        match octet {
            b'"' | b'(' | b')' | b'.' | b';' | b'\\' | b'@' | b'$' => write!(out, "\\{}", char::from(octet)),
            0x21..=0x7e => out.write_char(char::from(octet)),
            _ => write!(out, "\\{octet:03}"),
        }
    })
}

fn print_client_name(out: &mut impl Sink, code: u16, data: &[u8]) -> fmt::Result {
    let Some(name) = Fqdn::new(data) else { return Ok(()) };
    let bit = |bit: u8| u8::from(name.flags() & bit != 0);
    write!(
        out,
        "type={code} (CLIENT_FQDN), flags: (N={}, E={}, O={}, S={}), domain-name='",
        bit(Fqdn::N),
        bit(Fqdn::E),
        bit(Fqdn::O),
        bit(Fqdn::S)
    )?;
    let domain = name.domain();
    let is_whole = if name.is_encoded() {
        let mut labels = Labels::new(domain);
        let mut len = 0;
        for (index, label) in labels.by_ref().enumerate() {
            if index > 0 {
                out.write_str(".")?;
            }
            print_label(out, label, true)?;
            len += 1 + label.len();
        }
        domain.is_empty() || len < domain.len()
    } else {
        let bare = domain.strip_suffix(b".").unwrap_or(domain);
        for (index, label) in bare.split(|octet| *octet == b'.').enumerate() {
            if index > 0 {
                out.write_str(".")?;
            }
            print_label(out, label, true)?;
        }
        domain.is_empty() || bare.len() < domain.len()
    };
    let dot = if is_whole && !domain.is_empty() { "." } else { "" };
    write!(out, "{dot}' ({})", if is_whole { "full" } else { "partial" })
}

fn print_vendor_class(out: &mut impl Sink, family: Family, code: u16, data: &[u8]) -> fmt::Result {
    let enterprise = data.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
    write!(out, "type={code}, len={}, ", data.len())?;
    let mut one = |index: usize, text: &[u8]| {
        if family == Family::V4 || index == 0 {
            // Kea says the first enterprise of each.
            let comma = if index > 0 { "," } else { "" };
            write!(out, "{comma} enterprise id=0x{enterprise:x}")?;
        }
        write!(out, ", data-len{index}={}, vendor-class-data{index}='", text.len())?;
        out.octets(text)?;
        out.write_str("'")
    };
    match family {
        Family::V4 => Blocks::new(data).enumerate().try_for_each(|(index, block)| one(index, block.data)),
        Family::V6 => tuples(family, data.get(4..).unwrap_or(&[]))
            .enumerate()
            .try_for_each(|(index, text)| one(index, text)),
    }
}

fn print_vendor_information(
    out: &mut impl Sink,
    family: Family,
    code: u16,
    data: &[u8],
    indent: usize,
) -> fmt::Result {
    let (enterprise, options) = match family {
        Family::V4 => Blocks::new(data).next().map_or((0, &[][..]), |block| (block.enterprise, block.data)),
        Family::V6 => data
            .split_first_chunk()
            .map_or((0, &[][..]), |(number, rest)| (u32::from_be_bytes(*number), rest)),
    };
    match family {
        Family::V4 => {
            head(out, family, code, 5 + options.len())?;
            write!(out, " {enterprise} (uint32) {} (uint8)", options.len())?;
        }
        Family::V6 => {
            head(out, family, code, 4 + options.len())?;
            write!(out, " {enterprise} (uint32)")?;
        }
    }
    if options.is_empty() {
        return Ok(());
    }
    out.write_str(",\noptions:")?;
    sub_options(family, options).try_for_each(|Sub { option, .. }| {
        write!(out, "\n{:1$}", "", indent + 2)?;
        let layout = Layout::leaf(vendor_content(family, enterprise, option.code));
        print(out, family, option.code, &layout, option.data, indent + 2)
    })
}

/// A sub-option and how many octets it takes with its code and length.
struct Sub<'a> {
    option: Opt<'a>,
    size: usize,
}

fn sub_options(family: Family, data: &[u8]) -> impl Iterator<Item = Sub<'_>> {
    let (mut one, mut two) = (Walk::<1>::new(data), Walk::<2>::new(data));
    std::iter::from_fn(move || {
        let (option, head) = match family {
            Family::V4 => (one.next()?, 2),
            Family::V6 => (two.next()?, 4),
        };
        Some(Sub { option, size: head + option.data.len() })
    })
}

fn print_sub_options<'l>(
    out: &mut impl Sink,
    family: Family,
    data: &[u8],
    indent: usize,
    layout_of: &dyn Fn(u16) -> Option<&'l Layout>,
) -> fmt::Result {
    for (index, Sub { option, .. }) in sub_options(family, data).enumerate() {
        if index == 0 {
            out.write_str(",\noptions:")?;
        }
        write!(out, "\n{:1$}", "", indent + 2)?;
        let layout = layout_of(option.code).unwrap_or(&OCTETS);
        print(out, family, option.code, layout, option.data, indent + 2)?;
    }
    Ok(())
}

static OCTETS: Layout = Layout::leaf(Content::Octets);

/// The text that a tuple at the start of `data` holds, and how many octets the tuple takes.
fn tuple(family: Family, data: &[u8]) -> Option<(&[u8], usize)> {
    let (len, head) = match family {
        Family::V4 => (usize::from(*data.first()?), 1),
        Family::V6 => (usize::from(u16::from_be_bytes(*data.first_chunk()?)), 2),
    };
    Some((data.get(head..head + len)?, head + len))
}

fn tuples(family: Family, mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (text, size) = tuple(family, data)?;
        data = data.get(size..)?;
        Some(text)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian() {
        assert_eq!((unsigned(&[1, 0]), signed(&[0xff]), signed(&[0x7f, 0xff])), (256, -1, 32767));
        assert_eq!((unsigned(&[255; 8]), signed(&[255; 8]), unsigned(&[])), (u64::MAX, -1, 0));
    }
}
