//! One server stands by for two others, each with subnets of its own (see `tests/lab`): a hub and its spokes.

mod lab;
mod scenario;

use std::collections::BTreeSet;
use std::ops::Range;

use aplomado::exchange::{RelationshipIndex, SubnetScope};
use aplomado::ids::ClassId;
use aplomado::wire::drop::DropReason;
use lab::Program::Aplomado;
use lab::{FAR_CLIENTS, Lab, SERVERS, Setup, until};
use scenario::packet;
use scenario::world::{Fate, World};
use serde_json::{Value, json};

const NEAR: Range<u16> = 0..20;
const FAR: Range<u16> = FAR_CLIENTS..FAR_CLIENTS + 20;
const HUB: usize = 2;

fn near(context: &Value) -> Value {
    json!({ "id": 1, "subnet": "10.77.0.0/16", "pools": [{ "pool": "10.77.10.0 - 10.77.250.255" }],
            "user-context": context })
}

fn far(context: &Value) -> Value {
    json!({ "id": 2, "subnet": "10.79.0.0/16", "pools": [{ "pool": "10.79.10.0 - 10.79.250.255" }],
            "user-context": context })
}

/// A relationship of the primary at this address with the hub's port.
fn relationship(this: &str, primary: &str, number: usize, standby: &str) -> Value {
    json!({ "this-server-name": this, "mode": "hot-standby", "heartbeat-delay": 250, "max-response-delay": 1000,
        "max-ack-delay": 250, "max-unacked-clients": 0,
        "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true,
                             "http-listener-threads": 2, "http-client-threads": 2 },
        "peers": [
            { "name": primary, "url": format!("http://10.78.0.{number}:8005/"), "role": "primary" },
            { "name": standby, "url": format!("http://10.78.0.3:800{}/", 4 + number), "role": "standby" } ] })
}

fn hub(name: &'static str) -> Option<Lab> {
    let mut setup = Setup::new(name, "hot-standby", &[Aplomado, Aplomado, Aplomado]);
    let named = |name: &str| json!({ "ha-server-name": name });
    setup.subnets_of = vec![
        json!([near(&named("one"))]),
        json!([far(&named("two"))]),
        // Any peer's name leads to the relationship, and a third subnet belongs to nobody.
        json!([near(&named("hub-a")), far(&named("two")), { "id": 3, "subnet": "10.80.0.0/16",
               "pools": [{ "pool": "10.80.0.10 - 10.80.0.20" }] }]),
    ];
    setup.relationships = vec![
        json!([relationship("one", "one", 1, "hub-a")]),
        json!([relationship("two", "two", 2, "hub-b")]),
        json!([relationship("hub-a", "one", 1, "hub-a"), relationship("hub-b", "two", 2, "hub-b")]),
    ];
    Lab::new(setup)
}

/// The states of the hub's relationships.
fn states(lab: &Lab) -> Option<[String; 2]> {
    let state = |name: &str| {
        let answer = lab.command(HUB, "ha-heartbeat", &json!({ "server-name": name }))?;
        Some(answer["arguments"]["state"].as_str()?.to_owned())
    };
    Some([state("hub-a")?, state("hub-b")?])
}

fn await_hub(lab: &Lab, first: &str, second: &str) {
    until(&format!("{first} and {second} of the hub"), || {
        states(lab).filter(|[one, two]| one == first && two == second)
    });
}

/// The addresses that a server knows of in a subnet.
fn addresses(lab: &Lab, server: usize, subnet: u64) -> BTreeSet<String> {
    let answer = lab.command(server, "lease4-get-all", &Value::Null).expect("an answer");
    let list = answer["arguments"]["leases"].as_array().cloned().unwrap_or_default();
    let of_subnet = list.iter().filter(|lease| lease["subnet-id"] == subnet);
    of_subnet.filter_map(|lease| Some(lease["ip-address"].as_str()?.to_owned())).collect()
}

/// The hub knows the leases of both spokes, and each spoke its own alone.
fn assert_shared(lab: &Lab, near: usize, far: usize) {
    until(&format!("{near} and {far} leases at their servers"), || {
        let all = [(0, 1), (1, 2), (HUB, 1), (HUB, 2), (0, 2), (1, 1)];
        let [one, two, hub_one, hub_two, foreign_one, foreign_two] =
            all.map(|(server, subnet)| addresses(lab, server, subnet));
        let is_shared = one.len() == near && one == hub_one && two.len() == far && two == hub_two;
        (is_shared && foreign_one.is_empty() && foreign_two.is_empty()).then_some(())
    });
}

