//! Finding leases: by key in stages that a batch shares, by slot.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::blob::{Arena, BlobRef};
use super::index::{Candidates, Entry, KeyHash};
use super::record::{NO_BLOB, POOL_ID_IN_BLOB, Record};
use super::slab::Slab;
use super::{LeaseTable, long_hw_bytes};
use crate::ids::{HwAddr, LeaseRef};
use crate::lease::{Lease4, Lease4Buf};
use crate::memory::prefetch;

impl LeaseTable {
    /// The hash of a hardware address; its type does not count.
    #[must_use]
    pub fn hash_hw(&self, hw_addr: &HwAddr) -> KeyHash {
        hash_key(&self.key, KEY_HW, hw_addr.as_bytes())
    }

    /// The hash of a client identifier.
    #[must_use]
    #[inline(always)]
    pub fn hash_client_id(&self, client_id: &[u8]) -> KeyHash {
        hash_key(&self.key, KEY_CLIENT_ID, client_id)
    }

    /// Starts loading the bucket of `hash`.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Starts loading the first record that `hash` leads to; the bucket should be there by now. False when there is none for certain.
    #[inline(always)]
    pub fn prefetch_record(&self, hash: KeyHash) -> bool {
        let first = self.index.candidates(hash).next();
        if let Some(entry) = first {
            self.slab.prefetch(entry.slot());
        }
        first.is_some()
    }

    /// Starts loading the long parts of a lease.
    pub fn prefetch_long_parts(&self, lease: LeaseRef) {
        if let Some(octet) = self.arena.first_octet(BlobRef(self.record(lease).blob)) {
            prefetch(octet);
        }
    }

    /// The leases with this client identifier, in any subnet, state and order. `hash` is [`Self::hash_client_id`].
    #[inline(always)]
    pub fn with_client_id<'a>(
        &'a self,
        hash: KeyHash,
        client_id: &'a [u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        Found { candidates: self.index.candidates(hash), key: ByClientId { table: self, client_id } }
    }

    /// The leases with this hardware address that belong to a client who sends `client_id` (empty for none), in any subnet,
    /// state and order: if it sends one, only leases without one (those with the same one are found by
    /// [`Self::with_client_id`]); else all. The type must be equal, unless the lease does not know it.
    /// `hash` is [`Self::hash_hw`].
    #[inline(always)]
    pub fn with_hw<'a>(
        &'a self,
        hash: KeyHash,
        hw_addr: &'a HwAddr,
        client_id: &[u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        let key = ByHw { table: self, hw_addr, any: client_id.is_empty() };
        Found { candidates: self.index.candidates(hash), key }
    }

    /// The leases with these octets as hardware address, of any type and with any client identifier: for listings.
    pub fn with_hw_octets<'a>(
        &'a self,
        hash: KeyHash,
        octets: &'a [u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        self.index
            .candidates(hash)
            .filter(move |entry| !entry.is_client_id() && self.hw_octets(&self.slab[entry.slot()]) == octets)
            .map(|entry| LeaseRef(entry.slot()))
    }

    /// The record of a lease.
    ///
    /// # Panics
    /// When there is no such lease.
    #[must_use]
    #[inline(always)]
    pub fn record(&self, lease: LeaseRef) -> &Record {
        self.slab.live_at(lease.0).expect("a lease reference names a lease")
    }

    /// The record of a lease, if the slot holds one: for references kept across turns.
    #[must_use]
    pub fn record_if_live(&self, lease: LeaseRef) -> Option<&Record> {
        self.slab.live_at(lease.0)
    }

    /// The whole lease.
    #[must_use]
    #[inline(always)]
    pub fn view(&self, lease: LeaseRef) -> Lease4<'_> {
        self.view_record(self.record(lease))
    }

    /// The whole lease, to be given away.
    #[must_use]
    pub fn owned(&self, lease: LeaseRef) -> Lease4Buf {
        self.view(lease).to_owned().with_untold(self.record(lease).is_untold())
    }

    /// Whether `lease` is the lease at `at`, its times apart: asked of every renewal, so the record answers where it can.
    #[must_use]
    #[inline(always)]
    pub fn is_but_times(&self, at: LeaseRef, lease: &Lease4<'_>) -> bool {
        let record = self.record(at);
        if record.blob != NO_BLOB {
            let old = self.view_record(record);
            return Lease4 { cltt: lease.cltt, valid_lft: lease.valid_lft, ..old } == *lease;
        }
        record.address == lease.address.to_bits()
            && record.subnet_id == lease.subnet_id.0
            && u32::from(record.pool_id) == lease.pool_id
            && record.state() == lease.state
            && record.fqdn_fwd() == lease.fqdn_fwd
            && record.fqdn_rev() == lease.fqdn_rev
            && lease.hostname.is_empty()
            && lease.user_context.is_empty()
            && record.htype == lease.hw_addr.htype
            && record.hw_inline() == Some(lease.hw_addr.as_bytes())
            && record.client_id_inline() == Some(lease.client_id)
    }

    /// The client identifier of a lease; empty for none.
    #[must_use]
    pub fn client_id(&self, lease: LeaseRef) -> &[u8] {
        self.client_id_at(lease.0)
    }

    /// The user context of a lease; empty for none.
    #[must_use]
    #[inline(always)]
    pub fn user_context(&self, lease: LeaseRef) -> &[u8] {
        let record = self.record(lease);
        self.arena.read(BlobRef(record.blob), long_hw_bytes(record)).user_context
    }

    /// Whether the lease belongs to the client of this address and identifier (empty for none): equal identifiers when both
    /// have one, else equal hardware addresses.
    #[must_use]
    pub fn belongs(&self, lease: LeaseRef, hw_addr: &HwAddr, client_id: &[u8]) -> bool {
        let record = self.record(lease);
        if record.has_client_id() && !client_id.is_empty() {
            self.client_id_at(lease.0) == client_id
        } else {
            record.hw_len > 0 && self.is_hw(record, hw_addr)
        }
    }

    /// All leases in the order of their slots, from `from` on: for walks in capped steps.
    pub fn leases_from(&self, from: LeaseRef) -> impl Iterator<Item = LeaseRef> + '_ {
        let used = u32::try_from(self.slab.used()).expect("slots fit 30 bits");
        (from.0..used).filter(|slot| self.slab.live_at(*slot).is_some()).map(LeaseRef)
    }

    #[inline(always)]
    pub(super) fn client_id_at(&self, slot: u32) -> &[u8] {
        let record = &self.slab[slot];
        record
            .client_id_inline()
            .unwrap_or_else(|| self.arena.read(BlobRef(record.blob), long_hw_bytes(record)).client_id)
    }

    pub(super) fn hw_octets<'a>(&'a self, record: &'a Record) -> &'a [u8] {
        record.hw_inline().unwrap_or_else(|| self.arena.read(BlobRef(record.blob), long_hw_bytes(record)).hw)
    }

    #[inline(always)]
    pub(super) fn is_hw(&self, record: &Record, hw_addr: &HwAddr) -> bool {
        (record.htype == hw_addr.htype || record.is_htype_unknown())
            && self.hw_octets(record) == hw_addr.as_bytes()
    }

    #[inline(always)]
    pub(super) fn view_record<'a>(&'a self, record: &'a Record) -> Lease4<'a> {
        let parts = self.arena.read(BlobRef(record.blob), long_hw_bytes(record));
        let hw_addr = match record.hw_inline() {
            Some(_) => HwAddr::of_six(record.htype, record.hw_len, record.hw),
            None => HwAddr::new(record.htype, parts.hw).expect("at most 20 octets are stored"),
        };
        Lease4 {
            address: record.address(),
            hw_addr,
            client_id: record.client_id_inline().unwrap_or(parts.client_id),
            cltt: record.cltt(),
            valid_lft: record.valid_lft,
            subnet_id: record.subnet_id(),
            pool_id: if record.pool_id == POOL_ID_IN_BLOB {
                parts.pool_id
            } else {
                u32::from(record.pool_id)
            },
            state: record.state(),
            fqdn_fwd: record.fqdn_fwd(),
            fqdn_rev: record.fqdn_rev(),
            hostname: parts.hostname,
            user_context: parts.user_context,
        }
    }
}

