//! Clients that a silent partner should have answered: counted by the shards that see their queries.
//!
//! A shard keeps a table of fixed size, without allocation after its construction, and publishes its counts; the control
//! thread sums them up. A client is known by a keyed 64-bit hash, so that no client can choose its place in the
//! table. A table that is full counts further queries as clients each: it errs towards taking over, and says so.
//!
//! Counts are void once contact returns. The contact epoch in [`super::view::ScopeWord`] says so: a shard that sees a new epoch
//! empties its table, and the sum leaves out counts of another epoch.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use siphasher::sip::SipHasher13;

/// Clients that one shard can tell apart, at least 1024 and as many as twice `max-unacked-clients` up to this.
pub const CLIENTS_PER_SHARD_MAX: usize = 1 << 16;
const CLIENTS_PER_SHARD_MIN: usize = 1 << 10;
const UNACKED: u64 = 1;

/// A client as failure detection and the table of refusals know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientFingerprint(pub u64);

impl ClientFingerprint {
    /// A DHCPv4 client: hardware address and client identifier (empty when there is none). The same address with another
    /// identifier, or with none, is another client. `key` is one secret of the whole server.
    #[must_use]
    pub fn v4(key: (u64, u64), hw_addr: &[u8], client_id: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
        hasher.write_u8(u8::try_from(hw_addr.len()).unwrap_or(u8::MAX));
        hasher.write(hw_addr);
        hasher.write(client_id);
        Self(hasher.finish())
    }

    /// A DHCPv6 client: its DUID.
    #[must_use]
    pub fn v6(key: (u64, u64), duid: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
        hasher.write(duid);
        Self(hasher.finish())
    }
}

/// How long a DHCPv4 client has been trying, from its `secs`. Some clients send the two octets swapped.
#[must_use]
pub const fn age4_ms(secs: u16) -> u64 {
    let secs = if secs > 255 && secs & 0xff == 0 { secs >> 8 } else { secs };
    secs as u64 * 1000
}

/// How long a DHCPv6 client has been trying, from its Elapsed Time option in hundredths of a second.
#[must_use]
pub const fn age6_ms(elapsed: u16) -> u64 {
    elapsed as u64 * 10
}

/// What the clients of a silent partner look like, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Queries looked at.
    pub analyzed_packets: u64,
    /// Clients seen.
    pub connecting_clients: u64,
    /// Those that have tried for longer than `max-ack-delay`.
    pub unacked_clients: u64,
    /// Queries of clients that no table had room for.
    pub untold_packets: u64,
}

/// The counts of one shard for one relationship, where the control thread can read them.
#[derive(Debug, Default)]
pub struct UnackedCounts {
    /// Analysed packets in the upper 48 bits, contact epoch in the lower 16.
    analyzed: CachePadded<AtomicU64>,
    clients: AtomicU64,
    untold: AtomicU64,
}

impl UnackedCounts {
    /// Sums up the shards' counts of contact epoch `epoch`.
    pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Self>, epoch: u16) -> Traffic {
        let mut sum = Traffic::default();
        for shard in shards {
            let analyzed = shard.analyzed.load(Ordering::Acquire);
            if analyzed & 0xffff != u64::from(epoch) {
                continue;
            }
            let clients = shard.clients.load(Ordering::Relaxed);
            sum.analyzed_packets += analyzed >> 16;
            sum.connecting_clients += clients >> 32;
            sum.unacked_clients += clients & 0xffff_ffff;
            sum.untold_packets += shard.untold.load(Ordering::Relaxed);
        }
        sum
    }
}

/// The table of one shard for one relationship.
#[derive(Debug)]
pub struct UnackedClients {
    /// 0 is free; the lowest bit says unacked, the others are of the client's fingerprint.
    slots: Box<[u64]>,
    used: usize,
    max_ack_delay_ms: u64,
    epoch: u16,
    analyzed: u64,
    connecting: u32,
    unacked: u32,
    untold: u64,
    counts: Arc<UnackedCounts>,
}

impl UnackedClients {
    /// An empty table. All its memory is taken here.
    #[must_use]
    pub fn new(max_unacked_clients: u32, max_ack_delay_ms: u64) -> Self {
        let wanted = usize::try_from(max_unacked_clients).unwrap_or(usize::MAX).saturating_mul(2);
        let clients = wanted.clamp(CLIENTS_PER_SHARD_MIN, CLIENTS_PER_SHARD_MAX).next_power_of_two();
        Self {
            // Half of the slots stay free, so that a search is short.
            slots: vec![0; clients * 2].into_boxed_slice(),
            used: 0,
            max_ack_delay_ms,
            epoch: 0,
            analyzed: 0,
            connecting: 0,
            unacked: 0,
            untold: 0,
            counts: Arc::new(UnackedCounts::default()),
        }
    }

    /// The counts, for the control thread.
    #[must_use]
    pub fn counts(&self) -> Arc<UnackedCounts> {
        Arc::clone(&self.counts)
    }

