//! What the demo shows: on a terminal one screen that is drawn over, elsewhere a line each second and one for each change.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use super::population::{Counts, Population, Proof};
use super::servers::NAMES;
use super::watch::Seen;

/// Time between two pictures on a terminal, and between two lines elsewhere.
const PICTURE_NS: u64 = 200_000_000;
const LINE_NS: u64 = 1_000_000_000;

/// A server now.
pub(super) struct ServerView {
    /// Its process; nothing when there is none.
    pub(super) pid: Option<u32>,
    /// What it says of itself; nothing when it does not answer.
    pub(super) seen: Option<Seen>,
}

impl ServerView {
    fn state(&self) -> &str {
        match (&self.seen, self.pid) {
            (Some(seen), _) => &seen.state,
            (None, Some(_)) => "starting",
            (None, None) => "dead",
        }
    }

    fn scopes(&self) -> String {
        match &self.seen {
            Some(seen) if !seen.scopes.is_empty() => seen.scopes.join(" "),
            _ => "-".to_owned(),
        }
    }
}

/// What is to be seen now.
pub(super) struct View<'a> {
    /// What happens.
    pub(super) words: &'a str,
    /// The servers.
    pub(super) servers: [ServerView; 2],
    /// The clients.
    pub(super) population: &'a mut Population,
}

/// The screen.
pub(super) struct Screen {
    terminal: bool,
    start_ns: Option<u64>,
    drawn_ns: u64,
    drawn_lines: usize,
    told: [String; 2],
    counts: Counts,
    times_us: Option<(u64, u64)>,
    /// The gap and the return, when they are known.
    pub(super) results: Vec<String>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            start_ns: None,
            drawn_ns: 0,
            drawn_lines: 0,
            told: Default::default(),
            counts: Counts::default(),
            times_us: None,
            results: Vec::new(),
        }
    }

    /// Draws when it is time, when a server's state has changed, or when this is something to be seen at once.
    pub(super) fn draw(&mut self, now_ns: u64, at_once: bool, view: View<'_>) {
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        let period_ns = if self.terminal { PICTURE_NS } else { LINE_NS };
        let past_ns = now_ns.saturating_sub(self.drawn_ns);
        let seconds = now_ns.saturating_sub(start_ns) / 10_000_000;
        let seconds = format!("{}.{:02} s", seconds / 100, seconds % 100);
        let mut text = String::new();
        if !self.terminal {
            for (told, (name, server)) in self.told.iter_mut().zip(NAMES.iter().zip(&view.servers)) {
                if told != server.state() {
                    server.state().clone_into(told);
                    let _ = writeln!(text, "{seconds:>8}  {name} is {told}, serves {}", server.scopes());
                }
            }
        }
        if past_ns >= period_ns || at_once {
            self.drawn_ns = now_ns;
            let before = std::mem::replace(&mut self.counts, view.population.counts);
            if let Some(times) = view.population.times_taken() {
                self.times_us = Some(times);
            }
            let counts = self.counts;
            let rates = [0, 1].map(|server: usize| {
                let acks = counts.acks[server] - before.acks[server];
                acks.saturating_mul(1_000_000_000) / past_ns.max(1)
            });
            if self.terminal {
                self.picture(&mut text, &seconds, &view, rates);
            } else {
                let held = view.population.held_count();
                let _ = write!(
                    text,
                    "{seconds:>8}  {}: {held} clients hold an address; acknowledged by one {}/s, by two {}/s",
                    view.words, rates[0], rates[1]
                );
                if let Some(proof) = view.population.proof() {
                    let _ = write!(text, "; {}", proof_words(proof));
                }
                text.push('\n');
            }
        }
        if text.is_empty() {
            return;
        }
        let mut out = io::stdout().lock();
        // A screen that is gone does not end the proof.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn picture(&mut self, text: &mut String, seconds: &str, view: &View<'_>, rates: [u64; 2]) {
        let Counts { leased, renewed, released, naks, repeated, acks, .. } = self.counts;
        let held = view.population.held_count();
        let mut lines = vec![
            String::new(),
            format!("  {seconds:<10}{}", view.words),
            String::new(),
            "  server   process   HA state              serves      acks/s      acks".to_owned(),
        ];
        for (place, server) in view.servers.iter().enumerate() {
            let pid = server.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            lines.push(format!(
                "  {:<8} {pid:<9} {:<21} {:<10} {:>7}  {:>8}",
                NAMES[place],
                server.state(),
                server.scopes(),
                rates[place],
                acks[place]
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "  clients  {held} hold an address; {leased} leased, {renewed} renewed, {released} released, \
             {naks} refused, {repeated} asked again"
        ));
        lines.push(self.times_us.map_or_else(String::new, |(p50, p99)| {
            format!("           answered in {} ms (median), {} ms (99 of 100)", millis(p50), millis(p99))
        }));
        lines.push(
            view.population
                .proof()
                .map_or_else(String::new, |proof| format!("  proof    {}", proof_words(proof))),
        );
        for result in &self.results {
            lines.push(format!("  {result}"));
        }
        if self.drawn_lines > 0 {
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn_lines);
        }
        self.drawn_lines = lines.len();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
}

fn proof_words(proof: &Proof) -> String {
    let survivor = NAMES[1 - proof.dead];
    format!("{survivor} has confirmed {} of {} leases since the kill", proof.kept, proof.asked)
}

/// Microseconds as milliseconds with two digits.
fn millis(us: u64) -> String {
    format!("{}.{:02}", us / 1000, us % 1000 / 10)
}
