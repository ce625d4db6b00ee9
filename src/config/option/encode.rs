//! Value text into octets, and octets given as such against their definition.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Definition, Kind, parse_hex};
use crate::config::tree::Prefix4;

/// The DHCP that options are for: some values have lengths of other sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// DHCPv4.
    V4,
    /// DHCPv6.
    V6,
}

/// Longest domain name on the wire, root included (RFC 1035 3.1).
const NAME_BYTES_MAX: usize = 255;
/// Longest label (RFC 1035 3.1).
const LABEL_BYTES_MAX: usize = 63;
/// Classless static routes (RFC 3442).
const CLASSLESS_ROUTES: u16 = 121;
/// Bootstrap servers: the only DHCPv4 option whose tuples have lengths of two octets (RFC 8572 8.1).
pub(super) const LONG_TUPLES: u16 = 143;

/// Whose tuples an option has: those of DHCPv6 have lengths of two octets.
const fn family_of_tuples(family: Family, code: u16) -> Family {
    if code == LONG_TUPLES { Family::V6 } else { family }
}

/// Text cut at commas that have no backslash before them; blanks around a token and empty tokens do not count.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    let mut escaped = false;
    for symbol in text.chars() {
        let last = tokens.len() - 1;
        match symbol {
            ',' if !escaped => tokens.push(String::new()),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ',' | '\\' => tokens[last].push(symbol),
            _ => {
                if escaped {
                    tokens[last].push('\\');
                }
                tokens[last].push(symbol);
            }
        }
        escaped = false;
    }
    if escaped {
        let last = tokens.len() - 1;
        tokens[last].push('\\');
    }
    tokens.retain(|token| !token.is_empty());
    tokens.iter().map(|token| token.trim_matches([' ', '\t', '\n', '\r']).to_owned()).collect()
}

/// The octets that `text` stands for as a value of `definition`. The error says what is wrong, without a place.
pub fn encode(definition: &Definition, family: Family, text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    if definition.kind == Kind::Internal {
        return internal(definition, text);
    }
    let tokens = tokens(text);
    let tuples = family_of_tuples(family, definition.code);
    match definition.kind {
        Kind::Empty if tokens.is_empty() => {}
        Kind::Empty => {
            return Err(
                "attempt to write invalid option data field type into the option buffer: 0".to_owned()
            );
        }
        Kind::Record => {
            let (first, rest) = tokens.split_at_checked(definition.fields.len()).ok_or_else(|| {
                format!(
                    "number of data fields for the option type '{}' is greater than number of values provided.",
                    definition.code
                )
            })?;
            for (&kind, token) in definition.fields.iter().zip(first) {
                field(kind, tuples, token, &mut octets)?;
            }
            if let (true, Some(&last)) = (definition.array, definition.fields.last()) {
                rest.iter().try_for_each(|token| field(last, tuples, token, &mut octets))?;
            }
        }
        kind if definition.array => {
            tokens.iter().try_for_each(|token| field(kind, tuples, token, &mut octets))?;
        }
        kind => {
            let token = tokens.first().ok_or_else(|| "no option value specified".to_owned())?;
            field(kind, tuples, token, &mut octets)?;
        }
    }
    check(definition, family, octets)
}

