//! What a partner's program can do. There is no negotiation of versions: it is configured, or learnt from behaviour.

use std::fmt;

use serde_json::Value;

use super::command::{PeerAnswer, PeerError, RESULT_UNSUPPORTED};
use super::settings::SETTINGS_COMMAND;

/// The command of many lease changes at once between two Aplomados.
pub const BULK_COMMAND: &str = "aplomado-bulk-apply";
/// The command that opens a synchronisation in service between two Aplomados.
pub const SYNC_BEGIN_COMMAND: &str = "aplomado-sync-begin";
/// The command that asks what has changed since it was opened.
pub const SYNC_CHANGES_COMMAND: &str = "aplomado-sync-changes";
/// The command that brings it, meanwhile, leases that it lacks.
pub const SYNC_LEASES_COMMAND: &str = "aplomado-sync-leases";
/// The command that closes it.
pub const SYNC_END_COMMAND: &str = "aplomado-sync-end";
/// The commands that only two Aplomados have.
pub const OWN_COMMANDS: [&str; 6] = [
    BULK_COMMAND,
    SETTINGS_COMMAND,
    SYNC_BEGIN_COMMAND,
    SYNC_CHANGES_COMMAND,
    SYNC_END_COMMAND,
    SYNC_LEASES_COMMAND,
];

/// A version of Kea, major and minor: enough to tell behaviours apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
}

impl Version {
    /// The version of these numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Parses `2.2`, `2.2.0`, `2.2.0-git`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.trim().split_once('.')?;
        let minor = rest.split(['.', '-', ' ']).next()?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// Something a peer did that tells what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint<'a> {
    /// It answered 2 to this command.
    Unsupported(&'a str),
    /// It answered a heartbeat with or without these fields.
    HeartbeatAnswer {
        /// `unsent-update-count` was there.
        unsent: bool,
        /// `scopes` was there.
        scopes: bool,
    },
    /// It sent an HA command with or without its `server-name`.
    NamedItself(bool),
    /// It refused (1) an update of a released lease.
    ReleasedRefused,
    /// `version-get` said so.
    VersionText(&'a str),
}

/// What is known of one peer. Unknown means: as the newest Kea.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    configured: Option<Version>,
    below: Option<Version>,
    bulk: bool,
    staged_sync: bool,
    asked: bool,
    no_page: bool,
    no_complete_notify: bool,
}

/// What a peer says of its commands, asked with `list-commands`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// These are its commands.
    Commands(Vec<String>),
    /// It does not tell anybody: it has no such command, or forbids it.
    Nothing,
    /// No answer, or one that says nothing of its commands, as a control agent's whose server is down: it is to be asked again. Taken for a
    /// Kea, one of ours would get none of what was given without it.
    Unknown,
}

impl Said {
    /// Reads the answer.
    #[must_use]
    pub fn read(answer: Result<PeerAnswer, PeerError>) -> Self {
        match answer {
            Ok(answer) if answer.is_success() => {
                let Some(Value::Array(names)) = answer.arguments else { return Self::Unknown };
                Self::Commands(
                    names.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
                )
            }
            Ok(answer) if answer.result == i64::from(RESULT_UNSUPPORTED) => Self::Nothing,
            Err(PeerError::Refused(403, _)) => Self::Nothing,
            Ok(_) | Err(_) => Self::Unknown,
        }
    }
}

impl Partner {
    /// Nothing known but what the operator says.
    #[must_use]
    pub const fn new(configured: Option<Version>) -> Self {
        Self {
            configured,
            below: None,
            bulk: false,
            staged_sync: false,
            asked: false,
            no_page: false,
            no_complete_notify: false,
        }
    }

    /// Forgets what was learnt: contact returned, and something else may answer now. The commands that it took are used until it has said
    /// what it takes now: those of ours are numbered, and one that is late is known as such, while one of Kea's may overtake it.
    pub const fn forget(&mut self) {
        let (bulk, staged_sync) = (self.bulk, self.staged_sync);
        *self = Self { bulk, staged_sync, ..Self::new(self.configured) };
    }

