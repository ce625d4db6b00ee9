//! `aplomado ctl`: sends one command to a running server and shows the answer.

mod status;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Map, Value, json};

use crate::control::frame_unix::{Framed, Framer};
use crate::control::json;
use crate::control::tls::{self, TlsFiles};

/// Exit code when the server could not be asked or did not answer in Kea's form.
pub const EXIT_NOT_ASKED: u8 = 10;
/// Longest answer taken, octets: a listing of some million leases.
const ANSWER_BYTES_MAX: usize = 4 << 30;

/// Sends one command to a running server and prints the answer.
///
/// The commands are those of Kea's control API: `list-commands` names them. `status-get` is shown for people (who serves what,
/// and why), everything else as JSON; `--json` gives JSON in any case.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    aplomado ctl status-get                                  who serves what, and why\n  \
    aplomado ctl --json status-get                           the same for programs\n  \
    aplomado ctl lease4-get '{\"ip-address\": \"192.0.2.10\"}'   one lease\n  \
    aplomado ctl ha-maintenance-start                        take over from the partner, which may then be stopped\n  \
    aplomado ctl --url https://192.0.2.1:8000/ --tls ca.pem me.pem me.key --service dhcp4 config-test '...'\n\n\
    Exit code: the answer's result (0 done, 1 error, 2 not supported, 3 nothing found, 4 conflict), 2 also for a wrong\n\
    command line, 10 when there is no answer.")]
pub struct CtlArgs {
    /// Path of the server's unix socket.
    #[arg(long, value_name = "PATH", default_value = "/run/kea/kea4-ctrl-socket", conflicts_with = "url")]
    pub socket: PathBuf,
    /// The server's HTTP address instead, such as http://127.0.0.1:8000/.
    #[arg(long)]
    pub url: Option<String>,
    /// Credentials for basic authentication.
    #[arg(long, value_name = "USER:PASSWORD", requires = "url")]
    pub user: Option<String>,
    /// Trusted certificates, own certificate and its key, for https.
    #[arg(long, num_args = 3, value_names = ["TRUST-ANCHOR", "CERT", "KEY"], requires = "url")]
    pub tls: Option<Vec<PathBuf>>,
    /// The service to be asked through a control agent.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
    /// Print the answer as JSON even where there is a form for people (status-get).
    #[arg(long)]
    pub json: bool,
    /// Whether the form for people has colours.
    #[arg(skip)]
    pub colours: bool,
    /// The command, such as status-get or lease4-get-all.
    pub command: String,
    /// Its arguments as JSON, such as '{"subnet-id": 1}'.
    #[arg(value_parser = json_argument)]
    pub arguments: Option<Value>,
}

/// Reads an argument of the command line; what is wrong is told by column, as the line is one line.
fn json_argument(text: &str) -> Result<Value, String> {
    json::parse(text.as_bytes())
        .map_err(|error| format!("no JSON: {} in column {}", error.text, error.column))
}

/// Why there is no answer.
#[derive(Debug)]
pub struct CtlError(String);

impl fmt::Display for CtlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for CtlError {}

