//! Vendor options with an enterprise number (RFC 3925): vendor class (124) and vendor information (125) of DHCPv4.

/// What one enterprise says: one block of option 124 or 125.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The enterprise number.
    pub enterprise: u32,
    /// In 124 the class's octets, in 125 sub-options in the one-octet format.
    pub data: &'a [u8],
}

/// The blocks of a payload, in order; ends at the first that is cut short.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// The blocks of `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What has not been read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let (&[a, b, c, d, len], data) = self.rest.split_first_chunk()?;
        let (data, rest) = data.split_at_checked(usize::from(len))?;
        self.rest = rest;
        Some(Block { enterprise: u32::from_be_bytes([a, b, c, d]), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_until_one_is_cut() {
        let payload = [0, 0, 0x11, 0x8b, 2, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0, 2, 9];
        let mut blocks = Blocks::new(&payload);
        assert_eq!(blocks.next(), Some(Block { enterprise: 4491, data: &[7, 8] }));
        assert_eq!(blocks.next(), Some(Block { enterprise: 1, data: &[] }));
        assert_eq!(blocks.next(), None);
        assert_eq!(blocks.rest().len(), 5);
    }
}
