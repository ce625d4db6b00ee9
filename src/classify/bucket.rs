//! The load-balancing hash of RFC 3074 6: which bucket a client falls into.
//!
//! Two servers that share the clients between them must agree on this for every key, so the vectors at the bottom are
//! those of other implementations. The bucket says which *server* serves a client; which *shard* does is another hash.

/// The bucket of a client's key: its client identifier (all octets, type included), hardware address, or DUID.
///
/// The key's length enters by its low eight bits. The octets are taken from the last to the first.
#[must_use]
#[inline]
pub fn bucket(key: &[u8]) -> u8 {
    let [len, ..] = key.len().to_le_bytes();
    key.iter().rev().fold(len, |hash, octet| TABLE[usize::from(hash ^ octet)])
}

/// The permutation of RFC 3074 6.
static TABLE: [u8; 256] = [
    251, 175, 119, 215, 81, 14, 79, 191, 103, 49, 181, 143, 186, 157, 0, 232, 31, 32, 55, 60, 152, 58, 17,
    237, 174, 70, 160, 144, 220, 90, 57, 223, 59, 3, 18, 140, 111, 166, 203, 196, 134, 243, 124, 95, 222,
    179, 197, 65, 180, 48, 36, 15, 107, 46, 233, 130, 165, 30, 123, 161, 209, 23, 97, 16, 40, 91, 219, 61,
    100, 10, 210, 109, 250, 127, 22, 138, 29, 108, 244, 67, 207, 9, 178, 204, 74, 98, 126, 249, 167, 116, 34,
    77, 193, 200, 121, 5, 20, 113, 71, 35, 128, 13, 182, 94, 25, 226, 227, 199, 75, 27, 41, 245, 230, 224,
    43, 225, 177, 26, 155, 150, 212, 142, 218, 115, 241, 73, 88, 105, 39, 114, 62, 255, 192, 201, 145, 214,
    168, 158, 221, 148, 154, 122, 12, 84, 82, 163, 44, 139, 228, 236, 205, 242, 217, 11, 187, 146, 159, 64,
    86, 239, 195, 42, 106, 198, 118, 112, 184, 172, 87, 2, 173, 117, 176, 229, 247, 253, 137, 185, 99, 164,
    102, 147, 45, 66, 231, 52, 141, 211, 194, 206, 246, 238, 56, 110, 78, 248, 63, 240, 189, 93, 92, 51, 53,
    183, 19, 171, 72, 50, 33, 104, 101, 69, 8, 252, 83, 120, 76, 135, 85, 54, 202, 125, 188, 213, 96, 235,
    136, 208, 162, 129, 190, 132, 156, 38, 47, 1, 7, 254, 24, 4, 216, 131, 89, 21, 28, 133, 37, 153, 149, 80,
    170, 68, 6, 169, 234, 151,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of the vectors: number, length, bucket, key.
    fn vector(line: &str) -> (usize, u8, Vec<u8>) {
        let mut words = line.split_whitespace().skip(1);
        let mut number = || words.next().expect("a number").parse::<usize>().expect("decimal");
        let (len, bucket) = (number(), number());
        let octet = |hex: &str| u8::from_str_radix(hex, 16).expect("hex");
        let key = words.flat_map(|word| match word.split_once('x') {
            Some((count, hex)) => vec![octet(hex); count.parse().expect("decimal")],
            None => vec![octet(word)],
        });
        (len, u8::try_from(bucket).expect("an octet"), key.collect())
    }

    #[test]
    fn buckets_are_those_of_the_other_servers() {
        let lines = include_str!("../../tests/data/buckets/vectors.txt").lines();
        let vectors: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
        assert_eq!(vectors.len(), 30);
        for line in vectors {
            let (len, expected, key) = vector(line);
            assert_eq!(key.len(), len, "{line}");
            assert_eq!(bucket(&key), expected, "{line}");
        }
    }

    #[test]
    fn table_is_a_permutation() {
        let mut sorted = TABLE;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(index, octet)| index == usize::from(*octet)));
    }
}
