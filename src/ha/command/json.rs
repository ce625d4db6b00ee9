//! JSON on octets: a printer in Kea's form and a scanner for bodies too large to become values.
//!
//! Kea's strings are octets: those outside printable ASCII travel as `\u00XX` and come back as one octet. Host names
//! from the network survive only if they are read and written so.
//!
//! Promises: the scanner never panics, does not recurse beyond [`DEPTH_MAX`], and allocates only into buffers it is given.

use serde_json::Value;

/// Deepest nesting that is followed.
pub const DEPTH_MAX: usize = 64;

/// Appends `octets` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, octets: &[u8]) {
    out.push(b'"');
    for &octet in octets {
        match octet {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x20..=0x7e => out.push(octet),
            _ => {
                out.extend_from_slice(b"\\u00");
                push_hex(out, octet);
            }
        }
    }
    out.push(b'"');
}

/// Appends two lower-case hexadecimal digits.
pub fn push_hex(out: &mut Vec<u8>, octet: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(DIGITS[usize::from(octet >> 4)]);
    out.push(DIGITS[usize::from(octet & 15)]);
}

/// Appends a decimal number.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a value as Kea prints it: blanks inside braces and brackets, keys in order.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_string(out, text.as_bytes()),
        Value::Array(list) => {
            out.extend_from_slice(b"[ ");
            for (position, item) in list.iter().enumerate() {
                if position > 0 {
                    out.extend_from_slice(b", ");
                }
                write_value(out, item);
            }
            out.extend_from_slice(b" ]");
        }
        Value::Object(map) => {
            out.extend_from_slice(b"{ ");
            for (position, (key, item)) in map.iter().enumerate() {
                if position > 0 {
                    out.extend_from_slice(b", ");
                }
                write_string(out, key.as_bytes());
                out.extend_from_slice(b": ");
                write_value(out, item);
            }
            out.extend_from_slice(b" }");
        }
    }
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Map,
    /// `[`
    List,
    /// `"`
    Text,
    /// A number.
    Number,
    /// `true`, `false`.
    Bool,
    /// `null`.
    Null,
}

/// A place in a body where the JSON is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset in octets.
    pub offset: usize,
}

/// Walks over JSON text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `text`.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Starts at `offset` of `text`.
    #[must_use]
    pub const fn resume(text: &'a [u8], offset: usize) -> Self {
        Self { text, at: offset }
    }

    /// Where it is.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    const fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { offset: self.at })
    }

    /// Skips blanks and returns the octet there.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(octet) = self.text.get(self.at) {
            if !matches!(octet, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*octet);
            }
            self.at += 1;
        }
        None
    }

    /// What comes next.
    ///
    /// # Errors
    /// When no value can begin there.
    pub fn kind(&mut self) -> Result<Kind, Malformed> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Map),
            Some(b'[') => Ok(Kind::List),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => self.malformed(),
        }
    }

    /// Takes `octet`, blanks before it skipped.
    ///
    /// # Errors
    /// When another one is there.
    pub fn expect(&mut self, octet: u8) -> Result<(), Malformed> {
        if self.peek() == Some(octet) {
            self.at += 1;
            Ok(())
        } else {
            self.malformed()
        }
    }

    /// After `[` or an element: whether another element follows. Takes the comma or the bracket.
    ///
    /// # Errors
    /// When neither is there.
    pub fn next_element(&mut self, first: bool) -> Result<bool, Malformed> {
        self.next_item(first, b']')
    }

    /// After `{` or a member: the next key (its raw text), none at the end. Takes comma, key and colon, or the brace.
    ///
    /// # Errors
    /// When the text is not so.
    pub fn next_key(&mut self, first: bool) -> Result<Option<&'a [u8]>, Malformed> {
        if !self.next_item(first, b'}')? {
            return Ok(None);
        }
        let key = self.raw_string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    fn next_item(&mut self, first: bool, close: u8) -> Result<bool, Malformed> {
        match self.peek() {
            Some(octet) if octet == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => self.malformed(),
        }
    }

    /// The text between quotes, escapes not undone.
    ///
    /// # Errors
    /// When there is no string or it does not end.
    pub fn raw_string(&mut self) -> Result<&'a [u8], Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(raw);
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => {
                    self.at = self.text.len();
                    return self.malformed();
                }
            }
        }
    }

    /// A string with its escapes undone, put into `into` (emptied first).
    ///
    /// # Errors
    /// When there is no string, or an escape that is none.
    pub fn string(&mut self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        into.clear();
        let raw = self.raw_string()?;
        unescape(raw, into).or_else(|()| self.malformed())
    }

    /// An integer that fits.
    ///
    /// # Errors
    /// When there is no number, one with a fraction or exponent, or one out of range.
    pub fn integer(&mut self) -> Result<i64, Malformed> {
        let text = self.number_text()?;
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).map_or_else(|| self.malformed(), Ok)
    }

    fn number_text(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let start = self.at;
        while self
            .text
            .get(self.at)
            .is_some_and(|octet| matches!(octet, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        {
            self.at += 1;
        }
        if start == self.at { self.malformed() } else { Ok(&self.text[start..self.at]) }
    }

    /// A boolean.
    ///
    /// # Errors
    /// When there is none.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        self.peek();
        for (word, value) in [(&b"true"[..], true), (b"false", false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.malformed()
    }

    /// Steps over one value and returns its text.
    ///
    /// # Errors
    /// When it does not end as it began, or nests deeper than [`DEPTH_MAX`].
    pub fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let start = self.at;
        let mut open = [0u8; DEPTH_MAX];
        let mut depth = 0;
        // Inside brackets only their balance is looked at: what needs a value reads it with more care.
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.raw_string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    let Some(slot) = open.get_mut(depth) else { return self.malformed() };
                    *slot = bracket;
                    depth += 1;
                    self.at += 1;
                }
                Some(bracket @ (b'}' | b']')) => {
                    let wanted = if bracket == b'}' { b'{' } else { b'[' };
                    if depth == 0 || open[depth - 1] != wanted {
                        return self.malformed();
                    }
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(b't' | b'f') => {
                    self.boolean()?;
                }
                Some(b'n') if self.text[self.at..].starts_with(b"null") => self.at += 4,
                Some(b'-' | b'0'..=b'9') => {
                    self.number_text()?;
                }
                _ => return self.malformed(),
            }
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }
}

