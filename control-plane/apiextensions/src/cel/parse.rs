//! CEL text to an expression tree. Source: the Common Expression Language definition, its grammar
//! and its macros.

use std::sync::Arc;

use super::check::Issue;
use super::value::Value;
use super::{Expr, Macro, Node, Op};

/// Expressions with more parentheses inside one another are refused.
const DEPTH_MAX: usize = 60;
/// Expressions with more operators, selections and calls are refused, so that no tree is deep.
const STEPS_MAX: usize = 400;
/// Longer expressions are refused.
const LENGTH_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 27] = [
    "[?", ".?", "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(",
    ")", "[", "]", "{", "}", ".", ",", "?", ":", "=",
];

/// The tokens that an expression may begin with, as upstream's parser names them.
const BEGINNINGS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
    NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// What is wrong with a text.
type Fault = String;

pub(super) fn parse(source: &str) -> Result<Expr, Issue> {
    if source.len() > LENGTH_MAX {
        let text = "Syntax error: the expression is too long".to_owned();
        return Err(Issue { at: 0, text });
    }
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        steps: 0,
        nodes: 0,
    };
    let parsed = parser.expr().and_then(|expr| match parser.peek() {
        Token::End => Ok(expr),
        other => Err(format!(
            "extraneous input '{}' expecting <EOF>",
            shown(other)
        )),
    });
    parsed.map_err(|fault| Issue {
        at: parser.here(),
        text: format!("Syntax error: {fault}"),
    })
}

fn tokens(source: &str) -> Result<Vec<(Token, usize)>, Issue> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while !rest.is_empty() {
        if let Some(comment) = rest.strip_prefix("//") {
            let end = comment.find('\n').unwrap_or(comment.len());
            rest = comment[end..].trim_start();
            continue;
        }
        let at = source.len() - rest.len();
        let (token, after) = token(rest).map_err(|fault| Issue {
            at,
            text: format!("Syntax error: {fault}"),
        })?;
        tokens.push((token, at));
        rest = after.trim_start();
    }
    tokens.push((Token::End, source.len()));
    Ok(tokens)
}

/// A token as messages show it.
fn shown(token: &Token) -> String {
    match token {
        Token::Int(value) => value.to_string(),
        Token::Uint(value) => format!("{value}u"),
        Token::Double(value) => value.to_string(),
        Token::Text(text) => format!("\"{text}\""),
        Token::Bytes(_) => "b\"\"".to_owned(),
        Token::Name(name) => name.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => "<EOF>".to_owned(),
    }
}

fn token(text: &str) -> Result<(Token, &str), Fault> {
    let first = text.chars().next().unwrap_or_default();
    if let Some(found) = quoted(text)? {
        return Ok(found);
    }
    if first.is_ascii_digit() {
        return number(text);
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len());
        return Ok((Token::Name(text[..end].to_owned()), &text[end..]));
    }
    let sign = SIGNS.iter().find(|sign| text.starts_with(**sign));
    let sign = sign.ok_or_else(|| format!("unexpected character {first:?}"))?;
    Ok((Token::Sign(sign), &text[sign.len()..]))
}

fn number(text: &str) -> Result<(Token, &str), Fault> {
    let fault = || String::from("a number cannot be read");
    if let Some(hex) = text.strip_prefix("0x") {
        let end = hex
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..end], 16).map_err(|_range| fault())?;
        let rest = &hex[end..];
        return match rest.strip_prefix(['u', 'U']) {
            Some(rest) => Ok((Token::Uint(value), rest)),
            None => Ok((
                Token::Int(i64::try_from(value).map_err(|_range| fault())?),
                rest,
            )),
        };
    }
    let bytes = text.as_bytes();
    let mut end = 0;
    let mut double = false;
    while let Some(byte) = bytes.get(end) {
        let next_digit = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => {}
            b'.' if !double && next_digit => double = true,
            b'e' | b'E' if next_digit || matches!(bytes.get(end + 1), Some(b'+' | b'-')) => {
                double = true;
                end += 1;
            }
            _ => break,
        }
        end += 1;
    }
    let (digits, rest) = text.split_at(end.min(text.len()));
    if double {
        return Ok((
            Token::Double(digits.parse().map_err(|_form| fault())?),
            rest,
        ));
    }
    match rest.strip_prefix(['u', 'U']) {
        Some(rest) => Ok((Token::Uint(digits.parse().map_err(|_range| fault())?), rest)),
        None => {
            // The smallest number is a minus and one more than the greatest.
            let value: u64 = digits.parse().map_err(|_range| fault())?;
            let token = i64::try_from(value).map_or(Token::Uint(value), Token::Int);
            Ok((token, rest))
        }
    }
}

