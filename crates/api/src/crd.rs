//! The definitions as they are installed: derived, then freed of what the derive cannot leave out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use crate::PostgresCluster;

/// Every definition of this project, ready to be installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![PostgresCluster::crd()];
    for crd in &mut all {
        for version in &mut crd.spec.versions {
            if let Some(schema) =
                version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
            {
                tidy(schema);
                bound_metadata(schema);
            }
        }
    }
    all
}

/// Rules on the root read `metadata.name`, whose length the API server takes for unbounded when it counts their cost,
/// unless all of these are declared (K23). The bound is Kubernetes' own; our rules say the rest with better messages.
fn bound_metadata(root: &mut JSONSchemaProps) {
    let text =
        |max_length| JSONSchemaProps { type_: Some("string".to_owned()), max_length, ..Default::default() };
    let mut metadata = JSONSchemaProps { type_: Some("object".to_owned()), ..Default::default() };
    let names = ["name", "generateName"].map(|name| (name.to_owned(), text(Some(253))));
    metadata.properties = Some(names.into());
    let properties = root.properties.get_or_insert_default();
    properties.insert("apiVersion".to_owned(), text(None));
    properties.insert("kind".to_owned(), text(None));
    properties.insert("metadata".to_owned(), metadata);
}

/// An explicit null means the same as leaving the field out, and CEL's `has()` should agree; formats that API servers
/// do not know only cause warnings.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some("uint8" | "uint16" | "uint32" | "uint64" | "uint") = schema.format.as_deref() {
        schema.format = None;
    }
    if let Some(properties) = schema.properties.as_mut() {
        properties.values_mut().for_each(tidy);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = schema.additional_properties.as_mut() {
        tidy(inner);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(inner)) = schema.items.as_mut() {
        tidy(inner);
    }
}
