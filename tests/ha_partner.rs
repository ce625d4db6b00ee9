//! Everything that happens to a pair besides a death, in network namespaces (see `tests/lab`), with Kea 2.2 as the other half and
//! without: silence, a cut control link, maintenance, backups, agents, TLS, credentials, commands of the operator.

mod lab;
mod no_certificate;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aplomado::control::tls::{TlsFiles, client_config};
use lab::Program::{Aplomado, Kea};
use lab::{CONTROL, Door, Lab, Program, SERVERS, Setup, now};
use no_certificate::NoCertificate;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

fn sleep(time: Duration) {
    let start = now();
    while now().duration_since(start) < time {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A lab whose servers run and are in their normal state.
fn pair(setup: Setup) -> Option<Lab> {
    let mut lab = Lab::new(setup)?;
    lab.start_all();
    lab.await_normal();
    Some(lab)
}

/// A partner that stops without closing anything is noticed like one that is killed, and comes back by itself.
fn silence(name: &'static str, mode: &'static str, programs: [Program; 2]) {
    let Some(lab) = pair(Setup::new(name, mode, &programs)) else { return };
    lab.serve_all(0..20);
    lab.freeze(0, true);
    let start = now();
    lab.serve_all(20..21);
    let gap = now().duration_since(start);
    assert!(gap < Duration::from_secs(4), "clients waited for {gap:?}");
    lab.serve_all(21..40);
    lab.freeze(0, false);
    lab.await_normal();
    lab.assert_distinct(0..40);
    lab.assert_equal(40);
}

#[test]
fn a_primary_of_ours_that_falls_silent_is_replaced() {
    silence("s-hs", "hot-standby", [Aplomado, Aplomado]);
}

#[test]
fn a_partner_that_shares_the_load_and_falls_silent_is_replaced() {
    silence("s-lb", "load-balancing", [Aplomado, Aplomado]);
}

#[test]
fn a_kea_that_falls_silent_is_replaced() {
    silence("s-ka", "hot-standby", [Kea, Aplomado]);
}

/// Both live and cannot hear each other: each goes on with its own clients, and what they did meanwhile is exchanged.
fn cut(name: &'static str, programs: [Program; 2], delayed: u32, clients: u16) {
    let mut setup = Setup::new(name, "load-balancing", &programs);
    setup.relationship = json!({ "delayed-updates-limit": delayed, "max-unacked-clients": 10 });
    let Some(lab) = pair(setup) else { return };
    lab.serve_all(0..20);
    lab.cut_control(true);
    for server in 0..2 {
        lab.await_state(server, "communication-recovery");
    }
    assert_eq!(lab.serve_all(20..20 + clients).len(), 2, "both serve while they cannot hear each other");
    let ours = |message: &str| {
        let servers = (0..2).filter(|&server| programs[server] == Aplomado);
        servers.map(|server| lab.log(server).matches(message).count()).collect::<Vec<_>>()
    };
    // Kea says it in the same words.
    let copied = || (0..2).map(|server| lab.log(server).matches("HA_SYNC_SUCCESSFUL").count()).sum::<usize>();
    let copies = copied();
    let is_too_much = u32::from(clients) > 2 * delayed;
    lab::until("word of the backlogs", || {
        let full = ours("HA_LEASES_BACKLOG_FULL");
        full.iter().all(|&count| count == usize::from(is_too_much)).then_some(())
    });
    lab.cut_control(false);
    // Whose state is normal now may not have heard the other one yet.
    lab::until("meeting again", || {
        let again = ours("from communication-recovery to ");
        again.iter().all(|&count| count == 1).then_some(())
    });
    lab.await_normal();
    lab.assert_distinct(0..20 + clients);
    lab.assert_equal(usize::from(20 + clients));
    // What was kept was sent; or all was copied: each from the other, or, of two of ours, one from the other to which it brought its own.
    assert_eq!(copied() > copies, is_too_much, "{copies} copies before");
    let sent = ours("HA_LEASES_BACKLOG_START");
    assert!(is_too_much || sent.iter().all(|&count| count == 1), "{sent:?}");
}

#[test]
fn a_cut_link_is_recovered_from_between_ours() {
    cut("c-aa", [Aplomado, Aplomado], 100, 20);
}

#[test]
fn a_cut_link_is_recovered_from_with_kea() {
    cut("c-ak", [Aplomado, Kea], 100, 20);
    cut("c-ka", [Kea, Aplomado], 100, 20);
}

#[test]
fn more_than_the_backlog_holds_ends_in_a_synchronisation() {
    cut("o-aa", [Aplomado, Aplomado], 5, 40);
    cut("o-ak", [Aplomado, Kea], 5, 40);
    cut("o-ka", [Kea, Aplomado], 5, 40);
}

/// Maintenance ordered at one server, served by it alone, cancelled, and both are back.
fn maintenance(name: &'static str, programs: [Program; 2]) {
    for (orderer, &address) in SERVERS[..2].iter().enumerate() {
        let Some(lab) = pair(Setup::new(name, "hot-standby", &programs)) else { return };
        lab.serve_all(0..10);
        lab.order(orderer, "ha-maintenance-start", &Value::Null);
        lab.await_state(orderer, "partner-in-maintenance");
        lab.await_state(1 - orderer, "in-maintenance");
        assert_eq!(lab.serve_all(10..20).into_iter().collect::<Vec<_>>(), [address]);
        lab.order(orderer, "ha-maintenance-cancel", &Value::Null);
        lab.await_normal();
        lab.serve_all(20..30);
        lab.assert_equal(30);
    }
}

#[test]
fn maintenance_of_a_pair_of_ours() {
    maintenance("m-aa", [Aplomado, Aplomado]);
}

#[test]
fn maintenance_with_kea() {
    maintenance("m-ak", [Aplomado, Kea]);
}

/// A server in maintenance goes down and comes back.
#[test]
fn a_server_in_maintenance_may_be_restarted() {
    let Some(mut lab) = pair(Setup::new("m-down", "hot-standby", &[Kea, Aplomado])) else { return };
    lab.order(1, "ha-maintenance-start", &Value::Null);
    lab.await_state(0, "in-maintenance");
    lab.kill(0);
    lab.await_state(1, "partner-down");
    lab.serve_all(0..10);
    lab.start(0);
    lab.await_normal();
    lab.assert_equal(10);
}

/// A backup hears of every change; nobody waits for it.
fn backup(name: &'static str, mode: &'static str, programs: &[Program]) {
    let Some(mut lab) = Lab::new(Setup::new(name, mode, programs)) else { return };
    lab.start_all();
    let last = programs.len() - 1;
    if mode == "passive-backup" {
        lab.await_state(0, "passive-backup");
    } else {
        lab.await_normal();
    }
    lab.await_state(last, "backup");
    lab.serve_all(0..20);
    lab.assert_equal(20);
    // Without its backup the server serves as before; what was missed comes with `ha-sync`.
    lab.kill(last);
    lab.serve_all(20..30);
    lab.start(last);
    lab.await_state(last, "backup");
    let asked = json!({ "server-name": "one", "max-period": 10 });
    lab.order(last, "ha-sync", &asked);
    lab.assert_equal(30);
}

#[test]
fn a_backup_of_ours_behind_ours_and_behind_kea() {
    backup("pb-aa", "passive-backup", &[Aplomado, Aplomado]);
    backup("pb-ka", "passive-backup", &[Kea, Aplomado]);
}

#[test]
fn kea_as_our_backup() {
    backup("pb-ak", "passive-backup", &[Aplomado, Kea]);
}

#[test]
fn pairs_with_a_backup() {
    backup("b-kaa", "hot-standby", &[Kea, Aplomado, Aplomado]);
    backup("b-aak", "load-balancing", &[Aplomado, Aplomado, Kea]);
}

#[test]
fn a_pair_that_talks_through_control_agents() {
    for (name, programs) in [("ca-ak", [Aplomado, Kea]), ("ca-ka", [Kea, Aplomado])] {
        let mut setup = Setup::new(name, "hot-standby", &programs);
        setup.door = Door::Agent;
        let Some(mut lab) = pair(setup) else { return };
        lab.serve_all(0..20);
        lab.assert_equal(20);
        lab.kill(0);
        lab.serve_all(20..30);
        lab.start(0);
        lab.await_normal();
        lab.assert_equal(30);
    }
}

#[test]
fn a_server_that_has_lost_its_file_gets_its_leases_back() {
    for (name, programs) in [("f-ak", [Aplomado, Kea]), ("f-ka", [Kea, Aplomado])] {
        let Some(mut lab) = pair(Setup::new(name, "load-balancing", &programs)) else { return };
        lab.serve_all(0..30);
        for server in 0..2 {
            lab.kill(server);
            lab.lose_leases(server);
            lab.await_state(1 - server, "partner-down");
            lab.start(server);
            lab.await_normal();
            lab.assert_equal(30);
        }
    }
}

#[test]
fn commands_of_the_operator() {
    for (name, programs) in [("op-ak", [Aplomado, Kea]), ("op-ka", [Kea, Aplomado])] {
        let ours = usize::from(programs[0] != Aplomado);
        let mut setup = Setup::new(name, "load-balancing", &programs);
        setup.relationship =
            json!({ "state-machine": { "states": [ { "state": "waiting", "pause": "once" } ] } });
        let Some(mut lab) = Lab::new(setup) else { return };
        lab.start_all();
        // Both pause before they do anything.
        for server in 0..2 {
            lab.await_state(server, "waiting");
        }
        for server in 0..2 {
            lab.order(server, "ha-continue", &Value::Null);
        }
        lab.await_normal();
        lab.serve_all(0..10);

        // All clients at one server, and back.
        lab.order(1 - ours, "ha-scopes", &json!({ "scopes": [] }));
        lab.order(ours, "ha-scopes", &json!({ "scopes": ["one", "two"] }));
        assert_eq!(lab.serve_all(10..20).into_iter().collect::<Vec<_>>(), [SERVERS[ours]]);
        lab.order(ours, "ha-sync", &json!({ "server-name": lab::NAMES[1 - ours], "max-period": 10 }));
        lab.assert_equal(20);

        // From the beginning again. Scopes that were given by command stay until the state changes, which it does at one side only.
        lab.order(1 - ours, "ha-scopes", &json!({ "scopes": [lab::NAMES[1 - ours]] }));
        lab.order(ours, "ha-reset", &Value::Null);
        lab.await_normal();
        assert_eq!(lab.serve_all(20..40).len(), 2);
        lab.assert_equal(40);
    }
}

/// Our server pauses wherever it comes to, and goes on when it is told to; the other one waits for it, or serves.
#[test]
fn a_server_that_pauses_in_every_state() {
    for (name, programs) in [("pa-aa", [Aplomado, Aplomado]), ("pa-ak", [Aplomado, Kea])] {
        let mut setup = Setup::new(name, "hot-standby", &programs);
        let pause = |state: &str| json!({ "state": state, "pause": "always" });
        let states = ["waiting", "syncing", "ready", "hot-standby"];
        setup.relationship = json!({ "state-machine": { "states": states.map(pause) } });
        let Some(mut lab) = Lab::new(setup) else { return };
        // The other one does not pause, and is alone at first.
        lab.setup.relationship = json!({});
        lab.configure(1);
        lab.start(1);
        lab.await_state(1, "partner-down");
        lab.serve_all(0..10);
        lab.start(0);
        for state in states {
            lab.await_state(0, state);
            // Some heartbeats go by: nothing moves it.
            sleep(Duration::from_millis(800));
            assert_eq!(lab.state(0).as_deref(), Some(state), "it pauses");
            let status = lab.order(0, "status-get", &Value::Null);
            let paused = &status["arguments"]["high-availability"][0]["ha-servers"]["local"]["paused"];
            assert_eq!(*paused, json!(true), "in {state}");
            assert_eq!(lab.leases(0).len(), if matches!(state, "waiting" | "syncing") { 0 } else { 10 });
            if state != "hot-standby" {
                lab.order(0, "ha-continue", &Value::Null);
            }
        }
        // Paused in its normal state it serves as ever.
        lab.await_normal();
        assert_eq!(lab.serve_all(10..20).into_iter().collect::<Vec<_>>(), [SERVERS[0]]);
        lab.assert_equal(20);
        // It misses its partner only when it may go on.
        lab.kill(1);
        sleep(Duration::from_millis(2500));
        assert_eq!(lab.state(0).as_deref(), Some("hot-standby"));
        lab.order(0, "ha-continue", &Value::Null);
        lab.await_state(0, "partner-down");
        lab.serve_all(20..25);
    }
}

/// A certificate authority of which `folder` holds the certificate.
fn authority(folder: &Path, name: &str) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("signed");
    std::fs::write(folder.join(name), certificate.pem()).expect("room");
    Issuer::new(params, key)
}

/// The files of a certificate that `issuer` has signed, whose holder trusts the authority of this name.
fn certificate(folder: &Path, name: &str, issuer: &Issuer<'_, KeyPair>, trusts: &str) -> Value {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "server");
    let made = params.signed_by(&key, issuer).expect("signed");
    let path = |kind: &str| folder.join(format!("{name}.{kind}"));
    std::fs::write(path("crt"), made.pem()).expect("room");
    std::fs::write(path("key"), key.serialize_pem()).expect("room");
    json!({ "trust-anchor": folder.join(trusts), "cert-file": path("crt"), "key-file": path("key") })
}

/// A certificate authority and a certificate with its key for both servers, as files in `folder`.
fn certificates(folder: &Path) -> Value {
    certificate(folder, "both", &authority(folder, "ours"), "ours")
}

#[test]
fn tls_with_client_certificates() {
    for (name, programs) in
        [("t-aa", [Aplomado, Aplomado]), ("t-ak", [Aplomado, Kea]), ("t-ka", [Kea, Aplomado])]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let mut setup = Setup::new(name, "hot-standby", &programs);
        setup.relationship = certificates(folder.path());
        setup.relationship["require-client-certs"] = json!(true);
        let Some(mut lab) = pair(setup) else { return };
        lab.serve_all(0..10);
        lab.assert_equal(10);
        lab.kill(0);
        lab.serve_all(10..20);
        lab.start(0);
        lab.await_normal();
        lab.assert_equal(20);
    }
}

