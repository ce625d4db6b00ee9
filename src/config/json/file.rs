//! The dialect of configuration files: comments, includes, extra commas, floats like `.5`.

use std::borrow::Cow;

use super::super::finding::{Report, Style};
use super::{
    DEPTH_MAX, Data, FileId, INCLUDE_DEPTH_MAX, INCLUDED_BYTES_MAX, INCLUDES_MAX, Map, Member, Span, Value,
};

/// Brings the text of an included file by the name that was written; an error says why not.
pub type Loader<'a> = dyn FnMut(&str) -> Result<String, String> + 'a;

/// Reads `text`, named `name` in findings. Nothing when it is not JSON; findings of letters and numbers that do not
/// hide the structure are reported and read on, so that one run shows them all.
pub fn parse_file(name: &str, text: &str, loader: &mut Loader<'_>, report: &mut Report) -> Option<Value> {
    let file = report.files.add(name);
    let lexer = Lexer {
        inputs: vec![Input::new(file, Cow::Borrowed(text))],
        loader,
        report,
        includes: 0,
        included_bytes: 0,
    };
    let mut parser = Parser { lexer };
    parser.document().ok()
}

/// The text cannot be read on; the reason has been reported.
struct Stop;

/// A piece of the text.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    OpenMap,
    CloseMap,
    OpenList,
    CloseList,
    Colon,
    Comma,
    Text(String),
    Integer(i64),
    Double(f64),
    Bool(bool),
    Null,
    End,
}

impl Token {
    /// What the grammar's messages call it.
    const fn name(&self) -> &'static str {
        match self {
            Self::OpenMap => "{",
            Self::CloseMap => "}",
            Self::OpenList => "[",
            Self::CloseList => "]",
            Self::Colon => ":",
            Self::Comma => "\",\"",
            Self::Text(_) => "constant string",
            Self::Integer(_) => "integer",
            Self::Double(_) => "floating point",
            Self::Bool(_) => "boolean",
            Self::Null => "null",
            Self::End => "end of file",
        }
    }
}

struct Parser<'t, 'l> {
    lexer: Lexer<'t, 'l>,
}

impl Parser<'_, '_> {
    fn document(&mut self) -> Result<Value, Stop> {
        let (token, at) = self.lexer.next()?;
        if token != Token::OpenMap {
            return Err(self.unexpected(&token, at, "{"));
        }
        let value = self.value(token, at, 0)?;
        match self.lexer.next()? {
            (Token::End, _) => Ok(value),
            (token, at) => Err(self.unexpected(&token, at, "end of file")),
        }
    }

    fn value(&mut self, token: Token, at: Span, depth: usize) -> Result<Value, Stop> {
        let data = match token {
            Token::Text(text) => Data::Text(text),
            Token::Integer(number) => Data::Integer(number),
            Token::Double(number) => Data::Double(number),
            Token::Bool(truth) => Data::Bool(truth),
            Token::Null => Data::Null,
            Token::OpenMap | Token::OpenList if depth >= DEPTH_MAX => {
                let text =
                    format!("lists and maps are nested too deep: at most {DEPTH_MAX} levels are expected");
                self.lexer.report.error(at, Style::Grammar, text);
                return Err(Stop);
            }
            Token::OpenMap => return self.map(at, depth),
            Token::OpenList => return self.list(at, depth),
            other => return Err(self.unexpected(&other, at, "")),
        };
        Ok(Value { at, data })
    }

    fn map(&mut self, open: Span, depth: usize) -> Result<Value, Stop> {
        let mut map = Map::default();
        let (mut token, mut at) = self.lexer.next()?;
        while token != Token::CloseMap {
            let Token::Text(key) = token else {
                return Err(self.unexpected(
                    &token,
                    at,
                    if token == Token::Comma { "" } else { "constant string or }" },
                ));
            };
            let key_at = at;
            let (colon, colon_at) = self.lexer.next()?;
            if colon != Token::Colon {
                return Err(self.unexpected(&colon, colon_at, ":"));
            }
            let (first, first_at) = self.lexer.next()?;
            let value = self.value(first, first_at, depth + 1)?;
            map.push(Member { key, key_at, value });
            (token, at) = self.after_element(&Token::CloseMap)?;
        }
        Ok(Value { at: join(open, at), data: Data::Map(map) })
    }

