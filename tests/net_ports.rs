//! Ports on real interfaces: a veth pair between two network namespaces, made for each test and removed after it.
//!
//! ```text
//!   namespace nt-PID-NAME-s          namespace nt-PID-NAME-c
//!   srv0 192.0.2.1/24   <--veth-->   cli0 192.0.2.2/24
//!   02:00:00:00:00:01                02:00:00:00:00:02
//! ```
//! They need root (or CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN) and the `ip` command; where these are missing, each test says
//! `SKIPPED` and why. No packet leaves its two namespaces.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aplomado::classify::steer::Steering;
use aplomado::ids::InterfaceId;
use aplomado::net::link::{self, Change, Monitor, Obstacle, Selected, Snapshot, SocketType, Table};
use aplomado::net::packet::{self, Hear, PacketOptions};
use aplomado::net::steer::lane;
use aplomado::net::udp::{self, Fallback, Outbound, UdpOptions};
use aplomado::net::{
    BATCH_MAX, DISCOVER_PART, Doorbell, FrameSlab, PacketPort, Port, PortSet, RxBatch, RxFlags, TxBatch,
    UdpPort, WINDOW_MAX, enter_network_namespace,
};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SEED: u64 = 42;
const IFACE: InterfaceId = InterfaceId(0);
/// Longest wait for a frame that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces and a wire between them.
struct Wire {
    server: String,
    client: String,
}

impl Wire {
    /// The wire, or nothing after saying why not.
    fn new(name: &str) -> Option<Self> {
        let wire = Self {
            server: format!("nt-{}-{name}-s", std::process::id()),
            client: format!("nt-{}-{name}-c", std::process::id()),
        };
        for space in [&wire.server, &wire.client] {
            if let Err(why) = ip(&["netns", "add", space]) {
                skip(&format!("no network namespaces here: {why}"));
                return None;
            }
        }
        let (s, c) = (wire.server.as_str(), wire.client.as_str());
        run_ip(&["-n", s, "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", c]);
        for (space, device, mac, address) in [
            (s, "srv0", "02:00:00:00:00:01", "192.0.2.1/24"),
            (c, "cli0", "02:00:00:00:00:02", "192.0.2.2/24"),
        ] {
            run_ip(&["-n", space, "link", "set", device, "address", mac, "addrgenmode", "none"]);
            run_ip(&["-n", space, "addr", "add", address, "dev", device]);
            run_ip(&["-n", space, "link", "set", device, "up"]);
        }
        Some(wire)
    }

    fn enter_server(&self) {
        enter(&self.server);
    }

    fn enter_client(&self) {
        enter(&self.client);
    }

    /// Opens packet ports at the server's end, by what the kernel says about the interface.
    fn server_ports(&self, shards: u8, options: &PacketOptions) -> Vec<PacketPort> {
        self.enter_server();
        packet::open(&selected("srv0"), IFACE, shards, keys(), options).expect("root may open packet sockets")
    }

    /// A client's end: sends any frame and hears port 68.
    fn client(&self) -> Client {
        self.enter_client();
        let options =
            PacketOptions { udp_port: 68, hear: Hear::All, rings_apart: false, ..PacketOptions::default() };
        let port = packet::open(&selected("cli0"), IFACE, 1, keys(), &options).expect("a client's port");
        Client { set: set_of(port), slab: FrameSlab::new(64), batch: TxBatch::new() }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for space in [&self.server, &self.client] {
            let _ = ip(&["netns", "del", space]);
        }
    }
}

/// Says why a test proves nothing here, past the harness, which would swallow it.
fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {}", why.trim_end());
}

/// Held while a program runs. It begins with a copy of every descriptor of this process, those of other tests included, and closes them
/// only some time after it counts as started: what is closed here meanwhile stays open, and its port taken.
static RUNNING: Mutex<()> = Mutex::new(());

