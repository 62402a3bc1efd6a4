//! Label selectors, as text (`app in (a,b),!canary`) and as struct. Changes with their grammar.

use std::collections::BTreeMap;
use std::fmt;

use super::SelectorError;
use crate::names;
use crate::types::meta::v1::LabelSelector;

/// All requirements must hold; none means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    requirements: Vec<Requirement>,
}

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// One or more for the set and comparison operators, none for the existence operators; sorted.
    pub values: Vec<String>,
}

/// What a requirement demands of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Requirement {
    /// Whether a label's value, or its absence, satisfies the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        match (self.operator, value) {
            (Operator::In, Some(value)) => listed(value),
            (Operator::NotIn, Some(value)) => !listed(value),
            (Operator::NotIn | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            (Operator::GreaterThan, Some(value)) => self.compare(value, |a, b| a > b),
            (Operator::LessThan, Some(value)) => self.compare(value, |a, b| a < b),
            (Operator::DoesNotExist, Some(_))
            | (
                Operator::In | Operator::Exists | Operator::GreaterThan | Operator::LessThan,
                None,
            ) => false,
        }
    }

    fn compare(&self, value: &str, holds: impl Fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        match (value.parse(), bound) {
            (Ok(value), Some(bound)) => holds(value, bound),
            _ => false,
        }
    }
}

impl Labels {
    /// Parses the text of a `labelSelector` parameter; empty selects everything.
    ///
    /// # Errors
    /// [`SelectorError::Labels`] in upstream's words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser {
            tokens: tokens(text),
            at: 0,
        };
        let requirements = parser.requirements().map_err(SelectorError::Labels)?;
        Ok(Self { requirements })
    }

    /// From a selector struct; an empty struct selects everything. (An absent one selects nothing:
    /// the caller's case.)
    ///
    /// # Errors
    /// [`SelectorError`] for an unknown operator, or values that do not go with the operator.
    pub fn from_struct(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in &selector.match_labels {
            requirements.push(requirement(key, Operator::In, vec![value.clone()])?);
        }
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            requirements.push(requirement(
                &expression.key,
                operator,
                expression.values.clone(),
            )?);
        }
        Ok(Self { requirements })
    }

    /// From a plain map (`spec.selector` of a Service): every entry must be equal.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self {
            requirements: map.iter().map(requirement).collect(),
        }
    }

    /// The terms.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object is selected; `value` gives a label's value.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|one| one.matches(value(&one.key)))
    }

    /// Whether an object with these labels is selected.
    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.requirements.iter().enumerate() {
            if at != 0 {
                f.write_str(",")?;
            }
            let (key, values) = (&one.key, one.values.join(","));
            match (one.operator, one.values.len()) {
                (Operator::In, 1) => write!(f, "{key}={values}")?,
                (Operator::In, _) => write!(f, "{key} in ({values})")?,
                (Operator::NotIn, 1) => write!(f, "{key}!={values}")?,
                (Operator::NotIn, _) => write!(f, "{key} notin ({values})")?,
                (Operator::Exists, _) => write!(f, "{key}")?,
                (Operator::DoesNotExist, _) => write!(f, "!{key}")?,
                (Operator::GreaterThan, _) => write!(f, "{key}>{values}")?,
                (Operator::LessThan, _) => write!(f, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

fn requirement(
    key: &str,
    operator: Operator,
    mut values: Vec<String>,
) -> Result<Requirement, SelectorError> {
    let refuse = |reason: String| Err(SelectorError::Labels(reason));
    if let Some(problem) = names::qualified_name(key).first() {
        return refuse(format!("key: Invalid value: \"{key}\": {problem}"));
    }
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            return refuse(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                    .to_owned(),
            );
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            return refuse(format!(
                "values: Invalid value: [{}]: values set must be empty for exists and does not exist",
                values.join(" ")
            ));
        }
        Operator::GreaterThan | Operator::LessThan
            if values.len() != 1 || values[0].parse::<i64>().is_err() =>
        {
            return refuse(format!(
                "values[0]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer",
                values.join(",")
            ));
        }
        _ => {}
    }
    for (at, value) in values.iter().enumerate() {
        if let Some(problem) = names::label_value(value).first() {
            return refuse(format!(
                "values[{at}][{key}]: Invalid value: \"{value}\": {problem}"
            ));
        }
    }
    values.sort();
    values.dedup();
    Ok(Requirement {
        key: key.to_owned(),
        operator,
        values,
    })
}

/// Symbols and words; the end is an empty token.
fn tokens(text: &str) -> Vec<&str> {
    let symbol = |c: char| "()!,=<>".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if symbol(first) {
            ["==", "!="]
                .iter()
                .find(|two| rest.starts_with(**two))
                .map_or(1, |two| two.len())
        } else {
            rest.find(|c: char| symbol(c) || c.is_whitespace())
                .unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                "" => return Ok(requirements),
                "!" => {}
                token if is_word(token) => {}
                token => {
                    return Err(format!(
                        "found '{token}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
            requirements.push(self.requirement()?);
            match self.next() {
                "" => return Ok(requirements),
                "," => {
                    let after = self.peek();
                    if after != "!" && !is_word(after) {
                        return Err(format!("found '{after}', expected: identifier after ','"));
                    }
                }
                token => {
                    return Err(format!("found '{token}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == "!";
        if negated {
            self.next();
        }
        let key = self.next();
        if !is_word(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if negated {
            return make(key, Operator::DoesNotExist, Vec::new());
        }
        let (operator, values) = match self.peek() {
            "" | "," => return make(key, Operator::Exists, Vec::new()),
            "=" | "==" => (Operator::In, self.value()),
            "!=" => (Operator::NotIn, self.value()),
            ">" => (Operator::GreaterThan, self.value()),
            "<" => (Operator::LessThan, self.value()),
            "in" => (Operator::In, self.set()?),
            "notin" => (Operator::NotIn, self.set()?),
            token => {
                return Err(format!(
                    "found '{token}', expected: '=', '!=', '==', 'in', notin'"
                ));
            }
        };
        make(key, operator, values)
    }

    /// The value after an operator; an absent one is the empty string.
    fn value(&mut self) -> Vec<String> {
        self.next();
        match self.peek() {
            "" | "," => vec![String::new()],
            _ => vec![self.next().to_owned()],
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.next();
        match self.next() {
            "(" => {}
            token => return Err(format!("found '{token}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            // An empty value stands between two commas or a comma and a parenthesis.
            match self.peek() {
                "," | ")" => values.push(String::new()),
                token if is_word(token) => values.push(self.next().to_owned()),
                token => {
                    return Err(format!("found '{token}', expected: ',', ')' or identifier"));
                }
            }
            match self.next() {
                ")" => return Ok(values),
                "," => {}
                token => return Err(format!("found '{token}', expected: ',' or ')'")),
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(['(', ')', '!', ',', '=', '<', '>'])
}

fn make(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, String> {
    requirement(key, operator, values).map_err(|error| match error {
        SelectorError::Labels(reason) => reason,
        other => other.to_string(),
    })
}