    fn list(&mut self, open: Span, depth: usize) -> Result<Value, Stop> {
        let mut elements = Vec::new();
        let (mut token, mut at) = self.lexer.next()?;
        while token != Token::CloseList {
            elements.push(self.value(token, at, depth + 1)?);
            (token, at) = self.after_element(&Token::CloseList)?;
        }
        Ok(Value { at: join(open, at), data: Data::List(elements) })
    }

    /// The token after an element and its commas: `close` or whatever begins the next element. Every comma that is
    /// not between two elements is warned about: people leave them behind, and sometimes with them what followed.
    fn after_element(&mut self, close: &Token) -> Result<(Token, Span), Stop> {
        let (mut token, mut at) = self.lexer.next()?;
        if token != Token::Comma && token != *close {
            return Err(self.unexpected(&token, at, &format!("\",\" or {}", close.name())));
        }
        while token == Token::Comma {
            let comma_at = at;
            (token, at) = self.lexer.next()?;
            if token == Token::Comma || token == *close {
                self.lexer.report.warning(
                    comma_at,
                    Style::Grammar,
                    "Extraneous comma. A piece of configuration may have been omitted.",
                );
            }
        }
        Ok((token, at))
    }

    fn unexpected(&mut self, token: &Token, at: Span, expected: &str) -> Stop {
        let mut text = format!("syntax error, unexpected {}", token.name());
        if !expected.is_empty() {
            text.push_str(", expecting ");
            text.push_str(expected);
        }
        self.lexer.report.error(at, Style::Grammar, text);
        Stop
    }
}

/// From the first octet of `open` to the last one of `close`; a map that an include closes ends where it began.
const fn join(open: Span, close: Span) -> Span {
    if open.file.0 == close.file.0 {
        Span { last_line: close.last_line, last_column: close.last_column, ..open }
    } else {
        open
    }
}

struct Input<'t> {
    file: FileId,
    text: Cow<'t, str>,
    offset: usize,
    line: u32,
    column: u32,
}

impl<'t> Input<'t> {
    const fn new(file: FileId, text: Cow<'t, str>) -> Self {
        Self { file, text, offset: 0, line: 1, column: 1 }
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.offset..).unwrap_or_default()
    }

    /// Passes over `count` octets, of which the place is returned.
    fn take(&mut self, count: usize) -> Span {
        let mut span = self.here();
        for index in 0..count {
            let octet = self.text.as_bytes().get(self.offset + index).copied();
            (span.last_line, span.last_column) = (self.line, self.column);
            if octet == Some(b'\n') {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            } else {
                self.column = self.column.saturating_add(1);
            }
        }
        self.offset += count;
        span
    }

    const fn here(&self) -> Span {
        let Self { file, line, column, .. } = *self;
        Span { file, line, column, last_line: line, last_column: column }
    }
}

struct Lexer<'t, 'l> {
    /// The text and, above it, the includes that are being read; never empty.
    inputs: Vec<Input<'t>>,
    loader: &'l mut Loader<'l>,
    report: &'l mut Report,
    includes: usize,
    included_bytes: usize,
}

