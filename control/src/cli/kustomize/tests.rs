//! Folders as people have them.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{build, generate};

/// A folder with files, which goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, files: &[(&str, &str)]) -> Folder {
        let path =
            std::env::temp_dir().join(format!("weir-kustomize-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = path.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Folder(path)
    }

    fn build(&self, below: &str) -> Result<Vec<Value>, String> {
        build(self.0.join(below).to_str().unwrap()).map_err(|error| error.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'nginx:1', envFrom: [{configMapRef: {name: settings}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {role: client}}}, {podSelector: {}}]}]
";

#[test]
fn an_overlay_changes_its_base() {
    let folder = Folder::with(
        "overlay",
        &[
            (
                "base/kustomization.yaml",
                "resources: [web.yaml]\nconfigMapGenerator:\n- name: settings\n  \
          literals: [color=blue]\n",
            ),
            ("base/web.yaml", WEB),
            (
                "over/kustomization.yaml",
                "
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../base, ns.yaml]
namespace: shop
namePrefix: my-
commonLabels: {team: a}
labels: [{pairs: {only: metadata}}]
commonAnnotations: {note: x}
images: [{name: nginx, newName: registry/nginx, newTag: '2'}]
replicas: [{name: web, count: 3}]
patches:
- path: patch.yaml
- target: {kind: Service}
  patch: |
    - {op: replace, path: /spec/ports/0/port, value: 81}
",
            ),
            (
                "over/ns.yaml",
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
            ),
            (
                "over/patch.yaml",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  \
          template:\n    spec:\n      containers:\n      - {name: c, ports: [{containerPort: 80}]}\n",
            ),
        ],
    );
    let built = folder.build("over").unwrap();
    let names: Vec<&str> = built
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect();
    let config = built
        .iter()
        .find(|object| object["kind"] == "ConfigMap")
        .unwrap();
    let config_name = config["metadata"]["name"].as_str().unwrap();
    assert_eq!(names, ["shop", "my-web", "my-web", "my-web", config_name]);
    assert!(
        config_name.starts_with("my-settings-") && config_name.len() == 22,
        "{config_name}"
    );
    let [_, deployment, service, policy, _] = &built[..] else {
        panic!("{built:?}");
    };
    let pod = &deployment["spec"]["template"];
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "web", "team": "a"})
    );
    assert_eq!(deployment["spec"]["selector"]["matchLabels"]["team"], "a");
    assert_eq!(
        deployment["metadata"]["labels"],
        json!({"team": "a", "only": "metadata"})
    );
    assert_eq!(deployment["spec"]["replicas"], 3);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "registry/nginx:2");
    assert_eq!(container["envFrom"][0]["configMapRef"]["name"], config_name);
    assert_eq!(container["ports"][0]["containerPort"], 80);
    assert_eq!(service["spec"]["ports"][0]["port"], 81);
    assert_eq!(
        service["spec"]["selector"],
        json!({"app": "web", "team": "a"})
    );
    assert!(
        built[1..]
            .iter()
            .all(|object| object["metadata"]["namespace"] == "shop")
    );
    // Selectors that name labels are narrowed; an empty one stays everybody.
    let peers = &policy["spec"]["ingress"][0]["from"];
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"]["team"], "a");
    assert_eq!(
        peers[0]["podSelector"]["matchLabels"],
        json!({"role": "client", "team": "a"})
    );
    assert_eq!(peers[1]["podSelector"], json!({}));
    assert!(policy["spec"].get("egress").is_none());
}

#[test]
fn hashes_are_kustomizes() {
    // Those of the hasher's own tests in kustomize and kubectl.
    let hash = |data: Value| {
        let mut object = json!({"kind": "ConfigMap", "metadata": {"name": ""}});
        if !data.is_null() {
            object["data"] = data;
        }
        generate::hash(&object)
    };
    assert_eq!(hash(Value::Null), "6ct58987ht");
    assert_eq!(hash(json!({})), "42745tchd9");
    assert_eq!(hash(json!({"one": ""})), "9g67k2htb6");
}

#[test]
fn what_is_not_known_is_refused() {
    for (name, text, expected) in [
        ("field", "vars: []", "unknown field `vars`"),
        (
            "missing",
            "resources: [none.yaml]",
            "No such file or directory",
        ),
        (
            "url",
            "resources: ['https://example.org/x.yaml']",
            "Weir fetches nothing",
        ),
        (
            "patch",
            "patches: [{patch: '{kind: Pod, metadata: {name: x}}'}]",
            "no matches for Pod \"x\"",
        ),
        ("self", "resources: [.]", "deeper than 16"),
        (
            "regex",
            "resources: [w.yaml]\npatches: [{target: {name: 'w.*'}, patch: '[]'}]",
            "regular expression",
        ),
        (
            "count",
            "replicas: [{name: web, count: 2}]",
            "nothing that has pods is called \"web\"",
        ),
    ] {
        let folder = Folder::with(name, &[("kustomization.yaml", text), ("w.yaml", WEB)]);
        let error = folder.build("").unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let folder = Folder::with("none", &[("x.yaml", "a: b")]);
    assert!(
        folder
            .build("")
            .unwrap_err()
            .starts_with("unable to find one of 'kustomization.yaml'")
    );
}