/// Closes sockets so that their ports are free afterwards.
fn close<T>(sockets: T) {
    let _nothing_runs = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(sockets);
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn run_ip(arguments: &[&str]) {
    if let Err(why) = ip(arguments) {
        panic!("ip {}: {why}", arguments.join(" "));
    }
}

fn enter(space: &str) {
    let file = File::open(format!("/run/netns/{space}")).expect("the namespace was just made");
    enter_network_namespace(&file).expect("root may enter it");
}

/// The interface as the server selects it, once the kernel calls it running, which it does some time after "up".
fn selected(name: &str) -> Selected {
    let mut monitor = Monitor::open().expect("a routing socket");
    loop {
        let snapshot = Snapshot::read().expect("the kernel lists interfaces");
        let selection =
            link::select(&snapshot, &[name], SocketType::Raw, false).expect("the interface is there");
        if let Some(served) = selection.served.into_iter().next() {
            return served;
        }
        assert_eq!(selection.passed[0].why, Obstacle::NotRunning);
        assert!(monitor.wait(PATIENCE).expect("readable"), "{name} is running within {PATIENCE:?}");
    }
}

fn set_of<P: Port>(ports: impl IntoIterator<Item = P>) -> PortSet<P> {
    let mut set = PortSet::new(Arc::new(Doorbell::new().expect("an eventfd")));
    for port in ports {
        assert!(set.add(port).is_ok(), "there is room");
    }
    set
}

struct Client {
    set: PortSet<PacketPort>,
    slab: FrameSlab,
    batch: TxBatch,
}

impl Client {
    fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            put(&mut self.batch, &mut self.slab, frame);
            if self.batch.room() == 0 {
                self.flush();
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        let count = u32::try_from(self.batch.len()).expect("a batch is small");
        let report = self.set.send(&mut self.batch, &mut self.slab);
        assert_eq!((report.sent, report.errno), (count, 0));
    }
}

fn put(batch: &mut TxBatch, slab: &mut FrameSlab, bytes: &[u8]) {
    let frame = slab.take().expect("frames are enough for a batch");
    slab.bytes_mut(&frame)[..bytes.len()].copy_from_slice(bytes);
    batch.push(frame, bytes.len(), IFACE);
}

/// Receives until `count` frames are there, and what the port knows about each.
fn receive<P: Port>(set: &mut PortSet<P>, count: usize) -> Vec<(Vec<u8>, RxFlags)> {
    let mut seen = Vec::new();
    let mut batch = RxBatch::new();
    while seen.len() < count {
        if set.recv(&mut batch) == 0 {
            set.wait(PATIENCE, || false).expect("poll works");
            assert!(set.recv(&mut batch) > 0, "{} of {count} frames came within {PATIENCE:?}", seen.len());
        }
        seen.extend(batch.frames().iter().map(|frame| (set.bytes(frame).to_vec(), frame.flags)));
        set.recycle(&mut batch);
    }
    seen
}

/// A frame to the DHCP server's port from a client with this hardware address.
fn frame(to_mac: [u8; 6], to: Ipv4Addr, port: u16, chaddr: [u8; 6]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(342);
    bytes.extend_from_slice(&to_mac);
    bytes.extend_from_slice(&CLIENT_MAC);
    bytes.extend_from_slice(&[0x08, 0x00]);
    bytes.extend_from_slice(&[0x45, 0, 0x01, 0x48, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(&[0, 68]);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0x01, 0x34, 0, 0]);
    bytes.resize(342, 0);
    bytes[42] = 1;
    bytes[70..76].copy_from_slice(&chaddr);
    bytes
}

fn broadcast(mark: u8) -> Vec<u8> {
    frame([255; 6], Ipv4Addr::BROADCAST, 67, [2, 1, 0, 0, 0, mark])
}

fn mark_of(frame: &(Vec<u8>, RxFlags)) -> u8 {
    frame.0[75]
}

fn tagged(bytes: &[u8], vlan: u16) -> Vec<u8> {
    let mut tagged = bytes[..12].to_vec();
    tagged.extend_from_slice(&[0x81, 0x00]);
    tagged.extend_from_slice(&vlan.to_be_bytes());
    tagged.extend_from_slice(&bytes[12..]);
    tagged
}

/// The shard of a client, as the server computes it.
fn shard_of(chaddr: [u8; 6], shards: u8) -> u8 {
    let steering = Steering::new(SEED, usize::from(shards));
    assert_eq!(steering.multipliers(), keys(), "they do not depend on the count");
    steering.owner_of_six(chaddr).0
}

fn keys() -> (u32, u32) {
    Steering::new(SEED, 1).multipliers()
}

/// 200 hardware addresses as vendors give them: few prefixes, running numbers, and some of anything.
fn addresses() -> Vec<[u8; 6]> {
    (0..200_u32)
        .map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            let mixed = number.wrapping_mul(2_654_435_761).to_be_bytes();
            match number % 3 {
                0 => [0x00, 0x1b, 0x21, 0x3c, high, low],
                1 => [0x52, 0x54, 0x00, mixed[0], mixed[1], mixed[2]],
                _ => [mixed[3] & 0xfe, mixed[2], mixed[1], mixed[0], high, low],
            }
        })
        .collect()
}

#[test]
fn ring_hears_broadcast_and_unicast_and_its_replies_leave() {
    let Some(wire) = Wire::new("both") else { return };
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut client = wire.client();
    client.send(&[broadcast(1), frame(SERVER_MAC, SERVER, 67, [2, 1, 0, 0, 0, 2])]);
    let seen = receive(&mut server, 2);
    assert_eq!(seen.iter().map(mark_of).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(seen[0].0, broadcast(1), "from the Ethernet header to the last byte");
    assert!(seen.iter().all(|(_, flags)| flags.checksum_is_unverified()), "nobody vouches for a raw frame");

    let mut reply = frame(CLIENT_MAC, CLIENT, 68, [2, 1, 0, 0, 0, 2]);
    reply[6..12].copy_from_slice(&SERVER_MAC);
    let (mut slab, mut batch) = (FrameSlab::new(2), TxBatch::new());
    put(&mut batch, &mut slab, &reply);
    put(&mut batch, &mut slab, &reply);
    assert_eq!(server.send(&mut batch, &mut slab).sent, 2);
    assert_eq!(slab.free_count(), 2);
    assert_eq!(receive(&mut client.set, 2)[1].0, reply);
    let stats = server.ports_mut()[0].stats();
    assert_eq!((stats.rx_frames, stats.tx_frames, stats.rx_kernel_dropped), (2, 2, 0));
}

#[test]
fn time_of_arrival_is_the_wall_clocks() {
    let Some(wire) = Wire::new("time") else { return };
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut client = wire.client();
    let now_ns = || {
        #[expect(
            clippy::disallowed_methods,
            reason = "the kernel's stamp is compared with the clock it is of"
        )]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::try_from(since.as_nanos()).expect("before 2554")
    };
    let before = now_ns();
    client.send(&[broadcast(1)]);
    server.wait(PATIENCE, || false).expect("poll works");
    let mut batch = RxBatch::new();
    assert_eq!(server.recv(&mut batch), 1);
    let stamp = batch.frames()[0].wall_ns;
    assert!((before..=now_ns()).contains(&stamp), "{before} <= {stamp}");
}

