//! The control agent: a command goes to each daemon that it names, to those of this process or over their sockets.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use mio::net::UnixStream;
use mio::{Interest, Token};
use serde_json::Value;

use super::ControlLoop;
use crate::control::backend::{Backend, Daemon};
use crate::control::command::{Answer, Command};
use crate::control::connection::Part;
use crate::control::frame_unix::{Framed, Framer};
use crate::control::json::Reader;
use crate::time::Mono;

/// Most daemons that one command names.
const SERVICES_MAX: usize = 8;
const FORWARD_TIMEOUT_MS: u64 = 60_000;

/// A command that was passed on to another daemon.
pub(super) struct Forward {
    stream: UnixStream,
    request: Vec<u8>,
    sent: usize,
    framer: Framer,
    client: Token,
    part: usize,
    service: String,
    pub(super) deadline: Mono,
}

impl ControlLoop {
    /// What the control agent does with a command: one part per addressed daemon.
    pub(super) fn agent_parts(
        &mut self,
        command: &Command,
        sockets: &[(String, PathBuf)],
        client: Token,
        backend: &mut dyn Backend,
    ) -> Vec<Part> {
        let ready = |answer: Answer| Part::Ready(answer.to_printed());
        let services = match command.service() {
            None => Vec::new(),
            Some(Value::Array(services)) => services,
            Some(_) => return vec![ready(Answer::error("service value must be a list"))],
        };
        if services.is_empty() {
            if !self.dispatcher.has_command(Daemon::Agent, &command.name, backend.features()) {
                let mut answer = Answer::unsupported(&command.name);
                answer.text.push_str(
                    " The command has no \"service\", so the control agent itself was asked. To ask a server, name it: \
                     \"service\": [ \"dhcp4\" ] for the DHCPv4 server.",
                );
                return vec![ready(answer)];
            }
            let job = self.dispatcher.start(Daemon::Agent, command, backend);
            return vec![self.job_part(job, client)];
        }
        if services.len() > SERVICES_MAX {
            return vec![ready(Answer::error(format!("expected at most {SERVICES_MAX} services")))];
        }
        let mut parts = Vec::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            let Some(name) = service.as_str() else {
                parts.push(ready(Answer::error("service name must be a string")));
                continue;
            };
            // The guide of 2018 writes a blank behind the name.
            let name = name.trim();
            let own = [Daemon::Dhcp4, Daemon::Dhcp6]
                .into_iter()
                .find(|daemon| daemon.service() == name && self.dispatcher.serves(*daemon));
            let part = if let Some(daemon) = own {
                let job = self.dispatcher.start(daemon, command, backend);
                self.job_part(job, client)
            } else if let Some((_, path)) = sockets.iter().find(|(service, _)| service == name) {
                match self.forward(path, command, client, index, name, backend.now().mono) {
                    Ok(token) => Part::Forward(token.0),
                    Err(error) => ready(unable_to_forward(name, &error.to_string())),
                }
            } else {
                ready(Answer::error(format!(
                    "forwarding socket is not configured for the server type {name}"
                )))
            };
            parts.push(part);
        }
        parts
    }

    fn forward(
        &mut self,
        path: &Path,
        command: &Command,
        client: Token,
        part: usize,
        service: &str,
        now: Mono,
    ) -> io::Result<Token> {
        let mut stream = UnixStream::connect(path)?;
        let token = self.token();
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.forwards.insert(
            token,
            Forward {
                stream,
                request: command.text.clone(),
                sent: 0,
                framer: Framer::default(),
                client,
                part,
                service: service.to_owned(),
                deadline: now.plus_ms(FORWARD_TIMEOUT_MS),
            },
        );
        Ok(token)
    }

    pub(super) fn forward_turn(&mut self, token: Token, backend: &mut dyn Backend) {
        let Some(forward) = self.forwards.get_mut(&token) else { return };
        while forward.sent < forward.request.len() {
            match forward.stream.write(&forward.request[forward.sent..]) {
                Ok(count) if count > 0 => forward.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It may have answered before it closed: reading tells.
                Ok(_) | Err(_) => break,
            }
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match forward.stream.read(&mut buffer) {
                Ok(0) => return self.forward_failed(token, "it closed the connection", backend),
                Ok(count) => match forward.framer.push(&buffer[..count]) {
                    Framed::More => {}
                    Framed::Complete(text) => {
                        let mut reader = Reader::new(&text);
                        let checked = reader.skip().and_then(|_| reader.end());
                        let part = match checked {
                            Ok(()) => text,
                            Err(error) => unparsable(&error.to_string()),
                        };
                        return self.forward_done(token, part, backend);
                    }
                    Framed::Refused(answer) => {
                        return self.forward_done(token, unparsable(&answer.text), backend);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.forward_failed(token, &error.to_string(), backend),
            }
        }
    }

    pub(super) fn forward_failed(&mut self, token: Token, reason: &str, backend: &mut dyn Backend) {
        let service = self.forwards.get(&token).map(|forward| forward.service.clone()).unwrap_or_default();
        self.forward_done(token, unable_to_forward(&service, reason).to_printed(), backend);
    }

    fn forward_done(&mut self, token: Token, printed: Vec<u8>, backend: &mut dyn Backend) {
        let Some(mut forward) = self.forwards.remove(&token) else { return };
        let _ = self.poll.registry().deregister(&mut forward.stream);
        let client = self.clients.get_mut(&forward.client).and_then(|client| client.reply.as_mut());
        if let Some(part) = client.and_then(|reply| reply.parts.get_mut(forward.part)) {
            *part = Part::Ready(printed);
            self.client_turn(forward.client, backend);
        }
    }
}

fn unable_to_forward(service: &str, reason: &str) -> Answer {
    Answer::error(format!(
        "unable to forward command to the {service} service: {reason}. The server is likely to be offline"
    ))
}

fn unparsable(reason: &str) -> Vec<u8> {
    let text =
        format!("internal server error: unable to parse server's answer to the forwarded message: {reason}");
    Answer::error(text).to_printed()
}
