//! Configuration: defaults, file, environment, flags; validation.
