//! Storing, changing and removing leases.

use super::blob::{BlobRef, Parts};
use super::ends::must_relink;
use super::index::{Entry, IndexError};
use super::record::{Flag, POOL_ID_IN_BLOB, Record};
use super::{LeaseTable, MOVE_BUCKETS_PER_CHANGE, Origin, TableError, long_hw_bytes};
use crate::ids::{CLIENT_ID_BYTES_MAX, HW_ADDR_BYTES_MAX, HwAddr, LeaseRef, Lsn};
use crate::lease::{Lease4, LeaseState};

const HW_ETHERNET_BYTES: usize = 6;

impl LeaseTable {
    /// Stores a new lease. Its address is not looked at: two leases of one address are the caller's affair.
    ///
    /// # Errors
    /// [`TableError`]: nothing is stored.
    pub fn insert(&mut self, lease: &Lease4<'_>, origin: Origin) -> Result<LeaseRef, TableError> {
        self.migrate(MOVE_BUCKETS_PER_CHANGE);
        let stored = self.try_insert(lease, origin);
        self.refused_count += u64::from(stored.is_err());
        stored
    }

    fn try_insert(&mut self, lease: &Lease4<'_>, origin: Origin) -> Result<LeaseRef, TableError> {
        let slot = self.slab.vacancy().ok_or(TableError::RecordsFull)?;
        let (mut record, parts) = pack(lease, origin)?;
        if !parts.is_empty() {
            record.blob = self.arena.store(&parts).ok_or(TableError::BlobsFull)?.0;
        }
        if let Err(error) = self.index_record(slot, &mut record, lease) {
            self.arena.free(BlobRef(record.blob));
            return Err(error);
        }
        self.slab.fill(slot, record);
        self.link(slot);
        Ok(LeaseRef(slot))
    }

    /// Replaces everything of a lease but its `pending_lsn` and marks; its keys, its end and its address may all change.
    ///
    /// # Errors
    /// [`TableError`]: nothing has changed.
    pub fn update(&mut self, lease: LeaseRef, new: &Lease4<'_>, origin: Origin) -> Result<(), TableError> {
        let updated = self.try_update(lease, new, origin);
        self.refused_count += u64::from(updated.is_err());
        updated
    }

    fn try_update(&mut self, lease: LeaseRef, new: &Lease4<'_>, origin: Origin) -> Result<(), TableError> {
        let slot = lease.0;
        let old = *self.record(lease);
        let (mut record, parts) = pack(new, origin)?;
        let view = self.view_record(&old);
        let same_keys = view.client_id == new.client_id && view.hw_addr.as_bytes() == new.hw_addr.as_bytes();
        let same_long = self.arena.read(BlobRef(old.blob), long_hw_bytes(&old)) == parts;
        record.set_pending_lsn(old.pending_lsn());
        for mark in [Flag::Uncacheable, Flag::Unpromised, Flag::Loose] {
            record.set(mark, old.has(mark));
        }
        (record.next, record.prev, record.blob) = (old.next, old.prev, old.blob);
        if same_keys {
            for mark in [Flag::HwUnindexed, Flag::ClientIdUnindexed] {
                record.set(mark, old.has(mark));
            }
            if !same_long {
                let blob = self.arena.replace(BlobRef(old.blob), &parts).ok_or(TableError::BlobsFull)?;
                record.blob = blob.0;
            }
        } else {
            self.migrate(MOVE_BUCKETS_PER_CHANGE);
            // The new keys and parts go in first: if they do not, the old ones are still there.
            record.blob =
                if parts.is_empty() { 0 } else { self.arena.store(&parts).ok_or(TableError::BlobsFull)?.0 };
            if let Err(error) = self.index_record(slot, &mut record, new) {
                self.arena.free(BlobRef(record.blob));
                return Err(error);
            }
            self.unindex_record(slot, &old);
            self.arena.free(BlobRef(old.blob));
        }
        self.slab[slot] = record;
        self.relink(slot, &old);
        Ok(())
    }

    /// Renews a lease whose keys and long parts stay: touches its record only.
    #[inline(always)]
    pub fn renew(&mut self, lease: LeaseRef, cltt: u64, valid_lft: u32) {
        let record = self.live_mut(lease);
        let old = *record;
        // Past 2106 a lease lives on with the last time that there is.
        record.cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        record.valid_lft = valid_lft;
        if must_relink(&old, record) {
            self.relink(lease.0, &old);
        }
    }