/// `octets` as a value of `definition`: cut to its size where Kea reads no further. The error says what is wrong.
pub fn check(definition: &Definition, family: Family, mut octets: Vec<u8>) -> Result<Vec<u8>, String> {
    let code = definition.code;
    match (family, code) {
        (Family::V4, 81) if octets.len() < 3 => {
            return Err("DHCPv4 Client FQDN Option (81) is truncated".to_owned());
        }
        (Family::V4, 124) => return vendor_class(octets),
        (Family::V4, 125) => return vendor_information(octets),
        _ => {}
    }
    let truncated = || Err("option buffer truncated".to_owned());
    let tuples = family_of_tuples(family, code);
    match definition.kind {
        Kind::Empty | Kind::Internal => {}
        Kind::Record => {
            let mut rest = octets.as_slice();
            for &kind in definition.fields.iter() {
                rest = after_field(kind, tuples, rest)?;
            }
            if let (true, Some(&last)) = (definition.array, definition.fields.last()) {
                while !rest.is_empty() {
                    rest = after_field(last, tuples, rest)?;
                }
            }
            if definition.encapsulates.is_empty() {
                octets.truncate(octets.len() - rest.len());
            }
        }
        Kind::Ipv4 if definition.array && !octets.len().is_multiple_of(4) => {
            return Err(format!(
                "DHCPv4 Option4AddrLst {code} has invalid length={}, must be divisible by 4.",
                octets.len()
            ));
        }
        Kind::Int8 | Kind::Uint8 | Kind::Int16 | Kind::Uint16 | Kind::Int32 | Kind::Uint32
            if definition.array =>
        {
            if octets.is_empty() {
                return Err(format!("option {code} empty"));
            }
            if !octets.len().is_multiple_of(size(definition.kind).unwrap_or(1)) {
                return Err(format!("OptionIntArray {code} truncated"));
            }
        }
        Kind::Fqdn if definition.array => {
            if octets.is_empty() {
                return Err("FQDN list option has invalid length of 0".to_owned());
            }
            let mut rest = octets.as_slice();
            while !rest.is_empty() {
                rest = after_field(Kind::Fqdn, tuples, rest)?;
            }
        }
        kind if definition.array => {
            let mut rest = octets.as_slice();
            while !rest.is_empty() {
                rest = after_field(kind, tuples, rest)?;
            }
        }
        Kind::String => {
            let kept = octets.len() - octets.iter().rev().take_while(|&&octet| octet == 0).count();
            if kept == 0 {
                return Err(format!(
                    "failed to parse an option '{code}' holding string value' was empty or contained only nuls"
                ));
            }
            octets.truncate(kept);
        }
        Kind::Int8 | Kind::Uint8 | Kind::Int16 | Kind::Uint16 | Kind::Int32 | Kind::Uint32 => {
            let bytes = size(definition.kind).unwrap_or(1);
            if octets.len() < bytes {
                return Err(format!("OptionInt {code} truncated"));
            }
            if definition.encapsulates.is_empty() {
                octets.truncate(bytes);
            }
        }
        kind => {
            let rest = after_field(kind, tuples, &octets)?.len();
            if octets.is_empty() && kind != Kind::Binary {
                return truncated();
            }
            if definition.encapsulates.is_empty() {
                octets.truncate(octets.len() - rest);
            }
        }
    }
    Ok(octets)
}

/// Octets of a value of this type, where all have the same number.
pub(super) const fn size(kind: Kind) -> Option<usize> {
    Some(match kind {
        Kind::Boolean | Kind::Int8 | Kind::Uint8 => 1,
        Kind::Int16 | Kind::Uint16 => 2,
        Kind::Int32 | Kind::Uint32 | Kind::Ipv4 => 4,
        Kind::Ipv6 => 16,
        Kind::Psid => 3,
        _ => return None,
    })
}

/// What follows the value of this type at the start of `octets`.
fn after_field(kind: Kind, tuples: Family, octets: &[u8]) -> Result<&[u8], String> {
    let truncated = || "option buffer truncated".to_owned();
    let bytes = match kind {
        Kind::Empty | Kind::Internal | Kind::Record => 0,
        Kind::Binary | Kind::String => octets.len(),
        Kind::Fqdn => return after_name(octets),
        Kind::Ipv6Prefix => {
            let &bits = octets.first().ok_or_else(truncated)?;
            if bits > 128 {
                return Err(format!("invalid prefix length {bits}"));
            }
            1 + usize::from(bits.div_ceil(8))
        }
        Kind::Tuple => {
            let (bytes, head) = match (tuples, octets) {
                (Family::V4, &[bytes, ..]) => (usize::from(bytes), 1),
                (Family::V6, &[high, low, ..]) => (usize::from(u16::from_be_bytes([high, low])), 2),
                _ => return Err(truncated()),
            };
            head + bytes
        }
        fixed => size(fixed).unwrap_or(0),
    };
    octets.get(bytes..).ok_or_else(truncated)
}

