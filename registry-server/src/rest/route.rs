//! What there is to ask for: one row for each route, from which requests are dispatched and documented.

use std::pin::Pin;
use std::sync::OnceLock;

use tonic::codegen::http::Method;

use super::answer::Answer;
use super::call::Call;
use super::error::Result;
use super::parameters::{Parameter, Place};
use super::table;

/// What does a request.
pub(crate) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// A route of the REST API.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Verb,
    /// Below `/api/v1`, or bare. What stands in braces is a parameter.
    pub(crate) path: &'static str,
    /// What it is about, as the documentation groups routes.
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static [&'static [Parameter]],
    /// The name of the schema of what has to be sent.
    pub(crate) body: Option<&'static str>,
    /// The status of success, and the name of the schema of what is answered.
    pub(crate) answers: (u16, &'static str),
    /// Whether nobody is asked who they are: it tells nothing of the registry.
    pub(crate) is_open: bool,
    pub(crate) handler: Handler,
}

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Get, Self::Post, Self::Put, Self::Delete];

    /// What a request is to be answered as: HEAD as GET, whose body is left out then.
    pub(crate) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

impl Route {
    /// What it is called in metrics and in the log.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method.name(), self.path)
    }

    /// Whether it has a parameter of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.parameters.iter().copied().flatten().any(|parameter| parameter.name == name)
    }

    /// Whether its requests change nothing.
    pub(crate) fn is_read(&self) -> bool {
        self.method == Verb::Get
    }
}

/// What a path is the path of.
#[derive(Clone)]
pub(crate) enum Found {
    Route(&'static Route, Vec<(&'static str, String)>),
    /// A route whose parameters in the path are no text: of two that are not the same, neither may stand for the other.
    Unreadable(&'static Route),
    /// Something that is asked for in other ways.
    OtherMethod(Vec<Verb>),
    Nothing,
}

/// Finds what a request asks for. Each way to ask has paths of its own: `/entities/all` is a list, and what is deleted there is the
/// entity `all`.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    let path = path.strip_prefix(PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    let path = if path.is_empty() { "/" } else { path };
    let asked = Verb::of(method);
    let Some((_, matched)) = matches(path).find(|(verb, _)| Some(*verb) == asked) else {
        let others: Vec<Verb> = matches(path).map(|(verb, _)| verb).collect();
        return if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others) };
    };
    let route: &'static Route = matched.value;
    let declared = route.parameters.iter().copied().flatten();
    let mut given = Vec::new();
    for parameter in declared.filter(|parameter| parameter.place == Place::Path) {
        let Some(value) = matched.params.get(parameter.name) else { continue };
        match percent_encoding::percent_decode_str(value).decode_utf8() {
            Ok(value) => given.push((parameter.name, value.into_owned())),
            Err(_) => return Found::Unreadable(route),
        }
    }
    Found::Route(route, given)
}

fn matches(path: &str) -> impl Iterator<Item = (Verb, matchit::Match<'_, '_, &'static &'static Route>)> {
    routes().iter().filter_map(move |(verb, routes)| Some((*verb, routes.at(path).ok()?)))
}

/// What the paths of the API may begin with, as in Feast.
pub(crate) const PREFIX: &str = "/api/v1";

type Routes = matchit::Router<&'static Route>;

fn routes() -> &'static [(Verb, Routes)] {
    static ROUTES: OnceLock<Vec<(Verb, Routes)>> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let mut all: Vec<(Verb, Routes)> = Verb::ALL.iter().map(|verb| (*verb, Routes::new())).collect();
        for route in table::routes() {
            let of_verb = all.iter_mut().filter(|(verb, _)| *verb == route.method);
            for (_, routes) in of_verb {
                // `no_two_routes_are_in_each_others_way` has all of them.
                if let Err(error) = routes.insert(route.path, route) {
                    tracing::error!(path = route.path, %error, "a route cannot be reached");
                }
            }
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_are_in_each_others_way() {
        for route in table::routes() {
            let path = route.path.replace(['{', '}'], "");
            for path in [path.clone(), format!("{PREFIX}{path}")] {
                let method = Method::from_bytes(route.method.name().as_bytes()).expect("a method");
                let Found::Route(found, given) = find(&method, &path) else { panic!("{path} is not found") };
                assert_eq!(found.name(), route.name());
                // What stands for any rest of a path is nobody's parameter.
                let in_path = route.path.matches('{').count() - route.path.matches("{*").count();
                assert_eq!(given.len(), in_path, "{}: each part in braces is declared", route.name());
            }
        }
    }

    #[test]
    fn paths_are_unescaped_after_they_are_taken_apart() {
        let Found::Route(route, given) = find(&Method::GET, "/api/v1/entities/a%2Fb%20c") else { panic!("not found") };
        assert_eq!((route.path, given[0].1.as_str()), ("/entities/{name}", "a/b c"));
        let Found::Route(route, given) = find(&Method::DELETE, "/entities/all") else { panic!("not found") };
        assert_eq!((route.path, given[0].1.as_str()), ("/entities/{name}", "all"));
        assert!(matches!(find(&Method::GET, "/api/v1x/entities"), Found::Nothing));
        assert!(matches!(find(&Method::PATCH, "/entities"), Found::OtherMethod(_)));
        assert!(matches!(find(&Method::PUT, "/entities/%ff"), Found::Unreadable(_)));
    }
}
