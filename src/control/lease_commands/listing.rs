//! Listings: fetched in pages, printed as they come, with bounded memory whatever their length.
//!
//! Up to [`LISTING_BUFFER_BYTES_MAX`] octets a listing is gathered and answered as a whole. A longer one is sent as it is
//! fetched, no faster than the client reads. HTTP wants the length first (Kea's clients know no other way), so there a
//! long listing is measured in a first pass and sent in a second; the length announced has room for leases that appear in
//! between, filled up with blanks at the end. If even that room does not do, the connection is broken off: the client
//! sees an incomplete answer, never a short one that looks whole.

use std::io::Write as _;
use std::net::Ipv4Addr;

use crate::control::backend::{Completion, Order};
use crate::control::command::{Answer, RESULT_EMPTY, RESULT_SUCCESS};
use crate::control::lease_json;
use crate::ha::command::page::mark_untold;
use crate::ids::SubnetId;
use crate::lease::LeaseState;
use crate::lease::request::{LeaseFilter, LeaseReply, LeaseRequest};

/// Leases asked for at once.
pub const LISTING_PAGE_LEASES: u32 = 2000;
/// Longest listing that is answered as a whole.
pub const LISTING_BUFFER_BYTES_MAX: usize = 8 << 20;
/// No page is asked for while this much waits to be sent.
const OUTPUT_BYTES_HIGH: usize = 512 << 10;
/// The first three where answers of all clients together take much memory: see [`Listing::set_tight`].
const TIGHT: Limits = Limits { page_leases: 200, buffer_bytes_max: 64 << 10, output_bytes_high: 1 };
/// About what a lease on its way from the shards takes: two of them ask for a page each.
const PAGE_LEASE_BYTES: usize = 400;
/// Blanks are sent in pieces of this size.
const PADDING_PIECE_BYTES: u64 = 64 << 10;
/// Room for everything of the answer that is not a lease.
const FRAME_BYTES_MAX: u64 = 512;

/// The text of a listing's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingText {
    /// `N IPv4 lease(s) found.`
    Found,
    /// The same with state and subnet.
    State(LeaseState, Option<SubnetId>),
}

/// How far a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingProgress {
    /// Nothing can be sent before its length is known.
    Gathering,
    /// Its length is this many octets (`None`: the length is not known and not needed), more is to come.
    Sending(Option<u64>),
    /// Everything was handed over; the whole had this many octets.
    Finished(Option<u64>),
    /// It does not fit what was announced, or its pages do not come: the connection has to be broken off.
    Broken,
}

/// How much a listing holds at a time.
#[derive(Clone, Copy, Debug)]
struct Limits {
    page_leases: u32,
    buffer_bytes_max: usize,
    output_bytes_high: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everything is kept.
    Buffering,
    /// Only the length is kept.
    Measuring,
    /// Handed over as it comes.
    Streaming,
    /// All leases are there; the rest is blanks.
    Padding(u64),
    Finished,
    Broken,
}

/// A listing on its way.
#[derive(Clone, Debug)]
pub struct Listing {
    filter: LeaseFilter,
    text: ListingText,
    /// Whether `count` is a member of the answer.
    counted: bool,
    start: Ipv4Addr,
    limit: u32,
    needs_length: bool,
    phase: Phase,
    from: Ipv4Addr,
    left: u32,
    count: u64,
    asked: u32,
    /// Octets of leases so far, in this pass.
    lease_bytes: u64,
    announced: Option<u64>,
    /// Octets handed over.
    sent: u64,
    body: Vec<u8>,
    roomy: Limits,
    is_tight: bool,
    marks_untold: bool,
}

impl Listing {
    /// All leases of `filter`.
    #[must_use]
    pub const fn new(filter: LeaseFilter, text: ListingText) -> Self {
        Self {
            filter,
            text,
            counted: false,
            start: Ipv4Addr::UNSPECIFIED,
            limit: u32::MAX,
            needs_length: true,
            phase: Phase::Buffering,
            from: Ipv4Addr::UNSPECIFIED,
            left: u32::MAX,
            count: 0,
            asked: 0,
            lease_bytes: 0,
            announced: None,
            sent: 0,
            body: Vec::new(),
            roomy: Limits {
                page_leases: LISTING_PAGE_LEASES,
                buffer_bytes_max: LISTING_BUFFER_BYTES_MAX,
                output_bytes_high: OUTPUT_BYTES_HIGH,
            },
            is_tight: false,
            marks_untold: false,
        }
    }

    /// At most `limit` leases above `from` (`lease4-get-page`).
    #[must_use]
    pub const fn page(from: Ipv4Addr, limit: u32) -> Self {
        let mut listing = Self::new(LeaseFilter::All, ListingText::Found);
        listing.counted = true;
        listing.start = from;
        listing.from = from;
        listing.limit = limit;
        listing.left = limit;
        listing
    }

