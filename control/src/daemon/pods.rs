//! `endpoint.add` and `endpoint.remove`.

use dataplane::snapshot::{Epoch, PortId};
use tracing::warn;

use super::endpoints::{Endpoint, Record};
use super::plane::{Plane, PlaneError};
use super::server::refused;
use super::state::{Daemon, Live};
use crate::lower::LocalEndpoint;
use crate::protocol::{
    EndpointAddParams, EndpointAdded, EndpointRemoveParams, ErrorObject, Mutation, Reason,
};

impl<P: Plane> Daemon<P> {
    /// Adds a pod's interface. It passes nothing before its policy is live on every worker.
    pub(super) fn add_endpoint(
        &mut self,
        params: EndpointAddParams,
    ) -> Result<EndpointAdded, ErrorObject> {
        let mac = parse_mac(&params.mac)?;
        self.check_addresses(&params)?;
        if let Some(live) = self.endpoints.get(&params.uid) {
            let record = &live.record;
            let same = record.interface == params.interface
                && record.mac == mac
                && record.addresses == params.addresses
                && (&record.namespace, &record.name) == (&params.namespace, &params.name);
            if same {
                let live = self.live;
                return self.added(&params.uid, live);
            }
            let message = format!("pod {} has another interface: remove it first", params.uid);
            return Err(refused(Reason::AlreadyExists, message));
        }
        let record = Record {
            namespace: params.namespace,
            name: params.name,
            uid: params.uid.clone(),
            interface: params.interface,
            mac,
            addresses: params.addresses,
            incarnation: self.endpoints.next_incarnation(),
            port: None,
        };
        self.take_up(record).map_err(|error| {
            refused(
                Reason::ServiceUnavailable,
                format!("nothing has changed: {error}"),
            )
        })?;
        // On disk first: a daemon that dies now must find the endpoint it may have made live.
        let saved = self.endpoints.save();
        let live = saved
            .map_err(|error| refused(Reason::InternalError, format!("endpoints' file: {error}")))
            .and_then(|()| self.refresh());
        match live {
            Ok(live) => self.added(&params.uid, live),
            // The port passes nothing unless every worker has said so.
            Err(error) => {
                let removal = EndpointRemoveParams { uid: params.uid };
                if let Err(again) = self.remove_endpoint(&removal) {
                    warn!(
                        "an endpoint that is not live is left behind: {}",
                        again.message
                    );
                }
                Err(error)
            }
        }
    }

    /// Makes an endpoint's port, and compiles its policy. It is in no snapshot yet.
    pub(super) fn take_up(&mut self, record: Record) -> Result<(), PlaneError> {
        let interface = self.plane.pod_interface(&record.interface)?;
        let port = self.plane.add_port(&interface, record.port.map(PortId))?;
        let attached = self.policies.attach(LocalEndpoint {
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            uid: record.uid.clone(),
            addresses: record.addresses.clone(),
        });
        if let Err(error) = attached {
            self.remove_port(port)?;
            return Err(error.into());
        }
        self.endpoints.insert(Endpoint {
            record,
            interface,
            port,
            epoch: Epoch::NONE,
        });
        self.follow_endpoints();
        Ok(())
    }

    /// Compiles what the coming or going of an endpoint means for it and for others.
    fn follow_endpoints(&mut self) {
        let touched = self.policies.compile_endpoints();
        self.touched.extend(touched.endpoints);
        self.newest = None;
    }

    fn detach(&mut self, uid: &str) {
        if let Some(slot) = self.policies.slot(uid) {
            self.touched.remove(&slot);
        }
        self.policies.detach(uid);
        self.follow_endpoints();
    }

    fn added(&self, uid: &str, live: Live) -> Result<EndpointAdded, ErrorObject> {
        let Some(endpoint) = self.endpoints.get(uid) else {
            return Err(refused(Reason::InternalError, "the endpoint is gone again"));
        };
        let mut warnings = Vec::new();
        let record = &endpoint.record;
        let pod = self.cluster.pod(&record.namespace, &record.name);
        if pod.is_none_or(|pod| pod.uid() != record.uid) {
            warnings.push(format!(
                "pod {} with UID {uid} is not among the objects: it may do nothing until it is",
                endpoint.pod()
            ));
        }
        Ok(EndpointAdded {
            port: endpoint.port.0,
            incarnation: record.incarnation,
            gateway_mac: endpoint.interface.mac.to_string(),
            gateways: self.config.gateways.iter().collect(),
            warnings,
            generation: live.generation,
            workers: live.workers,
            elapsed_micros: live.elapsed_micros,
        })
    }

    fn check_addresses(&self, params: &EndpointAddParams) -> Result<(), ErrorObject> {
        let bad = |message: String| Err(refused(Reason::BadRequest, message));
        if params.uid.is_empty() || params.name.is_empty() || params.namespace.is_empty() {
            return bad("uid, name and namespace must not be empty".into());
        }
        if params.addresses.is_empty() {
            return bad("an endpoint has at least one address".into());
        }
        for (index, address) in params.addresses.iter().enumerate() {
            let before = &params.addresses[..index];
            if before
                .iter()
                .any(|other| other.is_ipv4() == address.is_ipv4())
            {
                return bad("an endpoint has at most one address of each family".into());
            }
            let mapped =
                matches!(address, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            let impossible = address.is_unspecified() || address.is_loopback();
            if mapped || impossible || address.is_multicast() {
                return bad(format!("{address} cannot be a pod's address"));
            }
            let taken = self.endpoints.iter().find(|endpoint| {
                endpoint.record.uid != params.uid && endpoint.record.addresses.contains(address)
            });
            if let Some(other) = taken {
                let message = format!("{address} is the address of pod {}", other.pod());
                return Err(refused(Reason::Conflict, message));
            }
        }
        let same = |endpoint: &&Endpoint| {
            endpoint.record.uid != params.uid && endpoint.record.interface == params.interface
        };
        if let Some(other) = self.endpoints.iter().find(same) {
            let message = format!(
                "{} is the interface of pod {}",
                params.interface,
                other.pod()
            );
            return Err(refused(Reason::Conflict, message));
        }
        Ok(())
    }

    /// Removes a pod's interface, its connections with it.
    pub(super) fn remove_endpoint(
        &mut self,
        params: &EndpointRemoveParams,
    ) -> Result<Mutation, ErrorObject> {
        let Some(endpoint) = self.endpoints.remove(&params.uid) else {
            let message = format!("endpoints {:?} not found", params.uid);
            return Err(refused(Reason::NotFound, message));
        };
        self.detach(&params.uid);
        let mut warnings = Vec::new();
        if let Err(error) = self.endpoints.save() {
            warnings.push(format!("the endpoints' file is not written: {error}"));
        }
        let live = self.refresh();
        // Its port may go only if the newest snapshot lacks it; else the workers still use it.
        self.plane.forget_endpoint(endpoint.incarnation());
        if let Err(error) = self.remove_port(endpoint.port) {
            warnings.push(format!("port {} is left behind: {error}", endpoint.port.0));
        }
        let live = live?;
        Ok(Mutation {
            results: Vec::new(),
            warnings,
            generation: live.generation,
            workers: live.workers,
            elapsed_micros: live.elapsed_micros,
            preview: None,
            request_micros: live.request_micros,
        })
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], ErrorObject> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect();
    let mac: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    match mac {
        Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(mac),
        _ => Err(refused(
            Reason::BadRequest,
            format!("{text:?} is no MAC of an interface"),
        )),
    }
}
