//! `demo`: a pair at work, one half killed with -9, the takeover, the return, and the proof that nothing was forgotten.
//!
//! The servers are child processes of this very program on configurations and lease files in a folder of its own; the clients
//! are in this process, whose first thread moves between network namespaces. Nothing is left behind: namespaces and devices
//! have no names, the children end with their parent, the folder is removed.

mod bridge;
mod population;
mod screen;
mod servers;
mod stage;
mod summary;
mod watch;
mod wire;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::population::{Population, Proof};
use self::screen::{Screen, ServerView, View};
use self::servers::{Folder, NAMES, Server};
use self::stage::{ENDS, Stage};
use self::summary::Summary;
use self::watch::Watch;
use self::wire::Wire;
use super::Exit;
use crate::server::clock::Clock;

/// How many clients there are.
const CLIENTS: usize = 1_000;
/// Deeds that clients begin in a second.
const PACE_PER_S: u64 = 1_000;
/// How long the pair may take until it is normal.
const NORMAL_MAX_NS: u64 = 10 * SECOND_NS;
/// How long clients come and go before a server is killed.
const WORK_NS: u64 = 4 * SECOND_NS;
/// How long the other server may take until it serves all clients.
const TAKEOVER_MAX_NS: u64 = 8 * SECOND_NS;
/// How long it then goes on alone.
const ALONE_NS: u64 = 2 * SECOND_NS;
/// How long clients come and go after the return.
const AFTER_NS: u64 = 3 * SECOND_NS;
/// How long the last answers may take, and how long databases may take to become equal.
const SETTLE_MAX_NS: u64 = 3 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// How long one turn waits for frames.
const TURN: Duration = Duration::from_millis(2);
/// The server that is killed: the primary, which in hot-standby serves everybody.
const VICTIM: usize = 0;
const SURVIVOR: usize = 1;

/// How the pair shares its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Each server serves its half of the clients.
    #[default]
    LoadBalancing,
    /// The primary serves all clients, the other one stands by.
    HotStandby,
}

impl Mode {
    /// As the configuration calls it; the normal state has the same name.
    const fn name(self) -> &'static str {
        match self {
            Self::LoadBalancing => "load-balancing",
            Self::HotStandby => "hot-standby",
        }
    }
}

/// Shows a pair at work on this machine.
///
/// Two servers (really two processes, one of them really killed with -9), a thousand clients that get, renew and release
/// addresses, the takeover, the return, and the proof that no acknowledged lease is missing, that no address was held twice
/// and that both databases are equal.
///
/// Needs nothing but this program and touches nothing outside: network namespaces of its own (as root, or as any user where
/// the kernel allows user namespaces), else pipes to the same servers on in-process ports. Ends by itself within 30
/// seconds and leaves nothing behind.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 everything is proved, 4 a lease was lost, an address was held twice or the databases differ,\n\
                        3 nothing could be shown, 130 interrupted."
)]
pub struct DemoArgs {
    /// How the pair shares its work.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Use pipes and the loopback interface even where namespaces are allowed.
    #[arg(long)]
    without_namespaces: bool,
    /// Serve this configuration on an in-process port behind standard input and output; for the demo's own use.
    #[arg(long, value_name = "FILE", hide = true)]
    serve_pipes: Option<PathBuf>,
    /// Which half of the pair that is.
    #[arg(long, hide = true, default_value_t = 0)]
    server: usize,
}

/// Why the demo ended before its end.
enum Broken {
    /// Ctrl-C.
    Interrupted,
    /// Nothing could be shown.
    CannotStart(String),
    /// The servers did what they must not.
    Fault(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::CannotStart(error.to_string())
    }
}

/// `aplomado demo`. For a process with one thread.
pub(super) fn run(arguments: DemoArgs) -> Exit {
    match arguments.serve_pipes {
        Some(config) => bridge::serve(config, arguments.server),
        None => demo(arguments.mode, arguments.without_namespaces),
    }
}

