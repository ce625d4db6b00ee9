//! From a configuration to a plan, and what shards read in it: options, subnets, reservations, boot fields.

mod plan {
    mod definitions;
}

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use aplomado::classify::classes::{Classifier, begin};
use aplomado::classify::subnet::{Origin, select};
use aplomado::config::finding::{Finding, Report, Severity};
use aplomado::config::load::{Source, SystemInterface, load};
use aplomado::config::plan::classes::{ALL, KNOWN};
use aplomado::config::plan::{
    ChosenOptions, HostIndex, IdentifierKind, Identifiers, Plan, PoolIndex, Sources, SubnetIndex,
    Surroundings, Wanted, build, resolve, resolve_one,
};
use aplomado::expr::{ClassSet, Scratch};
use aplomado::ids::{ClassId, InterfaceId, SubnetId};
use aplomado::wire::Query;
use aplomado::wire::dhcp4;
use aplomado::wire::frame::Datagram;
use aplomado::wire::option::OptionTable;
use proptest::prelude::*;

fn interfaces() -> Vec<SystemInterface> {
    let interface = |name: &str, address: [u8; 4]| SystemInterface {
        name: name.to_owned(),
        addresses: vec![Ipv4Addr::from(address)],
    };
    vec![interface("eth0", [10, 0, 0, 1]), interface("eth1", [10, 1, 0, 1])]
}

/// The plan of the `Dhcp4` block with these members, or what is wrong.
fn try_plan(members: &str) -> Result<Plan, Vec<Finding>> {
    let text = format!("{{ \"Dhcp4\": {{ {members} }} }}");
    let mut no_files = |name: &str| Err(format!("no file {name}"));
    let loaded = load(&[Source { name: "test", text: &text }], &mut no_files, Some(&interfaces()));
    let Some(tree) = &loaded.dhcp4 else { return Err(loaded.findings) };
    let mut report = Report::default();
    report.files = loaded.files;
    let surroundings = Surroundings { generation: 1, interfaces: interfaces() };
    build(tree, surroundings, &mut report).ok_or_else(|| report.into_findings())
}

fn plan(members: &str) -> Plan {
    try_plan(members).unwrap_or_else(|findings| panic!("{}", findings[0]))
}

fn first_error(members: &str) -> String {
    let findings = try_plan(members).expect_err("something is wrong");
    let error = findings.iter().find(|finding| finding.severity == Severity::Error).expect("an error");
    error.kea_text()
}

/// Codes and values that a query with `classes` gets from the pool or subnet of `subnet`.
fn resolved(plan: &Plan, sources: &Sources<'_>, wanted: &Wanted<'_>) -> Vec<(u8, Vec<u8>)> {
    let mut out = ChosenOptions::default();
    resolve(plan, sources, wanted, &mut out);
    assert_eq!(out.overflow_count, 0);
    out.iter(plan).map(|(code, value)| (code, value.to_vec())).collect()
}

fn class(plan: &Plan, name: &str) -> ClassId {
    plan.class_names.find(name).expect("a class that the configuration names")
}

const SUBNET: SubnetIndex = SubnetIndex(0);

