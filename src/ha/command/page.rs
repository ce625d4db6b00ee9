//! Pages of leases: asked for, answered, read.
//!
//! A page may hold ten thousand leases and several megabytes. It is looked over once by whoever received it
//! ([`PageAnswer::scan`]: no values are built), then read lease by lease in as many steps as the caller likes.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::json::{Kind, Malformed, Scanner};
use super::lease::{BadLease, LeaseReader, push_address, write_dump4};
use super::{Answer, PeerError};
use crate::ha::posts::PostMark;
use crate::lease::Lease4;

/// The arguments of `lease4-get-page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Leases strictly above this; all zeros to start.
    pub from: Ipv4Addr,
    /// Most leases: 1 or more.
    pub limit: u32,
}

impl PageRequest {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The answer (result 1) to give.
    pub fn parse(arguments: Option<&Value>) -> Result<Self, Answer> {
        let Some(Value::Object(map)) = arguments else {
            return Err(Answer::error("Parameters missing or are not a map."));
        };
        let from = match map.get("from") {
            Some(Value::String(text)) if text == "start" => Ipv4Addr::UNSPECIFIED,
            Some(Value::String(text)) => text.parse().map_err(|_| {
                Answer::error(format!(
                    "'from' parameter value is neither 'start' nor a valid IPv4 address: {text}"
                ))
            })?,
            Some(_) => return Err(Answer::error("'from' parameter must be a string")),
            None => return Err(Answer::error("'from' parameter not specified")),
        };
        let limit = match map.get("limit") {
            Some(value) => value
                .as_u64()
                .and_then(|limit| u32::try_from(limit).ok())
                .filter(|&limit| limit > 0)
                .ok_or_else(|| Answer::error("'limit' parameter must be an integer from 1 to 4294967295"))?,
            None => return Err(Answer::error("'limit' parameter not specified")),
        };
        Ok(Self { from, limit })
    }
}

/// Begins the HTTP body of an answer with `count` leases.
pub fn write_page_start(out: &mut Vec<u8>, count: u64) {
    out.extend_from_slice(b"[ { \"arguments\": { \"count\": ");
    super::json::push_number(out, count);
    out.extend_from_slice(b", \"leases\": [ ");
}

/// Appends a lease; `first` is true for the first one.
pub fn write_page_lease(out: &mut Vec<u8>, first: bool, lease: &Lease4<'_>) {
    if !first {
        out.extend_from_slice(b", ");
    }
    write_dump4(out, lease);
}

/// Says of the lease that was written last that its client was not told of it.
pub fn mark_untold(out: &mut Vec<u8>) {
    debug_assert!(out.ends_with(b" }"), "a map");
    out.truncate(out.len() - b" }".len());
    out.extend_from_slice(b", \"untold\": true }");
}

/// Ends the body.
pub fn write_page_end(out: &mut Vec<u8>, count: u64) {
    let result: &[u8] = if count == 0 { b"3" } else { b"0" };
    out.extend_from_slice(b" ] }, \"result\": ");
    out.extend_from_slice(result);
    out.extend_from_slice(b", \"text\": \"");
    super::json::push_number(out, count);
    out.extend_from_slice(b" IPv4 lease(s) found.\" } ]");
}

/// What is known of a page before its leases are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageAnswer {
    /// The result code.
    pub result: i64,
    /// The text, as it stands in the body; empty when there is none.
    pub text: String,
    /// Where the first lease begins in the body; none when there is no list of leases.
    pub leases_at: Option<usize>,
    /// Elements of the list, readable or not.
    pub count: u64,
    /// The last address that is readable.
    pub last: Option<Ipv4Addr>,
    /// Addresses of leases that are gone (`aplomado-sync-changes`).
    pub deleted: Vec<Ipv4Addr>,
    /// Changes that wait at the source (`aplomado-sync-changes`).
    pub remaining: Option<u64>,
    /// The session (`aplomado-sync-begin`).
    pub session: Option<u64>,
    /// The source could not keep all changes: the copy must begin again.
    pub overflown: bool,
    /// The source's numbered commands of which these leases are not older (`aplomado-sync-changes`): session and last number.
    pub post_session: Option<u64>,
    /// The last number.
    pub post: Option<u64>,
}

impl PageAnswer {
    /// Which of the source's commands tell of nothing newer.
    #[must_use]
    pub fn mark(&self) -> Option<PostMark> {
        Some(PostMark { session: self.post_session?, last: self.post? })
    }

