//! The words of a statement: white space and comments passed over, names however they are quoted.

use super::checkpoint::Name;

/// The rest of a statement.
pub(super) struct Words<'a> {
    pub(super) rest: &'a str,
    pub(super) database: &'a str,
}

impl Words<'_> {
    /// Passes white space and comments; what the server executes in `/*! */` is not passed but for its frame.
    pub(super) fn blank(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            self.rest = rest;
            if let Some(comment) = rest.strip_prefix("/*") {
                let executed = comment.strip_prefix("M!").or_else(|| comment.strip_prefix('!'));
                self.rest = match executed {
                    Some(inside) => inside.trim_start_matches(|c: char| c.is_ascii_digit()),
                    None => comment.split_once("*/").map_or("", |(_, after)| after),
                };
            } else if let Some(after) = rest.strip_prefix("*/") {
                self.rest = after;
            } else if rest.starts_with('#') || rest.starts_with("-- ") || rest.starts_with("--\n") {
                self.rest = rest.split_once('\n').map_or("", |(_, after)| after);
            } else {
                return;
            }
        }
    }

    /// The next word in upper case; empty if there is none here.
    pub(super) fn keyword(&mut self) -> String {
        self.blank();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_ascii_uppercase()
    }

    /// Passes these words wherever they come next.
    pub(super) fn skip(&mut self, words: &[&str]) {
        loop {
            let before = self.rest;
            let word = self.keyword();
            if word.is_empty() || !words.contains(&word.as_str()) {
                self.rest = before;
                return;
            }
        }
    }

    pub(super) fn punctuation(&mut self, mark: char) -> bool {
        self.blank();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn identifier(&mut self) -> Option<String> {
        self.blank();
        for quote in ['`', '"'] {
            if let Some(inside) = self.rest.strip_prefix(quote) {
                let mut name = String::new();
                let mut characters = inside.char_indices().peekable();
                while let Some((at, character)) = characters.next() {
                    if character != quote {
                        name.push(character);
                    } else if characters.next_if(|&(_, next)| next == quote).is_some() {
                        name.push(quote);
                    } else {
                        self.rest = &inside[at + 1..];
                        return Some(name);
                    }
                }
                return None;
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || c as u32 >= 0x80;
        let end = self.rest.find(|c: char| !plain(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    pub(super) fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        if self.punctuation('.') {
            return Some((first, self.identifier()?));
        }
        Some((self.database.to_owned(), first))
    }

    pub(super) fn names(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if !self.punctuation(',') {
                break;
            }
        }
        names
    }

    /// Looks at the next word without taking it.
    pub(super) fn peek(&mut self) -> String {
        let before = self.rest;
        let word = self.keyword();
        self.rest = before;
        word
    }

    /// Passes one character, or a quoted text as a whole; answers the character.
    pub(super) fn pass(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next();
        if let Some(quote @ ('\'' | '"' | '`')) = character {
            while let Some(character) = characters.next() {
                if character == '\\' && quote != '`' {
                    characters.next();
                } else if character == quote {
                    break;
                }
            }
        }
        self.rest = characters.as_str();
        character
    }

    /// The rest as the name of an XA transaction: without white space, as the log writes it.
    pub(super) fn xid(&mut self) -> String {
        self.rest.chars().filter(|c| !c.is_whitespace()).take_while(|&c| c != ';').collect()
    }

    /// MariaDB's `WAIT n` and `NOWAIT`.
    pub(super) fn wait(&mut self) {
        let before = self.rest;
        match self.keyword().as_str() {
            "NOWAIT" => {}
            "WAIT" => {
                self.identifier();
            }
            _ => self.rest = before,
        }
    }
}
