//! The demo's two servers: their folder, their configurations, their processes.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::Mode;
use super::stage::{PREFIX_LEN, SERVER_LINK, Stage};
use crate::net::end_with_parent;

/// The servers' names; the first is the primary.
pub(super) const NAMES: [&str; 2] = ["one", "two"];
/// Delays of the pair, in ms.
pub(super) const HEARTBEAT_DELAY_MS: u64 = 250;
/// See [`HEARTBEAT_DELAY_MS`].
pub(super) const MAX_RESPONSE_DELAY_MS: u64 = 1000;
/// See [`HEARTBEAT_DELAY_MS`].
pub(super) const MAX_ACK_DELAY_MS: u64 = 250;

/// A server's process; it does not outlive this.
pub(super) struct Server(Child);

impl Server {
    /// Starts a server of the pair.
    pub(super) fn start(stage: &Stage, folder: &Folder, server: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let log = File::options().create(true).append(true).open(folder.log(server))?;
        command.stderr(log).env_remove("NOTIFY_SOCKET");
        if let Stage::InProcess(_) = stage {
            command.arg("demo").arg("--serve-pipes").arg(folder.config(server));
            command.arg("--server").arg(server.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.arg("run").arg("-c").arg(folder.config(server));
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        end_with_parent(&mut command);
        stage.at_server(server, || command.spawn()).map(Self)
    }

    /// Its process.
    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its process's number.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, when it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors here mean that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The demo's folder, removed with all that is in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("aplomado-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn config(&self, server: usize) -> PathBuf {
        self.0.join(format!("{}.conf", NAMES[server]))
    }

    pub(super) fn leases(&self, server: usize) -> PathBuf {
        self.0.join(format!("{}.csv", NAMES[server]))
    }

    pub(super) fn socket(&self, server: usize) -> PathBuf {
        self.0.join(format!("{}.sock", NAMES[server]))
    }

    fn log(&self, server: usize) -> PathBuf {
        self.0.join(format!("{}.log", NAMES[server]))
    }

    /// The last lines that the servers wrote.
    pub(super) fn said(&self) -> String {
        let mut said = String::new();
        for (server, name) in NAMES.into_iter().enumerate() {
            let text = fs::read_to_string(self.log(server)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(10)..] {
                said.push_str(&format!("  {name}: {line}\n"));
            }
        }
        said
    }

    /// Writes both configurations; `pair` is where the servers hear each other.
    pub(super) fn configure(&self, mode: Mode, pair: [SocketAddrV4; 2]) -> io::Result<()> {
        let (second, pools) = match mode {
            Mode::LoadBalancing => (
                "secondary",
                serde_json::json!([
                    { "pool": "10.67.1.0 - 10.67.127.255", "client-class": "HA_one" },
                    { "pool": "10.67.128.0 - 10.67.255.254", "client-class": "HA_two" },
                ]),
            ),
            Mode::HotStandby => ("standby", serde_json::json!([{ "pool": "10.67.1.0 - 10.67.255.254" }])),
        };
        for (server, name) in NAMES.into_iter().enumerate() {
            let relationship = serde_json::json!({
                "this-server-name": name, "mode": mode.name(),
                "heartbeat-delay": HEARTBEAT_DELAY_MS, "max-response-delay": MAX_RESPONSE_DELAY_MS,
                "max-ack-delay": MAX_ACK_DELAY_MS, "max-unacked-clients": 0,
                "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true,
                                     "http-listener-threads": 2, "http-client-threads": 2 },
                "peers": [
                    { "name": NAMES[0], "url": format!("http://{}/", pair[0]), "role": "primary" },
                    { "name": NAMES[1], "url": format!("http://{}/", pair[1]), "role": second },
                ],
            });
            let configuration = serde_json::json!({ "Dhcp4": {
                "interfaces-config": { "interfaces": [SERVER_LINK] },
                "control-socket": { "socket-type": "unix", "socket-name": self.socket(server) },
                "lease-database": { "type": "memfile", "name": self.leases(server), "lfc-interval": 0 },
                "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 1 },
                "valid-lifetime": 600,
                "hooks-libraries": [
                    { "library": "libdhcp_lease_cmds.so" },
                    { "library": "libdhcp_ha.so", "parameters": { "high-availability": [relationship] } },
                ],
                "subnet4": [ { "id": 1, "subnet": format!("10.67.0.0/{PREFIX_LEN}"), "pools": pools } ],
            } });
            fs::write(self.config(server), configuration.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("aplomado: cannot remove {}: {error}", self.0.display());
        }
    }
}
