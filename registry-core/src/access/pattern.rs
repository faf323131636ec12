//! The patterns that permissions name objects by.
//!
//! Feast matches them with Python's `re`, which can take for ever, on patterns that tenants write. Here an engine matches in linear
//! time what both understand alike. What only Python's understands, or what the two would take for different things, is refused
//! when a permission is applied, and matches nothing where it is stored all the same.

use std::sync::OnceLock;

use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::{Anchored, Input};
use regex_syntax::ast::{self, AssertionKind, Ast, ClassSetItem, Flag, FlagsItemKind, Visitor};
use regex_syntax::hir::translate::Translator;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// The longest pattern, in bytes.
const LONGEST: usize = 1000;
/// How large the automaton of a pattern may become, in bytes: what counts to a hundred thousand is refused.
const LARGEST: usize = 256 * 1024;
/// How much work a pattern may be ([`Pattern::work`]).
const MOST_WORK: usize = 500;
/// So many ranges of characters are as much work as one character.
const RANGES: usize = 64;
/// A longer name, in bytes, matches no pattern. Feast's columns have 255 characters.
const LONGEST_NAME: usize = 512;
/// How deep groups may be nested.
const DEEPEST: u32 = 50;

/// A pattern, made ready when it is first looked at.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: String,
    /// `None`: it matches nothing, since it is refused.
    regex: OnceLock<Option<Compiled>>,
}

/// The automaton of a pattern.
#[derive(Debug)]
struct Compiled {
    /// What each name that it matches begins with: most of a project's patterns are about other names, and need not be tried.
    prefix: Box<[u8]>,
    regex: Regex,
}

impl Pattern {
    /// Takes a pattern as it is stored. As in Feast, what is white around it does not count.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.trim().to_owned(), regex: OnceLock::new() }
    }

    /// Whether a name matches as a whole.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let regex = self.regex.get_or_init(|| compile(&self.text).ok());
        let Some(Compiled { prefix, regex }) = regex else { return false };
        let input = Input::new(name).anchored(Anchored::Yes).earliest(true);
        name.len() <= LONGEST_NAME && name.as_bytes().starts_with(prefix) && regex.is_match(input)
    }

    /// Why it matches nothing, if it is one that does not; goes on from the pattern.
    pub(crate) fn fault(&self) -> Option<String> {
        compile(&self.text).err()
    }

    /// How much work it is to match it, at each character of a name: what may have to be looked for at once.
    pub(crate) fn work(&self) -> usize {
        understand(&self.text).map_or(0, |hir| work(&hir, false))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The automaton of a pattern, or what is wrong with it.
///
/// It is one that takes no memory beyond its own size, unlike those that are made while they match: tenants have many, and names are
/// short.
fn compile(text: &str) -> Result<Compiled, String> {
    let hir = understand(text)?;
    let too_much = || "stands for too much: count to less, or name fewer alternatives".to_owned();
    if work(&hir, false) > MOST_WORK {
        return Err(too_much());
    }
    let prefix = prefix(&hir).into();
    // Put together from parts: in text, `a)|(b` would get out of what is written around it.
    let whole = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    let config = meta::Config::new().nfa_size_limit(Some(LARGEST)).which_captures(WhichCaptures::None);
    let regex = meta::Builder::new().configure(config).build_from_hir(&whole);
    let regex = regex.map_err(|error| match error.size_limit() {
        Some(_) => too_much(),
        None => format!("cannot be understood: {error}"),
    })?;
    Ok(Compiled { prefix, regex })
}

/// The bytes that all that a pattern matches begins with, as far as that is plain to see.
fn prefix(hir: &Hir) -> &[u8] {
    match hir.kind() {
        HirKind::Literal(literal) => &literal.0,
        HirKind::Concat(parts) => parts.first().map_or(&[], prefix),
        HirKind::Capture(capture) => prefix(&capture.sub),
        _ => &[],
    }
}

/// What a pattern says, or what is wrong with it.
fn understand(text: &str) -> Result<Hir, String> {
    if text.len() > LONGEST {
        return Err(format!("has {} bytes, and {LONGEST} are the most", text.len()));
    }
    let ast = ast::parse::ParserBuilder::new().nest_limit(DEEPEST).empty_min_range(true).build().parse(text);
    let ast = ast.map_err(|error| in_words(error.kind()))?;
    ast::visit(&ast, Alike)?;
    Translator::new().translate(text, &ast).map_err(|error| format!("cannot be understood: {}", error.kind()))
}

/// How much of a pattern can be looked for at the same character of a name: each way to go on, and what is repeated as often as it is.
/// What is simply written one after the other is looked for one after the other.
fn work(hir: &Hir, is_repeated: bool) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => {
            if is_repeated {
                literal.0.len()
            } else {
                0
            }
        }
        // Those of Unicode, as `\w`, are large.
        HirKind::Class(class) => usize::from(is_repeated) + ranges(class) / RANGES,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min) as usize;
            work(&repetition.sub, true).saturating_mul(times.max(1)).saturating_add(1)
        }
        HirKind::Capture(capture) => work(&capture.sub, is_repeated),
        HirKind::Concat(parts) => parts.iter().map(|part| work(part, is_repeated)).fold(0, usize::saturating_add),
        HirKind::Alternation(parts) => {
            parts.iter().map(|part| work(part, is_repeated)).fold(parts.len(), usize::saturating_add)
        }
    }
}

