//! A ruleset into the kernel: one transaction of nf_tables messages, so all of it or nothing.
//!
//! Tables, chains and rules go by the nftnl crate. It has no sets with concatenated keys, no named counters, no flushing and
//! no `queue` expression, so those are made of nftnl-sys here.

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::ptr::NonNull;

use nftnl::{Batch, Chain, MsgType, NlMsg, ProtoFamily, Table};
use nftnl_sys as sys;

use super::expr::{Base, Expr, Meta, Relation, Verdict};
use super::text::{Hook, Rule, Ruleset, Set};
use super::{QueueBackend, RulesError};
use crate::host::netlink::{Socket, messages};

/// A transaction has to fit one datagram, or it would be several.
const BATCH_BYTES: u32 = 1 << 20;
/// Room for the datagram, and for an acknowledgement of each message (768 bytes of kernel memory each).
const SOCKET_BYTES: usize = 4 << 20;
/// Elements in one message: 64 KiB holds a thousand of the largest.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Messages, and for each one what it is about.
struct Transaction {
    batch: Batch,
    subjects: Vec<Subject>,
}

/// What a message is about, for errors.
#[derive(Clone, Debug)]
struct Subject {
    text: String,
    queue: bool,
}

/// Loads a ruleset in one transaction.
pub(super) fn load(ruleset: &Ruleset, backend: QueueBackend) -> Result<(), RulesError> {
    let table = table(&ruleset.table);
    let mut transaction = Transaction::new();
    transaction.add(&table, MsgType::Add, "the table");
    if ruleset.flush {
        transaction.add(&FlushRules(&table), MsgType::Add, "emptying the chains");
    }
    for counter in &ruleset.counters {
        transaction.add(
            &NewCounter {
                table: &table,
                name: name(counter),
            },
            MsgType::Add,
            &format!("counter {counter}"),
        );
    }
    for (id, set) in (1..).zip(&ruleset.sets) {
        transaction.set(&table, id, set);
    }
    let chains: Vec<Chain<'_>> = ruleset.chains.iter().map(|wanted| chain(&table, wanted)).collect();
    for (chain, wanted) in chains.iter().zip(&ruleset.chains) {
        transaction.add(chain, MsgType::Add, &format!("chain {}", wanted.name));
    }
    for rule in &ruleset.rules {
        let place = ruleset.chains.iter().position(|chain| chain.name == rule.chain);
        if let Some(chain) = place.and_then(|index| chains.get(index)) {
            transaction.rule(chain, rule, backend);
        }
    }
    transaction.commit()
}

