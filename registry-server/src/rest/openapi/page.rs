//! Pages for people: what this server is, and all routes, made from the OpenAPI document. They need nothing else: no script, no asset,
//! no other site. A link leads into what is closed, not to it: so a browser opens that by itself.

use std::fmt::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use ring::digest;
use serde_json::{Map, Value, json};

const STYLE: &str = include_str!("page.css");

/// What browsers may do with the pages: show them, with their style.
pub(super) fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = base64::engine::general_purpose::STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    })
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// What stands for a text in HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The same of prose, in which what stands between backticks is code.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escaped(part);
        out.push_str(&if index % 2 == 1 { format!("<code>{part}</code>") } else { part });
    }
    out
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The page at `/`.
pub(super) fn welcome() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let body = format!(
        "<main>\n<h1>Feast registry</h1>\n<p>This is the REST API of a registry of the feature store \
         <a href=\"https://feast.dev\" rel=\"noreferrer\">Feast</a>, served by feast-registry {version}.</p>\n<ul>\n\
         <li><a href=\"/docs\">All routes</a></li>\n<li><a href=\"/openapi.json\">The same as an OpenAPI document</a>\
         </li>\n</ul>\n</main>\n"
    );
    page("Feast registry", &body)
}

/// The page at `/docs`.
pub(super) fn docs(document: &Value) -> String {
    let mut body = String::from("<header>\n<h1>Feast registry: REST API</h1>\n");
    let info = &document["info"];
    // To memory it is written always, here and below.
    let _ = write!(
        body,
        "<p>{}</p>\n<p>Version {}. The same for programs: <a href=\"/openapi.json\">openapi.json</a>. Paths stand below \
         <code>/api/v1</code>. In the lines for curl, <code>$REGISTRY</code> is the address of this server, such as \
         <code>https://registry.example.com</code>, and <code>$TOKEN</code> is your token; a server that asks for none \
         needs no header <code>Authorization</code>. Words in capitals stand for values.</p>\n",
        prose(text_of(info, "description")),
        escaped(text_of(info, "version")),
    );
    body.push_str("<nav aria-label=\"Sections\">\n<ul>\n");
    for tag in items(&document["tags"]) {
        let name = escaped(text_of(tag, "name"));
        let _ = writeln!(body, "<li><a href=\"#tag-{}\">{name}</a></li>", name.replace(' ', "-"));
    }
    body.push_str("<li><a href=\"#errors\">errors</a></li>\n<li><a href=\"#headers\">headers of answers</a></li>\n");
    body.push_str("<li><a href=\"#schemas\">schemas</a></li>\n</ul>\n</nav>\n</header>\n<main>\n");
    for tag in items(&document["tags"]) {
        let tag = text_of(tag, "name");
        let name = escaped(tag);
        let _ = writeln!(body, "<section>\n<h2 id=\"tag-{}\">{name}</h2>", name.replace(' ', "-"));
        for (path, methods) in fields(&document["paths"]) {
            for (method, operation) in fields(methods) {
                if operation["tags"][0] == tag {
                    operation_of(document, (method, path), operation, &mut body);
                }
            }
        }
        body.push_str("</section>\n");
    }
    errors_of(document, &mut body);
    headers_section(document, &mut body);
    body.push_str("<section>\n<h2 id=\"schemas\">schemas</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let name = escaped(name);
        let _ = writeln!(
            body,
            "<details>\n<summary><code>{name}</code></summary>\n<div id=\"schema-{name}\">\n{}</div>\n</details>",
            schema_of(schema)
        );
    }
    body.push_str("</section>\n</main>\n");
    page("Feast registry: REST API", &body)
}

