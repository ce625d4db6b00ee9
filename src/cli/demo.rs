//! `demo`: a server at work, killed with -9 and started again, and the proof that it has forgotten nothing.
//!
//! The server is a child process of this very program on a configuration and a lease file in a folder of its own; the clients
//! are in this process, which has one thread and moves between network namespaces. Nothing is left behind: namespaces
//! and devices have no names, the child ends with its parent, the folder is removed.

mod bridge;
mod population;
mod screen;
mod stage;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::population::{Population, Proof};
use self::screen::{Screen, View};
use self::stage::{ENDS, PREFIX_LEN, SERVER_LINK, Stage, Wire};
use super::Exit;
use crate::net::end_with_parent;
use crate::server::clock::Clock;

/// How many clients there are.
const CLIENTS: usize = 1_000;
/// Deeds that clients begin in a second.
const PACE_PER_S: u64 = 1_000;
/// The same while the proof is taken.
const PROOF_PACE_PER_S: u64 = 4_000;
/// How long a server may take until it answers.
const START_MAX_NS: u64 = 8 * SECOND_NS;
/// How long clients come and go before the server is killed.
const WORK_NS: u64 = 4 * SECOND_NS;
/// How long it stays dead.
const DEAD_NS: u64 = SECOND_NS / 4;
/// How long the restarted server has to confirm every lease.
const PROOF_MAX_NS: u64 = 4 * SECOND_NS;
/// How long clients come and go after that.
const AFTER_NS: u64 = SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// How long one turn waits for frames.
const TURN: Duration = Duration::from_millis(2);
/// Lost leases that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// Why the demo ended before its end.
enum Broken {
    /// Ctrl-C.
    Interrupted,
    /// Nothing could be shown.
    CannotStart(String),
    /// The server did what it must not.
    Fault(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::CannotStart(error.to_string())
    }
}

/// `aplomado demo`. For a process with one thread.
pub(super) fn demo() -> Exit {
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
    let (exit, words) = match play(&folder, stop) {
        Ok(proof) if proof.lost.is_empty() => (Exit::Well, None),
        Ok(_) => (Exit::Fault, None),
        Err(Broken::Interrupted) => (Exit::Asked(130), Some("interrupted: nothing is proved".to_owned())),
        Err(Broken::CannotStart(why)) => (Exit::CannotStart, Some(why)),
        Err(Broken::Fault(why)) => (Exit::Fault, Some(why)),
    };
    if let Some(words) = words {
        eprintln!("aplomado: {words}");
    }
    exit
}

/// The server of a demo without namespaces: see [`bridge`].
pub(super) fn serve_pipes(config: PathBuf) -> Exit {
    match bridge::serve(config) {
        Ok(()) => Exit::Well,
        Err(why) => {
            eprintln!("aplomado: {why}");
            Exit::CannotStart
        }
    }
}

/// The whole play.
fn play(folder: &Folder, stop: Arc<AtomicBool>) -> Result<Proof, Broken> {
    let stage = Stage::set();
    let clock = Clock::new();
    fs::write(folder.config(), configuration(&folder.leases()))?;
    println!("aplomado demo: one server, {CLIENTS} clients, {PACE_PER_S} exchanges a second");
    println!("  by {}", stage.describe());
    let mut server = start(&stage, folder)?;
    let wire = if let Stage::InProcess(_) = stage { Wire::pipes(&mut server.0)? } else { Wire::packets()? };
    let population = Population::new(CLIENTS, ENDS, clock.wall_us());
    let mut show = Show { clock, wire, server, population, screen: Screen::new(), stop, turned_ns: 0 };
    show.until_answered(folder, "starting")?;
    show.work(WORK_NS, "serving")?;

    let pid = show.server.0.id();
    show.kill()?;
    let last_ack_ns = show.population.last_ack_ns;
    show.population.begin_proof();
    let missing = missing_rows(&folder.leases(), &show.population)?;
    show.rest(DEAD_NS, &format!("process {pid} killed with -9"))?;
    show.restart(&stage, folder)?;
    show.until_answered(folder, "starting again")?;
    show.prove()?;
    let gap_ns = show.population.first_ack_ns.unwrap_or(u64::MAX).saturating_sub(last_ack_ns);
    show.screen.gap_ns = Some(gap_ns);
    let mut proof = show.population.end_proof();
    show.screen.proof = Some((proof.kept, proof.asked));
    proof.lost.extend(missing);
    show.work(AFTER_NS, "serving again")?;
    show.draw("shown", true);
    show.kill()?;

    let mut words = String::new();
    if proof.lost.is_empty() {
        let _ = write!(
            words,
            "no acknowledged lease was lost: {} of {} are in the lease file and were confirmed by the restarted \
             server; gap in service {} ms, of which the server was kept dead for {} ms",
            proof.kept,
            proof.asked,
            gap_ns / 1_000_000,
            DEAD_NS / 1_000_000
        );
    } else {
        let _ = write!(words, "{} acknowledged lease(s) LOST of {}:", proof.lost.len(), proof.asked);
        for lost in proof.lost.iter().take(NAMED_MAX) {
            let _ = write!(words, "\n  {lost}");
        }
    }
    println!("{words}");
    Ok(proof)
}

/// Everything that moves.
struct Show {
    clock: Clock,
    wire: Wire,
    server: Server,
    population: Population,
    screen: Screen,
    stop: Arc<AtomicBool>,
    turned_ns: u64,
}

