//! Every cell of the transition tables, one step each.

use serde_json::json;

use crate::rig::Server;

fn long(short: &str) -> &'static str {
    match short {
        "WT" => "waiting",
        "SY" => "syncing",
        "RD" => "ready",
        "LB" => "load-balancing",
        "HS" => "hot-standby",
        "CR" => "communication-recovery",
        "PD" => "partner-down",
        "IM" => "in-maintenance",
        "PIM" => "partner-in-maintenance",
        "TM" => "terminated",
        "BK" => "backup",
        "PB" => "passive-backup",
        other => panic!("no state {other}"),
    }
}

fn check(mode: &str, table: &str) -> usize {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let columns: Vec<&str> = lines.next().expect("a header").split_whitespace().skip(1).collect();
    let mut cells = 0;
    for line in lines {
        let mut words = line.split_whitespace();
        let own = words.next().expect("a state");
        for (column, cell) in columns.iter().zip(words) {
            for (this, role) in [("alpha", "P:"), ("beta", "S:")] {
                let expected = cell.split('/').find_map(|part| part.strip_prefix(role)).unwrap_or(cell);
                check_cell(mode, this, own, column, expected);
                cells += 1;
            }
        }
    }
    cells
}

fn check_cell(mode: &str, this: &str, own: &str, column: &str, expected: &str) {
    let mut server = Server::reach(mode, this, long(own), json!({ "max-unacked-clients": 0 }));
    if own != "TM" {
        match column {
            "UN" => {
                if own == "PD" {
                    // It was silence that led there: the partner must be heard first.
                    server.partner("waiting");
                }
                server.silence();
            }
            "UN!" => server.interrupt_once(),
            _ => server.partner(long(column)),
        }
    } else {
        server.advance(100_000);
    }
    let first = server.transitions().first().copied();
    let place = format!("{mode}, {this}: own {own}, partner {column}");
    match expected {
        "." => {
            assert_eq!(first, None, "{place}");
            assert!(server.sync_started().is_none(), "{place}");
        }
        "sync" => {
            assert_eq!(first, None, "{place}");
            assert!(server.sync_started().is_some(), "{place}");
        }
        state => assert_eq!(first, Some(long(state)), "{place}"),
    }
}

impl Server {
    /// The first silence after which the partner counts as interrupted, in one step.
    fn interrupt_once(&mut self) {
        // The heartbeat is sent in time and fails when the silence has lasted.
        self.await_heartbeat();
        let at = self.relationship().config().max_response_delay_ms;
        self.advance(at + 1);
        self.silence();
    }
}

#[test]
fn load_balancing_table_holds_cell_by_cell() {
    assert_eq!(
        check("load-balancing", include_str!("../data/ha/transitions-load-balancing.txt")),
        9 * 14 * 2
    );
}

#[test]
fn hot_standby_table_holds_cell_by_cell() {
    assert_eq!(check("hot-standby", include_str!("../data/ha/transitions-hot-standby.txt")), 8 * 14 * 2);
}
