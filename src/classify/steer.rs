//! Which shard owns a client: the one function, for the kernel's fan-out program and for user space.
//!
//! The owner follows from the first six octets of `chaddr`, missing octets counted as zero:
//!
//! ```text
//! hi16  = chaddr[0] << 8  | chaddr[1]
//! lo32  = chaddr[2] << 24 | chaddr[3] << 16 | chaddr[4] << 8 | chaddr[5]
//! h     = (lo32 * K1 + hi16 * K2) mod 2^32
//! shard = ((h >> 16) * N) >> 16
//! ```
//!
//! All of it is 32-bit arithmetic without carry into more (`(h >> 16) * N` is below 2^22), so that classic BPF can
//! compute it: two loads (`ld [x+2]`, `ldh [x]`), two `mul`, one `add`, `rsh`, `mul`, `rsh`. K1 and K2 are odd
//! and derived from the seed ([`Steering::new`]); the program reads them from [`Steering::multipliers`].
//!
//! The kernel looks at the octets as they came. User space looks at the address with its length, as a lease knows it,
//! and never trusts where a packet arrived: a client that leaves garbage behind a short address costs one hand-over.
//! The RFC 3074 bucket is another hash on purpose: each of two active servers sees half of the buckets only.
//!
//! Promises: no allocation, no panic; any thread may call.

use crate::ids::{HwAddr, SHARDS_MAX, ShardId};

/// The keyed function from hardware address to shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    k1: u32,
    k2: u32,
    shard_count: u32,
}

impl Steering {
    /// The function of `seed` over `shard_count` shards; a count outside 1 to [`SHARDS_MAX`] is moved to the nearest.
    #[must_use]
    pub fn new(seed: u64, shard_count: usize) -> Self {
        let shard_count = u32::try_from(shard_count.clamp(1, SHARDS_MAX)).expect("SHARDS_MAX fits");
        Self { k1: odd_multiplier(seed, 1), k2: odd_multiplier(seed, 2), shard_count }
    }

    /// K1 and K2 of the formula.
    #[must_use]
    pub const fn multipliers(&self) -> (u32, u32) {
        (self.k1, self.k2)
    }

    /// N of the formula.
    #[must_use]
    pub const fn shard_count(&self) -> u32 {
        self.shard_count
    }

    /// The shard that owns the client of this hardware address.
    #[must_use]
    #[inline(always)]
    pub fn owner(&self, hw_addr: &HwAddr) -> ShardId {
        let octets = hw_addr.as_bytes();
        // Asked of every query: the usual length costs one load.
        let six = octets.first_chunk().copied().unwrap_or_else(|| {
            let mut six = [0; 6];
            six[..octets.len()].copy_from_slice(octets);
            six
        });
        self.owner_of_six(six)
    }

    /// The same of six octets, as the kernel sees them.
    #[must_use]
    #[inline(always)]
    pub fn owner_of_six(&self, six: [u8; 6]) -> ShardId {
        let [a, b, c, d, e, f] = six;
        let hi16 = u32::from(u16::from_be_bytes([a, b]));
        let lo32 = u32::from_be_bytes([c, d, e, f]);
        let hash = lo32.wrapping_mul(self.k1).wrapping_add(hi16.wrapping_mul(self.k2));
        let shard = ((hash >> 16) * self.shard_count) >> 16;
        ShardId(u8::try_from(shard).expect("below the shard count, which is at most SHARDS_MAX"))
    }
}

/// An odd multiplier from the seed (a step of the splitmix64 sequence), high half first because it is the better one.
fn odd_multiplier(seed: u64, step: u64) -> u32 {
    let mut mixed = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits are left") | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_owns_everybody() {
        let steering = Steering::new(7, 1);
        for last in 0..=255 {
            assert_eq!(steering.owner(&HwAddr::ethernet([2, 0, 0, 0, 0, last])), ShardId(0));
        }
    }

    #[test]
    fn short_and_empty_addresses_count_as_zero_padded() {
        let steering = Steering::new(7, 4);
        let short = HwAddr::new(7, &[9, 8]).expect("fits");
        assert_eq!(steering.owner(&short), steering.owner_of_six([9, 8, 0, 0, 0, 0]));
        assert_eq!(steering.owner(&HwAddr::new(32, &[]).expect("fits")), steering.owner_of_six([0; 6]));
    }

    #[test]
    fn consecutive_addresses_spread_evenly_whatever_the_seed() {
        for seed in 0..64 {
            for shard_count in [2_u32, 3, 4, 8] {
                let steering = Steering::new(seed, shard_count as usize);
                let mut counts = vec![0_u32; shard_count as usize];
                for client in 0..40_000_u32 {
                    let [_, a, b, c] = client.to_be_bytes();
                    let owner = steering.owner_of_six([0x02, 0xaa, 0x00, a, b, c]);
                    counts[usize::from(owner.0)] += 1;
                }
                let fair = 40_000 / shard_count;
                for count in counts {
                    assert!(count.abs_diff(fair) < fair / 4, "seed {seed}: {count} of {fair}");
                }
            }
        }
    }
}