    /// Looks over the body of an answer to `lease4-get-page` and its kin.
    ///
    /// # Errors
    /// When it is not a list that begins with a map with an integer result.
    pub fn scan(body: &[u8]) -> Result<Self, PeerError> {
        let malformed = |_: Malformed| PeerError::Malformed("text that is no JSON");
        let mut scanner = Scanner::new(body);
        match scanner.kind().map_err(|_| PeerError::Malformed("no JSON"))? {
            Kind::List => {}
            Kind::Map => return Err(PeerError::Malformed("a bare map")),
            _ => return Err(PeerError::Malformed("no list")),
        }
        // The list must end too: a body cut short is no answer.
        Scanner::new(body).skip().map_err(malformed)?;
        scanner.expect(b'[').map_err(malformed)?;
        if !scanner.next_element(true).map_err(malformed)? {
            return Err(PeerError::Malformed("an empty list"));
        }
        if scanner.kind().map_err(malformed)? != Kind::Map {
            return Err(PeerError::Malformed("a list without a map"));
        }
        let mut page = Self::default();
        let has_result = page.answer(body, &mut scanner).map_err(malformed)?;
        if has_result { Ok(page) } else { Err(PeerError::Malformed("a map without an integer result")) }
    }

    fn answer(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<bool, Malformed> {
        let mut has_result = false;
        let mut first = true;
        scanner.expect(b'{')?;
        while let Some(key) = scanner.next_key(first)? {
            first = false;
            match (key, scanner.kind()?) {
                (b"result", Kind::Number) => {
                    let text = scanner.skip()?;
                    if let Ok(result) = Scanner::new(text).integer() {
                        self.result = result;
                        has_result = true;
                    }
                }
                (b"text", Kind::Text) => {
                    let mut text = Vec::new();
                    scanner.string(&mut text)?;
                    self.text = String::from_utf8_lossy(&text).into_owned();
                }
                (b"arguments", Kind::Map) => self.arguments(body, scanner)?,
                _ => {
                    scanner.skip()?;
                }
            }
        }
        Ok(has_result)
    }

    fn arguments(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        let mut first = true;
        scanner.expect(b'{')?;
        while let Some(key) = scanner.next_key(first)? {
            first = false;
            match (key, scanner.kind()?) {
                (b"leases", Kind::List) => {
                    scanner.expect(b'[')?;
                    self.leases_at = Some(scanner.offset());
                    self.leases(body, scanner)?;
                }
                (b"deleted", Kind::List) => {
                    scanner.expect(b'[')?;
                    let mut first = true;
                    while scanner.next_element(first)? {
                        first = false;
                        let text = scanner.skip()?;
                        let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
                        let address =
                            inner.and_then(|text| std::str::from_utf8(text).ok()?.parse::<Ipv4Addr>().ok());
                        self.deleted.extend(address);
                    }
                }
                (b"remaining", Kind::Number) => self.remaining = unsigned(scanner)?,
                (b"session", Kind::Number) => self.session = unsigned(scanner)?,
                (b"post-session", Kind::Number) => self.post_session = unsigned(scanner)?,
                (b"post", Kind::Number) => self.post = unsigned(scanner)?,
                (b"overflown", Kind::Bool) => self.overflown = scanner.boolean()?,
                _ => {
                    scanner.skip()?;
                }
            }
        }
        Ok(())
    }

    fn leases(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        let start = scanner.offset();
        let mut last: &[u8] = b"";
        while scanner.next_element(self.count == 0)? {
            last = scanner.skip()?;
            self.count += 1;
        }
        self.last = address_of(last);
        if self.last.is_none() && self.count > 0 {
            // Rare: go over all of them for the last one that says where it is.
            let mut again = Scanner::resume(body, start);
            let mut first = true;
            while again.next_element(first)? {
                first = false;
                self.last = address_of(again.skip()?).or(self.last);
            }
        }
        Ok(())
    }

    /// Whether the page is a success: 0 or 3, with a list of leases.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        (self.result == 0 || self.result == 3) && self.leases_at.is_some()
    }
}

fn unsigned(scanner: &mut Scanner<'_>) -> Result<Option<u64>, Malformed> {
    let text = scanner.skip()?;
    Ok(Scanner::new(text).integer().ok().and_then(|number| u64::try_from(number).ok()))
}

