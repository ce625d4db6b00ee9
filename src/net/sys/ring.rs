//! The receiving ring of a packet socket (TPACKET_V2), mapped.
//!
//! ```text
//! slot:  | tpacket2_hdr (32) | sockaddr_ll (20) | padding | Ethernet header ... |    FRAME_BYTES in all
//! order:   ... kernel | lent, lent, lent | kernel's, filled | kernel's, empty ...
//!                     ^ tail             ^ head
//! ```
//! Slots from `tail` to `head` are ours; all others are the kernel's, whatever their status says until we have read it
//! with acquire order and taken the slot.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::Socket;

use super::checked;
use super::socket::set_int;
use crate::net::FRAME_BYTES;

/// Bytes of one block of the ring: the kernel allocates it in one piece, and 64 KiB it finds even when memory is fragmented.
const BLOCK_BYTES: usize = 1 << 16;
const SLOTS_PER_BLOCK: usize = BLOCK_BYTES / FRAME_BYTES;
/// Fewest and most slots of a ring; both are powers of two, as every count between is made.
const SLOTS_MIN: u32 = 64;
const SLOTS_MAX: u32 = 1 << 17;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(FRAME_BYTES), "slots follow each other without gaps");
const _: () = assert!(FRAME_BYTES.is_multiple_of(libc::TPACKET_ALIGNMENT), "the kernel aligns slots");
const _: () = assert!(SLOTS_MIN as usize >= SLOTS_PER_BLOCK, "a ring is whole blocks");
const _: () =
    assert!(SLOTS_MAX as usize * FRAME_BYTES <= 1 << 28, "offsets fit 28 bits: a port marks the others");

/// A filled slot that was just taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Slot {
    /// Where the frame begins in the ring.
    pub(in crate::net) offset: u32,
    /// Bytes that are there.
    pub(in crate::net) len: u16,
    /// Whether the frame was longer.
    pub(in crate::net) truncated: bool,
    /// The kernel's status bits.
    pub(in crate::net) status: u32,
    pub(in crate::net) vlan_tci: u16,
    pub(in crate::net) wall_ns: u64,
}

/// A mapped ring. The socket may be closed before or after it: the mapping keeps the memory.
#[derive(Debug)]
pub(in crate::net) struct RxRing {
    base: NonNull<u8>,
    slots: NonZeroU32,
    /// The next slot to look at, counted without wrapping at the ring's end.
    head: u32,
    /// The first slot that is lent out; `head - tail` slots are.
    tail: u32,
}

// SAFETY: the mapping belongs to this value alone (it is neither cloned nor shared), and nothing about it is bound to the thread that
// made it.
unsafe impl Send for RxRing {}