/// One option in every scope that can have it.
fn layered(never_in_pool: bool) -> Plan {
    let mut text = String::new();
    let option =
        |value: &str| format!(r#""option-data": [ {{ "name": "domain-name", "data": "{value}" }} ]"#);
    let pool_extra = if never_in_pool { r#", "never-send": true"# } else { "" };
    write!(
        text,
        r#"{},
        "client-classes": [
            {{ "name": "first", {} }},
            {{ "name": "second", {} }}
        ],
        "shared-networks": [ {{
            "name": "net", {},
            "subnet4": [ {{
                "subnet": "10.0.0.0/24", "id": 1, {},
                "pools": [
                    {{ "pool": "10.0.0.10-10.0.0.19",
                       "option-data": [ {{ "name": "domain-name", "data": "pool"{pool_extra} }} ] }},
                    {{ "pool": "10.0.0.20-10.0.0.29" }}
                ],
                "reservations": [ {{ "hw-address": "02:00:00:00:00:01", "ip-address": "10.0.0.50", {} }} ]
            }} ]
        }} ]"#,
        option("global"),
        option("first"),
        option("second"),
        option("network"),
        option("subnet"),
        option("host"),
    )
    .expect("a string");
    plan(&text)
}

fn domain_name(plan: &Plan, sources: &Sources<'_>) -> Option<String> {
    let options = resolved(plan, sources, &Wanted::default());
    let (_, value) = options.into_iter().find(|(code, _)| *code == 15)?;
    Some(String::from_utf8(value).expect("text"))
}

#[test]
fn host_goes_before_pool_before_subnet_before_network_before_classes_in_order_before_global() {
    let plan = layered(false);
    let host = plan.hosts.host(HostIndex(0)).options;
    let pool = plan.pool(PoolIndex(0)).options;
    let bare_pool = plan.pool(PoolIndex(1)).options;
    let (first, second) = (class(&plan, "first"), class(&plan, "second"));
    let name = |host, place, classes: &[ClassId]| {
        domain_name(&plan, &Sources { host, place, classes }).expect("a value")
    };
    assert_eq!(name(host, pool, &[ALL, first]), "host");
    assert_eq!(name(Default::default(), pool, &[ALL, first]), "pool");
    assert_eq!(name(Default::default(), bare_pool, &[ALL, first]), "subnet");
    assert_eq!(name(Default::default(), plan.subnet(SUBNET).options, &[first]), "subnet");
    assert_eq!(name(Default::default(), Default::default(), &[ALL, second, first]), "second");
    assert_eq!(name(Default::default(), Default::default(), &[ALL, first, second]), "first");
    assert_eq!(name(Default::default(), Default::default(), &[ALL]), "global");
}

#[test]
fn never_send_anywhere_takes_the_option_out_everywhere() {
    let plan = layered(true);
    let host = plan.hosts.host(HostIndex(0)).options;
    let sources = Sources { host, place: plan.pool(PoolIndex(0)).options, classes: &[] };
    assert_eq!(domain_name(&plan, &sources), None);
    assert_eq!(resolve_one(&plan, &sources, 15), None);
    let elsewhere = Sources { host, place: plan.pool(PoolIndex(1)).options, classes: &[] };
    assert_eq!(domain_name(&plan, &elsewhere).as_deref(), Some("host"));
}

#[test]
fn options_are_sent_when_asked_for_or_always_or_basic_and_not_yet_there() {
    let plan = plan(
        r#""option-data": [
            { "name": "routers", "data": "10.0.0.1" },
            { "name": "domain-name", "data": "example.com" },
            { "name": "ntp-servers", "data": "10.0.0.2" },
            { "name": "log-servers", "data": "10.0.0.3" },
            { "name": "tftp-server-name", "data": "boot", "always-send": true }
        ]"#,
    );
    let codes = |requested: &[u8], already: &[u8]| -> Vec<u8> {
        let wanted = Wanted { requested, already: already.iter().copied().collect(), ..Wanted::default() };
        resolved(&plan, &Sources::default(), &wanted).into_iter().map(|(code, _)| code).collect()
    };
    assert_eq!(codes(&[], &[]), [3, 15, 66]);
    assert_eq!(codes(&[42, 3, 42, 99, 0, 255], &[]), [3, 15, 42, 66]);
    assert_eq!(codes(&[42, 7], &[3, 42]), [7, 15, 66]);
}

#[test]
fn guarded_option_counts_only_for_its_classes_and_a_later_scope_fills_in() {
    let plan = plan(
        r#""client-classes": [ { "name": "phones" } ],
        "option-data": [ { "name": "domain-name", "data": "global" } ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "option-data": [
            { "name": "domain-name", "data": "phones", "client-classes": [ "phones" ] }
        ] } ]"#,
    );
    let place = plan.subnet(SUBNET).options;
    let phones = class(&plan, "phones");
    let with = |classes: &[ClassId]| domain_name(&plan, &Sources { place, classes, ..Sources::default() });
    assert_eq!(with(&[phones]).as_deref(), Some("phones"));
    assert_eq!(with(&[ALL]).as_deref(), Some("global"));
}

#[test]
fn sub_options_of_one_scope_travel_inside_their_carrier_by_code() {
    let plan = plan(
        r#""option-def": [
            { "name": "one", "code": 1, "type": "uint8", "space": "vendor-encapsulated-options-space" },
            { "name": "two", "code": 2, "type": "string", "space": "vendor-encapsulated-options-space" }
        ],
        "option-data": [
            { "name": "two", "space": "vendor-encapsulated-options-space", "data": "x" },
            { "name": "one", "space": "vendor-encapsulated-options-space", "data": "7" },
            { "name": "vendor-encapsulated-options" }
        ]"#,
    );
    let wanted = Wanted { requested: &[43], ..Wanted::default() };
    assert_eq!(resolved(&plan, &Sources::default(), &wanted), [(43, vec![1, 1, 7, 2, 1, b'x'])]);
}