/// Undoes escapes. `\u00XX` is the octet XX; above that, UTF-8.
fn unescape(raw: &[u8], into: &mut Vec<u8>) -> Result<(), ()> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        into.extend_from_slice(&rest[..at]);
        let escape = rest.get(at + 1).ok_or(())?;
        let mut used = 2;
        match escape {
            b'"' | b'\\' | b'/' => into.push(*escape),
            b'b' => into.push(0x08),
            b'f' => into.push(0x0c),
            b'n' => into.push(b'\n'),
            b'r' => into.push(b'\r'),
            b't' => into.push(b'\t'),
            b'u' => {
                let mut unit = hex4(rest.get(at + 2..at + 6).ok_or(())?)?;
                used = 6;
                if (0xd800..0xdc00).contains(&unit) && rest.get(at + 6..at + 8) == Some(b"\\u") {
                    let low = hex4(rest.get(at + 8..at + 12).ok_or(())?)?;
                    if (0xdc00..0xe000).contains(&low) {
                        unit = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        used = 12;
                    }
                }
                if let Ok(octet) = u8::try_from(unit) {
                    into.push(octet);
                } else {
                    let letter = char::from_u32(unit).ok_or(())?;
                    into.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            _ => return Err(()),
        }
        rest = &rest[at + used..];
    }
    into.extend_from_slice(rest);
    Ok(())
}

fn hex4(digits: &[u8]) -> Result<u32, ()> {
    digits.iter().try_fold(0, |sum, &digit| Ok(sum * 16 + char::from(digit).to_digit(16).ok_or(())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_survive_a_string() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        write_string(&mut text, &all);
        assert!(text.is_ascii());
        let mut back = Vec::new();
        Scanner::new(&text).string(&mut back).expect("a string");
        assert_eq!(back, all);
    }

    #[test]
    fn values_look_as_kea_prints_them() {
        let value: Value = serde_json::from_str(r#"{"b":[1,"x"],"a":{},"c":[]}"#).expect("JSON");
        let mut text = Vec::new();
        write_value(&mut text, &value);
        assert_eq!(text, br#"{ "a": {  }, "b": [ 1, "x" ], "c": [  ] }"#);
    }

    #[test]
    fn skipping_refuses_what_does_not_balance() {
        for (text, good) in [
            (&b" { \"a\": [1, true, null, \"]\"] } x"[..], true),
            (b"[}", false),
            (b"{\"a\"", false),
            (b"\"a\\\"", false),
            (b"", false),
            (b"nul", false),
            (b"-12.5e3", true),
        ] {
            assert_eq!(Scanner::new(text).skip().is_ok(), good, "{}", String::from_utf8_lossy(text));
        }
        assert!(Scanner::new(&[b'['; DEPTH_MAX + 1]).skip().is_err());
    }

    #[test]
    fn escapes_beyond_octets_are_utf_8() {
        let mut into = Vec::new();
        Scanner::new(br#""\u00fc\u20ac\ud83d\ude00""#).string(&mut into).expect("a string");
        assert_eq!(into, [&b"\xfc"[..], "\u{20ac}\u{1f600}".as_bytes()].concat());
        assert!(Scanner::new(br#""\ud800""#).string(&mut into).is_err());
        assert!(Scanner::new(br#""\x""#).string(&mut into).is_err());
    }
}
