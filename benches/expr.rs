//! Typical class tests on one query, each compiled once.

use std::hint::black_box;
use std::net::Ipv4Addr;

use aplomado::expr::{ClassSet, Family, Names, Scratch, Subject4, compile_bool, compile_string};
use aplomado::ids::{ClassId, InterfaceId};
use aplomado::wire::frame::{self, Addresses, Arrival, PAYLOAD_OFFSET};
use aplomado::wire::option::OptionTable;
use aplomado::wire::{Query, codes, dhcp4};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

struct Known;

impl Names for Known {
    fn option_code(&self, _name: &str) -> Option<u16> {
        None
    }

    fn class(&self, _name: &str) -> Option<ClassId> {
        Some(ClassId(1))
    }
}

const TESTS: [(&str, &str); 6] = [
    ("vendor_prefix", "substring(option[60].hex,0,6) == 'Aastra'"),
    ("members", "member('phones') and not member('HA_server1')"),
    ("relay", "relay4[1].hex == 'eth1' and pkt4.giaddr == 192.0.2.5"),
    ("mac_text", "hexstring(substring(pkt4.mac,0,3),':') == '02:00:00'"),
    ("match", "match('Aastra [0-9]+i', option[60].hex)"),
    ("vendor_info", "vendor[4491].option[2].exists or option[77].hex == 'iPXE'"),
];

fn tests(criterion: &mut Criterion) {
    let mut bytes = vec![0; PAYLOAD_OFFSET + dhcp4::FIXED_BYTES];
    bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 8].copy_from_slice(&[1, 1, 6, 1, 1, 2, 3, 4]);
    bytes[PAYLOAD_OFFSET + 24..PAYLOAD_OFFSET + 28].copy_from_slice(&[192, 0, 2, 5]);
    bytes[PAYLOAD_OFFSET + 28..PAYLOAD_OFFSET + 34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes.extend(codes::MAGIC_COOKIE);
    bytes.extend(*b"\x35\x01\x01\x3c\x0aAastra 55i\x52\x06\x01\x04eth1\xff");
    let addresses = Addresses {
        l2_src: [2, 0, 0, 0, 0, 1],
        l2_dst: frame::BROADCAST,
        src: Ipv4Addr::new(192, 0, 2, 5),
        dst: Ipv4Addr::BROADCAST,
        src_port: codes::SERVER_PORT,
        dst_port: codes::SERVER_PORT,
    };
    let len = bytes.len() - PAYLOAD_OFFSET;
    frame::emit(&mut bytes, &addresses, len).expect("the frame is large enough");
    let datagram = frame::parse(&bytes, Arrival::default()).expect("good");
    let mut table = OptionTable::new();
    let head = dhcp4::parse(datagram.payload(&bytes), &mut table).expect("good");
    let query = Query::new(&datagram, datagram.payload(&bytes), &table, head, InterfaceId(0)).expect("good");
    let mut classes = ClassSet::new();
    classes.insert(ClassId(1)).expect("room");
    let subject = Subject4 { query, interface: b"eth0", classes: &classes, interprets_private: false };
    let mut scratch = Scratch::new();

    let mut group = criterion.benchmark_group("expr");
    group.throughput(Throughput::Elements(1));
    for (name, text) in TESTS {
        let program = compile_bool(text, Family::V4, &Known).expect("a good test");
        group.bench_function(name, |bencher| {
            bencher.iter(|| program.eval_bool(black_box(&subject), &mut scratch));
        });
    }
    let text = "concat(hexstring(pkt4.mac,''),'.example.org')";
    let program = compile_string(text, Family::V4, &Known).expect("a good expression");
    group.bench_function("string/host_name_of_mac", |bencher| {
        bencher.iter(|| program.eval_string(black_box(&subject), &mut scratch).map(<[u8]>::len));
    });
    group.finish();
    criterion.bench_function("expr/compile", |bencher| {
        bencher.iter(|| compile_bool(black_box(TESTS[2].1), Family::V4, &Known).is_ok());
    });
}

criterion_group!(benches, tests);
criterion_main!(benches);
