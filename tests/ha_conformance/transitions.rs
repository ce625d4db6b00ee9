//! Behaviours 27 to 50. Their cells are also in the tables; here they stand by number.

use aplomado::ha::backlog::Operation;
use aplomado::ha::command::Verdict;
use aplomado::ha::relationship::{Action, Event};
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::lease::{Lease4, Lease4Buf, LeaseState};
use serde_json::json;

use crate::rig::{Server, no_answer, peer_answer};

fn lease(last: u8) -> Lease4Buf {
    Lease4 {
        address: [192, 0, 2, last].into(),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, last]),
        client_id: &[],
        cltt: 1_767_229_200,
        valid_lft: 3600,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"",
        user_context: b"",
    }
    .to_owned()
}

fn queue(server: &mut Server, leases: u8) {
    for last in 1..=leases {
        server.ha.relationship_mut(0).expect("one").queue_update(Operation::Update, lease(last));
    }
}

fn drain(server: &mut Server) -> Vec<u8> {
    let relationship = server.ha.relationship_mut(0).expect("one");
    std::iter::from_fn(|| relationship.pop_backlog())
        .map(|delayed| delayed.lease.view().address.octets()[3])
        .collect()
}

#[test]
fn b27_waiting_with_a_partner_that_lives_goes_to_syncing() {
    for partner in [
        "load-balancing",
        "partner-down",
        "ready",
        "in-maintenance",
        "partner-in-maintenance",
        "communication-recovery",
    ] {
        for this in ["alpha", "beta"] {
            let mut server = Server::reach("load-balancing", this, "waiting", json!({}));
            server.partner(partner);
            assert_eq!(server.transitions(), ["syncing"], "{partner}");
            assert!(server.sync_started().is_some());
        }
    }
    let mut server = Server::reach("load-balancing", "alpha", "waiting", json!({}));
    server.partner("syncing");
    assert_eq!(server.state(), "waiting");
}

#[test]
fn b28_of_two_waiting_the_primary_syncs() {
    for (mode, second) in [("load-balancing", "beta"), ("hot-standby", "beta")] {
        let mut server = Server::reach(mode, "alpha", "waiting", json!({}));
        server.partner("waiting");
        assert_eq!(server.state(), "syncing");
        let mut server = Server::reach(mode, second, "waiting", json!({}));
        server.partner("waiting");
        assert_eq!(server.state(), "waiting");
    }
}

#[test]
fn b29_without_sync_leases_waiting_goes_to_ready() {
    let mut server = Server::reach("load-balancing", "alpha", "waiting", json!({ "sync-leases": false }));
    server.partner("waiting");
    assert_eq!(server.transitions(), ["ready"]);
    let mut server = Server::reach("load-balancing", "beta", "waiting", json!({ "sync-leases": false }));
    server.partner("partner-down");
    assert_eq!(server.transitions(), ["ready"]);
    assert!(server.sync_started().is_none());
}

#[test]
fn b30_of_two_ready_the_primary_moves() {
    let mut primary = Server::reach("hot-standby", "alpha", "ready", json!({}));
    primary.partner("ready");
    assert_eq!(primary.state(), "hot-standby");
    let mut standby = Server::reach("hot-standby", "beta", "ready", json!({}));
    standby.partner("ready");
    assert_eq!(standby.state(), "ready");
    standby.partner("hot-standby");
    assert_eq!(standby.state(), "hot-standby");
}

#[test]
fn b31_ready_waits_for_a_partner_in_partner_down() {
    let mut server = Server::reach("load-balancing", "alpha", "ready", json!({}));
    server.partner("partner-down");
    assert_eq!(server.state(), "ready");
}

#[test]
fn b32_load_balancing_and_its_partners() {
    for (partner, state) in [
        ("waiting", "load-balancing"),
        ("syncing", "load-balancing"),
        ("ready", "load-balancing"),
        ("communication-recovery", "load-balancing"),
        ("partner-down", "syncing"),
        ("terminated", "terminated"),
    ] {
        let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
        server.partner(partner);
        assert_eq!(server.state(), state, "{partner}");
        if partner == "partner-down" {
            assert_eq!(server.transitions(), ["waiting", "syncing"]);
        }
    }
}

#[test]
fn b33_unavailable_partner_starts_recovery_at_once() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    server.update(Verdict::Error, 1);
    assert_eq!(server.state(), "communication-recovery");
    let mut server =
        Server::reach("load-balancing", "alpha", "load-balancing", json!({ "delayed-updates-limit": 0 }));
    server.silence();
    assert_eq!((server.state(), server.partner_state()), ("load-balancing", "unavailable"));
}

