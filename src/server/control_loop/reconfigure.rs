//! The configuration while the server runs: tested, read again, put in force as a whole or not at all.

use super::start::{lease_file, shard_count};
use super::{Control, DHCP4, warn};
use crate::config::finding::{Finding, Severity as Gravity};
use crate::config::load::Loaded;
use crate::config::tree::ControlAgent;
use crate::control::backend::{Backend as _, Completion, ConfigAction, ConfigOrder, ConfigText, Daemon};
use crate::control::event_loop::ControlLoop;
use crate::control::log::{self, Severity};
use crate::control::statistics::Snapshot as StatisticsSnapshot;
use crate::log;
use crate::net::link::{SocketType, Table};
use crate::server::desk::failure;
use crate::server::{ha, listeners, setup, told};

impl Control {
    pub(super) fn configure(&mut self, api: &mut ControlLoop, order: &ConfigOrder) -> Completion {
        let outcome = match (&order.action, order.daemon) {
            (ConfigAction::Reload, _) => self.reload(api),
            (ConfigAction::Test(text), daemon) => {
                self.read_command(daemon, text).and_then(|loaded| self.check(&loaded))
            }
            (ConfigAction::Set(text), daemon) => self.read_command(daemon, text).and_then(|loaded| {
                let agent = loaded.control_agent.clone().or_else(|| self.desk.agent.clone());
                self.apply(api, &loaded, agent)
            }),
            (ConfigAction::Write(_), _) => Ok(()),
        };
        match outcome {
            Ok(()) => Completion::Config(Ok(())),
            Err(text) => failure(text),
        }
    }

    fn read_command(&self, daemon: Daemon, text: &ConfigText) -> Result<Loaded, String> {
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        self.desk.read_command(daemon, text, &setup::system_interfaces(&snapshot))
    }

    /// Whether a configuration could be applied.
    fn check(&self, loaded: &Loaded) -> Result<(), String> {
        let Some(tree) = &loaded.dhcp4 else { return Ok(()) };
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let mut findings = Vec::new();
        let plan = setup::plan(tree, loaded, &mut Table::new(), &snapshot, 0, &mut findings);
        match plan {
            Some(plan) => setup::check_space(&self.desk.engine.space, &plan),
            None => Err(first_error(&findings)),
        }
    }

    /// Reads the start-up files again.
    pub(super) fn reload(&mut self, api: &mut ControlLoop) -> Result<(), String> {
        self.notifier.reloading(crate::net::monotonic_us());
        let outcome = self.reread(api);
        let failed =
            if outcome.is_err() { "; the last reload failed, the old configuration stays" } else { "" };
        self.notifier.ready(&format!("{}{failed}", self.serving()));
        outcome.map_err(|text| {
            let names: Vec<String> = self.desk.files.iter().map(|file| file.display().to_string()).collect();
            format!("configuration error using file '{}': {text}", names.join("', '"))
        })
    }

    fn reread(&mut self, api: &mut ControlLoop) -> Result<(), String> {
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let files = self.desk.files.clone();
        let loaded = setup::read(&files, Some(&setup::system_interfaces(&snapshot)))?;
        if let Some(finding) = loaded.first_error() {
            return Err(finding.kea_text());
        }
        if loaded.dhcp4.is_none() {
            return Err("there is no Dhcp4 block".to_owned());
        }
        // The files are the whole truth: an agent that they do not name any more is gone.
        self.apply(api, &loaded, loaded.control_agent.clone())
    }