#[test]
fn vendor_options_are_sent_to_the_enterprises_that_ask_or_are_carried() {
    let plan = plan(
        r#""option-data": [
            { "name": "tftp-servers", "space": "vendor-4491", "data": "10.0.0.9" },
            { "code": 7, "space": "vendor-25", "data": "0a0b", "always-send": true },
            { "code": 8, "space": "vendor-25", "data": "0c" },
            { "name": "vivso-suboptions", "data": "77" },
            { "code": 1, "space": "vendor-77", "data": "01", "always-send": true }
        ]"#,
    );
    let ask = |requested: &[u8], class: &[u8], information: &[u8]| {
        let wanted =
            Wanted { requested, vendor_class: class, vendor_information: information, ..Wanted::default() };
        resolved(&plan, &Sources::default(), &wanted)
    };
    assert_eq!(ask(&[], &[], &[]), [], "nobody asks");
    // A cable modem lists what it wants in sub-option 1 of its own option 125.
    assert_eq!(
        ask(&[], &[], &[0, 0, 0x11, 0x8b, 3, 1, 1, 2]),
        [(125, vec![0, 0, 0x11, 0x8b, 6, 2, 4, 10, 0, 0, 9])]
    );
    assert_eq!(ask(&[], &[], &[0, 0, 0x11, 0x8b, 0]), [], "it lists nothing");
    assert_eq!(ask(&[], &[0, 0, 0, 25, 0], &[]), [(125, vec![0, 0, 0, 25, 4, 7, 2, 10, 11])]);
    assert_eq!(ask(&[125], &[], &[]), [(125, vec![0, 0, 0, 77, 3, 1, 1, 1])], "the carrier is asked for");
}

