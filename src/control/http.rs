//! The server's side of one HTTP connection: octets in, requests out; answers in, octets out. No socket, no clock.
//!
//! Checks go in Kea's order: the message, its method and headers, the body's JSON, credentials, then the command.
//! Only the length of a body says where it ends (RFC 9112 6.3); chunked bodies are refused as Kea refuses them.
//!
//! Bounds: [`HEAD_BYTES_MAX`], [`HEADERS_MAX`], [`COMMAND_BYTES_MAX`]; one request at a time is in work, what is
//! pipelined behind it stays in the socket.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::clock;
use super::command::{Command, CommandFault};
use super::frame_unix::COMMAND_BYTES_MAX;
use crate::time::Mono;

/// Longest request head, octets.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Longest body that is read of somebody whose credentials are wrong; Kea reads it before it looks at them.
pub const UNAUTHORIZED_BYTES_MAX: usize = 64 << 10;
/// Time to receive a complete request, and for each MiB of it a second more.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// Time between two requests.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;

/// Who may send commands: clients of basic authentication (RFC 7617).
#[derive(Clone, Debug, Default)]
pub struct BasicAuth {
    realm: String,
    /// SHA-256 of the base64 text that each client sends: equal lengths make the comparison take equal times.
    clients: Vec<[u8; 32]>,
}

impl BasicAuth {
    /// Authentication of these users and passwords under `realm`. Without any client everyone is accepted, as in Kea.
    pub fn new<'a>(realm: &str, clients: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let clients = clients
            .into_iter()
            .map(|(user, password)| Sha256::digest(STANDARD.encode(format!("{user}:{password}"))).into());
        Self { realm: realm.to_owned(), clients: clients.collect() }
    }

    fn accepts(&self, header: Option<&[u8]>) -> bool {
        if self.clients.is_empty() {
            return true;
        }
        let Some(text) = header.map(<[u8]>::trim_ascii) else { return false };
        let Some(split) = text.iter().position(|octet| *octet == b' ') else { return false };
        let (scheme, credentials) = text.split_at(split);
        let given: [u8; 32] = Sha256::digest(credentials.trim_ascii()).into();
        let matches = is_among(&self.clients, &given, || ());
        matches && scheme.eq_ignore_ascii_case(b"basic")
    }
}

/// Whether `given` is one of `clients`; the only place where credentials are compared. Every octet of every client is looked at, whatever
/// those before it were, so that the time it takes tells neither how much of a guess is right nor whose it is. `look` hears of each look.
fn is_among(clients: &[[u8; 32]], given: &[u8; 32], mut look: impl FnMut()) -> bool {
    let mut found = false;
    for client in clients {
        let difference = client.iter().zip(given).fold(0, |sum, (one, other)| {
            look();
            sum | (one ^ other)
        });
        // Else the compiler may find out that it knows enough.
        found |= std::hint::black_box(difference) == 0;
    }
    found
}

/// What a listener asks of its clients and tells them.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// Credentials; everyone is accepted without.
    pub auth: Option<BasicAuth>,
    /// Headers added to every response.
    pub headers: Vec<(String, String)>,
}

impl HttpSettings {
    /// Whether somebody without credentials is refused.
    #[must_use]
    pub fn asks_credentials(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| !auth.clients.is_empty())
    }
}

/// A status other than 200, with the reason Kea gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 408.
    RequestTimeout,
    /// 500.
    Internal,
}

impl HttpError {
    const fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::Internal => (500, "Internal Server Error"),
        }
    }
}

/// What a connection has for its owner.
#[derive(Debug, PartialEq)]
pub enum HttpEvent {
    /// More octets are needed.
    More,
    /// A command whose sender is accepted. It has to be answered before the next one comes.
    Command(Result<Command, CommandFault>),
    /// The request is refused: [`HttpConnection::print_error`] says so; then the next event or the end.
    Refused(HttpError),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Body { bytes: usize, authorized: bool },
    Answering,
    Closed,
}

/// What [`find_head_end`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadSearch {
    /// The head has this many octets, its empty line with it.
    End(usize),
    /// A line ends without CR: the end of such a head would never be found.
    Bare,
    /// More octets are needed.
    More,
}

/// Looks for the end of a head in `input`, of which the first `searched` octets were looked at before and are not again: a head that
/// comes octet by octet costs no more than one that comes at once.
fn find_head_end(input: &[u8], searched: usize) -> HeadSearch {
    for at in searched..input.len() {
        if input[at] != b'\n' {
            continue;
        }
        let line = &input[..at];
        if !line.ends_with(b"\r") {
            return HeadSearch::Bare;
        }
        if line.ends_with(b"\r\n\r") {
            return HeadSearch::End(at + 1);
        }
    }
    HeadSearch::More
}

