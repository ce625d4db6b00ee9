//! Who holds an address: one atomic word per address, shared by all shards, independent of the configuration.
//!
//! ```text
//! area /8 (256) -> region /16 (256) -> block /24: 256 words, `taken` and `reserved` bits
//!   each level keeps an `open` bit per child: "something below may be available"
//!
//! word: generation 22 bits | state 2 bits | shard 8 bits | lease 32 bits          0 = free, never used
//!
//!            claim                       lend (its last row is durable)
//!   Free ------------> InUse(shard, ref) ------------------------------> Stealable(shard, ref)
//!    ^                   |    ^   ^------------- reactivate (owner) -----------|    |
//!    |      begin_retire |    |                                                     | claim by any shard
//!    |                   v    '----- InUse(other shard, other ref) <----------------'
//!    '---- settle --- Retiring(shard)
//!          (the row of the deletion is durable)
//! ```
//!
//! An address is claimed by one compare-and-swap of its word. Shards log independently, so the rows of one address stay in
//! order on disk only if another shard writes after the last row of the owner before is durable: a word becomes
//! `Stealable` or `Free` no earlier ([`Retiring`] waits for that). The owner before notices lazily: its record is marked
//! loose, and a loose lease is used again only after [`AddressSpace::reactivate`]. A lease in plain use is never loose, so
//! a renewal touches no word.
//!
//! Bits follow words: they are hints for the search, brought in line by whoever changed the word, and right once nobody
//! is changing it. A search may therefore return an address that [`AddressSpace::claim`] then refuses.
//!
//! Promises: no lock and no allocation in anything that a shard calls; blocks are made by the control thread
//! ([`AddressSpace::ensure`]) and never go away. No panic on any address. Bound: the number of blocks, given at the start.

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::ids::{LeaseRef, ShardId};

mod retiring;
pub use retiring::{Retiring, RetiringFull};

/// Bytes of a block of 256 addresses, with its bits.
pub const BLOCK_BYTES: usize = size_of::<Block>();

/// Who holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The address has no block: it is in no pool, no reservation, no lease.
    Unknown,
    /// Nobody.
    Free,
    /// A lease of this shard.
    InUse {
        /// Whose table holds the lease.
        shard: ShardId,
        /// The lease in it.
        lease: LeaseRef,
    },
    /// A lease of this shard that is over (expired, reclaimed, released), its last row durable: whoever comes first may
    /// claim the address.
    Stealable {
        /// Whose table holds the old lease.
        shard: ShardId,
        /// The old lease in it.
        lease: LeaseRef,
    },
    /// Deleted by this shard, the row of the deletion not yet durable: free for this shard, not yet for others.
    Retiring {
        /// Who deleted it.
        shard: ShardId,
    },
}

/// What a successful claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody had a lease on it.
    Fresh,
    /// An old lease was there, which is void now. Its shard finds out by itself; when it is the claiming shard's own, that
    /// shard removes the record.
    Stolen {
        /// Whose table holds the old lease.
        shard: ShardId,
        /// The old lease in it.
        lease: LeaseRef,
    },
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The address has no block; the control thread must [`AddressSpace::ensure`] one first.
    Unknown,
    /// Somebody has it, [`Owner::InUse`] or [`Owner::Retiring`].
    Taken(Owner),
}

/// The bound on blocks is reached: so many addresses of different /24 networks are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBlocks {
    /// The bound.
    pub block_count_max: u32,
}

impl std::fmt::Display for TooManyBlocks {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "addresses of more than {} /24 networks: no room for another", self.block_count_max)
    }
}

impl std::error::Error for TooManyBlocks {}

/// A proof of what a word said when its lease was given up; changes nothing if the word has changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    address: Ipv4Addr,
    word: u64,
}

impl Ticket {
    /// The address it is about.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }
}

