//! The ends of connections: pods, Services and addresses, by the names that people give them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Protocol;
use k8s_openapi::api::core::v1::Service;

use super::{TraceError, View};
use crate::lower::{self, LocalEndpoint};
use crate::objects::{Key, Object, kinds};

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    /// `NS/POD`, or the address.
    pub name: String,
    /// At least one, of an address itself.
    pub addresses: Vec<IpAddr>,
    /// Index into [`View::locals`].
    pub local: Option<usize>,
    /// The pod's object.
    pub pod: Option<Arc<Object>>,
}

/// A kind of object that may be an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndKind {
    Pod,
    Service,
}

/// What people call a pod or a Service: `NS/NAME`, or `pod/NS/NAME` and `service/NS/NAME` where both
/// are called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndName<'t> {
    kind: Option<EndKind>,
    /// `default` if it is not said.
    pub(crate) namespace: &'t str,
    name: &'t str,
}

impl<'t> EndName<'t> {
    /// As it is written.
    pub(crate) fn new(text: &'t str) -> EndName<'t> {
        let (kind, rest) = match text.split_once('/') {
            Some(("pod", rest)) if rest.contains('/') => (Some(EndKind::Pod), rest),
            Some(("service", rest)) if rest.contains('/') => (Some(EndKind::Service), rest),
            _ => (None, text),
        };
        let (namespace, name) = rest.split_once('/').unwrap_or(("default", rest));
        EndName {
            kind,
            namespace,
            name,
        }
    }

    /// Whether a namespace and a name are said, as far as the form goes.
    pub(crate) fn is_whole(text: &str) -> bool {
        let EndName {
            namespace, name, ..
        } = EndName::new(text);
        text.contains('/') && !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    }
}

impl View<'_> {
    /// The end that `text` names: an address or `NS/POD`.
    pub(crate) fn end(&self, text: &str) -> Result<End, TraceError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.address_end(address.to_canonical()));
        }
        let Some(object) = self.pod_called(EndName::new(text)) else {
            if self.service_called(EndName::new(text)).is_some() {
                return Err(TraceError::ServiceSends(text.to_owned()));
            }
            return Err(TraceError::NoSuchEnd(text.to_owned()));
        };
        let end = self.pod_end(object);
        if let Some(phase) = object.as_pod().and_then(lower::end_phase) {
            return Err(TraceError::HasEnded(end.name, phase.to_owned()));
        }
        if end.addresses.is_empty() {
            return Err(TraceError::NoAddress(end.name));
        }
        Ok(end)
    }

    /// An address: a pod's, if one has it.
    pub(super) fn address_end(&self, address: IpAddr) -> End {
        let held = |l: &LocalEndpoint| l.addresses.contains(&address);
        match self.locals.iter().position(held) {
            Some(at) => End {
                addresses: vec![address],
                ..self.local_end(at)
            },
            None => End {
                name: address.to_string(),
                addresses: vec![address],
                local: None,
                pod: None,
            },
        }
    }

    /// The end of [`View::locals`] at this index.
    pub(crate) fn local_end(&self, at: usize) -> End {
        let local = &self.locals[at];
        End {
            name: format!("{}/{}", local.namespace, local.name),
            addresses: local.addresses.clone(),
            local: Some(at),
            pod: self.cluster.pod(&local.namespace, &local.name).cloned(),
        }
    }

    /// A pod as an end.
    pub(crate) fn pod_end(&self, object: &Arc<Object>) -> End {
        match self.locals.iter().position(|l| l.uid == object.uid()) {
            Some(at) => self.local_end(at),
            None => self.remote_end(object),
        }
    }

    /// The indices of [`View::locals`] by their pods' UIDs.
    pub(crate) fn locals_by_uid(&self) -> HashMap<&str, usize> {
        let locals = self.locals.iter().enumerate();
        locals.map(|(at, local)| (local.uid.as_str(), at)).collect()
    }

    /// A pod that the table does not decide for.
    pub(crate) fn remote_end(&self, object: &Arc<Object>) -> End {
        let pod = object.as_pod();
        End {
            name: format!("{}/{}", object.namespace(), object.name()),
            addresses: pod.map(lower::pod_addresses).unwrap_or_default(),
            local: None,
            pod: Some(object.clone()),
        }
    }

    /// The Service that `text` names; none if it names no Service. Whoever may be a pod as well is
    /// an error: the two may differ in what reaches them.
    pub(crate) fn service(&self, text: &str) -> Result<Option<Arc<Object>>, TraceError> {
        let reference = EndName::new(text);
        let service = self.service_called(reference);
        if service.is_some() && self.pod_called(reference).is_some() {
            return Err(TraceError::PodAndService(
                text.to_owned(),
                format!("{}/{}", reference.namespace, reference.name),
            ));
        }
        Ok(service.cloned())
    }

    fn pod_called(&self, reference: EndName<'_>) -> Option<&Arc<Object>> {
        let wanted = reference.kind != Some(EndKind::Service);
        let pod = self.cluster.pod(reference.namespace, reference.name);
        pod.filter(|_| wanted)
    }

    fn service_called(&self, reference: EndName<'_>) -> Option<&Arc<Object>> {
        let wanted = reference.kind != Some(EndKind::Pod);
        let kind = kinds::of::<Service>()?;
        let key = Key::new(kind, reference.namespace, reference.name);
        self.cluster.get(&key).filter(|_| wanted)
    }
}

/// The sender's and the receiver's first addresses of a common family, IPv4 before IPv6.
pub(crate) fn common_family(from: &End, to: &End) -> Result<(IpAddr, IpAddr), TraceError> {
    let pairs = families(from, to);
    let none = || TraceError::NoCommonFamily(from.name.clone(), to.name.clone());
    pairs.first().copied().ok_or_else(none)
}

/// One pair of addresses for each family that both ends have.
pub(crate) fn families(from: &End, to: &End) -> Vec<(IpAddr, IpAddr)> {
    let first = |end: &End, v4: bool| end.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
    [true, false]
        .into_iter()
        .filter_map(|v4| Some((first(from, v4)?, first(to, v4)?)))
        .collect()
}

/// A port's number: as written, or as the receiving pod's containers call it.
pub(crate) fn resolve_port(
    to: &End,
    wanted: Option<&str>,
    protocol: Protocol,
) -> Result<Option<u16>, TraceError> {
    let Some(word) = wanted else {
        return Ok(None);
    };
    if let Ok(number) = word.parse::<u16>()
        && number != 0
    {
        return Ok(Some(number));
    }
    let pod = to.pod.as_ref().and_then(|object| object.as_pod());
    let named = pod.map(lower::named_ports).unwrap_or_default();
    let found = named
        .iter()
        .find(|(name, p, _)| name == word && *p == protocol);
    match found {
        Some(&(_, _, number)) => Ok(Some(number)),
        None => Err(TraceError::NoSuchPort(word.to_owned(), to.name.clone())),
    }
}
