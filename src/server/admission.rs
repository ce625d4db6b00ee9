//! What an overloaded shard serves: who is behind, for how long, and a fair choice among what waits.
//!
//! Pure: frames come as [`Glance`]s, time as an argument. Three rules, each for a longer or worse overload than the one before, so
//! that a burst is queued and served, not shed:
//!
//! 1. Always: a ring that is full drops DISCOVERs before anything else, in the kernel (`net::packet`). A client with an offer or a
//!    lease comes before one that asks for an offer: the work spent on the first is lost otherwise.
//! 2. Full batches of frames that have waited [`PATIENCE_NS`], and this for as long again: DISCOVERs that have waited so long are
//!    dropped unread. Their offers would come when the clients have asked again (RFC 2131 4.1: after some four seconds, less for
//!    impatient ones) and the queue would stay as long as it is.
//! 3. More than [`CROWDED_TURNS`] full batches in a row with a port at least half full, and more than one relay or interface (or,
//!    where a port has one queue for all, both kinds of messages) among them: each batch is chosen from a window of
//!    [`WINDOW_MAX`] frames, REQUESTs before DISCOVERs, an equal share for each relay. What is not chosen is dropped: this empties the
//!    port faster than one client group can fill it, so that the frames of others are not dropped before they are looked at.

use crate::net::{BATCH_MAX, DISCOVER_PART, WINDOW_MAX};

/// How long an overloaded server keeps a DISCOVER waiting at most.
pub const PATIENCE_NS: u64 = 250_000_000;
/// Full batches in a row, with a port at least half full after each, before frames are chosen: as many as a port of the usual size
/// holds, so that a burst that fits a port is served whole.
pub const CROWDED_TURNS: u32 = 32;
/// Crowded batches after the last one with frames of several relays or kinds for which frames are still chosen.
const MIXED_TURNS: u32 = 256;
/// Ethernet, and UDP.
const ETHER_BYTES: usize = 14;
const UDP_BYTES: usize = 8;
/// Where `giaddr` and the first option stand in a message (RFC 2131 figure 1).
const GIADDR_OFFSET: usize = 24;
const OPTIONS_OFFSET: usize = 240;
/// Option 53 of a DISCOVER.
const DISCOVER: [u8; 3] = [53, 1, 1];

/// What is seen of a frame before it is parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The interface and the relay that it came through.
    pub source: u64,
    /// Whether it is a DISCOVER, as far as the first option tells.
    pub is_discover: bool,
}

impl Glance {
    /// A glance at a frame of an interface. Every byte sequence has one.
    #[must_use]
    pub fn at(bytes: &[u8], interface: u16) -> Self {
        let header = bytes.get(ETHER_BYTES).map_or(0, |octet| 4 * usize::from(octet & 0xf));
        let message = bytes.get(ETHER_BYTES + header + UDP_BYTES..).unwrap_or_default();
        let giaddr = message.get(GIADDR_OFFSET..).and_then(<[u8]>::first_chunk);
        let giaddr = giaddr.map_or(0, |octets| u32::from_be_bytes(*octets));
        Self {
            source: u64::from(interface) << 32 | u64::from(giaddr),
            is_discover: message.get(OPTIONS_OFFSET..).is_some_and(|options| options.starts_with(&DISCOVER)),
        }
    }
}

/// Why a frame is not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// It is a DISCOVER, and others come first.
    Discover,
    /// Its relay or interface has had its share.
    Share,
}

/// What one shard remembers of its overload.
#[derive(Debug)]
pub struct Admission {
    /// Since when full batches have been late.
    behind_since_ns: Option<u64>,
    crowded: u32,
    mixed: u32,
    /// Who is given to first: turns with each choice.
    first: usize,
    /// Sources of the frames of one kind with their positions, and where each source's part begins.
    order: Box<[(u64, usize)]>,
    parts: Box<[(usize, usize)]>,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

impl Admission {
    /// No overload. Allocates.
    #[must_use]
    pub fn new() -> Self {
        Self {
            behind_since_ns: None,
            crowded: 0,
            mixed: 0,
            first: 0,
            order: vec![(0, 0); WINDOW_MAX].into_boxed_slice(),
            parts: vec![(0, 0); WINDOW_MAX].into_boxed_slice(),
        }
    }

    /// Notes how long the oldest frame of a batch has waited; whether DISCOVERs as old as [`PATIENCE_NS`] are to be dropped.
    pub fn is_behind(&mut self, is_full: bool, oldest_age_ns: u64, now_ns: u64) -> bool {
        if !is_full || oldest_age_ns < PATIENCE_NS {
            self.behind_since_ns = None;
            return false;
        }
        now_ns.saturating_sub(*self.behind_since_ns.get_or_insert(now_ns)) >= PATIENCE_NS
    }