#[test]
fn wrong_options_are_all_reported_with_their_places() {
    let members = r#""option-data": [
        { "name": "routers", "data": "1.2.3" },
        { "name": "nothing", "data": "" }
    ],
    "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "option-data": [ { "code": 222, "data": "xyz" } ] } ]"#;
    let findings = try_plan(members).expect_err("three faults");
    let texts: Vec<String> = findings.iter().map(Finding::kea_text).collect();
    assert_eq!(
        texts,
        [
            "option data does not match option definition (space: dhcp4, code: 3): Failed to convert string to \
             address '1.2.3': Invalid argument (test:2:38)",
            "definition for the option 'dhcp4.nothing' does not exist (test:3:19)",
            "option data is not a valid string of hexadecimal digits: xyz (test:5:94)",
        ]
    );
    assert_eq!(
        first_error(r#""option-data": [ { "name": "routers", "code": 6, "data": "" } ]"#),
        "specified option name 'routers' does not match the option definition: 'dhcp4.domain-name-servers' \
         (test:1:41)"
    );
    assert_eq!(
        first_error(r#""option-data": [ { "code": 222, "csv-format": true, "data": "01" } ]"#),
        "definition for the option 'dhcp4.' having code '222' does not exist (test:1:31)"
    );
}

#[test]
fn boot_fields_come_from_host_then_first_class_that_has_each_then_subnet() {
    let plan = plan(
        r#""next-server": "10.0.0.1", "boot-file-name": "global",
        "client-classes": [
            { "name": "a", "boot-file-name": "a" },
            { "name": "b", "boot-file-name": "b", "next-server": "10.0.0.2" }
        ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "server-hostname": "subnet", "reservations": [
            { "hw-address": "02:00:00:00:00:01", "ip-address": "10.0.0.5", "boot-file-name": "host" } ] } ]"#,
    );
    let (a, b) = (class(&plan, "a"), class(&plan, "b"));
    let view = plan.boot_fields(SUBNET, &[ALL, a, b], None);
    assert_eq!(view.next_server, Some(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(view.boot_file_name, Some(&b"a"[..]));
    assert_eq!(view.server_hostname, Some(&b"subnet"[..]));
    let view = plan.boot_fields(SUBNET, &[ALL], Some(HostIndex(0)));
    assert_eq!(view.boot_file_name, Some(&b"host"[..]));
    assert_eq!(view.next_server, Some(Ipv4Addr::new(10, 0, 0, 1)));
}

#[test]
fn reservations_are_found_by_the_first_identifier_in_order_and_by_address() {
    let plan = plan(
        r#""host-reservation-identifiers": [ "client-id", "hw-address" ],
        "reservations": [ { "hw-address": "02:00:00:00:00:01", "hostname": "global" } ],
        "subnet4": [
            { "subnet": "10.0.0.0/24", "id": 1, "reservations": [
                { "hw-address": "02:00:00:00:00:01", "ip-address": "10.0.0.5" },
                { "client-id": "01:02:03", "ip-address": "10.0.0.6" } ] },
            { "subnet": "10.0.1.0/24", "id": 2 } ]"#,
    );
    let mut identifiers = Identifiers::default();
    identifiers.set(IdentifierKind::HwAddress, &[2, 0, 0, 0, 0, 1]);
    let address = |identifiers: &Identifiers<'_>| {
        plan.hosts.find(Some(SUBNET), identifiers).map(|index| plan.hosts.host(index).address)
    };
    assert_eq!(address(&identifiers), Some(Ipv4Addr::new(10, 0, 0, 5)));
    assert_eq!(plan.hosts.find(Some(SubnetIndex(1)), &identifiers), None);
    let global = plan.hosts.find(None, &identifiers).expect("a global one");
    assert_eq!(&*plan.hosts.host(global).hostname, b"global");
    assert!(!plan.hosts.is_reserved_for_other(SUBNET, Ipv4Addr::new(10, 0, 0, 5), &identifiers));
    assert!(plan.hosts.is_reserved_for_other(SUBNET, Ipv4Addr::new(10, 0, 0, 6), &identifiers));
    assert!(!plan.hosts.is_reserved_for_other(SUBNET, Ipv4Addr::new(10, 0, 0, 7), &identifiers));
    identifiers.set(IdentifierKind::ClientId, &[1, 2, 3]);
    assert_eq!(address(&identifiers), Some(Ipv4Addr::new(10, 0, 0, 6)));
    assert!(plan.subnet(SUBNET).has_hosts() && !plan.subnet(SubnetIndex(1)).has_hosts());
    assert_eq!(plan.lease_capacity(), 2);
}

#[test]
fn only_pool_without_anything_of_its_own_is_read_from_the_subnet() {
    let plan = plan(
        r#""client-classes": [ { "name": "some", "test": "option[60].exists" } ],
        "subnet4": [
            { "subnet": "10.0.0.0/24", "id": 1, "pools": [ { "pool": "10.0.0.10-10.0.0.20" } ] },
            { "subnet": "10.0.1.0/24", "id": 2, "pools": [ { "pool": "10.0.1.10-10.0.1.20", "client-class": "some" } ] },
            { "subnet": "10.0.2.0/24", "id": 3, "pools": [ { "pool": "10.0.2.10-10.0.2.20", "pool-id": 7 } ] },
            { "subnet": "10.0.3.0/24", "id": 4, "pools": [
                { "pool": "10.0.3.10-10.0.3.15" }, { "pool": "10.0.3.16-10.0.3.20" } ] },
            { "subnet": "10.0.4.0/24", "id": 5, "pools": [
                { "pool": "10.0.4.10-10.0.4.20", "ddns-generated-prefix": "other" } ] },
            { "subnet": "10.0.5.0/24", "id": 6, "pools": [
                { "pool": "10.0.5.10-10.0.5.20", "evaluate-additional-classes": [ "some" ] } ] },
            { "subnet": "10.0.6.0/24", "id": 7 } ]"#,
    );
    let some = class(&plan, "some");
    let plain: Vec<bool> = plan.subnets.iter().map(aplomado::config::plan::Subnet::has_plain_pool).collect();
    assert_eq!(plain, [true, false, false, false, false, false, false]);
    for (index, third) in (0..7).map(SubnetIndex).zip(0..) {
        let at = |last| Ipv4Addr::new(10, 0, third, last);
        let has_pool = third < 6;
        for (last, inside) in [(9, false), (10, true), (20, true), (21, false)] {
            let pool = plan.pool_of(index, at(last));
            assert_eq!(pool.is_some(), inside && has_pool, "{}", at(last));
            assert_eq!(plan.allowed_pool(index, at(last), &[some]), pool);
            assert_eq!(plan.allowed_pool(index, at(last), &[]), pool.filter(|_| third != 1));
            let Some(pool) = pool else { continue };
            assert!(plan.pool(pool).contains(at(last)));
            assert_eq!(plan.pool_id(index, Some(pool)), plan.pool(pool).pool_id);
            let rules = plan.name_rules_at(index, Some(pool));
            assert!(std::ptr::eq(rules, plan.name_rules(plan.pool(pool).name_rules)));
        }
    }
    assert_eq!(plan.pool_id(SubnetIndex(2), plan.pool_of(SubnetIndex(2), Ipv4Addr::new(10, 0, 2, 10))), 7);
    assert_eq!(plan.pool_id(SubnetIndex(2), None), 0);
}

#[test]
fn masks_of_all_lengths() {
    for length in 0..=32_u8 {
        let plan = plan(&format!(r#""subnet4": [ {{ "subnet": "0.0.0.0/{length}", "id": 1 }} ]"#));
        let netmask = plan.subnets[0].netmask().to_bits();
        assert_eq!((netmask.count_ones(), netmask.leading_ones()), (u32::from(length), u32::from(length)));
    }
}

#[test]
fn reservation_flags_decide_where_reservations_are_looked_for() {
    let with = |flags: &str| {
        plan(&format!(
            r#"{flags} "subnet4": [ {{ "subnet": "10.0.0.0/24", "id": 1, "pools": [ {{ "pool": "10.0.0.10-10.0.0.20" }} ],
            "reservations": [
                {{ "hw-address": "02:00:00:00:00:01", "ip-address": "10.0.0.15" }},
                {{ "hw-address": "02:00:00:00:00:02", "ip-address": "10.0.0.50" }} ] }} ]"#
        ))
    };
    let kept = |plan: &Plan| {
        [15, 50, 16].map(|last| {
            plan.reserved_for_other(SUBNET, Ipv4Addr::new(10, 0, 0, last), &Identifiers::default())
        })
    };
    let mut identifiers = Identifiers::default();
    identifiers.set(IdentifierKind::HwAddress, &[2, 0, 0, 0, 0, 1]);
    let plain = with("");
    assert_eq!(kept(&plain), [true, true, false]);
    assert_eq!(plain.find_host(SUBNET, &identifiers), Some(HostIndex(0)));
    assert_eq!(plain.find_global_host(&identifiers), None);
    assert_eq!(kept(&with(r#""reservations-out-of-pool": true,"#)), [false, true, false]);
    let off = with(r#""reservations-in-subnet": false,"#);
    assert_eq!(kept(&off), [false; 3]);
    assert_eq!(off.find_host(SUBNET, &identifiers), None);
}

#[test]
fn configured_server_identifiers_are_this_server() {
    let plan = plan(
        r#""client-classes": [ { "name": "a", "option-data": [
            { "name": "dhcp-server-identifier", "data": "10.0.0.3" } ] } ],
        "option-data": [ { "name": "dhcp-server-identifier", "data": "10.0.0.1" } ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "option-data": [
            { "name": "dhcp-server-identifier", "data": "10.0.0.2" } ] } ]"#,
    );
    let ours = |last, classes: &[ClassId]| plan.is_server_identifier(Ipv4Addr::new(10, 0, 0, last), classes);
    assert!(ours(1, &[]) && ours(2, &[]) && !ours(3, &[ALL]) && ours(3, &[class(&plan, "a")]));
    assert!(!ours(4, &[]));
}

