//! A synchronisation in service in a whole server that is turned by hand: the asked side, and what the asking side makes of answers.

#[path = "sim/server.rs"]
#[expect(dead_code, reason = "the simulator uses all of it")]
mod server;

use std::net::Ipv4Addr;

use aplomado::ha::backlog::Operation;
use aplomado::ha::command::bulk::BulkWriter;
use aplomado::ha::partner::{BULK_COMMAND, SYNC_LEASES_COMMAND};
use aplomado::ids::{HwAddr, Lsn, ShardId, SubnetId};
use aplomado::journal::{Change, ChangeOrigin, Tap as _};
use aplomado::lease::{Lease4, LeaseState};
use aplomado::server::clock::Clock;
use aplomado::server::ha::source::ChangedTap;
use aplomado::store::CrashDisk;
use aplomado::time::Mono;
use serde_json::{Value, json};
use server::{Server, Setting};

struct Source {
    server: Server,
    clock: Clock,
    calls: u64,
}

impl Source {
    fn new(shard_count: usize) -> Self {
        Self::called("one", shard_count)
    }

    fn called(name: &str, shard_count: usize) -> Self {
        let peers = json!([
            { "name": "one", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "two", "url": "http://192.0.2.2:8000/", "role": "standby" },
            { "name": "three", "url": "http://192.0.2.3:8000/", "role": "backup" },
        ]);
        let text = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": ["v0"] },
            "lease-database": { "type": "memfile", "name": server::LEASE_FILE, "lfc-interval": 0 },
            "hooks-libraries": [
                { "library": "/usr/lib/kea/hooks/libdhcp_lease_cmds.so" },
                { "library": "/usr/lib/kea/hooks/libdhcp_ha.so", "parameters": { "high-availability": [
                    { "this-server-name": name, "mode": "hot-standby", "peers": peers }] } } ],
            "subnet4": [ { "id": 1, "subnet": "192.0.0.0/16", "pools": [ { "pool": "192.0.3.1 - 192.0.9.254" } ] } ],
        } });
        let setting = Setting {
            text: text.to_string(),
            address: Ipv4Addr::new(192, 0, 2, 1),
            mac: [2, 0, 0, 0, 1, 1],
            shard_count,
            seed: 7,
        };
        let clock = Clock::by_hand(Mono(1_000_000_000), 1_795_000_000_000_000);
        let server = Server::start(&setting, &CrashDisk::new(), &clock).expect("a server");
        Self { server, clock, calls: 0 }
    }

    fn turn(&mut self) -> Vec<Value> {
        for shard in 0..self.server.work.shards.len() {
            self.server.turn_shard(shard);
        }
        self.server.turn_log().expect("a disk");
        let answers = self.server.turn_control();
        answers
            .iter()
            .map(|answer| serde_json::from_slice::<Value>(&answer.body).expect("JSON")[0].clone())
            .collect()
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        self.calls += 1;
        let body = json!({ "command": command, "service": ["dhcp4"], "arguments": arguments }).to_string();
        assert!(self.server.command(self.calls, body.as_bytes()).is_none(), "{body}");
        for _ in 0..1000 {
            if let Some(answer) = self.turn().pop() {
                return answer;
            }
        }
        panic!("no answer to {body}");
    }

    fn begin(&mut self, peer: &str) -> u64 {
        let answer = self.ask("aplomado-sync-begin", &json!({ "server-name": peer }));
        answer["arguments"]["session"].as_u64().expect("a session")
    }

    fn changes(&mut self, peer: &str, session: u64, sequence: u64, limit: u64) -> Value {
        self.ask(
            "aplomado-sync-changes",
            &json!({ "server-name": peer, "session": session, "sequence": sequence, "limit": limit }),
        )
    }

    fn add(&mut self, last: u8) {
        let lease = json!({ "ip-address": format!("192.0.3.{last}"), "hw-address": format!("02:00:00:00:09:{last:02x}"),
            "subnet-id": 1 });
        assert_eq!(self.ask("lease4-add", &lease)["result"], 0);
    }

    fn delete(&mut self, last: u8) {
        let lease = json!({ "ip-address": format!("192.0.3.{last}") });
        assert_eq!(self.ask("lease4-del", &lease)["result"], 0);
    }
}

