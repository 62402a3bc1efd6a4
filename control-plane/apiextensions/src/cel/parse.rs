//! CEL text to an expression tree. Source: the Common Expression Language definition, its grammar
//! and its macros.

use std::sync::Arc;

use super::value::Value;
use super::{CelError, Expr, Macro, Op};

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

pub(super) fn parse(source: &str) -> Result<Expr, CelError> {
    if source.len() > LENGTH_MAX {
        return Err(CelError::syntax("the expression is too long"));
    }
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        steps: 0,
    };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(CelError::syntax(format!("unexpected {other:?}"))),
    }
}

fn tokens(source: &str) -> Result<Vec<Token>, CelError> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while !rest.is_empty() {
        if let Some(comment) = rest.strip_prefix("//") {
            let end = comment.find('\n').unwrap_or(comment.len());
            rest = comment[end..].trim_start();
            continue;
        }
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens.push(Token::End);
    Ok(tokens)
}

fn token(text: &str) -> Result<(Token, &str), CelError> {
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
    let sign = sign.ok_or_else(|| CelError::syntax(format!("unexpected character {first:?}")))?;
    Ok((Token::Sign(sign), &text[sign.len()..]))
}

fn number(text: &str) -> Result<(Token, &str), CelError> {
    let fault = || CelError::syntax("a number cannot be read");
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

fn quoted(text: &str) -> Result<Option<(Token, &str)>, CelError> {
    let prefix = text.find(['"', '\'']).filter(|at| *at <= 2).unwrap_or(3);
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
            None => return Err(CelError::syntax("a text is not closed")),
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

fn escape(text: &str) -> Result<(char, &str), CelError> {
    let fault = || CelError::syntax("an escape cannot be read");
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
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    steps: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(own) if *own == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), CelError> {
        if self.take(sign) {
            return Ok(());
        }
        Err(CelError::syntax(format!(
            "{sign} is missing before {:?}",
            self.peek()
        )))
    }

    /// Counts what makes the tree deeper.
    fn step(&mut self) -> Result<(), CelError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(CelError::syntax("the expression has too many operations"));
        }
        Ok(())
    }

    fn expr(&mut self) -> Result<Expr, CelError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(CelError::syntax("the expression is nested too deeply"));
        }
        let condition = self.binary(0)?;
        let expr = if self.take("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr::Condition(Box::new([condition, yes, no]))
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

    fn binary(&mut self, level: usize) -> Result<Expr, CelError> {
        if level > 4 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            self.at += 1;
            self.step()?;
            let right = self.binary(level + 1)?;
            left = Expr::Binary(op, Box::new([left, right]));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CelError> {
        if matches!(self.peek(), Token::Sign("!" | "-")) {
            self.step()?;
        }
        if self.take("!") {
            return Ok(Expr::Not(Box::new(self.unary()?)));
        }
        if self.take("-") {
            return Ok(match self.peek().clone() {
                Token::Uint(value) if value == 1 << 63 => {
                    self.at += 1;
                    Expr::Literal(Value::Int(i64::MIN))
                }
                _ => Expr::Negate(Box::new(self.unary()?)),
            });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, CelError> {
        let mut expr = self.primary()?;
        loop {
            if matches!(self.peek(), Token::Sign("." | ".?" | "[?" | "[")) {
                self.step()?;
            }
            if matches!(self.peek(), Token::Sign("{"))
                && let Some(name) = path_of(&expr)
            {
                self.at += 1;
                expr = Expr::Struct(name, self.fields()?);
            } else if self.take(".") {
                let name = self.name()?;
                expr = if self.take("(") {
                    let args = self.list(")")?;
                    method(expr, name, args)?
                } else {
                    Expr::Select(Box::new(expr), name)
                };
            } else if self.take(".?") {
                expr = Expr::OptionalSelect(Box::new(expr), self.name()?);
            } else if self.take("[?") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = Expr::OptionalIndex(Box::new([expr, index]));
            } else if self.take("[") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = Expr::Index(Box::new([expr, index]));
            } else {
                return Ok(expr);
            }
        }
    }

    fn name(&mut self) -> Result<String, CelError> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            other => Err(CelError::syntax(format!(
                "a name is missing before {other:?}"
            ))),
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, CelError> {
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

    fn primary(&mut self) -> Result<Expr, CelError> {
        let token = self.peek().clone();
        self.at += 1;
        Ok(match token {
            Token::Int(value) => Expr::Literal(Value::Int(value)),
            Token::Uint(value) => Expr::Literal(Value::Uint(value)),
            Token::Double(value) => Expr::Literal(Value::Double(value)),
            Token::Text(value) => Expr::Literal(Value::text(value)),
            Token::Bytes(value) => Expr::Literal(Value::Bytes(Arc::from(value))),
            Token::Sign("(") => {
                let expr = self.expr()?;
                self.expect(")")?;
                expr
            }
            Token::Sign("[") => Expr::List(self.list("]")?),
            Token::Sign("{") => Expr::Map(self.entries()?),
            Token::Sign(".") => Expr::Name(self.name()?),
            Token::Name(name) => match name.as_str() {
                "true" => Expr::Literal(Value::Bool(true)),
                "false" => Expr::Literal(Value::Bool(false)),
                "null" => Expr::Literal(Value::Null),
                _ if self.take("(") => {
                    let args = self.list(")")?;
                    function(name, args)?
                }
                _ => Expr::Name(name),
            },
            other => return Err(CelError::syntax(format!("unexpected {other:?}"))),
        })
    }

    /// The fields of a message; the brace is read.
    fn fields(&mut self) -> Result<Vec<(String, bool, Expr)>, CelError> {
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

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, CelError> {
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
}

fn function(name: String, mut args: Vec<Expr>) -> Result<Expr, CelError> {
    if name == "has" {
        return match (args.pop(), args.is_empty()) {
            (Some(Expr::Select(of, field)), true) => Ok(Expr::Has(of, field)),
            _ => Err(CelError::syntax("invalid argument to has() macro")),
        };
    }
    Ok(Expr::Call(name, None, args))
}

/// A method call, or a macro that looks like one.
fn method(of: Expr, name: String, args: Vec<Expr>) -> Result<Expr, CelError> {
    if let Expr::Name(space) = &of {
        let space = space.as_str();
        if (space, name.as_str()) == ("cel", "bind") {
            let [variable, init, body] = three(args)?;
            return Ok(Expr::Bind(variable_of(&variable)?, Box::new([init, body])));
        }
        let canonical = (space, name.as_str()) == ("ip", "isCanonical");
        if canonical
            || matches!(
                space,
                "sets"
                    | "math"
                    | "optional"
                    | "format"
                    | "strings"
                    | "lists"
                    | "base64"
                    | "jsonpatch"
            )
        {
            return Ok(Expr::Call(format!("{space}.{name}"), None, args));
        }
    }
    let kind = match (name.as_str(), args.len()) {
        ("all", 2 | 3) => Macro::All,
        ("exists", 2 | 3) => Macro::Exists,
        ("exists_one" | "existsOne", 2 | 3) => Macro::ExistsOne,
        ("filter", 2) => Macro::Filter,
        ("map", 2 | 3) => Macro::Map,
        ("optMap", 2) => Macro::OptMap,
        ("optFlatMap", 2) => Macro::OptFlatMap,
        _ => return Ok(Expr::Call(name, Some(Box::new(of)), args)),
    };
    let mut args = args.into_iter();
    let mut names = Vec::new();
    let two = args.len() == 3 && kind != Macro::Map;
    for _ in 0..=usize::from(two) {
        names.push(variable_of(&args.next().unwrap_or(Expr::List(Vec::new())))?);
    }
    Ok(Expr::Macro(kind, Box::new(of), names, args.collect()))
}

/// `a.b.c` as the name of a type.
fn path_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Name(name) => Some(name.clone()),
        Expr::Select(of, field) => Some(format!("{}.{field}", path_of(of)?)),
        _ => None,
    }
}

fn three(args: Vec<Expr>) -> Result<[Expr; 3], CelError> {
    args.try_into()
        .map_err(|_args| CelError::syntax("cel.bind takes three arguments"))
}

fn variable_of(expr: &Expr) -> Result<String, CelError> {
    match expr {
        Expr::Name(name) => Ok(name.clone()),
        _ => Err(CelError::syntax("argument must be a simple name")),
    }
}