/// Deletes the table and all that is in it; `false` if there was none.
pub(super) fn unload(name: &str) -> Result<bool, RulesError> {
    let mut transaction = Transaction::new();
    transaction.add(&table(name), MsgType::Del, "deleting the table");
    match transaction.commit() {
        Ok(()) => Ok(true),
        Err(RulesError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel takes a queue rule: a table that comes and goes in one transaction, without a hook, so that no packet
/// ever meets it.
pub(super) fn probe(backend: QueueBackend) -> Result<(), RulesError> {
    let table = table(&format!("relevo_probe_{}", std::process::id()));
    let wanted = super::text::Chain {
        name: "probe".to_owned(),
        hook: None,
    };
    let chain = chain(&table, &wanted);
    let rule = Rule {
        chain: wanted.name,
        line: 0,
        exprs: vec![Expr::Queue(0)],
    };
    let mut transaction = Transaction::new();
    transaction.add(&table, MsgType::Add, "a table");
    transaction.add(&chain, MsgType::Add, "a chain");
    transaction.rule(&chain, &rule, backend);
    transaction.add(&table, MsgType::Del, "deleting the table");
    transaction.commit()
}

/// A name for C; the compiler lets no NUL through.
fn name(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn table(text: &str) -> Table {
    Table::new(name(text), ProtoFamily::Inet)
}

fn chain<'a>(table: &'a Table, wanted: &super::text::Chain) -> Chain<'a> {
    let mut chain = Chain::new(name(&wanted.name), table);
    if let Some((hook, priority)) = wanted.hook {
        let hook = match hook {
            Hook::Prerouting => nftnl::Hook::PreRouting,
            Hook::Input => nftnl::Hook::In,
            Hook::Forward => nftnl::Hook::Forward,
            Hook::Output => nftnl::Hook::Out,
        };
        chain.set_type(nftnl::ChainType::Filter);
        chain.set_hook(hook, priority);
        chain.set_policy(nftnl::Policy::Accept);
    }
    chain
}

impl Transaction {
    fn new() -> Self {
        Self {
            batch: Batch::with_page_size(BATCH_BYTES),
            subjects: Vec::new(),
        }
    }

    fn add(&mut self, message: &impl NlMsg, kind: MsgType, subject: &str) {
        self.batch.add(message, kind);
        self.subjects.push(Subject {
            text: subject.to_owned(),
            queue: false,
        });
    }

    fn set(&mut self, table: &Table, id: u32, set: &Set) {
        let declared = RawSet::new(table, id, set, &[]);
        self.add(
            &SetMessage(&declared, SetAction::Declare),
            MsgType::Add,
            &format!("set {}", set.name),
        );
        if set.flush {
            let subject = format!("emptying set {}", set.name);
            self.add(&SetMessage(&declared, SetAction::Flush), MsgType::Add, &subject);
        }
        for elements in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            let filled = RawSet::new(table, id, set, elements);
            let subject = format!("elements of set {}", set.name);
            self.add(&SetMessage(&filled, SetAction::Fill), MsgType::Add, &subject);
        }
    }

    fn rule(&mut self, chain: &Chain<'_>, rule: &Rule, backend: QueueBackend) {
        let mut raw = nftnl::Rule::new(chain);
        for expr in &rule.exprs {
            raw.add_expr(&Compiled { expr, backend });
        }
        self.add(&raw, MsgType::Add, &format!("the rule of line {}", rule.line));
        if let Some(subject) = self.subjects.last_mut() {
            subject.queue = rule.exprs.iter().any(|expr| matches!(expr, Expr::Queue(_)));
        }
    }

    /// Sends it, and looks at what the kernel says to each message.
    fn commit(self) -> Result<(), RulesError> {
        let Self { batch, subjects } = self;
        let batch = batch.finalize();
        let numbers = batch.sequence_numbers();
        // Where the kernel acknowledges the begin and end messages too (6.10 and on) they have numbers of their own.
        let bare = numbers.clone().count() == subjects.len();
        let first = if bare {
            numbers.start
        } else {
            numbers.start.saturating_add(1)
        };
        let mut datagrams = batch.iter();
        let (Some(datagram), None) = (datagrams.next(), datagrams.next()) else {
            return Err(RulesError::TooLarge);
        };
        let socket = Socket::open(mnl::Bus::Netfilter).map_err(RulesError::of_socket)?;
        socket.make_room(SOCKET_BYTES);
        socket.send(datagram).map_err(RulesError::Netlink)?;
        let answers = socket.drain().map_err(RulesError::Netlink)?;
        let mut acknowledged = 0;
        for message in messages(&answers) {
            let place = message
                .seq
                .checked_sub(first)
                .and_then(|place| usize::try_from(place).ok());
            let subject = place.and_then(|place| subjects.get(place));
            match message.status() {
                Some(Ok(())) => acknowledged += usize::from(subject.is_some()),
                Some(Err(source)) => {
                    let Subject { text, queue } = subject.cloned().unwrap_or(Subject {
                        text: "the transaction".to_owned(),
                        queue: false,
                    });
                    return Err(RulesError::of_answer(text, queue, source));
                }
                None => {}
            }
        }
        if acknowledged != subjects.len() {
            let text = format!("{acknowledged} of {} messages were acknowledged", subjects.len());
            return Err(RulesError::Netlink(io::Error::other(text)));
        }
        Ok(())
    }
}

/// What libnftnl gives when it has no memory, or for a kind of expression that it does not know, which are constants here.
fn allocated<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).unwrap_or_else(|| std::alloc::handle_alloc_error(std::alloc::Layout::new::<*mut T>()))
}

