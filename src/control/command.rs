//! What a command and its answer are: the envelope, and how a command that has to wait goes on.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;

use serde_json::Value;

use super::backend::{Backend, Completion, Daemon, Order, Ticket};
use super::json::{self, JsonError, Reader};
use super::lease_commands::Listing;
use super::statistics::Statistics;

/// `result`: done.
pub const RESULT_SUCCESS: u32 = 0;
/// `result`: something is wrong; the text says what.
pub const RESULT_ERROR: u32 = 1;
/// `result`: no such command here.
pub const RESULT_UNSUPPORTED: u32 = 2;
/// `result`: the command was fine and found or changed nothing.
pub const RESULT_EMPTY: u32 = 3;
/// `result`: the request does not agree with what the server knows.
pub const RESULT_CONFLICT: u32 = 4;
/// `result`: the server cannot go on as configured.
pub const RESULT_FATAL: u32 = 5;

/// A command as it came, its envelope checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// The whole text; valid JSON.
    pub text: Vec<u8>,
    /// Where the value of `arguments` stands in `text`.
    pub arguments: Option<Range<usize>>,
    /// Where the value of `service` stands in `text`.
    pub service: Option<Range<usize>>,
    /// The client's address when it came over TCP, or the path that it came by.
    pub remote: String,
}

/// Why a text is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// It is not JSON.
    Json(JsonError),
    /// It is JSON, but its envelope is wrong.
    Envelope(String),
}

impl CommandFault {
    /// The answer that says so.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer::error(self.to_string())
    }
}

impl fmt::Display for CommandFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(out),
            Self::Envelope(text) => write!(out, "Error during command processing: invalid command: {text}"),
        }
    }
}

impl std::error::Error for CommandFault {}

impl Command {
    /// Reads the envelope of `text`. Checked in Kea's order: a map, a `command`, no foreign key, a string.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: Vec<u8>, remote: &str) -> Result<Self, CommandFault> {
        let mut reader = Reader::new(&text);
        if reader.peek() != Some(b'{') {
            let value = json::parse(&text).map_err(CommandFault::Json)?;
            return Err(CommandFault::Envelope(format!(
                "expected toplevel entry to be a map, got {} instead",
                type_name(&value)
            )));
        }
        let (mut name, mut arguments, mut service, mut foreign) = (None, None, None, None);
        let mut first = true;
        let mut read = || -> Result<(), JsonError> {
            reader.open(b'{')?;
            while let Some(key) = reader.key(&mut first)? {
                match key.as_ref() {
                    b"command" => name = Some(reader.value()?),
                    b"arguments" => arguments = Some(reader.skip()?),
                    b"service" => service = Some(reader.skip()?),
                    b"remote-address" => {
                        reader.skip()?;
                    }
                    other => {
                        // Kea walks the sorted map: the first foreign key in that order is the one it names.
                        let other = json::text_of(other).into_owned();
                        if foreign.as_ref().is_none_or(|known| other < *known) {
                            foreign = Some(other);
                        }
                        reader.skip()?;
                    }
                }
            }
            reader.end()
        };
        read().map_err(CommandFault::Json)?;
        let envelope = |text: String| Err(CommandFault::Envelope(text));
        let Some(name) = name else { return envelope("does not contain mandatory 'command'".to_owned()) };
        if let Some(key) = foreign {
            return envelope(format!("unsupported parameter '{key}'"));
        }
        let Value::String(name) = name else {
            return envelope(format!("expected 'command' to be a string, got {} instead", type_name(&name)));
        };
        Ok(Self { name, arguments, service, remote: remote.to_owned(), text })
    }

    /// The text of `arguments`.
    #[must_use]
    pub fn arguments_text(&self) -> Option<&[u8]> {
        self.text.get(self.arguments.clone()?)
    }

    /// The value of `arguments`.
    #[must_use]
    pub fn arguments(&self) -> Option<Value> {
        // The text was checked as a whole, so this cannot fail.
        json::parse(self.arguments_text()?).ok()
    }

    /// The value of `service`.
    #[must_use]
    pub fn service(&self) -> Option<Value> {
        json::parse(self.text.get(self.service.clone()?)?).ok()
    }
}

/// Kea's word for the type of a value.
#[must_use]
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "real",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// The `arguments` of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Arguments {
    /// None.
    #[default]
    None,
    /// A value.
    Value(Value),
    /// A value already in Kea's printed form.
    Printed(Vec<u8>),
}

/// The answer to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `result`.
    pub result: u32,
    /// `text`; left out when empty and `result` is 0.
    pub text: String,
    /// `arguments`.
    pub arguments: Arguments,
}

impl Answer {
    /// An answer with this `result` and `text`.
    #[must_use]
    pub fn new(result: u32, text: impl Into<String>) -> Self {
        Self { result, text: text.into(), arguments: Arguments::None }
    }

    /// Result 0.
    #[must_use]
    pub fn success(text: impl Into<String>) -> Self {
        Self::new(RESULT_SUCCESS, text)
    }