#[test]
fn b34_hot_standby_primary_needs_no_traffic_test() {
    let mut server =
        Server::reach("hot-standby", "alpha", "hot-standby", json!({ "max-response-delay": 15_000 }));
    server.silence();
    assert_eq!(server.state(), "hot-standby");
    server.silence();
    assert_eq!(server.state(), "partner-down");
    // The standby does: its partner's clients must be seen to suffer.
    let mut server =
        Server::reach("hot-standby", "beta", "hot-standby", json!({ "max-response-delay": 15_000 }));
    server.silence();
    server.silence();
    server.unacked(10);
    server.silence();
    assert_eq!(server.state(), "hot-standby");
    server.unacked(11);
    server.silence();
    assert_eq!(server.state(), "partner-down");
}

#[test]
fn b35_without_service_interruption_alone_suffices() {
    for state in ["waiting", "ready"] {
        for this in ["alpha", "beta"] {
            let mut server = Server::reach("load-balancing", this, state, json!({}));
            server.interrupt();
            assert_eq!(server.transitions().first(), Some(&"partner-down"), "{state}");
        }
    }
}

#[test]
fn b36_partner_down_and_its_partners() {
    for partner in ["partner-down", "partner-in-maintenance", "communication-recovery"] {
        let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
        server.partner(partner);
        assert_eq!(server.transitions().first(), Some(&"waiting"), "{partner}");
    }
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    server.partner("load-balancing");
    assert_eq!(server.state(), "partner-down");
    server.partner("ready");
    assert_eq!(server.state(), "load-balancing");
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    server.answer_with("ready", 0, Some(3));
    assert_eq!(server.transitions().first(), Some(&"waiting"));
    // What was told before counts, too, until we have copied: Kea forgets it with the next heartbeat. The same count in the next
    // outage is nothing new; a partner without the field has nothing to say.
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    server.answer_with("syncing", 0, Some(3));
    server.answer_with("ready", 0, Some(3));
    assert_eq!(server.transitions().first(), Some(&"waiting"));
    server.finish_sync(true);
    server.answer_with("ready", 0, Some(3));
    assert_eq!(server.state(), "load-balancing");
    server.interrupt();
    server.interrupt();
    server.unacked(20);
    server.interrupt();
    assert_eq!(server.state(), "partner-down");
    server.answer_with("ready", 0, Some(3));
    assert_eq!(server.state(), "load-balancing");
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    server.answer_with("ready", 0, None);
    assert_eq!(server.state(), "load-balancing");
}

#[test]
fn b37_partner_of_another_mode_makes_us_wait() {
    for (mode, wrong) in [
        ("load-balancing", "hot-standby"),
        ("hot-standby", "load-balancing"),
        ("hot-standby", "communication-recovery"),
    ] {
        for state in ["syncing", "ready", mode, "partner-down"] {
            let mut server = Server::reach(mode, "alpha", state, json!({}));
            server.partner(wrong);
            assert_eq!(server.transitions(), ["waiting"], "{state} {wrong}");
            // Kea names the state in the identifier when it is a normal one.
            let id = match state {
                "load-balancing" => "HA_INVALID_PARTNER_STATE_LOAD_BALANCING",
                "hot-standby" => "HA_INVALID_PARTNER_STATE_HOT_STANDBY",
                _ => "HA_INVALID_PARTNER_STATE",
            };
            assert!(server.logged().contains(&id), "{state} {wrong}: {:?}", server.logged());
        }
        let mut server = Server::reach(mode, "alpha", "waiting", json!({}));
        server.partner(wrong);
        assert_eq!(server.state(), "waiting");
    }
    let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
    server.partner("hot-standby");
    assert_eq!(server.transitions(), ["waiting"]);
    assert!(server.logged().contains(&"HA_INVALID_PARTNER_STATE_COMMUNICATION_RECOVERY"));
}

