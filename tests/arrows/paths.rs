//! The paths that a Rust source names: `use` trees and paths inside code.

/// One path, resolved as far as that is possible without a compiler.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// `crate::a::b` is `["a", "b"]` with `in_crate`; `std::fs` is `["std", "fs"]` without.
    pub segments: Vec<String>,
    /// The path starts at the root of this package.
    pub in_crate: bool,
    /// It stands inside a module marked `#[cfg(test)]`.
    pub in_test: bool,
    /// Line number, from 1.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Ident(String),
    Sep,
    Punct(char),
}

/// Every path of two or more segments, and every `use` and `extern crate`, of a file that is
/// the module `module`.
pub fn paths_of(text: &str, module: &[String]) -> Vec<Path> {
    let mut scan = Scan {
        tokens: tokens(text),
        at: 0,
        module: module.to_vec(),
        open: Vec::new(),
        depth: 0,
        raw: Vec::new(),
        submodules: Vec::new(),
    };
    scan.run();
    let mut found = Vec::new();
    let mut local: Vec<String> = scan
        .raw
        .iter()
        .filter(|r| r.from_use)
        .filter_map(|r| Some((resolve(r)?, r)))
        .filter(|(p, _)| p.in_crate)
        .filter_map(|(p, r)| r.alias.clone().or_else(|| p.segments.last().cloned()))
        .collect();
    local.append(&mut scan.submodules);
    for raw in &scan.raw {
        let Some(path) = resolve(raw) else { continue };
        // A module here, or a name that a `use crate::…` brought in, is no crate.
        let known = !path.in_crate && !raw.global && local.contains(&path.segments[0]);
        if !known {
            found.push(path);
        }
    }
    found
}

struct Raw {
    segments: Vec<String>,
    module: Vec<String>,
    global: bool,
    from_use: bool,
    alias: Option<String>,
    in_test: bool,
    line: usize,
}

/// Follows `crate`, `self` and `super`; `None` when nothing is left to name.
fn resolve(raw: &Raw) -> Option<Path> {
    let mut segments = raw.segments.clone();
    let mut base = raw.module.clone();
    let mut in_crate = false;
    if !raw.global {
        match segments.first()?.as_str() {
            "crate" | "troupemq" => {
                in_crate = true;
                base.clear();
                segments.remove(0);
            }
            "self" => {
                in_crate = true;
                segments.remove(0);
            }
            "super" => {
                in_crate = true;
                while segments.first().is_some_and(|s| s == "super") {
                    base.pop();
                    segments.remove(0);
                }
            }
            _ => {}
        }
    }
    if in_crate {
        base.extend(segments);
        segments = base;
    }
    (!segments.is_empty()).then_some(Path {
        segments,
        in_crate,
        in_test: raw.in_test,
        line: raw.line,
    })
}

struct Scan {
    tokens: Vec<(Token, usize)>,
    at: usize,
    module: Vec<String>,
    /// Inline modules that are open: their depth of braces, and whether they are tests.
    open: Vec<(usize, bool)>,
    depth: usize,
    raw: Vec<Raw>,
    /// Modules declared in this file.
    submodules: Vec<String>,
}

