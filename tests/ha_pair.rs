//! Two machines that talk to each other over a link with latency, loss and partitions, with clients, in virtual time.

#[path = "ha_pair/world.rs"]
mod world;

use serde_json::json;
use world::{World, address};

const NORMAL: [[&str; 2]; 2] = [["load-balancing", "load-balancing"], ["hot-standby", "hot-standby"]];
const MODES: [&str; 2] = ["load-balancing", "hot-standby"];

fn normal(mode: &str) -> [&str; 2] {
    [mode, mode]
}

/// Both databases hold the same leases, and every acknowledged one, as new as it was acknowledged.
fn assert_agreement(world: &mut World) {
    world.clients = 0;
    world.run(3000);
    let [one, other] = &world.nodes;
    for client in 0..=255 {
        let address = address(client);
        assert_eq!(one.leases.get(&address), other.leases.get(&address));
    }
    for (client, (_, cltt)) in &world.acked {
        let lease = world.nodes[0].leases.get(&address(*client)).expect("an acknowledged lease");
        assert!(lease.view().cltt >= *cltt, "client {client}");
    }
}

#[test]
fn cold_start_reaches_normal() {
    for (mode, states) in MODES.into_iter().zip(NORMAL) {
        let mut world = World::new(mode, json!({}), 1);
        assert!(world.await_states(states, 5000) < 2000);
        // The primary copied first, then the other.
        assert_eq!(world.nodes[0].transitions, ["syncing", "ready", mode]);
        assert_eq!(world.nodes[1].transitions, ["syncing", "ready", mode]);
        world.run(5000);
        assert_eq!(world.states(), states);
        assert!(world.nodes.iter().all(|node| node.service));
    }
}

#[test]
fn different_databases_are_equal_after_the_start() {
    for aplomado in [false, true] {
        let mut world = World::new("load-balancing", json!({ "sync-page-limit": 7 }), 2);
        world.nodes.iter_mut().for_each(|node| node.aplomado = aplomado);
        world.clients(100);
        world.await_states(normal("load-balancing"), 5000);
        world.run(3000);
        // One loses everything, and the other some of its newest.
        world.kill(1, false);
        world.run(2000);
        assert_eq!(world.state(0), "partner-down");
        world.start(1);
        world.await_states(normal("load-balancing"), 10_000);
        assert_agreement(&mut world);
        assert_eq!(world.nodes[0].leases.len(), 100);
        let sessions =
            world.nodes[0].commands.iter().filter(|command| *command == "aplomado-sync-begin").count();
        assert_eq!(sessions > 0, aplomado);
    }
}

#[test]
fn killed_server_is_replaced_and_returns() {
    for mode in MODES {
        for victim in 0..2 {
            let mut world = World::new(mode, json!({}), 3);
            world.clients(60);
            world.await_states(normal(mode), 5000);
            world.run(3000);
            world.gap_ms_max = 0;
            world.kill(victim, true);
            world.run(4000);
            assert_eq!(world.state(1 - victim), "partner-down", "{mode} {victim}");
            assert!(world.gap_ms_max <= 1500, "{mode} {victim}: a client waited for {} ms", world.gap_ms_max);
            let last = world.acked.values().map(|(at, _)| *at).min().expect("clients");
            assert!(world.now.mono.ms_since(last) < 500, "all are served");
            world.start(victim);
            world.await_states(normal(mode), 10_000);
            world.run(2000);
            assert_agreement(&mut world);
        }
    }
}

#[test]
fn silent_server_is_noticed_as_fast_as_a_dead_one() {
    for mode in MODES {
        let mut world = World::new(mode, json!({}), 4);
        world.clients(60);
        world.await_states(normal(mode), 5000);
        world.run(3000);
        world.gap_ms_max = 0;
        world.link = [false; 2];
        // Stopped, as by SIGSTOP: it neither answers nor serves.
        world.nodes[0].ha = None;
        world.run(4000);
        assert_eq!(world.state(1), "partner-down");
        assert!(world.gap_ms_max <= 1500, "{mode}: a client waited for {} ms", world.gap_ms_max);
    }
}