/// The `ip-address` of an element.
fn address_of(element: &[u8]) -> Option<Ipv4Addr> {
    let mut scanner = Scanner::new(element);
    scanner.expect(b'{').ok()?;
    let mut first = true;
    while let Some(key) = scanner.next_key(first).ok()? {
        first = false;
        if key == b"ip-address" {
            return std::str::from_utf8(scanner.raw_string().ok()?).ok()?.parse().ok();
        }
        scanner.skip().ok()?;
    }
    None
}

/// Reads the leases of a page one by one.
#[derive(Debug)]
pub struct PageLeases<'b> {
    scanner: Option<Scanner<'b>>,
    first: bool,
    reader: LeaseReader,
}

impl<'b> PageLeases<'b> {
    /// The leases of `body`, over which `page` was scanned.
    #[must_use]
    pub fn new(page: &PageAnswer, body: &'b [u8]) -> Self {
        Self::resume(body, page.leases_at, true)
    }

    /// Goes on at an offset that [`PageLeases::offset`] returned: for callers that keep the body elsewhere between two steps.
    #[must_use]
    pub fn resume(body: &'b [u8], offset: Option<usize>, first: bool) -> Self {
        Self { scanner: offset.map(|at| Scanner::resume(body, at)), first, reader: LeaseReader::default() }
    }

    /// Whether the client of the last lease was not told of it.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.reader.is_untold()
    }

    /// Where the next step would go on; none at the end.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.scanner.as_ref().map(Scanner::offset)
    }

    /// The next lease, valid until the next call, or why an element is none; nothing at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<Result<Lease4<'_>, BadLease>> {
        let scanner = self.scanner.as_mut()?;
        match scanner.next_element(self.first) {
            Ok(true) => {}
            // A malformed rest cannot be, the body was scanned: stop there all the same.
            Ok(false) | Err(_) => {
                self.scanner = None;
                return None;
            }
        }
        self.first = false;
        match self.reader.dump4(scanner) {
            Ok(lease) => Some(lease),
            Err(Malformed { .. }) => {
                self.scanner = None;
                Some(Err(BadLease { address: None, field: "lease", expected: "a string as JSON writes it" }))
            }
        }
    }
}

/// Writes the HTTP body of an answer to `aplomado-sync-changes`.
pub fn write_changes<'l>(
    out: &mut Vec<u8>,
    leases: impl Iterator<Item = Lease4<'l>>,
    deleted: impl Iterator<Item = Ipv4Addr>,
    remaining: u64,
    overflown: bool,
) {
    out.extend_from_slice(b"[ { \"arguments\": ");
    write_changes_arguments(out, leases.map(|lease| (lease, false)), deleted, remaining, overflown, None);
    out.extend_from_slice(b", \"result\": 0, \"text\": \"");
    out.extend_from_slice(CHANGES_TEXT.as_bytes());
    out.extend_from_slice(b"\" } ]");
}

/// The text of an answer to `aplomado-sync-changes`.
pub const CHANGES_TEXT: &str = "Changes since the beginning of the synchronization.";

/// Writes the `arguments` of an answer to `aplomado-sync-changes`. With each lease it says whether its client was not told of it.
pub fn write_changes_arguments<'l>(
    out: &mut Vec<u8>,
    leases: impl Iterator<Item = (Lease4<'l>, bool)>,
    deleted: impl Iterator<Item = Ipv4Addr>,
    remaining: u64,
    overflown: bool,
    mark: Option<PostMark>,
) {
    out.extend_from_slice(b"{ \"deleted\": [ ");
    for (position, address) in deleted.enumerate() {
        if position > 0 {
            out.extend_from_slice(b", ");
        }
        out.push(b'"');
        push_address(out, address);
        out.push(b'"');
    }
    out.extend_from_slice(b" ], \"leases\": [ ");
    for (position, (lease, untold)) in leases.enumerate() {
        write_page_lease(out, position == 0, &lease);
        if untold {
            mark_untold(out);
        }
    }
    out.extend_from_slice(b" ], \"overflown\": ");
    out.extend_from_slice(if overflown { b"true" } else { b"false" });
    out.extend_from_slice(b", \"remaining\": ");
    super::json::push_number(out, remaining);
    if let Some(PostMark { session, last }) = mark {
        for (key, value) in [(&b", \"post\": "[..], last), (b", \"post-session\": ", session)] {
            out.extend_from_slice(key);
            super::json::push_number(out, value);
        }
    }
    out.extend_from_slice(b" }");
}
