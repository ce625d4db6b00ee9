//! Octets as text of a configuration.

use crate::config::hex::{hex, quoted};

/// Octets of `text` as `csv-format` false means it: hex in any of its spellings, or text in single quotes as it is.
/// Unlike identifiers, a value may not be `0x` alone.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if let Some(text) = quoted(text) {
        return Some(text.to_vec());
    }
    hex(text).filter(|octets| !octets.is_empty() || text.is_empty())
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
    }
}