/// One step of a walk over held addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The next address that is not free.
    Held(Ipv4Addr, Owner),
    /// So far nothing; go on from here.
    More(Ipv4Addr),
    /// Nothing more in the range.
    End,
}

/// All addresses that anybody may hold. See the module for what its words mean.
pub struct AddressSpace {
    areas: Box<[OnceLock<Box<Area>>; 256]>,
    block_count: AtomicU32,
    block_count_max: u32,
}

struct Area {
    open: Bits,
    regions: [OnceLock<Box<Region>>; 256],
}

struct Region {
    open: Bits,
    blocks: [OnceLock<Box<Block>>; 256],
}

#[repr(align(64))]
struct Block {
    taken: Bits,
    reserved: Bits,
    words: [AtomicU64; 256],
}

impl AddressSpace {
    /// An empty space of at most `block_count_max` blocks of 256 addresses ([`BLOCK_BYTES`] each).
    #[must_use]
    pub fn new(block_count_max: u32) -> Self {
        Self {
            areas: Box::new([const { OnceLock::new() }; 256]),
            block_count: AtomicU32::new(0),
            block_count_max,
        }
    }

    /// Makes the blocks of all addresses from `first` to `last`, both included. Allocates: control thread only.
    ///
    /// # Errors
    /// [`TooManyBlocks`] when the bound is reached; the blocks made so far stay.
    pub fn ensure(&self, first: Ipv4Addr, last: Ipv4Addr) -> Result<(), TooManyBlocks> {
        let mut room = u32::MAX;
        self.ensure_some(first, last, &mut room).map(|_| ())
    }