#[test]
fn lifetimes_and_timers_follow_class_then_subnet() {
    let plan = plan(
        r#""valid-lifetime": 4000, "min-valid-lifetime": 1000, "max-valid-lifetime": 8000,
        "calculate-tee-times": true, "rebind-timer": 5000,
        "client-classes": [ { "name": "short", "valid-lifetime": 60 } ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1 } ]"#,
    );
    let lifetimes = plan.lifetimes(SUBNET, &[ALL]);
    assert_eq!(
        [None, Some(500), Some(100_000), Some(0)].map(|wanted| lifetimes.granted_s(wanted)),
        [4000, 1000, 8000, 4000]
    );
    let short = plan.lifetimes(SUBNET, &[ALL, class(&plan, "short")]);
    assert_eq!(short.granted_s(Some(4000)), 60);
    let timers = &plan.subnet(SUBNET).timers;
    assert_eq!(timers.t1_t2_s(8000), (Some(4000), Some(5000)));
    assert_eq!(timers.t1_t2_s(4000), (Some(2000), None), "T2 would not come before the end");
}

#[test]
fn automatic_and_shared_subnets_lie_ascending_and_networks_know_their_members() {
    let plan = plan(
        r#""shared-networks": [ { "name": "n", "subnet4": [
            { "subnet": "10.0.2.0/24", "id": 30 }, { "subnet": "10.0.1.0/24", "id": 10 } ] } ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 20 } ]"#,
    );
    let ids: Vec<SubnetId> = plan.subnets.iter().map(|subnet| subnet.id).collect();
    assert_eq!(ids, [10, 20, 30].map(SubnetId));
    assert_eq!(plan.subnet_by_id(SubnetId(20)), Some(SubnetIndex(1)));
    assert_eq!(plan.subnet_by_id(SubnetId(21)), None);
    assert_eq!(plan.members(plan.subnet(SubnetIndex(0)).network), [SubnetIndex(0), SubnetIndex(2)]);
    assert_eq!(plan.members(plan.subnet(SubnetIndex(1)).network), [SubnetIndex(1)]);
}

