//! The load generator: clients by the million, from one thread.
//!
//! Open loop (`--rate`): exchanges begin when they are due, whatever the server does, and latencies count from when they were
//! due; a generator or server that falls behind shows in them (no coordinated omission). Closed loop (`--window`): so many
//! exchanges are under way at any time; latencies then are the server's service times. `--avalanche`: all clients at once.
//!
//! Every answer is checked: whole, right checksums, for the client that asked; a client keeps its address; no address is held by
//! two clients.

use std::net::Ipv4Addr;

use aplomado::net::Port;
use serde_json::{Value, json};

use crate::exchange::{EXCHANGES_MAX, Goal};
use crate::generator::Generator;
use crate::{clock, wire};

/// What the load generator does.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to send on.
    #[arg(short, long)]
    pub(crate) interface: String,
    /// What clients do: one of dora, discover, renew, release, reflect, or a mix with weights such as dora=60,renew=30,release=10.
    #[arg(short, long, default_value = "dora", value_parser = parse_mix)]
    pub(crate) exchange: Mix,
    /// Number of clients; they are taken in turn and begin again with the first.
    #[arg(short, long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Open loop: begin this many exchanges per second.
    #[arg(short, long, conflicts_with_all = ["window", "avalanche"])]
    pub(crate) rate: Option<f64>,
    /// Closed loop: keep this many exchanges under way.
    #[arg(short, long, conflicts_with = "avalanche")]
    pub(crate) window: Option<u32>,
    /// All clients begin at once, once; ends when all are done.
    #[arg(long)]
    pub(crate) avalanche: bool,
    /// Offer load for this many seconds (at most, with --avalanche).
    #[arg(short, long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// After that, wait at most this many seconds for the exchanges under way.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) drain: f64,
    /// First give all clients an address with this many exchanges under way, unmeasured. Implied (with 64) where renewals or releases
    /// are all that is asked for.
    #[arg(long)]
    pub(crate) preload: Option<u32>,
    /// Messages per step before an exchange is lost; the waits between them double.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) attempts: u8,
    /// Wait for an answer this many milliseconds before the first repetition; varied by a quarter each way when attempts are more than one.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=64_000))]
    pub(crate) timeout_ms: u64,
    /// A client answers an OFFER after this many milliseconds. Without it, REQUESTs follow a batch of OFFERs into the very places that
    /// the server has just freed, which flatters a server that is overloaded.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) think_ms: u64,
    /// Play a relay with this address: give `giaddr`, and send to --server.
    #[arg(long, requires = "server")]
    pub(crate) giaddr: Option<Ipv4Addr>,
    /// The server's address (learnt from its answers where there is no relay).
    #[arg(long)]
    pub(crate) server: Option<Ipv4Addr>,
    /// Add option 61 with the hardware address.
    #[arg(long)]
    pub(crate) client_id: bool,
    /// Ask for answers by broadcast: for servers that send to the client's own hardware address, which is not this interface's.
    #[arg(long)]
    pub(crate) broadcast: bool,
    /// The first two octets of every client's hardware address, in hex; the other four are its number.
    #[arg(long, default_value = "02a9", value_parser = parse_prefix)]
    pub(crate) prefix: [u8; 2],
    /// Begin with this client.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u32,
    /// Slots of the receiving ring.
    #[arg(long, default_value_t = 16_384)]
    pub(crate) ring_slots: u32,
    /// Sleep when there is nothing to do, for machines where the server needs the core. Costs accuracy: some 60 microseconds.
    #[arg(long)]
    pub(crate) sleep: bool,
    /// Send through the interface's queueing discipline.
    #[arg(long)]
    pub(crate) through_queue: bool,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// No progress on the terminal.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Goals with their weights.
#[derive(Clone, Debug)]
pub(crate) struct Mix(pub(crate) Vec<(Goal, u32)>);

fn parse_mix(text: &str) -> Result<Mix, String> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let goal = Goal::ALL
            .into_iter()
            .find(|goal| goal.name() == name.trim())
            .ok_or_else(|| format!("expected dora, discover, renew, release or reflect, not '{name}'"))?;
        let weight =
            weight.trim().parse().map_err(|_| format!("'{weight}' is no weight: a whole number is"))?;
        mix.push((goal, weight));
    }
    if mix.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>() == 0 {
        return Err("the weights are all 0".to_owned());
    }
    Ok(Mix(mix))
}

fn parse_prefix(text: &str) -> Result<[u8; 2], String> {
    let value =
        u16::from_str_radix(text, 16).map_err(|_| format!("expected four hex digits, not '{text}'"))?;
    if value & 0x0100 != 0 {
        return Err(format!("{text} begins a group address, which no client has"));
    }
    Ok(value.to_be_bytes())
}

/// How exchanges begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// When due: the time between two, in nanoseconds.
    Open(f64),
    /// When another ends: so many under way.
    Closed(u32),
    /// All clients, once, as fast as frames leave.
    Once(u32),
}

