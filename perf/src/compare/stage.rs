//! Where servers are compared: network namespaces joined by a bridge, one for each server, one for the generator.
//!
//! ```text
//!   clients: bridge br0, cli0 --- veth --- br0        server N: srv0 10.0.0.N/8, ctl0 10.255.0.N/24
//! ```
//! A single server hangs on the generator's own veth, without a bridge between them. Everything is taken away again on drop.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clock;

/// One run's namespaces.
pub(crate) struct Stage {
    spaces: Vec<String>,
    folder: PathBuf,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), why.trim_end()))
}

impl Stage {
    /// Namespaces for `count` servers and the generator; files of the servers go to a folder of its own.
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("aplomado-compare-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let name = |end: &str| format!("cmp-{}-{end}", std::process::id());
        let mut stage = Self { spaces: Vec::new(), folder };
        for end in ["c", "1", "2"].into_iter().take(count + 1) {
            ip(&["netns", "add", &name(end)])?;
            stage.spaces.push(name(end));
            ip(&["-n", &name(end), "link", "set", "lo", "up"])?;
        }
        let c = stage.spaces[0].clone();
        if count == 1 {
            let s = stage.spaces[1].clone();
            stage.veth(&s, "srv0", &c, "cli0")?;
            ip(&["-n", &s, "addr", "add", "10.0.0.1/8", "dev", "srv0"])?;
            ip(&["-n", &c, "addr", "add", "10.0.0.100/8", "dev", "cli0"])?;
            return Ok(stage);
        }
        for bridge in ["br0", "br1"] {
            ip(&["-n", &c, "link", "add", bridge, "type", "bridge", "forward_delay", "0"])?;
            ip(&["-n", &c, "link", "set", bridge, "up"])?;
        }
        stage.veth(&c, "cli0", &c, "port0")?;
        ip(&["-n", &c, "link", "set", "port0", "master", "br0"])?;
        for number in 1..=count {
            let s = stage.spaces[number].clone();
            for (device, bridge, address) in [
                ("srv0", "br0", format!("10.0.0.{number}/8")),
                ("ctl0", "br1", format!("10.255.0.{number}/24")),
            ] {
                let port = format!("{bridge}-{number}");
                stage.veth(&s, device, &c, &port)?;
                ip(&["-n", &s, "addr", "add", &address, "dev", device])?;
                ip(&["-n", &c, "link", "set", &port, "master", bridge])?;
            }
        }
        Ok(stage)
    }

    fn veth(&self, space: &str, device: &str, other: &str, peer: &str) -> Result<(), String> {
        ip(&["-n", space, "link", "add", device, "type", "veth", "peer", "name", peer, "netns", other])?;
        ip(&["-n", space, "link", "set", device, "addrgenmode", "none", "up"])?;
        ip(&["-n", other, "link", "set", peer, "addrgenmode", "none", "up"])
    }

    /// A file of server `number`, counted from 1.
    pub(crate) fn path(&self, number: usize, name: &str) -> PathBuf {
        self.folder.join(format!("{number}.{name}"))
    }

    /// Starts a program in the namespace of server `number`, on core `core` if that is said.
    pub(crate) fn spawn(
        &self,
        number: usize,
        words: &[String],
        core: Option<usize>,
    ) -> Result<Server, String> {
        let path = self.path(number, "log");
        let log = File::options().create(true).append(true).open(&path).map_err(|error| error.to_string())?;
        let log_too = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[number]]);
        if let Some(core) = core {
            command.args(["taskset", "-c", &core.to_string()]);
        }
        command.args(words).env("KEA_PIDFILE_DIR", &self.folder).env("KEA_LOCKFILE_DIR", &self.folder);
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        Ok(Server { child, log: path })
    }

    /// Runs the generator and reads what it says. Wrong answers of the server are an error.
    pub(crate) fn load(&self, arguments: &str, core: Option<usize>) -> Result<Value, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[0]]);
        if let Some(core) = core {
            command.args(["taskset", "-c", &core.to_string()]);
        }
        command.arg(own).args(["load", "-i", "cli0", "-q"]).args(arguments.split_whitespace());
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("load {arguments}: {said}{}", String::from_utf8_lossy(&output.stdout)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("load {arguments}: {error}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Seconds of processor time so far, of all its threads.
    pub(crate) fn cpu_s(&self) -> f64 {
        clock::cpu_seconds_of(&self.child.id().to_string()).map_or(0.0, |(user, system)| user + system)
    }

    /// Waits until `ready` says so, or the server has ended.
    pub(crate) fn await_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        for _ in 0..400 {
            if ready() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended with {status}: {}", last_lines(&self.log)));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Err(format!("the server did not get ready within 20 s: {}", last_lines(&self.log)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
