//! Listings of many leases: clients are served and other commands answered meanwhile, and memory does not grow with their number, whether
//! they are read or not. The real program, in a network namespace; it needs root and `ip`, and says `SKIPPED` where these are missing.

mod lab;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lab::load::Load;
use lab::{CONTROL, Door, Lab, Program, Setup};
use serde_json::{Value, json};

/// Some 40 MB as a listing.
const LEASES: u32 = 200_000;
const FIRST: u32 = 0x0a50_0001;
/// Listings that are begun and not read.
const UNREAD: usize = 100;
/// What all of them together may take: gathered as they come, they would take ten times that.
const GROWTH_MAX: u64 = 160 << 20;
/// Longest wait for a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
const GET_ALL: &str = "{ \"command\": \"lease4-get-all\" }";

fn write_leases(path: &Path) {
    let header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n";
    let mut text = header.to_owned();
    for number in 0..LEASES {
        let [a, b, c, d] = number.to_be_bytes();
        let address = Ipv4Addr::from(FIRST + number);
        let _ = writeln!(
            text,
            "{address},02:09:{a:02x}:{b:02x}:{c:02x}:{d:02x},,86400,4000000000,2,0,0,host-{number},0,"
        );
    }
    std::fs::write(path, text).expect("room on the disk");
}

/// Kibibytes that the kernel tells of a process, in octets.
fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    let kib: u64 = line.trim().split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

fn lab(name: &'static str) -> Option<Lab> {
    let mut setup = Setup::alone(name, &[Program::Aplomado]);
    setup.door = Door::Agent;
    setup.subnets = Some(json!([
        { "id": 1, "subnet": "10.77.0.0/16", "pools": [{ "pool": "10.77.10.0 - 10.77.250.255" }] },
        { "id": 2, "subnet": "10.80.0.0/12", "pools": [{ "pool": "10.80.0.1 - 10.95.255.254" }] },
    ]));
    let mut lab = Lab::new(setup)?;
    write_leases(&lab.path(0, "csv"));
    lab.start_all();
    lab::until("answer", || lab.command(0, "version-get", &Value::Null));
    Some(lab)
}

fn begin(lab: &Lab, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(lab.path(0, "sock")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

/// The same by HTTP, to the control agent.
fn begin_http() -> TcpStream {
    let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[0], 8005)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let body = "{ \"command\": \"lease4-get-all\", \"service\": [ \"dhcp4\" ] }";
    let head = "POST / HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    stream
}

/// Reads an answer; how many addresses of the big subnet are in it, and whether it is whole.
fn count_listed(mut stream: impl std::io::Read) -> (usize, bool) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end comes in time");
    let answer = String::from_utf8(answer).expect("UTF-8");
    (answer.matches("\"ip-address\": \"10.8").count(), answer.contains("IPv4 lease(s) found."))
}

#[test]
fn clients_are_served_and_commands_answered_while_leases_are_listed() {
    let Some(lab) = lab("listed") else { return };
    let load = Load::start(1, 4, Duration::ZERO);
    lab::until("first acknowledgement", || (load.ledger().acknowledged > 0).then_some(()));
    let by_hostname =
        json!({ "command": "lease4-get-by-hostname", "arguments": { "hostname": "nobody" } }).to_string();
    let page = json!({ "command": "lease4-get-page", "arguments": { "from": "start", "limit": 1_000_000 } })
        .to_string();
    for request in [GET_ALL, &page, &by_hostname] {
        let before = load.ledger().acknowledged;
        // Two at once; one of them by the other channel, which needs the length first.
        let one = begin(&lab, request);
        let other = begin_http();
        let mut beats = 0;
        let (one, other) = std::thread::scope(|scope| {
            let reading = [scope.spawn(|| count_listed(one)), scope.spawn(|| count_listed(other))];
            while !reading.iter().all(|reader| reader.is_finished()) {
                assert!(lab.command(0, "version-get", &Value::Null).is_some());
                beats += 1;
            }
            let [one, other] = reading.map(|reader| reader.join().expect("it reads"));
            (one, other)
        });
        let served = load.ledger().acknowledged - before;
        let all = usize::try_from(LEASES).expect("fits");
        assert_eq!(one, (if request == by_hostname { 0 } else { all }, true), "{request}");
        assert_eq!(other, (all, true));
        assert!(
            beats > 1 && served > 10,
            "{request}: {beats} other commands answered, {served} clients served"
        );
    }
    let before = load.ledger().acknowledged;
    let wiping =
        begin(&lab, &json!({ "command": "lease4-wipe", "arguments": { "subnet-id": 2 } }).to_string());
    let wiped = std::thread::scope(|scope| {
        let reading = scope.spawn(|| std::io::read_to_string(wiping));
        while !reading.is_finished() {
            assert!(lab.command(0, "version-get", &Value::Null).is_some());
        }
        reading.join().expect("it reads")
    });
    let text = wiped.expect("an answer");
    assert!(text.contains(&format!("Deleted {LEASES} IPv4 lease(s)")), "{text}");
    assert!(load.ledger().acknowledged > before, "a client is served while leases are wiped");
    assert_eq!(load.ledger().wrong, Vec::<String>::new());
}

#[test]
fn listings_that_nobody_reads_take_little_memory() {
    let Some(lab) = lab("unread") else { return };
    let process = lab.process(0);
    // One that is read first: what the allocator keeps after it is no growth.
    assert!(count_listed(begin(&lab, GET_ALL)).1);
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").expect("the peak begins anew");
    let before = memory(process, "VmRSS:");
    let mut unread: Vec<UnixStream> = (0..UNREAD).map(|_| begin(&lab, GET_ALL)).collect();
    let unread_http: Vec<TcpStream> = (0..UNREAD).map(|_| begin_http()).collect();
    // Each goes on as far as it does without being read: others come and go several times meanwhile.
    for _ in 0..3 {
        assert_eq!(count_listed(begin(&lab, GET_ALL)), (usize::try_from(LEASES).expect("fits"), true));
        assert!(count_listed(begin_http()).1);
    }
    let growth = memory(process, "VmHWM:").saturating_sub(before);
    assert!(
        growth < GROWTH_MAX,
        "{} MiB for {UNREAD} listings by each channel that nobody reads",
        growth >> 20
    );
    // They are as good as others when they are read after all.
    for stream in unread.drain(..3) {
        assert!(count_listed(stream).1);
    }
    drop((unread, unread_http));
    assert_eq!(count_listed(begin(&lab, GET_ALL)).0, usize::try_from(LEASES).expect("fits"));
}