/// libnftnl's attribute numbers are u32 constants of small values, its functions take u16.
#[allow(clippy::cast_possible_truncation)]
const fn attr(number: u32) -> u16 {
    number as u16
}

/// Begins a message of this kind for the inet family.
///
/// # Safety
///
/// `buffer` has room for a netlink header and an nfgenmsg.
unsafe fn header(buffer: *mut c_void, kind: i32, flags: i32, seq: u32) -> *mut libc::nlmsghdr {
    let kind = u16::try_from(kind).unwrap_or_default();
    let flags = u16::try_from(flags | libc::NLM_F_ACK).unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe { sys::nftnl_nlmsg_build_hdr(buffer.cast::<c_char>(), kind, ProtoFamily::Inet as u16, flags, seq).cast() }
}

/// Deletes every rule of a table; chains stay.
struct FlushRules<'a>(&'a Table);

// SAFETY: the message holds a header and the table's name, which is far below the largest message.
unsafe impl NlMsg for FlushRules<'_> {
    unsafe fn write(&self, buffer: *mut c_void, seq: u32, _: MsgType) {
        // SAFETY: `buffer` has room for any message (the trait's contract); the rule is ours alone, its name is copied, and
        // it is freed once, after its last use.
        unsafe {
            let rule = allocated(sys::nftnl_rule_alloc()).as_ptr();
            sys::nftnl_rule_set_u32(rule, attr(sys::NFTNL_RULE_FAMILY), ProtoFamily::Inet as u32);
            sys::nftnl_rule_set_str(rule, attr(sys::NFTNL_RULE_TABLE), self.0.get_name().as_ptr());
            let header = header(buffer, libc::NFT_MSG_DELRULE, 0, seq);
            sys::nftnl_rule_nlmsg_build_payload(header.cast(), rule);
            sys::nftnl_rule_free(rule);
        }
    }
}

/// Declares a named counter; one that is there goes on counting.
struct NewCounter<'a> {
    table: &'a Table,
    name: CString,
}

/// `NFT_OBJECT_COUNTER`.
const OBJECT_COUNTER: u32 = 1;

// SAFETY: the message holds a header, two names of at most 128 bytes and two numbers.
unsafe impl NlMsg for NewCounter<'_> {
    unsafe fn write(&self, buffer: *mut c_void, seq: u32, _: MsgType) {
        // SAFETY: `buffer` has room for any message (the trait's contract); the object is ours alone, the names are copied,
        // and it is freed once, after its last use.
        unsafe {
            let object = allocated(sys::nftnl_obj_alloc()).as_ptr();
            sys::nftnl_obj_set_u32(object, attr(sys::NFTNL_OBJ_FAMILY), ProtoFamily::Inet as u32);
            sys::nftnl_obj_set_str(object, attr(sys::NFTNL_OBJ_TABLE), self.table.get_name().as_ptr());
            sys::nftnl_obj_set_str(object, attr(sys::NFTNL_OBJ_NAME), self.name.as_ptr());
            sys::nftnl_obj_set_u32(object, attr(sys::NFTNL_OBJ_TYPE), OBJECT_COUNTER);
            let header = header(buffer, libc::NFT_MSG_NEWOBJ, libc::NLM_F_CREATE, seq);
            sys::nftnl_obj_nlmsg_build_payload(header.cast(), object);
            sys::nftnl_obj_free(object);
        }
    }
}

/// A set of libnftnl's own, with a key that the nftnl crate's `Set` can't describe.
struct RawSet(NonNull<sys::nftnl_set>);

