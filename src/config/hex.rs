//! Octets as text in a configuration: hex in its several spellings, or quoted text.

/// The octets of `'quoted text'`; nothing when it is not quoted.
#[must_use]
pub fn quoted(text: &str) -> Option<&[u8]> {
    let text = text.trim_matches([' ', '\t']);
    text.strip_prefix('\'')?.strip_suffix('\'').map(str::as_bytes)
}

/// The octets of hex digits: with `0x` before them, with colons or single blanks between octets of one or two
/// digits, or in one piece, where an odd first digit stands for an octet. Nothing when it is none of these.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let separator = [':', ' '].into_iter().find(|separator| text.contains(*separator));
    match (digits, separator) {
        (None, Some(separator)) => text.split(separator).map(octet).collect(),
        (Some(_), Some(_)) => None,
        (digits, None) => {
            let digits = digits.unwrap_or(text).as_bytes();
            let (odd, pairs) = digits.split_at(digits.len() % 2);
            let (pairs, _) = pairs.as_chunks::<2>();
            let first = odd.iter().map(|&digit| value(digit));
            let rest = pairs.iter().map(|&[high, low]| Some(value(high)? << 4 | value(low)?));
            first.chain(rest).collect()
        }
    }
}

fn octet(text: &str) -> Option<u8> {
    match *text.as_bytes() {
        [low] => value(low),
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    }
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_in_every_spelling_that_kea_takes() {
        assert_eq!(hex("0102ab"), Some(vec![1, 2, 0xab]));
        assert_eq!(hex("0x0102AB"), Some(vec![1, 2, 0xab]));
        assert_eq!(hex("1:2:ab"), Some(vec![1, 2, 0xab]));
        assert_eq!(hex("01 02 ab"), Some(vec![1, 2, 0xab]));
        assert_eq!(hex("abc"), Some(vec![0x0a, 0xbc]), "an odd first digit is an octet");
        assert_eq!(hex(""), Some(vec![]));
    }

    #[test]
    fn what_is_not_hex_is_refused() {
        for text in ["zz", "1::2", "1:2:", "123:4", "0x1:2", "1:2 3", "g", "ä"] {
            assert_eq!(hex(text), None, "{text}");
        }
    }

    #[test]
    fn quoted_text_stands_for_its_octets() {
        assert_eq!(quoted("'ab c'"), Some(&b"ab c"[..]));
        assert_eq!(quoted(" 'x' "), Some(&b"x"[..]));
        assert_eq!(quoted("''"), Some(&b""[..]));
        assert_eq!(quoted("'"), None);
        assert_eq!(quoted("ab"), None);
    }
}
