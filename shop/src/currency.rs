//! Currencies and their minor units: the active codes of ISO 4217 (List One of 2026-01-01).
//!
//! Precious metals, units of account without a minor unit (XDR, XSU, XUA) and the testing codes are not accepted.

/// Codes by exponent: how many decimal digits the minor unit has.
const CODES: [(u8, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF \
         CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG \
         HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR \
         MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD \
         SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD \
         XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// An active ISO 4217 currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

/// The text names no currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurrencyError {
    /// There is no text.
    #[error("must not be empty: an ISO 4217 code such as USD")]
    Empty,
    /// Not an active code; codes are upper-case.
    #[error("is not an active ISO 4217 currency code such as USD")]
    Unknown,
}

impl Currency {
    /// The currency of a code such as `"USD"`, upper-case.
    pub fn from_code(code: &str) -> Result<Self, CurrencyError> {
        if code.is_empty() {
            return Err(CurrencyError::Empty);
        }
        // Three letters without a space stand nowhere but at a code's own place.
        let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let find = |(exponent, codes): (u8, &'static str)| {
            codes.find(code).map(|at| Self { code: &codes[at..at + 3], exponent })
        };
        CODES.into_iter().filter(|_| is_code).find_map(find).ok_or(CurrencyError::Unknown)
    }

    /// Every currency.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES.into_iter().flat_map(|(exponent, codes)| codes.split(' ').map(move |code| Self { code, exponent }))
    }

    /// The ISO 4217 code, as in `"USD"`.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many decimal digits the minor unit has: 2 for USD, 0 for KRW.
    pub fn exponent(self) -> u8 {
        self.exponent
    }

    /// How many minor units make a unit: 100 for USD, 1 for KRW.
    pub(crate) fn minor_per_unit(self) -> i64 {
        10_i64.pow(u32::from(self.exponent))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_holds_each_code_once_with_iso_4217s_exponent() {
        let codes: Vec<_> = Currency::all().map(Currency::code).collect();
        assert!(codes.iter().all(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())));
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), codes.len());
        for (code, exponent) in [("KRW", 0), ("JPY", 0), ("USD", 2), ("EUR", 2), ("BHD", 3), ("CLF", 4)] {
            assert_eq!(Currency::from_code(code).map(Currency::exponent), Ok(exponent), "{code}");
        }
    }

    #[test]
    fn what_is_no_active_code_is_refused() {
        assert_eq!(Currency::from_code(""), Err(CurrencyError::Empty));
        for code in ["usd", "US", "USD ", "USD EUR", "XAU", "XXX", "HRK", "\u{24}", " "] {
            assert_eq!(Currency::from_code(code), Err(CurrencyError::Unknown), "{code}");
        }
    }
}