#[test]
fn b38_recovery_and_its_partners() {
    for partner in ["load-balancing", "communication-recovery"] {
        let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
        server.partner(partner);
        assert_eq!(server.state(), "load-balancing");
    }
    for partner in ["ready", "syncing", "waiting"] {
        let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
        queue(&mut server, 2);
        server.partner(partner);
        assert_eq!(server.state(), "communication-recovery");
        assert!(server.reset_sent().is_none());
    }
    let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
    server.partner("partner-down");
    assert_eq!(server.transitions().first(), Some(&"waiting"));
    // What was lost makes us wait without a reset: the partner resynchronises already.
    let mut server = Server::reach(
        "load-balancing",
        "beta",
        "communication-recovery",
        json!({ "delayed-updates-limit": 1 }),
    );
    queue(&mut server, 2);
    server.partner("waiting");
    assert_eq!(server.transitions(), ["waiting"]);
    assert!(server.reset_sent().is_none());
}

#[test]
fn b39_in_maintenance_never_leaves_by_itself() {
    for partner in
        ["waiting", "load-balancing", "partner-down", "partner-in-maintenance", "terminated", "ready"]
    {
        let mut server = Server::reach("load-balancing", "alpha", "in-maintenance", json!({}));
        server.partner(partner);
        server.answer_with(partner, 100, Some(1));
        server.interrupt();
        assert_eq!((server.state(), server.service), ("in-maintenance", false));
    }
}

#[test]
fn b40_partner_in_maintenance_waits_for_its_silence_only() {
    for partner in
        ["waiting", "syncing", "ready", "load-balancing", "partner-down", "terminated", "hot-standby"]
    {
        let mut server = Server::reach("load-balancing", "alpha", "partner-in-maintenance", json!({}));
        server.partner(partner);
        assert_eq!(server.state(), "partner-in-maintenance", "{partner}");
    }
    let mut server = Server::reach("load-balancing", "alpha", "partner-in-maintenance", json!({}));
    server.update(Verdict::Error, 1);
    assert_eq!(server.state(), "partner-down");
}

#[test]
fn b41_seen_maintenance_makes_the_complement() {
    for state in ["ready", "load-balancing", "communication-recovery"] {
        let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
        server.partner("partner-in-maintenance");
        assert_eq!((server.state(), server.service), ("in-maintenance", false));
        let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
        server.partner("in-maintenance");
        assert_eq!((server.state(), server.service), ("partner-in-maintenance", true));
        assert_eq!(server.scopes(), ["alpha", "beta"]);
    }
}

#[test]
fn b42_syncing_waits_for_a_partner_that_answers() {
    let mut server = Server::reach("load-balancing", "beta", "syncing", json!({}));
    assert_eq!(server.partner_state(), "unavailable");
    server.silence();
    assert!(server.sync_started().is_none());
    server.partner("ready");
    server.finish_sync(true);
    assert_eq!(server.state(), "ready");
}

#[test]
fn b43_failed_sync_waits_for_the_next_heartbeat() {
    let mut server = Server::reach("load-balancing", "beta", "waiting", json!({}));
    server.partner("ready");
    server.finish_sync(false);
    assert_eq!((server.state(), server.partner_state()), ("syncing", "unavailable"));
    server.forget();
    server.advance(1000);
    assert!(server.sync_started().is_none());
    server.partner("ready");
    assert!(server.sync_started().is_some());
}

#[test]
fn b44_one_answer_leads_through_waiting_and_syncing_to_ready() {
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    server.partner("partner-down");
    assert_eq!(server.transitions(), ["waiting", "syncing"]);
    assert!(!server.heartbeat_sent());
    server.finish_sync(true);
    assert_eq!(server.transitions(), ["waiting", "syncing", "ready"]);
}

#[test]
fn b45_clocks_too_far_apart_end_the_pair() {
    for state in ["waiting", "ready", "load-balancing", "partner-down"] {
        for skew in [61, -61] {
            let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
            server.answer_with("syncing", skew, Some(0));
            assert_eq!(server.state(), "terminated", "{state} {skew}");
        }
        for skew in [60, -60] {
            let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
            server.answer_with("syncing", skew, Some(0));
            assert_ne!(server.state(), "terminated", "{state} {skew}");
        }
    }
}

#[test]
fn b46_terminated_serves_its_own_and_is_silent() {
    for (this, scopes) in [("alpha", &["alpha"][..]), ("beta", &["beta"])] {
        let mut server = Server::reach("load-balancing", this, "terminated", json!({}));
        assert!(server.service);
        assert_eq!(server.scopes(), scopes);
        server.advance(1_000_000);
        assert!(!server.heartbeat_sent());
        let parts = server.word.parts();
        assert_eq!((parts.awaited, parts.sent, parts.count_unsent), (0, 1 << 2, true));
        let answer = server.command("ha-heartbeat", None).expect("an answer");
        assert_eq!(answer.arguments.expect("arguments")["state"], "terminated");
    }
    assert!(Server::reach("hot-standby", "beta", "terminated", json!({})).scopes().is_empty());
}

