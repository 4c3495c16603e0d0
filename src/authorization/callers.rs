//! Sets of callers, as rules and code name them.

use std::{collections::HashSet, fmt};

use crate::{
    identity::{ANONYMOUS, PeerIdentity},
    service_name::check_service_name,
};

const EVERYONE: &str = "*";
const SERVICE: &str = "service/";
const OPERATOR: &str = "operator/";
const ALL: &str = "*";

/// Callers: `service/NAME`, `operator/NAME`, `service/*`, `operator/*`, `*` (everyone) and `anonymous` (those without an identity).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    everyone: bool,
    anonymous: bool,
    services: bool,
    operators: bool,
    /// By the path of their SPIFFE IDs.
    named: HashSet<Box<str>>,
}

/// What one text stands for.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    Everyone,
    Anonymous,
    Services,
    Operators,
    Named(&'a str),
}

impl Callers {
    /// All of these.
    ///
    /// # Errors
    /// The first that is not a caller: its index, and what is accepted.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, String)> {
        let mut callers = Self::default();
        for (index, text) in texts.iter().enumerate() {
            match parse(text.as_ref()).map_err(|problem| (index, problem))? {
                Pattern::Everyone => callers.everyone = true,
                Pattern::Anonymous => callers.anonymous = true,
                Pattern::Services => callers.services = true,
                Pattern::Operators => callers.operators = true,
                Pattern::Named(path) => {
                    callers.named.insert(path.into());
                }
            }
        }
        Ok(callers)
    }

    /// And all operators.
    #[must_use]
    pub(super) fn and_operators(self) -> Self {
        Self { operators: true, ..self }
    }

    /// As [`parse`](Self::parse), of callers that must each be one service or operator.
    ///
    /// # Errors
    /// The first that is none.
    pub(super) fn parse_named<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, String)> {
        let is_kind = |text: &T| parse(text.as_ref()).is_ok_and(|pattern| !matches!(pattern, Pattern::Named(_)));
        match texts.iter().position(is_kind) {
            Some(index) => Err((index, format!("{} must be one service or operator", quoted(texts[index].as_ref())))),
            None => Self::parse(texts),
        }
    }

    /// Whether a caller is one of them.
    pub fn contains(&self, caller: &PeerIdentity) -> bool {
        let Some(id) = caller.spiffe_id() else { return self.everyone || self.anonymous };
        self.everyone
            || self.services && id.service().is_some()
            || self.operators && id.is_operator()
            || self.named.contains(id.path())
    }

    /// Whether all that a text of a checked rule stands for are among them.
    pub(super) fn covers(&self, text: &str) -> bool {
        self.everyone
            || match parse(text) {
                Ok(Pattern::Anonymous) => self.anonymous,
                Ok(Pattern::Services) => self.services,
                Ok(Pattern::Operators) => self.operators,
                Ok(Pattern::Named(path)) => {
                    self.services && path.starts_with(SERVICE)
                        || self.operators && path.starts_with(OPERATOR)
                        || self.named.contains(path)
                }
                Ok(Pattern::Everyone) | Err(_) => false,
            }
    }
}

/// As in `operators, service/customer and service/query`.
impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.everyone, "everyone"),
            (self.operators, "operators"),
            (self.services, "services"),
            (self.anonymous, "callers without an identity"),
        ];
        let mut named: Vec<&str> = self.named.iter().map(AsRef::as_ref).collect();
        named.sort_unstable();
        let mut all: Vec<&str> = kinds.iter().filter(|(is_in, _)| *is_in).map(|(_, kind)| *kind).collect();
        all.extend(named);
        match all.as_slice() {
            [] => f.write_str("nobody"),
            [one] => f.write_str(one),
            [some @ .., last] => write!(f, "{} and {last}", some.join(", ")),
        }
    }
}

fn parse(text: &str) -> Result<Pattern<'_>, String> {
    match text {
        EVERYONE => return Ok(Pattern::Everyone),
        ANONYMOUS => return Ok(Pattern::Anonymous),
        _ => {}
    }
    let is_segment = |name: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        !matches!(name, "" | "." | "..") && name.bytes().all(allowed)
    };
    match (text.strip_prefix(SERVICE), text.strip_prefix(OPERATOR)) {
        (Some(ALL), _) => Ok(Pattern::Services),
        (_, Some(ALL)) => Ok(Pattern::Operators),
        (Some(name), _) if check_service_name(name).is_ok() => Ok(Pattern::Named(text)),
        (_, Some(name)) if is_segment(name) => Ok(Pattern::Named(text)),
        _ => Err(problem(text)),
    }
}

