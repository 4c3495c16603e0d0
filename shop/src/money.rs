//! Amounts of money: in memory as minor units (cents), on the wire as `shop.type.v1.Money`.
//!
//! An [`Amount`] is never negative and never rounded: a value that does not fit is an error.

use crate::{Currency, CurrencyError, contract::shop::r#type::v1::Money};

/// Billionths in a unit: the resolution of `Money.nanos`.
const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// An amount in one currency, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

/// Why a `Money` is no [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The currency code is wrong.
    #[error(transparent)]
    Currency(#[from] CurrencyError),
    /// Less than 0.
    #[error("must not be negative")]
    Negative,
    /// `nanos` is not in 0 to 999,999,999.
    #[error("must be from 0 to 999999999")]
    NanosOutOfRange,
    /// `nanos` is finer than the currency's minor unit.
    #[error("is finer than the minor unit of {}, which has {} decimal digits", .0.code(), .0.exponent())]
    TooFine(Currency),
    /// More than 2^63 - 1 minor units.
    #[error("is too large")]
    TooLarge,
}

impl MoneyError {
    /// Which field of `Money` is wrong.
    pub fn field(self) -> &'static str {
        match self {
            Self::Currency(_) => "currency_code",
            Self::Negative | Self::TooLarge => "units",
            Self::NanosOutOfRange | Self::TooFine(_) => "nanos",
        }
    }
}

impl Amount {
    /// `minor` minor units (cents for USD, won for KRW); fails only with [`MoneyError::Negative`].
    pub fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor < 0 { Err(MoneyError::Negative) } else { Ok(Self { minor, currency }) }
    }

    /// Nothing, in a currency.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// How many minor units; 0 or more.
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The sum; `None` if the currencies differ or it is too large.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_add(other.minor)?;
        (self.currency == other.currency).then_some(Self { minor, ..self })
    }

    /// The difference; `None` if the currencies differ or it is less than 0.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_sub(other.minor).filter(|minor| *minor >= 0)?;
        (self.currency == other.currency).then_some(Self { minor, ..self })
    }
}

impl TryFrom<&Money> for Amount {
    type Error = MoneyError;

    fn try_from(money: &Money) -> Result<Self, MoneyError> {
        let currency = Currency::from_code(&money.currency_code)?;
        if money.units < 0 {
            return Err(MoneyError::Negative);
        }
        let nanos = i64::from(money.nanos);
        if !(0..NANOS_PER_UNIT).contains(&nanos) {
            return Err(MoneyError::NanosOutOfRange);
        }
        let nanos_per_minor = NANOS_PER_UNIT / currency.minor_per_unit();
        if nanos % nanos_per_minor != 0 {
            return Err(MoneyError::TooFine(currency));
        }
        let minor = money.units.checked_mul(currency.minor_per_unit());
        let minor = minor.and_then(|minor| minor.checked_add(nanos / nanos_per_minor)).ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, currency })
    }
}

impl From<Amount> for Money {
    fn from(Amount { minor, currency }: Amount) -> Self {
        let per_unit = currency.minor_per_unit();
        let nanos = (minor % per_unit) * (NANOS_PER_UNIT / per_unit);
        Self {
            currency_code: currency.code().to_owned(),
            units: minor / per_unit,
            nanos: i32::try_from(nanos).expect("less than a unit is less than 10^9 nanos"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn money(currency_code: &str, units: i64, nanos: i32) -> Money {
        Money { currency_code: currency_code.into(), units, nanos }
    }

    fn parse(currency_code: &str, units: i64, nanos: i32) -> Result<i64, MoneyError> {
        Amount::try_from(&money(currency_code, units, nanos)).map(Amount::minor)
    }

    #[test]
    fn amounts_are_minor_units_by_the_currencys_exponent() {
        assert_eq!(parse("USD", 12, 340_000_000), Ok(1234));
        assert_eq!(parse("KRW", 12, 0), Ok(12));
        assert_eq!(parse("BHD", 1, 1_000_000), Ok(1001));
        assert_eq!(parse("CLF", 0, 100_000), Ok(1));
        assert_eq!(parse("USD", i64::MAX / 100, 70_000_000), Ok(i64::MAX));
    }

    #[test]
    fn what_is_no_amount_is_refused_and_says_which_field() {
        let usd = Currency::from_code("USD").expect("known");
        let krw = Currency::from_code("KRW").expect("known");
        for (given, error, field) in [
            (("", 1, 0), MoneyError::Currency(CurrencyError::Empty), "currency_code"),
            (("usd", 1, 0), MoneyError::Currency(CurrencyError::Unknown), "currency_code"),
            (("USD", -1, 0), MoneyError::Negative, "units"),
            (("USD", i64::MIN, 0), MoneyError::Negative, "units"),
            (("USD", 0, -1), MoneyError::NanosOutOfRange, "nanos"),
            (("USD", 0, 1_000_000_000), MoneyError::NanosOutOfRange, "nanos"),
            (("USD", 0, 1_000_000), MoneyError::TooFine(usd), "nanos"),
            (("KRW", 0, 500_000_000), MoneyError::TooFine(krw), "nanos"),
            (("USD", i64::MAX, 0), MoneyError::TooLarge, "units"),
            (("USD", i64::MAX / 100, 80_000_000), MoneyError::TooLarge, "units"),
        ] {
            assert_eq!(parse(given.0, given.1, given.2), Err(error), "{given:?}");
            assert_eq!(error.field(), field);
        }
    }

    fn currencies() -> impl Strategy<Value = Currency> {
        select(Currency::all().collect::<Vec<_>>())
    }

    fn amounts() -> impl Strategy<Value = Amount> {
        (0..=i64::MAX, currencies()).prop_map(|(minor, currency)| Amount { minor, currency })
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_wire(amount in amounts()) {
            prop_assert_eq!(Amount::try_from(&Money::from(amount)), Ok(amount));
        }

        #[test]
        fn any_money_is_refused_or_comes_back_as_it_was(
            code in prop_oneof![currencies().prop_map(|currency| currency.code().to_owned()), "[A-Za-z]{0,4}"],
            units: i64,
            nanos in prop_oneof![any::<i32>(), (0..1000_i32).prop_map(|n| n * 1_000_000)],
        ) {
            let given = money(&code, units, nanos);
            if let Ok(amount) = Amount::try_from(&given) {
                prop_assert_eq!(Money::from(amount), given);
            }
        }

        #[test]
        fn arithmetic_is_exact_or_refused(a in amounts(), b in amounts(), same: bool) {
            let b = if same { Amount { currency: a.currency, ..b } } else { b };
            let mixed = a.currency != b.currency;
            let sum = i128::from(a.minor) + i128::from(b.minor);
            let fits = !mixed && i64::try_from(sum).is_ok();
            prop_assert_eq!(a.checked_add(b).map(|s| i128::from(s.minor)), fits.then_some(sum));
            let rest = a.minor - b.minor;
            prop_assert_eq!(a.checked_sub(b).map(Amount::minor), (!mixed && rest >= 0).then_some(rest));
        }
    }
}
