//! `policy.networking.k8s.io/v1alpha1`: AdminNetworkPolicy and BaselineAdminNetworkPolicy, the
//! predecessors of ClusterNetworkPolicy's two tiers.

use super::{EgressPeer, IngressPeer, Subject, api_object, api_struct};

api_object! {
    /// Rules before NetworkPolicies. At equal priority it comes before a ClusterNetworkPolicy of
    /// the Admin tier.
    pub struct AdminNetworkPolicy(AdminNetworkPolicySpec)
        in "policy.networking.k8s.io" "v1alpha1" "adminnetworkpolicies" ClusterResourceScope
}

api_object! {
    /// Rules after NetworkPolicies, and after every ClusterNetworkPolicy of the Baseline tier. The
    /// only one is called `default`.
    pub struct BaselineAdminNetworkPolicy(BaselineAdminNetworkPolicySpec)
        in "policy.networking.k8s.io" "v1alpha1" "baselineadminnetworkpolicies"
            ClusterResourceScope
}

api_struct! {
    /// What an AdminNetworkPolicy says.
    pub struct AdminNetworkPolicySpec {
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
    /// What a BaselineAdminNetworkPolicy says. Its rules' actions are `Allow` and `Deny`; they
    /// have no `domainNames`.
    pub struct BaselineAdminNetworkPolicySpec {
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
        /// `Allow`, `Deny` or `Pass`.
        pub action: String = "action",
        /// At least one.
        pub from: Option<Vec<IngressPeer>> = "from",
        /// Absent: any traffic.
        pub ports: Option<Vec<Port>> = "ports",
    }
}

api_struct! {
    /// What happens to traffic that a subject sends.
    pub struct EgressRule {
        /// For people; up to 100 characters.
        pub name: String = "name",
        /// `Allow`, `Deny` or `Pass`.
        pub action: String = "action",
        /// At least one.
        pub to: Option<Vec<EgressPeer>> = "to",
        /// Absent: any traffic.
        pub ports: Option<Vec<Port>> = "ports",
    }
}

api_struct! {
    /// Ports of the destination: exactly one member.
    pub struct Port {
        /// One port.
        pub port_number: Option<PortNumber> = "portNumber",
        /// A container port's name on the destination, whatever its protocol.
        pub named_port: Option<String> = "namedPort",
        /// Several ports.
        pub port_range: Option<PortRange> = "portRange",
    }
}

api_struct! {
    /// One port of one protocol.
    pub struct PortNumber {
        /// TCP, UDP or SCTP; absent: TCP.
        pub protocol: Option<String> = "protocol",
        /// 1 to 65535.
        pub port: i32 = "port",
    }
}

api_struct! {
    /// Ports of one protocol, both ends inclusive.
    pub struct PortRange {
        /// TCP, UDP or SCTP; absent: TCP.
        pub protocol: Option<String> = "protocol",
        /// 1 to 65535.
        pub start: i32 = "start",
        /// Above `start`, at most 65535.
        pub end: i32 = "end",
    }
}
