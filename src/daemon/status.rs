//! What the admin socket says, as JSON (docs/admin.md): requests and answers; the status report is a part of its own.

mod assemble;
mod report;

pub use self::assemble::{Sources, shard_totals};
pub use self::report::{Divergence, MachineReport, QueueReport, ServiceReport, Status, Takeover};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{Micros, SECOND};

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Everything there is to know.
    Status,
    /// Move a service's flows to another machine.
    Failover {
        /// Its name.
        service: String,
        /// The new original's name; `None` is the next by the service's choice.
        #[serde(default)]
        to: Option<String>,
        /// How long to wait for it to be level, in microseconds; 0 moves all flows at once, level or not.
        #[serde(default = "within_default")]
        within_us: Micros,
    },
    /// Take a machine in or out.
    Machine {
        /// Its service's name.
        service: String,
        /// Its name.
        machine: String,
        /// In or out.
        enable: bool,
    },
}

impl Request {
    /// How long it may take to do, besides the time to answer.
    #[must_use]
    pub fn takes(&self) -> Duration {
        match self {
            Self::Status => Duration::ZERO,
            Self::Failover { within_us, .. } => Duration::from_micros((*within_us).min(MOST_WITHIN)),
            Self::Machine { enable: false, .. } => Duration::from_micros(WITHIN),
            Self::Machine { .. } => Duration::ZERO,
        }
    }
}

/// The longest that a handover may wait, in microseconds.
pub const MOST_WITHIN: Micros = 60 * SECOND;

/// How long a handover may wait unless the operator says otherwise, and that of `machine disable`, in microseconds.
pub const WITHIN: Micros = SECOND;

fn within_default() -> Micros {
    WITHIN
}

/// One line to a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether what was asked for has been done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// To `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// To `failover`, and to `machine` if flows had to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Takeover>,
}

impl Answer {
    /// No, and why.
    #[must_use]
    pub fn error(why: impl Into<String>) -> Self {
        Self {
            error: Some(why.into()),
            ..Self::default()
        }
    }
    /// Done.
    #[must_use]
    pub fn done(takeover: Option<Takeover>) -> Self {
        Self {
            ok: true,
            takeover,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let read = |text| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#"{"cmd":"status"}"#).expect("read"), Request::Status);
        let failover = Request::Failover {
            service: "x".into(),
            to: None,
            within_us: WITHIN,
        };
        assert_eq!(
            read(r#"{"cmd":"failover","service":"x","to":null}"#).expect("read"),
            failover
        );
        assert_eq!(read(r#"{"cmd":"failover","service":"x"}"#).expect("read"), failover);
        let at_once = Request::Failover {
            service: "x".into(),
            to: Some("y".into()),
            within_us: 0,
        };
        let text = r#"{"cmd":"failover","service":"x","to":"y","within_us":0}"#;
        assert_eq!(read(text).expect("read"), at_once);
        let machine = Request::Machine {
            service: "x".into(),
            machine: "vm-b".into(),
            enable: false,
        };
        let text = r#"{"cmd":"machine","service":"x","machine":"vm-b","enable":false}"#;
        assert_eq!(read(text).expect("read"), machine);
        for bad in [
            "",
            "{}",
            r#"{"cmd":"stop"}"#,
            r#"{"cmd":"failover"}"#,
            r#"{"cmd":"failover","service":"x","t":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_hold_only_what_they_say() {
        let text = |answer: &Answer| serde_json::to_string(answer).expect("write");
        assert_eq!(text(&Answer::done(None)), r#"{"ok":true}"#);
        assert_eq!(text(&Answer::error("no")), r#"{"ok":false,"error":"no"}"#);
    }
}
