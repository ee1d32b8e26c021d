//! The subset of nft's language that `nft-rules/relevo.nft` uses: words, and blocks one in another. Strict: what is not
//! known is an error with its line, never skipped.
//!
//! ```text
//! table inet NAME {                          flush table inet NAME
//!     counter NAME { }                       flush set inet NAME SET
//!     set NAME { type TYPE . TYPE; }         add element inet NAME SET { VALUE . VALUE, ... }
//!     chain NAME {
//!         type filter hook HOOK priority PRIORITY; policy accept;
//!         RULE
//!     }
//! }
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use super::compile;
use super::expr::Expr;

/// Text that the compiler does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ruleset, line {line}: found {found}, expected {expected}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What could.
    pub expected: String,
}

/// A whole ruleset: one table, the target state of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name; its family is inet.
    pub table: String,
    /// Named counters.
    pub counters: Vec<String>,
    /// In order of declaration.
    pub sets: Vec<Set>,
    /// In order of first appearance.
    pub chains: Vec<Chain>,
    /// In order, over all chains.
    pub rules: Vec<Rule>,
    /// Whether the rules of an earlier load are to go first.
    pub flush: bool,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What its keys are concatenated of.
    pub key: Vec<KeyType>,
    /// Whether earlier elements are to go first.
    pub flush: bool,
    /// Keys, each part in network byte order and filled up to 4 bytes.
    pub elements: Vec<Vec<u8>>,
}

/// The type of a part of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_service`: a port.
    Port,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where it hangs; `None` is a chain that only others go to.
    pub hook: Option<(Hook, i32)>,
}

/// Netfilter's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The chain that it is in.
    pub chain: String,
    /// Its line in the text, for messages.
    pub line: usize,
    /// Its steps.
    pub exprs: Vec<Expr>,
}

impl KeyType {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "ipv4_addr" => Some(Self::Ipv4),
            "ipv6_addr" => Some(Self::Ipv6),
            "inet_service" => Some(Self::Port),
            _ => None,
        }
    }

    /// nft's number for the type (`enum datatypes`), which `nft list` reads back.
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Port => 13,
        }
    }

    /// Bytes in a register, filled up to whole words.
    const fn len(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Port => 4,
            Self::Ipv6 => 16,
        }
    }

    fn encode(self, word: &str) -> Option<Vec<u8>> {
        match self {
            Self::Ipv4 => word.parse::<Ipv4Addr>().ok().map(|addr| addr.octets().to_vec()),
            Self::Ipv6 => word.parse::<Ipv6Addr>().ok().map(|addr| addr.octets().to_vec()),
            // The port stands at the left of its word.
            Self::Port => word
                .parse::<u16>()
                .ok()
                .map(|port| [port.to_be_bytes(), [0; 2]].concat()),
        }
    }
}

impl Set {
    /// nft's number for a concatenation: six bits for each type.
    #[must_use]
    pub fn type_number(&self) -> u32 {
        self.key.iter().fold(0, |number, part| number << 6 | part.number())
    }

    /// Bytes of a key.
    #[must_use]
    pub fn key_len(&self) -> u32 {
        self.key.iter().map(|part| part.len()).sum()
    }
}

/// The words of one line and the place in it.
#[derive(Clone)]
pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    next: usize,
    pub(super) line: usize,
}

impl<'a> Words<'a> {
    /// Words are divided by spaces; `{ } ; ,` are words of their own; a `#` begins a comment.
    pub(super) fn new(text: &'a str, line: usize) -> Self {
        let text = text.split('#').next().unwrap_or_default();
        let mut words = Vec::new();
        for chunk in text.split_whitespace() {
            let mut rest = chunk;
            while let Some(at) = rest
                .find(['{', '}', ';'])
                .or_else(|| rest.ends_with(',').then(|| rest.len() - 1))
            {
                let (before, mark) = rest.split_at(at);
                let (mark, after) = mark.split_at(1);
                words.extend([before, mark].into_iter().filter(|word| !word.is_empty()));
                rest = after;
            }
            if !rest.is_empty() {
                words.push(rest);
            }
        }
        Self { words, next: 0, line }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.words.len()
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    /// The next word, if it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    /// The next word, whatever it is.
    pub(super) fn word(&mut self, expected: &str) -> Result<&'a str, SyntaxError> {
        let word = self.peek().ok_or_else(|| self.error(expected))?;
        self.next += 1;
        Ok(word)
    }

