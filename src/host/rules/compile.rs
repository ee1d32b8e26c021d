//! One rule: matches and statements to the expressions that nf_tables runs.
//!
//! A match on a protocol's field implies the protocol, once in a rule: `tcp dport` in an inet table first asks whether this is TCP.

use super::expr::{Base, Expr, Meta, Register, Relation, Verdict};
use super::text::{SyntaxError, Words};

/// The protocols that fields belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Ipv4,
    Ipv6,
    /// A transport protocol, by its number.
    Transport(u8),
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const NFPROTO: [u8; 2] = [2, 10];
/// The IPv6 fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: u8 = 44;

/// What a match loads.
#[derive(Clone, Copy, Debug)]
struct Field {
    needs: &'static [Protocol],
    load: Load,
    /// Bytes.
    len: u32,
    /// Words that mean a number here.
    names: &'static [(&'static str, u32)],
}

#[derive(Clone, Copy, Debug)]
enum Load {
    Payload(Base, u32),
    Meta(Meta),
}

const PROTOCOLS: &[(&str, u32)] = &[("tcp", TCP as u32)];
const TCP_FLAGS: &[(&str, u32)] = &[("syn", 2), ("rst", 4)];

/// The fields of the language, by the words that name them. Offsets: RFC 791, 8200, 9293, 792, 4443.
const FIELDS: &[(&str, &str, Field)] = &[
    ("ip", "frag-off", network(Protocol::Ipv4, 6, 2)),
    (
        "ip",
        "protocol",
        Field {
            names: PROTOCOLS,
            ..network(Protocol::Ipv4, 9, 1)
        },
    ),
    ("ip", "saddr", network(Protocol::Ipv4, 12, 4)),
    ("ip", "daddr", network(Protocol::Ipv4, 16, 4)),
    ("ip6", "saddr", network(Protocol::Ipv6, 8, 16)),
    ("ip6", "daddr", network(Protocol::Ipv6, 24, 16)),
    ("tcp", "sport", transport(&[Protocol::Transport(TCP)], 0, 2)),
    ("tcp", "dport", transport(&[Protocol::Transport(TCP)], 2, 2)),
    (
        "tcp",
        "flags",
        Field {
            names: TCP_FLAGS,
            ..transport(&[Protocol::Transport(TCP)], 13, 1)
        },
    ),
    (
        "icmp",
        "type",
        Field {
            names: &[("destination-unreachable", 3)],
            ..transport(&[Protocol::Ipv4, Protocol::Transport(ICMP)], 0, 1)
        },
    ),
    (
        "icmpv6",
        "type",
        Field {
            names: &[("destination-unreachable", 1)],
            ..transport(&[Protocol::Ipv6, Protocol::Transport(ICMPV6)], 0, 1)
        },
    ),
    (
        "meta",
        "l4proto",
        Field {
            needs: &[],
            load: Load::Meta(Meta::L4proto),
            len: 1,
            names: PROTOCOLS,
        },
    ),
    (
        "meta",
        "iifname",
        Field {
            needs: &[],
            load: Load::Meta(Meta::Iifname),
            len: 16,
            names: &[],
        },
    ),
    (
        "meta",
        "mark",
        Field {
            needs: &[],
            load: Load::Meta(Meta::Mark),
            len: 4,
            names: &[],
        },
    ),
];

const fn network(protocol: Protocol, offset: u32, len: u32) -> Field {
    let needs: &'static [Protocol] = match protocol {
        Protocol::Ipv6 => &[Protocol::Ipv6],
        _ => &[Protocol::Ipv4],
    };
    Field {
        needs,
        load: Load::Payload(Base::Network, offset),
        len,
        names: &[],
    }
}

const fn transport(needs: &'static [Protocol], offset: u32, len: u32) -> Field {
    Field {
        needs,
        load: Load::Payload(Base::Transport, offset),
        len,
        names: &[],
    }
}

impl Field {
    fn load(&self, to: Register) -> Expr {
        match self.load {
            Load::Payload(base, offset) => Expr::Payload {
                base,
                offset,
                len: self.len,
                to,
            },
            Load::Meta(key) => Expr::Meta(key, to),
        }
    }

    /// A value as it stands in a register: packets' fields in network byte order, the mark in the host's.
    fn encode(&self, value: u32) -> Option<Vec<u8>> {
        let len = usize::try_from(self.len).ok().filter(|len| *len <= 4)?;
        let bytes = value.to_be_bytes();
        let (high, low) = bytes.split_at(4 - len);
        if high.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(if matches!(self.load, Load::Meta(Meta::Mark)) {
            value.to_ne_bytes().to_vec()
        } else {
            low.to_vec()
        })
    }

    fn value(&self, words: &mut Words<'_>) -> Result<Vec<u8>, SyntaxError> {
        if matches!(self.load, Load::Meta(Meta::Iifname)) {
            return words.parse("an interface's name in quotes, of at most 15 letters", interface);
        }
        let expected = format!("a value of {} bytes", self.len);
        words.parse(&expected, |word| {
            let named = self
                .names
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, value)| *value);
            self.encode(named.or_else(|| number(word))?)
        })
    }
}

