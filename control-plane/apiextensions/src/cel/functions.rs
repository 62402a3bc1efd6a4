//! The function libraries: CEL's own, its extensions for texts and lists, and Kubernetes'.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proto_api::names;
use proto_api::quantity::{Amount, Quantity};
use regex::Regex;

use super::eval::{no_overload, overflow};
use super::kubernetes::{cidr, is_normalizing, kubernetes, semver};
use super::value::Value;
use super::{Budget, CelError};
use crate::structural::{duration_nanoseconds, format_holds};

/// The value of a type's name.
pub(super) fn type_named(name: &str) -> Option<Value> {
    super::TYPES
        .into_iter()
        .find(|own| *own == name)
        .map(Value::Type)
}

/// Calls `name`; of a method the first value is what it is called on.
pub(super) fn call(
    name: &str,
    method: bool,
    values: &[Value],
    budget: &mut Budget,
) -> Result<Value, CelError> {
    if let (true, [Value::Opaque(of), args @ ..]) = (method, values) {
        let found = of.call(name, args, budget);
        return found.unwrap_or_else(|| Err(no_overload(name, values)));
    }
    let looked_at: u64 = values.iter().map(Value::size).sum();
    budget.spend(looked_at / 10)?;
    let found = match method {
        true => texts(name, values)?
            .or(lists(name, values)?)
            .or(times(name, values))
            .or(kubernetes(name, values)?)
            .or(optionals(name, values)?)
            .or(patterns(name, values, budget)?),
        false => conversions(name, values)?
            .or(makers(name, values)?)
            .or(sets(name, values))
            .or(patterns(name, values, budget)?),
    };
    found.ok_or_else(|| no_overload(name, values))
}

pub(super) type Found = Result<Option<Value>, CelError>;

pub(super) fn fault<T>(text: impl Into<String>) -> Result<T, CelError> {
    Err(CelError::Value(text.into()))
}

fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

pub(super) fn shift(at: Timestamp, nanoseconds: i64) -> Result<Value, CelError> {
    let by = SignedDuration::from_nanos(nanoseconds);
    at.checked_add(by)
        .map(Value::Timestamp)
        .map_err(|_range| overflow())
}

pub(super) fn add(a: Value, b: Value) -> Result<Value, CelError> {
    match (&a, &b) {
        (Value::Int(x), Value::Int(y)) => x.checked_add(*y).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(x), Value::Uint(y)) => x.checked_add(*y).map(Value::Uint).ok_or_else(overflow),
        (Value::Double(x), Value::Double(y)) => Ok(Value::Double(x + y)),
        (Value::Text(x), Value::Text(y)) => Ok(Value::text(format!("{x}{y}"))),
        (Value::Bytes(x), Value::Bytes(y)) => Ok(Value::Bytes([&**x, &**y].concat().into())),
        (Value::List(x), Value::List(y)) => {
            Ok(Value::list(x.iter().chain(y.iter()).cloned().collect()))
        }
        (Value::Duration(x), Value::Duration(y)) => {
            x.checked_add(*y).map(Value::Duration).ok_or_else(overflow)
        }
        (Value::Timestamp(at), Value::Duration(by))
        | (Value::Duration(by), Value::Timestamp(at)) => shift(*at, *by),
        _ => Err(no_overload("_+_", &[a, b])),
    }
}

fn conversions(name: &str, values: &[Value]) -> Found {
    let [value] = values else {
        return Ok(None);
    };
    let made = match (name, value) {
        ("size", Value::Text(text)) => count(text.chars().count()),
        ("size", Value::Bytes(bytes)) => count(bytes.len()),
        ("size", Value::List(items)) => count(items.len()),
        ("size", Value::Map(fields)) => count(fields.len()),
        ("dyn", value) => value.clone(),
        ("type", value) => Value::Type(value.type_name()),
        ("bool", Value::Bool(_)) => value.clone(),
        ("bool", Value::Text(text)) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Value::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Value::Bool(false),
            _ => {
                return fault(format!(
                    "type conversion error from 'string' to 'bool': {text}"
                ));
            }
        },
        ("bytes", Value::Text(text)) => Value::Bytes(text.as_bytes().into()),
        ("bytes", Value::Bytes(_)) => value.clone(),
        ("string", value) => match printed(value) {
            Some(text) => Value::text(text),
            None => return Ok(None),
        },
        ("duration", Value::Text(text)) => match duration_nanoseconds(text) {
            Some(n) => Value::Duration(n),
            None => {
                return fault(format!(
                    "type conversion error from 'string' to 'duration': {text}"
                ));
            }
        },
        ("duration", Value::Duration(_)) | ("timestamp", Value::Timestamp(_)) => value.clone(),
        ("timestamp", Value::Text(text)) => match text.parse() {
            Ok(at) => Value::Timestamp(at),
            Err(_) => {
                return fault(format!(
                    "type conversion error from 'string' to 'timestamp': {text}"
                ));
            }
        },
        _ => return numbers(name, value),
    };
    Ok(Some(made))
}

