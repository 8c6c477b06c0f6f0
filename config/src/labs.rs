//! The labs that come with Weir: tutorials' manifests and scenarios, `config/labs/NAME/`, built in
//! so that the binary needs no folder beside it.

/// One lab.
#[derive(Clone, Copy, Debug)]
pub struct Lab {
    /// Its name.
    pub name: &'static str,
    /// One line for `weir lab list`.
    pub about: &'static str,
    /// Its files: path below the lab's folder, text.
    pub files: &'static [(&'static str, &'static str)],
}

impl Lab {
    /// The text of a file.
    pub fn file(&self, path: &str) -> Option<&'static str> {
        self.files
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| *text)
    }

    /// The lab of that name.
    pub fn named(name: &str) -> Option<&'static Lab> {
        LABS.iter().find(|lab| lab.name == name)
    }
}

macro_rules! lab {
    ($name:literal, $about:literal, [$($file:literal),* $(,)?]) => {
        Lab {
            name: $name,
            about: $about,
            files: &[$(($file, include_str!(concat!("../labs/", $name, "/", $file)))),*],
        }
    };
}

/// Every lab, by name.
pub const LABS: &[Lab] = &[
    lab!(
        "eks-workshop",
        "the EKS workshop's network policies: egress, ingress, and a policy that fails",
        [
            "application/carts.yaml",
            "application/catalog.yaml",
            "application/checkout.yaml",
            "application/orders.yaml",
            "application/ui.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/allow-catalog-ingress-db.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/allow-catalog-ingress-webservice.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/allow-order-ingress-fail-debug.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/allow-order-ingress-success-debug.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/allow-ui-egress.yaml",
            "environment/eks-workshop/modules/networking/network-policies/apply-network-policies/default-deny.yaml",
            "scenario.yaml",
            "tutorial.yaml",
        ]
    ),
    lab!(
        "http-echo",
        "a policy without rules, one with a rule, and the label that opens (kubectl 1.8)",
        [
            "scenario.yaml",
            "templates/allow-network-policy.yaml",
            "templates/deny-all-by-default-network-policy.yaml",
            "tutorial.yaml",
        ]
    ),
    lab!(
        "namespaces",
        "three namespaces, and a policy that lets one of them into another",
        [
            "files/demo/namespace-a.yaml",
            "files/demo/namespace-b.yaml",
            "files/demo/namespace-c.yaml",
            "files/demo/network-policy.yaml",
            "scenario.yaml",
            "tutorial.yaml",
        ]
    ),
    lab!(
        "spec",
        "a network policy's specification word by word, and security groups",
        [
            "allow-ui-egress.yaml",
            "default-deny.yaml",
            "pods.yaml",
            "scenario.yaml",
            "security-groups.yaml",
            "test-network-policy.yaml",
            "tutorial.yaml",
        ]
    ),
    lab!(
        "stars",
        "the stars policy demo: default deny, then one arrow after the other",
        [
            "manifests/00-namespace.yaml",
            "manifests/01-management-ui.yaml",
            "manifests/02-backend.yaml",
            "manifests/03-frontend.yaml",
            "manifests/04-client.yaml",
            "operator/calico-crs.yaml",
            "operator/calico-operator.yaml",
            "policies/allow-ui-client.yaml",
            "policies/allow-ui.yaml",
            "policies/backend-policy.yaml",
            "policies/default-deny.yaml",
            "policies/frontend-policy.yaml",
            "scenario.yaml",
            "tutorial.yaml",
        ]
    ),
    lab!(
        "three-tier",
        "the pod networking lab: a database for its backend only, then egress and DNS",
        [
            "00-busybox.yaml",
            "01-bb-services-none-ClusterIP.yaml",
            "02-mysqldb-pv.yaml",
            "03-mysqldb-deployment.yaml",
            "05-flaskback-deployment.yaml",
            "06-mysqldb-network-policy.yaml",
            "07-default-deny-egress-network-policy.yaml",
            "08-default-deny-egress-except-dns-network-policy.yaml",
            "scenario.yaml",
            "tutorial.yaml",
        ]
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file below the lab's folder, as paths relative to it.
    fn on_disk(folder: &std::path::Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                on_disk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }

    #[test]
    fn what_is_built_in_is_what_lies_in_the_folder() {
        for lab in LABS {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("labs")
                .join(lab.name);
            let mut found = Vec::new();
            on_disk(&folder, "", &mut found);
            found.sort_unstable();
            let mut built_in: Vec<_> = lab.files.iter().map(|(name, _)| name.to_string()).collect();
            built_in.sort_unstable();
            assert_eq!(built_in, found, "{}", lab.name);
        }
    }
}
