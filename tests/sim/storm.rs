//! What goes wrong, and how it is put right.

use aplomado::store::Survivors;
use serde_json::{Value, json};

use super::random::{MS, S};
use super::world::{Event, NAMES, OPERATOR, World};

/// How long a lull is: time for a pair to find each other, copy and send what waits.
const LULL: u64 = 8 * S;

impl World {
    pub(super) fn command(&mut self, node: usize, command: &str, arguments: &Value) {
        let name = NAMES[self.name(node)];
        self.tell(|| format!("the operator to {name}: {command} {arguments}"));
        self.number += 1;
        let body = json!({ "command": command, "service": ["dhcp4"], "arguments": arguments }).to_string();
        let event =
            Event::Request { from: OPERATOR, life: 0, to: node, call: self.number, body: body.into_bytes() };
        self.schedule(MS, event);
    }

    pub(super) fn fault(&mut self) {
        let wait = (300 + self.random.below(4000)) * MS;
        self.schedule(wait, Event::Fault);
        let count = self.nodes.len() as u64;
        let node = usize::try_from(self.random.below(count)).expect("small");
        let other = usize::try_from(self.random.below(count)).expect("small");
        match self.random.below(20) {
            0..3 => {
                let loss = [1000, 1000, 300, 50][usize::try_from(self.random.below(4)).expect("small")];
                self.loss[node][other] = loss;
                let both = self.random.percent(60);
                if both {
                    self.loss[other][node] = loss;
                }
                self.tell(|| {
                    format!("of messages from {node} to {other} {loss} in 1000 are lost, both ways: {both}")
                });
            }
            3..6 => {
                self.loss = [[0; 3]; 3];
                self.client_loss = 0;
                self.nodes.iter_mut().for_each(|node| node.slow_ms = 0);
                self.tell(|| "the network is whole".to_owned());
            }
            6 | 7 => {
                let survivors = match self.random.below(3) {
                    0 => Survivors::All,
                    1 => Survivors::Durable,
                    _ => Survivors::Some(self.random.next()),
                };
                self.crash(node, survivors);
                if self.random.percent(8) {
                    self.lose_disk(node);
                    self.tell(|| "its disk is lost".to_owned());
                }
                let delay = self.random.below(6000) * MS;
                self.schedule(delay, Event::Restart(node));
            }
            8 => {
                self.nodes[node].slow_ms = self.random.below(1500);
                self.tell(|| format!("{node} answers slowly"));
            }
            9 if self.nodes[node].frozen_until <= self.now => {
                self.nodes[node].frozen_until = self.now + (50 + self.random.below(3000)) * MS;
                self.tell(|| format!("{node} stands still"));
            }
            10 => self.nodes[node].lies_until = self.now + (200 + self.random.below(3000)) * MS,
            11 | 12 => {
                self.client_loss = [0, 5, 20, 50][usize::try_from(self.random.below(4)).expect("small")];
            }
            13 if self.skewed => {
                self.nodes[node].skew_us = i64::try_from(self.random.below(20_000_000)).expect("small");
                self.tell(|| format!("the clock of {node} is set"));
            }
            14 => {
                let text =
                    self.nodes[node].setting.text.replace("\"valid-lifetime\":40", "\"valid-lifetime\":41");
                if let Some(server) = &mut self.nodes[node].server {
                    server.reload(&text);
                    self.tell(|| format!("{node} has a new configuration"));
                }
            }
            9 | 13 | 15 => {}
            _ => self.operate(node, other),
        }
    }

    pub(super) fn operate(&mut self, node: usize, other: usize) {
        let (own, name) = (NAMES[self.name(node)], NAMES[self.name(other)]);
        let (command, arguments) = match self.random.below(10) {
            0 => ("ha-scopes", json!({ "scopes": [own], "server-name": own })),
            1 => ("ha-scopes", json!({ "scopes": [] })),
            2 | 3 => ("ha-reset", json!({})),
            4 => ("ha-maintenance-start", json!({})),
            5 => ("ha-maintenance-cancel", json!({})),
            6 => ("ha-sync", json!({ "server-name": name, "max-period": 5 })),
            7 => ("dhcp-disable", json!({ "max-period": 3 })),
            8 => ("dhcp-enable", json!({})),
            _ => ("ha-continue", json!({})),
        };
        if command == "ha-maintenance-start"
            && let Some(server) = &self.nodes[node].server
            && matches!(server.state(), "waiting" | "syncing")
        {
            self.take_over_unprepared(node);
        }
        self.command(node, command, &arguments);
    }

    /// Faults begin.
    pub(crate) fn storm(&mut self, duration: u64) {
        self.calm = false;
        self.events.retain(|_, event| !matches!(event, Event::Fault));
        self.schedule(2 * S, Event::Fault);
        self.run(duration);
    }

    /// Faults cease for a while and clients are silent: a pair that comes to the normal state has told each other everything.
    pub(crate) fn lull(&mut self) {
        self.calm_down();
        self.suffer();
        self.muted = true;
        self.run(LULL);
        self.compare_tables();
        self.muted = false;
    }

    fn calm_down(&mut self) {
        self.calm = true;
        (self.loss, self.client_loss) = ([[0; 3]; 3], 0);
        for node in 0..self.nodes.len() {
            let one = &mut self.nodes[node];
            (one.frozen_until, one.lies_until, one.slow_ms) = (0, 0, 0);
            self.start(node);
        }
        self.tell(|| "the faults are over".to_owned());
    }

    /// Faults end; the operator puts right what only an operator can, and some time later everything is well.
    pub(crate) fn settle(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.skew_us = 0);
        self.set_clocks();
        self.lull();
        for round in 0..3 {
            for node in 0..self.nodes.len() {
                let server = self.nodes[node].server.as_ref().expect("started");
                let (state, word) = (server.state(), server.word());
                // An order to begin maintenance can take effect when its answer has timed out, after the first round.
                let is_stuck = match state {
                    "terminated" => round == 0,
                    "in-maintenance" | "partner-in-maintenance" => round <= 1,
                    _ => false,
                };
                let serves = word.serves_primary || word.serves_secondary;
                let is_mute = node < 2 && state == self.mode && self.should_serve(node) && !serves;
                if is_stuck || is_mute {
                    self.crash(node, Survivors::All);
                    self.start(node);
                }
            }
            self.run(12 * S);
        }
        if self.backup {
            let backup = self.nodes.len() - 1;
            self.command(backup, "ha-sync", &json!({ "server-name": "alpha", "max-period": 5 }));
        }
        self.run(15 * S);
        // Nothing is on its way any more.
        self.muted = true;
        self.run(S);
        self.check_rest();
    }

    pub(super) fn should_serve(&self, node: usize) -> bool {
        node == 0 || self.mode == "load-balancing"
    }
}
