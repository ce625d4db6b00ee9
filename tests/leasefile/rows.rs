//! Every form of row that a file may hold, as kea-lfc of Debian's Kea 2.2 reads it and as we do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use aplomado::journal::{Family, RowReader, Schema, V4};

const KEA_LFC: &str = "/usr/sbin/kea-lfc";
/// kea-lfc gives a file up that has more bad rows than this.
const BAD_ROWS_MAX: usize = 100;
/// The address of most rows of the table, which are about other columns.
const ADDRESS: &str = "192.0.2.9,";
/// Columns that kea-lfc 2.2 writes: all but the pool.
const KEA_COLUMNS: usize = 11;

struct Form {
    about: String,
    column_count: usize,
    row: Vec<u8>,
    kea: Vec<u8>,
    /// Where we differ, on purpose.
    ours: Option<Vec<u8>>,
}

/// The octets of a text with `\xNN`.
fn octets(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\' {
            let digits = std::str::from_utf8(&after[1..3]).expect("two digits after \\x");
            octets.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
            rest = &after[3..];
        } else {
            octets.push(first);
            rest = after;
        }
    }
    octets
}

fn forms() -> Vec<Form> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/leasefile/rows-v4.txt");
    let text = std::fs::read_to_string(path).expect("a file of this repository");
    let lines = text.lines().filter(|line| line.contains('\t'));
    let forms: Vec<Form> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            assert!([4, 6].contains(&fields.len()), "{line}");
            Form {
                about: fields[0].to_owned(),
                column_count: fields[1].parse().expect("a number"),
                row: octets(fields[2]),
                kea: octets(fields[3]),
                ours: fields.get(4).map(|field| octets(field)),
            }
        })
        .collect();
    assert!(forms.len() > 300, "the table is whole");
    forms
}

/// A row whose context is printed in one way, as far as it is JSON: what Kea prints anew we keep as it stands.
fn canonical(row: &[u8]) -> Vec<u8> {
    let mut columns: Vec<Vec<u8>> = row.split(|octet| *octet == b',').map(<[u8]>::to_vec).collect();
    if let Some(context) = columns.get_mut(KEA_COLUMNS - 1) {
        let text = String::from_utf8_lossy(context).replace("&#x2c", ",");
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
            *context = value.to_string().into_bytes();
        }
    }
    columns.join(&b","[..])
}

/// What we make of a row, in the words of the table.
fn read(form: &Form) -> Vec<u8> {
    let header = crate::header(form.column_count);
    let schema = Schema::from_header::<V4>(header.trim_end().as_bytes()).expect("a valid header");
    let mut reader = RowReader::<V4>::new(schema);
    let Ok(lease) = reader.read(&form.row) else { return b"refused".to_vec() };
    if V4::is_deletion(&lease) {
        return b"gone".to_vec();
    }
    let mut written = Vec::new();
    V4::write(&lease, &mut written);
    let columns: Vec<&[u8]> = written.split(|octet| *octet == b',').take(KEA_COLUMNS).collect();
    columns.join(&b","[..])
}

#[test]
fn every_form_of_row_is_read_as_kea_reads_it_or_it_is_said_why_not() {
    let mut odd = String::new();
    for form in forms() {
        let ours = read(&form);
        let wanted = form.ours.as_ref().unwrap_or(&form.kea);
        if canonical(&ours) != canonical(wanted) {
            let (about, row) = (&form.about, form.row.escape_ascii());
            let _ = writeln!(
                odd,
                "{about}: {row}\n   ours {}\n   wanted {}",
                ours.escape_ascii(),
                wanted.escape_ascii()
            );
        }
        assert!(
            form.ours.is_none_or(|ours| ours != form.kea),
            "{}: a difference that is none",
            form.row.escape_ascii()
        );
    }
    assert!(odd.is_empty(), "\n{odd}");
}

/// A row of the table with an address of its own, and the good one that goes before it.
fn addressed(form: &Form, number: usize) -> (Ipv4Addr, Vec<u8>) {
    let host = u32::try_from(number).expect("a short table");
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + host);
    let columns = ["aa:aa", "", "77", "2000000077", "9", "0", "0", "before", "0", "", "0", "x"];
    let before = columns[..form.column_count - 1].join(",");
    let tail = &form.row[ADDRESS.len()..];
    (address, [format!("{address},{before}\n{address},").as_bytes(), tail, b"\n"].concat())
}

/// The rows by address that kea-lfc makes of this file.
fn cleaned_up(content: &[u8]) -> BTreeMap<Ipv4Addr, Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |suffix: &str| folder.path().join(format!("leases.{suffix}"));
    std::fs::write(at("1"), content).expect("room");
    let status = Command::new(KEA_LFC)
        .arg("-4")
        .arg("-x")
        .arg(at("2"))
        .arg("-i")
        .arg(at("1"))
        .arg("-o")
        .arg(at("output"))
        .arg("-f")
        .arg(at("completed"))
        .arg("-p")
        .arg(at("pid"))
        .args(["-c", "unused"])
        .env("KEA_LOCKFILE_DIR", folder.path())
        .env("KEA_PIDFILE_DIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("kea-lfc can be started").success());
    let text = std::fs::read(at("2")).expect("kea-lfc has done its work");
    let rows = text.split(|octet| *octet == b'\n').skip(1).filter(|row| !row.is_empty());
    let rows = rows.map(|row| {
        let comma = row.iter().position(|octet| *octet == b',').expect("columns");
        let address = std::str::from_utf8(&row[..comma]).expect("ASCII").parse().expect("an address");
        (address, row[comma + 1..].to_vec())
    });
    rows.collect()
}

#[test]
fn kea_reads_every_form_of_row_as_recorded() {
    if !Path::new(KEA_LFC).exists() {
        eprintln!("SKIPPED: kea-lfc is not installed, the table of row forms is not compared with it");
        return;
    }
    let forms = forms();
    let mut compared = 0;
    for column_count in 9..=13 {
        let forms: Vec<&Form> = forms
            .iter()
            .filter(|form| form.column_count == column_count && form.row.starts_with(ADDRESS.as_bytes()))
            .collect();
        for forms in forms.chunks(BAD_ROWS_MAX) {
            let mut content = crate::header(column_count).into_bytes();
            let mut wanted = BTreeMap::new();
            for (number, form) in forms.iter().enumerate() {
                let (address, rows) = addressed(form, number);
                content.extend(rows);
                match &form.kea[..] {
                    b"gone" => {}
                    b"refused" => {
                        wanted.insert(address, b"aa:aa,,77,2000000077,9,0,0,before,0,".to_vec());
                    }
                    row => {
                        wanted.insert(address, row[ADDRESS.len()..].to_vec());
                    }
                }
            }
            let found = cleaned_up(&content);
            for (number, form) in forms.iter().enumerate() {
                let address = addressed(form, number).0;
                let text = |row: Option<&Vec<u8>>| row.map(|row| row.escape_ascii().to_string());
                assert_eq!(
                    text(found.get(&address)),
                    text(wanted.get(&address)),
                    "{}: {}",
                    form.about,
                    form.row.escape_ascii()
                );
                compared += 1;
            }
            assert_eq!(found.len(), wanted.len());
        }
    }
    assert!(compared > 300, "nearly all of the table can be compared");
    println!("compared {compared} forms of rows with kea-lfc");
}
