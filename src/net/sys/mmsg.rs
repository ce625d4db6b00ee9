//! Many datagrams or frames in one system call.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::net::{BATCH_MAX, FRAME_BYTES, SendReport};

/// Room for the control messages of one datagram (packet information, time of arrival), with the alignment they need.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Control([u8; 96]);

/// All-zero, which is a valid value of every structure used here: integers and null pointers.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used in this file for `mmsghdr`, `iovec`, `sockaddr_in`, `Control`: integers, byte arrays and raw pointers.
    unsafe { std::mem::zeroed() }
}

/// Something to send.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Outgoing<'a> {
    pub(in crate::net) bytes: &'a [u8],
    /// Where to, for a socket that is not bound to its destination.
    pub(in crate::net) to: Option<SocketAddrV4>,
    /// Source address and interface index of a datagram; unspecified and 0 leave the choice to the kernel.
    pub(in crate::net) from: (Ipv4Addr, u32),
}

/// The structures of one `sendmmsg`, kept between calls. Their pointers are set anew by each call and mean nothing after it.
pub(in crate::net) struct Sender {
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

// SAFETY: the pointers inside are only used during a call of `send`, which has `&mut self` and sets all of them first.
unsafe impl Send for Sender {}

impl std::fmt::Debug for Sender {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sender")
    }
}

impl Sender {
    pub(in crate::net) fn new() -> Self {
        Self {
            headers: vec![zeroed::<libc::mmsghdr>(); BATCH_MAX].into_boxed_slice(),
            parts: vec![zeroed::<libc::iovec>(); BATCH_MAX].into_boxed_slice(),
            addresses: vec![zeroed::<libc::sockaddr_in>(); BATCH_MAX].into_boxed_slice(),
            controls: vec![zeroed::<Control>(); BATCH_MAX].into_boxed_slice(),
        }
    }

    /// Sends all of `frames` in order, at most a batch at a time, without blocking.
    pub(in crate::net) fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: impl Iterator<Item = Outgoing<'a>>,
    ) -> SendReport {
        let mut report = SendReport::default();
        let mut frames = frames.peekable();
        while frames.peek().is_some() {
            let mut count = 0;
            for frame in frames.by_ref().take(BATCH_MAX) {
                self.fill(count, &frame);
                count += 1;
            }
            // The byte slices filled in live as long as `'a`, which outlives this call.
            report.add(&self.flush(fd, count));
        }
        report
    }

    fn fill(&mut self, index: usize, frame: &Outgoing<'_>) {
        let part = &mut self.parts[index];
        // The kernel only reads what is sent.
        part.iov_base = frame.bytes.as_ptr().cast_mut().cast();
        part.iov_len = frame.bytes.len();
        let header = &mut self.headers[index].msg_hdr;
        *header = zeroed();
        header.msg_iov = ptr::from_mut(part);
        header.msg_iovlen = 1;
        let Some(to) = frame.to else { return };
        let address = &mut self.addresses[index];
        *address = ipv4_address(to);
        header.msg_name = ptr::from_mut(address).cast();
        header.msg_namelen = ADDRESS_BYTES;
        let (source, interface) = frame.from;
        if source.is_unspecified() && interface == 0 {
            return;
        }
        let info = libc::in_pktinfo {
            ipi_ifindex: libc::c_int::try_from(interface).unwrap_or(0),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let control = &mut self.controls[index];
        header.msg_control = ptr::from_mut(control).cast();
        // SAFETY: `CMSG_SPACE` only computes; the control buffer is larger than one packet information (asserted below), aligned, and
        // `CMSG_FIRSTHDR`/`CMSG_DATA` stay inside the length just given.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(PKTINFO_BYTES) as usize;
            assert!(header.msg_controllen <= size_of::<Control>(), "packet information fits its buffer");
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = libc::IPPROTO_IP;
            (*message).cmsg_type = libc::IP_PKTINFO;
            (*message).cmsg_len = libc::CMSG_LEN(PKTINFO_BYTES) as usize;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast::<libc::in_pktinfo>(), info);
        }
    }

    fn flush(&mut self, fd: BorrowedFd<'_>, count: usize) -> SendReport {
        let mut report = SendReport::default();
        let mut start = 0;
        while start < count {
            let left = &mut self.headers[start..count];
            let len = u32::try_from(left.len()).expect("a batch is small");
            // SAFETY: `left` are initialised headers whose parts, addresses and control buffers were set by `fill` in this very call of
            // `send` and are still borrowed by it.
            let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), left.as_mut_ptr(), len, libc::MSG_DONTWAIT) };
            if let Ok(sent @ 1..) = u32::try_from(sent) {
                report.sent += sent;
                start += usize::try_from(sent).expect("a batch is small");
                continue;
            }
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            match errno {
                libc::EINTR => continue,
                // The socket's queue is full: so it is for the rest of the batch.
                libc::EAGAIN => {
                    report.full += len;
                    report.errno = errno;
                    return report;
                }
                // The device's queue refused this one.
                libc::ENOBUFS => report.full += 1,
                _ => report.failed += 1,
            }
            report.errno = errno;
            start += 1;
        }
        report
    }
}