/// What may go wrong, which is the same for all routes.
fn errors_of(document: &Value, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"errors\">errors</h2>\n<div class=\"wide\">\n<table>\n");
    out.push_str("<tr><th>Status</th><th>What it says</th><th>Headers</th></tr>\n");
    for (name, response) in fields(&document["components"]["responses"]) {
        let about = prose(text_of(response, "description"));
        let (status, name, headers) = (&response["x-status"], escaped(name), headers_of(&response["headers"]));
        let _ = writeln!(out, "<tr><td>{status} {name}</td><td>{about}</td><td>{headers}</td></tr>");
    }
    out.push_str("</table>\n</div>\n</section>\n");
}

/// The headers that answers may have.
fn headers_section(document: &Value, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"headers\">headers of answers</h2>\n<div class=\"wide\">\n<table>\n");
    out.push_str("<tr><th>Name</th><th>What it is</th></tr>\n");
    for (name, header) in fields(&document["components"]["headers"]) {
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code></td><td>{}</td></tr>",
            escaped(name),
            prose(text_of(header, "description"))
        );
    }
    out.push_str("</table>\n</div>\n</section>\n");
}

/// The names of headers of an answer.
fn headers_of(headers: &Value) -> String {
    let names: Vec<String> =
        fields(headers).map(|(name, _)| format!("<a href=\"#headers\"><code>{}</code></a>", escaped(name))).collect();
    names.join(", ")
}

fn operation_of(document: &Value, (method, path): (&str, &str), operation: &Value, out: &mut String) {
    let (method, shown) = (escaped(method), escaped(path));
    let _ = writeln!(
        out,
        "<details>\n<summary><b class=\"method {method}\">{}</b> <code>{shown}</code> <span>{}</span></summary>\n<div id=\"{}\">",
        method.to_uppercase(),
        prose(text_of(operation, "summary")),
        escaped(text_of(operation, "operationId")),
    );
    let parameters: Vec<&Value> = items(&operation["parameters"]).collect();
    if !parameters.is_empty() {
        out.push_str("<h3>Parameters</h3>\n<div class=\"wide\">\n<table>\n<tr><th>Name</th><th>In</th><th>Type</th><th>What it is</th></tr>\n");
        for parameter in parameters {
            let required = if parameter["required"] == true { " (required)" } else { "" };
            let _ = writeln!(
                out,
                "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}</td><td>{}</td></tr>",
                escaped(text_of(parameter, "name")),
                escaped(text_of(parameter, "in")),
                type_of(&parameter["schema"]),
                prose(text_of(parameter, "description")),
            );
        }
        out.push_str("</table>\n</div>\n");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let _ = writeln!(out, "<h3>Body</h3>\n<p>{}</p>", type_of(body));
    }
    out.push_str("<h3>Answers</h3>\n<div class=\"wide\">\n<table>\n");
    out.push_str("<tr><th>Status</th><th>What it says</th><th>Content</th><th>Headers</th></tr>\n");
    let mut failures = Vec::new();
    for (status, response) in fields(&operation["responses"]) {
        if response["$ref"].is_string() {
            failures.push(status.as_str());
            continue;
        }
        let contents: Vec<String> = fields(&response["content"])
            .map(|(media_type, of)| match of["schema"]["$ref"].is_string() {
                true => type_of(&of["schema"]),
                false => format!("<code>{}</code>", escaped(media_type)),
            })
            .collect();
        let told = prose(text_of(response, "description"));
        let headers = headers_of(&response["headers"]);
        let _ = writeln!(
            out,
            "<tr><td>{status}</td><td>{told}</td><td>{}</td><td>{headers}</td></tr>",
            contents.join(", ")
        );
    }
    if !failures.is_empty() {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td><a href=\"#errors\">Errors</a></td><td>{}</td><td></td></tr>",
            failures.join(", "),
            type_of(&json!({ "$ref": "/Error" }))
        );
    }
    let _ = writeln!(
        out,
        "</table>\n</div>\n<h3>With curl</h3>\n<pre class=\"copy\" tabindex=\"0\">{}</pre>\n</div>\n</details>",
        escaped(&curl(document, (&method, path), operation))
    );
}

/// What a reference leads to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