/// One connection.
#[derive(Debug)]
pub struct HttpConnection {
    input: Vec<u8>,
    /// Octets of `input` in which the head does not end.
    searched: usize,
    state: State,
    /// Minor version of the request in work: responses carry the same.
    version: u8,
    keep_alive: bool,
    expects_continue: bool,
    /// When the first octet of the request in work came.
    started: Option<Mono>,
    idle_since: Mono,
    remote: String,
}

impl HttpConnection {
    /// A connection from `remote`, an address without port.
    #[must_use]
    pub fn new(remote: &str, now: Mono) -> Self {
        Self {
            input: Vec::new(),
            searched: 0,
            state: State::Head,
            version: 1,
            keep_alive: true,
            expects_continue: false,
            started: None,
            idle_since: now,
            remote: remote.to_owned(),
        }
    }

    /// Octets that wait for the rest of their request.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.input.len()
    }

    /// Whether octets are welcome now.
    #[must_use]
    pub fn wants_octets(&self) -> bool {
        matches!(self.state, State::Head | State::Body { .. })
    }

    /// Whether there is no request begun or in work.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.input.is_empty()
    }

    /// When the request that is not complete began, or the last one ended; none while one is in work.
    #[must_use]
    pub fn silent_since(&self) -> Option<Mono> {
        self.wants_octets().then(|| self.started.unwrap_or(self.idle_since))
    }

    /// Whether the connection is to be closed when everything is sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Takes octets from the client.
    pub fn receive(&mut self, octets: &[u8], now: Mono) {
        if !octets.is_empty() && self.state != State::Closed {
            self.started.get_or_insert(now);
            self.input.extend_from_slice(octets);
        }
    }

    /// When [`Self::timed_out`] is to be called, unless something happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match (&self.state, self.started) {
            (State::Answering, _) => None,
            (_, Some(started)) => {
                let mebibytes = u64::try_from(self.input.len() >> 20).unwrap_or(u64::MAX);
                Some(started.plus_ms(REQUEST_TIMEOUT_MS + 1000 * mebibytes))
            }
            (_, None) => Some(self.idle_since.plus_ms(IDLE_TIMEOUT_MS)),
        }
    }

    /// The deadline has passed: an idle connection ends silently, a half request with 408.
    pub fn timed_out(&mut self) -> Option<HttpError> {
        let half = self.started.is_some() && self.state != State::Closed;
        self.state = State::Closed;
        half.then_some(HttpError::RequestTimeout)
    }

    /// What comes next. `out` gets interim responses only.
    pub fn poll(&mut self, settings: &HttpSettings, out: &mut Vec<u8>) -> HttpEvent {
        if self.state == State::Head {
            match self.head(settings) {
                Ok(true) => {
                    if std::mem::take(&mut self.expects_continue) {
                        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                }
                Ok(false) => return HttpEvent::More,
                Err(error) => {
                    self.keep_alive = false;
                    return self.refuse(error);
                }
            }
        }
        let State::Body { bytes, authorized } = self.state else { return HttpEvent::More };
        if self.input.len() < bytes {
            return HttpEvent::More;
        }
        let rest = self.input.split_off(bytes);
        let body = std::mem::replace(&mut self.input, rest);
        let command = if body.is_empty() {
            // To Kea no body is no bad body: what is missing is the command.
            Err(CommandFault::Envelope("expected a map, found no body".to_owned()))
        } else {
            Command::parse(body, &self.remote)
        };
        if let Err(CommandFault::Json(_)) = command {
            return self.refuse(HttpError::BadRequest);
        }
        if !authorized {
            return self.refuse(HttpError::Unauthorized);
        }
        self.state = State::Answering;
        HttpEvent::Command(command)
    }

    fn refuse(&mut self, error: HttpError) -> HttpEvent {
        self.state = if self.keep_alive { State::Answering } else { State::Closed };
        HttpEvent::Refused(error)
    }

    /// Reads the head when it is complete.
    fn head(&mut self, settings: &HttpSettings) -> Result<bool, HttpError> {
        // Empty lines before a request are skipped (RFC 9112 2.2).
        let blank = self.input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        self.input.drain(..blank);
        self.searched = self.searched.saturating_sub(blank);
        let longest = &self.input[..self.input.len().min(HEAD_BYTES_MAX)];
        let head_bytes = match find_head_end(longest, self.searched) {
            HeadSearch::End(head_bytes) => head_bytes,
            HeadSearch::More if self.input.len() <= HEAD_BYTES_MAX => {
                self.searched = self.input.len();
                return Ok(false);
            }
            HeadSearch::More | HeadSearch::Bare => {
                self.version = 0;
                return Err(HttpError::BadRequest);
            }
        };
        let mut head = self.input[..head_bytes].to_vec();
        self.input.drain(..head_bytes);
        self.searched = 0;
        self.read_head(&mut head, settings)?;
        Ok(true)
    }

    fn read_head(&mut self, head: &mut [u8], settings: &HttpSettings) -> Result<(), HttpError> {
        self.version = 0;
        self.keep_alive = false;
        downgrade(head);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(HttpError::BadRequest),
        }
        self.version = request.version.unwrap_or(0);
        self.keep_alive = self.version == 1;
        let (mut length, mut json, mut authorization) = (None, false, None);
        for header in request.headers.iter() {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let number = std::str::from_utf8(value)
                    .ok()
                    .filter(|text| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()))
                    .and_then(|text| text.parse::<usize>().ok())
                    .ok_or(HttpError::BadRequest)?;
                if length.replace(number).is_some_and(|before| before != number) {
                    return Err(HttpError::BadRequest);
                }
            } else if is("transfer-encoding") {
                return Err(HttpError::BadRequest);
            } else if is("content-type") {
                // Kea refuses parameters; clients that add a charset mean no harm.
                let media = value.split(|octet| *octet == b';').next().unwrap_or_default();
                json = media.trim_ascii().eq_ignore_ascii_case(b"application/json");
            } else if is("authorization") {
                authorization = Some(value);
            } else if is("connection") {
                for word in value.split(|octet| *octet == b',').map(<[u8]>::trim_ascii) {
                    if word.eq_ignore_ascii_case(b"close") {
                        self.keep_alive = false;
                    } else if word.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    }
                }
            } else if is("expect") && value.eq_ignore_ascii_case(b"100-continue") {
                self.expects_continue = self.version == 1;
            }
        }
        let is_post = request.method.is_some_and(|method| method.eq_ignore_ascii_case("post"));
        let bytes = length.ok_or(HttpError::BadRequest)?;
        if !is_post || !json || bytes > COMMAND_BYTES_MAX {
            return Err(HttpError::BadRequest);
        }
        let authorized = settings.auth.as_ref().is_none_or(|auth| auth.accepts(authorization));
        if !authorized && bytes > UNAUTHORIZED_BYTES_MAX {
            self.keep_alive = false;
            return Err(HttpError::Unauthorized);
        }
        self.state = State::Body { bytes, authorized };
        Ok(())
    }

    /// Prints the head of a 200 response whose body has `body_bytes` octets, which the caller sends after it.
    pub fn print_head(&self, settings: &HttpSettings, body_bytes: u64, wall_s: u64, out: &mut Vec<u8>) {
        self.print_status(200, "OK", None, settings, body_bytes, wall_s, out);
    }

    /// Prints a whole response with an error status.
    pub fn print_error(&self, settings: &HttpSettings, error: HttpError, wall_s: u64, out: &mut Vec<u8>) {
        let (status, reason) = error.status();
        let body = format!("{{ \"result\": {status}, \"text\": \"{reason}\" }}");
        let realm = settings.auth.as_ref().filter(|_| error == HttpError::Unauthorized);
        let realm = realm.map(|auth| auth.realm.as_str());
        self.print_status(status, reason, realm, settings, body.len() as u64, wall_s, out);
        out.extend_from_slice(body.as_bytes());
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one response head")]
    fn print_status(
        &self,
        status: u16,
        reason: &str,
        realm: Option<&str>,
        settings: &HttpSettings,
        body_bytes: u64,
        wall_s: u64,
        out: &mut Vec<u8>,
    ) {
        let mut headers = vec![
            ("Content-Length", body_bytes.to_string()),
            ("Content-Type", "application/json".to_owned()),
            ("Date", clock::http_date(wall_s)),
        ];
        if let Some(realm) = realm {
            headers.push(("WWW-Authenticate", format!("Basic realm=\"{realm}\"")));
        }
        for (name, value) in &settings.headers {
            // A line end inside would begin a header or body of somebody else's making.
            if !name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']) {
                headers.push((name, value.clone()));
            }
        }
        headers.sort_by_key(|header| header.0);
        // Writing to a vector cannot fail.
        let _ = write!(out, "HTTP/1.{} {status} {reason}\r\n", self.version);
        for (name, value) in headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The response to the request in work was handed over whole: the next request may come, or the connection ends.
    pub fn answered(&mut self, now: Mono) {
        if self.state == State::Closed || !self.keep_alive {
            self.state = State::Closed;
            self.input = Vec::new();
            return;
        }
        self.state = State::Head;
        self.idle_since = now;
        self.started = (!self.input.is_empty()).then_some(now);
    }
}