    /// Notes a batch, `crowded` telling whether it was full and as much again waits; whether the next frames are worth a look
    /// ([`is_mixed`](Self::is_mixed)).
    pub const fn is_overloaded(&mut self, crowded: bool) -> bool {
        if crowded {
            self.crowded = self.crowded.saturating_add(1);
        } else {
            self.crowded = 0;
            self.mixed = 0;
        }
        self.crowded > CROWDED_TURNS
    }

    /// Whether a choice among frames like these would be more than dropping some of them: they come from several sources, or are
    /// of both kinds in one queue.
    pub fn is_mixed(&mut self, glances: impl Iterator<Item = Glance>) -> bool {
        let mut before: Option<Glance> = None;
        for glance in glances {
            // A port that keeps DISCOVERs apart puts them last.
            if before.is_some_and(|before| {
                before.source != glance.source || (before.is_discover && !glance.is_discover)
            }) {
                self.mixed = MIXED_TURNS;
                break;
            }
            before = Some(glance);
        }
        let is_mixed = self.mixed > 0;
        self.mixed = self.mixed.saturating_sub(1);
        is_mixed
    }

    /// Chooses [`BATCH_MAX`] of the frames at most; `shed` hears of the others.
    pub fn choose(
        &mut self,
        glances: &[Glance],
        chosen: &mut [bool; WINDOW_MAX],
        mut shed: impl FnMut(usize, Shed),
    ) {
        chosen.fill(false);
        self.first = self.first.wrapping_add(1);
        let discovers = glances.iter().filter(|glance| glance.is_discover).count();
        let others = glances.len() - discovers;
        let kept = discovers.min(BATCH_MAX / DISCOVER_PART);
        let given = self.share(glances, false, BATCH_MAX - kept, chosen);
        self.share(glances, true, BATCH_MAX - given, chosen);
        let has_sources = glances.windows(2).any(|pair| pair[0].source != pair[1].source);
        for (index, glance) in glances.iter().enumerate().filter(|(index, _)| !chosen[*index]) {
            let over =
                if glance.is_discover && (others > 0 || !has_sources) { Shed::Discover } else { Shed::Share };
            shed(index, over);
        }
    }

