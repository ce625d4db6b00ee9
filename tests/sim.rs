//! The simulator: whole servers, the code that runs in production, and many clients in one thread, in virtual time, from one seed.
//!
//! `APLOMADO_SIM_SEEDS=N` runs N seeds, from `APLOMADO_SIM_FIRST` on; `scripts/sim SEED` plays one again and tells what happens.

mod sim {
    mod checks;
    pub(crate) mod client;
    pub(crate) mod defect;
    #[path = "../scenario/packet.rs"]
    #[expect(dead_code, reason = "other tests say more with it")]
    pub(crate) mod packet;
    pub(crate) mod random;
    pub(crate) mod server;
    mod storm;
    mod texts;
    pub(crate) mod world;
}

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::defect::Defect;
use sim::random::S;
use sim::world::{Seen, Trace, World};

/// Seeds of one ordinary run.
const SEEDS: u64 = 1000;
/// Seeds in which a fault that was put in must be noticed.
const DEFECT_SEEDS: u64 = 100;
/// How long faults last.
const STORM: u64 = 45 * S;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One seed from start to rest.
fn play(seed: u64, trace: Trace) -> Seen {
    play_out(World::new(seed, trace))
}

fn play_out(mut world: World) -> Seen {
    world.storm(STORM / 3);
    world.lull();
    world.storm(STORM / 3);
    world.lull();
    world.storm(STORM / 3);
    world.settle();
    world.seen
}

#[test]
fn whatever_happens_nothing_that_must_not_be_is_and_then_all_is_well() {
    if let Some(seed) = number("APLOMADO_SIM_SEED") {
        play(seed, Trace::Told);
        return;
    }
    let (first, count) =
        (number("APLOMADO_SIM_FIRST").unwrap_or(1), number("APLOMADO_SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let (failed, total) = (Mutex::new(BTreeSet::new()), Mutex::new(Seen::default()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| play(seed, Trace::Off))) {
                        Ok(seen) => {
                            let mut total = total.lock().expect("no panic");
                            total.acks += seen.acks;
                            total.crashes += seen.crashes;
                            total.twins += seen.twins;
                            total.compared += seen.compared;
                            total.known += seen.known;
                            total.states.extend(seen.states);
                        }
                        Err(_) => {
                            println!("seed {seed} fails: scripts/sim {seed}");
                            failed.lock().expect("no panic").insert(seed);
                        }
                    }
                }
            });
        }
    });
    let (failed, total) = (failed.into_inner().expect("no panic"), total.into_inner().expect("no panic"));
    println!("{count} seeds from {first}: {total:?}");
    assert!(failed.is_empty(), "{} of {count} seeds fail: {failed:?}", failed.len());
    assert!(total.acks > 20 * count, "the clients hardly get anything");
    assert!(total.compared > count && total.known > 10 * count, "tables are hardly ever compared");
}

/// Seeds that have shown something wrong, and what. A change of the simulator changes their stories; they are played all the same.
const FOUND: [(u64, &str); 37] = [
    (300, "reported once: a lease that the partner had refused was acknowledged again from the cache"),
    (1417, "a lease and its release in one bulk: the answer leaves when the partner has both"),
    (4215, "a change of a backlog that was given up was sent over a newer one"),
    (7685, "the same"),
    (10111, "a lease that was lent before the clock was set back was renewed and its address given away"),
    (10202, "what a lost disk took was known to the partner alone, which brings it back only when it copies"),
    (11708, "a change that was not answered was sent again over a newer one of the backlog"),
    (
        16574,
        "a change of a backlog that was given up was sent over a newer one, seconds after the pair was normal",
    ),
    (
        28107,
        "a server that serves alone was told of a lease, and its client gave it back before the teller heard so",
    ),
    (1432, "a lease that nobody was told of replaced one that was told"),
    (
        1575,
        "a lease that was answered from the cache by a server alone was older than its release at the other one",
    ),
    (
        1627,
        "two servers that started at one moment numbered their commands alike, and a backup took one's for late",
    ),
    (1706, "a change of the backlog was sent over what the partner had brought"),
    (1715, "a partner of ours that had not said what it takes was taken for a Kea for good"),
    (
        1794,
        "a notice that a copy is complete came when the hold on the service was over, and what was given since was forgotten",
    ),
    (2734, "a reset that came to the same state made forget that the partner's copy was an old one"),
    (
        107077,
        "a server that had lost its leases went on without those that its partner had copied in a life before",
    ),
    (
        108760,
        "a late numbered command went over a newer one of Kea's form, sent because the partner was being asked again",
    ),
    (
        207054,
        "a partner of ours that said an error when it was asked what it takes was taken for a Kea for good",
    ),
    (
        207882,
        "a server went on without bringing what it gave alone in a life before to a partner that had stayed ready",
    ),
    (209035, "a release that was under way before a copy was sent again over the lease that followed"),
    (301975, "the same as 207882"),
    (410525, "two leases of one address and one second, for different times, stayed different"),
    (
        411641,
        "a release that was on its way for long went over the lease that was copied from its sender meanwhile",
    ),
    (415130, "a release that a partner made late went over the lease that the other had given alone since"),
    (
        430323,
        "what was under way when a server went on alone was not brought to a partner that had stayed ready",
    ),
    (
        534180,
        "that a client had given its address back, read late, ended the lease that another client got of it since",
    ),
    (
        559804,
        "a state that a reset led to was entered after a hold on the service had begun, and served all the same",
    ),
    (604302, "a partner that had been waiting before its copy was taken for one that would copy again"),
    (604418, "a release that was read late ended the lease that another client got of the address since"),
    (
        1046434,
        "a server whose maintenance began acknowledged a lease that its partner did not know yet and gave to another client",
    ),
    (
        1101357,
        "a server that was restarted after it had served alone took an older change of a partner that had not noticed",
    ),
    (
        1211028,
        "the deletion of a lease that nobody was told of removed the one that another client had of the address",
    ),
    (1222090, "a partner that kept what it had said yes to a lease that it does not have"),
    (
        1302302,
        "one address was given by two servers that could not talk, and their backlogs put each one's lease at the other",
    ),
    (
        1302942,
        "never failed but while 1302302 was mended: a declined address was taken for a lease that nobody was told of",
    ),
    (
        2056519,
        "a lease that nobody was told of, written again by a client that kept asking, went over one that the other server had given alone",
    ),
];

#[test]
fn what_was_once_wrong_is_well() {
    for (seed, what) in FOUND {
        let played = catch_unwind(AssertUnwindSafe(|| play(seed, Trace::Off)));
        assert!(played.is_ok(), "seed {seed} fails again: {what}");
    }
}

#[test]
fn whatever_is_wrong_is_noticed() {
    for defect in Defect::ALL {
        let is_noticed = |seed: &u64| {
            catch_unwind(AssertUnwindSafe(|| play_out(World::with_defect(*seed, defect)))).is_err()
        };
        let seed = (1..=DEFECT_SEEDS).find(is_noticed);
        println!("{defect:?} is noticed by seed {seed:?}");
        assert!(seed.is_some(), "{defect:?} is not noticed in {DEFECT_SEEDS} seeds");
    }
}

#[test]
fn one_seed_is_one_story() {
    for seed in [3, 4] {
        assert_eq!(play(seed, Trace::Kept).fingerprint, play(seed, Trace::Kept).fingerprint, "seed {seed}");
    }
}
