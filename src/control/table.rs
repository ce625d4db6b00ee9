//! The table of commands: names, who answers them, when they are there. Other rooms add theirs through `server/`.

use std::collections::BTreeMap;

use super::backend::{Completion, Daemon, Features, Order};
use super::command::{Answer, Command, Context, Outcome};
use super::{lease_commands, server_commands, statistics};

/// What answers a command.
pub type Handler = Box<dyn Fn(&mut Context<'_>, &Command) -> Outcome + Send>;

/// When a command is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Always.
    Always,
    /// When `libdhcp_lease_cmds` is configured.
    LeaseCommands,
    /// When `libdhcp_ha` is configured.
    Ha,
}

impl Presence {
    const fn holds(self, features: Features) -> bool {
        match self {
            Self::Always => true,
            Self::LeaseCommands => features.lease_cmds,
            Self::Ha => features.ha,
        }
    }
}

/// The commands of one daemon.
pub struct CommandTable {
    daemon: Daemon,
    commands: BTreeMap<String, (Presence, Handler)>,
}

impl CommandTable {
    /// A table without commands.
    #[must_use]
    pub const fn new(daemon: Daemon) -> Self {
        Self { daemon, commands: BTreeMap::new() }
    }

    /// The commands of a DHCPv4 server, without those of HA.
    #[must_use]
    pub fn dhcp4() -> Self {
        let mut table = Self::new(Daemon::Dhcp4);
        server_commands::register(&mut table);
        statistics::register(&mut table);
        lease_commands::register(&mut table);
        table
    }

    /// The commands that the control agent answers itself.
    #[must_use]
    pub fn agent() -> Self {
        let mut table = Self::new(Daemon::Agent);
        server_commands::register_agent(&mut table);
        table
    }

    /// The daemon whose commands these are.
    #[must_use]
    pub const fn daemon(&self) -> Daemon {
        self.daemon
    }

    /// Adds a command, or takes the place of the one of this name.
    pub fn register(
        &mut self,
        name: &str,
        presence: Presence,
        handler: impl Fn(&mut Context<'_>, &Command) -> Outcome + Send + 'static,
    ) {
        self.commands.insert(name.to_owned(), (presence, Box::new(handler)));
    }

    /// Adds a command that another room answers: it is ordered whole ([`Order::Command`]) and waits for its answer.
    pub fn register_elsewhere(&mut self, name: &str, presence: Presence) {
        self.register(name, presence, |context, command| {
            context.submit_then(Order::Command(Box::new(command.clone())), |_, completion| {
                match completion {
                    Completion::Answer(answer) => answer,
                    _ => lease_commands::unexpected(),
                }
                .into()
            })
        });
    }

    /// The names of the commands that are there, sorted.
    #[must_use]
    pub fn names(&self, features: Features) -> Vec<String> {
        self.commands
            .iter()
            .filter(|(_, (presence, _))| presence.holds(features))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether the command `name` is there.
    #[must_use]
    pub fn has(&self, name: &str, features: Features) -> bool {
        self.commands.get(name).is_some_and(|(presence, _)| presence.holds(features))
    }

    /// Answers `command` or begins to.
    pub fn execute(&self, context: &mut Context<'_>, command: &Command) -> Outcome {
        match self.commands.get(&command.name) {
            Some((presence, handler)) if presence.holds(context.backend.features()) => {
                handler(context, command)
            }
            _ => Answer::unsupported(&command.name).into(),
        }
    }
}
