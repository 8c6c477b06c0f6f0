//! Security groups for pods: `weir.dev/v1alpha1` SecurityGroup, and what binds pods to it,
//! `vpcresources.k8s.aws/v1beta1` SecurityGroupPolicy
//! (<https://docs.aws.amazon.com/eks/latest/userguide/security-groups-for-pods.html>).
//!
//! A pod that at least one SecurityGroupPolicy binds may do what a rule of any of its groups
//! allows, and nothing else; what passes is still subject to every other policy. Groups are
//! stateful: replies pass. What the pod's own node sends it passes always, as with other policies.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Selection, api_object, api_struct};

api_object! {
    /// A VPC's security group, in the words of EC2's `IpPermission`. It belongs to no namespace;
    /// its name is the id that SecurityGroupPolicies bind by (`sg-…`, or any other name).
    pub struct SecurityGroup(SecurityGroupSpec)
        in "weir.dev" "v1alpha1" "securitygroups" ClusterResourceScope
}

api_object! {
    /// Binds pods of its namespace to security groups. Its words are those of AWS's definition.
    pub struct SecurityGroupPolicy(SecurityGroupPolicySpec)
        in "vpcresources.k8s.aws" "v1beta1" "securitygrouppolicies" NamespaceResourceScope
}

api_struct! {
    /// What members of a group may do. What no rule allows is not allowed, in both directions: a
    /// group without `egress` may send nothing. (EC2 adds a rule for all egress when a group is
    /// made; here it has to be written.)
    pub struct SecurityGroupSpec {
        /// For people; up to 255 characters.
        pub description: Option<String> = "description",
        /// What members may receive; `cidrs` and `securityGroups` are senders.
        pub ingress: Option<Vec<SecurityGroupRule>> = "ingress",
        /// What members may send; `cidrs` and `securityGroups` are receivers.
        pub egress: Option<Vec<SecurityGroupRule>> = "egress",
    }
}

api_struct! {
    /// Traffic that is allowed: with any of `cidrs` or any member of `securityGroups` (at least
    /// one of either), by `protocol`, and for protocols with ports to a port from `fromPort` to
    /// `toPort`.
    pub struct SecurityGroupRule {
        /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, a protocol's number (0 to 255), `-1` or `all`
        /// for every protocol. Required; numbers may stand without quotes.
        pub protocol: Option<IntOrString> = "protocol",
        /// The first port, 0 to 65535, for tcp, udp and sctp; stated if and only if `toPort` is.
        /// Neither: all ports. With other protocols -1, which is as absent.
        pub from_port: Option<i32> = "fromPort",
        /// The last port, not below `fromPort`.
        pub to_port: Option<i32> = "toPort",
        /// Addresses of either family. They hold pods' addresses too.
        pub cidrs: Option<Vec<String>> = "cidrs",
        /// Names of security groups, standing for the addresses of all pods that are bound to
        /// them; the group itself may be one.
        pub security_groups: Option<Vec<String>> = "securityGroups",
        /// For people; up to 255 characters.
        pub description: Option<String> = "description",
    }
}

api_struct! {
    /// Which pods are bound to which groups. With both selectors a pod must satisfy both; with
    /// neither, or with no group, the object has no effect, as with AWS.
    pub struct SecurityGroupPolicySpec {
        /// By the pods' labels; empty: all pods of the namespace.
        pub pod_selector: Option<Selection> = "podSelector",
        /// By the labels of the pods' ServiceAccounts; empty: all pods of the namespace.
        pub service_account_selector: Option<Selection> = "serviceAccountSelector",
        /// The groups.
        pub security_groups: GroupIds = "securityGroups",
    }
}

api_struct! {
    /// Security groups by name.
    pub struct GroupIds {
        /// One to five. A name that no SecurityGroup has allows nothing and still binds.
        pub group_ids: Option<Vec<String>> = "groupIds",
    }
}