/// A quoted name as it stands in a register, filled up with zeros.
fn interface(word: &str) -> Option<Vec<u8>> {
    let name = word.strip_prefix('"')?.strip_suffix('"')?;
    let fits = (1..16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    fits.then_some(bytes)
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// A rule under construction.
#[derive(Default)]
struct Rule {
    exprs: Vec<Expr>,
    /// Protocols that the packet is known to have at this point.
    known: Vec<Protocol>,
}

/// Compiles the words of one rule.
pub(super) fn rule(words: &mut Words<'_>) -> Result<Vec<Expr>, SyntaxError> {
    let mut rule = Rule::default();
    let mut ended = false;
    while !words.is_empty() {
        if ended {
            return Err(words.error("the end of the line after a verdict"));
        }
        ended = rule.statement(words)?;
    }
    Ok(rule.exprs)
}

impl Rule {
    /// One match or statement; whether it ends the rule.
    fn statement(&mut self, words: &mut Words<'_>) -> Result<bool, SyntaxError> {
        if words.take("notrack") {
            self.exprs.push(Expr::Notrack);
        } else if words.take("counter") {
            words.expect("name")?;
            self.exprs.push(Expr::Counter(words.name("counter")?));
        } else if words.take("limit") {
            words.expect("rate")?;
            words.expect("over")?;
            let rate = words.parse("NUMBER/second", |word| word.strip_suffix("/second")?.parse().ok())?;
            words.expect("burst")?;
            let burst = words.parse("a number", |word| word.parse().ok())?;
            words.expect("packets")?;
            self.exprs.push(Expr::LimitOver { rate, burst });
        } else if words.take("exthdr") {
            words.expect("frag")?;
            words.expect("exists")?;
            self.need(&[Protocol::Ipv6]);
            let to = Register::at(0);
            self.exprs.push(Expr::ExthdrPresent {
                header: FRAGMENT_HEADER,
                to,
            });
            self.exprs.push(Expr::Cmp {
                relation: Relation::Equal,
                register: to,
                data: vec![1],
            });
        } else if words.take("queue") {
            words.expect("num")?;
            self.exprs
                .push(Expr::Queue(words.parse("a queue number", |word| word.parse().ok())?));
            return Ok(true);
        } else if let Some(verdict) = verdict(words)? {
            self.exprs.push(Expr::Verdict(verdict));
            return Ok(true);
        } else {
            self.matching(words)?;
        }
        Ok(false)
    }

    /// `FIELD . FIELD @SET`, `FIELD & NUMBER == NUMBER`, `FIELD & NUMBER != NUMBER` or `FIELD NUMBER`.
    fn matching(&mut self, words: &mut Words<'_>) -> Result<(), SyntaxError> {
        let first = field(words)?;
        let mut fields = vec![first];
        while words.take(".") {
            fields.push(field(words)?);
        }
        for field in &fields {
            self.need(field.needs);
        }
        let mut word = 0;
        for field in &fields {
            self.exprs.push(field.load(Register::at(word)));
            word += field.len.div_ceil(4);
        }
        let register = Register::at(0);
        if words.peek().is_some_and(|word| word.starts_with('@')) {
            let set = words.word("a set")?.trim_start_matches('@').to_owned();
            self.exprs.push(Expr::Lookup { register, set });
            return Ok(());
        }
        if fields.len() > 1 {
            return Err(words.error("a set, '@NAME', to look a concatenation up in"));
        }
        let mut relation = Relation::Equal;
        if words.take("&") {
            self.exprs.push(Expr::Mask {
                register,
                mask: first.value(words)?,
            });
            relation = words.parse("'==' or '!='", |word| match word {
                "==" => Some(Relation::Equal),
                "!=" => Some(Relation::Unequal),
                _ => None,
            })?;
        }
        self.exprs.push(Expr::Cmp {
            relation,
            register,
            data: first.value(words)?,
        });
        Ok(())
    }

    /// Asks for protocols that are not known yet.
    fn need(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if self.known.contains(protocol) {
                continue;
            }
            self.known.push(*protocol);
            let (key, value) = match protocol {
                Protocol::Ipv4 => (Meta::Nfproto, NFPROTO[0]),
                Protocol::Ipv6 => (Meta::Nfproto, NFPROTO[1]),
                Protocol::Transport(number) => (Meta::L4proto, *number),
            };
            let register = Register::at(0);
            self.exprs.push(Expr::Meta(key, register));
            self.exprs.push(Expr::Cmp {
                relation: Relation::Equal,
                register,
                data: vec![value],
            });
        }
    }
}

fn verdict(words: &mut Words<'_>) -> Result<Option<Verdict>, SyntaxError> {
    if words.take("accept") {
        return Ok(Some(Verdict::Accept));
    }
    if words.take("drop") {
        return Ok(Some(Verdict::Drop));
    }
    if words.take("goto") {
        return words.name("chain").map(|chain| Some(Verdict::Goto(chain)));
    }
    Ok(None)
}

fn field(words: &mut Words<'_>) -> Result<Field, SyntaxError> {
    let expected = "a match or a statement that the loader knows";
    if let Some(raw) = words.peek().and_then(|word| word.strip_prefix("@th,")) {
        let field = raw_field(raw).ok_or_else(|| words.error("@th,OFFSET,LENGTH in bits, whole bytes, up to 32"))?;
        words.word(expected)?;
        return Ok(field);
    }
    let error = words.error(expected);
    let protocol = words.word(expected)?;
    let known = |name: &str| {
        FIELDS
            .iter()
            .find(|(first, second, _)| *first == protocol && *second == name)
    };
    if !FIELDS.iter().any(|(first, ..)| *first == protocol) {
        return Err(error);
    }
    words.parse(&format!("a field of {protocol} that the loader knows"), |word| {
        known(word).map(|(.., field)| *field)
    })
}

/// `OFFSET,LENGTH` in bits from the transport header on.
fn raw_field(text: &str) -> Option<Field> {
    let (offset, len) = text.split_once(',')?;
    let (offset, len) = (offset.parse::<u32>().ok()?, len.parse::<u32>().ok()?);
    let whole = offset.is_multiple_of(8) && len.is_multiple_of(8) && (8..=32).contains(&len) && offset <= 1024;
    whole.then(|| transport(&[], offset / 8, len / 8))
}
