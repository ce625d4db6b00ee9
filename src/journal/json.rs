//! Whether octets are one JSON map, without building it: a user context is kept as its text.
//!
//! Kea stores octets past ASCII as they are, so strings need not be UTF-8 here.

/// Deepest nesting of a context that is accepted; Kea's parser has a like bound.
const DEPTH_MAX: usize = 100;

/// Whether `text` is one JSON map with nothing but blanks around it.
pub(super) fn is_map(text: &[u8]) -> bool {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip_blanks();
    cursor.peek() == Some(b'{') && cursor.value(0) && {
        cursor.skip_blanks();
        cursor.at == text.len()
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, octet: u8) -> bool {
        let is_there = self.peek() == Some(octet);
        if is_there {
            self.at += 1;
        }
        is_there
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is_there = self.text[self.at..].starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    /// One value at the cursor; `depth` is bounded, so the recursion is.
    fn value(&mut self, depth: usize) -> bool {
        if depth > DEPTH_MAX {
            return false;
        }
        match self.peek() {
            Some(b'{') => self.members(b'}', depth, true),
            Some(b'[') => self.members(b']', depth, false),
            Some(b'"') => self.string(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => false,
        }
    }

    fn members(&mut self, end: u8, depth: usize, named: bool) -> bool {
        self.at += 1;
        self.skip_blanks();
        if self.take(end) {
            return true;
        }
        loop {
            if named {
                self.skip_blanks();
                if !self.string() {
                    return false;
                }
                self.skip_blanks();
                if !self.take(b':') {
                    return false;
                }
            }
            self.skip_blanks();
            if !self.value(depth + 1) {
                return false;
            }
            self.skip_blanks();
            if self.take(end) {
                return true;
            }
            if !self.take(b',') {
                return false;
            }
        }
    }

    fn string(&mut self) -> bool {
        if !self.take(b'"') {
            return false;
        }
        loop {
            match self.peek() {
                None => return false,
                Some(b'"') => {
                    self.at += 1;
                    return true;
                }
                Some(b'\\') => {
                    if !self.escape() {
                        return false;
                    }
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// A backslash and what follows. Kea knows no characters past U+00FF, and a partner would refuse the whole page of leases.
    fn escape(&mut self) -> bool {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| {
                    digits.starts_with(b"00") && digits.iter().all(u8::is_ascii_hexdigit)
                }) {
                    return false;
                }
                self.at += 5;
            }
            _ => return false,
        }
        true
    }

    /// A number as JSON has it, zeros before it included; of 64 bits, as Kea's are.
    fn number(&mut self) -> bool {
        let first = self.at;
        self.take(b'-');
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let is_integer = digits.iter().all(u8::is_ascii_digit);
        let whole = std::str::from_utf8(&self.text[first..self.at]).unwrap_or_default();
        digits.first().is_some_and(u8::is_ascii_digit)
            && digits.last().is_some_and(u8::is_ascii_digit)
            && if is_integer { whole.parse::<i64>().is_ok() } else { whole.parse().is_ok_and(f64::is_finite) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_one_map() {
        for good in [
            &b"{}"[..],
            b"{ }",
            br#"{ "a": "b", "c": 1.0 }"#,
            br#"{ "ISC": { "relay-agent-info": "0x0104" }, "n": { "x": [ 1, -2e3, true, null, [ ] ] } }"#,
            b"{ \"\xfc\": \"a\\\"}\" }",
            b"{ \"a\": [ -9223372036854775808, 01, \"\\u00fc\\n\\/\" ] }",
        ] {
            assert!(is_map(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b""[..],
            b"[ 1 ]",
            b"{",
            b"{ \"a\" }",
            b"{ \"a\": }",
            b"{ \"a\": 1, }",
            b"{ \"a\": 1 } x",
            b"{ \"a\": \"",
            b"{ \"a\": \"\\",
            b"{ a: 1 }",
            b"{ \"a\": - }",
            b"{ \"a\": tru }",
            b"{ \"a\": \"\\x\" }",
            b"{ \"a\": \"\\u0\" }",
            b"{ \"a\": \"\\u0141\" }",
            b"{ \"a\": 9223372036854775808 }",
            b"{ \"a\": 1e400 }",
            b"{ \"a\": 1-2 }",
        ] {
            assert!(!is_map(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |count: usize| [b"{\"a\":".repeat(count), b"1".to_vec(), b"}".repeat(count)].concat();
        assert!(is_map(&deep(100)));
        assert!(!is_map(&deep(100_000)));
    }
}
