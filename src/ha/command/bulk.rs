//! `aplomado-bulk-apply`: many lease changes in one POST, between two Aplomados.
//!
//! ```text
//! { "arguments": { "leases": [ ITEM, ... ], "origin": "ha-partner", "post": N, "post-session": S, "post-since": N, "server-name": NAME },
//!   "command": "aplomado-bulk-apply", "service": [ "dhcp4" ] }
//! ```
//! An ITEM is the update encoding of a lease, without what is usual: names that are not to be updated in the DNS, an empty host name, state
//! 0. `"delete": true` removes the lease instead. Items are applied in order, absent leases
//! are created, each item stands for itself. The answer comes when everything applied is durable, and names what was not:
//!
//! ```text
//! [ { "arguments": { "failed": [ { "index": 3, "result": 4, "text": "..." } ] }, "result": 0, "text": "..." } ]
//! ```
//! `"delayed"` beside them (`"told"`, `"untold"`) says that the changes are late, and whether their clients have heard of them. The three numbers are those of [`PostNumber`]; without them a command is never late. `aplomado-sync-leases` has the same form: what
//! a server that copies leases has and the source lacks. Here an item that is not newer than what the source has is done by leaving
//! that as it is.
//!
//! Without `failed`, all items are done (removing what is not there is done). A command that does not read as a whole is
//! answered 1 and changes nothing.

use serde_json::{Value, json};

use super::json::{Kind, Malformed, Scanner, push_number};
use super::lease::{BadLease, LeaseReader, Update4, write_bulk_element};
use super::{Answer, PeerAnswer, PeerError, RESULT_CONFLICT, Verdict, verdict};
use crate::ha::backlog::{Delay, Operation};
use crate::ha::partner::BULK_COMMAND;
use crate::ha::posts::PostNumber;
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
    delay: Option<Delay>,
}

impl BulkWriter {
    /// A writer for lease updates of the server `server_name`.
    #[must_use]
    pub fn new(server_name: &str) -> Self {
        Self::of(BULK_COMMAND, server_name)
    }

    /// A writer for one of the commands of this form.
    #[must_use]
    pub fn of(command: &str, server_name: &str) -> Self {
        let mut tail = b", \"server-name\": ".to_vec();
        super::json::write_string(&mut tail, server_name.as_bytes());
        tail.extend_from_slice(b" }, \"command\": ");
        super::json::write_string(&mut tail, command.as_bytes());
        tail.extend_from_slice(b", \"service\": [ \"dhcp4\" ] }");
        Self { body: Vec::new(), count: 0, tail, delay: None }
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

    /// The changes of this command are late, or not.
    pub const fn mark(&mut self, delay: Option<Delay>) {
        self.delay = delay;
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
    pub fn finish(&mut self, post: Option<PostNumber>) -> &[u8] {
        if self.count == 0 {
            self.body.clear();
            self.body.extend_from_slice(b"{ \"arguments\": { \"leases\": [ ");
        }
        self.body.extend_from_slice(b" ], \"origin\": \"ha-partner\"");
        if let Some(PostNumber { session, number, since }) = post {
            for (key, value) in [
                (&b", \"post\": "[..], number),
                (b", \"post-session\": ", session),
                (b", \"post-since\": ", since),
            ] {
                self.body.extend_from_slice(key);
                push_number(&mut self.body, value);
            }
        }
        if let Some(delay) = self.delay.take() {
            self.body.extend_from_slice(b", \"delayed\": ");
            super::json::write_string(&mut self.body, word(delay));
        }
        self.body.extend_from_slice(&self.tail);
        self.count = 0;
        &self.body
    }
}

const fn word(delay: Delay) -> &'static [u8] {
    match delay {
        Delay::Told => b"told",
        Delay::Untold => b"untold",
    }
}

/// Who has sent a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkSender {
    /// Its name.
    pub name: Option<String>,
    /// Where the command stands among those of the sender.
    pub post: Option<PostNumber>,
    /// Its changes are late.
    pub delay: Option<Delay>,
}

/// Reads a command that reached us, in one pass: each item goes to `take`, in order. Gives its sender.
///
/// # Errors
/// The answer (result 1) to give. Nothing is to be changed, whatever was taken before.
pub fn read_bulk(
    body: &[u8],
    take: impl FnMut(Result<(Operation, Update4<'_>), BadLease>),
) -> Result<BulkSender, Answer> {
    let (sender, count) = read_command(body, take).map_err(|error| {
        Answer::error(format!("expected JSON, found something else at octet {}", error.offset))
    })?;
    match count {
        None => Err(Answer::error("expected a list \"leases\" in the arguments, found none")),
        Some(count) if count > BULK_ITEMS_ACCEPTED_MAX => {
            Err(Answer::error(format!("expected at most {BULK_ITEMS_ACCEPTED_MAX} leases, found {count}")))
        }
        Some(_) => Ok(sender),
    }
}

/// The sender and how many items there are, if there is a list of them.
fn read_command(
    body: &[u8],
    mut take: impl FnMut(Result<(Operation, Update4<'_>), BadLease>),
) -> Result<(BulkSender, Option<usize>), Malformed> {
    let (mut name, mut count, mut delay) = (None, None, None);
    let mut numbers = [None; 3];
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
                (b"leases", Kind::List) if count.is_none() => {
                    count = Some(read_items(&mut scanner, &mut take)?);
                }
                (b"server-name", Kind::Text) => {
                    let mut text = Vec::new();
                    scanner.string(&mut text)?;
                    name = String::from_utf8(text).ok();
                }
                (b"delayed", Kind::Text) => {
                    let text = scanner.raw_string()?;
                    delay = [Delay::Told, Delay::Untold].into_iter().find(|delay| word(*delay) == text);
                }
                (b"post", Kind::Number) => numbers[0] = u64::try_from(scanner.integer()?).ok(),
                (b"post-session", Kind::Number) => numbers[1] = u64::try_from(scanner.integer()?).ok(),
                (b"post-since", Kind::Number) => numbers[2] = u64::try_from(scanner.integer()?).ok(),
                _ => {
                    scanner.skip()?;
                }
            }
        }
    }
    let post = match numbers {
        [Some(number), Some(session), Some(since)] => Some(PostNumber { session, number, since }),
        _ => None,
    };
    Ok((BulkSender { name, post, delay }, count))
}

fn read_items(
    scanner: &mut Scanner<'_>,
    take: &mut impl FnMut(Result<(Operation, Update4<'_>), BadLease>),
) -> Result<usize, Malformed> {
    let mut reader = LeaseReader::default();
    let mut count = 0;
    scanner.expect(b'[')?;
    while scanner.next_element(count == 0)? {
        count += 1;
        // More than are accepted are only counted.
        if count > BULK_ITEMS_ACCEPTED_MAX {
            scanner.skip()?;
            continue;
        }
        take(reader.update4(scanner)?.map(|update| {
            let operation = if update.delete { Operation::Delete } else { Operation::Update };
            (operation, update)
        }));
    }
    Ok(count)
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
