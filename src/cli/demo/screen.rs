//! What the demo shows: on a terminal one screen that is drawn over, elsewhere a line each second.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use super::population::{Counts, Population};

/// Time between two pictures on a terminal, and between two lines elsewhere.
const PICTURE_NS: u64 = 250_000_000;
const LINE_NS: u64 = 1_000_000_000;

/// What is to be seen now.
pub(super) struct View<'a> {
    /// What the server does.
    pub(super) words: &'a str,
    /// Its process.
    pub(super) pid: u32,
    /// The clients.
    pub(super) population: &'a mut Population,
}

/// The screen.
pub(super) struct Screen {
    terminal: bool,
    start_ns: Option<u64>,
    drawn_ns: u64,
    drawn_lines: usize,
    counts: Counts,
    times_us: Option<(u64, u64)>,
    /// From the last ACK before the kill to the first after it.
    pub(super) gap_ns: Option<u64>,
    /// Leases confirmed, and asked for.
    pub(super) proof: Option<(usize, usize)>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            start_ns: None,
            drawn_ns: 0,
            drawn_lines: 0,
            counts: Counts::default(),
            times_us: None,
            gap_ns: None,
            proof: None,
        }
    }

    /// Draws when it is time, or when this is something to be seen at once.
    pub(super) fn draw(&mut self, now_ns: u64, at_once: bool, view: View<'_>) {
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        let period_ns = if self.terminal { PICTURE_NS } else { LINE_NS };
        let past_ns = now_ns.saturating_sub(self.drawn_ns);
        if past_ns < period_ns && !at_once {
            return;
        }
        self.drawn_ns = now_ns;
        let before = std::mem::replace(&mut self.counts, view.population.counts);
        if let Some(times) = view.population.times_taken() {
            self.times_us = Some(times);
        }
        if let Some(proof) = view.population.proof() {
            self.proof = Some((proof.kept, proof.asked));
        }
        let acks = |counts: &Counts| counts.leased + counts.renewed;
        let rate = |now: u64, then: u64| (now - then).saturating_mul(1_000_000_000) / past_ns.max(1);
        let ack_rate = rate(acks(&self.counts), acks(&before));
        let seconds = now_ns.saturating_sub(start_ns) / 100_000_000;
        let seconds = format!("{}.{} s", seconds / 10, seconds % 10);
        let held = view.population.held_count();
        let text = if self.terminal {
            self.picture(&seconds, &view, ack_rate, rate(self.counts.offers, before.offers), held)
        } else {
            let Counts { leased, renewed, released, naks, .. } = self.counts;
            let mut line = format!(
                "{seconds:>7}  {}: {held} held, {ack_rate}/s acknowledged; {leased} leased, {renewed} renewed, \
                 {released} released, {naks} refused",
                view.words
            );
            self.append_proof(&mut line, "; ");
            line.push('\n');
            line
        };
        let mut out = io::stdout().lock();
        // A screen that is gone does not end the proof.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn picture(
        &mut self,
        seconds: &str,
        view: &View<'_>,
        ack_rate: u64,
        offer_rate: u64,
        held: usize,
    ) -> String {
        let Counts { discovers, offers, leased, renewed, released, naks, repeated, sent, heard } =
            self.counts;
        let mut lines = vec![
            String::new(),
            format!("  {seconds:<10}server process {}: {}", view.pid, view.words),
            format!("  offers    {offers:>9}  {offer_rate:>6}/s   of {discovers} asked for"),
            format!(
                "  acks      {:>9}  {ack_rate:>6}/s   {leased} leased, {renewed} renewed",
                leased + renewed
            ),
            format!("  released  {released:>9}            {naks} refused, {repeated} asked again"),
            format!("  held      {held:>9}            {sent} frames sent, {heard} heard"),
        ];
        lines.push(self.times_us.map_or_else(String::new, |(p50, p99)| {
            format!("  answered in {} ms (median), {} ms (99 of 100)", millis(p50), millis(p99))
        }));
        let mut proof = String::from("  ");
        self.append_proof(&mut proof, "   ");
        lines.push(proof);
        let mut text = String::new();
        if self.drawn_lines > 0 {
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn_lines);
        }
        self.drawn_lines = lines.len();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    fn append_proof(&self, line: &mut String, between: &str) {
        if let Some((kept, asked)) = self.proof {
            let _ = write!(line, "{between}leases confirmed after the kill: {kept} of {asked}");
        }
        if let Some(gap_ns) = self.gap_ns {
            let _ = write!(line, "{between}gap in service {} ms", gap_ns / 1_000_000);
        }
    }
}

/// Microseconds as milliseconds with two digits.
fn millis(us: u64) -> String {
    format!("{}.{:02}", us / 1000, us % 1000 / 10)
}
