//! A value together with its place in the object: what field checks walk over.

use serde_json::Value;

use super::sentences;
use crate::field::{FieldError, Path};
use crate::tree;

/// The errors found so far.
pub(crate) type Errors = Vec<FieldError>;

/// A field's value and path. An absent field has the value null.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// The value; null when the field is not there.
    pub(crate) value: &'a Value,
    /// Where it is.
    pub(crate) path: Path,
}

impl<'a> Place<'a> {
    /// `value` at `path`.
    pub(crate) fn new(value: &'a Value, path: Path) -> Self {
        Self { value, path }
    }

    /// The top-level field `name` of `object`.
    pub(crate) fn root(object: &'a Value, name: &str) -> Self {
        Self::new(tree::at(object, &[name]), Path::root(name))
    }

    /// The field `name`.
    pub(crate) fn get(&self, name: &str) -> Self {
        Self::new(tree::at(self.value, &[name]), self.path.child(name))
    }

    /// The items of a list, none when there is no list.
    pub(crate) fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let path = self.path.clone();
        tree::list(self.value, &[])
            .iter()
            .enumerate()
            .map(move |(i, item)| Self::new(item, path.index(i)))
    }

    /// The entries of a map, each at its key; none when there is no map.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let path = self.path.clone();
        tree::entries(self.value, &[])
            .map(move |(key, value)| (key.as_str(), Self::new(value, path.key(key))))
    }

    /// The text, empty when there is none.
    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number, if it is one.
    pub(crate) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The flag, false when there is none.
    pub(crate) fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// How many items or entries there are.
    pub(crate) fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// Whether the field is there, empty or not.
    pub(crate) fn is_present(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether the field is absent or empty.
    pub(crate) fn is_unset(&self) -> bool {
        tree::is_unset(self.value)
    }

    /// "Required value" when there is no text; true when there is.
    pub(crate) fn required_text(&self, errors: &mut Errors) -> bool {
        let there = !self.text().is_empty();
        if !there {
            errors.push(FieldError::required(&self.path, ""));
        }
        there
    }

    /// "Invalid value" of this field's own value.
    pub(crate) fn invalid(&self, detail: impl Into<String>, errors: &mut Errors) {
        errors.push(FieldError::invalid(&self.path, self.value.clone(), detail));
    }

    /// "Forbidden".
    pub(crate) fn forbidden(&self, detail: &str, errors: &mut Errors) {
        errors.push(FieldError::forbidden(&self.path, detail));
    }

    /// "Required value" with a reason.
    pub(crate) fn required(&self, detail: impl Into<String>, errors: &mut Errors) {
        errors.push(FieldError::required(&self.path, detail));
    }

    /// "Duplicate value" of this field's own value.
    pub(crate) fn duplicate(&self, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.path, self.value.clone()));
    }

    /// Forbids the field when it is there.
    pub(crate) fn forbid(&self, detail: &str, errors: &mut Errors) {
        if self.is_present() {
            self.forbidden(detail, errors);
        }
    }

    /// The text must be one of `known`, or absent.
    pub(crate) fn one_of(&self, known: &[&str], errors: &mut Errors) {
        if self.is_present() && !known.contains(&self.text()) {
            errors.push(FieldError::not_supported(&self.path, self.text(), known));
        }
    }

    /// The text must be there and one of `known`.
    pub(crate) fn required_one_of(&self, known: &[&str], errors: &mut Errors) {
        if self.required_text(errors) {
            self.one_of(known, errors);
        }
    }

    /// The number, if there is one, must lie in `range`.
    pub(crate) fn in_range(&self, range: std::ops::RangeInclusive<i64>, errors: &mut Errors) {
        if let Some(number) = self.int()
            && !range.contains(&number)
        {
            let detail = format!(
                "must be between {} and {}, inclusive",
                range.start(),
                range.end()
            );
            self.invalid(detail, errors);
        }
    }

    /// The number, if there is one, must not be negative.
    pub(crate) fn non_negative(&self, errors: &mut Errors) {
        super::non_negative(self.value, &self.path, errors);
    }

    /// Adds what the name check `check` says about the text.
    pub(crate) fn named(&self, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
        sentences(self.text(), &self.path, check(self.text()), errors);
    }

    /// As [`Place::named`], when there is a text.
    pub(crate) fn named_if_set(&self, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
        if !self.text().is_empty() {
            self.named(check, errors);
        }
    }

    /// The text must be a path below where it is used: relative, without `..`.
    pub(crate) fn descending_path(&self, errors: &mut Errors) {
        if self.text().starts_with('/') {
            self.invalid("must be a relative path", errors);
        }
        self.no_backsteps(errors);
    }

    /// The text must not step back with `..`.
    pub(crate) fn no_backsteps(&self, errors: &mut Errors) {
        if self.text().split('/').any(|part| part == "..") {
            self.invalid("must not contain '..'", errors);
        }
    }

    /// As [`Place::descending_path`], and no name that starts with `..`.
    pub(crate) fn non_reserved_path(&self, errors: &mut Errors) {
        self.descending_path(errors);
        let text = self.text();
        if text.starts_with("..") && !text.starts_with("../") && text != ".." {
            self.invalid("must not start with '..'", errors);
        }
    }

    /// The text must be an address.
    pub(crate) fn ip(&self, errors: &mut Errors) {
        super::ip(self.text(), &self.path, errors);
    }

    /// A port's number or name.
    pub(crate) fn port_number_or_name(&self, errors: &mut Errors) {
        match self.value {
            Value::String(_) => self.named(proto_api::names::port_name, errors),
            _ => super::port_number(self.value, &self.path, errors),
        }
    }
}
