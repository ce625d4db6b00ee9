//! What must never be, looked for at every step, and what must be at rest.
//!
//! * An answer that waits for the partner is about a lease that the partner has ([`World::check_told`] says what is excused).
//! * Two clients may hold one address only when at least one of their leases was given by a server that did not wait for its partner
//!   ([`Holding::solo`]), and the other had not learned of it: each alone, both may give the same address away, and neither can
//!   know. Once both are in the normal state and both tables name the same client, it is learned. A duplicate that began so lasts
//!   until one of the two leases ends; what a lost disk alone knew of is known to nobody.
//!
//! Clocks that differ move the end of a lease by as much, and whole seconds by two more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use aplomado::lease::{Lease4Buf, LeaseState};
use aplomado::store::{CrashDisk, Survivors};
use serde_json::Value;

use super::client::Doing;
use super::packet::Answer;
use super::random::{MS, S};
use super::server::{Server, on_disk};
use super::world::{NAMES, Node, ROUNDS_MAX, World};

/// Turns after which the disk has long answered.
const DISK_TURNS_MAX: u64 = 20;
/// A server stands still that long at most, and the time of a frame on its way.
const STILL_MAX: u64 = 3100 * MS;
/// Then it has read what came meanwhile.
const READ_AFTER: u64 = 100 * MS;

/// An answer leaves so much later than its row at most: it waits for a partner, on a server that stands still.
const WAITED_S: u64 = 5;

/// A lease as a client holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    pub(super) client: usize,
    pub(super) until: u64,
    /// Its end as the server counts that has promised it, which may be a second more.
    expire_s: u64,
    /// A server that stood still may yet free it, reading late that the client had given it back before.
    doubtful: bool,
    /// Given by a server that did not wait for its partner, which has not learned of it since.
    pub(super) solo: bool,
    /// One of two at a time, and allowed.
    pub(super) twin: bool,
}

impl World {
    /// A server has promised an address.
    pub(super) fn promise(&mut self, node: usize, client: usize, answer: &Answer, lifetime_s: u64) {
        self.seen.acks += 1;
        let address = answer.yiaddr();
        let name = NAMES[self.name(node)];
        let server = self.nodes[node].server.as_ref().expect("it has just sent");
        let awaits = |partner: usize| server.awaits(1 << partner);
        let partner = if self.mode == "passive-backup" { None } else { [1, 0].get(node).copied() };
        // What was decided without the partner waits for the disk alone, whatever has become of the partner since.
        let alone = self.nodes[node].turns - self.nodes[node].alone_turn <= DISK_TURNS_MAX;
        let solo = alone || !partner.is_some_and(awaits);
        // A repeated answer is for the lease as it is, whose end is at most this far away.
        let expire_s = (self.nodes[node].clock.now().wall_s + lifetime_s).saturating_sub(1);
        self.nodes[node].promised.insert(address, (client, expire_s));
        self.check_durable(node);
        if let Some(partner) = partner.filter(|_| !solo) {
            self.check_told(node, partner, client, address);
        }
        // One whose exchange is over does not listen any more: it holds nothing by this. But a server that stood still may so give away, late
        // and alone, what the other one has given alone meanwhile: the later of the two leases stays.
        if !self.clients[client].awaits(answer) {
            if solo {
                let holders = self.holdings.entry(address).or_default();
                holders
                    .iter_mut()
                    .filter(|holding| holding.client != client)
                    .for_each(|holding| holding.twin = true);
                // Or the other one gives it away alone after this.
                if holders.iter().all(|holding| holding.client != client) {
                    let until = self.now + lifetime_s * S;
                    holders.push(Holding { client, until, expire_s, doubtful: true, solo: true, twin: true });
                }
            }
            return;
        }
        // A client that is given another address has given up the first.
        for holders in self.holdings.values_mut() {
            holders.retain(|holding| holding.client != client);
        }
        let doubtful = self.may_be_given_back(client, address);
        let solo = solo || doubtful;
        let now = self.now;
        let slack = if self.skewed { 22 * S } else { 2 * S };
        let holders = self.holdings.entry(address).or_default();
        holders.retain(|holding| holding.until > now);
        let others: Vec<Holding> =
            holders.iter().copied().filter(|holding| holding.until > now + slack).collect();
        let twin = !others.is_empty();
        for other in &others {
            assert!(
                solo || other.solo || other.twin,
                "{name} gives {address} to client {client} while client {} holds it, and neither was given alone",
                other.client
            );
        }
        if twin {
            self.seen.twins += 1;
            holders.iter_mut().for_each(|holding| holding.twin = true);
        }
        holders.push(Holding { client, until: now + lifetime_s * S, expire_s, doubtful, solo, twin });
    }

