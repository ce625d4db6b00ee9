//! The running configuration as commands read, write and replace it.

use std::io::Write as _;
use std::path::PathBuf;

use super::Desk;
use crate::config::json::{Comments, Files, Value as Parsed, parse_wire, pretty};
use crate::config::load::{Loaded, load_value};
use crate::config::render;
use crate::config::tree::{SharedNetwork, Subnet4};
use crate::control::backend::{ConfigText, Daemon, WrittenFile};
use crate::ids::SubnetId;

impl Desk {
    /// The running configuration as `config-get` shows it.
    #[must_use]
    pub fn rendered(&self, daemon: Daemon) -> serde_json::Value {
        match daemon {
            Daemon::Dhcp4 => render::dhcp4(&self.tree, &render::definitions(&self.tree)),
            Daemon::Agent => self.agent.as_ref().map_or(serde_json::Value::Null, render::control_agent),
            Daemon::Dhcp6 => serde_json::Value::Null,
        }
    }

    pub(super) fn find_subnet(&self, id: SubnetId) -> Option<(Option<&SharedNetwork>, &Subnet4)> {
        let inside = self
            .tree
            .shared_networks
            .iter()
            .flat_map(|network| network.subnets.iter().map(move |subnet| (Some(network), subnet)));
        inside
            .chain(self.tree.subnets.iter().map(|subnet| (None, subnet)))
            .find(|(_, subnet)| subnet.id == id)
    }

    /// Reads the configuration inside a command.
    ///
    /// # Errors
    /// The first thing wrong with it, with its place.
    pub fn read_command(
        &self,
        daemon: Daemon,
        text: &ConfigText,
        interfaces: &[crate::config::load::SystemInterface],
    ) -> Result<Loaded, String> {
        let block = text.command.get(text.block.clone()).unwrap_or(&[]);
        let block = String::from_utf8_lossy(block);
        let wrapped = format!("{{ \"{}\": {block} }}", daemon.block());
        let mut files = Files::default();
        let value: Parsed = parse_wire(&mut files, "<wire>", &wrapped, Comments::Refuse)
            .map_err(|finding| finding.kea_text())?;
        let loaded = load_value(files, &value, Some(interfaces));
        match loaded.first_error() {
            Some(finding) => Err(finding.kea_text()),
            None => Ok(loaded),
        }
    }

    /// Writes the running configuration to `file`, or to the start-up file.
    pub(super) fn write_config(&self, daemon: Daemon, file: Option<String>) -> Result<WrittenFile, String> {
        let file = match file {
            Some(file) => file,
            None => match self.files.as_slice() {
                [only] => only.display().to_string(),
                _ => {
                    return Err("the server was started with several files: name one".to_owned());
                }
            },
        };
        let mut value = self.rendered(daemon);
        if self.files.iter().any(|own| own.as_os_str() == file.as_str()) && self.files.len() == 1 {
            // The start-up file holds all blocks: none may get lost because another one is written.
            let other = if daemon == Daemon::Dhcp4 { Daemon::Agent } else { Daemon::Dhcp4 };
            if let (Some(all), serde_json::Value::Object(more)) =
                (value.as_object_mut(), self.rendered(other))
            {
                all.extend(more.into_iter().filter(|(name, _)| name == other.block()));
            }
        }
        let text = pretty(&value);
        replace_file(&file, text.as_bytes())
            .map_err(|error| format!("Unable to open file {file} for writing: {error}"))?;
        Ok(WrittenFile { file, bytes: text.len() as u64 })
    }
}

/// Puts `bytes` in the place of a file, whole or not at all; its permissions stay.
fn replace_file(name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // What a link points to is replaced, not the link.
    let path = std::fs::canonicalize(name).unwrap_or_else(|_| PathBuf::from(name));
    let mut beside = path.clone().into_os_string();
    beside.push(".new");
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        if let Ok(old) = std::fs::metadata(&path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&beside, &path));
    if placed.is_err() {
        // What was not finished is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
    }
    placed
}