    /// The same, but no more than `room` new blocks, from which it takes off those that it made. Where to go on from when there was no
    /// room for all.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn ensure_some(
        &self,
        first: Ipv4Addr,
        last: Ipv4Addr,
        room: &mut u32,
    ) -> Result<Option<Ipv4Addr>, TooManyBlocks> {
        for network in first.to_bits() >> 8..=last.to_bits() >> 8 {
            let [_, a, r, b] = network.to_be_bytes();
            let area = self.areas[usize::from(a)].get_or_init(Box::default);
            let region = area.regions[usize::from(r)].get_or_init(Box::default);
            let slot = &region.blocks[usize::from(b)];
            if slot.get().is_some() {
                continue;
            }
            if self.block_count.load(SeqCst) >= self.block_count_max {
                return Err(TooManyBlocks { block_count_max: self.block_count_max });
            }
            let Some(left) = room.checked_sub(1) else { return Ok(Some(Ipv4Addr::from_bits(network << 8))) };
            *room = left;
            slot.get_or_init(|| {
                self.block_count.fetch_add(1, SeqCst);
                Box::default()
            });
            self.follow_block(network << 8);
        }
        Ok(None)
    }

    /// How many blocks are to be made for all addresses of these ranges, both ends included, beside those that there are.
    ///
    /// # Errors
    /// [`TooManyBlocks`] when they would pass the bound.
    pub fn check_room(&self, ranges: &[(Ipv4Addr, Ipv4Addr)]) -> Result<u32, TooManyBlocks> {
        let network_of = |address: &Ipv4Addr| address.to_bits() >> 8;
        let mut networks: Vec<(u32, u32)> =
            ranges.iter().map(|(first, last)| (network_of(first), network_of(last))).collect();
        networks.sort_unstable();
        let room = self.block_count_max.saturating_sub(self.block_count());
        let (mut missing, mut next) = (0, 0);
        for (first, last) in networks {
            for network in first.max(next)..=last {
                if self.block(Ipv4Addr::from_bits(network << 8)).is_none() {
                    missing += 1;
                    if missing > room {
                        return Err(TooManyBlocks { block_count_max: self.block_count_max });
                    }
                }
            }
            next = next.max(last + 1);
        }
        Ok(missing)
    }

    /// Number of blocks made.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.block_count.load(SeqCst)
    }

    /// Who holds `address`.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Owner {
        match self.word(address) {
            Some(word) => owner_of(word.load(SeqCst)),
            None => Owner::Unknown,
        }
    }

    /// Whether `address` still belongs to this lease, [`Owner::InUse`] or [`Owner::Stealable`].
    #[must_use]
    pub fn refers_to(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> bool {
        let owner = self.owner(address);
        owner == Owner::InUse { shard, lease } || owner == Owner::Stealable { shard, lease }
    }

    /// Claims `address` for `lease` of `shard`: succeeds when it is free, stealable, or retiring from the same shard.
    ///
    /// # Errors
    /// [`ClaimError`]: nothing has changed.
    pub fn claim(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> Result<Claimed, ClaimError> {
        let word = self.word(address).ok_or(ClaimError::Unknown)?;
        let mut seen = word.load(SeqCst);
        loop {
            let claimed = match owner_of(seen) {
                Owner::Free => Claimed::Fresh,
                Owner::Stealable { shard, lease } => Claimed::Stolen { shard, lease },
                Owner::Retiring { shard: by } if by == shard => Claimed::Fresh,
                owner => return Err(ClaimError::Taken(owner)),
            };
            match word.compare_exchange(seen, pack(seen, IN_USE, shard, lease), SeqCst, SeqCst) {
                Ok(_) => {
                    self.follow_word(address);
                    return Ok(claimed);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back the owner's own lease, whether it was lent or still is in use, and voids every [`Ticket`] for it.
    /// False when the address belongs to another lease by now: then the record is void and must be removed.
    #[must_use]
    pub fn reactivate(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> bool {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease } || owner == Owner::Stealable { shard, lease })
                .then_some((IN_USE, shard, lease))
        })
        .is_some()
    }

    /// Notes that the lease may be lent once its last row is durable; see [`Retiring::wait`].
    /// Nothing when the address does not belong to the lease.
    #[must_use]
    pub fn begin_lend(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> Option<Ticket> {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease }).then_some((IN_USE, shard, lease))
        })
    }

    /// Lends the address of a lease that is over and whose last row is durable: any shard may claim it from now on. The
    /// owner marks its record loose *before*. False when the address does not belong to the lease.
    #[must_use]
    pub fn lend(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> bool {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease }).then_some((STEALABLE, shard, lease))
        })
        .is_some()
    }

    /// Gives up a deleted lease: the address stays closed to other shards until the ticket is settled.
    /// Nothing when the address does not belong to the lease.
    #[must_use]
    pub fn begin_retire(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> Option<Ticket> {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease } || owner == Owner::Stealable { shard, lease })
                .then_some((RETIRING, shard, LeaseRef(0)))
        })
    }

    /// Frees the address of a lease at once: for a claim that is taken back before any row was written, and for a
    /// deletion whose row is durable. False when the address does not belong to the lease.
    #[must_use]
    pub fn release(&self, address: Ipv4Addr, shard: ShardId, lease: LeaseRef) -> bool {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease } || owner == Owner::Stealable { shard, lease })
                .then_some((FREE, ShardId(0), LeaseRef(0)))
        })
        .is_some()
    }

    /// Moves a lease to another slot of the same shard, without a moment in which the address is free.
    #[must_use]
    pub fn move_lease(&self, address: Ipv4Addr, shard: ShardId, from: LeaseRef, to: LeaseRef) -> bool {
        self.change(address, |owner| {
            (owner == Owner::InUse { shard, lease: from }).then_some((IN_USE, shard, to))
        })
        .is_some()
    }

    /// Does what the ticket waited for: a retired address becomes free, a lent one stealable. False when the word has
    /// changed since the ticket was given, so that the ticket is void.
    pub(crate) fn settle(&self, ticket: Ticket) -> bool {
        let next = match owner_of(ticket.word) {
            Owner::Retiring { .. } => pack(ticket.word, FREE, ShardId(0), LeaseRef(0)),
            Owner::InUse { shard, lease } => pack(ticket.word, STEALABLE, shard, lease),
            Owner::Unknown | Owner::Free | Owner::Stealable { .. } => return false,
        };
        let Some(word) = self.word(ticket.address) else { return false };
        let done = word.compare_exchange(ticket.word, next, SeqCst, SeqCst).is_ok();
        if done {
            self.follow_word(ticket.address);
        }
        done
    }

    /// Marks `address` as reserved (the search passes over it) or not. Claims do not look at this mark. For reserved
    /// addresses, and for .0 and .255 under `exclude-first-last-24`. Addresses without a block are ignored.
    pub fn set_reserved(&self, address: Ipv4Addr, reserved: bool) {
        if let Some(block) = self.block(address) {
            block.reserved.set(low_octet(address.to_bits()), reserved);
            self.follow_block(address.to_bits());
        }
    }

    /// Whether the search passes over `address`.
    #[must_use]
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.block(address).is_some_and(|block| block.reserved.has(low_octet(address.to_bits())))
    }

    /// Takes the reserved mark from every address of the range: before a new configuration sets its own.
    pub fn clear_reserved(&self, first: Ipv4Addr, last: Ipv4Addr) {
        let (first, last) = (first.to_bits(), last.to_bits());
        for network in first >> 8..=last >> 8 {
            let Some(block) = self.block(Ipv4Addr::from_bits(network << 8)) else { continue };
            let low = if network == first >> 8 { low_octet(first) } else { 0 };
            let high = if network == last >> 8 { low_octet(last) } else { 255 };
            for octet in low..=high {
                block.reserved.set(octet, false);
            }
            self.follow_block(network << 8);
        }
    }

    /// Whether the search would return `address`: a block, neither taken nor reserved.
    #[must_use]
    pub fn is_available(&self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        self.block(address)
            .is_some_and(|block| !block.taken.has(low_octet(bits)) && !block.reserved.has(low_octet(bits)))
    }

    /// The lowest available address from `first` to `last`, both included. A few cache lines whatever the range and however
    /// full it is.
    #[must_use]
    pub fn next_available(&self, first: Ipv4Addr, last: Ipv4Addr) -> Option<Ipv4Addr> {
        let last = last.to_bits();
        let mut at = first.to_bits();
        while at <= last {
            let [a, r, b, host] = at.to_be_bytes();
            let Some(area) = self.areas[usize::from(a)].get() else {
                at = next_multiple(at, 24)?;
                continue;
            };
            let Some(next_region) = area.open.first_from(r) else {
                at = next_multiple(at, 24)?;
                continue;
            };
            if next_region != r {
                at = u32::from_be_bytes([a, next_region, 0, 0]);
                continue;
            }
            let region = area.regions[usize::from(r)].get().expect("an open region exists");
            let Some(next_block) = region.open.first_from(b) else {
                at = next_multiple(at, 16)?;
                continue;
            };
            if next_block != b {
                at = u32::from_be_bytes([a, r, next_block, 0]);
                continue;
            }
            let block = region.blocks[usize::from(b)].get().expect("an open block exists");
            if let Some(found) = block.first_available_from(host) {
                let address = u32::from_be_bytes([a, r, b, found]);
                return (address <= last).then_some(Ipv4Addr::from_bits(address));
            }
            at = next_multiple(at, 8)?;
        }
        None
    }

    /// The first address from `from` to `last` that is not free, looking at no more than about `scan_count_max`
    /// addresses: for listings in ascending order, in capped steps.
    #[must_use]
    pub fn walk(&self, from: Ipv4Addr, last: Ipv4Addr, scan_count_max: u32) -> Walk {
        let last = last.to_bits();
        let mut at = from.to_bits();
        let mut budget = scan_count_max.max(256);
        while at <= last {
            if budget == 0 {
                return Walk::More(Ipv4Addr::from_bits(at));
            }
            let [a, r, b, host] = at.to_be_bytes();
            let area = self.areas[usize::from(a)].get();
            let region = area.and_then(|area| area.regions[usize::from(r)].get());
            let block = region.and_then(|region| region.blocks[usize::from(b)].get());
            let next = match (area, region, block) {
                (_, _, Some(block)) => {
                    for octet in host..=255 {
                        let address = u32::from_be_bytes([a, r, b, octet]);
                        if address > last {
                            return Walk::End;
                        }
                        let word = block.words[usize::from(octet)].load(SeqCst);
                        if state_of(word) != FREE {
                            return Walk::Held(Ipv4Addr::from_bits(address), owner_of(word));
                        }
                    }
                    budget = budget.saturating_sub(256 - u32::from(host));
                    next_multiple(at, 8)
                }
                (_, Some(_), None) => next_multiple(at, 8),
                (Some(_), None, None) => next_multiple(at, 16),
                (None, ..) => next_multiple(at, 24),
            };
            budget = budget.saturating_sub(1);
            let Some(next) = next else { return Walk::End };
            at = next;
        }
        Walk::End
    }

    /// Changes a word as `rule` says, in one step; gives the new word as a ticket.
    fn change(
        &self,
        address: Ipv4Addr,
        rule: impl Fn(Owner) -> Option<(u64, ShardId, LeaseRef)>,
    ) -> Option<Ticket> {
        let word = self.word(address)?;
        let mut seen = word.load(SeqCst);
        loop {
            let (state, shard, lease) = rule(owner_of(seen))?;
            let next = pack(seen, state, shard, lease);
            match word.compare_exchange(seen, next, SeqCst, SeqCst) {
                Ok(_) => {
                    if is_taken(seen) != is_taken(next) {
                        self.follow_word(address);
                    }
                    return Some(Ticket { address, word: next });
                }
                Err(now) => seen = now,
            }
        }
    }

    fn block(&self, address: Ipv4Addr) -> Option<&Block> {
        let [a, r, b, _] = address.octets();
        let area = self.areas[usize::from(a)].get()?;
        let region = area.regions[usize::from(r)].get()?;
        Some(region.blocks[usize::from(b)].get()?)
    }

    fn word(&self, address: Ipv4Addr) -> Option<&AtomicU64> {
        Some(&self.block(address)?.words[usize::from(address.octets()[3])])
    }

    /// Brings the taken bit in line with its word, then the open bits above.
    fn follow_word(&self, address: Ipv4Addr) {
        let Some(block) = self.block(address) else { return };
        let octet = low_octet(address.to_bits());
        let word = &block.words[usize::from(octet)];
        block.taken.follow(octet, || is_taken(word.load(SeqCst)));
        self.follow_block(address.to_bits());
    }

    /// Brings the open bits above a block in line with it.
    fn follow_block(&self, address: u32) {
        let [a, r, b, _] = address.to_be_bytes();
        let Some(area) = self.areas[usize::from(a)].get() else { return };
        let Some(region) = area.regions[usize::from(r)].get() else { return };
        let Some(block) = region.blocks[usize::from(b)].get() else { return };
        region.open.follow(b, || block.first_available_from(0).is_some());
        area.open.follow(r, || region.open.any());
    }
}

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "AddressSpace({} of {} blocks)", self.block_count(), self.block_count_max)
    }
}

