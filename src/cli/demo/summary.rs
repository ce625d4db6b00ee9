//! What the demo has shown, in a few lines.

use std::fmt;

use super::Mode;
use super::population::{Counts, Proof};
use super::servers::{HEARTBEAT_DELAY_MS, MAX_RESPONSE_DELAY_MS, NAMES};

/// Wrongs of a kind that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// What was seen.
pub(super) struct Summary {
    /// How the pair shared its work.
    pub(super) mode: Mode,
    /// All that clients did.
    pub(super) counts: Counts,
    /// What became of the leases at the kill.
    pub(super) proof: Proof,
    /// Addresses held at the end.
    pub(super) held: usize,
    /// Leases in each database.
    pub(super) leases: [usize; 2],
    /// Acknowledged leases that were not confirmed.
    pub(super) lost: Vec<String>,
    /// Addresses that two clients held at once.
    pub(super) doubled: Vec<String>,
    /// Leases in which the databases differ.
    pub(super) differences: Vec<String>,
    /// Acknowledged leases that a database does not have.
    pub(super) missing: Vec<String>,
    /// From the normal state to the end.
    pub(super) served_ns: u64,
    /// From the start of the killed server to the normal state.
    pub(super) return_ns: u64,
}

impl Summary {
    /// Whether everything is as it must be.
    pub(super) fn is_good(&self) -> bool {
        let wrongs = [&self.lost, &self.doubled, &self.differences, &self.missing];
        wrongs.iter().all(|wrongs| wrongs.is_empty())
            && self.proof.asked > 0
            && self.proof.kept == self.proof.asked
            && self.proof.taken_over_ns.is_some()
    }
}

/// How long clients of the killed server went without.
pub(super) fn gap(proof: &Proof) -> String {
    let since = |at_ns: Option<u64>| {
        at_ns.map_or_else(
            || "never".to_owned(),
            |at_ns| format!("{} ms", at_ns.saturating_sub(proof.killed_ns) / 1_000_000),
        )
    };
    format!(
        "{} after the kill {} acknowledged the first lease that was {}'s, {} after it the last of {}",
        since(proof.taken_over_ns),
        NAMES[1 - proof.dead],
        NAMES[proof.dead],
        since(proof.all_kept_ns),
        proof.asked
    )
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counts, proof, .. } = self;
        let (dead, survivor) = (NAMES[proof.dead], NAMES[1 - proof.dead]);
        writeln!(out, "\n{} pair, {} s under load", self.mode.name(), self.served_ns / 1_000_000_000)?;
        writeln!(
            out,
            "  acknowledged  {} times ({} by {}, {} by {}): {} leases, {} renewals; {} released",
            counts.acks[0] + counts.acks[1],
            counts.acks[0],
            NAMES[0],
            counts.acks[1],
            NAMES[1],
            counts.leased,
            counts.renewed,
            counts.released
        )?;
        writeln!(
            out,
            "  kept          {} of {} leases that clients held when {dead} was killed ({} of them {dead}'s) were \
             confirmed by {survivor}",
            proof.kept, proof.asked, proof.from_dead
        )?;
        writeln!(out, "  gap           {}", gap(proof))?;
        writeln!(
            out,
            "                (heartbeat-delay {HEARTBEAT_DELAY_MS} ms, max-response-delay \
             {MAX_RESPONSE_DELAY_MS} ms, max-unacked-clients 0)"
        )?;
        writeln!(
            out,
            "  return        the pair was normal {} ms after the start of {dead}",
            self.return_ns / 1_000_000
        )?;
        writeln!(
            out,
            "  databases     {} leases with {}, {} with {}; {} held by clients at the end",
            self.leases[0], NAMES[0], self.leases[1], NAMES[1], self.held
        )?;
        for (wrongs, bad) in [
            (&self.lost, "acknowledged lease(s) LOST"),
            (&self.doubled, "address(es) HELD TWICE"),
            (&self.differences, "lease(s) DIFFER between the databases"),
            (&self.missing, "acknowledged lease(s) MISSING in a database"),
        ] {
            if !wrongs.is_empty() {
                writeln!(out, "{} {bad}:", wrongs.len())?;
            }
            for wrong in wrongs.iter().take(NAMED_MAX) {
                writeln!(out, "  {wrong}")?;
            }
        }
        if self.is_good() {
            writeln!(
                out,
                "no acknowledged lease was lost, no address was held twice, both databases are equal lease by lease"
            )
        } else {
            writeln!(out, "this is NOT as it must be")
        }
    }
}
