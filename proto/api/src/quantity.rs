//! Quantities (`100m`, `1Gi`, `1e3`): parsing, exact values, canonical form, sums. Changes when
//! upstream's grammar does (`k8s.io/apimachinery/pkg/api/resource`).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A quantity as written. Two texts of one value are different here; compare with
/// [`Quantity::parse`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not a number with an optional suffix. The wording is upstream's.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The suffix is none of those known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffix a quantity is written with; sums keep the left operand's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E-6`.
    DecimalExponent,
}

/// An exact quantity in units of 10^-9, the finest step Kubernetes keeps; finer parts round away
/// from zero, too large values saturate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    nano: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
/// Upstream caps values at i64::MAX units.
const UNITS_MAX: i128 = 9_223_372_036_854_775_807;
const DIGITS_MAX: usize = 64;

impl Quantity {
    /// The exact amount.
    ///
    /// # Errors
    /// [`ParseQuantityError`] when the text is no quantity.
    pub fn parse(&self) -> Result<Amount, ParseQuantityError> {
        self.0.parse()
    }

    /// Whole units (bytes, pods), rounded up; `None` when the text is no quantity.
    pub fn value(&self) -> Option<i64> {
        self.parse().ok().map(|amount| amount.value())
    }

    /// Thousandths (of a CPU), rounded up; `None` when the text is no quantity.
    pub fn milli_value(&self) -> Option<i64> {
        self.parse().ok().map(|amount| amount.milli_value())
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self(amount.to_string())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            String(String),
            Number(serde_json::Number),
        }
        Ok(match Text::deserialize(deserializer)? {
            Text::String(text) => Self(text),
            Text::Number(number) => Self(number.to_string()),
        })
    }
}

impl std::str::FromStr for Amount {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, rest) = rest.split_at(digits);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => {
                let digits =
                    rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                rest.split_at(digits)
            }
            None => ("", rest),
        };
        if (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > DIGITS_MAX {
            return Err(ParseQuantityError::Format);
        }
        let (scale, format) = suffix_scale(suffix)?;
        let nano = scaled(whole, fraction, scale);
        let nano = nano.min(UNITS_MAX * NANO);
        Ok(Self {
            nano: if negative { -nano } else { nano },
            format,
        })
    }
}

/// What a suffix multiplies with.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn suffix_scale(suffix: &str) -> Result<(Scale, Format), ParseQuantityError> {
    let decimal = |power| Ok((Scale::Ten(power), Format::DecimalSi));
    let binary = |power| Ok((Scale::Two(power), Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let Some(exponent) = suffix.strip_prefix(['e', 'E']) else {
                let known = |c: char| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c);
                return Err(if suffix.chars().all(known) {
                    ParseQuantityError::Suffix
                } else {
                    ParseQuantityError::Format
                });
            };
            let power: i16 = exponent
                .parse()
                .map_err(|_not_a_number| ParseQuantityError::Suffix)?;
            Ok((Scale::Ten(i32::from(power)), Format::DecimalExponent))
        }
    }
}

/// `whole.fraction * scale` in nano units, rounded up, saturating.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    // The decimal digits as an integer with `places` decimal places; digits past what an i128
    // holds can only be a fraction far below nano or a value far above the cap.
    let mut mantissa: i128 = 0;
    let mut places = 0_i32;
    let mut inexact = false;
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let next = mantissa
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .filter(|value| *value < i128::MAX / 1_000);
        match next {
            Some(value) => {
                mantissa = value;
                places += i32::from(at >= whole.len());
            }
            None if at < whole.len() => return i128::MAX,
            None => inexact |= digit != b'0',
        }
    }
    if mantissa == 0 {
        return i128::from(inexact);
    }
    let (binary, decimal) = match scale {
        Scale::Ten(power) => (0, power - places + 9),
        Scale::Two(power) => (power, 9 - places),
    };
    let mut value = mantissa;
    for _ in 0..binary {
        value = value.saturating_mul(2);
    }
    if decimal >= 0 {
        for _ in 0..decimal.min(60) {
            value = value.saturating_mul(10);
        }
        return value;
    }
    for _ in 0..decimal.unsigned_abs().min(60) {
        inexact |= value % 10 != 0;
        value /= 10;
    }
    value.saturating_add(i128::from(inexact))
}

