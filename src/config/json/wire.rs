//! The dialect of the control API: plain JSON, one comma too many tolerated in lists, the last of several equal
//! keys kept.

use std::collections::HashSet;

use super::super::finding::{Finding, Severity, Style};
use super::file::unescape;
use super::{DEPTH_MAX, Data, FileId, Files, Map, Member, Span, Value};

/// Whether comments are passed over: Kea does so on its unix socket and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    /// `#`, `//` and `/* */` are passed over.
    Skip,
    /// They are errors.
    Refuse,
}

/// Reads `text` as one value; anything behind it is an error. Columns of the first line count from 0 and `line` 0 is
/// the first, as Kea counts on the wire.
///
/// # Errors
/// The first thing that is not JSON, with its place in `name`.
pub fn parse_wire(files: &mut Files, name: &str, text: &str, comments: Comments) -> Result<Value, Finding> {
    let file = files.add(name);
    let mut parser = Parser { text: text.as_bytes(), offset: 0, line: 0, column: 0, file, comments };
    let fault = match parser.document() {
        Ok(value) => return Ok(value),
        Err(fault) => fault,
    };
    Err(Finding {
        severity: Severity::Error,
        at: fault.at,
        file: files.shared_name(file),
        style: Style::Bare,
        text: format!("{} in {name}:{}:{}", fault.text, fault.at.line, fault.at.column),
    })
}

struct Fault {
    at: Span,
    text: String,
}

