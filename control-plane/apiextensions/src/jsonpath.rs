//! The subset of JSONPath that definitions use: `.spec.replicas`, `.status.conditions[0].type`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.spec['a.b']`, `.items[*].name`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at a path compares to a constant.
    Where(JsonPath, Compare, Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no JSONPath of the supported subset: {why}")]
pub struct JsonPathError {
    path: String,
    why: &'static str,
}

impl JsonPath {
    /// Parses `text`, which begins with a dot or a bracket.
    ///
    /// # Errors
    /// It is outside the subset.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let fault = |why| JsonPathError {
            path: text.to_owned(),
            why,
        };
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        if !rest.starts_with(['.', '[']) {
            return Err(fault("it must begin with a dot"));
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).map_err(fault)?;
            steps.extend(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// The field names, when the path is nothing but fields.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<&str>> {
        let field = |step: &Step| match step {
            Step::Field(name) => Some(name.clone()),
            Step::Index(_) | Step::All | Step::Where(..) => None,
        };
        if !self.steps.iter().all(|step| field(step).is_some()) {
            return None;
        }
        let names = self.steps.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Index(_) | Step::All | Step::Where(..) => None,
        });
        Some(names.collect())
    }

    /// The values at the path, in order.
    #[must_use]
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found
                .into_iter()
                .flat_map(|value| step.below(value))
                .collect();
        }
        found
    }

    /// The first value at the path.
    #[must_use]
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }
}

impl Step {
    fn below<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                let at = usize::try_from(at).ok();
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            (Self::Where(path, compare, constant), Value::Array(items)) => items
                .iter()
                .filter(|item| {
                    path.first(item)
                        .is_some_and(|value| compare.holds(value, constant))
                })
                .collect(),
            (Self::Index(_) | Self::All | Self::Where(..), _) => Vec::new(),
        }
    }
}

impl Compare {
    fn holds(self, a: &Value, b: &Value) -> bool {
        let order = match (a.as_f64(), b.as_f64(), a.as_str(), b.as_str()) {
            (Some(a), Some(b), _, _) => a.partial_cmp(&b),
            (_, _, Some(a), Some(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match self {
            Self::Equal => a == b || order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Unequal => a != b && !order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

type Parsed<'a, T> = Result<(T, &'a str), &'static str>;

/// One step; a lone dot is none.
fn step(text: &str) -> Parsed<'_, Option<Step>> {
    if text.starts_with("..") {
        return Err("recursive descent is not supported");
    }
    if let Some(rest) = text.strip_prefix('.') {
        let (name, after) = field_name(rest)?;
        let step = match name.as_str() {
            "" => None,
            "*" => Some(Step::All),
            _ => Some(Step::Field(name)),
        };
        return Ok((step, after));
    }
    let inside = text
        .strip_prefix('[')
        .ok_or("a dot or bracket is missing")?;
    let end = closing(inside).ok_or("a bracket is not closed")?;
    let (inside, after) = (&inside[..end], &inside[end + 1..]);
    Ok((Some(bracket(inside.trim())?), after))
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn field_name(text: &str) -> Parsed<'_, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next().ok_or("nothing follows the backslash")?.1),
            '.' | '[' => return Ok((name, &text[at..])),
            c if c.is_whitespace() || "{}()]?@'\"".contains(c) => {
                return Err("an unexpected character");
            }
            c => name.push(c),
        }
    }
    Ok((name, ""))
}

/// Where the bracket that was opened before `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Result<Step, &'static str> {
    if inside == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(inside) {
        return Ok(Step::Field(name));
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    inside
        .parse()
        .map(Step::Index)
        .map_err(|_not_a_number| "neither an index, a name nor a filter")
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        Some(inner.replace("\\'", "'").replace("\\\"", "\""))
    })
}

fn filter_step(filter: &str) -> Result<Step, &'static str> {
    let path = filter.strip_prefix('@').ok_or("a filter begins with @")?;
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::Unequal),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found = OPERATORS.iter().find_map(|(text, compare)| {
        let (path, constant) = path.split_once(text)?;
        Some((path.trim(), *compare, constant.trim()))
    });
    let (path, compare, constant) = found.ok_or("a filter compares with a constant")?;
    let path = JsonPath::parse(path).map_err(|_inner| "the filter's path cannot be read")?;
    let constant = match quoted(constant) {
        Some(text) => Value::String(text),
        None => serde_json::from_str(constant).map_err(|_inner| "the constant cannot be read")?,
    };
    Ok(Step::Where(path, compare, constant))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": "dotted", "hosts": ["x", "y"]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "age": 4},
                {"type": "Synced", "status": "False", "age": 9},
            ]},
        });
        let cases = [
            (".spec.replicas", json!([3])),
            (".spec['a.b']", json!(["dotted"])),
            (r".spec.a\.b", json!(["dotted"])),
            (".spec.hosts[1]", json!(["y"])),
            (".spec.hosts[-1]", json!(["y"])),
            (".spec.hosts[*]", json!(["x", "y"])),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='Synced')].status",
                json!(["False"]),
            ),
            (".status.conditions[?(@.age > 5)].type", json!(["Synced"])),
            (
                ".status.conditions[?(@.type != \"Ready\")].type",
                json!(["Synced"]),
            ),
            (".spec.missing.below", json!([])),
        ];
        for (path, expected) in cases {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["spec", "..spec", ".a[", ".a[?(@.b)]", ".a[x]", ".a{}"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_path_of_fields_tells_them() {
        assert_eq!(
            JsonPath::parse(".spec.replicas").unwrap().fields(),
            Some(vec!["spec", "replicas"])
        );
        assert_eq!(JsonPath::parse(".a[0]").unwrap().fields(), None);
    }
}
