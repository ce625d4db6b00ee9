//! Clients: they ask, hold, renew, give back, refuse, are restarted and fall silent.

use std::net::Ipv4Addr;

use super::packet::{self, Answer};
use super::random::{MS, Random, S};

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Discover,
    Request { address: Ipv4Addr, server: Ipv4Addr },
    Bound { address: Ipv4Addr, until: u64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) number: u8,
    pub(crate) doing: Doing,
    pub(crate) xid: u32,
    pub(crate) since: u64,
    /// An address that it had, and asks for first.
    pub(crate) had: Option<Ipv4Addr>,
    /// The last time that a server has said yes.
    pub(crate) served: u64,
    tries: u32,
}

/// What a client says.
pub(crate) struct Said {
    pub(crate) frame: Option<(Vec<u8>, String)>,
    /// The address that it gives up with this.
    pub(crate) gives_up: Option<Ipv4Addr>,
    /// When it will do something again, from now.
    pub(crate) next: u64,
}

impl Client {
    pub(crate) const fn new(number: u8) -> Self {
        Self { number, doing: Doing::Discover, xid: 0, since: 0, had: None, served: 0, tries: 0 }
    }

    fn mac(&self) -> String {
        format!("02:00:00:00:0c:{:02x}", self.number)
    }

    fn say(&self, line: &str) -> Option<(Vec<u8>, String)> {
        let text = format!("{line} mac={}", self.mac());
        Some((packet::query(&text, self.xid), line.to_owned()))
    }

    fn secs(&self, now: u64) -> u64 {
        ((now - self.since) / S).min(60_000)
    }

    /// Its timer has run out.
    pub(crate) fn wake(&mut self, now: u64, random: &mut Random, calm: bool) -> Said {
        self.xid = self.xid.wrapping_add(256) | u32::from(self.number);
        self.tries += 1;
        let retry = (250 + random.below(500)) * MS;
        if self.tries > 3 && matches!(self.doing, Doing::Request { .. }) {
            self.start_over(now);
        }
        let secs = self.secs(now);
        match self.doing {
            Doing::Discover => {
                // Some ask for what another one may have.
                let other = Ipv4Addr::new(192, 0, 2, 10 + u8::try_from(random.below(12)).expect("small"));
                let want = self.had.or_else(|| random.percent(15).then_some(other));
                let want = want.map_or_else(String::new, |had| format!(" want={had}"));
                Said { frame: self.say(&format!("discover secs={secs}{want}")), gives_up: None, next: retry }
            }
            Doing::Request { address, server } => {
                let line = format!("request secs={secs} want={address} sid={server}");
                Said { frame: self.say(&line), gives_up: None, next: retry }
            }
            Doing::Bound { address, until } if now >= until => {
                self.had = Some(address);
                self.start_over(now);
                Said { frame: None, gives_up: Some(address), next: MS }
            }
            Doing::Bound { address, .. } => {
                let chance = if calm { 0 } else { random.below(100) };
                if self.tries > 1 || chance < 78 {
                    if self.tries == 1 {
                        self.since = now;
                    }
                    let secs = self.secs(now);
                    let line =
                        format!("request secs={secs} ciaddr={address} from={address} to=255.255.255.255");
                    return Said { frame: self.say(&line), gives_up: None, next: retry };
                }
                match chance {
                    78..86 => {
                        self.had = Some(address);
                        self.start_over(now);
                        let line = format!("release ciaddr={address} from={address} to=255.255.255.255");
                        Said {
                            frame: self.say(&line),
                            gives_up: Some(address),
                            next: random.below(4000) * MS,
                        }
                    }
                    86..88 => {
                        self.had = None;
                        self.start_over(now);
                        Said {
                            frame: self.say(&format!("decline want={address}")),
                            gives_up: Some(address),
                            next: random.below(2000) * MS,
                        }
                    }
                    88 => {
                        let line = format!("inform ciaddr={address} from={address} to=255.255.255.255");
                        Said { frame: self.say(&line), gives_up: None, next: retry }
                    }
                    89..95 => {
                        // Restarted: it asks whether it may keep its address.
                        self.since = now;
                        Said {
                            frame: self.say(&format!("request want={address}")),
                            gives_up: None,
                            next: retry,
                        }
                    }
                    _ => Said { frame: None, gives_up: None, next: (10 + random.below(40)) * S },
                }
            }
        }
    }

    fn start_over(&mut self, now: u64) {
        self.doing = Doing::Discover;
        self.since = now;
        self.tries = 0;
    }

    /// Whether this answers what it has asked last; anything else it does not hear.
    pub(crate) fn awaits(&self, answer: &Answer) -> bool {
        answer.fixed[4..8] == self.xid.to_be_bytes()
    }

    /// An answer came: the address given up with it, and when to go on, when it is for this exchange.
    pub(crate) fn hear(
        &mut self,
        now: u64,
        answer: &Answer,
        random: &mut Random,
    ) -> (Option<Ipv4Addr>, Option<u64>) {
        if !self.awaits(answer) {
            return (None, None);
        }
        match (answer.kind().as_str(), self.doing) {
            ("offer", Doing::Discover) => {
                let Some(Ok(server)) = answer.option(54).map(<[u8; 4]>::try_from) else {
                    return (None, None);
                };
                self.doing = Doing::Request { address: answer.yiaddr(), server: server.into() };
                self.tries = 0;
                (None, Some(MS))
            }
            ("ack", Doing::Request { .. } | Doing::Bound { .. }) => {
                let Some(Ok(time)) = answer.option(51).map(<[u8; 4]>::try_from) else { return (None, None) };
                let seconds = u64::from(u32::from_be_bytes(time));
                self.doing = Doing::Bound { address: answer.yiaddr(), until: now + seconds * S };
                self.had = Some(answer.yiaddr());
                self.tries = 0;
                self.served = now;
                self.since = now;
                (None, Some((1000 + random.below(seconds * 500)) * MS))
            }
            ("nak", Doing::Request { .. }) => {
                self.had = None;
                self.start_over(now);
                (None, Some(100 * MS))
            }
            ("nak", Doing::Bound { address, .. }) => {
                self.had = None;
                self.start_over(now);
                (Some(address), Some(100 * MS))
            }
            _ => (None, None),
        }
    }
}
