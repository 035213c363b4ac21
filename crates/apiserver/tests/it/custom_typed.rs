//! Custom kinds as programs use them with kube-rs.
