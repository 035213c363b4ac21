//! The frames of the heartbeat session, byte by byte.
