//! The checked-in definitions are the generated ones, small, and bounded everywhere (K23).

use serde_json::Value;

/// From the package's directory, where cargo runs tests.
const CHECKED_IN: &str = "../../crds/postgresclusters.yaml";

fn generated() -> String {
    let documents: Vec<_> = api::crds()
        .iter()
        .map(|crd| serde_yaml::to_string(crd).expect("a definition is plain data"))
        .collect();
    format!("---\n{}", documents.join("---\n"))
}

#[test]
fn the_checked_in_file_is_the_generated_one() {
    let checked_in = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
    assert!(checked_in == generated(), "crds/ is out of date; run: cargo xtask crd");
}

#[test]
fn the_definition_is_small() {
    for crd in api::crds() {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(size < 200_000, "{size} bytes of compact JSON");
    }
}

#[test]
fn every_property_of_the_spec_is_described_and_bounded() {
    let crd = serde_json::to_value(&api::crds()[0]).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for (name, property) in spec["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "spec.{name} has no description");
    }
    bounded("spec", spec);
}

fn bounded(path: &str, schema: &Value) {
    let has = |key: &str| schema.get(key).is_some();
    match schema["type"].as_str() {
        Some("string") => assert!(has("maxLength") || has("enum") || has("format"), "{path}: no maxLength"),
        Some("array") => {
            assert!(has("maxItems"), "{path}: no maxItems");
            bounded(&format!("{path}[]"), &schema["items"]);
        }
        Some("object") => {
            if has("additionalProperties") {
                assert!(has("maxProperties"), "{path}: no maxProperties");
                bounded(&format!("{path}.*"), &schema["additionalProperties"]);
            }
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                bounded(&format!("{path}.{name}"), inner);
            }
        }
        _ => {}
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_code() {
    let least: api::PostgresCluster = serde_yaml::from_str(
        "apiVersion: matriarch.dev/v1alpha1\nkind: PostgresCluster\nmetadata: {name: pg}\nspec: {storage: {size: 10Gi}}",
    )
    .unwrap();
    assert_eq!(least.spec.instances, 3);
    assert_eq!(least.spec.durability, api::Durability::default());
    let crd = serde_json::to_value(&api::crds()[0]).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let value = serde_json::to_value(&least.spec).unwrap();
    for (name, property) in spec.as_object().unwrap() {
        if let Some(default) = property.get("default") {
            assert_eq!(default, &value[name], "spec.{name}");
        }
    }
}
