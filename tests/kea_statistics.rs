//! The same packets and commands to Debian's Kea 2.2 and to us: after each, every statistic of Kea has moved as far here as there.
//!
//! Both run in network namespaces of their own, and a relay says the same to each in turn. It needs root, `ip` and `kea-dhcp4`, and says
//! `SKIPPED` where one is missing.

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{Lab, Program, SERVERS, Setup};
use serde_json::{Value, json};

const KEA: usize = 0;
const OURS: usize = 1;
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is waited for. What comes later than this is another step's, which shows in the comparison.
const SILENCE: Duration = Duration::from_millis(50);
/// Longest wait for counters that both servers move after a packet.
const SETTLED: Duration = Duration::from_secs(2);

/// Statistics that move otherwise here than in Kea 2.2, on purpose: the step (`*` for all), the statistic, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("message of type 10", "pkt4-unknown-received", "since 2.4 pkt4-lease-query-received counts these"),
    ("all are reset", "pkt4-unknown-received", "the same"),
    (
        "an assigned lease is reclaimed",
        "subnet[1].assigned-addresses",
        "2.2 goes on counting it until it reads its configuration again",
    ),
    ("the configuration is read again", "subnet[1].assigned-addresses", "the same"),
    ("a type of two octets", "answer", "a message of which one cannot say what it is is not answered"),
    ("a type of two octets", "pkt4-discover-received", "the same"),
    ("a type of two octets", "pkt4-offer-sent", "the same"),
    ("a type of two octets", "pkt4-sent", "the same"),
    ("a type of two octets", "pkt4-receive-drop", "the same"),
    ("a type of two octets", "pkt4-unknown-received", "the same"),
];

/// What a message is made of.
#[derive(Clone, Copy)]
struct Message<'a> {
    /// The value of option 53, if it is there.
    kind: Option<u8>,
    client: u8,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    options: &'a [u8],
}

fn message(kind: u8, client: u8) -> Message<'static> {
    Message { kind: Some(kind), client, ciaddr: Ipv4Addr::UNSPECIFIED, giaddr: RELAY, options: &[] }
}

impl Message<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
        bytes[4..8].copy_from_slice(&[self.kind.unwrap_or(0), 9, 9, self.client]);
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[24..28].copy_from_slice(&self.giaddr.octets());
        bytes[28..34].copy_from_slice(&[2, 0, 0, 7, 0, self.client]);
        bytes.extend([99, 130, 83, 99]);
        if let Some(kind) = self.kind {
            bytes.extend([53, 1, kind]);
        }
        bytes.extend(self.options);
        bytes.push(255);
        bytes
    }
}

fn option(code: u8, address: Ipv4Addr) -> Vec<u8> {
    [&[code, 4], &address.octets()[..]].concat()
}

/// Both servers, and what was seen of them.
struct Twins {
    lab: Lab,
    before: [BTreeMap<String, i64>; 2],
    wrong: Vec<String>,
    used: BTreeSet<usize>,
    steps: usize,
    compared: usize,
}

impl Twins {
    fn statistics(&self, server: usize) -> BTreeMap<String, i64> {
        let answer = self.lab.order(server, "statistic-get-all", &Value::Null);
        let all = answer["arguments"].as_object().expect("a map").iter();
        all.map(|(name, samples)| (name.clone(), samples[0][0].as_i64().expect("a number"))).collect()
    }

    /// What moved at Kea and did not move as far here, or the other way round.
    fn differing(&self, now: &[BTreeMap<String, i64>; 2]) -> Vec<(String, i64, i64)> {
        let moved = |server: usize, name: &String| {
            let of = |all: &BTreeMap<String, i64>| all.get(name).copied().unwrap_or(0);
            of(&now[server]) - of(&self.before[server])
        };
        let names = now[KEA].keys().map(|name| (name.clone(), moved(KEA, name), moved(OURS, name)));
        names.filter(|(_, kea, ours)| kea != ours).collect()
    }