    /// Looks at one query that is to be analysed ([`super::view::Decision::analyse`]). `client` is none for a DHCPv6 query without
    /// DUID: counted only. `age_ms` is how long the client has been trying; none when it does not say (DHCPv6): not unacked.
    pub fn analyse(&mut self, epoch: u16, client: Option<ClientFingerprint>, age_ms: Option<u64>) {
        if epoch != self.epoch {
            self.clear(epoch);
        }
        self.analyzed += 1;
        if let Some(client) = client {
            let unacked = age_ms.is_some_and(|age| age > self.max_ack_delay_ms);
            self.note(client, unacked);
        }
        self.publish();
    }

    fn note(&mut self, client: ClientFingerprint, unacked: bool) {
        // Never 0, lowest bit free for the mark.
        let tag = (client.0 | 2) & !UNACKED;
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(client.0 >> 32).unwrap_or(0) & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            if slot & !UNACKED == tag {
                // An unacked client stays one until contact returns.
                if unacked && slot & UNACKED == 0 {
                    self.slots[at] = tag | UNACKED;
                    self.unacked += 1;
                }
                return;
            }
            at = (at + 1) & mask;
        }
        self.connecting = self.connecting.saturating_add(1);
        self.unacked = self.unacked.saturating_add(u32::from(unacked));
        if self.used * 2 >= self.slots.len() {
            self.untold += 1;
            return;
        }
        self.used += 1;
        self.slots[at] = tag | u64::from(unacked);
    }

    fn clear(&mut self, epoch: u16) {
        if self.used > 0 {
            self.slots.fill(0);
        }
        self.used = 0;
        self.analyzed = 0;
        self.connecting = 0;
        self.unacked = 0;
        self.untold = 0;
        self.epoch = epoch;
    }

    fn publish(&self) {
        // The clients first: whoever sees the new epoch sees counts of it, or newer ones.
        self.counts
            .clients
            .store((u64::from(self.connecting) << 32) | u64::from(self.unacked), Ordering::Relaxed);
        self.counts.untold.store(self.untold, Ordering::Relaxed);
        self.counts.analyzed.store((self.analyzed << 16) | u64::from(self.epoch), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u64) -> Option<ClientFingerprint> {
        Some(ClientFingerprint::v4((1, 2), &number.to_be_bytes(), &[]))
    }

    fn sum(table: &UnackedClients, epoch: u16) -> Traffic {
        UnackedCounts::sum([&*table.counts()], epoch)
    }

    #[test]
    fn age_must_exceed_the_delay_and_stays() {
        let mut table = UnackedClients::new(10, 5000);
        table.analyse(0, client(1), Some(5000));
        assert_eq!((sum(&table, 0).connecting_clients, sum(&table, 0).unacked_clients), (1, 0));
        table.analyse(0, client(1), Some(6000));
        table.analyse(0, client(1), Some(0));
        table.analyse(0, client(2), None);
        table.analyse(0, None, Some(9000));
        let seen = sum(&table, 0);
        assert_eq!((seen.connecting_clients, seen.unacked_clients, seen.analyzed_packets), (2, 1, 5));
    }

    #[test]
    fn identifier_makes_another_client() {
        let with = |id: &[u8]| Some(ClientFingerprint::v4((1, 2), &[1, 2, 3, 4, 5, 6], id));
        let mut table = UnackedClients::new(10, 5000);
        for id in [&[][..], &[1], &[2], &[1]] {
            table.analyse(0, with(id), Some(6000));
        }
        assert_eq!(sum(&table, 0).unacked_clients, 3);
    }

    #[test]
    fn swapped_seconds_are_repaired() {
        assert_eq!(age4_ms(0x0500), 5000);
        assert_eq!(age4_ms(0x0501), 1_281_000);
        assert_eq!(age4_ms(0x00ff), 255_000);
        assert_eq!(age6_ms(100), 1000);
    }

    #[test]
    fn contact_voids_the_counts() {
        let mut table = UnackedClients::new(10, 5000);
        table.analyse(7, client(1), Some(6000));
        assert_eq!(sum(&table, 8), Traffic::default());
        table.analyse(8, client(2), Some(0));
        assert_eq!(
            sum(&table, 8),
            Traffic { analyzed_packets: 1, connecting_clients: 1, unacked_clients: 0, untold_packets: 0 }
        );
    }

    #[test]
    fn full_table_still_counts() {
        let mut table = UnackedClients::new(0, 5000);
        for number in 0..5000 {
            table.analyse(0, client(number), Some(6000));
        }
        let seen = sum(&table, 0);
        assert_eq!((seen.connecting_clients, seen.unacked_clients), (5000, 5000));
        assert_eq!(seen.untold_packets, 5000 - 1024);
    }

    #[test]
    fn counts_agree_with_a_plain_map() {
        let mut table = UnackedClients::new(100, 5000);
        let mut model = std::collections::HashMap::new();
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (number, unacked) = ((seed >> 33) % 900, seed >> 62 == 0);
            *model.entry(number).or_insert(false) |= unacked;
            table.analyse(3, client(number), Some(if unacked { 6000 } else { 0 }));
        }
        let seen = sum(&table, 3);
        assert_eq!(seen.connecting_clients, model.len() as u64);
        assert_eq!(seen.unacked_clients, model.values().filter(|&&unacked| unacked).count() as u64);
    }
}
