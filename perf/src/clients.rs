//! The population of clients: millions of them at eight bytes each, and who holds which address.

use std::net::Ipv4Addr;

/// No exchange under way.
pub(crate) const IDLE: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX;
const PAGE: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Client {
    /// The address it holds, 0 for none.
    address: u32,
    /// Its exchange's slot, or [`IDLE`].
    slot: u32,
}

/// What a server did wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A client that holds an address got another one.
    Changed,
    /// Two clients hold one address.
    Twice,
}

/// All clients by number, and the owners of addresses.
#[derive(Debug)]
pub(crate) struct Population {
    clients: Vec<Client>,
    /// Pages of owners by the upper half of the address, made when an address in them is first seen.
    owners: Vec<Option<Box<[u32]>>>,
    /// The first octets of every client's hardware address, before its number.
    prefix: [u8; 2],
    bound: usize,
}

impl Population {
    pub(crate) fn new(count: u32, prefix: [u8; 2]) -> Self {
        let count = usize::try_from(count).expect("32 bits fit");
        let mut owners = Vec::new();
        owners.resize_with(PAGE, || None);
        Self { clients: vec![Client { address: 0, slot: IDLE }; count], owners, prefix, bound: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.clients.len()).expect("made of a u32")
    }

    /// How many clients hold an address.
    pub(crate) const fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn chaddr(&self, client: u32) -> [u8; 6] {
        let ([a, b], [c, d, e, f]) = (self.prefix, client.to_be_bytes());
        [a, b, c, d, e, f]
    }

    /// The client of a hardware address, if it is one of ours.
    pub(crate) fn client(&self, chaddr: [u8; 6]) -> Option<u32> {
        let [a, b, c, d, e, f] = chaddr;
        let client = u32::from_be_bytes([c, d, e, f]);
        ([a, b] == self.prefix && client < self.len()).then_some(client)
    }

    pub(crate) fn address(&self, client: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.at(client).address)
    }

    pub(crate) fn slot(&self, client: u32) -> u32 {
        self.at(client).slot
    }

    pub(crate) fn set_slot(&mut self, client: u32, slot: u32) {
        self.at_mut(client).slot = slot;
    }

    /// The client was given `address`; what is wrong with that, if anything.
    pub(crate) fn bind(&mut self, client: u32, address: Ipv4Addr) -> Option<Violation> {
        let address = u32::from(address);
        let before = self.at(client).address;
        if before == address {
            return None;
        }
        let mut wrong = None;
        if before == 0 {
            self.bound += 1;
        } else {
            wrong = Some(Violation::Changed);
            *self.owner(before) = NOBODY;
        }
        self.at_mut(client).address = address;
        let owner = self.owner(address);
        let other = std::mem::replace(owner, client);
        if other != NOBODY && other != client {
            wrong = Some(Violation::Twice);
        }
        wrong
    }

    /// The client gave its address up, or was refused it.
    pub(crate) fn unbind(&mut self, client: u32) {
        let address = std::mem::take(&mut self.at_mut(client).address);
        if address != 0 {
            self.bound -= 1;
            let owner = self.owner(address);
            if *owner == client {
                *owner = NOBODY;
            }
        }
    }

    fn owner(&mut self, address: u32) -> &mut u32 {
        let (page, place) = (address >> 16, address & 0xffff);
        let page = &mut self.owners[usize::try_from(page).expect("16 bits")];
        let page = page.get_or_insert_with(|| vec![NOBODY; PAGE].into_boxed_slice());
        &mut page[usize::try_from(place).expect("16 bits")]
    }

    fn at(&self, client: u32) -> &Client {
        &self.clients[usize::try_from(client).expect("32 bits fit")]
    }

    fn at_mut(&mut self, client: u32) -> &mut Client {
        &mut self.clients[usize::try_from(client).expect("32 bits fit")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

    #[test]
    fn hardware_address_and_client_name_each_other() {
        let population = Population::new(70_000, [2, 0xa9]);
        assert_eq!(population.chaddr(65_537), [2, 0xa9, 0, 1, 0, 1]);
        assert_eq!(population.client([2, 0xa9, 0, 1, 0, 1]), Some(65_537));
        assert_eq!(population.client([2, 0xa9, 0, 1, 0x11, 0x70]), None, "70,000 is nobody");
        assert_eq!(population.client([2, 0xaa, 0, 0, 0, 1]), None);
    }

    #[test]
    fn address_given_twice_or_changed_is_noticed() {
        let mut population = Population::new(3, [2, 0]);
        assert_eq!(population.bind(0, A), None);
        assert_eq!(population.bind(0, A), None, "again the same");
        assert_eq!(population.bind(0, B), Some(Violation::Changed));
        assert_eq!(population.bind(1, A), None, "it was left");
        assert_eq!(population.bind(2, B), Some(Violation::Twice));
        assert_eq!(population.bound(), 3);
    }

    #[test]
    fn released_address_may_be_given_to_another() {
        let mut population = Population::new(2, [2, 0]);
        assert_eq!(population.bind(0, A), None);
        population.unbind(0);
        population.unbind(0);
        assert_eq!((population.bound(), population.bind(1, A)), (0, None));
    }
}
