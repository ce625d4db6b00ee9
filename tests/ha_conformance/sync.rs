//! Behaviours 78 to 85: the asking side as a sub-machine, pages as text.

use std::net::Ipv4Addr;

use aplomado::ha::command::page::{
    PageAnswer, PageLeases, PageRequest, write_page_end, write_page_lease, write_page_start,
};
use aplomado::ha::command::{PeerAnswer, PeerError};
use aplomado::ha::partner::{BULK_COMMAND, Hint, Partner, SYNC_BEGIN_COMMAND};
use aplomado::ha::relationship::Action;
use aplomado::ha::sync::{Applied, Expect, Reply, SubnetFilter, Sync, SyncAction, SyncParams, SyncSummary};
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::lease::{Lease4, LeaseState};
use serde_json::{Value, json};

use crate::rig::{Server, relationship, valid};

fn params(source: &Partner, max_period_s: Option<u64>) -> SyncParams {
    let config = valid(relationship("load-balancing", "alpha", json!({ "sync-page-limit": 2 })));
    SyncParams::new(&config, source, max_period_s)
}

fn kea() -> Partner {
    let mut partner = Partner::new(None);
    partner.learn_commands(Some(["ha-heartbeat", "ha-sync-complete-notify"]));
    partner
}

fn aplomado() -> Partner {
    let mut partner = Partner::new(None);
    partner.learn_commands(Some([BULK_COMMAND, SYNC_BEGIN_COMMAND]));
    partner
}

/// A copy with a scripted source.
struct Copy {
    sync: Sync,
    sent: Vec<Value>,
    expects: Vec<Expect>,
    applies: Vec<bool>,
    gives: usize,
    unsupported: Vec<&'static str>,
    learnt: Option<Vec<String>>,
    finished: Option<Result<SyncSummary, String>>,
}

impl Copy {
    fn new(params: SyncParams) -> Self {
        let mut copy = Self {
            sync: Sync::new(params),
            sent: Vec::new(),
            expects: Vec::new(),
            applies: Vec::new(),
            gives: 0,
            unsupported: Vec::new(),
            learnt: None,
            finished: None,
        };
        copy.collect();
        copy
    }

    fn collect(&mut self) {
        while let Some(action) = self.sync.poll_action() {
            assert!(self.finished.is_none(), "nothing comes after the end");
            match action {
                SyncAction::Send { body, expect, .. } => {
                    self.sent.push(serde_json::from_slice(&body).expect("JSON"));
                    self.expects.push(expect);
                }
                SyncAction::Apply { changes } => self.applies.push(changes),
                SyncAction::Unsupported(command) => self.unsupported.push(command),
                SyncAction::Commands(names) => self.learnt = names,
                SyncAction::Finished(result) => self.finished = Some(result),
                SyncAction::Give => self.gives += 1,
            }
        }
    }

    fn commands(&self) -> Vec<&str> {
        self.sent.iter().map(|sent| sent["command"].as_str().expect("a command")).collect()
    }

    fn answer(&mut self, result: i64, arguments: Option<Value>) -> &mut Self {
        let mut map = json!({ "result": result, "text": "text" });
        if let Some(arguments) = arguments {
            map["arguments"] = arguments;
        }
        let body = json!([map]).to_string();
        let reply = match self.expects.last().expect("a command") {
            Expect::Short => Reply::Short(PeerAnswer::parse(body.as_bytes())),
            Expect::Page => Reply::Page(PageAnswer::scan(body.as_bytes())),
        };
        self.sync.answered(reply);
        self.collect();
        self
    }

    fn io_error(&mut self) -> &mut Self {
        let error = PeerError::Io("timed out".to_owned());
        let reply = match self.expects.last().expect("a command") {
            Expect::Short => Reply::Short(Err(error)),
            Expect::Page => Reply::Page(Err(error)),
        };
        self.sync.answered(reply);
        self.collect();
        self
    }

