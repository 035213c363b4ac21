//! The codecs against clients written here, independently: round trips, limits, garbage.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod garbage;
mod spdy;
mod spdy_client;
mod websocket;
mod websocket_client;

use toono_streams::{Codec, Event, ProtocolError, StreamId};

/// Pushes `bytes` in parts of the given sizes, over and over, and returns all events.
fn push(
    codec: &mut dyn Codec,
    mut bytes: &[u8],
    parts: &[usize],
) -> (Vec<Event>, Result<(), ProtocolError>) {
    let mut events = Vec::new();
    let mut sizes = parts.iter().copied().cycle();
    loop {
        loop {
            match codec.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
        if bytes.is_empty() {
            return (events, Ok(()));
        }
        let (now, later) = bytes.split_at(sizes.next().unwrap_or(1000).clamp(1, bytes.len()));
        if let Err(error) = codec.push(now) {
            return (events, Err(error));
        }
        bytes = later;
    }
}

/// Joins data events that follow each other on a stream, since where they are cut means nothing.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), event) {
            (Some(Event::Data { stream: last, data: whole }), Event::Data { stream, data })
                if *last == stream =>
            {
                *whole = [&whole[..], &data[..]].concat().into()
            }
            (_, event) => out.push(event),
        }
    }
    out
}

fn data(stream: u32, bytes: &[u8]) -> Event {
    Event::Data { stream: StreamId(stream), data: bytes.to_vec().into() }
}