    /// Whether `list-commands` is still to be asked.
    #[must_use]
    pub const fn is_unasked(&self) -> bool {
        !self.asked
    }

    /// Takes the answer to `list-commands`; `None` when it failed: then it is a peer without our own commands.
    pub fn learn_commands<'a>(&mut self, commands: Option<impl IntoIterator<Item = &'a str>>) {
        self.asked = true;
        self.bulk = false;
        self.staged_sync = false;
        let Some(commands) = commands else { return };
        let mut complete_notify = false;
        let mut heartbeat = false;
        for command in commands {
            match command {
                BULK_COMMAND => self.bulk = true,
                SYNC_BEGIN_COMMAND => self.staged_sync = true,
                "ha-sync-complete-notify" => complete_notify = true,
                "ha-heartbeat" => heartbeat = true,
                _ => {}
            }
        }
        if heartbeat && !complete_notify {
            self.not_before(Version::new(2, 0));
        }
    }

    /// Takes a hint.
    pub fn learn(&mut self, hint: Hint<'_>) {
        match hint {
            Hint::Unsupported("ha-sync-complete-notify") => {
                self.no_complete_notify = true;
                self.not_before(Version::new(2, 0));
            }
            Hint::Unsupported("lease4-get-page" | "lease6-get-page") => {
                self.no_page = true;
                self.not_before(Version::new(1, 5));
            }
            Hint::Unsupported("lease6-bulk-apply") => self.not_before(Version::new(1, 6)),
            Hint::Unsupported(BULK_COMMAND) => self.bulk = false,
            Hint::Unsupported(SYNC_BEGIN_COMMAND) => self.staged_sync = false,
            Hint::Unsupported(_) => {}
            Hint::HeartbeatAnswer { unsent, scopes } => {
                if !scopes {
                    self.not_before(Version::new(1, 8));
                } else if !unsent {
                    self.not_before(Version::new(2, 0));
                }
            }
            Hint::NamedItself(false) => self.not_before(Version::new(2, 6)),
            // An administrator's heartbeat has no name either: the partner's own word ends that mistake.
            Hint::NamedItself(true) => {
                self.below = self.below.filter(|&below| below > Version::new(2, 6));
            }
            Hint::ReleasedRefused => self.not_before(Version::new(2, 7)),
            Hint::VersionText(text) => {
                if let Some(version) = Version::parse(text) {
                    self.below = Some(Version::new(version.major, version.minor.saturating_add(1)));
                }
            }
        }
    }

    /// It is older than `version`.
    fn not_before(&mut self, version: Version) {
        self.below = Some(self.below.map_or(version, |below| below.min(version)));
    }

    /// Whether it may be as new as `version`.
    #[must_use]
    pub fn may_be(&self, version: Version) -> bool {
        match self.configured {
            Some(configured) => configured >= version,
            None => self.below.is_none_or(|below| below > version),
        }
    }

    /// Whether it takes [`BULK_COMMAND`].
    #[must_use]
    pub const fn takes_bulk(&self) -> bool {
        self.bulk
    }

    /// Whether leases can be copied from it while it stays in service.
    #[must_use]
    pub const fn syncs_in_service(&self) -> bool {
        self.staged_sync
    }

    /// Whether a released lease is sent as an update in state 3. Older ones refuse that: for them it is a deletion.
    #[must_use]
    pub fn takes_released(&self) -> bool {
        self.bulk || self.may_be(Version::new(2, 7))
    }

    /// Whether it gives leases by pages; the first one does not.
    #[must_use]
    pub fn gives_pages(&self) -> bool {
        !self.no_page && self.may_be(Version::new(1, 5))
    }

    /// Whether it knows states beyond the eight of 2018 in our heartbeat answers.
    #[must_use]
    pub fn knows_recovery(&self) -> bool {
        self.may_be(Version::new(2, 0))
    }

    /// What is known, in words, for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.bulk, self.configured, self.below) {
            (true, ..) => "Aplomado".to_owned(),
            (_, Some(version), _) => format!("Kea {version} (configured)"),
            (_, None, Some(below)) => format!("Kea before {below}"),
            (_, None, None) => "Kea".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_say() {
        assert_eq!(Version::parse("2.2.0"), Some(Version::new(2, 2)));
        assert_eq!(Version::parse("2.7.3-git"), Some(Version::new(2, 7)));
        assert_eq!(Version::parse("two"), None);
    }

    #[test]
    fn only_its_own_word_says_that_it_tells_nobody_of_its_commands() {
        let said = |body: &str| Said::read(PeerAnswer::parse(body.as_bytes()));
        let list = r#"[{ "result": 0, "arguments": ["ha-heartbeat", "ha-reset"] }]"#;
        assert_eq!(said(list), Said::Commands(vec!["ha-heartbeat".to_owned(), "ha-reset".to_owned()]));
        for unknown in [
            r#"[{ "result": 1, "text": "unable to forward command to the dhcp4 service" }]"#,
            r#"[{ "result": 4, "text": "no" }]"#,
            r#"[{ "result": 0 }]"#,
            r#"[{ "result": 0, "arguments": { "ha-heartbeat": 1 } }]"#,
            r#"{ "result": 401, "text": "Unauthorized" }"#,
            "[ ]",
            "",
        ] {
            assert_eq!(said(unknown), Said::Unknown, "{unknown}");
        }
        for nothing in
            [r#"[{ "result": 2, "text": "unsupported" }]"#, r#"{ "result": 403, "text": "Forbidden" }"#]
        {
            assert_eq!(said(nothing), Said::Nothing, "{nothing}");
        }
        assert_eq!(Said::read(Err(PeerError::Io("refused".to_owned()))), Said::Unknown);
    }

    #[test]
    fn what_it_takes_is_not_forgotten_before_it_has_said_so() {
        let mut partner = Partner::new(None);
        partner.learn_commands(Some([BULK_COMMAND, SYNC_BEGIN_COMMAND, "ha-heartbeat"]));
        partner.forget();
        assert!(partner.is_unasked() && partner.takes_bulk() && partner.syncs_in_service());
        partner.learn_commands(Some(["ha-heartbeat", "ha-sync-complete-notify"]));
        assert!(!partner.is_unasked() && !partner.takes_bulk() && !partner.syncs_in_service());
    }

    #[test]
    fn released_leases_are_updates_until_the_partner_proves_old() {
        let mut partner = Partner::new(None);
        assert!(partner.takes_released());
        partner.learn(Hint::NamedItself(false));
        assert!(!partner.takes_released());
        partner.learn(Hint::NamedItself(true));
        assert!(partner.takes_released());
        partner.learn(Hint::ReleasedRefused);
        assert!(!partner.takes_released());
        partner.forget();
        assert!(partner.takes_released());
        assert!(!Partner::new(Some(Version::new(2, 6))).takes_released());
        assert!(Partner::new(Some(Version::new(2, 7))).takes_released());
    }

    #[test]
    fn own_commands_are_found_by_asking() {
        let mut partner = Partner::new(None);
        assert!(partner.is_unasked() && !partner.takes_bulk());
        partner.learn_commands(Some([
            "ha-heartbeat",
            "ha-sync-complete-notify",
            BULK_COMMAND,
            SYNC_BEGIN_COMMAND,
        ]));
        assert!(partner.takes_bulk() && partner.syncs_in_service() && !partner.is_unasked());
        partner.learn_commands(Some(["ha-heartbeat"]));
        assert!(!partner.takes_bulk() && !partner.may_be(Version::new(2, 0)));
        partner.learn(Hint::Unsupported("lease4-get-page"));
        assert!(!partner.gives_pages());
    }
}
