//! The generator's loop: begins what is due, answers what arrives, repeats or gives up what is late.
//!
//! One thread, no allocation once the exchanges under way have reached their number. Generic over the port, so that the tests
//! run it in one process.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use aplomado::net::{BATCH_MAX, FrameSlab, Port, PortSet, RxBatch, TxBatch};

use crate::clients::{IDLE, Population, Violation};
use crate::codec::{self, Message, Reply, Route, kind};
use crate::exchange::{Exchanges, Goal};
use crate::load::{Arguments, Mix, Pace};
use crate::report::Report;
use crate::{clock, nanoseconds, wire};

/// Longest pause between attempts of a client (RFC 2131 4.1).
const TIMEOUT_NS_MAX: u64 = 64_000_000_000;
/// Clients that are looked at for one that can do what is asked, before something else is done.
const SEARCH_MAX: u32 = 256;
/// Batches of answers that are taken in one turn.
const BATCHES_PER_TURN: usize = 16;
/// Exchanges that begin in one turn, so that answers are read in between.
const STARTS_PER_TURN: usize = BATCH_MAX / 2;

/// A generator and everything it remembers.
pub(crate) struct Generator<P> {
    pub(crate) set: PortSet<P>,
    slab: FrameSlab,
    arrived: RxBatch,
    leaving: TxBatch,
    pub(crate) clients: Population,
    exchanges: Exchanges,
    route: Route,
    pub(crate) report: Report,
    /// The next client to begin something.
    cursor: u32,
    random: u64,
    attempts: u8,
    timeout_ns: u64,
    client_id: bool,
    broadcast: bool,
    sleep: bool,
    progress: bool,
    late: Vec<u32>,
    /// How long a client thinks about an OFFER, and who does: when it is done, and its exchange's `xid`.
    think_ns: u64,
    thinking: VecDeque<(u64, u32)>,
}

impl<P: Port> Generator<P> {
    pub(crate) fn new(set: PortSet<P>, arguments: &Arguments, own_mac: [u8; 6], limit: u32) -> Self {
        let now_ns = clock::now_ns();
        Self {
            set,
            slab: FrameSlab::new(u32::try_from(BATCH_MAX).expect("a batch is small")),
            arrived: RxBatch::new(),
            leaving: TxBatch::new(),
            clients: Population::new(arguments.clients, arguments.prefix),
            exchanges: Exchanges::new(limit, now_ns),
            route: Route {
                own_mac,
                server_mac: [255; 6],
                giaddr: arguments.giaddr.unwrap_or(Ipv4Addr::UNSPECIFIED),
                server: arguments.server.unwrap_or(Ipv4Addr::UNSPECIFIED),
            },
            report: Report::new(now_ns),
            cursor: arguments.first % arguments.clients,
            random: arguments.seed,
            attempts: arguments.attempts,
            timeout_ns: arguments.timeout_ms * 1_000_000,
            client_id: arguments.client_id,
            broadcast: arguments.broadcast,
            sleep: arguments.sleep,
            progress: !arguments.quiet && std::io::stderr().is_terminal(),
            late: Vec::new(),
            think_ns: arguments.think_ms * 1_000_000,
            thinking: VecDeque::new(),
        }
    }

    /// Gives every client an address, in closed loop, repeating what got lost.
    pub(crate) fn preload(&mut self, window: u32) -> Result<(), String> {
        let count = self.clients.len();
        let attempts = std::mem::replace(&mut self.attempts, 8);
        let timeout_ns = std::mem::replace(&mut self.timeout_ns, 250_000_000);
        let mut begun = 0;
        let mut told_ns = clock::now_ns();
        while begun < count || self.exchanges.len() > 0 {
            let now_ns = clock::now_ns();
            self.receive(now_ns);
            while begun < count && self.exchanges.len() < window {
                self.begin(begun, Goal::Dora, now_ns, now_ns);
                begun += 1;
            }
            self.turn_end(now_ns);
            if self.progress && now_ns - told_ns > 1_000_000_000 {
                told_ns = now_ns;
                tell(&format!("giving addresses: {} of {count}", self.clients.bound()));
            }
            if self.report.lost() > 1000 && self.clients.bound() == 0 {
                return Err("no server gives addresses: nobody answered the first 1000 clients".to_owned());
            }
        }
        (self.attempts, self.timeout_ns) = (attempts, timeout_ns);
        if self.report.violations() > 0 {
            eprintln!("warning: {} bad answers while addresses were given", self.report.violations());
        }
        Ok(())
    }

