//! A client's stream: unix, TCP, or TLS over TCP; never blocking.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::{TcpStream, UnixStream};
use rustls::{ServerConfig, ServerConnection};

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls { socket: TcpStream, session: Box<ServerConnection> },
}

impl Stream {
    /// A TCP client, with TLS when `tls` is given.
    pub(super) fn tcp(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        // Answers are written whole: waiting for more would only delay them.
        let _ = socket.set_nodelay(true);
        Ok(match tls {
            None => Self::Tcp(socket),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Self::Tls { socket, session: Box::new(session) }
            }
        })
    }

    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Unix(socket) => socket,
            Self::Tcp(socket) | Self::Tls { socket, .. } => socket,
        }
    }

    /// Reads what is there; 0 is the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(into),
            Self::Tcp(socket) => socket.read(into),
            Self::Tls { socket, session } => loop {
                match session.reader().read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // A peer that just closes its socket ends its requests as well as one that says so first.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    done => return done,
                }
                if session.read_tls(socket)? == 0 {
                    return Ok(0);
                }
                let processed = session.process_new_packets();
                // The handshake's next message, or the alert that says what is wrong.
                while session.wants_write() {
                    match session.write_tls(socket) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            },
        }
    }

    /// Writes what fits.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(octets),
            Self::Tcp(socket) => socket.write(octets),
            Self::Tls { .. } => {
                if !self.flush()? {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let Self::Tls { session, .. } = self else { return Ok(0) };
                let count = session.writer().write(octets)?;
                self.flush()?;
                if count == 0 && !octets.is_empty() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(count)
            }
        }
    }

    /// Whether everything written has gone to the kernel.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if let Self::Tls { socket, session } = self {
            while session.wants_write() {
                match session.write_tls(socket) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown_write(&mut self) {
        // The other side may be gone already; there is nobody to tell then.
        match self {
            Self::Unix(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Tcp(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Tls { .. } => {
                if let Self::Tls { session, .. } = self {
                    session.send_close_notify();
                }
                let _ = self.flush();
                if let Self::Tls { socket, .. } = self {
                    let _ = socket.shutdown(Shutdown::Write);
                }
            }
        }
    }
}
