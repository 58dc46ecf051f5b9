//! Which trace a call belongs to, and the identifiers of its spans: reckoned from the call's own identifier, so that proxy
//! and controller name the same ones without telling each other.
//!
//! `traceparent` is that of W3C Trace Context, level 1. A caller that sends one has its call in its own trace, below the
//! span it names, and decides whether it is kept. A call without one begins a trace: its 16 bytes are its identifier's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CallId;
use super::hex;

/// What sets the spans of a call's attempts apart from each other: odd, so that none repeats for 2⁶⁴ attempts.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
/// The flag of a trace that is kept.
const SAMPLED: u8 = 1;

/// A span within its trace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl SpanId {
    /// The span with these bits.
    pub fn new(bits: u64) -> Self {
        Self(bits.max(1))
    }

    /// A part of this span, by its number from 1.
    pub fn part(self, number: u64) -> Self {
        Self::new(self.0.rotate_left(17).wrapping_add(STRIDE.wrapping_mul(number)))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `traceparent`: a trace, the span that what follows is below of, and whether the trace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Whether somebody wants its spans.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The span that what follows is below of.
    pub fn span(self) -> SpanId {
        SpanId(self.span)
    }

    /// The trace, as 32 hexadecimal digits.
    pub fn trace(self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// A `traceparent` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no `traceparent` as in W3C Trace Context")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut fields = text.split('-');
        let mut field = |digits: usize| {
            let field = fields.next().filter(|field| field.len() == digits)?;
            // Capitals are none of that form.
            hex::decode(field).filter(|_| !field.bytes().any(|byte| byte.is_ascii_uppercase()))
        };
        let (version, trace, span, flags) = (field(2), field(32), field(16), field(2));
        let all = (|| Some((*version?.first()?, trace?, span?, *flags?.first()?)))();
        let (version, trace, span, flags) = all.ok_or(NoTraceParent)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let (trace, span) = (number(&trace), u64::try_from(number(&span)).unwrap_or(0));
        // Later versions may say more; 255 is no version.
        let ends = version == 0 && fields.next().is_some();
        if version == u8::MAX || ends || trace == 0 || span == 0 {
            Err(NoTraceParent)
        } else {
            Ok(Self { trace, span, flags })
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl TryFrom<String> for TraceParent {
    type Error = NoTraceParent;

    fn try_from(text: String) -> Result<Self, NoTraceParent> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

/// A call's place among traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTrace {
    call: CallId,
    parent: Option<TraceParent>,
}

impl CallTrace {
    /// Of this call, whose caller said that.
    pub fn new(call: CallId, parent: Option<TraceParent>) -> Self {
        Self { call, parent }
    }

    /// Its trace, as 32 hexadecimal digits.
    pub fn trace(self) -> String {
        format!("{:032x}", self.trace_bits())
    }

    fn trace_bits(self) -> u128 {
        self.parent.map_or_else(|| u128::from_be_bytes(self.call.to_bytes()).max(1), |parent| parent.trace)
    }

    /// The span of the caller.
    pub fn parent(self) -> Option<SpanId> {
        self.parent.map(TraceParent::span)
    }

    /// The span of the whole call.
    pub fn span(self) -> SpanId {
        let [.., a, b, c, d, e, f, g, h] = self.call.to_bytes();
        SpanId::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The span of an attempt, counted from 1.
    pub fn attempt(self, number: u32) -> SpanId {
        self.span().part(number.into())
    }

    /// Whether its spans are kept: as its caller says, else of every `one_in` traces one.
    pub fn is_sampled(self, one_in: u32) -> bool {
        // The last bits of an identifier are random.
        let by_chance = || self.trace_bits().is_multiple_of(one_in.max(1).into());
        self.parent.map_or_else(by_chance, TraceParent::is_sampled)
    }

    /// What the function is told: it is below the attempt.
    pub fn told(self, attempt: u32, one_in: u32) -> TraceParent {
        let flags = if self.is_sampled(one_in) { SAMPLED } else { 0 };
        TraceParent { trace: self.trace_bits(), span: self.attempt(attempt).0, flags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn call(random: u128) -> CallId {
        CallId::new(jiff::Timestamp::from_second(1_767_225_600).unwrap(), random)
    }

    #[test]
    fn a_parent_is_read_as_the_recommendation_says() {
        let parent: TraceParent = GIVEN.parse().unwrap();
        assert!(parent.is_sampled() && parent.to_string() == GIVEN);
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more";
        assert!(later.parse::<TraceParent>().is_ok_and(|parent| !parent.is_sampled()), "a later version may say more");
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(NoTraceParent), "{bad}");
        }
    }

    #[test]
    fn a_call_with_a_parent_is_in_its_trace_and_one_without_begins_one() {
        let own = CallTrace::new(call(0xabcd), None);
        assert_eq!(own.trace(), format!("{:032x}", u128::from_be_bytes(call(0xabcd).to_bytes())));
        let told = own.told(2, 1);
        assert_eq!((told.trace(), told.span(), told.is_sampled()), (own.trace(), own.attempt(2), true));
        let below = CallTrace::new(call(0xabcd), Some(GIVEN.parse().unwrap()));
        assert_eq!(below.trace(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(below.parent().map(|span| span.to_string()).as_deref(), Some("b7ad6b7169203331"));
    }

    #[test]
    fn the_caller_decides_what_is_kept_and_otherwise_one_in_so_many_is() {
        let kept = (0..1000_u128).filter(|n| CallTrace::new(call(n * 7919), None).is_sampled(10)).count();
        assert_eq!(kept, 100);
        let parent: TraceParent = GIVEN.parse().unwrap();
        assert!((1..100).all(|n| CallTrace::new(call(n), Some(parent)).is_sampled(1_000_000)));
        let unwanted: TraceParent = GIVEN.replace("-01", "-00").parse().unwrap();
        assert!(!CallTrace::new(call(1), Some(unwanted)).is_sampled(1));
    }

    #[test]
    fn the_spans_of_a_call_are_all_different() {
        let trace = CallTrace::new(call(u128::MAX), None);
        let mut spans: Vec<_> = (1..100).map(|number| trace.attempt(number)).chain([trace.span()]).collect();
        spans.extend((1..4).flat_map(|part| [trace.attempt(1).part(part), trace.attempt(2).part(part)]));
        let all: std::collections::HashSet<_> = spans.iter().collect();
        assert_eq!(all.len(), spans.len());
    }
}
