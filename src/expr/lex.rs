//! Tokens. The longest match wins, and keywords need no space around them: `notmember` is `not member`.

use std::fmt;

/// Where a token stands: line and columns in octets, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) line: u32,
    pub(super) first: u32,
    /// The column behind the last.
    pub(super) end: u32,
}

impl Span {
    pub(super) const START: Self = Self { line: 1, first: 1, end: 1 };
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.line, self.first)?;
        if self.end > self.first + 1 { write!(out, "-{}", self.end - 1) } else { Ok(()) }
    }
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    End,
    /// A keyword or punctuation mark, by its spelling.
    Word(&'static str),
    String,
    Integer,
    HexString,
    OptionName,
    IpAddress,
}

impl Kind {
    /// How error messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::End => "end of file",
            Self::Word(",") => "\",\"",
            Self::Word(word) => word,
            Self::String => "constant string",
            Self::Integer => "integer",
            Self::HexString => "constant hexstring",
            Self::OptionName => "option name",
            Self::IpAddress => "ip address",
        }
    }
}

/// A token with its place; `text` is its spelling, quotes included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    pub(super) span: Span,
}

const WORDS: &[&str] = &[
    "==",
    "(",
    ")",
    "[",
    "]",
    ".",
    ",",
    "*",
    "+",
    "addrtotext",
    "all",
    "and",
    "ciaddr",
    "concat",
    "data",
    "dst",
    "enterprise",
    "exists",
    "giaddr",
    "hex",
    "hexstring",
    "hlen",
    "htype",
    "iface",
    "ifelse",
    "int16totext",
    "int32totext",
    "int8totext",
    "lcase",
    "len",
    "linkaddr",
    "mac",
    "match",
    "member",
    "msgtype",
    "not",
    "option",
    "or",
    "peeraddr",
    "pkt",
    "pkt4",
    "pkt6",
    "relay4",
    "relay6",
    "sand",
    "siaddr",
    "sifelse",
    "sor",
    "split",
    "src",
    "substring",
    "text",
    "transid",
    "ucase",
    "uint16totext",
    "uint32totext",
    "uint8totext",
    "vendor",
    "vendor-class",
    "yiaddr",
];

/// Reads tokens from a text, one when asked.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    column: u32,
}

impl<'t> Lexer<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, at: 0, line: 1, column: 1 }
    }

    /// The next token, or the place of a character that begins none and what to say about it.
    pub(super) fn next(&mut self) -> Result<Token<'t>, (Span, Box<str>)> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return Ok(Token { kind: Kind::End, text: "", span: self.span(0) });
        };
        let Some((kind, len)) = longest(rest) else {
            return Err((self.span(1), format!("Invalid character: {first}").into()));
        };
        // A name takes the blanks in front of its bracket with it, which shows in places only.
        let blanks = match kind {
            Kind::OptionName => count(&rest.as_bytes()[len..], |octet| matches!(octet, b' ' | b'\t')),
            _ => 0,
        };
        let token = Token { kind, text: &rest[..len], span: self.span(len + blanks) };
        self.at += len + blanks;
        self.column = token.span.end;
        Ok(token)
    }

    fn skip_blanks(&mut self) {
        for octet in &self.text.as_bytes()[self.at..] {
            match octet {
                b' ' | b'\t' => self.column += 1,
                b'\n' => (self.line, self.column) = (self.line + 1, 1),
                _ => break,
            }
            self.at += 1;
        }
    }

    fn span(&self, len: usize) -> Span {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Span { line: self.line, first: self.column, end: self.column.saturating_add(len) }
    }
}

/// The token that the text begins with and its length. Every token ends at a character boundary, because all but strings
/// are ASCII and strings end with a quote.
fn longest(rest: &str) -> Option<(Kind, usize)> {
    let bytes = rest.as_bytes();
    if let Some(len) = option_name(bytes) {
        return Some((Kind::OptionName, len));
    }
    let words =
        WORDS.iter().filter(|word| rest.starts_with(**word)).map(|word| (Kind::Word(word), word.len()));
    let others = [
        (Kind::String, string(bytes)),
        (Kind::HexString, hex_string(bytes)),
        (Kind::Integer, integer(bytes)),
        (Kind::IpAddress, ip4(bytes)),
        (Kind::IpAddress, ip6(bytes)),
    ];
    let others = others.into_iter().filter_map(|(kind, len)| Some((kind, len?)));
    words.chain(others).max_by_key(|(_, len)| *len)
}