/// Runs `check` on a classifier for a DISCOVER with these options, received on eth0.
fn classify<T>(
    plan: &Plan,
    options: &[u8],
    check: impl FnOnce(&mut Classifier<'_>, &mut ClassSet) -> T,
) -> T {
    let mut payload = vec![0; 236];
    payload[..4].copy_from_slice(&[1, 1, 6, 0]);
    payload[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    payload.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1]);
    payload.extend(options);
    payload.push(255);
    let datagram = Datagram {
        l2_src: [2, 0, 0, 0, 0, 1],
        l2_dst: [0xff; 6],
        src: Ipv4Addr::UNSPECIFIED,
        dst: Ipv4Addr::BROADCAST,
        src_port: 68,
        dst_port: 67,
        payload_offset: 0,
        payload_len: u16::try_from(payload.len()).expect("a short packet"),
    };
    let mut table = OptionTable::new();
    let head = dhcp4::parse(&payload, &mut table).expect("a good packet");
    let query = Query::new(&datagram, &payload, &table, head, InterfaceId(0)).expect("a good packet");
    let mut scratch = Scratch::new();
    let mut classifier = Classifier { plan, query, scratch: &mut scratch, fault_count: 0 };
    let mut classes = ClassSet::new();
    begin(&mut classes);
    check(&mut classifier, &mut classes)
}

fn names<'p>(plan: &'p Plan, classes: &ClassSet) -> Vec<&'p str> {
    classes.iter().map(|id| plan.class_names.name(id)).collect()
}

/// Option 60.
const PHONE: &[u8] = b"\x3c\x0aAastra 55i";

#[test]
fn classes_are_assigned_in_order_and_known_ones_wait_for_reservations() {
    let plan = plan(
        r#""client-classes": [
            { "name": "later", "test": "member('KNOWN') and option[60].exists" },
            { "name": "transitive", "test": "not member('later')" },
            { "name": "phones", "test": "substring(option[60].hex,0,6) == 'Aastra'" },
            { "name": "others", "test": "not member('phones')" },
            { "name": "here", "test": "member('phones') and pkt.iface == 'eth0'" },
            { "name": "wrong", "test": "uint8totext(255) == '255'" },
            { "name": "spare", "test": "member('ALL')", "only-in-additional-list": true },
            { "name": "untested" }
        ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1 } ]"#,
    );
    classify(&plan, PHONE, |classifier, classes| {
        classifier.first_stage(classes);
        assert_eq!(names(&plan, classes), ["ALL", "phones", "here"]);
        assert_eq!(classifier.fault_count, 1, "the class whose test has no value");
        classifier.second_stage(true, classes);
        assert_eq!(names(&plan, classes), ["ALL", "phones", "here", "KNOWN", "later"]);
    });
    classify(&plan, &[], |classifier, classes| {
        classifier.first_stage(classes);
        classifier.second_stage(false, classes);
        assert_eq!(names(&plan, classes), ["ALL", "others", "UNKNOWN", "transitive"]);
    });
}

#[test]
fn vendor_class_is_assigned_raw_and_escaped_where_anything_refers_to_it() {
    let plan = plan(
        r#""client-classes": [
            { "name": "a", "test": "member('VENDOR_CLASS_Aastra 55i')" },
            { "name": "b", "test": "member('VENDOR_CLASS_Aastra%2055i')" },
            { "name": "c", "test": "member('VENDOR_CLASS_Aastra')" }
        ]"#,
    );
    classify(&plan, PHONE, |classifier, classes| {
        classifier.first_stage(classes);
        let wanted = ["ALL", "VENDOR_CLASS_Aastra 55i", "VENDOR_CLASS_Aastra%2055i", "a", "b"];
        assert_eq!(names(&plan, classes), wanted);
    });
}

#[test]
fn template_spawns_the_class_of_its_value_before_its_own() {
    let plan = plan(
        r#""client-classes": [
            { "name": "SPAWN_model_Aastra" },
            { "name": "model", "template-test": "substring(option[60].hex,0,6)" },
            { "name": "empty", "template-test": "option[61].hex" }
        ]"#,
    );
    classify(&plan, PHONE, |classifier, classes| {
        classifier.first_stage(classes);
        assert_eq!(names(&plan, classes), ["ALL", "SPAWN_model_Aastra", "model"]);
    });
}

#[test]
fn classes_of_a_reservation_are_seen_by_tests_that_are_run_again() {
    let plan = plan(
        r#""client-classes": [
            { "name": "gold" },
            { "name": "plain", "test": "not member('gold')" },
            { "name": "rich", "test": "member('gold')" }
        ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "reservations": [
            { "hw-address": "02:00:00:00:00:01", "client-classes": [ "gold" ] } ] } ]"#,
    );
    classify(&plan, &[], |classifier, classes| {
        classifier.first_stage(classes);
        assert_eq!(names(&plan, classes), ["ALL", "plain"]);
        classifier.apply_host(HostIndex(0), classes);
        assert_eq!(names(&plan, classes), ["ALL", "gold", "rich"]);
    });
}

