//! The scalar encodings of a row, both ways: numbers, addresses, hexadecimal, escaped text.
//!
//! Writing goes through [`Pen`], a cursor over a slice whose size the caller has computed as an upper bound; there is
//! no formatting machinery on this path because the log thread writes millions of rows per second.

use std::net::Ipv4Addr;

/// "00" to "99", so that numbers are written two digits at a time.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut index = 0;
    while index < 100 {
        #[expect(clippy::cast_possible_truncation, reason = "index is below 100")]
        let n = index as u8;
        pairs[index] = [b'0' + n / 10, b'0' + n % 10];
        index += 1;
    }
    pairs
};

/// Lower-case hexadecimal of every octet with a colon behind it: the unit in which identifiers are written. The fourth
/// octet makes it a word, which one instruction stores; what follows overwrites it.
static HEX_COLON: [[u8; 4]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[b':'; 4]; 256];
    let mut index = 0;
    while index < 256 {
        table[index][0] = digits[index >> 4];
        table[index][1] = digits[index & 15];
        index += 1;
    }
    table
};

/// Every octet in decimal with a dot behind it, and how many octets that takes.
static DECIMAL_DOT: [([u8; 4], u8); 256] = {
    let mut table = [([b'.'; 4], 0); 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "index is below 256")]
        let n = index as u8;
        table[index] = match n {
            0..10 => ([b'0' + n, b'.', 0, 0], 2),
            10..100 => ([b'0' + n / 10, b'0' + n % 10, b'.', 0], 3),
            _ => ([b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10, b'.'], 4),
        };
        index += 1;
    }
    table
};

/// The value of a hexadecimal digit, or 0xff.
static HEX_VALUE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        let lower = b"0123456789abcdef"[value as usize];
        let upper = b"0123456789ABCDEF"[value as usize];
        table[lower as usize] = value;
        table[upper as usize] = value;
        value += 1;
    }
    table
};

/// Most octets that `count` octets of text need when all are escaped.
pub(super) const fn escaped_bytes_max(count: usize) -> usize {
    count * 5
}

/// Whether an octet of free text is escaped: controls, everything past `~`, the separator, the escape's own start.
const fn is_escaped(octet: u8) -> bool {
    octet < 0x20 || octet > 0x7e || octet == b',' || octet == b'&'
}

/// A cursor that writes at the end of a vector, within room made beforehand.
pub(super) struct Pen<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl<'a> Pen<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, at: 0 }
    }

    pub(super) const fn written(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn byte(&mut self, octet: u8) {
        self.room[self.at] = octet;
        self.at += 1;
    }

    #[inline]
    pub(super) fn bytes(&mut self, text: &[u8]) {
        self.room[self.at..self.at + text.len()].copy_from_slice(text);
        self.at += text.len();
    }

    /// Stores a whole word, of which `count` octets stay. There must be room for four, as there is before any column
    /// but the last: the bound of a row counts the separators behind it.
    #[inline]
    fn word(&mut self, word: [u8; 4], count: usize) {
        self.room[self.at..self.at + 4].copy_from_slice(&word);
        self.at += count;
    }

    #[inline]
    pub(super) fn number(&mut self, mut value: u64) {
        let count = value.checked_ilog10().map_or(1, |digits| digits as usize + 1);
        let digits = &mut self.room[self.at..self.at + count];
        let mut end = count;
        while end >= 2 {
            let pair = PAIRS[usize::try_from(value % 100).unwrap_or(0)];
            value /= 100;
            digits[end - 2] = pair[0];
            digits[end - 1] = pair[1];
            end -= 2;
        }
        if end == 1 {
            digits[0] = PAIRS[usize::try_from(value).unwrap_or(0)][1];
        }
        self.at += count;
    }

    #[inline]
    pub(super) fn address4(&mut self, address: Ipv4Addr) {
        for octet in address.octets() {
            let (text, count) = DECIMAL_DOT[usize::from(octet)];
            self.word(text, usize::from(count));
        }
        self.at -= 1;
    }

    /// Octets as `aa:bb:cc`.
    #[inline]
    pub(super) fn colon_hex(&mut self, octets: &[u8]) {
        for octet in octets {
            self.word(HEX_COLON[usize::from(*octet)], 3);
        }
        self.at -= usize::from(!octets.is_empty());
    }

    /// Free text, escaped so that no octet can end the column or the row.
    #[inline]
    pub(super) fn escaped(&mut self, text: &[u8]) {
        if !text.iter().any(|octet| is_escaped(*octet)) {
            self.bytes(text);
            return;
        }
        for octet in text {
            if is_escaped(*octet) {
                self.bytes(b"&#x");
                self.bytes(&HEX_COLON[usize::from(*octet)][..2]);
            } else {
                self.byte(*octet);
            }
        }
    }
}

