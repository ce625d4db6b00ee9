//! Conformance of HA, behaviour by behaviour: a test named `bNN_…` shows the behaviour of that number, for one server with a
//! scripted partner, in virtual time.
//!
//! These need whole servers, with packets, lease tables, files or HTTP, and are shown elsewhere: 60 (parse failures), 76 (queries
//! without changes), 83 (equal `cltt`), 94 (HTTP); and the parts of 18 (the header), 52 and 53 (classes on queries, the hash of a
//! lease), 54 (the drop), 61 (drops by subnet), 62 (what goes out), 64 to 66, 68, 69 and 73 (the client's answer), 75 (the ping check),
//! 84 (the commands sent), 85 (pages from tables), 93 (403). Those of 53, 54 and 60 to 62 are in `tests/ha_behaviours`.
//!
//! Nothing shows 63: it is about exchanges of DHCPv6, which are not there yet.

#[path = "../src/classify/bucket.rs"]
#[expect(unreachable_pub, reason = "a file of the library")]
mod bucket;

#[path = "ha_conformance/commands.rs"]
mod commands;
#[path = "ha_conformance/configuration.rs"]
mod configuration;
#[path = "ha_conformance/rig.rs"]
mod rig;
#[path = "ha_conformance/scopes.rs"]
mod scopes;
#[path = "ha_conformance/startup.rs"]
mod startup;
#[path = "ha_conformance/sync.rs"]
mod sync;
#[path = "ha_conformance/table.rs"]
mod table;
#[path = "ha_conformance/transitions.rs"]
mod transitions;
#[path = "ha_conformance/updates.rs"]
mod updates;
