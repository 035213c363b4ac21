//! One connection's streams: which are open, what their frames mean, what is answered.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, BytesMut};

use super::frame::{self, Control, GoAwayStatus, Head, ResetStatus};
use super::headers::{EmptyBlocks, Inflater, StreamHeaders};
use crate::codec::{
    CloseReason, Codec, Event, Forward, Kind, MAX_BUFFERED, ProtocolError, StreamId,
};

/// The most streams of one connection at a time: 128 forwarded connections, of two streams each.
/// An exec needs five.
pub const MAX_STREAMS: usize = 256;
/// The id of our pings: even, as a server's must be. Nothing depends on which of them is answered.
const SERVER_PING: u32 = 2;
/// The longest `requestid` header; clients count up from 0.
const MAX_REQUEST_ID: usize = 64;

/// The server's end of a SPDY connection.
#[derive(Debug, Default)]
pub struct Connection {
    input: BytesMut,
    reading: Reading,
    events: VecDeque<Event>,
    output: BytesMut,
    inflater: Inflater,
    replies: EmptyBlocks,
    streams: BTreeMap<u32, Stream>,
    last_opened: u32,
    /// The client said that it opens no more.
    gone_away: bool,
    closed: bool,
}

#[derive(Debug, Default)]
enum Reading {
    #[default]
    Head,
    /// Inside a data frame, which is passed on as it arrives.
    Data { stream: u32, remaining: usize, fin: bool },
}

#[derive(Debug)]
struct Stream {
    client_open: bool,
    server_open: bool,
}

impl Connection {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one step through the input; false when more bytes are needed.
    fn step(&mut self) -> Result<bool, ProtocolError> {
        match self.reading {
            Reading::Data { stream, remaining: 0, fin } => {
                self.reading = Reading::Head;
                if fin {
                    self.client_finished(stream);
                }
                Ok(true)
            }
            Reading::Data { stream, remaining, fin } => {
                if self.input.is_empty() {
                    return Ok(false);
                }
                let data = self.input.split_to(remaining.min(self.input.len())).freeze();
                self.reading = Reading::Data { stream, remaining: remaining - data.len(), fin };
                // Data on a stream that was reset meanwhile is not wanted any more.
                if self.streams.get(&stream).is_some_and(|state| state.client_open) {
                    self.events.push_back(Event::Data { stream: StreamId(stream), data });
                }
                Ok(true)
            }
            Reading::Head => self.step_head(),
        }
    }

    fn step_head(&mut self) -> Result<bool, ProtocolError> {
        match Head::parse(&self.input)? {
            None => Ok(false),
            Some(Head::Data { stream, fin, length }) => {
                let _head = self.input.split_to(frame::HEADER);
                self.reading = Reading::Data { stream, remaining: length, fin };
                Ok(true)
            }
            Some(Head::Control { kind, flags, length }) => {
                if self.input.len() < frame::HEADER + length {
                    return Ok(false);
                }
                let _head = self.input.split_to(frame::HEADER);
                let body = self.input.split_to(length).freeze();
                self.control(Control::parse(kind, flags, body)?)?;
                Ok(true)
            }
        }
    }

    fn control(&mut self, control: Control) -> Result<(), ProtocolError> {
        match control {
            Control::SynStream { stream, fin, block } => {
                let headers = StreamHeaders::parse(&self.inflater.inflate(&block)?)?;
                self.open(stream, fin, headers);
            }
            Control::SynReply { block } => {
                self.inflater.inflate(&block)?;
            }
            Control::Headers { stream, fin, block } => {
                self.inflater.inflate(&block)?;
                if fin {
                    self.client_finished(stream);
                }
            }
            Control::RstStream { stream } => {
                if self.streams.remove(&stream).is_some() {
                    self.events.push_back(Event::Reset { stream: StreamId(stream) });
                }
            }
            // The client's pings are odd; an even one answers ours.
            Control::Ping { id } if !id.is_multiple_of(2) => frame::put_ping(&mut self.output, id),
            Control::GoAway => self.gone_away = true,
            Control::Ping { .. } | Control::Ignored => {}
        }
        Ok(())
    }

    fn open(&mut self, stream: u32, fin: bool, headers: StreamHeaders) {
        if self.closed || self.gone_away {
            return;
        }
        if stream.is_multiple_of(2) || stream <= self.last_opened {
            return frame::put_reset(&mut self.output, stream, ResetStatus::ProtocolError);
        }
        self.last_opened = stream;
        let kind = headers.stream_type.as_deref().and_then(Kind::parse);
        let Some(kind) = kind.filter(|_| self.streams.len() < MAX_STREAMS) else {
            return frame::put_reset(&mut self.output, stream, ResetStatus::RefusedStream);
        };
        let Ok(forward) = forward(stream, kind, headers) else {
            return frame::put_reset(&mut self.output, stream, ResetStatus::RefusedStream);
        };
        frame::put_syn_reply(&mut self.output, stream, &self.replies.next());
        self.streams.insert(stream, Stream { client_open: true, server_open: true });
        self.events.push_back(Event::Opened { stream: StreamId(stream), kind, forward });
        if fin {
            self.client_finished(stream);
        }
    }

    fn client_finished(&mut self, stream: u32) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if std::mem::replace(&mut state.client_open, false) {
            self.events.push_back(Event::HalfClosed { stream: StreamId(stream) });
        }
        if !state.server_open {
            self.streams.remove(&stream);
        }
    }
}

/// What a stream's headers say about port forwarding: nothing for a remote command.
fn forward(stream: u32, kind: Kind, headers: StreamHeaders) -> Result<Option<Forward>, ()> {
    let Some(port) = headers.port else {
        return if kind == Kind::Data { Err(()) } else { Ok(None) };
    };
    let port: u16 = port.parse().map_err(|_| ())?;
    let request = headers.request_id.unwrap_or_else(|| {
        // Clients before request ids open the error stream first, and its data stream next.
        let error_stream = if kind == Kind::Error { stream } else { stream.saturating_sub(2) };
        error_stream.to_string()
    });
    if port == 0 || request.len() > MAX_REQUEST_ID {
        return Err(());
    }
    Ok(Some(Forward { request, port }))
}

impl Codec for Connection {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let unread = self.input.len() + bytes.len();
        if unread > MAX_BUFFERED {
            return Err(ProtocolError::Unread { unread });
        }
        self.input.put_slice(bytes);
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<Event>, ProtocolError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.step()? {
                return Ok(None);
            }
        }
    }

    fn send(&mut self, stream: StreamId, data: &[u8]) {
        let open = self.streams.get(&stream.0).is_some_and(|state| state.server_open);
        if open && !self.closed {
            frame::put_data(&mut self.output, stream.0, data, false);
        }
    }

    fn finish(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream.0) else { return };
        if std::mem::replace(&mut state.server_open, false) && !self.closed {
            frame::put_data(&mut self.output, stream.0, &[], true);
        }
        if !state.client_open {
            self.streams.remove(&stream.0);
        }
    }

    fn reset(&mut self, stream: StreamId) {
        if self.streams.remove(&stream.0).is_some() && !self.closed {
            frame::put_reset(&mut self.output, stream.0, ResetStatus::Cancel);
        }
    }

    fn keep_alive(&mut self) {
        if !self.closed {
            frame::put_ping(&mut self.output, SERVER_PING);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let status = match reason {
            CloseReason::Done => GoAwayStatus::Ok,
            CloseReason::ProtocolError => GoAwayStatus::ProtocolError,
            CloseReason::Internal => GoAwayStatus::InternalError,
        };
        frame::put_goaway(&mut self.output, self.last_opened, status);
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }
}
