//! Which address a new client is offered: `iterative`, `random` and `flq`, each over the pools of one subnet.
//!
//! An allocator proposes; [`crate::lease::address::AddressSpace::claim`] decides. What it is given is plain: the pools as
//! ranges, a predicate for the pools that the client's classes open, the address space. What it remembers is its own,
//! one per subnet and shard, made by the control thread together with a configuration and dropped with it.
//!
//! [`Allocator::pick`] moves the memory and claims nothing, as for an OFFER. For a REQUEST without an address, and where a pick
//! must be sure, [`Allocator::pick_and_claim`] claims too and goes on when another shard was faster.
//! Reserved addresses, and .0 and .255 under `exclude-first-last-24`, carry the space's reserved mark and are passed over.
//! An address under probation (declined) is in use for the space until it is reclaimed.
//!
//! Promises: no allocation and no lock after construction; no panic on any pools. Every pick looks at a bounded number of
//! candidates and then takes the next available address that the space finds, so that it costs the same in an empty pool, in one
//! with a single address left, and on the first packet after a start. With several shards each has its own memory and its own
//! starting point.
//! Follows chapter "Address allocation strategies" of Kea's manual.

mod flq;
mod iterative;
mod permutation;
mod random;

use std::net::Ipv4Addr;

use crate::ids::{LeaseRef, ShardId};
use crate::lease::address::{AddressSpace, ClaimError, Claimed};

use self::flq::Flq;
use self::iterative::Iterative;
use self::random::Random;

/// Claims that may be lost to other shards in a row before a pick gives up.
const LOST_CLAIMS_MAX: u32 = 64;

/// The addresses of a pool, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// Lowest address.
    pub first: Ipv4Addr,
    /// Highest address; a range with a lower one than `first` is empty.
    pub last: Ipv4Addr,
}

impl PoolRange {
    /// Number of addresses.
    #[must_use]
    pub fn len(&self) -> u64 {
        (u64::from(self.last.to_bits()) + 1).saturating_sub(u64::from(self.first.to_bits()))
    }

    /// Whether there is no address in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The address at `offset` from the first, which must be below [`Self::len`].
    fn at(&self, offset: u64) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + u32::try_from(offset).expect("an offset in the range"))
    }
}

/// The allocators by Kea's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocatorKind {
    /// In ascending order, going on after the address given last.
    #[default]
    Iterative,
    /// In a random order that repeats itself only after every address.
    Random,
    /// Those that have been free longest first (free lease queue).
    Flq,
}

impl AllocatorKind {
    /// The allocator of Kea's name, or nothing when there is none of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "iterative" => Self::Iterative,
            "random" => Self::Random,
            "flq" => Self::Flq,
            _ => return None,
        })
    }
}

/// Where an allocator starts, so that those who share pools do not run into each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Position in the pools laid end to end: 0 is the first address, `u32::MAX` almost the end. With it at 0, `iterative`
    /// gives Kea's very sequence.
    pub position: u32,
    /// Seed of random orders.
    pub seed: u64,
}

/// Whether the pools are shared with a partner who allocates from them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// No.
    #[default]
    Whole,
    /// Yes, and we begin in the lower half.
    Lower,
    /// Yes, and we begin in the upper half.
    Upper,
}

impl Start {
    /// The start of a shard among `shard_count` shards: evenly spread over our share of the pools.
    #[must_use]
    pub fn of_shard(seed: u64, shard: ShardId, shard_count: usize, share: Share) -> Self {
        const WHOLE: u64 = 1 << 32;
        let (from, width) = match share {
            Share::Whole => (0, WHOLE),
            Share::Lower => (0, WHOLE / 2),
            Share::Upper => (WHOLE / 2, WHOLE / 2),
        };
        let shard_count = u64::try_from(shard_count.max(1)).expect("widening");
        let shard = u64::from(shard.0);
        let position = from + width * (shard % shard_count) / shard_count;
        Self {
            position: u32::try_from(position).expect("below the whole"),
            seed: seed ^ shard.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// The position in pools of `len` addresses.
    fn within(self, len: u64) -> u64 {
        u64::try_from((u128::from(self.position) * u128::from(len)) >> 32).expect("below the length")
    }
}

/// What a pick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// An available address, and the pool that it is of.
    Found {
        /// The address.
        address: Ipv4Addr,
        /// Position of its pool among the pools.
        pool: usize,
    },
    /// There is not a single candidate: no pools, or none open to this client (`v4-allocation-fail-no-pools`).
    NoPools,
    /// Every candidate is taken or reserved (`v4-allocation-fail`).
    Full,
}

/// What a claiming pick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedPick {
    /// An address, claimed.
    Claimed {
        /// The address.
        address: Ipv4Addr,
        /// Position of its pool among the pools.
        pool: usize,
        /// What was there before.
        before: Claimed,
    },
    /// As [`Pick::NoPools`].
    NoPools,
    /// As [`Pick::Full`]; also when other shards were faster 64 times in a row.
    Full,
}

