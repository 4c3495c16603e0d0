//! A rule as a flag of `meshwork authz set` takes it.

use std::str::FromStr;

use meshwork::contract::meshwork::registry::v1::AuthorizationRule;

/// A rule as a flag takes it: `CALLER[,CALLER...]=METHOD[,METHOD...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As it was typed.
    pub(super) text: String,
    pub(super) callers: Vec<String>,
    pub(super) methods: Vec<String>,
}

/// A text in which callers and methods cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be CALLER[,CALLER...]=METHOD[,METHOD...], such as service/query=shop.order.v1.OrderService/GetOrder")]
pub struct InvalidRule;

impl FromStr for Rule {
    type Err = InvalidRule;

    /// Only the form: what callers and methods there are, the check of the whole policy says.
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let list = |texts: &str| texts.split(',').map(str::to_owned).collect();
        match text.split_once('=') {
            Some((callers, methods)) if !callers.is_empty() && !methods.is_empty() => {
                Ok(Self { text: text.to_owned(), callers: list(callers), methods: list(methods) })
            }
            _ => Err(InvalidRule),
        }
    }
}

impl From<&Rule> for AuthorizationRule {
    fn from(rule: &Rule) -> Self {
        Self { callers: rule.callers.clone(), methods: rule.methods.clone() }
    }
}
