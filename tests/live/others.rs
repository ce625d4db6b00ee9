//! Whoever else talks to it.

use std::fs;
use std::os::unix::net::UnixDatagram;

use serde_json::Value;

use crate::place::{PATIENCE, Place, Server};

#[test]
fn nonsense_on_the_socket_is_an_error_and_nothing_else() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let deep = "[".repeat(200_000);
    let deep_arguments = format!("{{ \"command\": \"config-test\", \"arguments\": {deep}");
    let huge = "{ \"command\": \"lease4-get-page\", \"arguments\": { \"from\": \"start\", \"limit\": 99999999999999999999999999 } }";
    let cases: [&[u8]; 9] = [
        b"",
        b"{",
        b"{ \"command\"",
        b"\xff\xfe\x00\x01",
        b"null",
        b"[]",
        b"{ \"command\": 7 }",
        deep_arguments.as_bytes(),
        huge.as_bytes(),
    ];
    for bytes in cases {
        let answer = server.raw(bytes);
        if let Ok(answer) = serde_json::from_slice::<Value>(&answer) {
            assert_eq!(answer["result"], 1, "{answer}");
        } else {
            let shown = &bytes[..bytes.len().min(40)];
            assert!(answer.is_empty(), "{} gives {}", shown.escape_ascii(), answer.escape_ascii());
        }
    }
    server.expect(2, "no-such-command", Value::Null);
    server.expect(0, "status-get", Value::Null);
    server.stop();
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end() {
    let place = Place::new();
    place.write_config(&place.base());
    let manager = UnixDatagram::bind(place.path("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let hear = || {
        let mut buffer = [0; 512];
        let count = manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "600000");
    command.env_remove("WATCHDOG_PID");
    let server = Server::start(command, place.path("socket"));
    assert!(hear().starts_with("READY=1"));
    assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    server.signal("HUP");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line: &String| !line.starts_with("READY=1")) {
        heard.push(hear());
    }
    assert!(heard.iter().any(|line| line.starts_with("RELOADING=1")), "{heard:?}");
    assert!(heard.last().is_some_and(|line| line.contains("STATUS=serving on ")), "{heard:?}");
    fs::write(place.path("kea.conf"), "{ \"Dhcp4\": { \"subnet5\": [] } }").expect("writable");
    server.signal("HUP");
    let failed = loop {
        let line = hear();
        if line.starts_with("READY=1") {
            break line;
        }
    };
    assert!(failed.contains("the last reload failed"), "{failed}");
    server.signal("TERM");
    while hear() != "STOPPING=1" {}
}