/// Any version but 1.1 is answered as 1.0, as Kea does: makes the parser see that.
fn downgrade(head: &mut [u8]) {
    let Some(end) = head.windows(2).position(|window| window == b"\r\n") else { return };
    let Some(start) = end.checked_sub(3) else { return };
    let version = &mut head[start..end];
    if version[0].is_ascii_digit() && version[1] == b'.' && version[2].is_ascii_digit() && version != b"1.1" {
        version.copy_from_slice(b"1.0");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(head: &str, body: &str) -> Vec<u8> {
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    const POST: &str = "POST / HTTP/1.1\r\nContent-Type: application/json\r\n";

    fn feed(octets: &[u8], settings: &HttpSettings) -> (HttpConnection, HttpEvent, Vec<u8>) {
        let mut connection = HttpConnection::new("192.0.2.1", Mono(0));
        connection.receive(octets, Mono(0));
        let mut out = Vec::new();
        let event = connection.poll(settings, &mut out);
        (connection, event, out)
    }

    fn refused(octets: &[u8]) -> (HttpError, bool) {
        match feed(octets, &HttpSettings::default()) {
            (connection, HttpEvent::Refused(error), _) => (error, connection.is_closed()),
            (_, event, _) => panic!("expected a refusal of {}, got {event:?}", octets.escape_ascii()),
        }
    }

    fn name(event: HttpEvent) -> String {
        match event {
            HttpEvent::Command(Ok(command)) => command.name,
            event => panic!("expected a command, got {event:?}"),
        }
    }

    #[test]
    fn what_was_searched_for_the_end_of_a_head_is_not_searched_again() {
        let head = b"POST / HTTP/1.1\r\nA: b\r\n\r\nrest";
        assert_eq!(find_head_end(head, 0), HeadSearch::End(25));
        for searched in 0..25 {
            assert_eq!(find_head_end(&head[..searched], 0), HeadSearch::More);
            assert_eq!(find_head_end(head, searched), HeadSearch::End(25), "after {searched}");
        }
        // An octet that would be refused shows whether it is looked at.
        assert_eq!(find_head_end(b"a\nb: c\r\n", 0), HeadSearch::Bare);
        assert_eq!(find_head_end(b"a\nb: c\r\n", 2), HeadSearch::More);
        let mut connection = HttpConnection::new("", Mono(0));
        let settings = HttpSettings::default();
        for octet in b"\r\n\r\nPOST / HTTP/1.1\r\nA: " {
            connection.receive(&[*octet], Mono(0));
            assert_eq!(connection.poll(&settings, &mut Vec::new()), HttpEvent::More);
        }
        assert_eq!(connection.searched, connection.input.len());
    }

    #[test]
    fn a_response_has_keas_headers_in_order() {
        let settings = HttpSettings::default();
        let (connection, event, _) = feed(&request(POST, "{\"command\":\"x\"}"), &settings);
        assert_eq!(name(event), "x");
        let mut out = Vec::new();
        connection.print_head(&settings, 98, 1_795_415_286, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 200 OK\r\nContent-Length: 98\r\nContent-Type: application/json\r\n\
             Date: Mon, 23 Nov 2026 06:28:06 GMT\r\n\r\n"
        );
    }

    #[test]
    fn what_is_not_a_command_request_is_400_and_the_head_closes() {
        let body = "{\"command\":\"x\"}";
        for head in [
            "GET / HTTP/1.1\r\nContent-Type: application/json\r\n",
            "POST / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\nContent-Type: text/plain\r\n",
            "POST / HTTP/1.1\nContent-Type: application/json\r\n",
            "POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
            "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n",
            "POST /\r\n",
            "nonsense\r\n",
        ] {
            assert_eq!(refused(&request(head, body)), (HttpError::BadRequest, true), "{head}");
        }
        let without_length = format!("{POST}\r\n{body}");
        assert_eq!(refused(without_length.as_bytes()), (HttpError::BadRequest, true));
        for length in ["-1", "+5", "99999999999999999999", "70000000", "5 5", ""] {
            let bad = format!("{POST}Content-Length: {length}\r\n\r\n{body}");
            assert_eq!(refused(bad.as_bytes()), (HttpError::BadRequest, true), "{length}");
        }
        let long = format!("{POST}X: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(refused(long.as_bytes()), (HttpError::BadRequest, true));
        assert_eq!(
            refused(&request(&format!("{POST}{}", "X: y\r\n".repeat(70)), body)).0,
            HttpError::BadRequest
        );
    }

    #[test]
    fn a_bad_body_is_400_and_the_connection_stays() {
        assert_eq!(refused(&request(POST, "{bad")), (HttpError::BadRequest, false));
        assert_eq!(refused(&request(POST, " ")), (HttpError::BadRequest, false));
        assert_eq!(refused(&request(POST, "{\"command\":\"x\"} y")), (HttpError::BadRequest, false));
    }

    #[test]
    fn no_body_is_no_command_and_credentials_go_first() {
        let mut settings = HttpSettings::default();
        let (_, event, _) = feed(&request(POST, ""), &settings);
        assert!(matches!(event, HttpEvent::Command(Err(CommandFault::Envelope(_)))), "{event:?}");
        settings.auth = Some(BasicAuth::new("r", [("admin", "secret")]));
        assert_eq!(feed(&request(POST, ""), &settings).1, HttpEvent::Refused(HttpError::Unauthorized));
    }

    #[test]
    fn versions_methods_and_types_are_read_as_kea_does() {
        let body = "{\"command\":\"x\"}";
        let head = "post /any/path?q HTTP/2.0\r\nContent-Type: APPLICATION/json; charset=utf-8\r\n";
        let settings = HttpSettings::default();
        let (mut connection, event, _) = feed(&request(head, body), &settings);
        assert_eq!(name(event), "x");
        let mut out = Vec::new();
        connection.print_head(&settings, 0, 0, &mut out);
        assert!(out.starts_with(b"HTTP/1.0 200 OK\r\n"));
        connection.answered(Mono(1));
        assert!(connection.is_closed());
    }

    #[test]
    fn persistence_follows_version_and_header() {
        let body = "{\"command\":\"x\"}";
        for (version, header, stays) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = format!("POST / HTTP/{version}\r\nContent-Type: application/json\r\n{header}");
            let (mut connection, event, _) = feed(&request(&head, body), &HttpSettings::default());
            name(event);
            connection.answered(Mono(1));
            assert_eq!(!connection.is_closed(), stays, "{version} {header}");
        }
    }

    #[test]
    fn pipelined_requests_are_taken_one_at_a_time() {
        let settings = HttpSettings::default();
        let two = [request(POST, "{\"command\":\"a\"}"), request(POST, "{\"command\":\"b\"}")].concat();
        let (mut connection, event, mut out) = feed(&two, &settings);
        assert_eq!(name(event), "a");
        assert_eq!(connection.poll(&settings, &mut out), HttpEvent::More);
        assert!(!connection.wants_octets());
        connection.answered(Mono(5));
        assert_eq!(name(connection.poll(&settings, &mut out)), "b");
    }

    #[test]
    fn credentials_are_asked_for_after_the_body_was_read() {
        let settings = HttpSettings {
            auth: Some(BasicAuth::new("kea-dhcpv4-server", [("admin", "secret"), ("b", "")])),
            headers: vec![("Strict".to_owned(), "yes".to_owned()), ("Bad".to_owned(), "a\r\nb".to_owned())],
        };
        let body = "{\"command\":\"x\"}";
        let (connection, event, _) = feed(&request(POST, body), &settings);
        assert_eq!(event, HttpEvent::Refused(HttpError::Unauthorized));
        let mut out = Vec::new();
        connection.print_error(&settings, HttpError::Unauthorized, 0, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 41\r\nContent-Type: application/json\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nStrict: yes\r\n\
             WWW-Authenticate: Basic realm=\"kea-dhcpv4-server\"\r\n\r\n\
             { \"result\": 401, \"text\": \"Unauthorized\" }"
        );
        assert_eq!(feed(&request(POST, "{bad"), &settings).1, HttpEvent::Refused(HttpError::BadRequest));
        for (header, accepted) in [
            ("Basic YWRtaW46c2VjcmV0", true),
            ("bAsIc   YWRtaW46c2VjcmV0  ", true),
            ("Basic Yjo=", true),
            ("Basic YWRtaW46c2VjcmV", false),
            ("Basic YWRtaW46c2VjcmV0AA", false),
            ("Bearer YWRtaW46c2VjcmV0", false),
            ("Basic\tYWRtaW46c2VjcmV0", false),
            ("YWRtaW46c2VjcmV0", false),
            ("Basic", false),
            ("", false),
        ] {
            let head = format!("{POST}Authorization: {header}\r\n");
            let (_, event, _) = feed(&request(&head, body), &settings);
            assert_eq!(matches!(event, HttpEvent::Command(Ok(_))), accepted, "{header}");
        }
    }

    #[test]
    fn the_work_of_comparing_credentials_tells_nothing_of_them() {
        let clients: Vec<[u8; 32]> = (1..=4).map(|client| [client; 32]).collect();
        let look_at = |clients: &[[u8; 32]], given: [u8; 32]| {
            let mut looks = 0;
            (is_among(clients, &given, || looks += 1), looks)
        };
        for count in 0..=clients.len() {
            let clients = &clients[..count];
            // Of nobody, of each of them, and of each but for one bit: the first one, the last one, any.
            assert_eq!(look_at(clients, [0; 32]), (false, 32 * count));
            for &client in clients {
                assert_eq!(look_at(clients, client), (true, 32 * count));
                for bit in 0..256 {
                    let mut given = client;
                    given[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(look_at(clients, given), (false, 32 * count), "bit {bit}");
                }
                // So much of it is right, from either end.
                for right in 0..32 {
                    let (mut head, mut tail) = ([0xff; 32], [0xff; 32]);
                    head[..right].copy_from_slice(&client[..right]);
                    tail[32 - right..].copy_from_slice(&client[32 - right..]);
                    assert_eq!(look_at(clients, head), (false, 32 * count), "{right} octets");
                    assert_eq!(look_at(clients, tail), (false, 32 * count), "{right} octets");
                }
            }
        }
    }

    #[test]
    fn half_requests_end_with_408_and_idle_connections_silently() {
        let mut idle = HttpConnection::new("", Mono(0));
        assert_eq!(idle.deadline(), Some(Mono(0).plus_ms(IDLE_TIMEOUT_MS)));
        assert_eq!(idle.timed_out(), None);
        assert!(idle.is_closed());
        let mut half = HttpConnection::new("", Mono(0));
        half.receive(b"POST", Mono(0).plus_ms(5));
        half.receive(b" /", Mono(0).plus_ms(9000));
        assert_eq!(half.deadline(), Some(Mono(0).plus_ms(5 + REQUEST_TIMEOUT_MS)));
        assert_eq!(half.timed_out(), Some(HttpError::RequestTimeout));
        assert!(half.is_closed());
    }

    #[test]
    fn a_client_that_waits_for_leave_to_send_its_body_gets_it() {
        let head = format!("{POST}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n");
        let (_, event, out) = feed(head.as_bytes(), &HttpSettings::default());
        assert_eq!((event, out), (HttpEvent::More, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0..200_usize, 0..5)) {
            let settings = HttpSettings::default();
            let octets = request(POST, "{\"command\":\"x\",\"arguments\":{\"a\":[1,2,3]}}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(octets.len())).collect();
            cuts.extend([0, octets.len()]);
            cuts.sort_unstable();
            let mut connection = HttpConnection::new("", Mono(0));
            let mut event = HttpEvent::More;
            for pair in cuts.windows(2) {
                connection.receive(&octets[pair[0]..pair[1]], Mono(0));
                if event == HttpEvent::More {
                    event = connection.poll(&settings, &mut Vec::new());
                }
            }
            prop_assert_eq!(name(event), "x");
        }

        #[test]
        fn no_octets_panic_the_connection(
            pieces in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                Just(b"POST / HTTP/1.1\r\n".to_vec()),
                Just(b"Content-Type: application/json\r\n".to_vec()),
                Just(b"Content-Length: 2\r\n".to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"{}".to_vec()),
            ], 0..12),
        ) {
            let settings = HttpSettings::default();
            let mut connection = HttpConnection::new("", Mono(0));
            for piece in pieces {
                connection.receive(&piece, Mono(0));
                let event = connection.poll(&settings, &mut Vec::new());
                if event != HttpEvent::More {
                    connection.answered(Mono(0));
                }
                let _ = connection.deadline();
            }
        }
    }
}
