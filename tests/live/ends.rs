//! How the server ends, and with which code.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::place::{PROGRAM, Place, Server, ends_with};

#[test]
fn a_wrong_configuration_ends_with_1_and_its_place() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["valid-lifetme"] = json!(1);
    place.write_config(&dhcp4);
    ends_with(1, place.fails(), &["kea.conf:1:", "valid-lifetme", "valid-lifetime"]);
}

/// What is wrong with a pair is said before it starts, with its place: by `check` and by `run` alike.
#[test]
fn a_wrong_pair_is_found_by_check_and_ends_with_1() {
    let peer = |name: &str, host: &str, role: &str| json!({ "name": name, "url": format!("http://{host}/"), "role": role });
    let pair = |this: &str, peers: [Value; 2]| json!({ "this-server-name": this, "mode": "hot-standby", "peers": peers });
    let one = pair("a", [peer("a", "127.0.0.1:18105", "primary"), peer("b", "127.0.0.1:18106", "standby")]);
    let host_name =
        pair("a", [peer("a", "localhost:18105", "primary"), peer("b", "127.0.0.1:18106", "standby")]);
    let same_address =
        pair("c", [peer("c", "127.0.0.1:18105", "primary"), peer("d", "127.0.0.1:18107", "standby")]);
    let mut no_certificate = one.clone();
    for key in ["trust-anchor", "cert-file", "key-file"] {
        no_certificate[key] = json!("/does/not/exist.pem");
    }
    let other = pair("c", [peer("c", "127.0.0.1:18108", "primary"), peer("d", "127.0.0.1:18107", "standby")]);
    for (list, code, words) in [
        (json!([host_name]), 1, "localhost"),
        (json!([one.clone(), same_address]), 1, "two have 127.0.0.1:18105"),
        (json!([no_certificate]), 1, "/does/not/exist.pem"),
        (json!([one, other]), 0, "clients of subnet 10.9.0.0/16 (id 2) are not served"),
    ] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["hooks-libraries"].as_array_mut().expect("a list").push(
            json!({ "library": "/usr/lib/kea/hooks/libdhcp_ha.so", "parameters": { "high-availability": list } }),
        );
        let path = place.write_config(&dhcp4);
        let output = Command::new(PROGRAM).arg("check").arg(&path).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("kea.conf:1:") && said.contains(words), "expected {words}: {said}");
        if code != 0 {
            ends_with(1, place.fails(), &["kea.conf:1:", words]);
        }
    }
}

#[test]
fn what_is_wrong_with_a_pair_is_told_beside_what_else_is() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["valid-lifetme"] = json!(4000);
    dhcp4["hooks-libraries"].as_array_mut().expect("a list").push(json!({
        "library": "/usr/lib/kea/hooks/libdhcp_ha.so",
        "parameters": { "high-availability": [ { "this-server-name": "a", "mode": "hot-standby", "peers": [
            { "name": "a", "url": "http://127.0.0.1:18109/", "role": "primary" } ] } ] }
    }));
    let path = place.write_config(&dhcp4);
    let output = Command::new(PROGRAM).arg("check").arg(&path).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let both = ["valid-lifetme", "expected a standby in hot-standby, found none"];
    assert!(both.iter().all(|words| said.contains(words)), "{said}");
    ends_with(1, place.fails(), &both);
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let status = Command::new(PROGRAM).args(["run", "--no-such-flag"]).stderr(Stdio::null()).status();
    assert_eq!(status.expect("the program runs").code(), Some(2));
}

#[test]
fn check_takes_its_files_as_run_does_too() {
    let place = Place::new();
    let good = place.write_config(&place.base());
    let bad = place.path("bad.conf");
    fs::write(&bad, "{ \"Dhcp4\": { \"valid-lifetme\": 1 } }").expect("written");
    let check = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).arg("check").args(arguments).output().expect("the program runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let [good, bad] = [&good, &bad].map(|path| path.to_str().expect("UTF-8"));
    assert_eq!(check(&["-c", good]).0, Some(0));
    for arguments in [&["-c", bad][..], &["--config", bad], &["-c", good, "-c", bad], &[good, "-c", bad]] {
        let (code, said) = check(arguments);
        assert!(code == Some(1) && said.contains("bad.conf:1:"), "{arguments:?}: {said}");
    }
    assert_eq!(check(&[]).0, Some(2), "without a file");
}

#[test]
fn a_configuration_that_is_not_there_ends_with_3_and_the_systems_words() {
    ends_with(3, Place::new().fails(), &["kea.conf", "No such file"]);
}

