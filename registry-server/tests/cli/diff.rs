//! `feast-registry diff`.

use super::log::{revisions, written};
use super::*;

#[tokio::test]
async fn what_differs_between_revisions_is_what_commits_came_to() {
    let fixture = written().await;
    let revisions = revisions(&fixture);
    let (first, third, last) = (&revisions[5], &revisions[3], &revisions[0]);
    let page = fixture.ok(&["diff", &format!("{third}..{last}")]);
    assert_eq!(
        page,
        "feature view driver_stats of project rides changed\n  \
           + spec.features[rating]: value_type=INT64\n  \
           - spec.tags[tier]: 1\n  \
           ~ spec.ttl: 1d 12h -> 1d\n\
         version v1 of view driver_stats of project rides created\n\
         user metadata of feature view driver_stats of project rides created\n  \
           + content: mine\n"
    );
    assert_eq!(fixture.ok(&["diff", &format!("{third}..")]), page);
    let all = fixture.ok(&["diff", &format!("{third}.."), "--all"]);
    assert!(all.contains("  + meta.materialization_intervals: start_time=2023-11-14T22:13:20Z"), "{all}");
    // What was made since is told as made, whatever was changed afterwards.
    let page = fixture.ok(&["diff", &format!("{first}.."), "--kind", "view", "-N", "driver_stats"]);
    assert!(page.starts_with("feature view driver_stats of project rides created\n"), "{page}");
    assert!(page.contains("  + spec.ttl: 1d\n") && !page.contains("data source"), "{page}");
    let materialized = fixture.ok(&["diff", &format!("{}..{}", revisions[2], revisions[1])]);
    assert!(
        materialized
            .starts_with("feature view driver_stats of project rides materialized\n  not the definition: meta."),
        "{materialized}"
    );
    let ran = fixture.run(&["diff", &format!("{last}..")]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", "Nothing differs.\n"));
    assert_eq!(fixture.ok(&["diff", &format!("{last}.."), "-o", "json"]), "[]\n");
    assert!(fixture.error(&["diff", &format!("{last}..{first}")]).contains("comes before revision"));
    assert!(fixture.error(&["diff", "1.."]).contains("has no revision 1: it has those from "));
}

#[tokio::test]
async fn what_differs_since_a_moment_is_told() {
    let fixture = written().await;
    let ran = fixture.run(&["diff", "--since", "1h", "--kind", "entity"]);
    assert!(ran.code == 0 && ran.stderr.starts_with("note: the journal begins at 20"), "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("entity driver of project rides created\n  + spec.name: driver\n"),
        "{}",
        ran.stdout
    );
    let ran = fixture.run(&["diff", "--since", "0s"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "Nothing differs.\n"));
    assert_eq!(fixture.run(&["diff", "--until", "1h"]).stderr, "Nothing differs.\n");
    assert!(fixture.ok(&["diff", "--until", "0s", "-o", "json"]).contains("\"driver\""));
    assert!(fixture.usage_error(&["diff"]).contains("say what to compare"));
    assert!(fixture.usage_error(&["diff", "1..2", "--since", "1h"]).contains("go without revisions"));
    assert!(fixture.usage_error(&["diff", "nonsense"]).contains("`nonsense` is neither two revisions"));
}

#[tokio::test]
async fn two_registries_are_compared() {
    let (one, other) = (Fixture::filled().await, Fixture::filled().await);
    let diff = |arguments: &[&str]| one.run(&[&["diff", &one.url(), &other.url()], arguments].concat());
    // They were made at different moments, and have identities of their own.
    let ran = diff(&[]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", "Nothing differs.\n"));
    let all = diff(&["--all"]).stdout;
    assert!(all.contains("~ fact project_uuid of project rides\n") && all.contains("meta.created_timestamp"), "{all}");

    let registry = other.open().await;
    apply(&registry, "rides", &driver_stats(&["trips"])).await;
    apply(&registry, "shop", &entity("seller", "Who sells")).await;
    apply(&one.open().await, "rides", &entity("rider", "")).await;
    let page = diff(&[]).stdout;
    assert_eq!(
        page,
        format!(
            "--- {}\n+++ {}\n\
             - entity rider of project rides\n\
             + entity seller of project shop\n\
             ~ feature view driver_stats of project rides\n  \
               - spec.features[rating]: value_type=INT64\n\
             + version v2 of view driver_stats of project rides\n",
            one.url(),
            other.url()
        )
    );
    let of_shop = diff(&["--project", "shop"]).stdout;
    assert!(of_shop.ends_with("+ entity seller of project shop\n") && !of_shop.contains("rides"), "{of_shop}");
    assert!(!diff(&["--kind", "view"]).stdout.contains("entity"));
    let json: Json = serde_json::from_str(&diff(&["-o", "json"]).stdout).expect("JSON");
    assert_eq!((&json[0]["in"], &json[0]["name"]), (&"first".into(), &"rider".into()));
    assert_eq!(json[2]["fields"][0]["path"], "spec.features[rating]");
    // One URL is compared with the registry that the command is about.
    assert_eq!(one.ok(&["diff", &other.url(), "--registry", &one.url()]), page);
    let error = one.error(&["diff", "sqlite:///nowhere.db", &other.url()]);
    assert!(error.contains("there is no registry in"), "{error}");
    for (urls, called) in [
        (["sqlite://nowhere", other.url().as_str()], "the first URL: "),
        ([other.url().as_str(), "sqlite://nowhere"], "the second URL: "),
    ] {
        let error = one.error(&["diff", urls[0], urls[1]]);
        assert!(error.contains(called) && !error.contains("--registry:"), "{error}");
    }
}
