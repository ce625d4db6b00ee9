//! Classic BPF programs as data: which frames a socket hears, and which shard a frame goes to.
//!
//! Classic BPF because eBPF is refused in a user namespace and under plain CAP_NET_RAW. What the programs compute is
//! only a hint: shards compute the owner of a client again in Rust and never trust where a frame arrived. Where a load
//! lies outside the packet the kernel ends the program with 0, which is "drop" in a filter and shard 0 in a steering program.

use std::net::Ipv4Addr;

/// Queues of each kind that a shard's port has (a UDP port for each address): a relay that floods fills one of them.
pub const LANES: u8 = 4;
const LANE_FACTOR: u32 = 0x9e37_79b1;
const LANE_SHIFT: u32 = 30;
const _: () = assert!(1 << (32 - LANE_SHIFT) == LANES as u32, "the shift leaves the lanes");

/// One instruction, as the kernel takes it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation, addressing mode and width.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The operations that the programs use, named as in the kernel's assembler.
mod op {
    pub(super) const LD_W_ABS: u16 = 0x20;
    pub(super) const LD_H_ABS: u16 = 0x28;
    pub(super) const LD_B_ABS: u16 = 0x30;
    pub(super) const LD_W_IND: u16 = 0x40;
    pub(super) const LD_H_IND: u16 = 0x48;
    pub(super) const LD_B_IND: u16 = 0x50;
    /// X := 4 × the low four bits of a byte: the length of an IP header.
    pub(super) const LDX_MSH: u16 = 0xb1;
    pub(super) const LD_MEM: u16 = 0x60;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const ST: u16 = 0x02;
    pub(super) const ADD_K: u16 = 0x04;
    pub(super) const ADD_X: u16 = 0x0c;
    pub(super) const MUL_K: u16 = 0x24;
    pub(super) const RSH_K: u16 = 0x74;
    pub(super) const JEQ_K: u16 = 0x15;
    pub(super) const JGT_K: u16 = 0x25;
    pub(super) const JSET_K: u16 = 0x45;
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const RET_A: u16 = 0x16;
}

/// Where the kernel keeps what it knows about the packet beside its bytes (`SKF_AD_OFF`).
const ANCILLARY: u32 = 0xffff_f000;
const ANCILLARY_PACKET_TYPE: u32 = ANCILLARY + 4;
const ANCILLARY_INTERFACE: u32 = ANCILLARY + 8;
/// Packets for us, for all, for a group; above it are other hosts' and our own.
const PACKET_MULTICAST: u32 = 2;

const ETHERTYPE_IPV4: u32 = 0x0800;
const IP_PROTOCOL_UDP: u32 = 17;
const FRAGMENT_OFFSET_BITS: u32 = 0x1fff;
const ETHERTYPE_OFFSET: u32 = 12;
const ETHER_HEADER_LEN: u32 = 14;
const UDP_HEADER_LEN: u32 = 8;
/// What an accepting filter returns: more bytes than a frame has.
const WHOLE_PACKET: u32 = 0x4_0000;
/// Where `giaddr` and `chaddr` begin in a DHCPv4 message (RFC 2131 figure 1).
const GIADDR_OFFSET: u32 = 24;
const CHADDR_OFFSET: u32 = 28;
/// Where the first option begins: after the fixed part and the cookie.
const OPTIONS_OFFSET: u32 = 240;
/// Option 53 of one octet, and its content in a DISCOVER (RFC 2132 9.6).
const MESSAGE_TYPE_HEAD: u32 = 0x3501;
const DISCOVER: u32 = 1;

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// A filter that lets nothing in.
#[must_use]
pub const fn deaf() -> [Instruction; 1] {
    [plain(op::RET_K, 0)]
}

/// The filter of a packet socket on the interface with this kernel index: UDP over IPv4 to `udp_port`, addressed to this
/// host, a group or all, and received on that very interface. First fragments pass, to be counted; later ones do not.
///
/// A frame with the tag of a VLAN that this host has no device for is "another host's" to the kernel; one whose tag has
/// a device arrives with the device's index. So neither passes here as untagged.
#[must_use]
pub const fn hear(interface_index: u32, udp_port: u16) -> [Instruction; 15] {
    [
        plain(op::LD_W_ABS, ANCILLARY_INTERFACE),
        jump(op::JEQ_K, interface_index, 0, 12),
        plain(op::LD_W_ABS, ANCILLARY_PACKET_TYPE),
        jump(op::JGT_K, PACKET_MULTICAST, 10, 0),
        plain(op::LD_H_ABS, ETHERTYPE_OFFSET),
        jump(op::JEQ_K, ETHERTYPE_IPV4, 0, 8),
        plain(op::LD_B_ABS, ETHER_HEADER_LEN + 9),
        jump(op::JEQ_K, IP_PROTOCOL_UDP, 0, 6),
        plain(op::LD_H_ABS, ETHER_HEADER_LEN + 6),
        jump(op::JSET_K, FRAGMENT_OFFSET_BITS, 4, 0),
        plain(op::LDX_MSH, ETHER_HEADER_LEN),
        plain(op::LD_H_IND, ETHER_HEADER_LEN + 2),
        jump(op::JEQ_K, udp_port as u32, 0, 1),
        plain(op::RET_K, WHOLE_PACKET),
        plain(op::RET_K, 0),
    ]
}

