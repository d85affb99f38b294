//! Reads, answered from the adopted version (`FinalRequestProcessor`, the part that changes nothing).

use std::borrow::Cow;

use super::auth::{self, AuthIds};
use super::connection::Connection;
use super::machine::{Desk, Next};
use super::watch::{self, CatchUp, Restored, TooManyWatches, WatchKind, WatcherType};
use crate::tree::access;
use crate::tree::store::Node;
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::limits;
use crate::types::path;
use crate::types::stat::Stat;
use crate::types::time::Time;
use crate::wire::client::{
    self, AuthPacket, MultiHeader, MultiReadOp, OpCode, PathAndWatch, RequestHeader, SetWatches, xid,
};
use crate::wire::jute::{JuteError, Reader, Write};

/// What a read says, if it fails.
type Answer = Result<(), Failed>;

/// Why a read has no answer of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failed {
    With(ErrorCode),
    /// The shard has no room for another watch: the connection closes. An error would do for a read, but the watches of
    /// setWatches would be lost without a word.
    TooManyWatches,
}

impl From<ErrorCode> for Failed {
    fn from(error: ErrorCode) -> Failed {
        Failed::With(error)
    }
}

impl From<JuteError> for Failed {
    fn from(_: JuteError) -> Failed {
        Failed::With(ErrorCode::MarshallingError)
    }
}

impl From<TooManyWatches> for Failed {
    fn from(_: TooManyWatches) -> Failed {
        Failed::TooManyWatches
    }
}

impl Desk {
    /// Answers one read whose turn has come. `payload` starts with the request header.
    pub(super) fn serve_read(&mut self, now: Time, c: &mut Connection, since: Time, payload: &[u8]) {
        let mut body = Reader::with_limit(payload, 2 * self.settings.payload_bytes_max);
        let Ok(header) = RequestHeader::decode(&mut body) else { return };
        let Some(op) = OpCode::from_i32(header.op) else { return };
        let zxid = self.version();
        let reply_xid = if op == OpCode::Ping { xid::PING } else { header.xid };
        let answer = if matches!(op, OpCode::SetWatches | OpCode::SetWatches2) {
            let answer = self.set_watches(c, op, &mut body);
            if answer.is_ok() {
                client::put_reply(&mut c.out, reply_xid, zxid.as_i64(), ErrorCode::Ok);
            }
            answer
        } else {
            let start = c.out.len();
            let mut answer = Ok(());
            let mut out = std::mem::take(&mut c.out);
            client::put_frame(&mut out, |out| {
                client::put_reply_header(out, reply_xid, zxid.as_i64(), ErrorCode::Ok);
                answer = self.read(c, op, &mut body, out);
            });
            if answer.is_err() {
                out.truncate(start);
            }
            c.out = out;
            answer
        };
        match answer {
            Ok(()) => {}
            Err(Failed::With(error)) => client::put_reply(&mut c.out, reply_xid, zxid.as_i64(), error),
            Err(Failed::TooManyWatches) => {
                tracing::warn!(peer = %c.peer, "no room for more watches on this shard: the connection that asks for them closes");
                c.closes_when_sent = true;
            }
        }
        self.count_answer(c, op, header.xid, zxid, since, now);
        self.mark_dirty(c);
    }

    /// Writes the record of a successful read.
    fn read(&mut self, c: &Connection, op: OpCode, body: &mut Reader<'_>, out: &mut Vec<u8>) -> Answer {
        match op {
            OpCode::Ping => Ok(()),
            OpCode::Exists => self.exists(c, &PathAndWatch::decode(body)?, out),
            OpCode::GetData => self.get_data(c, &PathAndWatch::decode(body)?, out),
            OpCode::GetChildren => self.get_children(c, &PathAndWatch::decode(body)?, false, out),
            OpCode::GetChildren2 => self.get_children(c, &PathAndWatch::decode(body)?, true, out),
            OpCode::GetAcl => self.get_acl(c, &body.text()?, out),
            OpCode::GetAllChildrenNumber => self.get_all_children_number(c, &body.text()?, out),
            OpCode::GetEphemerals => self.get_ephemerals(c, body.string()?.as_deref(), out),
            OpCode::Sync => {
                // The path is echoed as it came, null included.
                out.put_buffer(body.string()?.as_deref().map(str::as_bytes));
                Ok(())
            }
            OpCode::AddWatch => self.add_watch(c, body, out),
            OpCode::CheckWatches | OpCode::RemoveWatches => self.change_watches(c, op, body),
            OpCode::MultiRead => self.multi_read(c, body, out),
            OpCode::WhoAmI => {
                self.who_am_i(&c.auth, out);
                Ok(())
            }
            OpCode::Create
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::SetAcl
            | OpCode::Check
            | OpCode::Multi
            | OpCode::Create2
            | OpCode::Reconfig
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::Sasl
            | OpCode::SetWatches2
            | OpCode::CloseSession => Err(ErrorCode::Unimplemented.into()),
        }
    }

