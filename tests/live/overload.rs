//! More than the server can take, sent through one relay: what the clients of others get.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aplomado::net::enter_network_namespace;
use aplomado::net::steer::lane;
use serde_json::json;

use crate::cable::Cable;
use crate::place::{PATIENCE, Place, Server, deadline, left};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 1);
/// The relay that floods.
const FLOODED: Ipv4Addr = Ipv4Addr::new(10, 0, 254, 1);
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const OFFER: u8 = 2;
const ACK: u8 = 5;
/// Clients of the other relays.
const CLIENTS: u16 = 24;
/// How long a message may have waited without being found stale, with time to spare.
const FRESH: Duration = Duration::from_millis(500);
/// Clients that ask for a lease while a flood goes on.
const ASKING: u16 = 120;
/// Those of them that may be left without one: other work of the machine can delay any frame.
const MISSED_MAX: usize = 6;
/// Messages of the flood: more than any queue of the kernel holds.
const FLOOD: u32 = 12_000;

/// A message of a client behind a relay.
fn message(kind: u8, relay: Ipv4Addr, client: [u8; 6], options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 1]);
    message[4..8].copy_from_slice(&client[2..]);
    message[24..28].copy_from_slice(&relay.octets());
    message[28..34].copy_from_slice(&client);
    // Answers by broadcast, for clients that have no address yet.
    message[10] = 0x80;
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message.resize(300, 0);
    message
}

const fn quiet(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 0xc1, 0, 0, high, low]
}

/// The server is stopped, one relay sends more than there is room for, the others send these queries, and the server goes on. What each
/// of them is given with an answer of type `kind`; nothing at all when it took so long that the server is right to find them stale.
fn answered_behind_a_flood(
    server: &Server,
    socket: &UdpSocket,
    flood: u8,
    queries: &[Vec<u8>],
    kind: u8,
) -> Option<Vec<Option<Ipv4Addr>>> {
    let begun = deadline();
    server.signal("STOP");
    for number in 0..FLOOD {
        let [_, b, c, d] = number.to_be_bytes();
        socket.send_to(&message(flood, FLOODED, [2, 0xf1, 0, b, c, d], &[]), (SERVER, 67)).expect("sent");
    }
    for query in queries {
        socket.send_to(query, (SERVER, 67)).expect("sent");
    }
    server.signal("CONT");
    let is_fresh = left(begun) > PATIENCE - FRESH;
    let mut given = vec![None; queries.len()];
    let mut buffer = [0; 600];
    // Until nothing more comes.
    while given.contains(&None) {
        let Ok(len) = socket.recv(&mut buffer) else { break };
        let (xid, chaddr) = (&buffer[4..8], &buffer[28..34]);
        let asked = queries.iter().position(|query| &query[4..8] == xid && &query[28..34] == chaddr);
        if let Some(asked) = asked.filter(|_| len > 242 && buffer[242] == kind) {
            given[asked] = Some(Ipv4Addr::new(buffer[16], buffer[17], buffer[18], buffer[19]));
        }
    }
    is_fresh.then_some(given)
}

/// A server with one shard, which the flood fills, heard on two links by sockets of this kind; relays of the client's end, in the lane of the one that
/// floods or in the others; a socket for all of them.
struct Scene {
    _cable: Cable,
    _place: Place,
    server: Server,
    relays: Vec<Ipv4Addr>,
    socket: UdpSocket,
}

impl Scene {
    /// With `classes` that every query is tested for, which is what it costs, and relays in other lanes than the one that floods.
    fn new(test: &str, name: char, socket_type: &str, classes: u16) -> Option<Self> {
        Self::among(test, name, socket_type, classes, |relay| lane(relay) != lane(FLOODED))
    }

