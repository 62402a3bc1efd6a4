//! Field selectors: `metadata.name=a,status.phase!=Running`. Changes with their grammar.

use std::fmt;

use super::SelectorError;

/// All requirements must hold; none means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    requirements: Vec<FieldRequirement>,
}

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Path of the field: `spec.nodeName`.
    pub field: String,
    pub value: String,
    /// `=` and `==` or, when false, `!=`.
    pub equal: bool,
}

impl Fields {
    /// Parses `a=b,c!=d`; a backslash escapes backslash, comma and equals sign in values. Empty
    /// terms are skipped.
    ///
    /// # Errors
    /// [`SelectorError::Fields`] for a term without an operator or a stray escape.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in terms(text) {
            let error = || SelectorError::Fields {
                selector: text.to_owned(),
                term: term.to_owned(),
            };
            requirements.push(requirement(term).ok_or_else(error)?);
        }
        Ok(Self { requirements })
    }

    /// The terms; which fields a kind supports is its strategy's decision.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object is selected; `value` gives a field's text, nothing counts as empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|wanted| {
            (value(&wanted.field).unwrap_or_default() == wanted.value) == wanted.equal
        })
    }

    /// The value the selector demands of `field`, if it demands one: lets a list by name become a
    /// get.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let mut matching = self
            .requirements
            .iter()
            .filter(|one| one.equal && one.field == field);
        matching.next().map(|one| one.value.as_str())
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let operator = if one.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}", one.field)?;
            for c in one.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Option<FieldRequirement> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==") {
        (true, value)
    } else {
        (true, rest.strip_prefix('=')?)
    };
    Some(FieldRequirement {
        field: field.to_owned(),
        value: unescape(value)?,
        equal,
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}