impl RawSet {
    fn new(table: &Table, id: u32, wanted: &Set, elements: &[Vec<u8>]) -> Self {
        let name = name(&wanted.name);
        // SAFETY: the set is ours alone; names and keys are copied; an element belongs to the set once it is added, and the
        // set is freed by Drop.
        unsafe {
            let set = allocated(sys::nftnl_set_alloc());
            let raw = set.as_ptr();
            sys::nftnl_set_set_u32(raw, attr(sys::NFTNL_SET_FAMILY), ProtoFamily::Inet as u32);
            sys::nftnl_set_set_str(raw, attr(sys::NFTNL_SET_TABLE), table.get_name().as_ptr());
            sys::nftnl_set_set_str(raw, attr(sys::NFTNL_SET_NAME), name.as_ptr());
            sys::nftnl_set_set_u32(raw, attr(sys::NFTNL_SET_ID), id);
            sys::nftnl_set_set_u32(raw, attr(sys::NFTNL_SET_KEY_TYPE), wanted.type_number());
            sys::nftnl_set_set_u32(raw, attr(sys::NFTNL_SET_KEY_LEN), wanted.key_len());
            for key in elements {
                let element = allocated(sys::nftnl_set_elem_alloc()).as_ptr();
                let len = u32::try_from(key.len()).unwrap_or_default();
                sys::nftnl_set_elem_set(element, attr(sys::NFTNL_SET_ELEM_KEY), key.as_ptr().cast(), len);
                sys::nftnl_set_elem_add(raw, element);
            }
            Self(set)
        }
    }
}

impl Drop for RawSet {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed here alone.
        unsafe { sys::nftnl_set_free(self.0.as_ptr()) };
    }
}

/// What is done with a set.
#[derive(Clone, Copy)]
enum SetAction {
    Declare,
    Flush,
    Fill,
}

struct SetMessage<'a>(&'a RawSet, SetAction);

// SAFETY: a message holds names of at most 128 bytes and at most `ELEMENTS_PER_MESSAGE` keys of at most 36 bytes, with some 20
// more bytes each: less than the largest message.
unsafe impl NlMsg for SetMessage<'_> {
    unsafe fn write(&self, buffer: *mut c_void, seq: u32, _: MsgType) {
        let set = self.0.0.as_ptr();
        // SAFETY: `buffer` has room for any message (the trait's contract), and the set lives as long as `self`.
        unsafe {
            match self.1 {
                SetAction::Declare => {
                    let header = header(buffer, libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, seq);
                    sys::nftnl_set_nlmsg_build_payload(header.cast(), set);
                }
                // Without elements: all of them.
                SetAction::Flush => {
                    let header = header(buffer, libc::NFT_MSG_DELSETELEM, 0, seq);
                    sys::nftnl_set_elems_nlmsg_build_payload(header.cast(), set);
                }
                SetAction::Fill => {
                    let header = header(buffer, libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, seq);
                    sys::nftnl_set_elems_nlmsg_build_payload(header.cast(), set);
                }
            }
        }
    }
}

/// An expression of ours as one of libnftnl's.
struct Compiled<'a> {
    expr: &'a Expr,
    backend: QueueBackend,
}