    /// Offers load; the time for which it did, in nanoseconds.
    pub(crate) fn measure(&mut self, pace: Pace, mix: &Mix, arguments: &Arguments) -> Result<u64, String> {
        let begin_ns = clock::now_ns();
        let stop_ns = begin_ns + nanoseconds(arguments.duration);
        self.report = Report::new(begin_ns);
        let mut begun = 0_u64;
        let (mut told_ns, mut told_count) = (begin_ns, 0);
        let end_ns = stop_ns + nanoseconds(arguments.drain);
        // The time for which load was offered, once that is over.
        let mut active_ns = None;
        loop {
            let now_ns = clock::now_ns();
            if now_ns >= end_ns || (active_ns.is_some() && self.exchanges.len() == 0) {
                break;
            }
            let received = self.receive(now_ns);
            if now_ns < stop_ns {
                self.report.started_in_time = self.report.started();
            }
            // In open loop all that was due before the stop begins, be it late; otherwise the generator's own delay would hide some.
            let next_due_ns = match active_ns {
                None => self.begin_due(pace, mix, &mut begun, (begin_ns, stop_ns), now_ns),
                Some(_) => u64::MAX,
            };
            let over = match pace {
                Pace::Open(_) => next_due_ns >= stop_ns,
                Pace::Closed(_) => now_ns >= stop_ns,
                Pace::Once(_) => now_ns >= stop_ns || (next_due_ns == u64::MAX && self.exchanges.len() == 0),
            };
            if over && active_ns.is_none() {
                active_ns =
                    Some(if matches!(pace, Pace::Once(_)) { now_ns - begin_ns } else { stop_ns - begin_ns });
            }
            self.turn_end(now_ns);
            if self.progress && now_ns - told_ns >= 1_000_000_000 {
                self.tell_progress(now_ns - begin_ns, now_ns - told_ns, told_count);
                (told_ns, told_count) = (now_ns, self.report.completed());
            }
            if self.sleep && received == 0 {
                let pause = Duration::from_nanos(next_due_ns.saturating_sub(now_ns).min(1_000_000));
                if !pause.is_zero() {
                    self.set.wait(pause, || false).map_err(|error| format!("cannot wait: {error}"))?;
                }
            }
        }
        let left: Vec<u32> = self.exchanges.under_way().collect();
        for slot in left {
            let goal = self.exchanges.at(slot).goal;
            self.report.tally(goal).lost += 1;
            self.end(slot);
        }
        Ok(active_ns.unwrap_or(stop_ns - begin_ns))
    }

    /// Begins what is due between `begin_ns` and `stop_ns`; when the next will be.
    fn begin_due(
        &mut self,
        pace: Pace,
        mix: &Mix,
        begun: &mut u64,
        (begin_ns, stop_ns): (u64, u64),
        now_ns: u64,
    ) -> u64 {
        for _ in 0..STARTS_PER_TURN {
            let due_ns = match pace {
                Pace::Open(gap_ns) => begin_ns + due_after(*begun, gap_ns),
                Pace::Closed(window) if self.exchanges.len() < window => now_ns,
                Pace::Once(clients) if *begun < u64::from(clients) => begin_ns,
                Pace::Closed(_) | Pace::Once(_) => return u64::MAX,
            };
            if due_ns > now_ns || due_ns >= stop_ns {
                return due_ns;
            }
            if self.exchanges.is_full() {
                self.report.held_back += 1;
                return now_ns;
            }
            let goal = self.pick_goal(mix);
            let Some((client, goal)) = self.pick_client(goal) else {
                self.report.held_back += 1;
                return now_ns;
            };
            self.begin(client, goal, due_ns, now_ns);
            *begun += 1;
        }
        now_ns
    }

    fn pick_goal(&mut self, mix: &Mix) -> Goal {
        let [(goal, _)] = mix.0[..] else {
            let total: u64 = mix.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let mut ticket = self.next_random() % total;
            for (goal, weight) in &mix.0 {
                let weight = u64::from(*weight);
                if ticket < weight {
                    return *goal;
                }
                ticket -= weight;
            }
            unreachable!("a ticket is below the sum of weights");
        };
        goal
    }

    /// A client that has nothing under way and can do `goal`; where nobody near can, one that can get an address first.
    fn pick_client(&mut self, goal: Goal) -> Option<(u32, Goal)> {
        let count = self.clients.len();
        let mut idle = None;
        for _ in 0..SEARCH_MAX.min(count) {
            let client = self.cursor;
            self.cursor = if client + 1 == count { 0 } else { client + 1 };
            if self.clients.slot(client) != IDLE {
                continue;
            }
            let bound = !self.clients.address(client).is_unspecified();
            if bound || !matches!(goal, Goal::Renew | Goal::Release) {
                return Some((client, goal));
            }
            idle = idle.or(Some(client));
        }
        idle.map(|client| (client, Goal::Dora))
    }

