//! Behaviours 62 to 77, as far as the machine and the commands show them.

use aplomado::ha::backlog::{Delay, Operation};
use aplomado::ha::command::bulk::{
    BulkFailure, BulkSender, BulkWriter, bulk_answer, bulk_verdicts, read_bulk,
};
use aplomado::ha::command::json::Scanner;
use aplomado::ha::command::lease::{FORM_MODERN, LeaseReader, UpdateForm, write_update4};
use aplomado::ha::command::{PeerAnswer, PeerError, Verdict, verdict, verdict_bulk6};
use aplomado::ha::posts::PostNumber;
use aplomado::ha::relationship::Event;
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::lease::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use serde_json::{Value, json};

use crate::rig::{Server, no_answer, peer_answer};

fn lease() -> Lease4<'static> {
    Lease4 {
        address: [192, 0, 2, 77].into(),
        hw_addr: HwAddr::ethernet([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
        client_id: &[1, 0x52, 0x54, 0, 0x12, 0x34, 0x56],
        cltt: 1_767_225_600,
        valid_lft: 3600,
        subnet_id: SubnetId(5),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"",
        user_context: b"",
    }
}

fn written(operation: Operation, lease: &Lease4<'_>, form: UpdateForm) -> Value {
    let mut body = Vec::new();
    write_update4(&mut body, operation, lease, form);
    serde_json::from_slice(&body).expect("JSON")
}

const FORM_2_2: UpdateForm = UpdateForm { released_as_update: false, expire_32_bits: false };

#[test]
fn b62_updates_are_as_captured() {
    // The requests of a Kea 2.2, with `origin` added (2.4 and later).
    let mut body = Vec::new();
    let renewed = Lease4 {
        address: [10, 16, 0, 0].into(),
        hw_addr: HwAddr::ethernet([2, 0xaa, 0, 0, 0, 1]),
        client_id: &[1, 2, 0xaa, 0, 0, 0, 1],
        cltt: 1_795_415_637,
        valid_lft: 86_400,
        subnet_id: SubnetId(1),
        ..lease()
    };
    write_update4(&mut body, Operation::Delete, &renewed, FORM_MODERN);
    assert_eq!(
        String::from_utf8_lossy(&body),
        r#"{ "arguments": { "client-id": "01:02:aa:00:00:00:01", "expire": 1795502037, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "", "hw-address": "02:aa:00:00:00:01", "ip-address": "10.16.0.0", "origin": "ha-partner", "state": 0, "subnet-id": 1, "valid-lft": 86400 }, "command": "lease4-del", "service": [ "dhcp4" ] }"#
    );
    let update = written(Operation::Update, &lease(), FORM_MODERN);
    let expected = json!({ "command": "lease4-update", "service": ["dhcp4"], "arguments": {
        "ip-address": "192.0.2.77", "hw-address": "52:54:00:12:34:56", "client-id": "01:52:54:00:12:34:56",
        "subnet-id": 5, "valid-lft": 3600, "expire": 1_767_229_200, "fqdn-fwd": false, "fqdn-rev": false,
        "hostname": "", "state": 0, "force-create": true, "origin": "ha-partner" } });
    assert_eq!(update, expected);
    assert!(written(Operation::Delete, &lease(), FORM_MODERN)["arguments"].get("force-create").is_none());
}

#[test]
fn b64_the_partner_is_awaited_backups_are_not() {
    let server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    let parts = server.word.parts();
    assert_eq!((parts.awaited, parts.sent), (0b010, 0b110));
    assert!(!parts.queue && !parts.count_unsent);
    let server = Server::reach("load-balancing", "alpha", "partner-in-maintenance", json!({}));
    assert_eq!(server.word.awaited(), 0b010);
}

#[test]
fn b64_each_time_that_replies_begin_to_wait_for_the_partner_is_told_apart() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    let first = server.word.stretch();
    assert_ne!(first, 0, "0 is for the time before");
    server.partner("load-balancing");
    assert_eq!(server.word.stretch(), first, "still the same");
    server.update(Verdict::Error, 1);
    assert_eq!((server.state(), server.word.stretch()), ("communication-recovery", first));
    server.partner("load-balancing");
    assert_eq!(server.state(), "load-balancing");
    assert_eq!(server.word.stretch(), first + 1, "what was changed meanwhile need not be known");
    server.partner("in-maintenance");
    assert_eq!(server.state(), "partner-in-maintenance");
    assert_eq!(server.word.stretch(), first + 2, "what it did for its clients need not have arrived");
}