/// Runs the command; the answer goes to `out`. Returns the exit code.
///
/// # Errors
/// When the server cannot be reached, or its answer is not understood.
pub fn run(args: &CtlArgs, out: &mut dyn Write) -> Result<u8, CtlError> {
    let answer = ask(args, &request(args)?)?;
    // Over HTTP one answer per service comes in a list.
    let answers = match &answer {
        Value::Array(answers) => answers.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut code = 0;
    for one in answers {
        let result = one.get("result").and_then(Value::as_u64);
        let result = result.ok_or_else(|| CtlError("the answer has no result".to_owned()))?;
        // The first that did not do well speaks for all; an HTTP status is an error.
        if code == 0 {
            code = u8::try_from(result).ok().filter(|result| *result <= 5).unwrap_or(1);
        }
        let mut text = Vec::new();
        match one.get("arguments") {
            Some(arguments) if args.command == "status-get" && result == 0 && !args.json => {
                let paint = if args.colours { status::Paint::Colours } else { status::Paint::Plain };
                let unsent = arguments.get("high-availability").and_then(|_| unsent(args));
                text.extend_from_slice(status::describe(arguments, unsent, paint).as_bytes());
            }
            _ => {
                json::print_pretty(one, 0, &mut text);
                text.push(b'\n');
            }
        }
        // Whoever reads may have seen enough.
        if out.write_all(&text).is_err() {
            break;
        }
    }
    Ok(code)
}

/// Asks by the channel that the command line names.
fn ask(args: &CtlArgs, request: &[u8]) -> Result<Value, CtlError> {
    let answer = match &args.url {
        Some(url) => ask_http(args, url, request)?,
        None => ask_unix(&args.socket, Duration::from_secs(args.timeout.max(1)), request)?,
    };
    json::parse(&answer).map_err(|error| CtlError(format!("the answer is no JSON: {error}")))
}

/// How many lease changes the partner was not sent, which `status-get` does not say: a heartbeat's answer does.
fn unsent(args: &CtlArgs) -> Option<u64> {
    let args = CtlArgs { command: "ha-heartbeat".to_owned(), arguments: None, ..args.clone() };
    let answer = ask(&args, &request(&args).ok()?).ok()?;
    let one = answer.get(0).unwrap_or(&answer);
    one.get("arguments")?.get("unsent-update-count")?.as_u64()
}

fn request(args: &CtlArgs) -> Result<Vec<u8>, CtlError> {
    let mut map = Map::new();
    map.insert("command".to_owned(), json!(args.command));
    if let Some(arguments) = &args.arguments {
        map.insert("arguments".to_owned(), arguments.clone());
    }
    if let Some(service) = &args.service {
        map.insert("service".to_owned(), json!([service]));
    }
    let mut request = Vec::new();
    json::print(&Value::Object(map), &mut request);
    Ok(request)
}

/// Asks over a unix socket.
pub(super) fn ask_unix(socket: &Path, timeout: Duration, request: &[u8]) -> Result<Vec<u8>, CtlError> {
    let failed = |error: io::Error| CtlError(format!("{}: {error}", socket.display()));
    let unreachable = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => ": does its configuration name this control-socket?",
            io::ErrorKind::ConnectionRefused => ": it does not run, or has another control-socket",
            io::ErrorKind::PermissionDenied => {
                ": the socket is open to the user that the server runs as, and to root"
            }
            _ => "",
        };
        CtlError(format!("no server answers at {}: {error}{why}", socket.display()))
    };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    let timeout = Some(timeout);
    stream.set_read_timeout(timeout).map_err(failed)?;
    stream.set_write_timeout(timeout).map_err(failed)?;
    stream.write_all(request).map_err(failed)?;
    let mut framer = Framer::new(ANSWER_BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).map_err(failed)? {
            0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            count => match framer.push(&buffer[..count]) {
                Framed::More => {}
                Framed::Complete(answer) => {
                    // Everything is there; the server closes anyway.
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(answer);
                }
                Framed::Refused(reason) => return Err(CtlError(format!("the answer: {}", reason.text))),
            },
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn ask_http(args: &CtlArgs, url: &str, request: &[u8]) -> Result<Vec<u8>, CtlError> {
    let failed = |error: io::Error| CtlError(format!("{url}: {error}"));
    let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (args.tls.is_some(), rest),
        _ => return Err(CtlError(format!("expected a URL that begins with http:// or https://, got {url}"))),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:8000") };
    let timeout = Duration::from_secs(args.timeout.max(1));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    let mut connected = None;
    for address in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let Some(stream) = connected else { return Err(failed(last)) };
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let mut stream: Box<dyn ReadWrite> =
        if is_tls { Box::new(secure(args, stream)?) } else { Box::new(stream) };
    let mut head = format!(
        "POST / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/json\r\n",
        request.len()
    );
    if let Some(user) = &args.user {
        head.push_str(&format!("Authorization: Basic {}\r\n", STANDARD.encode(user)));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(request)).map_err(failed)?;
    stream.flush().map_err(failed)?;
    read_response(stream.as_mut()).map_err(failed)
}

fn secure(args: &CtlArgs, stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>, CtlError> {
    let Some([trust_anchor, cert_file, key_file]) = args.tls.as_deref() else {
        return Err(CtlError("https needs --tls TRUST-ANCHOR CERT KEY".to_owned()));
    };
    let files = TlsFiles {
        trust_anchor: trust_anchor.clone(),
        cert_file: cert_file.clone(),
        key_file: key_file.clone(),
    };
    let config = tls::client_config(&files, false).map_err(|error| CtlError(error.to_string()))?;
    let failed = |error: &dyn fmt::Display| CtlError(format!("TLS: {error}"));
    let peer = stream.peer_addr().map_err(|error| failed(&error))?;
    let session = ClientConnection::new(Arc::clone(&config), ServerName::from(peer.ip()))
        .map_err(|error| failed(&error))?;
    Ok(StreamOwned::new(session, stream))
}

/// The body of a response whose end the server marks by its length or by closing.
fn read_response(stream: &mut dyn ReadWrite) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut head = None;
    loop {
        if head.is_none() {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            let parsed =
                response.parse(&octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let httparse::Status::Complete(head_bytes) = parsed {
                let length = response
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
                head = Some((head_bytes, length));
            }
        }
        if let Some((head_bytes, Some(length))) = head
            && octets.len() - head_bytes >= length
        {
            octets.truncate(head_bytes + length);
            return Ok(octets.split_off(head_bytes));
        }
        if octets.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                return match head {
                    Some((head_bytes, None)) => Ok(octets.split_off(head_bytes)),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            Ok(count) => octets.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