struct Parser<'t> {
    text: &'t [u8],
    offset: usize,
    line: u32,
    column: u32,
    file: FileId,
    comments: Comments,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Value, Fault> {
        let value = self.value(0)?;
        self.blanks()?;
        if self.peek().is_some() { Err(self.fault("Extra data")) } else { Ok(value) }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        self.blanks()?;
        let at = self.here();
        let data = match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => {
                return Err(self.fault(&format!("nested too deep, at most {DEPTH_MAX} levels are expected,")));
            }
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Data::Text(self.string()?),
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => self.number()?,
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word()?,
            Some(_) => return Err(self.unexpected("a value")),
            None => return Err(self.fault("unexpected end, expected a value")),
        };
        // Kea notes a list or map one octet later than anything else.
        let shift = u32::from(matches!(data, Data::List(_) | Data::Map(_)));
        let column = at.column.saturating_add(shift);
        let at = Span { column, last_line: self.line, last_column: self.column.saturating_sub(1), ..at };
        Ok(Value { at, data })
    }

    fn map(&mut self, depth: usize) -> Result<Data, Fault> {
        self.take(1);
        let mut members = Vec::new();
        self.blanks()?;
        if self.peek() != Some(b'}') {
            loop {
                self.blanks()?;
                if self.peek() != Some(b'"') {
                    // Kea complains once it has read what is no string.
                    self.take(1);
                    return Err(self.fault("String expected"));
                }
                let key_at = self.here();
                let key = self.string()?;
                let key_at =
                    Span { last_line: self.line, last_column: self.column.saturating_sub(1), ..key_at };
                self.blanks()?;
                if self.peek() != Some(b':') {
                    return Err(self.unexpected(":"));
                }
                self.take(1);
                let value = self.value(depth + 1)?;
                members.push(Member { key, key_at, value });
                self.blanks()?;
                match self.peek() {
                    Some(b',') => self.take(1),
                    Some(b'}') => break,
                    _ => return Err(self.unexpected(", or }")),
                }
            }
        }
        self.take(1);
        Ok(Data::Map(Map { members: last_of_each(members) }))
    }

    fn list(&mut self, depth: usize) -> Result<Data, Fault> {
        self.take(1);
        let mut elements = Vec::new();
        loop {
            self.blanks()?;
            if self.peek() == Some(b']') {
                break;
            }
            elements.push(self.value(depth + 1)?);
            self.blanks()?;
            match self.peek() {
                Some(b',') => self.take(1),
                Some(b']') => break,
                _ => return Err(self.unexpected(", or ]")),
            }
        }
        self.take(1);
        Ok(Data::List(elements))
    }

    fn string(&mut self) -> Result<String, Fault> {
        let mut length = 1;
        loop {
            match self.text.get(self.offset + length) {
                Some(b'"') => break,
                Some(b'\\') => length += 2,
                Some(_) => length += 1,
                None => return Err(self.fault("Unterminated string")),
            }
        }
        let raw = &self.text[self.offset + 1..self.offset + length];
        match unescape(raw) {
            Ok(text) => {
                self.take(length + 1);
                Ok(text)
            }
            Err((reason, behind)) => {
                self.take(1 + behind);
                Err(self.fault(reason.strip_suffix(" in").unwrap_or(reason)))
            }
        }
    }

    fn number(&mut self) -> Result<Data, Fault> {
        let rest = &self.text[self.offset..];
        let length =
            rest.iter().take_while(|octet| matches!(octet, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let length = length.count();
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let leading = digits.bytes().take_while(u8::is_ascii_digit).count();
        if leading > 1 && digits.starts_with('0') {
            return Err(self.fault("Illegal leading zeros"));
        }
        let data = if leading == digits.len() && leading > 0 {
            let number = text.parse().map_err(|_| self.fault(&format!("Number overflow: {text}")))?;
            Data::Integer(number)
        } else {
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() && !text.starts_with('+') => Data::Double(number),
                Ok(number) if number.is_infinite() => {
                    return Err(self.fault(&format!("Number overflow: {text}")));
                }
                _ => return Err(self.fault(&format!("Bad number: {text}"))),
            }
        };
        self.take(length);
        Ok(data)
    }

    fn word(&mut self) -> Result<Data, Fault> {
        let rest = &self.text[self.offset..];
        let length = rest.iter().take_while(|octet| octet.is_ascii_alphanumeric()).count();
        let data = match &rest[..length] {
            b"true" => Data::Bool(true),
            b"false" => Data::Bool(false),
            b"null" => Data::Null,
            word => {
                let word = String::from_utf8_lossy(word).into_owned();
                return Err(self.fault(&format!("Bad word: {word}, expected true, false or null,")));
            }
        };
        self.take(length);
        Ok(data)
    }

    fn blanks(&mut self) -> Result<(), Fault> {
        loop {
            match (self.peek(), self.text.get(self.offset + 1)) {
                (Some(b' ' | b'\t' | b'\r' | b'\n' | 8), _) => self.take(1),
                (Some(b'#'), _) | (Some(b'/'), Some(b'/')) if self.comments == Comments::Skip => {
                    let rest = &self.text[self.offset..];
                    let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    self.take(length);
                }
                (Some(b'/'), Some(b'*')) if self.comments == Comments::Skip => {
                    let Some(end) = memchr::memmem::find(&self.text[self.offset + 2..], b"*/") else {
                        return Err(self.fault("Comment not closed"));
                    };
                    self.take(end + 4);
                }
                _ => return Ok(()),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.offset).copied()
    }

    fn take(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek() == Some(b'\n') {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            } else {
                self.column = self.column.saturating_add(1);
            }
            self.offset += 1;
        }
    }

    const fn here(&self) -> Span {
        let Self { file, line, column, .. } = *self;
        Span { file, line, column, last_line: line, last_column: column }
    }

    fn fault(&self, text: &str) -> Fault {
        Fault { at: self.here(), text: text.to_owned() }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let came = match self.peek() {
            Some(octet) => format!("character {}", char::from(octet).escape_debug()),
            None => "end".to_owned(),
        };
        self.fault(&format!("unexpected {came}, expected {expected},"))
    }
}

/// The members without those whose key comes again later.
fn last_of_each(mut members: Vec<Member>) -> Vec<Member> {
    let mut seen = HashSet::with_capacity(members.len());
    let mut repeated = Vec::new();
    for (index, member) in members.iter().enumerate().rev() {
        if !seen.insert(member.key.as_str()) {
            repeated.push(index);
        }
    }
    drop(seen);
    if !repeated.is_empty() {
        let mut index = 0;
        members.retain(|_| {
            let keep = repeated.last() != Some(&index);
            if !keep {
                repeated.pop();
            }
            index += 1;
            keep
        });
    }
    members
}
