//! The DHCPv4 rules, each proved by a scenario of its own in `tests/data/dora/RULE.scn`.
//!
//! ```text
//! # What the rule is about, if its name does not say it all.
//! config lan                                        members of `Dhcp4`, from tests/data/dora/lan.json …
//! config { … }                                      … or in place, up to a line with nothing but `}`
//! > discover mac=02:00:00:00:00:50 want=192.0.2.10   a query (`on=v1`: by this interface)
//! < offer yiaddr=192.0.2.50 opt12='res.host' no6     the answer: what is not named may be anything
//! < none foreign-server-id                           … or why there is none; `< served` when there never is one
//! set-back 10s                                       the wall clock is set back
//! advance 10s                                        time jumps, and shards do what is due; `live 10s` second by second
//! restart                                            the server starts again with what its disk holds
//! disk off                                           rows stay unwritten until `disk on`
//! scope NAME…                                        the HA scope's classes from now on
//! lease 192.0.2.10 state=0 mac=… valid=3600          what the disk holds; `lease 192.0.2.10 none`
//! count assigned=1 subnet[1].assigned=1              what is counted
//! ```

mod scenario;

use std::fs;
use std::path::Path;

use aplomado::lease::Lease4;
use scenario::packet::{self, Answer};
use scenario::world::{Fate, World, reason_named};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dora");
/// How many scenarios there must be at least.
const SCENARIOS_MIN: usize = 80;

struct Run {
    world: Option<World>,
    fate: Option<Fate>,
    xid: u32,
    failures: Vec<String>,
    checks: usize,
}

impl Run {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("`config` comes first")
    }

    fn fail(&mut self, line: usize, text: &str) {
        self.failures.push(format!("  line {line}: {text}"));
    }

    fn expect_answer(&mut self, number: usize, words: &[&str]) {
        self.checks += 1;
        let fate = self.fate.clone().expect("a query comes before its answer");
        let wrong = match (words[0], &fate) {
            ("none", Fate::Dropped(reason)) => {
                let expected = reason_named(words.get(1).copied().expect("`none` says why"));
                if *reason == expected {
                    Vec::new()
                } else {
                    vec![format!("expected {}, got {}", expected.name(), reason.name())]
                }
            }
            ("served", Fate::Served) => Vec::new(),
            ("none" | "served", Fate::Answered(bytes)) => {
                vec![format!("got {:?}", Answer::read(bytes).fields())]
            }
            (_, Fate::Answered(bytes)) => {
                let answer = Answer::read(bytes);
                let order: Vec<u8> = answer.options.iter().map(|(code, _)| *code).collect();
                let mut wrong = answer.differences(words);
                wrong.extend(order_faults(&order));
                wrong
            }
            (_, other) => vec![format!("expected {}, got {other:?}", words.join(" "))],
        };
        for text in wrong {
            self.fail(number, &text);
        }
    }

    fn expect_lease(&mut self, number: usize, words: &[&str]) {
        self.checks += 1;
        let address = words[0].parse().expect("an address");
        let lease = self.world().disk.get(&address).cloned();
        let now_s = self.world().now.wall_s;
        match (lease, words.get(1)) {
            (None, Some(&"none")) => {}
            (None, _) => self.fail(number, "there is no such lease"),
            (Some(lease), Some(&"none")) => self.fail(number, &format!("there is one: {:?}", lease.view())),
            (Some(lease), _) => {
                for word in &words[1..] {
                    if let Some(text) = lease_difference(&lease.view(), now_s, word) {
                        self.fail(number, &text);
                    }
                }
            }
        }
    }

    fn line(&mut self, number: usize, line: &str) {
        let words = packet::words(line);
        match words[0] {
            ">" => {
                self.xid += 1;
                let (on, rest): (Vec<&str>, Vec<&str>) =
                    words[1..].iter().copied().partition(|word| word.starts_with("on="));
                let interface = on.first().map_or("v0", |word| &word[3..]);
                let bytes = packet::query(&rest.join(" "), self.xid);
                let fate = self.world().put(&bytes, interface);
                self.fate = Some(fate);
            }
            "<" => self.expect_answer(number, &words[1..]),
            "advance" => {
                let seconds: u64 = words[1].trim_end_matches('s').parse().expect("seconds");
                self.world().advance(seconds * 1000);
            }
            "live" => {
                let seconds: u64 = words[1].trim_end_matches('s').parse().expect("seconds");
                self.world().live_through(seconds);
            }
            "set-back" => {
                let seconds: u64 = words[1].trim_end_matches('s').parse().expect("seconds");
                self.world().now.wall_s -= seconds;
            }
            "restart" => self.world().restart(),
            "disk" => {
                self.world().disk_works = words[1] == "on";
                self.world().write();
            }
            "scope" => {
                let world = self.world();
                world.scope = words[1..]
                    .iter()
                    .map(|name| world.serving.plan.class_names.find(name).expect("a class of the plan"))
                    .collect();
            }
            "lease" => self.expect_lease(number, &words[1..]),
            "count" => {
                for word in &words[1..] {
                    self.checks += 1;
                    let (name, value) = word.rsplit_once('=').expect("NAME=NUMBER");
                    let expected: i64 = value.parse().expect("a number");
                    let got = self.world().count(name);
                    if got != expected {
                        self.fail(number, &format!("{name}: expected {expected}, got {got}"));
                    }
                }
            }
            other => panic!("line {number}: {other}: no such step"),
        }
    }
}