impl RxRing {
    /// Gives `socket` a ring of at least `slots` slots and maps it.
    pub(in crate::net) fn new(socket: &Socket, slots: u32) -> io::Result<Self> {
        let slots = slots.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        let count = usize::try_from(slots).expect("32 bits fit");
        set_int(
            socket,
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as libc::c_int,
        )?;
        let blocks = count / SLOTS_PER_BLOCK;
        let request = libc::tpacket_req {
            tp_block_size: u32::try_from(BLOCK_BYTES).expect("a constant"),
            tp_block_nr: u32::try_from(blocks).expect("fewer than slots"),
            tp_frame_size: u32::try_from(FRAME_BYTES).expect("a constant"),
            tp_frame_nr: slots,
        };
        let len = libc::socklen_t::try_from(size_of::<libc::tpacket_req>()).expect("a small structure");
        // SAFETY: pointer and length describe `request`, which the kernel only reads.
        checked(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_RX_RING,
                (&raw const request).cast(),
                len,
            )
        })?;
        // SAFETY: a new mapping at an address of the kernel's choice, of exactly the length of the ring just made; it aliases no
        // memory of ours. Populated now, so that the first packets do not pay for page faults.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * FRAME_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(mapped.cast::<u8>()).expect("a mapping is nowhere near address 0");
        let slots = NonZeroU32::new(slots).expect("a ring has slots");
        Ok(Self { base, slots, head: 0, tail: 0 })
    }

    /// Where a slot (counted without wrapping) begins in the ring.
    fn slot_offset(&self, slot: u32) -> usize {
        // The count is a power of two, so the mask survives the counter's own wrap.
        usize::try_from(slot & (self.slots.get() - 1)).expect("32 bits fit") * FRAME_BYTES
    }

    /// The status word of a slot, which kernel and we hand each other the slot with.
    fn status(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: the offset is inside the mapping, which lives as long as `self`; slots are aligned to 16 bytes and begin with the
        // 32-bit status (`tpacket2_hdr`). Both sides touch it only in whole words, so the atomic view is a right one.
        unsafe { AtomicU32::from_ptr(self.base.add(self.slot_offset(slot)).as_ptr().cast::<u32>()) }
    }

    /// Whether the next slot is filled.
    pub(in crate::net) fn is_ready(&self) -> bool {
        self.status(self.head).load(Ordering::Relaxed) & libc::TP_STATUS_USER != 0
    }

    /// Whether at least half of the slots are filled and not taken.
    pub(in crate::net) fn is_half_full(&self) -> bool {
        let middle = self.head.wrapping_add(self.slots.get() / 2 - 1);
        self.status(middle).load(Ordering::Relaxed) & libc::TP_STATUS_USER != 0
    }

    /// How many slots are lent out.
    pub(in crate::net) const fn lent(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// Takes the next filled slot, which stays ours until [`recycle`](Self::recycle).
    pub(in crate::net) fn take(&mut self) -> Option<Slot> {
        if self.lent() == self.slots.get() {
            return None;
        }
        // Acquire: what the kernel wrote before it gave us the slot is visible after this.
        let status = self.status(self.head).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let start = self.slot_offset(self.head);
        // SAFETY: the slot is inside the mapping, aligned for its header, and ours since the status was read: the kernel does not
        // write to it until it is given back.
        let header = unsafe { self.base.add(start).cast::<libc::tpacket2_hdr>().read() };
        self.head = self.head.wrapping_add(1);
        let mac = usize::from(header.tp_mac);
        let len = usize::try_from(header.tp_snaplen).unwrap_or(usize::MAX);
        // The kernel keeps a frame inside its slot; should it ever not, we see less of it and never beyond.
        let fits = len.min(FRAME_BYTES.saturating_sub(mac));
        Some(Slot {
            offset: u32::try_from(start + mac.min(FRAME_BYTES)).expect("a ring is below 4 GiB"),
            len: u16::try_from(fits).expect("less than a slot"),
            truncated: header.tp_len != header.tp_snaplen || fits != len,
            status,
            vlan_tci: header.tp_vlan_tci,
            wall_ns: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
        })
    }

    /// The bytes of a lent slot.
    ///
    /// # Panics
    /// When the slot is not lent, or the bytes would leave it.
    pub(in crate::net) fn bytes(&self, offset: u32, len: u16) -> &[u8] {
        let (start, len) = (usize::try_from(offset).expect("32 bits fit"), usize::from(len));
        let slot = u32::try_from(start / FRAME_BYTES).expect("fewer slots than bytes");
        let distance = slot.wrapping_sub(self.tail) & (self.slots.get() - 1);
        assert!(slot < self.slots.get() && distance < self.lent(), "a frame is read before it is recycled");
        assert!(start % FRAME_BYTES + len <= FRAME_BYTES, "a frame lies inside its slot");
        // SAFETY: the range is inside one slot of the mapping, and the slot is ours (asserted), so the kernel does not write to it.
        // `recycle` needs `&mut self`, so the bytes cannot go back while this borrow lives.
        unsafe { std::slice::from_raw_parts(self.base.add(start).as_ptr(), len) }
    }

    /// Gives all lent slots back to the kernel.
    pub(in crate::net) fn recycle(&mut self) {
        while self.tail != self.head {
            // Release: our last read of the slot is before the kernel's next write.
            self.status(self.tail).store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.tail = self.tail.wrapping_add(1);
        }
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        let bytes = usize::try_from(self.slots.get()).expect("32 bits fit") * FRAME_BYTES;
        // SAFETY: exactly the mapping made by `new`, which nothing borrows any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
    }
}
