//! What is wrong with a configuration, with its place, in Kea's words.

use std::fmt;
use std::sync::Arc;

use super::json::{Files, Span};

/// Most findings that one load keeps; what comes after is counted and summed up in one.
pub const FINDINGS_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration works, perhaps not as meant.
    Warning,
    /// The configuration is refused.
    Error,
}

/// How Kea joins a text and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `F:1.2-5: text`, from the grammar.
    Grammar,
    /// `F:1:2: text`, from the grammar's own checks.
    Element,
    /// `text (F:1:2)`, from the meaning of a value.
    After,
    /// The text alone.
    Bare,
}

/// One thing that is wrong or odd.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Where; all zero when it has no place.
    pub at: Span,
    /// Name of the text it was found in.
    pub file: Arc<str>,
    /// How [`Finding::kea_text`] joins place and text.
    pub style: Style,
    /// What, without the place.
    pub text: String,
}

impl Finding {
    /// The text as Kea answers it, place included.
    #[must_use]
    pub fn kea_text(&self) -> String {
        let Self { at, file, text, .. } = self;
        match self.style {
            Style::Grammar if at.last_line == at.line && at.last_column > at.column => {
                format!("{file}:{}.{}-{}: {text}", at.line, at.column, at.last_column)
            }
            Style::Grammar => format!("{file}:{}.{}: {text}", at.line, at.column),
            Style::Element => format!("{file}:{}:{}: {text}", at.line, at.column),
            Style::After if *at != Span::default() => format!("{text} ({file}:{}:{})", at.line, at.column),
            Style::After | Style::Bare => text.clone(),
        }
    }
}

/// `FILE:LINE:COL: error: text`, as `check` prints it.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        if self.at != Span::default() {
            write!(out, "{}:{}:{}: ", self.file, self.at.line, self.at.column)?;
        } else if !self.file.is_empty() {
            write!(out, "{}: ", self.file)?;
        }
        write!(out, "{severity}: {}", self.text)
    }
}

/// Gathers findings while a configuration is read.
#[derive(Debug, Default)]
pub struct Report {
    /// The texts that were read.
    pub files: Files,
    findings: Vec<Finding>,
    beyond: usize,
    errors: usize,
}

impl Report {
    /// Adds an error.
    pub fn error(&mut self, at: Span, style: Style, text: impl Into<String>) {
        self.errors += 1;
        self.push(Severity::Error, at, style, text.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, at: Span, style: Style, text: impl Into<String>) {
        self.push(Severity::Warning, at, style, text.into());
    }

    /// How many errors there were so far.
    #[must_use]
    pub const fn errors(&self) -> usize {
        self.errors
    }

    /// A place as texts name it: `F:1:2`.
    #[must_use]
    pub fn place(&self, at: Span) -> String {
        format!("{}:{}:{}", self.files.name(at.file), at.line, at.column)
    }

    /// All findings, by place.
    #[must_use]
    pub fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| (finding.at.file, finding.at.line, finding.at.column));
        if self.beyond > 0 {
            self.findings.push(Finding {
                severity: if self.errors > 0 { Severity::Error } else { Severity::Warning },
                at: Span::default(),
                file: Arc::from(""),
                style: Style::Bare,
                text: format!("{} more findings are not listed", self.beyond),
            });
        }
        self.findings
    }

    fn push(&mut self, severity: Severity, at: Span, style: Style, text: String) {
        // Errors decide: once the list is full they take the places of warnings.
        if self.findings.len() >= FINDINGS_MAX {
            self.beyond += 1;
            let warning = (severity == Severity::Error)
                .then(|| self.findings.iter().position(|kept| kept.severity == Severity::Warning))
                .flatten();
            match warning {
                Some(index) => self.findings.swap_remove(index),
                None => return,
            };
        }
        let file = if at == Span::default() { Arc::from("") } else { self.files.shared_name(at.file) };
        self.findings.push(Finding { severity, at, file, style, text });
    }
}