    /// As [`Self::new`], with relays of which `is_wanted` holds.
    fn among(
        test: &str,
        name: char,
        socket_type: &str,
        classes: u16,
        is_wanted: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Self> {
        let cable = Cable::new(test, name)?;
        cable.second(name);
        let others = (2..=255).map(|host| Ipv4Addr::new(10, 0, 254, host));
        let relays: Vec<_> = others.filter(|relay| is_wanted(*relay)).take(6).collect();
        relays.iter().for_each(|relay| cable.client_address(*relay));
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["interfaces-config"] =
            json!({ "interfaces": ["veth-s", "veth-t"], "dhcp-socket-type": socket_type });
        dhcp4["multi-threading"]["thread-pool-size"] = json!(1);
        let class = |number| {
            let test =
                format!("concat(hexstring(pkt4.mac, ':'), hexstring(pkt4.transid, ':')) == '{number}'");
            json!({ "name": format!("class-{number}"), "test": test })
        };
        dhcp4["client-classes"] = (0..classes).map(class).collect();
        place.write_config(&dhcp4);
        let server = cable.start(&place);
        let space = File::open(format!("/run/netns/{}", cable.client)).expect("it was just made");
        enter_network_namespace(&space).expect("root may enter it");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("a socket for all relays");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("settable");
        Some(Self { _cable: cable, _place: place, server, relays, socket })
    }

    fn relay(&self, number: u16) -> Ipv4Addr {
        self.relays[usize::from(number) % self.relays.len()]
    }

    /// Every quiet client asks behind a flood of its kind of message, and is given this.
    fn ask(&self, flood: u8, queries: &[Vec<u8>], answer: u8) -> Vec<Ipv4Addr> {
        let tried =
            (0..20).find_map(|_| answered_behind_a_flood(&self.server, &self.socket, flood, queries, answer));
        let given: Vec<_> = tried.expect("the machine has half a second").into_iter().flatten().collect();
        assert_eq!(given.len(), queries.len(), "answers of type {answer}");
        given
    }

    /// What one relay sends while the server stands still does not keep the clients of others from their leases.
    fn leaves_others_their_service(self) {
        let discover = |number| message(DISCOVER, self.relay(number), quiet(number), &[]);
        let offered = self.ask(DISCOVER, &(0..CLIENTS).map(discover).collect::<Vec<_>>(), OFFER);
        let request = |(number, address): (u16, &Ipv4Addr)| {
            message(REQUEST, self.relay(number), quiet(number), &selecting(*address))
        };
        let queries: Vec<_> = (0..CLIENTS).zip(&offered).map(request).collect();
        assert_eq!(self.ask(REQUEST, &queries, ACK), offered);
        for name in ["port-discover-ring-full", "port-ring-full"] {
            self.server.await_that(&format!("interface[veth-s].{name}"), |lost| lost > 0);
        }
        self.server.stop();
    }
}

/// The options of a REQUEST for what was offered.
fn selecting(address: Ipv4Addr) -> Vec<u8> {
    [[54, 4, 10, 0, 255, 1, 50, 4].as_slice(), &address.octets()].concat()
}

#[test]
fn a_flood_through_one_relay_of_udp_sockets_leaves_the_clients_of_others_their_service() {
    const TEST: &str = "a_flood_through_one_relay_of_udp_sockets_leaves_the_clients_of_others_their_service";
    if let Some(scene) = Scene::new(TEST, 'u', "udp", 0) {
        scene.leaves_others_their_service();
    }
}

#[test]
fn a_flood_through_one_relay_of_packet_rings_leaves_the_clients_of_others_their_service() {
    const TEST: &str = "a_flood_through_one_relay_of_packet_rings_leaves_the_clients_of_others_their_service";
    if let Some(scene) = Scene::new(TEST, 'r', "raw", 0) {
        scene.leaves_others_their_service();
    }
}

/// A flood through a relay, to an address of the server on this interface.
struct Flood {
    server: Ipv4Addr,
    relay: Ipv4Addr,
    interface: &'static str,
    /// How often a client asks before it counts as missed.
    tries: usize,
}

impl Scene {
    /// As long as a flood lasts, clients of the relays and of the first link itself get their leases, one message at a time.
    fn leases_during(self, flood: &Flood) {
        let direct = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).expect("a client's socket");
        direct.set_read_timeout(Some(Duration::from_secs(2))).expect("settable");
        let flooder = self.socket.try_clone().expect("the same port");
        let is_over = AtomicBool::new(false);
        let missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                // None of them is given an address. It ends by itself, should an assertion below fail.
                let wrong = selecting(Ipv4Addr::new(192, 0, 2, 1));
                for number in 0..20_000_000_u32 {
                    let [_, b, c, d] = number.to_be_bytes();
                    let (kind, options) =
                        if number % 2 == 0 { (DISCOVER, &[][..]) } else { (REQUEST, &*wrong) };
                    let query = message(kind, flood.relay, [2, 0xf1, 0, b, c, d], options);
                    // A full queue on the way out is a flood too.
                    let _ = flooder.send_to(&query, (flood.server, 67));
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for name in ["port-discover-ring-full", "port-ring-full"] {
                let name = format!("interface[{}].{name}", flood.interface);
                self.server.await_that(&name, |lost| lost > 0);
            }
            let leased = |number: u16| -> bool {
                let (socket, relay) = match number % 3 {
                    0 => (&direct, Ipv4Addr::UNSPECIFIED),
                    _ => (&self.socket, self.relay(number)),
                };
                let offered = answer(socket, &message(DISCOVER, relay, quiet(number), &[]), OFFER);
                offered.is_some_and(|address| {
                    let request = message(REQUEST, relay, quiet(number), &selecting(address));
                    answer(socket, &request, ACK) == Some(address)
                })
            };
            let mut missed = 0;
            let mut asking = 0..ASKING;
            while missed <= MISSED_MAX
                && let Some(number) = asking.next()
            {
                missed += usize::from(!(0..flood.tries).any(|_| leased(number)));
            }
            is_over.store(true, Ordering::Relaxed);
            missed
        });
        assert!(missed <= MISSED_MAX, "{missed} clients have no lease");
        self.server.stop();
    }
}

