//! What a schema says of a value beside its type.

use serde_json::Value;

use super::{Complaints, Walk};
use crate::objects::definitions::schema::{Checks, Format, Schema};

impl Walk {
    pub(super) fn checks(&mut self, checks: &Checks, value: &Value) {
        match value {
            Value::String(text) => self.text(checks, text),
            Value::Number(number) => self.number(checks, value, number.as_f64().unwrap_or(0.0)),
            Value::Array(items) => self.items(checks, items.len() as u64),
            Value::Object(members) => self.members(checks, members.len() as u64),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(allowed) = &checks.enumeration
            && !allowed.iter().any(|one| same(one, value))
        {
            let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
            let list = list.join(", ");
            self.block(format!(
                "Unsupported value: {value}: supported values: {list}"
            ));
        }
        self.branches(checks, value);
    }

    fn text(&mut self, checks: &Checks, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(most) = checks.max_length.filter(|most| length > *most) {
            self.block(format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = checks.min_length.filter(|least| length < *least) {
            self.in_body(text, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = &checks.pattern
            && !pattern.is_match(text.as_bytes())
        {
            self.in_body(text, &format!("should match '{pattern}'"));
        }
        if let Some(format) = checks.format
            && !has_format(format, text)
        {
            let detail = format!("must be of type {}: {text:?}", format.name());
            self.complaints.blocked = true;
            self.in_body(text, &detail);
        }
    }

    fn number(&mut self, checks: &Checks, value: &Value, number: f64) {
        if let Some(least) = checks.minimum {
            let below = match checks.exclusive_minimum {
                true => (number <= least).then_some("greater than"),
                false => (number < least).then_some("greater than or equal to"),
            };
            if let Some(words) = below {
                self.in_body(value.clone(), &format!("should be {words} {least}"));
            }
        }
        if let Some(most) = checks.maximum {
            let above = match checks.exclusive_maximum {
                true => (number >= most).then_some("less than"),
                false => (number > most).then_some("less than or equal to"),
            };
            if let Some(words) = above {
                self.in_body(value.clone(), &format!("should be {words} {most}"));
            }
        }
        if let Some(factor) = checks.multiple_of.filter(|factor| *factor > 0.0)
            && (number / factor).fract() != 0.0
        {
            self.in_body(value.clone(), &format!("should be a multiple of {factor}"));
        }
    }

    fn items(&mut self, checks: &Checks, length: u64) {
        if let Some(least) = checks.min_items.filter(|least| length < *least) {
            self.in_body(length, &format!("should have at least {least} items"));
        }
        if let Some(most) = checks.max_items.filter(|most| length > *most) {
            self.too_many(length, most);
        }
    }

    fn members(&mut self, checks: &Checks, length: u64) {
        if let Some(least) = checks.min_properties.filter(|least| length < *least) {
            self.in_body(length, &format!("should have at least {least} properties"));
        }
        if let Some(most) = checks.max_properties.filter(|most| length > *most) {
            self.too_many(length, most);
        }
    }

    fn too_many(&mut self, length: u64, most: u64) {
        let items = if most == 1 { "item" } else { "items" };
        self.block(format!(
            "Too many: {length}: must have at most {most} {items}"
        ));
    }

    fn branches(&mut self, checks: &Checks, value: &Value) {
        for branch in &checks.all_of {
            self.value(branch, value);
        }
        if !checks.any_of.is_empty() {
            let (fit, mildest) = self.tried(&checks.any_of, value);
            if fit == 0 {
                self.unfit("must validate at least one schema (anyOf)");
                self.complaints.extend(mildest);
            }
        }
        if !checks.one_of.is_empty() {
            match self.tried(&checks.one_of, value) {
                (1, _) => {}
                (0, mildest) => {
                    self.unfit("must validate one and only one schema (oneOf). Found none valid");
                    self.complaints.extend(mildest);
                }
                (fit, _) => self.unfit(&format!(
                    "must validate one and only one schema (oneOf). Found {fit} valid alternatives"
                )),
            }
        }
        if let Some(not) = &checks.not
            && self.tried(std::slice::from_ref(not), value).0 == 1
        {
            self.unfit("must not validate the schema (not)");
        }
    }

    /// Kubernetes tells of no place here, but in the words.
    fn unfit(&mut self, words: &str) {
        let message = format!("Invalid value: \"\": {:?} {words}", self.path);
        self.complaints.add("", message);
    }

    /// How many of the schemas the value fits, and what is wrong where the least is.
    fn tried(&mut self, branches: &[Schema], value: &Value) -> (usize, Complaints) {
        let before = std::mem::take(&mut self.complaints);
        let (mut fit, mut mildest) = (0, None::<Complaints>);
        for branch in branches {
            self.value(branch, value);
            let complaints = std::mem::take(&mut self.complaints);
            if complaints.errors.is_empty() {
                fit += 1;
            } else if mildest
                .as_ref()
                .is_none_or(|other| complaints.errors.len() < other.errors.len())
            {
                mildest = Some(complaints);
            }
        }
        self.complaints = before;
        (fit, mildest.unwrap_or_default())
    }
}

/// Equal, numbers by their worth.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn has_format(format: Format, text: &str) -> bool {
    use k8s_openapi::jiff::{Timestamp, civil};
    match format {
        Format::DateTime => text.parse::<Timestamp>().is_ok(),
        Format::Date => text.len() == 10 && text.parse::<civil::Date>().is_ok(),
        Format::Ipv4 => text.parse::<std::net::Ipv4Addr>().is_ok(),
        Format::Ipv6 => text.parse::<std::net::Ipv6Addr>().is_ok(),
        Format::Cidr => text.parse::<ipnet::IpNet>().is_ok(),
        Format::Mac => {
            let pairs: Vec<&str> = text.split([':', '-']).collect();
            let is_pair =
                |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            pairs.len() == 6 && pairs.iter().all(is_pair)
        }
        Format::Uuid => {
            let digits: String = text.chars().filter(|c| *c != '-').collect();
            digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
    }
}