    fn ok(&mut self) -> &mut Self {
        self.answer(0, None)
    }

    fn page(&mut self, addresses: &[&str]) -> &mut Self {
        let leases: Vec<Value> = addresses.iter().map(|address| json!({ "ip-address": address })).collect();
        let result = if leases.is_empty() { 3 } else { 0 };
        self.answer(result, Some(json!({ "leases": leases, "count": leases.len() })))
    }

    fn changes(&mut self, addresses: &[&str], remaining: u64) -> &mut Self {
        let leases: Vec<Value> = addresses.iter().map(|address| json!({ "ip-address": address })).collect();
        self.answer(
            0,
            Some(json!({ "leases": leases, "deleted": [], "remaining": remaining, "overflown": false })),
        )
    }

    fn applied(&mut self) -> &mut Self {
        self.sync.applied(Ok(Applied { stored: 1, kept: 0, bad: 0 }));
        self.collect();
        self
    }
}

#[test]
fn b78_order_of_a_copy_by_pages() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().page(&["10.0.0.1", "10.0.0.2"]);
    // While the first page is applied the second is fetched.
    assert_eq!(copy.commands(), ["dhcp-disable", "lease4-get-page", "dhcp-disable"]);
    copy.ok().page(&["10.0.0.3"]);
    assert_eq!(copy.applies, [false]);
    copy.applied();
    assert_eq!(copy.applies, [false, false]);
    assert_eq!(copy.commands().len(), 4, "the notice waits until everything is applied");
    copy.applied();
    copy.ok();
    assert_eq!(
        copy.commands(),
        ["dhcp-disable", "lease4-get-page", "dhcp-disable", "lease4-get-page", "ha-sync-complete-notify"]
    );
    assert_eq!(
        copy.sent[0]["arguments"],
        json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 60 })
    );
    assert_eq!(copy.sent[1]["arguments"], json!({ "from": "start", "limit": 2 }));
    assert_eq!(copy.sent[3]["arguments"], json!({ "from": "10.0.0.2", "limit": 2 }));
    assert_eq!(
        copy.sent[4]["arguments"],
        json!({ "server-name": "alpha", "origin-id": 2000, "origin": 2000 })
    );
    let summary = copy.finished.expect("an end").expect("success");
    assert_eq!((summary.pages, summary.applied.stored), (2, 2));
}

#[test]
fn b79_failures_enable_the_source_again_if_it_was_disabled() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.io_error();
    assert_eq!(copy.commands(), ["dhcp-disable"]);
    assert!(copy.finished.as_ref().expect("an end").is_err());

    for failure in 0..3 {
        let mut copy = Copy::new(params(&kea(), Some(60)));
        copy.ok();
        match failure {
            0 => copy.io_error(),
            1 => copy.answer(1, None),
            _ => copy.answer(0, Some(json!({ "count": 0 }))),
        };
        assert_eq!(copy.commands(), ["dhcp-disable", "lease4-get-page", "dhcp-enable"]);
        assert!(copy.finished.is_none());
        copy.ok();
        assert!(copy.finished.as_ref().expect("an end").is_err());
    }

    // A later dhcp-disable.
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().page(&["10.0.0.1", "10.0.0.2"]).io_error().io_error();
    assert_eq!(copy.commands(), ["dhcp-disable", "lease4-get-page", "dhcp-disable", "dhcp-enable"]);
    assert!(copy.finished.expect("an end").is_err());

    // The notice: the source's timer does it.
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().page(&[]).applied().answer(1, None);
    assert_eq!(copy.commands().last(), Some(&"ha-sync-complete-notify"));
    assert!(copy.finished.expect("an end").is_err());
}

