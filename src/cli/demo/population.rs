//! The demo's clients: what each of them is about to do, what it holds, and what the servers said. No sockets, no clock.
//!
//! What a client holds is what a server has acknowledged to it: set by an ACK, cleared when a RELEASE is sent. These
//! are the promises that the other server must keep when one is killed.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::wire::codes::MessageType;
use crate::wire::dhcp4::{self, Packet};
use crate::wire::frame::{self, Addresses, PAYLOAD_OFFSET};
use crate::wire::option::OptionTable;

/// A client that heard nothing asks again after this long.
const ASK_AGAIN_NS: u64 = 400_000_000;
/// How often silent clients are looked for.
const LOOK_NS: u64 = 50_000_000;
/// One deed in so many is a release.
const RELEASE_ONE_IN: u64 = 16;
/// Longest message of a client.
const MESSAGE_BYTES: usize = 300;

/// A server, as clients see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerEnd {
    /// Its Ethernet address.
    pub(super) mac: [u8; 6],
    /// Its address.
    pub(super) address: Ipv4Addr,
}

/// The ends of the wires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The Ethernet address that all clients send from.
    pub(super) clients_mac: [u8; 6],
    /// The servers.
    pub(super) servers: [ServerEnd; 2],
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing, and it has no address.
    Idle,
    /// An offer.
    Selecting,
    /// The acknowledgement of an offer.
    Requesting(Ipv4Addr),
    /// Nothing; it has an address.
    Bound,
    /// The acknowledgement of a renewal, from the server that gave the address.
    Renewing,
    /// The same from any server, since that one is silent.
    Rebinding,
    /// An answer to "I had this address": given only by a server that remembers (RFC 2131 4.3.2, INIT-REBOOT).
    Rebooting,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    state: State,
    holds: Option<Ipv4Addr>,
    xid: u32,
    asked_ns: u64,
    began_ns: u64,
    /// The server that it talked to last.
    server: usize,
    kept: bool,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// DISCOVERs sent.
    pub(super) discovers: u64,
    /// OFFERs heard.
    pub(super) offers: u64,
    /// ACKs that gave an address.
    pub(super) leased: u64,
    /// ACKs that renewed one.
    pub(super) renewed: u64,
    /// RELEASEs sent.
    pub(super) released: u64,
    /// NAKs heard.
    pub(super) naks: u64,
    /// Messages sent again for want of an answer.
    pub(super) repeated: u64,
    /// ACKs by each server.
    pub(super) acks: [u64; 2],
}

/// What became of the leases that were acknowledged when a server was killed.
#[derive(Clone, Debug, Default)]
pub(super) struct Proof {
    /// The server that was killed.
    pub(super) dead: usize,
    /// When.
    pub(super) killed_ns: u64,
    /// Acknowledged leases that are asked for.
    pub(super) asked: usize,
    /// How many of them clients had from the killed server.
    pub(super) from_dead: usize,
    /// Confirmed with the same address.
    pub(super) kept: usize,
    /// When the first client of the killed server got an ACK from the other one.
    pub(super) taken_over_ns: Option<u64>,
    /// When the last lease was confirmed.
    pub(super) all_kept_ns: Option<u64>,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Population {
    ends: Ends,
    clients: Vec<Client>,
    random: u64,
    looked_ns: u64,
    next: usize,
    proof: Option<Proof>,
    holders: HashMap<Ipv4Addr, usize>,
    /// Acknowledged leases that a server refused to confirm, or gave another address for: which client, what it held, what came.
    pub(super) lost: Vec<String>,
    /// Addresses that were acknowledged to one client while another held them.
    pub(super) doubled: Vec<String>,
    /// What happened so far.
    pub(super) counts: Counts,
    /// From the first message of an exchange to its ACK, in microseconds, since [`Self::times_taken`].
    times_us: Vec<u64>,
    table: Box<OptionTable>,
}

impl Population {
    pub(super) fn new(count: usize, ends: Ends, seed: u64) -> Self {
        let client = Client {
            state: State::Idle,
            holds: None,
            xid: 0,
            asked_ns: 0,
            began_ns: 0,
            server: 0,
            kept: true,
        };
        Self {
            ends,
            clients: vec![client; count],
            random: seed | 1,
            looked_ns: 0,
            next: 0,
            proof: None,
            holders: HashMap::new(),
            lost: Vec::new(),
            doubled: Vec::new(),
            counts: Counts::default(),
            times_us: Vec::new(),
            table: Box::new(OptionTable::new()),
        }
    }

