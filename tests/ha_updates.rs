//! The way of lease updates from the log to a peer, turned by hand: what travels together, what becomes of a peer that is silent,
//! refuses, or is older.

#[path = "../benches/rig/mod.rs"]
mod rig;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aplomado::ha::backlog::Delayed;
use aplomado::ha::command::Verdict;
use aplomado::ha::config::parse;
use aplomado::ha::relationship::Ticket;
use aplomado::ha::view::{ScopeParts, ScopeWord};
use aplomado::ids::{HwAddr, Lsn, PeerId, ShardId, SubnetId};
use aplomado::journal::{Change, ChangeOrigin, Tap};
use aplomado::lease::request::{LeaseChange, LeaseFilter, LeaseReply, LeaseRequest, Origin, PutMode};
use aplomado::lease::{Lease4, LeaseState};
use aplomado::net::{MemoryPort, RxFlags};
use aplomado::server::gathering::FAST_CHANGES_MIN;
use aplomado::server::ha::links::{Links, Refusal, UpdateTap};
use aplomado::server::ha::queue::QUEUE_MAX;
use aplomado::server::ha::workers::{Job, PeerWork, Report, Reporter, Tag, Updates};
use aplomado::server::shard_loop::{Event, Order};
use aplomado::wire::drop::DropReason;
use crossbeam::channel::{Receiver, unbounded};
use rig::{INTERFACE, Message, Rig, START_S, address, client_id, mac};
use serde_json::{Value, json};

/// The partner's position.
const PARTNER: usize = 1;
const DONE: &str = r#"[ { "result": 0, "text": "done" } ]"#;

/// The sending side of one server of a pair.
struct Sender {
    links: Arc<Links>,
    tap: UpdateTap,
    workers: Vec<PeerWork>,
    reports: Receiver<Report>,
    /// How often the control thread was woken.
    woken: Arc<AtomicUsize>,
    last: [u64; 2],
}

impl Sender {
    fn new(parts: ScopeParts) -> Self {
        let map = json!({ "this-server-name": "alpha", "mode": "hot-standby",
            "peers": [ { "name": "alpha", "url": "http://10.9.0.1:8005/", "role": "primary" },
                       { "name": "beta", "url": "http://10.9.0.2:8005/", "role": "standby" } ] });
        let mut parsed = parse(&json!([map]), &mut |_| Ok(String::new())).expect("valid");
        let config = parsed.relationships.remove(0);
        let woken = Arc::new(AtomicUsize::new(0));
        let wake = {
            let woken = Arc::clone(&woken);
            Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            })
        };
        let (links, mut ends) = Links::new(&config, 0, 2, 2, 7, wake);
        links.publish(ScopeWord::new(parts));
        let (reports_tx, reports) = unbounded();
        let reporter = Reporter { reports: reports_tx, links: Arc::clone(&links) };
        let workers = ends
            .remove(0)
            .into_iter()
            .map(|queue| {
                let updates = Updates::new(0, "alpha", Duration::from_secs(1), queue);
                PeerWork::updates(PARTNER, "worker".to_owned(), updates, reporter.clone())
            })
            .collect();
        let tap = UpdateTap::new(Arc::clone(&links), None);
        Self { links, tap, workers, reports, woken, last: [0; 2] }
    }

    fn sending() -> Self {
        Self::new(ScopeParts { sent: 1 << PARTNER, awaited: 1 << PARTNER, ..ScopeParts::default() })
    }

    fn takes_bulk(&self, takes: bool) {
        self.links.peers[0].bulk.store(takes, Ordering::Relaxed);
    }

    /// A change of a client in the log of a shard.
    fn log(&mut self, shard: u8, change: &Change<'_>) {
        let last = &mut self.last[usize::from(shard)];
        *last += 1;
        self.tap.offer(ShardId(shard), Lsn(*last), ChangeOrigin::Client, change);
    }

    /// A group of the log: a lease on each of these addresses, in the shards in turn.
    fn group(&mut self, hosts: impl IntoIterator<Item = u16>, cltt: u64) {
        for host in hosts {
            let change = Change::Put(lease(host, cltt));
            self.log(u8::from(host % 2 == 1), &change);
        }
        self.tap.group_end();
    }

    fn wakes(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }

    fn marks(&self) -> [u64; 2] {
        [0, 1].map(|shard| self.links.peers[0].mark(shard).read().0)
    }

    fn refusals(&self, shard: u8) -> Vec<Refusal> {
        self.links.refused(ShardId(shard)).try_iter().collect()
    }

    fn next(&mut self, worker: usize) -> Option<Value> {
        let post = self.workers[worker].next_post()?;
        Some(serde_json::from_slice(&post.body).expect("JSON"))
    }

    fn answer(&mut self, worker: usize, body: &str) {
        self.workers[worker].answered(Ok(body.as_bytes().to_vec()));
    }

    fn silence(&mut self, worker: usize) {
        self.workers[worker].answered(Err("timed out".to_owned()));
    }

    /// Everything is sent and taken; which worker sent which change, by address.
    fn drain(&mut self) -> BTreeMap<String, Vec<usize>> {
        let mut ways: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for worker in 0..self.workers.len() {
            while let Some(body) = self.next(worker) {
                for address in addresses(&body) {
                    ways.entry(address).or_default().push(worker);
                }
                self.answer(worker, DONE);
            }
        }
        ways
    }
}

