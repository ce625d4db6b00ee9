//! Which keys there are: one table per map, with types, ranges, words and whether we act on them.
//!
//! The tables are the union of what Kea takes from 1.4 to 3.x. What only means something together with other
//! values (one of two keys, uniqueness, addresses) is judged where the tree is built.

/// A map with known keys.
pub(super) struct Context {
    /// What messages call it.
    pub(super) name: &'static str,
    /// Its keys, in groups that maps share.
    pub(super) keys: &'static [&'static [Key]],
    /// Keys that must be there.
    pub(super) mandatory: &'static [&'static str],
    /// Whether a file must not leave it empty.
    pub(super) not_empty: bool,
    /// Whether Kea takes any other key.
    pub(super) open: bool,
}

/// A key of a map.
pub(super) struct Key {
    /// The key.
    pub(super) name: &'static str,
    /// What may stand there.
    pub(super) shape: Shape,
    /// Whether it does anything.
    pub(super) acts: Acts,
}

/// What may stand behind a key.
pub(super) enum Shape {
    /// An integer in a range, both ends included.
    Integer(i64, i64),
    /// `true` or `false`.
    Bool,
    /// A number with point or exponent.
    Double,
    /// A string.
    Text,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A list of strings.
    Texts,
    /// A map.
    Map(&'static Context),
    /// A list of maps.
    Maps(&'static Context),
    /// A map of anything.
    Free,
    /// Anything at all.
    Any,
}

/// Whether a key does anything.
pub(super) enum Acts {
    /// It does what Kea's manual says.
    Yes,
    /// It is taken and nothing comes of it: a warning, unless it says what would happen anyway.
    Not(Stock),
}

/// What a key that we do not act on may say without a warning.
pub(super) enum Stock {
    /// This truth value.
    Bool(bool),
    /// This integer.
    Integer(i64),
    /// This text.
    Text(&'static str),
    /// Nothing.
    Nothing,
}

impl Context {
    /// The key `name`, when it is one of this map.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().flat_map(|group| group.iter()).find(|key| key.name == name)
    }
}

const U16: Shape = Shape::Integer(0, u16::MAX as i64);
const U32: Shape = Shape::Integer(0, u32::MAX as i64);
/// Where the builder of the tree checks the range, with words of its own.
const ANY_INTEGER: Shape = Shape::Integer(i64::MIN, i64::MAX);

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, acts: Acts::Yes }
}

const fn inert(name: &'static str, shape: Shape, stock: Stock) -> Key {
    Key { name, shape, acts: Acts::Not(stock) }
}

const fn map(
    name: &'static str,
    keys: &'static [&'static [Key]],
    mandatory: &'static [&'static str],
) -> Context {
    Context { name, keys, mandatory, not_empty: true, open: false }
}

const fn lax(
    name: &'static str,
    keys: &'static [&'static [Key]],
    mandatory: &'static [&'static str],
) -> Context {
    Context { name, keys, mandatory, not_empty: false, open: false }
}

const NOTES: &[Key] = &[key("user-context", Shape::Free), key("comment", Shape::Text)];

const LIFETIMES: &[Key] = &[
    key("valid-lifetime", U32),
    key("min-valid-lifetime", U32),
    key("max-valid-lifetime", U32),
    key("offer-lifetime", U32),
];

const BOOT: &[Key] = &[
    key("next-server", Shape::Text),
    key("server-hostname", Shape::Text),
    key("boot-file-name", Shape::Text),
];

const HOSTNAME: &[Key] =
    &[key("hostname-char-set", Shape::Text), key("hostname-char-replacement", Shape::Text)];

const DDNS: &[Key] = &[
    key("ddns-send-updates", Shape::Bool),
    key("ddns-override-no-update", Shape::Bool),
    key("ddns-override-client-update", Shape::Bool),
    key("ddns-replace-client-name", Shape::Word(&["never", "always", "when-present", "when-not-present"])),
    key("ddns-generated-prefix", Shape::Text),
    key("ddns-qualifying-suffix", Shape::Text),
    key("ddns-update-on-renew", Shape::Bool),
    key("ddns-use-conflict-resolution", Shape::Bool),
    key(
        "ddns-conflict-resolution-mode",
        Shape::Word(&[
            "check-with-dhcid",
            "no-check-with-dhcid",
            "check-exists-with-dhcid",
            "no-check-without-dhcid",
        ]),
    ),
    key("ddns-ttl-percent", Shape::Double),
    key("ddns-ttl", U32),
    key("ddns-ttl-min", U32),
    key("ddns-ttl-max", U32),
];