/// The fan-out program of a group of `shards` packet sockets, in the order in which they joined. It sees the packet from
/// the IP header on.
#[must_use]
pub const fn fan_out(keys: (u32, u32), shards: u8) -> [Instruction; 12] {
    let s = shard(op::LD_W_IND, op::LD_H_IND, UDP_HEADER_LEN + CHADDR_OFFSET, keys, shards);
    joined(&[&[plain(op::LDX_MSH, 0)], &s, &[plain(op::RET_A, 0)]])
}

/// The fan-out program of a group of packet sockets, twice `shards` for each of `lanes` (a power of two, at most [`LANES`]), in the order in
/// which they joined: of the sockets of a lane the first `shards` get everything but DISCOVERs, the others, in the same order, those. They
/// are known by option 53 being the first, as all clients seen send it; others count as "everything". A packet too short to say
/// goes to the first socket.
#[must_use]
pub const fn fan_out_apart(keys: (u32, u32), shards: u8, lanes: u8) -> [Instruction; 27] {
    let s = shard(op::LD_W_IND, op::LD_H_IND, UDP_HEADER_LEN + CHADDR_OFFSET, keys, shards);
    let k = kind(op::LD_H_IND, op::LD_B_IND, UDP_HEADER_LEN + OPTIONS_OFFSET, shards);
    // The program for the shard needs X itself.
    let x = plain(op::LDX_MSH, 0);
    let l = lanes_apart(plain(op::LD_W_IND, UDP_HEADER_LEN + GIADDR_OFFSET), shards, lanes);
    joined(&[&[x], &s, &[plain(op::ST, 0), x], &k, &l])
}

/// The lane of a relay: which of [`LANES`] queues of a kind its clients' messages come through. No secret is needed: who can give another
/// relay's address for its own shares its lane anyway.
#[must_use]
pub fn lane(giaddr: Ipv4Addr) -> usize {
    usize::try_from(u32::from(giaddr).wrapping_mul(LANE_FACTOR) >> LANE_SHIFT).expect("few")
}

/// The program of a group of UDP sockets on one port, twice `shards` for each lane, in the order in which they were bound: of the sockets
/// of a lane the first `shards` get everything but DISCOVERs, the others those, as in [`fan_out_apart`]. It sees the payload.
#[must_use]
pub const fn reuse_port(keys: (u32, u32), shards: u8) -> [Instruction; 25] {
    let s = shard(op::LD_W_ABS, op::LD_H_ABS, CHADDR_OFFSET, keys, shards);
    let k = kind(op::LD_H_ABS, op::LD_B_ABS, OPTIONS_OFFSET, shards);
    let l = lanes_apart(plain(op::LD_W_ABS, GIADDR_OFFSET), shards, LANES);
    joined(&[&s, &[plain(op::ST, 0)], &k, &l])
}

/// The parts of a program, one after the other: as many instructions as it has.
const fn joined<const N: usize>(parts: &[&[Instruction]]) -> [Instruction; N] {
    let mut program = [plain(op::RET_A, 0); N];
    let (mut part, mut length) = (0, 0);
    while part < parts.len() {
        let mut place = 0;
        while place < parts[part].len() {
            program[length] = parts[part][place];
            (place, length) = (place + 1, length + 1);
        }
        part += 1;
    }
    assert!(length == N, "the parts are the program");
    program
}

/// The middle of a program that keeps DISCOVERs apart: adds `shards` to the first word of the scratch memory for one. The options are
/// `options` bytes from the packet's start or from X.
const fn kind(load_half: u16, load_byte: u16, options: u32, shards: u8) -> [Instruction; 7] {
    [
        plain(load_half, options),
        jump(op::JEQ_K, MESSAGE_TYPE_HEAD, 0, 5),
        plain(load_byte, options + 2),
        jump(op::JEQ_K, DISCOVER, 0, 3),
        plain(op::LD_MEM, 0),
        plain(op::ADD_K, shards as u32),
        plain(op::ST, 0),
    ]
}