    /// Makes a lease reclaimed: its client and times stay (affinity), host name, flags and context go.
    pub fn reclaim(&mut self, lease: LeaseRef) {
        let old = *self.record(lease);
        let blob = self.forget_long_parts(&old, true);
        let record = self.live_mut(lease);
        record.blob = blob.0;
        record.set(Flag::FqdnFwd, false);
        record.set(Flag::FqdnRev, false);
        record.set_state(LeaseState::Reclaimed);
        self.relink(lease.0, &old);
    }

    /// Makes a lease released, kept for affinity: over at once. This too is something that the client has done: of two
    /// copies of the lease the one that knows of it is the newer one, by which a returning half of a pair learns of it.
    pub fn release(&mut self, lease: LeaseRef, cltt: u64) {
        let record = self.live_mut(lease);
        let old = *record;
        record.set_state(LeaseState::Released);
        record.cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        record.valid_lft = 0;
        self.relink(lease.0, &old);
    }

    /// Puts a lease in probation: no client any more, no host name, flags, context.
    pub fn decline(&mut self, lease: LeaseRef, cltt: u64, probation_s: u32) {
        let old = *self.record(lease);
        self.unindex_record(lease.0, &old);
        let blob = self.forget_long_parts(&old, false);
        let nobody = HwAddr::new(old.htype, &[]).expect("no octets fit");
        let record = self.live_mut(lease);
        record.set_hw(&nobody);
        record.set_client_id(&[]);
        record.blob = blob.0;
        for mark in [Flag::FqdnFwd, Flag::FqdnRev, Flag::HwUnindexed, Flag::ClientIdUnindexed] {
            record.set(mark, false);
        }
        record.set_state(LeaseState::Declined);
        record.cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        record.valid_lft = probation_s;
        self.relink(lease.0, &old);
    }

    /// Removes a lease.
    pub fn remove(&mut self, lease: LeaseRef) {
        self.migrate(MOVE_BUCKETS_PER_CHANGE);
        let old = *self.record(lease);
        self.unindex_record(lease.0, &old);
        self.arena.free(BlobRef(old.blob));
        self.wheel.unlink(&mut self.slab, lease.0);
        self.slab.vacate(lease.0);
    }

    /// The lease's last row is at `lsn`; the peers' verdict on it is open.
    #[inline(always)]
    pub fn set_pending(&mut self, lease: LeaseRef, lsn: Lsn) {
        let record = self.live_mut(lease);
        record.set_pending_lsn(lsn);
        record.set(Flag::Uncacheable, false);
    }

    /// An awaited peer refused the last update: the next REQUEST writes and sends again.
    pub fn mark_uncacheable(&mut self, lease: LeaseRef) {
        self.live_mut(lease).set(Flag::Uncacheable, true);
    }

    /// Whether no reply has left for the lease since its client got it.
    pub fn set_unpromised(&mut self, lease: LeaseRef, unpromised: bool) {
        self.live_mut(lease).set(Flag::Unpromised, unpromised);
    }

    /// Whether the address may be taken by others from now on ([`Record::is_loose`]).
    pub fn set_loose(&mut self, lease: LeaseRef, loose: bool) {
        self.live_mut(lease).set(Flag::Loose, loose);
    }

    #[inline(always)]
    fn live_mut(&mut self, lease: LeaseRef) -> &mut Record {
        self.slab.live_at_mut(lease.0).expect("a lease reference names a lease")
    }

    /// Drops host name and context of `old`'s long parts, and what names the client unless `keep_client`; never fails.
    fn forget_long_parts(&mut self, old: &Record, keep_client: bool) -> BlobRef {
        let blob = BlobRef(old.blob);
        let Parts { pool_id, hw, client_id, .. } = self.arena.read(blob, long_hw_bytes(old));
        if !keep_client {
            return self.arena.shrink(blob, &Parts { pool_id, ..Parts::default() });
        }
        let (mut hw_copy, mut client_id_copy) = ([0; HW_ADDR_BYTES_MAX], [0; CLIENT_ID_BYTES_MAX]);
        let (hw_copy, client_id_copy) = (&mut hw_copy[..hw.len()], &mut client_id_copy[..client_id.len()]);
        hw_copy.copy_from_slice(hw);
        client_id_copy.copy_from_slice(client_id);
        self.arena
            .shrink(blob, &Parts { pool_id, hw: hw_copy, client_id: client_id_copy, ..Parts::default() })
    }

