//! The conformance suite's client: stories of requests and expected answers, told to any service by its address.
//!
//! A story is read from `tests/conformance/*.txt`, a format for people:
//!
//! ```text
//! story A row that is there is not inserted again
//! needs streams                          (optional: only where `GET /` names this capability)
//!
//! > POST /data/users                     a request: method and target,
//! > content-type: application/json       headers,
//! {"id":1}                               and its body until the answer, lines joined by line breaks
//! < 409                                  the answer: status,
//! < content-type: application/json       headers that it must have (`absent` for one that it must not),
//! {"code":"row-exists",{{any}}}          and its body, byte for byte but for placeholders, lines joined by nothing
//! ```
//!
//! Placeholders in answers: `{{any}}`, `{{number}}`, `{{id}}` (of an event) and `{{let NAME}}`, which is a number that
//! is remembered; `{{NAME}}` and `{{NAME+1}}` stand for it, also in requests. `{{repeat 100 x}}` is for requests that
//! are long. Lines that start with `#` are remarks. An answer without a body is not looked at beyond its head.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;

use crate::harness::repository;
use crate::http::{Answer, Connection, Request};

/// How a service fared.
#[derive(Debug, Default)]
pub struct Report {
    /// Stories that came out as told.
    pub passed: usize,
    /// Stories that need what the service does not offer.
    pub skipped: Vec<String>,
    /// Stories that did not, with where and how.
    pub failures: Vec<String>,
}

#[derive(Debug, Default)]
struct Story {
    place: String,
    title: String,
    needs: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Default)]
struct Step {
    line: usize,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<String>,
    status: Option<u16>,
    expected_headers: Vec<(String, String)>,
    expected_body: String,
}