#[test]
fn a_hub_stands_by_for_two_primaries_and_stands_in_for_the_one_that_dies() {
    let Some(mut lab) = hub("hub") else { return };
    lab.start_all();
    for server in 0..2 {
        lab.await_state(server, "hot-standby");
    }
    await_hub(&lab, "hot-standby", "hot-standby");
    assert_eq!(lab.serve_all(NEAR), BTreeSet::from([SERVERS[0]]));
    assert_eq!(lab.serve_all(FAR), BTreeSet::from([SERVERS[1]]));
    assert_shared(&lab, 20, 20);

    // The first primary dies: its clients are served by the hub, the others by their own primary as before.
    lab.kill(0);
    await_hub(&lab, "partner-down", "hot-standby");
    assert_eq!(lab.serve_all(NEAR), BTreeSet::from([SERVERS[HUB]]));
    assert_eq!(lab.serve_all(20..30), BTreeSet::from([SERVERS[HUB]]));
    let more_far = FAR_CLIENTS + 20..FAR_CLIENTS + 30;
    assert_eq!(lab.serve_all(FAR), BTreeSet::from([SERVERS[1]]));
    assert_eq!(lab.serve_all(more_far), BTreeSet::from([SERVERS[1]]));

    // It comes back without its leases and gets those of its subnet alone.
    lab.lose_leases(0);
    lab.start(0);
    lab.await_state(0, "hot-standby");
    await_hub(&lab, "hot-standby", "hot-standby");
    assert_shared(&lab, 30, 30);
    assert_eq!(lab.serve_all(0..30), BTreeSet::from([SERVERS[0]]));

    // The hub dies and comes back: both primaries go on meanwhile.
    lab.kill(HUB);
    for server in 0..2 {
        lab.await_state(server, "partner-down");
    }
    assert_eq!(lab.serve_all(30..40), BTreeSet::from([SERVERS[0]]));
    assert_eq!(lab.serve_all(FAR_CLIENTS + 30..FAR_CLIENTS + 35), BTreeSet::from([SERVERS[1]]));
    lab.start(HUB);
    await_hub(&lab, "hot-standby", "hot-standby");
    for server in 0..2 {
        lab.await_state(server, "hot-standby");
    }
    assert_shared(&lab, 40, 35);

    let status = lab.order(HUB, "status-get", &Value::Null);
    let list = status["arguments"]["high-availability"].as_array().expect("a list").clone();
    assert_eq!(list.len(), 2, "one entry for each relationship, in order: {list:?}");
    for (entry, name) in list.iter().zip(["hub-a", "hub-b"]) {
        assert_eq!(entry["ha-servers"]["local"]["server-name"], name, "{entry}");
    }
    let log = lab.log(HUB);
    assert!(log.contains("clients of subnet 10.80.0.0/16 (id 3) are not served"), "{log}");
}

#[test]
fn maintenance_of_a_hub_is_asked_of_all_its_primaries() {
    let Some(mut lab) = hub("hub-m") else { return };
    lab.start_all();
    for server in 0..2 {
        lab.await_state(server, "hot-standby");
    }
    await_hub(&lab, "hot-standby", "hot-standby");
    lab.serve_all(NEAR);
    lab.order(HUB, "ha-maintenance-start", &Value::Null);
    await_hub(&lab, "partner-in-maintenance", "partner-in-maintenance");
    for server in 0..2 {
        lab.await_state(server, "in-maintenance");
    }
    assert_eq!(lab.serve_all(NEAR), BTreeSet::from([SERVERS[HUB]]));
    assert_eq!(lab.serve_all(FAR), BTreeSet::from([SERVERS[HUB]]));
    lab.order(HUB, "ha-maintenance-cancel", &Value::Null);
    await_hub(&lab, "hot-standby", "hot-standby");
    assert_eq!(lab.serve_all(NEAR), BTreeSet::from([SERVERS[0]]));
    assert_eq!(lab.serve_all(FAR), BTreeSet::from([SERVERS[1]]));
    assert_shared(&lab, 20, 20);
}

/// Serves what the relationship of this number has, with a class for it.
#[derive(Debug)]
struct Served(RelationshipIndex, [ClassId; 1]);

impl SubnetScope for Served {
    fn classes(&self, relationship: Option<RelationshipIndex>) -> Option<&[ClassId]> {
        (relationship == Some(self.0)).then_some(&self.1)
    }
}

#[test]
fn b61_a_query_is_dropped_unless_its_subnet_is_of_a_relationship_that_is_served() {
    // A class of the scope opens a pool, and comes too late to choose a subnet.
    const SUBNETS: &str = r#""client-classes": [ { "name": "STANDS-IN" } ], "subnet4": [
        { "subnet": "10.1.0.0/16", "id": 1, "pools": [ { "pool": "10.1.0.10-10.1.0.20", "client-class": "STANDS-IN" } ] },
        { "subnet": "10.2.0.0/16", "id": 2, "pools": [ { "pool": "10.2.0.10-10.2.0.20" } ] },
        { "subnet": "10.3.0.0/16", "id": 3, "pools": [ { "pool": "10.3.0.10-10.3.0.20" } ] },
        { "subnet": "10.4.0.0/16", "id": 4, "client-class": "STANDS-IN",
          "pools": [ { "pool": "10.4.0.10-10.4.0.20" } ] } ]"#;
    for shards in [1, 2] {
        let mut world = World::new(SUBNETS, shards);
        let class = world.serving.plan.class_names.find("STANDS-IN").expect("a class");
        world.serving.relationships =
            [Some(0), Some(1), None, Some(0)].map(|index| index.map(RelationshipIndex)).to_vec();
        world.by_subnet = Some(Box::new(Served(RelationshipIndex(0), [class])));
        let mut ask = |kind: &str, subnet: u8| {
            let query =
                packet::query(&format!("{kind} mac=02:00:00:00:00:0{subnet} giaddr=10.{subnet}.0.1"), 7);
            world.put(&query, "v0")
        };
        let dropped = Fate::Dropped(DropReason::HaNotForUs);
        assert!(matches!(ask("discover", 1), Fate::Answered(_)), "served, with the class of the scope");
        assert_eq!(ask("discover", 2), dropped, "of a relationship that is not served");
        assert_eq!(ask("discover", 3), dropped, "of none");
        assert_eq!(ask("discover", 4), dropped, "no subnet without the class");
        assert_eq!(ask("discover", 5), dropped, "no subnet at all");
        for kind in ["request want=10.2.0.10", "release ciaddr=10.2.0.10", "decline want=10.2.0.10"] {
            assert_eq!(ask(kind, 2), dropped, "{kind}");
        }
    }
}