fn numbers(name: &str, value: &Value) -> Found {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked before"
    )]
    let made = match (name, value) {
        ("int", Value::Int(_)) | ("uint", Value::Uint(_)) | ("double", Value::Double(_)) => {
            value.clone()
        }
        ("int", Value::Uint(n)) => Value::Int(i64::try_from(*n).map_err(|_range| overflow())?),
        ("int", Value::Double(n)) if n.abs() < 9.2e18 => Value::Int(n.trunc() as i64),
        ("int", Value::Timestamp(at)) => Value::Int(at.as_second()),
        ("int", Value::Text(text)) => match text.parse() {
            Ok(n) => Value::Int(n),
            Err(_) => {
                return fault(format!(
                    "type conversion error from 'string' to 'int': {text}"
                ));
            }
        },
        ("uint", Value::Int(n)) => Value::Uint(u64::try_from(*n).map_err(|_range| overflow())?),
        ("uint", Value::Text(text)) => match text.parse() {
            Ok(n) => Value::Uint(n),
            Err(_) => {
                return fault(format!(
                    "type conversion error from 'string' to 'uint': {text}"
                ));
            }
        },
        ("double", Value::Text(text)) => match text.parse() {
            Ok(n) => Value::Double(n),
            Err(_) => {
                return fault(format!(
                    "type conversion error from 'string' to 'double': {text}"
                ));
            }
        },
        ("double", Value::Int(_) | Value::Uint(_)) => {
            Value::Double(value.number().unwrap_or_default())
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

pub(super) fn printed(value: &Value) -> Option<String> {
    Some(match value {
        Value::Text(text) => text.as_ref().to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Timestamp(at) => at.to_string(),
        #[expect(
            clippy::cast_precision_loss,
            reason = "printed in seconds, as CEL does"
        )]
        Value::Duration(n) => format!("{}s", *n as f64 / 1e9),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(ip, prefix) => format!("{ip}/{prefix}"),
        Value::Quantity(quantity) => quantity.to_string(),
        _ => return None,
    })
}