    /// Whether a server that stands still has yet to read that the client has given this address back: it may come to that after what the
    /// client has said since, and free what it was told to renew. Frames overtake each other on the way between two shards as in a network.
    fn may_be_given_back(&self, client: usize, address: Ipv4Addr) -> bool {
        let Some((_, since)) = self.given_back.get(&client).filter(|(given, _)| *given == address) else {
            return false;
        };
        self.nodes.iter().any(|node| {
            let woken = node.frozen_until;
            (since + 1..since + STILL_MAX).contains(&woken) && self.now < woken + READ_AFTER
        })
    }

    /// What a server has promised is in its file after a crash.
    pub(super) fn check_kept(&mut self, node: usize, leases: &BTreeMap<Ipv4Addr, Lease4Buf>) {
        let promised = std::mem::take(&mut self.nodes[node].promised);
        self.check_promises(node, leases, &promised, Survivors::All);
    }

    /// What a server promises now, and has promised, would be in its file if the power failed now.
    fn check_durable(&mut self, node: usize) {
        let leases = self.nodes[node].server.as_mut().expect("it has just sent").leases();
        let mut promised = std::mem::take(&mut self.nodes[node].promised);
        self.check_promises(node, &leases, &promised, Survivors::Durable);
        // What has ended since is not promised any more, also when its client asks for it again.
        promised.retain(|address, (client, _)| leases.get(address).and_then(holder) == Some(*client));
        self.nodes[node].promised = promised;
    }

    fn check_promises(
        &self,
        node: usize,
        leases: &BTreeMap<Ipv4Addr, Lease4Buf>,
        promised: &BTreeMap<Ipv4Addr, (usize, u64)>,
        survivors: Survivors,
    ) {
        let name = NAMES[self.name(node)];
        let one = &self.nodes[node];
        let now_s = one.clock.now().wall_s;
        let found = on_disk(&one.disk.after(survivors));
        // A partner whose clock is behind renews a lease for a time that ends earlier by this server's.
        let slack_s = WAITED_S + if self.skewed { 22 } else { 0 };
        for (address, &(client, expire)) in promised {
            let is_clients = |lease: &Lease4Buf| {
                let lease = lease.view();
                lease.hw_addr.as_bytes().last() == u8::try_from(client).ok().as_ref()
                    && lease.state == LeaseState::Assigned
                    && lease.expire() + slack_s >= expire
            };
            if expire > now_s && leases.get(address).is_some_and(is_clients) {
                assert!(
                    found.get(address).is_some_and(is_clients),
                    "{name} has promised {address} to client {client} until {expire}, and after a crash its file says {:?}",
                    found.get(address)
                );
            }
        }
    }

    /// A server dies with these leases. That the client of one was never told is forgotten with it: no row says so. In its next life the
    /// lease may be the later one of an address that the partner has given away alone.
    pub(super) fn forget_untold(&mut self, leases: &BTreeMap<Ipv4Addr, Lease4Buf>) {
        for (address, lease) in leases {
            let Some(client) = holder(lease) else { continue };
            let others = self.holdings.get_mut(address).into_iter().flatten();
            others.filter(|holding| holding.client != client).for_each(|holding| holding.twin = true);
        }
    }