fn lease(host: u16, cltt: u64) -> Lease4<'static> {
    let [high, low] = host.to_be_bytes();
    Lease4 {
        address: Ipv4Addr::new(10, 0, high, low),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, high, low]),
        client_id: &[],
        cltt,
        valid_lft: 3600,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"",
        user_context: b"",
    }
}

/// The addresses of an update or of a bulk command, in order.
fn addresses(body: &Value) -> Vec<String> {
    leases(body).iter().map(|lease| lease["ip-address"].as_str().expect("an address").to_owned()).collect()
}

/// The leases of an update or of a bulk command, in order.
fn leases(body: &Value) -> &[Value] {
    let arguments = &body["arguments"];
    arguments["leases"].as_array().map_or_else(|| std::slice::from_ref(arguments), Vec::as_slice)
}

#[test]
fn a_group_travels_as_one_command_and_what_comes_meanwhile_as_the_next() {
    let mut sender = Sender::sending();
    sender.takes_bulk(true);
    sender.group(0..40, 1);
    assert_eq!(sender.marks(), [0, 0]);
    let first = sender.next(0).expect("a command");
    assert_eq!(first["command"], "aplomado-bulk-apply");
    assert_eq!(addresses(&first).len(), 40);
    assert_eq!(sender.next(1), None, "one connection does it all");
    for group in 0..5 {
        sender.group((100 + 10 * group)..(110 + 10 * group), 1);
    }
    sender.answer(0, DONE);
    assert_eq!(sender.marks(), [20, 20]);
    let second = sender.next(0).expect("a command");
    let expected: Vec<String> = (100..150).map(|host| format!("10.0.0.{host}")).collect();
    assert_eq!(addresses(&second), expected, "all that waited, in the order of the log");
    sender.answer(0, DONE);
    assert_eq!((sender.marks(), sender.next(0)), ([45, 45], None));
}

#[test]
fn only_after_a_post_of_many_changes_the_next_one_is_let_grow() {
    let mut sender = Sender::sending();
    sender.takes_bulk(true);
    // How many changes came before, how many come while more is let come, and whether that is.
    let few = u16::try_from(FAST_CHANGES_MIN).expect("few") - 1;
    let steps = [(few, 9, false), (few + 1, 9, false), (1, 9, true), (2, 9, true), (1, 9, true)];
    for (step, (before, meanwhile, lets_grow)) in steps.into_iter().enumerate() {
        sender.group(0..before, 100 * step as u64);
        let mut worker = sender.workers.remove(0);
        let mut grew = false;
        let post = worker.wait(|| {
            grew = true;
            sender.group(100..100 + meanwhile, 100 * step as u64);
        });
        sender.workers.insert(0, worker);
        assert_eq!(grew, lets_grow, "step {step}");
        let body = serde_json::from_slice(&post.expect("there is something").body).expect("JSON");
        let count = before + if grew { meanwhile } else { 0 };
        assert_eq!(addresses(&body).len(), usize::from(count), "step {step}: what came meanwhile goes along");
        sender.answer(0, DONE);
    }
    // Where changes come one at a time again, nobody waits.
    sender.group(0..1, 900);
    assert!(sender.workers[0].wait(|| ()).is_some());
    sender.answer(0, DONE);
    sender.group(0..1, 901);
    assert!(sender.workers[0].wait(|| panic!("nobody waits")).is_some());
}