/// An unsigned decimal: digits only, at least one, not above `max`.
#[inline]
pub(super) fn read_number(text: &[u8], max: u64) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let mut value: u64 = 0;
    for octet in text {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (value <= max).then_some(value)
}

/// A decimal of 32 bits. A sign before it is taken as Kea takes it: minus counts down from 2³², so that -1 is the
/// highest number.
#[inline]
pub(super) fn read_u32(text: &[u8]) -> Option<u32> {
    match text {
        [b'+', digits @ ..] => unsigned_u32(digits),
        [b'-', digits @ ..] => unsigned_u32(digits).map(u32::wrapping_neg),
        digits => unsigned_u32(digits),
    }
}

#[inline]
fn unsigned_u32(digits: &[u8]) -> Option<u32> {
    read_number(digits, u64::from(u32::MAX)).and_then(|value| u32::try_from(value).ok())
}

/// A time in seconds since 1970. Kea keeps one with a minus as a time before that; here it is 1970 itself, which is as long over.
#[inline]
pub(super) fn read_time(text: &[u8]) -> Option<u64> {
    match text {
        [b'+', digits @ ..] => read_number(digits, u64::MAX),
        [b'-', digits @ ..] => read_number(digits, u64::MAX).map(|_| 0),
        digits => read_number(digits, u64::MAX),
    }
}

/// `0` or `1`, as a number of Kea: with zeros before it and a sign, but not below 0.
#[inline]
pub(super) fn read_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => match read_u32(text) {
            Some(0) => Some(false),
            Some(1) if text[0] != b'-' => Some(true),
            _ => None,
        },
    }
}

/// A dotted quad: four decimals of up to three digits without leading zeros.
#[inline]
pub(super) fn read_address4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut index = 0;
    let mut value: u16 = 0;
    let mut digit_count = 0;
    for octet in text {
        let digit = octet.wrapping_sub(b'0');
        if digit <= 9 {
            if digit_count > 0 && value == 0 {
                return None;
            }
            value = value * 10 + u16::from(digit);
            digit_count += 1;
            if value > 255 {
                return None;
            }
        } else if *octet == b'.' && digit_count > 0 && index < 3 {
            octets[index] = u8::try_from(value).ok()?;
            index += 1;
            value = 0;
            digit_count = 0;
        } else {
            return None;
        }
    }
    if index != 3 || digit_count == 0 {
        return None;
    }
    octets[3] = u8::try_from(value).ok()?;
    Some(Ipv4Addr::from(octets))
}

/// Groups of one or two hexadecimal digits joined by single colons, into `out`; how many octets, or nothing when the
/// text is not of this form or does not fit. A group of one digit is a whole octet. Empty text is no octets.
#[inline]
pub(super) fn read_colon_hex(text: &[u8], out: &mut [u8]) -> Option<usize> {
    read_groups::<b':'>(text, out)
}