#[test]
fn additional_classes_are_evaluated_pool_first_and_need_a_definition() {
    let plan = plan(
        r#""client-classes": [
            { "name": "p" }, { "name": "s", "test": "member('p')", "only-in-additional-list": true },
            { "name": "n", "test": "member('absent')", "only-in-additional-list": true }, { "name": "m" }
        ],
        "shared-networks": [ { "name": "net", "evaluate-additional-classes": [ "nowhere", "m" ], "subnet4": [
            { "subnet": "10.0.0.0/24", "id": 1, "evaluate-additional-classes": [ "s" ], "pools": [
                { "pool": "10.0.0.10-10.0.0.20", "evaluate-additional-classes": [ "p" ] } ] } ] } ]"#
            .replace("absent", "HA_absent")
            .as_str(),
    );
    classify(&plan, &[], |classifier, classes| {
        classifier.first_stage(classes);
        assert_eq!(names(&plan, classes), ["ALL"]);
        classifier.additional(SUBNET, Some(PoolIndex(0)), classes);
        assert_eq!(names(&plan, classes), ["ALL", "p", "s", "m"]);
    });
}

#[test]
fn scope_classes_of_both_spellings_are_built_in() {
    let plan = plan(
        r#""client-classes": [
            { "name": "phones", "test": "substring(option[60].hex,0,6) == 'Aastra'" },
            { "name": "phones_server1", "test": "member('phones') and member('ha_server1')" }
        ],
        "subnet4": [ { "subnet": "10.0.0.0/24", "id": 1, "pools": [
            { "pool": "10.0.0.10-10.0.0.20", "client-class": "HA_server1" } ] } ]"#,
    );
    let scope: Vec<ClassId> = plan.class_names.of_scope("server1").collect();
    assert_eq!(scope, [class(&plan, "HA_server1"), class(&plan, "ha_server1")]);
    classify(&plan, PHONE, |classifier, classes| {
        for id in scope {
            classes.insert(id).expect("room");
        }
        classifier.first_stage(classes);
        assert_eq!(names(&plan, classes), ["ALL", "HA_server1", "ha_server1", "phones", "phones_server1"]);
        assert!(plan.pool(PoolIndex(0)).guard.admits(classes.as_slice()));
    });
}

#[test]
fn wrong_tests_are_reported_with_both_places() {
    let with = |test: &str| {
        format!(r#""client-classes": [ {{ "name": "a", "test": "{test}" }}, {{ "name": "later" }} ]"#)
    };
    assert_eq!(
        first_error(&with("member('later')")),
        "expression: [member('later')] error: <string>:1.8-14: Not defined client class 'later' at (test:1:57)"
    );
    assert_eq!(
        first_error(&with("option[foo].hex == 'a'")),
        "expression: [option[foo].hex == 'a'] error: <string>:1.8-10: option 'foo' is not defined at (test:1:57)"
    );
    let own = format!(
        r#""option-def": [ {{ "name": "foo", "code": 230, "type": "uint8" }} ], {}"#,
        with("option[foo].hex == 'a'")
    );
    plan(&own);
}

#[test]
fn class_definition_of_a_private_option_holds_for_that_class_only() {
    let options = |class: &str| {
        format!(
            r#""client-classes": [ {{ "name": "a",
                "option-def": [ {{ "name": "mine", "code": 230, "type": "uint16" }} ],
                "option-data": [ {{ "name": "mine", "data": "258" }} ] }},
                {{ "name": "b", "option-data": [ {{ "name": "{class}", "data": "1" }} ] }} ]"#
        )
    };
    let error = first_error(&options("mine"));
    assert!(error.starts_with("definition for the option 'dhcp4.mine' does not exist"), "{error}");
    let plan = plan(&options("default-ip-ttl"));
    let a = plan.class(class(&plan, "a")).expect("defined");
    assert_eq!(plan.options.find(a.options, 230, &[]), Some(&[1, 2][..]));
}

fn origin() -> Origin {
    Origin {
        link_selection: None,
        subnet_selection: None,
        giaddr: Ipv4Addr::UNSPECIFIED,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        source: Ipv4Addr::UNSPECIFIED,
        to_broadcast: true,
        interface: InterfaceId(0),
    }
}

#[test]
fn guarded_subnet_is_selected_only_for_its_classes() {
    let plan = plan(
        r#""subnet4": [
            { "subnet": "10.0.0.0/24", "id": 1, "client-classes": [ "KNOWN" ] },
            { "subnet": "10.0.0.0/16", "id": 2 } ]"#,
    );
    assert_eq!(select(&plan, &origin(), &[ALL]), Some(SubnetIndex(1)));
    assert_eq!(select(&plan, &origin(), &[ALL, KNOWN]), Some(SubnetIndex(0)));
}