fn after_name(octets: &[u8]) -> Result<&[u8], String> {
    let mut rest = octets;
    loop {
        match rest.split_first() {
            Some((0, after)) => return Ok(after),
            Some((&bytes, after)) if usize::from(bytes) <= LABEL_BYTES_MAX => {
                rest = after.get(usize::from(bytes)..).ok_or("incomplete wire-format name")?;
            }
            Some(_) => return Err("unknown label character".to_owned()),
            None => return Err("incomplete wire-format name".to_owned()),
        }
    }
}

/// RFC 3925 3: enterprise, length and data, and again; Kea wants one enterprise in all of them.
fn vendor_class(octets: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut rest = octets.as_slice();
    while let [a, b, c, d, bytes, after @ ..] = rest {
        if octets[..4] != [*a, *b, *c, *d] {
            return Err("V-I Vendor Class option with two different enterprise ids".to_owned());
        }
        match after.get(usize::from(*bytes)..) {
            Some([]) => return Ok(octets),
            Some(after) => rest = after,
            None => break,
        }
    }
    Err("truncated DHCPv4 V-I Vendor Class option - it should contain enterprise id followed by opaque data field \
         tuple"
    .to_owned())
}

/// RFC 3925 4: enterprise and, unless it is alone, length and sub-options.
fn vendor_information(octets: Vec<u8>) -> Result<Vec<u8>, String> {
    if octets.len() < 4 {
        return Err(format!("Truncated vendor-specific information option, length={}", octets.len()));
    }
    let mut rest = octets.as_slice();
    while let [_, _, _, _, after @ ..] = rest {
        let Some((&bytes, after)) = after.split_first() else {
            return if rest.len() == octets.len() { Ok([&octets[..], &[0]].concat()) } else { Ok(octets) };
        };
        let (mut data, after) = after.split_at_checked(usize::from(bytes)).ok_or_else(|| {
            format!("Truncated vendor-specific information option, length={}", octets.len())
        })?;
        while let Some((&code, value)) = data.split_first() {
            let (&bytes, value) = value
                .split_first()
                .ok_or_else(|| format!("Attempt to parse truncated vendor option {code}"))?;
            data = value
                .get(usize::from(bytes)..)
                .ok_or_else(|| format!("Attempt to parse truncated vendor option {code}"))?;
        }
        rest = after;
    }
    if rest.is_empty() { Ok(octets) } else { Err("Truncated vendor-specific information option".to_owned()) }
}

fn field(kind: Kind, tuples: Family, token: &str, octets: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::Binary => octets.extend(base16(token)?),
        Kind::Boolean => octets.push(boolean(token)?),
        // The ranges hold: the cut keeps the low octets of a number that fits.
        Kind::Int8 => octets.extend(&integer(token, i8::MIN.into(), i8::MAX.into())?.to_be_bytes()[7..]),
        Kind::Int16 => octets.extend(&integer(token, i16::MIN.into(), i16::MAX.into())?.to_be_bytes()[6..]),
        Kind::Int32 => octets.extend(&integer(token, i32::MIN.into(), i32::MAX.into())?.to_be_bytes()[4..]),
        Kind::Uint8 => octets.extend(&integer(token, 0, u8::MAX.into())?.to_be_bytes()[7..]),
        Kind::Uint16 => octets.extend(&integer(token, 0, u16::MAX.into())?.to_be_bytes()[6..]),
        Kind::Uint32 => octets.extend(&integer(token, 0, u32::MAX.into())?.to_be_bytes()[4..]),
        Kind::Ipv4 => {
            let address: Ipv4Addr = token.parse().map_err(|_| not_an_address(token))?;
            octets.extend(address.octets());
        }
        Kind::Ipv6 => {
            let address: Ipv6Addr = token.parse().map_err(|_| not_an_address(token))?;
            octets.extend(address.octets());
        }
        Kind::Ipv6Prefix => prefix(token, octets)?,
        Kind::Psid => psid(token, octets)?,
        Kind::String => octets.extend(token.as_bytes()),
        Kind::Tuple => {
            let long = |max: usize| format!("tuple of {} octets is longer than {max}", token.len());
            match tuples {
                Family::V4 => octets.push(u8::try_from(token.len()).map_err(|_| long(255))?),
                Family::V6 => {
                    octets.extend(u16::try_from(token.len()).map_err(|_| long(65_535))?.to_be_bytes());
                }
            }
            octets.extend(token.as_bytes());
        }
        Kind::Fqdn => name(token, octets)?,
        Kind::Empty | Kind::Internal | Kind::Record => {
            return Err("attempt to write invalid option data field type into the option buffer".to_owned());
        }
    }
    Ok(())
}

