//! Two network namespaces and what is sent between them.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::place::{Place, Server};

/// Two network namespaces with a cable between them; gone when dropped.
pub(crate) struct Cable {
    pub(crate) server: String,
    pub(crate) client: String,
}

impl Cable {
    /// Nothing, said aloud, where there is no way to have one.
    pub(crate) fn new(test: &str, name: char) -> Option<Self> {
        let pid = std::process::id();
        let cable = Self { server: format!("hd-{pid}{name}-s"), client: format!("hd-{pid}{name}-c") };
        let (near, far) = (format!("s{pid}{name}"), format!("c{pid}{name}"));
        let steps = [
            format!("netns add {}", cable.server),
            format!("netns add {}", cable.client),
            format!(
                "link add {near} netns {} type veth peer name {far} netns {}",
                cable.server, cable.client
            ),
            format!("-n {} link set {near} name veth-s", cable.server),
            format!("-n {} link set {far} name veth-c", cable.client),
            format!("-n {} link set veth-s address 02:00:00:00:00:01", cable.server),
            format!("-n {} link set veth-c address 02:00:00:00:00:02", cable.client),
            format!("-n {} address add 10.0.255.1/16 dev veth-s", cable.server),
            format!("-n {} address add 10.0.255.2/16 dev veth-c", cable.client),
            format!("-n {} link set veth-s up", cable.server),
            format!("-n {} link set veth-c up", cable.client),
        ];
        for step in &steps {
            let done = Command::new("ip").args(step.split(' ')).stderr(Stdio::piped()).output();
            if !done.is_ok_and(|done| done.status.success()) {
                eprintln!("SKIPPED: {test}: no network namespaces here (`ip {step}` fails)");
                return None;
            }
        }
        Some(cable)
    }

    /// The server's address on the second link.
    pub(crate) const SECOND_SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 255, 1);

    /// A second link beside the first, `veth-t` and `veth-d`.
    pub(crate) fn second(&self, name: char) {
        let pid = std::process::id();
        let (near, far) = (format!("t{pid}{name}"), format!("d{pid}{name}"));
        let (server, client) = (&self.server, &self.client);
        for step in [
            format!("link add {near} netns {server} type veth peer name {far} netns {client}"),
            format!("-n {server} link set {near} name veth-t"),
            format!("-n {client} link set {far} name veth-d"),
            format!("-n {server} address add {}/16 dev veth-t", Self::SECOND_SERVER),
            format!("-n {client} address add 10.9.255.2/16 dev veth-d"),
            format!("-n {server} link set veth-t up"),
            format!("-n {client} link set veth-d up"),
        ] {
            let done = Command::new("ip").args(step.split(' ')).status();
            assert!(done.is_ok_and(|done| done.success()), "{step}");
        }
    }

    /// One more address for the client's end.
    pub(crate) fn client_address(&self, address: Ipv4Addr) {
        let step = format!("-n {} address add {address}/16 dev veth-c", self.client);
        assert!(Command::new("ip").args(step.split(' ')).status().is_ok_and(|done| done.success()), "{step}");
    }

    pub(crate) fn inside(namespace: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        inside
    }

    pub(crate) fn start(&self, place: &Place) -> Server {
        Server::start(Self::inside(&self.server, &place.command()), place.path("socket"))
    }

    /// What `perfdhcp` says in the end; nothing, said aloud, where it is not installed.
    pub(crate) fn perfdhcp(&self, test: &str, arguments: &str) -> Option<std::process::Child> {
        let mut command = Command::new("perfdhcp");
        command.arg("-4").args(["-l", "veth-c"]).args(arguments.split(' '));
        if Command::new("perfdhcp").arg("-v").output().is_err() {
            eprintln!("SKIPPED: {test}: perfdhcp is not installed");
            return None;
        }
        let mut command = Self::inside(&self.client, &command);
        Some(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ip runs"))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
        }
    }
}

/// The numbers behind `name:` in what perfdhcp says, one for each exchange.
pub(crate) fn numbers(text: &str, name: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    lines.filter_map(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse().ok()).collect()
}
