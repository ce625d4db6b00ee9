//! The configuration while the server runs: tested, read again, put in force as a whole or not at all.

use std::collections::VecDeque;

use super::start::{lease_file, shard_count};
use super::{Control, DHCP4, warn};
use crate::config::finding::{Finding, Severity as Gravity};
use crate::config::load::Loaded;
use crate::config::tree::ControlAgent;
use crate::control::backend::{
    Backend as _, Completion, ConfigAction, ConfigOrder, ConfigText, Daemon, Ticket,
};
use crate::control::event_loop::ControlLoop;
use crate::control::log::{self, Severity};
use crate::control::statistics::Snapshot as StatisticsSnapshot;
use crate::log;
use crate::net::link::{SocketType, Table};
use crate::server::desk::failure;
use crate::server::setup::SpaceWork;
use crate::server::{ha, listeners, setup, told};

/// Who wants the configuration changed or tested.
pub(super) enum Asked {
    /// A command.
    Command(Ticket, ConfigOrder),
    /// SIGHUP.
    Signal,
}

impl Asked {
    const fn is_reload(&self) -> bool {
        matches!(self, Self::Signal | Self::Command(_, ConfigOrder { action: ConfigAction::Reload, .. }))
    }
}

/// A configuration that waits for room for its addresses.
struct Making {
    asked: Asked,
    loaded: Loaded,
    agent: Option<ControlAgent>,
    work: SpaceWork,
}

/// What is to be done with configurations, one after the other.
#[derive(Default)]
pub(super) struct Reconfiguring {
    waiting: VecDeque<Asked>,
    making: Option<Box<Making>>,
}

impl Reconfiguring {
    pub(super) fn ask(&mut self, asked: Asked) {
        self.waiting.push_back(asked);
    }

    /// Whether the control thread must not sleep.
    pub(super) fn is_at_work(&self) -> bool {
        self.making.is_some() || !self.waiting.is_empty()
    }
}

impl Control {
    /// Does the next thing, or a step of the one that is under way.
    pub(super) fn go_on_configuring(&mut self, api: &mut ControlLoop) {
        let (asked, loaded, agent) = match self.reconfiguring.making.take() {
            Some(mut making) => match making.work.step(&self.desk.engine.space) {
                Ok(false) => return self.reconfiguring.making = Some(making),
                Ok(true) => (making.asked, making.loaded, making.agent),
                Err(text) => return self.configured(making.asked, Err(text)),
            },
            None => {
                let Some(asked) = self.reconfiguring.waiting.pop_front() else { return };
                match self.read(&asked) {
                    Ok(Some((loaded, agent))) => (asked, loaded, agent),
                    Ok(None) => return self.configured(asked, Ok(())),
                    Err(text) => return self.configured(asked, Err(text)),
                }
            }
        };
        match self.apply(api, &loaded, agent.clone()) {
            Ok(None) => self.configured(asked, Ok(())),
            Ok(Some(work)) => {
                self.reconfiguring.making = Some(Box::new(Making { asked, loaded, agent, work }));
            }
            Err(text) => self.configured(asked, Err(text)),
        }
    }

    /// What is to be put in force, if anything is.
    fn read(&self, asked: &Asked) -> Result<Option<(Loaded, Option<ControlAgent>)>, String> {
        if asked.is_reload() {
            self.notifier.reloading(crate::net::monotonic_us());
            return self.reread().map(Some);
        }
        let Asked::Command(_, order) = asked else { return Ok(None) };
        match &order.action {
            ConfigAction::Test(text) => {
                let loaded = self.read_command(order.daemon, text)?;
                self.check(&loaded)?;
                Ok(None)
            }
            ConfigAction::Set(text) => {
                let loaded = self.read_command(order.daemon, text)?;
                let agent = loaded.control_agent.clone().or_else(|| self.desk.agent.clone());
                Ok(Some((loaded, agent)))
            }
            ConfigAction::Reload | ConfigAction::Write(_) => Ok(None),
        }
    }

    /// Tells who asked what has become of it.
    fn configured(&mut self, asked: Asked, outcome: Result<(), String>) {
        let outcome = if asked.is_reload() { self.reloaded(outcome) } else { outcome };
        match (asked, outcome) {
            (Asked::Command(ticket, _), outcome) => {
                let completion = outcome.map_or_else(failure, |()| Completion::Config(Ok(())));
                self.desk.done.push((ticket, completion));
            }
            (Asked::Signal, Err(text)) => log!(
                Severity::Error,
                DHCP4,
                DHCP4_CONFIG_LOAD_FAIL,
                "Config reload failed: {text}; the old configuration stays"
            ),
            (Asked::Signal, Ok(())) => {}
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

    /// Tells the service manager what became of a reload.
    fn reloaded(&self, outcome: Result<(), String>) -> Result<(), String> {
        let failed =
            if outcome.is_err() { "; the last reload failed, the old configuration stays" } else { "" };
        self.notifier.ready(&format!("{}{failed}", self.serving()));
        outcome.map_err(|text| {
            let names: Vec<String> = self.desk.files.iter().map(|file| file.display().to_string()).collect();
            format!("configuration error using file '{}': {text}", names.join("', '"))
        })
    }

    /// Reads the start-up files again.
    fn reread(&self) -> Result<(Loaded, Option<ControlAgent>), String> {
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let loaded = setup::read(&self.desk.files, Some(&setup::system_interfaces(&snapshot)))?;
        if let Some(finding) = loaded.first_error() {
            return Err(finding.kea_text());
        }
        if loaded.dhcp4.is_none() {
            return Err("there is no Dhcp4 block".to_owned());
        }
        // The files are the whole truth: an agent that they do not name any more is gone.
        let agent = loaded.control_agent.clone();
        Ok((loaded, agent))
    }

    /// Puts a configuration in force, unless its addresses want much room: then that has to be made first. When anything of it cannot be
    /// had, the old one stays.
    ///
    /// Everything that can fail comes before the plan is published: interfaces are chosen on a copy of the table, and
    /// listeners are put back when the plan finds no room. Ports come after it, as in Kea: one that cannot be opened is
    /// told in `status-get` and tried again, because the interface may be back any moment.
    fn apply(
        &mut self,
        api: &mut ControlLoop,
        loaded: &Loaded,
        agent: Option<ControlAgent>,
    ) -> Result<Option<SpaceWork>, String> {
        let Some(tree) = loaded.dhcp4.clone() else {
            // A command for the agent alone.
            if agent.is_none() {
                return Err("there is neither a Dhcp4 nor a Control-agent block".to_owned());
            }
            let specs = listeners::specs(&self.desk.tree, agent.as_ref())?;
            api.listen(specs).map_err(|errors| errors.join("; "))?;
            self.desk.agent = agent;
            return Ok(None);
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
        if let Some(work) = SpaceWork::new(&self.desk.engine.space, &plan)? {
            return Ok(Some(work));
        }
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
        Ok(None)
    }
}

fn first_error(findings: &[Finding]) -> String {
    findings
        .iter()
        .find(|finding| finding.severity == Gravity::Error)
        .map_or_else(|| "the configuration is not usable".to_owned(), Finding::kea_text)
}