fn demo(mode: Mode, without_namespaces: bool) -> Exit {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("aplomado: cannot listen for signals: {error}");
            return Exit::CannotStart;
        }
    }
    let folder = match Folder::new() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("aplomado: cannot make a folder for the demo: {error}");
            return Exit::CannotStart;
        }
    };
    let stage = if without_namespaces {
        Stage::InProcess("as asked for (--without-namespaces)".to_owned())
    } else {
        Stage::set()
    };
    let (exit, words) = match play(mode, &stage, &folder, stop) {
        Ok(summary) => {
            print!("{summary}");
            (if summary.is_good() { Exit::Well } else { Exit::Fault }, None)
        }
        Err(Broken::Interrupted) => (Exit::Asked(130), Some("interrupted: nothing is proved".to_owned())),
        Err(Broken::CannotStart(why)) => (Exit::CannotStart, Some(why)),
        Err(Broken::Fault(why)) => {
            (Exit::Fault, Some(format!("{why}; the servers said:\n{}", folder.said())))
        }
    };
    if let Some(words) = words {
        eprintln!("aplomado: {words}");
    }
    exit
}

/// The whole play.
fn play(mode: Mode, stage: &Stage, folder: &Folder, stop: Arc<AtomicBool>) -> Result<Summary, Broken> {
    let clock = Clock::new();
    folder.configure(mode, stage.pair_addresses()?)?;
    println!("aplomado demo: a {} pair, {CLIENTS} clients, {PACE_PER_S} exchanges a second", mode.name());
    println!("  by {}", stage.describe());
    let wire = Wire::new(stage)?;
    let population = Population::new(CLIENTS, ENDS, clock.wall_us());
    let watches = [Watch::over(folder.socket(0))?, Watch::over(folder.socket(1))?];
    let mut show = Show {
        clock,
        wire,
        servers: [None, None],
        watches,
        population,
        screen: Screen::new(),
        stop,
        turned_ns: 0,
    };
    for server in [0, 1] {
        show.start(stage, folder, server)?;
    }
    show.until_normal(mode, "starting: the servers look for each other and compare leases")?;
    let start_ns = show.now_ns();
    let words = match mode {
        Mode::LoadBalancing => "both serve, each its half of the clients",
        Mode::HotStandby => "one serves all clients, two stands by",
    };
    show.while_turning(WORK_NS, words, |_| false)?;

    let killed_ns = show.now_ns();
    show.kill(VICTIM)?;
    show.population.begin_proof(VICTIM, killed_ns);
    show.draw("one is killed with -9", true);
    let words = "one is dead; two waits until that is certain";
    show.while_turning(TAKEOVER_MAX_NS, words, |show| show.watches[SURVIVOR].is_in("partner-down"))?;
    show.while_turning(TAKEOVER_MAX_NS, "two has taken over", |show| {
        show.population.proof().is_none_or(|proof| proof.all_kept_ns.is_some())
    })?;
    let proof = show.population.end_proof();
    show.tell_gap(&proof);
    show.while_turning(ALONE_NS, "two serves all clients", |_| false)?;

    let returning_ns = show.now_ns();
    show.start(stage, folder, VICTIM)?;
    show.until_normal(mode, "one is started again: it fetches what it has missed")?;
    let normal_ns = show.now_ns();
    show.screen.results.push(format!(
        "return   the pair was normal {} ms after the start of one",
        (normal_ns - returning_ns) / 1_000_000
    ));
    show.while_turning(AFTER_NS, "one is back", |_| false)?;
    let summary = show.conclude(mode, folder, proof)?;
    Ok(Summary { served_ns: show.now_ns() - start_ns, return_ns: normal_ns - returning_ns, ..summary })
}

/// Everything that moves.
struct Show {
    clock: Clock,
    wire: Wire,
    servers: [Option<Server>; 2],
    watches: [Watch; 2],
    population: Population,
    screen: Screen,
    stop: Arc<AtomicBool>,
    turned_ns: u64,
}

impl Show {
    fn now_ns(&self) -> u64 {
        self.clock.now().mono.0
    }

    fn start(&mut self, stage: &Stage, folder: &Folder, server: usize) -> io::Result<()> {
        let mut started = Server::start(stage, folder, server)?;
        self.wire.started(server, started.process())?;
        self.servers[server] = Some(started);
        Ok(())
    }

