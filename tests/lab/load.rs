//! Many clients at once beside a lab: new ones and renewals, each repeating until it is answered, every acknowledgement remembered.
//!
//! A closed loop: so many clients are busy at any time, each ends with an acknowledgement and makes room for the next. With a wide loop
//! the servers are full; with a narrow one it measures how long clients go unserved.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{SERVERS, now};

/// The relay's address; the lab's own is another one.
pub(crate) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
/// First octets of these clients' hardware addresses.
const MAC: [u8; 2] = [2, 7];
/// A query is repeated after this long.
const REPEAT: Duration = Duration::from_millis(100);
/// Clients so far are as many as this at most; from then on all renew.
const CLIENTS_MAX: u32 = 40_000;

/// What is known of the clients.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Acknowledged leases: client, address.
    pub(crate) held: HashMap<u32, Ipv4Addr>,
    owners: HashMap<Ipv4Addr, u32>,
    /// Acknowledgements.
    pub(crate) acknowledged: u64,
    /// Queries that were repeated because nobody answered.
    pub(crate) repeated: u64,
    /// Longest time from a client's first query to its acknowledgement.
    pub(crate) wait_max: Duration,
    /// Clients that waited for more than 300 ms.
    pub(crate) waited: u64,
    /// What must never happen.
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    /// Who has not been served for long: forgets the waits so far.
    pub(crate) fn forget_waits(&mut self) {
        (self.repeated, self.waited, self.wait_max) = (0, 0, Duration::ZERO);
    }

    fn acknowledge(&mut self, client: u32, address: Ipv4Addr, wait: Duration) {
        self.acknowledged += 1;
        self.waited += u64::from(wait > Duration::from_millis(300));
        self.wait_max = self.wait_max.max(wait);
        let owner = *self.owners.entry(address).or_insert(client);
        if owner != client {
            self.wrong.push(format!("{address} is acknowledged to clients {owner} and {client}"));
        }
        if let Some(before) = self.held.insert(client, address)
            && before != address
        {
            self.wrong.push(format!("client {client} held {before} and was moved to {address}"));
        }
    }
}

/// The hardware address of a client, as lease commands show it.
pub(crate) fn hardware_address(client: u32) -> String {
    let [a, b, c, d] = client.to_be_bytes();
    format!("{:02x}:{:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}", MAC[0], MAC[1])
}

/// What a busy client does.
#[derive(Clone, Copy)]
enum Step {
    Discover,
    Request { server: Ipv4Addr, address: Ipv4Addr },
    Renew(Ipv4Addr),
}

struct Busy {
    client: u32,
    step: Step,
    begun: Instant,
    sent: Instant,
    tries: u32,
    xid: u32,
}

/// Clients at work, until dropped.
pub(crate) struct Load {
    ledger: Arc<Mutex<Ledger>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts `width` clients at a time; the caller is in the clients' namespace, and so is the thread that is made. `pause` is waited for
    /// between one client and the next.
    pub(crate) fn start(servers: usize, width: u32, pause: Duration) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let end = Arc::new(AtomicBool::new(false));
        let socket = UdpSocket::bind((RELAY, 67)).expect("nobody else is there");
        let mut generator = Generator {
            socket,
            servers,
            width,
            pause,
            ledger: Arc::clone(&ledger),
            counter: 0,
            seed: 0x2545_f491,
        };
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || generator.run(&ended));
        Self { ledger, end, thread: Some(thread) }
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> parking_lot::MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Generator {
    socket: UdpSocket,
    servers: usize,
    width: u32,
    pause: Duration,
    ledger: Arc<Mutex<Ledger>>,
    counter: u32,
    seed: u32,
}

