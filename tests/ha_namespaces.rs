//! Real pairs in network namespaces (see `tests/lab`): start together and apart, load, death of either, takeover, return.

mod lab;

use std::time::Duration;

use lab::Program::{Aplomado, Kea};
use lab::{Lab, Program, SERVERS, Setup, now};

/// One after the other dies, its clients are served by the other one, and it comes back: the databases are equal before and after each.
fn story(name: &'static str, mode: &'static str, programs: [Program; 2]) {
    let Some(mut lab) = Lab::new(Setup::new(name, mode, &programs)) else { return };
    lab.start_all();
    lab.await_normal();
    let givers = lab.serve_all(0..40);
    let expected = if mode == "hot-standby" { 1 } else { 2 };
    assert_eq!(givers.len(), expected, "who serves in {mode}: {givers:?}");
    lab.assert_equal(40);
    for (victim, first) in [(0, 40), (1, 80)] {
        lab.kill(victim);
        let death = now();
        for client in first..first + 20 {
            assert_eq!(lab.serve(client).1, SERVERS[1 - victim]);
            if client == first {
                let gap = now().duration_since(death);
                assert!(gap < Duration::from_secs(5), "clients waited for {gap:?}");
            }
        }
        lab.assert_distinct(0..first + 20);

        lab.start(victim);
        lab.await_normal();
        lab.assert_equal(usize::from(first) + 20);
        lab.serve_all(first + 20..first + 40);
        lab.assert_equal(usize::from(first) + 40);
    }
}

/// One is there long before the other: it serves everybody, and the other one copies what it gave.
fn apart(name: &'static str, mode: &'static str, programs: [Program; 2]) {
    for (first, &address) in SERVERS[..2].iter().enumerate() {
        let Some(mut lab) = Lab::new(Setup::new(name, mode, &programs)) else { return };
        lab.start(first);
        lab.await_state(first, "partner-down");
        assert_eq!(lab.serve_all(0..20).into_iter().collect::<Vec<_>>(), [address]);
        lab.start(1 - first);
        lab.await_normal();
        lab.serve_all(20..40);
        lab.assert_distinct(0..40);
        lab.assert_equal(40);
    }
}

#[test]
fn servers_that_are_started_one_after_the_other_find_each_other() {
    apart("ap-aa", "hot-standby", [Aplomado, Aplomado]);
    apart("ap-laa", "load-balancing", [Aplomado, Aplomado]);
}

#[test]
fn a_kea_that_is_started_before_us_or_after_us_finds_us() {
    apart("ap-ak", "hot-standby", [Aplomado, Kea]);
    apart("ap-lka", "load-balancing", [Kea, Aplomado]);
}

#[test]
fn hot_standby_serves_through_the_death_of_either() {
    story("hs", "hot-standby", [Aplomado, Aplomado]);
}

#[test]
fn load_balancing_serves_through_the_death_of_either() {
    story("lb", "load-balancing", [Aplomado, Aplomado]);
}

#[test]
fn kea_takes_over_from_us_and_gives_back() {
    story("ak", "hot-standby", [Aplomado, Kea]);
}

#[test]
fn we_take_over_from_kea_and_give_back() {
    story("ka", "hot-standby", [Kea, Aplomado]);
}

#[test]
fn kea_shares_the_load_with_us_takes_over_and_gives_back() {
    story("lak", "load-balancing", [Aplomado, Kea]);
}

#[test]
fn we_share_the_load_with_kea_take_over_and_give_back() {
    story("lka", "load-balancing", [Kea, Aplomado]);
}