#[test]
fn link_loss_of_a_balanced_pair_is_bridged_by_the_backlog() {
    let mut world =
        World::new("load-balancing", json!({ "delayed-updates-limit": 5000, "max-unacked-clients": 10 }), 5);
    world.clients(40);
    world.await_states(normal("load-balancing"), 5000);
    world.run(1000);
    world.nodes.iter_mut().for_each(|node| node.transitions.clear());
    world.link = [false; 2];
    world.run(6000);
    assert_eq!(world.states(), ["communication-recovery"; 2]);
    world.link = [true; 2];
    world.await_states(normal("load-balancing"), 5000);
    for node in &world.nodes {
        assert_eq!(node.transitions, ["communication-recovery", "load-balancing"]);
    }
    world.run(3000);
    assert_agreement(&mut world);
}

#[test]
fn overflown_backlog_ends_in_a_synchronisation() {
    let mut world =
        World::new("load-balancing", json!({ "delayed-updates-limit": 10, "max-unacked-clients": 10 }), 6);
    world.clients(40);
    world.await_states(normal("load-balancing"), 5000);
    world.link = [false; 2];
    world.run(6000);
    world.nodes.iter_mut().for_each(|node| node.transitions.clear());
    world.link = [true; 2];
    world.await_states(normal("load-balancing"), 10_000);
    assert!(world.nodes.iter().all(|node| node.transitions.contains(&"syncing")));
    assert!(world.nodes.iter().any(|node| node.commands.iter().any(|command| command == "ha-reset")));
    world.run(3000);
    assert_agreement(&mut world);
}

#[test]
fn maintenance_hands_over_and_back() {
    for mode in MODES {
        let mut world = World::new(mode, json!({}), 7);
        world.clients(40);
        world.await_states(normal(mode), 5000);
        world.run(1000);
        world.gap_ms_max = 0;
        world.command(1, "ha-maintenance-start", None);
        world.await_states(["in-maintenance", "partner-in-maintenance"], 1000);
        world.run(2000);
        assert!(!world.nodes[0].service);
        world.command(1, "ha-maintenance-cancel", None);
        world.await_states(normal(mode), 1000);
        world.run(2000);
        assert_eq!(world.states(), normal(mode));
        assert!(world.gap_ms_max < 500);
        // Once more, and this time the server does go away.
        world.command(1, "ha-maintenance-start", None);
        world.await_states(["in-maintenance", "partner-in-maintenance"], 1000);
        world.kill(0, true);
        world.await_states(["dead", "partner-down"], 1000);
        world.run(1000);
        world.start(0);
        world.await_states(normal(mode), 10_000);
        assert_agreement(&mut world);
        // With a partner that does not answer, maintenance is taken over at once.
        world.kill(0, true);
        world.command(1, "ha-maintenance-start", None);
        world.await_states(["dead", "partner-down"], 100);
    }
}

#[test]
fn clocks_that_drift_apart_end_the_pair_and_a_reset_begins_it_anew() {
    let mut world = World::new("load-balancing", json!({}), 8);
    world.await_states(normal("load-balancing"), 5000);
    world.nodes[1].skew_s = 75;
    world.await_states(["terminated"; 2], 5000);
    assert!(world.nodes.iter().all(|node| node.service));
    world.run(10_000);
    assert_eq!(world.states(), ["terminated"; 2]);
    world.nodes[1].skew_s = 0;
    world.command(0, "ha-reset", None);
    world.command(1, "ha-reset", None);
    world.await_states(normal("load-balancing"), 10_000);
}

#[test]
fn source_that_is_an_aplomado_goes_on_serving_while_it_is_copied() {
    let off_ms = |aplomado: bool| {
        let mut world = World::new("hot-standby", json!({ "sync-page-limit": 4 }), 9);
        world.nodes.iter_mut().for_each(|node| node.aplomado = aplomado);
        world.latency_ms = 10;
        world.clients(200);
        world.await_states(normal("hot-standby"), 60_000);
        world.run(2000);
        world.kill(1, false);
        world.run(3000);
        world.nodes[0].off_ms_max = 0;
        world.start(1);
        world.await_states(normal("hot-standby"), 60_000);
        world.run(2000);
        assert_agreement(&mut world);
        world.nodes[0].off_ms_max
    };
    let (plain, in_service) = (off_ms(false), off_ms(true));
    assert!(plain > 1000, "{plain}");
    assert!(in_service <= 200, "{in_service} instead of {plain}");
}