#[test]
fn a_lease_file_that_is_none_ends_with_3_and_is_left_alone() {
    let place = Place::new();
    place.write_config(&place.base());
    fs::write(place.path("leases.csv"), "a diary, dear\nnot leases\n").expect("written");
    ends_with(3, place.fails(), &["leases.csv:1", "it was left as it is"]);
    assert_eq!(fs::read(place.path("leases.csv")).expect("there"), b"a diary, dear\nnot leases\n");
}

#[test]
fn a_lease_file_that_cannot_be_opened_ends_with_3_and_the_reason() {
    let place = Place::new();
    place.write_config(&place.base());
    fs::create_dir(place.path("leases.csv")).expect("a folder in its place");
    ends_with(3, place.fails(), &["leases.csv", "cannot open", "not a regular file"]);
}

#[test]
fn a_second_server_on_the_same_lease_file_ends_with_3() {
    let place = Place::new();
    place.write_config(&place.base());
    let first = place.start();
    let mut other = place.base();
    other["control-socket"]["socket-name"] = json!(place.path("other-socket"));
    fs::write(place.path("other.conf"), json!({ "Dhcp4": other }).to_string()).expect("written");
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(place.path("other.conf"));
    let mut second = Server::spawn(command, place.path("other-socket"));
    let code = second.ended();
    ends_with(3, (code, second.said.join("\n")), &["another process is using it"]);
    first.expect(0, "status-get", Value::Null);
    first.stop();
}

#[test]
fn a_signal_ends_with_0_and_a_command_with_what_it_says() {
    let place = Place::new();
    place.write_config(&place.base());
    place.start().stop();
    let mut server = place.start();
    server.expect(0, "shutdown", json!({ "exit-value": 7 }));
    assert_eq!(server.ended(), 7);
    assert!(!place.path("socket").exists(), "the socket is gone with the server");
}

/// Adds leases until the server refuses or is gone; those acknowledged.
fn add_until_it_fails(server: &Server) -> Vec<Ipv4Addr> {
    let mut acknowledged = Vec::new();
    for number in 0..20_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0101 + number);
        let [_, _, high, low] = address.octets();
        let command = json!({ "command": "lease4-add", "arguments": {
            "ip-address": address, "hw-address": format!("02:00:00:01:{high:02x}:{low:02x}"), "subnet-id": 1 } });
        match server.try_ask(&command) {
            Some(answer) if answer["result"] == 0 => acknowledged.push(address),
            _ => return acknowledged,
        }
    }
    panic!("the disk never failed");
}

fn every_acknowledged_lease_is_in(file: &Path, acknowledged: &[Ipv4Addr]) {
    let text = fs::read_to_string(file).expect("the lease file");
    let kept: BTreeSet<&str> = text.lines().filter_map(|line| line.split(',').next()).collect();
    for address in acknowledged {
        assert!(kept.contains(address.to_string().as_str()), "{address} was acknowledged and is not kept");
    }
}

#[test]
fn a_disk_that_refuses_ends_with_4_and_nothing_more_is_acknowledged() {
    let place = Place::new();
    place.write_config(&place.base());
    // A file may not grow beyond 16 blocks; the signal that would end the process is ignored, the error remains.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" run -c \"$1\""]);
    command.arg(PROGRAM).arg(place.path("kea.conf"));
    let mut server = Server::start(command, place.path("socket"));
    let acknowledged = add_until_it_fails(&server);
    assert!(!acknowledged.is_empty());
    let code = server.ended();
    let said = server.said.join("\n");
    ends_with(4, (code, said), &["leases.csv", "os error 27", "no further lease is acknowledged"]);
    every_acknowledged_lease_is_in(&place.path("leases.csv"), &acknowledged);
}

#[test]
fn a_full_disk_ends_with_4_and_says_so() {
    let place = Place::new();
    let small = place.path("small");
    fs::create_dir(&small).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(&small)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED: a_full_disk_ends_with_4_and_says_so: cannot mount a small file system here");
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let mounted = Mounted(small.clone());
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["name"] = json!(small.join("leases.csv"));
    place.write_config(&dhcp4);
    let mut server = place.start();
    let acknowledged = add_until_it_fails(&server);
    let code = server.ended();
    ends_with(4, (code, server.said.join("\n")), &["the disk is full"]);
    every_acknowledged_lease_is_in(&small.join("leases.csv"), &acknowledged);
    drop(mounted);
}