    /// A server that is not running loses its disk. What its partner does not know then is known to nobody: a lease that ends earlier there
    /// than was promised, too, since the partner may give its address away when it has ended.
    pub(super) fn lose_disk(&mut self, node: usize) {
        self.nodes[node].disk = CrashDisk::new();
        self.nodes[node].is_empty = true;
        let partner = [1, 0].get(node).filter(|_| self.mode != "passive-backup");
        if let Some(partner) = partner {
            self.only_known_to(*partner);
        }
    }

    /// An operator makes a server serve everybody that has not copied its partner's leases: it gives the addresses of those that it lacks away.
    /// Kea lets it be ordered in every state.
    pub(super) fn take_over_unprepared(&mut self, node: usize) {
        if self.mode != "passive-backup" && node < 2 {
            self.only_known_to(node);
        }
    }

    /// What this server does not know of what clients were promised is known to nobody that counts.
    fn only_known_to(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let known = match &mut node.server {
            Some(server) => server.leases(),
            None => on_disk(&node.disk),
        };
        for (address, holders) in &mut self.holdings {
            for holding in holders {
                let is_known = known.get(address).is_some_and(|lease| {
                    holder(lease) == Some(holding.client) && lease.view().expire() >= holding.expire_s
                });
                holding.solo |= !is_known;
                holding.twin |= !is_known;
            }
        }
    }

    /// An answer that waits for the partner is about a lease that the partner has. It may have forgotten, with its disk. And it may have
    /// taken over meanwhile: then it changes leases without a word to a server that does not know yet, which repeats what both knew
    /// before, or what it has just told it ([`World::note_told`]). An answer about a lease that was given alone has no such excuse. A
    /// client that has given its lease back, or whose older query came late and moved it to another address, is answered when the
    /// partner has both changes: it has the later one then, as this server has.
    fn check_told(&mut self, node: usize, partner: usize, client: usize, address: Ipv4Addr) {
        let own = self.nodes[node].server.as_mut().and_then(|server| server.lease(address));
        let other = &mut self.nodes[partner];
        let Some(server) = other.server.as_mut().filter(|_| !other.is_empty) else { return };
        let there = server.lease(address);
        let is_there = there.as_ref().and_then(holder) == Some(client)
            || own.as_ref().and_then(holder) != Some(client) && own == there;
        match &mut other.silent {
            Some(known) if is_there => {
                known.insert(address, client);
            }
            Some(known) if known.get(&address) == Some(&client) => {}
            _ => assert!(
                is_there,
                "{} has answered client {client} before its partner had {address}",
                NAMES[self.name(node)]
            ),
        }
    }

    /// A server has answered an update of leases. One that does not tell of what it does knows now what it was told, even if its client
    /// gives it back here before the other server hears the answer.
    pub(super) fn note_told(&mut self, node: usize, update: &[u8], answer: &[u8]) {
        let Some(known) = &mut self.nodes[node].silent else { return };
        let (Ok(update), Ok(answer)) =
            (serde_json::from_slice::<Value>(update), serde_json::from_slice::<Value>(answer))
        else {
            return;
        };
        if answer.pointer("/0/result").and_then(Value::as_u64) != Some(0) {
            return;
        }
        let failed = answer.pointer("/0/arguments/failed").and_then(Value::as_array);
        let failed: BTreeSet<_> =
            failed.into_iter().flatten().filter_map(|one| one.get("index").and_then(Value::as_u64)).collect();
        for (index, lease) in (0..).zip(leases_told(&update)) {
            let text = |key: &str| lease.get(key).and_then(Value::as_str);
            let in_use =
                lease.get("delete").is_none() && lease.get("state").and_then(Value::as_u64).unwrap_or(0) == 0;
            let address = address_of(lease);
            let octet = text("hw-address").and_then(|client| client.rsplit(':').next());
            let client = octet.and_then(|octet| usize::from_str_radix(octet, 16).ok());
            if let (Some(address), Some(client), true) = (address, client, in_use && !failed.contains(&index))
            {
                known.insert(address, client);
            }
        }
    }