#[test]
fn b80_period_of_the_disabling() {
    let period = |timeout: u64| {
        valid(relationship("load-balancing", "alpha", json!({ "sync-timeout": timeout }))).sync_max_period_s()
    };
    assert_eq!((period(60_000), period(999), period(0), period(1999)), (60, 1, 1, 1));
    let copy = Copy::new(params(&kea(), None));
    assert_eq!(copy.sent[0]["arguments"], json!({ "origin-id": 2000, "origin": "ha-partner" }));
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    server.command("ha-sync", Some(json!({ "server-name": "beta", "max-period": 7 })));
    assert!(server.actions().any(|action| matches!(action, Action::StartSync { max_period_s: Some(7), .. })));
    for bad in [json!(0), json!(-1), json!("7")] {
        assert_eq!(server.result("ha-sync", Some(json!({ "server-name": "beta", "max-period": bad }))), 1);
    }
}

#[test]
fn b81_full_page_asks_for_another() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().page(&["10.0.0.1", "10.0.0.2"]).applied().ok().page(&[]).applied().ok();
    assert!(copy.finished.expect("an end").is_ok());
}

#[test]
fn b82_bad_elements_are_skipped() {
    let good = json!({ "cltt": 1_795_415_312, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "Host-4", "hw-address": "02:aa:00:00:00:04",
        "ip-address": "10.16.0.2", "state": 0, "subnet-id": 1, "valid-lft": 86400, "client-id": "01:02:aa:00:00:00:04" });
    let with = |key: &str, value: Value| {
        let mut lease = good.clone();
        lease[key] = value;
        lease
    };
    let mut bad =
        vec![json!(7), json!([]), json!({}), with("subnet-id", json!(0)), with("subnet-id", json!("1"))];
    for key in [
        "cltt",
        "fqdn-fwd",
        "fqdn-rev",
        "hostname",
        "hw-address",
        "ip-address",
        "state",
        "subnet-id",
        "valid-lft",
    ] {
        let mut lease = good.clone();
        lease.as_object_mut().expect("a map").remove(key);
        bad.push(lease);
    }
    bad.extend([
        with("cltt", json!(0)),
        with("valid-lft", json!(-1)),
        with("state", json!(4)),
        with("pool-id", json!(-1)),
    ]);
    let count = bad.len();
    let mut leases = vec![good.clone()];
    leases.extend(bad);
    leases.push(with("ip-address", json!("10.16.0.3")));
    let body = json!([{ "arguments": { "leases": leases }, "result": 0 }]).to_string();
    let page = PageAnswer::scan(body.as_bytes()).expect("a page");
    assert_eq!((page.count, page.last), (count as u64 + 2, Some(Ipv4Addr::new(10, 16, 0, 3))));
    let mut read = PageLeases::new(&page, body.as_bytes());
    let (mut found, mut refused) = (Vec::new(), 0);
    while let Some(lease) = read.next() {
        match lease {
            Ok(lease) => found.push((lease.address, lease.hostname.to_vec())),
            Err(_) => refused += 1,
        }
    }
    assert_eq!(refused, count);
    assert_eq!(
        found,
        [([10, 16, 0, 2].into(), b"host-4".to_vec()), ([10, 16, 0, 3].into(), b"host-4".to_vec())]
    );
}

#[test]
fn b84_any_other_peer_can_be_the_source() {
    let mut server = Server::new("passive-backup", "alpha", json!({}));
    assert_eq!(server.command("ha-sync", Some(json!({ "server-name": "gamma" }))), None);
    let gamma = server.relationship().config().peer("gamma").expect("a peer");
    assert!(
        server.actions().any(|action| matches!(action, Action::StartSync { source, .. } if *source == gamma))
    );
    server.finish_sync(true);
    assert_eq!(server.late_answer().expect("an answer").result, 0);
    assert_eq!(server.state(), "passive-backup");

    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    for arguments in [
        Some(json!({ "server-name": "alpha" })),
        Some(json!({ "server-name": "delta" })),
        Some(json!({})),
        None,
    ] {
        assert_eq!(server.result("ha-sync", arguments), 1);
    }
    assert!(server.sync_started().is_none());
    server.command("ha-sync", Some(json!({ "server-name": "beta" })));
    server.finish_sync(false);
    assert_eq!(server.late_answer().expect("an answer").result, 1);
    assert_eq!((server.state(), server.partner_state()), ("communication-recovery", "unavailable"));
}

