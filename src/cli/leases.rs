//! `aplomado leases export|import|verify|compact`: work on a lease file without a server.
//!
//! These are the commands without their arguments, bars and exit codes: they take a disk, a path, somewhere to write
//! and somebody to tell about progress. Export and verify look without taking the file, so they work beside a running
//! server too; import and compact take it, and are refused while somebody else has it.
//!
//! JSON is one object per line with the names of `lease4-get`. Octets past ASCII, which Kea keeps as they are, are
//! the characters U+0080 to U+00FF there, in both directions.

use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::ids::{ColonHex, HwAddr, SubnetId};
use crate::journal::replay::{Body, RowError};
use crate::journal::row::RowReason;
use crate::journal::{Family, RowReader, V4};
use crate::lease::{Lease4, LeaseState};
use crate::store::open::Image;
use crate::store::{
    Cleaned, Compaction, Disk, Error, Finding, GroupCommit, LeaseFiles, Rotation, SyncMode, open,
};

/// How leases are written out or come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line; on the way in also lists of them, and whole answers of `lease4-get-all`.
    Json,
    /// A lease file: its header, then rows.
    Csv,
}

/// Told now and then how much of the work is done, in octets; the second number is all of it.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Why a command on a lease file failed.
#[derive(Debug)]
pub enum Failure {
    /// The lease file.
    Store(Error),
    /// What came in at this line, from 1, is no lease.
    Input {
        /// The file, or what stands for it.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What was expected and what came.
        reason: String,
    },
    /// What was written could not be.
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(out),
            Self::Input { path, line, reason } => write!(out, "{}:{line}: {reason}", path.display()),
            Self::Output(_) => out.write_str("cannot write the result"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Input { .. } => None,
            Self::Output(error) => Some(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// What a look at a lease file found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows read, bad ones too.
    pub row_count: u64,
    /// Rows that are no leases.
    pub bad_count: u64,
    /// Leases that remain.
    pub lease_count: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} rows, {} leases, {} bad rows", self.row_count, self.lease_count, self.bad_count)
    }
}

const OUTPUT_BYTES: usize = 64 << 10;

/// Writes the leases that `path` and the files beside it hold to `out`, ascending. Bad rows are left out and counted.
///
/// # Errors
/// There is no lease file, or `out` fails.
pub fn export(
    disk: Arc<dyn Disk>,
    path: &Path,
    format: Format,
    out: &mut dyn Write,
    on_progress: OnProgress<'_>,
) -> Result<Summary, Failure> {
    let image = Image::<V4>::read(disk, path)?;
    let total = image.bytes();
    let mut text = Vec::new();
    if format == Format::Csv {
        V4::write_header(&mut text);
    }
    let mut done = 0;
    let mut result = Ok(());
    let counts = image.for_each(
        |_, _| (),
        |lease| {
            if result.is_err() {
                return;
            }
            let before = text.len();
            match format {
                Format::Csv => V4::write(lease, &mut text),
                Format::Json => {
                    text.extend_from_slice(to_json(lease).to_string().as_bytes());
                    text.push(b'\n');
                }
            }
            done += (text.len() - before) as u64;
            if text.len() >= OUTPUT_BYTES {
                result = out.write_all(&text);
                text.clear();
                on_progress(done.min(total), total);
            }
        },
    );
    result.and_then(|()| out.write_all(&text)).and_then(|()| out.flush()).map_err(Failure::Output)?;
    on_progress(total, total);
    Ok(Summary { row_count: counts.rows, bad_count: counts.bad, lease_count: counts.leases })
}