/// What a lease is looked for with: tells the key's own entries from strangers with the same tag.
trait Key {
    fn is_of(&self, entry: Entry) -> bool;
}

struct ByClientId<'a> {
    table: &'a LeaseTable,
    client_id: &'a [u8],
}

impl Key for ByClientId<'_> {
    #[inline(always)]
    fn is_of(&self, entry: Entry) -> bool {
        entry.is_client_id() && self.table.client_id_at(entry.slot()) == self.client_id
    }
}

struct ByHw<'a> {
    table: &'a LeaseTable,
    hw_addr: &'a HwAddr,
    /// Leases with a client identifier, too.
    any: bool,
}

impl Key for ByHw<'_> {
    #[inline(always)]
    fn is_of(&self, entry: Entry) -> bool {
        !entry.is_client_id()
            && (self.any || !entry.is_with_client_id())
            && self.table.is_hw(&self.table.slab[entry.slot()], self.hw_addr)
    }
}

/// The leases of a key. Closures in adapters of iterators would stay calls in the place of a packet's way where it is asked.
struct Found<'a, K> {
    candidates: Candidates<'a>,
    key: K,
}

impl<K: Key> Iterator for Found<'_, K> {
    type Item = LeaseRef;

    #[inline(always)]
    fn next(&mut self) -> Option<LeaseRef> {
        loop {
            let entry = self.candidates.next()?;
            if self.key.is_of(entry) {
                return Some(LeaseRef(entry.slot()));
            }
        }
    }
}

const KEY_HW: u8 = 0;
const KEY_CLIENT_ID: u8 = 1;

#[inline(always)]
fn hash_key(key: &[u8; 16], kind: u8, octets: &[u8]) -> KeyHash {
    let mut hasher = SipHasher13::new_with_key(key);
    // Most keys are one word with their kind and length. A longer one is more than a word, which the hash takes in, so
    // that the two never say the same.
    if let Some(word) = short_word(octets) {
        hasher.write_u64(word | u64::from(kind) << 59 | (octets.len() as u64) << 56);
        return KeyHash(hasher.finish());
    }
    hasher.write(octets);
    hasher.write_u8(kind);
    KeyHash(hasher.finish())
}

/// Four to seven octets as a number below 2^56; different for different octets of one length.
fn short_word(octets: &[u8]) -> Option<u64> {
    let (head, tail) = (octets.first_chunk::<4>()?, octets.last_chunk::<4>()?);
    let shift = octets.len().checked_sub(4).filter(|shift| *shift <= 3)? * 8;
    Some(u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << shift)
}

/// Computes the hash of an index entry's key again, from its record.
pub(super) fn hash_of_entry(slab: &Slab, arena: &Arena, key: &[u8; 16], entry: Entry) -> KeyHash {
    let record = &slab[entry.slot()];
    let (kind, inline) = if entry.is_client_id() {
        (KEY_CLIENT_ID, record.client_id_inline())
    } else {
        (KEY_HW, record.hw_inline())
    };
    match inline {
        Some(octets) => hash_key(key, kind, octets),
        None => {
            let parts = arena.read(BlobRef(record.blob), long_hw_bytes(record));
            hash_key(key, kind, if entry.is_client_id() { parts.client_id } else { parts.hw })
        }
    }
}