    /// How many addresses are held.
    pub(super) fn held_count(&self) -> usize {
        self.clients.iter().filter(|client| client.holds.is_some()).count()
    }

    /// Every acknowledged lease: the client's hardware address and its address.
    pub(super) fn ledger(&self) -> impl Iterator<Item = ([u8; 6], Ipv4Addr)> + '_ {
        self.clients
            .iter()
            .enumerate()
            .filter_map(|(number, client)| client.holds.map(|address| (hardware_address(number), address)))
    }

    /// Median and 99th percentile of the times since the last call, in microseconds.
    pub(super) fn times_taken(&mut self) -> Option<(u64, u64)> {
        self.times_us.sort_unstable();
        let at = |percent: usize| {
            let last = self.times_us.len().checked_sub(1)?;
            self.times_us.get(last * percent / 100).copied()
        };
        let times = at(50).zip(at(99));
        self.times_us.clear();
        times
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_at_rest(&self) -> bool {
        self.clients.iter().all(Client::is_at_rest)
    }

    /// Lets up to `budget` clients begin something new, and those that heard nothing ask again.
    pub(super) fn act(&mut self, now_ns: u64, budget: usize, send: &mut impl FnMut(&[u8])) {
        for _ in 0..budget {
            let Some(number) = self.next_client() else { break };
            let client = self.clients[number];
            let state = match client.holds {
                None => State::Selecting,
                Some(_) if !client.kept => State::Rebooting,
                Some(_) if self.draw().is_multiple_of(RELEASE_ONE_IN) => {
                    self.release(number, now_ns, send);
                    continue;
                }
                Some(_) => State::Renewing,
            };
            self.begin(number, state, now_ns, send);
        }
        if now_ns.saturating_sub(self.looked_ns) >= LOOK_NS {
            self.looked_ns = now_ns;
            self.ask_again(now_ns, send);
        }
    }

    /// The next client at rest.
    fn next_client(&mut self) -> Option<usize> {
        let count = self.clients.len();
        for _ in 0..count {
            let number = self.next;
            self.next = (self.next + 1) % count;
            if self.clients[number].is_at_rest() {
                return Some(number);
            }
        }
        None
    }

    fn begin(&mut self, number: usize, state: State, now_ns: u64, send: &mut impl FnMut(&[u8])) {
        let xid = u32::try_from(self.draw() >> 32).expect("32 bits are left");
        let client = &mut self.clients[number];
        *client = Client { state, xid, began_ns: now_ns, ..*client };
        self.ask(number, now_ns, send);
    }

    /// Sends what the client's state says.
    fn ask(&mut self, number: usize, now_ns: u64, send: &mut impl FnMut(&[u8])) {
        let client = &mut self.clients[number];
        let server = self.ends.servers[client.server].address.octets();
        client.asked_ns = now_ns;
        let held = client.holds.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (kind, ciaddr, options): (_, _, &[(u8, [u8; 4])]) = match client.state {
            State::Idle | State::Bound => return,
            State::Selecting => (MessageType::Discover, Ipv4Addr::UNSPECIFIED, &[]),
            State::Requesting(address) => {
                (MessageType::Request, Ipv4Addr::UNSPECIFIED, &[(50, address.octets()), (54, server)])
            }
            State::Renewing | State::Rebinding => (MessageType::Request, held, &[]),
            State::Rebooting => (MessageType::Request, Ipv4Addr::UNSPECIFIED, &[(50, held.octets())]),
        };
        self.counts.discovers += u64::from(kind == MessageType::Discover);
        self.send(number, kind, ciaddr, options, send);
    }

    fn release(&mut self, number: usize, now_ns: u64, send: &mut impl FnMut(&[u8])) {
        let xid = u32::try_from(self.draw() >> 32).expect("32 bits are left");
        let client = &mut self.clients[number];
        let Some(address) = client.holds.take() else { return };
        *client = Client { state: State::Idle, xid, asked_ns: now_ns, began_ns: now_ns, ..*client };
        self.counts.released += 1;
        self.holders.remove(&address);
        let server = self.ends.servers[client.server].address.octets();
        self.send(number, MessageType::Release, address, &[(54, server)], send);
    }

    fn ask_again(&mut self, now_ns: u64, send: &mut impl FnMut(&[u8])) {
        for number in 0..self.clients.len() {
            let client = self.clients[number];
            if client.is_at_rest() || now_ns.saturating_sub(client.asked_ns) < ASK_AGAIN_NS {
                continue;
            }
            self.counts.repeated += 1;
            match client.state {
                // An offer that is not acknowledged was for nothing: begin anew.
                State::Requesting(_) => self.clients[number].state = State::Selecting,
                // The server that gave the address is silent: any other may answer (RFC 2131 4.4.5).
                State::Renewing => self.clients[number].state = State::Rebinding,
                _ => {}
            }
            self.ask(number, now_ns, send);
        }
    }

    fn send(
        &self,
        number: usize,
        kind: MessageType,
        ciaddr: Ipv4Addr,
        options: &[(u8, [u8; 4])],
        send: &mut impl FnMut(&[u8]),
    ) {
        let client = &self.clients[number];
        let mut bytes = [0; PAYLOAD_OFFSET + MESSAGE_BYTES];
        let message = &mut bytes[PAYLOAD_OFFSET..];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&client.xid.to_be_bytes());
        // How long it has been trying: this is what a partner takes for a sign of death.
        let waited_s = client.asked_ns.saturating_sub(client.began_ns) / 1_000_000_000;
        message[8..10].copy_from_slice(&u16::try_from(waited_s).unwrap_or(u16::MAX).to_be_bytes());
        message[12..16].copy_from_slice(&ciaddr.octets());
        message[28..34].copy_from_slice(&hardware_address(number));
        message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message[240..243].copy_from_slice(&[53, 1, kind.number()]);
        let mut at = 243;
        for (code, value) in options {
            message[at] = *code;
            message[at + 1] = 4;
            message[at + 2..at + 6].copy_from_slice(value);
            at += 6;
        }
        message[at..at + 5].copy_from_slice(&[55, 2, 1, 3, 255]);
        let unicast = !ciaddr.is_unspecified() && client.state != State::Rebinding;
        let server = self.ends.servers[client.server];
        let addresses = Addresses {
            l2_src: self.ends.clients_mac,
            l2_dst: if unicast { server.mac } else { frame::BROADCAST },
            src: ciaddr,
            dst: if unicast { server.address } else { Ipv4Addr::BROADCAST },
            src_port: 68,
            dst_port: 67,
        };
        let len =
            frame::emit(&mut bytes, &addresses, MESSAGE_BYTES).expect("a client's message fits a frame");
        send(&bytes[..len]);
    }