    /// One turn: clients begin what the pace allows, then hear what has come.
    fn turn(&mut self, pace_per_s: u64, words: &str) -> Result<(), Broken> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Broken::Interrupted);
        }
        let now_ns = self.now_ns();
        let period_ns = SECOND_NS / pace_per_s.max(1);
        // A turn that was late does not make up for more than a tenth of a second.
        self.turned_ns = self.turned_ns.max(now_ns.saturating_sub(SECOND_NS / 10));
        let budget = if pace_per_s == 0 { 0 } else { now_ns.saturating_sub(self.turned_ns) / period_ns };
        self.turned_ns += budget * period_ns;
        let mut frames = Vec::new();
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        self.population.act(now_ns, budget, &mut |frame| frames.push(frame.to_vec()));
        self.wire.send(&frames);
        frames.clear();
        let (clock, population) = (self.clock.clone(), &mut self.population);
        self.wire.receive(TURN, |frame| {
            population.take(frame, clock.now().mono.0, &mut |answer| frames.push(answer.to_vec()));
        })?;
        self.wire.send(&frames);
        self.draw(words, false);
        for (name, server) in NAMES.into_iter().zip(&mut self.servers) {
            if let Some(status) = server.as_mut().map(Server::ended).transpose()?.flatten() {
                return Err(Broken::Fault(format!("the server {name} ended by itself with {status}")));
            }
        }
        Ok(())
    }

    fn draw(&mut self, words: &str, at_once: bool) {
        let now_ns = self.now_ns();
        let servers = [0, 1].map(|server: usize| ServerView {
            pid: self.servers[server].as_ref().map(Server::pid),
            seen: self.watches[server].seen(),
        });
        self.screen.draw(now_ns, at_once, View { words, servers, population: &mut self.population });
    }

    /// Clients come, renew and go until it is `enough`; true when that came within the limit.
    fn while_turning(
        &mut self,
        max_ns: u64,
        words: &str,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool, Broken> {
        let end_ns = self.now_ns() + max_ns;
        while !enough(self) {
            if self.now_ns() >= end_ns {
                return Ok(false);
            }
            self.turn(PACE_PER_S, words)?;
        }
        Ok(true)
    }

    fn until_normal(&mut self, mode: Mode, words: &str) -> Result<(), Broken> {
        let normal = |show: &Self| show.watches.iter().all(|watch| watch.is_in(mode.name()));
        if self.while_turning(NORMAL_MAX_NS, words, normal)? {
            return Ok(());
        }
        Err(Broken::Fault(format!("the pair is not {} within {} s", mode.name(), NORMAL_MAX_NS / SECOND_NS)))
    }

    /// `kill -9`, and hears what the server had said before.
    fn kill(&mut self, server: usize) -> Result<(), Broken> {
        if let Some(mut killed) = self.servers[server].take() {
            killed.kill()?;
        }
        self.watches[server].forget();
        let (clock, population) = (self.clock.clone(), &mut self.population);
        // A frame on a virtual wire is there at once; a pipe is emptied by its thread, which takes a moment.
        for _ in 0..3 {
            self.wire.receive(TURN, |frame| population.take(frame, clock.now().mono.0, &mut |_| {}))?;
        }
        Ok(())
    }

    fn tell_gap(&mut self, proof: &Proof) {
        self.screen.results.push(format!("gap      {}", summary::gap(proof)));
    }

    /// Clients come to rest; then both databases are asked for.
    fn conclude(&mut self, mode: Mode, folder: &Folder, proof: Proof) -> Result<Summary, Broken> {
        let end_ns = self.now_ns() + SETTLE_MAX_NS;
        while !self.population.is_at_rest() && self.now_ns() < end_ns {
            self.turn(0, "the last answers come in")?;
        }
        let end_ns = self.now_ns() + SETTLE_MAX_NS;
        let (leases, differences, missing) = loop {
            let [one, two] = [0, 1].map(|server| watch::leases(&folder.socket(server)));
            let (one, two) = (one.map_err(Broken::Fault)?, two.map_err(Broken::Fault)?);
            let differences = watch::differences([&one, &two], NAMES);
            let mut missing = watch::missing(&one, NAMES[0], self.population.ledger());
            missing.extend(watch::missing(&two, NAMES[1], self.population.ledger()));
            if (differences.is_empty() && missing.is_empty()) || self.now_ns() >= end_ns {
                break ([one.len(), two.len()], differences, missing);
            }
            self.turn(0, "both databases are compared")?;
        };
        self.draw("shown", true);
        let population = &mut self.population;
        Ok(Summary {
            mode,
            counts: population.counts,
            proof,
            held: population.held_count(),
            leases,
            lost: std::mem::take(&mut population.lost),
            doubled: std::mem::take(&mut population.doubled),
            differences,
            missing,
            served_ns: 0,
            return_ns: 0,
        })
    }
}
