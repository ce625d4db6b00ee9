//! Configurations in and out: what loads, what is refused and with which words, what `config-get` shows, and that
//! Kea agrees.
//!
//! `tests/data/config/bad/NAME.json` is refused with the texts of `NAME.expected`, one per line, the file being
//! called `F`. A last line `kea-2.2 says: …` or `kea-2.2 loads it` tells where we differ from Kea 2.2 on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aplomado::config::finding::Severity;
use aplomado::config::json::{
    Comments, DEPTH_MAX, Files, INCLUDE_DEPTH_MAX, Value, compact, parse_wire, pretty,
};
use aplomado::config::load::{Loaded, Source, SystemInterface, load, load_value};
use aplomado::config::render;
use aplomado::config::tree::{self, Dhcp4, IdentifierKind, Settings};
use proptest::prelude::*;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(folder)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder of test data with the ending `.json`, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data(folder)).expect("the folder of test data is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no test data");
    paths
}

fn load_text(text: &str) -> Loaded {
    load(&[Source { name: "F", text }], &mut |_| Err(String::new()), None)
}

/// The tree of a text that must load.
fn tree_of(text: &str) -> Dhcp4 {
    let loaded = load_text(text);
    assert!(loaded.is_good(), "{text}: {:?}", texts(&loaded));
    loaded.dhcp4.expect("a good configuration with Dhcp4 has a tree")
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded.findings.iter().map(ToString::to_string).collect()
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.kea_text().replace('\n', "\\n").replace('\t', "\\t")).collect()
}

/// What `config-get` shows of a tree.
fn shown(tree: &Dhcp4) -> serde_json::Value {
    render::dhcp4(tree, &render::definitions(tree))
}

#[test]
fn every_fault_is_reported_in_keas_words() {
    for path in files("bad") {
        let loaded = load_text(&read(&path));
        let expected = read(&path.with_extension("expected"));
        let expected: Vec<&str> = expected.lines().filter(|line| !line.starts_with("kea-2.2 ")).collect();
        assert_eq!(errors(&loaded), expected, "{}", path.display());
        assert!(loaded.dhcp4.is_none() && loaded.control_agent.is_none(), "{} has a tree", path.display());
        assert!(!loaded.is_good());
    }
}

#[test]
fn all_faults_are_reported_by_place_not_only_the_first() {
    let loaded = load_text(
        r#"{ "Dhcp4": {
            "valid-lifetime": "x",
            "nonsense": 1,
            "subnet4": [
                { "subnet": "10.0.0.0/33", "id": 1 },
                { "subnet": "10.0.0.0/8", "id": 1, "reservations": [
                    { "hw-address": "zz" }, { "duid": "010203", "ip-address": "11.0.0.1" } ] }
            ],
            "loggers": 5 } }"#,
    );
    let places: Vec<String> = texts(&loaded)
        .iter()
        .filter(|text| text.contains(": error"))
        .map(|text| text.split(": error").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(places, ["F:2:31", "F:3:13", "F:5:29", "F:6:17", "F:7:37", "F:7:79", "F:9:24"]);
}

#[test]
fn configurations_that_are_good_load_and_their_output_is_a_fixed_point() {
    for path in files("good").into_iter().chain(files("config-get")).chain(files("guide-2018")) {
        let loaded = load_text(&read(&path));
        assert!(loaded.is_good(), "{}: {:?}", path.display(), texts(&loaded));
        if let Some(tree) = &loaded.dhcp4 {
            let first = shown(tree);
            let again = tree_of(&pretty(&first));
            assert_eq!(compact(&shown(&again)), compact(&first), "{}", path.display());
        }
        if let Some(tree) = &loaded.control_agent {
            let first = render::control_agent(tree);
            let again = load_text(&compact(&first));
            let again = again.control_agent.expect("the output of a good agent is good");
            assert_eq!(render::control_agent(&again), first, "{}", path.display());
        }
    }
}

#[test]
fn config_get_is_what_kea_answers() {
    for name in ["everything", "inherited"] {
        let tree = tree_of(&read(&data(&format!("good/{name}.json"))));
        let kea = read(&data(&format!("config-get/{name}.kea-2.2.json")));
        assert_eq!(compact(&shown(&tree)), kea, "{name}: what Kea made of the same file");
    }
    for name in ["load-balancing", "hot-standby"] {
        let kea = read(&data(&format!("config-get/{name}.kea-2.2.json")));
        assert_eq!(compact(&shown(&tree_of(&kea))), kea, "{name}");
    }
    let kea = read(&data("config-get/control-agent.kea-2.2.json"));
    let agent = load_text(&kea).control_agent.expect("it is good");
    assert_eq!(compact(&render::control_agent(&agent)), kea);
}