impl Default for Area {
    fn default() -> Self {
        Self { open: Bits::default(), regions: [const { OnceLock::new() }; 256] }
    }
}

impl Default for Region {
    fn default() -> Self {
        Self { open: Bits::default(), blocks: [const { OnceLock::new() }; 256] }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self { taken: Bits::default(), reserved: Bits::default(), words: [const { AtomicU64::new(0) }; 256] }
    }
}

impl Block {
    fn first_available_from(&self, octet: u8) -> Option<u8> {
        let mut mask = u64::MAX << (octet & 63);
        for part in usize::from(octet >> 6)..4 {
            let closed = self.taken.0[part].load(SeqCst) | self.reserved.0[part].load(SeqCst);
            let available = !closed & mask;
            if available != 0 {
                return Some(bit_number(part, available));
            }
            mask = u64::MAX;
        }
        None
    }
}

/// 256 bits.
#[derive(Default)]
struct Bits([AtomicU64; 4]);

impl Bits {
    fn has(&self, index: u8) -> bool {
        self.0[usize::from(index >> 6)].load(SeqCst) & 1 << (index & 63) != 0
    }

    fn set(&self, index: u8, on: bool) {
        let (part, bit) = (&self.0[usize::from(index >> 6)], 1 << (index & 63));
        if on {
            part.fetch_or(bit, SeqCst);
        } else {
            part.fetch_and(!bit, SeqCst);
        }
    }

