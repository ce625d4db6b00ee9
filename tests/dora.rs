//! The DHCPv4 rules, each proved by a scenario of its own in `tests/data/dora/RULE.scn`.
//!
//! ```text
//! # What the rule is about, if its name does not say it all.
//! config lan                                        members of `Dhcp4`, from tests/data/dora/lan.json …
//! config { … }                                      … or in place, up to a line with nothing but `}`
//! > discover mac=02:00:00:00:00:50 want=192.0.2.10   a query (`on=v1`: by this interface)
//! < offer yiaddr=192.0.2.50 opt12='res.host' no6     the answer: what is not named may be anything
//! < none foreign-server-id                           … or why there is none; `< served` when there never is one
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
