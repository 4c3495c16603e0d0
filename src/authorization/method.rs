//! Methods, as rules and calls name them.

use super::callers::quoted;

/// gRPC's own services, health and reflection, which every server has: they are open to everyone, so that no rule for them has an effect.
pub const OPEN_TO_EVERYONE: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// What a text of a rule stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pattern<'a> {
    /// One method, as in `shop.order.v1.OrderService/GetOrder`.
    One(&'a str),
    /// All methods of a gRPC service, by its full name.
    All(&'a str),
}

impl<'a> Pattern<'a> {
    /// The pattern, or what is wrong with the text and what would be right.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let (service, method) = text.split_once('/').unwrap_or((text, ""));
        let is_whole = is_full_name(service) && (method == "*" || is_identifier(method));
        if !is_whole {
            return Err(problem(text, service, method));
        }
        if OPEN_TO_EVERYONE.contains(&service) {
            return Err(format!("{} is always open to everyone: a rule for it has no effect", quoted(service)));
        }
        Ok(if method == "*" { Self::All(service) } else { Self::One(text) })
    }

    /// The gRPC service.
    pub(super) fn service(self) -> &'a str {
        match self {
            Self::All(service) => service,
            Self::One(method) => method.split_once('/').map_or(method, |(service, _)| service),
        }
    }
}

/// The gRPC service and the full method name of a call with this path.
pub(crate) fn of_path(path: &str) -> (&str, &str) {
    let method = path.strip_prefix('/').unwrap_or(path);
    (method.split('/').next().unwrap_or_default(), method)
}

fn is_full_name(name: &str) -> bool {
    name.split('.').all(is_identifier)
}

fn is_identifier(part: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    part.bytes().all(allowed) && part.starts_with(|c: char| !c.is_ascii_digit())
}

fn problem(text: &str, service: &str, method: &str) -> String {
    let shown = quoted(text);
    if text.is_empty() {
        return "is required: as in \"shop.order.v1.OrderService/GetOrder\"".to_owned();
    }
    if let Some(rest) = text.strip_prefix('/') {
        return format!("{shown} begins with \"/\": write {}", quoted(rest));
    }
    if service.contains('*') {
        return format!(
            "{shown}: a wildcard stands only for all methods of one gRPC service, as in \"shop.order.v1.OrderService/*\""
        );
    }
    if !is_full_name(service) {
        return format!("{shown} names no gRPC service: write \"PACKAGE.SERVICE/METHOD\", as protobuf names them");
    }
    if method.is_empty() {
        return format!("{shown} has no method: write \"{service}/*\" for all methods of the gRPC service");
    }
    if method.contains('*') {
        return format!("{shown}: name each method, or all of them as \"{service}/*\"");
    }
    format!("{shown}: the method must be one name, as protobuf allows it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_one_or_all_of_one_service() {
        assert_eq!(Pattern::parse("a.b.v1.C/Get"), Ok(Pattern::One("a.b.v1.C/Get")));
        assert_eq!(Pattern::parse("a.b.v1.C/*"), Ok(Pattern::All("a.b.v1.C")));
        assert_eq!(Pattern::parse("C/_get2"), Ok(Pattern::One("C/_get2")), "protobuf wants no package");
        assert_eq!(Pattern::parse("a.C/Get").map(Pattern::service), Ok("a.C"));
        assert_eq!(Pattern::parse("a.C/*").map(Pattern::service), Ok("a.C"));
    }

    #[test]
    fn what_is_no_method_is_refused_with_what_would_be_right() {
        for (text, hint) in [
            ("", "is required"),
            ("/a.C/Get", "write \"a.C/Get\""),
            ("*", "as in \"shop.order.v1.OrderService/*\""),
            ("*/*", "as in \"shop.order.v1.OrderService/*\""),
            ("*/Get", "as in \"shop.order.v1.OrderService/*\""),
            ("a.*", "as in \"shop.order.v1.OrderService/*\""),
            ("a.*/Get", "as in \"shop.order.v1.OrderService/*\""),
            ("a.C", "write \"a.C/*\""),
            ("a.C/", "write \"a.C/*\""),
            ("a.C/Get*", "all of them as \"a.C/*\""),
            ("a.C/**", "all of them as \"a.C/*\""),
            ("a.C/Get/x", "one name"),
            ("a.C/Get Order", "one name"),
            ("a..C/Get", "names no gRPC service"),
            (".a.C/Get", "names no gRPC service"),
            ("a.2/Get", "names no gRPC service"),
            ("a-b.C/Get", "names no gRPC service"),
            ("grpc.health.v1.Health/Check", "always open"),
            ("grpc.health.v1.Health/*", "always open"),
            ("grpc.reflection.v1.ServerReflection/*", "always open"),
        ] {
            let problem = Pattern::parse(text).expect_err(text);
            assert!(problem.contains(hint), "{text}: {problem}");
        }
        assert!(Pattern::parse("grpc.testing.TestService/*").is_ok(), "a user's, in a package that begins alike");
    }

    #[test]
    fn a_calls_path_has_a_service_and_a_method() {
        assert_eq!(of_path("/a.C/Get"), ("a.C", "a.C/Get"));
        assert_eq!(of_path("//a.C/Get"), ("", "/a.C/Get"), "no service has that name");
        assert_eq!((of_path("/"), of_path("/a.C")), (("", ""), ("a.C", "a.C")));
    }
}