/// What the global scope, networks and subnets share.
const SCOPE: &[Key] = &[
    key("renew-timer", U32),
    key("rebind-timer", U32),
    key("calculate-tee-times", Shape::Bool),
    key("t1-percent", Shape::Double),
    key("t2-percent", Shape::Double),
    key("match-client-id", Shape::Bool),
    key("authoritative", Shape::Bool),
    key("store-extended-info", Shape::Bool),
    key("cache-threshold", Shape::Double),
    key("cache-max-age", U32),
    key("adaptive-lease-time-threshold", Shape::Double),
    key("allocator", Shape::Word(&["iterative", "random", "flq"])),
    key("reservations-global", Shape::Bool),
    key("reservations-in-subnet", Shape::Bool),
    key("reservations-out-of-pool", Shape::Bool),
    key("reservation-mode", Shape::Word(&["disabled", "out-of-pool", "global", "all"])),
    key("option-data", Shape::Maps(&OPTION_DATA)),
];

const GUARDS: &[Key] = &[
    key("client-class", Shape::Text),
    key("client-classes", Shape::Texts),
    key("require-client-classes", Shape::Texts),
    key("evaluate-additional-classes", Shape::Texts),
];

/// `Dhcp4`.
pub(super) static DHCP4: Context =
    map("Dhcp4", &[DHCP4_KEYS, SCOPE, LIFETIMES, BOOT, HOSTNAME, DDNS, NOTES], &[]);

const DHCP4_KEYS: &[Key] = &[
    key("interfaces-config", Shape::Map(&INTERFACES)),
    key("lease-database", Shape::Map(&LEASE_DATABASE)),
    key("hosts-database", Shape::Map(&HOSTS_DATABASE)),
    key("hosts-databases", Shape::Maps(&HOSTS_DATABASE)),
    key("config-control", Shape::Map(&CONFIG_CONTROL)),
    key("expired-leases-processing", Shape::Map(&EXPIRED)),
    key("sanity-checks", Shape::Map(&SANITY)),
    key("option-def", Shape::Maps(&OPTION_DEF)),
    key("client-classes", Shape::Maps(&CLASS)),
    key("shared-networks", Shape::Maps(&NETWORK)),
    key("subnet4", Shape::Maps(&SUBNET4)),
    key("reservations", Shape::Maps(&RESERVATION)),
    key("host-reservation-identifiers", Shape::Texts),
    key("control-socket", Shape::Map(&CONTROL_SOCKET)),
    key("control-sockets", Shape::Maps(&CONTROL_SOCKETS)),
    key("hooks-libraries", Shape::Maps(&HOOK)),
    key("loggers", Shape::Maps(&LOGGER)),
    key("multi-threading", Shape::Map(&MULTI_THREADING)),
    key("dhcp-queue-control", Shape::Map(&QUEUE)),
    key("dhcp-ddns", Shape::Map(&DHCP_DDNS)),
    key("compatibility", Shape::Map(&COMPATIBILITY)),
    key("echo-client-id", Shape::Bool),
    key("decline-probation-period", U32),
    key("ip-reservations-unique", Shape::Bool),
    key("early-global-reservations-lookup", Shape::Bool),
    key("reservations-lookup-first", Shape::Bool),
    key("parked-packet-limit", U32),
    key("server-tag", Shape::Text),
    inert("statistic-default-sample-count", U32, Stock::Integer(20)),
    inert("statistic-default-sample-age", U32, Stock::Integer(0)),
    key("stash-agent-options", Shape::Bool),
    inert("dhcp4o6-port", U16, Stock::Integer(0)),
];

static INTERFACES: Context = map(
    "interfaces-config",
    &[
        &[
            key("interfaces", Shape::Texts),
            key("dhcp-socket-type", Shape::Word(&["raw", "udp"])),
            key("outbound-interface", Shape::Word(&["same-as-inbound", "use-routing"])),
            key("re-detect", Shape::Bool),
            key("service-sockets-require-all", Shape::Bool),
            key("service-sockets-retry-wait-time", U32),
            key("service-sockets-max-retries", U32),
        ],
        NOTES,
    ],
    &[],
);