impl<'t> Lexer<'t, '_> {
    fn input(&mut self) -> &mut Input<'t> {
        self.inputs.last_mut().expect("the first input is never taken off")
    }

    fn next(&mut self) -> Result<(Token, Span), Stop> {
        loop {
            let input = self.input();
            let Some(&first) = input.rest().first() else {
                if self.inputs.len() > 1 {
                    self.inputs.pop();
                    continue;
                }
                return Ok((Token::End, self.input().here()));
            };
            let second = input.rest().get(1).copied();
            match first {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    input.take(1);
                }
                b'#' => self.line_comment(),
                b'/' if second == Some(b'/') => self.line_comment(),
                b'/' if second == Some(b'*') => self.block_comment()?,
                b'<' if input.rest().starts_with(b"<?include") => self.include()?,
                b'{' => return Ok((Token::OpenMap, input.take(1))),
                b'}' => return Ok((Token::CloseMap, input.take(1))),
                b'[' => return Ok((Token::OpenList, input.take(1))),
                b']' => return Ok((Token::CloseList, input.take(1))),
                b':' => return Ok((Token::Colon, input.take(1))),
                b',' => return Ok((Token::Comma, input.take(1))),
                b'"' => return self.string(),
                b'0'..=b'9' | b'+' | b'-' | b'.' => return Ok(self.number()),
                b'a'..=b'z' | b'A'..=b'Z' => return self.word(),
                _ => return Err(self.invalid_character("")),
            }
        }
    }

    fn line_comment(&mut self) {
        let input = self.input();
        let length = memchr::memchr(b'\n', input.rest()).unwrap_or_else(|| input.rest().len());
        input.take(length);
    }

    fn block_comment(&mut self) -> Result<(), Stop> {
        let input = self.input();
        if let Some(end) = memchr::memmem::find(&input.rest()[2..], b"*/") {
            input.take(end + 4);
            return Ok(());
        }
        let at = input.here();
        self.report.error(at, Style::Bare, format!("Comment not closed. (/* in line {}", at.line));
        Err(Stop)
    }

    fn include(&mut self) -> Result<(), Stop> {
        let input = self.input();
        let start = input.here();
        input.take("<?include".len());
        let blanks =
            |input: &Input<'_>| input.rest().iter().take_while(|octet| b" \t".contains(octet)).count();
        input.take(blanks(input));
        let name = input
            .rest()
            .strip_prefix(b"\"")
            .and_then(|rest| rest.get(..rest.iter().position(|octet| b"\"\n".contains(octet))?))
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned());
        let Some(name) = name else {
            self.report.error(start, Style::Bare, "Directive not closed.");
            return Err(Stop);
        };
        input.take(name.len() + 2);
        input.take(blanks(input));
        if !input.rest().starts_with(b"?>") {
            self.report.error(start, Style::Bare, "Directive not closed.");
            return Err(Stop);
        }
        input.take(2);
        self.includes += 1;
        if self.inputs.len() > INCLUDE_DEPTH_MAX || self.includes > INCLUDES_MAX {
            self.report.error(start, Style::Bare, "Too many nested include.");
            return Err(Stop);
        }
        let text = match (self.loader)(&name) {
            Ok(text) => text,
            Err(reason) => {
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                self.report.error(start, Style::Bare, format!("Can't open include file {name}{reason}"));
                return Err(Stop);
            }
        };
        self.included_bytes = self.included_bytes.saturating_add(text.len());
        if self.included_bytes > INCLUDED_BYTES_MAX {
            let text = format!("includes bring in more than {INCLUDED_BYTES_MAX} octets");
            self.report.error(start, Style::Bare, text);
            return Err(Stop);
        }
        let file = self.report.files.add(&name);
        self.inputs.push(Input::new(file, Cow::Owned(text)));
        Ok(())
    }

    fn invalid_character(&mut self, why: &str) -> Stop {
        let input = self.input();
        let at = input.here();
        let character = input.text.get(input.offset..).and_then(|rest| rest.chars().next()).unwrap_or('?');
        let shown =
            if character.is_control() { character.escape_debug().to_string() } else { character.to_string() };
        self.report.error(at, Style::Grammar, format!("Invalid character: {shown}{why}"));
        Stop
    }

    /// A string from its opening quote. Escapes are judged after the end is found, as in Kea: one bad escape does
    /// not hide what follows.
    fn string(&mut self) -> Result<(Token, Span), Stop> {
        let input = self.input();
        let rest = input.rest();
        let mut length = 1;
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') => length += 2,
                Some(_) => length += 1,
                None => return Err(self.invalid_character(" (the string is not closed)")),
            }
        }
        let raw = rest[1..length].to_vec();
        let at = input.take(length + 1);
        match unescape(&raw) {
            Ok(text) => Ok((Token::Text(text), at)),
            Err((fault, _)) => {
                let raw = String::from_utf8_lossy(&raw).into_owned();
                let text = format!("{fault} \"{raw}\"");
                self.report.error(at, Style::Grammar, text);
                Ok((Token::Text(raw), at))
            }
        }
    }

    fn number(&mut self) -> (Token, Span) {
        let input = self.input();
        let length = number_length(input.rest());
        let text = String::from_utf8_lossy(&input.rest()[..length]).into_owned();
        let at = input.take(length);
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return match text.parse::<i64>() {
                Ok(number) => (Token::Integer(number), at),
                Err(_) => {
                    self.report.error(at, Style::Grammar, format!("Failed to convert {text} to an integer."));
                    (Token::Integer(0), at)
                }
            };
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => (Token::Double(number), at),
            _ => {
                let text = format!("Failed to convert {text} to a floating point.");
                self.report.error(at, Style::Grammar, text);
                (Token::Double(0.0), at)
            }
        }
    }

    fn word(&mut self) -> Result<(Token, Span), Stop> {
        let input = self.input();
        let length = input.rest().iter().take_while(|octet| octet.is_ascii_alphanumeric()).count();
        let word = &input.rest()[..length];
        let (token, name) = if word.eq_ignore_ascii_case(b"true") {
            (Token::Bool(true), "true")
        } else if word.eq_ignore_ascii_case(b"false") {
            (Token::Bool(false), "false")
        } else if word.eq_ignore_ascii_case(b"null") {
            (Token::Null, "null")
        } else {
            return Err(self.invalid_character(""));
        };
        let exact = word == name.as_bytes();
        let at = input.take(length);
        if !exact {
            self.report.error(at, Style::Grammar, format!("JSON {name} reserved keyword is lower case only"));
        }
        Ok((token, at))
    }
}