#[test]
fn b85_requests_for_pages() {
    let parse = |arguments: Value| PageRequest::parse(Some(&arguments));
    let start = parse(json!({ "from": "start", "limit": 10 })).expect("valid");
    assert_eq!(start, parse(json!({ "from": "0.0.0.0", "limit": 10 })).expect("valid"));
    assert_eq!(start, PageRequest { from: Ipv4Addr::UNSPECIFIED, limit: 10 });
    for bad in [
        json!({ "from": "2001:db8::1", "limit": 10 }),
        json!({ "from": "start", "limit": 0 }),
        json!({ "from": "start", "limit": -1 }),
        json!({ "from": "start", "limit": 4_294_967_296_u64 }),
        json!({ "from": 1, "limit": 10 }),
        json!({ "from": "start" }),
        json!({ "limit": 10 }),
        json!([]),
    ] {
        assert_eq!(parse(bad).expect_err("refused").result, 1);
    }
    assert_eq!(PageRequest::parse(None).expect_err("refused").result, 1);
    let mut empty = Vec::new();
    write_page_start(&mut empty, 0);
    write_page_end(&mut empty, 0);
    let value: Value = serde_json::from_slice(&empty).expect("JSON");
    assert_eq!(
        value,
        json!([{ "arguments": { "count": 0, "leases": [] }, "result": 3, "text": "0 IPv4 lease(s) found." }])
    );
}

