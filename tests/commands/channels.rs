//! The channels: framing, HTTP, the agent and its forwarding, slow and broken clients, listings of any length.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aplomado::cli::ctl;
use aplomado::control::backend::Daemon;
use aplomado::control::event_loop::CLIENTS_PER_LISTENER_MAX;
use aplomado::control::http::{BasicAuth, HttpSettings};
use aplomado::control::json;
use aplomado::control::listener::{HttpListenerSpec, ListenerSpec, Role};
use aplomado::ha::command::request::is_listener_command;
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::lease::{Lease4, LeaseState};
use clap::Parser as _;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::server::{FakeServer, Running};

pub(crate) fn http(role: Role, settings: HttpSettings) -> ListenerSpec {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ListenerSpec::Http(HttpListenerSpec { address, role, settings, tls: None })
}

fn both(folder: &Path, role: Role) -> Vec<ListenerSpec> {
    let unix = ListenerSpec::Unix { daemon: Daemon::Dhcp4, path: folder.join("d4.sock") };
    vec![unix, http(role, HttpSettings::default())]
}

fn own() -> Role {
    Role::Server(Daemon::Dhcp4)
}

pub(crate) fn post(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Status line, headers, body of one response.
pub(crate) fn response(stream: &mut impl Read) -> (String, Vec<String>, String) {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    let status = line();
    let headers: Vec<String> =
        std::iter::repeat_with(&mut line).take_while(|line| !line.is_empty()).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    reader.read_exact(&mut body).expect("the body");
    (status, headers, String::from_utf8(body).expect("UTF-8"))
}

fn ask_http(running: &Running, request: &str) -> (String, String) {
    let mut stream = running.connect();
    stream.write_all(request.as_bytes()).expect("writes");
    let (status, _, body) = response(&mut stream);
    (status, body)
}

#[test]
fn vectors_of_the_http_channel() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let (status, body) = ask_http(&running, "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(
        (&*status, &*body),
        ("HTTP/1.1 400 Bad Request", "{ \"result\": 400, \"text\": \"Bad Request\" }")
    );
    assert_eq!(ask_http(&running, &post("{bad")).0, "HTTP/1.1 400 Bad Request");
    let (status, body) = ask_http(&running, &post("[1]"));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(
        body,
        "[ { \"result\": 1, \"text\": \"Error during command processing: invalid command: expected toplevel entry to be \
         a map, got list instead\" } ]"
    );
    for (service, text) in [
        (r#"["dhcp6"]"#, "unsupported service 'dhcp6', expected 'dhcp4'"),
        (r#""dhcp4""#, "service value must be a list"),
        ("[1]", "service name must be a string"),
        (r#"["dhcp4","dhcp4"]"#, "service value has more than one item"),
    ] {
        let request = format!(r#"{{"command":"server-tag-get","service":{service}}}"#);
        let (_, body) = ask_http(&running, &post(&request));
        assert_eq!(body, format!("[ {{ \"result\": 1, \"text\": \"{text}\" }} ]"));
    }
    for service in [r#"["dhcp4"]"#, r#"["dhcp4 "]"#, "[]", r#"[""]"#] {
        let request = format!(r#"{{"command":"server-tag-get","service":{service}}}"#);
        let (_, body) = ask_http(&running, &post(&request));
        assert_eq!(body, "[ { \"arguments\": { \"server-tag\": \"\" }, \"result\": 0 } ]", "{service}");
    }
}

#[test]
fn a_connection_serves_many_requests_and_those_sent_ahead_in_their_order() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let mut stream = running.connect();
    let names = ["server-tag-get", "nope", "config-backend-pull"];
    let ahead: String = names.iter().map(|name| post(&format!("{{\"command\":\"{name}\"}}"))).collect();
    stream.write_all(ahead.as_bytes()).expect("writes");
    let results: Vec<Value> = names
        .iter()
        .map(|_| json::parse(response(&mut stream).2.as_bytes()).expect("JSON")[0]["result"].clone())
        .collect();
    assert_eq!(results, [0, 2, 3]);
    // A bad body leaves the connection open, a bad head does not; the client sees the answer in both cases.
    stream.write_all(post("{").as_bytes()).expect("writes");
    assert_eq!(response(&mut stream).0, "HTTP/1.1 400 Bad Request");
    stream.write_all(post("{\"command\":\"x\"}").as_bytes()).expect("writes");
    assert_eq!(response(&mut stream).0, "HTTP/1.1 200 OK");
    let bad = format!("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    stream.write_all(bad.as_bytes()).expect("writes");
    assert_eq!(response(&mut stream).0, "HTTP/1.1 400 Bad Request");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn a_client_that_closes_its_side_first_is_still_answered() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let mut stream = running.connect();
    stream.write_all(post("{\"command\":\"server-tag-get\"}").as_bytes()).expect("writes");
    stream.shutdown(std::net::Shutdown::Write).expect("closes");
    assert_eq!(response(&mut stream).0, "HTTP/1.1 200 OK");
    let mut stream = UnixStream::connect(running.socket()).expect("connects");
    stream.write_all(b"{\"command\":\"server-tag-get\"}").expect("writes");
    stream.shutdown(std::net::Shutdown::Write).expect("closes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "{ \"arguments\": { \"server-tag\": \"\" }, \"result\": 0 }");
}

#[test]
fn the_dedicated_listener_accepts_what_ha_needs_and_ignores_service() {
    let accepts: fn(&str) -> bool = |command| command == "bulk" || is_listener_command(command);
    let dedicated = move || Role::Dedicated { daemon: Daemon::Dhcp4, accepts: Some(accepts) };
    let running = Running::start(|_| {}, move |folder| both(folder, dedicated()));
    let ask =
        |name: &str| ask_http(&running, &post(&format!(r#"{{"command":"{name}","service":["dhcp6"]}}"#))).0;
    assert_eq!(ask("list-commands"), "HTTP/1.1 200 OK");
    let (_, body) = ask_http(&running, &post(r#"{"command":"bulk"}"#));
    assert_eq!(body, "[ { \"result\": 0, \"text\": \"bulk from elsewhere\" } ]");
    let (_, body) = ask_http(&running, &post(r#"{"command":"ha-heartbeat"}"#));
    assert!(body.contains("'ha-heartbeat' command not supported."), "HA is not configured: {body}");
    assert_eq!(ask("config-get"), "HTTP/1.1 403 Forbidden");
    let (_, body) = ask_http(&running, &post(r#"{"command":"shutdown"}"#));
    assert_eq!(body, "{ \"result\": 403, \"text\": \"Forbidden\" }");
}

#[test]
fn credentials_are_asked_for_where_they_are_configured() {
    let settings = || HttpSettings {
        auth: Some(BasicAuth::new("kea-dhcpv4-server", [("u", "p")])),
        headers: Vec::new(),
    };
    let running = Running::start(|_| {}, move |_| vec![http(own(), settings())]);
    let (status, headers, _) = {
        let mut stream = running.connect();
        stream.write_all(post("{\"command\":\"x\"}").as_bytes()).expect("writes");
        response(&mut stream)
    };
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
    assert!(headers.contains(&"WWW-Authenticate: Basic realm=\"kea-dhcpv4-server\"".to_owned()));
    let url = format!("http://{}", running.tcp[0]);
    let answer = |user: &str| ctl(&["--url", &url, "--user", user, "server-tag-get"]);
    assert_eq!(answer("u:p").0, 0);
    assert_eq!(answer("u:q").0, 1);
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    ctl: ctl::CtlArgs,
}

/// Exit code and output of `aplomado ctl`.
fn ctl(args: &[&str]) -> (u8, String) {
    let cli = Cli::try_parse_from([&["ctl"], args].concat()).expect("good arguments");
    let mut out = Vec::new();
    let code = ctl::run(&cli.ctl, &mut out).unwrap_or_else(|error| {
        out = error.to_string().into_bytes();
        ctl::EXIT_NOT_ASKED
    });
    (code, String::from_utf8(out).expect("UTF-8"))
}

#[test]
fn ctl_asks_by_either_channel_and_its_exit_code_is_the_result() {
    let running = Running::start(|_| {}, |folder| both(folder, Role::Agent { sockets: Vec::new() }));
    let socket = running.socket();
    let socket = socket.to_str().expect("UTF-8");
    let url = format!("http://{}/", running.tcp[0]);
    assert_eq!(
        ctl(&["--socket", socket, "dhcp-enable", r#"{"origin":"user"}"#]),
        (0, "{\n  \"result\": 0,\n  \"text\": \"DHCP service successfully enabled\"\n}\n".to_owned())
    );
    assert_eq!(ctl(&["--socket", socket, "nope"]).0, 2);
    assert_eq!(ctl(&["--socket", socket, "lease4-get-all"]).0, 3);
    assert_eq!(ctl(&["--url", &url, "--service", "dhcp4", "lease4-get-all"]).0, 3);
    let (code, text) = ctl(&["--socket", socket, "status-get"]);
    assert_eq!(code, 0);
    assert!(text.starts_with("service   on\nsockets   ready\n"), "{text}");
    assert!(ctl(&["--socket", socket, "--json", "status-get"]).1.starts_with("{\n  \"arguments\""));
    let (code, text) = ctl(&["--socket", "/nonexistent/s", "x"]);
    assert_eq!(code, ctl::EXIT_NOT_ASKED);
    assert!(text.starts_with("no server answers at /nonexistent/s: No such file"), "{text}");
    let wrong = Cli::try_parse_from(["ctl", "x", "{bad"]).err().expect("no JSON").to_string();
    assert!(wrong.contains("no JSON: String expected in column 2"), "{wrong}");
}

/// A daemon of another process: answers each connection with the next of `answers`, then is gone.
fn foreign(path: &Path, answers: Vec<&'static str>) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).expect("binds");
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).expect("a command");
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            stream.write_all(answer.as_bytes()).expect("writes");
        }
        heard
    })
}

#[test]
fn the_agent_answers_for_itself_for_us_and_for_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (six, gone) = (folder.path().join("d6.sock"), folder.path().join("none.sock"));
    let heard = foreign(&six, vec![r#"{ "result": 0, "text": "six" }"#, "nonsense", ""]);
    let sockets = vec![("dhcp6".to_owned(), six), ("d2".to_owned(), gone)];
    let running = Running::start(|_| {}, move |folder| both(folder, Role::Agent { sockets }));
    let ask = |request: &str| ask_http(&running, &post(request)).1;

    assert_eq!(
        ask(r#"{"command":"config-hash-get","service":[]}"#).split('"').nth(1),
        Some("arguments"),
        "the agent has a configuration of its own"
    );
    let names = json::parse(ask(r#"{"command":"list-commands"}"#).as_bytes()).expect("JSON");
    assert_eq!(
        names[0]["arguments"],
        json!([
            "build-report",
            "config-get",
            "config-hash-get",
            "config-reload",
            "config-set",
            "config-test",
            "config-write",
            "list-commands",
            "shutdown",
            "status-get",
            "version-get"
        ])
    );
    let without_service = ask(r#"{"command":"lease4-get-all"}"#);
    assert!(
        without_service
            .starts_with("[ { \"result\": 2, \"text\": \"'lease4-get-all' command not supported. The")
    );
    assert_eq!(
        ask(r#"{"command":"x","service":"dhcp4"}"#),
        "[ { \"result\": 1, \"text\": \"service value must be a list\" } ]"
    );

    let request = r#"{ "command": "lease4-get-all", "service": [ "dhcp6", "dhcp4", "d2", "radius" ] }"#;
    let answers = json::parse(ask(request).as_bytes()).expect("JSON");
    assert_eq!(answers[0], json!({ "result": 0, "text": "six" }));
    assert_eq!(answers[1]["text"], "0 IPv4 lease(s) found.");
    let offline = answers[2]["text"].as_str().expect("a text");
    assert!(offline.starts_with("unable to forward command to the d2 service: "), "{offline}");
    assert!(offline.ends_with(". The server is likely to be offline"), "{offline}");
    assert_eq!(answers[3]["text"], "forwarding socket is not configured for the server type radius");

    let nonsense = ask(r#"{"command":"x","service":["dhcp6"]}"#);
    assert!(nonsense.contains("unable to parse server's answer to the forwarded message"), "{nonsense}");
    let closed = ask(r#"{"command":"x","service":["dhcp6"]}"#);
    assert!(closed.contains("unable to forward command to the dhcp6 service: it closed"), "{closed}");
    assert_eq!(heard.join().expect("ends")[0], request, "the original object is forwarded as it came");
}

#[test]
fn a_command_that_waits_holds_up_nobody_else() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    running.stalled.store(true, Ordering::SeqCst);
    let mut waiting = running.connect();
    let put =
        r#"{"command":"lease4-add","arguments":{"ip-address":"10.0.0.1","hw-address":"02:00:00:00:00:01"}}"#;
    waiting.write_all(post(put).as_bytes()).expect("writes");
    for _ in 0..10 {
        assert_eq!(running.ask(r#"{"command":"server-tag-get"}"#)["result"], 0);
    }
    waiting.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
    assert!(waiting.read(&mut [0]).is_err(), "not answered before it is done");
    waiting.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
    running.stalled.store(false, Ordering::SeqCst);
    running.wake();
    let (_, _, body) = response(&mut waiting);
    assert!(body.contains("Lease for address 10.0.0.1, subnet-id 1 added."), "{body}");
}

#[test]
fn half_and_silent_clients_are_timed_out() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let mut half = UnixStream::connect(running.socket()).expect("connects");
    half.write_all(b"{\"comm").expect("writes");
    let mut half_http = running.connect();
    half_http.write_all(b"POST / HT").expect("writes");
    let mut silent_http = running.connect();
    // Answers on each channel show that what was sent before on it has been read: connections are accepted in order, and
    // the second answer comes a turn of the loop after the first.
    running.ask(r#"{"command":"server-tag-get"}"#);
    running.ask(r#"{"command":"server-tag-get"}"#);
    let mut later_http = running.connect();
    for _ in 0..2 {
        later_http.write_all(post(r#"{"command":"server-tag-get"}"#).as_bytes()).expect("writes");
        assert_eq!(response(&mut later_http).0, "HTTP/1.1 200 OK");
    }
    running.clock.advance_ms(9_999);
    running.ask(r#"{"command":"server-tag-get"}"#);
    running.clock.advance_ms(1);
    running.wake();
    let mut text = String::new();
    half.read_to_string(&mut text).expect("an answer");
    assert_eq!(
        text,
        "{ \"result\": 1, \"text\": \"Connection over control channel timed out, discarded partial command of 6 bytes\" }"
    );
    assert_eq!(response(&mut half_http).0, "HTTP/1.1 408 Request Timeout");
    running.clock.advance_ms(20_000);
    running.wake();
    assert_eq!(silent_http.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn garbage_gets_an_error_and_the_server_goes_on() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let deep = "[".repeat(200_000);
    let garbage = [
        "\u{0}\u{1}\u{2}",
        "}",
        "{}",
        "{{{{",
        &deep,
        "[]",
        "{\"command\":1e999}",
        "{\"command\":\"lease4-get-page\",\"arguments\":{\"from\":\"start\",\"limit\":1e300}}",
        "{\"command\":\"lease4-get-page\",\"arguments\":{\"from\":\"start\",\"limit\":99999999999999999999}}",
        "{\"command\":\"dhcp-disable\",\"arguments\":{\"max-period\":99999999999999999999999}}",
        "{\"command\":\"lease4-add\",\"arguments\":{\"ip-address\":\"10.0.0.1\",\"hw-address\":\"\",\"expire\":-9223372036854775808}}",
    ];
    for text in garbage {
        let mut stream = UnixStream::connect(running.socket()).expect("connects");
        // It may close before all of it is written.
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if !answer.is_empty() {
            assert_eq!(json::parse(&answer).expect("JSON")["result"], 1, "{}", &text[..text.len().min(60)]);
        }
        let mut stream = running.connect();
        let _ = stream.write_all(text.as_bytes());
        let (status, body) = ask_http(&running, &post(text));
        assert!(status.ends_with("400 Bad Request") || body.contains("\"result\": 1"), "{status} {body}");
    }
    let huge = r#"{"command":"dhcp-disable","arguments":{"max-period":9223372036854775807}}"#;
    assert_eq!(running.ask(huge)["result"], 0);
    assert_eq!(running.ask(r#"{"command":"server-tag-get"}"#)["result"], 0);
}

#[test]
fn a_full_listener_makes_room_by_closing_idle_clients() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let mut idle: Vec<_> = (0..CLIENTS_PER_LISTENER_MAX).map(|_| running.connect()).collect();
    let mut last = running.connect();
    last.write_all(post("{\"command\":\"server-tag-get\"}").as_bytes()).expect("writes");
    assert_eq!(response(&mut last).0, "HTTP/1.1 200 OK");
    assert_eq!(idle[0].read(&mut [0]).expect("closed"), 0);
    assert_eq!(running.ask(r#"{"command":"server-tag-get"}"#)["result"], 0);
}

/// A connection from another address of the loopback network.
fn connect_from(running: &Running, last: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).expect("an address");
    socket.connect(&running.tcp[0].into()).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    socket.into()
}

/// Whether the server answers on this connection.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let mut octets = [0; 4096];
    let mut more = stream.write_all(post("{\"command\":\"server-tag-get\"}").as_bytes()).is_ok();
    while more && !answer.ends_with(b" ]") {
        let count = stream.read(&mut octets).unwrap_or(0);
        answer.extend_from_slice(&octets[..count]);
        more = count > 0;
    }
    answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b" ]")
}

#[test]
fn half_requests_keep_nobody_out() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let half = |last| {
        let mut stream = connect_from(&running, last);
        let _ = stream.write_all(b"POST / HTTP/1.1\r\n");
        stream
    };
    let _slow: Vec<_> = (0..2 * CLIENTS_PER_LISTENER_MAX).map(|_| half(2)).collect();
    assert!(is_served(&mut connect_from(&running, 3)), "a client of another address");
    let _more: Vec<_> = (0..CLIENTS_PER_LISTENER_MAX).map(|_| half(2)).collect();
    assert!(is_served(&mut connect_from(&running, 2)), "a client of the same address");
}

#[test]
fn whoever_floods_a_listener_loses_connections_of_its_own_only() {
    let running = Running::start(|_| {}, |folder| both(folder, own()));
    let mut partner = connect_from(&running, 3);
    assert!(is_served(&mut partner));
    let mut flood: Vec<_> = (0..2 * CLIENTS_PER_LISTENER_MAX).map(|_| connect_from(&running, 2)).collect();
    assert!(is_served(flood.last_mut().expect("one")), "the last of the flood");
    assert_eq!(flood[0].read(&mut [0]).expect("closed"), 0);
    assert!(is_served(&mut partner), "the oldest connection is the only one of its address");
}

const MANY: u32 = 200_000;

fn fill(server: &mut FakeServer) {
    for number in 1..=MANY {
        let address = Ipv4Addr::from(0x0a00_0000 + number);
        let [_, a, b, c] = address.octets();
        let lease = Lease4 {
            address,
            hw_addr: HwAddr::ethernet([2, 0, 0, a, b, c]),
            client_id: &[1, 2, 0, 0, a, b, c],
            cltt: 1_795_415_330,
            valid_lft: 3600,
            subnet_id: SubnetId(1),
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: b"host",
            user_context: b"",
        };
        server.leases.insert(address, lease.to_owned());
    }
}

#[test]
fn a_long_listing_comes_whole_by_either_channel_while_others_are_served() {
    let running = Running::start(fill, |folder| both(folder, own()));
    let request = r#"{"command":"lease4-get-all"}"#;
    let mut slow = UnixStream::connect(running.socket()).expect("connects");
    slow.write_all(request.as_bytes()).expect("writes");
    let mut slow_http = running.connect();
    slow_http.write_all(post(request).as_bytes()).expect("writes");
    for _ in 0..20 {
        assert_eq!(running.ask(r#"{"command":"server-tag-get"}"#)["result"], 0);
    }
    let mut text = Vec::new();
    slow.read_to_end(&mut text).expect("everything");
    let unix = json::parse(&text).expect("JSON");
    let http = json::parse(response(&mut slow_http).2.as_bytes()).expect("JSON");
    for answer in [&unix, &http[0]] {
        let leases = answer["arguments"]["leases"].as_array().expect("leases");
        assert_eq!(leases.len(), usize::try_from(MANY).expect("fits"));
        assert_eq!(answer["text"], format!("{MANY} IPv4 lease(s) found."));
        assert_eq!(leases[leases.len() - 1]["ip-address"], Ipv4Addr::from(0x0a00_0000 + MANY).to_string());
    }
    // The connection is good for the next request: the length that was announced was the length that was sent.
    slow_http.write_all(post(r#"{"command":"nope"}"#).as_bytes()).expect("writes");
    assert!(response(&mut slow_http).2.contains("\"result\": 2"));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_listing_is_forgotten() {
    let running = Running::start(fill, |folder| both(folder, own()));
    for _ in 0..5 {
        let mut stream = UnixStream::connect(running.socket()).expect("connects");
        stream.write_all(br#"{"command":"lease4-get-all"}"#).expect("writes");
        stream.read_exact(&mut [0; 10_000]).expect("the beginning");
    }
    assert_eq!(running.ask(r#"{"command":"server-tag-get"}"#)["result"], 0);
}

/// Reads `piece` octets in every half minute; what came before the server closed.
fn read_slowly(running: &Running, mut stream: impl Read, piece: u64) -> Vec<u8> {
    let mut answer = Vec::new();
    loop {
        if stream.by_ref().take(piece).read_to_end(&mut answer).is_ok_and(|count| count == 0) {
            return answer;
        }
        // The server sees that there is room before it looks at its clock.
        running.ask(r#"{"command":"server-tag-get"}"#);
        running.clock.advance_ms(30_000);
        running.ask(r#"{"command":"server-tag-get"}"#);
    }
}

#[test]
fn a_client_that_reads_its_answer_slowly_is_given_up() {
    let running = Running::start(fill, |folder| both(folder, own()));
    let begin = || {
        let mut stream = UnixStream::connect(running.socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream.write_all(br#"{"command":"lease4-get-all"}"#).expect("writes");
        stream
    };
    let slow = read_slowly(&running, begin(), 4096);
    assert!(json::parse(&slow).is_err(), "{} octets and the end", slow.len());
    // What the kernel holds comes all the same; the rest of the listing, which is forty times that, does not.
    assert!(slow.len() < 4 << 20, "{} octets", slow.len());
    let steady = read_slowly(&running, begin(), 2 << 20);
    let steady = json::parse(&steady).expect("the whole answer");
    assert_eq!(steady["text"], format!("{MANY} IPv4 lease(s) found."));
}