/// A lease of an old day.
fn sample(last: u8) -> Lease4<'static> {
    Lease4 {
        address: Ipv4Addr::new(192, 0, 3, last),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, last]),
        client_id: b"",
        cltt: 1,
        valid_lft: 4000,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"",
        user_context: b"",
    }
}

/// The last octets of what an answer says is there, is gone, and how much is left.
fn told(answer: &Value) -> (Vec<u8>, Vec<u8>, u64) {
    assert_eq!(answer["result"], 0, "{answer}");
    let last = |address: &Value| {
        address.as_str().expect("a text").rsplit('.').next().expect("one").parse().expect("a number")
    };
    let arguments = &answer["arguments"];
    let mut there: Vec<u8> = arguments["leases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|lease| last(&lease["ip-address"]))
        .collect();
    there.sort_unstable();
    let gone = arguments["deleted"].as_array().expect("a list").iter().map(last).collect();
    (there, gone, arguments["remaining"].as_u64().expect("a number"))
}

#[test]
fn a_session_tells_what_has_changed_since_it_began() {
    for shard_count in [1, 2] {
        let mut source = Source::new(shard_count);
        source.add(1);
        source.add(2);
        let session = source.begin("two");
        source.add(3);
        source.delete(2);
        source.add(4);
        let first = source.changes("two", session, 1, 2);
        assert_eq!(told(&first), (vec![3], vec![2], 1));
        // The answer was lost; meanwhile one of its leases went.
        source.delete(3);
        assert_eq!(told(&source.changes("two", session, 1, 2)), (vec![], vec![3, 2], 2));
        assert_eq!(told(&source.changes("two", session, 2, 10)), (vec![4], vec![3], 0));
        assert_eq!(told(&source.changes("two", session, 3, 10)), (vec![], vec![], 0));
        // Of another session, out of order, of nobody.
        assert_eq!(source.changes("two", session + 1, 4, 10)["result"], 1);
        assert_eq!(source.changes("two", session, 9, 10)["result"], 1);
        assert_eq!(source.changes("three", session, 4, 10)["result"], 1);
        assert_eq!(source.changes("one", session, 4, 10)["result"], 1);
        assert_eq!(source.changes("nobody", session, 4, 10)["result"], 1);
    }
}

#[test]
fn each_peer_has_a_session_of_its_own_until_it_ends() {
    let mut source = Source::new(2);
    let two = source.begin("two");
    source.add(1);
    let three = source.begin("three");
    source.add(2);
    assert_ne!(two, three);
    assert_eq!(told(&source.changes("three", three, 1, 10)), (vec![2], vec![], 0));
    assert_eq!(told(&source.changes("two", two, 1, 10)), (vec![1, 2], vec![], 0));
    // One that begins again forgets the old session.
    let again = source.begin("two");
    assert_eq!(source.changes("two", two, 2, 10)["result"], 1);
    source.add(3);
    assert_eq!(told(&source.changes("two", again, 1, 10)), (vec![3], vec![], 0));
    source.ask("aplomado-sync-end", &json!({ "server-name": "two", "session": again }));
    assert_eq!(source.changes("two", again, 2, 10)["result"], 1);
    source.ask(
        "ha-sync-complete-notify",
        &json!({ "server-name": "three", "origin-id": 2000, "origin": 2000 }),
    );
    assert_eq!(source.changes("three", three, 2, 10)["result"], 1);
}

/// What a peer has, and this server lacks, it brings while it copies: it need not be told of that, but everybody else must be.
#[test]
fn a_peer_is_not_told_of_what_it_has_brought_unless_it_changes_again() {
    for shard_count in [1, 2] {
        let mut source = Source::new(shard_count);
        let lease = |last: u8, age_s: u64| Lease4 { cltt: 1_795_000_000 - age_s, ..sample(last) };
        // Of this one the peer has something older than it brings, of that something newer is here.
        source.add(1);
        source.add(2);
        let (two, three) = (source.begin("two"), source.begin("three"));
        let mut writer = BulkWriter::of(SYNC_LEASES_COMMAND, "two");
        for (last, age_s) in [(2, 4000), (3, 10), (4, 10), (5, 10)] {
            writer.push(Operation::Update, &lease(last, age_s));
        }
        let body: Value = serde_json::from_slice(writer.finish(None)).expect("JSON");
        source.add(6);
        let answer = source.ask(SYNC_LEASES_COMMAND, &body["arguments"]);
        assert_eq!(answer["result"], 0, "{answer}");
        // One of them goes on before the peer asks.
        source.delete(5);
        assert_eq!(told(&source.changes("three", three, 1, 10)), (vec![3, 4, 6], vec![5], 0));
        assert_eq!(told(&source.changes("two", two, 1, 10)), (vec![6], vec![5], 0));
        source.delete(4);
        assert_eq!(told(&source.changes("two", two, 2, 10)), (vec![], vec![4], 0));
        // What another peer brings is news.
        let mut writer = BulkWriter::of(SYNC_LEASES_COMMAND, "three");
        writer.push(Operation::Update, &lease(3, 5));
        let body: Value = serde_json::from_slice(writer.finish(None)).expect("JSON");
        assert_eq!(source.ask(SYNC_LEASES_COMMAND, &body["arguments"])["result"], 0);
        assert_eq!(told(&source.changes("two", two, 3, 10)), (vec![3], vec![], 0));
        // So is what it sends itself when it does not copy: the other one may be the later.
        let mut writer = BulkWriter::new("two");
        writer.push(Operation::Update, &lease(7, 5));
        let body: Value = serde_json::from_slice(writer.finish(None)).expect("JSON");
        assert_eq!(source.ask(BULK_COMMAND, &body["arguments"])["result"], 0);
        assert_eq!(told(&source.changes("two", two, 4, 10)), (vec![7], vec![], 0));
    }
}

#[test]
fn a_session_of_a_silent_peer_is_forgotten() {
    let mut source = Source::new(1);
    let session = source.begin("two");
    for second in [100, 200] {
        source.clock.set(Mono(second * 1_000_000_000), 1_795_000_000_000_000 + second * 1_000_000);
        source.turn();
        // Its pages take their time.
        assert_eq!(source.ask("lease4-get-page", &json!({ "from": "start", "limit": 5 }))["result"], 3);
    }
    assert_eq!(source.changes("two", session, 1, 10)["result"], 0);
    source.clock.set(Mono(400_000_000_000), 1_795_000_400_000_000);
    source.turn();
    assert_eq!(source.changes("two", session, 2, 10)["result"], 1);
}

#[test]
fn a_peer_is_told_when_changes_were_lost() {
    let mut source = Source::new(1);
    let session = source.begin("two");
    let mut tap = ChangedTap::new(std::sync::Arc::clone(&source.server.desk.engine.changed));
    let lease = sample(1);
    for _ in 0..200 {
        for _ in 0..8192 {
            tap.offer(ShardId(0), Lsn(1), ChangeOrigin::Client, &Change::Put(lease));
        }
        tap.group_end();
    }
    let answer = source.changes("two", session, 1, 10);
    assert_eq!((answer["result"].as_u64(), &answer["arguments"]["overflown"]), (Some(0), &json!(true)));
    assert_eq!(source.changes("two", session, 2, 10)["result"], 1, "the session is over");
}

#[test]
fn the_service_is_off_for_every_query_after_the_last_changes() {
    let mut source = Source::new(2);
    source.begin("two");
    source.server.desk.engine.enable(true);
    let body = json!({ "command": "dhcp-disable", "service": ["dhcp4"], "arguments": { "origin-id": 2000, "max-period": 60 } });
    // Before any turn of the control thread: the next command may follow in the same one.
    assert!(source.server.command(1, body.to_string().as_bytes()).is_none());
    assert!(!source.server.desk.engine.shared.enabled.load(std::sync::atomic::Ordering::Relaxed));
}

/// A lease as pages show it: of an address, of a client, of some seconds ago.
fn shown(last: u8, client: u8, age_s: u64) -> Value {
    json!({ "cltt": 1_795_000_000 - age_s, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "",
        "hw-address": format!("02:00:00:00:09:{client:02x}"), "ip-address": format!("192.0.3.{last}"), "state": 0,
        "subnet-id": 1, "valid-lft": 4000 })
}

/// What a scripted peer answers; nothing for the changes of a session, which wait.
fn scripted(body: &[u8]) -> Option<Value> {
    let command: Value = serde_json::from_slice(body).expect("JSON");
    let ok = |arguments: Value| Some(json!([{ "result": 0, "text": "", "arguments": arguments }]));
    match command["command"].as_str().expect("a name") {
        "ha-heartbeat" => ok(json!({ "state": "partner-down", "date-time": "Wed, 18 Nov 2026 11:06:40 GMT",
            "scopes": ["one"], "unsent-update-count": 0 })),
        "list-commands" => ok(json!(["ha-heartbeat", "aplomado-sync-begin"])),
        "aplomado-sync-begin" => ok(json!({ "session": 5 })),
        "lease4-get-page" => {
            let leases = [shown(1, 1, 100), shown(2, 2, 100), shown(3, 3, 100)];
            ok(json!({ "count": leases.len(), "leases": leases }))
        }
        "aplomado-sync-changes" => None,
        _ => ok(json!({})),
    }
}

#[test]
fn what_a_peer_changes_while_the_source_is_asked_is_newer_than_its_answer() {
    let mut asker = Source::called("two", 2);
    let mut seconds = 0;
    let mut turn_until_asked = |asker: &mut Source| {
        for _ in 0..2000 {
            seconds += 1;
            // Leases are as old as they say: only the monotonic clock goes.
            asker.clock.set(Mono(1_000_000_000 + seconds * 100_000_000), 1_795_000_000_000_000);
            asker.turn();
            for (place, connection) in asker.server.connections.iter_mut().enumerate() {
                let Some(post) = connection.work.next_post() else { continue };
                match scripted(&post.body) {
                    Some(answer) => connection.work.answered(Ok(answer.to_string().into_bytes())),
                    None => return place,
                }
            }
        }
        panic!("nobody asks for changes; the state is {}", asker.server.state());
    };
    let place = turn_until_asked(&mut asker);
    let client = |asker: &mut Source, last: u8| {
        let lease = asker.server.lease(Ipv4Addr::new(192, 0, 3, last))?;
        lease.view().hw_addr.as_bytes().last().copied()
    };
    assert_eq!([1, 2, 3].map(|last| client(&mut asker, last)), [Some(1), Some(2), Some(3)]);
    // The source has read its leases; before its answer comes, it changes two of them once more and says so.
    let mut update = shown(1, 7, 0);
    let map = update.as_object_mut().expect("a map");
    map.remove("cltt");
    map.insert("force-create".to_owned(), json!(true));
    map.insert("origin".to_owned(), json!("ha-partner"));
    assert_eq!(asker.ask("lease4-update", &update)["result"], 0);
    assert_eq!(asker.ask("lease4-del", &json!({ "ip-address": "192.0.3.2" }))["result"], 0);
    let changes = json!([{ "result": 0, "text": "", "arguments": {
        "deleted": ["192.0.3.1", "192.0.3.3"], "leases": [shown(2, 2, 50), shown(4, 4, 50)], "overflown": false, "remaining": 0 } }]);
    asker.server.connections[place].work.answered(Ok(changes.to_string().into_bytes()));
    turn_until_asked(&mut asker);
    assert_eq!([1, 2, 3, 4].map(|last| client(&mut asker, last)), [Some(7), None, None, Some(4)]);
}