    /// The next word must be this one.
    pub(super) fn expect(&mut self, word: &str) -> Result<(), SyntaxError> {
        if self.take(word) {
            Ok(())
        } else {
            Err(self.error(&format!("'{word}'")))
        }
    }

    /// The next word, if it can be read as what is expected.
    pub(super) fn parse<T>(&mut self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, SyntaxError> {
        let value = self.peek().and_then(read).ok_or_else(|| self.error(expected))?;
        self.next += 1;
        Ok(value)
    }

    /// A name of a table, chain, set or counter.
    pub(super) fn name(&mut self, what: &str) -> Result<String, SyntaxError> {
        self.parse(&format!("the name of a {what}"), |word| {
            let word = word
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .unwrap_or(word);
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (!word.is_empty() && word.len() < 128 && word.bytes().all(fits)).then(|| word.to_owned())
        })
    }

    pub(super) fn end(&self) -> Result<(), SyntaxError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.error("the end of the line"))
        }
    }

    /// The next word is not what was expected.
    pub(super) fn error(&self, expected: &str) -> SyntaxError {
        let found = self
            .peek()
            .map_or_else(|| "the end of the line".to_owned(), |word| format!("'{word}'"));
        SyntaxError {
            line: self.line,
            found,
            expected: expected.to_owned(),
        }
    }
}

/// Where the reading stands.
enum Block {
    Top,
    Table,
    Chain(String),
}

/// Compiles a whole text.
pub fn compile(text: &str) -> Result<Ruleset, SyntaxError> {
    let mut ruleset = Ruleset::default();
    let mut block = Block::Top;
    let mut line = 0;
    for text in text.lines() {
        line += 1;
        let mut words = Words::new(text, line);
        if words.is_empty() {
            continue;
        }
        block = match block {
            Block::Top => ruleset.top(&mut words)?,
            Block::Table => ruleset.in_table(&mut words)?,
            Block::Chain(chain) => ruleset.in_chain(&mut words, chain)?,
        };
        words.end()?;
    }
    match block {
        Block::Top => ruleset.check(),
        _ => Err(SyntaxError {
            line,
            found: "the end of the text".to_owned(),
            expected: "'}'".to_owned(),
        }),
    }
}

impl Ruleset {
    fn top(&mut self, words: &mut Words<'_>) -> Result<Block, SyntaxError> {
        if words.take("table") {
            self.table_name(words)?;
            words.expect("{")?;
            return Ok(Block::Table);
        }
        if words.take("flush") {
            if words.take("table") {
                self.table_name(words)?;
                self.flush = true;
            } else {
                words.expect("set")?;
                self.table_name(words)?;
                self.set(words)?.flush = true;
            }
            return Ok(Block::Top);
        }
        if words.take("add") {
            words.expect("element")?;
            self.table_name(words)?;
            let set = self.set(words)?;
            words.expect("{")?;
            loop {
                let element = element(words, &set.key)?;
                set.elements.push(element);
                if !words.take(",") {
                    break;
                }
            }
            words.expect("}")?;
            return Ok(Block::Top);
        }
        Err(words.error("'table', 'flush' or 'add'"))
    }

    /// The family and name of the table, which is always the same one.
    fn table_name(&mut self, words: &mut Words<'_>) -> Result<(), SyntaxError> {
        words.expect("inet")?;
        if self.table.is_empty() {
            self.table = words.name("table")?;
            return Ok(());
        }
        words.expect(&self.table)
    }

    fn set(&mut self, words: &mut Words<'_>) -> Result<&mut Set, SyntaxError> {
        let error = words.error("the name of a set that was declared");
        let name = words.name("set")?;
        self.sets.iter_mut().find(|set| set.name == name).ok_or(error)
    }