/// Runs the generator and tells what it saw.
pub(crate) fn run(arguments: &Arguments) -> Result<(Value, bool), String> {
    let link = wire::interface(&arguments.interface)?;
    let udp_port = if arguments.giaddr.is_some() { 67 } else { 68 };
    let mut sets = wire::open(&link, udp_port, 1, arguments.ring_slots, !arguments.through_queue)?;
    let set = sets.pop().ok_or("one port was asked for")?;
    let limit = match arguments.window {
        Some(window) => window,
        None => EXCHANGES_MAX,
    };
    let mut generator = Generator::new(set, arguments, link.mac, limit.max(arguments.preload.unwrap_or(64)));
    let needs_addresses =
        arguments.exchange.0.iter().all(|(goal, _)| matches!(goal, Goal::Renew | Goal::Release));
    if let Some(window) = arguments.preload.or_else(|| needs_addresses.then_some(64)) {
        generator.preload(window)?;
    }
    let pace = match (arguments.rate, arguments.window) {
        _ if arguments.avalanche => Pace::Once(arguments.clients),
        (Some(rate), _) if rate > 0.0 => Pace::Open(1e9 / rate),
        (Some(rate), _) => return Err(format!("expected a rate above 0, not {rate}")),
        (None, window) => Pace::Closed(window.unwrap_or(64).max(1)),
    };
    let cpu_before = clock::cpu_seconds().unwrap_or_default();
    let active_ns = generator.measure(pace, &arguments.exchange, arguments)?;
    let cpu_after = clock::cpu_seconds().unwrap_or_default();
    let mut value = generator.report.json(active_ns);
    value["generator"] = json!({
        "cpu_user_s": cpu_after.0 - cpu_before.0,
        "cpu_system_s": cpu_after.1 - cpu_before.1,
        "dropped_by_kernel": generator.set.ports_mut()[0].stats().rx_kernel_dropped,
    });
    value["clients"] = json!({
        "count": arguments.clients,
        "holding_an_address": generator.clients.bound(),
    });
    value["offered"] = match pace {
        Pace::Open(_) => json!({ "open_loop_per_second": arguments.rate }),
        Pace::Closed(window) => json!({ "closed_loop_window": window }),
        Pace::Once(clients) => json!({ "avalanche_clients": clients }),
    };
    Ok((value, generator.report.violations() == 0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aplomado::net::fault::{Faults, Faulty};
    use aplomado::net::{Doorbell, MemoryPort, PortSet, RxFlags};
    use clap::Parser;

    use super::*;
    use crate::report::Report;
    use crate::{codec, reflect};

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        load: Arguments,
    }

    /// Runs the generator with these arguments against a server that gives each client the address that `give` says.
    fn run_against(
        line: &str,
        faults: Faults,
        give: impl Fn([u8; 6]) -> Ipv4Addr + Sync,
    ) -> (Report, u64, usize) {
        let words = format!("load -i none -q {line}");
        let arguments = Line::try_parse_from(words.split(' ')).expect("good arguments").load;
        let (near, mut far) = MemoryPort::pair(wire::INTERFACE, wire::INTERFACE, 4096);
        let mut set = PortSet::new(Arc::new(Doorbell::new().expect("an eventfd")));
        assert!(set.add(Faulty::new(near, faults, 7)).is_ok());
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut reply = vec![0; 2048];
                while !ended.load(Ordering::Relaxed) {
                    let len = far.eject(|query| {
                        codec::answer(
                            &mut reply,
                            query,
                            [2, 0, 0, 0, 0, 1],
                            Ipv4Addr::new(192, 0, 2, 1),
                            &give,
                        )
                    });
                    match len {
                        Some(Some(len)) => assert!(far.inject(&reply[..len], RxFlags::default())),
                        Some(None) => {}
                        None => std::thread::yield_now(),
                    }
                }
            });
            let mut generator = Generator::new(set, &arguments, [2, 0, 0, 0, 0, 2], 1000);
            if let Some(window) = arguments.preload {
                generator.preload(window).expect("the server answers");
            }
            let pace = match (arguments.rate, arguments.window) {
                _ if arguments.avalanche => Pace::Once(arguments.clients),
                (Some(rate), _) => Pace::Open(1e9 / rate),
                (None, window) => Pace::Closed(window.expect("one of them")),
            };
            let active =
                generator.measure(pace, &arguments.exchange, &arguments).expect("memory does not fail");
            ended.store(true, Ordering::Relaxed);
            (generator.report, active, generator.clients.bound())
        })
    }

    #[test]
    fn open_loop_begins_what_is_due_and_completes_it() {
        let (report, active, bound) =
            run_against("-r 2000 -d 0.5 -c 600 --drain 5", Faults::default(), reflect::address_of);
        assert_eq!((report.started(), report.completed(), report.lost()), (1000, 1000, 0));
        assert_eq!((report.violations(), bound, active), (0, 600, 500_000_000));
        assert_eq!(report.sent, 2000, "DISCOVER and REQUEST each");
    }

    #[test]
    fn avalanche_ends_when_every_client_has_an_address() {
        let line = "--avalanche -c 500 -d 60 --attempts 8 --timeout-ms 20";
        let lossy = Faults { lost_per_mille: 300, ..Faults::default() };
        let (report, active, bound) = run_against(line, lossy, reflect::address_of);
        assert_eq!((report.completed(), report.lost(), bound), (500, 0, 500));
        assert!(report.sent_again > 100, "{} messages were sent again", report.sent_again);
        assert!(active < 60_000_000_000);
    }

    #[test]
    fn thinking_clients_complete_later_and_send_no_more() {
        let (report, _, _) = run_against(
            "-r 1000 -d 0.3 -c 600 --drain 5 --think-ms 40",
            Faults::default(),
            reflect::address_of,
        );
        assert_eq!((report.started(), report.completed(), report.sent), (300, 300, 600));
        // How many of them while load was offered is up to the machine.
        assert!((1..=300).contains(&report.started_in_time), "{} in time", report.started_in_time);
        assert!(report.whole.quantile_us(0.001) >= 40_000.0, "no exchange is shorter than the thought");
    }

    #[test]
    fn lost_answers_are_lost_exchanges_without_repetition() {
        let lossy = Faults { lost_per_mille: 200, ..Faults::default() };
        let (report, _, _) =
            run_against("-r 2000 -d 0.5 -c 100000 --timeout-ms 1000 --drain 10", lossy, reflect::address_of);
        assert_eq!(report.completed() + report.lost(), 1000);
        assert!((250..470).contains(&report.lost()), "{} of 1000, where 0.36 is expected", report.lost());
        assert_eq!((report.violations(), report.sent_again), (0, 0));
    }

    #[test]
    fn doubled_and_late_answers_are_unexpected_and_no_violation() {
        let faults = Faults { doubled_per_mille: 300, late_turns_max: 50, ..Faults::default() };
        let (report, _, _) = run_against("-w 16 -d 0.3 -c 100000", faults, reflect::address_of);
        assert!(report.unexpected > 0 && report.completed() > 0);
        assert_eq!((report.violations(), report.lost()), (0, 0));
    }

    #[test]
    fn one_address_for_all_is_a_violation() {
        let (report, _, _) =
            run_against("-w 4 -d 0.1 -c 100000", Faults::default(), |_| Ipv4Addr::new(16, 0, 0, 1));
        assert!(report.address_twice > 0);
    }

    #[test]
    fn another_address_than_before_is_a_violation() {
        let count = std::sync::atomic::AtomicU32::new(0);
        // Odd answers are OFFERs and even ones ACKs with one client at a time; each pair names a new address.
        let give = |_| Ipv4Addr::from(0x1000_0000 + count.fetch_add(1, Ordering::Relaxed) / 2);
        let (report, _, _) = run_against("-w 1 -d 0.1 -c 1", Faults::default(), give);
        assert!(report.address_changed > 0);
        assert_eq!((report.address_twice, report.contradictions), (0, 0));
    }

    #[test]
    fn acknowledged_address_that_was_not_offered_is_a_violation() {
        let count = std::sync::atomic::AtomicU32::new(0);
        let give = |_| Ipv4Addr::from(0x1000_0000 + count.fetch_add(1, Ordering::Relaxed));
        let (report, _, _) = run_against("-w 1 -d 0.1 -c 1", Faults::default(), give);
        assert!(report.contradictions > 0);
    }

    #[test]
    fn mix_does_all_of_its_parts_near_their_weights() {
        let (report, _, _) = run_against(
            "-e dora=50,renew=40,release=10 -r 2000 -d 0.5 -c 1000 --preload 16 --drain 5",
            Faults::default(),
            reflect::address_of,
        );
        let all = report.started();
        let share = |goal: Goal| {
            let place = Goal::ALL.iter().position(|one| *one == goal).expect("listed");
            100 * report.tallies[place].started / all
        };
        assert_eq!(all, 1000);
        assert!(
            share(Goal::Renew) >= 30 && share(Goal::Release) >= 5 && share(Goal::Dora) >= 40,
            "{report:?}"
        );
        assert_eq!((report.violations(), report.lost()), (0, 0));
    }

    #[test]
    fn bad_arguments_are_refused_with_what_was_expected() {
        let refuse = |line: &str| {
            let words = format!("load -i none {line}");
            Line::try_parse_from(words.split(' ')).expect_err("refused").to_string()
        };
        assert!(refuse("-e dora=0").contains("the weights are all 0"));
        assert!(refuse("-e dance").contains("not 'dance'"));
        assert!(refuse("--prefix 01a9").contains("group address"));
        assert!(refuse("-r 5 -w 5").contains("cannot be used with"));
        assert!(refuse("--giaddr 10.0.0.1").contains("--server"));
    }
}