impl Generator {
    fn random(&mut self, below: u32) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed % below.max(1)
    }

    /// A client that is not busy: one in four is new while there is room.
    fn next(&mut self, slot: u32, busy: &HashMap<u32, Busy>, known: &mut u32) -> Option<Busy> {
        let (client, step) = if *known < CLIENTS_MAX && (*known < 64 || self.random(4) == 0) {
            *known += 1;
            (*known, Step::Discover)
        } else {
            let client = 1 + self.random(*known);
            if busy.values().any(|other| other.client == client) {
                return None;
            }
            let held = self.ledger.lock().held.get(&client).copied();
            (client, held.map_or(Step::Discover, Step::Renew))
        };
        let at = now();
        self.counter += 1;
        Some(Busy { client, step, begun: at, sent: at, tries: 0, xid: self.counter << 9 | slot })
    }

    fn run(&mut self, end: &AtomicBool) {
        self.socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        let mut busy: HashMap<u32, Busy> = HashMap::new();
        let (mut known, mut last) = (0, now());
        let mut buffer = [0; 1500];
        while !end.load(Ordering::Relaxed) {
            let at = now();
            for slot in 0..self.width {
                if let Some(waiting) = busy.get_mut(&slot) {
                    if at.duration_since(waiting.sent) > REPEAT {
                        waiting.tries += 1;
                        waiting.sent = at;
                        // The server that offered may be dead: the others do not answer for it.
                        if waiting.tries % 4 == 3 && matches!(waiting.step, Step::Request { .. }) {
                            waiting.step = Step::Discover;
                        }
                        self.ledger.lock().repeated += 1;
                        self.send(&busy[&slot]);
                    }
                } else if at.duration_since(last) >= self.pause
                    && let Some(fresh) = self.next(slot, &busy, &mut known)
                {
                    last = at;
                    self.send(&fresh);
                    busy.insert(slot, fresh);
                }
            }
            for _ in 0..64 {
                let Ok((len, _)) = self.socket.recv_from(&mut buffer) else { break };
                self.take(&buffer[..len], &mut busy);
            }
        }
    }

    fn take(&self, answer: &[u8], busy: &mut HashMap<u32, Busy>) {
        if answer.len() < 243 || answer[0] != 2 {
            return;
        }
        let xid = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
        let slot = xid & 511;
        let Some(waiting) = busy.get_mut(&slot).filter(|waiting| waiting.xid == xid) else { return };
        let address = Ipv4Addr::new(answer[16], answer[17], answer[18], answer[19]);
        let mut options = &answer[240..];
        let (mut kind, mut server) = (0, Ipv4Addr::UNSPECIFIED);
        while let [code, len, rest @ ..] = options {
            let Some(content) = rest.get(..usize::from(*len)) else { break };
            match (code, content) {
                (53, [value]) => kind = *value,
                (54, &[a, b, c, d]) => server = Ipv4Addr::new(a, b, c, d),
                _ => {}
            }
            options = &rest[content.len()..];
        }
        match (kind, waiting.step) {
            (2, Step::Discover) => {
                waiting.step = Step::Request { server, address };
                waiting.sent = now();
                self.send(&busy[&slot]);
            }
            (5, Step::Request { .. } | Step::Renew(_)) => {
                let wait = now().duration_since(waiting.begun);
                self.ledger.lock().acknowledge(waiting.client, address, wait);
                busy.remove(&slot);
            }
            (6, Step::Renew(held)) => {
                let client = waiting.client;
                self.ledger.lock().wrong.push(format!("client {client} is refused {held}, by {server}"));
                busy.remove(&slot);
            }
            // Another client has it meanwhile.
            (6, Step::Request { .. }) => waiting.step = Step::Discover,
            _ => {}
        }
    }

    fn send(&self, busy: &Busy) {
        let mut message = vec![0; 236];
        message[..4].copy_from_slice(&[1, 1, 6, 1]);
        message[4..8].copy_from_slice(&busy.xid.to_be_bytes());
        let seconds = u16::try_from(now().duration_since(busy.begun).as_secs()).unwrap_or(u16::MAX);
        message[8..10].copy_from_slice(&seconds.to_be_bytes());
        message[24..28].copy_from_slice(&RELAY.octets());
        message[28..30].copy_from_slice(&MAC);
        message[30..34].copy_from_slice(&busy.client.to_be_bytes());
        message.extend([99, 130, 83, 99, 53, 1, if matches!(busy.step, Step::Discover) { 1 } else { 3 }]);
        match busy.step {
            Step::Discover => {}
            Step::Request { server, address } => {
                message.extend([54, 4]);
                message.extend(server.octets());
                message.extend([50, 4]);
                message.extend(address.octets());
            }
            Step::Renew(address) => message[12..16].copy_from_slice(&address.octets()),
        }
        message.push(255);
        message.resize(300, 0);
        for server in &SERVERS[..self.servers] {
            // A dead server's address does not answer; the other one does.
            let _ = self.socket.send_to(&message, SocketAddrV4::new(*server, 67));
        }
    }
}