#[test]
fn config_get_shows_of_the_lease_database_what_is_written() {
    for database in [
        serde_json::json!({ "type": "memfile" }),
        serde_json::json!({ "name": "/tmp/l.csv", "persist": true, "type": "memfile" }),
        serde_json::json!({ "lfc-interval": 7, "persist": false, "type": "memfile" }),
        serde_json::json!({ "lfc-interval": 3600, "type": "memfile" }),
    ] {
        let tree = tree_of(&serde_json::json!({ "Dhcp4": { "lease-database": database } }).to_string());
        assert_eq!(shown(&tree)["Dhcp4"]["lease-database"], database, "as Kea 2.2 does");
    }
}

#[test]
fn config_write_is_printed_as_kea_prints_files() {
    let compact_text = read(&data("config-get/everything.kea-2.2.json"));
    let value = serde_json::from_str(&compact_text).expect("it is plain JSON");
    let kea = read(&data("config-get/everything.kea-2.2.pretty.json"));
    assert_eq!(pretty(&value).trim_end(), kea.trim_end());
}

#[test]
fn the_hash_is_sha_256_of_the_printed_form() {
    let value = serde_json::json!({ "Dhcp4": {} });
    // sha256 of `{ "Dhcp4": {  } }`.
    assert_eq!(compact(&value), "{ \"Dhcp4\": {  } }");
    assert_eq!(render::hash(&value), "425CDEB3FE9E9A7B7C065ABEB4150F438875CC5716DEF1E6D35C6476BDEB1540");
}

#[test]
fn every_configuration_of_the_2018_guide_loads_with_its_meaning() {
    for path in files("guide-2018") {
        let loaded = load_text(&read(&path));
        assert!(loaded.is_good(), "{}: {:?}", path.display(), texts(&loaded));
    }
    let tree = tree_of(&read(&data("guide-2018/load-balancing-with-classes.json")));
    let classes: Vec<&str> = tree.classes.iter().map(|class| class.name.value.as_str()).collect();
    assert_eq!(classes[..4], ["ha_server1", "ha_server2", "phones", "laptops"]);
    assert_eq!(tree.classes[0].test, tree::ClassTest::None);
    let subnet = &tree.subnets[0];
    assert_eq!((subnet.id.0, subnet.id_automatic), (1, true));
    assert_eq!(subnet.relays, ["10.1.2.3".parse::<std::net::Ipv4Addr>().expect("an address")]);
    let guards: Vec<&str> = subnet.pools.iter().map(|pool| pool.guards[0].value.as_str()).collect();
    assert_eq!(guards, ["phones_server1", "laptops_server1", "phones_server2", "laptops_server2"]);
    let tree = tree_of(&read(&data("guide-2018/load-balancing.json")));
    let ha = tree.hooks[1].parameters.as_ref().expect("HA has parameters");
    assert_eq!(ha.to_serde()["high-availability"][0]["heartbeat-delay"], 10);
    let agent = load_text(&read(&data("guide-2018/control-agent.json"))).control_agent.expect("an agent");
    assert_eq!(agent.listener.port, 8080);
    assert_eq!(agent.sockets[1].service, "dhcp6");
}

#[test]
fn kea_2_2_accepts_what_we_print() {
    let Some(kea) = kea("kea-dhcp4") else { return };
    let folder = tempfile::tempdir().expect("a folder of our own");
    // What it says of its own releases' keys, of libraries and interfaces that this machine lacks, is not ours.
    for name in ["everything.json", "lenient.json", "one-file-of-1.6.json"] {
        let tree = tree_of(&read(&data(&format!("good/{name}"))));
        let mut value = shown(&tree);
        if name == "lenient.json" {
            value["Dhcp4"]["interfaces-config"]["interfaces"] = serde_json::json!([]);
        }
        let path = folder.path().join(name);
        fs::write(&path, pretty(&value)).expect("the folder is ours");
        let said = check_with(&kea, &path);
        assert_eq!(said, None, "{name}");
    }
}