/// A line for a shell that does the request, with names where values are to be put.
fn curl(document: &Value, (method, path): (&str, &str), operation: &Value) -> String {
    let required = items(&operation["parameters"]).filter(|of| of["in"] == "query" && of["required"] == true);
    let query: Vec<String> =
        required.map(|of| text_of(of, "name")).map(|name| format!("{name}={}", name.to_uppercase())).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let mut line = String::from("curl");
    if method != "get" {
        let _ = write!(line, " -X {}", method.to_uppercase());
    }
    if operation["security"].is_null() {
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let example = &resolved(document, body)["examples"][0];
        let data = if example.is_null() { "@object.json".to_owned() } else { example.to_string() };
        let _ = write!(line, " -H 'Content-Type: application/json' -d '{data}'");
    }
    let path = path.replace(['{', '}'], "");
    let _ = write!(line, " \"$REGISTRY/api/v1{path}{query}\"");
    line
}

/// A schema in a few words.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("<code>{}</code>", word(value))).collect();
        return values.join(", ");
    }
    if !schema["const"].is_null() {
        return format!("<code>{}</code>", word(&schema["const"]));
    }
    if *schema == Value::Bool(false) {
        return "not given".to_owned();
    }
    if schema["anyOf"].is_array() {
        let ways: Vec<String> = items(&schema["anyOf"]).map(type_of).collect();
        return ways.join(" or ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "anything".to_owned(),
    };
    let mut told = match name.as_str() {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&schema["additionalProperties"]))
        }
        "object" if schema["properties"].is_object() => {
            let title = schema["title"].as_str().map(|title| format!("{}: ", escaped(title))).unwrap_or_default();
            let fields: Vec<String> = fields(&schema["properties"])
                .map(|(name, of)| format!("<code>{}</code> {}", escaped(name), type_of(of)))
                .collect();
            format!("{title}({})", fields.join(", "))
        }
        _ => escaped(&name),
    };
    if let Some(format) = schema["format"].as_str() {
        let _ = write!(told, " ({})", escaped(format));
    }
    if let Some(least) = schema["minimum"].as_i64() {
        let most = schema["maximum"].as_i64().map_or_else(|| " or more".to_owned(), |most| format!(" to {most}"));
        let _ = write!(told, ", {least}{most}");
    }
    if !schema["default"].is_null() {
        let _ = write!(told, ", <code>{}</code> if not given", word(&schema["default"]));
    }
    told
}

fn word(value: &Value) -> String {
    escaped(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// A schema as a table of its fields, if it has any.
fn schema_of(schema: &Value) -> String {
    let mut out = String::new();
    if let Some(about) = schema["description"].as_str() {
        let _ = writeln!(out, "<p>{}</p>", prose(about));
    }
    if schema["properties"].is_object() {
        out.push_str("<div class=\"wide\">\n<table>\n<tr><th>Field</th><th>Type</th><th>What it is</th></tr>\n");
        for (name, of) in fields(&schema["properties"]) {
            let is_required = items(&schema["required"]).any(|required| required == name);
            let required = if is_required { " (required)" } else { "" };
            let _ = writeln!(
                out,
                "<tr><td><code>{}</code>{required}</td><td>{}</td><td>{}</td></tr>",
                escaped(name),
                type_of(of),
                prose(text_of(of, "description"))
            );
        }
        out.push_str("</table>\n</div>\n");
    } else if !schema["anyOf"].is_array() {
        let _ = writeln!(out, "<p>{}</p>", type_of(schema));
    }
    if schema["anyOf"].is_array() {
        out.push_str("<p>One of:</p>\n<ul>\n");
        for way in items(&schema["anyOf"]) {
            let _ = writeln!(out, "<li>{}</li>", type_of(way));
        }
        out.push_str("</ul>\n");
    }
    if let Ok(example) = serde_json::to_string_pretty(&schema["examples"][0])
        && example != "null"
    {
        let _ = writeln!(out, "<h3>Example</h3>\n<pre class=\"copy\" tabindex=\"0\">{}</pre>", escaped(&example));
    }
    out
}
