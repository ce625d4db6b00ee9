//! Where log lines go: terminal, files that rotate, syslog.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::{LoggerSpec, Severity, governing};
use crate::control::clock::{self, Civil, Zone};
use crate::control::json;

/// Kea takes a smaller size as "no rotation".
const ROTATION_BYTES_MIN: u64 = 204_800;

/// How lines look on standard error and standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// As Kea's default pattern.
    #[default]
    Human,
    /// One JSON map per line.
    Json,
}

/// One entry of `output-options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// `output`.
    pub target: OutputTarget,
    /// `maxsize`, octets; below 204800 (0 too) the file is never rotated.
    pub size_bytes_max: u64,
    /// `maxver`: old files kept.
    pub versions_max: u32,
}

impl OutputSpec {
    /// The output that `output` names, with Kea's defaults.
    #[must_use]
    pub fn new(output: &str) -> Self {
        let target = match output {
            "stdout" => OutputTarget::Stdout,
            "stderr" => OutputTarget::Stderr,
            "syslog" => OutputTarget::Syslog(SyslogFacility::default()),
            other => match other.strip_prefix("syslog:") {
                Some(name) => OutputTarget::Syslog(SyslogFacility::from_name(name).unwrap_or_default()),
                None => OutputTarget::File(PathBuf::from(other)),
            },
        };
        Self { target, size_bytes_max: 10_240_000, versions_max: 1 }
    }
}

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputTarget {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The local syslog daemon.
    Syslog(SyslogFacility),
    /// A file.
    File(PathBuf),
}

/// A syslog facility by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyslogFacility(u8);

impl Default for SyslogFacility {
    fn default() -> Self {
        // local0, as in Kea.
        Self(16)
    }
}

impl SyslogFacility {
    /// The facility of this name, as `openlog` knows it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMES: [&str; 24] = [
            "kern",
            "user",
            "mail",
            "daemon",
            "auth",
            "syslog",
            "lpr",
            "news",
            "uucp",
            "cron",
            "authpriv",
            "ftp",
            "ntp",
            "security",
            "console",
            "solaris-cron",
            "local0",
            "local1",
            "local2",
            "local3",
            "local4",
            "local5",
            "local6",
            "local7",
        ];
        let name = name.to_ascii_lowercase();
        NAMES.iter().position(|known| *known == name).and_then(|number| u8::try_from(number).ok()).map(Self)
    }
}

/// A line on its way.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at_us: u64,
    pub(super) severity: Severity,
    pub(super) logger: &'static str,
    pub(super) id: &'static str,
    pub(super) text: String,
}

enum Sink {
    Stderr,
    Stdout,
    Syslog { socket: Option<UnixDatagram>, facility: SyslogFacility },
    File(RotatingFile),
}

/// All outputs, as the writer thread holds them.
pub(super) struct Outputs {
    format: LogFormat,
    zone: Zone,
    colour: bool,
    loggers: Vec<(String, Vec<Sink>)>,
    line: Vec<u8>,
}

impl Outputs {
    pub(super) fn new(format: LogFormat, zone: Zone) -> Self {
        Self { format, zone, colour: io::stderr().is_terminal(), loggers: Vec::new(), line: Vec::new() }
    }

    pub(super) fn configure(&mut self, loggers: &[LoggerSpec]) {
        self.loggers = loggers
            .iter()
            .filter(|logger| !logger.outputs.is_empty())
            .map(|logger| (logger.name.clone(), logger.outputs.iter().map(open).collect()))
            .collect();
    }