fn not_an_address(token: &str) -> String {
    format!("Failed to convert string to address '{token}': Invalid argument")
}

/// Hex digits in pairs, blanks between them allowed.
fn base16(token: &str) -> Result<Vec<u8>, String> {
    let digits: String = token.chars().filter(|symbol| *symbol != ' ').collect();
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!(
            "unable to cast {token} to binary data type: attempt to decode a value not in base16 char set"
        ));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!(
            "unable to cast {token} to binary data type: Incomplete input for base16: {token}"
        ));
    }
    Ok(parse_hex(&digits).unwrap_or_default())
}

fn boolean(token: &str) -> Result<u8, String> {
    if token.eq_ignore_ascii_case("true") {
        return Ok(1);
    }
    if token.eq_ignore_ascii_case("false") {
        return Ok(0);
    }
    match token.parse::<i64>() {
        Ok(0) => Ok(0),
        Ok(1) => Ok(1),
        Ok(_) => Err(format!("unable to convert '{token}' to boolean data type")),
        Err(_) => Err(format!("unable to covert the value '{token}' to boolean data type")),
    }
}

/// Decimal, or what is no decimal number as hex with or without `0x`, as Kea reads it.
fn integer(token: &str, min: i64, max: i64) -> Result<i64, String> {
    let hex = || {
        let (sign, digits) = token.strip_prefix('-').map_or((1, token), |digits| (-1, digits));
        let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        Some(sign * i64::from_str_radix(digits, 16).ok()?)
    };
    let number = token
        .parse()
        .ok()
        .or_else(hex)
        .ok_or_else(|| format!("unable to convert the value '{token}' to integer data type"))?;
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(format!(
        "unable to convert '{token}' to numeric type. This value is expected to be in the range of {min}..{max}"
    ))
}

fn prefix(token: &str, octets: &mut Vec<u8>) -> Result<(), String> {
    let (address, bits) =
        token.split_once('/').ok_or_else(|| format!("'{token}' is not a prefix: expected prefix/length"))?;
    let bits: u8 = bits
        .trim()
        .parse()
        .ok()
        .filter(|bits| *bits <= 128)
        .ok_or_else(|| format!("'{token}' is not a prefix: expected a length of 0 to 128"))?;
    let address: Ipv6Addr = address.trim().parse().map_err(|_| not_an_address(address))?;
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    octets.push(bits);
    octets.extend(&(address.to_bits() & mask).to_be_bytes()[..usize::from(bits.div_ceil(8))]);
    Ok(())
}

/// RFC 7597 5.1: the number stands in the upper bits of two octets.
fn psid(token: &str, octets: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("'{token}' is not a port set: expected number/length with a length of 0 to 16");
    let (number, bits) = token.split_once('/').ok_or_else(wrong)?;
    let number: u16 = number.trim().parse().map_err(|_| wrong())?;
    let bits: u8 = bits.trim().parse().ok().filter(|bits| *bits <= 16).ok_or_else(wrong)?;
    if u32::from(number) >= 1 << bits {
        return Err(format!("port set number {number} does not fit into {bits} bits"));
    }
    octets.push(bits);
    octets.extend(number.checked_shl(16 - u32::from(bits)).unwrap_or(0).to_be_bytes());
    Ok(())
}

