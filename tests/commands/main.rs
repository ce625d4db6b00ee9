//! The control API as clients see it: texts and codes, both channels, TLS, the agent, bounds. A made-up server stands
//! behind it; the sockets are real.

mod captured;
mod channels;
mod log;
mod peer;
mod server;
mod texts;
mod tls;