/// The memory of one subnet's allocator in one shard.
#[derive(Debug)]
pub struct Allocator {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Iterative(Iterative),
    Random(Random),
    Flq(Flq),
}

impl Allocator {
    /// An allocator over `pools`, which every later call must be given again, the same in the same order. Allocates.
    #[must_use]
    pub fn new(kind: AllocatorKind, pools: &[PoolRange], start: Start) -> Self {
        let kind = match kind {
            AllocatorKind::Iterative => Kind::Iterative(Iterative::new(pools, start)),
            AllocatorKind::Random => Kind::Random(Random::new(pools, start)),
            AllocatorKind::Flq => Kind::Flq(Flq::new(pools, start)),
        };
        Self { kind }
    }

    /// The next available address of the pools that `allowed` opens (asked by position). Claims nothing; the memory moves on.
    pub fn pick(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        allowed: impl Fn(usize) -> bool,
    ) -> Pick {
        if !pools.iter().enumerate().any(|(pool, range)| !range.is_empty() && allowed(pool)) {
            return Pick::NoPools;
        }
        let found = match &mut self.kind {
            Kind::Iterative(iterative) => iterative.pick(pools, space, &allowed),
            Kind::Random(random) => random.pick(pools, space, &allowed),
            Kind::Flq(flq) => flq.pick(pools, space, &allowed),
        };
        found.map_or(Pick::Full, |(pool, address)| Pick::Found { address, pool })
    }

    /// [`Self::pick`] for a lease that is stored already: the address is claimed for it.
    pub fn pick_and_claim(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        allowed: impl Fn(usize) -> bool,
        shard: ShardId,
        lease: LeaseRef,
    ) -> ClaimedPick {
        for _ in 0..LOST_CLAIMS_MAX {
            match self.pick(pools, space, &allowed) {
                Pick::Found { address, pool } => match space.claim(address, shard, lease) {
                    Ok(before) => return ClaimedPick::Claimed { address, pool, before },
                    Err(ClaimError::Taken(_) | ClaimError::Unknown) => {}
                },
                Pick::NoPools => return ClaimedPick::NoPools,
                Pick::Full => return ClaimedPick::Full,
            }
        }
        ClaimedPick::Full
    }

    /// Tells the allocator that an address of its pools became available ([`crate::lease::address::Retiring::settle`], and
    /// leases that were lent on expiry). Only `flq` listens; addresses outside its pools are ignored.
    pub fn freed(&mut self, pools: &[PoolRange], address: Ipv4Addr) {
        if let Kind::Flq(flq) = &mut self.kind {
            flq.freed(pools, address);
        }
    }
}

/// The first available address at or after (`pool`, `address`) in pools that are open, then from the first pool on up to
/// that place: all of them once.
fn scan_from(
    pools: &[PoolRange],
    space: &AddressSpace,
    allowed: &impl Fn(usize) -> bool,
    pool: usize,
    address: Ipv4Addr,
) -> Option<(usize, Ipv4Addr)> {
    let open = |at: &usize| allowed(*at) && !pools[*at].is_empty();
    let in_pool = |at: usize| space.next_available(pools[at].first, pools[at].last).map(|found| (at, found));
    if open(&pool)
        && let Some(found) = space.next_available(address, pools[pool].last)
    {
        return Some((pool, found));
    }
    (pool + 1..pools.len())
        .filter(open)
        .find_map(in_pool)
        .or_else(|| (0..=pool).filter(open).find_map(in_pool))
}

/// Pools laid end to end: which pool and address a position is.
#[derive(Debug)]
struct Layout {
    /// Position behind the last address of each pool.
    ends: Box<[u64]>,
}

impl Layout {
    fn new(pools: &[PoolRange]) -> Self {
        let ends = pools.iter().scan(0, |end, pool| {
            *end += pool.len();
            Some(*end)
        });
        Self { ends: ends.collect() }
    }

    fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The place of `position`, which must be below [`Self::len`].
    fn place(&self, pools: &[PoolRange], position: u64) -> (usize, Ipv4Addr) {
        let pool = self.ends.partition_point(|end| *end <= position);
        let before = if pool == 0 { 0 } else { self.ends[pool - 1] };
        (pool, pools[pool].at(position - before))
    }
}
