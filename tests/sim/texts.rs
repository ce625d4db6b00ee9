//! The configurations of the servers.

use serde_json::{Value, json};

use super::random::Random;
use super::world::NAMES;

/// The configurations of the servers.
pub(super) fn texts(mode: &str, names: &[usize], guarded: bool, random: &mut Random) -> Vec<String> {
    let roles = match mode {
        "hot-standby" => ["primary", "standby", "backup"],
        _ => ["primary", "secondary", "backup"],
    };
    let peers: Vec<Value> = names
        .iter()
        .map(|&name| json!({ "name": NAMES[name], "url": format!("http://192.0.2.{}:8000/", name + 1), "role": roles[name] }))
        .collect();
    let pools = if guarded && mode == "load-balancing" {
        json!([ { "pool": "192.0.2.10 - 192.0.2.25", "client-class": "HA_alpha" },
                { "pool": "192.0.2.40 - 192.0.2.55", "client-class": "HA_beta" } ])
    } else {
        json!([ { "pool": "192.0.2.10 - 192.0.2.30" } ])
    };
    // There are too few clients for ten; a single one ends some pairs until somebody resets them.
    let rejected_max = match random.below(12) {
        0..3 => 1,
        3..7 => 0,
        _ => 10,
    };
    let mut relationship = json!({
        "mode": mode, "heartbeat-delay": 250, "max-response-delay": 1000, "max-ack-delay": 1000,
        "delay-unit": "ms",
        "max-unacked-clients": random.below(2) * 2, "sync-timeout": 2000, "sync-page-limit": 2 + random.below(30),
        "max-rejected-lease-updates": rejected_max,
        "multi-threading": { "enable-multi-threading": true, "http-client-threads": 1 + random.below(2) },
        "peers": peers });
    if mode == "load-balancing" {
        relationship["delayed-updates-limit"] = json!(random.below(3) * 5);
    }
    names
        .iter()
        .map(|&name| {
            let mut own = relationship.clone();
            own["this-server-name"] = json!(NAMES[name]);
            let block = json!({ "Dhcp4": {
                "interfaces-config": { "interfaces": ["v0"] },
                "lease-database": { "type": "memfile", "name": super::server::LEASE_FILE, "lfc-interval": 0 },
                "valid-lifetime": 40,
                // More clients decline than there are addresses for in a day.
                "decline-probation-period": 20,
                "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
                "hooks-libraries": [
                    { "library": "/usr/lib/kea/hooks/libdhcp_lease_cmds.so" },
                    { "library": "/usr/lib/kea/hooks/libdhcp_ha.so",
                      "parameters": { "high-availability": [own] } } ],
                "subnet4": [ { "id": 1, "subnet": "192.0.0.0/16", "pools": pools } ] } });
            block.to_string()
        })
        .collect()
}
