//! `status-get` for people: who serves what, and why.
//!
//! The worst comes first and in red, what is not normal in yellow, on a terminal.

use std::fmt::Write as _;

use serde_json::Value;

/// How words are made to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// Not at all.
    Plain,
    /// In colours, on a terminal.
    Colours,
}

impl Paint {
    fn good(self, words: &str) -> String {
        self.put("32", words)
    }

    fn odd(self, words: &str) -> String {
        self.put("33", words)
    }

    fn bad(self, words: &str) -> String {
        self.put("1;31", words)
    }

    fn put(self, code: &str, words: &str) -> String {
        match self {
            Self::Plain => words.to_owned(),
            Self::Colours => format!("\x1b[{code}m{words}\x1b[0m"),
        }
    }

    /// A state in the colour of how far from normal it is.
    fn state(self, state: &str) -> String {
        match state {
            "load-balancing" | "hot-standby" | "passive-backup" | "backup" => self.good(state),
            "terminated" | "unavailable" => self.bad(state),
            _ => self.odd(state),
        }
    }
}

/// A few lines that say what the `arguments` of an answer to `status-get` mean. `unsent` is how many lease updates the partner has
/// missed, when that is known.
pub(super) fn describe(arguments: &Value, unsent: Option<u64>, paint: Paint) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "service   {}", service(arguments, paint));
    if let Some(sockets) = arguments.get("sockets") {
        let mut line = word(sockets, "status").to_owned();
        for error in sockets.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let _ = write!(line, "; {}", error.as_str().unwrap_or_default());
        }
        let _ = writeln!(text, "sockets   {line}");
    }
    if let Some(file) = arguments.get("csv-lease-file").and_then(Value::as_str) {
        let _ = writeln!(text, "leases    {file}");
    }
    let _ = write!(
        text,
        "process   {}, up {}, configured {} ago",
        number(arguments, "pid"),
        duration(number(arguments, "uptime")),
        duration(number(arguments, "reload"))
    );
    if let Some(threads) = arguments.get("thread-pool-size") {
        let _ = write!(text, ", {threads} threads");
    }
    text.push('\n');
    for relationship in arguments.get("high-availability").and_then(Value::as_array).into_iter().flatten() {
        let servers = &relationship["ha-servers"];
        let (local, remote) = (&servers["local"], &servers["remote"]);
        let _ = writeln!(text, "\n{} relationship", word(relationship, "ha-mode"));
        let _ = writeln!(
            text,
            "  here     {}: {}, {}",
            who(local),
            paint.state(word(local, "state")),
            scopes(local, "scopes")
        );
        if remote.is_object() {
            let _ = writeln!(
                text,
                "  partner  {}: {}, {}, {}",
                who(remote),
                paint.state(last_state(remote)),
                scopes(remote, "last-scopes"),
                contact(remote)
            );
        }
        let _ = writeln!(text, "  why      {}", reason(local, remote));
        if local["paused"] == Value::Bool(true) {
            let words = "the state machine is paused here: ha-continue lets it go on";
            let _ = writeln!(text, "  paused   {}", paint.odd(words));
        }
        if remote["communication-interrupted"] == Value::Bool(true) {
            let left = match (number(remote, "unacked-clients-left"), word(local, "state")) {
                (_, "partner-down") => String::new(),
                (0, _) => ", as many as it takes".to_owned(),
                (left, _) => format!(", {left} more until it is taken for dead"),
            };
            let _ = writeln!(
                text,
                "  silence  {} of the partner's clients seen, {} of them unanswered for too long{left}",
                number(remote, "connecting-clients"),
                number(remote, "unacked-clients"),
            );
        }
        if let Some(skew) = remote["clock-skew"].as_i64().filter(|skew| skew.abs() > CLOCK_SKEW_ODD_S) {
            let words = format!("the partner's clock is {skew} s from ours: more than 60 s ends the pair");
            let _ = writeln!(text, "  clocks   {}", paint.odd(&words));
        }
        if let Some(unsent) = unsent.filter(|unsent| *unsent > 0) {
            let _ = writeln!(
                text,
                "  unsent   {unsent} lease change(s) since the start that the partner was not sent; it fetches them when it returns"
            );
        }
    }
    text
}

/// Skew that is worth a line: Kea warns of it from 30 s on.
const CLOCK_SKEW_ODD_S: i64 = 30;

fn word<'a>(map: &'a Value, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).filter(|word| !word.is_empty()).unwrap_or("unknown")
}

