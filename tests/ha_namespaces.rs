//! Real pairs in network namespaces (see `tests/lab`): start, load, death of the primary, takeover, return.

mod lab;

use std::time::Duration;

use lab::Program::{Aplomado, Kea};
use lab::{Lab, Program, SERVERS, Setup, now};

/// The databases are equal before the primary's death and after its return.
fn story(name: &'static str, mode: &'static str, programs: [Program; 2]) {
    let Some(mut lab) = Lab::new(Setup::new(name, mode, &programs)) else { return };
    lab.start_all();
    lab.await_normal();
    let givers = lab.serve_all(0..40);
    let expected = if mode == "hot-standby" { 1 } else { 2 };
    assert_eq!(givers.len(), expected, "who serves in {mode}: {givers:?}");
    lab.assert_equal(40);

    lab.kill(0);
    let death = now();
    for client in 40..60 {
        assert_eq!(lab.serve(client).1, SERVERS[1]);
        if client == 40 {
            let gap = now().duration_since(death);
            assert!(gap < Duration::from_secs(5), "clients waited for {gap:?}");
        }
    }
    lab.assert_distinct(0..60);

    lab.start(0);
    lab.await_normal();
    lab.assert_equal(60);
    lab.serve_all(60..80);
    lab.assert_equal(80);
}

#[test]
fn hot_standby_serves_through_the_death_of_its_primary() {
    story("hs", "hot-standby", [Aplomado, Aplomado]);
}

#[test]
fn load_balancing_serves_through_the_death_of_its_primary() {
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