/// What a server says of its partner's state.
fn last_state(lab: &Lab, server: usize) -> String {
    let status = lab.order(server, "status-get", &Value::Null);
    let remote = &status["arguments"]["high-availability"][0]["ha-servers"]["remote"];
    remote["last-state"].as_str().expect("a state").to_owned()
}

/// Our server and one that shows a certificate of a foreign authority: as a client when `calls`, else where it listens. The one that is
/// refused or refuses is alone, the log of ours says why, and with a certificate of the right authority they are a pair.
fn stranger(name: &'static str, other: Program, calls: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, theirs] = ["ours", "theirs"].map(|name| authority(folder.path(), name));
    let good = certificate(folder.path(), "good", &ours, "ours");
    let foreign = certificate(folder.path(), "foreign", &theirs, "ours");
    let mut setup = Setup::new(name, "hot-standby", &[Aplomado, other]);
    setup.relationship = json!({ "require-client-certs": true });
    setup.peers = vec![good.clone(), good.clone()];
    let Some(mut lab) = Lab::new(setup) else { return };
    // What it shows to a peer stands in the entry of that peer, what it shows to whoever calls in its own.
    lab.setup.peers[usize::from(!calls)] = foreign;
    lab.configure(1);
    lab.start_all();
    let (lonely, heard) = if calls { (1, 0) } else { (0, 1) };
    lab.await_state(lonely, "partner-down");
    assert_eq!(last_state(&lab, lonely), "unavailable");
    // The other direction works: nothing else is wrong.
    lab::until("a heartbeat", || (last_state(&lab, heard) == "partner-down").then_some(()));
    let reason = if calls { "TLS handshake with 10.78.0.2 failed: " } else { "invalid peer certificate: " };
    lab::until(reason, || {
        let log = lab.log(0);
        log.lines().any(|line| line.contains(reason) && line.contains("UnknownIssuer")).then_some(())
    });
    lab.kill(1);
    lab.setup.peers = vec![good.clone(), good];
    lab.configure(1);
    lab.start(1);
    lab.await_normal();
    lab.serve_all(0..5);
    lab.assert_equal(5);
}