/// The order of options on the wire: message type, then ascending, relay agent information last.
fn order_faults(order: &[u8]) -> Option<String> {
    let rank = |code: u8| match code {
        53 => 0,
        82 => 256,
        other => u32::from(other),
    };
    let sorted = order.is_sorted_by_key(|code| rank(*code));
    (!sorted).then(|| format!("options stand in the order {order:?}"))
}

fn lease_difference(lease: &Lease4<'_>, now_s: u64, word: &str) -> Option<String> {
    let (key, value) = word.split_once('=').expect("KEY=VALUE");
    let plain = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let got = match key {
        "state" => lease.state.number().to_string(),
        "mac" => lease.hw_addr.to_string(),
        "cid" => format!("0x{}", plain(lease.client_id)),
        "valid" => lease.valid_lft.to_string(),
        "subnet" => lease.subnet_id.0.to_string(),
        "pool" => lease.pool_id.to_string(),
        "hostname" => format!("'{}'", String::from_utf8_lossy(lease.hostname)),
        "context" => format!("'{}'", String::from_utf8_lossy(lease.user_context)),
        "fwd" => u8::from(lease.fqdn_fwd).to_string(),
        "rev" => u8::from(lease.fqdn_rev).to_string(),
        "age" => (now_s - lease.cltt).to_string(),
        other => panic!("{other}: no such field of a lease"),
    };
    (got != value).then(|| format!("{key} of the lease: expected {value}, got {got}"))
}

/// Runs one scenario; gives back what failed and how much was looked at.
fn run(path: &Path) -> (Vec<String>, usize) {
    let text = fs::read_to_string(path).expect("a scenario");
    let mut run = Run { world: None, fate: None, xid: 0x0a00_0000, failures: Vec::new(), checks: 0 };
    let mut lines = text.lines().enumerate();
    let mut shards = 1;
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(count) = line.strip_prefix("shards ") {
            shards = count.parse().expect("a number");
            continue;
        }
        let Some(config) = line.strip_prefix("config ") else {
            run.line(number + 1, line);
            continue;
        };
        let members = if config == "{" {
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_end() != "}");
            inside.collect::<Vec<_>>().join("\n")
        } else {
            fs::read_to_string(Path::new(FOLDER).join(format!("{config}.json"))).expect("a configuration")
        };
        run.world = Some(World::new(&members, shards));
    }
    (run.failures, run.checks)
}