/// Tells every story to the service at this address, whose tables must be empty.
pub fn run(address: SocketAddr) -> Report {
    let offered = capabilities(address);
    let mut files: Vec<_> =
        std::fs::read_dir(repository().join("tests/conformance")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut report = Report::default();
    for story in files.iter().flat_map(|file| read(file)) {
        if story.needs.iter().any(|needed| !offered.contains(needed)) {
            report.skipped.push(story.title);
            continue;
        }
        match tell(address, &story) {
            Ok(()) => report.passed += 1,
            Err(failure) => report.failures.push(format!("{} ({}): {failure}", story.title, story.place)),
        }
    }
    report
}

fn capabilities(address: SocketAddr) -> BTreeSet<String> {
    let index = Connection::open(address).exchange(&Request::get("/")).unwrap().expect(200).json();
    let named = index["capabilities"].as_array().expect("GET / names the capabilities");
    named.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn read(file: &Path) -> Vec<Story> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut stories: Vec<Story> = Vec::new();
    let mut answering = false;
    for (at, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", file.file_name().unwrap().to_string_lossy(), at + 1);
        if line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("story ") {
            stories.push(Story { place: place(), title: title.to_owned(), ..Story::default() });
            continue;
        }
        if line.trim().is_empty() && stories.last().is_none_or(|story| story.steps.is_empty() || answering) {
            continue;
        }
        let story = stories.last_mut().unwrap_or_else(|| panic!("{}: no story", place()));
        if let Some(needed) = line.strip_prefix("needs ") {
            story.needs.extend(needed.split_whitespace().map(str::to_owned));
            continue;
        }
        let header = |text: &str| {
            let (name, value) = text.split_once(": ").unwrap_or_else(|| panic!("{}: no header", place()));
            (name.to_owned(), value.to_owned())
        };
        let begun = story.steps.last().is_some_and(|step| step.status.is_none() && step.body.is_empty());
        match (line.strip_prefix("> "), line.strip_prefix("< ")) {
            (Some(text), _) if begun && !answering => story.steps.last_mut().unwrap().headers.push(header(text)),
            (Some(text), _) => {
                let (method, target) = text.split_once(' ').unwrap_or_else(|| panic!("{}: no target", place()));
                let (method, target) = (method.to_owned(), target.to_owned());
                story.steps.push(Step { line: at + 1, method, target, ..Step::default() });
                answering = false;
            }
            (_, Some(text)) => {
                let step = story.steps.last_mut().unwrap_or_else(|| panic!("{}: no request", place()));
                if step.status.is_some() {
                    step.expected_headers.push(header(text));
                } else {
                    step.status = Some(text.trim().parse().unwrap_or_else(|_| panic!("{}: no status", place())));
                    answering = true;
                }
            }
            (None, None) => {
                let step = story.steps.last_mut().unwrap_or_else(|| panic!("{}: no request", place()));
                if answering { step.expected_body.push_str(line.trim()) } else { step.body.push(line.to_owned()) }
            }
        }
    }
    stories
}

fn tell(address: SocketAddr, story: &Story) -> Result<(), String> {
    let mut names = HashMap::new();
    for step in &story.steps {
        let wrong = |what: String| format!("line {}, {} {}: {what}", step.line, step.method, step.target);
        let mut request = Request::new(&step.method, &filled(&step.target, &names)?);
        for (name, value) in &step.headers {
            request = request.header(name, &filled(value, &names)?);
        }
        request.body = filled(&step.body.join("\n"), &names)?.into_bytes();
        let answer = Connection::open(address).exchange(&request).map_err(|error| wrong(error.to_string()))?;
        compare(step, &answer, &mut names).map_err(|what| wrong(format!("{what}\n  {}", shown(&answer))))?;
    }
    Ok(())
}

fn shown(answer: &Answer) -> String {
    format!("{} {:?} {}", answer.status, answer.headers, String::from_utf8_lossy(&answer.body))
}

fn compare(step: &Step, answer: &Answer, names: &mut HashMap<String, u64>) -> Result<(), String> {
    if Some(answer.status) != step.status {
        return Err(format!("the status should be {:?}", step.status));
    }
    for (name, expected) in &step.expected_headers {
        match (answer.header(name), expected.as_str()) {
            (None, "absent") => {}
            (Some(value), expected) if matches(expected, value, names) => {}
            (_, expected) => return Err(format!("the header {name} should be {expected}")),
        }
    }
    let body = String::from_utf8_lossy(&answer.body);
    if step.expected_body.is_empty() || matches(&step.expected_body, &body, names) {
        Ok(())
    } else {
        Err(format!("the body should be {}", step.expected_body))
    }
}

/// The value of `NAME` or `NAME+1`.
fn value(expression: &str, names: &HashMap<String, u64>) -> Option<u64> {
    let (name, more) = expression.split_once('+').unwrap_or((expression, "0"));
    Some(names.get(name)? + more.parse::<u64>().ok()?)
}

/// The first placeholder: what is before it, in it and behind it. A brace before it is text.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut begin = text.find("{{")?;
    while text[begin + 2..].starts_with('{') {
        begin += 1;
    }
    let (expression, behind) = text[begin + 2..].split_once("}}")?;
    Some((&text[..begin], expression, behind))
}

fn filled(text: &str, names: &HashMap<String, u64>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, expression, behind)) = placeholder(rest) {
        out.push_str(before);
        match expression.strip_prefix("repeat ").and_then(|repeat| repeat.split_once(' ')) {
            Some((count, what)) => out.push_str(&what.repeat(count.parse().map_err(|_| "no count to repeat")?)),
            None => {
                let value = value(expression, names).ok_or_else(|| format!("nothing is named {expression}"))?;
                out.push_str(&value.to_string());
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a text is as expected. What was named on a way that led nowhere is named all the same; names are few.
fn matches(expected: &str, text: &str, names: &mut HashMap<String, u64>) -> bool {
    let Some((before, expression, behind)) = placeholder(expected) else { return expected == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match expression {
        "any" => {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|end| matches(behind, &rest[end..], names))
        }
        "number" => digits > 0 && matches(behind, &rest[digits..], names),
        "id" => {
            let Some(id) = rest.strip_prefix("evt_") else { return false };
            let length = id.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            length > 2 && matches(behind, &id[length..], names)
        }
        other => match other.strip_prefix("let ") {
            Some(name) => {
                let Ok(number) = rest[..digits].parse() else { return false };
                names.insert(name.to_owned(), number);
                matches(behind, &rest[digits..], names)
            }
            None => {
                let Some(number) = value(other, names) else { return false };
                rest.strip_prefix(&number.to_string()).is_some_and(|rest| matches(behind, rest, names))
            }
        },
    }
}