#[test]
fn a_partner_that_calls_with_a_certificate_of_a_foreign_authority_is_refused() {
    stranger("sc-aa", Aplomado, true);
    stranger("sc-ak", Kea, true);
}

#[test]
fn a_partner_that_listens_with_a_certificate_of_a_foreign_authority_is_not_spoken_to() {
    stranger("sl-aa", Aplomado, false);
    stranger("sl-ak", Kea, false);
}

/// Our server with a certificate of a foreign authority, or with none at all: towards its partner when it `calls`, else where it listens. The
/// partner refuses it, our log says what to mend, and when that is done they are a pair.
fn refused(name: &'static str, other: Program, calls: bool, has_certificate: bool, words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, theirs] = ["ours", "theirs"].map(|name| authority(folder.path(), name));
    let good = certificate(folder.path(), "good", &ours, "ours");
    let mut setup = Setup::new(name, "hot-standby", &[Aplomado, other]);
    setup.relationship = json!({ "require-client-certs": true });
    setup.peers = vec![good.clone(), good.clone()];
    let Some(mut lab) = Lab::new(setup) else { return };
    let foreign = || certificate(folder.path(), "foreign", &theirs, "ours");
    lab.setup.peers[usize::from(calls)] = if has_certificate { foreign() } else { json!({}) };
    lab.configure(0);
    lab.start_all();
    // Who is refused takes the other one for dead; who refuses is heard no more. The other direction works: nothing else is wrong.
    let (lonely, waiting) = if calls { (0, 1) } else { (1, 0) };
    lab.await_state(lonely, "partner-down");
    lab.await_state(waiting, "ready");
    lab::until(words, || lab.log(0).contains(words).then_some(()));
    assert_ne!(lab.state(lonely).as_deref(), Some("hot-standby"));
    lab.kill(0);
    lab.setup.peers = vec![good.clone(), good];
    lab.configure(0);
    lab.start(0);
    lab.await_normal();
    lab.serve_all(0..5);
    lab.assert_equal(5);
}