/// What is wrong with a text that is no caller, and what would be right.
fn problem(text: &str) -> String {
    let shown = quoted(text);
    if text.contains("://") {
        return format!(
            "{shown} is a whole identity: write what comes after its trust domain, as in \"service/order\""
        );
    }
    if text.contains('*') {
        return format!("{shown}: a wildcard stands only for a whole kind: \"service/*\", \"operator/*\" or \"*\"");
    }
    if check_service_name(text).is_ok() {
        return format!("{shown} has no kind: write \"service/{text}\" or \"operator/{text}\"");
    }
    if text.starts_with(SERVICE) {
        return format!("{shown}: the name of a service has 1-63 lowercase letters, digits and hyphens");
    }
    if text.starts_with(OPERATOR) {
        return format!("{shown}: the name of an operator has letters, digits and \".\", \"_\", \"-\"");
    }
    format!(
        "{shown} is not a caller: \"service/NAME\", \"operator/NAME\", \"service/*\", \"operator/*\", \"*\" or \"anonymous\""
    )
}

/// A text of a request for a message: on one line, and cut.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(path: &str) -> PeerIdentity {
        PeerIdentity::verified(format!("spiffe://t/{path}").parse().expect("an id"))
    }

    #[test]
    fn a_caller_is_in_a_set_only_by_its_whole_name_or_its_kind() {
        let all = ["service/order", "service/orders", "operator/ada", "gateway/order", "anonymous", "service/order/x"];
        let among = |texts: &[&str]| {
            let callers = Callers::parse(texts).expect("callers");
            let mut found: Vec<_> = all.iter().filter(|path| callers.contains(&peer(path))).copied().collect();
            found.extend(callers.contains(&PeerIdentity::ANONYMOUS).then_some("nobody"));
            found.join(" ")
        };
        assert_eq!(among(&["service/order"]), "service/order");
        assert_eq!(among(&["service/*"]), "service/order service/orders");
        assert_eq!(among(&["operator/*"]), "operator/ada");
        assert_eq!(among(&["operator/ada", "service/orders"]), "service/orders operator/ada");
        assert_eq!(among(&["anonymous"]), "nobody", "and not one whose certificate says so");
        assert_eq!(among(&["*"]), format!("{} nobody", all.join(" ")));
        assert_eq!(among(&[]), "");
    }

    #[test]
    fn what_is_no_caller_is_refused_with_what_would_be_right() {
        for (text, hint) in [
            ("", "is not a caller"),
            ("order", "write \"service/order\" or \"operator/order\""),
            ("spiffe://shop.test/service/order", "as in \"service/order\""),
            ("service/", "1-63"),
            ("service/Order", "1-63"),
            ("service/order/x", "1-63"),
            ("service/or*", "only for a whole kind"),
            ("*/order", "only for a whole kind"),
            ("operator/", "the name of an operator"),
            ("operator/a b", "the name of an operator"),
            ("operator/..", "the name of an operator"),
            ("operator/a/b", "the name of an operator"),
            ("Anonymous", "is not a caller"),
            ("gateway/x", "is not a caller"),
        ] {
            let (index, problem) = Callers::parse(&["*", text]).expect_err(text);
            assert!(index == 1 && problem.contains(hint), "{text}: {problem}");
        }
        let (_, long) = Callers::parse(&["\n".repeat(1000)]).expect_err("no caller");
        assert!(!long.contains('\n') && long.len() < 400, "{long}");
        for text in ["service/*", "operator/*", "*", "anonymous", "order"] {
            assert!(Callers::parse_named(&["operator/ada", "service/order", text]).is_err(), "{text}");
        }
        assert!(Callers::parse_named(&["operator/ada", "service/order"]).is_ok());
    }

    #[test]
    fn callers_are_listed_for_people() {
        let shown = |texts: &[&str]| Callers::parse(texts).expect("callers").to_string();
        assert_eq!(
            shown(&["service/query", "operator/*", "service/customer"]),
            "operators, service/customer and service/query"
        );
        assert_eq!((shown(&[]), shown(&["*"])), ("nobody".to_owned(), "everyone".to_owned()));
    }
}
