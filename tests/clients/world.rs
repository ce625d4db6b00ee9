//! A world for one test: two network namespaces, wires between them, a folder, and the processes in them. All of it ends with
//! the value.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use aplomado::net::enter_network_namespace;
use aplomado::net::link::{Monitor, Snapshot};
use serde_json::{Value, json};

/// Longest wait for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The same for programs that end by themselves, in the words of timeout(1).
const PATIENCE_TEXT: &str = "60";
const SERVER: &str = env!("CARGO_BIN_EXE_aplomado");

/// Says why a test proves nothing here, past the harness, which would swallow it.
pub(crate) fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {}", why.trim_end());
}

/// Whether a program is installed.
fn has(program: &str) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    folders.iter().any(|folder| Path::new(folder).join(program).exists())
}

pub(crate) struct World {
    server: String,
    client: String,
    folder: tempfile::TempDir,
}

impl World {
    /// The world with a wire `srv0`-`cli0`, or nothing after saying why not.
    pub(crate) fn new(programs: &[&str]) -> Option<Self> {
        let world = Self::without_wire(programs)?;
        world.add_wire(0, "192.0.2");
        Some(world)
    }

    /// The world without any wire.
    pub(crate) fn without_wire(programs: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(missing) = programs.iter().find(|program| !has(program)) {
            skip(&format!("{missing} is not installed"));
            return None;
        }
        let name = format!("cl-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let world = Self { server: format!("{name}-s"), client: format!("{name}-c"), folder };
        for space in [&world.server, &world.client] {
            if let Err(why) = try_ip(&["netns", "add", space]) {
                skip(&format!("no network namespaces here: {why}"));
                return None;
            }
        }
        Some(world)
    }

    /// Adds `srvN` with address `NETWORK.1/24` and `cliN` with `NETWORK.2/24`, and waits until both are running.
    pub(crate) fn add_wire(&self, number: u8, network: &str) {
        let (s, c) = (self.server.as_str(), self.client.as_str());
        let (srv, cli) = (format!("srv{number}"), format!("cli{number}"));
        ip(&["-n", s, "link", "add", &srv, "type", "veth", "peer", "name", &cli, "netns", c]);
        for (space, device, end) in [(s, &srv, 1), (c, &cli, 2)] {
            let mac = format!("02:00:00:00:{number:02x}:{end:02x}");
            ip(&["-n", space, "link", "set", device, "address", &mac, "addrgenmode", "none"]);
            ip(&["-n", space, "addr", "add", &format!("{network}.{end}/24"), "dev", device]);
            ip(&["-n", space, "link", "set", device, "up"]);
        }
        self.in_server(|| wait_until_running(&srv));
        self.in_client(|| wait_until_running(&cli));
    }

    pub(crate) fn ip_at_server(&self, arguments: &[&str]) {
        ip(&[&["-n", self.server.as_str()], arguments].concat());
    }

    pub(crate) fn ip_at_client(&self, arguments: &[&str]) {
        ip(&[&["-n", self.client.as_str()], arguments].concat());
    }

    /// Runs `work` in a thread in the server's namespace.
    pub(crate) fn in_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.server, work)
    }

    /// Runs `work` in a thread in the clients' namespace.
    pub(crate) fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.client, work)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.path("leases.csv")
    }

    /// A configuration that serves `192.0.2.0/24` on `srv0` from `pool`, with `more` in its `Dhcp4` map.
    pub(crate) fn config(&self, pool: &str, more: &Value) -> PathBuf {
        let mut config = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": ["srv0"] },
            "lease-database": { "type": "memfile", "name": self.leases(), "lfc-interval": 0 },
            "valid-lifetime": 3600,
            "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24", "pools": [ { "pool": pool } ] } ],
        } });
        for (key, value) in more.as_object().expect("a map") {
            config["Dhcp4"][key] = value.clone();
        }
        let path = self.path("kea-dhcp4.conf");
        fs::write(&path, serde_json::to_string_pretty(&config).expect("a value")).expect("room");
        path
    }

    /// Starts the server and waits until it says that it serves.
    pub(crate) fn serve(&self, config: &Path) -> Running {
        let mut server = self.start_server(config);
        server.wait_for("serving");
        server
    }

    /// Starts the server; its lines are those of standard error.
    pub(crate) fn start_server(&self, config: &Path) -> Running {
        let mut command = netns(&self.server);
        command.arg(SERVER).arg("run").arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stderr = child.stderr.take().expect("piped");
        Running::new("aplomado", child, stderr)
    }

    /// Starts a program among the clients; its lines are those of standard output.
    pub(crate) fn start_client(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = netns(&self.client);
        command.arg(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the client starts");
        let stdout = child.stdout.take().expect("piped");
        Running::new(program, child, stdout)
    }

    /// Starts Kea beside the server; its lines are those of standard error.
    pub(crate) fn start_kea(&self, program: &str, config: &Path) -> Running {
        let mut command = netns(&self.server);
        command.arg(program).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("KEA_PIDFILE_DIR", self.folder.path()).env("KEA_LOCKFILE_DIR", self.folder.path());
        let mut child = command.spawn().expect("Kea starts");
        let stderr = child.stderr.take().expect("piped");
        Running::new("Kea", child, stderr)
    }

    /// Runs a program among the clients to its end.
    pub(crate) fn run_client(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = netns(&self.client);
        command.args(["timeout", PATIENCE_TEXT, program]).args(arguments);
        command.output().expect("timeout(1) is there")
    }

    /// Writes a script that both clients call at each event, and returns its path. It prints one line and sets the address.
    pub(crate) fn script(&self) -> String {
        let path = self.path("script");
        let text = "#!/bin/sh\n\
            # udhcpc says what in $1, dhclient in $reason.\n\
            address=${ip:-$new_ip_address}\n\
            case \"$1$reason\" in\n\
            bound|renew|BOUND|RENEW|REBIND|REBOOT) ip addr replace $address/24 dev $interface ;;\n\
            esac\n\
            echo \"$1$reason $address by ${serverid:-$new_dhcp_server_identifier}\"\n";
        fs::write(&path, text).expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our file");
        path.display().to_string()
    }

    /// Gets an address with `udhcpc` on `link` and ends; what the script said, or nothing when none was got in `tries` seconds.
    pub(crate) fn udhcpc_once(&self, link: &str, tries: u32) -> Option<String> {
        let (script, tries) = (self.script(), tries.to_string());
        let arguments = ["-f", "-q", "-n", "-i", link, "-s", &script, "-t", &tries, "-T", "1"];
        let output = self.run_client("udhcpc", &arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.starts_with("bound ")).map(str::to_owned)
    }

    /// The last row of each address of the lease file: hardware address and whether it is held.
    pub(crate) fn rows(&self) -> std::collections::HashMap<std::net::Ipv4Addr, (String, bool)> {
        let text = fs::read_to_string(self.leases()).expect("the lease file is there");
        let mut rows = std::collections::HashMap::new();
        for row in text.lines().skip(1) {
            let columns: Vec<&str> = row.split(',').collect();
            if let (Ok(address), Some(hw_addr), Some(valid_lft)) =
                (columns[0].parse(), columns.get(1), columns.get(3))
            {
                rows.insert(address, ((*hw_addr).to_owned(), *valid_lft != "0"));
            }
        }
        rows
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for space in [&self.server, &self.client] {
            let _ = try_ip(&["netns", "del", space]);
        }
    }
}