const NOT_TRUSTED: &str =
    "it refuses our certificate: its trust-anchor does not hold the authority that signed our cert-file";

#[test]
fn a_partner_does_not_hear_us_with_a_certificate_of_a_foreign_authority() {
    // Before that a partner that is not up yet may refuse the connection: then the line counts on.
    refused("rc-aa", Aplomado, true, true, NOT_TRUSTED);
    refused("rc-ak", Kea, true, true, NOT_TRUSTED);
}

#[test]
fn a_partner_does_not_speak_to_us_with_a_certificate_of_a_foreign_authority() {
    let words = format!("TLS handshake with 10.78.0.2 failed: {NOT_TRUSTED}");
    refused("rl-aa", Aplomado, false, true, &words);
    refused("rl-ak", Kea, false, true, &words);
}

#[test]
fn a_partner_with_tls_does_not_hear_us_without() {
    let words = "perhaps it expects TLS, which no cert-file turns on here";
    refused("nc-aa", Aplomado, true, false, words);
    refused("nc-ak", Kea, true, false, words);
}

#[test]
fn a_partner_with_tls_does_not_speak_to_us_without() {
    let words = "TLS handshake with 10.78.0.2 failed: it speaks TLS, and no cert-file turns that on for this listener";
    refused("nl-aa", Aplomado, false, false, words);
    refused("nl-ak", Kea, false, false, words);
}

