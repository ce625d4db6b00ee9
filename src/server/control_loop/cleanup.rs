//! The clean-up of the lease file: when it is due, the log thread moves the file aside and a thread of its own works it off.

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::LEASES;
use crate::control::backend::{Completion, LfcStart, Ticket};
use crate::control::log::Severity;
use crate::log;
use crate::server::desk::Desk;
use crate::server::engine;
use crate::store::Cleaned;
use crate::time::Mono;

/// Where a clean-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// The log thread moves the file aside.
    Rotating,
    /// The clean-up's thread is at work.
    Running,
}

/// The clean-ups of the lease file, one at a time.
pub(super) struct CleanUp {
    phase: Phase,
    next: Mono,
    /// At once, whatever the interval says.
    wanted: bool,
    /// Commands that wait for it to begin.
    tickets: Vec<Ticket>,
    done_tx: Sender<Result<Cleaned, String>>,
    done: Receiver<Result<Cleaned, String>>,
}

impl CleanUp {
    /// None under way; one is begun at once if it is `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        let (done_tx, done) = unbounded();
        Self { phase: Phase::Idle, next: Mono(0), wanted, tickets: Vec::new(), done_tx, done }
    }

    /// The next one is due an interval from now.
    pub(super) fn schedule(&mut self, desk: &Desk) {
        let interval_ms = u64::from(desk.tree.lease_database.cleanup_interval_s()) * 1000;
        self.next = desk.clock.now().mono.plus_ms(interval_ms);
    }

    /// A command asks for one.
    pub(super) fn ask(&mut self, ticket: Ticket, desk: &mut Desk) {
        match self.phase {
            Phase::Idle => {
                self.rotate(desk);
                self.tickets.push(ticket);
            }
            Phase::Rotating | Phase::Running => {
                desk.done.push((ticket, Completion::LeaseFile(LfcStart::Running)));
            }
        }
    }

    /// Begins what is due, and goes on with what is under way.
    pub(super) fn mind(&mut self, now: Mono, desk: &mut Desk) {
        match self.phase {
            Phase::Idle => {
                let due = desk.tree.lease_database.cleanup_interval_s() > 0 && now >= self.next;
                if desk.engine.files.is_some() && (due || self.wanted) {
                    self.rotate(desk);
                }
            }
            Phase::Rotating => match desk.engine.take_rotation() {
                Some(Ok(true)) => self.run(desk),
                Some(Ok(false)) => self.finish(desk),
                Some(Err(text)) => {
                    tell_failure(&format!("lease file not cleaned up: {text}"));
                    self.answer(desk, LfcStart::Failed);
                    self.finish(desk);
                }
                None => {}
            },
            Phase::Running => {
                if let Ok(outcome) = self.done.try_recv() {
                    match outcome {
                        Ok(cleaned) => {
                            log!(
                                Severity::Info,
                                LEASES,
                                DHCPSRV_MEMFILE_LFC_EXECUTE,
                                "lease file: {cleaned}"
                            );
                        }
                        Err(text) => tell_failure(&format!("lease file not cleaned up: {text}")),
                    }
                    self.finish(desk);
                }
            }
        }
    }

    fn rotate(&mut self, desk: &Desk) {
        self.wanted = false;
        self.phase = Phase::Rotating;
        desk.engine.ask_rotation();
    }

    fn run(&mut self, desk: &mut Desk) {
        let Some(files) = desk.engine.files.clone() else { return self.finish(desk) };
        let done = self.done_tx.clone();
        let started = engine::clean_up(&files, move |outcome| {
            // The control thread outlives the clean-up, or nobody asks.
            let _ = done.send(outcome);
        });
        match started {
            Ok(_) => {
                self.phase = Phase::Running;
                self.answer(desk, LfcStart::Started);
            }
            Err(error) => {
                tell_failure(&format!("no thread for the clean-up: {error}"));
                self.answer(desk, LfcStart::Failed);
                self.finish(desk);
            }
        }
    }

    fn finish(&mut self, desk: &mut Desk) {
        self.phase = Phase::Idle;
        // Asked for while there was nothing to do: it has been done.
        self.answer(desk, LfcStart::Started);
        self.schedule(desk);
    }

    /// Answers the commands that wait for it.
    fn answer(&mut self, desk: &mut Desk, start: LfcStart) {
        let waiting = std::mem::take(&mut self.tickets).into_iter();
        desk.done.extend(waiting.map(|ticket| (ticket, Completion::LeaseFile(start))));
    }
}

fn tell_failure(text: &str) {
    log!(Severity::Error, LEASES, DHCPSRV_MEMFILE_LFC_FAIL, "{text}");
}
