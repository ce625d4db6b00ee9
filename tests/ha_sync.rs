//! A server with leases goes on serving its clients while its empty partner copies them (see `tests/lab`).

mod lab;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::Program::Aplomado;
use lab::load::Load;
use lab::{Lab, Setup, now, until};
use serde_json::{Value, json};

/// Leases of clients that do not come.
const OLD: u32 = 50_000;

fn sleep(time: Duration) {
    let start = now();
    while now().duration_since(start) < time {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A pair with a standby; the first server has [`OLD`] leases of a second subnet.
fn full(name: &'static str, page_limit: u32) -> Option<Lab> {
    let mut setup = Setup::new(name, "hot-standby", &[Aplomado, Aplomado]);
    setup.relationship = json!({ "sync-page-limit": page_limit });
    filled(setup)
}

/// The lab of `setup`, in which the first server has [`OLD`] leases of a second subnet.
fn filled(mut setup: Setup) -> Option<Lab> {
    setup.subnets = Some(json!([
        { "id": 1, "subnet": "10.77.0.0/16", "pools": [{ "pool": "10.77.10.0 - 10.77.250.255" }] },
        { "id": 2, "subnet": "10.88.0.0/16", "pools": [{ "pool": "10.88.0.1 - 10.88.255.254" }] },
    ]));
    let lab = Lab::new(setup)?;
    #[expect(clippy::disallowed_methods, reason = "leases of real servers end in real time")]
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut rows = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n".to_owned();
    for number in 1..=OLD {
        let [_, _, high, low] = number.to_be_bytes();
        writeln!(
            rows,
            "10.88.{high}.{low},02:99:00:00:{high:02x}:{low:02x},,4000,{},2,0,0,,0,,0",
            seconds + 4000
        )
        .expect("memory");
    }
    std::fs::write(lab.folder().join("0.csv"), rows).expect("room on the disk");
    Some(lab)
}

fn times(lab: &Lab, server: usize, message: &str) -> usize {
    lab.log(server).matches(message).count()
}

/// All leases of a server by address, with what clients know of them.
fn leases(lab: &Lab, server: usize) -> Vec<String> {
    let answer = lab.command(server, "lease4-get-all", &Value::Null).expect("an answer");
    let list = answer["arguments"]["leases"].as_array().expect("leases");
    list.iter().map(Value::to_string).collect()
}

fn assert_equal(lab: &Lab) {
    until("equal databases", || {
        let [one, two] = [leases(lab, 0), leases(lab, 1)];
        (one == two && one.len() > OLD as usize).then_some(())
    });
}

#[test]
fn clients_are_served_while_an_empty_partner_copies() {
    let Some(mut lab) = full("s-load", 1000) else { return };
    lab.start(0);
    lab.await_state(0, "partner-down");
    let load = Load::start(2, 32, Duration::ZERO);
    sleep(Duration::from_secs(1));
    let before = {
        let mut ledger = load.ledger();
        ledger.forget_waits();
        ledger.acknowledged
    };
    assert!(before > 50, "{before} acknowledgements of a server that is alone");
    let start = now();
    lab.start(1);
    lab.await_normal();
    let took = now().duration_since(start);
    let (wait, served) = {
        let ledger = load.ledger();
        (ledger.wait_max, ledger.acknowledged - before)
    };
    sleep(Duration::from_millis(500));
    let (held, wrong) = {
        let ledger = load.ledger();
        (ledger.held.len(), ledger.wrong.clone())
    };
    drop(load);
    say(&format!(
        "{OLD} old leases and {held} new ones: normal after {took:?}; the longest wait was {wait:?}, {served} were served meanwhile"
    ));
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(times(&lab, 0, "HA_SYNC_SOURCE_START"), 1);
    assert_eq!(times(&lab, 0, "HA_SYNC_SOURCE_COMPLETE"), 1);
    // 200 ms on a quiet machine. The copy itself takes many times as long as what clients may wait here.
    assert!(wait < Duration::from_secs(1), "a client waited for {wait:?}");
    assert_equal(&lab);
    // What was acknowledged meanwhile is where the client's server is not.
    lab.kill(0);
    lab.await_state(1, "partner-down");
    assert!(leases(&lab, 1).len() >= held + OLD as usize);
}

/// A server under load whose partner, started just now, copies its leases in many small pages.
fn copying(name: &'static str) -> Option<(Lab, Load)> {
    let mut lab = full(name, 50)?;
    lab.start(0);
    lab.await_state(0, "partner-down");
    let load = Load::start(2, 8, Duration::from_millis(1));
    sleep(Duration::from_millis(500));
    lab.start(1);
    until("a copy", || (times(&lab, 0, "HA_SYNC_SOURCE_START") > 0).then_some(()));
    Some((lab, load))
}

#[test]
fn a_source_that_dies_while_it_is_copied_is_copied_when_it_is_back() {
    let Some((mut lab, load)) = copying("s-kill") else { return };
    lab.kill(0);
    let acknowledged = load.ledger().acknowledged;
    drop(load);
    assert!(acknowledged > 50, "{acknowledged} acknowledgements");
    assert_eq!(times(&lab, 0, "HA_SYNC_SOURCE_COMPLETE"), 0, "the copy was over before the source died");
    until("a failure", || (times(&lab, 1, "HA_SYNC_FAILED") > 0).then_some(()));
    lab.start(0);
    lab.await_normal();
    assert_equal(&lab);
}

#[test]
fn an_asker_that_dies_while_it_copies_begins_anew() {
    let Some((mut lab, load)) = copying("s-asker") else { return };
    lab.kill(1);
    assert_eq!(times(&lab, 0, "HA_SYNC_SOURCE_COMPLETE"), 0, "the copy was over before the asker died");
    load.ledger().forget_waits();
    lab.start(1);
    lab.await_normal();
    let wrong = load.ledger().wrong.clone();
    drop(load);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(times(&lab, 0, "HA_SYNC_SOURCE_START"), 2);
    assert_equal(&lab);
}

#[test]
fn a_backup_copies_from_a_primary_that_goes_on_serving() {
    let mut setup = Setup::new("s-backup", "passive-backup", &[Aplomado, Aplomado]);
    setup.relationship = json!({ "sync-page-limit": 1000 });
    let Some(mut lab) = filled(setup) else { return };
    lab.start(0);
    lab.await_state(0, "passive-backup");
    let load = Load::start(2, 16, Duration::ZERO);
    sleep(Duration::from_millis(500));
    lab.start(1);
    lab.await_state(1, "backup");
    load.ledger().forget_waits();
    lab.order(1, "ha-sync", &json!({ "server-name": "one", "max-period": 20 }));
    let (wait, wrong) = {
        let ledger = load.ledger();
        (ledger.wait_max, ledger.wrong.clone())
    };
    // It may say so a little after the asker has answered.
    until("the source's word that it stayed in service", || {
        (times(&lab, 0, "HA_SYNC_SOURCE_COMPLETE") == 1).then_some(())
    });
    assert!(wait < Duration::from_secs(1) && wrong.is_empty(), "a client waited for {wait:?}; {wrong:?}");
    assert_eq!(lab.state(1).as_deref(), Some("backup"));
    // What was on its way before the backup was there is in the copy, what came later in updates.
    sleep(Duration::from_millis(500));
    drop(load);
    assert_equal(&lab);
}

#[test]
fn heartbeats_are_answered_while_a_page_of_all_leases_is_made_and_applied() {
    let Some(mut lab) = full("s-page", 100_000) else { return };
    lab.start(0);
    lab.await_state(0, "partner-down");
    lab.start(1);
    until("the other one", || lab.state(1));
    // At both: one makes a page of all leases, the other puts it away.
    let (mut longest, mut asked) = (Duration::ZERO, 0);
    until("the normal state", || {
        let states = [0, 1].map(|server| {
            let start = now();
            let state = lab.state(server).expect("an answer");
            longest = longest.max(now().duration_since(start));
            asked += 1;
            state
        });
        (states == ["hot-standby", "hot-standby"]).then_some(())
    });
    assert!(lab.log(1).contains("50000 lease(s) stored"), "one page brought all");
    say(&format!("{asked} heartbeats while a page of {OLD} leases travelled; the longest took {longest:?}"));
    // Such a page takes longer than this altogether; a partner takes a server for dead after twice as long, at the shortest.
    assert!(longest < Duration::from_millis(500), "an answer took {longest:?}");
    assert_equal_old(&lab);
}

/// As [`assert_equal`], when no client has come.
fn assert_equal_old(lab: &Lab) {
    let [one, two] = [leases(lab, 0), leases(lab, 1)];
    assert!(one == two && one.len() == OLD as usize, "{} and {} leases", one.len(), two.len());
}