impl nftnl::expr::Expression for Compiled<'_> {
    fn to_expr(&self, _: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        match self.expr {
            Expr::Meta(key, to) => {
                let key = match key {
                    Meta::Mark => libc::NFT_META_MARK,
                    Meta::Iifname => libc::NFT_META_IIFNAME,
                    Meta::Nfproto => libc::NFT_META_NFPROTO,
                    Meta::L4proto => libc::NFT_META_L4PROTO,
                };
                let raw = RawExpr::new(c"meta").u32(sys::NFTNL_EXPR_META_KEY, unsigned(key));
                raw.u32(sys::NFTNL_EXPR_META_DREG, to.number()).finish()
            }
            Expr::Payload { base, offset, len, to } => {
                let base = match base {
                    Base::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
                    Base::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
                };
                let raw = RawExpr::new(c"payload").u32(sys::NFTNL_EXPR_PAYLOAD_BASE, unsigned(base));
                let raw = raw
                    .u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
                    .u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
                raw.u32(sys::NFTNL_EXPR_PAYLOAD_DREG, to.number()).finish()
            }
            Expr::ExthdrPresent { header, to } => exthdr_present(*header, to.number()),
            Expr::Mask { register, mask } => {
                let len = u32::try_from(mask.len()).unwrap_or_default();
                let raw = RawExpr::new(c"bitwise").u32(sys::NFTNL_EXPR_BITWISE_SREG, register.number());
                let raw = raw.u32(sys::NFTNL_EXPR_BITWISE_DREG, register.number());
                let raw = raw
                    .u32(sys::NFTNL_EXPR_BITWISE_LEN, len)
                    .data(sys::NFTNL_EXPR_BITWISE_MASK, mask);
                raw.data(sys::NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()]).finish()
            }
            Expr::Cmp {
                relation,
                register,
                data,
            } => {
                let relation = match relation {
                    Relation::Equal => libc::NFT_CMP_EQ,
                    Relation::Unequal => libc::NFT_CMP_NEQ,
                };
                let raw = RawExpr::new(c"cmp").u32(sys::NFTNL_EXPR_CMP_SREG, register.number());
                raw.u32(sys::NFTNL_EXPR_CMP_OP, unsigned(relation))
                    .data(sys::NFTNL_EXPR_CMP_DATA, data)
                    .finish()
            }
            Expr::Lookup { register, set } => {
                let raw = RawExpr::new(c"lookup").u32(sys::NFTNL_EXPR_LOOKUP_SREG, register.number());
                raw.text(sys::NFTNL_EXPR_LOOKUP_SET, set).finish()
            }
            Expr::Notrack => RawExpr::new(c"notrack").finish(),
            Expr::LimitOver { rate, burst } => limit_over(*rate, *burst),
            Expr::Counter(name) => {
                let raw = RawExpr::new(c"objref").u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, OBJECT_COUNTER);
                raw.text(sys::NFTNL_EXPR_OBJREF_IMM_NAME, name).finish()
            }
            Expr::Verdict(verdict) => immediate(verdict),
            Expr::Queue(number) => queue(*number, self.backend),
        }
    }
}

/// The kernel's enums are not negative.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

fn exthdr_present(header: u8, to: u32) -> NonNull<sys::nftnl_expr> {
    /// `NFT_EXTHDR_F_PRESENT`: load whether it is there, not what is in it.
    const PRESENT: u32 = 1;
    /// `NFT_EXTHDR_OP_IPV6`.
    const OP_IPV6: u32 = 0;
    let raw = RawExpr::new(c"exthdr").u32(sys::NFTNL_EXPR_EXTHDR_DREG, to);
    let raw = raw
        .u8(sys::NFTNL_EXPR_EXTHDR_TYPE, header)
        .u32(sys::NFTNL_EXPR_EXTHDR_OFFSET, 0);
    let raw = raw
        .u32(sys::NFTNL_EXPR_EXTHDR_LEN, 1)
        .u32(sys::NFTNL_EXPR_EXTHDR_FLAGS, PRESENT);
    raw.u32(sys::NFTNL_EXPR_EXTHDR_OP, OP_IPV6).finish()
}

/// Packets a second, turned round: what is within the limit does not go on.
fn limit_over(rate: u32, burst: u32) -> NonNull<sys::nftnl_expr> {
    let raw = RawExpr::new(c"limit").u64(sys::NFTNL_EXPR_LIMIT_RATE, u64::from(rate));
    let raw = raw
        .u64(sys::NFTNL_EXPR_LIMIT_UNIT, 1)
        .u32(sys::NFTNL_EXPR_LIMIT_BURST, burst);
    raw.u32(sys::NFTNL_EXPR_LIMIT_TYPE, unsigned(libc::NFT_LIMIT_PKTS))
        .u32(sys::NFTNL_EXPR_LIMIT_FLAGS, unsigned(libc::NFT_LIMIT_F_INV))
        .finish()
}

fn immediate(verdict: &Verdict) -> NonNull<sys::nftnl_expr> {
    let code = match verdict {
        Verdict::Accept => libc::NF_ACCEPT,
        Verdict::Drop => libc::NF_DROP,
        Verdict::Goto(_) => libc::NFT_GOTO,
    };
    let raw = RawExpr::new(c"immediate").u32(sys::NFTNL_EXPR_IMM_DREG, unsigned(libc::NFT_REG_VERDICT));
    // Verdicts are signed numbers in the attribute's 32 bits.
    let raw = raw.u32(sys::NFTNL_EXPR_IMM_VERDICT, u32::from_ne_bytes(code.to_ne_bytes()));
    match verdict {
        Verdict::Goto(chain) => raw.text(sys::NFTNL_EXPR_IMM_CHAIN, chain).finish(),
        _ => raw.finish(),
    }
}