#[test]
fn fan_out_agrees_with_the_function_for_one_two_and_four_shards() {
    let Some(wire) = Wire::new("fan") else { return };
    for shards in [1_u8, 2, 4] {
        let ports = wire.server_ports(shards, &PacketOptions::default());
        let mut sets: Vec<_> = ports.into_iter().map(|port| set_of([port])).collect();
        let mut client = wire.client();
        let clients = addresses();
        let frames: Vec<_> =
            clients.iter().map(|chaddr| frame([255; 6], Ipv4Addr::BROADCAST, 67, *chaddr)).collect();
        client.send(&frames);
        let mut heard = 0;
        for (shard, set) in (0..).zip(&mut sets) {
            let expected: Vec<_> =
                clients.iter().filter(|chaddr| shard_of(**chaddr, shards) == shard).collect();
            let seen = receive(set, expected.len());
            assert!(seen.iter().zip(&expected).all(|((bytes, _), chaddr)| bytes[70..76] == chaddr[..]));
            assert!(expected.len() > 100 / usize::from(shards), "shard {shard} of {shards} has its share");
            heard += seen.len();
        }
        assert_eq!(heard, 200);
    }
}

#[test]
fn tagged_frame_is_never_served_as_untagged() {
    let Some(wire) = Wire::new("tag") else { return };
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut client = wire.client();
    client.send(&[tagged(&broadcast(1), 20), tagged(&broadcast(2), 0), broadcast(3)]);
    let seen = receive(&mut server, 2);
    assert_eq!(seen.iter().map(mark_of).collect::<Vec<_>>(), [2, 3], "a priority tag is no VLAN");
    assert_eq!(seen[0].0[12..14], [0x08, 0x00], "and stands not in the frame");
}

#[test]
fn vlan_device_serves_its_vlan_and_the_device_below_does_not() {
    let Some(wire) = Wire::new("vlan") else { return };
    let device = ["link", "add", "link", "srv0", "name", "srv0.10", "type", "vlan", "id", "10"];
    if let Err(why) = ip(&[&["-n", &wire.server][..], &device].concat()) {
        skip(&format!("no VLAN devices here: {why}"));
        return;
    }
    run_ip(&["-n", &wire.server, "link", "set", "srv0.10", "up"]);
    run_ip(&["-n", &wire.server, "addr", "add", "192.0.2.1/24", "dev", "srv0.10"]);
    let mut below = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut vlan = set_of(
        packet::open(&selected("srv0.10"), IFACE, 1, keys(), &PacketOptions::default())
            .expect("a VLAN's port"),
    );
    let mut client = wire.client();
    client.send(&[tagged(&broadcast(1), 20), tagged(&broadcast(2), 10), broadcast(3)]);
    assert_eq!(receive(&mut vlan, 1).iter().map(mark_of).collect::<Vec<_>>(), [2]);
    assert_eq!(receive(&mut below, 1).iter().map(mark_of).collect::<Vec<_>>(), [3]);
}

#[test]
fn local_senders_unfilled_checksum_is_marked() {
    let Some(wire) = Wire::new("csum") else { return };
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 68)).expect("the client's address");
    socket.set_broadcast(true).expect("allowed");
    socket.send_to(&broadcast(1)[42..], (Ipv4Addr::BROADCAST, 67)).expect("sent");
    let seen = receive(&mut server, 1);
    assert!(seen[0].1.contains(RxFlags::CSUM_NOT_READY), "{:?}", seen[0].1);
    assert!(!seen[0].1.checksum_is_unverified());
}

#[test]
fn frames_for_others_and_our_own_are_ignored_and_fragments_counted() {
    let Some(wire) = Wire::new("others") else { return };
    run_ip(&["-n", &wire.server, "link", "set", "srv0", "promisc", "on"]);
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut client = wire.client();
    let mut own = broadcast(3);
    own[6..12].copy_from_slice(&SERVER_MAC);
    let mut first_fragment = broadcast(4);
    first_fragment[20] = 0x20;
    let mut later_fragment = broadcast(5);
    later_fragment[21] = 8;
    client.send(&[
        frame([2, 9, 9, 9, 9, 9], SERVER, 67, [2, 1, 0, 0, 0, 1]),
        frame(SERVER_MAC, Ipv4Addr::new(192, 0, 2, 99), 67, [2, 1, 0, 0, 0, 2]),
        own,
        first_fragment,
        later_fragment,
        frame(SERVER_MAC, SERVER, 6767, [2, 1, 0, 0, 0, 6]),
        broadcast(7),
    ]);
    assert_eq!(receive(&mut server, 1).iter().map(mark_of).collect::<Vec<_>>(), [7]);

    // What we send ourselves, even to our own port, is not heard.
    let (mut slab, mut batch) = (FrameSlab::new(1), TxBatch::new());
    put(&mut batch, &mut slab, &broadcast(8));
    assert_eq!(server.send(&mut batch, &mut slab).sent, 1);
    client.send(&[broadcast(9)]);
    assert_eq!(receive(&mut server, 1).iter().map(mark_of).collect::<Vec<_>>(), [9]);
    let stats = server.ports_mut()[0].stats();
    assert_eq!((stats.rx_frames, stats.rx_not_ours, stats.rx_own, stats.rx_fragment), (2, 1, 1, 1));
}

