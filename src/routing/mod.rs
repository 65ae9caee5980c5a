//! Pure tables: topic to queue to broker, route data, auto-creation.