    fn in_table(&mut self, words: &mut Words<'_>) -> Result<Block, SyntaxError> {
        if words.take("}") {
            return Ok(Block::Top);
        }
        if words.take("counter") {
            let name = words.name("counter")?;
            words.expect("{")?;
            words.expect("}")?;
            self.counters.push(name);
            return Ok(Block::Table);
        }
        if words.take("set") {
            let name = words.name("set")?;
            words.expect("{")?;
            words.expect("type")?;
            let mut key = Vec::new();
            loop {
                key.push(words.parse("ipv4_addr, ipv6_addr or inet_service", KeyType::parse)?);
                if !words.take(".") {
                    break;
                }
            }
            words.expect(";")?;
            words.expect("}")?;
            self.sets.push(Set {
                name,
                key,
                flush: false,
                elements: Vec::new(),
            });
            return Ok(Block::Table);
        }
        if words.take("chain") {
            let name = words.name("chain")?;
            words.expect("{")?;
            if !self.chains.iter().any(|chain| chain.name == name) {
                self.chains.push(Chain {
                    name: name.clone(),
                    hook: None,
                });
            }
            return Ok(Block::Chain(name));
        }
        Err(words.error("'counter', 'set', 'chain' or '}'"))
    }

    fn in_chain(&mut self, words: &mut Words<'_>, chain: String) -> Result<Block, SyntaxError> {
        if words.take("}") {
            return Ok(Block::Table);
        }
        if words.take("type") {
            let hook = base_chain(words)?;
            for known in self.chains.iter_mut().filter(|known| known.name == chain) {
                known.hook = Some(hook);
            }
            return Ok(Block::Chain(chain));
        }
        let line = words.line;
        let exprs = compile::rule(words)?;
        self.rules.push(Rule {
            chain: chain.clone(),
            line,
            exprs,
        });
        Ok(Block::Chain(chain))
    }

    /// Every name that a rule uses is declared.
    fn check(self) -> Result<Self, SyntaxError> {
        for rule in &self.rules {
            for expr in &rule.exprs {
                let (known, what, name) = match expr {
                    Expr::Lookup { set, .. } => (self.sets.iter().any(|known| known.name == *set), "set", set),
                    Expr::Counter(name) => (self.counters.contains(name), "counter", name),
                    Expr::Verdict(super::expr::Verdict::Goto(chain)) => {
                        (self.chains.iter().any(|known| known.name == *chain), "chain", chain)
                    }
                    _ => continue,
                };
                if !known {
                    let expected = format!("a {what} that is declared");
                    return Err(SyntaxError {
                        line: rule.line,
                        found: format!("'{name}'"),
                        expected,
                    });
                }
            }
        }
        Ok(self)
    }
}

/// One key of a set: as many values as it has parts.
fn element(words: &mut Words<'_>, key: &[KeyType]) -> Result<Vec<u8>, SyntaxError> {
    let mut data = Vec::new();
    for (index, part) in key.iter().enumerate() {
        if index > 0 {
            words.expect(".")?;
        }
        let expected = match part {
            KeyType::Ipv4 => "an IPv4 address",
            KeyType::Ipv6 => "an IPv6 address",
            KeyType::Port => "a port",
        };
        data.extend(words.parse(expected, |word| part.encode(word))?);
    }
    Ok(data)
}

/// `type filter hook HOOK priority raw + 10; policy accept;` after the first word.
fn base_chain(words: &mut Words<'_>) -> Result<(Hook, i32), SyntaxError> {
    words.expect("filter")?;
    words.expect("hook")?;
    let hook = words.parse("prerouting, input, forward or output", |word| match word {
        "prerouting" => Some(Hook::Prerouting),
        "input" => Some(Hook::Input),
        "forward" => Some(Hook::Forward),
        "output" => Some(Hook::Output),
        _ => None,
    })?;
    words.expect("priority")?;
    let mut priority = words.parse("raw or filter", |word| match word {
        "raw" => Some(-300),
        "filter" => Some(0),
        _ => None,
    })?;
    if words.take("+") {
        let number = |word: &str| word.parse::<i32>().ok().filter(|number| (0..=100).contains(number));
        priority += words.parse("a number up to 100", number)?;
    }
    for word in [";", "policy", "accept", ";"] {
        words.expect(word)?;
    }
    Ok((hook, priority))
}
