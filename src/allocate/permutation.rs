//! A pseudo-random order of 0 to n−1 that needs no memory: a Feistel network over the next power of four, walked until it
//! falls below n.

/// A permutation of the numbers below a length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    seed: u64,
}

const ROUNDS: u64 = 4;

impl Permutation {
    pub(super) fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), seed }
    }

    /// Where `index` goes; it must be below the length. The domain is less than four times the length, so that the walk takes
    /// fewer than four steps on average; on each cycle of a permutation it comes back below the length at last.
    pub(super) fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "an index below the length");
        let mut at = index;
        loop {
            at = self.shuffle(at);
            if at < self.len {
                return at;
            }
        }
    }

    fn shuffle(&self, index: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (index >> self.half_bits, index & mask);
        for round in 0..ROUNDS {
            let mixed = mix(right ^ self.seed.wrapping_add(round.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            (left, right) = (right, left ^ mixed & mask);
        }
        left << self.half_bits | right
    }
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ (word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_exactly_once() {
        for len in [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000] {
            let permutation = Permutation::new(len, 42);
            let mut seen: Vec<u64> = (0..len).map(|index| permutation.at(index)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_seed_changes_the_order() {
        let order = |seed| (0..100).map(|index| Permutation::new(100, seed).at(index)).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), (0..100).collect::<Vec<_>>());
    }
}
