//! Sets of callers, as rules and code name them.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use crate::{
    identity::{ANONYMOUS, PeerIdentity, SpiffeId},
    service_name::check_service_name,
};

const EVERYONE: &str = "*";
const SERVICE: &str = "service/";
const OPERATOR: &str = "operator/";
const ALL: &str = "*";

/// Callers: `service/NAME`, `operator/NAME`, `service/*`, `operator/*`, `*` (everyone) and `anonymous` (those without an identity).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    groups: BTreeSet<Group>,
    /// By the path of their SPIFFE IDs.
    named: HashSet<Box<str>>,
}

/// Callers without names, in the order in which people are told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Everyone,
    Operators,
    Services,
    Anonymous,
}

/// What one text stands for.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    Group(Group),
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
                Pattern::Group(group) => callers.groups.insert(group),
                Pattern::Named(path) => callers.named.insert(path.into()),
            };
        }
        Ok(callers)
    }

    /// And all operators.
    #[must_use]
    pub(super) fn and_operators(mut self) -> Self {
        self.groups.insert(Group::Operators);
        self
    }

    /// As [`parse`](Self::parse), of callers that must each be one service or operator.
    ///
    /// # Errors
    /// The first that is none.
    pub(super) fn parse_named<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, String)> {
        let is_group = |text: &T| matches!(parse(text.as_ref()), Ok(Pattern::Group(_)));
        match texts.iter().position(is_group) {
            Some(index) => Err((index, format!("{} must be one service or operator", quoted(texts[index].as_ref())))),
            None => Self::parse(texts),
        }
    }

    /// Whether a caller is one of them.
    pub fn contains(&self, caller: &PeerIdentity) -> bool {
        let is_in = |group: &Group| match (group, caller.spiffe_id()) {
            (Group::Everyone, _) => true,
            (Group::Anonymous, id) => id.is_none(),
            (Group::Services, id) => id.and_then(SpiffeId::service).is_some(),
            (Group::Operators, _) => caller.is_operator(),
        };
        self.groups.iter().any(is_in) || caller.spiffe_id().is_some_and(|id| self.named.contains(id.path()))
    }

    /// Whether all that a text of a checked rule stands for are among them.
    pub(super) fn covers(&self, text: &str) -> bool {
        let all = |group: Group| self.groups.contains(&group) || self.groups.contains(&Group::Everyone);
        match parse(text) {
            Ok(Pattern::Group(group)) => all(group),
            Ok(Pattern::Named(path)) => {
                let group = if path.starts_with(SERVICE) { Group::Services } else { Group::Operators };
                all(group) || self.named.contains(path)
            }
            Err(_) => false,
        }
    }
}

impl Group {
    /// For people.
    const fn name(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Operators => "operators",
            Self::Services => "services",
            Self::Anonymous => "callers without an identity",
        }
    }
}

/// As in `operators, service/customer and service/query`.
impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: BTreeSet<&str> = self.named.iter().map(AsRef::as_ref).collect();
        let all: Vec<&str> = self.groups.iter().map(|group| group.name()).chain(named).collect();
        match all.as_slice() {
            [] => f.write_str("nobody"),
            [one] => f.write_str(one),
            [some @ .., last] => write!(f, "{} and {last}", some.join(", ")),
        }
    }
}

fn parse(text: &str) -> Result<Pattern<'_>, String> {
    match text {
        EVERYONE => return Ok(Pattern::Group(Group::Everyone)),
        ANONYMOUS => return Ok(Pattern::Group(Group::Anonymous)),
        _ => {}
    }
    let is_segment = |name: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        !matches!(name, "" | "." | "..") && name.bytes().all(allowed)
    };
    match (text.strip_prefix(SERVICE), text.strip_prefix(OPERATOR)) {
        (Some(ALL), _) => Ok(Pattern::Group(Group::Services)),
        (_, Some(ALL)) => Ok(Pattern::Group(Group::Operators)),
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