#[test]
fn short_and_padded_frames_come_as_they_are() {
    let Some(wire) = Wire::new("short") else { return };
    let mut server = set_of(wire.server_ports(1, &PacketOptions::default()));
    let mut client = wire.client();
    let mut padded = broadcast(2);
    padded.resize(1514, 0);
    client.send(&[broadcast(1)[..42].to_vec(), padded, broadcast(3)[..40].to_vec(), broadcast(4)]);
    let lengths: Vec<usize> = receive(&mut server, 3).iter().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(lengths, [42, 1514, 342]);
    assert_eq!(server.ports_mut()[0].stats().rx_malformed, 1, "no whole UDP header");
}

#[test]
fn slots_go_back_in_the_turn_in_which_they_were_read() {
    let Some(wire) = Wire::new("slots") else { return };
    let mut server =
        set_of(wire.server_ports(1, &PacketOptions { ring_slots: 64, ..PacketOptions::default() }));
    let mut client = wire.client();
    for round in 0..50_u8 {
        // A ring of 64 carries 50 rounds of 60 only when every turn gives back what it took.
        client.send(&(0..60).map(|_| broadcast(round)).collect::<Vec<_>>());
        assert!(receive(&mut server, 60).iter().all(|frame| mark_of(frame) == round));
    }
    assert_eq!(server.ports_mut()[0].stats().rx_kernel_dropped, 0);
}

#[test]
fn frames_beyond_the_ring_are_dropped_and_counted() {
    let Some(wire) = Wire::new("full") else { return };
    let mut server =
        set_of(wire.server_ports(1, &PacketOptions { ring_slots: 64, ..PacketOptions::default() }));
    let mut client = wire.client();
    client.send(&(0..200).map(broadcast).collect::<Vec<_>>());
    let kept: Vec<u8> = receive(&mut server, 64).iter().map(mark_of).collect();
    assert_eq!(kept, (0..64).collect::<Vec<u8>>(), "the oldest are kept");
    client.send(&[broadcast(250)]);
    assert_eq!(receive(&mut server, 1).iter().map(mark_of).collect::<Vec<_>>(), [250], "and service goes on");
    let stats = server.ports_mut()[0].stats();
    assert_eq!((stats.rx_frames, stats.rx_kernel_dropped), (65, 136));
}

#[test]
fn flood_of_discovers_leaves_others_their_ring_and_a_part_of_each_batch() {
    let Some(wire) = Wire::new("flood") else { return };
    let options = PacketOptions { ring_slots: 64, ..PacketOptions::default() };
    for shards in [1, 2] {
        let mut servers: Vec<_> =
            wire.server_ports(shards, &options).into_iter().map(|port| set_of([port])).collect();
        let mut client = wire.client();
        let of_kind = |kind: u8, mark: u8| {
            let mut frame = broadcast(mark);
            frame[282..285].copy_from_slice(&[53, 1, kind]);
            frame
        };
        client.send(&(0..200).map(|mark| of_kind(1, mark)).collect::<Vec<_>>());
        client.send(&(0..20).map(|mark| of_kind(3, mark)).collect::<Vec<_>>());
        let kind_of = |bytes: &[u8]| (bytes[284], bytes[282]);
        let (mut requests, mut discovers, mut dropped, mut batch) = (0, 0, 0, RxBatch::new());
        for server in &mut servers {
            while server.recv(&mut batch) > 0 {
                let kinds: Vec<(u8, u8)> =
                    batch.frames().iter().map(|frame| kind_of(server.bytes(frame))).collect();
                let first = kinds.iter().take_while(|kind| **kind == (3, 53)).count();
                assert!(kinds[first..].iter().all(|kind| *kind == (1, 53)), "REQUESTs come first: {kinds:?}");
                requests += first;
                discovers += kinds.len() - first;
                server.recycle(&mut batch);
            }
            server.recycle(&mut batch);
            let stats = server.ports_mut()[0].stats();
            assert_eq!(stats.rx_kernel_dropped, 0);
            dropped += stats.rx_discover_dropped;
        }
        assert_eq!(requests, 20, "no REQUEST is lost");
        let of_shard = |shard: u8| {
            let of = (0..200).filter(|mark| shard_of([2, 1, 0, 0, 0, *mark], shards) == shard);
            of.count().min(64)
        };
        assert_eq!(discovers, (0..shards).map(of_shard).sum::<usize>(), "full rings of DISCOVERs");
        assert_eq!(dropped, 200 - u64::try_from(discovers).expect("few"));
        // The other way round: what has a ring of its own is not forgotten.
        if let [server] = servers.as_mut_slice() {
            client.send(&(0..64).map(|mark| of_kind(3, mark)).collect::<Vec<_>>());
            client.send(&[of_kind(1, 1)]);
            assert_eq!(server.recv(&mut batch), 64);
            let at = batch.frames().iter().position(|frame| kind_of(server.bytes(frame)) == (1, 53));
            assert_eq!(at, Some(56), "after seven eighths of the first batch");
            server.recycle(&mut batch);
        }
    }
}