#[test]
fn an_address_keeps_its_way_until_nothing_is_under_way() {
    let mut sender = Sender::sending();
    sender.group(0..32, 1);
    let one = sender.next(0).expect("an update");
    assert_eq!(one["command"], "lease4-update");
    // The partner is found to take bulk while its first update is under way and others wait.
    sender.takes_bulk(true);
    sender.group(0..32, 2);
    sender.answer(0, DONE);
    let mut ways = sender.drain();
    ways.entry(addresses(&one).remove(0)).or_default().push(0);
    assert!(ways.values().all(|workers| workers.len() == 2 && workers[0] == workers[1]), "{ways:?}");
    assert!(ways.values().any(|workers| workers[0] == 1), "both connections are used");
    assert_eq!(sender.marks(), [32, 32]);
    sender.group(0..32, 3);
    assert!(sender.drain().values().all(|workers| *workers == [0]), "now one connection does it all");
}

#[test]
fn what_is_refused_reaches_its_shard_and_the_rest_passes() {
    let mut sender = Sender::sending();
    sender.takes_bulk(true);
    sender.group(0..6, 1);
    sender.next(0).expect("a command");
    sender.answer(
        0,
        r#"[ { "arguments": { "failed": [ { "index": 3, "result": 4, "text": "busy" } ] }, "result": 0, "text": "" } ]"#,
    );
    let refusal = Refusal { lsn: Lsn(2), peer: PeerId(1), address: Ipv4Addr::new(10, 0, 0, 3) };
    assert_eq!((sender.refusals(0), sender.refusals(1)), (vec![], vec![refusal]));
    assert_eq!(sender.marks(), [3, 3]);
    let told: Vec<Report> = sender.reports.try_iter().collect();
    assert!(matches!(&told[..], [Report::Updates { verdict: Verdict::Conflict, .. }]));
}

#[test]
fn more_than_a_queue_holds_is_refused_at_once_and_counted() {
    let mut sender = Sender::sending();
    sender.takes_bulk(true);
    let count = u16::try_from(QUEUE_MAX).expect("fits");
    sender.group(0..count + 10, 1);
    assert_eq!(sender.links.peers[0].lost.load(Ordering::Relaxed), 10);
    assert_eq!(sender.refusals(0).len() + sender.refusals(1).len(), 10);
    assert_eq!(sender.marks(), [0, 0], "those before them wait");
    assert_eq!(sender.drain().len(), QUEUE_MAX);
    assert_eq!(sender.marks(), [4101, 4101]);
}