fn ranges(class: &Class) -> usize {
    match class {
        Class::Unicode(class) => class.ranges().len(),
        Class::Bytes(class) => class.ranges().len(),
    }
}

fn in_words(error: &ast::ErrorKind) -> String {
    match error {
        ast::ErrorKind::UnsupportedLookAround => {
            "looks around (`(?=`, `(?!`, `(?<=`, `(?<!`), which is not supported".to_owned()
        }
        ast::ErrorKind::UnsupportedBackreference => "refers back to a group, which is not supported".to_owned(),
        ast::ErrorKind::EscapeUnrecognized => "has an escape that is not supported, such as `\\Z`".to_owned(),
        ast::ErrorKind::FlagUnrecognized => {
            "has a group of a kind that is not supported, such as `(?>` or `(?P=`".to_owned()
        }
        ast::ErrorKind::NestLimitExceeded(limit) => format!("is nested more than {limit} levels deep"),
        other => format!("cannot be understood: {other}"),
    }
}

/// Refuses what Python would take for something else than this engine does.
struct Alike;

impl Visitor for Alike {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let flags = match ast {
            Ast::Flags(set) => Some(&set.flags),
            Ast::Group(group) => group.flags(),
            Ast::Repetition(repetition) if matches!(*repetition.ast, Ast::Repetition(_)) => {
                return Err("has a possessive quantifier, such as `a*+`, which is not supported".to_owned());
            }
            Ast::Assertion(assertion)
                if !matches!(
                    assertion.kind,
                    AssertionKind::StartLine
                        | AssertionKind::EndLine
                        | AssertionKind::StartText
                        | AssertionKind::EndText
                        | AssertionKind::WordBoundary
                        | AssertionKind::NotWordBoundary
                ) =>
            {
                return Err(
                    "has `\\<`, `\\>` or `\\b{…}`, which Python reads as something else; leave the backslash out"
                        .to_owned(),
                );
            }
            _ => None,
        };
        let alike = |kind: &FlagsItemKind| {
            matches!(
                kind,
                FlagsItemKind::Negation
                    | FlagsItemKind::Flag(
                        Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::Unicode
                    )
            )
        };
        match flags.is_none_or(|flags| flags.items.iter().all(|item| alike(&item.kind))) {
            true => Ok(()),
            false => Err("has a flag that is not supported; there are `i`, `m`, `s` and `u`".to_owned()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Ascii(_) | ClassSetItem::Bracketed(_) => {
                Err("has brackets within brackets, which Python reads as a character; write `\\[` for that".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("has `&&`, `--` or `~~` within brackets, which Python reads as characters; escape them".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Checked against `re.fullmatch` of Python 3.11.
    #[test]
    fn names_match_as_a_whole() {
        for (pattern, name, is_match) in [
            ("driver", "driver", true),
            ("driver", "drivers", false),
            ("driver|drivers", "drivers", true),
            ("a|ab", "ab", true),
            ("", "", true),
            ("", "x", false),
            (" driver \n", "driver", true),
            ("driver_.*", "driver_stats", true),
            ("driver_.*", "driver_\nstats", false),
            ("(?s)driver_.*", "driver_\nstats", true),
            ("(?i)DRIVER", "driver", true),
            (r"\w+", "fahrt_ü", true),
            (r"\d{2,3}", "12", true),
            (r"\d{,3}", "12", true),
            ("[]a]+", "]a", true),
            ("^a$", "a", true),
            ("a$", "a\n", false),
            ("a.c", "a🚗c", true),
            (r"a\.b\-c", "a.b-c", true),
            ("(?P<team>a)x", "ax", true),
            ("(?:a){3}", "aaa", true),
            ("a+?", "aaa", true),
            // A group that ends what is written around it in text.
            ("a)|(?:.*", "secret", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), is_match, "{pattern:?} and {name:?}");
        }
    }

    #[test]
    fn what_python_reads_in_another_way_is_refused_and_matches_nothing() {
        for (pattern, why) in [
            ("(?=a)a", "looks around"),
            ("(?<!a)b", "looks around"),
            (r"(a)\1", "refers back"),
            ("(?P<n>a)(?P=n)", "not supported"),
            ("(?>a)", "not supported"),
            (r"a\Z", "escape"),
            ("a++", "possessive"),
            ("a*+b", "possessive"),
            ("a{1,2}+", "possessive"),
            ("[[:alpha:]]", "brackets within"),
            ("[[a]b]", "brackets within"),
            ("[a&&b]", "within brackets"),
            ("[a--b]", "within brackets"),
            ("[a~~b]", "within brackets"),
            (r"\<a\>", "backslash"),
            ("(?x)a b", "flag"),
            ("(?a)x", "not supported"),
            ("(?R)x", "flag"),
            ("(?U)x", "flag"),
            ("a{", "understood"),
            ("(", "understood"),
            ("*", "understood"),
            ("(?:a{1000}){1000}", "stands for too much"),
            ("(?:[a-z]?[b-y]?){251}", "stands for too much"),
            ("(?:a*){4294967295}", "stands for too much"),
        ] {
            let parsed = Pattern::new(pattern);
            let fault = parsed.fault().unwrap_or_else(|| panic!("{pattern:?} is taken"));
            assert!(fault.contains(why), "{pattern:?}: {fault}");
            assert!(!parsed.matches("a") && !parsed.matches("ab") && !parsed.matches("aa"), "{pattern:?}");
        }
        assert!(Pattern::new(&"a".repeat(LONGEST + 1)).fault().is_some());
        assert!(Pattern::new(&"(".repeat(LONGEST)).fault().is_some());
    }

    #[test]
    fn what_is_repeated_is_work() {
        for (pattern, expected) in [
            ("", 0),
            ("driver_stats", 0),
            ("driver_.*", 2),
            (r"\d+_id", 3),
            (r"\w+_id", 14),
            ("[a-z]{2,63}", 64),
            ("driver|rider|x.", 3),
            ("(?:ab|cd){3}", 19),
            ("(?:a?){490}", 981),
            ("(", 0),
        ] {
            assert_eq!(Pattern::new(pattern).work(), expected, "{pattern}");
        }
        let any = Pattern::new(".*");
        assert!(any.matches(&"a".repeat(LONGEST_NAME)) && !any.matches(&"a".repeat(LONGEST_NAME + 1)));
    }

    /// Each of these takes Python's engine years.
    #[test]
    fn no_pattern_hangs() {
        let began = Instant::now();
        for pattern in ["(a+)+b", "(a|a)*b", "(a|aa)+c", "(?:a?){60}a{60}b", "(.*)*x"] {
            assert!(!Pattern::new(pattern).matches(&"a".repeat(LONGEST_NAME)), "{pattern}");
        }
        // A bound of the test, not a measurement: what hangs does so for ages.
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