/// Prints everything that is wrong with `path` and the files beside it as `FILE:LINE: reason` and says what they hold.
///
/// # Errors
/// There is no lease file, one is of another kind, or `out` fails.
pub fn verify(
    disk: Arc<dyn Disk>,
    path: &Path,
    out: &mut dyn Write,
    on_progress: OnProgress<'_>,
) -> Result<Summary, Failure> {
    let image = Image::<V4>::read(disk, path)?;
    let total = image.bytes();
    let mut result = Ok(());
    let counts = image.for_each(
        |path, error: RowError| {
            if result.is_ok() {
                result = writeln!(out, "{}:{}: {}", path.display(), error.line, error.reason);
            }
        },
        |_| (),
    );
    result.map_err(Failure::Output)?;
    on_progress(total, total);
    Ok(Summary { row_count: counts.rows, bad_count: counts.bad, lease_count: counts.leases })
}

/// What a compaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// What was odd about the files.
    pub findings: Vec<Finding>,
    /// What became of them.
    pub cleaned: Cleaned,
}

/// Does what a cleanup of the server does, at once: all rows become one file of leases, `X.2`, and `X` starts anew.
///
/// # Errors
/// The file is in use or is none, or the disk refuses.
pub fn compact(
    disk: Arc<dyn Disk>,
    path: &Path,
    pid: u32,
    on_progress: OnProgress<'_>,
) -> Result<Compacted, Failure> {
    if !disk.exists(path).map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })? {
        let source = io::ErrorKind::NotFound.into();
        return Err(Error::Io { action: "open", path: path.to_owned(), source }.into());
    }
    let opened = open::<V4>(Arc::clone(&disk), path, pid)?;
    let findings = opened.findings;
    let mut commit = GroupCommit::new(Some(opened.live), Vec::new(), Vec::new(), SyncMode::Group);
    let mut cleaned = Cleaned::Nothing;
    // Twice when an earlier cleanup was interrupted: its files come first, then what has been written since.
    for _ in 0..2 {
        let rotation = commit.rotate()?;
        if let Rotation::Failed(error) = rotation {
            return Err(error.into());
        }
        let run = Compaction::<V4>::new(&*disk, LeaseFiles::new(path), pid).run(&mut |progress| {
            on_progress(progress.done_bytes, progress.total_bytes);
            true
        })?;
        if run != Cleaned::Nothing {
            cleaned = run;
        }
        if !matches!(rotation, Rotation::Waiting) {
            break;
        }
    }
    Ok(Compacted { findings, cleaned })
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What was odd about the lease file.
    pub findings: Vec<Finding>,
    /// Rows added.
    pub row_count: u64,
}

/// Adds the leases of `input` to the lease file `path`, which is created when there is none; a lease replaces one of
/// the same address. All or nothing: when one cannot be read, none is written. `name` stands for the input in messages.
///
/// # Errors
/// The file is in use, something in the input is no lease, or the disk refuses.
pub fn import(
    disk: Arc<dyn Disk>,
    path: &Path,
    pid: u32,
    (name, input): (&Path, &[u8]),
    format: Format,
    on_progress: OnProgress<'_>,
) -> Result<Imported, Failure> {
    let mut rows = Vec::new();
    let row_count = match format {
        Format::Csv => rows_of_csv(name, input, &mut rows, on_progress)?,
        Format::Json => rows_of_json(name, input, &mut rows, on_progress)?,
    };
    let mut opened = open::<V4>(disk, path, pid)?;
    if !rows.is_empty() {
        opened.live.append_rows(&rows)?;
    }
    let total = input.len() as u64;
    on_progress(total, total);
    Ok(Imported { findings: opened.findings, row_count })
}

/// How many leases go by between two calls about progress.
const PROGRESS_LEASES: u64 = 4096;

fn rows_of_csv(
    name: &Path,
    input: &[u8],
    rows: &mut Vec<u8>,
    on_progress: OnProgress<'_>,
) -> Result<u64, Failure> {
    let refuse = |line, reason: String| Failure::Input { path: name.to_owned(), line, reason };
    let body = Body::new::<V4>(input).map_err(|(line, error)| refuse(line, error.to_string()))?;
    let mut reader = RowReader::<V4>::new(body.schema);
    let mut count = 0;
    for line in body.lines {
        let lease = reader.read(line.text).map_err(|reason| refuse(line.number, reason.to_string()))?;
        V4::write(&lease, rows);
        count += 1;
        if count % PROGRESS_LEASES == 0 {
            on_progress(line.offset, input.len() as u64);
        }
    }
    Ok(count)
}

