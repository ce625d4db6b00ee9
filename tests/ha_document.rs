//! `docs/ha.md`, tried: its configuration is the lab's, its commands are run one after the other by the real program on real servers
//! (Kea 2.2 and ours, see `tests/lab`), and the states that it names must come.

mod lab;

use std::path::Path;
use std::process::Command;

use lab::Program::{Aplomado, Kea};
use lab::{Lab, NAMES, Setup, until};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../docs/ha.md");
const PROGRAM: &str = env!("CARGO_BIN_EXE_aplomado");

/// The blocks of the document in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    DOCUMENT.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("split gives one")).collect()
}

/// The words of a line as a shell would make them: only single quotes are known.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Follows the document.
struct Walk {
    lab: Lab,
    clients: u16,
    commands: usize,
}

impl Walk {
    /// A line that names states: `# one: STATE, two: STATE`.
    fn expect(&mut self, line: &str) {
        let mut normal = 0;
        for part in line.split(',') {
            let (name, state) = part.trim().split_once(": ").expect("NAME: STATE");
            self.lab.await_state(number(name), state);
            normal += usize::from(state == self.lab.setup.mode);
        }
        // Whatever happens to the servers, clients are served.
        self.lab.serve_all(self.clients..self.clients + 5);
        self.clients += 5;
        if normal == 2 {
            self.lab.assert_equal(usize::from(self.clients));
            self.lab.assert_distinct(0..self.clients);
        }
    }

    /// A line at a machine: `one# COMMAND`.
    fn order(&mut self, server: usize, line: &str) {
        self.commands += 1;
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["aplomado", "check", "/etc/kea/kea-dhcp4.conf"] => {
                self.run(&["check"], &self.file(server, "conf"));
            }
            ["aplomado", "ctl", rest @ ..] => {
                let said = self.run(
                    &[&["ctl", "--timeout", "20"], rest, &["--socket"]].concat(),
                    &self.file(server, "sock"),
                );
                if rest == ["status-get"] {
                    assert!(said.contains("  here "), "{line}: {said}");
                }
            }
            ["systemctl", "disable", "--now", unit] => {
                assert_eq!(self.lab.setup.servers[server].0, program(unit), "{line}");
                self.lab.order(server, "shutdown", &Value::Null);
                until("end", || self.lab.command(server, "status-get", &Value::Null).is_none().then_some(()));
                self.lab.kill(server);
            }
            ["systemctl", "enable", "--now", unit] => {
                self.lab.setup.servers[server].0 = program(unit);
                self.lab.start(server);
            }
            _ => panic!("the test does not know how to do what the document says: {line}"),
        }
    }

    fn file(&self, server: usize, suffix: &str) -> String {
        self.lab.folder().join(format!("{server}.{suffix}")).to_str().expect("UTF-8").to_owned()
    }

    fn run(&self, arguments: &[&str], last: &str) -> String {
        let output = Command::new(PROGRAM).args(arguments).arg(last).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{said}{complaint}", output.status);
        said
    }
}

fn number(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a machine of the lab")
}

fn program(unit: &str) -> lab::Program {
    match unit {
        "kea-dhcp4-server" => Kea,
        "aplomado" => Aplomado,
        other => panic!("no such unit: {other}"),
    }
}

/// Runs these blocks of commands on a pair that begins with `programs`; how many commands they were.
fn follow(name: &'static str, programs: [lab::Program; 2], blocks: &[&str]) -> Option<usize> {
    let configuration: Value = serde_json::from_str(self::blocks("json")[0]).expect("JSON");
    let relationship = &configuration["Dhcp4"]["hooks-libraries"][1]["parameters"]["high-availability"][0];
    let mut setup = Setup::new(name, "hot-standby", &programs);
    assert_eq!(relationship["mode"], setup.mode);
    // The delays of the document; names and addresses are the lab's already.
    let mut taken = relationship.clone();
    for peer in relationship["peers"].as_array().expect("peers") {
        let place = number(peer["name"].as_str().expect("a name"));
        assert_eq!(peer["url"], format!("http://10.78.0.{}:8005/", place + 1).as_str());
        assert_eq!(peer["role"], setup.servers[place].1);
    }
    for own in ["this-server-name", "peers"] {
        taken.as_object_mut().expect("a map").remove(own);
    }
    setup.relationship = taken;
    let mut lab = Lab::new(setup)?;
    lab.start_all();
    lab.await_normal();
    let mut walk = Walk { lab, clients: 0, commands: 0 };
    for line in blocks.iter().flat_map(|block| block.lines()) {
        match line.split_once("# ") {
            Some(("", states)) => walk.expect(states),
            Some((name, command)) => walk.order(number(name), command),
            None => panic!("neither a command nor states: {line}"),
        }
    }
    Some(walk.commands)
}

#[test]
fn what_the_document_says_can_be_done() {
    let blocks = blocks("sh");
    let Some(commands) = follow("doc", [Kea, Kea], &blocks) else { return };
    assert!(commands > 20, "the document is followed: {commands} commands");
}

/// What comes after the way there and back (four steps) is for any pair.
#[test]
fn what_is_said_of_every_pair_holds_for_ours() {
    follow("doc-own", [Aplomado, Aplomado], &blocks("sh")[4..]);
}

#[test]
fn its_configurations_are_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |text: &str| {
        let path = folder.path().join("kea-dhcp4.conf");
        std::fs::write(&path, text).expect("room on the disk");
        let output = Command::new(PROGRAM).arg("check").arg(&path).output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let blocks = blocks("json");
    check(blocks[0]);
    // What is said of certificates, in the relationship.
    let mut whole: Value = serde_json::from_str(blocks[0]).expect("JSON");
    let tls: Value = serde_json::from_str(blocks[1]).expect("JSON");
    let relationship = &mut whole["Dhcp4"]["hooks-libraries"][1]["parameters"]["high-availability"][0];
    // Its names, with files that are there.
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["one".to_owned()]).expect("parameters");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    for (name, file) in tls.as_object().expect("a map") {
        let file = Path::new(file.as_str().expect("a name")).file_name().expect("a name");
        let path = folder.path().join(file);
        let text = if name == "key-file" { key.serialize_pem() } else { certificate.pem() };
        std::fs::write(&path, text).expect("room on the disk");
        relationship[name] = Value::String(path.display().to_string());
    }
    check(&whole.to_string());
    // The hub: its subnets and relationships in the place of the pair's.
    let mut hub: Value = serde_json::from_str(blocks[2]).expect("JSON");
    let dhcp4 = &mut whole["Dhcp4"];
    dhcp4["hooks-libraries"][1]["parameters"]["high-availability"] = hub["high-availability"].take();
    dhcp4["subnet4"] = hub["subnet4"].take();
    check(&whole.to_string());
}