fn quoted(text: &str) -> Result<Option<(Token, &str)>, Fault> {
    // A quote stands within the first three bytes or not at all: the rest is not looked at.
    let start = text.as_bytes().iter().take(3);
    let Some(prefix) = start.copied().position(|byte| matches!(byte, b'"' | b'\'')) else {
        return Ok(None);
    };
    let marks = text.get(..prefix).unwrap_or("x").to_ascii_lowercase();
    if !matches!(marks.as_str(), "" | "r" | "b" | "br" | "rb") {
        return Ok(None);
    }
    let body = &text[prefix..];
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|q| body.starts_with(q));
    let Some(quote) = quote else {
        return Ok(None);
    };
    let raw = marks.contains('r');
    let mut out = String::new();
    let mut rest = &body[quote.len()..];
    loop {
        if let Some(after) = rest.strip_prefix(quote) {
            let token = match marks.contains('b') {
                true => Token::Bytes(out.into_bytes()),
                false => Token::Text(out),
            };
            return Ok(Some((token, after)));
        }
        let mut chars = rest.chars();
        match chars.next() {
            None => return Err(String::from("a text is not closed")),
            Some('\\') if !raw => {
                let (c, after) = escape(chars.as_str())?;
                out.push(c);
                rest = after;
            }
            Some(c) => {
                out.push(c);
                rest = chars.as_str();
            }
        }
    }
}