    /// A server has heard what has become of its changes, or has not. Those that seem to have failed are not told to clients, nor made good
    /// before their clients ask again.
    pub(super) fn note_verdict(&mut self, addresses: Vec<Ipv4Addr>, answer: &Result<Vec<u8>, String>) {
        let answer = answer.as_ref().ok().and_then(|body| serde_json::from_slice::<Value>(body).ok());
        let is_whole = answer.as_ref().is_some_and(|answer| {
            answer.pointer("/0/result").and_then(Value::as_u64) == Some(0)
                && answer.pointer("/0/arguments/failed").is_none()
        });
        for address in addresses {
            if is_whole {
                self.refused.remove(&address);
            } else {
                self.refused.insert(address);
            }
        }
    }

    /// Takes down what a server knows when it ceases to tell its partner of what it does.
    pub(super) fn look_at_silence(&mut self) {
        if self.mode == "passive-backup" {
            return;
        }
        for node in 0..2 {
            let one = &mut self.nodes[node];
            let Some(server) = &mut one.server else { continue };
            if server.word().sent & (2 >> node) != 0 {
                one.silent = None;
            } else if one.silent.is_none() {
                let leases = server.leases();
                let held = leases.iter().filter_map(|(address, lease)| Some((*address, holder(lease)?)));
                one.silent = Some(held.collect());
            }
        }
    }

    /// Tells what has changed, and what it means for leases that were given alone.
    pub(super) fn look_at_states(&mut self) {
        let mut normal = 0;
        for node in 0..self.nodes.len() {
            let Some(server) = &self.nodes[node].server else { continue };
            let state = server.state();
            normal += usize::from(node < 2 && state == self.mode);
            if state == self.mode {
                self.nodes[node].is_empty = false;
            }
            if state != self.nodes[node].shown {
                self.nodes[node].shown = state;
                self.seen.states.insert(state);
                let name = NAMES[self.name(node)];
                self.tell(|| format!("{name} is in {state}"));
            }
        }
        if normal == 2 && self.mode != "passive-backup" {
            self.settle_alone();
        }
    }

    /// Both servers are in the normal state: what both have is not given alone any more.
    pub(super) fn settle_alone(&mut self) {
        let holdings = &self.holdings;
        let is_open =
            |address: &Ipv4Addr| holdings.get(address).into_iter().flatten().any(|holding| holding.solo);
        let open: BTreeSet<Ipv4Addr> = holdings.keys().copied().filter(is_open).collect();
        for address in open {
            let mut owners = BTreeSet::new();
            for node in &mut self.nodes[..2] {
                let lease = node.server.as_mut().and_then(|server| server.lease(address));
                // One that is released or over here may be given away, whatever the other has promised its client alone. One is over as soon as
                // the clock of either says so, and a clock may have been set.
                let now_s = node.clock.now().wall_s;
                let lease = lease.filter(|lease| {
                    lease.view().state == LeaseState::Assigned && lease.view().expire() > now_s
                });
                // One that ends earlier here than there is not known here: nobody tells of a renewal but who made it.
                owners.insert(lease.as_ref().and_then(|lease| Some((holder(lease)?, lease.view().expire()))));
            }
            let Some(Some((owner, expire_s))) = owners.first().copied().filter(|_| owners.len() == 1) else {
                continue;
            };
            let holders = self.holdings.entry(address).or_default();
            let mut learned = false;
            // What it was promised beyond that was lost with a disk.
            let is_whole = |holding: &&mut Holding| holding.client == owner && holding.expire_s <= expire_s;
            for holding in holders.iter_mut().filter(is_whole) {
                learned |= std::mem::take(&mut holding.solo);
            }
            if learned {
                self.tell(|| format!("both know that client {owner} has {address}"));
            }
        }
    }