#[test]
fn pages_that_we_write_are_read_back_lease_by_lease() {
    let mut leases = Vec::new();
    for last in 1..=200u8 {
        leases.push(Lease4 {
            address: [10, 0, 0, last].into(),
            hw_addr: HwAddr::new(1, &[last; 20][..usize::from(last % 21)]).expect("fits"),
            client_id: &[7; 255][..usize::from(last) + 1],
            cltt: 1_767_229_200 + u64::from(last),
            valid_lft: u32::MAX - u32::from(last),
            subnet_id: SubnetId(u32::from(last)),
            pool_id: u32::from(last % 3),
            state: LeaseState::from_number(u64::from(last % 4)).expect("a state"),
            fqdn_fwd: last.is_multiple_of(2),
            fqdn_rev: last.is_multiple_of(3),
            hostname: if last.is_multiple_of(5) { b"\x00\xfc,\"weird\\host\n" } else { b"" },
            user_context: if last.is_multiple_of(7) { br#"{ "a": [ 1, "x" ], "b": {  } }"# } else { b"" },
        });
    }
    let mut body = Vec::new();
    write_page_start(&mut body, leases.len() as u64);
    for (position, lease) in leases.iter().enumerate() {
        write_page_lease(&mut body, position == 0, lease);
    }
    write_page_end(&mut body, leases.len() as u64);
    serde_json::from_slice::<Value>(&body).expect("JSON for everybody");
    let page = PageAnswer::scan(&body).expect("a page");
    assert_eq!((page.count, page.last, page.is_success()), (200, Some([10, 0, 0, 200].into()), true));
    // In steps, as the control thread does.
    let (mut offset, mut first) = (page.leases_at, true);
    for chunk in leases.chunks(7) {
        let mut read = PageLeases::resume(&body, offset, first);
        for expected in chunk {
            assert_eq!(&read.next().expect("a lease").expect("readable"), expected);
        }
        (offset, first) = (read.offset(), false);
    }
    assert!(PageLeases::resume(&body, offset, false).next().is_none());
}

#[test]
fn captured_page_reads() {
    let body = include_bytes!("../data/ha/page-of-kea-2.2.json");
    let page = PageAnswer::scan(body).expect("a page");
    assert_eq!((page.count, page.last), (3, Some([10, 16, 0, 3].into())));
    let mut read = PageLeases::new(&page, body);
    let declined = read.next().expect("a lease").expect("readable");
    assert_eq!(
        (declined.state, declined.hw_addr.is_empty(), declined.valid_lft),
        (LeaseState::Declined, true, 3600)
    );
    let next = read.next().expect("a lease").expect("readable");
    assert_eq!((next.hostname, next.client_id), (&b"host-4"[..], &[1, 2, 0xaa, 0, 0, 0, 4][..]));
}

#[test]
fn lying_source_ends_the_copy() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().page(&["10.0.0.1", "10.0.0.2"]).applied().ok().page(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(copy.commands().last(), Some(&"dhcp-enable"));
    copy.ok();
    assert!(copy.finished.expect("an end").is_err());
    // Answers cut short, or of another shape.
    for body in [
        &b"[ { \"result\": 0, \"arguments\": { \"leases\": [ {"[..],
        b"{}",
        b"[]",
        b"[ 7 ]",
        b"",
        b"[ { \"arguments\": {} } ]",
    ] {
        assert!(PageAnswer::scan(body).is_err(), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn old_sources_are_copied_as_they_can() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok().answer(2, None);
    assert_eq!(copy.unsupported, ["lease4-get-page"]);
    copy.page(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]).applied().answer(2, None);
    assert_eq!(copy.unsupported, ["lease4-get-page", "ha-sync-complete-notify"]);
    copy.ok();
    assert_eq!(
        copy.commands(),
        ["dhcp-disable", "lease4-get-page", "lease4-get-all", "ha-sync-complete-notify", "dhcp-enable"]
    );
    assert!(copy.finished.expect("an end").is_ok());

    let mut known = kea();
    known.learn(Hint::Unsupported("lease4-get-page"));
    let mut copy = Copy::new(params(&known, Some(60)));
    copy.ok().page(&[]).applied().answer(2, None).io_error();
    assert_eq!(copy.commands(), ["dhcp-disable", "lease4-get-all", "ha-sync-complete-notify", "dhcp-enable"]);
    assert!(copy.finished.expect("an end").is_err());
}

#[test]
fn source_that_is_an_aplomado_stays_in_service_but_for_the_tail() {
    let mut copy = Copy::new(params(&aplomado(), Some(60)));
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&["10.0.0.1", "10.0.0.2"]).applied().page(&["10.0.0.3"]).applied();
    // Many changes left: another round in service.
    copy.changes(&["10.0.0.1"], 5000).applied();
    copy.changes(&["10.0.0.2"], 10).applied();
    copy.ok();
    copy.changes(&["10.0.0.3"], 1).applied();
    copy.changes(&["10.0.0.1"], 0).applied();
    copy.ok();
    assert_eq!(
        copy.commands(),
        [
            "aplomado-sync-begin",
            "lease4-get-page",
            "lease4-get-page",
            "aplomado-sync-changes",
            "aplomado-sync-changes",
            "dhcp-disable",
            "aplomado-sync-changes",
            "aplomado-sync-changes",
            "ha-sync-complete-notify"
        ]
    );
    let sequences: Vec<_> =
        copy.sent.iter().filter_map(|sent| sent["arguments"]["sequence"].as_u64()).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert_eq!(copy.applies, [false, false, true, true, true, true]);
    assert!(copy.finished.expect("an end").is_ok());
}

#[test]
fn source_that_is_an_aplomado_is_given_what_it_lacks_after_all_pages_and_before_the_rest() {
    let giving = || SyncParams { gives: true, ..params(&aplomado(), Some(60)) };
    let mut copy = Copy::new(giving());
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&["10.0.0.1", "10.0.0.2"]).page(&["10.0.0.3"]);
    assert_eq!(copy.gives, 0, "a page is still being applied");
    copy.applied();
    assert_eq!(copy.gives, 0, "and the next one");
    copy.applied();
    assert_eq!((copy.gives, copy.commands().len()), (1, 3));
    copy.sync.given(Ok(7));
    copy.collect();
    assert_eq!(copy.commands()[3..], ["aplomado-sync-changes"]);
    copy.changes(&[], 0).applied().ok();
    copy.changes(&[], 0).applied().ok();
    assert_eq!(copy.gives, 1);
    assert_eq!(copy.finished.expect("an end").expect("a success").given, 7);

    // One that cannot be given them is not told that the copy is complete.
    let mut copy = Copy::new(giving());
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&[]).applied();
    copy.sync.given(Err("no answer".to_owned()));
    copy.collect();
    assert_eq!(copy.commands()[2..], ["aplomado-sync-end"]);
    copy.ok();
    assert!(copy.finished.expect("an end").is_err());

    // Cancelled meanwhile: first what is under way ends.
    let mut copy = Copy::new(giving());
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&[]).applied();
    copy.sync.cancel();
    copy.collect();
    assert_eq!(copy.commands().len(), 2);
    copy.sync.given(Ok(3));
    copy.collect();
    assert_eq!(copy.commands()[2..], ["aplomado-sync-end"]);

    // Too many changes meanwhile: what was given is not looked for again. A Kea is given nothing.
    let mut copy = Copy::new(giving());
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&[]).applied();
    copy.sync.given(Ok(1));
    copy.collect();
    copy.answer(0, Some(json!({ "leases": [], "deleted": [], "remaining": 0, "overflown": true })));
    copy.ok().page(&[]).applied().ok();
    assert_eq!((copy.gives, copy.finished.expect("an end").is_ok()), (1, true));
    let mut copy = Copy::new(SyncParams { gives: true, ..params(&kea(), Some(60)) });
    copy.ok().page(&[]).applied().ok();
    assert_eq!((copy.gives, copy.finished.expect("an end").is_ok()), (0, true));
}

