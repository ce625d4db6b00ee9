//! The control API as clients see it: texts and codes, both channels, TLS, the agent, bounds. A made-up server stands
//! behind it; the sockets are real.

mod captured;
mod channels;
mod log;
#[path = "../no_certificate/mod.rs"]
mod no_certificate;
mod peer;
mod server;
mod texts;
mod tls;
