//! Expressions and their values.

use serde_json::json;

use super::*;

fn run(source: &str) -> Result<Value, CelError> {
    let object = json!({"name": "web", "n": 3, "items": [1, 2, 3], "map": {"a": 1, "b": 2},
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}], "nothing": null});
    let variables = Variables::from([("self".to_owned(), Value::of(&object))]);
    let program = Program::compile(source, &["self"])?;
    program.evaluate(&variables, &mut Budget::new(EXPRESSION_COST_MAX))
}

#[test]
fn true_things_are_true() {
    let sources = [
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 / 2 == 3 && -7 % 3 == -1",
        "self.n > 2 ? true : false",
        "has(self.name) && !has(self.missing)",
        "self.items.all(i, i > 0) && self.items.exists(i, i == 2) && self.items.exists_one(i, i > 2)",
        "self.items.map(i, i * 2) == [2, 4, 6] && self.items.filter(i, i != 2) == [1, 3]",
        "self.items.map(i, i > 1, i * 10) == [20, 30]",
        "self.map.all(k, self.map[k] > 0) && 'a' in self.map && 3 in self.items",
        "self.ports.exists(p, p.name == 'https' && p.port == 443)",
        "size(self.name) == 3 && self.name.size() == 3 && self.items.size() == 3",
        "self.name.startsWith('w') && self.name.matches('^[a-z]+$') && 'a-b'.split('-') == ['a', 'b']",
        "'Hello'.lowerAscii() == 'hello' && ' x '.trim() == 'x' && 'abc'.substring(1, 2) == 'b'",
        "'%s is %d'.format([dyn('x'), 3]) == 'x is 3' && ['a', 'b'].join(',') == 'a,b'",
        "[1, 2, 3].sum() == 6 && [1, 3].isSorted() && [3, 1].min() == 1 && [3, 1].max() == 3",
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && isQuantity('1.5') && !isQuantity('x')",
        "quantity('1500m').compareTo(quantity('1.5')) == 0",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0.256')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP('11.0.0.1')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && isCIDR('fd00::/8')",
        "url('https://example.com:8080/a?b').getHost() == 'example.com:8080' && isURL('http://x')",
        "url('https://example.com:8080/a?b').getPort() == '8080'",
        "duration('1h') > duration('59m') && duration('1h').getMinutes() == 60",
        "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026",
        "timestamp('2026-01-02T23:04:05Z').getDate('+01:00') == 3",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "self.?missing.orValue('x') == 'x' && self.?name.hasValue()",
        "cel.bind(x, self.n, x * x == 9)",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "type(1) == int && string(1) == '1' && int('7') == 7 && double(1) == 1.0",
        "self.missing == 1 || true",
        "!format.dns1123Label().validate('ok').hasValue()",
        "format.named('dns1123Label').value().validate('-').hasValue()",
        "!format.named('nope').hasValue()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2",
        "semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1 && !isSemver('1.2')",
        "[1, 2, 3].transformList(i, v, i > 0, v * 10) == [20, 30]",
        "{'a': 1, 'b': 2}.transformMap(k, v, v + 1) == {'a': 2, 'b': 3}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && ip('fe80::1').isLinkLocalUnicast()",
        "url('https://h/p?a=1&a=2').getQuery() == {'a': ['1', '2']}",
        "type(duration('1s')) == google.protobuf.Duration && ip.isCanonical('::1')",
        "[1, 2].all(i, v, v == i + 1)",
        r"'a\nb' == 'a' + '\n' + 'b' && r'\d' == '\\d'",
        "{'a': 1}.a == 1 && {'a': 1} == {'a': 1} && [1, 2] + [3] == self.items",
        "-9223372036854775808 < 0 && 0xff == 255 && 1u == 1u",
    ];
    for source in sources {
        match run(source) {
            Ok(Value::Bool(true)) => {}
            other => unreachable!("{source}: {other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_why() {
    let cases = [
        ("self.missing", "no such key: missing"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'",
        ),
        ("self.n + 'a'", "no such overload: _+_(int, string)"),
        ("self.items[9]", "index out of bounds: 9"),
        (
            "nope",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'['",
        ),
        (
            "has(self)",
            "ERROR: <input>:1:10: Syntax error: invalid argument to has() macro",
        ),
        ("'a'.matches('(')", "error parsing regexp"),
    ];
    for (source, expected) in cases {
        let error = run(source).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{source}: {error}");
    }
}

#[test]
fn depth_and_work_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(matches!(run(&deep), Err(CelError::Compile(_))));
    let long = "self.items.all(a, self.items.all(b, a + b > 0))";
    let variables = Variables::from([(
        "self".to_owned(),
        Value::of(&json!({"items": (1..5000).collect::<Vec<i32>>()})),
    )]);
    let program = Program::compile(long, &["self"]).unwrap();
    let mut budget = Budget::new(EXPRESSION_COST_MAX);
    let outcome = program.evaluate(&variables, &mut budget);
    assert_eq!(outcome.unwrap_err(), CelError::Cost);
    assert_eq!(budget.left(), 0);
}

/// What such texts are made of.
const PARTS: &[&str] = &[
    "self",
    ".",
    "a",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "?",
    ":",
    "'",
    "\"",
    "1",
    "0x",
    "1e",
    "-",
    "!",
    "&&",
    "||",
    "==",
    "in",
    "has(",
    "all(",
    "map(",
    ",",
    "\\",
    "//",
    "\n",
    "ä",
    "r'",
    "b\"",
    "u",
    ".?",
    "[?",
    "Object",
    "cel.bind(",
    "optMap(",
    "true",
    "null",
    " ",
    "<",
    "%",
    "transformMap(",
    "9223372036854775808",
    "1.5",
    "'''",
    "size(",
];

/// Texts that look like expressions, and texts that do not: nothing may panic or take long.
#[test]
fn no_text_makes_the_parser_or_the_checker_fall() {
    // A small generator of its own: the same texts every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let variables = Variables::from([("self".to_owned(), Value::of(&json!({"a": [1, "x"]})))]);
    for _ in 0..5_000 {
        let length = next(24);
        let text: String = (0..length).map(|_| PARTS[next(PARTS.len())]).collect();
        if let Ok(program) = Program::compile(&text, &["self"]) {
            let _value = program.evaluate(&variables, &mut Budget::new(10_000));
        }
    }
    for open in [
        "(",
        "[",
        "{1:",
        "!",
        "-",
        "a.",
        "1?",
        "[1].all(x,",
        "a[",
        "size(",
    ] {
        Program::compile(&open.repeat(5_000), &["self"]).unwrap_err();
    }
}