    fn begin(&mut self, client: u32, goal: Goal, due_ns: u64, now_ns: u64) {
        let Some(slot) = self.exchanges.start(client, goal, due_ns, now_ns) else { return };
        self.clients.set_slot(client, slot);
        self.report.tally(goal).started += 1;
        self.send(slot, now_ns);
        if goal == Goal::Release {
            self.clients.unbind(client);
            self.report.tally(goal).completed += 1;
            self.end(slot);
        } else {
            self.exchanges.watch(slot);
        }
    }

    fn end(&mut self, slot: u32) {
        let client = self.exchanges.at(slot).client;
        self.clients.set_slot(client, IDLE);
        self.exchanges.end(slot);
    }

    /// Sends the message of an exchange's present step and sets its deadline.
    fn send(&mut self, slot: u32, now_ns: u64) {
        let wait_ns = self.wait_ns(self.exchanges.at(slot).attempts);
        let xid = self.exchanges.xid(slot);
        let exchange = self.exchanges.at_mut(slot);
        if exchange.attempts == 0 {
            exchange.phase_ns = now_ns;
        } else {
            self.report.sent_again += 1;
        }
        exchange.attempts += 1;
        exchange.deadline_ns = now_ns + wait_ns;
        let exchange = *exchange;
        let none = Ipv4Addr::UNSPECIFIED;
        let own = self.clients.address(exchange.client);
        let (kind, ciaddr, requested, server_id) = match exchange.goal {
            Goal::Renew => (kind::REQUEST, own, none, none),
            Goal::Release => (kind::RELEASE, own, none, self.route.server),
            _ if exchange.requesting => (kind::REQUEST, none, exchange.offered, exchange.server_id),
            _ => (kind::DISCOVER, none, none, none),
        };
        let seconds = now_ns.saturating_sub(exchange.due_ns) / 1_000_000_000;
        let message = Message {
            kind,
            xid,
            chaddr: self.clients.chaddr(exchange.client),
            secs: u16::try_from(seconds).unwrap_or(u16::MAX),
            ciaddr,
            requested,
            server_id,
            client_id: self.client_id,
            broadcast: self.broadcast,
        };
        if self.leaving.room() == 0 {
            self.flush();
        }
        let frame = self.slab.take().expect("a slab holds a batch, and the batch was just sent");
        let len = codec::build(self.slab.bytes_mut(&frame), &self.route, &message);
        self.leaving.push(frame, len, wire::INTERFACE);
    }

    /// How long to wait after this many messages: doubling, and varied as RFC 2131 4.1 has it when there will be more.
    fn wait_ns(&mut self, attempts: u8) -> u64 {
        let doubled = self.timeout_ns.saturating_mul(1 << attempts.min(16)).min(TIMEOUT_NS_MAX);
        if self.attempts == 1 {
            return doubled;
        }
        let quarter = doubled / 4;
        doubled - quarter + self.next_random() % (2 * quarter + 1)
    }

    fn flush(&mut self) {
        let report = self.set.send(&mut self.leaving, &mut self.slab);
        self.report.sent += u64::from(report.sent);
        self.report.send_failed += u64::from(report.full) + u64::from(report.failed);
    }

    /// Clients that have thought about their OFFER ask for it.
    fn ask_for_offers(&mut self, now_ns: u64) {
        while let Some((ready_ns, xid)) = self.thinking.front().copied()
            && ready_ns <= now_ns
        {
            self.thinking.pop_front();
            if let Some(slot) = self.exchanges.slot(xid) {
                self.send(slot, now_ns);
            }
        }
    }

    fn turn_end(&mut self, now_ns: u64) {
        self.ask_for_offers(now_ns);
        let mut late = std::mem::take(&mut self.late);
        self.exchanges.expire(now_ns, &mut late);
        for slot in late.drain(..) {
            let exchange = self.exchanges.at(slot);
            if exchange.attempts < self.attempts {
                self.send(slot, now_ns);
                self.exchanges.watch(slot);
            } else {
                let goal = exchange.goal;
                self.report.tally(goal).lost += 1;
                self.end(slot);
            }
        }
        self.late = late;
        self.flush();
    }

    /// Takes what has arrived before anything new begins: a generator that begins more than it can hear the answers of loses
    /// them, and measures itself.
    fn receive(&mut self, now_ns: u64) -> usize {
        let mut received = 0;
        for _ in 0..BATCHES_PER_TURN {
            let count = self.receive_batch(now_ns);
            received += count;
            if count < BATCH_MAX {
                break;
            }
            self.flush();
        }
        received
    }

