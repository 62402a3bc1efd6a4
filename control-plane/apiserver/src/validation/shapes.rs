//! Shapes of values that several kinds have: shares, quantities, domain-prefixed paths, what must
//! not change.

use proto_api::names;
use serde_json::Value;

use super::{Errors, IMMUTABLE, Place, amount};
use crate::field::FieldError;
use crate::tree;

const QUANTITY: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' \
    (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const DOMAIN_PATH: &str = "must be a domain-prefixed path (such as \"acme.io/foo\")";
const PATH: &str = "Invalid path (e.g. 'foo/bar', regex used for validation is \
    '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";

/// The number in a count or a percentage; `None` when the value is neither.
pub(crate) fn int_or_percent(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text
            .strip_suffix('%')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok()),
        _ => None,
    }
}

impl Place<'_> {
    /// The field, if it is there, must be a count or a percentage, which is at most
    /// `most_percent`.
    pub(crate) fn int_or_percent(&self, most_percent: Option<i64>, errors: &mut Errors) {
        if !self.is_present() {
            return;
        }
        let above =
            |number| self.value.is_string() && most_percent.is_some_and(|most| number > most);
        match int_or_percent(self.value) {
            None => self.invalid(PERCENT, errors),
            Some(number) if number < 0 => {
                self.invalid("must be greater than or equal to 0", errors);
            }
            Some(number) if above(number) => self.invalid("must not be greater than 100%", errors),
            Some(_) => {}
        }
    }

    /// The field, if it is there, must be an amount that is not negative.
    pub(crate) fn quantity(&self, errors: &mut Errors) {
        if !self.is_present() {
            return;
        }
        match amount(self.value) {
            None => self.invalid(QUANTITY, errors),
            Some(amount) if amount.nano() < 0 => {
                self.invalid("must be greater than or equal to 0", errors);
            }
            Some(_) => {}
        }
    }

    /// As [`Place::named`], and the text must be there.
    pub(crate) fn required_named(&self, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
        if self.required_text(errors) {
            self.named(check, errors);
        }
    }

    /// The text must be a domain and a path in it: `example.com/name`.
    pub(crate) fn domain_prefixed(&self, errors: &mut Errors) {
        if !self.required_text(errors) {
            return;
        }
        let parts = self.text().split_once('/');
        let parts = parts.filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
        let Some((domain, path)) = parts else {
            return self.invalid(DOMAIN_PATH, errors);
        };
        for detail in names::dns_subdomain(domain) {
            errors.push(FieldError::invalid(&self.path, domain, detail));
        }
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/%:@-._~!$&'()*+,;=".contains(&byte);
        if !path.bytes().all(allowed) {
            errors.push(FieldError::invalid(&self.path, path, PATH));
        }
    }

    /// The field must be what it is in `old`, the same field of the stored object.
    pub(crate) fn unchanged(&self, old: &Place<'_>, errors: &mut Errors) {
        if !tree::same(self.value, old.value) {
            self.invalid(IMMUTABLE, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::Path;

    #[test]
    fn shares_are_counts_or_percentages() {
        for (value, expected) in [
            (json!(3), Some(3)),
            (json!("25%"), Some(25)),
            (json!("25"), None),
            (json!("-1%"), None),
            (json!(true), None),
        ] {
            assert_eq!(int_or_percent(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_path_has_a_domain_before_it() {
        for (text, refusals) in [
            ("example.com/x", 0),
            ("example.com", 1),
            ("/x", 1),
            ("Example.com/x", 1),
            ("example.com/a b", 1),
        ] {
            let value = json!(text);
            let mut errors = Vec::new();
            Place::new(&value, Path::root("f")).domain_prefixed(&mut errors);
            assert_eq!(errors.len(), refusals, "{text}: {errors:?}");
        }
    }
}
