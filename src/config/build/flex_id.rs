//! What `libdhcp_flex_id` is told, and reservations that need it.

use super::Builder;
use crate::config::json::{Map, Member, Placed};
use crate::config::tree::{Feature, FlexId, HookLibrary, Host, IdentifierKind, SharedNetwork, Subnet4};

/// The parameters of the library; `ignore-iaid` is about DHCPv6.
const PARAMETERS: [&str; 3] = ["identifier-expression", "replace-client-id", "ignore-iaid"];

impl Builder<'_> {
    /// The parameters of the library; nothing when it is not there or has an empty expression.
    pub(super) fn flex_id(&mut self, hooks: &[HookLibrary]) -> Option<FlexId> {
        let hook = hooks.iter().find(|hook| hook.feature == Feature::FlexId)?;
        let parameters = hook.parameters.as_ref().and_then(|parameters| parameters.as_map());
        let Some(member) = parameters.and_then(|map| map.member("identifier-expression")) else {
            self.error(hook.at, "libdhcp_flex_id needs the parameter 'identifier-expression'");
            return None;
        };
        let parameters = parameters?;
        for unknown in parameters.members().iter().filter(|member| !PARAMETERS.contains(&member.key.as_str()))
        {
            let text = format!(
                "'{}' is not a parameter of libdhcp_flex_id; known are {}",
                unknown.key,
                PARAMETERS.join(", ")
            );
            self.warning(unknown.key_at, text);
        }
        let replace_client_id = self.truth(parameters, "replace-client-id");
        self.truth(parameters, "ignore-iaid");
        let Some(expression) = member.value.as_text() else {
            self.error(member.value.at, "'identifier-expression' of libdhcp_flex_id must be a string");
            return None;
        };
        if expression.is_empty() {
            self.warning(member.value.at, "'identifier-expression' is empty: no client has a flex-id");
            return None;
        }
        let expression = Placed { value: expression.to_owned(), at: member.value.at };
        Some(FlexId { expression, replace_client_id })
    }

    fn truth(&mut self, parameters: &Map, key: &str) -> bool {
        let Some(Member { value, .. }) = parameters.member(key) else { return false };
        value.as_bool().unwrap_or_else(|| {
            self.error(value.at, format!("'{key}' of libdhcp_flex_id must be a boolean"));
            false
        })
    }

    /// Tells of reservations by flex-id that can match nobody.
    pub(super) fn warn_of_flex_ids(
        &mut self,
        map: &Map,
        has_expression: bool,
        identifiers: &[IdentifierKind],
        (subnets, networks, global): (&[Subnet4], &[SharedNetwork], &[Host]),
    ) {
        let inside = subnets.iter().chain(networks.iter().flat_map(|network| &network.subnets));
        let mut hosts = inside.flat_map(|subnet| &subnet.reservations).chain(global);
        let Some(host) = hosts.find(|host| host.kind == IdentifierKind::FlexId) else { return };
        if !has_expression {
            self.warning(
                host.at,
                "reservations by flex-id match nobody: hooks-libraries has no libdhcp_flex_id with an identifier-expression",
            );
        } else if !identifiers.contains(&IdentifierKind::FlexId) {
            let place = map.member("host-reservation-identifiers").map_or(host.at, Member::place);
            self.warning(
                place,
                "reservations by flex-id match nobody: host-reservation-identifiers does not name flex-id",
            );
        }
    }
}