    fn any(&self) -> bool {
        self.0.iter().any(|part| part.load(SeqCst) != 0)
    }

    fn first_from(&self, index: u8) -> Option<u8> {
        let mut mask = u64::MAX << (index & 63);
        for part in usize::from(index >> 6)..4 {
            let found = self.0[part].load(SeqCst) & mask;
            if found != 0 {
                return Some(bit_number(part, found));
            }
            mask = u64::MAX;
        }
        None
    }

    /// Sets the bit to what `truth` says, until `truth` says the same after the bit was written. Several threads may do
    /// this at once: whoever writes last looks again after its write, so it has seen every change that came before;
    /// a later change is followed by its own author. Hence the bit is right as soon as nobody is in here.
    fn follow(&self, index: u8, truth: impl Fn() -> bool) {
        let mut wanted = truth();
        loop {
            if self.has(index) != wanted {
                self.set(index, wanted);
            }
            let now = truth();
            if now == wanted {
                return;
            }
            wanted = now;
        }
    }
}

const FREE: u64 = 0;
const IN_USE: u64 = 1;
const STEALABLE: u64 = 2;
const RETIRING: u64 = 3;
const SHARD_SHIFT: u32 = 32;
const STATE_SHIFT: u32 = 40;
const GENERATION_SHIFT: u32 = 42;