#[test]
fn b47_rejected_clients_end_the_pair() {
    let mut server = Server::reach(
        "load-balancing",
        "alpha",
        "load-balancing",
        json!({ "max-rejected-lease-updates": 3 }),
    );
    for client in [1, 2, 2, 1] {
        server.update(Verdict::Conflict, client);
    }
    assert_eq!(server.state(), "load-balancing");
    server.update(Verdict::Conflict, 3);
    assert_eq!(server.state(), "terminated");
    let mut server = Server::reach(
        "load-balancing",
        "alpha",
        "load-balancing",
        json!({ "max-rejected-lease-updates": 0 }),
    );
    for client in 0..100 {
        server.update(Verdict::Conflict, client);
    }
    assert_eq!(server.state(), "load-balancing");
}

#[test]
fn b48_rejects_are_forgotten_where_a_new_beginning_is_made() {
    let extra = || json!({ "max-rejected-lease-updates": 2 });
    let rejected = |server: &Server| server.relationship().remembers_rejected();
    let normal = || {
        let mut server = Server::reach("load-balancing", "alpha", "load-balancing", extra());
        server.update(Verdict::Conflict, 1);
        assert!(server.relationship().remembers_rejected());
        server
    };
    // Kept.
    let mut server = normal();
    server.silence();
    assert_eq!((server.state(), rejected(&server)), ("communication-recovery", true));
    server.partner("load-balancing");
    assert_eq!((server.state(), rejected(&server)), ("load-balancing", true));
    let mut server = normal();
    server.partner("in-maintenance");
    assert_eq!((server.state(), rejected(&server)), ("partner-in-maintenance", true));
    let mut server = normal();
    server.partner("partner-in-maintenance");
    assert_eq!((server.state(), rejected(&server)), ("in-maintenance", true));
    // Forgotten.
    let mut server = normal();
    server.result("ha-reset", None);
    assert!(!rejected(&server));
    let mut server = normal();
    server.partner("in-maintenance");
    server.silence();
    assert_eq!((server.state(), rejected(&server)), ("partner-down", false));
    let mut server = normal();
    server.answer_with("load-balancing", 61, Some(0));
    assert_eq!((server.state(), rejected(&server)), ("terminated", false));
    for state in ["syncing", "ready"] {
        let mut server = Server::reach("load-balancing", "alpha", state, extra());
        server.update(Verdict::Conflict, 1);
        assert!(rejected(&server));
        // A conflict counts there too, until the state is entered again.
        server.result("ha-reset", None);
        assert!(!rejected(&server));
    }
}

fn paused(state: &str, pause: &str) -> serde_json::Value {
    json!({ "state-machine": { "states": [{ "state": state, "pause": pause }] } })
}

#[test]
fn b49_pauses_hold_until_continued() {
    let mut server = Server::new("load-balancing", "beta", paused("ready", "always"));
    server.partner("ready");
    server.finish_sync(true);
    assert_eq!(server.state(), "ready");
    server.partner("load-balancing");
    server.partner("load-balancing");
    assert_eq!(server.state(), "ready");
    assert_eq!(server.result("ha-continue", None), 0);
    assert_eq!(server.state(), "ready");
    server.partner("load-balancing");
    assert_eq!(server.state(), "load-balancing");

    let mut server = Server::new("load-balancing", "alpha", paused("partner-down", "once"));
    server.interrupt();
    assert!(server.relationship().is_paused());
    server.partner("ready");
    assert_eq!(server.state(), "partner-down");
    server.command("ha-continue", None);
    server.partner("ready");
    assert_eq!(server.state(), "load-balancing");
    // The second time it goes on by itself.
    server.unacked(11);
    server.interrupt();
    server.unacked(11);
    server.silence();
    assert_eq!(server.state(), "partner-down");
    assert!(!server.relationship().is_paused());
}

#[test]
fn b49_commands_move_a_paused_machine_and_leave_it_paused() {
    let mut server = Server::new("load-balancing", "alpha", paused("waiting", "always"));
    assert!(server.relationship().is_paused());
    server.result("ha-maintenance-notify", Some(json!({ "cancel": false })));
    assert_eq!((server.state(), server.relationship().is_paused()), ("in-maintenance", true));
    server.result("ha-reset", None);
    assert_eq!((server.state(), server.relationship().is_paused()), ("waiting", true));
}

