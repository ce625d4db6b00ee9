//! `run` and `check`.

use std::path::PathBuf;

use super::{Exit, LogFormat};
use crate::config::finding::{Finding, Severity};
use crate::net::link::{Snapshot, Table};
use crate::server::control_loop::{self, Failure};
use crate::server::setup;

/// `aplomado run`.
pub(super) fn run(files: &[PathBuf], log_format: LogFormat) -> Exit {
    ended(control_loop::run(files, log_format == LogFormat::Json))
}

/// How a process ends whose server ended so; says why when it was not asked to.
pub(super) fn ended(outcome: Result<i64, Failure>) -> Exit {
    match outcome {
        Ok(code) => u8::try_from(code)
            .map_or(Exit::Fault, |code| if code == 0 { Exit::Well } else { Exit::Asked(code) }),
        Err(Failure::Configuration(findings)) => {
            for finding in &findings {
                eprintln!("{}", line(finding));
            }
            eprintln!("aplomado: not started: the configuration has {} error(s)", errors(&findings));
            Exit::Configuration
        }
        Err(Failure::Start(text)) => {
            eprintln!("aplomado: cannot start: {text}");
            Exit::CannotStart
        }
        Err(Failure::Fault(text)) => {
            eprintln!("aplomado: stopped: {text}");
            Exit::Fault
        }
    }
}

/// `aplomado check`.
pub(super) fn check(files: &[PathBuf]) -> Exit {
    let loaded = match setup::read(files, None) {
        Ok(loaded) => loaded,
        Err(text) => {
            eprintln!("aplomado: {text}");
            return Exit::Configuration;
        }
    };
    let mut findings = loaded.findings.clone();
    if let Some(tree) = &loaded.dhcp4 {
        let mut table = Table::new();
        setup::plan(tree, &loaded, &mut table, &Snapshot::default(), 1, &mut findings);
    }
    setup::examine_faulty(&loaded, &mut findings);
    for finding in &findings {
        println!("{}", line(finding));
    }
    let count = errors(&findings);
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let names = names.join(", ");
    if count > 0 {
        println!("{names}: {count} error(s): the server would not take this configuration");
        return Exit::Configuration;
    }
    let warnings = findings.len();
    let subnets = loaded.dhcp4.as_ref().map_or(0, |tree| {
        tree.subnets.len() + tree.shared_networks.iter().map(|network| network.subnets.len()).sum::<usize>()
    });
    println!("{names}: good ({subnets} subnet(s), {warnings} warning(s))");
    Exit::Well
}

fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.severity == Severity::Error).count()
}

/// A finding as `FILE:LINE:COLUMN: severity: text`.
fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    if finding.at == crate::config::json::Span::default() {
        return format!("{severity}: {}", finding.text);
    }
    format!("{}:{}:{}: {severity}: {}", finding.file, finding.at.line, finding.at.column, finding.text)
}
