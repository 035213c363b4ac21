//! A process with an open store is killed under load; what it was told is there must be there.