    /// Result 1.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::new(RESULT_ERROR, text)
    }

    /// Result 3.
    #[must_use]
    pub fn empty(text: impl Into<String>) -> Self {
        Self::new(RESULT_EMPTY, text)
    }

    /// Result 4.
    #[must_use]
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(RESULT_CONFLICT, text)
    }

    /// Result 2: no command `name` here.
    #[must_use]
    pub fn unsupported(name: &str) -> Self {
        Self::new(RESULT_UNSUPPORTED, format!("'{name}' command not supported."))
    }

    /// The same with `arguments`.
    #[must_use]
    pub fn with(mut self, arguments: Value) -> Self {
        self.arguments = Arguments::Value(arguments);
        self
    }

    /// The same with `arguments` already in Kea's printed form.
    #[must_use]
    pub fn with_printed(mut self, arguments: Vec<u8>) -> Self {
        self.arguments = Arguments::Printed(arguments);
        self
    }

    /// Prints it as Kea does, as a map.
    pub fn print(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{ ");
        match &self.arguments {
            Arguments::None => {}
            Arguments::Value(value) => {
                out.extend_from_slice(b"\"arguments\": ");
                json::print(value, out);
                out.extend_from_slice(b", ");
            }
            Arguments::Printed(printed) => {
                out.extend_from_slice(b"\"arguments\": ");
                out.extend_from_slice(printed);
                out.extend_from_slice(b", ");
            }
        }
        // Writing to a vector cannot fail.
        let _ = write!(out, "\"result\": {}", self.result);
        if !self.text.is_empty() || self.result != RESULT_SUCCESS {
            out.extend_from_slice(b", \"text\": ");
            json::print_string(self.text.as_bytes(), out);
        }
        out.extend_from_slice(b" }");
    }

    /// Its printed form.
    #[must_use]
    pub fn to_printed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.print(&mut out);
        out
    }
}

/// Where a command goes from here.
pub enum Outcome {
    /// It is answered.
    Answer(Answer),
    /// It waits for the tickets that it ordered; with each completion it is resumed.
    Pending(Box<dyn Continuation>),
    /// It lists leases, which are fetched and sent piece by piece.
    Listing(Box<Listing>),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<Result<Self, Answer>> for Outcome {
    fn from(result: Result<Self, Answer>) -> Self {
        result.unwrap_or_else(Self::Answer)
    }
}

/// The rest of a command that waits.
pub trait Continuation: Send {
    /// One of the tickets that the command ordered is complete.
    fn resume(self: Box<Self>, context: &mut Context<'_>, ticket: Ticket, completion: Completion) -> Outcome;
}

impl<F> Continuation for F
where
    F: FnOnce(&mut Context<'_>, Completion) -> Outcome + Send,
{
    fn resume(self: Box<Self>, context: &mut Context<'_>, _: Ticket, completion: Completion) -> Outcome {
        self(context, completion)
    }
}

/// The source of tickets.
#[derive(Debug, Default)]
pub struct Tickets {
    last: u64,
}

impl Tickets {
    /// A ticket never given before.
    pub const fn issue(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }
}

/// What a command works with.
pub struct Context<'a> {
    /// The rest of the server.
    pub backend: &'a mut dyn Backend,
    /// The statistics.
    pub statistics: &'a mut Statistics,
    /// The daemon that is asked.
    pub daemon: Daemon,
    /// The names of the commands that this daemon has, sorted.
    pub command_names: &'a [String],
    /// Source of tickets.
    pub tickets: &'a mut Tickets,
    /// Tickets ordered during this call; whoever called the command books them for it.
    pub ordered: Vec<Ticket>,
}

impl Context<'_> {
    /// Orders work for this command.
    pub fn submit(&mut self, order: Order) -> Ticket {
        let ticket = self.tickets.issue();
        self.ordered.push(ticket);
        self.backend.submit(ticket, order);
        ticket
    }

    /// Orders work and goes on with `then` when it is done.
    pub fn submit_then(
        &mut self,
        order: Order,
        then: impl FnOnce(&mut Context<'_>, Completion) -> Outcome + Send + 'static,
    ) -> Outcome {
        self.submit(order);
        Outcome::Pending(Box::new(then))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(text: &str) -> String {
        Command::parse(text.as_bytes().to_vec(), "").expect_err("must be refused").to_string()
    }

    #[test]
    fn envelope_faults_are_told_in_keas_order_and_words() {
        let prefix = "Error during command processing: invalid command: ";
        for (text, expected) in [
            ("[1]", "expected toplevel entry to be a map, got list instead"),
            ("{\"foo\":1}", "does not contain mandatory 'command'"),
            ("{\"command\":{},\"zoo\":1,\"foo\":1}", "unsupported parameter 'foo'"),
            ("{\"command\":{}}", "expected 'command' to be a string, got map instead"),
        ] {
            assert_eq!(fault(text), format!("{prefix}{expected}"));
        }
        assert_eq!(fault("{\"command\":\"version-get\",}"), "String expected in <wire>:0:26");
    }

    #[test]
    fn envelope_keeps_arguments_and_service_where_they_stand() {
        let text = br#"{"command":"x","arguments":{"a":[1]},"service":["dhcp4"],"remote-address":"::1"}"#;
        let command = Command::parse(text.to_vec(), "192.0.2.1").expect("a command");
        assert_eq!(command.name, "x");
        assert_eq!(command.arguments(), Some(json!({"a": [1]})));
        assert_eq!(command.service(), Some(json!(["dhcp4"])));
        assert_eq!(command.arguments_text(), Some(&br#"{"a":[1]}"#[..]));
    }

    #[test]
    fn answers_print_as_keas() {
        let printed = |answer: &Answer| String::from_utf8(answer.to_printed()).expect("UTF-8");
        assert_eq!(printed(&Answer::success("").with(json!({}))), "{ \"arguments\": {  }, \"result\": 0 }");
        assert_eq!(
            printed(&Answer::unsupported("foo")),
            "{ \"result\": 2, \"text\": \"'foo' command not supported.\" }"
        );
        assert_eq!(printed(&Answer::error("")), "{ \"result\": 1, \"text\": \"\" }");
    }
}
