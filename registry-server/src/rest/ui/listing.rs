//! The list of projects, as the pages read it.

use serde_json::{Value, json};

use super::API;

/// A project as it is listed.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// If it is empty, one is made of the name.
    pub(crate) description: String,
}

/// What `/projects-list.json` is. Of a registry without projects, the one that the server is configured for is told, which Feast
/// makes with the first object.
pub(crate) fn projects_list(projects: impl IntoIterator<Item = Listed>, configured: Option<&str>) -> Value {
    let entry = |id: &str, name: &str, description: &str| json!({ "id": id, "name": name, "description": description, "registryPath": API });
    let of_project = |Listed { name, description }| match description.as_str() {
        "" => entry(&name, &title(&name), &format!("Project: {name}")),
        description => entry(&name, &title(&name), description),
    };
    let mut entries: Vec<Value> = projects.into_iter().map(of_project).collect();
    if entries.len() > 1 {
        entries.insert(0, entry("all", "All Projects", "View data across all projects"));
    }
    if let (true, Some(configured)) = (entries.is_empty(), configured) {
        entries.push(entry(configured, "Project", "Test project"));
    }
    json!({ "projects": entries })
}

/// A name as a title: words for underscores, and a capital after whatever is no letter, as Python's `str.title` has it.
fn title(name: &str) -> String {
    let mut title = String::with_capacity(name.len());
    let mut in_word = false;
    for character in name.replace('_', " ").chars() {
        let is_letter = character.is_uppercase() || character.is_lowercase();
        match (is_letter, in_word) {
            (true, true) => title.extend(character.to_lowercase()),
            (true, false) => {
                // A ligature has two letters.
                let mut letters = character.to_uppercase();
                title.extend(letters.next());
                title.extend(letters.flat_map(char::to_lowercase));
            }
            (false, _) => title.push(character),
        }
        in_word = is_letter;
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(projects: &[(&str, &str)], configured: Option<&str>) -> Vec<Value> {
        let listed = |(name, description): &(&str, &str)| Listed {
            name: (*name).to_owned(),
            description: (*description).to_owned(),
        };
        projects_list(projects.iter().map(listed), configured)["projects"].as_array().expect("a list").clone()
    }

    /// Each is what `name.replace("_", " ").title()` gives in Python.
    #[test]
    fn titles_are_pythons() {
        for (name, expected) in [
            ("credit_scoring_aws", "Credit Scoring Aws"),
            ("rides", "Rides"),
            ("myProject", "Myproject"),
            ("v2beta", "V2Beta"),
            ("a-b__c", "A-B  C"),
            ("it's", "It'S"),
            ("_x", " X"),
            ("straße_ätsch", "Straße Ätsch"),
            ("ﬁn", "Fin"),
            ("ßa", "Ssa"),
            ("", ""),
        ] {
            assert_eq!(title(name), expected, "{name}");
        }
    }

    #[test]
    fn one_project_is_listed_alone() {
        let expected =
            json!({ "id": "my_rides", "name": "My Rides", "description": "Moves", "registryPath": "/api/v1" });
        assert_eq!(listed(&[("my_rides", "Moves")], Some("other")), [expected]);
    }

    #[test]
    fn several_come_after_all_of_them() {
        let entries = listed(&[("b", ""), ("a", "First")], None);
        let told: Vec<_> = entries.iter().map(|entry| (entry["id"].as_str(), entry["description"].as_str())).collect();
        let all = (Some("all"), Some("View data across all projects"));
        assert_eq!(told, [all, (Some("b"), Some("Project: b")), (Some("a"), Some("First"))]);
        assert_eq!(entries[0]["name"], "All Projects");
    }

    #[test]
    fn without_projects_the_configured_one_is_told() {
        let expected =
            json!({ "id": "rides", "name": "Project", "description": "Test project", "registryPath": "/api/v1" });
        assert_eq!(listed(&[], Some("rides")), [expected]);
        assert!(listed(&[], None).is_empty());
    }
}
