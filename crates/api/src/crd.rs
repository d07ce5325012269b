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
            }
        }
    }
    all
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
