//! Routing policy rules (`ip rule`).

use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mode, Netlink, Result};

/// A rule that sends packets from an input interface to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is of IPv6.
    pub v6: bool,
    /// Its place; lower goes first.
    pub priority: u32,
    /// Input interface; `lo` stands for what the machine itself sends.
    pub input: Option<String>,
    /// The table looked up.
    pub table: u32,
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.v6);
        message.header.action = RuleAction::ToTable;
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        message.attributes.push(RuleAttribute::Table(self.table));
        message
            .attributes
            .push(RuleAttribute::Priority(self.priority));
        if let Some(input) = &self.input {
            message
                .attributes
                .push(RuleAttribute::Iifname(input.clone()));
        }
        message
    }

    fn from_message(message: &RuleMessage) -> Rule {
        let mut rule = Rule {
            v6: message.header.family == AddressFamily::Inet6,
            priority: 0,
            input: None,
            table: u32::from(message.header.table),
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Iifname(name) => rule.input = Some(name.clone()),
                RuleAttribute::Table(table) => rule.table = *table,
                _ => {}
            }
        }
        rule
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

impl Netlink {
    /// Every rule of both families.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for v6 in [false, true] {
            let mut message = RuleMessage::default();
            message.header.family = family(v6);
            self.dump(
                RouteNetlinkMessage::GetRule(message),
                "list rules",
                |message| {
                    if let RouteNetlinkMessage::NewRule(message) = message {
                        rules.push(Rule::from_message(&message));
                    }
                },
            )?;
        }
        Ok(rules)
    }

    /// Adds a rule; it is an error if the very same exists.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<()> {
        let what = format!("add rule {}", rule.priority);
        let message = RouteNetlinkMessage::NewRule(rule.message());
        self.request(message, Mode::New, &what)
    }

    /// Deletes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        let what = format!("delete rule {}", rule.priority);
        let message = RouteNetlinkMessage::DelRule(rule.message());
        self.request(message, Mode::Change, &what)
    }
}
