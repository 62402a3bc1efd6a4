//! The static estimate: what an expression may cost at most, given how large its inputs may be.
//!
//! Expressions are counted as upstream's expanded macros are; declared sizes come from the schema.

use std::sync::Arc;

use super::check::Checked;
use super::types::{Declared, Type};
use super::{Env, Expr, Macro, Node, Op, Value};

/// Looking at one character or byte.
const TRAVERSAL: f64 = 0.1;
/// One character of a regular expression.
const REGEX: f64 = 0.25;
/// A list, a map, a message.
const LIST: u64 = 10;
const MAP: u64 = 30;
const MESSAGE: u64 = 40;
/// One question to the authoriser.
const CHECK: u64 = 350_000;

/// Least and most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Range {
    const ZERO: Self = Self::exactly(0);
    const UNKNOWN: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    const fn exactly(value: u64) -> Self {
        Self {
            min: value,
            max: value,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    const fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    fn by(self, factor: f64) -> Self {
        Self {
            min: scaled(self.min, factor),
            max: scaled(self.max, factor),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; conversions saturate"
)]
fn scaled(value: u64, factor: f64) -> u64 {
    (value as f64 * factor).ceil() as u64
}

/// What is known of one expression.
#[derive(Debug, Clone)]
struct Known {
    cost: Range,
    /// Characters, items or entries, where it is computed.
    size: Option<Range>,
    /// Sizes of the keys and values of what it holds.
    entries: Option<(Range, Range)>,
    /// What it is in the declarations.
    declared: Option<Arc<Declared>>,
    kind: Type,
}

impl Known {
    fn of(cost: Range, kind: Type) -> Self {
        Self {
            cost,
            size: None,
            entries: None,
            declared: None,
            kind,
        }
    }

    fn size(&self) -> Option<Range> {
        self.size
            .or_else(|| {
                let declared = self.declared.as_ref()?;
                Some(Range {
                    min: 0,
                    max: declared.elements_max,
                })
            })
            .or_else(|| self.kind.is_scalar().then_some(Range::exactly(1)))
    }

    fn size_or_unknown(&self) -> Range {
        self.size().unwrap_or(Range::UNKNOWN)
    }
}

/// The most that `expr` may cost.
pub(super) fn estimate(expr: &Expr, env: &Env, checked: &Checked) -> u64 {
    let mut coster = Coster {
        env,
        checked,
        bound: Vec::new(),
    };
    coster.cost(expr).cost.max
}

struct Coster<'a> {
    env: &'a Env,
    checked: &'a Checked,
    /// Variables of macros: what is known of each, without its cost.
    bound: Vec<(&'a str, Known)>,
}

impl<'a> Coster<'a> {
    fn kind(&self, expr: &Expr) -> Type {
        self.checked
            .types
            .get(&expr.id)
            .cloned()
            .unwrap_or(Type::Dyn)
    }

    fn cost(&mut self, expr: &'a Expr) -> Known {
        let kind = self.kind(expr);
        match &expr.node {
            Node::Literal(value) => {
                let mut known = Known::of(Range::ZERO, kind);
                known.size = Some(Range::exactly(length(value)));
                known
            }
            Node::Name(name) => self.name(name, kind),
            Node::Select(of, field) | Node::OptionalSelect(of, field) => {
                let of = self.cost(of);
                let selects = matches!(of.kind, Type::Map(..) | Type::Object(_));
                let mut known = Known::of(of.cost.plus(Range::exactly(u64::from(selects))), kind);
                known.declared = of
                    .declared
                    .and_then(|declared| declared.fields.get(field).cloned());
                known
            }
            // As upstream: the test itself is free.
            Node::Has(of, _) => Known::of(self.cost(of).cost, kind),
            Node::Index(two) | Node::OptionalIndex(two) => {
                let (of, at) = (self.cost(&two[0]), self.cost(&two[1]));
                let mut known = Known::of(of.cost.plus(at.cost).plus(Range::exactly(1)), kind);
                known.size = of.entries.map(|(_, value)| value);
                known.declared = of.declared.and_then(|declared| declared.items.clone());
                known
            }
            Node::List(items) => self.list(items, kind),
            Node::Map(entries) => self.map(entries, kind),
            Node::Struct(_, fields) => {
                let fields = fields.iter().map(|(_, _, value)| self.cost(value).cost);
                let sum = fields.fold(Range::exactly(MESSAGE), Range::plus);
                Known::of(sum, kind)
            }
            Node::Not(of) | Node::Negate(of) => {
                Known::of(self.cost(of).cost.plus(Range::exactly(1)), kind)
            }
            Node::Binary(op, two) => {
                let (a, b) = (self.cost(&two[0]), self.cost(&two[1]));
                binary(*op, &a, &b, kind)
            }
            Node::Condition(three) => {
                let [test, yes, no] = three.each_ref().map(|part| self.cost(part));
                let mut known = Known::of(test.cost.plus(yes.cost.or(no.cost)), kind);
                known.size = Some(yes.size_or_unknown().or(no.size_or_unknown()));
                known.entries = union(yes.entries, no.entries);
                known
            }
            Node::Call(name, of, args) => {
                let target = of.as_deref().map(|of| self.cost(of));
                let args: Vec<Known> = args.iter().map(|arg| self.cost(arg)).collect();
                call(name, target.as_ref(), &args, kind)
            }
            Node::Bind(name, two) => {
                let value = self.cost(&two[0]);
                let before = value.cost.plus(Range::exactly(LIST));
                let mut known = self.within(vec![(name.as_str(), value)], &two[1]);
                known.cost = known.cost.plus(before);
                known
            }
            Node::Macro(Macro::OptMap | Macro::OptFlatMap, of, names, bodies) => {
                self.optional_map(of, names, bodies, kind)
            }
            Node::Macro(macro_kind, of, names, bodies) => {
                self.expand(*macro_kind, of, names, bodies, kind)
            }
        }
    }

    fn name(&self, name: &str, kind: Type) -> Known {
        let bound = self.bound.iter().rev().find(|(own, _)| *own == name);
        if let Some((_, known)) = bound {
            let mut known = known.clone();
            known.cost = Range::exactly(1);
            known.kind = kind;
            return known;
        }
        let mut known = Known::of(Range::exactly(1), kind);
        known.declared = self.env.variables.get(name).cloned();
        known
    }

    fn within(&mut self, bound: Vec<(&'a str, Known)>, body: &'a Expr) -> Known {
        let before = self.bound.len();
        self.bound.extend(bound);
        let known = self.cost(body);
        self.bound.truncate(before);
        known
    }

    fn list(&mut self, items: &'a [Expr], kind: Type) -> Known {
        let mut known = Known::of(Range::exactly(LIST), kind);
        let mut sizes = (!items.is_empty())
            .then_some(())
            .map_or(Range::ZERO, |()| Range {
                min: u64::MAX,
                max: 0,
            });
        for item in items {
            let item = self.cost(item);
            known.cost = known.cost.plus(item.cost);
            sizes = sizes.or(item.size_or_unknown());
        }
        known.size = Some(Range::exactly(count(items.len())));
        known.entries = Some((Range::exactly(1), sizes));
        known
    }

    fn map(&mut self, entries: &'a [(Expr, Expr)], kind: Type) -> Known {
        let mut known = Known::of(Range::exactly(MAP), kind);
        let start = match entries.is_empty() {
            true => Range::ZERO,
            false => Range {
                min: u64::MAX,
                max: 0,
            },
        };
        let (mut keys, mut values) = (start, start);
        for (key, value) in entries {
            let (key, value) = (self.cost(key), self.cost(value));
            known.cost = known.cost.plus(key.cost).plus(value.cost);
            keys = keys.or(key.size_or_unknown());
            values = values.or(value.size_or_unknown());
        }
        known.size = Some(Range::exactly(count(entries.len())));
        known.entries = Some((keys, values));
        known
    }

    fn optional_map(
        &mut self,
        of: &'a Expr,
        names: &'a [String],
        bodies: &'a [Expr],
        kind: Type,
    ) -> Known {
        let over = self.cost(of);
        let (Some(name), Some(body)) = (names.first(), bodies.first()) else {
            return Known::of(over.cost, kind);
        };
        let one = Range::exactly(1);
        let inner = Known::of(one, Type::Dyn);
        let body = self.within(vec![(name.as_str(), inner)], body).cost;
        let value = over.cost.plus(one).plus(Range::exactly(LIST));
        let made = one.plus(value).plus(body);
        Known::of(over.cost.plus(one).plus(made.or(one)), kind)
    }

    fn expand(
        &mut self,
        macro_kind: Macro,
        of: &'a Expr,
        names: &'a [String],
        bodies: &'a [Expr],
        kind: Type,
    ) -> Known {
        let over = self.cost(of);
        let (key, value) = entries(&over);
        let bound: Vec<(&str, Known)> = match names {
            [one] => {
                let is_map = matches!(over.kind, Type::Map(..));
                vec![(one.as_str(), if is_map { key } else { value })]
            }
            [first, second, ..] => vec![(first.as_str(), key), (second.as_str(), value)],
            [] => Vec::new(),
        };
        let bodies: Vec<Known> = bodies
            .iter()
            .map(|body| self.within(bound.clone(), body))
            .collect();
        let first = bodies.first().map_or(Range::ZERO, |body| body.cost);
        let last = bodies.last().map_or(Range::ZERO, |body| body.cost);
        let one = Range::exactly(1);
        let (init, step, result) = match macro_kind {
            Macro::All | Macro::Exists => {
                let condition = if macro_kind == Macro::All { 2 } else { 3 };
                let logic = Range {
                    min: 1,
                    max: first.max.saturating_add(1),
                };
                (Range::ZERO, Range::exactly(condition).plus(logic), one)
            }
            Macro::ExistsOne => {
                let step = first.plus(Range { min: 1, max: 2 });
                (Range::ZERO, step, Range::exactly(2))
            }
            Macro::Filter => {
                let kept = Range::exactly(LIST + 3);
                (Range::exactly(LIST), first.plus(kept.or(one)), one)
            }
            Macro::Map | Macro::TransformList => {
                let made = last.plus(Range::exactly(LIST + 2));
                let step = match bodies.len() {
                    0 | 1 => made,
                    _ => first.plus(made.or(one)),
                };
                (Range::exactly(LIST), step, one)
            }
            Macro::TransformMap | Macro::TransformMapEntry => {
                let inserts = if macro_kind == Macro::TransformMap {
                    3
                } else {
                    2
                };
                let made = last.plus(Range::exactly(inserts));
                let step = match bodies.len() {
                    0 | 1 => made,
                    _ => first.plus(made.or(one)),
                };
                (Range::exactly(MAP), step, one)
            }
            Macro::OptMap | Macro::OptFlatMap => (Range::ZERO, Range::ZERO, Range::ZERO),
        };
        let size = over.size_or_unknown();
        let cost = over.cost.plus(init).plus(result).plus(size.times(step));
        let mut known = Known::of(cost, kind);
        if init != Range::ZERO {
            known.size = Some(size);
            let item = bodies.last().map(Known::size_or_unknown);
            known.entries = match macro_kind {
                Macro::Map | Macro::TransformList => item.map(|item| (one, item)),
                _ => over.entries,
            };
        }
        known
    }
}

fn union(a: Option<(Range, Range)>, b: Option<(Range, Range)>) -> Option<(Range, Range)> {
    let ((a, x), (b, y)) = (a?, b?);
    Some((a.or(b), x.or(y)))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The size of a literal.
fn length(value: &Value) -> u64 {
    match value {
        Value::Text(text) => count(text.chars().count()),
        Value::Bytes(bytes) => count(bytes.len()),
        _ => 1,
    }
}

fn binary(op: Op, a: &Known, b: &Known, kind: Type) -> Known {
    let args = a.cost.plus(b.cost);
    let one = Range::exactly(1);
    let sized = |kind: &Type| matches!(kind, Type::Text | Type::Bytes | Type::Dyn | Type::Var(_));
    match op {
        Op::And | Op::Or => {
            let cost = Range {
                min: a.cost.min,
                max: args.max,
            };
            Known::of(cost, kind)
        }
        Op::Equal | Op::Unequal => Known::of(args.plus(compared(a, b)), kind),
        Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual
            if sized(&a.kind) && sized(&b.kind) =>
        {
            let compared = compared(a, b);
            let dynamic = !matches!(a.kind, Type::Text | Type::Bytes);
            let compared = if dynamic { compared.or(one) } else { compared };
            Known::of(args.plus(compared), kind)
        }
        Op::In if matches!(b.kind, Type::Map(..)) => Known::of(args.plus(one), kind),
        Op::In => Known::of(args.plus(b.size_or_unknown()), kind),
        Op::Add => {
            let size = a.size_or_unknown().plus(b.size_or_unknown());
            let cost = match &kind {
                Type::Text | Type::Bytes => size.by(TRAVERSAL),
                Type::Dyn => size.by(TRAVERSAL).or(one),
                _ => one,
            };
            let mut known = Known::of(args.plus(cost), kind.clone());
            if matches!(kind, Type::Text | Type::Bytes | Type::List(_) | Type::Dyn) {
                known.size = Some(size);
                known.entries = union(a.entries, b.entries);
            }
            known
        }
        _ => Known::of(args.plus(one), kind),
    }
}

fn compared(a: &Known, b: &Known) -> Range {
    let max = a.size_or_unknown().max.min(b.size_or_unknown().max);
    Range {
        min: u64::from(max > 0),
        max,
    }
    .by(TRAVERSAL)
}

/// The cost of a function. `target`: what a method is called on.
fn call(name: &str, target: Option<&Known>, args: &[Known], kind: Type) -> Known {
    let before = target
        .into_iter()
        .chain(args)
        .fold(Range::ZERO, |sum, part| sum.plus(part.cost));
    let one = Range::exactly(1);
    let own = target.map_or(Range::UNKNOWN, Known::size_or_unknown);
    let arg = |at: usize| args.get(at).map_or(Range::UNKNOWN, Known::size_or_unknown);
    let (cost, size) = match (name, target) {
        ("check", _) => (Range::exactly(CHECK), None),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(of)) => {
            (searched(of), None)
        }
        ("url" | "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity", None)
        | ("semver" | "isSemver", None) => (arg(0).by(TRAVERSAL).or(one), None),
        ("ip.isCanonical", _) => (arg(0).by(2.0 * TRAVERSAL).or(one), None),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", _) => (own.by(TRAVERSAL), Some(own)),
        ("replace", _) => (own.by(2.0 * TRAVERSAL), Some(replaced(own, arg(0), arg(1)))),
        ("split", _) => {
            let parts = Range {
                min: 0,
                max: own.max,
            };
            (own.by(2.0 * TRAVERSAL), Some(parts))
        }
        ("join", Some(of)) => {
            let size = joined(of, args.first());
            (size.by(TRAVERSAL), Some(size))
        }
        ("find" | "findAll", _) => {
            let found = Range {
                min: 0,
                max: own.max,
            };
            (matched(own, arg(0)), Some(found))
        }
        ("matches", Some(_)) => (matched(own, arg(0)), None),
        ("matches", None) => (matched(arg(0), arg(1)), None),
        ("contains", Some(_)) => (own.by(TRAVERSAL).times(arg(0).by(TRAVERSAL)), None),
        ("startsWith" | "endsWith", _) => (arg(0).by(TRAVERSAL), None),
        ("format", _) => (own.by(TRAVERSAL), None),
        ("bytes", _) => {
            let bytes = Range {
                min: arg(0).min,
                max: arg(0).max.saturating_mul(4),
            };
            (arg(0).by(TRAVERSAL), Some(bytes))
        }
        ("string", _) if args.first().is_some_and(|arg| arg.kind == Type::Bytes) => {
            let text = Range {
                min: arg(0).min / 4,
                max: arg(0).max,
            };
            (arg(0).by(TRAVERSAL), Some(text))
        }
        ("containsIP", _) => (Range { min: 1, max: 4 }, None),
        ("containsCIDR", _) => (Range { min: 3, max: 7 }, None),
        ("validate", _) => (arg(0).by(TRAVERSAL).or(one), None),
        ("sets.contains" | "sets.intersects", _) => (arg(0).times(arg(1)).or(one), None),
        ("sets.equivalent", _) => (
            arg(0).times(arg(1)).plus(arg(1).times(arg(0))).or(one),
            None,
        ),
        _ => (one, None),
    };
    let mut known = Known::of(before.plus(cost), kind);
    known.size = size;
    if let ("dyn", [of]) = (name, args) {
        (known.size, known.entries) = (of.size(), of.entries);
    }
    known
}

/// Going once over a list with a comparison for each, or over a text.
fn searched(of: &Known) -> Range {
    let size = of.size_or_unknown();
    let Type::List(item) = &of.kind else {
        return size.by(TRAVERSAL);
    };
    let mut each = Range::exactly(1);
    if matches!(**item, Type::Text | Type::Bytes) {
        let item = of.declared.as_ref().and_then(|own| own.items.as_ref());
        let item = item.map_or(Range::UNKNOWN, |item| Range {
            min: 0,
            max: item.elements_max,
        });
        each = each.plus(item.by(TRAVERSAL));
    }
    size.times(each)
}

fn matched(text: Range, pattern: Range) -> Range {
    let text = text.plus(Range::exactly(1)).by(TRAVERSAL);
    text.times(pattern.by(REGEX))
}

fn replaced(own: Range, from: Range, to: Range) -> Range {
    let (mut times, mut kept) = (Range::ZERO, Range::ZERO);
    if from.min == 0 {
        times.max = own.max.saturating_add(1);
        kept.max = own.max;
    } else if to.max <= from.min {
        kept.max = own.max;
    } else {
        times.max = own.max.div_ceil(from.min);
    }
    if from.max == 0 {
        times.min = own.min.saturating_add(1);
        kept.min = own.min;
    } else if from.max <= to.min {
        kept.min = own.min;
    } else {
        times.min = own.min.div_ceil(from.max);
    }
    times.times(to).plus(kept)
}

fn joined(of: &Known, by: Option<&Known>) -> Range {
    let list = of.size_or_unknown();
    let declared = of.declared.as_ref().and_then(|own| own.items.as_ref());
    let item = match (of.entries, declared) {
        (_, Some(item)) => Range {
            min: 0,
            max: item.elements_max,
        },
        (Some((_, value)), None) => value,
        (None, None) => Range::UNKNOWN,
    };
    let size = list.times(item);
    let Some(by) = by else {
        return size;
    };
    let between = Range {
        min: list.min.saturating_sub(1),
        max: list.max.saturating_sub(1),
    };
    size.plus(by.size_or_unknown().times(between))
}

/// What a macro's variables are over a range: key, value.
fn entries(over: &Known) -> (Known, Known) {
    let part = |size: Option<Range>, declared: Option<Arc<Declared>>| Known {
        cost: Range::exactly(1),
        size,
        entries: None,
        declared,
        kind: Type::Dyn,
    };
    let keys = over.entries.map(|(key, _)| key);
    let values = over.entries.map(|(_, value)| value);
    let items = over.declared.as_ref().and_then(|own| own.items.clone());
    let key = match over.kind {
        // Keys of a declared map have no declared length (as upstream).
        Type::Map(..) if over.declared.is_some() => Some(Range::ZERO),
        Type::List(_) => Some(Range::exactly(1)),
        _ => keys,
    };
    (part(key, None), part(values, items))
}
