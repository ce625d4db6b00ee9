//! `aplomado-bulk-apply`: many lease changes in one POST, between two Aplomados.
//!
//! ```text
//! { "arguments": { "leases": [ ITEM, ... ], "origin": "ha-partner", "server-name": NAME },
//!   "command": "aplomado-bulk-apply", "service": [ "dhcp4" ] }
//! ```
//! An ITEM is the update encoding of a lease; `"delete": true` removes it instead. Items are applied in order, absent leases
//! are created, each item stands for itself. The answer comes when everything applied is durable, and names what was not:
//!
//! ```text
//! [ { "arguments": { "failed": [ { "index": 3, "result": 4, "text": "..." } ] }, "result": 0, "text": "..." } ]
//! ```
//! Without `failed`, all items are done (removing what is not there is done). A command that does not read as a whole is
//! answered 1 and changes nothing.

use serde_json::{Value, json};

use super::json::{Kind, Malformed, Scanner};
use super::lease::{BadLease, LeaseReader, Update4, write_bulk_element};
use super::{Answer, PeerAnswer, PeerError, RESULT_CONFLICT, Verdict, verdict};
use crate::ha::backlog::Operation;
use crate::lease::Lease4;

/// Most items of a command that we send: more would keep the client waiting for its neighbours.
pub const BULK_ITEMS_MAX: usize = 512;
/// Most items of a command that we accept.
pub const BULK_ITEMS_ACCEPTED_MAX: usize = 65_536;

/// Builds the body of a command; the buffer is used again.
#[derive(Clone, Debug)]
pub struct BulkWriter {
    body: Vec<u8>,
    count: usize,
    tail: Vec<u8>,
}

impl BulkWriter {
    /// A writer for commands of the server `server_name`.
    #[must_use]
    pub fn new(server_name: &str) -> Self {
        let mut tail = b" ], \"origin\": \"ha-partner\", \"server-name\": ".to_vec();
        super::json::write_string(&mut tail, server_name.as_bytes());
        tail.extend_from_slice(b" }, \"command\": \"aplomado-bulk-apply\", \"service\": [ \"dhcp4\" ] }");
        Self { body: Vec::new(), count: 0, tail }
    }

    /// Appends a change.
    pub fn push(&mut self, operation: Operation, lease: &Lease4<'_>) {
        if self.count == 0 {
            self.body.clear();
            self.body.extend_from_slice(b"{ \"arguments\": { \"leases\": [ ");
        } else {
            self.body.extend_from_slice(b", ");
        }
        write_bulk_element(&mut self.body, operation, lease);
        self.count += 1;
    }

    /// Changes in the command so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The complete body; the next change begins another command.
    pub fn finish(&mut self) -> &[u8] {
        if self.count == 0 {
            self.body.clear();
            self.body.extend_from_slice(b"{ \"arguments\": { \"leases\": [ ");
        }
        self.body.extend_from_slice(&self.tail);
        self.count = 0;
        &self.body
    }
}

/// Reads the items of a command that reached us.
#[derive(Debug)]
pub struct BulkItems<'b> {
    scanner: Scanner<'b>,
    first: bool,
    done: bool,
    reader: LeaseReader,
}

impl<'b> BulkItems<'b> {
    /// Looks over the whole `body` of the request and finds its items. Also returns the sender's name.
    ///
    /// # Errors
    /// The answer (result 1) to give: nothing is to be changed.
    pub fn open(body: &'b [u8]) -> Result<(Self, Option<String>), Answer> {
        let (items, name, count) = Self::find(body).map_err(|error| {
            Answer::error(format!("expected JSON, found something else at octet {}", error.offset))
        })?;
        if count > BULK_ITEMS_ACCEPTED_MAX {
            return Err(Answer::error(format!(
                "expected at most {BULK_ITEMS_ACCEPTED_MAX} leases, found {count}"
            )));
        }
        let scanner =
            items.ok_or_else(|| Answer::error("expected a list \"leases\" in the arguments, found none"))?;
        Ok((Self { scanner, first: true, done: false, reader: LeaseReader::default() }, name))
    }

    fn find(body: &'b [u8]) -> Result<(Option<Scanner<'b>>, Option<String>, usize), Malformed> {
        let (mut items, mut name, mut count) = (None, None, 0);
        let mut scanner = Scanner::new(body);
        scanner.expect(b'{')?;
        let mut first = true;
        while let Some(key) = scanner.next_key(first)? {
            first = false;
            if key != b"arguments" || scanner.kind()? != Kind::Map {
                scanner.skip()?;
                continue;
            }
            scanner.expect(b'{')?;
            let mut first = true;
            while let Some(key) = scanner.next_key(first)? {
                first = false;
                match (key, scanner.kind()?) {
                    (b"leases", Kind::List) => {
                        scanner.expect(b'[')?;
                        items = Some(scanner.clone());
                        count = 0;
                        while scanner.next_element(count == 0)? {
                            scanner.skip()?;
                            count += 1;
                        }
                    }
                    (b"server-name", Kind::Text) => {
                        let mut text = Vec::new();
                        scanner.string(&mut text)?;
                        name = String::from_utf8(text).ok();
                    }
                    _ => {
                        scanner.skip()?;
                    }
                }
            }
        }
        Ok((items, name, count))
    }

    /// The next item, valid until the next call; nothing at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<Result<(Operation, Update4<'_>), BadLease>> {
        if self.done {
            return None;
        }
        if let Ok(true) = self.scanner.next_element(self.first) {
            self.first = false;
        } else {
            self.done = true;
            return None;
        }
        match self.reader.update4(&mut self.scanner) {
            Ok(Ok(update)) => {
                let operation = if update.delete { Operation::Delete } else { Operation::Update };
                Some(Ok((operation, update)))
            }
            Ok(Err(bad)) => Some(Err(bad)),
            Err(Malformed { .. }) => {
                self.done = true;
                Some(Err(BadLease { address: None, field: "lease", expected: "a string as JSON writes it" }))
            }
        }
    }
}

/// An item that was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkFailure {
    /// Its position in the command.
    pub index: usize,
    /// 1, or 4 for a conflict.
    pub result: u32,
    /// Why.
    pub text: String,
}

/// Our answer to a command of `count` items.
#[must_use]
pub fn bulk_answer(count: usize, failed: &[BulkFailure]) -> Answer {
    let answer =
        Answer::success(format!("{} of {count} lease change(s) applied.", count - failed.len().min(count)));
    if failed.is_empty() {
        return answer;
    }
    let list: Vec<Value> = failed
        .iter()
        .map(|item| json!({ "index": item.index, "result": item.result, "text": item.text }))
        .collect();
    answer.with(json!({ "failed": list }))
}

/// The verdict on each of `count` items that we sent.
#[must_use]
pub fn bulk_verdicts(count: usize, answer: &Result<PeerAnswer, PeerError>) -> Vec<Verdict> {
    let mut verdicts = vec![verdict(answer); count];
    let Ok(PeerAnswer { result: 0 | 3, arguments: Some(arguments), .. }) = answer else { return verdicts };
    let failed = arguments.get("failed").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for item in failed {
        let index = item.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| verdicts.get_mut(index)) else {
            // A failure of we know not what: none of them can be relied on.
            return vec![Verdict::Error; count];
        };
        let conflict = item.get("result").and_then(Value::as_u64) == Some(u64::from(RESULT_CONFLICT));
        *slot = if conflict { Verdict::Conflict } else { Verdict::Error };
    }
    verdicts
}