    /// Takes in a frame from a server; what a client says to it goes to `send`.
    pub(super) fn take(&mut self, bytes: &[u8], now_ns: u64, send: &mut impl FnMut(&[u8])) {
        let Some(payload) = payload_for_clients(bytes) else { return };
        let Some(server) = self.ends.servers.iter().position(|server| bytes[6..12] == server.mac) else {
            return;
        };
        let Ok(head) = dhcp4::parse(payload, &mut self.table) else { return };
        let (Ok(packet), Some(kind)) = (Packet::new_checked(payload), head.message_type) else { return };
        let Some(number) = number_of(packet.chaddr()).filter(|number| *number < self.clients.len()) else {
            return;
        };
        let client = &mut self.clients[number];
        if packet.xid() != client.xid {
            return;
        }
        let given = packet.yiaddr();
        match (kind, client.state) {
            (MessageType::Offer, State::Selecting) => {
                client.state = State::Requesting(given);
                client.server = server;
                self.counts.offers += 1;
                self.ask(number, now_ns, send);
            }
            (
                MessageType::Ack,
                State::Requesting(_) | State::Renewing | State::Rebinding | State::Rebooting,
            ) => {
                self.acknowledged(number, server, given, now_ns);
            }
            (
                MessageType::Nak,
                State::Requesting(_) | State::Renewing | State::Rebinding | State::Rebooting,
            ) => {
                self.counts.naks += 1;
                client.state = State::Idle;
                client.kept = true;
                if let Some(held) = client.holds.take() {
                    self.holders.remove(&held);
                    self.lost.push(format!("client {number} held {held} and was refused"));
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, number: usize, server: usize, given: Ipv4Addr, now_ns: u64) {
        let client = &mut self.clients[number];
        let (before, held) = (client.server, client.holds.replace(given));
        let asked = !client.kept;
        *client = Client { state: State::Bound, server, kept: true, ..*client };
        self.times_us.push(now_ns.saturating_sub(client.began_ns) / 1000);
        self.counts.acks[server] += 1;
        match held {
            None => self.counts.leased += 1,
            Some(_) => self.counts.renewed += 1,
        }
        if let Some(held) = held.filter(|held| *held != given) {
            self.holders.remove(&held);
            self.lost.push(format!("client {number} held {held} and was given {given}"));
        }
        if let Some(other) = self.holders.insert(given, number).filter(|other| *other != number) {
            self.doubled.push(format!("{given} was given to client {number} while client {other} held it"));
        }
        if let Some(proof) = &mut self.proof {
            if held.is_some() && before == proof.dead && server != proof.dead {
                proof.taken_over_ns.get_or_insert(now_ns);
            }
            if asked {
                proof.kept += usize::from(held == Some(given));
                proof.all_kept_ns = (proof.kept == proof.asked).then_some(now_ns);
            }
        }
    }

    /// A server was killed: every client that holds an address asks next whether it may keep it. What was in the air is
    /// asked for again, what was acknowledged is a promise.
    pub(super) fn begin_proof(&mut self, dead: usize, now_ns: u64) {
        let mut proof = Proof { dead, killed_ns: now_ns, ..Proof::default() };
        for client in self.clients.iter_mut().filter(|client| client.holds.is_some()) {
            client.kept = false;
            client.state = State::Bound;
            proof.asked += 1;
            proof.from_dead += usize::from(client.server == dead);
        }
        self.proof = Some(proof);
    }

    /// How the proof stands.
    pub(super) fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// Ends the proof: who has not been answered by now has lost its lease.
    pub(super) fn end_proof(&mut self) -> Proof {
        for (number, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| !client.kept) {
            client.kept = true;
            let held = client.holds.map_or_else(|| "nothing".to_owned(), |held| held.to_string());
            self.lost.push(format!("client {number} held {held} and was not answered"));
        }
        self.proof.take().unwrap_or_default()
    }

    fn draw(&mut self) -> u64 {
        // SplitMix64: any seed gives a good sequence.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

impl Client {
    const fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Idle | State::Bound)
    }
}

/// The payload of a UDP datagram over IPv4 for the clients' port, whole and without IP options, as servers send it.
fn payload_for_clients(bytes: &[u8]) -> Option<&[u8]> {
    let (headers, payload) = bytes.split_first_chunk::<PAYLOAD_OFFSET>()?;
    let is_ours = headers[12..15] == [0x08, 0x00, 0x45] && headers[23] == 17 && headers[36..38] == [0, 68];
    let len = usize::from(u16::from_be_bytes([headers[38], headers[39]])).checked_sub(8)?;
    payload.get(..len).filter(|_| is_ours)
}

/// Locally administered, with the client's number in its last four octets.
fn hardware_address(number: usize) -> [u8; 6] {
    let [a, b, c, d] = u32::try_from(number).expect("clients are few").to_be_bytes();
    [0x02, 0xa9, a, b, c, d]
}

fn number_of(chaddr: &[u8]) -> Option<usize> {
    let [0x02, 0xa9, octets @ ..] = chaddr else { return None };
    usize::try_from(u32::from_be_bytes(octets.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        clients_mac: [2, 0, 0, 0, 0, 9],
        servers: [
            ServerEnd { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(10, 67, 0, 1) },
            ServerEnd { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 67, 0, 2) },
        ],
    };
    const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 67, 1, 7);

    /// What a server says to the query in `bytes`.
    fn answer(bytes: &[u8], kind: u8, yiaddr: Ipv4Addr) -> Vec<u8> {
        answer_of(0, bytes, kind, yiaddr)
    }

    fn answer_of(server: usize, bytes: &[u8], kind: u8, yiaddr: Ipv4Addr) -> Vec<u8> {
        let mut answer = bytes.to_vec();
        let message = &mut answer[PAYLOAD_OFFSET..];
        message[0] = 2;
        message[16..20].copy_from_slice(&yiaddr.octets());
        message[242] = kind;
        message[243] = 255;
        let addresses = Addresses {
            l2_src: ENDS.servers[server].mac,
            l2_dst: ENDS.clients_mac,
            src: ENDS.servers[server].address,
            dst: yiaddr,
            src_port: 67,
            dst_port: 68,
        };
        frame::emit(&mut answer, &addresses, MESSAGE_BYTES).expect("it fits");
        answer
    }

    fn asked(population: &mut Population, now_ns: u64) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        population.act(now_ns, 1, &mut |bytes| sent.push(bytes.to_vec()));
        sent
    }

    fn bound() -> Population {
        let mut population = Population::new(1, ENDS, 1);
        let discover = asked(&mut population, 1).remove(0);
        let mut request = Vec::new();
        population.take(&answer(&discover, 2, GIVEN), 2, &mut |bytes| request = bytes.to_vec());
        population.take(&answer(&request, 5, GIVEN), 3, &mut |_| {});
        population
    }

    #[test]
    fn an_acknowledged_address_is_held_and_an_offered_one_is_not() {
        let mut population = Population::new(1, ENDS, 1);
        let discover = asked(&mut population, 1).remove(0);
        population.take(&answer(&discover, 2, GIVEN), 2, &mut |_| {});
        assert_eq!(population.held_count(), 0);
        let population = bound();
        assert_eq!(population.ledger().collect::<Vec<_>>(), [(hardware_address(0), GIVEN)]);
        assert_eq!((population.counts.offers, population.counts.leased), (1, 1));
    }

    #[test]
    fn proof_counts_silence_refusal_and_another_address_as_lost() {
        for (kind, given, kept) in [
            (Some(5), GIVEN, 1),
            (Some(5), Ipv4Addr::new(10, 67, 1, 8), 0),
            (Some(6), Ipv4Addr::UNSPECIFIED, 0),
            (None, GIVEN, 0),
        ] {
            let mut population = bound();
            population.begin_proof(0, 5);
            let request = asked(&mut population, 10).remove(0);
            if let Some(kind) = kind {
                population.take(&answer_of(1, &request, kind, given), 11, &mut |_| {});
            }
            let proof = population.end_proof();
            assert_eq!((proof.asked, proof.from_dead, proof.kept), (1, 1, kept), "{kind:?} {given}");
            assert_eq!(population.lost.len(), 1 - kept, "{kind:?} {given}");
            let taken_over = (kind == Some(5)).then_some(11);
            assert_eq!(proof.taken_over_ns, taken_over, "{kind:?} {given}");
        }
    }

    #[test]
    fn an_address_of_two_clients_is_told() {
        let mut population = Population::new(2, ENDS, 1);
        for server in [0, 1] {
            let discover = asked(&mut population, 1).remove(0);
            let mut request = Vec::new();
            population
                .take(&answer_of(server, &discover, 2, GIVEN), 2, &mut |bytes| request = bytes.to_vec());
            assert_eq!(population.doubled, Vec::<String>::new());
            population.take(&answer_of(server, &request, 5, GIVEN), 3, &mut |_| {});
        }
        assert_eq!(population.doubled, ["10.67.1.7 was given to client 1 while client 0 held it"]);
        assert_eq!(population.counts.acks, [1, 1]);
    }

    #[test]
    fn a_renewal_goes_to_the_server_that_gave_the_address_and_then_to_all() {
        // One deed in some is a release: a seed under which the first is none.
        let (mut population, sent) = (1..)
            .find_map(|seed| {
                let mut population = bound();
                population.random = seed;
                let sent = asked(&mut population, LOOK_NS).remove(0);
                (sent[PAYLOAD_OFFSET + 242] == 3).then_some((population, sent))
            })
            .expect("most deeds are renewals");
        assert_eq!(sent[..6], ENDS.servers[0].mac);
        let again = asked(&mut population, LOOK_NS + 3 * ASK_AGAIN_NS).remove(0);
        assert_eq!(again[..6], frame::BROADCAST);
        assert_eq!(again[PAYLOAD_OFFSET + 8..PAYLOAD_OFFSET + 10], [0, 1], "it has waited for a second");
        assert_eq!(again[PAYLOAD_OFFSET + 12..PAYLOAD_OFFSET + 16], GIVEN.octets());
    }

    #[test]
    fn a_silent_server_is_asked_again_and_an_old_answer_is_not_taken() {
        let mut population = Population::new(1, ENDS, 1);
        let first = asked(&mut population, LOOK_NS).remove(0);
        assert_eq!(asked(&mut population, 2 * LOOK_NS), Vec::<Vec<u8>>::new());
        assert_eq!(asked(&mut population, LOOK_NS + ASK_AGAIN_NS).len(), 1);
        assert_eq!(population.counts.repeated, 1);
        let mut foreign = answer(&first, 2, GIVEN);
        foreign[PAYLOAD_OFFSET + 7] ^= 1;
        population.take(&foreign, 3, &mut |_| {});
        assert_eq!(population.counts.offers, 0);
    }
}