static LEASE_DATABASE: Context = map("lease-database", &[DATABASE_KEYS, MEMFILE_KEYS, NOTES], &["type"]);

/// Kea asks these databases for hosts; we refuse them and need to know their keys only.
static HOSTS_DATABASE: Context = map("hosts-databases", &[DATABASE_KEYS, MEMFILE_KEYS, NOTES], &["type"]);

const MEMFILE_KEYS: &[Key] = &[
    key("type", Shape::Word(&["memfile", "mysql", "postgresql"])),
    key("persist", Shape::Bool),
    key("name", Shape::Text),
    key("lfc-interval", ANY_INTEGER),
    key("max-row-errors", U32),
];

const DATABASE_KEYS: &[Key] = &[
    inert("readonly", Shape::Bool, Stock::Bool(false)),
    inert("user", Shape::Text, Stock::Nothing),
    inert("password", Shape::Text, Stock::Nothing),
    inert("password-file", Shape::Text, Stock::Nothing),
    inert("host", Shape::Text, Stock::Nothing),
    inert("port", U16, Stock::Nothing),
    inert("connect-timeout", U32, Stock::Nothing),
    inert("read-timeout", U32, Stock::Nothing),
    inert("write-timeout", U32, Stock::Nothing),
    inert("tcp-user-timeout", U32, Stock::Nothing),
    inert("max-reconnect-tries", U32, Stock::Integer(0)),
    inert("reconnect-wait-time", U32, Stock::Integer(0)),
    inert(
        "on-fail",
        Shape::Word(&["stop-retry-exit", "serve-retry-exit", "serve-retry-continue"]),
        Stock::Nothing,
    ),
    inert("retry-on-startup", Shape::Bool, Stock::Bool(false)),
    inert("trust-anchor", Shape::Text, Stock::Nothing),
    inert("cert-file", Shape::Text, Stock::Nothing),
    inert("key-file", Shape::Text, Stock::Nothing),
    inert("cipher-list", Shape::Text, Stock::Nothing),
    inert("request-timeout", U32, Stock::Nothing),
    inert("tcp-keepalive", U32, Stock::Nothing),
    inert("tcp-nodelay", Shape::Bool, Stock::Nothing),
    inert("contact-points", Shape::Text, Stock::Nothing),
    inert("keyspace", Shape::Text, Stock::Nothing),
];

static CONFIG_CONTROL: Context = map(
    "config-control",
    &[&[key("config-databases", Shape::Maps(&HOSTS_DATABASE)), key("config-fetch-wait-time", U16)], NOTES],
    &[],
);

static EXPIRED: Context = map(
    "expired-leases-processing",
    &[&[
        key("reclaim-timer-wait-time", ANY_INTEGER),
        key("flush-reclaimed-timer-wait-time", ANY_INTEGER),
        key("hold-reclaimed-time", ANY_INTEGER),
        key("max-reclaim-leases", ANY_INTEGER),
        key("max-reclaim-time", ANY_INTEGER),
        key("unwarned-reclaim-cycles", ANY_INTEGER),
    ]],
    &[],
);

static SANITY: Context = map(
    "sanity-checks",
    &[&[
        key("lease-checks", Shape::Text),
        key("extended-info-checks", Shape::Word(&["none", "fix", "strict", "pedantic"])),
    ]],
    &[],
);

static OPTION_DEF: Context = lax(
    "option-def",
    &[
        &[
            key("name", Shape::Text),
            key("code", ANY_INTEGER),
            key("type", Shape::Text),
            key("space", Shape::Text),
            key("array", Shape::Bool),
            key("record-types", Shape::Text),
            key("encapsulate", Shape::Text),
        ],
        NOTES,
    ],
    &["name", "code", "type"],
);

static OPTION_DATA: Context = lax(
    "option-data",
    &[
        &[
            key("name", Shape::Text),
            key("code", ANY_INTEGER),
            key("space", Shape::Text),
            key("csv-format", Shape::Bool),
            key("data", Shape::Text),
            key("always-send", Shape::Bool),
            key("never-send", Shape::Bool),
            key("client-classes", Shape::Texts),
        ],
        NOTES,
    ],
    &[],
);