#[test]
fn kea_2_2_says_what_we_say_but_where_we_say_so() {
    let (Some(kea), Some(agent)) = (kea("kea-dhcp4"), kea("kea-ctrl-agent")) else { return };
    let folder = tempfile::tempdir().expect("a folder of our own");
    let path = folder.path().join("F");
    for case in files("bad") {
        let text = read(&case);
        fs::write(&path, &text).expect("the folder is ours");
        let program = if text.contains("Control-agent") { &agent } else { &kea };
        let name = path.display().to_string();
        let said = check_with(program, &path).map(|text| text.replace(&name, "F"));
        let expected = read(&case.with_extension("expected"));
        let on_purpose = expected.lines().last().filter(|line| line.starts_with("kea-2.2 "));
        let loaded = load_text(&text);
        let ours = loaded.first_error().expect("a bad file has an error").kea_text();
        let differs = match &said {
            None => Some("kea-2.2 loads it".to_owned()),
            Some(said) if *said == ours => None,
            Some(said) => Some(format!("kea-2.2 says: {}", said.replace('\n', "\\n").replace('\t', "\\t"))),
        };
        assert_eq!(differs.as_deref(), on_purpose, "{}", case.display());
    }
}

/// Kea's program, when it is installed in the release that the test data speaks of.
fn kea(program: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/sbin").join(program);
    let version = Command::new(&path).arg("-v").output().ok();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if version.is_some_and(|version| version.starts_with("2.2.")) {
        return Some(path);
    }
    eprintln!("SKIPPED: {program} 2.2 is not installed: nobody else has judged our configurations");
    None
}

/// What the program says is wrong with a file.
fn check_with(program: &Path, path: &Path) -> Option<String> {
    let output = Command::new(program).arg("-t").arg(path).output().expect("the program runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mark = ["Syntax check failed with: ", "Error encountered: "];
    let fault =
        mark.iter().find_map(|mark| said.split_once(mark)).map(|(_, text)| text.trim_end().to_owned());
    assert_eq!(fault.is_some(), !output.status.success(), "{said}");
    fault
}

#[test]
fn interfaces_are_compared_with_those_of_the_machine_when_they_are_given() {
    let system = [SystemInterface {
        name: "eth0".to_owned(),
        addresses: vec!["192.0.2.1".parse().expect("an address")],
    }];
    let check = |text: &str| load(&[Source { name: "F", text }], &mut |_| Err(String::new()), Some(&system));
    let loaded = check(
        r#"{ "Dhcp4": { "interfaces-config": { "interfaces": [ "eth0", "eth1", "eth0/192.0.2.9" ] } } }"#,
    );
    assert_eq!(
        errors(&loaded),
        [
            "Failed to select interface: interface 'eth1' doesn't exist in the system (F:1:61) (F:1:37)",
            "Failed to select interface: interface 'eth0' doesn't have address '192.0.2.9' assigned \
             (F:1:69) (F:1:37)",
        ]
    );
    let loaded =
        check(r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/8", "id": 1, "interface": "nope" } ] } }"#);
    assert_eq!(
        errors(&loaded),
        ["subnet configuration failed: Specified network interface name nope for subnet 10.0.0.0/8 is not \
          present in the system (F:1:75)"]
    );
    assert!(
        check(r#"{ "Dhcp4": { "interfaces-config": { "interfaces": [ "eth0/192.0.2.1", "*" ] } } }"#)
            .is_good()
    );
}

#[test]
fn scopes_inherit_member_by_member() {
    let tree = tree_of(
        r#"{ "Dhcp4": {
            "valid-lifetime": 1000, "max-valid-lifetime": 5000, "renew-timer": 10, "authoritative": true,
            "next-server": "192.0.2.1", "cache-max-age": 5, "reservation-mode": "global",
            "shared-networks": [ { "name": "n", "valid-lifetime": 2000, "interface": "eth0",
                "relay": { "ip-addresses": [ "10.9.9.9" ] }, "next-server": "192.0.2.2",
                "subnet4": [ { "subnet": "10.0.0.0/8", "id": 7, "min-valid-lifetime": 3,
                               "boot-file-name": "b", "reservations-in-subnet": true } ] } ],
            "subnet4": [ { "subnet": "11.0.0.0/8", "id": 8, "match-client-id": false } ] } }"#,
    );
    let inner = &tree.shared_networks[0].subnets[0];
    assert_eq!(inner.settings.valid_lifetime, tree::Triplet { min: 3, default: 2000, max: 5000 });
    assert_eq!(inner.settings.renew_timer_s, Some(10));
    assert_eq!(inner.settings.next_server.to_string(), "192.0.2.2");
    assert_eq!(inner.settings.boot_file_name, "b");
    assert!(inner.settings.authoritative && inner.settings.match_client_id);
    assert!(inner.settings.reservations_global && inner.settings.reservations_in_subnet);
    assert_eq!(inner.interface, "eth0");
    assert_eq!(inner.relays.len(), 1);
    let outer = &tree.subnets[0];
    assert_eq!(outer.settings.valid_lifetime, tree::Triplet { min: 1000, default: 1000, max: 5000 });
    assert_eq!(outer.settings.next_server.to_string(), "192.0.2.1");
    assert!(!outer.settings.match_client_id && !outer.settings.reservations_in_subnet);
    assert_eq!(outer.settings.cache_max_age_s, Some(5));
    let plain = tree_of(r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/8", "id": 1 } ] } }"#);
    assert_eq!(plain.subnets[0].settings, Settings::default());
}

#[test]
fn an_empty_name_is_inherited_like_an_absent_one() {
    let tree = tree_of(&read(&data("good/inherited.json")));
    let names = |subnet: &tree::Subnet4| {
        (subnet.settings.server_hostname.clone(), subnet.settings.boot_file_name.clone())
    };
    let is = |server: &str, file: &str| (server.to_owned(), file.to_owned());
    let inside = &tree.shared_networks[0].subnets;
    assert_eq!(names(&inside[0]), is("outer", "/network"));
    assert_eq!(names(&inside[1]), is("inner", "/network"));
    assert_eq!(names(&tree.subnets[0]), is("outer", "/outer"));
}

#[test]
fn an_id_of_the_wrong_type_is_not_a_missing_one() {
    let loaded = load_text(r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/8", "id": "7" } ] } }"#);
    let said = texts(&loaded);
    assert!(
        said.iter().any(|text| text.contains("unexpected constant string, expecting integer")),
        "{said:?}"
    );
    assert!(!said.iter().any(|text| text.contains("have no 'id'")), "{said:?}");
    let missing = load_text(r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/8" } ] } }"#);
    assert!(texts(&missing).iter().any(|text| text.contains("have no 'id'")));
}

#[test]
fn automatic_ids_fill_the_gaps_that_written_ids_leave_networks_first() {
    let tree = tree_of(
        r#"{ "Dhcp4": {
            "subnet4": [ { "subnet": "10.0.0.0/8" }, { "subnet": "11.0.0.0/8", "id": 2 }, { "subnet": "12.0.0.0/8", "id": 0 } ],
            "shared-networks": [ { "name": "n", "subnet4": [ { "subnet": "13.0.0.0/8" }, { "subnet": "14.0.0.0/8", "id": 3 } ] } ] } }"#,
    );
    let ids = |subnets: &[tree::Subnet4]| subnets.iter().map(|subnet| subnet.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&tree.shared_networks[0].subnets), [1, 3]);
    assert_eq!(ids(&tree.subnets), [4, 2, 5]);
}

#[test]
fn identifiers_are_read_in_every_spelling() {
    let tree = tree_of(
        r#"{ "Dhcp4": { "reservations": [
            { "hw-address": "0a:b:C:d:e:f" }, { "duid": "0x0102ab" }, { "client-id": "'ab'" },
            { "circuit-id": "abc" }, { "flex-id": "01 02" } ] } }"#,
    );
    let hosts: BTreeMap<IdentifierKind, &[u8]> =
        tree.reservations.iter().map(|host| (host.kind, &*host.identifier)).collect();
    assert_eq!(hosts[&IdentifierKind::HwAddress], [10, 11, 12, 13, 14, 15]);
    assert_eq!(hosts[&IdentifierKind::Duid], [1, 2, 0xab]);
    assert_eq!(hosts[&IdentifierKind::ClientId], b"ab");
    assert_eq!(hosts[&IdentifierKind::CircuitId], [0x0a, 0xbc]);
    assert_eq!(hosts[&IdentifierKind::FlexId], [1, 2]);
}

