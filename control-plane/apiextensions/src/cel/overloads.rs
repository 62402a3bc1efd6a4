//! The functions that expressions may call: name, form, types.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::types::Type;

/// One form of a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// A method: its first argument is what it is called on.
    pub(super) method: bool,
    pub(super) args: Vec<Type>,
    pub(super) result: Type,
}

/// All forms by name. `functions.txt` has a line for each; capital letters stand for any type.
static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in include_str!("functions.txt").lines() {
        if let Some((name, overload)) = parsed(line) {
            all.entry(name).or_default().push(overload);
        }
    }
    // Comparisons have the same forms.
    for name in ["_<=_", "_>_", "_>=_"] {
        let forms = all.get("_<_").into_iter().flatten();
        let forms = forms.map(|form| Overload {
            method: form.method,
            args: form.args.clone(),
            result: form.result.clone(),
        });
        let forms = forms.collect();
        all.insert(name, forms);
    }
    all
});

/// The forms of function `name`; empty when there is no such function.
pub(super) fn overloads(name: &str) -> &'static [Overload] {
    FUNCTIONS.get(name).map_or(&[], Vec::as_slice)
}

/// Name spaces whose functions are written like methods.
const SPACES: [&str; 8] = [
    "sets.",
    "math.",
    "optional.",
    "format.",
    "strings.",
    "jsonpatch.",
    "ip.",
    "lists.",
];

fn parsed(line: &'static str) -> Option<(&'static str, Overload)> {
    let (head, result) = line.split_once("->")?;
    // The arguments are the last group in parentheses.
    let open = opening(head)?;
    let (name, args) = (&head[..open], head.get(open + 1..head.len() - 1)?);
    let mut types: Vec<Type> = split(args).into_iter().map(named).collect();
    let space = SPACES.iter().any(|space| name.starts_with(space));
    let receiver = name.rfind('.').filter(|_| !space);
    let name = match receiver {
        Some(at) => {
            types.insert(0, named(&name[..at]));
            &name[at + 1..]
        }
        None => name,
    };
    let overload = Overload {
        method: receiver.is_some(),
        args: types,
        result: named(result),
    };
    Some((name, overload))
}

/// Where the last group in parentheses begins.
fn opening(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The parts of `text` between commas outside of parentheses.
fn split(text: &'static str) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(&text[from..]);
    }
    parts
}

fn named(text: &'static str) -> Type {
    let inner = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix(')');
    if let Some(item) = inner("list(") {
        return Type::list(named(item));
    }
    if let Some(of) = inner("opt(") {
        return Type::optional(named(of));
    }
    if let Some([key, value]) = inner("map(").map(split).as_deref() {
        return Type::Map(Arc::new(named(key)), Arc::new(named(value)));
    }
    match text {
        "A" => Type::Var(0),
        "B" => Type::Var(1),
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::Text,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        name => Type::Named(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_function() {
        for line in include_str!("functions.txt").lines() {
            let (name, _) = parsed(line).unwrap();
            assert!(!name.is_empty() && !overloads(name).is_empty(), "{line}");
        }
        let join = &overloads("join")[1];
        assert_eq!(join.args, [Type::list(Type::Text), Type::Text]);
        assert!(join.method && join.result == Type::Text);
        assert!(!overloads("sets.contains")[0].method);
        assert_eq!(overloads("family")[0].args, [Type::Named("net.IP")]);
        assert_eq!(overloads("_[_]").len(), 4);
    }
}