/// Where a certificate is required somebody without one is refused before a command is read, and the log says so; where none is, he is heard.
#[test]
fn somebody_without_a_certificate_is_refused_where_one_is_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut setup = Setup::new("t-none", "hot-standby", &[Aplomado, Aplomado]);
    setup.relationship = certificates(folder.path());
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.setup.relationship["require-client-certs"] = json!(false);
    lab.configure(1);
    lab.start_all();
    lab.await_normal();
    let file = |key: &str| lab.setup.relationship[key].as_str().expect("a path").into();
    let files = TlsFiles {
        trust_anchor: file("trust-anchor"),
        cert_file: file("cert-file"),
        key_file: file("key-file"),
    };
    let mut config = ClientConfig::clone(&client_config(&files, false).expect("good files"));
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let config = Arc::new(config);
    let body = json!({ "command": "ha-heartbeat", "service": ["dhcp4"] }).to_string();
    for (server, is_heard) in [(0, false), (1, true)] {
        let socket = TcpStream::connect(SocketAddrV4::new(CONTROL[server], 8005)).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let name = ServerName::from(IpAddr::V4(CONTROL[server]));
        let session = ClientConnection::new(Arc::clone(&config), name).expect("a session");
        let mut stream = StreamOwned::new(session, socket);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close",
            body.len()
        );
        // The refusal may come before or after what is written.
        let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), is_heard, "{answer}");
        assert_eq!(answer.is_empty(), !is_heard, "{answer}");
    }
    let line = "TLS handshake with 10.78.0.100 failed: it shows no certificate, and require-client-certs asks for one";
    lab::until(line, || lab.log(0).contains(line).then_some(()));
    assert!(!lab.log(1).contains("TLS handshake with 10.78.0.100 failed"));
    // The pair does not mind.
    lab.serve_all(0..5);
    lab.assert_equal(5);
}

