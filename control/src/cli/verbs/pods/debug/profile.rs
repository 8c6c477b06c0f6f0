//! What a debugging container may do (kubectl `pkg/cmd/debug/profiles.go`).

use serde_json::{Value, json};

use crate::cli::session::{Session, VerbError};

/// What `--profile` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As the pod's other containers; on a node with the node's network and files. In a lab, whose
    /// containers may trace the pod's processes of their own user anyway, `general` is that, too.
    General,
    /// The same, and a line that one should no longer say so.
    Legacy,
    /// As the pod's other containers; on a node without anything of the node's.
    Baseline,
    /// No capability, no way to one, not root.
    Restricted,
    /// Beside what every container has, what interfaces, routes and raw sockets take.
    Netadmin,
}

impl Profile {
    /// The profile that was asked for.
    pub fn of(session: &Session) -> Result<Profile, VerbError> {
        match session.parsed.value("profile") {
            None | Some("" | "general") => Ok(Profile::General),
            Some("legacy") => Ok(Profile::Legacy),
            Some("baseline") => Ok(Profile::Baseline),
            Some("restricted") => Ok(Profile::Restricted),
            Some("netadmin") => Ok(Profile::Netadmin),
            Some("sysadmin") => Err(VerbError::Local(
                "the sysadmin profile is not given here: a privileged container would be root of \
                 this machine. --profile=netadmin gives NET_ADMIN and NET_RAW in the pod's network \
                 or the node's; for the machine itself use a shell of its own"
                    .into(),
            )),
            Some(other) => Err(VerbError::Local(format!("unknown profile: {other}"))),
        }
    }

    /// Whether a container on a node has the node's network and files.
    pub fn is_on_host(self) -> bool {
        matches!(self, Profile::General | Profile::Legacy | Profile::Netadmin)
    }

    /// Lets a container of a pod have what the profile says.
    pub fn apply(self, container: &mut Value) {
        let Some(fields) = container.as_object_mut() else {
            return;
        };
        match self {
            Profile::General | Profile::Legacy => {}
            Profile::Baseline => {
                fields.shift_remove("securityContext");
            }
            Profile::Restricted => {
                fields.insert(
                    "securityContext".into(),
                    json!({
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                        "runAsNonRoot": true,
                    }),
                );
            }
            Profile::Netadmin => {
                let add = &mut container["securityContext"]["capabilities"]["add"];
                if !add.is_array() {
                    *add = json!([]);
                }
                let names = ["NET_ADMIN", "NET_RAW"].map(Value::from);
                add.as_array_mut()
                    .into_iter()
                    .for_each(|list| list.extend(names.clone()));
            }
        }
    }

    /// Takes from a copied pod what all its containers would have and the profile leaves none.
    pub fn apply_to_copy(self, spec: &mut Value) {
        let Some(fields) = spec.as_object_mut() else {
            return;
        };
        if matches!(self, Profile::Baseline | Profile::Restricted) {
            for field in ["securityContext", "hostNetwork", "hostPID", "hostIPC"] {
                fields.shift_remove(field);
            }
        }
        if self != Profile::Legacy {
            fields.insert("shareProcessNamespace".into(), true.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_and_takes_what_its_name_says() {
        let before = json!({"name": "c", "securityContext": {"runAsUser": 7}});
        let after = |profile: Profile| {
            let mut container = before.clone();
            profile.apply(&mut container);
            container["securityContext"].clone()
        };
        assert_eq!(after(Profile::General), before["securityContext"]);
        assert_eq!(after(Profile::Legacy), before["securityContext"]);
        assert_eq!(after(Profile::Baseline), Value::Null);
        assert_eq!(
            after(Profile::Netadmin),
            json!({"runAsUser": 7, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})
        );
        let restricted = after(Profile::Restricted);
        assert_eq!(restricted["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(restricted["runAsNonRoot"], true);
    }

    #[test]
    fn a_copy_keeps_the_pods_own_unless_the_profile_is_tight() {
        let spec = json!({"hostNetwork": true, "securityContext": {"runAsUser": 7}});
        let after = |profile: Profile| {
            let mut spec = spec.clone();
            profile.apply_to_copy(&mut spec);
            spec
        };
        assert_eq!(after(Profile::Legacy), spec);
        assert_eq!(
            after(Profile::Restricted),
            json!({"shareProcessNamespace": true})
        );
        assert_eq!(after(Profile::General)["hostNetwork"], true);
    }
}