    pub(super) fn write(&mut self, record: &Record) {
        let name = governing(&self.loggers, record.logger, |(name, _)| name).map(|(name, _)| name.clone());
        let Some(name) = name else {
            self.print(record, self.colour);
            return to_stderr(&self.line);
        };
        let position = self.loggers.iter().position(|(own, _)| *own == name);
        let mut sinks = position.map(|at| std::mem::take(&mut self.loggers[at].1)).unwrap_or_default();
        for sink in &mut sinks {
            match sink {
                Sink::Stderr => {
                    self.print(record, self.colour);
                    to_stderr(&self.line);
                }
                Sink::Stdout => {
                    self.print(record, false);
                    let mut out = io::stdout().lock();
                    // A closed standard output is nobody's business but its owner's.
                    let _ = out.write_all(&self.line).and_then(|()| out.flush());
                }
                Sink::File(file) => {
                    self.print_human(record, false);
                    if let Err(error) = file.write(&self.line) {
                        let told = format!("log file {}: {error}\n", file.path.display());
                        to_stderr(told.as_bytes());
                        to_stderr(&self.line);
                    }
                }
                Sink::Syslog { socket, facility } => {
                    let line = syslog_line(record, *facility, &self.zone);
                    // The daemon may have been started again: one new connection, then the line is lost.
                    let sent = |socket: &UnixDatagram| socket.send(line.as_bytes()).is_ok();
                    if !socket.as_ref().is_some_and(sent) {
                        *socket = connect_syslog().ok();
                        if !socket.as_ref().is_some_and(sent) {
                            self.print_human(record, false);
                            to_stderr(&self.line);
                        }
                    }
                }
            }
        }
        if let Some(at) = position {
            self.loggers[at].1 = sinks;
        }
    }

    pub(super) fn flush() {
        // Every line is written whole when it is written; files need no more.
        let _ = io::stdout().flush();
    }

    fn print(&mut self, record: &Record, colour: bool) {
        match self.format {
            LogFormat::Human => self.print_human(record, colour),
            LogFormat::Json => self.print_json(record),
        }
    }

    fn print_human(&mut self, record: &Record, colour: bool) {
        self.line.clear();
        let stamp = self.stamp(record);
        let (on, off) = match record.severity {
            _ if !colour => ("", ""),
            Severity::Fatal | Severity::Error => ("\x1b[31m", "\x1b[0m"),
            Severity::Warn => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let word = record.severity.word();
        let pid = std::process::id();
        // Writing to a vector cannot fail.
        let _ = write!(self.line, "{stamp} {on}{word:<5}{off} [{}/{pid}] {} ", record.logger, record.id);
        // A line end or escape from a client's packet must not look like a line of ours.
        for character in record.text.chars() {
            if character.is_control() {
                let _ = write!(self.line, "{}", character.escape_default());
            } else {
                let _ = write!(self.line, "{character}");
            }
        }
        self.line.push(b'\n');
    }

    fn print_json(&mut self, record: &Record) {
        let stamp = self.stamp(record);
        self.line.clear();
        let _ = write!(self.line, "{{\"time\":\"{stamp}\",\"severity\":\"{}\",", record.severity.word());
        let _ = write!(self.line, "\"logger\":\"{}\",\"id\":\"{}\",\"text\":", record.logger, record.id);
        json::print_string(record.text.as_bytes(), &mut self.line);
        self.line.extend_from_slice(b"}\n");
    }

    fn stamp(&self, record: &Record) -> String {
        let mut stamp = clock::stamp(record.at_us, self.zone.offset_s(record.at_us / 1_000_000));
        // Milliseconds, as Kea's default pattern has them.
        stamp.truncate(stamp.len() - 3);
        stamp
    }
}

fn to_stderr(line: &[u8]) {
    // There is nowhere else to complain.
    let _ = io::stderr().lock().write_all(line);
}

fn open(spec: &OutputSpec) -> Sink {
    match &spec.target {
        OutputTarget::Stderr => Sink::Stderr,
        OutputTarget::Stdout => Sink::Stdout,
        OutputTarget::Syslog(facility) => Sink::Syslog { socket: connect_syslog().ok(), facility: *facility },
        OutputTarget::File(path) => Sink::File(RotatingFile {
            path: path.clone(),
            file: None,
            bytes: 0,
            size_bytes_max: spec.size_bytes_max,
            versions_max: spec.versions_max,
        }),
    }
}

fn connect_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect("/dev/log")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn syslog_line(record: &Record, facility: SyslogFacility, zone: &Zone) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let level = match record.severity {
        Severity::Fatal => 2,
        Severity::Error => 3,
        Severity::Warn => 4,
        Severity::Info => 6,
        Severity::Debug(_) => 7,
    };
    let at_s = record.at_us / 1_000_000;
    let civil = Civil::from_unix(i64::try_from(at_s).unwrap_or(0) + i64::from(zone.offset_s(at_s)));
    let Civil { month, day, hour, minute, second, .. } = civil;
    let month = MONTHS[usize::from(month.clamp(1, 12) - 1)];
    let root = record.logger.split('.').next().unwrap_or_default();
    let text: String = record.text.chars().filter(|character| !character.is_control()).collect();
    let priority = u32::from(facility.0) * 8 + level;
    let word = record.severity.word();
    format!(
        "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} {root}[{}]: {word} [{}] {} {text}",
        std::process::id(),
        record.logger,
        record.id,
    )
}

