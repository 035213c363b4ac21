//! Images: where they come from, who may have them, and what is said of those that cannot be had.

use serde_json::json;

use crate::{
    case::{Case, Fact, pod},
    stage::Stage,
};

pub(crate) fn cases(stage: &Stage) -> Vec<Case> {
    let registry = &stage.registry;
    let secret = |password: &str| registry.pull_secret("s", password);
    let with_secret = || json!({"imagePullSecrets": [{"name": "s"}]});
    let of = |image: &str, policy: &str| {
        json!({"image": registry.image(image), "command": null,
        "imagePullPolicy": policy})
    };
    let pulls = |name, image: &str, facts: Vec<Fact>| {
        Case::new(name, vec![secret("secret"), pod("", of(image, "Always"), with_secret())], facts)
    };
    let failed = |why: &str| {
        vec![
            Fact::Waits("ImagePullBackOff", "Back-off pulling image"),
            Fact::Event("Failed", why.to_owned()),
            Fact::Event("Failed", "Error: ErrImagePull".to_owned()),
            Fact::Event("BackOff", "Back-off pulling image".to_owned()),
        ]
    };
    let done = |log: &str| vec![Fact::Phase("Succeeded"), Fact::Log("c", log.to_owned())];
    vec![
        pulls(
            "image-with-a-pull-secret",
            "app:1",
            [
                done("from the image\n"),
                vec![Fact::Event("Pulled", "Successfully pulled image".to_owned())],
            ]
            .concat_facts(),
        ),
        Case::new(
            "image-secret-of-the-service-account",
            vec![
                secret("secret"),
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller"},
                "imagePullSecrets": [{"name": "s"}]}),
                pod("", of("app:2", "IfNotPresent"), json!({"serviceAccountName": "puller"})),
            ],
            done("from the image\n"),
        ),
        Case::new(
            "image-without-a-secret",
            vec![pod("", of("slow:1", "IfNotPresent"), json!({}))],
            failed("does not let"),
        ),
        Case::new(
            "image-with-a-wrong-password",
            vec![secret("wrong"), pod("", of("slow:1", "IfNotPresent"), with_secret())],
            failed("does not let"),
        ),
        Case::new(
            "image-secret-that-is-not-there",
            vec![pod("", of("slow:1", "IfNotPresent"), with_secret())],
            vec![Fact::Event(
                "FailedToRetrieveImagePullSecret",
                "Unable to retrieve some image pull secrets (s)".to_owned(),
            )],
        ),
        pulls("image-that-is-not-there", "none:1", failed("none:1")),
        pulls("image-tag-that-is-not-there", "app:none", failed("app:none")),
        pulls("image-for-another-cpu", "other-cpu:1", failed("s390x")),
        pulls("image-with-a-damaged-layer", "damaged:1", failed("sha256:")),
        Case::new(
            "image-over-a-link-that-breaks",
            vec![pod(
                "",
                json!({"image": registry.broken_image("slow:1"), "command": null}),
                json!({}),
            )],
            done("from the image\n"),
        ),
        Case::new(
            "image-of-no-registry",
            vec![pod("", json!({"image": "127.0.0.1:1/x:1", "command": null}), json!({}))],
            failed("127.0.0.1:1"),
        ),
        Case::new(
            "image-never-pulled",
            vec![pod(
                "",
                json!({"image": "absent.test/x:1", "imagePullPolicy": "Never"}),
                json!({}),
            )],
            vec![
                Fact::Waits(
                    "ErrImageNeverPull",
                    "Container image \"absent.test/x:1\" is not present with pull policy of Never",
                ),
                Fact::Event(
                    "ErrImageNeverPull",
                    "is not present with pull policy of Never".to_owned(),
                ),
            ],
        ),
        Case::new(
            "image-with-a-bad-name",
            vec![pod("", json!({"image": "Upper:1"}), json!({}))],
            vec![Fact::Waits("InvalidImageName", "couldn't parse image name \"Upper:1\"")],
        ),
        Case::new(
            "image-present-already",
            vec![pod("echo here", json!({"imagePullPolicy": "IfNotPresent"}), json!({}))],
            [
                done("here\n"),
                vec![Fact::Event(
                    "Pulled",
                    "Container image \"lab.toono.io/busybox:1\" already present on machine"
                        .to_owned(),
                )],
            ]
            .concat_facts(),
        ),
        pulls(
            "image-without-a-command",
            "empty:1",
            vec![Fact::Waits("CreateContainerConfigError", "no command specified")],
        ),
        Case::new(
            "image-changes-in-a-running-pod",
            vec![secret("secret"), {
                let mut pod = crate::case::lasting(json!({}), with_secret());
                pod["spec"]["restartPolicy"] = "Always".into();
                pod
            }],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    let image = format!("c={}", stage.registry.image("app:1"));
                    stage.kubectl(namespace, &["set", "image", "pod/p", &image]);
                }),
                Fact::Event(
                    "Killing",
                    "Container c definition changed, will be restarted".to_owned(),
                ),
                Fact::Has("/status/containerStatuses/0/image", "app:1".to_owned()),
                Fact::Runs,
            ],
        ),
    ]
}

/// Facts one after the other.
trait Concat {
    fn concat_facts(self) -> Vec<Fact>;
}

impl Concat for [Vec<Fact>; 2] {
    fn concat_facts(self) -> Vec<Fact> {
        self.into_iter().flatten().collect()
    }
}