#[test]
fn link_that_goes_down_and_up_again_is_heard_again_and_never_spins() {
    let Some(wire) = Wire::new("updown") else { return };
    let mut server = set_of(wire.server_ports(2, &PacketOptions::default()).into_iter().take(1));
    run_ip(&["-n", &wire.server, "link", "set", "srv0", "down"]);
    server.wait(PATIENCE, || false).expect("the error ends the sleep");
    assert_eq!(server.ports_mut()[0].stats().errors, 1);
    server.wait(Duration::from_millis(20), || false).expect("and only once");
    assert_eq!(server.ports_mut()[0].stats().errors, 1);
    run_ip(&["-n", &wire.server, "link", "set", "srv0", "up"]);
    let mut client = wire.client();
    client.send(&[broadcast(1)]);
    assert_eq!(receive(&mut server, 1).len(), 1);
}

#[test]
fn interfaces_that_appear_vanish_and_change_address_are_followed() {
    let Some(wire) = Wire::new("detect") else { return };
    wire.enter_server();
    selected("srv0");
    let mut monitor = Monitor::open().expect("a routing socket");
    let mut table = Table::new();
    let look = |table: &mut Table| {
        let snapshot = Snapshot::read().expect("the kernel lists interfaces");
        let selection = link::select(&snapshot, &["*"], SocketType::Raw, true).expect("a good list");
        table.update(selection.served, SocketType::Raw)
    };
    let Ok([Change::Open(id, first)]) = <[Change; 1]>::try_from(look(&mut table)) else {
        panic!("one interface is there");
    };
    assert_eq!((first.name.as_str(), first.mac, &first.addresses[..]), ("srv0", SERVER_MAC, &[SERVER][..]));
    assert!(!monitor.drain().expect("readable"), "nothing has changed yet");
    let mut server = set_of(packet::open(&first, id, 1, keys(), &PacketOptions::default()).expect("a port"));
    let mut client = wire.client();

    run_ip(&["-n", &wire.server, "addr", "add", "198.18.0.99/24", "dev", "srv0"]);
    run_ip(&["-n", &wire.server, "addr", "del", "192.0.2.1/24", "dev", "srv0"]);
    wire.enter_server();
    assert!(monitor.drain().expect("readable"), "the kernel has told of it");
    let changes = look(&mut table);
    let [Change::Readdress(same, second)] = &changes[..] else { panic!("the port stays: {changes:?}") };
    assert_eq!(*same, id);
    server.ports_mut()[0].set_addresses(&second.addresses);
    let new_address = second.addresses[0];
    client.send(&[
        frame(SERVER_MAC, SERVER, 67, [2, 1, 0, 0, 0, 1]),
        frame(SERVER_MAC, new_address, 67, [2, 1, 0, 0, 0, 2]),
    ]);
    assert_eq!(receive(&mut server, 1).iter().map(mark_of).collect::<Vec<_>>(), [2]);

    run_ip(&["-n", &wire.server, "link", "add", "new0", "type", "veth", "peer", "name", "new1"]);
    run_ip(&["-n", &wire.server, "addr", "add", "198.51.100.1/24", "dev", "new0"]);
    run_ip(&["-n", &wire.server, "link", "set", "new0", "up"]);
    run_ip(&["-n", &wire.server, "link", "set", "new1", "up"]);
    selected("new0");
    assert!(monitor.drain().expect("readable"));
    let changes = look(&mut table);
    let [Change::Open(other, opened)] = &changes[..] else { panic!("an interface appeared: {changes:?}") };
    assert_eq!((opened.name.as_str(), *other == id), ("new0", false));

    run_ip(&["-n", &wire.server, "link", "del", "srv0"]);
    assert!(monitor.drain().expect("readable"));
    assert_eq!(look(&mut table), [Change::Close(id)]);
    // The port of a vanished interface neither panics nor spins until the shard gives it back.
    server.wait(PATIENCE, || false).expect("the error ends the sleep");
    server.wait(Duration::from_millis(20), || false).expect("and only once");
    assert!(server.remove(id).is_some());
}