    /// Says whether the client has to know the length before the first octet (it does unless told otherwise).
    pub const fn set_needs_length(&mut self, needs_length: bool) {
        self.needs_length = needs_length;
    }

    /// Says whether leases that nobody was told of are marked.
    pub const fn set_marks_untold(&mut self, marks_untold: bool) {
        self.marks_untold = marks_untold;
    }

    /// Says whether memory is short: then little is gathered, pages are small, and the next one comes when the client has read the last.
    pub const fn set_tight(&mut self, is_tight: bool) {
        self.is_tight = is_tight;
    }

    /// Octets that are held here.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.body.len()
    }

    /// About how much memory the page takes that is on its way.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.asked as usize * PAGE_LEASE_BYTES
    }

    const fn limits(&self) -> Limits {
        if self.is_tight { TIGHT } else { self.roomy }
    }

    #[cfg(test)]
    const fn with_limits(mut self, page_leases: u32, buffer_bytes_max: usize) -> Self {
        self.roomy.page_leases = page_leases;
        self.roomy.buffer_bytes_max = buffer_bytes_max;
        self
    }

    /// The next page to order when one is wanted, given how many octets wait to be sent. Not to be called while one is ordered.
    pub fn next_order(&mut self, waiting_bytes: usize) -> Option<Order> {
        match self.phase {
            Phase::Buffering | Phase::Measuring => {}
            Phase::Streaming if self.body.len() + waiting_bytes < self.limits().output_bytes_high => {}
            _ => return None,
        }
        self.asked = self.left.min(self.limits().page_leases);
        Some(Order::Lease(LeaseRequest::List {
            from: self.from,
            limit: self.asked,
            filter: self.filter.clone(),
        }))
    }

    /// Takes the page that was ordered.
    pub fn take_page(&mut self, completion: &Completion) {
        let (leases, is_part) = match completion {
            Completion::Lease(LeaseReply::Leases(leases)) => (leases, false),
            Completion::Lease(LeaseReply::Part(leases)) => (leases, true),
            _ => {
                self.phase = Phase::Broken;
                return;
            }
        };
        for lease in leases.iter().take(usize::try_from(self.asked).unwrap_or(usize::MAX)) {
            let before = self.body.len();
            if self.count > 0 {
                self.body.extend_from_slice(b", ");
            }
            lease_json::print_dump(&lease.view(), &mut self.body);
            if self.marks_untold && lease.is_untold() {
                mark_untold(&mut self.body);
            }
            self.lease_bytes += (self.body.len() - before) as u64;
            self.count += 1;
            self.left -= 1;
            self.from = lease.view().address;
        }
        let is_short = !is_part && leases.len() < usize::try_from(self.asked).unwrap_or(usize::MAX);
        let ended = self.left == 0 || is_short;
        match self.phase {
            Phase::Buffering if ended => {
                let leases = std::mem::take(&mut self.body);
                let mut whole = Vec::with_capacity(leases.len() + 256);
                self.print_head(true, &mut whole);
                whole.extend_from_slice(&leases);
                self.print_tail(true, &mut whole);
                self.announced = Some(whole.len() as u64);
                self.body = whole;
                self.phase = Phase::Finished;
            }
            Phase::Buffering if self.body.len() > self.limits().buffer_bytes_max => {
                if self.needs_length {
                    self.body = Vec::new();
                    self.phase = Phase::Measuring;
                } else {
                    let leases = std::mem::take(&mut self.body);
                    let mut body = Vec::with_capacity(leases.len() + 64);
                    self.print_head(false, &mut body);
                    body.extend_from_slice(&leases);
                    self.body = body;
                    self.phase = Phase::Streaming;
                }
            }
            Phase::Buffering => {}
            Phase::Measuring => {
                self.body.clear();
                if ended {
                    self.restart();
                }
            }
            Phase::Streaming => self.stream(ended),
            Phase::Padding(_) | Phase::Finished | Phase::Broken => {}
        }
    }

    #[cfg(test)]
    fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    fn restart(&mut self) {
        let room = self.lease_bytes / 16 + (1 << 20);
        self.announced = Some(self.lease_bytes + room + FRAME_BYTES_MAX);
        self.from = self.start;
        self.left = self.limit;
        self.count = 0;
        self.lease_bytes = 0;
        self.phase = Phase::Streaming;
        let mut head = Vec::new();
        self.print_head(false, &mut head);
        self.body = head;
    }

    fn stream(&mut self, ended: bool) {
        let total = self.sent + self.body.len() as u64;
        if let Some(announced) = self.announced
            && total + FRAME_BYTES_MAX > announced
        {
            self.phase = Phase::Broken;
            return;
        }
        if !ended {
            return;
        }
        let Some(announced) = self.announced else {
            let mut tail = Vec::new();
            self.print_tail(false, &mut tail);
            self.body.extend_from_slice(&tail);
            self.phase = Phase::Finished;
            return;
        };
        let mut tail = Vec::new();
        self.print_tail(false, &mut tail);
        self.phase = Phase::Padding(announced - total - tail.len() as u64);
    }

    /// Moves what can be sent to `out`, never much at a time.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> ListingProgress {
        if let Phase::Buffering | Phase::Measuring = self.phase {
            return ListingProgress::Gathering;
        }
        if self.phase == Phase::Broken {
            return ListingProgress::Broken;
        }
        self.sent += self.body.len() as u64;
        if out.is_empty() {
            *out = std::mem::take(&mut self.body);
        } else {
            out.append(&mut self.body);
        }
        if let Phase::Padding(left) = self.phase {
            let piece = left.min(PADDING_PIECE_BYTES);
            let piece_bytes = usize::try_from(piece).unwrap_or(0);
            out.resize(out.len() + piece_bytes, b' ');
            self.sent += piece;
            if left > piece {
                self.phase = Phase::Padding(left - piece);
            } else {
                let before = out.len();
                self.print_tail(false, out);
                self.sent += (out.len() - before) as u64;
                self.phase = Phase::Finished;
            }
        }
        if self.phase == Phase::Finished {
            ListingProgress::Finished(self.announced)
        } else {
            ListingProgress::Sending(self.announced)
        }
    }

    fn print_head(&self, whole: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{ \"arguments\": { ");
        if self.counted && whole {
            // Writing to a vector cannot fail.
            let _ = write!(out, "\"count\": {}, ", self.count);
        }
        out.extend_from_slice(b"\"leases\": [ ");
    }

    fn print_tail(&self, whole: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b" ]");
        if self.counted && !whole {
            let _ = write!(out, ", \"count\": {}", self.count);
        }
        out.extend_from_slice(b" }");
        let count = self.count;
        let text = match self.text {
            ListingText::Found => format!("{count} IPv4 lease(s) found."),
            ListingText::State(state, subnet) => {
                let mut text = format!("{count} IPv4 lease(s) found with state {state} ({})", state.number());
                if let Some(subnet) = subnet {
                    text.push_str(&format!(" in subnet {}", subnet.0));
                }
                text.push('.');
                text
            }
        };
        let answer = Answer::new(if count == 0 { RESULT_EMPTY } else { RESULT_SUCCESS }, text);
        let printed = answer.to_printed();
        // The answer without its opening brace continues the map.
        out.extend_from_slice(b", ");
        out.extend_from_slice(printed.strip_prefix(b"{ ").unwrap_or(&printed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::json;
    use crate::ids::HwAddr;
    use crate::lease::{Lease4, Lease4Buf};

    fn lease(number: u32) -> Lease4Buf {
        // All of them are one client's.
        Lease4 {
            hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, 1]),
            ..Lease4::sample(Ipv4Addr::from(0x0a00_0000 + number))
        }
        .to_owned()
    }

    /// Runs a listing over `leases`; `grown` appears when the second pass begins.
    fn run(mut listing: Listing, leases: &[Lease4Buf], grown: &[Lease4Buf]) -> (Vec<u8>, ListingProgress) {
        let mut out = Vec::new();
        let mut all = leases.to_vec();
        let mut grown = Some(grown);
        loop {
            let progress = listing.drain(&mut out);
            match progress {
                ListingProgress::Finished(_) | ListingProgress::Broken => return (out, progress),
                ListingProgress::Sending(Some(_)) => all.extend_from_slice(grown.take().unwrap_or_default()),
                _ => {}
            }
            if let Some(Order::Lease(LeaseRequest::List { from, limit, .. })) = listing.next_order(0) {
                let page = all
                    .iter()
                    .filter(|lease| lease.view().address > from)
                    .take(usize::try_from(limit).expect("small"))
                    .cloned();
                listing.take_page(&Completion::Lease(LeaseReply::Leases(page.collect())));
            }
        }
    }

    fn check(out: &[u8], count: usize) {
        let answer = json::parse(out).expect("JSON");
        assert_eq!(answer["arguments"]["leases"].as_array().expect("a list").len(), count);
        assert_eq!(answer["text"], format!("{count} IPv4 lease(s) found."));
        assert_eq!(answer["result"], if count == 0 { 3 } else { 0 });
    }

    #[test]
    fn part_of_a_page_is_not_the_end() {
        let mut listing = Listing::new(LeaseFilter::All, ListingText::Found);
        let mut order = listing.next_order(0);
        for (first, is_part) in [(1, true), (4, true), (7, false)] {
            let Some(Order::Lease(LeaseRequest::List { from, .. })) = order else { panic!("{order:?}") };
            assert!(from == Ipv4Addr::from(0x0a00_0000 + first - 1) || first == 1 && from.is_unspecified());
            let leases = (first..first + 3).map(lease).collect();
            let reply = if is_part { LeaseReply::Part(leases) } else { LeaseReply::Leases(leases) };
            listing.take_page(&Completion::Lease(reply));
            order = listing.next_order(0);
        }
        let mut out = Vec::new();
        assert!(order.is_none() && matches!(listing.drain(&mut out), ListingProgress::Finished(_)));
        check(&out, 9);
    }

    #[test]
    fn listing_holds_little_where_memory_is_short() {
        let leases: Vec<Lease4Buf> = (1..=5000).map(lease).collect();
        for needs_length in [false, true] {
            let mut listing = Listing::new(LeaseFilter::All, ListingText::Found);
            listing.set_needs_length(needs_length);
            listing.set_tight(true);
            let (mut out, mut held_max) = (Vec::new(), 0);
            loop {
                match listing.drain(&mut out) {
                    ListingProgress::Finished(_) => break,
                    progress => assert_ne!(progress, ListingProgress::Broken),
                }
                assert!(
                    !listing.is_streaming() || listing.next_order(1).is_none(),
                    "the client has to read first"
                );
                let Some(Order::Lease(LeaseRequest::List { from, limit, .. })) = listing.next_order(0) else {
                    continue;
                };
                let page = leases.iter().filter(|lease| lease.view().address > from);
                let page = page.take(usize::try_from(limit).expect("small")).cloned();
                listing.take_page(&Completion::Lease(LeaseReply::Leases(page.collect())));
                held_max = held_max.max(listing.held_bytes());
            }
            check(&out, leases.len());
            assert!(held_max < 256 << 10, "{held_max} octets are held");
        }
    }

    #[test]
    fn short_listings_are_keas_to_the_octet() {
        let (out, _) = run(Listing::page(Ipv4Addr::UNSPECIFIED, 5), &[], &[]);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{ \"arguments\": { \"count\": 0, \"leases\": [  ] }, \"result\": 3, \"text\": \"0 IPv4 lease(s) found.\" }"
        );
    }

    #[test]
    fn every_page_size_and_count_gives_every_lease_once() {
        for count in [0, 1, 2, 3, 4, 5, 6, 7] {
            let leases: Vec<Lease4Buf> = (1..=count).map(lease).collect();
            for page_leases in [1, 2, 3, 10] {
                for buffer_bytes_max in [0, 300, 1 << 20] {
                    for needs_length in [false, true] {
                        let mut listing = Listing::new(LeaseFilter::All, ListingText::Found)
                            .with_limits(page_leases, buffer_bytes_max);
                        listing.set_needs_length(needs_length);
                        let (out, progress) = run(listing, &leases, &[]);
                        check(&out, leases.len());
                        if let ListingProgress::Finished(Some(announced)) = progress {
                            assert_eq!(announced, out.len() as u64);
                        } else {
                            assert!(!needs_length);
                        }
                    }
                    let listing =
                        Listing::page(Ipv4Addr::UNSPECIFIED, 4).with_limits(page_leases, buffer_bytes_max);
                    let (out, _) = run(listing, &leases, &[]);
                    check(&out, leases.len().min(4));
                    assert_eq!(json::parse(&out).expect("JSON")["arguments"]["count"], leases.len().min(4));
                }
            }
        }
    }

    #[test]
    fn leases_that_appear_after_measuring_fit_or_break_the_answer_but_never_shorten_it() {
        let leases: Vec<Lease4Buf> = (1..=100).map(lease).collect();
        let some: Vec<Lease4Buf> = (101..=200).map(lease).collect();
        let listing = || Listing::new(LeaseFilter::All, ListingText::Found).with_limits(10, 100);
        let (out, progress) = run(listing(), &leases, &some);
        check(&out, 200);
        assert_eq!(progress, ListingProgress::Finished(Some(out.len() as u64)));
        let many: Vec<Lease4Buf> = (101..=20_000).map(lease).collect();
        assert_eq!(run(listing(), &leases, &many).1, ListingProgress::Broken);
    }

    #[test]
    fn a_slow_reader_stops_the_pages() {
        let mut listing = Listing::new(LeaseFilter::All, ListingText::Found).with_limits(10, 0);
        listing.set_needs_length(false);
        assert!(listing.next_order(0).is_some());
        listing.take_page(&Completion::Lease(LeaseReply::Leases((1..=10).map(lease).collect())));
        assert!(listing.next_order(OUTPUT_BYTES_HIGH).is_none());
        assert!(listing.next_order(0).is_some());
    }
}