#[test]
fn partner_that_dies_while_it_is_copied_or_copies_is_survived() {
    for victim in 0..2 {
        let mut world = World::new("hot-standby", json!({ "sync-page-limit": 2 }), 10);
        world.clients(100);
        world.await_states(normal("hot-standby"), 20_000);
        world.kill(1, false);
        world.run(3000);
        world.start(1);
        while world.state(1) != "syncing" {
            world.run(1);
        }
        world.run(50);
        world.kill(victim, true);
        world.run(15_000);
        assert_eq!(world.state(1 - victim), "partner-down");
        assert!(world.nodes[1 - victim].service, "the period of dhcp-disable, or its end, lets it serve");
        world.start(victim);
        world.await_states(normal("hot-standby"), 20_000);
        world.run(2000);
        assert_agreement(&mut world);
    }
}

/// What befalls the pair; at rest it must be normal again by itself, with equal databases.
fn storm(seed: u64) {
    let mode = if seed.is_multiple_of(2) { "load-balancing" } else { "hot-standby" };
    let mut world = World::new(
        mode,
        json!({ "sync-page-limit": 5, "delayed-updates-limit": if seed.is_multiple_of(2) { 20 } else { 0 } }),
        seed,
    );
    let aplomado = [world.random.below(2) == 0, world.random.below(2) == 0];
    for (node, aplomado) in world.nodes.iter_mut().zip(aplomado) {
        node.aplomado = aplomado;
    }
    world.clients(20);
    for _ in 0..30 {
        match world.random.below(12) {
            0 => world.link = [false; 2],
            1 => world.link[0] = false,
            2 => world.link[1] = false,
            3 | 4 => world.link = [true; 2],
            5 => world.loss_percent = world.random.below(60),
            6 => world.latency_ms = 1 + world.random.below(100),
            7 | 8 => {
                let victim = usize::from(world.random.below(2) == 1);
                let keep = world.random.below(2) == 0;
                // Both leases files are never lost at once: nothing could bring them back.
                let other_alive =
                    world.nodes[1 - victim].ha.is_some() && world.states()[1 - victim] != "syncing";
                world.kill(victim, keep || !other_alive || world.states() != normal(mode));
                if world.random.below(2) == 0 {
                    world.start(victim);
                }
            }
            9 => {
                for node in 0..2 {
                    if world.nodes[node].ha.is_none() {
                        world.start(node);
                    }
                }
            }
            10 => {
                let node = usize::from(world.random.below(2) == 1);
                world.command(node, "ha-reset", None);
            }
            _ => {}
        }
        let ms = world.random.below(3000);
        world.run(ms);
    }
    world.link = [true; 2];
    world.loss_percent = 0;
    world.latency_ms = 1;
    for node in 0..2 {
        if world.nodes[node].ha.is_none() {
            world.start(node);
        }
    }
    world.await_states(normal(mode), 120_000);
    world.run(5000);
    assert_eq!(world.states(), normal(mode));
    for node in &world.nodes {
        assert!(
            node.service && node.serving_state(),
            "{}",
            node.ha.as_ref().expect("alive").service_status()
        );
    }
    assert_agreement(&mut world);
}

fn storms(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let result = std::panic::catch_unwind(|| storm(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn pair_comes_back_from_anything() {
    storms(0..60);
}

#[test]
fn storms_that_once_did_harm() {
    // A `dhcp-disable` of a copy that was given up stayed in force.
    storms(1643..1644);
}

#[test]
#[ignore = "takes minutes"]
fn pair_comes_back_from_anything_at_length() {
    storms(0..3000);
}
