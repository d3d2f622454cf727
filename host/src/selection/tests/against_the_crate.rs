//! Our evaluation held against the CEL crate's own, and against nonsense.

use std::sync::LazyLock;

use cel::{Context, Program};
use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value as Json, json};

use super::{compile, event};
use crate::selection::{Images, Verdict};
use crate::store::Operation;

static ROW: LazyLock<Json> = LazyLock::new(|| {
    json!({"i": 7, "j": -3, "d": 2.5, "s": "abc", "t": "abcd", "b": true, "l": [1, 2, 3], "w": ["a", "abc"],
        "m": {"i": 1, "s": "x"}, "n": null})
});

fn number() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("after.i".to_owned()),
        Just("after.j".to_owned()),
        Just("after.m.i".to_owned()),
        Just("after.l[1]".to_owned()),
        Just("size(after.s)".to_owned()),
        Just("int(after.d)".to_owned()),
        (-5_i64..6).prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        (inner.clone(), "[-+*/%]", inner).prop_map(|(a, operator, b)| format!("({a} {operator} {b})"))
    })
    .boxed()
}

fn double() -> BoxedStrategy<String> {
    prop_oneof![
        Just("after.d".to_owned()),
        (-4_i32..5).prop_map(|half| format!("{:.1}", f64::from(half) / 2.0)),
        number().prop_map(|number| format!("double({number})")),
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("after.s".to_owned()),
        Just("after['t']".to_owned()),
        Just("after.m.s".to_owned()),
        Just("table".to_owned()),
        "[a-d]{0,3}".prop_map(|text| format!("'{text}'")),
        number().prop_map(|number| format!("string({number})")),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| (inner.clone(), inner).prop_map(|(a, b)| format!("({a} + {b})"))).boxed()
}

fn condition() -> BoxedStrategy<String> {
    let compare = "==|!=|<|<=|>|>=";
    let leaf = prop_oneof![
        Just("after.b".to_owned()),
        Just("has(after.s)".to_owned()),
        Just("has(after.n)".to_owned()),
        Just("has(after.zz)".to_owned()),
        Just("after.n == null".to_owned()),
        Just("after.m == after.m".to_owned()),
        Just("after.l + [4] == [1, 2.0, 3, 4u]".to_owned()),
        (number(), compare, number()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
        (number(), compare, double()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
        (double(), compare, double()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
        (text(), compare, text()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
        (text(), "startsWith|endsWith|contains", text()).prop_map(|(a, name, b)| format!("{a}.{name}({b})")),
        (text(), "[a-d]{1,2}[*+?]?").prop_map(|(a, pattern)| format!("{a}.matches('{pattern}')")),
        (number(), number()).prop_map(|(a, b)| format!("{a} in [{b}, 2, 3.0]")),
        (text(), text()).prop_map(|(a, b)| format!("{a} in [{b}, 'abc']")),
        (text()).prop_map(|a| format!("{a} in after.m")),
        ("all|exists|exists_one", compare, number()).prop_map(|(name, o, b)| format!("after.l.{name}(x, x {o} {b})")),
        ("all|exists|exists_one", compare, text()).prop_map(|(name, o, b)| format!("after.w.{name}(x, x {o} {b})")),
        (number(), number()).prop_map(|(a, b)| format!("after.l.map(x, x * {a}).filter(y, y > {b}).size() == 2")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), "&&|\\|\\|", inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.prop_map(|a| format!("after.l.exists(z, z == 2 && {a})")),
        ]
    })
    .boxed()
}

/// What the crate says; none if it fails.
fn of_the_crate(condition: &str) -> Option<bool> {
    let program = Program::compile(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
    let mut context = Context::default();
    context.add_variable_from_value("after", cel::to_value(&*ROW).unwrap_or_else(|error| panic!("{error}")));
    context.add_variable_from_value("table", "users");
    match program.execute(&context) {
        Ok(cel::Value::Bool(value)) => Some(value),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever the crate has an answer to, we answer alike. (Not the other way round: it has none where a member is
    /// missing or kinds of numbers meet.)
    #[test]
    fn expressions_mean_what_the_crate_says_they_do(condition in condition()) {
        let Some(expected) = of_the_crate(&condition) else { return Ok(()) };
        let selection = compile(&condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
        let row = ROW.to_string();
        let verdict = selection.judge(&event(Operation::Insert, None, Some(&row)), &Images::default());
        prop_assert_eq!(verdict, if expected { Verdict::Selected } else { Verdict::Where }, "{}", condition);
    }

    #[test]
    fn nonsense_neither_panics_nor_compiles_into_something_that_does(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24),
        row in proptest::sample::select(ROWS),
    ) {
        if let Ok(selection) = compile(&pieces.concat()) {
            let _ = selection.judge(&event(Operation::Update, Some(row), Some(row)), &Images::default());
        }
    }
}

const PIECES: &[&str] = &[
    "after",
    "before",
    ".a",
    ".b",
    "['a']",
    "[0]",
    "[-1]",
    "table",
    "key",
    "operation",
    "sequence",
    "source",
    " == ",
    " != ",
    " < ",
    " >= ",
    " && ",
    " || ",
    " in ",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    " ? ",
    " : ",
    "(",
    ")",
    "[",
    "]",
    ",",
    "1",
    "0",
    "9223372036854775807",
    "18446744073709551615u",
    "1.5",
    "1e308",
    "'a'",
    "\"é\"",
    "r'\\'",
    "'\\u0041'",
    "null",
    "true",
    "has(after.a)",
    ".exists(x, ",
    ".all(x, ",
    ".map(x, ",
    ".filter(x, ",
    "x",
    "size(",
    "int(",
    "double(",
    "string(",
    "uint(",
    ".startsWith(",
    ".matches('a+')",
    ".matches('",
    "`",
    "'",
    "\n",
    "// c\n",
    "{",
    "}",
    "a",
    "\u{0}",
    "🐎",
    ";",
    "=",
];

const ROWS: &[&str] = &[
    "{}",
    r#"{"a":1,"b":"x"}"#,
    r#"{"a":[1,"a",null,{"b":2}],"b":{"a":{"a":1}}}"#,
    r#"{"a":18446744073709551615,"b":-9223372036854775808}"#,
    r#"{"a":1e308,"b":"\u0041\ud83d\udc0e"}"#,
    r#"{"\u0061":true,"b":null}"#,
];
