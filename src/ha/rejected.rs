//! Clients whose lease updates the partner refused: enough of them end the pair, for the two servers disagree.

use std::collections::BTreeMap;

use super::unacked::ClientFingerprint;
use crate::time::{Mono, Now};

/// How long a refusal counts.
pub const REJECTED_MS: u64 = 86_400_000;
/// Most clients remembered, whatever limit is configured.
pub const REJECTED_CLIENTS_MAX: usize = 1 << 20;

/// The clients, each until its refusal stops counting.
#[derive(Clone, Debug)]
pub struct RejectedClients {
    until: BTreeMap<ClientFingerprint, Mono>,
    limit: usize,
}

impl RejectedClients {
    /// An empty table; `limit` clients are too many, 0 is no limit (then nothing is remembered).
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(REJECTED_CLIENTS_MAX);
        Self { until: BTreeMap::new(), limit }
    }

    /// A refusal for `client`. Again for the same client counts once, and longer.
    pub fn add(&mut self, now: Now, client: ClientFingerprint) {
        self.purge(now);
        if self.limit == 0 || (self.until.len() >= self.limit && !self.until.contains_key(&client)) {
            return;
        }
        self.until.insert(client, now.mono.plus_ms(REJECTED_MS));
    }

    /// An update for `client` was taken.
    pub fn remove(&mut self, client: ClientFingerprint) {
        self.until.remove(&client);
    }

    /// How many clients count now.
    pub fn count(&mut self, now: Now) -> usize {
        self.purge(now);
        self.until.len()
    }

    /// Whether nobody is remembered: then successes need not be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// Whether the limit is reached.
    pub fn reached(&mut self, now: Now) -> bool {
        self.limit > 0 && self.count(now) >= self.limit
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.until.clear();
    }

    fn purge(&mut self, now: Now) {
        self.until.retain(|_, until| *until > now.mono);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_count_once_and_for_a_day() {
        let start = Now::default();
        let mut rejected = RejectedClients::new(2);
        rejected.add(start, ClientFingerprint(1));
        rejected.add(start.plus_ms(1000), ClientFingerprint(1));
        assert!(!rejected.reached(start.plus_ms(1000)));
        rejected.add(start.plus_ms(1000), ClientFingerprint(2));
        assert!(rejected.reached(start.plus_ms(1000)));
        rejected.remove(ClientFingerprint(2));
        assert!(!rejected.reached(start.plus_ms(1000)));
        rejected.add(start.plus_ms(2000), ClientFingerprint(3));
        // All of them are over at once: none may still count.
        assert_eq!(rejected.count(start.plus_ms(2000 + REJECTED_MS)), 0);
    }

    #[test]
    fn without_a_limit_nobody_is_remembered() {
        let mut rejected = RejectedClients::new(0);
        rejected.add(Now::default(), ClientFingerprint(1));
        assert!(rejected.is_empty() && !rejected.reached(Now::default()));
    }
}
