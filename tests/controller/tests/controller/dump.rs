//! Everything in a namespace in a form in which two equal clusters are equal: identities, addresses, times and random
//! material become words, everything else stays.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::world::{self, KINDS, World};

/// Fields that differ between two equal clusters and say nothing.
const NOISE: [&str; 10] = [
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "lastTransitionTime",
    "renewTime",
    "acquireTime",
    "managedFields",
    "clusterIP",
    "clusterIPs",
    "selfLink",
];

/// Objects by kind and name.
pub(crate) type Dump = BTreeMap<String, Value>;

/// Reads the namespace.
pub(crate) async fn dump(world: &World) -> Dump {
    let mut objects = BTreeMap::new();
    for kind in KINDS {
        for mut object in world.all(&kind).await {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            // Items of a list do not say what they are.
            object["kind"] = kind.kind.into();
            objects.insert(format!("{}/{name}", kind.kind), object);
        }
    }
    // What Kubernetes puts into every namespace by itself.
    objects.remove("ServiceAccount/default");
    objects.remove("ConfigMap/kube-root-ca.crt");
    objects.retain(|key, object| {
        let labels = &object["metadata"]["labels"];
        !key.starts_with("EndpointSlice/") || labels[api::names::labels::SLICE_MANAGED_BY] == api::MANAGED_BY
    });
    let words = Words::of(world, &objects);
    let mut plained = Dump::new();
    for (key, object) in objects {
        let mut object = plain(&words, object);
        // In the order of addresses, which are random.
        if let Some(endpoints) = object["endpoints"].as_array_mut() {
            endpoints.sort_by_key(ToString::to_string);
        }
        plained.insert(key, object);
    }
    plained
}

/// What differs between two dumps, as text; empty when nothing does.
pub(crate) fn difference(one: &Dump, other: &Dump) -> String {
    let mut told = String::new();
    let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for key in keys {
        match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => compare(key, one, other, &mut told),
            (one, _) => {
                let _ = writeln!(
                    told,
                    "{key} is only in the {} one",
                    if one.is_some() { "first" } else { "second" }
                );
            }
        }
    }
    told
}

fn compare(at: &str, one: &Value, other: &Value, told: &mut String) {
    if one == other {
        return;
    }
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for key in keys {
            let (one, other) = (one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null));
            compare(&format!("{at}.{key}"), one, other, told);
        }
    } else {
        let short = |value: &Value| value.to_string().chars().take(400).collect::<String>();
        let _ = writeln!(told, "{at}: {}  |  {}", short(one), short(other));
    }
}

/// What stands for what.
struct Words(Vec<(String, String)>);

impl Words {
    fn of(world: &World, objects: &BTreeMap<String, Value>) -> Self {
        let mut words = vec![(world.namespace.clone(), "<namespace>".to_owned())];
        let mut add = |found: &Value, word: String| {
            if let Some(found) = found.as_str().filter(|found| !found.is_empty()) {
                words.push((found.to_owned(), word));
            }
        };
        for (key, object) in objects {
            add(&object["metadata"]["uid"], format!("<uid of {key}>"));
            add(&object["status"]["podIP"], format!("<address of {key}>"));
            let annotations = &object["metadata"]["annotations"];
            add(&annotations["matriarch.dev/made-for"], "<digest>".to_owned());
            add(&object["metadata"]["labels"]["controller-revision-hash"], "<revision>".to_owned());
            let template = &object["spec"]["template"]["metadata"]["annotations"];
            add(&template[api::names::labels::TEMPLATE_HASH], "<template>".to_owned());
            if let Some(password) = object["data"]["password"].as_str() {
                add(&Value::from(decode(password)), format!("<password of {key}>"));
            }
        }
        Self(words)
    }

    fn replace(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (found, word) in &self.0 {
            text = text.replace(found, word);
        }
        certificates(&identities(&text))
    }
}

fn plain(words: &Words, value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain_map(words, map)),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| plain(words, item)).collect()),
        Value::String(text) => Value::String(words.replace(&text)),
        other => other,
    }
}

fn plain_map(words: &Words, map: Map<String, Value>) -> Map<String, Value> {
    let secret = map.get("kind").is_some_and(|kind| kind == world::SECRET.kind);
    // Written by whoever runs pods, in his own time.
    let foreign = [world::POD, world::STATEFUL_SET, world::BUDGET, world::CLAIM]
        .iter()
        .any(|kind| map.get("kind").is_some_and(|there| there == kind.kind));
    let mut plained = Map::new();
    for (key, value) in map {
        if NOISE.contains(&key.as_str()) || (foreign && key == "status") {
            continue;
        }
        let value = match value {
            Value::Object(data) if secret && key == "data" => {
                let decoded = data
                    .into_iter()
                    .map(|(key, value)| (key, Value::String(decode(value.as_str().unwrap_or_default()))));
                Value::Object(decoded.collect())
            }
            other => other,
        };
        plained.insert(key, plain(words, value));
    }
    plained
}

fn decode(base64: &str) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(Value::from(base64)).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

/// UIDs of what no longer exists.
fn identities(text: &str) -> String {
    let is = |word: &str| {
        word.len() == 36
            && word.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let mut plain = text.to_owned();
    let ends = |c: char| !(c.is_ascii_hexdigit() || c == '-');
    for word in text.split(ends).filter(|word| is(word)) {
        plain = plain.replace(word, "<former uid>");
    }
    plain
}

/// PEM blocks by their number: how many certificates a bundle has matters, not which.
fn certificates(text: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if line.starts_with("-----BEGIN ") {
            inside = true;
            plain.push_str(line.trim_end());
        } else if line.starts_with("-----END ") {
            inside = false;
        } else if !inside {
            plain.push_str(line);
        }
    }
    plain
}