#[test]
fn udp_socket_hears_unicast_to_its_address_and_no_broadcast() {
    let Some(wire) = Wire::new("udp") else { return };
    wire.enter_server();
    let mut server =
        set_of(udp::open(&selected("srv0"), IFACE, 1, keys(), &UdpOptions::default()).expect("free"));
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 67)).expect("a relay's socket");
    socket.set_broadcast(true).expect("allowed");
    socket.set_read_timeout(Some(PATIENCE)).expect("settable");
    let query = &broadcast(1)[42..];
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255), SERVER] {
        socket.send_to(query, (to, 67)).expect("sent");
    }
    let seen = receive(&mut server, 1);
    let (bytes, flags) = &seen[0];
    assert!(flags.contains(RxFlags::SYNTHETIC));
    assert_eq!(&bytes[42..], query);
    assert_eq!((&bytes[26..30], &bytes[30..34]), (&CLIENT.octets()[..], &SERVER.octets()[..]));
    assert_eq!((&bytes[34..36], &bytes[36..38]), (&[0, 67][..], &[0, 67][..]));
    assert_eq!(server.ports_mut()[0].stats().rx_frames, 1, "neither broadcast was heard");

    let mut reply = bytes.clone();
    reply.copy_within(26..30, 30);
    reply[26..30].copy_from_slice(&SERVER.octets());
    let (mut slab, mut batch) = (FrameSlab::new(1), TxBatch::new());
    put(&mut batch, &mut slab, &reply);
    assert_eq!(server.send(&mut batch, &mut slab).sent, 1);
    let mut answer = [0; 600];
    let (len, from) = socket.recv_from(&mut answer).expect("the reply");
    assert_eq!((&answer[..len], from.to_string()), (query, "192.0.2.1:67".to_owned()));
}

#[test]
fn udp_sockets_of_several_shards_and_addresses_are_steered_by_chaddr() {
    let Some(wire) = Wire::new("udpfan") else { return };
    run_ip(&["-n", &wire.server, "addr", "add", "192.0.2.11/24", "dev", "srv0"]);
    wire.enter_server();
    let ports: Vec<UdpPort> =
        udp::open(&selected("srv0"), IFACE, 4, keys(), &UdpOptions::default()).expect("free");
    let mut sets: Vec<_> = ports.into_iter().map(|port| set_of([port])).collect();
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 67)).expect("a relay's socket");
    let clients = addresses();
    for (number, chaddr) in clients.iter().enumerate() {
        let to = if number % 2 == 0 { SERVER } else { Ipv4Addr::new(192, 0, 2, 11) };
        socket.send_to(&frame(SERVER_MAC, to, 67, *chaddr)[42..], (to, 67)).expect("sent");
    }
    for (shard, set) in (0..).zip(&mut sets) {
        let mut expected: Vec<_> = clients.iter().filter(|chaddr| shard_of(**chaddr, 4) == shard).collect();
        let seen = receive(set, expected.len());
        let mut heard: Vec<_> = seen.iter().map(|(bytes, _)| &bytes[70..76]).collect();
        heard.sort_unstable();
        expected.sort_unstable();
        assert!(heard.iter().zip(&expected).all(|(bytes, chaddr)| *bytes == &chaddr[..]));
    }
}

/// A message of one type, and nothing else.
fn message(kind: u8, chaddr: [u8; 6]) -> Vec<u8> {
    let mut payload = frame(SERVER_MAC, SERVER, 67, chaddr)[42..].to_vec();
    payload.resize(240, 0);
    payload.extend([53, 1, kind, 255]);
    payload
}

#[test]
fn flood_of_discovers_at_a_udp_socket_costs_no_request() {
    const DISCOVER: u8 = 1;
    const REQUEST: u8 = 3;
    const REQUESTS: usize = 100;
    let Some(wire) = Wire::new("udpflood") else { return };
    wire.enter_server();
    let mut server =
        set_of(udp::open(&selected("srv0"), IFACE, 1, keys(), &UdpOptions::default()).expect("free"));
    assert!(!server.is_crowded());
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 67)).expect("a relay's socket");
    let mut sent = 0;
    while server.ports_mut()[0].stats().rx_discover_dropped == 0 {
        for _ in 0..256 {
            socket.send_to(&message(DISCOVER, [2, 0, 0, 0, 1, 0]), (SERVER, 67)).expect("sent");
            sent += 1;
        }
        assert!(sent < 1_000_000, "a queue has an end");
    }
    for _ in 0..REQUESTS {
        socket.send_to(&message(REQUEST, [2, 0, 0, 0, 2, 0]), (SERVER, 67)).expect("sent");
    }
    assert!(server.is_crowded(), "more waits than half of what may");
    let stats = server.ports_mut()[0].stats();
    assert_eq!(stats.rx_kernel_dropped, 0, "there was room for every REQUEST");
    let mut batch = RxBatch::new();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        assert_eq!(server.recv(&mut batch), BATCH_MAX);
        if kinds.is_empty() {
            assert_eq!(server.widen(&mut batch), WINDOW_MAX, "what else waits can be chosen from");
        }
        kinds.push(batch.frames().iter().map(|frame| server.bytes(frame)[42 + 242]).collect::<Vec<_>>());
        server.recycle(&mut batch);
    }
    let first = &kinds[0][..BATCH_MAX];
    let part = BATCH_MAX / DISCOVER_PART;
    assert!(first[..BATCH_MAX - part].iter().all(|kind| *kind == REQUEST), "REQUESTs come first");
    assert!(first[BATCH_MAX - part..].iter().all(|kind| *kind == DISCOVER), "and leave a part");
    assert_eq!(kinds.concat().iter().filter(|kind| **kind == REQUEST).count(), REQUESTS);
    while server.recv(&mut batch) > 0 {
        server.recycle(&mut batch);
    }
    assert!(!server.is_crowded());
    let stats = server.ports_mut()[0].stats();
    let seen = stats.rx_frames + stats.rx_discover_dropped;
    assert_eq!(seen, sent + u64::try_from(REQUESTS).expect("few"), "each is read or counted as dropped");
}