impl Amount {
    /// `units` whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self {
            nano: i128::from(units) * NANO,
            format,
        }
    }

    /// `milli` thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self {
            nano: i128::from(milli) * (NANO / 1_000),
            format,
        }
    }

    /// Units of 10^-9.
    pub fn nano(self) -> i128 {
        self.nano
    }

    /// Whole units, rounded up (away from zero), saturating.
    pub fn value(self) -> i64 {
        narrow(round_away(self.nano, NANO))
    }

    /// Thousandths, rounded up (away from zero), saturating.
    pub fn milli_value(self) -> i64 {
        narrow(round_away(self.nano, NANO / 1_000))
    }

    /// Sum in the format of `self`, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nano: cap(self.nano.saturating_add(other.nano)),
            format: self.kept(other),
        }
    }

    /// Difference in the format of `self`, saturating.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nano: cap(self.nano.saturating_sub(other.nano)),
            format: self.kept(other),
        }
    }

    /// A zero takes the other operand's format, as upstream does.
    fn kept(self, other: Self) -> Format {
        if self.nano == 0 {
            other.format
        } else {
            self.format
        }
    }
}

fn cap(nano: i128) -> i128 {
    nano.clamp(-UNITS_MAX * NANO, UNITS_MAX * NANO)
}

fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn round_away(value: i128, step: i128) -> i128 {
    let quotient = value / step;
    if value % step == 0 {
        quotient
    } else {
        quotient + value.signum()
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The canonical form: the largest suffix that needs no fraction.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.nano == 0 {
            return f.write_str("0");
        }
        let units = self.nano / NANO;
        // Below 1024 and with fractions upstream writes binary quantities with decimal suffixes.
        if self.format == Format::BinarySi && self.nano % NANO == 0 && units.abs() >= 1024 {
            let mut value = units;
            let mut step = 0;
            while value % 1024 == 0 && step + 1 < BINARY.len() {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{value}{}", BINARY[step]);
        }
        let mut value = self.nano;
        let mut step = 0;
        while value % 1000 == 0 && step + 1 < DECIMAL.len() {
            value /= 1000;
            step += 1;
        }
        if self.format == Format::DecimalExponent {
            return match step {
                3 => write!(f, "{value}"),
                step => {
                    let power = i32::try_from(step).unwrap_or_default() * 3 - 9;
                    write!(f, "{value}e{power}")
                }
            };
        }
        write!(f, "{value}{}", DECIMAL[step])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_value_and_canonical_form() {
        for (text, nano, canonical) in [
            ("0", 0, "0"),
            ("100m", 100_000_000, "100m"),
            ("0.1", 100_000_000, "100m"),
            (".5", 500_000_000, "500m"),
            ("1", NANO, "1"),
            ("1000m", NANO, "1"),
            ("1.5", 1_500_000_000, "1500m"),
            ("-1.5k", -1_500 * NANO, "-1500"),
            ("1k", 1_000 * NANO, "1k"),
            ("1Ki", 1_024 * NANO, "1Ki"),
            ("1024Mi", 1_073_741_824 * NANO, "1Gi"),
            ("1500Mi", 1_572_864_000 * NANO, "1500Mi"),
            ("0.5Gi", 536_870_912 * NANO, "512Mi"),
            ("100Ki", 102_400 * NANO, "100Ki"),
            ("1e3", 1_000 * NANO, "1e3"),
            ("1E3", 1_000 * NANO, "1e3"),
            ("12e-3", 12_000_000, "12e-3"),
            ("0.0000000001", 1, "1n"),
            ("5Ei", 5_764_607_523_034_234_880 * NANO, "5Ei"),
            ("100E", UNITS_MAX * NANO, "9223372036854775807"),
        ] {
            let amount: Amount = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(amount.nano(), nano, "{text}");
            assert_eq!(amount.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "-", ".", "1x", "1kk", "one", "1 Gi", "1ki", "1e", "0x10", "1Mib",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        assert_eq!(Quantity::from("100m").value(), Some(1));
        assert_eq!(Quantity::from("-100m").value(), Some(-1));
        assert_eq!(Quantity::from("1500u").milli_value(), Some(2));
        assert_eq!(Quantity::from("2").milli_value(), Some(2_000));
        assert_eq!(Quantity::from("128Mi").value(), Some(134_217_728));
        assert_eq!(Quantity::from("9999E").milli_value(), Some(i64::MAX));
    }

    #[test]
    fn sums_keep_the_left_format() {
        let one: Amount = "1Gi".parse().unwrap();
        let two: Amount = "1024M".parse().unwrap();
        assert_eq!(one.plus(two).to_string(), "2048576Ki");
        assert_eq!(one.minus(one).to_string(), "0");
        assert_eq!(Amount::default().plus(one).to_string(), "1Gi");
        assert!(one > two);
    }
}