/// A dotted name as labels with the root; not compressed.
fn name(token: &str, octets: &mut Vec<u8>) -> Result<(), String> {
    let start = octets.len();
    let labels = token.strip_suffix('.').unwrap_or(token);
    if labels.is_empty() {
        return Err("option buffer truncated".to_owned());
    }
    for (index, label) in labels.split('.').enumerate() {
        if label.is_empty() {
            return Err(match index {
                0 => format!("non terminating empty label in {token}"),
                _ => format!("duplicate period in {token}"),
            });
        }
        let bytes = u8::try_from(label.len())
            .ok()
            .filter(|bytes| usize::from(*bytes) <= LABEL_BYTES_MAX)
            .ok_or_else(|| format!("label is too long in {token}"))?;
        octets.push(bytes);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    if octets.len() - start > NAME_BYTES_MAX {
        return Err(format!("name is too long for termination in {token}"));
    }
    Ok(())
}

/// Options with rules of their own: routes as text, everything else as hex.
fn internal(definition: &Definition, text: &str) -> Result<Vec<u8>, String> {
    if definition.code == CLASSLESS_ROUTES && text.contains('-') {
        return routes(text);
    }
    parse_hex(text.trim()).ok_or_else(|| {
        if definition.code == CLASSLESS_ROUTES {
            format!(
                "expected 'prefix/length - router' entries separated by commas, or hex digits, got '{text}'"
            )
        } else {
            format!("option '{}' takes hex digits, got '{text}'", definition.name)
        }
    })
}

/// RFC 3442: of each destination as many octets as its length needs, then the router.
fn routes(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    for route in text.split(',').map(str::trim) {
        let wrong = || format!("bad static route '{route}': expected 'prefix/length - router'");
        let (destination, router) = route.split_once('-').ok_or_else(wrong)?;
        let (address, bits) = destination.trim().split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.trim().parse().map_err(|_| not_an_address(address))?;
        let bits: u8 = bits.trim().parse().map_err(|_| wrong())?;
        let prefix = Prefix4::new(address, bits).ok_or_else(wrong)?;
        let router: Ipv4Addr = router.trim().parse().map_err(|_| not_an_address(router.trim()))?;
        octets.push(bits);
        octets.extend(&prefix.first.octets()[..usize::from(bits.div_ceil(8))]);
        octets.extend(router.octets());
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option::Definitions;

    fn text(name: &str, text: &str) -> Result<Vec<u8>, String> {
        let definitions = Definitions::new(Family::V4);
        encode(definitions.by_name("dhcp4", name).expect("a standard name"), Family::V4, text)
    }

    fn octets(name: &str, hex: &str) -> Result<Vec<u8>, String> {
        let definitions = Definitions::new(Family::V4);
        let definition = definitions.by_name("dhcp4", name).expect("a standard name");
        check(definition, Family::V4, parse_hex(hex).expect("hex"))
    }

    #[test]
    fn value_text_becomes_the_octets_of_its_type() {
        let cases: [(&str, &str, &[u8]); 39] = [
            ("routers", "10.0.0.1, 10.0.0.2", &[10, 0, 0, 1, 10, 0, 0, 2]),
            ("routers", "", &[]),
            ("routers", "1.2.3.4,,2.3.4.5,", &[1, 2, 3, 4, 2, 3, 4, 5]),
            ("swap-server", "1.2.3.4,5.6.7.8", &[1, 2, 3, 4]),
            ("default-ip-ttl", "255", &[255]),
            ("default-ip-ttl", "010", &[10]),
            ("default-ip-ttl", "+5", &[5]),
            ("default-ip-ttl", "1f", &[0x1f]),
            ("default-ip-ttl", "0X1F", &[0x1f]),
            ("interface-mtu", "1500", &[5, 220]),
            ("time-offset", "-5", &[255, 255, 255, 251]),
            ("time-offset", "-0x5", &[255, 255, 255, 251]),
            ("arp-cache-timeout", "4294967295", &[255; 4]),
            ("path-mtu-plateau-table", "1, 0x100", &[0, 1, 1, 0]),
            ("ip-forwarding", "true", &[1]),
            ("ip-forwarding", "False", &[0]),
            ("ip-forwarding", "1", &[1]),
            ("domain-name", "a,b", b"a"),
            ("domain-name", "a\\,b", b"a,b"),
            ("domain-name", "  a b ", b"a b"),
            ("domain-name", "a\\b", b"a\\b"),
            ("v4-lost", "a.bc", &[1, b'a', 2, b'b', b'c', 0]),
            ("v4-lost", "a.bc.", &[1, b'a', 2, b'b', b'c', 0]),
            ("domain-search", "a, b.", &[1, b'a', 0, 1, b'b', 0]),
            ("user-class", "0a 0b", &[10, 11]),
            ("slp-directory-agent", "true, 1.2.3.4, 2.3.4.5", &[1, 1, 2, 3, 4, 2, 3, 4, 5]),
            ("slp-service-scope", "true, foo, bar", &[1, b'f', b'o', b'o']),
            ("vendor-encapsulated-options", "", &[]),
            ("vivso-suboptions", "4491", &[0, 0, 0x11, 0x8b, 0]),
            ("vivco-suboptions", "1234, 03666f6f", &[0, 0, 4, 0xd2, 3, b'f', b'o', b'o']),
            ("fqdn", "1,255,255,a.b", &[1, 255, 255, 1, b'a', 1, b'b', 0]),
            ("client-ndi", "1,2,3,4", &[1, 2, 3]),
            ("uuid-guid", "0, 010203", &[0, 1, 2, 3]),
            ("v4-portparams", "1, 3/2", &[1, 2, 0xc0, 0]),
            ("v4-sztp-redirect", "abc, de", &[0, 3, b'a', b'b', b'c', 0, 2, b'd', b'e']),
            ("classless-static-route", "10.0.0.0/8 - 10.1.1.1", &[8, 10, 10, 1, 1, 1]),
            (
                "classless-static-route",
                "0.0.0.0/0-10.1.1.254, 10.1.2.130/25 - 10.0.0.1",
                &[0, 10, 1, 1, 254, 25, 10, 1, 2, 128, 10, 0, 0, 1],
            ),
            ("classless-static-route", "080a0a010101", &[8, 10, 10, 1, 1, 1]),
            ("v4-dnr", "0102", &[1, 2]),
        ];
        for (name, value, wanted) in cases {
            assert_eq!(text(name, value).as_deref(), Ok(wanted), "{name}: {value}");
        }
    }

    #[test]
    fn wrong_value_text_is_refused_in_keas_words() {
        let long = "a".repeat(64);
        let many = ["a"; 200].join(".");
        let cases: [(&str, &str, &str); 29] = [
            ("routers", "1.2.3", "Failed to convert string to address '1.2.3': Invalid argument"),
            (
                "routers",
                "1.2.3.4 2.3.4.5",
                "Failed to convert string to address '1.2.3.4 2.3.4.5': Invalid argument",
            ),
            ("routers", "2001::1", "Failed to convert string to address '2001::1': Invalid argument"),
            ("swap-server", "", "no option value specified"),
            (
                "default-ip-ttl",
                "256",
                "unable to convert '256' to numeric type. This value is expected to be in the range of 0..255",
            ),
            (
                "default-ip-ttl",
                "-1",
                "unable to convert '-1' to numeric type. This value is expected to be in the range of 0..255",
            ),
            (
                "default-ip-ttl",
                "abc",
                "unable to convert 'abc' to numeric type. This value is expected to be in the range of 0..255",
            ),
            ("default-ip-ttl", "zz", "unable to convert the value 'zz' to integer data type"),
            ("default-ip-ttl", "1.5", "unable to convert the value '1.5' to integer data type"),
            ("default-ip-ttl", "1 2", "unable to convert the value '1 2' to integer data type"),
            ("default-ip-ttl", "", "no option value specified"),
            (
                "default-ip-ttl",
                "99999999999999999999",
                "unable to convert the value '99999999999999999999' to integer data type",
            ),
            (
                "time-offset",
                "-2147483649",
                "unable to convert '-2147483649' to numeric type. This value is expected to be in the range of -2147483648..2147483647",
            ),
            (
                "arp-cache-timeout",
                "4294967296",
                "unable to convert '4294967296' to numeric type. This value is expected to be in the range of 0..4294967295",
            ),
            ("ip-forwarding", "yes", "unable to covert the value 'yes' to boolean data type"),
            ("ip-forwarding", "2", "unable to convert '2' to boolean data type"),
            ("domain-name", "", "no option value specified"),
            ("v4-lost", "a..b", "duplicate period in a..b"),
            ("v4-lost", ".a", "non terminating empty label in .a"),
            ("v4-lost", ".", "option buffer truncated"),
            ("domain-search", "", "FQDN list option has invalid length of 0"),
            (
                "dhcp-client-identifier",
                "01:02",
                "unable to cast 01:02 to binary data type: attempt to decode a value not in base16 char set",
            ),
            ("user-class", "abc", "unable to cast abc to binary data type: Incomplete input for base16: abc"),
            (
                "slp-directory-agent",
                "true",
                "number of data fields for the option type '78' is greater than number of values provided.",
            ),
            (
                "vendor-encapsulated-options",
                "abc",
                "attempt to write invalid option data field type into the option buffer: 0",
            ),
            (
                "vivco-suboptions",
                "4491, 05112233445566",
                "truncated DHCPv4 V-I Vendor Class option - it should contain enterprise id followed by opaque data field tuple",
            ),
            ("client-system", "", "option 93 empty"),
            ("v4-lost", &long, &format!("label is too long in {long}")),
            ("v4-lost", &many, &format!("name is too long for termination in {many}")),
        ];
        for (name, value, wanted) in cases {
            assert_eq!(text(name, value), Err(wanted.to_owned()), "{name}: {value}");
        }
    }

    #[test]
    fn octets_are_held_against_their_definition() {
        type Case = (&'static str, &'static str, Result<&'static [u8], &'static str>);
        let cases: [Case; 19] = [
            ("routers", "01020304", Ok(&[1, 2, 3, 4])),
            ("routers", "", Ok(&[])),
            (
                "routers",
                "010203",
                Err("DHCPv4 Option4AddrLst 3 has invalid length=3, must be divisible by 4."),
            ),
            ("swap-server", "010203", Err("option buffer truncated")),
            ("swap-server", "0102030405", Ok(&[1, 2, 3, 4])),
            ("default-ip-ttl", "", Err("OptionInt 23 truncated")),
            ("default-ip-ttl", "0102", Ok(&[1])),
            ("interface-mtu", "01", Err("OptionInt 26 truncated")),
            ("client-system", "010203", Err("OptionIntArray 93 truncated")),
            ("client-ndi", "0102", Err("option buffer truncated")),
            ("slp-directory-agent", "010102", Err("option buffer truncated")),
            (
                "domain-name",
                "",
                Err("failed to parse an option '15' holding string value' was empty or contained only nuls"),
            ),
            ("domain-name", "616200", Ok(b"ab")),
            ("v4-lost", "0161", Err("incomplete wire-format name")),
            ("v4-lost", "01610000", Ok(&[1, b'a', 0])),
            ("fqdn", "0000", Err("DHCPv4 Client FQDN Option (81) is truncated")),
            ("vivso-suboptions", "0000118b0101", Err("Attempt to parse truncated vendor option 1")),
            ("vivso-suboptions", "0000", Err("Truncated vendor-specific information option, length=2")),
            ("vivso-suboptions", "0000118b03010107", Ok(&[0, 0, 0x11, 0x8b, 3, 1, 1, 7])),
        ];
        for (name, hex, wanted) in cases {
            let found = octets(name, hex);
            match wanted {
                Ok(wanted) => assert_eq!(found.as_deref(), Ok(wanted), "{name}: {hex}"),
                Err(wanted) => assert_eq!(found, Err(wanted.to_owned()), "{name}: {hex}"),
            }
        }
    }
}
