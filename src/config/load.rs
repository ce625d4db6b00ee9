//! From texts to trees: several files or one value of the control API, several daemons in them.

use std::net::Ipv4Addr;

use super::build::Builder;
use super::check::{Checker, Dialect};
use super::finding::{Finding, Report, Severity, Style};
use super::json::{Data, Files, Loader, Map, Member, Span, Value, parse_file};
use super::schema;
use super::tree::{ControlAgent, Dhcp4};

/// A configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'t> {
    /// Its name as given, for findings.
    pub name: &'t str,
    /// What it holds.
    pub text: &'t str,
}

/// An interface of the machine, to compare names of a configuration with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemInterface {
    /// `eth0`.
    pub name: String,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// What a configuration came to.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The block `Dhcp4`, when there is one and nothing at all is wrong.
    pub dhcp4: Option<Dhcp4>,
    /// The block `Dhcp4` as far as it could be read, when something is wrong: to see what else is.
    pub faulty_dhcp4: Option<Dhcp4>,
    /// The block `Control-agent`, when there is one and nothing at all is wrong.
    pub control_agent: Option<ControlAgent>,
    /// What is wrong or odd, by place.
    pub findings: Vec<Finding>,
    /// The names of the texts: what later finds fault with a place of the tree needs them.
    pub files: Files,
}

impl Loaded {
    /// Whether nothing is wrong; warnings do not count.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.first_error().is_none()
    }

    /// The error that Kea would have answered: the first of the grammar's, else the first.
    #[must_use]
    pub fn first_error(&self) -> Option<&Finding> {
        let errors = || self.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let grammar = errors().find(|finding| matches!(finding.style, Style::Grammar | Style::Element));
        grammar.or_else(|| errors().next())
    }

    /// A report for the next stage: it knows the texts and holds nothing yet.
    #[must_use]
    pub fn next_report(&self) -> Report {
        let mut report = Report::default();
        report.files = self.files.clone();
        report
    }

    /// Takes the findings of a later stage in, by place.
    pub fn absorb(&mut self, report: Report) {
        self.findings.extend(report.into_findings());
        self.findings.sort_by_key(|finding| (finding.at.file, finding.at.line, finding.at.column));
    }
}

/// Loads all of `sources` as one configuration; `loader` brings included files, `interfaces` are those of the
/// machine where they are to be compared with.
pub fn load(
    sources: &[Source<'_>],
    loader: &mut Loader<'_>,
    interfaces: Option<&[SystemInterface]>,
) -> Loaded {
    let mut report = Report::default();
    let mut blocks: Vec<Member> = Vec::new();
    for source in sources {
        let Some(value) = parse_file(source.name, source.text, loader, &mut report) else {
            continue;
        };
        let Data::Map(map) = value.data else {
            continue;
        };
        if map.members().is_empty() {
            let close = Span { line: value.at.last_line, column: value.at.last_column, ..value.at };
            let text = "syntax error, unexpected }, expecting Dhcp4 or Control-agent";
            report.error(close, Style::Grammar, text);
        }
        blocks.extend(map.into_members());
    }
    assemble(report, &blocks, Dialect::File, interfaces)
}

/// Loads what came over the control API: a map of blocks with the places that [`super::json::parse_wire`] gave it in
/// one of `files`. The `hash` of `config-get` is refused as Kea refuses it: whoever sends a configuration back has to
/// take it off.
pub fn load_value(files: Files, value: &Value, interfaces: Option<&[SystemInterface]>) -> Loaded {
    let mut report = Report::default();
    report.files = files;
    let members = value.as_map().map(Map::members).unwrap_or_default();
    assemble(report, members, Dialect::Wire, interfaces)
}

fn assemble(
    mut report: Report,
    blocks: &[Member],
    dialect: Dialect,
    interfaces: Option<&[SystemInterface]>,
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut dhcp4: Option<&Member> = None;
    let mut agent: Option<&Member> = None;
    let mut logging: Option<&Member> = None;
    for block in blocks {
        let known = match block.key.as_str() {
            "Dhcp4" => Some((&mut dhcp4, &schema::DHCP4)),
            "Control-agent" => Some((&mut agent, &schema::AGENT)),
            "Logging" => Some((&mut logging, &schema::LOGGING)),
            _ => None,
        };
        match (known, block.key.as_str()) {
            (Some((seen, context)), key) => {
                if let Some(before) = seen {
                    let text = format!(
                        "duplicate {key} entries in toplevel map (previous at {})",
                        report.place(before.key_at)
                    );
                    report.error(block.key_at, Style::Element, text);
                    continue;
                }
                *seen = Some(block);
                Checker::new(&mut report, dialect).block(block, context);
            }
            (None, "Dhcp6") => {
                report.error(
                    block.key_at,
                    Style::Grammar,
                    "DHCPv6 is not served yet: a Dhcp6 block cannot be loaded",
                );
            }
            (None, "DhcpDdns") => {
                report.warning(block.key_at, Style::After, "'DhcpDdns' is accepted and not acted on");
            }
            (None, key) if dialect == Dialect::Wire => {
                report.error(block.value.at, Style::Bare, format!("Unsupported '{key}' parameter."));
            }
            (None, key) => {
                let near = super::check::nearest(key, ["Dhcp4", "Control-agent"].into_iter());
                let near = near.map_or_else(|| ".".to_owned(), |near| format!("; did you mean \"{near}\"?"));
                let text = format!("got unexpected keyword \"{key}\" in toplevel map{near}");
                report.error(block.key_at, Style::Grammar, text);
            }
        }
    }
    let mut builder = Builder::new(&mut report, interfaces);
    loaded.dhcp4 = dhcp4.map(|block| builder.dhcp4(block));
    loaded.control_agent = agent.and_then(|block| builder.control_agent(block));
    if let Some(block) = logging {
        for logger in builder.logging(block) {
            let own = if logger.name.starts_with("kea-ctrl-agent") {
                loaded.control_agent.as_mut().map(|agent| &mut agent.loggers)
            } else {
                loaded.dhcp4.as_mut().map(|dhcp4| &mut dhcp4.loggers)
            };
            if let Some(own) = own {
                own.push(logger);
            }
        }
        let text =
            "'Logging' is honoured as in releases up to 1.6; 'loggers' belongs in each daemon's block now";
        report.warning(block.key_at, Style::After, text);
    }
    if report.errors() > 0 {
        loaded.faulty_dhcp4 = loaded.dhcp4.take();
        loaded.control_agent = None;
    }
    loaded.files = report.files.clone();
    loaded.findings = report.into_findings();
    loaded
}
