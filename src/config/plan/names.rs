//! Host names: how they are cleaned, completed and made up (`ddns-*`, `hostname-char-*`).

/// `ddns-replace-client-name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplaceName {
    /// The client's name is used.
    #[default]
    Never,
    /// A generated name, whatever the client sends.
    Always,
    /// A generated name when the client sends one.
    WhenPresent,
    /// A generated name when the client sends none.
    WhenNotPresent,
}

/// How names are made in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// `ddns-send-updates` here and `enable-updates` for the server.
    pub updates: bool,
    /// `ddns-override-no-update`.
    pub override_no_update: bool,
    /// `ddns-override-client-update`.
    pub override_client_update: bool,
    /// `ddns-update-on-renew`.
    pub update_on_renew: bool,
    /// `ddns-replace-client-name`.
    pub replace: ReplaceName,
    /// `ddns-generated-prefix`.
    pub generated_prefix: Box<[u8]>,
    /// `ddns-qualifying-suffix` without dots at its ends; empty when there is none.
    pub suffix: Box<[u8]>,
    /// The octets that `hostname-char-set` takes out of names: bit `octet % 64` of word `octet / 64`.
    pub unwanted: [u64; 4],
    /// `hostname-char-replacement`.
    pub replacement: Box<[u8]>,
}