/// A queue statement, natively or as the xt target that older and smaller kernels have. The obvious third way, an immediate
/// verdict of NF_QUEUE, is refused by current kernels.
fn queue(number: u16, backend: QueueBackend) -> NonNull<sys::nftnl_expr> {
    match backend {
        QueueBackend::Native => {
            let raw = RawExpr::new(c"queue").u16(sys::NFTNL_EXPR_QUEUE_NUM, number);
            raw.u16(sys::NFTNL_EXPR_QUEUE_TOTAL, 1)
                .u16(sys::NFTNL_EXPR_QUEUE_FLAGS, 0)
                .finish()
        }
        QueueBackend::Compat => {
            // struct xt_NFQ_info_v3 { u16 queuenum, queues_total, flags }, filled up to XT_ALIGN's 8 bytes.
            let mut info = [0; 8];
            info[..2].copy_from_slice(&number.to_ne_bytes());
            info[2..4].copy_from_slice(&1u16.to_ne_bytes());
            let raw = RawExpr::new(c"target").text(sys::NFTNL_EXPR_TG_NAME, "NFQUEUE");
            raw.u32(sys::NFTNL_EXPR_TG_REV, 3)
                .owned_data(sys::NFTNL_EXPR_TG_INFO, &info)
                .finish()
        }
    }
}

/// An expression of libnftnl's under construction. Each attribute is of the type that libnftnl wants for it.
struct RawExpr(NonNull<sys::nftnl_expr>);

impl RawExpr {
    fn new(kind: &CStr) -> Self {
        // SAFETY: `kind` is a C string.
        Self(allocated(unsafe { sys::nftnl_expr_alloc(kind.as_ptr()) }))
    }

    fn u8(self, number: u32, value: u8) -> Self {
        // SAFETY: the expression is ours alone and whole.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), attr(number), value) };
        self
    }

    fn u16(self, number: u32, value: u16) -> Self {
        // SAFETY: the expression is ours alone and whole.
        unsafe { sys::nftnl_expr_set_u16(self.0.as_ptr(), attr(number), value) };
        self
    }

    fn u32(self, number: u32, value: u32) -> Self {
        // SAFETY: the expression is ours alone and whole.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attr(number), value) };
        self
    }

    fn u64(self, number: u32, value: u64) -> Self {
        // SAFETY: the expression is ours alone and whole.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attr(number), value) };
        self
    }

    /// Bytes that libnftnl copies.
    fn data(self, number: u32, value: &[u8]) -> Self {
        let len = u32::try_from(value.len()).unwrap_or_default();
        // SAFETY: the expression is ours alone and whole; `value` has `len` bytes, which are copied.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attr(number), value.as_ptr().cast(), len) };
        self
    }

    /// Bytes that libnftnl keeps, and frees with the expression: a target's info.
    fn owned_data(self, number: u32, value: &[u8]) -> Self {
        let len = u32::try_from(value.len()).unwrap_or_default();
        // SAFETY: the expression is ours alone and whole; it gets a block from malloc, as it will give it to free, with `len`
        // bytes written.
        unsafe {
            let block = allocated(libc::malloc(value.len()).cast::<u8>());
            block.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
            sys::nftnl_expr_set(self.0.as_ptr(), attr(number), block.as_ptr().cast(), len);
        }
        self
    }

    /// A string that libnftnl copies.
    fn text(self, number: u32, value: &str) -> Self {
        let value = name(value);
        // SAFETY: the expression is ours alone and whole; `value` is a C string, which is copied.
        unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attr(number), value.as_ptr()) };
        self
    }

    /// The rule that it is added to frees it.
    fn finish(self) -> NonNull<sys::nftnl_expr> {
        self.0
    }
}
