//! The store's maps and indices against what a look at every object says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What may be done to one of a few objects.
#[derive(Clone, Debug)]
enum Change {
    Put {
        key: usize,
        uid: usize,
        owners: Vec<usize>,
    },
    Take {
        key: usize,
    },
    /// Keeps a clone, which must stay as it is.
    Clone,
}

fn keys() -> Vec<Key> {
    let pods = ["a", "b", "b.c"].into_iter().flat_map(|namespace| {
        let names = ["x", "y", "y-0", "z"].into_iter();
        names.map(move |name| ("v1", "Pod", namespace, name))
    });
    let others = [
        ("v1", "Namespace", "", "a"),
        ("v1", "Namespace", "", "b"),
        ("v1", "ConfigMap", "b", "x"),
        ("networking.k8s.io/v1", "NetworkPolicy", "b", "x"),
    ];
    pods.chain(others)
        .map(|(version, kind, namespace, name)| {
            Key::new(kinds::find(version, kind).unwrap(), namespace, name)
        })
        .collect()
}

fn object(key: &Key, uid: usize, owners: &[usize]) -> Arc<Object> {
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| json!({"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": uid_of(*owner)}))
        .collect();
    let value = json!({
        "apiVersion": key.kind.api_version, "kind": key.kind.kind,
        "metadata": {
            "name": &*key.name, "namespace": &*key.namespace, "uid": uid_of(uid),
            "ownerReferences": owners,
        },
        "spec": if key.kind.kind == "ConfigMap" { Value::Null } else { json!({}) },
    });
    Arc::new(Object::new(value).unwrap())
}

/// Number 0 has none.
fn uid_of(number: usize) -> String {
    match number {
        0 => String::new(),
        _ => format!("uid-{number}"),
    }
}

type Model = BTreeMap<Key, Arc<Object>>;

fn agree(cluster: &Cluster, model: &Model) {
    let all: Vec<&Key> = cluster.objects().map(|object| object.key()).collect();
    assert_eq!(all, model.keys().collect::<Vec<_>>());
    assert_eq!(cluster.len(), model.len());
    assert_eq!(
        cluster.counts().map(|(_, count)| count).sum::<usize>(),
        model.len()
    );
    for key in keys() {
        assert_eq!(cluster.get(&key), model.get(&key));
    }
    for namespace in ["", "a", "b", "b.c", "c"] {
        let found: Vec<&Arc<Object>> = cluster.content_of(namespace).collect();
        let of = |object: &&Arc<Object>| object.namespace() == namespace;
        assert_eq!(found, model.values().filter(of).collect::<Vec<_>>());
        let pods = kinds::find("v1", "Pod").unwrap();
        let found: Vec<&Arc<Object>> = cluster.list_in(pods, namespace).collect();
        let of = |object: &&Arc<Object>| object.kind() == pods && object.namespace() == namespace;
        assert_eq!(found, model.values().filter(of).collect::<Vec<_>>());
    }
    for uid in (0..UIDS).map(uid_of) {
        let stored = !uid.is_empty() && model.values().any(|object| object.uid() == uid);
        assert_eq!(cluster.is_stored(&uid), stored, "{uid:?}");
        let found: Vec<&Arc<Object>> = cluster.dependents(&uid).collect();
        let owned =
            |object: &&Arc<Object>| !uid.is_empty() && object.owners().any(|owner| owner == uid);
        assert_eq!(found, model.values().filter(owned).collect::<Vec<_>>());
    }
}

const UIDS: usize = 6;

fn change() -> impl Strategy<Value = Change> {
    let key = 0..keys().len();
    let owners = proptest::collection::vec(0..UIDS, 0..3);
    prop_oneof![
        6 => (key.clone(), 0..UIDS, owners).prop_map(|(key, uid, owners)| Change::Put {
            key,
            uid,
            owners
        }),
        3 => key.prop_map(|key| Change::Take { key }),
        1 => Just(Change::Clone),
    ]
}

proptest! {
    #[test]
    fn the_store_is_what_was_put_and_clones_stay(
        changes in proptest::collection::vec(change(), 1..120)
    ) {
        let keys = keys();
        let (mut cluster, mut model) = (Cluster::empty(), Model::new());
        let mut kept = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, uid, owners } => {
                    let object = object(&keys[key], uid, &owners);
                    let old = model.insert(keys[key].clone(), object.clone());
                    assert_eq!(cluster.put(object), old);
                }
                Change::Take { key } => {
                    assert_eq!(cluster.take(&keys[key]), model.remove(&keys[key]));
                }
                Change::Clone => kept.push((cluster.clone(), model.clone())),
            }
            agree(&cluster, &model);
        }
        for (cluster, model) in kept {
            agree(&cluster, &model);
        }
    }
}

/// Far more objects than a chunk holds, put in and taken out in several orders.
#[test]
fn many_objects_keep_their_order() {
    let kind = kinds::find("v1", "Pod").unwrap();
    let key = |number: usize| Key::new(kind, &format!("ns-{}", number % 7), &format!("p{number}"));
    let (mut cluster, mut model) = (Cluster::empty(), Model::new());
    for step in 0..3000 {
        let number = step * 7919 % 3000;
        let object = object(&key(number), 1 + number % 5, &[1 + step % 4]);
        model.insert(key(number), object.clone());
        cluster.put(object);
    }
    let whole = (cluster.clone(), model.clone());
    for number in (0..3000).filter(|number| number % 3 != 0) {
        assert_eq!(cluster.take(&key(number)), model.remove(&key(number)));
    }
    agree(&cluster, &model);
    agree(&whole.0, &whole.1);
}
