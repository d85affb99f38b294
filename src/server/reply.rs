//! The reply to a write, from what its txn did.

use crate::tree::effects::{Effects, Outcome};
use crate::types::error_code::ErrorCode;
use crate::types::zxid::Zxid;
use crate::wire::client::{MultiHeader, OpCode, OpResult, put_frame, put_reply, put_reply_header};

/// Appends the framed reply to a write that was prepared and applied.
pub fn put_write_reply(out: &mut Vec<u8>, op: OpCode, xid: i32, zxid: Zxid, effects: &Effects) {
    match (op, effects.outcomes.as_slice()) {
        (_, [Outcome::Error(error)]) if effects.is_refused => put_reply(out, xid, zxid.as_i64(), *error),
        // A failed multi is a success on the outside: clients look at the first result that is an error.
        (OpCode::Multi, outcomes) => put_frame(out, |out| {
            put_reply_header(out, xid, zxid.as_i64(), ErrorCode::Ok);
            for outcome in outcomes {
                result(outcome, effects).put_multi_result(out);
            }
            MultiHeader::put_end(out);
        }),
        (_, outcomes) => put_frame(out, |out| {
            put_reply_header(out, xid, zxid.as_i64(), ErrorCode::Ok);
            if let [outcome] = outcomes {
                result(outcome, effects).put_record(out);
            }
        }),
    }
}

fn result<'a>(outcome: &Outcome, effects: &'a Effects) -> OpResult<'a> {
    match *outcome {
        Outcome::Created { path, is_plain: true, .. } => OpResult::Created { path: effects.text(path) },
        Outcome::Created { path, stat, is_plain: false } => OpResult::Created2 { path: effects.text(path), stat },
        Outcome::Stat(stat) => OpResult::Stat { op: OpCode::SetData, stat },
        Outcome::Deleted => OpResult::Done(OpCode::Delete),
        Outcome::Done => OpResult::Done(OpCode::Check),
        Outcome::Error(error) => OpResult::Error(error),
    }
}
