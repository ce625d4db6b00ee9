//! The log as other rooms use it.

use std::fs;
use std::time::Duration;

use aplomado::control::log::{self, LogFormat, LoggerSpec, OutputSpec, Severity};
use aplomado::{log, log_limited};

#[test]
fn lines_go_where_their_logger_says_and_floods_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let logger = |name: &str, severity, output: &str| LoggerSpec {
        name: name.to_owned(),
        severity,
        outputs: vec![OutputSpec::new(file(output).to_str().expect("UTF-8"))],
    };
    let loggers = vec![
        logger("kea-dhcp4", Some(Severity::Warn), "root"),
        logger("kea-dhcp4.leases", Some(Severity::Debug(50)), "leases"),
        LoggerSpec { name: "kea-dhcp4.quiet".to_owned(), severity: None, outputs: Vec::new() },
    ];
    log::start(loggers, LogFormat::Human, || 1_795_415_286_123_456);
    log!(Severity::Info, "kea-dhcp4.dhcp4", DHCP4_STARTED, "not wanted");
    log!(Severity::Error, "kea-dhcp4.dhcp4", DHCP4_OPEN_SOCKETS_FAILED, "no {}", "eth0");
    log!(Severity::Debug(50), "kea-dhcp4.leases", DHCPSRV_MEMFILE_ADD, "added");
    log!(Severity::Debug(51), "kea-dhcp4.leases", DHCPSRV_MEMFILE_ADD, "not wanted");
    log!(Severity::Fatal, "kea-dhcp4.quiet", ANY, "not wanted");
    for number in 0..100 {
        log_limited!(Severity::Warn, "kea-dhcp4.bad-packets4", DHCP4_PACKET_DROP, "number {number}");
    }
    log::flush(Duration::from_secs(30));
    let root = fs::read_to_string(file("root")).expect("written");
    let leases = fs::read_to_string(file("leases")).expect("written");
    assert_eq!(leases.lines().count(), 1);
    assert!(leases.ends_with("] DHCPSRV_MEMFILE_ADD added\n"), "{leases}");
    assert!(root.lines().next().expect("a line").ends_with("] DHCP4_OPEN_SOCKETS_FAILED no eth0"), "{root}");
    assert_eq!(root.matches("DHCP4_PACKET_DROP number").count(), 10);
    assert!(!root.contains("not wanted"));

    // Another configuration holds at once.
    log::configure(vec![logger("kea-dhcp4", Some(Severity::Info), "second")]);
    log!(Severity::Info, "kea-dhcp4.dhcp4", DHCP4_STARTED, "wanted now");
    log::flush(Duration::from_secs(30));
    assert!(fs::read_to_string(file("second")).expect("written").ends_with("DHCP4_STARTED wanted now\n"));
}