const fn state_of(word: u64) -> u64 {
    word >> STATE_SHIFT & 0b11
}

/// Whether the search must pass over an address with this word.
const fn is_taken(word: u64) -> bool {
    matches!(state_of(word), IN_USE | RETIRING)
}

fn owner_of(word: u64) -> Owner {
    let [_, _, _, shard, lease @ ..] = word.to_be_bytes();
    let shard = ShardId(shard);
    let lease = LeaseRef(u32::from_be_bytes(lease));
    match state_of(word) {
        FREE => Owner::Free,
        IN_USE => Owner::InUse { shard, lease },
        STEALABLE => Owner::Stealable { shard, lease },
        _ => Owner::Retiring { shard },
    }
}

/// The word after `before`, one generation later, so that no ticket for `before` fits it.
const fn pack(before: u64, state: u64, shard: ShardId, lease: LeaseRef) -> u64 {
    ((before >> GENERATION_SHIFT) + 1) << GENERATION_SHIFT
        | state << STATE_SHIFT
        | (shard.0 as u64) << SHARD_SHIFT
        | lease.0 as u64
}

const fn low_octet(address: u32) -> u8 {
    address.to_be_bytes()[3]
}

/// The first address above `address` with `bits` low bits of zero; nothing past the end of the address space.
fn next_multiple(address: u32, bits: u32) -> Option<u32> {
    (address >> bits).checked_add(1)?.checked_mul(1 << bits)
}

fn bit_number(part: usize, bits: u64) -> u8 {
    u8::try_from(part * 64 + bits.trailing_zeros() as usize).expect("below 256")
}
