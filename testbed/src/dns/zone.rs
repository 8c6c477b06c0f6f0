//! Answers to questions.

use std::collections::HashSet;

use super::records::{Record, Records, RecordsError};

/// CNAMEs followed for one question at most; a loop ends there.
const ALIASES: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The alias itself.
    Cname,
    /// Services.
    Srv,
    /// Names of addresses.
    Ptr,
    /// Text.
    Txt,
    /// Servers of a zone.
    Ns,
    /// The start of a zone.
    Soa,
    /// Whatever there is.
    Any,
    /// A type of which no name has a record here.
    Other,
}

impl Kind {
    fn takes(self, record: &Record) -> bool {
        match self {
            Kind::Any => true,
            Kind::Other => false,
            Kind::A => matches!(record, Record::A(_)),
            Kind::Aaaa => matches!(record, Record::Aaaa(_)),
            Kind::Cname => matches!(record, Record::Cname(_)),
            Kind::Srv => matches!(record, Record::Srv { .. }),
            Kind::Ptr => matches!(record, Record::Ptr(_)),
            Kind::Txt => matches!(record, Record::Txt(_)),
            Kind::Ns => matches!(record, Record::Ns(_)),
            Kind::Soa => matches!(record, Record::Soa { .. }),
        }
    }
}

/// Owner and record.
pub type Owned<'a> = (String, &'a Record);

/// An answer. Without answers, [`Answer::soa`] says how long that may be remembered (RFC 2308).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Whether the name, or the one at the end of its aliases, does not exist (NXDOMAIN).
    pub no_such_name: bool,
    /// What was asked for, after the aliases that led to it.
    pub answers: Vec<Owned<'a>>,
    /// Addresses of the hosts that the answers name.
    pub additionals: Vec<Owned<'a>>,
    /// Start of the zone that says no.
    pub soa: Option<Owned<'a>>,
}

/// Records, ready for questions.
#[derive(Debug)]
pub struct Zone {
    records: Records,
    /// Every name, those in between that have no records of their own too.
    existing: HashSet<String>,
}

/// The name without its first label; the root's is none.
fn parent(name: &str) -> Option<&str> {
    if name.is_empty() {
        return None;
    }
    Some(name.split_once('.').map_or("", |(_, rest)| rest))
}

impl Zone {
    /// Checks and indexes records.
    pub fn new(records: Records) -> Result<Zone, RecordsError> {
        records.check()?;
        let mut existing = HashSet::new();
        for name in records.names.keys() {
            let mut name = Some(name.as_str());
            while let Some(this) = name
                && existing.insert(this.to_owned())
            {
                name = parent(this);
            }
        }
        Ok(Zone { records, existing })
    }

    /// How long clients may keep an answer, in seconds.
    pub fn ttl_s(&self) -> u32 {
        self.records.ttl_s
    }

    /// How many names have records.
    pub fn len(&self) -> usize {
        self.records.names.len()
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.records.names.is_empty()
    }