#[test]
fn addresses_may_be_reserved_twice_when_the_configuration_says_so() {
    let text = |unique: bool| {
        format!(
            r#"{{ "Dhcp4": {{ "ip-reservations-unique": {unique}, "subnet4": [ {{ "subnet": "10.0.0.0/8", "id": 1,
                "reservations": [ {{ "hw-address": "01", "ip-address": "10.0.0.1" }},
                                  {{ "hw-address": "02", "ip-address": "10.0.0.1" }} ] }} ] }} }}"#
        )
    };
    assert!(load_text(&text(false)).is_good());
    assert!(!load_text(&text(true)).is_good());
}

#[test]
fn pools_that_overlap_are_found_behind_a_longer_one() {
    let loaded = load_text(
        r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/8", "id": 1, "pools": [
            { "pool": "10.0.0.1 - 10.0.0.100" }, { "pool": "10.0.0.5 - 10.0.0.9" },
            { "pool": "10.0.0.50 - 10.0.0.60" }, { "pool": "10.0.0.101 - 10.0.0.110" } ] } ] } }"#,
    );
    assert_eq!(errors(&loaded).len(), 2, "{:?}", errors(&loaded));
}

#[test]
fn older_members_of_dhcp_ddns_speak_for_the_global_ones() {
    let loaded = load_text(&read(&data("good/one-file-of-1.6.json")));
    let tree = loaded.dhcp4.expect("it is good");
    assert_eq!(tree.settings.ddns_qualifying_suffix, "example.org");
    assert_eq!(tree.settings.ddns_generated_prefix, "host");
    assert!(tree.settings.ddns_override_no_update && tree.settings.ddns_override_client_update);
    assert_eq!(tree.subnets[0].settings.ddns_replace_client_name, tree::ReplaceClientName::WhenPresent);
    assert!(tree.settings.reservations_out_of_pool);
    assert!(tree.subnets[0].relays.is_empty(), "0.0.0.0 is no relay");
    assert_eq!(tree.loggers.len(), 1);
    assert_eq!(loaded.control_agent.expect("it is good").loggers.len(), 1);
}