#[test]
fn continue_wakes_servers_without_heartbeats() {
    let mut server = Server::new("load-balancing", "gamma", paused("waiting", "once"));
    assert_eq!(server.state(), "waiting");
    server.command("ha-continue", None);
    assert_eq!(server.state(), "backup");
    let mut server = Server::new("passive-backup", "alpha", paused("waiting", "once"));
    server.command("ha-continue", None);
    assert_eq!((server.state(), server.service), ("passive-backup", true));
}

#[test]
fn b50_pause_in_syncing_comes_before_the_copy() {
    let mut server = Server::new("load-balancing", "alpha", paused("syncing", "once"));
    server.partner("ready");
    server.partner("ready");
    assert_eq!(server.state(), "syncing");
    assert!(server.sync_started().is_none());
    server.command("ha-continue", None);
    server.partner("ready");
    assert!(server.sync_started().is_some());
}

#[test]
fn waiting_follows_a_terminated_partner_after_ten_minutes() {
    let mut server =
        Server::reach("load-balancing", "alpha", "waiting", json!({ "heartbeat-delay": 10_000 }));
    for _ in 0..60 {
        server.partner("terminated");
        assert_eq!(server.state(), "waiting");
    }
    server.partner("terminated");
    assert_eq!(server.state(), "terminated");
    // Continuously: silence in between starts again.
    let mut server =
        Server::reach("load-balancing", "alpha", "waiting", json!({ "heartbeat-delay": 10_000 }));
    for _ in 0..50 {
        server.partner("terminated");
    }
    server.silence();
    for _ in 0..60 {
        server.partner("terminated");
    }
    assert_eq!(server.state(), "waiting");
}

#[test]
fn b71_backlog_is_flushed_in_order_before_load_balancing() {
    let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
    queue(&mut server, 3);
    server.partner("communication-recovery");
    assert_eq!(server.state(), "communication-recovery");
    let ticket = server.flush_started().expect("a flush");
    assert_eq!(drain(&mut server), [1, 2, 3]);
    // What comes meanwhile is sent before the state changes.
    server.ha.relationship_mut(0).expect("one").queue_update(Operation::Delete, lease(9));
    server.event(Event::FlushFinished { ticket, success: true });
    assert_eq!(server.state(), "communication-recovery");
    let ticket = server.flush_started().expect("another flush");
    assert_eq!(drain(&mut server), [9]);
    server.event(Event::FlushFinished { ticket, success: true });
    assert_eq!((server.state(), server.relationship().backlog().len()), ("load-balancing", 0));
}

#[test]
fn overflown_backlog_resets_the_partner() {
    let mut server = Server::reach(
        "load-balancing",
        "alpha",
        "communication-recovery",
        json!({ "delayed-updates-limit": 2 }),
    );
    queue(&mut server, 3);
    assert_eq!(server.relationship().backlog().len(), 2);
    server.partner("communication-recovery");
    assert!(server.flush_started().is_none());
    let ticket = server.reset_sent().expect("a reset");
    // It fails: again at the next heartbeat, not before.
    server.event(Event::ResetAnswered { ticket, answer: no_answer() });
    assert_eq!((server.state(), server.reset_sent()), ("communication-recovery", Some(ticket)));
    assert_eq!(server.partner_state(), "communication-recovery");
    server.partner("communication-recovery");
    let again = server.reset_sent().expect("another reset");
    assert_ne!(again, ticket);
    server.event(Event::ResetAnswered { ticket: again, answer: peer_answer(0, None) });
    assert_eq!(server.transitions().first(), Some(&"waiting"));
    assert!(!server.relationship().backlog().was_overflown());
}

