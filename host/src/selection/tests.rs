use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::store::{Origin, Write};

fn event(operation: Operation, before: Option<&str>, after: Option<&str>) -> Event {
    let image = |text: Option<&str>| text.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Event {
        sequence: 7,
        timestamp_ms: 1_700_000_000_000,
        write: Write {
            table: "users".into(),
            key: Bytes::from_static(b"u1"),
            operation,
            before: image(before),
            after: image(after),
            schema_version: 1,
            origin: None,
            position: None,
        },
    }
}

fn compile(condition: &str) -> Result<Selection, SelectionError> {
    Selection::compile(&[], &[], Some(condition))
}

fn selection(condition: &str) -> Selection {
    compile(condition).unwrap_or_else(|error| panic!("{condition}: {error}"))
}

/// Judges an insert of this row.
#[track_caller]
fn judge(condition: &str, row: &str) -> Verdict {
    selection(condition).judge(&event(Operation::Insert, None, Some(row)), &Images::default())
}

#[track_caller]
fn refusal(condition: &str) -> String {
    match compile(condition) {
        Ok(_) => panic!("`{condition}` was taken"),
        Err(error) => error.to_string(),
    }
}

const ROW: &str = r#"{"id":"u1","name":"Ada \u00e9 \"x\"","status":"active","age":36,"score":1.5,"big":18446744073709551615,
    "huge":1e300,"admin":true,"nothing":null,"tags":["a","b"],"first name":"Ada","address":{"city":"London","zip":["a",1]}}"#;

#[test]
fn the_language_does_what_its_table_says() {
    for (condition, expected) in [
        ("after.status == 'active'", true),
        ("after.status != \"active\"", false),
        ("after['first name'] == 'Ada'", true),
        ("after.`first name` == 'Ada'", true),
        ("after.name == 'Ada é \"x\"'", true),
        ("after.name.matches(r'^Ada\\b')", true),
        ("matches(after.name, 'x$')", false),
        ("after.name.startsWith('Ada') && after.name.endsWith('\"') && after.name.contains('é')", true),
        ("after.age > 30 && after.age <= 36 && !(after.age < 36) && after.age >= 36", true),
        ("after.status in ['active', 'new']", true),
        ("after.age in [1, 36.0]", true),
        ("'city' in after.address", true),
        ("'a' in after.tags && !('c' in after.tags)", true),
        ("after.tags[1] == 'b' && after.address.zip[1] == 1", true),
        ("has(after.address.city) && !has(after.address.street)", true),
        ("after.tags.exists(tag, tag == 'b')", true),
        ("after.tags.all(tag, tag == 'b')", false),
        ("after.tags.exists_one(tag, tag < 'c')", false),
        ("after.tags.filter(tag, tag > 'a') == ['b']", true),
        ("after.tags.map(tag, tag + '!') == ['a!', 'b!']", true),
        ("after.tags.map(tag, tag != 'a', tag + after.status) == ['bactive']", true),
        ("after.tags.exists(a, after.tags.exists(b, a < b))", true),
        ("after.address.exists(name, name == 'city')", true),
        ("size(after.tags) == 2 && after.name.size() == 9 && after.address.size() == 2", true),
        ("after.admin", true),
        ("after.admin ? after.age == 36 : false", true),
        ("int('12') + int(1.9) == 13 && uint(3) == 3u && double('1.5') == after.score", true),
        ("string(after.age) == '36' && string(true) == 'true' && bool('true')", true),
        ("dyn(after.age) == 36", true),
        ("table == 'users' && key == 'u1' && operation == 'insert'", true),
        ("operation in ['insert', 'update']", true),
        ("sequence == 7 && timestamp > 1600000000000", true),
        ("source == null", true),
        ("before == null && after != null", true),
        ("after.address == after.address && after.tags + ['c'] == ['a', 'b', 'c']", true),
        ("// why\nafter.age == 36", true),
        ("true || false && false", true),
    ] {
        let expected = if expected { Verdict::Selected } else { Verdict::Where };
        assert_eq!(judge(condition, ROW), expected, "{condition}");
    }
}

