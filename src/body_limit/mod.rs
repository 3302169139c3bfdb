//! body_limit