    /// Compares what has moved since the step before.
    fn compare(&mut self, step: &str) {
        let start = lab::now();
        let (now, differing) = loop {
            let now = [self.statistics(KEA), self.statistics(OURS)];
            let differing = self.differing(&now);
            if differing.is_empty() || start.elapsed() > SETTLED {
                break (now, differing);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        };
        let missing: Vec<&String> = now[KEA].keys().filter(|name| !now[OURS].contains_key(*name)).collect();
        if !missing.is_empty() {
            let missing = format!("{missing:?}");
            self.differs(step, "missing", &missing, "not");
        }
        for (name, kea, ours) in differing {
            self.differs(step, &name, &kea.to_string(), &ours.to_string());
        }
        self.steps += 1;
        self.compared += now[KEA].len();
        self.before = now;
    }

    /// A difference: a known one, or wrong.
    fn differs(&mut self, step: &str, what: &str, kea: &str, ours: &str) {
        let known = DIFFERENCES.iter().position(|(at, of, _)| (*at == "*" || *at == step) && *of == what);
        match known {
            Some(known) => drop(self.used.insert(known)),
            None => self.wrong.push(format!("{step}: {what}: {kea} in Kea, {ours} here")),
        }
    }

    /// Says the same to both, `own` being what depends on the server: its address. Kea answers with this type, or not at all; the address
    /// that it gave.
    fn say(&mut self, step: &str, answered: Option<u8>, own: impl Fn(Ipv4Addr) -> Vec<u8>) -> Ipv4Addr {
        let [kea, ours] = [KEA, OURS].map(|server| {
            let bytes = own(SERVERS[server]);
            let patience = if answered.is_some() { PATIENCE } else { SILENCE };
            self.lab.exchange(server, &bytes, patience).map_or((None, Ipv4Addr::UNSPECIFIED), |answer| {
                (Some(answer[242]), Ipv4Addr::new(answer[16], answer[17], answer[18], answer[19]))
            })
        });
        assert_eq!(kea.0, answered, "{step}: the type of Kea's answer");
        if ours != kea {
            self.differs(step, "answer", &format!("{kea:?}"), &format!("{ours:?}"));
        }
        self.compare(step);
        kea.1
    }

    fn order(&mut self, step: &str, command: &str, arguments: &Value) {
        for server in [KEA, OURS] {
            self.lab.command(server, command, arguments).expect("an answer");
        }
        self.compare(step);
    }

    /// A client gets an address.
    fn lease(&mut self, client: u8) -> Ipv4Addr {
        let name = |what: &str| format!("{what} of client {client}");
        let address = self.say(&name("DISCOVER"), Some(2), |_| message(1, client).bytes());
        let request = |server| [option(54, server), option(50, address)].concat();
        self.say(&name("REQUEST"), Some(5), |server| {
            Message { options: &request(server), ..message(3, client) }.bytes()
        })
    }
}

/// Clients as they should be, and their opposites.
fn clients(twins: &mut Twins) {
    let one = twins.lease(1);
    twins.say("DISCOVER of one that has a lease", Some(2), |_| message(1, 1).bytes());
    twins.say("renewal", Some(5), |_| Message { ciaddr: one, ..message(3, 1) }.bytes());
    twins.say("reboot", Some(5), |_| Message { options: &option(50, one), ..message(3, 1) }.bytes());
    let elsewhere = option(50, Ipv4Addr::new(10, 99, 0, 1));
    twins.say("reboot in the wrong network", Some(6), |_| {
        Message { options: &elsewhere, ..message(3, 1) }.bytes()
    });
    let taken = |server| [option(54, server), option(50, one)].concat();
    twins.say("REQUEST of an address that another has", Some(6), |server| {
        Message { options: &taken(server), ..message(3, 2) }.bytes()
    });
    twins.say("renewal of an address that another has", Some(6), |_| {
        Message { ciaddr: one, ..message(3, 2) }.bytes()
    });
    let other = [option(54, Ipv4Addr::new(10, 77, 0, 9)), option(50, one)].concat();
    twins.say("REQUEST to another server", None, |_| Message { options: &other, ..message(3, 1) }.bytes());
    let two = twins.lease(2);
    let give_back = |kind, client, ciaddr, server| {
        Message { ciaddr, options: &option(54, server), ..message(kind, client) }.bytes()
    };
    twins.say("RELEASE of what another has", None, |server| give_back(7, 1, two, server));
    twins.say("RELEASE", None, |server| give_back(7, 2, two, server));
    twins.say("RELEASE again", None, |server| give_back(7, 2, two, server));
    twins.say("RELEASE of an address of nobody", None, |server| {
        give_back(7, 2, Ipv4Addr::new(10, 77, 200, 1), server)
    });
    twins.say("RELEASE to another server", None, |_| give_back(7, 1, one, Ipv4Addr::new(10, 77, 0, 9)));
    let three = twins.lease(3);
    let decline = |client, address, server| {
        let options = [option(54, server), option(50, address)].concat();
        Message { options: &options, ..message(4, client) }.bytes()
    };
    twins.say("DECLINE of what another has", None, |server| decline(1, three, server));
    twins.say("DECLINE", None, |server| decline(3, three, server));
    twins.say("DECLINE again", None, |server| decline(3, three, server));
    twins.say("DECLINE of an address of nobody", None, |server| {
        decline(3, Ipv4Addr::new(10, 77, 200, 1), server)
    });
    twins.say("DECLINE of no address", None, |server| {
        Message { options: &option(54, server), ..message(4, 3) }.bytes()
    });
    // The answer goes to the client, whom the relay does not hear.
    twins.say("INFORM", None, |_| Message { ciaddr: Ipv4Addr::new(10, 77, 0, 200), ..message(8, 4) }.bytes());
    twins.say("INFORM without an address", Some(5), |_| message(8, 4).bytes());
    let nowhere = Message { giaddr: Ipv4Addr::new(10, 98, 0, 1), ..message(1, 5) };
    twins.say("DISCOVER from an unknown network", None, |_| nowhere.bytes());
    twins.say("INFORM from an unknown network", None, |_| Message { kind: Some(8), ..nowhere }.bytes());
    twins.say("RELEASE from an unknown network", None, |server| {
        Message { kind: Some(7), ciaddr: one, options: &option(54, server), ..nowhere }.bytes()
    });
}

/// Messages that no client sends, and what is no message.
fn odd(twins: &mut Twins) {
    for kind in [2, 5, 6, 9, 10, 11, 13, 18, 77, 0] {
        twins.say(&format!("message of type {kind}"), None, |_| message(kind, 6).bytes());
    }
    twins.say("message without a type", None, |_| Message { kind: None, ..message(1, 6) }.bytes());
    let good = message(1, 7).bytes();
    let with = |at: usize, octet: u8| {
        let mut bytes = good.clone();
        bytes[at] = octet;
        bytes
    };
    twins.say("nothing", None, |_| Vec::new());
    twins.say("ten octets", None, |_| good[..10].to_vec());
    twins.say("no options", None, |_| good[..236].to_vec());
    twins.say("no end of options", Some(2), |_| good[..good.len() - 1].to_vec());
    twins.say("a cookie of another kind", None, |_| with(236, 1));
    twins.say("a reply", Some(2), |_| with(0, 2));
    twins.say("an operation that is none", Some(2), |_| with(0, 7));
    twins.say("an option beyond the end", None, |_| with(241, 200));
    twins.say("a hardware address that is too long", Some(2), |_| with(2, 20));
}

/// More clients than addresses.
fn exhaustion(twins: &mut Twins) {
    for client in 10..15 {
        twins.lease(client);
    }
    twins.say("DISCOVER where no address is left", None, |_| message(1, 20).bytes());
    let any = |server| [option(54, server), option(50, Ipv4Addr::new(10, 77, 10, 0))].concat();
    twins.say("REQUEST where no address is left", Some(6), |server| {
        Message { options: &any(server), ..message(3, 20) }.bytes()
    });
}

/// Leases that commands make and take, and time.
fn commands(twins: &mut Twins) {
    let lease = |last: u8, more: &Value| {
        let mut lease = json!({ "ip-address": format!("10.77.99.{last}"), "hw-address": format!("02:00:00:08:00:{last:02x}") });
        lease.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        lease
    };
    let past = json!({ "expire": 1_700_000_000, "valid-lft": 600 });
    let past_declined = json!({ "expire": 1_700_000_000, "valid-lft": 600, "state": 1 });
    for (name, command, arguments) in [
        ("a lease is added", "lease4-add", lease(1, &json!({}))),
        ("a declined lease is added", "lease4-add", lease(2, &json!({ "state": 1 }))),
        ("a reclaimed lease is added", "lease4-add", lease(3, &json!({ "state": 2 }))),
        ("a lease is added in vain", "lease4-add", lease(1, &json!({}))),
        ("a lease is updated", "lease4-update", lease(1, &json!({ "hostname": "new" }))),
        ("a lease is declined", "lease4-update", lease(1, &json!({ "state": 1 }))),
        ("a declined lease is assigned", "lease4-update", lease(2, &json!({ "state": 0 }))),
        ("a reclaimed lease is assigned", "lease4-update", lease(3, &json!({ "state": 0 }))),
        ("an assigned lease is reclaimed", "lease4-update", lease(3, &json!({ "state": 2 }))),
        ("a lease is forced", "lease4-update", lease(4, &json!({ "force-create": true }))),
        ("a lease is deleted", "lease4-del", json!({ "ip-address": "10.77.99.4" })),
        ("a reclaimed lease is deleted", "lease4-del", json!({ "ip-address": "10.77.99.3" })),
        ("a declined lease is deleted", "lease4-del", json!({ "ip-address": "10.77.99.1" })),
        ("an expired lease is added", "lease4-add", lease(5, &past)),
        ("an expired declined lease is added", "lease4-add", lease(6, &past_declined)),
        ("expired leases are reclaimed", "leases-reclaim", json!({ "remove": false })),
        ("another expired lease is added", "lease4-add", lease(7, &past)),
        ("expired leases are removed", "leases-reclaim", json!({ "remove": true })),
        ("the configuration is read again", "config-reload", json!(null)),
        ("a statistic is reset", "statistic-reset", json!({ "name": "pkt4-received" })),
        ("one of a subnet is reset", "statistic-reset", json!({ "name": "subnet[1].assigned-addresses" })),
        ("a subnet is wiped", "lease4-wipe", json!({ "subnet-id": 1 })),
        ("all are reset", "statistic-reset-all", json!(null)),
    ] {
        twins.order(name, command, &arguments);
    }
    let thirty = twins.lease(30);
    twins.say("a type of two octets", Some(2), |_| {
        let mut bytes = message(1, 31).bytes();
        bytes[241] = 2;
        bytes
    });
    twins.order("all are removed", "statistic-remove-all", &Value::Null);
    twins.say("renewal after it", Some(5), |_| Message { ciaddr: thirty, ..message(3, 30) }.bytes());
}

#[test]
fn statistics_move_as_keas_do() {
    let mut setup = Setup::alone("stats", &[Program::Kea, Program::Aplomado]);
    setup.subnets = Some(json!([{
        "id": 1, "subnet": "10.77.0.0/16", "authoritative": true, "pools": [{ "pool": "10.77.10.0 - 10.77.10.6" }],
    }]));
    // One thread, so that addresses are given in Kea's order; nothing is kept of released leases, and nothing is reclaimed by the clock.
    setup.dhcp4 = json!({
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 1, "packet-queue-size": 64 },
        "expired-leases-processing": { "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0,
                                       "hold-reclaimed-time": 0 },
    });
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    for server in [KEA, OURS] {
        lab::until("answer", || lab.command(server, "version-get", &Value::Null));
    }
    let mut twins = Twins {
        lab,
        before: [BTreeMap::new(), BTreeMap::new()],
        wrong: Vec::new(),
        used: BTreeSet::new(),
        steps: 0,
        compared: 0,
    };
    twins.compare("start");
    clients(&mut twins);
    odd(&mut twins);
    exhaustion(&mut twins);
    commands(&mut twins);
    assert!(twins.wrong.is_empty(), "{} differences:\n{}", twins.wrong.len(), twins.wrong.join("\n"));
    let unused: Vec<_> =
        DIFFERENCES.iter().enumerate().filter(|(index, _)| !twins.used.contains(index)).collect();
    assert!(unused.is_empty(), "differences listed that are none: {unused:?}");
    assert!(twins.steps > 80 && twins.compared > 2500, "{} steps, {} values", twins.steps, twins.compared);
}