static CLASS: Context = lax(
    "client-classes",
    &[
        &[
            key("name", Shape::Text),
            key("test", Shape::Text),
            key("template-test", Shape::Text),
            key("only-if-required", Shape::Bool),
            key("only-in-additional-list", Shape::Bool),
            key("option-def", Shape::Maps(&OPTION_DEF)),
            key("option-data", Shape::Maps(&OPTION_DATA)),
        ],
        LIFETIMES,
        BOOT,
        NOTES,
    ],
    &["name"],
);

static RESERVATION: Context = lax(
    "reservations",
    &[
        &[
            key("hw-address", Shape::Text),
            key("duid", Shape::Text),
            key("circuit-id", Shape::Text),
            key("client-id", Shape::Text),
            key("flex-id", Shape::Text),
            key("ip-address", Shape::Text),
            key("hostname", Shape::Text),
            key("option-data", Shape::Maps(&OPTION_DATA)),
            key("client-classes", Shape::Texts),
        ],
        BOOT,
        NOTES,
    ],
    &[],
);

static RELAY: Context =
    map("relay", &[&[key("ip-address", Shape::Text), key("ip-addresses", Shape::Texts)]], &[]);

static POOL: Context = map(
    "pools",
    &[
        &[
            key("pool", Shape::Text),
            key("pool-id", ANY_INTEGER),
            key("option-data", Shape::Maps(&OPTION_DATA)),
        ],
        GUARDS,
        HOSTNAME,
        DDNS,
        NOTES,
    ],
    &["pool"],
);

static SUBNET4: Context = map(
    "subnet4",
    &[
        &[
            key("subnet", Shape::Text),
            key("id", ANY_INTEGER),
            key("interface", Shape::Text),
            key("relay", Shape::Map(&RELAY)),
            key("pools", Shape::Maps(&POOL)),
            key("reservations", Shape::Maps(&RESERVATION)),
            inert("4o6-interface", Shape::Text, Stock::Text("")),
            inert("4o6-interface-id", Shape::Text, Stock::Text("")),
            inert("4o6-subnet", Shape::Text, Stock::Text("")),
        ],
        GUARDS,
        SCOPE,
        LIFETIMES,
        BOOT,
        HOSTNAME,
        DDNS,
        NOTES,
    ],
    &["subnet"],
);

static NETWORK: Context = map(
    "shared-networks",
    &[
        &[
            key("name", Shape::Text),
            key("interface", Shape::Text),
            key("relay", Shape::Map(&RELAY)),
            key("subnet4", Shape::Maps(&SUBNET4)),
        ],
        GUARDS,
        SCOPE,
        LIFETIMES,
        BOOT,
        HOSTNAME,
        DDNS,
        NOTES,
    ],
    &["name"],
);

static CONTROL_SOCKET: Context = map("control-socket", &[SOCKET_KEYS, NOTES], &[]);

static CONTROL_SOCKETS: Context = map("control-sockets", &[SOCKET_KEYS, HTTP_SOCKET_KEYS, NOTES], &[]);

const SOCKET_KEYS: &[Key] =
    &[key("socket-type", Shape::Word(&["unix", "http", "https"])), key("socket-name", Shape::Text)];

const HTTP_SOCKET_KEYS: &[Key] = &[
    key("socket-address", Shape::Text),
    key("socket-port", ANY_INTEGER),
    key("authentication", Shape::Map(&AUTHENTICATION)),
    key("trust-anchor", Shape::Text),
    key("cert-file", Shape::Text),
    key("key-file", Shape::Text),
    key("cert-required", Shape::Bool),
    key("http-headers", Shape::Maps(&HEADERS)),
];

static HEADERS: Context =
    lax("http-headers", &[&[key("name", Shape::Text), key("value", Shape::Text)], NOTES], &["name", "value"]);

static AUTHENTICATION: Context = map(
    "authentication",
    &[
        &[
            key("type", Shape::Word(&["basic"])),
            key("realm", Shape::Text),
            key("directory", Shape::Text),
            key("clients", Shape::Maps(&CLIENTS)),
        ],
        NOTES,
    ],
    &["type"],
);

static CLIENTS: Context = map(
    "clients",
    &[
        &[
            key("user", Shape::Text),
            key("user-file", Shape::Text),
            key("password", Shape::Text),
            key("password-file", Shape::Text),
        ],
        NOTES,
    ],
    &[],
);