struct RotatingFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    size_bytes_max: u64,
    versions_max: u32,
}

impl RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let rotates = self.size_bytes_max >= ROTATION_BYTES_MIN;
        if rotates && self.file.is_some() && self.bytes + line.len() as u64 > self.size_bytes_max {
            self.file = None;
            rotate(&self.path, self.versions_max)?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
            self.bytes += line.len() as u64;
        }
        Ok(())
    }
}

/// `F` becomes `F.1`, `F.1` becomes `F.2` and so on; the oldest goes.
fn rotate(path: &Path, versions_max: u32) -> io::Result<()> {
    let version = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    // Many versions would be many renames while lines wait.
    let versions = versions_max.clamp(1, 100);
    for number in (1..versions).rev() {
        fs::rename(version(number), version(number + 1)).or_else(gone)?;
    }
    fs::rename(path, version(1)).or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record {
            at_us: 1_795_415_286_123_456,
            severity: Severity::Info,
            logger: "kea-dhcp4.dhcp4",
            id: "DHCP4_STARTED",
            text: text.to_owned(),
        }
    }

    fn outputs() -> Outputs {
        Outputs::new(LogFormat::Human, Zone::utc())
    }

    #[test]
    fn lines_look_like_keas_and_cannot_be_forged() {
        let mut outputs = outputs();
        outputs.print_human(&record("a\nb\x1b"), false);
        let line = String::from_utf8(outputs.line.clone()).expect("UTF-8");
        let pid = std::process::id();
        assert_eq!(
            line,
            format!("2026-11-23 06:28:06.123 INFO  [kea-dhcp4.dhcp4/{pid}] DHCP4_STARTED a\\nb\\u{{1b}}\n")
        );
        outputs.print_json(&record("a\nb"));
        let line = json::parse(&outputs.line).expect("JSON");
        assert_eq!((&line["id"], &line["text"]), (&"DHCP4_STARTED".into(), &"a\nb".into()));
    }

    #[test]
    fn syslog_lines_carry_facility_and_severity() {
        let facility = SyslogFacility::from_name("daemon").expect("known");
        let line = syslog_line(&record("x\ny"), facility, &Zone::utc());
        assert!(line.starts_with("<30>Nov 23 06:28:06 kea-dhcp4["), "{line}");
        assert!(line.ends_with("INFO [kea-dhcp4.dhcp4] DHCP4_STARTED xy"), "{line}");
        assert_eq!(OutputSpec::new("syslog").target, OutputTarget::Syslog(SyslogFacility(16)));
        assert_eq!(OutputSpec::new("syslog:LOCAL7").target, OutputTarget::Syslog(SyslogFacility(23)));
    }

    #[test]
    fn files_rotate_at_their_size_and_keep_their_versions() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut outputs = outputs();
        let mut spec = OutputSpec::new(path.to_str().expect("UTF-8"));
        spec.size_bytes_max = ROTATION_BYTES_MIN;
        spec.versions_max = 2;
        outputs.configure(&[LoggerSpec {
            name: "kea-dhcp4".to_owned(),
            severity: None,
            outputs: vec![spec],
        }]);
        let text = "x".repeat(1000);
        for _ in 0..1000 {
            outputs.write(&record(&text));
        }
        let bytes = |name: &str| fs::metadata(folder.path().join(name)).map(|data| data.len()).ok();
        for name in ["log", "log.1", "log.2"] {
            assert!(bytes(name).is_some_and(|bytes| bytes <= ROTATION_BYTES_MIN), "{name}");
        }
        assert_eq!(bytes("log.3"), None);
        assert!(bytes("log.1").is_some_and(|bytes| bytes > ROTATION_BYTES_MIN - 1100));
    }
}
