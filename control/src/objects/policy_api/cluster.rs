//! `policy.networking.k8s.io/v1alpha2`
//! (<https://network-policy-api.sigs.k8s.io/api-overview/>): ClusterNetworkPolicy.

use super::{EgressPeer, IngressPeer, Subject, api_object, api_struct};

api_object! {
    /// Rules of the whole cluster, before or after NetworkPolicies.
    pub struct ClusterNetworkPolicy(ClusterNetworkPolicySpec)
        in "policy.networking.k8s.io" "v1alpha2" "clusternetworkpolicies" ClusterResourceScope
}

api_struct! {
    /// What a ClusterNetworkPolicy says.
    pub struct ClusterNetworkPolicySpec {
        /// `Admin` or `Baseline`.
        pub tier: String = "tier",
        /// 0 to 1000, lower first.
        pub priority: i32 = "priority",
        /// Whom it is about.
        pub subject: Subject = "subject",
        /// The first rule that matches decides.
        pub ingress: Vec<IngressRule> = "ingress",
        /// The first rule that matches decides.
        pub egress: Vec<EgressRule> = "egress",
    }
}

api_struct! {
    /// What happens to traffic that a subject receives.
    pub struct IngressRule {
        /// For people; up to 100 characters.
        pub name: String = "name",
        /// `Accept`, `Deny` or `Pass`.
        pub action: String = "action",
        /// At least one.
        pub from: Option<Vec<IngressPeer>> = "from",
        /// Absent: any traffic.
        pub protocols: Option<Vec<Protocol>> = "protocols",
    }
}

api_struct! {
    /// What happens to traffic that a subject sends.
    pub struct EgressRule {
        /// For people; up to 100 characters.
        pub name: String = "name",
        /// `Accept`, `Deny` or `Pass`.
        pub action: String = "action",
        /// At least one.
        pub to: Option<Vec<EgressPeer>> = "to",
        /// Absent: any traffic.
        pub protocols: Option<Vec<Protocol>> = "protocols",
    }
}

api_struct! {
    /// What of the traffic's transport counts: exactly one member.
    pub struct Protocol {
        /// TCP.
        pub tcp: Option<Transport> = "tcp",
        /// UDP.
        pub udp: Option<Transport> = "udp",
        /// SCTP.
        pub sctp: Option<Transport> = "sctp",
        /// A container port's name on the destination, whatever its protocol.
        pub destination_named_port: Option<String> = "destinationNamedPort",
    }
}

api_struct! {
    /// What of a transport header counts: at least one member.
    pub struct Transport {
        /// The receiver's port.
        pub destination_port: Option<Port> = "destinationPort",
    }
}

api_struct! {
    /// A port or a range of them: exactly one member.
    pub struct Port {
        /// 1 to 65535.
        pub number: Option<i32> = "number",
        /// Several.
        pub range: Option<PortRange> = "range",
    }
}

api_struct! {
    /// Ports, both ends inclusive.
    pub struct PortRange {
        /// 1 to 65535.
        pub start: i32 = "start",
        /// Above `start`, at most 65535.
        pub end: i32 = "end",
    }
}