#[test]
fn relay_that_floods_a_udp_port_fills_its_own_lane() {
    const QUIET: usize = 5;
    let Some(wire) = Wire::new("udplane") else { return };
    wire.enter_server();
    let mut server =
        set_of(udp::open(&selected("srv0"), IFACE, 1, keys(), &UdpOptions::default()).expect("free"));
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 67)).expect("a relay's socket");
    let through = |relay: Ipv4Addr, kind: u8| {
        let mut message = message(kind, [2, 0, 0, 0, 1, 0]);
        message[24..28].copy_from_slice(&relay.octets());
        socket.send_to(&message, (SERVER, 67)).expect("sent");
    };
    let flooded = Ipv4Addr::new(10, 1, 0, 1);
    let others: Vec<_> = (2..=255).map(|net| Ipv4Addr::new(10, net, 0, 1)).collect();
    let quiet: Vec<_> = others.iter().filter(|relay| lane(**relay) != lane(flooded)).take(QUIET).collect();
    for kind in [1, 3] {
        let dropped = |server: &mut PortSet<UdpPort>| {
            let stats = server.ports_mut()[0].stats();
            if kind == 1 { stats.rx_discover_dropped } else { stats.rx_kernel_dropped }
        };
        let mut sent = 0;
        while dropped(&mut server) == 0 {
            (0..256).for_each(|_| through(flooded, kind));
            sent += 256;
            assert!(sent < 1_000_000, "a queue has an end");
        }
        let dropped_before = dropped(&mut server);
        quiet.iter().for_each(|relay| through(**relay, kind));
        assert_eq!(dropped(&mut server), dropped_before, "there was room");
        let mut batch = RxBatch::new();
        assert_eq!(server.recv(&mut batch), BATCH_MAX, "what the others leave is for the one that floods");
        let giaddrs = batch.frames().iter().map(|frame| server.bytes(frame)[42 + 24..42 + 28].to_vec());
        let heard = giaddrs.filter(|giaddr| *giaddr != flooded.octets()).count();
        assert_eq!(heard, QUIET, "at once");
        server.recycle(&mut batch);
        while server.recv(&mut batch) > 0 {
            server.recycle(&mut batch);
        }
    }
}

#[test]
fn relay_that_floods_a_packet_port_fills_its_own_lane() {
    let Some(wire) = Wire::new("ringlane") else { return };
    let options = PacketOptions { ring_slots: 256, ..PacketOptions::default() };
    let flooded = Ipv4Addr::new(10, 1, 0, 1);
    let others: Vec<_> = (2..=255).map(|net| Ipv4Addr::new(10, net, 0, 1)).collect();
    let in_lane = |number| others.iter().find(|relay| lane(**relay) == number).expect("one of many");
    let quiet: Vec<_> = (0..4).filter(|number| *number != lane(flooded)).map(in_lane).collect();
    for shards in [1, 2] {
        let ports = wire.server_ports(shards, &options);
        let mut servers: Vec<_> = ports.into_iter().map(|port| set_of([port])).collect();
        let mut client = wire.client();
        // All of them are one client's, and so go to one shard.
        let through = |relay: Ipv4Addr, kind: u8| {
            let mut bytes = broadcast(7);
            bytes[42 + 24..42 + 28].copy_from_slice(&relay.octets());
            bytes[282..285].copy_from_slice(&[53, 1, kind]);
            bytes
        };
        for kind in [1, 3] {
            client.send(&(0..1000).map(|_| through(flooded, kind)).collect::<Vec<_>>());
            client.send(&quiet.iter().map(|relay| through(**relay, kind)).collect::<Vec<_>>());
            let mut batch = RxBatch::new();
            let server = servers
                .iter_mut()
                .find_map(|server| (server.recv(&mut batch) > 0).then_some(server))
                .expect("it has come");
            assert_eq!(batch.len(), BATCH_MAX, "what the others leave is for the one that floods");
            let giaddrs = batch.frames().iter().map(|frame| server.bytes(frame)[42 + 24..42 + 28].to_vec());
            let heard = giaddrs.filter(|giaddr| *giaddr != flooded.octets()).count();
            assert_eq!(heard, quiet.len(), "at once, and nothing of them is lost");
            server.recycle(&mut batch);
            while server.recv(&mut batch) > 0 {
                let all_flooded = batch
                    .frames()
                    .iter()
                    .all(|frame| server.bytes(frame)[42 + 24..42 + 28] == flooded.octets());
                assert!(all_flooded);
                server.recycle(&mut batch);
            }
            let stats = server.ports_mut()[0].stats();
            let dropped = [stats.rx_discover_dropped, stats.rx_kernel_dropped];
            let expected = if kind == 1 { [1000 - 256, 0] } else { [1000 - 256, 1000 - 256] };
            assert_eq!(dropped, expected, "as many as its lane had no room for");
        }
    }
}

