//! High availability: what two active servers (and any backups) say to each other, and what follows from it.
//!
//! | file | what lives there |
//! |---|---|
//! | [`config`] | the `high-availability` list, parsed and checked |
//! | [`states`] | modes, roles, states and what each state means |
//! | [`relationships`] | all relationships of a server and its service origins, as the control thread drives them |
//! | [`relationship`] | the state machine of one relationship |
//! | [`service`] | who keeps the DHCP service off: `dhcp-disable`, `dhcp-enable` by origin |
//! | [`view`] | the word through which shards see a relationship |
//! | [`unacked`], [`rejected`] | clients that the partner does not answer, clients whose updates it refuses |
//! | [`backlog`] | updates kept while the partner does not answer ours |
//! | [`command`] | all commands as JSON, both ways; leases as JSON, both ways |
//! | [`partner`] | what a partner's program can do |
//! | [`posts`] | updates that arrive when they are not waited for any more |
//! | [`sync`], [`feed`] | copying leases: the asking side, and what the asked side remembers meanwhile |
//!
//! Promises. Everything is sans-IO: input is a call, output is polled, time is an argument. No input from a peer, a command or a
//! clock panics or makes memory grow without a named bound. [`view::ScopeWord`] and [`unacked::UnackedClients`] are
//! used by shard threads and neither lock nor allocate; everything else belongs to the control thread.
//!
//! Follows the behaviour of Kea's High Availability hook library as its manual describes it, RFC 3074 section 6 for
//! load balancing, and accepts what versions 1.4 to 3.x of it send.

pub mod backlog;
pub mod command;
pub mod config;
pub mod feed;
pub mod partner;
pub mod posts;
pub mod rejected;
pub mod relationship;
pub mod relationships;
pub mod service;
pub mod settings;
pub mod states;
pub mod sync;
pub mod unacked;
pub mod view;
