//! Every command with good, missing, badly typed, out of range and unknown arguments, as Kea 2.2 answered each (`tests/data/commands/kea.jsonl`): asked
//! of us by every run, and of Kea itself where there is one.
//!
//! With `RECORD_KEA_COMMANDS` in the environment the table is written anew. It has a row for each request of `forms`: `request`, `afresh`
//! when the leases were set up before it, `kea` for Kea's answer; where we answer otherwise on purpose also `ours` and `why`.
//! Times are left out, and what is in the nature of a server: its version, its configuration, the list of its commands.

mod differences;
mod forms;
mod player;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use forms::Request;
use player::{Player, Program};

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    request: Request,
    kea: Value,
    ours: Option<(Value, String)>,
}

impl Row {
    fn to_json(&self) -> Value {
        let mut row = json!({ "request": self.request.text, "kea": self.kea });
        if self.request.afresh {
            row["afresh"] = json!(true);
        }
        if let Some((ours, why)) = &self.ours {
            row["ours"] = ours.clone();
            row["why"] = json!(why);
        }
        row
    }

    fn from_json(row: &Value) -> Self {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name}: {row}")).to_owned();
        Self {
            request: Request { text: text("request"), afresh: row["afresh"] == true },
            kea: row["kea"].clone(),
            ours: row.get("ours").map(|ours| (ours.clone(), text("why"))),
        }
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/commands/kea.jsonl")
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string(file()).expect("the table is there");
    text.lines().map(|line| Row::from_json(&serde_json::from_str(line).expect("JSON"))).collect()
}

fn shown(wrong: &[String]) -> String {
    format!("{} answers differ:\n{}", wrong.len(), wrong.join("\n"))
}

#[test]
fn table_holds_every_request_once() {
    let rows = table();
    let asked: Vec<&Request> = rows.iter().map(|row| &row.request).collect();
    assert!(asked.len() > 1000, "{} rows", asked.len());
    assert_eq!(asked, forms::requests().iter().collect::<Vec<_>>());
    for row in rows.iter().filter(|row| row.ours.is_some()) {
        assert_ne!(row.ours.as_ref().map(|(ours, _)| ours), Some(&row.kea), "{}", row.request.text);
    }
}

#[test]
fn we_answer_as_the_table_says() {
    let player = Player::start(Program::Aplomado).expect("it is built");
    let wrong: Vec<String> = table()
        .iter()
        .filter_map(|row| {
            let answer = player.play(&row.request);
            let expected = row.ours.as_ref().map_or(&row.kea, |(ours, _)| ours);
            (answer != *expected)
                .then(|| format!("{}\n   expected {expected}\n   answered {answer}", row.request.text))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", shown(&wrong));
}

#[test]
fn kea_answers_as_the_table_says() {
    let Some(kea) = Player::start(Program::Kea) else {
        let _ = writeln!(io::stderr(), "SKIPPED: there is no kea-dhcp4 here to ask");
        return;
    };
    if std::env::var_os("RECORD_KEA_COMMANDS").is_some() {
        return record(&kea);
    }
    let wrong: Vec<String> = table()
        .iter()
        .filter_map(|row| {
            let answer = kea.play(&row.request);
            (answer != row.kea)
                .then(|| format!("{}\n   recorded {}\n   answered {answer}", row.request.text, row.kea))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", shown(&wrong));
}

/// Writes the table; every difference needs its reason.
fn record(kea: &Player) {
    let player = Player::start(Program::Aplomado).expect("it is built");
    let (mut rows, mut wrong) = (String::new(), Vec::new());
    for request in forms::requests() {
        let (kea, ours) = (kea.play(&request), player.play(&request));
        let ours = (ours != kea).then(|| {
            let why = differences::reason(&request.text, &kea, &ours).unwrap_or_else(|| {
                wrong.push(format!("{}\n   Kea {kea}\n   we  {ours}", request.text));
                ""
            });
            (ours, why.to_owned())
        });
        rows.push_str(&format!("{}\n", Row { request, kea, ours }.to_json()));
    }
    fs::write(file(), rows).expect("room on the disk");
    assert!(wrong.is_empty(), "without a reason, {}", shown(&wrong));
}