/// What a server kept for its partner and lost, or did not send, the partner must copy: one that serves alone does so only when it hears of a
/// count that it has not heard before, when the server is ready.
#[test]
fn what_the_partner_was_not_sent_is_told_once_more_when_it_can_copy_it() {
    let count = |server: &Server| {
        server.relationship().heartbeat_answer(server.now).unsent_update_count.expect("a count")
    };
    let recovering = |queued| {
        let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
        if queued > 0 {
            queue(&mut server, queued);
        }
        server
    };
    let copied = |server: &mut Server, gave| {
        server.partner("partner-down");
        assert_eq!(server.state(), "syncing");
        let before = count(server);
        if gave {
            server.event(Event::Gave);
        }
        server.finish_sync(true);
        assert_eq!(server.state(), "ready");
        count(server) - before
    };
    // Kept, and of no use any more; nothing kept; kept, but brought.
    assert_eq!(copied(&mut recovering(3), false), 1);
    assert_eq!(copied(&mut recovering(0), false), 0);
    assert_eq!(copied(&mut recovering(3), true), 0);
    // Not sent by a server that was alone; and what a partner has copied since needs no word.
    let mut alone = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    alone.event(Event::Unsent(2));
    assert_eq!(copied(&mut alone, false), 1);
    let mut alone = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    alone.event(Event::Unsent(2));
    alone.partner("load-balancing");
    alone.command("ha-sync-complete-notify", None);
    assert_eq!(copied(&mut alone, false), 0);
    // Nor what came before the pair was in its normal state.
    let mut pair = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    pair.event(Event::Unsent(2));
    pair.partner("waiting");
    pair.partner("ready");
    assert_eq!(pair.state(), "load-balancing");
    assert_eq!(copied(&mut pair, false), 0);
}

/// The partner kept more than it could, resets us and copies, all before our next heartbeat: what it kept is nowhere but there.
#[test]
fn a_server_that_was_reset_in_recovery_copies_before_it_goes_on_with_a_partner_that_is_ready() {
    for (reset, expected) in [(true, "syncing"), (false, "load-balancing")] {
        let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
        server.interrupt();
        if reset {
            assert_eq!(server.result("ha-reset", None), 0);
        } else {
            server.unacked(11);
        }
        server.silence();
        assert_eq!(server.state(), "partner-down");
        server.partner("ready");
        assert_eq!(server.state(), expected);
        if reset {
            server.finish_sync(true);
            server.partner("ready");
            assert_eq!(server.state(), "load-balancing");
        }
    }
}

#[test]
fn failed_flush_owes_a_synchronisation_even_after_another_silence() {
    let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
    queue(&mut server, 3);
    server.partner("load-balancing");
    let ticket = server.flush_started().expect("a flush");
    server.ha.relationship_mut(0).expect("one").pop_backlog();
    server.event(Event::FlushFinished { ticket, success: false });
    // Not the failed flush makes the partner unavailable.
    assert_eq!(server.partner_state(), "load-balancing");
    let reset = server.reset_sent().expect("a reset");
    server.event(Event::ResetAnswered { ticket: reset, answer: no_answer() });
    server.silence();
    server.forget();
    server.partner("load-balancing");
    assert!(server.flush_started().is_none());
    assert!(server.reset_sent().is_some());
}

#[test]
fn reset_during_a_copy_cancels_it() {
    let mut server = Server::reach("load-balancing", "beta", "waiting", json!({}));
    server.partner("ready");
    let ticket = server.sync_started().expect("a copy");
    server.result("ha-reset", None);
    assert!(server.actions().any(|action| *action == Action::CancelSync(ticket)));
    // Its end no longer matters.
    server.event(Event::SyncFinished { ticket, result: Ok(()) });
    assert_ne!(server.state(), "ready");
}

#[test]
fn command_forced_transition_takes_one_step() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    server.result("ha-reset", None);
    // The step leads on to `syncing`, which begins at the next heartbeat.
    assert_eq!(server.transitions(), ["waiting", "syncing"]);
    assert!(server.sync_started().is_none() && !server.service);
    server.partner("load-balancing");
    assert!(server.sync_started().is_some());
}

/// Both served alone. The partner has noticed first and copied already when it is heard to be ready: what it gave must be copied too.
#[test]
fn what_a_partner_gave_alone_is_copied_although_it_was_told_a_heartbeat_ago() {
    for (told, next) in [(Some(0), "load-balancing"), (Some(40), "waiting"), (None, "load-balancing")] {
        for between in ["waiting", "syncing"] {
            let mut server =
                Server::reach("load-balancing", "alpha", "partner-down", json!({ "sync-leases": true }));
            server.answer_with(between, 0, told);
            assert_eq!(server.state(), "partner-down");
            server.answer_with(between, 0, told);
            server.forget();
            server.answer_with("ready", 0, told);
            let entered = server.transitions();
            assert_eq!(entered.first(), Some(&next), "{told:?} told in {between}: {entered:?}");
        }
    }
}