impl Show {
    fn now_ns(&self) -> u64 {
        self.clock.now().mono.0
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
        if pace_per_s > 0 {
            let budget = usize::try_from(budget).unwrap_or(usize::MAX);
            self.population.act(now_ns, budget, &mut |frame| frames.push(frame.to_vec()));
            self.wire.send(&frames);
            frames.clear();
        }
        let (clock, population) = (self.clock, &mut self.population);
        self.wire.receive(TURN, |frame| {
            population.take(frame, clock.now().mono.0, &mut |answer| frames.push(answer.to_vec()));
        })?;
        self.wire.send(&frames);
        self.draw(words, false);
        Ok(())
    }

    fn draw(&mut self, words: &str, last: bool) {
        let now_ns = self.now_ns();
        let view = View { words, pid: self.server.0.id(), population: &mut self.population };
        self.screen.draw(now_ns, last, view);
    }

    /// Works until the server answers for the first time.
    fn until_answered(&mut self, folder: &Folder, words: &str) -> Result<(), Broken> {
        let (start_ns, heard) = (self.now_ns(), self.population.counts.heard);
        while self.population.counts.heard == heard {
            self.turn(PACE_PER_S, words)?;
            if let Some(status) = self.server.0.try_wait()? {
                let said = folder.said();
                return Err(Broken::CannotStart(format!("the server ended with {status}; it said:\n{said}")));
            }
            if self.now_ns() - start_ns > START_MAX_NS {
                let said = folder.said();
                return Err(Broken::Fault(format!("the server does not answer; it said:\n{said}")));
            }
        }
        Ok(())
    }

    /// Clients come, renew and go.
    fn work(&mut self, for_ns: u64, words: &str) -> Result<(), Broken> {
        let end_ns = self.now_ns() + for_ns;
        while self.now_ns() < end_ns {
            self.turn(PACE_PER_S, words)?;
            if let Some(status) = self.server.0.try_wait()? {
                return Err(Broken::Fault(format!("the server ended by itself with {status}")));
            }
        }
        Ok(())
    }

    /// Clients wait.
    fn rest(&mut self, for_ns: u64, words: &str) -> Result<(), Broken> {
        self.draw(words, true);
        let end_ns = self.now_ns() + for_ns;
        while self.now_ns() < end_ns {
            self.turn(0, words)?;
        }
        Ok(())
    }

    /// Kills the server and hears what it had said before.
    fn kill(&mut self) -> Result<(), Broken> {
        self.server.0.kill()?;
        self.server.0.wait()?;
        let (clock, population) = (self.clock, &mut self.population);
        // A frame on a virtual wire is there at once; a pipe is emptied by its thread, which takes a moment.
        for _ in 0..3 {
            self.wire.receive(10 * TURN, |frame| population.take(frame, clock.now().mono.0, &mut |_| {}))?;
        }
        Ok(())
    }

    fn restart(&mut self, stage: &Stage, folder: &Folder) -> Result<(), Broken> {
        self.server = start(stage, folder)?;
        if let Stage::InProcess(_) = stage {
            self.wire = Wire::pipes(&mut self.server.0)?;
        }
        Ok(())
    }

    /// Every client that holds an address asks whether it may keep it, until all are answered or time is over.
    fn prove(&mut self) -> Result<(), Broken> {
        let end_ns = self.now_ns() + PROOF_MAX_NS;
        while self.now_ns() < end_ns
            && self.population.proof().is_some_and(|proof| proof.kept + proof.lost.len() < proof.asked)
        {
            self.turn(PROOF_PACE_PER_S, "started again, asked for every lease")?;
        }
        Ok(())
    }
}

/// The server's process; it does not outlive this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Errors here mean that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server.
fn start(stage: &Stage, folder: &Folder) -> io::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    let log = File::options().create(true).append(true).open(folder.log())?;
    command.stderr(log).env_remove("NOTIFY_SOCKET");
    if let Stage::InProcess(_) = stage {
        command.arg("demo").arg("--serve-pipes").arg(folder.config());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    } else {
        command.arg("run").arg("-c").arg(folder.config());
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    end_with_parent(&mut command);
    stage.at_server(|| command.spawn()).map(Server)
}

fn configuration(leases: &Path) -> String {
    let pool = "10.67.1.0 - 10.67.255.254";
    let subnet = format!("10.67.0.0/{PREFIX_LEN}");
    serde_json::json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": [SERVER_LINK] },
        "lease-database": { "type": "memfile", "name": leases, "lfc-interval": 0 },
        "valid-lifetime": 600,
        "subnet4": [ { "id": 1, "subnet": subnet, "pools": [ { "pool": pool } ] } ],
    } })
    .to_string()
}

/// The acknowledged leases whose last row in the lease file is not theirs.
fn missing_rows(path: &Path, population: &Population) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let mut last = HashMap::new();
    for row in text.lines().skip(1) {
        let mut columns = row.split(',');
        let (Some(address), Some(hw_addr), Some(_), Some(valid_lft)) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            last.insert(address, (hw_addr.to_owned(), valid_lft != "0"));
        }
    }
    let missing = population.ledger().filter_map(|(mac, address)| {
        let expected = mac.map(|octet| format!("{octet:02x}")).join(":");
        let found = last.get(&address);
        if found.is_some_and(|(hw_addr, valid)| *valid && *hw_addr == expected) {
            return None;
        }
        Some(format!("{expected} holds {address}, but the last row in the lease file says {found:?}"))
    });
    Ok(missing.collect())
}

/// The demo's folder, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("aplomado-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn config(&self) -> PathBuf {
        self.0.join("kea-dhcp4.conf")
    }

    fn leases(&self) -> PathBuf {
        self.0.join("leases.csv")
    }

    fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    /// The last lines that the server wrote.
    fn said(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("aplomado: cannot remove {}: {error}", self.0.display());
        }
    }
}
