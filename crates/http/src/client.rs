//! Client connections.