#[test]
fn source_of_a_copy_beside_clients_of_our_own_is_disabled() {
    let mut copy = Copy::new(SyncParams { serves: true, ..params(&aplomado(), None) });
    copy.ok().page(&[]).applied().ok();
    assert_eq!(copy.commands(), ["dhcp-disable", "lease4-get-page", "ha-sync-complete-notify"]);
    let mut copy = Copy::new(SyncParams { serves: true, ..params(&Partner::new(None), None) });
    copy.answer(0, Some(json!(["ha-heartbeat", SYNC_BEGIN_COMMAND])));
    assert_eq!(copy.commands(), ["list-commands", "dhcp-disable"]);
}

#[test]
fn broken_page_within_a_session_is_asked_for_again() {
    let mut copy = Copy::new(params(&aplomado(), Some(60)));
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&["10.0.0.1", "10.0.0.2"]).applied().io_error().io_error();
    assert_eq!(
        copy.sent[2..=4].iter().map(|sent| sent["arguments"]["from"].as_str()).collect::<Vec<_>>(),
        [Some("10.0.0.2"); 3]
    );
    copy.page(&["10.0.0.3"]).applied().io_error();
    assert_eq!(copy.sent[5]["arguments"]["sequence"], copy.sent[6]["arguments"]["sequence"]);
    for _ in 0..3 {
        copy.io_error();
    }
    assert_eq!(copy.commands().last(), Some(&"aplomado-sync-end"));
    copy.io_error();
    assert!(copy.finished.expect("an end").is_err());
}