#[test]
fn b65_failed_update_makes_the_partner_unavailable() {
    for answer in [
        no_answer(),
        peer_answer(1, None),
        peer_answer(2, None),
        peer_answer(5, None),
        PeerAnswer::parse(br#"{ "result": 401, "text": "Unauthorized" }"#),
        PeerAnswer::parse(br#"{ "result": 0 }"#),
        PeerAnswer::parse(b"[ ]"),
    ] {
        assert_eq!(verdict(&answer), Verdict::Error, "{answer:?}");
    }
    let mut server = Server::reach("hot-standby", "alpha", "hot-standby", json!({}));
    server.update(Verdict::Error, 1);
    // It goes on waiting for the partner until silence has lasted.
    assert_eq!((server.state(), server.partner_state()), ("hot-standby", "unavailable"));
    assert_eq!(server.word.awaited(), 0b010);
}

#[test]
fn b66_conflict_counts_once_until_a_success() {
    assert_eq!(verdict(&peer_answer(4, None)), Verdict::Conflict);
    let mut server = Server::reach(
        "load-balancing",
        "alpha",
        "load-balancing",
        json!({ "max-rejected-lease-updates": 2 }),
    );
    server.update(Verdict::Conflict, 1);
    server.update(Verdict::Conflict, 1);
    assert_eq!(server.partner_state(), "load-balancing");
    server.update(Verdict::Success, 1);
    assert!(!server.relationship().remembers_rejected());
    server.update(Verdict::Conflict, 2);
    assert_eq!(server.state(), "load-balancing");
}

#[test]
fn b67_deleting_what_is_not_there_is_done() {
    assert_eq!(verdict(&peer_answer(3, None)), Verdict::Success);
    assert_eq!(verdict(&peer_answer(0, None)), Verdict::Success);
}

#[test]
fn b68_bulk_answers_of_version_6() {
    let failed = |results: &[u32]| {
        let list: Vec<Value> =
            results.iter().map(|result| json!({ "type": "IA_NA", "result": result })).collect();
        Some(json!({ "failed-leases": list }))
    };
    assert_eq!(verdict_bulk6(&peer_answer(0, failed(&[1, 4]))), Verdict::Success);
    assert_eq!(verdict_bulk6(&peer_answer(3, failed(&[4, 1]))), Verdict::Error);
    assert_eq!(verdict_bulk6(&peer_answer(3, failed(&[4, 3]))), Verdict::Conflict);
    assert_eq!(
        verdict_bulk6(&peer_answer(3, Some(json!({ "failed-deleted-leases": [{ "result": 3 }] })))),
        Verdict::Success
    );
    assert_eq!(verdict_bulk6(&peer_answer(3, Some(json!("text")))), Verdict::Success);
    assert_eq!(verdict_bulk6(&peer_answer(4, None)), Verdict::Conflict);
    assert_eq!(verdict_bulk6(&peer_answer(1, failed(&[4]))), Verdict::Error);
}

#[test]
fn b69_partner_down_counts_what_it_does_not_send() {
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
    let parts = server.word.parts();
    assert_eq!((parts.awaited, parts.sent, parts.count_unsent, parts.queue), (0, 0b100, true, false));
    server.event(Event::Unsent(5));
    assert_eq!(server.relationship().heartbeat_answer(server.now).unsent_update_count, Some(5));
    // 0 is for servers that have just started.
    server.event(Event::Unsent(u64::MAX - 5));
    assert_eq!(server.relationship().heartbeat_answer(server.now).unsent_update_count, Some(u64::MAX));
    server.event(Event::Unsent(1));
    assert_eq!(server.relationship().heartbeat_answer(server.now).unsent_update_count, Some(1));
}

#[test]
fn b70_recovery_queues_and_does_not_count() {
    let mut server = Server::reach("load-balancing", "alpha", "communication-recovery", json!({}));
    let parts = server.word.parts();
    assert_eq!((parts.awaited, parts.sent, parts.count_unsent, parts.queue), (0, 0b100, false, true));
    let relationship = server.ha.relationship_mut(0).expect("one");
    relationship.queue_update(Operation::Delete, lease().to_owned());
    relationship.queue_update(Operation::Update, lease().to_owned());
    assert_eq!(server.relationship().backlog().len(), 2);
    assert_eq!(server.relationship().heartbeat_answer(server.now).unsent_update_count, Some(0));
}

#[test]
fn b72_released_leases_by_the_partners_age() {
    let released = Lease4 { state: LeaseState::Released, valid_lft: 0, ..lease() };
    let modern = written(Operation::Update, &released, FORM_MODERN);
    assert_eq!((&modern["command"], &modern["arguments"]["state"]), (&json!("lease4-update"), &json!(3)));
    assert_eq!(modern["arguments"]["valid-lft"], json!(0));
    let old = written(Operation::Update, &released, FORM_2_2);
    assert_eq!(old["command"], json!("lease4-del"));
    assert!(old["arguments"].get("force-create").is_none());
    assert_eq!(written(Operation::Delete, &lease(), FORM_MODERN)["command"], json!("lease4-del"));
}

#[test]
fn b73_backups_are_awaited_on_demand() {
    let server = Server::new("passive-backup", "alpha", json!({ "wait-backup-ack": true }));
    assert_eq!(server.word.awaited(), 0b10);
    let server = Server::new("passive-backup", "alpha", json!({}));
    assert_eq!((server.word.awaited(), server.word.parts().sent), (0, 0b10));
    assert!(!server.word.parts().count_unsent);
}

#[test]
fn b74_without_updates_nothing_is_sent_queued_or_counted() {
    for state in ["load-balancing", "communication-recovery", "partner-down", "terminated"] {
        let mut server =
            Server::reach("load-balancing", "alpha", state, json!({ "send-lease-updates": false }));
        let parts = server.word.parts();
        assert_eq!(
            (parts.awaited, parts.sent, parts.count_unsent, parts.queue),
            (0, 0, false, false),
            "{state}"
        );
        server.event(Event::Unsent(5));
        server.ha.relationship_mut(0).expect("one").queue_update(Operation::Update, lease().to_owned());
        assert_eq!(server.relationship().heartbeat_answer(server.now).unsent_update_count, Some(0));
        assert!(server.relationship().backlog().is_empty());
    }
}

#[test]
fn b75_declined_lease_as_captured() {
    let declined = Lease4 {
        hw_addr: HwAddr::new(1, &[]).expect("fits"),
        client_id: &[],
        state: LeaseState::Declined,
        ..lease()
    };
    let update = written(Operation::Update, &declined, FORM_MODERN);
    let arguments = &update["arguments"];
    assert_eq!((&arguments["hw-address"], &arguments["state"]), (&json!(""), &json!(1)));
    assert!(arguments.get("client-id").is_none());
}

#[test]
fn b77_declined_lease_is_accepted() {
    let text = br#"{ "ip-address": "10.16.0.1", "hw-address": "", "subnet-id": 1, "valid-lft": 3600, "expire": 1795419239, "state": 1, "hostname": "", "fqdn-fwd": false, "fqdn-rev": false, "force-create": true }"#;
    let mut reader = LeaseReader::default();
    let update = reader.update4(&mut Scanner::new(text)).expect("JSON").expect("a lease");
    assert!(update.lease.hw_addr.is_empty() && update.force_create);
    let complete = update.complete(0, SubnetId(1), 7200);
    assert_eq!(
        (complete.cltt, complete.valid_lft, complete.state),
        (1_795_415_639, 3600, LeaseState::Declined)
    );
}

#[test]
fn what_an_update_leaves_out_is_completed() {
    let mut reader = LeaseReader::default();
    let update = reader
        .update4(&mut Scanner::new(br#"{"ip-address":"10.16.5.5","hw-address":"02:bb:00:00:00:01","user-context":{"note":"a,b"},"hostname":"Weird,Host"}"#))
        .expect("JSON")
        .expect("a lease");
    let complete = update.complete(1000, SubnetId(7), 7200);
    assert_eq!((complete.cltt, complete.valid_lft, complete.subnet_id), (1000, 7200, SubnetId(7)));
    assert_eq!(
        (complete.hostname, complete.user_context),
        (&b"weird,host"[..], &br#"{ "note": "a,b" }"#[..])
    );
    assert!(!update.force_create);
}

#[test]
fn ill_formed_updates_say_what_is_wrong() {
    for (text, field) in [
        (r#"{"hw-address":""}"#, "ip-address"),
        (r#"{"ip-address":"2001:db8::1","hw-address":""}"#, "ip-address"),
        (r#"{"ip-address":"10.0.0.1"}"#, "hw-address"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"zz"}"#, "hw-address"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","state":4}"#, "state"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","state":"1"}"#, "state"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","expire":0}"#, "expire"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","expire":5,"valid-lft":6}"#, "expire"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","subnet-id":-1}"#, "subnet-id"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","fqdn-fwd":true}"#, "hostname"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","user-context":[]}"#, "user-context"),
        (r#"{"ip-address":"10.0.0.1","hw-address":"","valid-lft":1.5}"#, "valid-lft"),
        (r#"[1]"#, "lease"),
    ] {
        let mut reader = LeaseReader::default();
        let bad = reader.update4(&mut Scanner::new(text.as_bytes())).expect("JSON").expect_err(text);
        assert_eq!(bad.field, field, "{text}");
    }
    assert!(LeaseReader::default().update4(&mut Scanner::new(br#"{"ip-address":"10.0.0.1""#)).is_err());
}

#[test]
fn infinite_lifetimes_travel() {
    let infinite = Lease4 { valid_lft: LIFETIME_INFINITE_S, ..lease() };
    let update = written(Operation::Update, &infinite, FORM_MODERN);
    assert_eq!(update["arguments"]["expire"], json!(1_767_225_600_u64 + u64::from(u32::MAX)));
    let old = UpdateForm { released_as_update: false, expire_32_bits: true };
    assert_eq!(written(Operation::Update, &infinite, old)["arguments"]["expire"], json!(u32::MAX));
    let text = update["arguments"].to_string();
    let mut reader = LeaseReader::default();
    let back = reader.update4(&mut Scanner::new(text.as_bytes())).expect("JSON").expect("a lease");
    assert_eq!(back.complete(0, SubnetId(5), 0), infinite);
}

#[test]
fn bulk_command_carries_changes_in_order_with_a_verdict_each() {
    let mut writer = BulkWriter::new("alpha");
    let hostile =
        Lease4 { hostname: b"\xfc\"\\\n", user_context: br#"{ "a": "b,c" }"#, pool_id: 3, ..lease() };
    let declined =
        Lease4 { address: [192, 0, 2, 78].into(), hw_addr: HwAddr::new(1, &[]).expect("fits"), ..lease() };
    writer.push(Operation::Update, &hostile);
    writer.push(Operation::Delete, &declined);
    writer.push(Operation::Update, &lease());
    assert_eq!(writer.len(), 3);
    let post = PostNumber { session: 1 << 52, number: 12, since: 10 };
    let body = writer.finish(Some(post)).to_vec();
    assert!(writer.is_empty());
    assert_eq!(
        serde_json::from_slice::<Value>(&body).expect("JSON")["command"],
        json!("aplomado-bulk-apply")
    );
    let expected =
        [(Operation::Update, hostile), (Operation::Delete, declined), (Operation::Update, lease())];
    let mut count = 0;
    let sender = read_bulk(&body, |item| {
        let (operation, update) = item.expect("a lease");
        assert_eq!((operation, update.complete(0, SubnetId(5), 0)), expected[count]);
        count += 1;
    });
    let sender = sender.expect("a command");
    assert_eq!((sender.name.as_deref(), sender.post, count), (Some("alpha"), Some(post), 3));

    let failed = [
        BulkFailure { index: 1, result: 4, text: "busy".to_owned() },
        BulkFailure { index: 2, result: 1, text: "x".to_owned() },
    ];
    let answer = bulk_answer(3, &failed);
    let read = PeerAnswer::parse(&answer.to_http_body());
    assert_eq!(bulk_verdicts(3, &read), [Verdict::Success, Verdict::Conflict, Verdict::Error]);
    assert_eq!(
        bulk_verdicts(2, &PeerAnswer::parse(&bulk_answer(2, &[]).to_http_body())),
        [Verdict::Success; 2]
    );
    assert_eq!(bulk_verdicts(2, &Err(PeerError::Io("timeout".to_owned()))), [Verdict::Error; 2]);
    assert_eq!(bulk_verdicts(2, &read), [Verdict::Error; 2], "an index that was never sent");
}

#[test]
fn a_change_that_is_late_says_so() {
    let mut writer = BulkWriter::new("a");
    for delay in [Some(Delay::Told), None, Some(Delay::Untold)] {
        writer.mark(delay);
        writer.push(Operation::Update, &lease());
        let sender = read_bulk(writer.finish(None), |item| assert!(item.is_ok())).expect("a command");
        assert_eq!((sender.delay, sender.name.as_deref()), (delay, Some("a")));
    }
}

#[test]
fn bulk_command_that_does_not_read_changes_nothing() {
    for body in [
        &b""[..],
        b"[]",
        b"{}",
        br#"{"arguments":{}}"#,
        br#"{"arguments":{"leases":{}}}"#,
        br#"{"arguments":{"leases":[{"#,
        br#"{"arguments":{"leases":[{"ip-address":"10.0.0.1","delete":true}],"origin":}}"#,
    ] {
        assert_eq!(
            read_bulk(body, |_| ()).expect_err("refused").result,
            1,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let body =
        br#"{"arguments":{"leases":[{"ip-address":"10.0.0.1"},{"ip-address":"10.0.0.2","delete":true},7]}}"#;
    let mut found = Vec::new();
    let sender = read_bulk(body, |item| found.push(item.ok().map(|(operation, _)| operation)));
    assert_eq!(sender.expect("a command"), BulkSender::default());
    assert_eq!(found, [None, Some(Operation::Delete), None]);
}
