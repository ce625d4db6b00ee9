//! Network namespaces for one run: one or two servers, a generator, the wires between them; and what runs in them.
//!
//! ```text
//!   namespace ap-PID-1  eth0 10.0.0.1/8  <---->  br0 (or eth0) of ap-PID-c, where the generator is
//!   namespace ap-PID-2  eth0 10.0.0.2/8  <---->
//!   ap-PID-1 eth1 192.168.9.1/24  <---->  ap-PID-2 eth1 192.168.9.2/24      what the servers say to each other
//! ```
//! A single server is joined with the generator by one veth pair. No packet leaves the namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clock;

/// Waits.
#[expect(clippy::disallowed_methods, reason = "an instrument waits for what it started")]
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Tries every few milliseconds until it works, or says that it never did.
pub(crate) fn until<T>(
    what: &str,
    patience_s: f64,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, String> {
    let end_ns = clock::now_ns() + crate::nanoseconds(patience_s);
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if clock::now_ns() > end_ns {
            return Err(format!("no {what} within {patience_s} s"));
        }
        pause(5);
    }
}

/// Whether a program is installed, and where.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// A program in a namespace; ends with its owner.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Its log, to be shown when something goes wrong.
    pub(crate) log: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        clock::cpu_seconds_of(&self.id().to_string()).map_or(0.0, |(user, system)| user + system)
    }

    /// A number of kibibytes that the kernel tells of it, in octets.
    fn status(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Resident memory in octets.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that [`Self::resident`] has been since [`Self::forget_peak`].
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The peak is what is resident now.
    pub(crate) fn forget_peak(&self) {
        // Where the kernel has no such file the peak is that of the whole life.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it for good, as by `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It hears and says nothing any more, and its connections stay.
    pub(crate) fn freeze(&self) -> Result<(), String> {
        let done = Command::new("kill").args(["-STOP", &self.id().to_string()]).status();
        done.is_ok_and(|status| status.success()).then_some(()).ok_or_else(|| "cannot stop it".to_owned())
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The namespaces of a run, and the folder of its files: both go with it.
#[derive(Debug)]
pub(crate) struct Lab {
    spaces: Vec<String>,
    generator_space: String,
    pub(crate) generator_interface: &'static str,
    folder: PathBuf,
}

impl Lab {
    /// Namespaces for this many servers (1 or 2), with their files below `folder`.
    pub(crate) fn new(servers: usize, folder: &Path) -> Result<Self, String> {
        let pid = std::process::id();
        let spaces: Vec<String> = (1..=servers).map(|number| format!("ap-{pid}-{number}")).collect();
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let lab = Self {
            spaces,
            generator_space: format!("ap-{pid}-c"),
            generator_interface: if servers == 1 { "eth0" } else { "br0" },
            folder: folder.to_owned(),
        };
        let c = lab.generator_space.as_str();
        for space in lab.spaces.iter().map(String::as_str).chain([c]) {
            ip(&["netns", "add", space])?;
            ip(&["-n", space, "link", "set", "lo", "up"])?;
        }
        let veth = |one: &str, device: &str, other: &str, far: &str| {
            ip(&["-n", one, "link", "add", device, "type", "veth", "peer", "name", far, "netns", other])?;
            ip(&["-n", one, "link", "set", device, "addrgenmode", "none", "up"])?;
            ip(&["-n", other, "link", "set", far, "addrgenmode", "none", "up"])
        };
        if servers == 1 {
            veth(&lab.spaces[0], "eth0", c, "eth0")?;
        } else {
            ip(&[
                "-n",
                c,
                "link",
                "add",
                "br0",
                "type",
                "bridge",
                "forward_delay",
                "0",
                "mcast_snooping",
                "0",
            ])?;
            // What filters of the machine's own firewall cost per frame is not what is compared. Where the kernel has none for bridges
            // there is nothing to switch off.
            for family in ["ip", "ip6", "arp"] {
                let off = format!("echo 0 > /proc/sys/net/bridge/bridge-nf-call-{family}tables");
                let _ = in_space(c, None).args(["sh", "-c", &off]).stderr(Stdio::null()).status();
            }
            // Replies go to hardware addresses that no port has sent from.
            ip(&["-n", c, "link", "set", "br0", "addrgenmode", "none", "promisc", "on", "up"])?;
            for (space, port) in lab.spaces.iter().zip(["s1", "s2"]) {
                veth(space, "eth0", c, port)?;
                ip(&["-n", c, "link", "set", port, "master", "br0"])?;
                ip(&["-n", c, "link", "set", port, "type", "bridge_slave", "flood", "off"])?;
            }
            veth(&lab.spaces[0], "eth1", &lab.spaces[1], "eth1")?;
        }
        for (number, space) in (1..).zip(&lab.spaces) {
            ip(&["-n", space, "addr", "add", &format!("10.0.0.{number}/8"), "dev", "eth0"])?;
            if servers > 1 {
                ip(&["-n", space, "addr", "add", &format!("192.168.9.{number}/24"), "dev", "eth1"])?;
            }
        }
        Ok(lab)
    }

    /// The namespace of a server.
    pub(crate) fn space(&self, server: usize) -> &str {
        &self.spaces[server]
    }

    /// The file of a server with this ending.
    pub(crate) fn path(&self, server: usize, ending: &str) -> PathBuf {
        self.folder.join(format!("{server}.{ending}"))
    }

    /// Starts a program beside a server's interface, on these cores where they are named (as `taskset` takes them).
    pub(crate) fn spawn(
        &self,
        server: usize,
        words: &[String],
        cores: Option<&str>,
    ) -> Result<Running, String> {
        let log = self.path(server, "log");
        let failed = |error| format!("{}: {error}", log.display());
        let file = File::create(&log).map_err(failed)?;
        let mut command = in_space(&self.spaces[server], cores);
        command.args(words).env("KEA_PIDFILE_DIR", &self.folder).env("KEA_LOCKFILE_DIR", &self.folder);
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(failed)?).stderr(file);
        let child = command.spawn().map_err(|error| format!("{}: {error}", words.join(" ")))?;
        Ok(Running { child, log })
    }

    /// Starts the load generator with these arguments.
    pub(crate) fn generator(&self, arguments: &str, cores: Option<&str>) -> Result<Offering, String> {
        let own = std::env::current_exe().map_err(|error| format!("where am I: {error}"))?;
        let mut command = in_space(&self.generator_space, cores);
        command.arg(own).args(["load", "-q", "-i", self.generator_interface]);
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Offering { child: child.map_err(|error| format!("the generator: {error}"))? })
    }

    /// Offers load, and what the generator saw.
    pub(crate) fn load(&self, arguments: &str, cores: Option<&str>) -> Result<Value, String> {
        self.generator(arguments, cores)?.results()
    }

    /// What servers and generator say to each other is cut off, for server 1.
    pub(crate) fn cut(&self) -> Result<(), String> {
        ip(&["-n", &self.spaces[0], "link", "set", "eth1", "down"])?;
        ip(&["-n", &self.generator_space, "link", "set", "s1", "down"])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in self.spaces.iter().chain([&self.generator_space]) {
            let _ = ip(&["netns", "del", space]);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn in_space(space: &str, cores: Option<&str>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]);
    if let Some(cores) = cores {
        command.args(["taskset", "-c", cores]);
    }
    command
}

/// A generator at work.
#[derive(Debug)]
pub(crate) struct Offering {
    child: Child,
}

impl Offering {
    /// Waits for its end.
    pub(crate) fn results(self) -> Result<Value, String> {
        let output = self.child.wait_with_output().map_err(|error| format!("the generator: {error}"))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            format!("the generator gave no results: {}", String::from_utf8_lossy(&output.stderr).trim_end())
        })
    }
}