/// What the kernel says about a received datagram.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Incoming {
    pub(in crate::net) from: SocketAddrV4,
    /// The destination in the IP header; unspecified when the kernel did not say.
    pub(in crate::net) to: Ipv4Addr,
    pub(in crate::net) len: usize,
    pub(in crate::net) truncated: bool,
    /// Time of arrival; 0 when the kernel did not say.
    pub(in crate::net) wall_ns: u64,
}

/// Buffers for a batch of datagrams, with room for headers before each.
pub(in crate::net) struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    bytes: Box<[u8]>,
    headroom: usize,
}

// SAFETY: the pointers inside are only used during a call of `recv`, which has `&mut self` and sets all of them first.
unsafe impl Send for Receiver {}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Receiver")
    }
}

impl Receiver {
    /// `count` buffers of [`FRAME_BYTES`] whose first `headroom` bytes the kernel leaves alone.
    pub(in crate::net) fn new(headroom: usize, count: usize) -> Self {
        assert!(headroom < FRAME_BYTES, "there is room for the datagram itself");
        Self {
            headers: vec![zeroed::<libc::mmsghdr>(); count].into_boxed_slice(),
            parts: vec![zeroed::<libc::iovec>(); count].into_boxed_slice(),
            addresses: vec![zeroed::<libc::sockaddr_in>(); count].into_boxed_slice(),
            controls: vec![zeroed::<Control>(); count].into_boxed_slice(),
            bytes: vec![0; count * FRAME_BYTES].into_boxed_slice(),
            headroom,
        }
    }

    /// A whole buffer, headroom included.
    pub(in crate::net) fn buffer(&self, index: usize) -> &[u8] {
        &self.bytes[index * FRAME_BYTES..(index + 1) * FRAME_BYTES]
    }

    pub(in crate::net) fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * FRAME_BYTES..(index + 1) * FRAME_BYTES]
    }

    /// Receives into the buffers from `first` on, at most `room` of them, without blocking. Nothing waiting is 0.
    pub(in crate::net) fn recv(
        &mut self,
        fd: BorrowedFd<'_>,
        first: usize,
        room: usize,
    ) -> io::Result<usize> {
        let end = (first + room).min(self.headers.len());
        if first >= end {
            return Ok(0);
        }
        for (index, buffer) in self.bytes.chunks_exact_mut(FRAME_BYTES).enumerate().take(end).skip(first) {
            let payload = &mut buffer[self.headroom..];
            self.parts[index] = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
            let header = &mut self.headers[index].msg_hdr;
            *header = zeroed();
            header.msg_name = ptr::from_mut(&mut self.addresses[index]).cast();
            header.msg_namelen = ADDRESS_BYTES;
            header.msg_iov = ptr::from_mut(&mut self.parts[index]);
            header.msg_iovlen = 1;
            header.msg_control = ptr::from_mut(&mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
        }
        let headers = &mut self.headers[first..end];
        let len = u32::try_from(headers.len()).expect("a batch is small");
        // SAFETY: every header was just set to buffers that this value owns, with their true lengths; no time limit is given.
        let got = unsafe {
            libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), len, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        if let Ok(got) = usize::try_from(got) {
            return Ok(got);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        }
    }

    /// What the kernel said about the datagram in a buffer that the last `recv` filled.
    pub(in crate::net) fn incoming(&self, index: usize) -> Incoming {
        let header = &self.headers[index];
        let address = self.addresses[index];
        let mut answer = Incoming {
            from: SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)),
                u16::from_be(address.sin_port),
            ),
            to: Ipv4Addr::UNSPECIFIED,
            len: usize::try_from(header.msg_len).expect("32 bits fit"),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            wall_ns: 0,
        };
        // SAFETY: the kernel has filled the control buffer, which is ours, up to `msg_controllen`; the macros walk inside that length,
        // and each payload is read unaligned in the type that its level and number stand for.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
            while !message.is_null() {
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in_pktinfo>());
                        answer.to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let time = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::timespec>());
                        answer.wall_ns = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
                            + u64::try_from(time.tv_nsec).unwrap_or(0);
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(&raw const header.msg_hdr, message);
            }
        }
        answer
    }
}

const PKTINFO_BYTES: u32 = 12;
const ADDRESS_BYTES: libc::socklen_t = 16;
const _: () = assert!(size_of::<libc::in_pktinfo>() == PKTINFO_BYTES as usize, "the kernel's layout");
const _: () = assert!(size_of::<libc::sockaddr_in>() == ADDRESS_BYTES as usize, "the kernel's layout");

fn ipv4_address(to: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: u16::try_from(libc::AF_INET).expect("an address family fits 16 bits"),
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