fn escape(text: &str) -> Result<(char, &str), Fault> {
    let fault = || String::from("an escape cannot be read");
    let mut chars = text.chars();
    let first = chars.next().ok_or_else(fault)?;
    let plain = match first {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\\' | '"' | '\'' | '`' | '?' => first,
        'x' | 'X' | 'u' | 'U' => {
            let length = match first {
                'u' => 4,
                'U' => 8,
                _ => 2,
            };
            let digits = chars.as_str().get(..length).ok_or_else(fault)?;
            let code = u32::from_str_radix(digits, 16).map_err(|_form| fault())?;
            let c = char::from_u32(code).ok_or_else(fault)?;
            return Ok((c, &chars.as_str()[length..]));
        }
        _ => return Err(fault()),
    };
    Ok((plain, chars.as_str()))
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    steps: usize,
    nodes: u32,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    /// Where the next token is.
    fn here(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |(_, at)| *at)
    }

    fn node(&mut self, at: usize, node: Node) -> Expr {
        self.nodes += 1;
        Expr {
            at,
            id: self.nodes,
            node,
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(own) if *own == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.take(sign) {
            return Ok(());
        }
        Err(format!(
            "mismatched input '{}' expecting '{sign}'",
            shown(self.peek())
        ))
    }

    /// Counts what makes the tree deeper.
    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(String::from("the expression has too many operations"));
        }
        Ok(())
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is nested too deeply".to_owned());
        }
        let condition = self.binary(0)?;
        let at = self.here();
        let expr = if self.take("?") {
            self.step()?;
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            self.node(at, Node::Condition(Box::new([condition, yes, no])))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn operator(&self, level: usize) -> Option<Op> {
        let sign = match self.peek() {
            Token::Sign(sign) => *sign,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        let (own, op) = match sign {
            "||" => (0, Op::Or),
            "&&" => (1, Op::And),
            "==" => (2, Op::Equal),
            "!=" => (2, Op::Unequal),
            "<" => (2, Op::Less),
            "<=" => (2, Op::LessOrEqual),
            ">" => (2, Op::Greater),
            ">=" => (2, Op::GreaterOrEqual),
            "in" => (2, Op::In),
            "+" => (3, Op::Add),
            "-" => (3, Op::Subtract),
            "*" => (4, Op::Multiply),
            "/" => (4, Op::Divide),
            "%" => (4, Op::Remainder),
            _ => return None,
        };
        (own == level).then_some(op)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Fault> {
        if level > 4 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            let at = self.here();
            self.at += 1;
            self.step()?;
            let right = self.binary(level + 1)?;
            left = self.node(at, Node::Binary(op, Box::new([left, right])));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        if matches!(self.peek(), Token::Sign("!" | "-")) {
            self.step()?;
        }
        let at = self.here();
        if self.take("!") {
            let of = self.unary()?;
            return Ok(self.node(at, Node::Not(Box::new(of))));
        }
        if self.take("-") {
            let literal = match self.peek() {
                Token::Uint(value) if *value == 1 << 63 => Some(Value::Int(i64::MIN)),
                Token::Int(value) => value.checked_neg().map(Value::Int),
                Token::Double(value) => Some(Value::Double(-value)),
                _ => None,
            };
            // Of a number alone: `-1.abs()` is not `(-1).abs()` for any method there is.
            let next = self.tokens.get(self.at + 1).map(|(token, _)| token);
            let alone = !matches!(next, Some(Token::Sign("." | "[" | ".?" | "[?")));
            return match literal.filter(|_| alone) {
                Some(value) => {
                    self.at += 1;
                    Ok(self.node(at, Node::Literal(value)))
                }
                None => {
                    let of = self.unary()?;
                    Ok(self.node(at, Node::Negate(Box::new(of))))
                }
            };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Fault> {
        let mut expr = self.primary()?;
        loop {
            let at = self.here();
            let message = match self.peek() {
                Token::Sign("{") => path_of(&expr),
                Token::Sign("." | ".?" | "[?" | "[") => {
                    self.step()?;
                    None
                }
                _ => return Ok(expr),
            };
            if let Some(name) = message {
                self.at += 1;
                let fields = self.fields()?;
                expr = self.node(at, Node::Struct(name, fields));
            } else if self.take(".") {
                let name = self.name()?;
                let open = self.here();
                expr = if self.take("(") {
                    let args = self.list(")")?;
                    self.method(expr, name, args, open)?
                } else {
                    self.selected(expr, name, at)
                };
            } else if self.take(".?") {
                let name = self.name()?;
                expr = self.node(at, Node::OptionalSelect(Box::new(expr), name));
            } else if self.take("[?") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = self.node(at, Node::OptionalIndex(Box::new([expr, index])));
            } else if self.take("[") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = self.node(at, Node::Index(Box::new([expr, index])));
            } else {
                return Ok(expr);
            }
        }
    }

    /// A field of an expression, or the name of a type that has dots.
    fn selected(&mut self, of: Expr, name: String, at: usize) -> Expr {
        if let Some(path) = path_of(&of) {
            let whole = format!("{path}.{name}");
            if super::TYPES.contains(&whole.as_str()) {
                return self.node(of.at, Node::Name(whole));
            }
        }
        self.node(at, Node::Select(Box::new(of), name))
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            other => Err(format!(
                "no viable alternative at input '{}'",
                shown(&other)
            )),
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, Fault> {
        let mut items = Vec::new();
        while !self.take(end) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.take(end) {
                    break;
                }
            }
            items.push(self.expr()?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let token = self.peek().clone();
        let at = self.here();
        self.at += 1;
        let node = match token {
            Token::Int(value) => Node::Literal(Value::Int(value)),
            Token::Uint(value) => Node::Literal(Value::Uint(value)),
            Token::Double(value) => Node::Literal(Value::Double(value)),
            Token::Text(value) => Node::Literal(Value::text(value)),
            Token::Bytes(value) => Node::Literal(Value::Bytes(Arc::from(value))),
            Token::Sign("(") => {
                let expr = self.expr()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Sign("[") => Node::List(self.list("]")?),
            Token::Sign("{") => Node::Map(self.entries()?),
            Token::Sign(".") => Node::Name(self.name()?),
            Token::Name(name) => match name.as_str() {
                "true" => Node::Literal(Value::Bool(true)),
                "false" => Node::Literal(Value::Bool(false)),
                "null" => Node::Literal(Value::Null),
                _ => {
                    let open = self.here();
                    if self.take("(") {
                        let args = self.list(")")?;
                        return self.function(name, args, open);
                    }
                    Node::Name(name)
                }
            },
            other => {
                self.at -= 1;
                let what = match other {
                    Token::End => "mismatched",
                    _ => "extraneous",
                };
                return Err(format!(
                    "{what} input '{}' expecting {BEGINNINGS}",
                    shown(&other)
                ));
            }
        };
        Ok(self.node(at, node))
    }

    /// The fields of a message; the brace is read.
    fn fields(&mut self) -> Result<Vec<(String, bool, Expr)>, Fault> {
        let mut fields = Vec::new();
        while !self.take("}") {
            if !fields.is_empty() {
                self.expect(",")?;
                if self.take("}") {
                    break;
                }
            }
            let optional = self.take("?");
            let name = self.name()?;
            self.expect(":")?;
            fields.push((name, optional, self.expr()?));
        }
        Ok(fields)
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, Fault> {
        let mut entries = Vec::new();
        while !self.take("}") {
            if !entries.is_empty() {
                self.expect(",")?;
                if self.take("}") {
                    break;
                }
            }
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?));
        }
        Ok(entries)
    }

    fn function(&mut self, name: String, mut args: Vec<Expr>, at: usize) -> Result<Expr, Fault> {
        if name != "has" {
            return Ok(self.node(at, Node::Call(name, None, args)));
        }
        match (args.pop().map(|arg| arg.node), args.is_empty()) {
            (Some(Node::Select(of, field)), true) => Ok(self.node(at, Node::Has(of, field))),
            _ => Err("invalid argument to has() macro".to_owned()),
        }
    }

    /// A method call, or a macro that looks like one.
    fn method(
        &mut self,
        of: Expr,
        name: String,
        args: Vec<Expr>,
        at: usize,
    ) -> Result<Expr, Fault> {
        if let Node::Name(space) = &of.node {
            let space = space.as_str();
            if (space, name.as_str()) == ("cel", "bind") {
                let [variable, init, body] = three(args)?;
                let bind = Node::Bind(variable_of(&variable)?, Box::new([init, body]));
                return Ok(self.node(at, bind));
            }
            let canonical = (space, name.as_str()) == ("ip", "isCanonical");
            if canonical || is_space(space) {
                let call = Node::Call(format!("{space}.{name}"), None, args);
                return Ok(self.node(at, call));
            }
        }
        let kind = match (name.as_str(), args.len()) {
            ("all", 2 | 3) => Macro::All,
            ("exists", 2 | 3) => Macro::Exists,
            ("exists_one" | "existsOne", 2 | 3) => Macro::ExistsOne,
            ("filter", 2) => Macro::Filter,
            ("map", 2 | 3) => Macro::Map,
            ("transformList", 3 | 4) => Macro::TransformList,
            ("transformMap", 3 | 4) => Macro::TransformMap,
            ("transformMapEntry", 3 | 4) => Macro::TransformMapEntry,
            ("optMap", 2) => Macro::OptMap,
            ("optFlatMap", 2) => Macro::OptFlatMap,
            _ => return Ok(self.node(at, Node::Call(name, Some(Box::new(of)), args))),
        };
        let two = match kind {
            Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry => true,
            Macro::Map => false,
            _ => args.len() == 3,
        };
        let mut args = args.into_iter();
        let mut names = Vec::new();
        for _ in 0..=usize::from(two) {
            let Some(variable) = args.next() else {
                return Err("argument must be a simple name".to_owned());
            };
            names.push(variable_of(&variable)?);
        }
        let expanded = Node::Macro(kind, Box::new(of), names, args.collect());
        Ok(self.node(at, expanded))
    }
}

/// Names before a dot that are no values.
fn is_space(name: &str) -> bool {
    matches!(
        name,
        "sets" | "math" | "optional" | "format" | "strings" | "lists" | "jsonpatch"
    )
}

/// `a.b.c` as the name of a type.
fn path_of(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Name(name) => Some(name.clone()),
        Node::Select(of, field) => Some(format!("{}.{field}", path_of(of)?)),
        _ => None,
    }
}

fn three(args: Vec<Expr>) -> Result<[Expr; 3], Fault> {
    args.try_into()
        .map_err(|_args| "cel.bind takes three arguments".to_owned())
}

fn variable_of(expr: &Expr) -> Result<String, Fault> {
    match &expr.node {
        Node::Name(name) => Ok(name.clone()),
        _ => Err("argument must be a simple name".to_owned()),
    }
}