static HOOK: Context = map(
    "hooks-libraries",
    &[&[key("library", Shape::Text), key("parameters", Shape::Free)], NOTES],
    &["library"],
);

static LOGGER: Context = map(
    "loggers",
    &[
        &[
            key("name", Shape::Text),
            key("severity", Shape::Text),
            key("debuglevel", ANY_INTEGER),
            key("output-options", Shape::Maps(&OUTPUT)),
            key("output_options", Shape::Maps(&OUTPUT)),
        ],
        NOTES,
    ],
    &[],
);

static OUTPUT: Context = map(
    "output-options",
    &[
        &[
            key("output", Shape::Text),
            key("flush", Shape::Bool),
            key("maxsize", ANY_INTEGER),
            key("maxver", ANY_INTEGER),
            key("pattern", Shape::Text),
        ],
        NOTES,
    ],
    &["output"],
);

/// Kea 2.2 demands `enable-multi-threading`, later ones have a default; we have one.
static MULTI_THREADING: Context = map(
    "multi-threading",
    &[
        &[
            key("enable-multi-threading", Shape::Bool),
            key("thread-pool-size", ANY_INTEGER),
            inert("packet-queue-size", ANY_INTEGER, Stock::Integer(64)),
        ],
        NOTES,
    ],
    &[],
);

static QUEUE: Context = Context {
    name: "dhcp-queue-control",
    keys: &[
        &[
            inert("enable-queue", Shape::Bool, Stock::Bool(false)),
            key("queue-type", Shape::Text),
            key("capacity", ANY_INTEGER),
        ],
        NOTES,
    ],
    mandatory: &["enable-queue"],
    not_empty: true,
    open: true,
};

static DHCP_DDNS: Context = map(
    "dhcp-ddns",
    &[
        &[
            key("enable-updates", Shape::Bool),
            key("server-ip", Shape::Text),
            key("server-port", U16),
            key("sender-ip", Shape::Text),
            key("sender-port", U16),
            key("max-queue-size", U32),
            key("ncr-protocol", Shape::Text),
            key("ncr-format", Shape::Text),
            key("qualifying-suffix", Shape::Text),
            key("generated-prefix", Shape::Text),
            key("override-no-update", Shape::Bool),
            key("override-client-update", Shape::Bool),
            // Before 1.4 this was a truth value; the builder takes both.
            key("replace-client-name", Shape::Any),
        ],
        HOSTNAME,
        NOTES,
    ],
    &[],
);

static COMPATIBILITY: Context = map(
    "compatibility",
    &[&[
        key("lenient-option-parsing", Shape::Bool),
        key("ignore-dhcp-server-identifier", Shape::Bool),
        key("ignore-rai-link-selection", Shape::Bool),
        key("exclude-first-last-24", Shape::Bool),
    ]],
    &[],
);

/// `Control-agent`.
pub(super) static AGENT: Context = map(
    "Control-agent",
    &[
        &[
            key("http-host", Shape::Text),
            key("http-port", U16),
            key("control-sockets", Shape::Map(&AGENT_SOCKETS)),
            key("authentication", Shape::Map(&AUTHENTICATION)),
            key("trust-anchor", Shape::Text),
            key("cert-file", Shape::Text),
            key("key-file", Shape::Text),
            key("cert-required", Shape::Bool),
            key("http-headers", Shape::Maps(&HEADERS)),
            key("hooks-libraries", Shape::Maps(&HOOK)),
            key("loggers", Shape::Maps(&LOGGER)),
        ],
        NOTES,
    ],
    &[],
);

static AGENT_SOCKETS: Context = map(
    "control-sockets",
    &[&[
        key("dhcp4", Shape::Map(&AGENT_SOCKET)),
        key("dhcp6", Shape::Map(&AGENT_SOCKET)),
        key("d2", Shape::Map(&AGENT_SOCKET)),
    ]],
    &[],
);

static AGENT_SOCKET: Context = map(
    "control-socket",
    &[&[key("socket-type", Shape::Word(&["unix"])), key("socket-name", Shape::Text)], NOTES],
    &[],
);

/// `Logging` of 1.6 and before: the loggers of all daemons.
pub(super) static LOGGING: Context = map("Logging", &[&[key("loggers", Shape::Maps(&LOGGER))]], &[]);
