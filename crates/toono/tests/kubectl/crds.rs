//! Custom kinds: established at once, explained, checked, printed and scaled.

use serde_json::json;

use crate::harness::Kubectl;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bo], categories: [fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew}}
    additionalPrinterColumns: [{name: Crew, type: integer, jsonPath: .spec.crew}, {name: Port, type: string, jsonPath: .spec.port, priority: 1}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the boat should be.
            required: [port]
            x-kubernetes-validations: [{rule: "self.crew <= 9 || self.port != 'pond'", message: too many for a pond}]
            properties:
              port: {type: string, maxLength: 8}
              crew: {type: integer, minimum: 1, default: 2}
          status: {type: object, properties: {crew: {type: integer}}}
"#;

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("custom");
    k.fed(
        "apply -f -",
        DEFINITION,
        &["customresourcedefinition.apiextensions.k8s.io/boats.sea.example.com created"],
    );
    k.is(
        "wait crd/boats.sea.example.com --for=condition=Established --timeout=30s",
        "customresourcedefinition.apiextensions.k8s.io/boats.sea.example.com condition met",
    );
    k.says("api-resources --api-group=sea.example.com", &["boats bo sea.example.com/v1 true Boat"]);
    k.until("explain boats.spec", &["What the boat should be.", "crew <integer>", "port <string>"]);
    k.says(
        "explain boats --recursive",
        &["GROUP: sea.example.com", "    crew <integer>", "    port <string>"],
    );
    objects(k);
    refusals(k);
    k.says("delete crd boats.sea.example.com", &["\"boats.sea.example.com\" deleted"]);
    k.is("api-resources --api-group=sea.example.com -o name", "");
    k.fails("get boats", &["the server doesn't have a resource type \"boats\""]);
}

fn objects(k: &Kubectl<'_>) {
    let boat =
        "{apiVersion: sea.example.com/v1, kind: Boat, metadata: {name: ann}, spec: {port: dover}}";
    k.fed("apply -f -", boat, &["boat.sea.example.com/ann created"]);
    k.says("get boats", &["NAME CREW\nann 2"]);
    k.says("get bo -o wide", &["NAME CREW PORT\nann 2 dover"]);
    k.is("get fleet -o name", "boat.sea.example.com/ann");
    k.holds(
        "get boat ann",
        &[("/spec", json!({"port": "dover", "crew": 2})), ("/metadata/generation", json!(1))],
    );
    k.fed("apply -f -", &boat.replace("dover", "hull"), &["boat.sea.example.com/ann configured"]);
    k.is("scale boat ann --replicas=5", "boat.sea.example.com/ann scaled");
    k.is(
        "patch boat ann --type=merge -p '{\"status\":{\"crew\":4}}' --subresource=status",
        "boat.sea.example.com/ann patched",
    );
    k.holds(
        "get boat ann",
        &[
            ("/spec", json!({"port": "hull", "crew": 5})),
            ("/status/crew", json!(4)),
            ("/metadata/generation", json!(3)),
        ],
    );
    k.is(
        "wait boat/ann --for=jsonpath='{.status.crew}'=4 --timeout=10s",
        "boat.sea.example.com/ann condition met",
    );
    k.fed(
        "apply --server-side --force-conflicts --field-manager=tide -f -",
        boat,
        &["boat.sea.example.com/ann serverside-applied"],
    );
    k.says(
        "get boat ann --show-managed-fields -o jsonpath='{.metadata.managedFields[*].manager}'",
        &["tide"],
    );
    k.says("describe boat ann", &["Name: ann", "Kind: Boat", "Port: dover"]);
    k.fails(
        "patch boat ann -p '{\"spec\":{\"crew\":1}}'",
        &["application/strategic-merge-patch+json is not supported"],
    );
}

fn refusals(k: &Kubectl<'_>) {
    let with = |spec: &str| {
        format!(
            "{{apiVersion: sea.example.com/v1, kind: Boat, metadata: {{name: bad}}, spec: {spec}}}"
        )
    };
    k.ends("apply -f -", 1, &with("{crew: 3}"), &["spec.port", "Required value"]);
    k.ends("create --validate=false -f -", 1, &with("{port: x, crew: 0}"), &["The Boat \"bad\" is invalid: spec.crew: Invalid value: 0: spec.crew in body should be greater than or equal to 1"]);
    k.ends(
        "create --validate=warn -f -",
        1,
        &with("{port: far-too-long}"),
        &["spec.port: Too long: may not be more than 8"],
    );
    k.ends(
        "create -f -",
        1,
        &with("{port: pond, crew: 10}"),
        &["spec: Invalid value", "too many for a pond"],
    );
    k.ends("create -f -", 1, &with("{port: x, sails: 3}"), &["unknown field \"spec.sails\""]);
    k.fed(
        "create --validate=ignore -f - -o jsonpath='{.spec}'",
        &with("{port: x, sails: 3}"),
        &["{\"crew\":2,\"port\":\"x\"}"],
    );
}