    fn receive_batch(&mut self, now_ns: u64) -> usize {
        let mut arrived = std::mem::take(&mut self.arrived);
        let count = self.set.recv(&mut arrived);
        self.report.received += u64::try_from(count).expect("a batch is small");
        for frame in arrived.frames() {
            let verify = frame.flags.checksum_is_unverified();
            match codec::parse(self.set.bytes(frame), verify) {
                Ok(reply) => self.answer(&reply, now_ns),
                Err(fault) => self.report.faults[fault as usize] += 1,
            }
        }
        self.set.recycle(&mut arrived);
        self.arrived = arrived;
        count
    }

    fn answer(&mut self, reply: &Reply, now_ns: u64) {
        let Some(client) = self.clients.client(reply.chaddr) else {
            self.report.contradictions += 1;
            return;
        };
        let Some(slot) = self.exchanges.slot(reply.xid) else {
            self.report.unexpected += 1;
            return;
        };
        let exchange = *self.exchanges.at(slot);
        if exchange.client != client {
            // The xid of another client's exchange; unless it is an old one that this slot had before.
            self.report.unexpected += 1;
            return;
        }
        if exchange.goal == Goal::Reflect {
            self.report.complete(exchange.goal, exchange.due_ns, now_ns);
            self.end(slot);
            return;
        }
        if reply.op != 2 || reply.server_id.is_unspecified() {
            self.report.contradictions += 1;
            return;
        }
        match (reply.kind, exchange.requesting) {
            (kind::OFFER, false) => {
                if reply.yiaddr.is_unspecified() {
                    self.report.contradictions += 1;
                    return;
                }
                self.report.offer.record(now_ns.saturating_sub(exchange.due_ns));
                self.learn(reply);
                if exchange.goal == Goal::Discover {
                    self.report.complete(exchange.goal, exchange.due_ns, now_ns);
                    self.end(slot);
                    return;
                }
                let exchange = self.exchanges.at_mut(slot);
                exchange.requesting = true;
                exchange.attempts = 0;
                exchange.offered = reply.yiaddr;
                exchange.server_id = reply.server_id;
                if self.think_ns == 0 {
                    self.send(slot, now_ns);
                } else {
                    exchange.deadline_ns = now_ns + self.think_ns + self.timeout_ns;
                    self.thinking.push_back((now_ns + self.think_ns, reply.xid));
                }
            }
            (kind::ACK, true) => {
                let asked = if exchange.goal == Goal::Renew {
                    self.clients.address(client)
                } else {
                    exchange.offered
                };
                if reply.yiaddr != asked || reply.lease_s == 0 {
                    self.report.contradictions += 1;
                }
                let since = if exchange.goal == Goal::Renew { exchange.due_ns } else { exchange.phase_ns };
                self.report.ack.record(now_ns.saturating_sub(since));
                match self.clients.bind(client, reply.yiaddr) {
                    Some(Violation::Changed) => self.report.address_changed += 1,
                    Some(Violation::Twice) => self.report.address_twice += 1,
                    None => {}
                }
                self.learn(reply);
                self.report.complete(exchange.goal, exchange.due_ns, now_ns);
                self.end(slot);
            }
            (kind::NAK, true) => {
                self.report.tally(exchange.goal).refused += 1;
                self.clients.unbind(client);
                self.end(slot);
            }
            // A second server's OFFER, or the repetition of one that was taken.
            (kind::OFFER, true) => self.report.unexpected += 1,
            _ => self.report.contradictions += 1,
        }
    }

    /// Remembers where the server is, for what clients send straight to it.
    fn learn(&mut self, reply: &Reply) {
        self.route.server_mac = reply.source_mac;
        if self.route.giaddr.is_unspecified() {
            self.route.server = reply.server_id;
        }
    }

    /// A step of splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn tell_progress(&self, run_ns: u64, since_ns: u64, since_count: u64) {
        let rate = (self.report.completed() - since_count) as f64 * 1e9 / since_ns as f64;
        tell(&format!(
            "{:6.1} s  {rate:9.0}/s  under way {:7}  lost {:7}  bad {:4}  p50 {:8.1} us  p99 {:8.1} us",
            run_ns as f64 / 1e9,
            self.exchanges.len(),
            self.report.lost(),
            self.report.violations(),
            self.report.whole.quantile_us(0.5),
            self.report.whole.quantile_us(0.99),
        ));
    }
}

/// When the exchange of this number is due after the first.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts and nanoseconds of a run are below 2^53"
)]
fn due_after(number: u64, gap_ns: f64) -> u64 {
    (number as f64 * gap_ns) as u64
}

/// One line on the terminal, over the last one.
fn tell(line: &str) {
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}
