//! What is fuzzed: one function per kind of input that strangers write. Each must come back without a panic, whatever it gets,
//! and what it accepts must survive being written and read again.
//!
//! The same functions are run by the fuzzer (`tests/fuzz/src/main.rs`) and, over the kept corpora, by `tests/corpus.rs`.

use std::net::Ipv4Addr;

use aplomado::config::json::compact;
use aplomado::config::load::{Source, load};
use aplomado::config::option::{self, Definitions};
use aplomado::control::command::Command;
use aplomado::control::frame_unix::{Framed, Framer};
use aplomado::control::http::{HttpConnection, HttpSettings};
use aplomado::expr::{self, ClassSet, Content, Family, Names, Scratch, Subject4};
use aplomado::ids::{ClassId, InterfaceId};
use aplomado::journal::{Change, RowReader, Schema, V4};
use aplomado::time::Now;
use aplomado::wire::Query;
use aplomado::wire::dhcp4::{self, Strictness};
use aplomado::wire::frame::{self, Arrival, Datagram};
use aplomado::wire::option::OptionTable;

/// What is done with one input.
pub(crate) type Target = fn(&[u8]);

/// The targets by name.
pub(crate) const TARGETS: [(&str, Target); 5] = [
    ("wire", wire),
    ("expressions", expressions),
    ("configuration", configuration),
    ("leasefile", leasefile),
    ("commands", commands),
];

/// A frame from the wire, and the same octets as the payload alone.
fn wire(octets: &[u8]) {
    let mut options = OptionTable::new();
    for arrival in [Arrival::default(), Arrival { checksum_not_ready: true, ..Arrival::default() }] {
        if let Ok(datagram) = frame::parse(octets, arrival) {
            message(&datagram, datagram.payload(octets), &mut options);
        }
    }
    message(&Datagram::EMPTY, octets, &mut options);
}

fn message(datagram: &Datagram, payload: &[u8], options: &mut OptionTable) {
    for lenient in [false, true] {
        let Ok(head) = dhcp4::parse_with(payload, options, Strictness { lenient, ..Strictness::default() })
        else {
            continue;
        };
        let query = Query::new(datagram, payload, options, head, InterfaceId(0)).expect("parsed above");
        let _ = (query.client_id(), query.duid(), query.hw_addr(), query.bucket_key().is_some());
        let _ =
            (query.requested_address(), query.server_id(), query.requested_lease_time(), query.encoded_len());
        let relay = query.relay_agent();
        let _ = (relay.sub_options().count(), relay.link_selection(), relay.has_relay_port());
        if let Some(fqdn) = query.fqdn() {
            let mut text = [0; 512];
            let _ = fqdn.text(&mut text);
        }
    }
}

struct NoNames;

impl Names for NoNames {
    fn option_code(&self, name: &str) -> Option<u16> {
        (name == "host-name").then_some(12)
    }

    fn class(&self, name: &str) -> Option<ClassId> {
        (name == "ALL").then_some(ClassId(0))
    }

    fn content(&self, family: Family, path: &[u16]) -> Content {
        definitions(family).content(path)
    }

    fn sub_options_at(&self, family: Family, path: &[u16]) -> Option<u16> {
        definitions(family).sub_options_at(path)
    }
}

fn definitions(family: Family) -> Definitions {
    Definitions::new(match family {
        Family::V4 => option::Family::V4,
        Family::V6 => option::Family::V6,
    })
}

/// The first line is an expression, the rest the packet that it is asked about.
fn expressions(octets: &[u8]) {
    let end = octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len());
    let (text, packet) = octets.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let packet = packet.get(1..).filter(|packet| packet.len() >= 240).unwrap_or(DISCOVER_LIKE);
    let mut options = OptionTable::new();
    let Ok(head) = dhcp4::parse(packet, &mut options) else { return };
    let datagram = Datagram { src: Ipv4Addr::new(192, 0, 2, 5), ..Datagram::EMPTY };
    let Ok(query) = Query::new(&datagram, packet, &options, head, InterfaceId(0)) else { return };
    let classes = ClassSet::new();
    let subject = Subject4 { query, interface: b"eth0", classes: &classes, interprets_private: true };
    let mut scratch = Scratch::new();
    if let Ok(program) = expr::compile_bool(text, Family::V4, &NoNames) {
        let _ = program.eval_bool(&subject, &mut scratch);
    }
    if let Ok(program) = expr::compile_string(text, Family::V4, &NoNames) {
        let _ = program.eval_string(&subject, &mut scratch);
    }
    let _ = expr::compile_bool(text, Family::V6, &NoNames);
}

/// The shortest message that parses: fixed part, cookie, type, END.
const DISCOVER_LIKE: &[u8] = &{
    let mut message = [0; 244];
    message[0] = 1;
    message[1] = 1;
    message[2] = 6;
    message[236] = 0x63;
    message[237] = 0x82;
    message[238] = 0x53;
    message[239] = 0x63;
    message[240] = 53;
    message[241] = 1;
    message[242] = 1;
    message[243] = 255;
    message
};

/// A configuration file.
fn configuration(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let mut include = |_: &str| Err("nothing is included here".to_owned());
    let loaded = load(&[Source { name: "fuzz", text: &text }], &mut include, None);
    for finding in &loaded.findings {
        let _ = (finding.to_string(), finding.kea_text());
    }
    if let Some(tree) = &loaded.dhcp4 {
        let definitions = aplomado::config::render::definitions(tree);
        let shown = compact(&aplomado::config::render::dhcp4(tree, &definitions));
        let again = load(&[Source { name: "again", text: &shown }], &mut include, None);
        assert!(again.dhcp4.is_some(), "what is shown loads again: {shown}\n{:?}", again.first_error());
    }
}

/// A lease file: header, then rows. A row that is taken is written and read as the same lease.
fn leasefile(octets: &[u8]) {
    let mut lines = octets.split(|octet| *octet == b'\n');
    let header = lines.next().unwrap_or(&[]);
    let schema = Schema::from_header::<V4>(header).unwrap_or_else(|_| Schema::current::<V4>());
    let mut reader = RowReader::<V4>::new(schema);
    let mut again = RowReader::<V4>::new(Schema::current::<V4>());
    for line in lines {
        let Ok(lease) = reader.read(line) else { continue };
        let mut row = Vec::new();
        Change::Put(lease).write_row(&mut row);
        assert_eq!(row.pop(), Some(b'\n'), "a row ends with its line");
        assert!(!row.contains(&b'\n') && !row.contains(&0), "no octet breaks a row");
        assert_eq!(again.read(&row), Ok(lease), "a row reads back as its lease");
    }
}

/// What comes over the unix socket or HTTP.
fn commands(octets: &[u8]) {
    let mut framer = Framer::default();
    for piece in octets.chunks(7) {
        match framer.push(piece) {
            Framed::More => {}
            Framed::Complete(text) => {
                let _ = Command::parse(text, "fuzz");
                break;
            }
            Framed::Refused(_) => break,
        }
    }
    let _ = Command::parse(octets.to_vec(), "fuzz");
    let mut http = HttpConnection::new("192.0.2.1", Now::default().mono);
    let (settings, mut out) = (HttpSettings::default(), Vec::new());
    http.receive(octets, Now::default().mono);
    let _ = http.poll(&settings, &mut out);
}