#[test]
fn what_we_do_not_act_on_is_warned_about_once() {
    let loaded = load_text(
        r#"{ "Dhcp4": { "dhcp4o6-port": 7, "interfaces-config": { "interfaces": [ "*" ] }, "subnet4": [
            { "subnet": "10.0.0.0/8", "id": 1, "4o6-subnet": "2001:db8::/64" },
            { "subnet": "11.0.0.0/8", "id": 2, "4o6-subnet": "2001:db8::/64", "4o6-interface": "" } ] } }"#,
    );
    assert_eq!(
        texts(&loaded),
        [
            "F:1:14: warning: 'dhcp4o6-port' is accepted and not acted on",
            "F:2:48: warning: '4o6-subnet' is accepted and not acted on",
        ]
    );
}

#[test]
fn a_key_of_ours_that_we_do_not_know_is_a_warning() {
    let loaded = load_text(
        r#"{ "Dhcp4": { "user-context": { "aplomado": { "sink": 1, "sync": "never" } },
            "interfaces-config": { "interfaces": [ "*" ] } } }"#,
    );
    assert_eq!(
        texts(&loaded),
        ["F:1:46: warning: 'sink' is not a setting of aplomado; known are sync and max-leases"]
    );
    assert_eq!(loaded.dhcp4.expect("it is good").aplomado.sync, tree::SyncMode::Never);
}

#[test]
fn an_interface_that_is_not_there_is_told_once() {
    let text = r#"{ "Dhcp4": { "interfaces-config": { "interfaces": [ "gone0" ] } } }"#;
    let interfaces = [SystemInterface { name: "eth0".to_owned(), addresses: Vec::new() }];
    let loaded = load(&[Source { name: "F", text }], &mut |_| Err(String::new()), Some(&interfaces));
    let texts = texts(&loaded);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("Failed to select interface"), "{texts:?}");
    let none = load_text(r#"{ "Dhcp4": { "interfaces-config": { "interfaces": [ ] } } }"#);
    assert!(self::texts(&none)[0].ends_with("no interface is named in interfaces-config: nobody is served"));
}