#[test]
fn credentials_of_the_peers() {
    let entry = |user: &str| json!({ "basic-auth-user": user, "basic-auth-password": "secret" });
    for (name, programs) in [("a-aa", [Aplomado, Aplomado]), ("a-ak", [Aplomado, Kea])] {
        let mut setup = Setup::new(name, "hot-standby", &programs);
        setup.peers = vec![entry("first"), entry("second")];
        let Some(mut lab) = pair(setup) else { return };
        lab.serve_all(0..10);
        lab.assert_equal(10);
        if programs[1] == Kea {
            continue;
        }
        // One of them uses another password from now on: it is refused, and each goes on alone.
        lab.kill(1);
        lab.setup.peers[0] = json!({ "basic-auth-user": "first", "basic-auth-password": "wrong" });
        lab.configure(1);
        lab.await_state(0, "partner-down");
        lab.start(1);
        lab.await_state(1, "waiting");
        lab.serve_all(10..20);
        lab::until("reason in the log", || lab.log(1).contains("refused with 401").then_some(()));
    }
}

/// Two that are configured differently say so, once, when they meet; two that are alike say that.
fn met(name: &'static str, programs: [Program; 2]) {
    let mut setup = Setup::new(name, "hot-standby", &programs);
    let subnet = |id: u32, subnet: &str, pool: &str| json!({ "id": id, "subnet": subnet, "pools": [{ "pool": pool }] });
    let near = subnet(1, "10.77.0.0/16", "10.77.10.0 - 10.77.250.255");
    setup.subnets_of =
        vec![json!([near]), json!([near, subnet(9, "10.99.0.0/16", "10.99.0.10 - 10.99.0.20")])];
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.setup.relationship = json!({ "max-ack-delay": 300 });
    lab.configure(1);
    lab.start_all();
    lab.await_normal();
    for server in (0..2).filter(|&server| programs[server] == Aplomado) {
        let [here, there, side] = if server == 0 { ["250", "300", "there"] } else { ["300", "250", "here"] };
        let line =
            format!("max-ack-delay is {here} here, {there} there; subnet 9 (10.99.0.0/16) is only {side}");
        lab::until(&line, || lab.log(server).contains(&line).then_some(()));
        assert_eq!(lab.log(server).matches("HA_PEER_DIFFERS").count(), 1);
    }
    // The second one is put right and starts again.
    lab.setup.relationship = json!({});
    lab.kill(1);
    lab.setup.subnets_of = vec![json!([near]), json!([near])];
    lab.configure(1);
    lab.start(1);
    lab.await_normal();
    for server in (0..2).filter(|&server| programs[server] == Aplomado) {
        lab::until("agreement", || lab.log(server).contains("HA_PEER_AGREES").then_some(()));
    }
}

#[test]
fn what_differs_between_the_configurations_is_said_when_they_meet() {
    met("m-aa", [Aplomado, Aplomado]);
    met("m-ak", [Aplomado, Kea]);
}