    /// Gives `room` places to the frames of one kind: one to each source in turn, its oldest frame first. How many were given.
    fn share(
        &mut self,
        glances: &[Glance],
        is_discover: bool,
        room: usize,
        chosen: &mut [bool; WINDOW_MAX],
    ) -> usize {
        let mut count = 0;
        for (index, glance) in
            glances.iter().enumerate().filter(|(_, glance)| glance.is_discover == is_discover)
        {
            self.order[count] = (glance.source, index);
            count += 1;
        }
        let order = &mut self.order[..count];
        order.sort_unstable();
        let mut sources = 0;
        for place in 0..count {
            if place > 0 && order[place].0 == order[place - 1].0 {
                self.parts[sources - 1].1 += 1;
            } else {
                self.parts[sources] = (place, place + 1);
                sources += 1;
            }
        }
        let mut given = 0;
        while given < room.min(count) {
            for turn in 0..sources {
                let (next, end) = &mut self.parts[(self.first + turn) % sources];
                if *next < *end && given < room {
                    chosen[order[*next].1] = true;
                    *next += 1;
                    given += 1;
                }
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn glance(source: u64, is_discover: bool) -> Glance {
        Glance { source, is_discover }
    }

    /// Which frames are chosen, and why the others are not.
    fn choose(glances: &[Glance]) -> (Vec<usize>, Vec<(usize, Shed)>) {
        let (mut chosen, mut shed) = ([false; WINDOW_MAX], Vec::new());
        Admission::new().choose(glances, &mut chosen, |index, why| shed.push((index, why)));
        ((0..glances.len()).filter(|index| chosen[*index]).collect(), shed)
    }

    #[test]
    fn requests_come_before_discovers_and_leave_them_a_part() {
        let mut glances = vec![glance(0, true); 200];
        glances.extend([glance(0, false); 40]);
        let (chosen, shed) = choose(&glances);
        assert_eq!(chosen.len(), BATCH_MAX);
        assert!((200..240).all(|index| chosen.contains(&index)), "every REQUEST");
        assert!((0..24).all(|index| chosen.contains(&index)), "the oldest DISCOVERs in what is left");
        assert!(shed.iter().all(|(_, why)| *why == Shed::Discover));
        let mut glances = vec![glance(0, true); 50];
        glances.extend([glance(0, false); 200]);
        let (chosen, _) = choose(&glances);
        assert_eq!(chosen.iter().filter(|index| **index < 50).count(), BATCH_MAX / DISCOVER_PART);
        assert_eq!(chosen.len(), BATCH_MAX);
    }

    #[test]
    fn relay_that_floods_leaves_the_others_what_they_ask_for() {
        let mut glances = vec![glance(1, true); 240];
        glances.extend([glance(2, true); 10]);
        glances.extend([glance(3, true); 6]);
        let (chosen, shed) = choose(&glances);
        assert!((240..256).all(|index| chosen.contains(&index)), "all of the modest relays");
        assert_eq!((chosen.len(), shed.len()), (64, 192));
        assert!(shed.iter().all(|(_, why)| *why == Shed::Share));
    }

    #[test]
    fn more_relays_than_places_take_turns() {
        let glances: Vec<Glance> = (0..256).map(|source| glance(source, true)).collect();
        let mut admission = Admission::new();
        let mut times = [0_u32; WINDOW_MAX];
        for _ in 0..256 {
            let mut chosen = [false; WINDOW_MAX];
            admission.choose(&glances, &mut chosen, |_, _| {});
            for (count, _) in times.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen) {
                *count += 1;
            }
        }
        assert!(times.iter().all(|count| *count == 64), "{times:?}");
    }

    proptest! {
        #[test]
        fn choice_is_full_fair_and_complete(
            frames in proptest::collection::vec((0..5_u64, any::<bool>()), 0..=WINDOW_MAX)
        ) {
            let glances: Vec<Glance> = frames.iter().map(|(source, kind)| glance(*source, *kind)).collect();
            let (chosen, shed) = choose(&glances);
            prop_assert_eq!(chosen.len(), glances.len().min(BATCH_MAX));
            prop_assert_eq!(chosen.len() + shed.len(), glances.len());
            for is_discover in [false, true] {
                let count = |source: u64, among: &[usize]| {
                    among.iter().filter(|index| glances[**index] == glance(source, is_discover)).count()
                };
                let all: Vec<usize> = (0..glances.len()).collect();
                for one in 0..5 {
                    for other in 0..5 {
                        let (mine, wanted) = (count(one, &chosen), count(one, &all));
                        let fair = mine == wanted || mine + 1 >= count(other, &chosen);
                        prop_assert!(fair, "{mine} of {wanted} where another has {}", count(other, &chosen));
                    }
                }
            }
        }

        #[test]
        fn every_frame_can_be_glanced_at(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Glance::at(&bytes, 7);
        }
    }

    #[test]
    fn glance_sees_relay_and_kind_behind_ip_options() {
        for words in 5..=15_u8 {
            let mut bytes = vec![0; 14 + 4 * usize::from(words) + 8 + 244];
            bytes[14] = 0x40 | words;
            let message = 14 + 4 * usize::from(words) + 8;
            bytes[message + 24..message + 28].copy_from_slice(&[192, 0, 2, 1]);
            bytes[message + 240..message + 243].copy_from_slice(&[53, 1, 1]);
            assert_eq!(Glance::at(&bytes, 3), glance(0x0003_c000_0201, true));
            bytes[message + 242] = 3;
            assert_eq!(Glance::at(&bytes, 3), glance(0x0003_c000_0201, false));
        }
    }

    #[test]
    fn stall_is_no_overload_and_a_queue_that_stays_is() {
        let mut admission = Admission::new();
        let late = 2 * PATIENCE_NS;
        assert!(!admission.is_behind(true, late, 1_000), "first seen late");
        assert!(!admission.is_behind(true, late, PATIENCE_NS), "not for long");
        assert!(!admission.is_behind(true, PATIENCE_NS - 1, PATIENCE_NS + 500), "worked off");
        assert!(!admission.is_behind(true, late, 2 * PATIENCE_NS));
        assert!(admission.is_behind(true, late, 3 * PATIENCE_NS), "late all the time");
        assert!(!admission.is_behind(false, late, 3 * PATIENCE_NS + 1), "a batch that is not full ends it");
    }

    #[test]
    fn burst_is_no_overload_and_a_crowd_of_one_kind_is_not_chosen_among() {
        let mut admission = Admission::new();
        assert!((0..CROWDED_TURNS).all(|_| !admission.is_overloaded(true)));
        assert!(admission.is_overloaded(true));
        assert!(!admission.is_mixed([glance(0, false), glance(0, true), glance(0, true)].into_iter()));
        assert!(admission.is_mixed([glance(0, true), glance(0, false)].into_iter()), "one queue for both");
        assert!(admission.is_mixed([glance(0, true)].into_iter()), "for a while");
        assert!(!admission.is_overloaded(false));
        assert!(!admission.is_mixed([glance(0, true)].into_iter()), "it is over");
        assert!(admission.is_mixed([glance(1, true), glance(2, true)].into_iter()), "two relays");
    }
}
