//! Commands between servers as JSON, both ways, and leases as JSON, both ways.
//!
//! * [`Answer`]: what we answer; [`PeerAnswer`]: what a peer answered, read as Kea reads it.
//! * [`request`]: HA commands that reach us. [`outgoing`]: those that we send.
//! * [`lease`]: the two encodings of a lease, written without intermediate values, read element by element.
//! * [`bulk`]: hundreds of changes per POST, between two Aplomados.
//!
//! Texts are for people; nothing reads them.

pub mod bulk;
pub mod date;
pub mod json;
pub mod lease;
pub mod outgoing;
pub mod page;
pub mod request;
pub mod status;

use serde_json::{Map, Value, json};

use super::states::State;

/// Success.
pub const RESULT_SUCCESS: u32 = 0;
/// Failure.
pub const RESULT_ERROR: u32 = 1;
/// No such command.
pub const RESULT_UNSUPPORTED: u32 = 2;
/// Done, but there was nothing to find or change.
pub const RESULT_EMPTY: u32 = 3;
/// The arguments conflict with what this server is configured for or holds.
pub const RESULT_CONFLICT: u32 = 4;
/// `ha-maintenance-notify`: the state forbids it.
pub const RESULT_MAINTENANCE_NOT_ALLOWED: u32 = 1001;

/// What we answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The result code.
    pub result: u32,
    /// For people.
    pub text: String,
    /// What the command returns.
    pub arguments: Option<Value>,
}

impl Answer {
    /// Result 0.
    #[must_use]
    pub fn success(text: impl Into<String>) -> Self {
        Self { result: RESULT_SUCCESS, text: text.into(), arguments: None }
    }

    /// Result 1.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self { result: RESULT_ERROR, text: text.into(), arguments: None }
    }

    /// Result 4.
    #[must_use]
    pub fn conflict(text: impl Into<String>) -> Self {
        Self { result: RESULT_CONFLICT, text: text.into(), arguments: None }
    }

    /// The same with arguments.
    #[must_use]
    pub fn with(self, arguments: Value) -> Self {
        Self { arguments: Some(arguments), ..self }
    }

    /// The answer as a map, as unix sockets carry it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if let Some(arguments) = &self.arguments {
            map.insert("arguments".to_owned(), arguments.clone());
        }
        map.insert("result".to_owned(), json!(self.result));
        if !self.text.is_empty() {
            map.insert("text".to_owned(), json!(self.text));
        }
        Value::Object(map)
    }

    /// The body of an HTTP answer: a list of one. A bare map would be an error to a peer.
    #[must_use]
    pub fn to_http_body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        json::write_value(&mut body, &Value::Array(vec![self.to_value()]));
        body
    }
}

/// Why a command to a peer has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// No connection, no answer in time, or no HTTP: the text says what.
    Io(String),
    /// The peer's listener refused the command before looking at it: the status and what it says. Counts as result 1.
    Refused(i64, String),
    /// An answer that is no list with a map that has an integer result. Counts as result 1.
    Malformed(&'static str),
}

impl std::fmt::Display for PeerError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(text) => out.write_str(text),
            Self::Refused(401, _) => out.write_str(
                "refused with 401 (Unauthorized): basic-auth-user and basic-auth-password of the peer's entry must be what its \
                 listener asks for",
            ),
            Self::Refused(status, text) => write!(out, "refused with {status}: {text}"),
            Self::Malformed(what) => {
                write!(out, "expected a list with a map that has a result, found {what}")
            }
        }
    }
}

/// What a peer answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerAnswer {
    /// The result code.
    pub result: i64,
    /// Its text, empty when there is none.
    pub text: String,
    /// Its arguments; a text stands in for them when there are none.
    pub arguments: Option<Value>,
}

impl PeerAnswer {
    /// Reads a body as Kea's HA client does: the HTTP status does not matter, a bare map is an error whatever it says, only the
    /// first element is read.
    ///
    /// # Errors
    /// [`PeerError::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, PeerError> {
        if body.is_empty() {
            return Err(PeerError::Malformed("no body"));
        }
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Err(PeerError::Malformed("no JSON"));
        };
        let Value::Array(list) = value else {
            // So say those who refuse a command before it is looked at: wrong credentials, a command that is not allowed there.
            let text = value.get("text").and_then(Value::as_str).unwrap_or_default();
            return Err(match value.get("result").and_then(Value::as_i64) {
                Some(result) => PeerError::Refused(result, text.to_owned()),
                None if value.is_object() => PeerError::Malformed("a bare map"),
                None => PeerError::Malformed("no list"),
            });
        };
        let Some(first) = list.into_iter().next() else { return Err(PeerError::Malformed("an empty list")) };
        let Value::Object(mut map) = first else { return Err(PeerError::Malformed("a list without a map")) };
        let Some(result) = map.get("result").and_then(Value::as_i64) else {
            return Err(PeerError::Malformed("a map without an integer result"));
        };
        let text = map.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        let arguments = map.remove("arguments").or_else(|| map.remove("text"));
        Ok(Self { result, text, arguments })
    }

    /// Whether an HA command succeeded: 0, or 3 (nothing to do).
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.result == i64::from(RESULT_SUCCESS) || self.result == i64::from(RESULT_EMPTY)
    }

    /// The state in the arguments (`ha-maintenance-notify` with `cancel`).
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.arguments.as_ref()?.get("state")?.as_str().and_then(State::from_name)
    }
}