#[inline]
fn read_groups<const SEPARATOR: u8>(text: &[u8], out: &mut [u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    let mut count = 0;
    let mut at = 0;
    // Two digits and a colon are what writers write; anything else takes the careful way below.
    for (triplet, octet) in text.chunks_exact(3).zip(out.iter_mut()) {
        let (high, low) = (HEX_VALUE[usize::from(triplet[0])], HEX_VALUE[usize::from(triplet[1])]);
        if (high | low) > 15 || triplet[2] != SEPARATOR {
            break;
        }
        *octet = high << 4 | low;
        count += 1;
        at += 3;
    }
    loop {
        let high = HEX_VALUE[usize::from(*text.get(at)?)];
        if high > 15 {
            return None;
        }
        at += 1;
        let mut value = high;
        if let Some(next) = text.get(at) {
            let low = HEX_VALUE[usize::from(*next)];
            if low <= 15 {
                value = high << 4 | low;
                at += 1;
            }
        }
        *out.get_mut(count)? = value;
        count += 1;
        match text.get(at) {
            None => return Some(count),
            Some(separator) if *separator == SEPARATOR => at += 1,
            Some(_) => return None,
        }
    }
}

/// Octets as [`read_colon_hex`] takes them or, as a hand or a script writes them and Kea reads them too, with blanks in place of
/// the colons, or as one run of digits, with or without `0x`; an odd digit is the first octet.
#[inline]
pub(super) fn read_identifier(text: &[u8], out: &mut [u8]) -> Option<usize> {
    read_colon_hex(text, out).or_else(|| read_unusual_identifier(text, out))
}

#[cold]
fn read_unusual_identifier(text: &[u8], out: &mut [u8]) -> Option<usize> {
    read_groups::<b' '>(text, out).or_else(|| read_digit_run(text.strip_prefix(b"0x").unwrap_or(text), out))
}

fn read_digit_run(digits: &[u8], out: &mut [u8]) -> Option<usize> {
    let count = digits.len().div_ceil(2);
    if count == 0 {
        return None;
    }
    for (octet, pair) in out.get_mut(..count)?.iter_mut().rev().zip(digits.rchunks(2)) {
        *octet = 0;
        for digit in pair {
            let value = HEX_VALUE[usize::from(*digit)];
            if value > 15 {
                return None;
            }
            *octet = *octet << 4 | value;
        }
    }
    Some(count)
}

/// Takes the escapes out of a column. What looks like an escape but lacks its two digits is kept as it stands.
/// `scratch` is used, and grows, only when there is an escape at all.
#[inline]
pub(super) fn unescape<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if memchr::memchr(b'&', text).is_none() {
        return text;
    }
    scratch.clear();
    let mut rest = text;
    while let Some(start) = memchr::memchr(b'&', rest) {
        scratch.extend_from_slice(&rest[..start]);
        rest = &rest[start..];
        let octet = match rest {
            [b'&', b'#', b'x', high, low, ..] => {
                let (high, low) = (HEX_VALUE[usize::from(*high)], HEX_VALUE[usize::from(*low)]);
                (high <= 15 && low <= 15).then_some(high << 4 | low & 15)
            }
            _ => None,
        };
        if let Some(octet) = octet {
            scratch.push(octet);
            rest = &rest[5..];
        } else {
            scratch.push(b'&');
            rest = &rest[1..];
        }
    }
    scratch.extend_from_slice(rest);
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Pen<'_>)) -> String {
        let mut room = vec![0; 2000];
        let mut pen = Pen::new(&mut room);
        write(&mut pen);
        let count = pen.written();
        String::from_utf8(room[..count].to_vec()).expect("rows are ASCII")
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for value in [0, 7, 10, 99, 100, 101, 255, 999, 1000, 65_536, 4_294_967_295, 6_090_389_787, u64::MAX]
        {
            assert_eq!(written(|pen| pen.number(value)), value.to_string());
        }
    }

    #[test]
    fn numbers_are_digits_and_bounded() {
        assert_eq!(read_u32(b"4294967295"), Some(u32::MAX));
        for bad in [
            &b""[..],
            b"4294967296",
            b"-",
            b"+",
            b"++1",
            b"+-1",
            b"-4294967296",
            b" 1",
            b"1 ",
            b"0x1",
            b"1\r",
            b"99999999999999999999999",
        ] {
            assert_eq!(read_u32(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(read_number(b"18446744073709551615", u64::MAX), Some(u64::MAX));
        assert_eq!(read_number(b"18446744073709551616", u64::MAX), None);
    }

    #[test]
    fn signs_count_as_kea_counts_them() {
        // What kea-lfc 2.2 wrote for each.
        for (text, value) in [
            ("-1", u32::MAX),
            ("-01", u32::MAX),
            ("-4294967295", 1),
            ("-2147483649", 2_147_483_647),
            ("-0", 0),
            ("+5", 5),
        ] {
            assert_eq!(read_u32(text.as_bytes()), Some(value), "{text}");
        }
        for (text, truth) in [("+1", true), ("01", true), ("-0", false), ("+0", false), ("00", false)] {
            assert_eq!(read_bool(text.as_bytes()), Some(truth), "{text}");
        }
        for bad in ["", "-1", "-4294967295", "2", " 1", "1 ", "true"] {
            assert_eq!(read_bool(bad.as_bytes()), None, "{bad}");
        }
        // Such a lease is over for Kea: it lists it with a `cltt` below 0.
        assert_eq!(read_time(b"-5"), Some(0));
        assert_eq!(read_time(b"-18446744073709551616"), None);
        assert_eq!(read_time(b"+2000000000"), Some(2_000_000_000));
        assert_eq!(read_number(b"-1", u64::MAX), None, "lengths and types have no sign");
    }

    #[test]
    fn addresses_are_canonical_dotted_quads() {
        for good in ["0.0.0.0", "192.0.2.10", "255.255.255.255"] {
            let address = read_address4(good.as_bytes()).expect("canonical");
            assert_eq!(address.to_string(), good);
            assert_eq!(written(|pen| pen.address4(address)), good);
        }
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "1..3.4",
            "1.2.3.",
            ".1.2.3",
            "1.2.3.4 ",
            "a.b.c.d",
        ] {
            assert_eq!(read_address4(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_identifier_may_have_blanks_or_be_one_run_of_digits() {
        // What kea-lfc 2.2 wrote for each.
        let mut out = [0; 4];
        for (text, octets) in [
            ("01:02", &[1, 2][..]),
            ("01 02", &[1, 2]),
            ("1 2 3", &[1, 2, 3]),
            ("0102", &[1, 2]),
            ("0x0102", &[1, 2]),
            ("0A0B", &[10, 11]),
            ("01020", &[0, 0x10, 0x20]),
            ("123", &[1, 0x23]),
        ] {
            let count = read_identifier(text.as_bytes(), &mut out);
            assert_eq!(count.map(|count| &out[..count]), Some(octets), "{text}");
        }
        for bad in [
            ":01:02",
            "01:02:",
            "01::02",
            "010:02",
            "01:020",
            "01:02 03",
            "01 02:03",
            "01  02",
            " 01 02",
            "01 02 ",
            "01 0203",
            "0x01 02",
            "0g",
            "0x",
            "0102030405",
            "1 2 3 4 5",
        ] {
            assert_eq!(read_identifier(bad.as_bytes(), &mut out), None, "{bad}");
        }
    }

    #[test]
    fn hexadecimal_needs_colons_and_allows_single_digits() {
        let mut out = [0; 4];
        assert_eq!(read_colon_hex(b"1:a", &mut out), Some(2));
        assert_eq!(out[..2], [1, 10]);
        assert_eq!(read_colon_hex(b"FF:0e", &mut out), Some(2));
        assert_eq!(out[..2], [0xff, 0x0e]);
        assert_eq!(read_colon_hex(b"", &mut out), Some(0));
        for bad in [&b"1a1b"[..], b"1a:", b":1a", b"1a::1b", b"1g", b"1a:1b:1c:1d:1e", b"1a 1b"] {
            assert_eq!(read_colon_hex(bad, &mut out), None, "{}", bad.escape_ascii());
        }
        assert_eq!(written(|pen| pen.colon_hex(&[1, 0xab, 0])), "01:ab:00");
    }

    #[test]
    fn every_octet_survives_escaping_and_none_can_break_a_row() {
        let all: Vec<u8> = (0..=255).collect();
        let text = written(|pen| pen.escaped(&all));
        assert!(text.bytes().all(|octet| (0x20..=0x7e).contains(&octet) && octet != b','));
        assert_eq!(unescape(text.as_bytes(), &mut Vec::new()), all);
    }

    #[test]
    fn escapes_are_lower_case_without_a_semicolon() {
        assert_eq!(written(|pen| pen.escaped(b"foo,bar&x")), "foo&#x2cbar&#x26x");
    }

    #[test]
    fn an_escape_without_its_digits_is_kept() {
        assert_eq!(unescape(b"a&#x2Cb&#x26c&#xZZ", &mut Vec::new()), b"a,b&c&#xZZ");
        assert_eq!(unescape(b"amp&#x26#x&#x2chost", &mut Vec::new()), b"amp&#x,host");
        for cut in [&b"&"[..], b"&#", b"&#x", b"&#x2", b"&&#x", b"&#x2&#x2c"] {
            let expected: &[u8] = if cut == b"&#x2&#x2c" { b"&#x2," } else { cut };
            assert_eq!(unescape(cut, &mut Vec::new()), expected);
        }
    }
}