/// The end of a program that keeps relays apart: adds the sockets of the lanes before to the first word of the scratch memory. The top bits
/// of the product number the lane; of fewer lanes, fewer bits.
const fn lanes_apart(load_giaddr: Instruction, shards: u8, lanes: u8) -> [Instruction; 7] {
    // A shift by 32 is refused, so a lone lane is numbered by a bit and the bit made 0.
    let (bits, sockets) = if lanes > 1 { (lanes.ilog2(), 2 * shards as u32) } else { (1, 0) };
    [
        load_giaddr,
        plain(op::MUL_K, LANE_FACTOR),
        plain(op::RSH_K, 32 - bits),
        plain(op::MUL_K, sockets),
        plain(op::LDX_MEM, 0),
        plain(op::ADD_X, 0),
        plain(op::RET_A, 0),
    ]
}

/// The shard of a packet by its `chaddr`, which is `chaddr` bytes from the packet's start or from X: a keyed multiply-shift,
/// h = first four of the last octets × `keys.0` + first two × `keys.1`, scaled to the shards.
const fn shard(
    load_word: u16,
    load_half: u16,
    chaddr: u32,
    keys: (u32, u32),
    shards: u8,
) -> [Instruction; 10] {
    [
        plain(load_word, chaddr + 2),
        plain(op::MUL_K, keys.0),
        plain(op::ST, 0),
        plain(load_half, chaddr),
        plain(op::MUL_K, keys.1),
        plain(op::LDX_MEM, 0),
        plain(op::ADD_X, 0),
        plain(op::RSH_K, 16),
        plain(op::MUL_K, shards as u32),
        plain(op::RSH_K, 16),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::classify::steer::Steering;

    /// What the kernel knows about a packet beside its bytes.
    #[derive(Clone, Copy, Debug)]
    struct Beside {
        interface: u32,
        packet_type: u32,
    }

    const FROM_A_CLIENT: Beside = Beside { interface: 7, packet_type: 1 };

    /// Runs a program as the kernel does: a load outside the packet ends it with 0.
    fn run(program: &[Instruction], packet: &[u8], beside: Beside) -> u32 {
        let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; 16]);
        let load = |at: u32, bytes: usize| -> Option<u32> {
            let at = usize::try_from(at).expect("32 bits fit");
            let octets = packet.get(at..at.checked_add(bytes)?)?;
            Some(octets.iter().fold(0, |value, octet| (value << 8) | u32::from(*octet)))
        };
        let mut next = 0;
        loop {
            let Instruction { code, jt, jf, k } = program[next];
            next += 1;
            let branch = |holds: bool| usize::from(if holds { jt } else { jf });
            let loaded = match code {
                op::LD_W_ABS if k == ANCILLARY_INTERFACE => Some(beside.interface),
                op::LD_W_ABS if k == ANCILLARY_PACKET_TYPE => Some(beside.packet_type),
                op::LD_W_ABS => load(k, 4),
                op::LD_H_ABS => load(k, 2),
                op::LD_B_ABS => load(k, 1),
                op::LD_W_IND => load(x + k, 4),
                op::LD_H_IND => load(x + k, 2),
                op::LD_B_IND => load(x + k, 1),
                op::LDX_MSH => match load(k, 1) {
                    Some(octet) => {
                        x = 4 * (octet & 0xf);
                        Some(a)
                    }
                    None => None,
                },
                op::LDX_MEM => {
                    x = memory[usize::try_from(k).expect("small")];
                    Some(a)
                }
                op::ST => {
                    memory[usize::try_from(k).expect("small")] = a;
                    Some(a)
                }
                op::LD_MEM => Some(memory[usize::try_from(k).expect("small")]),
                op::ADD_K => Some(a.wrapping_add(k)),
                op::ADD_X => Some(a.wrapping_add(x)),
                op::MUL_K => Some(a.wrapping_mul(k)),
                op::RSH_K => Some(a >> k),
                op::JEQ_K => {
                    next += branch(a == k);
                    Some(a)
                }
                op::JGT_K => {
                    next += branch(a > k);
                    Some(a)
                }
                op::JSET_K => {
                    next += branch(a & k != 0);
                    Some(a)
                }
                op::RET_K => return k,
                op::RET_A => return a,
                other => panic!("operation {other:#x} is none of ours"),
            };
            let Some(value) = loaded else { return 0 };
            a = value;
        }
    }

    /// A frame from the Ethernet header on: an IP header of `ip_words` words, UDP to `port`, `payload`.
    fn frame(ip_words: u8, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 14 + 4 * usize::from(ip_words) + 8];
        bytes[12] = 0x08;
        bytes[14] = 0x40 | ip_words;
        bytes[23] = 17;
        let udp = 14 + 4 * usize::from(ip_words);
        bytes[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn hears(packet: &[u8], beside: Beside) -> bool {
        run(&hear(7, 67), packet, beside) > 0
    }

    proptest! {
        #[test]
        fn programs_and_rust_name_the_same_shard(
            chaddr: [u8; 6], seed: u64, shards in 1..=64_u8, ip_words in 5..=15_u8
        ) {
            let mut payload = vec![0; 244];
            payload[28..34].copy_from_slice(&chaddr);
            let steering = Steering::new(seed, usize::from(shards));
            let (keys, expected) = (steering.multipliers(), u32::from(steering.owner_of_six(chaddr).0));
            let bytes = frame(ip_words, 67, &payload);
            prop_assert_eq!(run(&fan_out(keys, shards), &bytes[14..], FROM_A_CLIENT), expected);
            prop_assert_eq!(run(&reuse_port(keys, shards), &payload, FROM_A_CLIENT), expected);
        }

        #[test]
        fn discovers_go_to_the_second_half_of_the_group_and_relays_to_their_lane(
            chaddr: [u8; 6], giaddr: [u8; 4], seed: u64, shards in 1..=64_u8, ip_words in 5..=15_u8, kind in 0..=18_u8,
            first in 50..=54_u8
        ) {
            let mut payload = vec![0; 244];
            payload[28..34].copy_from_slice(&chaddr);
            payload[240..243].copy_from_slice(&[first, 1, kind]);
            let steering = Steering::new(seed, usize::from(shards));
            let owner = u32::from(steering.owner_of_six(chaddr).0);
            let expected = if (first, kind) == (53, 1) { owner + u32::from(shards) } else { owner };
            payload[24..28].copy_from_slice(&giaddr);
            let bytes = frame(ip_words, 67, &payload);
            let lane = u32::try_from(lane(giaddr.into())).expect("few");
            for lanes in [1, 2, 4] {
                let program = fan_out_apart(steering.multipliers(), shards, lanes);
                let lane = lane / u32::from(LANES / lanes);
                prop_assert_eq!(run(&program, &bytes[14..], FROM_A_CLIENT), 2 * u32::from(shards) * lane + expected);
            }
            let program = reuse_port(steering.multipliers(), shards);
            prop_assert_eq!(run(&program, &payload, FROM_A_CLIENT), 2 * u32::from(shards) * lane + expected);
        }

        #[test]
        fn filter_hears_its_port_whatever_the_ip_options(port: u16, ip_words in 5..=15_u8) {
            prop_assert_eq!(hears(&frame(ip_words, port, &[0; 240]), FROM_A_CLIENT), port == 67);
        }

        #[test]
        fn programs_end_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), keys: (u32, u32)) {
            run(&hear(7, 67), &bytes, FROM_A_CLIENT);
            prop_assert!(run(&fan_out(keys, 4), &bytes, FROM_A_CLIENT) < 4);
            prop_assert!(run(&fan_out_apart(keys, 4, 2), &bytes, FROM_A_CLIENT) < 16);
            prop_assert!(run(&reuse_port(keys, 4), &bytes, FROM_A_CLIENT) < 8 * u32::from(LANES));
        }
    }

    #[test]
    fn filter_leaves_other_hosts_and_our_own_frames_out() {
        let bytes = frame(5, 67, &[0; 240]);
        let heard: Vec<u32> =
            (0..8).filter(|kind| hears(&bytes, Beside { interface: 7, packet_type: *kind })).collect();
        assert_eq!(heard, [0, 1, 2], "for us, for all, for a group");
    }

    #[test]
    fn filter_leaves_out_what_belongs_to_another_device_on_the_same_wire() {
        assert!(!hears(&frame(5, 67, &[0; 240]), Beside { interface: 8, packet_type: 1 }));
    }

    #[test]
    fn filter_passes_first_fragments_and_no_later_ones() {
        let mut bytes = frame(5, 67, &[0; 240]);
        bytes[20] = 0x20;
        assert!(hears(&bytes, FROM_A_CLIENT), "more fragments follow: counted by the port");
        bytes[21] = 1;
        assert!(!hears(&bytes, FROM_A_CLIENT), "there is no port number in it");
        bytes[20..22].copy_from_slice(&[0x40, 0]);
        assert!(hears(&bytes, FROM_A_CLIENT), "do not fragment is no fragment");
    }

    #[test]
    fn filter_leaves_other_protocols_out() {
        let mut tcp = frame(5, 67, &[0; 240]);
        tcp[23] = 6;
        let mut arp = frame(5, 67, &[0; 240]);
        arp[13] = 6;
        assert!(!hears(&tcp, FROM_A_CLIENT) && !hears(&arp, FROM_A_CLIENT));
        assert_eq!(run(&deaf(), &frame(5, 67, &[0; 240]), FROM_A_CLIENT), 0);
    }
}