/// A process whose lines are read as they come; it is killed with the value.
pub(crate) struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    fn new(name: &str, child: Child, stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, lines, said: Vec::new() }
    }

    /// Waits for a line with `text` in it, and returns it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => {
                    panic!("{}: waiting for '{text}': {error}; it said {:#?}", self.name, self.said)
                }
            }
        }
    }

    /// Waits for the end; how it ended and all that it said.
    pub(crate) fn wait_for_end(mut self) -> (ExitStatus, String) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end: {:#?}", self.name, self.said),
            }
        }
        let status = self.child.wait().expect("our child");
        (status, self.said.join("\n"))
    }

    /// All that it has said and that was waited for.
    pub(crate) fn said(&self) -> String {
        self.said.join("\n")
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill(1) is there");
        assert!(status.success(), "{} is there to be signalled", self.name);
    }

    /// Kills it with -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn netns(space: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

fn within<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{space}")).expect("the namespace was made");
            enter_network_namespace(&file).expect("root may enter it");
            work()
        });
        worker.join().expect("the work is done")
    })
}

/// A fresh veth takes some time until it is running.
fn wait_until_running(link: &str) {
    let mut monitor = Monitor::open().expect("a routing socket");
    loop {
        let snapshot = Snapshot::read().expect("the kernel lists interfaces");
        if snapshot.link(link).is_some_and(|link| link.running) {
            return;
        }
        assert!(monitor.wait(PATIENCE).expect("readable"), "{link} is running within {PATIENCE:?}");
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn ip(arguments: &[&str]) {
    if let Err(why) = try_ip(arguments) {
        panic!("ip {}: {why}", arguments.join(" "));
    }
}