#[test]
fn flex_ids_need_an_expression_and_their_place_in_the_order() {
    let load = |identifiers: &str, hooks: &str| {
        load_text(&format!(
            r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "*" ] }}, {identifiers}
                "hooks-libraries": [ {hooks} ],
                "reservations": [ {{ "flex-id": "01", "hostname": "a" }} ] }} }}"#
        ))
    };
    let hook = |parameters: &str| {
        format!(r#"{{ "library": "/x/libdhcp_flex_id.so", "parameters": {{ {parameters} }} }}"#)
    };
    let order = r#""host-reservation-identifiers": [ "flex-id" ],"#;
    let good = hook(r#""identifier-expression": "pkt4.mac", "replace-client-id": true"#);
    let loaded = load(order, &good);
    assert_eq!(texts(&loaded), [""; 0]);
    let flex_id = loaded.dhcp4.and_then(|tree| tree.flex_id).expect("it is there");
    assert!(flex_id.replace_client_id && flex_id.expression.value == "pkt4.mac");
    let said = |loaded: Loaded| texts(&loaded).join("; ");
    assert!(
        said(load("", &good)).contains("match nobody: host-reservation-identifiers does not name flex-id")
    );
    assert!(said(load(order, "")).contains("match nobody: hooks-libraries has no libdhcp_flex_id"));
    for (parameters, text) in [
        ("", "needs the parameter 'identifier-expression'"),
        (r#""identifier-expression": 1"#, "'identifier-expression' of libdhcp_flex_id must be a string"),
        (
            r#""identifier-expression": "''", "replace-client-id": 1"#,
            "'replace-client-id' of libdhcp_flex_id must be a boolean",
        ),
    ] {
        let loaded = load(order, &hook(parameters));
        assert!(
            !loaded.is_good() && errors(&loaded).iter().any(|error| error.contains(text)),
            "{:?}",
            texts(&loaded)
        );
    }
    let unknown = said(load(order, &hook(r#""identifier-expression": "pkt4.mac", "replace-client": true"#)));
    assert!(unknown.contains("'replace-client' is not a parameter of libdhcp_flex_id"), "{unknown}");
}

#[test]
fn includes_are_spliced_and_their_faults_carry_their_names() {
    let mut loader = |name: &str| match name {
        "subnets" => Ok("{ \"subnet\": \"10.0.0.0/8\", \"id\": 1 },\n <?include \"more\"?>".to_owned()),
        "more" => Ok("{ \"subnet\": \"11.0.0.0/99\", \"id\": 2 }".to_owned()),
        "self" => Ok("<?include \"self\"?>".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    let mut run = |text: &str| load(&[Source { name: "F", text }], &mut loader, None);
    let loaded = run(r#"{ "Dhcp4": { "subnet4": [ <?include "subnets"?> ] } }"#);
    assert_eq!(
        texts(&loaded)[1..],
        ["more:1:13: error: subnet configuration failed: Invalid prefix length specified for subnet: 99"]
    );
    let loaded = run(r#"{ "Dhcp4": { <?include "self"?> } }"#);
    assert_eq!(errors(&loaded), ["Too many nested include."]);
    let loaded = run(r#"{ "Dhcp4": { <?include "gone"?> } }"#);
    assert_eq!(errors(&loaded), ["Can't open include file gone: no such file"]);
}

#[test]
fn includes_end_at_their_depth_limit_and_not_before() {
    let load_depth = |depth: usize| {
        let mut loader = |name: &str| {
            let level: usize = name.parse().map_err(|_| "a number".to_owned())?;
            Ok(if level < depth {
                format!("<?include \"{}\"?>", level + 1)
            } else {
                "\"valid-lifetime\": 5".to_owned()
            })
        };
        load(&[Source { name: "F", text: r#"{ "Dhcp4": { <?include "1"?> } }"# }], &mut loader, None)
            .is_good()
    };
    assert!(load_depth(INCLUDE_DEPTH_MAX));
    assert!(!load_depth(INCLUDE_DEPTH_MAX + 1));
}

#[test]
fn includes_that_multiply_come_to_an_end() {
    let mut count = 0;
    let mut loader = |name: &str| {
        count += 1;
        let level: usize = name.parse().map_err(|_| "a number".to_owned())?;
        Ok(format!("<?include \"{}\"?>", level + 1).repeat(50))
    };
    let text = r#"{ "Dhcp4": { <?include "1"?> } }"#;
    let loaded = load(&[Source { name: "F", text }], &mut loader, None);
    assert!(!loaded.is_good());
    assert!(count <= 1000, "{count}");
}

#[test]
fn nesting_is_bounded_in_both_dialects() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let file = |levels: usize| {
        load_text(&format!(r#"{{ "Dhcp4": {{ "user-context": {{ "a": {} }} }} }}"#, nested(levels)))
    };
    assert!(file(DEPTH_MAX - 3).is_good());
    assert_eq!(errors(&file(DEPTH_MAX - 2)).len(), 1);
    assert_eq!(errors(&file(1_000_000)).len(), 1);
    let wire = |text: &str| parse_wire(&mut Files::default(), "<wire>", text, Comments::Refuse);
    assert!(wire(&nested(DEPTH_MAX)).is_ok());
    assert!(wire(&nested(DEPTH_MAX + 1)).is_err());
    assert!(wire(&"[".repeat(1_000_000)).is_err());
    assert!(wire(&"{\"a\":".repeat(1_000_000)).is_err());
}

/// The text that Kea answers when this is sent to it as a command with a configuration.
fn wire_error(text: &str) -> String {
    let mut files = Files::default();
    match parse_wire(&mut files, "<wire>", text, Comments::Refuse) {
        Err(finding) => finding.kea_text(),
        Ok(value) => {
            let arguments = value.as_map().and_then(|map| map.find("arguments")).expect("the test has some");
            let loaded = load_value(files, arguments, None);
            loaded.first_error().map(aplomado::config::finding::Finding::kea_text).unwrap_or_default()
        }
    }
}

#[test]
fn faults_of_the_api_have_the_words_and_places_of_kea() {
    // Each answer was given by Kea 2.2.
    for (arguments, answer) in [
        (r#"{ "Dhcp4": { "foo": 1 } }"#, "unsupported global configuration parameter: foo (<wire>:0:61)"),
        (
            r#"{ "Dhcp4": { "valid-lifetime": "x" } }"#,
            "intValue() called on non-integer Element in (<wire>:0:72)",
        ),
        (
            r#"{ "Dhcp4": { "subnet4": [ { "subnet": "10.0.0.0/33", "id": 1 } ] } }"#,
            "subnet configuration failed: Invalid prefix length specified for subnet: 33 (<wire>:0:79)",
        ),
        (r#"{ "Dhcp4": { "subnet4": { } } }"#, "listValue() called on non-list Element in (<wire>:0:66)"),
        (
            r#"{ "Dhcp4": { "dhcp4o6-port": 70000 } }"#,
            "out of range value (70000) specified for parameter 'dhcp4o6-port' (<wire>:0:70)",
        ),
        (r#"{ "Dhcp4": { "server-tag": "é" }, "foo": 1 }"#, "Unsupported 'foo' parameter."),
        (r#"{ "Dhcp4": { "valid-lifetime": 1, } }"#, "String expected in <wire>:0:76"),
        (
            r#"{ "Dhcp4": { "valid-lifetime": 99999999999999999999999 } }"#,
            "Number overflow: 99999999999999999999999 in <wire>:0:72",
        ),
        (r#"{ "Dhcp4": { "valid-lifetime": 1e999 } }"#, "Number overflow: 1e999 in <wire>:0:72"),
        (r#"{ "Dhcp4": { "server-tag": "\u1234" } }"#, "Unsupported unicode escape in <wire>:0:71"),
        (r#"{ "Dhcp4": { } }"#, ""),
    ] {
        let text = format!(r#"{{ "command": "config-test", "arguments": {arguments} }}"#);
        assert_eq!(wire_error(&text), answer, "{arguments}");
    }
}

#[test]
fn the_last_of_equal_keys_wins_on_the_wire_and_is_an_error_in_a_file() {
    let text = r#"{ "Dhcp4": { "valid-lifetime": 5, "renew-timer": 1, "valid-lifetime": 6 } }"#;
    let mut files = Files::default();
    let value = parse_wire(&mut files, "<wire>", text, Comments::Refuse).expect("it is JSON");
    let tree = load_value(files, &value, None).dhcp4.expect("it is good");
    assert_eq!(tree.settings.valid_lifetime.default, 6);
    assert_eq!(tree.settings.renew_timer_s, Some(1));
    assert!(!load_text(text).is_good());
}

#[test]
fn the_wire_takes_plain_json_and_nothing_else() {
    let parse = |text: &str, comments| parse_wire(&mut Files::default(), "<wire>", text, comments);
    for text in ["[ 1, 2, ]", "-0.5e3", "\"\\u0041\"", "[  ]", "{  }", " null "] {
        assert!(parse(text, Comments::Refuse).is_ok(), "{text}");
    }
    for text in [
        "",
        "{ \"a\": 1, }",
        "[ , 1 ]",
        "01",
        "+1",
        "1 2",
        "nul",
        "True",
        "{ 1: 2 }",
        "\"\\u1234\"",
        "\"a",
        "99999999999999999999",
        "1e999",
        "# x",
        "[ 1 2 ]",
        "{ \"a\" 1 }",
        "'a'",
        "\u{feff}1",
        "-",
        ".",
        "1.2.3",
    ] {
        assert!(parse(text, Comments::Refuse).is_err(), "{text}");
    }
    let text = "# a\n{ /* b */ \"a\": 1 // c\n }";
    assert!(parse(text, Comments::Skip).is_ok());
    assert!(parse(text, Comments::Refuse).is_err());
}

#[test]
fn ten_thousand_subnets_and_a_hundred_thousand_reservations_have_no_quadratic_check() {
    let mut text = String::from("{ \"Dhcp4\": { \"subnet4\": [\n");
    for subnet in 0..10_000_u32 {
        let (high, low) = (subnet / 250, subnet % 250);
        text.push_str(&format!(
            "{}{{ \"subnet\": \"10.{high}.{low}.0/24\", \"id\": {}, \"pools\": [ {{ \"pool\": \"10.{high}.{low}.100 - 10.{high}.{low}.200\" }} ], \"reservations\": [\n",
            if subnet > 0 { "," } else { "" },
            subnet + 1,
        ));
        for host in 0..10_u32 {
            let comma = if host > 0 { "," } else { "" };
            text.push_str(&format!(
                "{comma}{{ \"hw-address\": \"02:00:{:02x}:{:02x}:00:{host:02x}\", \"ip-address\": \"10.{high}.{low}.{}\", \"hostname\": \"h{subnet}-{host}\" }}\n",
                subnet >> 8,
                subnet & 255,
                host + 1,
            ));
        }
        text.push_str("] }\n");
    }
    text.push_str("] } }");
    #[expect(clippy::disallowed_methods, reason = "the rule is about time")]
    let start = std::time::Instant::now();
    let tree = tree_of(&text);
    let took = start.elapsed();
    assert_eq!(tree.subnets.len(), 10_000);
    assert_eq!(tree.subnets.iter().map(|subnet| subnet.reservations.len()).sum::<usize>(), 100_000);
    println!("{} MB loaded in {took:?}", text.len() / 1_000_000);
    // A release takes a fraction of a second; anything quadratic takes minutes even there.
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn a_flood_of_faults_is_summed_up() {
    let many = "{ \"hw-address\": \"zz\" },".repeat(5000);
    let loaded = load_text(&format!(r#"{{ "Dhcp4": {{ "reservations": [ {many} ] }} }}"#));
    assert_eq!(loaded.findings.len(), 1001, "the warning about interfaces made room for an error");
    let last = loaded.findings.last().expect("there are some").to_string();
    assert!(last.ends_with("more findings are not listed"), "{last}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_octets_make_a_parser_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&octets);
        load_text(&text);
        let _ = parse_wire(&mut Files::default(), "<wire>", &text, Comments::Skip);
    }

    #[test]
    fn no_heap_of_tokens_makes_anything_panic(tokens in proptest::collection::vec(token(), 0..60)) {
        let text = tokens.concat();
        load_text(&text);
        load_text(&format!("{{ \"Dhcp4\": {text} }}"));
        load_text(&format!("{{ \"Dhcp4\": {{ \"subnet4\": [ {{ {text} }} ] }} }}"));
        let mut files = Files::default();
        if let Ok(value) = parse_wire(&mut files, "<wire>", &format!("{{ \"Dhcp4\": {text} }}"), Comments::Skip) {
            load_value(files, &value, None);
        }
    }

    #[test]
    fn no_value_in_a_good_file_makes_the_builder_panic(
        at in 0_usize..100_000, with in token(), which in 0_usize..20,
    ) {
        static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
        let texts = TEXTS.get_or_init(|| {
            files("good").into_iter().chain(files("guide-2018")).map(|path| read(&path)).collect()
        });
        let text = &texts[which % texts.len()];
        let mut at = at % text.len();
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let mut end = (at + with.len()).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let loaded = load_text(&format!("{}{with}{}", &text[..at], &text[end..]));
        if let Some(tree) = &loaded.dhcp4 {
            tree_of(&pretty(&shown(tree)));
        }
    }

    #[test]
    fn what_is_printed_reads_back(value in json(), pretty_print in any::<bool>()) {
        let printed = if pretty_print { pretty(&value) } else { compact(&value) };
        let wire = parse_wire(&mut Files::default(), "<wire>", &printed, Comments::Refuse);
        prop_assert_eq!(&wire.map(|value| value.to_serde()).map_err(|fault| fault.kea_text()), &Ok(value.clone()));
        prop_assert_eq!(&Value::from_serde(&value).to_serde(), &value);
        let file = load_text(&format!("{{ \"Dhcp4\": {{ \"user-context\": {{ \"x\": {printed} }} }} }}"));
        let context = file.dhcp4.and_then(|tree| tree.user_context).map(|context| context.to_serde()["x"].clone());
        prop_assert_eq!(context, Some(value));
    }
}

/// Pieces that a configuration is made of, and some that it is not.
fn token() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\"",
        "\\",
        "#",
        "//",
        "/*",
        "*/",
        "<?include \"x\"?>",
        "true",
        "False",
        "null",
        "0",
        "-1",
        "+1",
        ".5",
        "1e5",
        "1e999",
        "99999999999999999999",
        "4294967295",
        "\"\"",
        "\"\\u00ff\"",
        "\"\\u0000\"",
        "\"10.0.0.0/8\"",
        "\"10.0.0.1-10.0.0.9\"",
        "\"subnet\":",
        "\"subnet4\":",
        "\"pools\":",
        "\"pool\":",
        "\"id\":",
        "\"relay\":",
        "\"ip-address\":",
        "\"reservations\":",
        "\"hw-address\":",
        "\"option-data\":",
        "\"code\":",
        "\"user-context\":",
        "\"comment\":",
        "\"client-classes\":",
        "\"name\":",
        "\"valid-lifetime\":",
        "\"Dhcp4\":",
        "é",
        "\u{0}",
    ];
    proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned)
}

/// Any JSON that has one spelling: no NaN, no integer that becomes a double.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e300_f64..1e300).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map("[a-z]{0,5}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