impl Scan {
    fn run(&mut self) {
        let mut test_attribute = false;
        while let Some((token, line)) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Punct('#') if self.is_cfg_test() => test_attribute = true,
                Token::Punct('{') => self.depth += 1,
                Token::Punct('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.open.last().is_some_and(|(d, _)| *d == self.depth) {
                        self.open.pop();
                        self.module.pop();
                    }
                }
                Token::Punct(';') => test_attribute = false,
                Token::Ident(word) if word == "use" => {
                    self.at += 1;
                    let global = self.eat_sep();
                    self.tree(Vec::new(), global);
                    continue;
                }
                Token::Ident(word) if word == "extern" && self.word(1) == Some("crate") => {
                    if let Some(name) = self.word(2).map(str::to_owned) {
                        self.push(vec![name], true, None, false, line);
                    }
                    self.at += 2;
                }
                Token::Ident(word) if word == "mod" && self.is_punct(2, ';') => {
                    self.submodules.extend(self.word(1).map(str::to_owned));
                }
                Token::Ident(word) if word == "mod" && self.is_punct(2, '{') => {
                    let name = self.word(1).unwrap_or_default().to_owned();
                    self.submodules.push(name.clone());
                    self.module.push(name);
                    self.open.push((self.depth, test_attribute));
                    test_attribute = false;
                    self.depth += 1;
                    self.at += 2;
                }
                Token::Ident(_) => {
                    self.inline_path(line);
                    continue;
                }
                Token::Sep
                    if matches!(self.tokens.get(self.at + 1), Some((Token::Ident(_), _))) =>
                {
                    // `::raft::X`, unless it goes on after `>` or `)`.
                    let before = self.at.checked_sub(1).and_then(|i| self.tokens.get(i));
                    let goes_on = matches!(before, Some((Token::Punct('>' | ')' | ']'), _)));
                    self.at += 1;
                    if goes_on {
                        self.skip_path();
                    } else {
                        self.global_path(line);
                    }
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// `#[cfg(test)]` or any attribute that names `test` inside `cfg`.
    fn is_cfg_test(&self) -> bool {
        self.is_punct(1, '[')
            && self.word(2) == Some("cfg")
            && (3..12)
                .take_while(|i| !self.is_punct(*i, ']'))
                .any(|i| self.word(i) == Some("test"))
            && !(3..12).any(|i| self.word(i) == Some("not"))
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.tokens.get(self.at + ahead) {
            Some((Token::Ident(w), _)) => Some(w),
            _ => None,
        }
    }

    fn is_punct(&self, ahead: usize, c: char) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((Token::Punct(p), _)) if *p == c)
    }

    fn eat_sep(&mut self) -> bool {
        let is = matches!(self.tokens.get(self.at), Some((Token::Sep, _)));
        self.at += usize::from(is);
        is
    }

    fn push(
        &mut self,
        segments: Vec<String>,
        global: bool,
        alias: Option<String>,
        from_use: bool,
        line: usize,
    ) {
        let in_test = self.open.iter().any(|(_, test)| *test);
        let module = self.module.clone();
        self.raw.push(Raw {
            segments,
            module,
            global,
            from_use,
            alias,
            in_test,
            line,
        });
    }

    /// One branch of a `use` tree after `prefix`.
    fn tree(&mut self, mut prefix: Vec<String>, global: bool) {
        let line = self.tokens.get(self.at).map_or(0, |t| t.1);
        loop {
            match self.tokens.get(self.at).map(|t| t.0.clone()) {
                Some(Token::Ident(word)) => {
                    self.at += 1;
                    if word == "self" && !prefix.is_empty() {
                        // `a::{self}` names `a`.
                    } else {
                        prefix.push(word);
                    }
                    if self.eat_sep() {
                        continue;
                    }
                    let alias = (self.word(0) == Some("as")).then(|| {
                        let alias = self.word(1).unwrap_or_default().to_owned();
                        self.at += 2;
                        alias
                    });
                    self.push(prefix, global, alias, true, line);
                    return;
                }
                Some(Token::Punct('*')) => {
                    self.at += 1;
                    self.push(prefix, global, Some("*".into()), true, line);
                    return;
                }
                Some(Token::Punct('{')) => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is_punct(0, '}') {
                        let before = self.at;
                        self.tree(prefix.clone(), global);
                        if self.is_punct(0, ',') || self.at == before {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ => return,
            }
        }
    }

    fn global_path(&mut self, line: usize) {
        let segments = self.segments();
        self.push(segments, true, None, false, line);
    }

    fn inline_path(&mut self, line: usize) {
        let segments = self.segments();
        if segments.len() > 1 {
            self.push(segments, false, None, false, line);
        }
    }

    fn skip_path(&mut self) {
        let _ = self.segments();
    }

    /// Identifiers joined by `::`, starting at one.
    fn segments(&mut self) -> Vec<String> {
        let mut segments = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            segments.push(word);
            self.at += 1;
            let more =
                matches!(self.tokens.get(self.at), Some((Token::Sep, _))) && self.word(1).is_some();
            if !more {
                break;
            }
            self.at += 1;
        }
        segments
    }
}

/// Splits a source into identifiers, `::` and punctuation; comments and literals are left out.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let mut line = 1;
    let mut i = 0;
    while i < c.len() {
        let start = i;
        match c[i] {
            '/' if at(i + 1) == '/' => {
                while i < c.len() && c[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < c.len() {
                    match (c[i], at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => i = end_of_string(&c, i + 1),
            'r' | 'b' | 'c' if raw_string(&c, i).is_some() => {
                i = raw_string(&c, i).unwrap_or(i + 1);
            }
            'b' | 'c' if at(i + 1) == '"' => i = end_of_string(&c, i + 2),
            '\'' => {
                // A character, or a lifetime.
                i = match (at(i + 1), at(i + 2)) {
                    ('\\', _) => end_of_char(&c, i + 1),
                    (_, '\'') => i + 3,
                    _ => i + 1,
                };
            }
            ':' if at(i + 1) == ':' => {
                out.push((Token::Sep, line));
                i += 2;
            }
            ch if ch.is_alphanumeric() || ch == '_' => {
                while i < c.len() && (c[i].is_alphanumeric() || c[i] == '_') {
                    i += 1;
                }
                out.push((Token::Ident(c[start..i].iter().collect()), line));
            }
            ch => {
                if !ch.is_whitespace() {
                    out.push((Token::Punct(ch), line));
                }
                i += 1;
            }
        }
        line += c[start..i.min(c.len())]
            .iter()
            .filter(|ch| **ch == '\n')
            .count();
    }
    out
}

fn end_of_string(c: &[char], mut i: usize) -> usize {
    while i < c.len() {
        match c[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    i
}

fn end_of_char(c: &[char], mut i: usize) -> usize {
    i += 2;
    while i < c.len() && c[i] != '\'' {
        i += 1;
    }
    i + 1
}

/// The end of `r"…"`, `r#"…"#`, `br"…"` that starts at `i`, if one does.
fn raw_string(c: &[char], mut i: usize) -> Option<usize> {
    if matches!(c[i], 'b' | 'c') {
        i += 1;
    }
    if c.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = c[i..].iter().take_while(|ch| **ch == '#').count();
    i += hashes;
    if c.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < c.len() {
        if c[i] == '"'
            && c[i + 1..]
                .iter()
                .take(hashes)
                .filter(|ch| **ch == '#')
                .count()
                == hashes
        {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(i)
}
