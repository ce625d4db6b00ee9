//! Where a server's frames come from: the machine's interfaces, or one port that its process was given.

use std::io;
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::net::link::Snapshot;
use crate::net::{AnyPort, Doorbell, MemoryPort};

/// The network that a server sees.
pub enum Network {
    /// The machine's interfaces.
    System,
    /// One interface that is made up, for systems that allow no namespaces (the demo).
    Given {
        /// The interface.
        snapshot: Snapshot,
        /// Its port, until a shard has it.
        port: Option<Box<MemoryPort>>,
        /// Hears, when a shard has the port, which bell wakes it.
        joined: Sender<Arc<Doorbell>>,
    },
}

impl Network {
    /// The interfaces as they are now.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        match self {
            Self::System => Snapshot::read(),
            Self::Given { snapshot, .. } => Ok(snapshot.clone()),
        }
    }

    /// The given port for the shard with this bell; nothing when ports are to be opened.
    pub fn take_port(&mut self, bell: &Arc<Doorbell>) -> Option<Vec<AnyPort>> {
        let Self::Given { port, joined, .. } = self else { return None };
        let ports = port.take().map(|port| AnyPort::Memory(*port)).into_iter().collect();
        // Whoever gave the port listens for this, or has gone.
        let _ = joined.send(Arc::clone(bell));
        Some(ports)
    }
}