    /// Puts both keys into the index; on failure none.
    fn index_record(&mut self, slot: u32, record: &mut Record, lease: &Lease4<'_>) -> Result<(), TableError> {
        let hw = (!lease.hw_addr.is_empty())
            .then(|| (self.hash_hw(&lease.hw_addr), Entry::hw(slot, !lease.client_id.is_empty())));
        let client_id = (!lease.client_id.is_empty())
            .then(|| (self.hash_client_id(lease.client_id), Entry::client_id(slot)));
        if let Some((hash, entry)) = hw {
            match self.index.insert(hash, entry) {
                Ok(()) => {}
                Err(IndexError::Chain) => record.set(Flag::HwUnindexed, true),
                Err(IndexError::Full) => return Err(TableError::IndexFull),
            }
        }
        if let Some((hash, entry)) = client_id {
            match self.index.insert(hash, entry) {
                Ok(()) => {}
                Err(IndexError::Chain) => record.set(Flag::ClientIdUnindexed, true),
                Err(IndexError::Full) => {
                    if let Some((hash, entry)) = hw
                        && !record.has(Flag::HwUnindexed)
                    {
                        self.index.remove(hash, entry);
                    }
                    return Err(TableError::IndexFull);
                }
            }
        }
        let unindexed = record.has(Flag::HwUnindexed) || record.has(Flag::ClientIdUnindexed);
        self.unindexed_count += u64::from(unindexed);
        Ok(())
    }

    /// Takes both keys of `record` out of the index.
    fn unindex_record(&mut self, slot: u32, record: &Record) {
        let view = self.view_record(record);
        let hw = (!view.hw_addr.is_empty() && !record.has(Flag::HwUnindexed))
            .then(|| (self.hash_hw(&view.hw_addr), Entry::hw(slot, record.has_client_id())));
        let client_id = (record.has_client_id() && !record.has(Flag::ClientIdUnindexed))
            .then(|| (self.hash_client_id(view.client_id), Entry::client_id(slot)));
        for (hash, entry) in hw.into_iter().chain(client_id) {
            self.index.remove(hash, entry);
        }
    }
}

/// A lease as record and long parts, without its place in lists and index.
fn pack<'a>(lease: &'a Lease4<'a>, origin: Origin) -> Result<(Record, Parts<'a>), TableError> {
    if lease.client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(TableError::ClientIdTooLong);
    }
    let mut record = Record {
        address: lease.address.to_bits(),
        subnet_id: lease.subnet_id.0,
        cltt: u32::try_from(lease.cltt).map_err(|_| TableError::CltTooLate)?,
        valid_lft: lease.valid_lft,
        ..Record::VACANT
    };
    let mut parts = Parts { hostname: lease.hostname, user_context: lease.user_context, ..Parts::default() };
    if !record.set_hw(&lease.hw_addr) {
        parts.hw = lease.hw_addr.as_bytes();
    }
    if !record.set_client_id(lease.client_id) {
        parts.client_id = lease.client_id;
    }
    record.pool_id = match u8::try_from(lease.pool_id) {
        Ok(pool_id) if pool_id != POOL_ID_IN_BLOB => pool_id,
        _ => {
            parts.pool_id = lease.pool_id;
            POOL_ID_IN_BLOB
        }
    };
    if !parts.fit() {
        return Err(TableError::PartsTooLong);
    }
    record.set_state(lease.state);
    record.set(Flag::Live, true);
    record.set(Flag::FqdnFwd, lease.fqdn_fwd);
    record.set(Flag::FqdnRev, lease.fqdn_rev);
    let is_ethernet_length = lease.hw_addr.as_bytes().len() == HW_ETHERNET_BYTES;
    record
        .set(Flag::HtypeUnknown, origin == Origin::Record && lease.hw_addr.htype == 1 && !is_ethernet_length);
    Ok((record, parts))
}