fn rows_of_json(
    name: &Path,
    input: &[u8],
    rows: &mut Vec<u8>,
    on_progress: OnProgress<'_>,
) -> Result<u64, Failure> {
    let line_at =
        |offset: usize| 1 + memchr::memchr_iter(b'\n', &input[..offset.min(input.len())]).count() as u64;
    let refuse = |line, reason: String| Failure::Input { path: name.to_owned(), line, reason };
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Value>();
    let mut count = 0;
    loop {
        let start = values.byte_offset();
        let start = start + input[start..].iter().take_while(|octet| octet.is_ascii_whitespace()).count();
        let value = match values.next() {
            None => return Ok(count),
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                return Err(refuse(error.line() as u64, format!("JSON was expected: {error}")));
            }
        };
        let mut leases = Vec::new();
        collect_leases(value, &mut leases);
        for lease in &leases {
            let row = row_of_json(lease).map_err(|reason| refuse(line_at(start), reason))?;
            rows.extend_from_slice(&row);
            count += 1;
            if count % PROGRESS_LEASES == 0 {
                on_progress(start as u64, input.len() as u64);
            }
        }
    }
}

/// The leases of a value: itself, its elements, or those of an answer to `lease4-get-all` and its like.
fn collect_leases(value: Value, leases: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.into_iter().for_each(|value| collect_leases(value, leases)),
        Value::Object(mut map) if !map.contains_key("ip-address") && map.contains_key("arguments") => {
            if let Some(Value::Array(values)) = map["arguments"].get_mut("leases").map(Value::take) {
                leases.extend(values);
            }
        }
        other => leases.push(other),
    }
}

/// A lease as `lease4-get` tells it.
#[must_use]
pub fn to_json(lease: &Lease4<'_>) -> Value {
    let mut map = Map::new();
    map.insert("ip-address".into(), lease.address.to_string().into());
    map.insert("hw-address".into(), lease.hw_addr.to_string().into());
    if !lease.client_id.is_empty() {
        map.insert("client-id".into(), ColonHex(lease.client_id).to_string().into());
    }
    map.insert("cltt".into(), lease.cltt.into());
    map.insert("valid-lft".into(), lease.valid_lft.into());
    map.insert("subnet-id".into(), lease.subnet_id.0.into());
    map.insert("pool-id".into(), lease.pool_id.into());
    map.insert("fqdn-fwd".into(), lease.fqdn_fwd.into());
    map.insert("fqdn-rev".into(), lease.fqdn_rev.into());
    map.insert("hostname".into(), characters(lease.hostname).into());
    map.insert("state".into(), lease.state.number().into());
    if !lease.user_context.is_empty() {
        let text = characters(lease.user_context);
        // What is a map to Kea need not be JSON to the letter; it is told as text then.
        let context = serde_json::from_str(&text).unwrap_or(Value::String(text));
        map.insert("user-context".into(), context);
    }
    Value::Object(map)
}

/// Octets as the characters of the same numbers.
fn characters(octets: &[u8]) -> String {
    octets.iter().map(|octet| char::from(*octet)).collect()
}

