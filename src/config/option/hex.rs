//! Octets as text.

use std::fmt::Write as _;

/// Octets of `text`: hex digits, perhaps after `0x`; or one or two digits each, joined by `:` or single blanks; or
/// text in single quotes, as it is. An odd first digit counts as the lower half of an octet.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if let Some(quoted) = text.strip_prefix('\'') {
        return quoted.strip_suffix('\'').map(|text| text.as_bytes().to_vec());
    }
    for separator in [':', ' '] {
        if text.contains(separator) {
            return text
                .split(separator)
                .map(|octet| {
                    (octet.len() <= 2).then(|| digits(octet)).flatten().filter(|found| !found.is_empty())
                })
                .collect::<Option<Vec<_>>>()
                .map(|octets| octets.concat());
        }
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some("") => None,
        Some(rest) => digits(rest),
        None => digits(text),
    }
}

/// Octets of hex digits alone.
fn digits(text: &str) -> Option<Vec<u8>> {
    let nibbles: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|nibble| u8::try_from(nibble).ok()))
        .collect::<Option<_>>()?;
    let (odd, pairs) = nibbles.split_at(nibbles.len() % 2);
    Some(odd.iter().copied().chain(pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1])).collect())
}

/// Octets as `config-get` shows them: upper-case digits without separators.
#[must_use]
pub fn upper_hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{octet:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_takes_the_forms_that_kea_takes_and_no_others() {
        let good: [(&str, &[u8]); 9] = [
            ("", &[]),
            ("abc", &[0x0a, 0xbc]),
            ("0xABC", &[0x0a, 0xbc]),
            ("ab:cd", &[0xab, 0xcd]),
            ("a:bc:d", &[0x0a, 0xbc, 0x0d]),
            ("ab cd", &[0xab, 0xcd]),
            ("'a b'", b"a b"),
            ("''", &[]),
            ("0x1", &[1]),
        ];
        for (text, octets) in good {
            assert_eq!(parse_hex(text).as_deref(), Some(octets), "{text}");
        }
        for text in
            ["abg", "0xabg", "'abc", "'", "abc:d", "ab  cd", "ab:", " ab", "0x", "ab-cd", "1.2.3.4", "é"]
        {
            assert_eq!(parse_hex(text), None, "{text}");
        }
        assert_eq!(upper_hex(&[0x0a, 0xff]), "0AFF");
    }
}