fn count(bytes: &[u8], class: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|octet| class(octet)).count()
}

/// A name counts only in front of a closing bracket.
fn option_name(bytes: &[u8]) -> Option<usize> {
    if !bytes.first()?.is_ascii_alphabetic() {
        return None;
    }
    let len = count(bytes, |octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
    let blanks = count(&bytes[len..], |octet| matches!(octet, b' ' | b'\t' | b'\n'));
    (bytes[len - 1].is_ascii_alphanumeric() && bytes.get(len + blanks) == Some(&b']')).then_some(len)
}

fn string(bytes: &[u8]) -> Option<usize> {
    let inner = count(bytes.strip_prefix(b"'")?, |octet| !matches!(octet, b'\'' | b'\n'));
    (bytes.get(1 + inner) == Some(&b'\'')).then_some(inner + 2)
}

fn hex_string(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.strip_prefix(b"0x").or_else(|| bytes.strip_prefix(b"0X"))?;
    let len = count(digits, u8::is_ascii_hexdigit);
    (len > 0).then_some(len + 2)
}

fn integer(bytes: &[u8]) -> Option<usize> {
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let len = count(&bytes[sign..], u8::is_ascii_digit);
    (len > 0).then_some(sign + len)
}

fn ip4(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for part in 0..4 {
        if part > 0 {
            if bytes.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let len = count(&bytes[at..], u8::is_ascii_digit);
        if len == 0 {
            return None;
        }
        at += len;
    }
    Some(at)
}

fn ip6(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..2 {
        at += count(&bytes[at..], u8::is_ascii_hexdigit);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at += 1;
    }
    Some(at + count(&bytes[at..], |octet| octet.is_ascii_hexdigit() || matches!(octet, b':' | b'.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next().expect("all tokens are good");
            if token.kind == Kind::End {
                return tokens;
            }
            tokens.push((token.kind, token.text));
        }
    }

    #[test]
    fn the_longest_token_wins() {
        assert_eq!(
            kinds("notmember 1.2.3.4 1:2:3 0x1a or -12'a b'pkt4"),
            [
                (Kind::Word("not"), "not"),
                (Kind::Word("member"), "member"),
                (Kind::IpAddress, "1.2.3.4"),
                (Kind::IpAddress, "1:2:3"),
                (Kind::HexString, "0x1a"),
                (Kind::Word("or"), "or"),
                (Kind::Integer, "-12"),
                (Kind::String, "'a b'"),
                (Kind::Word("pkt4"), "pkt4"),
            ]
        );
        assert_eq!(kinds("0x1or"), [(Kind::HexString, "0x1"), (Kind::Word("or"), "or")]);
    }

    #[test]
    fn names_count_only_before_a_bracket() {
        assert_eq!(kinds("[ host-name \n]")[1], (Kind::OptionName, "host-name"));
        assert_eq!(kinds("not]")[0], (Kind::OptionName, "not"));
        assert!(Lexer::new("host-name").next().is_err());
    }

    #[test]
    fn places_count_octets_and_lines() {
        let mut lexer = Lexer::new("'é' \n\t==");
        assert_eq!(lexer.next().expect("a string").span.to_string(), "1.1-4");
        assert_eq!(lexer.next().expect("a word").span.to_string(), "2.2-3");
        assert_eq!(lexer.next().expect("the end").span.to_string(), "2.4");
    }

    #[test]
    fn octets_that_begin_no_token_are_named() {
        for (text, at) in
            [("OPTION", "O"), ("\r", "\r"), ("\"x\"", "\""), ("é", "é"), ("'a\nb'", "'"), ("=", "=")]
        {
            let (span, reason) = Lexer::new(text).next().expect_err("no token");
            assert_eq!(
                (span.to_string(), &*reason),
                ("1.1".to_owned(), &*format!("Invalid character: {at}"))
            );
        }
    }
}