    /// No client has said anything for a while and nothing is on its way. When both servers of a pair are in the normal state both know what
    /// clients were promised, and the same of every address.
    pub(super) fn compare_tables(&mut self) {
        let busy = (0..ROUNDS_MAX).take_while(|_| self.turn()).count();
        assert!(busy < 1000, "the servers do not come to rest");
        if self.mode == "passive-backup" {
            return;
        }
        let is_normal = |node: &Node| node.server.as_ref().is_some_and(|server| server.state() == self.mode);
        if !self.nodes[..2].iter().all(is_normal) {
            return;
        }
        self.seen.compared += 1;
        self.nodes.iter_mut().filter_map(|node| node.server.as_mut()).for_each(Server::check_statistics);
        let tables: Vec<_> = self.nodes[..2]
            .iter_mut()
            .map(|node| node.server.as_mut().expect("it is normal").leases())
            .collect();
        let mut wrong = String::new();
        // An answer waits for a partner that is slow. A clock that is set between a row and its answer moves the end. Of what two servers
        // have done alone the later of two wrong clocks counts.
        let skew_s = if self.skewed { 22 } else { 0 };
        let ends = self.now + (skew_s + 2) * S;
        for (address, holders) in &self.holdings {
            let counts = |holding: &&Holding| {
                holding.until > ends && !holding.twin && !holding.doubtful && (!self.skewed || !holding.solo)
            };
            for holding in holders.iter().filter(counts) {
                for (node, table) in tables.iter().enumerate() {
                    let lease = table.get(address);
                    let is_known = lease.is_some_and(|lease| {
                        holder(lease) == Some(holding.client)
                            && lease.view().expire() + skew_s + WAITED_S >= holding.expire_s
                    });
                    if !is_known {
                        let _ = writeln!(
                            wrong,
                            "{address} was promised to client {} until {}, {} has {}",
                            holding.client,
                            holding.expire_s,
                            NAMES[node],
                            brief(lease)
                        );
                    }
                    self.seen.known += 1;
                }
            }
        }
        let latest = self.nodes[..2].iter().map(|node| node.clock.now().wall_s).max().unwrap_or_default();
        let in_use = |lease: Option<&Lease4Buf>| {
            let lease = lease?.view();
            let counts = lease.state == LeaseState::Assigned && lease.expire() > latest + 1;
            counts.then(|| (lease.hw_addr.as_bytes().to_vec(), lease.expire()))
        };
        for address in tables[0].keys().chain(tables[1].keys()) {
            let (one, other) = (in_use(tables[0].get(address)), in_use(tables[1].get(address)));
            // A renewal that its client was not told of is not made known before the client asks again.
            let untold = match (&one, &other) {
                (Some((holder, ends)), Some((same, ends_there))) if holder == same => {
                    let holders = self.holdings.get(address).into_iter().flatten();
                    let told = holders.map(|holding| holding.expire_s).max();
                    told.is_some_and(|told| *ends.min(ends_there) + WAITED_S >= told)
                }
                _ => false,
            };
            if one != other && !self.skewed && !untold && !self.refused.contains(address) {
                let _ = writeln!(
                    wrong,
                    "{address}: {} and {}",
                    brief(tables[0].get(address)),
                    brief(tables[1].get(address))
                );
            }
        }
        assert!(wrong.is_empty(), "both are normal, nothing is on its way:\n{wrong}");
    }