#[test]
fn udp_port_that_another_server_has_is_not_shared() {
    let Some(wire) = Wire::new("udptwice") else { return };
    wire.enter_server();
    let open = || udp::open(&selected("srv0"), IFACE, 2, keys(), &UdpOptions::default());
    let ours = open().expect("free");
    let error = open().expect_err("ours");
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse, "{error}");
    close(ours);
    close(open().expect("free again"));
    let foreign = UdpSocket::bind((SERVER, 67)).expect("and free again");
    assert_eq!(open().expect_err("taken").source.kind(), io::ErrorKind::AddrInUse);
    drop(foreign);
}

#[test]
fn relayed_reply_follows_the_routing_table_where_it_is_told_to() {
    let Some(wire) = Wire::new("routing") else { return };
    // The way back to the relay leads over another interface than its query came in by.
    run_ip(&[
        "-n",
        &wire.server,
        "link",
        "add",
        "back0",
        "type",
        "veth",
        "peer",
        "name",
        "back1",
        "netns",
        &wire.client,
    ]);
    for (space, device) in [(&wire.server, "back0"), (&wire.client, "back1")] {
        run_ip(&["-n", space, "link", "set", device, "up"]);
    }
    run_ip(&["-n", &wire.server, "addr", "add", "198.51.100.1/24", "dev", "back0"]);
    run_ip(&["-n", &wire.client, "addr", "add", "198.51.100.2/24", "dev", "back1"]);
    run_ip(&["-n", &wire.server, "route", "add", "203.0.113.9/32", "via", "198.51.100.2"]);
    wire.enter_server();
    selected("back0");
    for (outbound, giaddr, arrives_by) in [
        (Outbound::UseRouting, [203, 0, 113, 9], "back1"),
        (Outbound::UseRouting, [0; 4], "cli0"),
        (Outbound::SameAsInbound, [203, 0, 113, 9], "cli0"),
    ] {
        wire.enter_server();
        let options = UdpOptions { outbound, ..UdpOptions::default() };
        let mut server = set_of(udp::open(&selected("srv0"), IFACE, 1, keys(), &options).expect("free"));
        wire.enter_client();
        let options = PacketOptions { hear: Hear::All, rings_apart: false, ..PacketOptions::default() };
        let mut relay =
            set_of(packet::open(&selected(arrives_by), IFACE, 1, keys(), &options).expect("a relay's port"));
        let mut reply = frame(CLIENT_MAC, Ipv4Addr::new(203, 0, 113, 9), 67, [2, 1, 0, 0, 0, 1]);
        reply[26..30].copy_from_slice(&SERVER.octets());
        reply[66..70].copy_from_slice(&giaddr);
        // Straight out of srv0 the relay's address is a neighbour like any other.
        run_ip(&["-n", &wire.client, "addr", "replace", "203.0.113.9/32", "dev", arrives_by]);
        let (mut slab, mut batch) = (FrameSlab::new(1), TxBatch::new());
        put(&mut batch, &mut slab, &reply);
        assert_eq!(server.send(&mut batch, &mut slab).sent, 1, "{outbound:?}");
        let seen = receive(&mut relay, 1);
        assert_eq!(seen[0].0[26..34], [192, 0, 2, 1, 203, 0, 113, 9], "{outbound:?}");
        run_ip(&["-n", &wire.client, "addr", "del", "203.0.113.9/32", "dev", arrives_by]);
        close(server);
    }
}

#[test]
fn fallback_socket_keeps_relays_from_being_told_the_port_is_unreachable() {
    let Some(wire) = Wire::new("fallback") else { return };
    wire.enter_client();
    let socket = UdpSocket::bind((CLIENT, 67)).expect("a relay's socket");
    socket.connect((SERVER, 67)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("settable");
    let ask = || {
        loop {
            let heard = socket.send(b"query").and_then(|_| socket.recv(&mut [0; 16]));
            match heard.expect_err("nobody answers").kind() {
                // A wait with an end is not taken up again after a signal.
                io::ErrorKind::Interrupted => {}
                kind => break kind,
            }
        }
    };
    // The first words over a new wire may be lost while the ends look for each other.
    let is_told = || (0..10).any(|_| ask() == io::ErrorKind::ConnectionRefused);
    assert!(is_told(), "the kernel says that nobody listens");
    wire.enter_server();
    let fallback = Fallback::open("srv0", SERVER, 67).expect("the port is free");
    assert_eq!(ask(), io::ErrorKind::WouldBlock, "silence");
    wire.enter_server();
    let second = Fallback::open("srv0", SERVER, 67).expect_err("somebody has the port");
    assert_eq!(second.to_string(), "cannot bind the fallback socket on interface srv0");
    drop(fallback);
}

#[test]
fn port_of_an_interface_that_is_not_there_says_so() {
    let Some(wire) = Wire::new("none") else { return };
    wire.enter_server();
    let mut gone = selected("srv0");
    gone.index = 4_000_000;
    let error = packet::open(&gone, IFACE, 1, keys(), &PacketOptions::default()).expect_err("no such device");
    assert_eq!(error.source.raw_os_error(), Some(19), "{error}: {}", error.source);
}
