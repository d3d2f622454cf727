//! `cdc component wit`: the contract of subscribers in one file, because the tools of most languages take one.

const SUBSCRIBER: &str = include_str!("../../../wit/subscriber/subscriber.wit");
const OTHERS: [&str; 3] = [
    include_str!("../../../wit/event/event.wit"),
    include_str!("../../../wit/wasi/config.wit"),
    include_str!("../../../wit/wasi/keyvalue.wit"),
];

/// The contract with all that it refers to: the package of subscribers first, the others nested in the same file.
#[must_use]
pub fn wit() -> String {
    let mut out = SUBSCRIBER.trim_end().to_owned();
    for package in OTHERS {
        let (head, rest) = package.split_once(";\n").unwrap_or((package, ""));
        // `package name;` at the beginning of a file becomes `package name { … }` within one.
        out.push_str(&format!("\n\n{head} {{\n"));
        for line in rest.trim().lines() {
            out.push_str(if line.is_empty() { "" } else { "    " });
            out.push_str(line);
            out.push('\n');
        }
        out.push('}');
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_contract_is_one_file_of_four_packages() {
        let wit = super::wit();
        for package in
            ["package cdc:subscriber@1.0.0;", "package cdc:event@1.0.0 {", "package wasi:config@0.2.0-rc.1 {"]
        {
            assert!(wit.contains(package), "{package}");
        }
        assert_eq!(wit.matches("\npackage ").count(), 4);
    }
}