    pub(super) fn check_rest(&mut self) {
        let mut wrong = String::new();
        // What has arrived is done with first: queries are on their way between shards, too.
        let busy = (0..ROUNDS_MAX).take_while(|_| self.turn()).count();
        assert!(busy < 1000, "the servers do not come to rest");
        let now = self.now;
        let count = if self.mode == "passive-backup" { 1 } else { 2 };
        for node in 0..count {
            let state = self.nodes[node].server.as_ref().expect("started").state();
            if state != self.mode {
                let _ = writeln!(wrong, "{} is in {state}", NAMES[self.name(node)]);
            }
        }
        for client in &self.clients {
            let is_served = matches!(client.doing, Doing::Bound { until, .. } if until > now);
            if !is_served {
                let _ = writeln!(wrong, "client {} is not served: {:?}", client.number, client.doing);
            }
        }
        let mut tables = Vec::new();
        for node in &mut self.nodes {
            let wall_s = node.clock.now().wall_s;
            let server = node.server.as_mut().expect("started");
            if server.job_count() > 0 {
                let _ = writeln!(wrong, "{} commands are not answered", server.job_count());
            }
            server.check_counters();
            server.check_statistics();
            let mut leases = server.leases();
            leases.retain(|_, lease| {
                lease.view().state == LeaseState::Assigned && lease.view().expire() > wall_s + 1
            });
            let told = leases.into_iter().map(|(address, lease)| {
                let lease = lease.view();
                (address, (lease.hw_addr.as_bytes().to_vec(), lease.expire()))
            });
            tables.push(told.collect::<BTreeMap<_, _>>());
        }
        for node in 1..tables.len() {
            for address in tables[0].keys().chain(tables[node].keys()) {
                let (one, other) = (tables[0].get(address), tables[node].get(address));
                if one != other {
                    let _ = writeln!(
                        wrong,
                        "{address}: alpha has {one:?}, {} has {other:?}",
                        NAMES[self.name(node)]
                    );
                }
            }
        }
        assert!(wrong.is_empty(), "at rest:\n{wrong}");
    }
}

/// A lease in few words.
fn brief(lease: Option<&Lease4Buf>) -> String {
    lease.map_or_else(
        || "nothing".to_owned(),
        |lease| {
            let lease = lease.view();
            format!("{:?} {:?} {}+{}", lease.hw_addr, lease.state, lease.cltt, lease.valid_lft)
        },
    )
}

/// The client that has a lease in use.
fn holder(lease: &Lease4Buf) -> Option<usize> {
    let lease = lease.view();
    let octet = lease.hw_addr.as_bytes().last().filter(|_| lease.state == LeaseState::Assigned);
    octet.map(|octet| usize::from(*octet))
}

/// The leases of which a command tells, in either form.
fn leases_told(update: &Value) -> impl Iterator<Item = &Value> {
    let list = update.pointer("/arguments/leases").and_then(Value::as_array);
    let single = update.get("arguments").filter(|_| list.is_none());
    list.into_iter().flatten().chain(single)
}

fn address_of(lease: &Value) -> Option<Ipv4Addr> {
    lease.get("ip-address")?.as_str()?.parse().ok()
}

/// The addresses of which a command tells.
pub(super) fn addresses(body: &[u8]) -> Vec<Ipv4Addr> {
    let update: Value = serde_json::from_slice(body).unwrap_or_default();
    leases_told(&update).filter_map(address_of).collect()
}

/// Whether a command tells of leases.
pub(super) fn is_update(body: &[u8]) -> bool {
    let has = |name: &[u8]| body.windows(name.len()).any(|part| part == name);
    has(b"\"aplomado-bulk-apply\"") || has(b"\"lease4-update\"")
}

/// What a heartbeat's answer says is the state of the machine.
pub(super) fn check_shown(body: &[u8], before: &str, after: &str) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return };
    let Some(shown) = answer.pointer("/0/arguments/state").and_then(Value::as_str) else { return };
    if answer.pointer("/0/arguments/unsent-update-count").is_some() {
        assert!(
            shown == before || shown == after,
            "{shown} is shown, the machine goes from {before} to {after}"
        );
    }
}