/// The formats that have a name.
const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// Functions that make Kubernetes' values.
fn makers(name: &str, values: &[Value]) -> Found {
    let made = match (name, values) {
        ("quantity", [Value::Text(text)]) => match text.parse::<Amount>() {
            Ok(_) => Value::Quantity(Quantity(text.as_ref().to_owned())),
            Err(error) => return fault(error.to_string()),
        },
        ("isQuantity", [Value::Text(text)]) => Value::Bool(text.parse::<Amount>().is_ok()),
        ("ip", [Value::Text(text)]) => match text.parse() {
            Ok(ip) => Value::Ip(ip),
            Err(_) => return fault(format!("IP Address {text:?} parse error")),
        },
        ("isIP", [Value::Text(text)]) => Value::Bool(text.parse::<IpAddr>().is_ok()),
        ("ip.isCanonical", [Value::Text(text)]) => Value::Bool(
            text.parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_string() == **text),
        ),
        ("cidr", [Value::Text(text)]) => match cidr(text) {
            Some((ip, prefix)) => Value::Cidr(ip, prefix),
            None => {
                return fault(format!(
                    "network address parse error during conversion from string: {text}"
                ));
            }
        },
        ("isCIDR", [Value::Text(text)]) => Value::Bool(cidr(text).is_some()),
        ("semver", [Value::Text(text), rest @ ..]) => match semver(text, is_normalizing(rest)) {
            Some(version) => version,
            None => return fault(format!("invalid semver: {text}")),
        },
        ("isSemver", [Value::Text(text), rest @ ..]) => {
            Value::Bool(semver(text, is_normalizing(rest)).is_some())
        }
        ("isURL", [Value::Text(text)]) => Value::Bool(format_holds("uri", text)),
        ("url", [Value::Text(text)]) if format_holds("uri", text) => Value::text(text),
        ("url", [Value::Text(text)]) => {
            return fault(format!(
                "URL parse error during conversion from string: {text}"
            ));
        }
        ("jsonpatch.escapeKey", [Value::Text(text)]) => {
            Value::text(text.replace('~', "~0").replace('/', "~1"))
        }
        ("optional.of", [value]) => Value::Optional(Some(Arc::new(value.clone()))),
        ("optional.none", []) => Value::Optional(None),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = matches!(value, Value::Null | Value::Bool(false) | Value::Int(0))
                || (value.size() == 0);
            Value::Optional((!zero).then(|| Arc::new(value.clone())))
        }
        ("format.dns1123LabelPrefix" | "format.dns1123SubdomainPrefix", [])
        | ("format.dns1035LabelPrefix" | "format.dns1123Label" | "format.dns1123Subdomain", [])
        | ("format.dns1035Label", [])
        | ("format.qualifiedName" | "format.labelValue" | "format.uri" | "format.uuid", [])
        | ("format.byte" | "format.date" | "format.datetime", []) => Value::text(name),
        ("format.named", [Value::Text(own)]) => {
            let known = FORMATS.contains(&&**own);
            let named = || Arc::new(Value::text(format!("format.{own}")));
            Value::Optional(known.then(named))
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

pub(super) fn quantities(name: &str, quantity: &Quantity, rest: &[Value]) -> Found {
    let amount = |value: &Value| match value {
        Value::Quantity(quantity) => quantity.parse().ok(),
        Value::Int(n) => n.to_string().parse::<Amount>().ok(),
        _ => None,
    };
    let Ok(own) = quantity.parse() else {
        return fault("quantity cannot be read");
    };
    let made = match (name, rest) {
        ("isInteger", []) => Value::Bool(own.nano() % 1_000_000_000 == 0),
        ("asInteger", []) if own.nano() % 1_000_000_000 == 0 => Value::Int(own.value()),
        ("asInteger", []) => return fault("cannot convert value to integer"),
        #[expect(clippy::cast_precision_loss, reason = "approximate by name")]
        ("asApproximateFloat", []) => Value::Double(own.nano() as f64 / 1e9),
        ("sign", []) => Value::Int(i64::try_from(own.nano().signum()).unwrap_or_default()),
        (_, [other]) => {
            let Some(other) = amount(other) else {
                return Ok(None);
            };
            match name {
                "isLessThan" => Value::Bool(own < other),
                "isGreaterThan" => Value::Bool(own > other),
                "compareTo" => Value::Int(i64::from(own.cmp(&other) as i8)),
                "add" => Value::Quantity(Quantity::from(own.plus(other))),
                "sub" => Value::Quantity(Quantity::from(own.minus(other))),
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

/// A prefix of a name may end with a dash.
fn stem(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(stem) if !stem.is_empty() => format!("{stem}a"),
        _ => text.to_owned(),
    }
}

fn optionals(name: &str, values: &[Value]) -> Found {
    let made = match (name, values) {
        ("hasValue", [Value::Optional(of)]) => Value::Bool(of.is_some()),
        ("value", [Value::Optional(of)]) => match of {
            // A format is named by an optional text, whose value validates.
            Some(value) => value.as_ref().clone(),
            None => return fault("optional.none() dereference"),
        },
        ("orValue", [Value::Optional(of), other]) => of
            .as_ref()
            .map_or_else(|| other.clone(), |value| value.as_ref().clone()),
        ("or", [first @ Value::Optional(of), other]) => {
            if of.is_some() {
                first.clone()
            } else {
                other.clone()
            }
        }
        ("validate", [Value::Text(format), Value::Text(text)]) => {
            let broken = match format.strip_prefix("format.") {
                Some("dns1123LabelPrefix") => names::dns_label(&stem(text)),
                Some("dns1123SubdomainPrefix") => names::dns_subdomain(&stem(text)),
                Some("dns1035LabelPrefix") => names::dns_1035_label(&stem(text)),
                Some("dns1123Label") => names::dns_label(text),
                Some("dns1123Subdomain") => names::dns_subdomain(text),
                Some("dns1035Label") => names::dns_1035_label(text),
                Some("qualifiedName") => names::qualified_name(text),
                Some("labelValue") => names::label_value(text),
                Some(own) if format_holds(own, text) => Vec::new(),
                Some(own) => vec![format!("invalid {own}")],
                None => return Ok(None),
            };
            if broken.is_empty() {
                Value::Optional(None)
            } else {
                let broken = broken.iter().map(Value::text).collect();
                Value::Optional(Some(Arc::new(Value::list(broken))))
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn texts(name: &str, values: &[Value]) -> Found {
    let [Value::Text(text), rest @ ..] = values else {
        return Ok(None);
    };
    let chars: Vec<char>;
    let made = match (name, rest) {
        ("size", []) => count(text.chars().count()),
        ("contains", [Value::Text(other)]) => Value::Bool(text.contains(&**other)),
        ("startsWith", [Value::Text(other)]) => Value::Bool(text.starts_with(&**other)),
        ("endsWith", [Value::Text(other)]) => Value::Bool(text.ends_with(&**other)),
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("trim", []) => Value::text(text.trim()),
        ("reverse", []) => Value::text(text.chars().rev().collect::<String>()),
        ("charAt", [Value::Int(at)]) => {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            match text.chars().nth(at) {
                Some(c) => Value::text(c.to_string()),
                None if at == text.chars().count() => Value::text(""),
                None => return fault(format!("index out of range: {at}")),
            }
        }
        ("indexOf", [Value::Text(other)]) => position(text, text.find(&**other)),
        ("lastIndexOf", [Value::Text(other)]) => position(text, text.rfind(&**other)),
        ("replace", [Value::Text(from), Value::Text(to)]) => Value::text(text.replace(&**from, to)),
        ("replace", [Value::Text(from), Value::Text(to), Value::Int(n)]) => {
            match usize::try_from(*n) {
                Ok(n) => Value::text(text.replacen(&**from, to, n)),
                Err(_) => Value::text(text.replace(&**from, to)),
            }
        }
        ("split", [Value::Text(by)]) => Value::list(text.split(&**by).map(Value::text).collect()),
        ("substring", [Value::Int(from), rest @ ..]) => {
            chars = text.chars().collect();
            let end = match rest {
                [] => chars.len(),
                [Value::Int(end)] => usize::try_from(*end).unwrap_or(usize::MAX),
                _ => return Ok(None),
            };
            let from = usize::try_from(*from).unwrap_or(usize::MAX);
            match chars.get(from..end) {
                Some(part) => Value::text(part.iter().collect::<String>()),
                None => {
                    return fault(format!(
                        "invalid substring range. start: {from}, end: {end}"
                    ));
                }
            }
        }
        ("format", [Value::List(args)]) => Value::text(formatted(text, args)?),
        _ => return Ok(None),
    };
    Ok(Some(made))
}

/// A byte position as a position of characters; -1 for none.
fn position(text: &str, at: Option<usize>) -> Value {
    at.map_or(Value::Int(-1), |at| count(text[..at].chars().count()))
}

/// `%s`, `%d`, `%f`, `%%`.
fn formatted(format: &str, args: &[Value]) -> Result<String, CelError> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = args.next() else {
            return fault("format: too few arguments");
        };
        match (verb, value) {
            ('s' | 'd', value) => out.push_str(&shown(value)),
            ('f', value) => match value.number() {
                Some(n) => out.push_str(&format!("{n:.6}")),
                None => return fault("format: %f needs a number"),
            },
            _ => return fault(format!("format: unknown verb %{verb}")),
        }
    }
    Ok(out)
}

fn shown(value: &Value) -> String {
    match value {
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}: {}", shown(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        value => printed(value).unwrap_or_else(|| "null".to_owned()),
    }
}

fn lists(name: &str, values: &[Value]) -> Found {
    if let ("size", [Value::Map(fields)]) = (name, values) {
        return Ok(Some(count(fields.len())));
    }
    let [Value::List(items), rest @ ..] = values else {
        return Ok(None);
    };
    let extreme = |wanted| {
        let mut items = items.iter();
        let first = items.next().cloned();
        items.fold(first, |best, item| match best {
            Some(best) if item.order(&best) != Some(wanted) => Some(best),
            _ => Some(item.clone()),
        })
    };
    let made = match (name, rest) {
        ("size", []) => count(items.len()),
        ("isSorted", []) => Value::Bool(
            items
                .windows(2)
                .all(|two| two[0].order(&two[1]).is_some_and(|o| o.is_le())),
        ),
        ("sum", []) => {
            let mut items = items.iter().cloned();
            let first = items.next().unwrap_or(Value::Int(0));
            return items.try_fold(first, add).map(Some);
        }
        ("min", []) => match extreme(std::cmp::Ordering::Less) {
            Some(value) => value,
            None => return fault("min called on empty list"),
        },
        ("max", []) => match extreme(std::cmp::Ordering::Greater) {
            Some(value) => value,
            None => return fault("max called on empty list"),
        },
        ("indexOf", [value]) => items
            .iter()
            .position(|i| i.same(value))
            .map_or(Value::Int(-1), count),
        ("lastIndexOf", [value]) => items
            .iter()
            .rposition(|i| i.same(value))
            .map_or(Value::Int(-1), count),
        ("join", rest) => {
            let by = match rest {
                [] => "",
                [Value::Text(by)] => by,
                _ => return Ok(None),
            };
            let parts: Option<Vec<String>> = items.iter().map(printed).collect();
            match parts {
                Some(parts) => Value::text(parts.join(by)),
                None => return Ok(None),
            }
        }
        ("first", []) => Value::Optional(items.first().cloned().map(Arc::new)),
        ("last", []) => Value::Optional(items.last().cloned().map(Arc::new)),
        _ => return Ok(None),
    };
    Ok(Some(made))
}

/// `UTC`, an offset such as `-01:30`, or a name that this machine knows.
fn zone_named(text: &str) -> Option<jiff::tz::TimeZone> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let Some((hours, minutes)) = digits.split_once(':') else {
        return match text {
            "UTC" => Some(jiff::tz::TimeZone::UTC),
            name => jiff::tz::TimeZone::get(name).ok(),
        };
    };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let in_range = (0..=23).contains(&hours) && (0..=59).contains(&minutes);
    let seconds = sign * (hours * 3600 + minutes * 60);
    let offset = in_range.then(|| jiff::tz::Offset::from_seconds(seconds).ok())?;
    offset.map(jiff::tz::TimeZone::fixed)
}

fn times(name: &str, values: &[Value]) -> Option<Value> {
    match values {
        [Value::Duration(n)] => Some(Value::Int(match name {
            "getHours" => n / 3_600_000_000_000,
            "getMinutes" => n / 60_000_000_000,
            "getSeconds" => n / 1_000_000_000,
            "getMilliseconds" => n / 1_000_000,
            _ => return None,
        })),
        [Value::Timestamp(at), rest @ ..] => {
            let zone = match rest {
                [] => jiff::tz::TimeZone::UTC,
                [Value::Text(zone)] => zone_named(zone)?,
                _ => return None,
            };
            let at = at.to_zoned(zone);
            Some(Value::Int(match name {
                "getFullYear" => at.year().into(),
                "getMonth" => i64::from(at.month()) - 1,
                "getDate" => at.day().into(),
                "getDayOfMonth" => i64::from(at.day()) - 1,
                "getDayOfWeek" => at.weekday().to_sunday_zero_offset().into(),
                "getDayOfYear" => i64::from(at.day_of_year()) - 1,
                "getHours" => at.hour().into(),
                "getMinutes" => at.minute().into(),
                "getSeconds" => at.second().into(),
                "getMilliseconds" => at.millisecond().into(),
                _ => return None,
            }))
        }
        _ => None,
    }
}

fn sets(name: &str, values: &[Value]) -> Option<Value> {
    if let ("math.greatest" | "math.least", [Value::List(_)]) = (name, values) {
        let own = if name == "math.greatest" {
            "max"
        } else {
            "min"
        };
        return lists(own, values).ok().flatten();
    }
    if matches!(name, "math.greatest" | "math.least") {
        let own = if name == "math.greatest" {
            "max"
        } else {
            "min"
        };
        return lists(own, &[Value::list(values.to_vec())]).ok().flatten();
    }
    let [Value::List(a), Value::List(b)] = values else {
        return None;
    };
    let has = |list: &[Value], value: &Value| list.iter().any(|own| own.same(value));
    Some(Value::Bool(match name {
        "sets.contains" => b.iter().all(|value| has(a, value)),
        "sets.intersects" => b.iter().any(|value| has(a, value)),
        "sets.equivalent" => {
            b.iter().all(|value| has(a, value)) && a.iter().all(|value| has(b, value))
        }
        _ => return None,
    }))
}

/// Regular expressions; compiling one is paid by its length.
fn patterns(name: &str, values: &[Value], budget: &mut Budget) -> Found {
    let ([Value::Text(text), Value::Text(pattern), ..], "matches" | "find" | "findAll") =
        (values, name)
    else {
        return Ok(None);
    };
    let (length, work) = (pattern.len() as u64 + 1, text.len() as u64 / 4 + 1);
    budget.spend(length.saturating_mul(work) / 4 + length)?;
    let regex = match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => return fault(format!("error parsing regexp: {error}")),
    };
    Ok(Some(match name {
        "matches" => Value::Bool(regex.is_match(text)),
        "find" => Value::text(regex.find(text).map_or("", |found| found.as_str())),
        _ => {
            let max = match values.get(2) {
                Some(Value::Int(max)) => usize::try_from(*max).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = regex.find_iter(text).take(max);
            Value::list(found.map(|found| Value::text(found.as_str())).collect())
        }
    }))
}