fn number(map: &Value, key: &str) -> u64 {
    map.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn service(arguments: &Value, paint: Paint) -> String {
    let Some(state) = arguments.get("dhcp-state") else { return "state not told".to_owned() };
    if state["globally-disabled"] != Value::Bool(true) {
        return paint.good("on");
    }
    let mut causes = Vec::new();
    if state["disabled-by-user"] == Value::Bool(true) {
        causes.push("an administrator (dhcp-enable gives it back)".to_owned());
    }
    for (key, cause) in [
        ("disabled-by-local-command", "this server's HA"),
        ("disabled-by-remote-command", "the partner, which synchronises"),
        ("disabled-by-db-connection", "a lost database connection"),
    ] {
        let origins: Vec<String> =
            state[key].as_array().into_iter().flatten().map(|origin| format!("origin {origin}")).collect();
        if !origins.is_empty() {
            causes.push(format!("{cause} ({})", origins.join(", ")));
        }
    }
    format!("{}, held by {}", paint.bad("OFF"), causes.join(" and "))
}

fn who(server: &Value) -> String {
    match server.get("server-name").and_then(Value::as_str) {
        Some(name) => format!("{name} ({})", word(server, "role")),
        None => word(server, "role").to_owned(),
    }
}

fn scopes(server: &Value, key: &str) -> String {
    let names: Vec<&str> = server[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { "serves nobody".to_owned() } else { format!("serves {}", names.join(", ")) }
}

fn last_state(remote: &Value) -> &str {
    match word(remote, "last-state") {
        "unknown" => "not heard of yet",
        state => state,
    }
}

fn contact(remote: &Value) -> String {
    if remote["in-touch"] == Value::Bool(true) {
        format!("last heard {} ago", duration(number(remote, "age")))
    } else {
        "never in touch".to_owned()
    }
}

fn reason(local: &Value, remote: &Value) -> &'static str {
    let standby = word(local, "role") == "standby";
    match word(local, "state") {
        "load-balancing" => "both servers are up: each serves its half of the clients",
        "hot-standby" if standby => "both servers are up: the partner serves all clients, this one stands by",
        "hot-standby" => "both servers are up: this one serves all clients, the partner stands by",
        "partner-down" => "the partner is taken for dead: this server serves all clients",
        "communication-recovery" => {
            "the partner does not answer: each serves its half, updates are kept for it"
        }
        "waiting" => {
            "this server serves nobody until it has heard from the partner, or that is taken for dead"
        }
        "syncing" => "this server fetches the partner's leases before it serves",
        "ready" => "this server has all leases and waits for the partner to agree",
        "passive-backup" => "this server serves all clients and copies its leases to backups",
        "backup" => "this server only keeps copies",
        "in-maintenance" => "this server is about to be stopped: the partner serves all clients",
        "partner-in-maintenance" => "the partner is about to be stopped: this server serves all clients",
        "terminated" if remote.is_object() => {
            "HA has ended (clocks too far apart, or updates rejected): correct it and restart both servers"
        }
        "terminated" => "HA has ended: restart the server",
        _ => "this state is not known here",
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_look_says_who_serves_whom_and_why() {
        let arguments = json!({
            "pid": 7, "uptime": 90, "reload": 7300, "thread-pool-size": 2, "sockets": { "status": "ready" },
            "dhcp-state": { "globally-disabled": true, "disabled-by-user": true, "disabled-by-remote-command": [2000] },
            "high-availability": [ { "ha-mode": "load-balancing", "ha-servers": {
                "local": { "role": "primary", "server-name": "a", "scopes": ["a", "b"], "state": "partner-down" },
                "remote": { "role": "secondary", "server-name": "b", "age": 130, "in-touch": true, "last-scopes": [],
                    "last-state": "unavailable", "communication-interrupted": true, "connecting-clients": 5,
                    "unacked-clients": 3, "unacked-clients-left": 0, "clock-skew": 45 } } } ],
        });
        let text = describe(&arguments, Some(12), Paint::Plain);
        assert_eq!(
            text,
            "service   OFF, held by an administrator (dhcp-enable gives it back) and the partner, which synchronises \
             (origin 2000)\n\
             sockets   ready\n\
             process   7, up 90 s, configured 2 h ago, 2 threads\n\
             \n\
             load-balancing relationship\n  \
               here     a (primary): partner-down, serves a, b\n  \
               partner  b (secondary): unavailable, serves nobody, last heard 2 min ago\n  \
               why      the partner is taken for dead: this server serves all clients\n  \
               silence  5 of the partner's clients seen, 3 of them unanswered for too long\n  \
               clocks   the partner's clock is 45 s from ours: more than 60 s ends the pair\n  \
               unsent   12 lease change(s) since the start that the partner was not sent; it fetches them when it returns\n"
        );
        let painted = describe(&arguments, None, Paint::Colours);
        assert!(painted.starts_with("service   \x1b[1;31mOFF\x1b[0m, held by"), "{painted}");
        assert!(painted.contains(": \x1b[33mpartner-down\x1b[0m, serves a, b\n"), "{painted}");
    }

    #[test]
    fn a_pause_and_what_is_missing_until_the_partner_counts_as_dead_are_said() {
        let text = describe(
            &json!({ "dhcp-state": { "globally-disabled": false }, "high-availability": [ {
                "ha-mode": "load-balancing", "ha-servers": {
                    "local": { "role": "primary", "scopes": ["a"], "state": "communication-recovery", "paused": true },
                    "remote": { "role": "secondary", "communication-interrupted": true, "connecting-clients": 9,
                        "unacked-clients": 2, "unacked-clients-left": 3, "clock-skew": -5 } } } ] }),
            Some(0),
            Paint::Plain,
        );
        assert!(text.starts_with("service   on\n"), "{text}");
        assert!(
            text.contains("  paused   the state machine is paused here: ha-continue lets it go on\n"),
            "{text}"
        );
        assert!(
            text.ends_with("2 of them unanswered for too long, 3 more until it is taken for dead\n"),
            "{text}"
        );
    }

    #[test]
    fn an_answer_of_another_shape_is_still_described() {
        for odd in [json!(null), json!([]), json!({ "high-availability": [ 1, {} ], "sockets": 3 })] {
            assert!(describe(&odd, None, Paint::Plain).starts_with("service   state not told\n"));
        }
    }
}
