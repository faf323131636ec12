//! `feast-registry list`.

use super::*;

#[tokio::test]
async fn a_list_is_a_table() {
    let fixture = Fixture::filled().await;
    let table = fixture.ok(&["list", "feature-views"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(
        lines[0],
        [
            "NAME",
            "PROJECT",
            "ENTITIES",
            "FEATURES",
            "TTL",
            "ONLINE",
            "STATE",
            "VERSION",
            "UPDATED",
            "TAGS",
            "DESCRIPTION",
            "OWNER"
        ]
    );
    assert_eq!(lines[1][..9], ["driver_stats", "rides", "driver", "2", "1d", "12h", "yes", "AVAILABLE_ONLINE", "v1"]);
    for part in ["team=ml, tier=1", "How drivers drive and \\u{1b}[31mhow often", "fleet@example.com"] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let entities = fixture.ok(&["list", "ENTITY"]);
    for part in [
        "NAME      PROJECT  JOIN KEY",
        "driver    rides    driver_id    INT64",
        "customer  shop     customer_id  INT64",
    ] {
        assert!(entities.contains(part), "{entities}");
    }
    let of_one = fixture.ok(&["list", "entities", "--project", "shop"]);
    assert!(of_one.lines().count() == 2 && !of_one.contains("PROJECT"), "{of_one}");
    let views = fixture.ok(&["list", "views"]);
    assert!(
        views.contains("driver_stats  feature view") && views.contains("trip_price    on demand feature view"),
        "{views}"
    );
    assert_eq!(fixture.ok(&["list", "all"]).lines().count(), 11);
    for (kind, part) in [
        ("projects", "shop"),
        ("data-sources", "BATCH_FILE"),
        ("on-demand-feature-views", "trip_price"),
        ("feature-services", "driver_stats"),
        ("permissions", "FEATURE_VIEW  DESCRIBE"),
    ] {
        assert!(fixture.ok(&["list", kind]).contains(part), "{kind}");
    }
}

#[tokio::test]
async fn a_list_is_of_a_project_and_of_tags() {
    let fixture = Fixture::filled().await;
    let file = feature_store(&fixture, &fixture.url(), "shop");
    assert!(!fixture.ok(&["list", "entities", "-c", &file]).contains("driver"));
    assert!(fixture.ok(&["list", "entities", "-c", &file, "-A"]).contains("driver"));
    assert!(fixture.ok(&["list", "entities", "-c", &file, "-p", "rides"]).contains("driver"));
    assert!(fixture.ok(&["list", "projects", "-c", &file]).contains("rides"));

    let tagged = ["list", "views", "--tag", "team=ml", "--tag", "tier=1"];
    assert_eq!(fixture.ok(&tagged).lines().count(), 2);
    let none = fixture.run(&["list", "views", "--tag", "team=ml", "--tag", "tier=2"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.starts_with("There are no views with these tags in sqlite:///"), "{}", none.stderr);
    let none = fixture.run(&["list", "label-views", "-p", "shop"]);
    assert_eq!((none.code, none.stderr.as_str()), (0, "There are no label views in project `shop`.\n"));
    assert_eq!(fixture.ok(&["list", "label-views", "-o", "json"]), "[]\n");
    assert_eq!(fixture.ok(&["list", "label-views", "-o", "yaml"]), "[]\n");
    assert_eq!(fixture.bytes(&["list", "label-views", "-o", "proto"]), b"");

    let error = fixture.error(&["list", "entities", "--project", "Rides"]);
    assert!(error.contains("no project `Rides`") && error.contains("did you mean `rides`?"), "{error}");
    let error = fixture.error(&["list", "entities", "--project", "payments"]);
    assert!(error.contains("there are `rides`, `shop`"), "{error}");
}

#[tokio::test]
async fn a_tag_may_have_any_key() {
    let fixture = Fixture::empty();
    let registry = fixture.open().await;
    for (name, key, value) in
        [("one", "a=b", "c=d"), ("two", "a", "b=c=d"), ("three", "a\\", "\\=x"), ("four", "a\\b", "")]
    {
        let mut entity = entity(name, "");
        entity.spec.as_mut().expect("a spec").tags = [(key.to_owned(), value.to_owned())].into();
        apply(&registry, "rides", &entity).await;
    }
    for (tag, name) in [("a\\=b=c=d", "one"), ("a=b=c=d", "two"), ("a\\\\=\\=x", "three"), ("a\\b=", "four")] {
        let listed = fixture.json(&["list", "entities", "-o", "json", "--tag", tag]);
        let names: Vec<_> = listed.as_array().expect("an array").iter().map(|one| &one["spec"]["name"]).collect();
        assert_eq!(names, [name], "{tag}");
    }
    for tag in ["team", "a\\=b"] {
        assert!(fixture.usage_error(&["list", "entities", "--tag", tag]).contains("KEY=VALUE"), "{tag}");
    }
}

#[tokio::test]
async fn a_list_for_programs_says_what_is_stored() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let view = stored(&registry, Kind::FeatureView, "rides", "driver_stats").await;

    let json = fixture.json(&["list", "feature-views", "-o", "json"]);
    let items = json.as_array().expect("an array");
    assert_eq!(items.len(), 1);
    assert_eq!(from_json::<FeatureView>("FeatureView", &items[0]), decoded(&view));
    assert_eq!(json[0]["meta"]["state"], "AVAILABLE_ONLINE");
    let yaml: Json = serde_saphyr::from_str(&fixture.ok(&["list", "feature-views", "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml, json);

    let entities = fixture.bytes(&["list", "entities", "-o", "proto"]);
    let mut expected = Vec::new();
    for (project, name) in [("rides", "driver"), ("rides", "__dummy"), ("shop", "customer")] {
        prost::encoding::bytes::encode(1, &stored(&registry, Kind::Entity, project, name).await.bytes, &mut expected);
    }
    assert_eq!(entities, expected);

    let all = fixture.bytes(&["list", "all", "-o", "proto"]);
    let all = core::Registry::decode(&*all).expect("a registry");
    let mut whole =
        core::Registry::decode(&**registry.proto(Freshness::Stored).await.expect("all").as_bytes()).expect("all");
    whole.last_updated = None;
    assert_eq!(all, whole);
    let ran = fixture.run(&["list", "all", "-o", "json"]);
    assert!(ran.code == 0 && ran.stderr.contains("2 fields") && ran.stderr.contains("`-o proto`"), "{}", ran.stderr);
    let json: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(from_json::<core::Registry>("Registry", &json), whole);
    assert_eq!(fixture.json(&["list", "views", "-o", "json"])["onDemandFeatureViews"][0]["spec"]["name"], "trip_price");
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_is_no_error() {
    let fixture = Fixture::empty();
    let registry = fixture.open().await;
    for i in 0..20 {
        apply(&registry, "rides", &entity(&format!("e{i}"), &"long ".repeat(10_000))).await;
    }
    for format in ["table", "json", "yaml", "proto"] {
        let mut command = fixture.command(&["list", "entities", "-o", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut first = [0; 1];
        child.stdout.take().expect("stdout").read_exact(&mut first).expect("a byte");
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{format}");
    }
}
