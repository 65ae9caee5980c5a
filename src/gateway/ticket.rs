//! What a request under way is known by until it is answered.

use super::connection::Conn;
use super::forward::{self, Kept, Refused};
use super::outbuf::OutBuf;
use super::reply::{Again, Reply};
use crate::wire::remoting::Command;
use std::rc::Rc;
use std::time::Instant;

/// A request that must be answered: dropped unanswered (its task died), it answers 1.
pub struct Ticket {
    conn: Rc<Conn>,
    opaque: i32,
    oneway: bool,
    code: i32,
    started: Instant,
    done: bool,
    /// Its number at the node with the client's socket, when that is another.
    tunnelled: u64,
    /// Others of the connection may have to wait for it.
    in_order: bool,
    /// The frame, as long as the request may have to go to another node.
    kept: Option<Kept>,
}

impl Ticket {
    /// A request begins.
    pub fn new(conn: &Rc<Conn>, command: &Command) -> Self {
        conn.begin_request();
        Self {
            conn: conn.clone(),
            opaque: command.opaque,
            oneway: command.is_oneway(),
            code: command.code,
            started: Instant::now(),
            done: false,
            tunnelled: conn.tunnelled_number(),
            in_order: forward::begins(conn, command.code),
            kept: None,
        }
    }

    /// Its frame, in case that this node ceases to lead before the request is begun.
    pub fn keep(&mut self, kept: Option<Kept>) {
        self.kept = kept;
    }

    /// The connection the request came from.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Whether nobody waits for the answer.
    pub fn is_oneway(&self) -> bool {
        self.oneway
    }

    /// When the request was read.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The wait of a held pull is over: its latency counts from here.
    pub fn restart_clock(&mut self) {
        self.started = Instant::now();
    }

    /// Answers a pull that found nothing: with a code that is no error.
    pub fn answer_found_nothing(mut self, append: impl FnOnce(&mut OutBuf, i32)) {
        self.finish(0, append);
    }

    /// Answers with bytes that `append` writes; `code` is for the counters.
    pub fn answer_with(mut self, code: i32, append: impl FnOnce(&mut OutBuf, i32)) {
        self.finish(code, append);
    }

    fn finish(&mut self, code: i32, append: impl FnOnce(&mut OutBuf, i32)) {
        self.done = true;
        if code != 0 && !self.conn.is_closed() {
            self.conn.shared().metrics.request(self.code).errors.inc();
            self.conn.shared().metrics.error_response(code);
        }
        if !self.oneway {
            self.conn.write_soon(|out| append(out, self.opaque));
        }
        self.conn.tunnelled_done(self.tunnelled);
        self.conn.end_request();
        self.end();
    }

    /// What waits for it may go on.
    fn end(&mut self) {
        if std::mem::take(&mut self.in_order) {
            forward::ended(&self.conn);
        }
    }

    /// Answers. What this node could not begin because it does not lead goes to the node that
    /// does instead.
    pub fn answer(mut self, reply: Reply) {
        if reply.again != Again::No {
            let kept = self.kept.take();
            let what = Refused {
                code: self.code,
                opaque: self.opaque,
                oneway: self.oneway,
                tunnelled: self.tunnelled,
            };
            if forward::again(&self.conn, reply.again, what, kept) {
                self.done = true;
                return self.end();
            }
        }
        let code = reply.code;
        let reply = reply.fitting();
        if reply.code != code {
            let why = reply.remark.as_deref().unwrap_or_default();
            let text = format!("request code {}: {why}", self.code);
            self.conn.shared().hot_error("an answer is too long", &text);
        }
        self.answer_with(reply.code, |out, opaque| reply.encode(opaque, out));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            let reply = Reply::err(1, "the request was not finished");
            self.finish(1, |out, opaque| reply.encode(opaque, out));
        }
    }
}
