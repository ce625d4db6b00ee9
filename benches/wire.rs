//! Frames of 342 octets: from the raw frame to a query, from a reply's options to the raw frame, and the checksum alone.

use std::hint::black_box;
use std::net::Ipv4Addr;

use aplomado::ids::InterfaceId;
use aplomado::wire::frame::{self, Addresses, Arrival, PAYLOAD_OFFSET};
use aplomado::wire::option::OptionTable;
use aplomado::wire::reply::{OptionList, Reply};
use aplomado::wire::{Query, codes, dhcp4};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const FRAME_BYTES: usize = 342;

const ADDRESSES: Addresses = Addresses {
    l2_src: [2, 0, 0, 0, 0, 1],
    l2_dst: frame::BROADCAST,
    src: Ipv4Addr::UNSPECIFIED,
    dst: Ipv4Addr::BROADCAST,
    src_port: codes::CLIENT_PORT,
    dst_port: codes::SERVER_PORT,
};

/// What a common client sends: its identifier, an address, its name, the list of what it wants, a vendor class.
fn discover() -> Vec<u8> {
    let mut bytes = vec![0; PAYLOAD_OFFSET + dhcp4::FIXED_BYTES];
    bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    bytes[PAYLOAD_OFFSET + 28..PAYLOAD_OFFSET + 34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes.extend(codes::MAGIC_COOKIE);
    bytes.extend([53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 1, 50, 4, 192, 0, 2, 15]);
    bytes.extend(*b"\x0c\x07laptop1\x37\x0a\x01\x79\x03\x06\x0f\x77\xfc\x5f\x2c\x2e\x39\x02\x05\xdc\xff");
    bytes.resize(FRAME_BYTES, 0);
    frame::emit(&mut bytes, &ADDRESSES, FRAME_BYTES - PAYLOAD_OFFSET).expect("the frame is large enough");
    bytes
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));

    let bytes = discover();
    let mut table = OptionTable::new();
    for (name, checksum_not_ready) in [("frame_to_query", false), ("frame_to_query/no_udp_checksum", true)] {
        let arrival = Arrival { tag_stripped: false, checksum_not_ready };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let bytes = black_box(&bytes[..]);
                let datagram = frame::parse(bytes, arrival).expect("good");
                let payload = datagram.payload(bytes);
                let head = dhcp4::parse(payload, &mut table).expect("good");
                let query = Query::new(&datagram, payload, &table, head, InterfaceId(0)).expect("good");
                black_box((query.message_type, query.client_id().map(<[u8]>::len), query.requested_address()))
            });
        });
    }
    group.bench_function("headers_only", |bencher| {
        let arrival = Arrival { tag_stripped: false, checksum_not_ready: true };
        bencher.iter(|| frame::parse(black_box(&bytes), arrival));
    });
    let payload = &bytes[PAYLOAD_OFFSET..];
    group.bench_function("options_only", |bencher| {
        bencher.iter(|| dhcp4::parse(black_box(payload), &mut table));
    });

    let mut out = vec![0; 1514];
    group.bench_function("reply_to_frame", |bencher| {
        bencher.iter(|| {
            let mut options = OptionList::new();
            for (code, data) in black_box(OFFER_OPTIONS) {
                options.push(code, data).expect("few");
            }
            let len = OFFER.emit(&options, &mut out[PAYLOAD_OFFSET..]).expect("room");
            frame::emit(&mut out, &ADDRESSES, len).expect("room")
        });
    });
    group.bench_function("headers_and_checksums", |bencher| {
        bencher.iter(|| frame::emit(black_box(&mut out), &ADDRESSES, FRAME_BYTES - PAYLOAD_OFFSET));
    });
    group.bench_function("checksum/308", |bencher| bencher.iter(|| frame::checksum(black_box(&bytes[34..]))));
    group.finish();
}

const OFFER: Reply<'_> = Reply {
    htype: 1,
    hlen: 6,
    hops: 0,
    xid: 0x0102_0304,
    flags: 0,
    ciaddr: Ipv4Addr::UNSPECIFIED,
    yiaddr: Ipv4Addr::new(192, 0, 2, 15),
    siaddr: Ipv4Addr::UNSPECIFIED,
    giaddr: Ipv4Addr::UNSPECIFIED,
    chaddr: &[2, 0, 0, 0, 0, 1],
    sname: &[],
    file: &[],
};

const OFFER_OPTIONS: [(u8, &[u8]); 10] = [
    (53, &[2]),
    (61, &[1, 2, 0, 0, 0, 0, 1]),
    (51, &[0, 0, 14, 16]),
    (1, &[255, 255, 255, 0]),
    (58, &[0, 0, 7, 8]),
    (59, &[0, 0, 12, 0]),
    (3, &[192, 0, 2, 1]),
    (6, &[192, 0, 2, 2, 192, 0, 2, 3]),
    (15, b"example.org"),
    (54, &[192, 0, 2, 1]),
];

criterion_group!(benches, frames);
criterion_main!(benches);