    /// Puts a configuration in force; when anything of it cannot be had, the old one stays.
    ///
    /// Everything that can fail comes before the plan is published: interfaces are chosen on a copy of the table, and
    /// listeners are put back when the plan finds no room. Ports come after it, as in Kea: one that cannot be opened is
    /// told in `status-get` and tried again, because the interface may be back any moment.
    fn apply(
        &mut self,
        api: &mut ControlLoop,
        loaded: &Loaded,
        agent: Option<ControlAgent>,
    ) -> Result<(), String> {
        let Some(tree) = loaded.dhcp4.clone() else {
            // A command for the agent alone.
            if agent.is_none() {
                return Err("there is neither a Dhcp4 nor a Control-agent block".to_owned());
            }
            let specs = listeners::specs(&self.desk.tree, agent.as_ref())?;
            api.listen(specs).map_err(|errors| errors.join("; "))?;
            self.desk.agent = agent;
            return Ok(());
        };
        if lease_file(&tree) != lease_file(&self.desk.tree) {
            return Err("lease-database cannot be changed while the server runs: restart it".to_owned());
        }
        let pair = ha::setup::configured(&tree)?;
        if self.desk.ha.as_ref().map_or_else(|| pair.is_some(), |ha| !ha.is_same(pair.as_ref())) {
            return Err("high-availability cannot be changed while the server runs: restart it".to_owned());
        }
        let snapshot =
            self.network.snapshot().map_err(|error| format!("cannot list interfaces: {}", told(&error)))?;
        let mut findings = loaded.findings.clone();
        let mut table = self.table.clone();
        let generation = self.generation + 1;
        let plan = setup::plan(&tree, loaded, &mut table, &snapshot, generation, &mut findings);
        let Some(plan) = plan else { return Err(first_error(&findings)) };
        let selection = setup::choose(&tree, &snapshot, true).map_err(|error| told(&error))?;
        let socket_type = setup::socket_type(&tree);
        let mut changes = Vec::new();
        if socket_type != setup::socket_type(&self.desk.tree) {
            // Other sockets: all are closed before any is opened.
            changes = table.update(Vec::new(), socket_type);
        }
        changes.extend(table.update(selection.served, socket_type));
        let arrivals = setup::arrivals(table.served(), socket_type == SocketType::Raw);
        let specs = listeners::specs(&tree, agent.as_ref())?;
        api.listen(specs).map_err(|errors| errors.join("; "))?;
        let serving = setup::serving(&tree, plan, arrivals, &mut self.desk.engine.book);
        if let Err(text) = self.desk.engine.publish(serving) {
            let old = listeners::specs(&self.desk.tree, self.desk.agent.as_ref());
            if let Err(again) = old.and_then(|specs| api.listen(specs).map_err(|errors| errors.join("; "))) {
                log!(Severity::Error, DHCP4, COMMAND_LISTENER_FAIL, "listeners not put back: {again}");
            }
            return Err(text);
        }
        // From here on the new configuration is in force.
        self.generation = generation;
        self.table = table;
        self.desk.tree = tree;
        self.desk.agent = agent;
        self.desk.configured = self.desk.clock.now();
        self.desk.disabling.reconfigured();
        self.desk.serve();
        log::configure(listeners::loggers(&self.desk.tree.loggers));
        warn(&findings);
        for passed in &selection.passed {
            log!(Severity::Warn, DHCP4, DHCPSRV_OPEN_SOCKET_FAIL, "{passed}");
        }
        let shards = self.desk.engine.shards.len();
        if shard_count(&self.desk.tree) != shards {
            log!(
                Severity::Warn,
                DHCP4,
                DHCP4_MULTI_THREADING_INFO,
                "thread-pool-size takes effect at the next start: {shards} shard(s) go on"
            );
        }
        let statistics = &mut api.dispatcher().statistics;
        statistics.configure(
            self.desk.tree.statistic_sample_count,
            u64::from(self.desk.tree.statistic_sample_age_s),
        );
        let mut counted = StatisticsSnapshot::default();
        self.desk.sample(&mut counted);
        statistics.recounted(counted, self.desk.wall_us());
        self.cleanup.schedule(&self.desk);
        self.open(changes);
        log!(
            Severity::Info,
            DHCP4,
            DHCP4_CONFIG_COMPLETE,
            "the configuration is in force: {} subnet(s)",
            self.desk.engine.serving().plan.subnets.len()
        );
        Ok(())
    }
}

fn first_error(findings: &[Finding]) -> String {
    findings
        .iter()
        .find(|finding| finding.severity == Gravity::Error)
        .map_or_else(|| "the configuration is not usable".to_owned(), Finding::kea_text)
}