    fn stat_of(&self, node: &Node<'_>) -> Stat {
        let length = node.data().map_or(0, |data| data.len() as i32);
        node.stat().to_stat(length, node.num_children(), self.settings.extended_types)
    }

    /// A znode that the connection may read.
    fn readable(&self, c: &Connection, path: &str) -> Result<Node<'_>, ErrorCode> {
        let node = self.reader.get(existing(path)).ok_or(ErrorCode::NoNode)?;
        if self.may_read(node.acl(), &c.auth) { Ok(node) } else { Err(ErrorCode::NoAuth) }
    }

    fn watch(&mut self, c: &Connection, kind: WatchKind, path: &str) -> Result<(), TooManyWatches> {
        self.watches.add(kind, path, c.id)
    }

    fn exists(&mut self, c: &Connection, request: &PathAndWatch<'_>, out: &mut Vec<u8>) -> Answer {
        if request.path.contains('\0') {
            return Err(ErrorCode::BadArguments.into());
        }
        let found = match self.readable(c, &request.path) {
            Ok(node) => Some(self.stat_of(&node)),
            Err(ErrorCode::NoNode) => None,
            Err(error) => return Err(error.into()),
        };
        if request.watch {
            self.watch(c, WatchKind::Data, &request.path)?;
        }
        out.put_stat(&found.ok_or(ErrorCode::NoNode)?);
        Ok(())
    }

    fn get_data(&mut self, c: &Connection, request: &PathAndWatch<'_>, out: &mut Vec<u8>) -> Answer {
        let node = self.readable(c, &request.path)?;
        out.put_buffer(node.data());
        out.put_stat(&self.stat_of(&node));
        if request.watch {
            self.watch(c, WatchKind::Data, &request.path)?;
        }
        Ok(())
    }

    fn get_children(
        &mut self,
        c: &Connection,
        request: &PathAndWatch<'_>,
        with_stat: bool,
        out: &mut Vec<u8>,
    ) -> Answer {
        let node = self.readable(c, &request.path)?;
        self.put_children(&request.path, &node, out);
        if with_stat {
            out.put_stat(&self.stat_of(&node));
        }
        if request.watch {
            self.watch(c, WatchKind::Child, &request.path)?;
        }
        Ok(())
    }

    fn put_children(&self, path: &str, node: &Node<'_>, out: &mut Vec<u8>) {
        out.put_i32(node.num_children());
        for name in self.reader.list(existing(path)).into_iter().flatten() {
            out.put_string(name);
        }
    }

    fn get_acl(&mut self, c: &Connection, path: &str, out: &mut Vec<u8>) -> Answer {
        let node = self.reader.get(existing(path)).ok_or(ErrorCode::NoNode)?;
        let acl = access::visible(node.acl(), c.auth.ids(), &self.settings.access)?;
        client::put_acl_response(out, &acl.to_vec(), &self.stat_of(&node));
        Ok(())
    }

    fn get_all_children_number(&mut self, c: &Connection, path: &str, out: &mut Vec<u8>) -> Answer {
        self.readable(c, path)?;
        let mut total = 0_i32;
        let mut unvisited = vec![existing(path).to_owned()];
        while let Some(parent) = unvisited.pop() {
            for name in self.reader.list(&parent).into_iter().flatten() {
                total = total.wrapping_add(1);
                let child = if parent == path::ROOT { format!("/{name}") } else { format!("{parent}/{name}") };
                if self.reader.get(&child).is_some_and(|node| node.num_children() > 0) {
                    unvisited.push(child);
                }
            }
        }
        out.put_i32(total);
        Ok(())
    }

    fn get_ephemerals(&mut self, c: &Connection, prefix: Option<&str>, out: &mut Vec<u8>) -> Answer {
        let prefix = prefix.unwrap_or_default();
        let prefix = if matches!(prefix.trim(), "" | path::ROOT) { "" } else { prefix };
        let session = c.session().unwrap_or(SessionId::NONE);
        let count_at = out.len();
        out.put_i32(0);
        let mut count = 0_i32;
        for path in self.reader.owned(session.0).filter(|path| path.starts_with(prefix)) {
            out.put_string(path);
            count += 1;
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }

    fn add_watch(&mut self, c: &Connection, body: &mut Reader<'_>, out: &mut Vec<u8>) -> Answer {
        let (path, mode) = (body.text()?, body.i32()?);
        let kind = WatchKind::from_add_mode(mode).ok_or(ErrorCode::MarshallingError)?;
        self.watch(c, kind, &path)?;
        out.put_i32(ErrorCode::Ok.code());
        Ok(())
    }

    fn change_watches(&mut self, c: &Connection, op: OpCode, body: &mut Reader<'_>) -> Answer {
        let (path, code) = (body.text()?, body.i32()?);
        let kind = WatcherType::from_code(code).ok_or(ErrorCode::MarshallingError)?;
        let is_there = match op {
            OpCode::CheckWatches => self.watches.contains(kind, &path, c.id),
            _ => self.watches.remove(kind, &path, c.id),
        };
        if is_there { Ok(()) } else { Err(ErrorCode::NoWatcher.into()) }
    }

    /// Independent reads of one version; watches are not registered. More than any client could take is an error: a
    /// frame of reads may name the same large znode tens of thousands of times.
    fn multi_read(&mut self, c: &Connection, body: &mut Reader<'_>, out: &mut Vec<u8>) -> Answer {
        let start = out.len();
        for op in client::decode_multi_read(body)? {
            let (MultiReadOp::GetData(path) | MultiReadOp::GetChildren(path)) = &op;
            match (self.readable(c, path), &op) {
                (Err(error), _) => MultiHeader::put_error(out, error),
                (Ok(node), MultiReadOp::GetData(_)) => {
                    MultiHeader::put_result(out, OpCode::GetData);
                    out.put_buffer(node.data());
                    out.put_stat(&self.stat_of(&node));
                }
                (Ok(node), MultiReadOp::GetChildren(path)) => {
                    MultiHeader::put_result(out, OpCode::GetChildren);
                    self.put_children(path, &node, out);
                }
            }
            if out.len() - start > limits::UNSENT_BYTES_MAX {
                return Err(ErrorCode::MarshallingError.into());
            }
        }
        MultiHeader::put_end(out);
        Ok(())
    }

    fn who_am_i(&self, ids: &AuthIds, out: &mut Vec<u8>) {
        out.put_i32(ids.ids().len() as i32);
        for id in ids.ids() {
            out.put_string(&id.scheme);
            out.put_string(auth::user_name(id));
        }
    }

    /// The watches that a client had before it reconnected. What has happened meanwhile is told first.
    fn set_watches(&mut self, c: &mut Connection, op: OpCode, body: &mut Reader<'_>) -> Answer {
        let request = SetWatches::decode(op, body)?;
        let lists: [(Restored, &[Cow<'_, str>]); 5] = [
            (Restored::Data, &request.data),
            (Restored::Exist, &request.exist),
            (Restored::Child, &request.child),
            (Restored::Persistent, &request.persistent),
            (Restored::PersistentRecursive, &request.recursive),
        ];
        for (list, paths) in lists {
            for path in paths {
                let node = self.reader.get(existing(path)).map(|node| node.stat());
                let znode = node.map(|stat| (stat.mzxid, stat.pzxid));
                match watch::catch_up(list, znode, request.relative_zxid) {
                    CatchUp::Send(event) => client::put_notification(&mut c.out, -1, event, path),
                    CatchUp::Register(kind) => self.watch(c, kind, path)?,
                }
            }
        }
        Ok(())
    }

    /// An auth packet: its ids count for everything read after it.
    pub(super) fn authenticate(&mut self, c: &mut Connection, xid: i32, packet: &AuthPacket<'_>) -> Next {
        match self.settings.auth.authenticate(&self.settings.access, packet, &mut c.auth) {
            auth::Outcome::Accepted => {
                client::put_reply(&mut c.out, xid, 0, ErrorCode::Ok);
                Next::Done
            }
            auth::Outcome::Failed => {
                tracing::info!(peer = %c.peer, scheme = packet.scheme.as_deref(), "authentication failed");
                self.stats.auth_failed_count += 1;
                client::put_reply(&mut c.out, xid, 0, ErrorCode::AuthFailed);
                Next::CloseWhenSent
            }
            auth::Outcome::WrongEnsemble => Next::Close,
        }
    }
}

/// The empty path is another name of the root for reads.
fn existing(path: &str) -> &str {
    if path.is_empty() { path::ROOT } else { path }
}