/// What becomes of a client's answer, by a peer's answer to the lease update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer holds the lease.
    Success,
    /// The peer refuses it: the client is not answered, the peer stays available, the refusal counts.
    Conflict,
    /// Something is wrong: the client is not answered, a partner is unavailable from now on.
    Error,
}

/// The verdict on the answer to a single lease command (`lease4-update`, `lease4-del`).
#[must_use]
pub fn verdict(answer: &Result<PeerAnswer, PeerError>) -> Verdict {
    match answer {
        Ok(answer) if answer.is_success() => Verdict::Success,
        Ok(answer) if answer.result == i64::from(RESULT_CONFLICT) => Verdict::Conflict,
        Ok(_) | Err(_) => Verdict::Error,
    }
}

/// The verdict on the answer to `lease6-bulk-apply`: with result 3 the failed leases decide.
#[must_use]
pub fn verdict_bulk6(answer: &Result<PeerAnswer, PeerError>) -> Verdict {
    let plain = verdict(answer);
    let Ok(PeerAnswer { result: 3, arguments: Some(arguments), .. }) = answer else { return plain };
    let Some(failed) = arguments.get("failed-leases").and_then(Value::as_array) else { return plain };
    let any = |code: u32| {
        failed.iter().any(|lease| lease.get("result").and_then(Value::as_u64) == Some(u64::from(code)))
    };
    if any(RESULT_ERROR) {
        Verdict::Error
    } else if any(RESULT_CONFLICT) {
        Verdict::Conflict
    } else {
        Verdict::Success
    }
}

/// What a heartbeat tells of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Its state.
    pub state: State,
    /// Its clock: seconds since the Unix epoch.
    pub date_time_s: u64,
    /// The scopes it serves, bare names; none when it does not say (or not as it should).
    pub scopes: Option<Vec<String>>,
    /// Its count of unsent updates; none when it does not say.
    pub unsent_update_count: Option<u64>,
}

impl HeartbeatAnswer {
    /// Reads a peer's answer.
    ///
    /// # Errors
    /// When the heartbeat failed: the text says what was expected and what came.
    pub fn parse(answer: Result<PeerAnswer, PeerError>) -> Result<Self, String> {
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            return Err(format!("expected result 0, found {}: {}", answer.result, answer.text));
        }
        let Some(Value::Object(arguments)) = answer.arguments else {
            return Err("expected a map of arguments, found none".to_owned());
        };
        let state = match arguments.get("state") {
            Some(Value::String(name)) => {
                State::from_name(name).ok_or_else(|| format!("expected a state, found \"{name}\""))?
            }
            _ => return Err("expected the string \"state\", found none".to_owned()),
        };
        let date_time_s = match arguments.get("date-time") {
            Some(Value::String(text)) => date::parse_http(text)
                .ok_or_else(|| format!("expected an RFC 1123 date-time, found \"{text}\""))?,
            _ => return Err("expected the string \"date-time\", found none".to_owned()),
        };
        let scopes = arguments.get("scopes").and_then(Value::as_array).and_then(|list| {
            list.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        let unsent_update_count = match arguments.get("unsent-update-count") {
            None => None,
            // Kea's integers are signed: a count beyond 2^63 looks negative.
            Some(value) => Some(
                value
                    .as_u64()
                    .or_else(|| value.as_i64().map(i64::cast_unsigned))
                    .ok_or("expected an integer unsent-update-count, found something else")?,
            ),
        };
        Ok(Self { state, date_time_s, scopes, unsent_update_count })
    }

    /// Our answer.
    #[must_use]
    pub fn to_answer(&self) -> Answer {
        Answer::success("HA peer status returned.").with(json!({
            "state": self.state.name(),
            "date-time": date::format_http(self.date_time_s),
            "scopes": self.scopes.clone().unwrap_or_default(),
            "unsent-update-count": self.unsent_update_count.unwrap_or(0),
        }))
    }
}
