//! The kernel's side of a ruleset, as plain data: what nf_tables runs for each packet.
//!
//! `Display` writes the notation of `nft --debug=netlink`, so that what is compiled here can be held against what nft makes of
//! the same text. Constants are those of `linux/netfilter/nf_tables.h`.

use std::fmt;

/// A 4-byte word of an expression's data register, or of the old 16-byte ones: the first word is register 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// The register that begins `word` words of 4 bytes into the data area. Where it falls on 16 bytes this is one of the old
    /// numbers, `NFT_REG_1` and on, as nft chooses too; otherwise `NFT_REG32_00` and on.
    #[must_use]
    pub const fn at(word: u32) -> Self {
        if word.is_multiple_of(4) {
            Self(1 + word / 4)
        } else {
            Self(8 + word)
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Where a payload expression counts from: `NFT_PAYLOAD_*_HEADER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The IP header.
    Network,
    /// The header behind it.
    Transport,
}

/// What a meta expression loads: `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The packet's mark; 4 bytes, host byte order.
    Mark,
    /// The name of the interface that the packet came by; 16 bytes, filled up with zeros.
    Iifname,
    /// IPv4 or IPv6, one byte.
    Nfproto,
    /// The transport protocol, one byte, found behind IPv6 extension headers too.
    L4proto,
}

/// How a comparison is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next hook.
    Accept,
    /// Away.
    Drop,
    /// On in another chain, not to come back.
    Goto(String),
}

/// One step of a rule. A step that does not hold ends the rule for this packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads something known of the packet.
    Meta(Meta, Register),
    /// Loads `len` bytes at `offset` from `base`.
    Payload {
        /// What `offset` counts from.
        base: Base,
        /// Bytes.
        offset: u32,
        /// Bytes.
        len: u32,
        /// Where to.
        to: Register,
    },
    /// Loads 1 if there is an IPv6 header of this kind, else 0.
    ExthdrPresent {
        /// The header's protocol number.
        header: u8,
        /// Where to.
        to: Register,
    },
    /// `register &= mask`.
    Mask {
        /// Which.
        register: Register,
        /// As long as what was loaded.
        mask: Vec<u8>,
    },
    /// Goes on if the comparison holds.
    Cmp {
        /// How.
        relation: Relation,
        /// What.
        register: Register,
        /// With what.
        data: Vec<u8>,
    },
    /// Goes on if the set has what is in the registers from here on.
    Lookup {
        /// The first one.
        register: Register,
        /// The set's name.
        set: String,
    },
    /// Conntrack lets the packet alone.
    Notrack,
    /// Goes on only beyond a rate.
    LimitOver {
        /// Packets a second.
        rate: u32,
        /// Packets that may come at once.
        burst: u32,
    },
    /// Counts with a named counter.
    Counter(String),
    /// Ends the rule.
    Verdict(Verdict),
    /// Ends the rule: to the program that has bound the queue.
    Queue(u16),
}

/// Bytes as libnftnl prints registers: words in host byte order, the last one filled up with zeros.
struct Words<'a>(&'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(4) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            write!(f, " 0x{:08x}", u32::from_ne_bytes(word))?;
        }
        Ok(())
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reg {}", self.0)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(key, to) => {
                let key = match key {
                    Meta::Mark => "mark",
                    Meta::Iifname => "iifname",
                    Meta::Nfproto => "nfproto",
                    Meta::L4proto => "l4proto",
                };
                write!(f, "[ meta load {key} => {to} ]")
            }
            Self::Payload { base, offset, len, to } => {
                let base = match base {
                    Base::Network => "network",
                    Base::Transport => "transport",
                };
                write!(f, "[ payload load {len}b @ {base} header + {offset} => {to} ]")
            }
            Self::ExthdrPresent { header, to } => write!(f, "[ exthdr load ipv6 1b @ {header} + 0 present => {to} ]"),
            Self::Mask { register, mask } => {
                let zero = vec![0; mask.len()];
                write!(
                    f,
                    "[ bitwise {register} = ( {register} &{} ) ^{} ]",
                    Words(mask),
                    Words(&zero)
                )
            }
            Self::Cmp {
                relation,
                register,
                data,
            } => {
                let relation = match relation {
                    Relation::Equal => "eq",
                    Relation::Unequal => "neq",
                };
                write!(f, "[ cmp {relation} {register}{} ]", Words(data))
            }
            Self::Lookup { register, set } => write!(f, "[ lookup {register} set {set} ]"),
            Self::Notrack => write!(f, "[ notrack ]"),
            Self::LimitOver { rate, burst } => {
                write!(f, "[ limit rate {rate}/second burst {burst} type packets flags 0x1 ]")
            }
            Self::Counter(name) => write!(f, "[ objref type 1 name {name} ]"),
            Self::Verdict(Verdict::Accept) => write!(f, "[ immediate reg 0 accept ]"),
            Self::Verdict(Verdict::Drop) => write!(f, "[ immediate reg 0 drop ]"),
            Self::Verdict(Verdict::Goto(chain)) => write!(f, "[ immediate reg 0 goto -> {chain} ]"),
            Self::Queue(number) => write!(f, "[ queue num {number} ]"),
        }
    }
}