#[test]
fn every_scenario_goes_as_its_file_says() {
    let only = std::env::var("SCENARIO").ok();
    let mut paths: Vec<_> = fs::read_dir(FOLDER)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scn"))
        .collect();
    paths.sort();
    assert!(paths.len() >= SCENARIOS_MIN, "{} scenarios; {SCENARIOS_MIN} are promised", paths.len());
    let mut failed = Vec::new();
    for path in &paths {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let outcome = std::panic::catch_unwind(|| run(path));
        match outcome {
            Ok((failures, 0)) if failures.is_empty() => failed.push(format!("{name}: checks nothing")),
            Ok((failures, _)) if failures.is_empty() => {}
            Ok((failures, _)) => failed.push(format!("{name}:\n{}", failures.join("\n"))),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| {
                    panic.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned())
                });
                failed.push(format!("{name}: panicked: {text}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} scenarios fail:\n{}", failed.len(), paths.len(), failed.join("\n"));
}

mod several_shards {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use aplomado::lease::LeaseState;
    use proptest::prelude::*;

    use super::packet::{self, Answer};
    use super::{Fate, World};

    const PROBATION_S: u64 = 60;
    const CLIENTS: u8 = 10;
    const MEMBERS: &str = r#"
        "valid-lifetime": 100, "decline-probation-period": 60,
        "expired-leases-processing": { "reclaim-timer-wait-time": 3, "hold-reclaimed-time": 40, "flush-reclaimed-timer-wait-time": 7 },
        "subnet4": [ { "subnet": "192.0.2.0/24", "id": 1, "pools": [ { "pool": "192.0.2.10-192.0.2.17" } ],
            "reservations": [ { "client-id": "01:00", "ip-address": "192.0.2.12" }, { "client-id": "01:01", "ip-address": "192.0.2.30" } ] } ]
    "#;

    /// What a client or time does; `mac` is the one of its four hardware addresses that it uses, `last` the end of an address.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Discover { client: u8, mac: u8 },
        Select { client: u8, mac: u8, last: u8 },
        Renew { client: u8, mac: u8 },
        AskForAny { client: u8, mac: u8 },
        Release { client: u8, mac: u8 },
        Decline { client: u8, mac: u8 },
        Wait { seconds: u8 },
        Disk { works: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = || (0..CLIENTS, 0_u8..4);
        prop_oneof![
            3 => who().prop_map(|(client, mac)| Step::Discover { client, mac }),
            4 => (who(), 10_u8..19).prop_map(|((client, mac), last)| Step::Select { client, mac, last }),
            3 => who().prop_map(|(client, mac)| Step::Renew { client, mac }),
            3 => who().prop_map(|(client, mac)| Step::AskForAny { client, mac }),
            2 => who().prop_map(|(client, mac)| Step::Release { client, mac }),
            1 => who().prop_map(|(client, mac)| Step::Decline { client, mac }),
            3 => (1_u8..60).prop_map(|seconds| Step::Wait { seconds }),
            1 => any::<bool>().prop_map(|works| Step::Disk { works }),
        ]
    }

    /// Who has been told that an address is theirs, until when; a declined address is nobody's.
    #[derive(Default)]
    struct Told(BTreeMap<Ipv4Addr, (Option<u8>, u64)>);

    impl Told {
        fn of(&self, client: u8) -> Option<Ipv4Addr> {
            self.0.iter().find(|(_, (holder, _))| *holder == Some(client)).map(|(address, _)| *address)
        }

        fn live(&self, address: Ipv4Addr, now_s: u64) -> Option<Option<u8>> {
            self.0.get(&address).filter(|(_, end_s)| *end_s >= now_s).map(|(holder, _)| *holder)
        }
    }

    /// Even clients have an identifier and roam over four hardware addresses; odd ones have a hardware address and nothing else.
    fn identity(client: u8, mac: u8) -> String {
        if client.is_multiple_of(2) {
            format!("mac=02:00:00:00:{client:02x}:{mac:02x} cid=0x01{:02x}", client / 2)
        } else {
            format!("mac=02:00:00:00:{client:02x}:00")
        }
    }

    fn run(shards: usize, steps: &[Step]) -> Result<(), TestCaseError> {
        let mut world = World::new(MEMBERS, shards);
        let mut told = Told::default();
        for (number, step) in steps.iter().enumerate() {
            let at = |last: u8| Ipv4Addr::new(192, 0, 2, last);
            let (client, line) = match *step {
                Step::Wait { seconds } => {
                    world.live_through(u64::from(seconds));
                    continue;
                }
                Step::Disk { works } => {
                    world.disk_works = works;
                    world.write();
                    continue;
                }
                Step::Discover { client, mac } => (client, format!("discover {}", identity(client, mac))),
                Step::Select { client, mac, last } => {
                    (client, format!("request {} sid=192.0.2.1 want={}", identity(client, mac), at(last)))
                }
                Step::AskForAny { client, mac } => (client, format!("request {}", identity(client, mac))),
                Step::Renew { client, mac }
                | Step::Release { client, mac }
                | Step::Decline { client, mac } => {
                    let Some(address) = told.of(client) else { continue };
                    let who = identity(client, mac);
                    let line = match step {
                        Step::Renew { .. } => format!("request {who} ciaddr={address} unicast"),
                        Step::Release { .. } => format!("release {who} ciaddr={address} unicast"),
                        _ => format!("decline {who} want={address}"),
                    };
                    (client, line)
                }
            };
            let bytes = packet::query(&line, u32::try_from(number).expect("few steps"));
            let now_s = world.now.wall_s;
            match (step, world.put(&bytes, "v0")) {
                (_, Fate::Answered(bytes)) => {
                    let answer = Answer::read(&bytes);
                    let address = answer.yiaddr();
                    if answer.kind() == "nak" {
                        continue;
                    }
                    let holder = told.live(address, now_s);
                    prop_assert!(
                        holder.is_none_or(|holder| holder == Some(client)),
                        "step {number}: {line}: {} {address}, which is {holder:?}'s",
                        answer.kind()
                    );
                    if answer.kind() == "ack" {
                        told.0.retain(|_, (holder, _)| *holder != Some(client));
                        let valid_s = answer.option(51).expect("a lease ends");
                        let valid_s = u32::from_be_bytes(valid_s.try_into().expect("four octets"));
                        told.0.insert(address, (Some(client), now_s + u64::from(valid_s)));
                    }
                }
                (Step::Release { .. }, Fate::Served) => {
                    told.0.retain(|_, (holder, _)| *holder != Some(client));
                }
                (Step::Decline { .. }, Fate::Served) => {
                    let address = told.of(client).expect("it declined one");
                    told.0.insert(address, (None, now_s + PROBATION_S));
                }
                (_, Fate::Served) => prop_assert!(false, "step {number}: {line} is answered"),
                (_, Fate::Dropped(_)) => {}
            }
            if world.disk_works {
                for (address, (holder, end_s)) in &told.0 {
                    if *end_s < now_s {
                        continue;
                    }
                    let row = world.disk.get(address);
                    let state = row.map(|row| row.view().state);
                    let expected = if holder.is_some() { LeaseState::Assigned } else { LeaseState::Declined };
                    prop_assert_eq!(state, Some(expected), "step {}: the row of {}", number, address);
                }
            }
        }
        world.disk_works = true;
        world.write();
        let now_s = world.now.wall_s;
        let live = told.0.values().filter(|(_, end_s)| *end_s >= now_s).count();
        prop_assert!(
            world.count("assigned") >= i64::try_from(live).expect("few"),
            "counters know all leases"
        );
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn no_address_is_two_clients_with_one_shard(steps in prop::collection::vec(step(), 1..150)) {
            run(1, &steps)?;
        }

        #[test]
        fn no_address_is_two_clients_with_two_shards(steps in prop::collection::vec(step(), 1..150)) {
            run(2, &steps)?;
        }

        #[test]
        fn no_address_is_two_clients_with_four_shards(steps in prop::collection::vec(step(), 1..150)) {
            run(4, &steps)?;
        }
    }
}