#[test]
fn what_a_silent_partner_did_not_answer_is_sent_again_unless_a_newer_change_was() {
    for takes_bulk in [true, false] {
        let mut sender = Sender::sending();
        sender.takes_bulk(takes_bulk);
        sender.group([2, 4, 6], 1);
        sender.group([4], 2);
        let silent: Vec<usize> = (0..2).filter(|&worker| sender.next(worker).is_some()).collect();
        for worker in silent {
            sender.silence(worker);
        }
        assert_eq!(sender.marks(), [4, 0], "nobody waits for them any more");
        assert_eq!(sender.refusals(0).len(), 4, "nobody is told that the lease is its own");
        sender.group([6], 3);
        assert_eq!(sender.drain().into_keys().collect::<Vec<_>>(), ["10.0.0.6"]);
        assert_eq!(sender.links.send_owed(PARTNER), 2, "6 has been sent since");
        let mut sent = BTreeMap::new();
        for worker in 0..2 {
            while let Some(body) = sender.next(worker) {
                let list = body["arguments"]["leases"].as_array().cloned();
                for lease in list.unwrap_or_else(|| vec![body["arguments"].clone()]) {
                    let text = lease["ip-address"].as_str().expect("an address").to_owned();
                    sent.insert(text, lease["expire"].as_u64().expect("a time"));
                }
                sender.answer(worker, DONE);
            }
        }
        let expected = BTreeMap::from([("10.0.0.2".to_owned(), 3601), ("10.0.0.4".to_owned(), 3602)]);
        assert_eq!(sent, expected, "of each address the last change");
        assert_eq!((sender.marks(), sender.links.send_owed(PARTNER)), ([5, 0], 0));
        assert_eq!(sender.links.peers[0].lost.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn nothing_is_sent_again_of_an_address_that_the_partner_has_told_of_since() {
    let mut sender = Sender::sending();
    sender.group([2, 4], 1);
    for worker in 0..2 {
        if sender.next(worker).is_some() {
            sender.silence(worker);
        }
    }
    sender.tap.offer(ShardId(0), Lsn(3), ChangeOrigin::Partner, &Change::Put(lease(2, 5)));
    sender.tap.group_end();
    assert_eq!(sender.links.send_owed(PARTNER), 1);
    assert_eq!(sender.drain().into_keys().collect::<Vec<_>>(), ["10.0.0.4"]);
}

/// The simulator's seed 11708: a release was not answered, the client came back while the link was cut, and the release was sent again after
/// the backlog with the new lease.
#[test]
fn what_is_sent_again_is_not_older_than_what_went_into_the_backlog() {
    for silent_before in [true, false] {
        let mut sender = Sender::sending();
        sender.group([2], 1);
        let worker = (0..2).find(|&worker| sender.next(worker).is_some()).expect("a command");
        if silent_before {
            sender.silence(worker);
        }
        let (queue, sent) = (true, 0);
        sender.links.publish(ScopeWord::new(ScopeParts { queue, sent, ..ScopeParts::default() }));
        sender.tap.offer(ShardId(0), Lsn(2), ChangeOrigin::Client, &Change::Put(lease(2, 7)));
        sender.tap.group_end();
        if !silent_before {
            sender.silence(worker);
        }
        assert_eq!(sender.links.delayed.try_iter().count(), 1);
        assert_eq!(sender.links.send_owed(PARTNER), 1);
        let body = sender.next(worker).expect("it is sent again");
        let expected = lease(2, 7).expire();
        let lease = body.pointer("/arguments/leases/0").unwrap_or_else(|| &body["arguments"]);
        assert_eq!(lease["expire"], expected, "{body}");
    }
}

/// The link is back, and what the log passed on before shards and log knew of it waits for the control thread, while newer changes of the same
/// addresses go to the partner directly.
#[test]
fn what_comes_too_late_for_the_backlog_is_not_sent_over_something_newer() {
    let parts = |queue, sent| ScopeWord::new(ScopeParts { queue, sent, ..ScopeParts::default() });
    for takes_bulk in [true, false] {
        let mut sender = Sender::sending();
        sender.takes_bulk(takes_bulk);
        sender.links.publish(parts(true, 0));
        let mut late: Vec<Delayed> = Vec::new();
        for host in [2, 4, 4] {
            // There is room for one.
            sender.group([host], 1);
            late.extend(sender.links.delayed.try_iter());
        }
        sender.links.publish(parts(false, 1 << PARTNER));
        sender.group([2], 5);
        assert_eq!(late.len(), 3);
        for delayed in late {
            sender.links.send_delayed(PARTNER, delayed);
        }
        sender.group([4], 6);
        let mut sent: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for worker in 0..2 {
            while let Some(body) = sender.next(worker) {
                for lease in leases(&body) {
                    let address = lease["ip-address"].as_str().expect("an address").to_owned();
                    sent.entry(address).or_default().push(lease["expire"].as_u64().expect("a time") - 3600);
                }
                sender.answer(worker, DONE);
            }
        }
        let expected = [("10.0.0.2".to_owned(), vec![5]), ("10.0.0.4".to_owned(), vec![1, 1, 6])];
        assert_eq!(sent, BTreeMap::from(expected));
    }
}

#[test]
fn what_finds_no_room_on_its_way_to_a_backlog_that_is_not_wanted_any_more_is_sent() {
    let mut sender = Sender::new(ScopeParts { queue: true, ..ScopeParts::default() });
    // Its limit is 0: there is room for one.
    sender.group([2, 4, 6], 1);
    assert_eq!(sender.links.delayed.try_iter().count(), 1);
    sender.links.forget_kept();
    assert_eq!(sender.links.send_owed(PARTNER), 2);
    assert_eq!(sender.drain().into_keys().collect::<Vec<_>>(), ["10.0.0.4", "10.0.0.6"]);
}

#[test]
fn the_partner_is_settled_when_everything_is_answered_or_given_up_and_the_control_thread_hears_of_it() {
    for takes_bulk in [true, false] {
        let mut sender = Sender::sending();
        sender.takes_bulk(takes_bulk);
        assert!(sender.links.is_settled(PARTNER));
        sender.group(0..32, 1);
        assert!(!sender.links.is_settled(PARTNER));
        if !takes_bulk {
            sender.next(1).expect("an update");
            sender.silence(1);
            assert!(!sender.links.is_settled(PARTNER), "the other connection has updates, too");
        }
        // What is taken is not told to anybody, but for this.
        let woken = sender.wakes();
        sender.drain();
        assert_eq!(sender.wakes(), woken + 1);
        assert!(sender.links.is_settled(PARTNER));
    }
}

#[test]
fn nothing_is_sent_again_to_a_partner_that_copies_all_leases() {
    let mut sender = Sender::sending();
    sender.group([2, 4], 1);
    for worker in 0..2 {
        if sender.next(worker).is_some() {
            sender.silence(worker);
        }
    }
    sender.links.forget_owed(false);
    assert_eq!((sender.links.send_owed(PARTNER), sender.drain().len()), (0, 0));
}

#[test]
fn a_released_lease_that_an_old_partner_refuses_is_deleted_there() {
    let mut sender = Sender::sending();
    sender.links.peers[0].released.store(true, Ordering::Relaxed);
    let released = |host| Change::Put(Lease4 { state: LeaseState::Released, ..lease(host, 1) });
    sender.log(0, &released(2));
    sender.tap.group_end();
    let worker = (0..2).find_map(|worker| Some((worker, sender.next(worker)?)));
    let (worker, body) = worker.expect("an update");
    assert_eq!((&body["command"], &body["arguments"]["state"]), (&json!("lease4-update"), &json!(3)));
    sender.answer(worker, r#"[ { "result": 1, "text": "state 3 is out of range" } ]"#);
    assert_eq!(sender.marks(), [0, 0], "it is not answered yet");
    let told: Vec<Report> = sender.reports.try_iter().collect();
    assert!(matches!(told[..], [Report::ReleasedRefused(PARTNER)]));
    let body = sender.next(worker).expect("the same in another form");
    assert_eq!(
        (&body["command"], &body["arguments"]["ip-address"]),
        (&json!("lease4-del"), &json!("10.0.0.2"))
    );
    sender.answer(worker, r#"[ { "result": 3, "text": "IPv4 lease not found." } ]"#);
    assert_eq!((sender.marks(), sender.refusals(0).len()), ([1, 0], 0));
    // From now on it is known.
    sender.log(0, &released(4));
    sender.tap.group_end();
    let body = (0..2).find_map(|worker| sender.next(worker)).expect("an update");
    assert_eq!(body["command"], "lease4-del");
}

#[test]
fn an_error_for_the_deletion_too_is_an_error_and_not_tried_for_ever() {
    let mut sender = Sender::sending();
    sender.links.peers[0].released.store(true, Ordering::Relaxed);
    sender.log(0, &Change::Put(Lease4 { state: LeaseState::Released, ..lease(2, 1) }));
    sender.tap.group_end();
    let worker = (0..2).find(|worker| sender.next(*worker).is_some()).expect("an update");
    sender.answer(worker, r#"[ { "result": 1, "text": "no" } ]"#);
    assert!(sender.next(worker).is_some());
    sender.answer(worker, r#"[ { "result": 1, "text": "no" } ]"#);
    assert_eq!((sender.next(worker), sender.refusals(0).len(), sender.marks()), (None, 1, [1, 0]));
}

#[test]
fn changes_that_are_not_sent_count_once_per_transaction_of_a_client() {
    let alone = ScopeParts { count_unsent: true, serves_primary: true, ..ScopeParts::default() };
    let mut sender = Sender::new(alone);
    let unsent = |sender: &Sender| sender.links.unsent.load(Ordering::Relaxed);
    sender.log(0, &Change::Put(lease(2, 1)));
    assert_eq!(unsent(&sender), 1);
    // A client that moves deletes its lease and takes another in one transaction.
    sender.log(0, &Change::Delete(lease(2, 1)));
    sender.log(0, &Change::Put(Lease4 { address: Ipv4Addr::new(10, 0, 9, 9), ..lease(2, 2) }));
    assert_eq!(unsent(&sender), 2);
    sender.log(0, &Change::Put(Lease4 { address: Ipv4Addr::new(10, 0, 9, 9), ..lease(2, 3) }));
    assert_eq!(unsent(&sender), 3, "it renews");
    // One client's deletion and another's lease are two, also in a row.
    sender.log(0, &Change::Delete(lease(4, 1)));
    sender.log(0, &Change::Put(lease(6, 1)));
    assert_eq!(unsent(&sender), 5);
    // So are those of different shards.
    sender.log(0, &Change::Delete(lease(8, 1)));
    sender.log(1, &Change::Put(lease(8, 1)));
    assert_eq!(unsent(&sender), 7);
    // What no client did does not count, nor is it sent.
    let change = Change::Put(lease(10, 1));
    sender.tap.offer(ShardId(1), Lsn(2), ChangeOrigin::Partner, &change);
    sender.tap.group_end();
    assert_eq!((unsent(&sender), sender.drain().len(), sender.marks()), (7, 0, [7, 2]));
}

/// A shard whose clients `0..20` have leases, and the far end of its wire.
fn shard(cache_threshold: f64) -> (Rig<MemoryPort>, MemoryPort) {
    let configuration = format!(
        r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": ["eth0"] }}, "valid-lifetime": 3600,
            "cache-threshold": {cache_threshold:?},
            "subnet4": [ {{ "id": 1, "subnet": "10.0.0.0/8", "pools": [ {{ "pool": "10.0.0.0/16" }} ] }} ] }} }}"#
    );
    let (near, far) = MemoryPort::pair(INTERFACE, INTERFACE, 64);
    let mut rig = Rig::new(&configuration, 1, near, 64);
    (0..20).for_each(|client| rig.lease(client, 3000, 3600, b""));
    (rig, far)
}

/// A client renews its lease.
fn renew(rig: &mut Rig<MemoryPort>, far: &mut MemoryPort, client: u32) {
    let mut options = vec![61, 7];
    options.extend(client_id(client));
    let message =
        Message { ciaddr: address(client), unicast: true, options: &options, ..Message::new(3, client) };
    let mut frame = [0; 512];
    let len = message.write(&mut frame);
    assert!(far.inject(&frame[..len], RxFlags::default()));
    rig.turn();
}

fn answers(far: &mut MemoryPort) -> usize {
    std::iter::from_fn(|| far.eject(|_| ())).count()
}

#[test]
fn a_lease_that_a_peer_refused_is_written_and_sent_again_at_the_next_request() {
    let (mut rig, mut far) = shard(0.5);
    renew(&mut rig, &mut far, 5);
    assert_eq!(rig.drain_log(), 1);
    rig.turn();
    renew(&mut rig, &mut far, 5);
    assert_eq!((rig.drain_log(), answers(&mut far)), (0, 2), "the lease cache answers");
    // A refusal of an older change, and one of another address, are none of this lease's.
    let refusal = Refusal { lsn: Lsn(1), peer: PeerId(1), address: address(5) };
    rig.shard.refuse(Refusal { lsn: Lsn(0), ..refusal });
    rig.shard.refuse(Refusal { address: address(6), ..refusal });
    renew(&mut rig, &mut far, 5);
    assert_eq!((rig.drain_log(), answers(&mut far)), (0, 1));
    rig.shard.refuse(refusal);
    renew(&mut rig, &mut far, 5);
    assert_eq!(rig.drain_log(), 1, "the peer must hear of it");
    rig.turn();
    assert_eq!(answers(&mut far), 1);
    renew(&mut rig, &mut far, 5);
    assert_eq!((rig.drain_log(), answers(&mut far)), (0, 1), "once");
}

#[test]
fn no_reply_leaves_for_a_lease_that_an_order_of_many_has_given_away() {
    let (mut rig, mut far) = shard(0.0);
    (0..20).for_each(|client| renew(&mut rig, &mut far, client));
    assert_eq!((rig.shard.parked(), answers(&mut far)), ((20, 0), 0), "the disk is awaited");
    // Long enough for the partner to know what it does.
    rig.now.wall_s += 20;
    let given_away = (0..15u32).map(|client| {
        let lease = Lease4 {
            address: address(client),
            hw_addr: HwAddr::ethernet(mac(1000 + client)),
            ..lease(0, START_S)
        };
        LeaseChange::Put(lease.to_owned())
    });
    let changes = given_away.chain([LeaseChange::Delete { address: address(15), told: None }]).collect();
    let origin = Origin::Partner { partner_wins: true };
    let request = LeaseRequest::Apply { changes, mode: PutMode::Upsert, origin };
    assert!(rig.orders.try_send(Order::Leases(7, request)).is_ok());
    rig.turn();
    let told: Vec<Event<MemoryPort>> = rig.events.try_iter().collect();
    let replies = told.iter().find_map(|event| match event {
        Event::Leases(7, LeaseReply::Applied(replies), _, lsn) => Some((replies.clone(), *lsn)),
        _ => None,
    });
    let mut expected = vec![LeaseReply::Updated; 15];
    expected.push(LeaseReply::Deleted);
    assert_eq!(replies, Some((expected, Lsn(36))), "complete when the last of them is durable");
    assert_eq!(rig.drain_log(), 36);
    rig.turn();
    assert_eq!((rig.shard.parked(), answers(&mut far)), ((0, 0), 4), "the others have theirs");
    assert_eq!(rig.counters.drop_count(DropReason::ParkCancelled), 16);
}

/// A copy on a machine whose disk does not follow: its shard waits for room in the log, and does not keep a processor busy with that.
#[test]
fn an_order_that_finds_no_room_in_the_log_rests_until_there_is_some() {
    let (mut rig, _far) = shard(0.0);
    let changes = (0..20_000u32)
        .map(|client| {
            let hw_addr = HwAddr::ethernet(mac(2000 + client));
            LeaseChange::Put(
                Lease4 { address: address(1000 + client), hw_addr, ..lease(0, START_S) }.to_owned(),
            )
        })
        .collect();
    let origin = Origin::Partner { partner_wins: false };
    let request = LeaseRequest::Apply { changes, mode: PutMode::Upsert, origin };
    assert!(rig.orders.try_send(Order::Leases(7, request)).is_ok());
    let (mut made, mut rests) = (0, 0);
    let is_done = |rig: &Rig<MemoryPort>| {
        rig.events.try_iter().any(|event| matches!(event, Event::Leases(7, LeaseReply::Applied(_), ..)))
    };
    while !is_done(&rig) {
        let mut turns = 0;
        while rig.turn() {
            turns += 1;
            assert!(turns < 1000, "it goes on with nothing to do");
        }
        rests += 1;
        made += rig.drain_log();
    }
    assert_eq!(made + rig.drain_log(), 20_000);
    assert!(rests > 1, "the log is smaller than the order");
}

#[test]
fn an_order_of_many_is_made_in_steps_between_which_clients_are_served() {
    let (mut rig, mut far) = shard(0.0);
    let changes = (0..200u32)
        .map(|client| {
            let hw_addr = HwAddr::ethernet(mac(2000 + client));
            LeaseChange::Put(
                Lease4 { address: address(1000 + client), hw_addr, ..lease(0, START_S) }.to_owned(),
            )
        })
        .collect();
    let origin = Origin::Partner { partner_wins: false };
    let request = LeaseRequest::Apply { changes, mode: PutMode::Upsert, origin };
    assert!(rig.orders.try_send(Order::Leases(7, request)).is_ok());
    let mut turns = 0;
    let answered = |rig: &Rig<MemoryPort>| {
        rig.events.try_iter().any(|event| match event {
            Event::Leases(7, LeaseReply::Applied(replies), ..) => {
                assert_eq!(replies, vec![LeaseReply::Added; 200]);
                true
            }
            _ => false,
        })
    };
    while !answered(&rig) {
        renew(&mut rig, &mut far, turns);
        turns += 1;
        rig.drain_log();
        assert!(turns < 10, "it ends");
    }
    rig.turn();
    assert!(turns >= 4, "64 changes in a turn at most, not {}", 200 / turns);
    assert_eq!(answers(&mut far), turns as usize, "a client is answered in each turn");
}

/// A listing, a wipe: they take as many turns as there are leases, and a partner's replies wait for what is changed meanwhile.
#[test]
fn changes_do_not_wait_for_what_goes_through_all_leases() {
    const LEASES: u32 = 2000;
    let origin = Origin::Partner { partner_wins: false };
    let put = |client: u32| {
        let hw_addr = HwAddr::ethernet(mac(2000 + client));
        Lease4 { address: address(1000 + client), hw_addr, ..lease(0, START_S) }.to_owned()
    };
    for long in [
        LeaseRequest::List { from: address(0), limit: LEASES, filter: LeaseFilter::All },
        LeaseRequest::Wipe(None),
    ] {
        let (mut rig, _far) = shard(0.0);
        let changes = (0..LEASES).map(|client| LeaseChange::Put(put(client))).collect();
        let fill = LeaseRequest::Apply { changes, mode: PutMode::Upsert, origin };
        assert!(rig.orders.try_send(Order::Leases(1, fill)).is_ok());
        let turn_until_answered = |rig: &mut Rig<MemoryPort>, number: u64, turns_max: u32| {
            for turn in 1..=turns_max {
                rig.turn();
                rig.drain_log();
                let mut told = rig.events.try_iter();
                if told.any(|event| matches!(event, Event::Leases(answered, ..) if answered == number)) {
                    return turn;
                }
            }
            panic!("order {number} is not answered within {turns_max} turns");
        };
        turn_until_answered(&mut rig, 1, LEASES);
        let change = LeaseRequest::Put { lease: put(LEASES), mode: PutMode::Upsert, origin };
        for order in [Order::Leases(2, long.clone()), Order::Leases(3, long), Order::Leases(4, change)] {
            assert!(rig.orders.try_send(order).is_ok());
        }
        // Each turn takes one of the two long ones out of the way, the next the change.
        turn_until_answered(&mut rig, 4, 3);
        assert!(turn_until_answered(&mut rig, 2, LEASES) >= 4, "256 leases in a turn at most");
        turn_until_answered(&mut rig, 3, LEASES);
    }
}

#[test]
fn a_flush_that_waited_behind_a_silent_peer_is_not_sent_when_it_is_not_wanted_any_more() {
    let sender = Sender::sending();
    let (reports_tx, reports) = unbounded();
    let reporter = Reporter { reports: reports_tx, links: Arc::clone(&sender.links) };
    let (jobs, receiver) = unbounded();
    let mut worker = PeerWork::commands(PARTNER, "worker".to_owned(), receiver, reporter);
    let job = |tag| Job { tag, body: format!("{tag:?}").into_bytes(), timeout: Duration::from_secs(10) };
    let body =
        |worker: &mut PeerWork| worker.next_post().map(|post| String::from_utf8(post.body).expect("text"));

    sender.links.want([Some(Ticket(1)), None]);
    jobs.send(job(Tag::Commands(PARTNER))).expect("a worker");
    jobs.send(job(Tag::Flush(Ticket(1)))).expect("a worker");
    assert_eq!(body(&mut worker).as_deref(), Some("Commands(1)"));
    // The peer is silent; meanwhile the partner has copied everything, and its leases have gone on.
    sender.links.want([Some(Ticket(3)), Some(Ticket(4))]);
    jobs.send(job(Tag::Reset(Ticket(2)))).expect("a worker");
    jobs.send(job(Tag::Flush(Ticket(3)))).expect("a worker");
    jobs.send(job(Tag::Reset(Ticket(4)))).expect("a worker");
    worker.answered(Err("timed out".to_owned()));
    for wanted in ["Flush(Ticket(3))", "Reset(Ticket(4))"] {
        assert_eq!(body(&mut worker).as_deref(), Some(wanted));
        worker.answered(Ok(DONE.as_bytes().to_vec()));
    }
    assert_eq!(body(&mut worker), None);
    // The machine hears of every one: one that waits for an answer that never comes would wait for ever.
    let told: Vec<(Tag, bool)> = reports
        .try_iter()
        .filter_map(|report| match report {
            Report::Answered(tag, answer) => Some((tag, answer.is_ok())),
            _ => None,
        })
        .collect();
    let expected = [
        (Tag::Commands(PARTNER), false),
        (Tag::Flush(Ticket(1)), false),
        (Tag::Reset(Ticket(2)), false),
        (Tag::Flush(Ticket(3)), true),
        (Tag::Reset(Ticket(4)), true),
    ];
    assert_eq!(told, expected);
}
