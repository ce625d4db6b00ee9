//! More than the server can take, sent through one relay: what the clients of others get.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
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
/// Messages of the flood: more than any queue of the kernel holds.
const FLOOD: u32 = 12_000;

/// A message of a client behind a relay.
fn message(kind: u8, relay: Ipv4Addr, client: [u8; 6], options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 1]);
    message[4..8].copy_from_slice(&client[2..]);
    message[24..28].copy_from_slice(&relay.octets());
    message[28..34].copy_from_slice(&client);
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

#[test]
fn a_flood_through_one_relay_of_udp_sockets_leaves_the_clients_of_others_their_service() {
    const TEST: &str = "a_flood_through_one_relay_of_udp_sockets_leaves_the_clients_of_others_their_service";
    let Some(cable) = Cable::new(TEST, 'u') else { return };
    let others = (2..=255).map(|host| Ipv4Addr::new(10, 0, 254, host));
    let relays: Vec<_> = others.filter(|relay| lane(*relay) != lane(FLOODED)).take(6).collect();
    relays.iter().for_each(|relay| cable.client_address(*relay));
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"] = json!({ "interfaces": ["veth-s"], "dhcp-socket-type": "udp" });
    // One shard, which the flood fills.
    dhcp4["multi-threading"]["thread-pool-size"] = json!(1);
    place.write_config(&dhcp4);
    let server = cable.start(&place);
    let space = File::open(format!("/run/netns/{}", cable.client)).expect("it was just made");
    enter_network_namespace(&space).expect("root may enter it");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("a socket for all relays");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("settable");

    let through = |number: u16| relays[usize::from(number) % relays.len()];
    let ask = |kind, queries: &[Vec<u8>], answer| {
        let tried = (0..20).find_map(|_| answered_behind_a_flood(&server, &socket, kind, queries, answer));
        let given: Vec<_> = tried.expect("the machine has half a second").into_iter().flatten().collect();
        assert_eq!(given.len(), queries.len(), "answers of type {answer}");
        given
    };
    let queries: Vec<_> =
        (0..CLIENTS).map(|number| message(DISCOVER, through(number), quiet(number), &[])).collect();
    let offered = ask(DISCOVER, &queries, OFFER);
    let request = |(number, address): (u16, &Ipv4Addr)| {
        let mut options = vec![54, 4, 10, 0, 255, 1, 50, 4];
        options.extend(address.octets());
        message(REQUEST, through(number), quiet(number), &options)
    };
    let queries: Vec<_> = (0..CLIENTS).zip(&offered).map(request).collect();
    assert_eq!(ask(REQUEST, &queries, ACK), offered);
    for name in ["port-discover-ring-full", "port-ring-full"] {
        server.await_that(&format!("interface[veth-s].{name}"), |lost| lost > 0);
    }
    server.stop();
}