/// How many octets look like a number: sign, digits, point, digits, exponent.
fn number_length(rest: &[u8]) -> usize {
    let digits = |from: usize| {
        rest.get(from..).unwrap_or_default().iter().take_while(|octet| octet.is_ascii_digit()).count()
    };
    let mut length = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
    length += digits(length);
    if rest.get(length) == Some(&b'.') {
        length += 1;
        length += digits(length);
    }
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

/// The text between quotes, escapes resolved, or what is wrong with it behind how many octets.
///
/// Kea takes `\u00XX` as one octet and prints octets of UTF-8 so: octets that make UTF-8 together are read as such,
/// others as the characters of their numbers.
pub(super) fn unescape(raw: &[u8]) -> Result<String, (&'static str, usize)> {
    let mut octets = Vec::with_capacity(raw.len());
    let mut numbered = false;
    let mut index = 0;
    while let Some(&octet) = raw.get(index) {
        index += 1;
        if octet < 0x20 {
            return Err(("Invalid control in", index));
        }
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let Some(&escape) = raw.get(index) else {
            return Err(("Overflow escape in", index));
        };
        index += 1;
        octets.push(match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let Some(digits) = raw.get(index..index + 4) else {
                    return Err(("Overflow unicode escape in", index));
                };
                let number = digits
                    .iter()
                    .try_fold(0_u32, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?));
                let Some(number) = number else {
                    return Err(("Bad escape in", index));
                };
                let Ok(number) = u8::try_from(number) else {
                    return Err(("Unsupported unicode escape in", index));
                };
                index += 4;
                numbered |= number >= 0x80;
                number
            }
            _ => return Err(("Bad escape in", index)),
        });
    }
    match String::from_utf8(octets) {
        Ok(text) => Ok(text),
        Err(bad) if numbered => Ok(bad.into_bytes().into_iter().map(char::from).collect()),
        Err(bad) => Ok(String::from_utf8_lossy(bad.as_bytes()).into_owned()),
    }
}
