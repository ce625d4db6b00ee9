//! Everything that travels on the wire: views of frames, packets and options, and what writes them.
//!
//! A raw Ethernet frame becomes a [`frame::Datagram`] (plain data, no lifetime), its payload is walked once by
//! [`dhcp4::parse`], which fills an [`option::OptionTable`] (plain data, reused), and a [`query::Query`] is the cheap
//! view composed of both when a rule asks for something. The way out is [`reply::Reply`], which writes the DHCP
//! message into the frame it leaves from, and [`frame::emit`], which puts the three headers in front of it.
//!
//! Promises: nothing here allocates, locks, or reads a clock. After a check has succeeded no accessor panics, and no
//! check panics, on any input (property tests at the bottom of each file say so). Any thread may call anything.
//!
//! Bounds: a payload is at most 65,507 octets; repeated options may join to at most
//! [`option::JOINED_BYTES_MAX`] octets; an answer holds at most [`reply::OPTIONS_MAX`] options.
//!
//! Follows RFC 791, 768, 1071 (frame), RFC 2131, 2132 (message, options), RFC 3046, 3527, 5107, 8357 (relay), RFC 3396
//! (long options), RFC 3925 (vendor options), RFC 4702 (client FQDN), RFC 8415 21.1 (the two-octet option format).

pub mod codes;
pub mod dhcp4;
pub mod drop;
pub mod frame;
pub mod name;
pub mod option;
pub mod query;
pub mod relay;
pub mod reply;
pub mod shape;
pub mod shapes;
pub mod template;
pub mod vendor;

pub use codes::MessageType;
pub use drop::DropReason;
pub use query::Query;