    /// Answers a question. The name is absolute, without the last dot, and in lower case. Where
    /// there are several records the `turn`th comes first, so that clients that take the first
    /// are spread over all when turns follow each other.
    pub fn answer(&self, name: &str, kind: Kind, turn: usize) -> Answer<'_> {
        let mut answer = Answer::default();
        let mut name = name.to_owned();
        for _ in 0..=ALIASES {
            let Some(records) = self.find(&name) else {
                answer.no_such_name = true;
                break;
            };
            let mut wanted: Vec<&Record> = records
                .iter()
                .copied()
                .filter(|record| kind.takes(record))
                .collect();
            if !wanted.is_empty() {
                let first = turn % wanted.len();
                wanted.rotate_left(first);
                answer.additionals = self.hosts(&wanted);
                answer
                    .answers
                    .extend(wanted.into_iter().map(|record| (name.clone(), record)));
                return answer;
            }
            let alias = records
                .iter()
                .copied()
                .find(|r| matches!(r, Record::Cname(_)));
            let Some(Record::Cname(target)) = alias else {
                break;
            };
            let seen = answer.answers.iter().any(|(owner, _)| owner == target);
            answer.answers.extend(alias.map(|record| (name, record)));
            name = target.clone();
            if seen {
                break;
            }
        }
        answer.soa = self.apex(&name);
        answer
    }

    /// The records of a name: its own, or those of the wildcard that stands for it. A wildcard
    /// stands for names below its parent unless a name closer to them exists (RFC 4592).
    fn find(&self, name: &str) -> Option<Vec<&Record>> {
        let found = |name: &str| self.records.names.get(name).into_iter().flatten().collect();
        if self.existing.contains(name) {
            return Some(found(name));
        }
        let mut encloser = parent(name)?;
        while !self.existing.contains(encloser) {
            encloser = parent(encloser)?;
        }
        let wildcard = if encloser.is_empty() {
            "*".into()
        } else {
            format!("*.{encloser}")
        };
        self.existing.contains(&wildcard).then(|| found(&wildcard))
    }

    /// Addresses of the hosts that SRV records name.
    fn hosts(&self, records: &[&Record]) -> Vec<Owned<'_>> {
        let mut hosts = Vec::new();
        let mut seen = HashSet::new();
        for record in records {
            let Record::Srv { target, .. } = record else {
                continue;
            };
            if !seen.insert(target) {
                continue;
            }
            let set = self.records.names.get(target).into_iter().flatten();
            let addresses = set.filter(|r| matches!(r, Record::A(_) | Record::Aaaa(_)));
            hosts.extend(addresses.map(|record| (target.clone(), record)));
        }
        hosts
    }

    /// The start of the zone that a name lies in.
    fn apex(&self, name: &str) -> Option<Owned<'_>> {
        let mut name = Some(name);
        while let Some(this) = name {
            let set = self.records.names.get(this).into_iter().flatten();
            let start = set
                .into_iter()
                .find(|record| matches!(record, Record::Soa { .. }));
            if let Some(record) = start {
                return Some((this.to_owned(), record));
            }
            name = parent(this);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(names: &[(&str, Record)]) -> Zone {
        let mut records = Records::new(5);
        for apex in ["", "cluster.local"] {
            let (server, mailbox) = ("ns".to_owned(), "mail".to_owned());
            records.add(apex, Record::Soa { server, mailbox });
        }
        for (name, record) in names {
            records.add(name, record.clone());
        }
        Zone::new(records).unwrap()
    }

    fn a(last: u8) -> Record {
        Record::A([10, 0, 0, last].into())
    }

    fn texts(answers: &[Owned<'_>]) -> Vec<String> {
        answers
            .iter()
            .map(|(name, record)| format!("{name} {record:?}"))
            .collect()
    }

    #[test]
    fn a_name_that_is_there_without_such_a_record_is_no_missing_name() {
        let zone = zone(&[("web.ns.svc.cluster.local", a(1))]);
        for (name, kind, missing, apex) in [
            (
                "web.ns.svc.cluster.local",
                Kind::Aaaa,
                false,
                "cluster.local",
            ),
            (
                "web.ns.svc.cluster.local",
                Kind::Other,
                false,
                "cluster.local",
            ),
            ("ns.svc.cluster.local", Kind::A, false, "cluster.local"),
            ("svc.cluster.local", Kind::A, false, "cluster.local"),
            ("cluster.local", Kind::A, false, "cluster.local"),
            ("local", Kind::A, false, ""),
            ("", Kind::A, false, ""),
            ("x.web.ns.svc.cluster.local", Kind::A, true, "cluster.local"),
            ("eb.ns.svc.cluster.local", Kind::A, true, "cluster.local"),
            (
                "web.ns.svc.cluster.local.ns.svc.cluster.local",
                Kind::A,
                true,
                "cluster.local",
            ),
            ("xcluster.local", Kind::A, true, ""),
            ("com", Kind::A, true, ""),
        ] {
            let answer = zone.answer(name, kind, 0);
            assert_eq!(answer.no_such_name, missing, "{name}");
            assert_eq!(answer.answers, [], "{name}");
            assert_eq!(answer.soa.unwrap().0, apex, "{name}");
        }
        let answer = zone.answer("web.ns.svc.cluster.local", Kind::A, 0);
        assert_eq!(
            texts(&answer.answers),
            ["web.ns.svc.cluster.local A(10.0.0.1)"]
        );
        assert_eq!((answer.no_such_name, answer.soa), (false, None));
    }

    #[test]
    fn turns_put_every_address_first_once() {
        let zone = zone(&[("w", a(1)), ("w", a(2)), ("w", a(3))]);
        let turn = |turn| {
            let answers = zone.answer("w", Kind::A, turn).answers;
            let last = |record: &Record| match record {
                Record::A(address) => address.octets()[3],
                _ => 0,
            };
            answers
                .iter()
                .map(|(_, record)| last(record))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            [turn(0), turn(1), turn(2)],
            [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
        );
        assert_eq!(turn(usize::MAX), turn(usize::MAX % 3));
    }

    #[test]
    fn aliases_are_followed_to_their_end() {
        let alias = |to: &str| Record::Cname(to.into());
        let zone = zone(&[
            ("one.cluster.local", alias("two")),
            ("two", alias("three")),
            ("three", a(3)),
            ("dead.cluster.local", alias("nobody.x")),
            ("here", alias("there")),
            ("there", alias("here")),
        ]);
        let answer = zone.answer("one.cluster.local", Kind::A, 0);
        assert_eq!(
            texts(&answer.answers),
            [
                r#"one.cluster.local Cname("two")"#,
                r#"two Cname("three")"#,
                "three A(10.0.0.3)"
            ]
        );
        let itself = zone.answer("one.cluster.local", Kind::Cname, 0);
        assert_eq!(
            texts(&itself.answers),
            [r#"one.cluster.local Cname("two")"#]
        );
        // RFC 6604: the code is that of the last name.
        let dead = zone.answer("dead.cluster.local", Kind::A, 0);
        assert_eq!((dead.no_such_name, dead.answers.len()), (true, 1));
        assert_eq!(dead.soa.unwrap().0, "");
        let empty = zone.answer("one.cluster.local", Kind::Aaaa, 0);
        assert_eq!((empty.no_such_name, empty.answers.len()), (false, 2));
        assert_eq!(
            zone.answer("here", Kind::A, 0).answers.len(),
            2,
            "a loop ends"
        );
    }

    #[test]
    fn a_wildcard_stands_for_what_no_closer_name_hides() {
        let zone = zone(&[
            ("*.x.com", a(1)),
            ("y.x.com", a(2)),
            ("*", a(9)),
            ("web.ns.svc.cluster.local", a(3)),
        ]);
        for (name, last) in [
            ("a.x.com", Some(1)),
            ("b.a.x.com", Some(1)),
            ("y.x.com", Some(2)),
            ("z.y.x.com", None),
            ("x.com", None),
            ("z.com", None),
            ("org", Some(9)),
            ("www.z.org", Some(9)),
            ("www.z.org.ns.svc.cluster.local", None),
            ("org.svc.cluster.local", None),
            ("org.cluster.local", None),
        ] {
            let answer = zone.answer(name, Kind::A, 0);
            let expected: Vec<String> = last
                .iter()
                .map(|last| format!("{name} A(10.0.0.{last})"))
                .collect();
            assert_eq!(texts(&answer.answers), expected, "{name}");
        }
    }

    #[test]
    fn services_come_with_their_hosts_addresses() {
        let srv = |target: &str| Record::Srv {
            port: 80,
            target: target.into(),
        };
        let zone = zone(&[
            ("s", srv("h1")),
            ("s", srv("h2")),
            ("h1", a(1)),
            ("h2", a(2)),
        ]);
        let answer = zone.answer("s", Kind::Srv, 1);
        assert_eq!(answer.answers.len(), 2);
        assert_eq!(
            texts(&answer.additionals),
            ["h2 A(10.0.0.2)", "h1 A(10.0.0.1)"]
        );
    }
}