#[test]
fn session_that_lost_changes_begins_anew_the_plain_way() {
    let mut copy = Copy::new(params(&aplomado(), Some(60)));
    copy.answer(0, Some(json!({ "session": 9 })));
    copy.page(&[]).applied();
    copy.answer(0, Some(json!({ "leases": [], "deleted": [], "remaining": 0, "overflown": true })));
    copy.ok().page(&[]).applied().ok();
    assert_eq!(
        copy.commands()[2..],
        ["aplomado-sync-changes", "dhcp-disable", "lease4-get-page", "ha-sync-complete-notify"]
    );
    assert_eq!(copy.sent[4]["arguments"]["from"], json!("start"));
    assert!(copy.finished.expect("an end").is_ok());
    // And one that does not know the command after all.
    let mut copy = Copy::new(params(&aplomado(), Some(60)));
    copy.answer(2, None);
    assert_eq!(
        (copy.commands(), copy.unsupported.clone()),
        (vec!["aplomado-sync-begin", "dhcp-disable"], vec![SYNC_BEGIN_COMMAND])
    );
}

#[test]
fn source_is_asked_what_it_can_when_nobody_has() {
    let mut copy = Copy::new(params(&Partner::new(None), Some(60)));
    copy.answer(0, Some(json!(["ha-heartbeat", SYNC_BEGIN_COMMAND])));
    assert_eq!(copy.commands(), ["list-commands", "aplomado-sync-begin"]);
    assert_eq!(copy.learnt.as_ref().map(Vec::len), Some(2));
    let mut copy = Copy::new(params(&Partner::new(None), Some(60)));
    copy.answer(2, None);
    assert_eq!(copy.commands(), ["list-commands", "dhcp-disable"]);
    // An error says nothing of that, as from a control agent whose server does not run.
    for result in [Some(1), Some(4), None] {
        let mut copy = Copy::new(params(&Partner::new(None), Some(60)));
        match result {
            Some(result) => copy.answer(result, None),
            None => copy.io_error(),
        };
        assert_eq!((copy.sent.len(), copy.finished.expect("an end").is_err()), (1, true), "{result:?}");
    }
}

#[test]
fn cancelled_while_disabling_enables_the_source() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.sync.cancel();
    copy.ok();
    assert_eq!(copy.commands(), ["dhcp-disable", "dhcp-enable"]);
    copy.ok();
    assert!(copy.finished.expect("an end").is_err());
}

#[test]
fn cancelled_copy_enables_the_source() {
    let mut copy = Copy::new(params(&kea(), Some(60)));
    copy.ok();
    copy.sync.cancel();
    copy.collect();
    assert!(copy.finished.is_none());
    copy.page(&["10.0.0.1"]);
    assert_eq!((copy.commands().last(), copy.applies.len()), (Some(&"dhcp-enable"), 0));
    copy.ok();
    assert_eq!(copy.finished, Some(Err("cancelled".to_owned())));
}

#[test]
fn pages_are_filtered_by_the_relationships_subnets() {
    let config = valid(relationship("hot-standby", "alpha", json!({})));
    let subnets = [(SubnetId(1), Some("beta")), (SubnetId(2), Some("delta")), (SubnetId(3), None)];
    let filter = SubnetFilter::new(&config, subnets);
    assert!(filter.keeps(SubnetId(1)) && !filter.keeps(SubnetId(2)) && !filter.keeps(SubnetId(3)));
    assert_eq!(SubnetFilter::new(&config, [(SubnetId(2), Some("delta"))]), SubnetFilter::All);
}

#[test]
fn of_two_leases_of_one_second_the_one_stays_whose_clients_were_told() {
    // (this server, what the partner is doing, whether the partner's lease is taken)
    for (this, partner, taken) in [
        ("alpha", "partner-down", true),
        ("alpha", "load-balancing", true),
        ("alpha", "communication-recovery", true),
        ("beta", "partner-down", true),
        // Both have just started: what the primary has counts.
        ("alpha", "waiting", false),
        ("beta", "waiting", true),
        ("beta", "ready", true),
    ] {
        let mut server = Server::new("load-balancing", this, json!({}));
        let source = usize::from(this == "alpha");
        assert!(!server.relationship().state().behaviour().serves);
        server.partner(partner);
        assert_eq!(server.relationship().source_goes_first(source), taken, "{this}, partner {partner}");
        assert!(!server.relationship().source_goes_first(2), "a backup knows nothing of its own");
    }
}
