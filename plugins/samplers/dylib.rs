//! The built-in samplers and schedules as a plugin library, for a host that was built without them.

// A crate that nothing names is not linked, and registers nothing.
use atelier_samplers as _;