#[test]
fn a_flood_that_goes_on_leaves_other_relays_and_the_link_their_service() {
    const TEST: &str = "a_flood_that_goes_on_leaves_other_relays_and_the_link_their_service";
    let Some(scene) = Scene::new(TEST, 'f', "raw", 400) else { return };
    let link = lane(Ipv4Addr::UNSPECIFIED);
    assert_ne!(lane(FLOODED), link, "the link's own clients are not in the lane that is flooded");
    scene.leases_during(&Flood { server: SERVER, relay: FLOODED, interface: "veth-s", tries: 1 });
}

#[test]
fn a_flood_that_goes_on_leaves_another_interface_its_service() {
    const TEST: &str = "a_flood_that_goes_on_leaves_another_interface_its_service";
    let Some(scene) = Scene::new(TEST, 'i', "raw", 400) else { return };
    let flood = Flood {
        server: Cable::SECOND_SERVER,
        relay: Ipv4Addr::new(10, 9, 254, 1),
        interface: "veth-t",
        tries: 1,
    };
    let relays = &scene.relays;
    assert!(relays.iter().any(|relay| lane(*relay) == lane(flood.relay)), "each interface has its own lanes");
    scene.leases_during(&flood);
}

/// The ring that the flood fills has no room for all that others send, and they ask again as clients do. What is chosen from it goes round among
/// relays, and it is emptied faster than it fills.
#[test]
fn a_flood_that_goes_on_leaves_relays_of_its_own_lane_their_service() {
    const TEST: &str = "a_flood_that_goes_on_leaves_relays_of_its_own_lane_their_service";
    let in_its_lane = |relay| lane(relay) == lane(FLOODED);
    let Some(scene) = Scene::among(TEST, 'o', "raw", 400, in_its_lane) else { return };
    scene.leases_during(&Flood { server: SERVER, relay: FLOODED, interface: "veth-s", tries: 3 });
}

/// The address in the answer of a type to a query; nothing when the answer does not come.
fn answer(socket: &UdpSocket, query: &[u8], kind: u8) -> Option<Ipv4Addr> {
    socket.send_to(query, (SERVER, 67)).expect("sent");
    let mut buffer = [0; 600];
    // The answers to the flood come to the same socket.
    for _ in 0..2_000_000 {
        let len = socket.recv(&mut buffer).ok()?;
        if len > 242 && buffer[242] == kind && buffer[4..8] == query[4..8] && buffer[28..34] == query[28..34]
        {
            return Some(Ipv4Addr::new(buffer[16], buffer[17], buffer[18], buffer[19]));
        }
    }
    None
}