#[test]
fn what_is_missing_is_null_and_null_says_no() {
    for (condition, expected) in [
        ("after.status == 'active'", false),
        ("after.status != 'active'", true),
        ("after.status == null", true),
        ("after.x.y.z == null", true),
        ("after.list[7] == null && after.list[-1] == null && after.list[0.5] == null", true),
        ("after.x[0] == null && after['x']['y'] == null", true),
        ("after.x < 1", false),
        ("after.x > 1 || after.x <= 1 || after.x >= 'a'", false),
        ("after.x < after.y", false),
        ("!(after.x < 1)", true),
        ("after.x", false),
        ("!after.x", true),
        ("after.x ? true : false", false),
        ("after.x || after.list[0] == 1", true),
        ("after.x.startsWith('a') || after.x.contains('a') || after.x.matches('a')", false),
        ("'a'.startsWith(after.x)", false),
        ("1 in after.x", false),
        ("null in after.list", false),
        ("null in [after.x]", true),
        ("after.x + 1 == null && -after.x == null && size(after.x) == null && int(after.x) == null", true),
        ("after.x.exists(item, true)", false),
        ("after.x.all(item, false)", true),
        ("after.x.map(item, item) == []", true),
        ("has(after.x) || has(after.x.y) || has(before.id)", false),
        ("has(after.nothing) && after.nothing == null", true),
        ("after.nothing.deeper < 5", false),
        ("before.status == after.status", true),
        ("before.id != after.id", true),
    ] {
        let expected = if expected { Verdict::Selected } else { Verdict::Where };
        assert_eq!(judge(condition, r#"{"id":1,"nothing":null,"list":[1]}"#), expected, "{condition}");
    }
}

#[test]
fn a_changed_column_is_seen_in_every_operation() {
    let changed = selection("before.status != after.status");
    let judged = |operation, before, after| changed.judge(&event(operation, before, after), &Images::default());
    let (old, new) = (Some(r#"{"status":"a"}"#), Some(r#"{"status":"b"}"#));
    assert_eq!(judged(Operation::Update, old, new), Verdict::Selected);
    assert_eq!(judged(Operation::Update, new, new), Verdict::Where);
    assert_eq!(judged(Operation::Insert, None, new), Verdict::Selected);
    assert_eq!(judged(Operation::Delete, old, None), Verdict::Selected);
    assert_eq!(judged(Operation::Truncate, None, None), Verdict::Where);
    let active = selection("after.status == 'a'");
    assert_eq!(active.judge(&event(Operation::Delete, old, None), &Images::default()), Verdict::Where);
}

#[test]
fn numbers_compare_by_worth_and_compute_with_each_other() {
    for condition in [
        "1 == 1.0 && 1u == 1 && 1.0 == 1u",
        "1 < 1.5 && 1.5 < 2u && -1 < 1u && -0.5 < 0 && 0 > -0.5 && 2 > 1.5",
        "after.big == 18446744073709551615u && after.big > 9223372036854775807",
        // One more than a double can tell apart.
        "9007199254740993 != 9007199254740992.0 && 9007199254740993 > 9007199254740992.0",
        "after.big != 18446744073709551616.0 && after.big < 18446744073709551616.0",
        "after.huge > after.big && -after.huge < -9223372036854775807",
        "after.score * 2 == 3 && after.age / 8 == 4 && after.age % 8 == 4 && after.age / 8.0 == 4.5",
        "9223372036854775807 + 1 == 9223372036854775808u && 1u - 2u == -1",
        "-(-5) == 5 && -after.age == -36 && -(5u) == -5",
        "1.0 / 0.0 > after.huge && !(0.0 / 0.0 == 0.0 / 0.0)",
        "int(1e3) == 1000 && int(-1.9) == -1",
    ] {
        assert_eq!(judge(condition, ROW), Verdict::Selected, "{condition}");
    }
}

#[test]
fn what_only_a_row_can_show_is_a_failure_with_its_reason() {
    for (condition, reason) in [
        ("after.name + 1 == 2", "`+` does not go with a string and a number"),
        ("after.age / 0 == 1", "division by zero"),
        ("after.age % 0 == 1", "division by zero"),
        ("after.score % 2 == 1", "integers only"),
        ("after.big + 1 == 0", "overflows"),
        ("-after.big == 0", "overflows"),
        ("after.big * after.big == 0", "overflows"),
        ("-after.name == 1", "cannot be negated"),
        ("after.age.city == 'x'", "a number has no member `city`"),
        ("after.name[0] == 'A'", "a string has nothing at a number"),
        ("after.age < 'x'", "a number cannot be ordered with a string"),
        ("after.tags < after.tags", "cannot be ordered"),
        ("after.age", "a number stands where true or false is needed"),
        ("after.age && true", "a number stands where"),
        ("after.age.startsWith('3')", "`startsWith` does not go with a number"),
        ("after.age.matches('3')", "`matches` does not go with a number"),
        ("size(after.age) == 1", "`size` does not go with a number"),
        ("int(after.name) == 1", "`int` cannot make one"),
        ("uint(-1) == 1", "`uint` cannot make one"),
        ("int(after.huge) == 1", "`int` cannot make one"),
        ("int(after.tags) == 1", "`int` does not go with a list"),
        ("string(after.tags) == ''", "`string` does not go with a list"),
        ("bool('maybe')", "`bool` cannot make one"),
        ("1 in after.name", "`in` does not go with a string"),
        ("after.age.exists(x, x)", "a number has no items"),
        ("after.tags.exists_one(tag, tag)", "a string stands where"),
    ] {
        match judge(condition, ROW) {
            Verdict::Failed(message) => assert!(message.contains(reason), "{condition}: {message}"),
            other => panic!("{condition}: {other:?}"),
        }
    }
    let broken = selection("after.x == 1").judge(&event(Operation::Insert, None, Some("{")), &Images::default());
    assert!(matches!(broken, Verdict::Failed(message) if message.contains("the row's image cannot be read")));
}

#[test]
fn a_term_that_decides_hides_one_that_fails() {
    for (condition, expected) in [
        ("after.age / 0 == 1 || true", Verdict::Selected),
        ("after.age / 0 == 1 && false", Verdict::Where),
        ("[0, 1].exists(x, 1 / x == 1)", Verdict::Selected),
        ("[0, 1].all(x, 1 / x == 2)", Verdict::Where),
    ] {
        assert_eq!(judge(condition, ROW), expected, "{condition}");
    }
    for condition in
        ["after.age / 0 == 1 || false", "[0, 1].exists(x, 1 / x == 2)", "[0, 1].filter(x, 1 / x == 1) == []"]
    {
        assert!(matches!(judge(condition, ROW), Verdict::Failed(_)), "{condition}");
    }
}

#[test]
fn a_mistake_is_refused_with_its_place_and_what_to_do() {
    for (condition, message) in [
        ("status == 'a'", "line 1, column 1: there is no variable `status`; a column is `after.status`"),
        ("true &&\n  nope(after.x)", "line 2, column 7: there is no function `nope`; there are size,"),
        ("after.status = 'a'", "line 1, column 14: "),
        ("after.status = 'a'", "equality is written =="),
        ("after.a == 1 and after.b == 2", "and, or, not are written &&"),
        ("after.x ==", "line 1, column 11: "),
        ("", "line 1, column 1: "),
        ("'open", "line 1, column 1: "),
        ("after.age", ""),
        ("1 + 2", "it is a number, but must be true or false"),
        ("after.age + 1", "it is a number, but must be true or false"),
        ("'a'", "it is a string, but must be"),
        ("null", "it is null, but must be"),
        ("[true]", "it is a list, but must be"),
        ("after", "it is a row, but must be"),
        ("after.a.map(x, x)", "it is a list, but must be"),
        ("true && 1", "a number stands where true or false is needed"),
        ("!table", "a string stands where"),
        ("table == 5", "a string is compared with a number, which says the same for each event"),
        ("sequence > 'a'", "a number is compared with a string"),
        ("[1] < [2]", "have no order"),
        ("after < before", "have no order"),
        ("true + true", "does not go with a boolean and a boolean"),
        ("table - 'a' == ''", "- does not go with a string and a string"),
        ("-table == ''", "a string cannot be negated"),
        ("table.name == ''", "a string has no members"),
        ("sequence[0] == 1", "a number has no items"),
        ("1 in 'abc'", "`in` does not go with a string"),
        ("operation == 'INSERT'", "`operation` is one of insert, update, delete, truncate, and never `INSERT`"),
        ("operation in ['insert', 'upsert']", "never `upsert`"),
        ("'upsert' == operation", "never `upsert`"),
        ("has(after)", "`has` takes one member"),
        ("after.x.startsWith('a', 'b')", "`startsWith` is written after.name.startsWith('a')"),
        ("startsWith(after.x, 'a')", "`startsWith` is written after.name.startsWith('a')"),
        ("after.x.int() == 1", "`int` is written int(after.age)"),
        ("size() == 1", "`size` is written size(after.tags)"),
        ("after.x.matches(after.y)", "must be written out"),
        ("after.x.matches('(')", "the pattern is not a regular expression: unclosed group"),
        ("sequence.matches('1')", "`matches` does not go with a number"),
        ("after.x.exists(x.y, true)", "takes a name first"),
        ("after.x.all(x)", "`all` takes a name and what is asked of it"),
        ("table.exists(x, true)", "`exists` does not go with a string"),
        ("b'a' == b'a'", "rows have no bytes"),
        ("{'a': 1} == after", "maps and messages cannot be made"),
        ("after.?x == 1", ""),
        ("x.exists(x, true)", "there is no variable `x`"),
        ("after.a.exists(x, true) && x", "there is no variable `x`"),
    ] {
        if message.is_empty() && condition == "after.age" {
            // A column may turn out to be a boolean.
            assert!(compile(condition).is_ok());
            continue;
        }
        let refused = refusal(condition);
        assert!(refused.contains(message), "{condition}: {refused}");
        assert!(refused.len() < 300, "{refused}");
    }
}

#[test]
fn a_long_expression_is_refused_and_one_at_the_limit_is_not() {
    let fitting = |bytes: usize| format!("{}true", " ".repeat(bytes - 4));
    assert!(compile(&fitting(MAX_EXPRESSION_BYTES)).is_ok());
    let refused = refusal(&fitting(MAX_EXPRESSION_BYTES + 1));
    assert_eq!(refused, "the expression has 4097 bytes, and may have 4096");
    assert!(Selection::compile_within(&[], &[], Some("true"), 3).is_err());
}

/// Each fills the longest expression with one kind of nesting; none may exhaust a stack, here or when it is judged.
#[test]
fn deep_nesting_is_refused_wherever_it_is() {
    let most = MAX_EXPRESSION_BYTES;
    let nested = |open: &str, middle: &str, close: &str| {
        let times = (most - middle.len()) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    for condition in [
        nested("(", "true", ")"),
        nested("[", "", "]") + "==1",
        nested("{1:", "1", "}"),
        nested("size(", "after.x", ")"),
        nested("true?", "true", ":true"),
        nested("true?true:", "true", ""),
        nested("1+", "1", "") + "==1",
        nested("1*", "1", ""),
        nested("1==", "1", ""),
        nested("", "after", ".b"),
        nested("", "after", "[0]"),
        nested("", "after", ".a(1)"),
        nested("after[", "0", "]"),
        nested("[].all(x,", "true", ")"),
        nested("!(", "true", ")"),
        nested("-(", "1", ")"),
        nested("(", "", ""),
        nested("[", "", ""),
        nested("{", "", ""),
        nested("a(", "", ""),
        nested("\"", "", ""),
    ] {
        if let Ok(selection) = compile(&condition[..condition.len().min(most)]) {
            panic!("{}… became {selection:?}", &condition[..40]);
        }
    }
    // What is long without being deep is fine.
    let chain = |term: &str, operator: &str| vec![term; most / (term.len() + operator.len())].join(operator);
    assert_eq!(judge(&chain("after.age!=1", "&&"), ROW), Verdict::Selected);
    assert_eq!(judge(&chain("after.age==1", "||"), ROW), Verdict::Where);
    assert_eq!(judge(&format!("{}true", "!".repeat(most - 4)), ROW), Verdict::Selected);
    let list = format!("after.age in [{}]", vec!["1"; 2_000].join(","));
    assert_eq!(judge(&list, ROW), Verdict::Where);
}

#[test]
fn a_pattern_that_is_too_large_is_refused() {
    assert!(refusal(r"after.x.matches('\\w{1000}')").contains("the pattern is too large"));
    assert!(refusal(&format!("after.x.matches('{}')", "(".repeat(1_000) + &")".repeat(1_000))).contains("nest"));
    // Exponential for engines that go back, linear for this one.
    let evil = format!(r#"{{"x":"{}!"}}"#, "a".repeat(50_000));
    assert_eq!(judge("after.x.matches('^(a+)+$')", &evil), Verdict::Where);
}

#[test]
fn an_event_takes_bounded_work() {
    let numbers = |many: usize| format!(r#"{{"a":[{}]}}"#, vec!["1"; many].join(","));
    // A comprehension over a row of a megabyte or so is fine, and one within another is not.
    assert_eq!(judge("after.a.exists(x, x > 1)", &numbers(100_000)), Verdict::Where);
    for (condition, row) in [
        ("after.a.all(x, after.a.all(y, x == y))", numbers(2_000)),
        ("after.a.all(x, x in after.a && after.a == after.a)", numbers(2_000)),
        ("after.a.map(x, after.a.map(y, y)) == []", numbers(2_000)),
        ("after.a.all(x, !after.a.exists(y, y > x))", numbers(2_000)),
    ] {
        match judge(condition, &row) {
            Verdict::Failed(message) => assert!(message.contains("it "), "{condition}: {message}"),
            other => panic!("{condition}: {other:?}"),
        }
    }
    let long = format!(r#"{{"t":"{}"}}"#, "x".repeat(1 << 20));
    let doubled = vec!["after.t"; 60].join("+") + " == ''";
    match judge(&doubled, &long) {
        Verdict::Failed(message) => assert!(message.contains("bytes of texts and lists"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tables_and_operations_come_before_the_expression() {
    let tables = ["users".to_owned(), "app_*".to_owned()];
    let selection = Selection::compile(&tables, &[Operation::Insert, Operation::Delete], Some("after.x / 0 == 1"));
    let selection = selection.unwrap_or_else(|error| panic!("{error}"));
    let judged = |table: &str, operation| {
        let mut event = event(operation, None, Some(r#"{"x":1}"#));
        event.write.table = table.into();
        selection.judge(&event, &Images::default())
    };
    assert_eq!(judged("orders", Operation::Insert), Verdict::Table);
    assert_eq!(judged("orders", Operation::Update), Verdict::Table);
    assert_eq!(judged("users", Operation::Update), Verdict::Operation);
    assert_eq!(judged("app_x", Operation::Truncate), Verdict::Operation);
    assert!(matches!(judged("app_x", Operation::Insert), Verdict::Failed(_)));
    let every = Selection::compile(&[], &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(every.judge(&event(Operation::Truncate, None, None), &Images::default()), Verdict::Selected);
}

#[test]
fn selections_share_what_was_parsed_and_parse_nothing_that_is_not_asked_for() {
    let event = event(Operation::Update, Some("not JSON"), Some(r#"{"x":1}"#));
    let images = Images::default();
    assert!(size_of::<Images>() <= 32);
    assert_eq!(selection("sequence == 7").judge(&event, &images), Verdict::Selected);
    assert_eq!(selection("after.x == 1").judge(&event, &images), Verdict::Selected);
    assert!(matches!(selection("before.x == 1").judge(&event, &images), Verdict::Failed(_)));
    // The second selection gets what the first one parsed, which the image being gone shows.
    let mut gone = event.clone();
    gone.write.after = Some(Bytes::from_static(b"gone"));
    assert_eq!(selection("after.x == 1").judge(&gone, &images), Verdict::Selected);
}

#[test]
fn the_source_is_named_where_there_is_one() {
    let mut event = event(Operation::Insert, None, Some("{}"));
    event.write.origin = Some(Arc::new(Origin {
        source: "postgres".into(),
        transaction: None,
        committed_at_ms: None,
        snapshot: false,
        unavailable: None,
    }));
    assert_eq!(selection("source == 'postgres'").judge(&event, &Images::default()), Verdict::Selected);
}

mod against_the_crate;