/// Characters as the octets of the same numbers.
fn octets(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// The row of a lease told as JSON, or what was expected.
fn row_of_json(value: &Value) -> Result<Vec<u8>, String> {
    let Some(map) = value.as_object() else { return Err(format!("a lease is a map, this is {value}")) };
    let number = |key: &str, max: u64| match map.get(key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number <= max => Ok(Some(number)),
            _ => Err(format!("{key}: a number of 0 to {max} was expected, not {value}")),
        },
    };
    let short = |key: &str| {
        let wide = number(key, u64::from(u32::MAX))?;
        Ok::<_, String>(wide.map(|wide| u32::try_from(wide).expect("bounded by u32::MAX")))
    };
    let text = |key: &str| match map.get(key) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => {
            octets(text).ok_or_else(|| format!("{key}: characters up to U+00FF were expected, not {text}"))
        }
        Some(value) => Err(format!("{key}: text was expected, not {value}")),
    };
    let flag = |key: &str| match map.get(key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(value) => Err(format!("{key}: true or false was expected, not {value}")),
    };
    let missing = |key: &str| format!("{key}: missing");

    let address = text("ip-address")?;
    let address = std::str::from_utf8(&address).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
    let address = address.ok_or_else(|| "ip-address: an IPv4 address was expected".to_owned())?;
    let hw_addr = hex("hw-address", &text("hw-address")?)?;
    let hw_addr = HwAddr::new(1, &hw_addr).ok_or_else(|| RowReason::HwAddr.to_string())?;
    let client_id = hex("client-id", &text("client-id")?)?;
    let valid_lft = short("valid-lft")?.ok_or_else(|| missing("valid-lft"))?;
    let cltt = match (number("cltt", u64::MAX)?, number("expire", u64::MAX)?) {
        (Some(cltt), _) => cltt,
        (None, Some(expire)) => expire.saturating_sub(u64::from(valid_lft)),
        (None, None) => return Err(missing("cltt")),
    };
    let state = number("state", u64::MAX)?.unwrap_or(0);
    let state = LeaseState::from_number(state).ok_or_else(|| format!("state: there is no state {state}"))?;
    let hostname = text("hostname")?;
    let mut user_context = Vec::new();
    match map.get("user-context") {
        None => {}
        Some(Value::String(text)) => {
            user_context = octets(text).ok_or("user-context: characters up to U+00FF were expected")?;
        }
        Some(value) => {
            let mut printed = String::new();
            print_as_kea(value, &mut printed);
            user_context = octets(&printed).ok_or("user-context: characters up to U+00FF were expected")?;
        }
    }
    let lease = Lease4 {
        address,
        hw_addr,
        client_id: &client_id,
        cltt,
        valid_lft,
        subnet_id: SubnetId(short("subnet-id")?.ok_or_else(|| missing("subnet-id"))?),
        pool_id: short("pool-id")?.unwrap_or(0),
        state,
        fqdn_fwd: flag("fqdn-fwd")?,
        fqdn_rev: flag("fqdn-rev")?,
        hostname: &hostname,
        user_context: &user_context,
    };
    let mut row = Vec::new();
    V4::write(&lease, &mut row);
    // The reader has the last word: what it refuses at the next start is refused now.
    let line = &row[..row.len() - 1];
    RowReader::<V4>::new(crate::journal::Schema::current::<V4>())
        .read(line)
        .map_err(|reason| reason.to_string())?;
    Ok(row)
}

