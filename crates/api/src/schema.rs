//! Pieces of schema that schemars cannot derive: embedded Kubernetes types without their prose, preserved objects.
//!
//! Embedded types would make the CRD large by their descriptions and costly by their missing bounds, so both are
//! corrected here (K23).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// Items that any embedded list may have at most.
const MAX_ITEMS: u64 = 64;
/// Properties that any embedded map may have at most.
const MAX_PROPERTIES: u64 = 64;
/// Characters that any embedded string may have at most.
const MAX_LENGTH: u64 = 1024;

/// The schema of a Kubernetes type, without descriptions and with bounds everywhere.
pub(crate) fn embedded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>().to_value();
    trim(&mut schema);
    schema.try_into().unwrap_or_else(|_| preserved(generator))
}

/// Any object at all; validated in code (K22).
pub(crate) fn preserved(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A map of labels or annotations.
pub(crate) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_PROPERTIES,
        "additionalProperties": {"type": "string", "maxLength": MAX_LENGTH},
    })
}

/// A map from a resource's name to a quantity.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 24,
            "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        },
    })
}

/// Removes descriptions and adds the missing bounds, recursively.
pub(crate) fn trim(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    object.remove("description");
    bound(object);
    for key in ["properties", "items", "additionalProperties"] {
        match (key, object.get_mut(key)) {
            ("properties", Some(Value::Object(properties))) => properties.values_mut().for_each(trim),
            (_, Some(inner)) => trim(inner),
            _ => {}
        }
    }
}

fn bound(object: &mut serde_json::Map<String, Value>) {
    let is = |object: &serde_json::Map<String, Value>, name: &str| match object.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    };
    if is(object, "array") {
        object.entry("maxItems").or_insert_with(|| MAX_ITEMS.into());
    }
    if is(object, "object") && object.contains_key("additionalProperties") {
        object.entry("maxProperties").or_insert_with(|| MAX_PROPERTIES.into());
    }
    if is(object, "string") && !object.contains_key("enum") && !object.contains_key("format") {
        object.entry("maxLength").or_insert_with(|| MAX_LENGTH.into());
    }
}