/// A subnet of the naive model.
#[derive(Clone, Debug)]
struct Drawn {
    prefix: u32,
    bits: u32,
    relay: Option<u32>,
    interface: Option<usize>,
    guarded: bool,
}

fn few_addresses() -> impl Strategy<Value = u32> {
    // Few different addresses, so that prefixes overlap and queries hit.
    (0_u32..3, 0_u32..3, 0_u32..4)
        .prop_map(|(second, third, last)| 10 << 24 | second << 16 | third << 8 | last)
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (few_addresses(), prop_oneof![Just(8_u32), Just(16), Just(24), Just(30), Just(0)])
        .prop_flat_map(|(address, bits)| {
            (
                Just(address & u32::MAX.checked_shl(32 - bits).unwrap_or(0)),
                Just(bits),
                proptest::option::of(few_addresses().prop_filter("not unset", |address| *address != 0)),
                proptest::option::weighted(0.3, 0_usize..2),
                proptest::bool::weighted(0.3),
            )
        })
        .prop_map(|(prefix, bits, relay, interface, guarded)| Drawn {
            prefix,
            bits,
            relay,
            interface,
            guarded,
        })
}

/// The rules read aloud, over a list.
fn naive(subnets: &[Drawn], origin: &Origin, guard_open: bool) -> Option<usize> {
    let first = |fits: &dyn Fn(&Drawn) -> bool| {
        subnets.iter().position(|subnet| (guard_open || !subnet.guarded) && fits(subnet))
    };
    let holding = |address: Ipv4Addr| {
        first(&|subnet| {
            let mask = u32::MAX.checked_shl(32 - subnet.bits).unwrap_or(0);
            address.to_bits() & mask == subnet.prefix
        })
    };
    if let Some(named) =
        origin.link_selection.or(origin.subnet_selection).filter(|named| !named.is_unspecified())
    {
        return holding(named);
    }
    if !origin.giaddr.is_unspecified() {
        let relay = origin.giaddr.to_bits();
        return first(&|subnet| subnet.relay == Some(relay)).or_else(|| holding(origin.giaddr));
    }
    if !origin.to_broadcast && !origin.ciaddr.is_unspecified() {
        return holding(origin.ciaddr);
    }
    if !origin.to_broadcast && !origin.source.is_unspecified() {
        return holding(origin.source);
    }
    let interface = usize::from(origin.interface.0);
    first(&|subnet| subnet.interface == Some(interface))
        .or_else(|| holding(interfaces()[interface].addresses[0]))
}

fn some_origin() -> impl Strategy<Value = Origin> {
    let maybe =
        || prop_oneof![2 => Just(Ipv4Addr::UNSPECIFIED), 1 => few_addresses().prop_map(Ipv4Addr::from)];
    let named = || proptest::option::weighted(0.15, few_addresses().prop_map(Ipv4Addr::from));
    (named(), named(), maybe(), maybe(), maybe(), any::<bool>(), 0_u16..2).prop_map(
        |(link_selection, subnet_selection, giaddr, ciaddr, source, to_broadcast, interface)| Origin {
            link_selection,
            subnet_selection,
            giaddr,
            ciaddr,
            source,
            to_broadcast,
            interface: InterfaceId(interface),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn selection_agrees_with_the_rules_read_aloud(
        mut subnets in proptest::collection::vec(drawn(), 0..12),
        origins in proptest::collection::vec(some_origin(), 20),
    ) {
        let mut seen = std::collections::HashSet::new();
        subnets.retain(|subnet| seen.insert((subnet.prefix, subnet.bits)));
        let list: Vec<String> = (1..).zip(&subnets).map(|(id, subnet)| {
            let mut text = format!(
                r#"{{ "subnet": "{}/{}", "id": {id}"#,
                Ipv4Addr::from(subnet.prefix),
                subnet.bits
            );
            if let Some(relay) = subnet.relay {
                let _ = write!(text, r#", "relay": {{ "ip-addresses": [ "{}" ] }}"#, Ipv4Addr::from(relay));
            }
            if let Some(interface) = subnet.interface {
                let _ = write!(text, r#", "interface": "eth{interface}""#);
            }
            if subnet.guarded {
                text.push_str(r#", "client-classes": [ "KNOWN" ]"#);
            }
            text + " }"
        }).collect();
        let plan = plan(&format!(r#""subnet4": [ {} ]"#, list.join(", ")));
        for origin in &origins {
            for open in [false, true] {
                let classes: &[ClassId] = if open { &[ALL, KNOWN] } else { &[ALL] };
                let found = select(&plan, origin, classes).map(|index| index.0 as usize);
                prop_assert_eq!(found, naive(&subnets, origin, open), "{:?}", origin);
            }
        }
    }
}