/// Hexadecimal with or without colons.
fn hex(key: &str, text: &[u8]) -> Result<Vec<u8>, String> {
    let refuse = || format!("{key}: hexadecimal was expected, not {}", text.escape_ascii());
    let digit = |octet: &u8| char::from(*octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let group = |group: &[u8]| match group {
        [one] => digit(one),
        [high, low] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
        _ => None,
    };
    let groups: Vec<&[u8]> = if text.is_empty() {
        Vec::new()
    } else if text.contains(&b':') {
        text.split(|octet| *octet == b':').collect()
    } else {
        text.chunks(2).collect()
    };
    groups.into_iter().map(group).collect::<Option<Vec<u8>>>().ok_or_else(refuse)
}

/// JSON on one line with Kea's blanks: after `{`, `[`, `,` and `:`, and before `}` and `]`.
fn print_as_kea(value: &Value, out: &mut String) {
    let open = |out: &mut String, index: usize, start: char| {
        if index == 0 {
            out.push(start)
        } else {
            out.push(',')
        }
        out.push(' ');
    };
    match value {
        Value::Array(values) if !values.is_empty() => {
            for (index, value) in values.iter().enumerate() {
                open(out, index, '[');
                print_as_kea(value, out);
            }
            out.push_str(" ]");
        }
        Value::Object(map) if !map.is_empty() => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            for (index, (key, value)) in members.into_iter().enumerate() {
                open(out, index, '{');
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                print_as_kea(value, out);
            }
            out.push_str(" }");
        }
        Value::Array(_) => out.push_str("[  ]"),
        Value::Object(_) => out.push_str("{  }"),
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CrashDisk;

    const HEADER: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";

    fn path() -> &'static Path {
        Path::new("/l/leases.csv")
    }

    fn disk(rows: &str) -> Arc<CrashDisk> {
        let disk = CrashDisk::new();
        disk.put(path(), (HEADER.to_owned() + rows).as_bytes());
        Arc::new(disk)
    }

    fn exported(disk: &Arc<CrashDisk>, format: Format) -> String {
        let mut out = Vec::new();
        let disk: Arc<dyn Disk> = disk.clone();
        export(disk, path(), format, &mut out, &mut |done, total| assert!(done <= total)).expect("good rows");
        String::from_utf8(out).expect("text")
    }

    fn import_text(disk: &Arc<CrashDisk>, text: &str, format: Format) -> Result<Imported, Failure> {
        let disk: Arc<dyn Disk> = disk.clone();
        import(disk, path(), 1, (Path::new("in"), text.as_bytes()), format, &mut |_, _| ())
    }

    const ROWS: &str = "192.0.2.9,,01:02,100,1895415392,1,1,0,b&#xfcro&#x0a,0,,0\n\
        192.0.2.1,1a:1b,,100,1895415392,1,0,0,,0,{ \"a\": [ 1&#x2c 2.0 ]&#x2c \"b\": { \"x\": \"&#xfc\" } },3\n\
        192.0.2.9,,01:02,200,1895415492,1,1,0,b&#xfcro&#x0a,0,,0\n\
        192.0.2.5,1a:1b,,100,1895415392,1,0,0,,0,,0\n\
        192.0.2.5,1a:1b,,0,1895415292,1,0,0,,0,,0\n";

    #[test]
    fn an_export_holds_what_remains_ascending() {
        let rows: Vec<&str> = ROWS.lines().collect();
        assert_eq!(exported(&disk(ROWS), Format::Csv), format!("{HEADER}{}\n{}\n", rows[1], rows[2]));
    }

    #[test]
    fn what_is_exported_can_be_imported_without_loss() {
        let from = disk(ROWS);
        for format in [Format::Json, Format::Csv] {
            let to = Arc::new(CrashDisk::new());
            let imported = import_text(&to, &exported(&from, format), format).expect("our own export");
            assert_eq!(imported.row_count, 2);
            assert_eq!(exported(&to, Format::Csv), exported(&from, Format::Csv), "{format:?}");
        }
    }

    #[test]
    fn answers_of_kea_are_imported() {
        let answer = r#"[ { "result": 0, "text": "1 lease", "arguments": { "leases": [
            { "cltt": 1795420000, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "", "hw-address": "02:00:00:00:00:01",
              "ip-address": "192.0.2.7", "state": 0, "subnet-id": 1, "valid-lft": 3600 } ] } } ]"#;
        let to = disk("");
        assert_eq!(import_text(&to, answer, Format::Json).expect("an answer").row_count, 1);
        assert_eq!(
            exported(&to, Format::Csv),
            format!("{HEADER}192.0.2.7,02:00:00:00:00:01,,3600,1795423600,1,0,0,,0,,0\n")
        );
    }

    #[test]
    fn an_import_with_one_bad_lease_writes_nothing_and_names_its_line() {
        let good = r#"{"ip-address":"192.0.2.7","hw-address":"0a0b","cltt":1,"valid-lft":2,"subnet-id":1}"#;
        for (bad, reason) in [
            (r#"{"ip-address":"192.0.2"}"#, "ip-address: an IPv4 address was expected"),
            (
                r#"{"ip-address":"192.0.2.8","cltt":1,"valid-lft":2,"subnet-id":1}"#,
                RowReason::NoIdentity.text(),
            ),
            (r#"{"ip-address":"192.0.2.8","hw-address":"1a","valid-lft":2,"subnet-id":1}"#, "cltt: missing"),
            (
                r#"{"ip-address":"192.0.2.8","hw-address":"zz"}"#,
                "hw-address: hexadecimal was expected, not zz",
            ),
            (r#"[1]"#, "a lease is a map, this is 1"),
            ("{", "JSON was expected: EOF while parsing an object at line 2 column 1"),
        ] {
            let to = disk("");
            let error = import_text(&to, &format!("{good}\n{bad}"), Format::Json).expect_err("a bad lease");
            assert_eq!(error.to_string(), format!("in:2: {reason}"));
            assert_eq!(exported(&to, Format::Csv), HEADER);
        }
        let to = disk("");
        let error = import_text(&to, &format!("{HEADER}{ROWS}x\n"), Format::Csv).expect_err("a bad row");
        assert_eq!(error.to_string(), format!("in:7: {}", RowReason::TooFewColumns));
    }

    #[test]
    fn verify_names_every_bad_row_and_changes_nothing() {
        let disk = disk(&(ROWS.to_owned() + "x\n192.0.2.300,,,1,2,3,0,0,,0,,0\n"));
        let mut out = Vec::new();
        let summary = verify(disk.clone(), path(), &mut out, &mut |_, _| ()).expect("a lease file");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            format!(
                "/l/leases.csv:7: {}\n/l/leases.csv:8: {}\n",
                RowReason::TooFewColumns,
                RowReason::Address
            )
        );
        assert_eq!(summary.to_string(), "7 rows, 2 leases, 2 bad rows");
        assert_eq!((disk.call_count(), disk.names().len()), (0, 1));
    }

    #[test]
    fn verify_says_of_a_torn_last_row_that_it_was_not_written_to_its_end() {
        let bad = "192.0.2.9,1a:1b,,10";
        let told = |rows: String| {
            let mut out = Vec::new();
            verify(disk(&rows), path(), &mut out, &mut |_, _| ()).expect("a lease file");
            String::from_utf8(out).expect("text")
        };
        let reason = |reason: RowReason| format!("/l/leases.csv:7: {reason}\n");
        assert_eq!(told(ROWS.to_owned() + bad), reason(RowReason::Torn));
        assert_eq!(told(ROWS.to_owned() + bad + "\n"), reason(RowReason::TooFewColumns));
        assert_eq!(told(ROWS.trim_end().to_owned()), "", "one that can be read lacks only its line end");
    }

    #[test]
    fn compact_leaves_what_remains_and_can_be_repeated() {
        let disk = disk(ROWS);
        let before = exported(&disk, Format::Csv);
        let run = |disk: &Arc<CrashDisk>| {
            compact(disk.clone(), path(), 1, &mut |_, _| ()).expect("no fault").cleaned
        };
        assert_eq!(run(&disk), Cleaned::Done { lease_count: 2, bad_count: 0 });
        assert_eq!(run(&disk), Cleaned::Nothing);
        assert_eq!(exported(&disk, Format::Csv), before);
        assert_eq!(disk.content(&LeaseFiles::new(path()).previous).expect("the result"), before.as_bytes());
        let missing = compact(Arc::new(CrashDisk::new()), path(), 1, &mut |_, _| ());
        assert!(missing.is_err(), "a name mistyped is not a new file");
    }
}
