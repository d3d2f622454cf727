//! `Content-Type` and `Content-Encoding` of requests.

use crate::problem::{Problem, excerpt};
use crate::{Code, InsertFormat};

/// The media types of a body with a row on each line; all three are in use, none is registered.
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// How the body of an insert has its rows.
pub(crate) fn insert_format(content_type: Option<&str>) -> Result<InsertFormat, Problem> {
    const ALLOWED: &str = "application/json, application/x-ndjson, application/ndjson, application/jsonl";
    let essence = essence(content_type, ALLOWED)?;
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(InsertFormat::Json)
    } else if LINES.iter().any(|lines| essence.eq_ignore_ascii_case(lines)) {
        Ok(InsertFormat::Lines)
    } else {
        Err(unsupported(content_type, ALLOWED))
    }
}

/// What an HTML form can send, and so any page without asking first, is no body of ours.
pub fn refuse_form(content_type: &str) -> Result<(), Problem> {
    const FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
    let is_end = |character: char| character == ';' || character == ',' || character.is_whitespace();
    let essence = content_type.trim().split(is_end).next().unwrap_or_default();
    match FORMS.iter().any(|form| essence.eq_ignore_ascii_case(form)) {
        true => {
            const ALLOWED: &str = "application/json, application/x-ndjson, application/wasm";
            let detail = format!(
                "the Content-Type is {}; allowed is {ALLOWED}; with curl, add -H 'Content-Type: application/json', for a \
                 component -H 'Content-Type: application/wasm' or --upload-file, and without a body no -d",
                excerpt(content_type.trim())
            );
            Err(Problem::new(Code::UnsupportedMediaType, detail).with_hint("accept", ALLOWED))
        }
        false => Ok(()),
    }
}

/// The body must be JSON.
pub(crate) fn require_json(content_type: Option<&str>) -> Result<(), Problem> {
    const ALLOWED: &str = "application/json";
    match essence(content_type, ALLOWED)?.eq_ignore_ascii_case(ALLOWED) {
        true => Ok(()),
        false => Err(unsupported(content_type, ALLOWED)),
    }
}

/// The body must be a component. Without a type it may be one as well: what it is, its first bytes say, and they are
/// looked at in any case.
pub(crate) fn require_component(content_type: Option<&str>) -> Result<(), Problem> {
    const ALLOWED: &str = "application/wasm, application/octet-stream";
    let Some(given) = content_type.map(str::trim).filter(|given| !given.is_empty()) else { return Ok(()) };
    let essence = given.split(';').next().unwrap_or_default().trim();
    if ALLOWED.split(", ").any(|allowed| essence.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    // curl's own choice for `--data-binary`, which is how most will come.
    let hint = match essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        true => "; with curl, use --upload-file, or add -H 'Content-Type: application/wasm'",
        false => "",
    };
    let detail = format!("the Content-Type is {}; allowed is {ALLOWED}{hint}", excerpt(given));
    Err(Problem::new(Code::UnsupportedMediaType, detail).with_hint("accept", ALLOWED))
}

/// The body must come as it is: a compressed one could grow beyond every limit.
pub(crate) fn require_identity(content_encoding: Option<&str>) -> Result<(), Problem> {
    match content_encoding.map(str::trim) {
        None | Some("") => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(encoding) => {
            let detail = format!("the body is encoded as {}; send it without an encoding", excerpt(encoding));
            Err(Problem::new(Code::UnsupportedEncoding, detail).with_hint("accept-encoding", "identity"))
        }
    }
}

/// The media type without its parameters, once those say nothing but UTF-8.
fn essence<'a>(content_type: Option<&'a str>, allowed: &'static str) -> Result<&'a str, Problem> {
    let mut pieces = content_type.unwrap_or_default().split(';').map(str::trim);
    let essence = pieces.next().unwrap_or_default();
    for parameter in pieces {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        if is_charset && !value.eq_ignore_ascii_case("utf-8") && !value.eq_ignore_ascii_case("utf8") {
            let detail = format!("the body's charset is {}; JSON is always utf-8", excerpt(value));
            return Err(Problem::new(Code::UnsupportedMediaType, detail).with_hint("accept", allowed));
        }
    }
    Ok(essence)
}

fn unsupported(content_type: Option<&str>, allowed: &'static str) -> Problem {
    let given = content_type.map(str::trim).filter(|given| !given.is_empty());
    let hint = match given {
        // curl's own choice for `-d`, and so the mistake everybody makes once.
        Some(given) if given.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") => {
            "; with curl, add -H 'Content-Type: application/json'"
        }
        _ => "",
    };
    let given = given.map_or("missing".to_owned(), excerpt);
    let detail = format!("the Content-Type is {given}; allowed is {allowed}{hint}");
    Problem::new(Code::UnsupportedMediaType, detail).with_hint("accept", allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    #[test]
    fn json_and_lines_are_told_apart() {
        for json in ["application/json", "Application/JSON ; charset=UTF-8", "application/json;charset=\"utf-8\";x=y"] {
            assert_eq!(insert_format(Some(json)), Ok(InsertFormat::Json), "{json}");
        }
        for lines in ["application/x-ndjson", "application/NDJSON; charset=utf8", "application/jsonl"] {
            assert_eq!(insert_format(Some(lines)), Ok(InsertFormat::Lines), "{lines}");
        }
    }

    #[test]
    fn other_types_are_refused_with_what_is_allowed() {
        for other in
            [None, Some(""), Some("text/plain"), Some("application/jsonx"), Some("application/json, text/plain")]
        {
            let problem = insert_format(other).err().unwrap_or_else(|| panic!("{other:?} was taken"));
            assert_eq!(problem.status(), 415);
            assert!(problem.detail().contains("application/x-ndjson"));
            assert!(problem.headers().any(|(name, value)| name == "accept" && value.contains("application/jsonl")));
        }
        assert!(require_json(Some("application/x-ndjson")).is_err());
    }

    #[test]
    fn other_charsets_are_refused() {
        let refused = require_json(Some("application/json; charset=ISO-8859-1"));
        assert!(refused.is_err_and(|problem| problem.status() == 415 && problem.detail().contains("ISO-8859-1")));
    }

    #[test]
    fn who_forgets_the_header_with_curl_is_told_so() {
        let problem = insert_format(Some("application/x-www-form-urlencoded")).err();
        let mut body = Vec::new();
        problem.unwrap_or_else(|| panic!("it was taken")).write(&mut body);
        assert_golden("problem-unsupported-media-type.json", &body);
    }

    #[test]
    fn a_component_needs_no_type_but_may_not_have_another() {
        for fine in [None, Some(" "), Some("application/wasm"), Some("Application/Octet-Stream; x=y")] {
            assert_eq!(require_component(fine), Ok(()));
        }
        for other in ["text/plain", "application/json", "application/wasm+json"] {
            assert!(require_component(Some(other)).is_err_and(|problem| problem.status() == 415), "{other}");
        }
        let problem = require_component(Some("application/x-www-form-urlencoded")).err();
        assert!(problem.is_some_and(|problem| problem.detail().contains("--upload-file")));
    }

    #[test]
    fn only_identity_is_an_encoding() {
        for fine in [None, Some(""), Some("identity"), Some(" Identity ")] {
            assert_eq!(require_identity(fine), Ok(()));
        }
        for other in ["gzip", "br", "identity, gzip"] {
            assert!(require_identity(Some(other)).is_err_and(|problem| problem.status() == 415), "{other}");
        }
    }
}
